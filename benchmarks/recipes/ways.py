"""The ways to train a student that are compared, each as its paper trains for a task."""

from collections.abc import Callable
from dataclasses import dataclass

from hf_distill import HiddenStateTerm, Objective, recipes
from hf_distill.layer_maps import layer_pairs


NUM_TEACHER_LAYERS = 6


@dataclass(frozen=True)
class Way:
    """Objectives for one training after another, each of which has an equal share of the steps."""

    stages: tuple[Objective | Callable[[int], Objective], ...]
    """Some for a student of that many layers."""
    how: str
    """In words."""

    @property
    def needs_teacher(self) -> bool:
        return any(not isinstance(stage, Objective) or stage.requires.teacher for stage in self.stages)

    def objectives(self, num_student_layers: int) -> list[Objective]:
        return [stage if isinstance(stage, Objective) else stage(num_student_layers) for stage in self.stages]


def beside_soft_labels(states: HiddenStateTerm) -> Objective:
    return Objective({"answers": (1.0, recipes.hinton()), "states": (1.0, states)})


def layer_by_layer(num_student_layers: int) -> Objective:
    return recipes.mobilebert_like(layer_pairs("uniform", num_student_layers, NUM_TEACHER_LAYERS))


WAYS = {
    "labels alone": Way((recipes.hinton(alpha=1.0),), "no teacher, but its layers to start from"),
    "soft labels": Way((recipes.hinton(),), "`hinton()`"),
    "DKD": Way((recipes.dkd(),), "`dkd()`"),
    "DIST": Way((recipes.dist(),), "`dist()`"),
    "DistilBERT": Way((recipes.distilbert(),), "`distilbert()`, the classifier's labels in place of masked words"),
    "PKD": Way((recipes.patient_kd(),), "`patient_kd()`"),
    "RKD": Way((recipes.rkd(pooled="first"),), '`rkd(pooled="first")`, of [CLS], which the classifier reads'),
    "TinyBERT": Way(
        (recipes.tinybert("layers"), recipes.tinybert("prediction")),
        '`tinybert("layers")`, then `tinybert("prediction")`; no data augmentation',
    ),
    "MiniLM": Way((recipes.minilm(), recipes.hinton()), "`minilm()` on the task's rows, then `hinton()`"),
    "MiniLMv2": Way((recipes.minilmv2(), recipes.hinton()), "`minilmv2()` on the task's rows, then `hinton()`"),
    "soft labels and hidden states": Way(
        (beside_soft_labels(HiddenStateTerm("uniform")),), '`hinton()` and `HiddenStateTerm("uniform")` at once'
    ),
    "MobileBERT": Way(
        (layer_by_layer,),
        '`mobilebert_like(layer_pairs("uniform", …))`: half of the steps are for one layer after another',
    ),
    "VID": Way((recipes.vid(),), "`vid()`"),
    "CRD": Way((recipes.crd(pooled="first"),), '`crd(pooled="first")`, of [CLS]'),
    "NST": Way((recipes.nst(),), "`nst()`"),
}
