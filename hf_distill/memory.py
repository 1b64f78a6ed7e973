"""What a process holds, counted before anything is run."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import TrainingArguments

from hf_distill.sharding import units_of


OPTIMIZER_STATES = {"adafactor": 0.0, "sgd": 0.0, "lion": 1.0, "rmsprop": 1.0, "adagrad": 1.0}
"""States per weight, by what the optimizer's name starts with; Adam's two where none fits."""

LOGIT_COPIES = 4
"""In float32: the class scores of student and teacher, and the log-probabilities of both."""

STUDENT_COPIES, TEACHER_COPIES = 4, 2
"""Of a block in shards while it runs. The student's: weights, those fetched ahead, gradients, and gradients on their
way to their shards. The teacher's: weights, and what they were fetched into."""


@dataclass(frozen=True)
class Memory:
    """What a process holds at least, in bytes. Activations come on top."""

    student: int
    """Its weights."""
    gradients: int
    """As many as there are weights that are trained."""
    optimizer: int
    """States per trained weight: 2 for Adam, 1 byte each for its 8-bit variants, 1 state for Lion, none for SGD."""
    teacher: int
    """The weights of all teachers that are models; nothing for the student's own."""
    logits: int
    """Class scores of student and teacher for one micro-batch: in the preflight those that it saw, in the dtype they
    are computed in (where training never holds those of all positions, of the positions that were rehearsed); in a
    plan with the log-probabilities of both, in float32."""
    gathered: int = 0
    """What shards are gathered into while a model runs: some blocks, and what belongs to no block."""

    @property
    def total(self) -> int:
        return self.student + self.gradients + self.optimizer + self.teacher + self.logits + self.gathered


def memory_estimate(
    student: nn.Module,
    teachers: Iterable[nn.Module] = (),
    args: TrainingArguments | None = None,
    *,
    num_positions: int = 0,
    num_classes: int = 0,
    num_shards: int = 1,
) -> Memory:
    """The memory of a process that trains a student beside its teachers, without activations.

        (student + gradients + optimizer + teachers) / num_shards + positions · classes · 4 copies · 4 bytes + gathered

    where, with several shards, the largest block of the student is held whole 4 times while it runs, that of a teacher
    twice, and what is in no block once.

    Only sizes are looked at, so the models may be on the device `meta`, as in plans for models that fit on no machine
    at hand. What is quantised is counted as it is stored.

    Args:
        student: its weights that want a gradient have gradients and states of an optimizer.
        teachers: all that are models.
        args: their `optim` is looked at; AdamW by default.
        num_positions: those of a micro-batch that the divergence reads.
        num_classes: of each position.
        num_shards: the processes over which weights, gradients and states are split; 1 under DDP.

    Example:

        >>> memory = memory_estimate(nn.Linear(1000, 100, bias=False), num_positions=8, num_classes=100)
        >>> memory.student, memory.gradients, memory.optimizer, memory.logits, memory.total
        (400000, 400000, 800000, 12800, 1612800)
    """
    teachers = list(teachers)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimizer = "adamw" if args is None else str(getattr(args.optim, "value", args.optim))
    states = next((number for name, number in OPTIMIZER_STATES.items() if name in optimizer), 2.0)
    is_small = "8bit" in optimizer
    running = [(student, STUDENT_COPIES), *((teacher, TEACHER_COPIES) for teacher in teachers)]
    of_optimizer = int(states * sum(p.numel() * (1 if is_small else p.element_size()) for p in trained))
    return Memory(
        student=_num_bytes(student.parameters()) // num_shards,
        gradients=_num_bytes(trained) // num_shards,
        optimizer=of_optimizer // num_shards,
        teacher=sum(_num_bytes(teacher.parameters()) for teacher in teachers) // num_shards,
        logits=num_positions * num_classes * LOGIT_COPIES * 4,
        gathered=max(_gathered(model, copies) for model, copies in running) if num_shards > 1 else 0,
    )


def _gathered(model: nn.Module, copies: int) -> int:
    """What stays gathered while the model runs, and the largest of the units that come and go."""
    units = units_of(model)
    in_units = {weight for unit in units for weight in unit.parameters()}
    largest = max((_num_bytes(unit.parameters()) for unit in units), default=0)
    return _num_bytes(weight for weight in model.parameters() if weight not in in_units) + copies * largest


def _num_bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
