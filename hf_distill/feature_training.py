"""`Trainer`, reading inside of student and teacher, with learned parts that are trained beside the student."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_pt_utils import LabelSmoother
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from hf_distill.errors import ConfigurationError, MissingTeacherError, UnsupportedModelError
from hf_distill.evaluation import ExactEvaluation
from hf_distill.feature_reading import FeatureReader, anatomy_of, check_checkpointing, reader_of
from hf_distill.feature_reading.learned_parts import load_whole_state, whole_state
from hf_distill.heads import MultiLabelHead
from hf_distill.objective import Objective
from hf_distill.teachers import CachedTeacher, OnlineTeacher, Teacher


LEARNED_PARTS = "learned_parts.safetensors"
"""The file of a checkpoint that holds the learned parts, beside the student's own."""


class FeatureTraining(ExactEvaluation):
    """The half of [`DistillationTrainer`] that reads inside of the models.

    Readers and learned parts hang on student and teacher only while it trains or evaluates.
    """

    model: nn.Module
    teacher: Teacher | None
    state: Any
    _readers: tuple[FeatureReader, ...] = ()

    def _bound(self, objective: Objective, shares_encoder: bool) -> Objective:
        """The objective for student and teacher. Learned parts stay while the student does.

        Raises:
            MissingTeacherError: if the teacher is neither a model nor a cache of its layers.
            ConfigurationError, UnsupportedModelError: if a term does not fit the two models.
        """
        if not objective.compares_layers:
            self._readers = ()
            return objective
        if self._readers and self._readers[0].model is self.model:
            return self.distillation_objective
        if not isinstance(self.teacher, (OnlineTeacher, CachedTeacher)):
            raise MissingTeacherError(
                f"the objective compares layers ({', '.join(objective.terms)}), and the teacher is a "
                f"{type(self.teacher).__name__}, which has none. Pass a model, an id or a path as `teacher=`."
            )
        if isinstance(self.teacher, OnlineTeacher) and self.teacher.model is self.model:
            raise MissingTeacherError(
                f"the objective compares layers ({', '.join(objective.terms)}), and the teacher, a "
                f"{type(self.teacher).__name__}, is the student itself, whose layers are read for one of the two "
                "alone. Pass a copy of the model as `teacher=`."
            )
        splits = {"tensor": self.get_tp_size(), "context": self.get_cp_size(), "sequence": self.get_sp_size()}
        if any(size > 1 for size in splits.values()):
            raise ConfigurationError(
                f"the objective compares layers ({', '.join(objective.terms)}), and these are split over processes by "
                f"{', '.join(f'{name} parallelism of {size}' for name, size in splits.items() if size > 1)}. Train "
                "with DDP or FSDP alone, or drop the terms that compare layers."
            )
        # Transformers 5.20 calls it gradient checkpointing.
        kind = "activation" if hasattr(self.args, "activation_checkpointing") else "gradient"
        if getattr(self.args, f"{kind}_checkpointing"):
            check_checkpointing(self.model, getattr(self.args, f"{kind}_checkpointing_kwargs"))
        bound = objective.bound(anatomy_of(self.model), self.teacher.anatomy)
        requires = bound.requires
        if isinstance(self.teacher, CachedTeacher):
            _read_kept_layers(self.teacher, bound)
        if shares_encoder and any(feature.side != "decoder" for feature in requires.student_features):
            raise ConfigurationError(
                "student and teacher share one frozen encoder, which runs once, so there is nothing to learn in it. "
                "Pass `side='decoder'` to the terms that compare layers."
            )
        with torch.random.fork_rng(devices=[]):  # the same parts whatever was drawn before, and the same draws after
            torch.manual_seed(self.args.seed)
            parts = bound.learned_parts()
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if parts and plugin is not None and plugin.cpu_ram_efficient_loading:
            raise ConfigurationError(
                f"the objective has learned parts ({', '.join(parts)}), and FSDP's cpu_ram_efficient_loading=True "
                "makes the model anew out of its state, of which they are no part. Set "
                "`fsdp_config={'cpu_ram_efficient_loading': False}`."
            )
        self._readers = (FeatureReader(self.model, requires.student_features, parts),)
        if isinstance(self.teacher, OnlineTeacher):
            self._readers += (FeatureReader(self.teacher.model, requires.teacher_features),)
        return bound

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        if trial is not None:  # `Trainer` reads the argument once, when it is made
            smooths = self.args.label_smoothing_factor != 0 and not isinstance(self.head, MultiLabelHead)
            self.label_smoother = LabelSmoother(epsilon=self.args.label_smoothing_factor) if smooths else None

    @contextmanager
    def reading_features(self) -> Iterator[None]:
        """Let student and teacher give the features that the objective reads, and the learned parts be parameters."""
        readers = [reader for reader in self._readers if reader_of(reader.model) is not reader]
        attached = []
        try:
            for reader in readers:
                reader.attach()
                attached.append(reader)
            yield
        finally:
            for reader in attached:
                reader.remove()

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> TrainOutput:
        with self.reading_features():
            if (checkpoint := kwargs.get("resume_from_checkpoint")) is not None:
                self._load_learned_parts(checkpoint)
            return super()._inner_training_loop(*args, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        with self.reading_features():
            return super().evaluation_loop(*args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._readers and len(self._readers[0].parts):
            state = whole_state(self._readers[0].parts)
            if self.args.should_save:
                save_file(state, Path(output_dir, LEARNED_PARTS))

    def _load_learned_parts(self, checkpoint: str | Path) -> None:
        if not self._readers or not len(self._readers[0].parts):
            return
        file = Path(checkpoint, LEARNED_PARTS)
        if not file.is_file():
            raise ConfigurationError(
                f"the objective has learned parts ({', '.join(self._readers[0].parts)}), and the checkpoint "
                f"{str(checkpoint)!r} has no {LEARNED_PARTS}. Resume with the objective that it was trained with, and "
                "save checkpoints without `save_only_model`."
            )
        load_whole_state(self._readers[0].parts, load_file(file))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if not self.args.save_only_model:
            self._load_learned_parts(self.state.best_model_checkpoint)


def _read_kept_layers(teacher: CachedTeacher, objective: Objective) -> None:
    """Let a cache give the layers that an objective reads.

    Raises:
        UnsupportedModelError: naming the terms that ask for more than it holds.
    """
    missing = teacher.read_features(objective.requires.teacher_features)
    kept: Any = teacher.cache.feature_records
    faults = []
    for name, weighted in objective.terms.items():
        asked = missing & weighted.term.requires.teacher_features
        if others := sorted({feature.kind for feature in asked} - {"hidden_states"}):
            faults.append(f"{name} reads {', '.join(others)}, which no cache holds: take a term of hidden states")
        elif asked:
            layers = sorted({(feature.side or "", feature.layer) for feature in asked})
            named = ", ".join(f"{side} {layer}".strip() for side, layer in layers)
            faults.append(f"{name} reads the layers {named}: cache them with `layers=`")
        elif weighted.term.requires.teacher_features and kept.pooled not in (
            None,
            getattr(weighted.term, "pooled", None),
        ):
            faults.append(
                f"{name} does not compare rows by their {kept.pooled!r}: cache every token with `pooled=None`"
            )
    if faults:
        holds = {side or "layers": list(layers) for side, layers in kept.layers.items()}
        of_each = "every token" if kept.pooled is None else f"one vector a row ({kept.pooled!r})"
        raise UnsupportedModelError(
            f"the cache {str(teacher.cache.path)!r} holds the hidden states of {holds}, {of_each}, and "
            f"{'; '.join(faults)}; or pass the model itself as `teacher=`."
        )
