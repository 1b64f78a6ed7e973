"""`Trainer`'s evaluation, with losses that are exact: sums over counts of the whole set."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from accelerate.data_loader import IterableDatasetShard
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput, unwrap_peft_model
from transformers.utils import logging

from hf_distill.checkpoint_keeping import CheckpointKeeping
from hf_distill.heads import Head
from hf_distill.heads.base import at_least_float32, num_rows
from hf_distill.objective import Objective
from hf_distill.tally import Tally, first_rows, is_packed
from hf_distill.terms import HardLabelTerm
from hf_distill.training_args import DistillationTrainingArguments
from hf_distill.types import IGNORED_LABEL, Batch, Positions, Requirements, Signals, TermLoss, Unit


logger = logging.get_logger(__name__)


CROSS_ENTROPY = "cross_entropy"
"""The name under which it is summed up, where a perplexity cannot be made of the labels' loss."""


class ExactEvaluation(CheckpointKeeping):
    """The half of [`DistillationTrainer`] that evaluates. While it does, `_evaluation` holds the sums."""

    args: DistillationTrainingArguments
    head: Head
    distillation_objective: Objective
    """Not `objective`: there Transformers keeps the number that a hyperparameter search optimises."""
    _evaluation: Tally | None = None
    _prediction_loss_only = False
    _compare: Callable[..., tuple[Signals, Signals | None, Positions, Any]]
    _student_inputs: Callable[[Batch], dict[str, Any]]
    _progress: Callable[[], float]

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """`Trainer`'s loop, with losses that are sums over counts of the whole set."""
        if isinstance(dataloader.dataset, IterableDatasetShard):
            logger.warning_once(
                "The evaluation data is a stream that each process reads for itself, so rows are repeated to fill up "
                "the last batch. Nobody knows how many, and they count twice. To be exact, let one process read for "
                "all (`dispatch_batches=True` in `accelerator_config`, the default), or give the stream as many "
                "shards as there are processes."
            )
        self._evaluation = Tally()
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            means = self._evaluation.means(self.accelerator)
        finally:
            self._evaluation = None
        exact = {f"{metric_key_prefix}_{name}": value for name, value in self._metrics(means).items()}
        return output._replace(metrics={**(output.metrics or {}), **exact})

    def _metrics(self, means: dict[str, float]) -> dict[str, float]:
        metrics = dict(means)
        terms = [f"loss/{name}" for name in self.distillation_objective.terms]
        if all(name in means for name in terms):
            weights = self.distillation_objective.weights(self._progress()).values()
            metrics["loss"] = sum(weight * means[name] for name, weight in zip(terms, weights, strict=True))
        is_own_loss = self.label_smoother is None and self.compute_loss_func is None
        label_loss = metrics.pop(CROSS_ENTROPY, means.get(f"loss/{self._label_term}"))
        if self.head.is_language_model and is_own_loss and label_loss is not None:
            metrics["perplexity"] = math.exp(min(label_loss, 700.0))
        return metrics

    @property
    def _label_term(self) -> str:
        """The name under which the labels' loss is reported."""
        terms = self.distillation_objective.terms.items()
        return next((name for name, weighted in terms if isinstance(weighted.term, HardLabelTerm)), "labels")

    def _tally(
        self,
        tally: Tally,
        model: nn.Module,
        batch: Batch,
        requires: Requirements,
        losses: dict[str, TermLoss],
        signals: tuple[Signals, Signals | None, Positions],
        agreeing: Tensor | None = None,
    ) -> None:
        """Add one evaluation batch, without the rows that `even_batches` repeats to fill up the last one.

        Args:
            agreeing: at how many positions both choose the same class, where their logits are not there.
        """
        real_rows = self._num_real_rows(batch)
        if real_rows is not None:
            student, teacher, where, _ = self._compare(model, first_rows(batch, max(real_rows, 1)), requires)
            signals = student, teacher, where
            losses = self.distillation_objective(student, teacher, where, self._progress())
        student, teacher, where = signals
        named = {f"loss/{name}": loss for name, loss in losses.items()}
        if student.label_loss is not None:
            named.setdefault(f"loss/{self._label_term}", TermLoss(student.label_loss, where.counts[Unit.LABEL]))
        if agreeing is not None:
            named["agreement"] = TermLoss(agreeing, where.counts[Unit.POSITION])
        elif self.args.report_agreement and teacher is not None and self.head.is_distribution:
            agree = (student.logits.argmax(-1) == teacher.logits.argmax(-1)).float()
            share = agree.reshape(*where.mask.shape, -1).mean(-1)  # a position may have several rows of scores
            named["agreement"] = TermLoss((share * where.mask).sum(), where.counts[Unit.POSITION])
        if self._adds_to_its_loss and student.label_loss is not None and where.targets is not None:
            named[CROSS_ENTROPY] = _cross_entropy(student, where)
        if real_rows == 0:
            named = {name: TermLoss(total * 0, count * 0) for name, (total, count) in named.items()}
        tally.add(named)

    @property
    def _adds_to_its_loss(self) -> bool:
        """Whether the own loss of a language model is more than the cross-entropy that a perplexity is made of: it
        balances experts, or predicts several tokens at once."""
        config: Any = getattr(unwrap_peft_model(self.model), "config", None)
        if config is None or not self.head.is_language_model:
            return False
        routes = any(getattr(each, "output_router_logits", False) for each in (config, config.get_text_config()))
        return routes or config.model_type == "prophetnet"

    def _after_a_loss(self, outputs: Any, requires: Requirements) -> Any:
        """Outputs for `Trainer`, which makes predictions of all but the first entry where they are no mapping."""
        if self._evaluation is None or isinstance(outputs, Mapping):
            return outputs
        if isinstance(outputs, tuple):
            return outputs if requires.labels else (None, *outputs)
        return None, outputs

    def _needs_losses_alone(self, batch: Batch) -> bool:
        """Whether nothing but sums of losses is made of the logits of an evaluation batch, all of whose rows count."""
        terms = [weighted.term for weighted in self.distillation_objective.terms.values()]
        reads_labels = any(isinstance(term, HardLabelTerm) for term in terms)
        is_told = reads_labels or not self.head.has_labels(batch)  # else their loss is one more
        return self._prediction_loss_only and is_told and self._num_real_rows(batch) is None

    def _num_real_rows(self, batch: Batch) -> int | None:
        """How many rows of this process's last batch are its own; None if all are."""
        state = self.accelerator.gradient_state
        if self.accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return None
        if is_packed(batch):
            logger.warning_once(
                "A batch holds the images of all rows in one tensor, so rows that are repeated to fill up the last "
                "batch of an evaluation cannot be left out of it and count twice. Evaluate on one process to be exact."
            )
            return None
        size = num_rows(batch)
        own: int = state.remainder - self.accelerator.process_index * size
        return min(max(own, 0), size)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """`Trainer`'s step, which also measures text without labels if the objective reads none."""
        self._prediction_loss_only = prediction_loss_only
        if self.label_names and all(inputs.get(name) is not None for name in self.label_names):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if self.distillation_objective.requires.labels and not self.head.has_labels(inputs):
            return super().prediction_step(model, self._student_inputs(inputs), prediction_loss_only, ignore_keys)
        label_names, can_return_loss = self.label_names, self.can_return_loss
        self.label_names, self.can_return_loss = [], True
        try:
            loss, logits, _ = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        finally:
            self.label_names, self.can_return_loss = label_names, can_return_loss
        return loss, logits, None


def _cross_entropy(student: Signals, where: Positions) -> TermLoss:
    """Of what the student says with what the labels name."""
    targets: Any = where.targets
    counted = targets.masked_fill(~where.mask, IGNORED_LABEL).flatten()
    scores = at_least_float32(student.logits).flatten(0, -2)
    return TermLoss(cross_entropy(scores, counted, reduction="sum"), (counted != IGNORED_LABEL).sum())
