"""`Trainer`'s logs, with the loss of every term, which a resumed run continues where its checkpoint left them."""

from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.checkpoints import OWN_ENTRY
from hf_distill.feature_training import FeatureTraining


class TermLogging(FeatureTraining):
    """The half of [`DistillationTrainer`] that logs. `_log_window` holds each term's sum since the last log."""

    _log_window: Tensor
    _term_logs: dict[str, float]
    _unlogged: dict[str, Any] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._term_logs, self._unlogged = {}, None
        super().__init__(*args, **kwargs)

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:  # type: ignore[override]  # called by keyword
        if self._unlogged is not None:
            self._restore_log_window(self._unlogged)
            self._unlogged = None
        super()._run_epoch(epoch=epoch, **kwargs)  # type: ignore[no-untyped-call]

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        if self.control.should_log and self.state.global_step > self._globalstep_last_logged:
            steps = self.state.global_step - self._globalstep_last_logged
            means = (self.accelerator.reduce(self._log_window, "mean") / steps).tolist()
            self._term_logs = {
                f"loss/{name}": mean for name, mean in zip(self.distillation_objective.terms, means, strict=True)
            }
            self._term_logs |= self.distillation_objective.log_values(self._progress())
            self._log_window.zero_()
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """`Trainer`'s, with the terms' means since the last log."""
        logs |= self._term_logs
        self._term_logs = {}
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        window = self.accelerator.reduce(torch.cat((self._log_window, self._tr_loss[None])), "mean")
        scales = {name: weighted.scale for name, weighted in self.distillation_objective.terms.items()}
        unlogged = {"since_step": self._globalstep_last_logged, "sums": window.tolist(), "scales": scales}
        self.state.stateful_callbacks[OWN_ENTRY] = {"args": {}, "attributes": unlogged}
        super()._save_checkpoint(model, trial)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        self._log_window.zero_()
        self._unlogged = None
        start: tuple[int, int] = super()._init_training_state(*args, **kwargs)
        return start

    def _load_callback_state(self) -> None:
        """Take our own entry out first: no callback will ask for it."""
        self._unlogged = self.state.stateful_callbacks.pop(OWN_ENTRY, None)
        super()._load_callback_state()

    @property
    def _resumed_scales(self) -> dict[str, float] | None:
        """The balanced weights' scales in the checkpoint that training goes on from, if it goes on from one."""
        return None if self._unlogged is None else self._unlogged["attributes"]["scales"]

    def _restore_log_window(self, unlogged: dict[str, Any]) -> None:
        """Continue the sums where the checkpoint left them, so that the next log equals an uninterrupted run's."""
        *terms, loss = unlogged["attributes"]["sums"]
        self._globalstep_last_logged = unlogged["attributes"]["since_step"]
        self._log_window += torch.tensor(terms, device=self._log_window.device)
        self._tr_loss += loss
        self._total_loss_scalar -= loss  # this run's mean loss is over this run's steps
