"""A teacher that runs beside the student."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.cache import is_cache
from hf_distill.cache.manifest import weight_hash
from hf_distill.errors import MissingInputError, UntrainedTeacherError
from hf_distill.feature_reading import anatomy_of, outputs_and_features, reader_of
from hf_distill.heads import Head
from hf_distill.heads.alignment import Alignment
from hf_distill.raw_columns import modalities
from hf_distill.sharding import is_sharded, shard
from hf_distill.teachers.base import Teacher
from hf_distill.teachers.cached import CachedTeacher
from hf_distill.teachers.reading import as_read_by_teacher
from hf_distill.types import TEACHER_POSITIONS, Anatomy, Batch, Signals


def check_trained(teacher: PreTrainedModel, missing_keys: Iterable[str], head: Head) -> None:
    """What is compared depends on no weight that the checkpoint of a teacher lacks.

    Raises:
        UntrainedTeacherError: if it does.
    """
    if missing := sorted(filter(head.reads_weight, missing_keys)):
        raise UntrainedTeacherError(
            f"teacher {teacher.name_or_path!r} has no weights for {len(missing)} parameters of "
            f"{type(teacher).__name__} (first: {missing[0]!r}), so they were drawn at random and teach noise. "
            "Fine-tune the teacher on this task first, and pass the result as `teacher=`."
        )


class OnlineTeacher(Teacher):
    """A model that answers every batch: frozen, in eval mode, and never part of the optimizer or a checkpoint.

    Args:
        model: the teacher. It is frozen and put in eval mode in place.
        head: how to read its outputs; the student's own, since only outputs of one kind can be compared.

    Its answers are computed without gradient, in the teacher's own dtype or the Trainer's mixed precision. `alignment`
    brings them onto the student's classes; the Trainer sets it.
    """

    may_download = False
    """Whether its tokenizer is looked for beyond this machine."""
    reads_apart = False
    """Whether it reads rows by a tokenizer or processor of its own, so that its tokens need not be the student's."""
    _autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __init__(self, model: PreTrainedModel, head: Head) -> None:
        self._ask(model.requires_grad_(False).eval(), head)

    def _ask(self, model: PreTrainedModel, head: Head) -> None:
        self.model = model
        self.head = head
        self.alignment = Alignment()
        self.device = model.device
        self._modules = tuple(model.modules())
        self.is_sharded = is_sharded(model)
        self._infers = not head.is_language_model  # whose scores are too large for the copy that it takes
        self.is_spread = getattr(model, "hf_device_map", None) is not None
        parameters = inspect.signature(unwrap_peft_model(model).forward).parameters
        names = {name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
        self._input_names = frozenset(names - {*head.label_names, "labels"})
        self._constants = {"use_cache": False} if "use_cache" in names else {}

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, head: Head) -> "OnlineTeacher":
        """A teacher by Hub id or local path, in the dtype it was saved in.

        Raises:
            UntrainedTeacherError: if the checkpoint lacks weights of the head, which would then be random.
        """
        model, loading = head.auto_class.from_pretrained(name_or_path, dtype="auto", output_loading_info=True)
        check_trained(model, loading["missing_keys"], head)
        teacher = cls(model, head)
        teacher.may_download = True
        return teacher

    @property
    def input_names(self) -> frozenset[str]:
        return self._input_names

    @property
    def anatomy(self) -> Anatomy:
        """Its stacks of blocks, whose layers can be read."""
        return anatomy_of(self.model)

    @property
    def name_or_path(self) -> str | None:
        """Where its tokenizer may be."""
        return self.model.name_or_path

    @property
    def config(self) -> Any:
        """The configuration of its model."""
        model: Any = unwrap_peft_model(self.model)
        return model.config

    def identity(self) -> dict[str, Any]:
        """What a manifest says of the teacher."""
        model: Any = unwrap_peft_model(self.model)
        revision = getattr(model.config, "_commit_hash", None)
        name = {"class": type(model).__name__, "name": str(model.name_or_path), "revision": revision}
        return {**name, "weights": weight_hash(self.model)}

    def save_configuration(self, folder: Path) -> None:
        """Write the configuration of the teacher's model."""
        self.config.save_pretrained(folder)

    def prepare(self, accelerator: Accelerator) -> None:
        """Follow the student: its mixed precision, its device, and its sharding where Accelerate shards by FSDP2.

        A teacher that is quantised, spread over devices or sharded already stays where it is; only its answers move.
        """
        self._autocast = accelerator.autocast
        self.device = accelerator.device
        if self.is_sharded:
            return
        if getattr(accelerator.state, "fsdp_plugin", None) is not None:
            self.shard()
        elif not self.is_spread and not getattr(self.model, "is_quantized", False):
            self.model.to(accelerator.device)

    def shard(self) -> None:
        """Shard the teacher over all processes, block by block, so that none ever holds it whole.

        The student's FSDP plugin cannot do this: its wrap policy names the student's classes.
        """
        shard(self.model)
        self.is_sharded = True

    def in_full_precision(self, dtype: torch.dtype) -> None:
        """Compute in `dtype` from now on, without the Trainer's mixed precision."""
        model: Any = self.model
        model.to(dtype)
        self._autocast = nullcontext

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """What the teacher's model is called with.

        Raises:
            MissingInputError: if the batch lacks the teacher's main input.
        """
        batch = as_read_by_teacher(batch, self._input_names)
        inputs = {name: batch[name] for name in self._input_names if batch.get(name) is not None}
        main = self.model.main_input_name
        readable = {main, "inputs_embeds"}
        if main == "inputs":  # of models that also read texts, images or sounds by the name that these have elsewhere
            readable.update(*(modality.inputs for modality in modalities(self._input_names)))
        if not readable & inputs.keys():
            raise MissingInputError(
                f"the teacher {type(self.model).__name__} reads {main!r}, and the batch has "
                f"only {sorted(batch)}. Add that column to the data set (columns that only the teacher takes are "
                "kept), or choose a teacher that reads the student's inputs."
            )
        return inputs | self.head.derived_inputs(self.model, batch) | self._constants

    def signals(self, batch: Batch) -> Signals:
        """What the teacher says about a batch.

        Raises:
            MissingInputError: if the batch lacks the teacher's main input.
        """
        batch = as_read_by_teacher(batch, self._input_names)
        inputs = self.inputs(batch)
        if any(module.training for module in self._modules):  # a callback may have put a part of it in train mode
            self.model.eval()
        # An inference tensor cannot be kept for the backward pass of a term; its copy can, which features are too
        # large for, as are scores over a vocabulary.
        # FSDP2 gathers weights into tensors that it writes to again, which inference forbids.
        infers = self._infers and not self.is_sharded and reader_of(self.model) is None
        with torch.no_grad(), torch.inference_mode(infers), self._autocast():
            if self.is_spread and self.model.device.type != "meta":  # where Accelerate moves them
                inputs = send_to_device(inputs, self.model.device)
            outputs, features = outputs_and_features(self.model, self.model, inputs)
            if self.is_spread:
                outputs, features = send_to_device((outputs, features), self.device)
            signals = replace(self.alignment.of_teacher(self.head.signals(outputs, batch)), features=features)
        if (positions := batch.get(TEACHER_POSITIONS)) is not None:
            rows = torch.arange(len(positions), device=positions.device)[:, None]
            return replace(signals, logits=signals.logits[rows, positions.clamp(min=0)])
        boxes = None if signals.boxes is None else signals.boxes.clone()
        return replace(signals, logits=signals.logits.clone(), boxes=boxes) if infers else signals


def as_teacher(teacher: Any, head: Head) -> Teacher:
    """A teacher made of a model, a Hub id, a local path or a cache, read by `head`; any [`Teacher`] as it is."""
    if isinstance(teacher, Teacher):
        return teacher
    if isinstance(teacher, (str, Path)) and is_cache(teacher):
        return CachedTeacher(teacher)
    if isinstance(teacher, (str, Path)):
        return OnlineTeacher.from_pretrained(teacher, head)
    return OnlineTeacher(teacher, head)
