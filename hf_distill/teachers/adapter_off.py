"""A student of PEFT whose teacher is the model below its adapter: one set of weights for both."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.heads import Head
from hf_distill.teachers.online import OnlineTeacher
from hf_distill.types import Batch, Signals


class AdapterOffTeacher(OnlineTeacher):
    """The student itself with its adapter switched off: what it was before it learnt, without a second copy of it.

    It needs no model: it takes the student that the Trainer has. To answer, the student is put in eval mode and its
    adapter is switched off; then every module's mode, every adapter and what is trained are as before, also after an
    error. Modules that PEFT keeps a trained copy of (`modules_to_save`, such as a classifier) answer by the original.

        DistillationTrainer(model=get_peft_model(model, LoraConfig(…)), teacher=AdapterOffTeacher(), …)
    """

    def __init__(self) -> None:
        """Nothing is known before the student is met."""

    def meet(self, student: nn.Module, head: Head) -> None:
        """Take the student as the model to ask.

        Raises:
            UnsupportedModelError: if it has no adapter of PEFT in its layers.
            ConfigurationError: if weights are trained that answer with the adapter off too, so that the teacher would
                change with the student.
        """
        model: Any = student
        config = getattr(model, "active_peft_config", None)
        if config is None or config.is_prompt_learning:
            raise UnsupportedModelError(
                f"`AdapterOffTeacher` is the student without its adapter, and {type(student).__name__} has none in "
                "its layers. Give it one with `peft.get_peft_model` (LoRA and its like; a learnt prompt is none), or "
                "pass another teacher."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of biases that are trained in place, which is refused below
            with adapter_off(model):
                trained = [name for name, weight in model.get_base_model().named_parameters() if weight.requires_grad]
        if trained:
            raise ConfigurationError(
                f"the student trains {len(trained)} weights that answer with its adapter off too (first: "
                f"{trained[0]!r}), so `AdapterOffTeacher` would change with it. Freeze them (`bias='none'` in the "
                "adapter's configuration), or pass a copy of the model as `teacher=`."
            )
        self._ask(model, head)
        self._infers = False  # what a forward keeps in buffers must serve the student's backward pass

    def prepare(self, accelerator: Accelerator) -> None:
        """Follow the student's mixed precision; it is where the student is.

        Raises:
            ConfigurationError: if the student is sharded, so that its weights would have to be gathered for it.
        """
        kind = accelerator.distributed_type
        if self.is_sharded or kind in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise ConfigurationError(
                "`AdapterOffTeacher` asks the student apart from its own forward, and "
                f"{'its DistributedConfig' if self.is_sharded else kind} shards the student's weights. Pass a copy of "
                "the model as `teacher=`."
            )
        self._autocast, self.device = accelerator.autocast, accelerator.device

    def signals(self, batch: Batch) -> Signals:
        with adapter_off(self.model):
            return super().signals(batch)


@contextmanager
def adapter_off(model: Any) -> Iterator[None]:
    """Run the body with a PEFT model's adapters off and in eval mode, then put back modes and what is trained."""
    modes = {module: module.training for module in model.modules()}
    is_trained = {weight: weight.requires_grad for weight in model.parameters()}
    try:
        with model.disable_adapter():
            model.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for weight, requires_grad in is_trained.items():
            weight.requires_grad_(requires_grad)
