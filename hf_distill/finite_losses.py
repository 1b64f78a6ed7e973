"""`Trainer`, ending at a loss that is infinite or no number, and saying where that comes from."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging
from transformers.utils.import_utils import is_torch_xla_available

from hf_distill.errors import NonFiniteError
from hf_distill.rehearsal import obstacle
from hf_distill.teachers import online_teachers
from hf_distill.term_logging import TermLogging
from hf_distill.trial_batches import leaving_no_trace
from hf_distill.types import Batch


logger = logging.get_logger(__name__)


class FiniteLosses(TermLogging):
    """The half of [`DistillationTrainer`] that looks at each loss, before the weights are changed by it.

    It looks where `Trainer` does, so it waits for no accelerator that is not waited for anyhow: after every
    micro-batch, or with `logging_nan_inf_filter=False` only when it logs.
    """

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """`Trainer`'s.

        Raises:
            NonFiniteError: if the loss is not finite. With a gradient scaler, which leaves the step out, it is a
                warning.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.args.logging_nan_inf_filter and not is_torch_xla_available() and not loss.isfinite():
            found = "; ".join(self._origins(inputs))
            self._complain(
                f"the loss of a micro-batch of step {self.state.global_step + 1} is {loss.item()} on process "
                f"{self.args.process_index}: {found}. The weights are still those of before this step. Look at these "
                "rows, lower the learning rate, or compute in bfloat16 or float32 where it is float16 that overflows."
            )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """`Trainer`'s.

        Raises:
            NonFiniteError: if a loss is not finite that was not looked at before.
        """
        if not self.args.logging_nan_inf_filter and "loss" in logs:
            values = {"loss": logs["loss"], **self._term_logs}
            wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
            if wrong:
                self._complain(
                    f"of the losses up to step {self.state.global_step} these are not finite: "
                    f"{', '.join(f'{name} is {value}' for name, value in wrong.items())}. The weights may be spoilt. "
                    "Go on from the last checkpoint with `logging_nan_inf_filter=True`, which finds rows and layers."
                )
        super().log(logs, start_time)

    def _complain(self, message: str) -> None:
        if getattr(self.accelerator, "scaler", None) is None:
            raise NonFiniteError(message)
        logger.warning(f"{message[0].upper()}{message[1:]} The gradient scaler leaves the step out.")

    def _origins(self, inputs: dict[str, Any]) -> list[str]:
        """What is not finite in the batch, in the weights, and when the batch is run once more."""
        batch = self._prepare_inputs(inputs)
        found = [f"{name!r} of the batch is not finite{_in_rows(value, batch)}" for name, value in _not_finite(batch)]
        if (reason := obstacle(self)) is not None:
            return [*found, f"the batch is not run once more to find the layer, since {reason}"]
        teachers = [each.model for each in online_teachers(self.teacher) if each.model is not self.model]
        models = {"student": self.model}
        models |= {"teacher" if len(teachers) == 1 else f"teacher {i}": each for i, each in enumerate(teachers, 1)}
        for who, model in models.items():
            spoilt = _not_finite(dict(model.named_parameters()))
            if spoilt:
                found.append(f"{len(spoilt)} weights of the {who} are not finite, the first is {spoilt[0][0]!r}")
        first: dict[str, str] = {}
        with leaving_no_trace(self.model), torch.no_grad(), self.compute_loss_context_manager():
            with _watching(models, batch, first):
                student, teacher, where, _ = self._compare(self.model, batch, self.distillation_objective.requires)
            losses = self.distillation_objective(student, teacher, where, self._progress())
        found += [f"the {who} is first not finite {place}" for who, place in first.items()]
        found += [
            f"term {name!r} is {loss.total.item()}" for name, loss in losses.items() if not loss.total.isfinite()
        ]
        return found or ["run once more, without dropout, it is finite"]


@contextmanager
def _watching(models: dict[str, nn.Module], batch: Batch, first: dict[str, str]) -> Iterator[None]:
    """While the body runs, write down in `first` after which module each model's numbers are first not finite."""

    def watch(who: str, name: str, module: nn.Module) -> Any:
        def look(module: nn.Module, given: Any, returned: Any) -> None:
            if who not in first and (bad := _not_finite({"": returned})):
                before = ", which is given such numbers" if _not_finite({"": given}) else ""
                first[who] = f"after {name!r} ({type(module).__name__}{before}){_in_rows(bad[0][1], batch)}"

        return module.register_forward_hook(look)

    handles = [watch(who, name, module) for who, model in models.items() for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _not_finite(values: dict[str, Any]) -> list[tuple[str, Tensor]]:
    """Tensors that hold an infinite number or none, in whatever tuples and outputs they lie."""
    found: list[tuple[str, Tensor]] = []
    for name, value in values.items():
        if isinstance(value, Tensor):
            found += [(name, value)] if value.is_floating_point() and not value.isfinite().all() else []
        elif isinstance(value, (tuple, list)):
            found += _not_finite({f"{name}[{index}]": each for index, each in enumerate(value)})
        elif isinstance(value, dict):
            found += _not_finite({f"{name}.{key}": each for key, each in value.items()})
    return found


def _in_rows(tensor: Tensor, batch: Batch) -> str:
    """Which rows of the batch it is, where the tensor has rows."""
    num_rows = next((len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim), 0)
    if tensor.ndim == 0 or len(tensor) != num_rows:
        return ""
    rows = (~tensor.isfinite()).view(num_rows, -1).any(1).nonzero().flatten().tolist()
    return f" in rows {rows} of {num_rows}"
