"""The arguments of a distillation: everything that `TrainingArguments` has, one of them with another default, and four
more."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from hf_distill.errors import ConfigurationError
from hf_distill.schedules import is_finite_number


@dataclass
class DistillationTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with the temperature and the balance of a distillation.

    L = alpha · L_labels + (1 − alpha) · T² · KL(teacher_T ‖ student_T)

    Raises:
        ConfigurationError: if the temperature is not above 0, alpha not between 0 and 1, or a switch neither True nor
            False; all are named at once.
    """

    temperature: float = field(
        default=2.0,
        metadata={
            "help": "T of the soft targets, above 0. Higher shows more of what the teacher thinks of the classes that "
            "it does not choose. Its loss is multiplied by T², so alpha means the same at every temperature."
        },
    )
    alpha: float = field(
        default=0.5,
        metadata={
            "help": "Weight of the student's own loss on the labels, from 0 to 1; the soft targets weigh 1 - alpha. "
            "0 needs no labels, 1 needs no teacher."
        },
    )
    report_agreement: bool = field(
        default=False,
        metadata={
            "help": "Whether evaluation also reports how often student and teacher choose the same class. Runs the "
            "teacher over the evaluation set even where alpha is 1."
        },
    )

    preflight: bool = field(
        default=True,
        metadata={
            "help": "Whether to rehearse one step before the first one: print how much each term pulls, whether the "
            "teacher is better than chance, and the memory needed. It changes nothing in the training."
        },
    )

    train_sampling_strategy: str = field(
        default="auto",
        metadata={
            "help": "Sampler for training. 'auto' puts rows of text of about one length into a batch, where their "
            "tokens are in the data set already. Elsewhere, and where rows of a batch are compared with each other, "
            "it is 'random'. The others are those of Transformers: 'random', 'sequential', 'group_by_length' and "
            "'batch_rebalance'.",
            "choices": ["auto", "random", "sequential", "group_by_length", "batch_rebalance"],
        },
    )

    def __post_init__(self) -> None:
        faults = []
        if not (is_finite_number(self.temperature) and self.temperature > 0):
            faults.append(
                f"temperature must be above 0, got {self.temperature!r}; 1 compares the plain probabilities, 2 to 4 "
                "are usual"
            )
        if not (is_finite_number(self.alpha) and 0 <= self.alpha <= 1):
            faults.append(
                f"alpha must lie between 0 (teacher alone) and 1 (labels alone), got {self.alpha!r}; for weights that "
                "do not sum to 1 pass `objective=` to the trainer"
            )
        faults += [
            f"{name} must be True or False, got {value!r}"
            for name, value in (("report_agreement", self.report_agreement), ("preflight", self.preflight))
            if not isinstance(value, bool)
        ]
        if faults:
            raise ConfigurationError("; ".join(faults) + ".")
        self.temperature, self.alpha = float(self.temperature), float(self.alpha)  # a search casts to their type
        super().__post_init__()  # type: ignore[no-untyped-call]
