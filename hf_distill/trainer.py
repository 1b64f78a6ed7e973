"""`Trainer`, with a teacher."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainingArguments
from transformers.modeling_outputs import BaseModelOutput
from transformers.trainer_utils import has_length
from transformers.utils import logging

from hf_distill import preflight, rehearsal
from hf_distill.balance import balancing_scales
from hf_distill.chunked_training import chunked_heads
from hf_distill.errors import ConfigurationError, MissingTeacherError, UnsupportedModelError
from hf_distill.feature_reading import outputs_and_features
from hf_distill.head_positions import HeadRows, head_rows, hooked_models
from hf_distill.heads import CausalLMHead, Head, head_of
from hf_distill.heads.alignment import check_positions
from hf_distill.heads.classification import check_class_indices
from hf_distill.objective import Objective
from hf_distill.position_tables import max_positions
from hf_distill.publishing import Publishing
from hf_distill.raw_columns import raw_columns
from hf_distill.recipes import hinton
from hf_distill.refused_batches import check_recordings, check_token_ids
from hf_distill.stream_resuming import StreamResuming
from hf_distill.teacher_inputs import DataCollatorWithTeacherInputs, TeacherInputs, TeacherPositions
from hf_distill.teachers import (
    CachedTeacher,
    CompositeTeacher,
    EnsembleTeacher,
    ServedTeacher,
    Teacher,
    as_teacher,
    known_teachers,
    online_teachers,
)
from hf_distill.teachers.reading import as_read_by_teacher, encodes_alike, share_frozen_encoder
from hf_distill.training_args import DistillationTrainingArguments
from hf_distill.trial_batches import sampled_rows
from hf_distill.types import TEACHER_POSITIONS, TEACHER_PREFIX, Batch, Positions, Requirements, Signals, Unit


logger = logging.get_logger(__name__)

NUM_COLUMN_ROWS = 8
"""Rows that are looked at to find the raw columns of the teacher."""


class DistillationTrainer(StreamResuming, Publishing):
    """`transformers.Trainer` whose student imitates a teacher.

        L = Σ over terms of weight · (sum of the term) / (number of its units)

    The units are counted over the whole accumulated batch and all processes, so that the gradient does not depend on
    how a batch is split or padded.

    Args:
        model: the student, as in `Trainer`.
        args: the arguments; `temperature` and `alpha` make the default objective, [`recipes.hinton`].
        teacher: a model, a Hub id, a local path, the folder of a cache ([`cache_teacher`]), any [`teachers.Teacher`],
            or a list of these, which is an ensemble.
            It is frozen and put in eval mode, and follows the student's device, precision and sharding. Optional if
            the objective reads no teacher.
        objective: what to learn instead of the default.
        head: how to read the outputs of a model that we do not know.
        teacher_processing_class: the teacher's own tokenizer, image processor, feature extractor or processor, where
            it reads other inputs than the student's. It is applied to the raw columns of the data set, batch by batch.
        teacher_columns: the raw columns that it reads, where they cannot be told by what they hold.
        **trainer_arguments: everything else that `Trainer` takes.

    Logs, besides what `Trainer` logs: `loss/<term>` (unweighted), and the weights and temperatures that move.
    Evaluation gives the exact `eval_loss`, `eval_loss/<term>`, `eval_perplexity` for language models (not
    where label smoothing or `compute_loss_func` replace their loss), and `eval_agreement` if `args.report_agreement`.

    Raises:
        DistillationError: one of its kinds, before the first step, for what would otherwise go silently wrong.
    """

    loss_is_scaled_for_ga = True

    model: nn.Module
    state: Any
    _signature_columns: Any

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: DistillationTrainingArguments | None = None,
        *,
        teacher: PreTrainedModel | str | Path | Teacher | Sequence[Any] | None = None,
        objective: Objective | None = None,
        head: Head | None = None,
        teacher_processing_class: Any = None,
        teacher_columns: str | Sequence[str] | None = None,
        **trainer_arguments: Any,
    ) -> None:
        if args is None:
            args = DistillationTrainingArguments(output_dir="tmp_trainer")
        _check_arguments(args, objective)
        self._counted: list[tuple[Batch, Positions]] = []
        self._given_objective, self._given_head = objective, head
        super().__init__(model, args, **trainer_arguments)
        self.head = head or head_of(self.model)
        if isinstance(teacher, (list, tuple)):
            teacher = EnsembleTeacher(teacher)
        preflight.check_apart(self.model, teacher)
        self.teacher = None if teacher is None else as_teacher(teacher, self.head)
        self.teacher_processing_class = teacher_processing_class
        self._named_columns = (teacher_columns,) if isinstance(teacher_columns, str) else teacher_columns
        self._teacher_inputs: TeacherInputs | None = None
        self._teacher_positions: TeacherPositions | None = None
        self._tokenizers: Any = None
        self._bind()
        preflight.check_datasets(self.train_dataset, self.eval_dataset)
        self._find_teacher_inputs(self.train_dataset if self.train_dataset is not None else self.eval_dataset)
        if self.teacher is not None:
            self.teacher.prepare(self.accelerator)

    def _bind(self) -> None:
        """Fit objective, student and teacher together: at first, and again when a search has changed any of them."""
        self.head = self._given_head or head_of(self.model)
        objective = self._given_objective or hinton(self.args.temperature, self.args.alpha)
        self._signature_columns = None
        self._batch_checked = False
        self._heads_take_rows: bool | None = None
        self._heads_are_chunked: bool | None = None
        terms = [weighted.term for weighted in objective.terms.values()]
        self._unit_of_term = torch.tensor([list(Unit).index(term.unit) for term in terms], device=self.args.device)
        self._log_window = torch.zeros(len(terms), device=self.args.device)
        self._sent_weights: tuple[tuple[tuple[float, ...], torch.dtype], Tensor] | None = None
        if self.teacher is None and (objective.requires.teacher or self.args.report_agreement):
            raise MissingTeacherError(
                f"the objective reads a teacher ({', '.join(objective.terms)}), and there is none. "
                "Pass a model, an id or a path as `teacher=`, or train on the labels alone with `alpha=1`."
            )
        preflight.check_same_tokens(objective, self.teacher_processing_class)
        preflight.check_replaced_loss(objective, self.head, self.label_smoother, self.compute_loss_func)
        if objective.requires.labels and self.compute_loss_func is None:
            preflight.check_own_loss(self.model, self.head)
        if self.teacher is not None:
            self.teacher.meet(self.model, self.head)
        preflight.check_composite(self.head, self.teacher)
        online = online_teachers(self.teacher)
        if self._tokenizers is None:
            self._tokenizers = preflight.tokenizers(
                self.processing_class, known_teachers(self.teacher), self.head, self.teacher_processing_class
            )
        preflight.check_separate_inputs(
            self.head, self.teacher, self.teacher_processing_class, self._named_columns, self._tokenizers
        )
        self._shares_encoder = online == [self.teacher] and share_frozen_encoder(self.model, online[0].model)
        for teacher in online:
            teacher_head = None if self._given_head else head_of(teacher.model)
            preflight.check_models(self.model, teacher.model, self.head, teacher_head)
        self._align()
        preflight.check_terms(self._alignment, objective, self.args.report_agreement)
        self.distillation_objective = self._bound(objective, self._shares_encoder)
        _check_top_k(self.teacher, objective)

    def _align(self) -> None:
        reads_apart = self.teacher_processing_class is not None
        self._alignment = preflight.align(self.model, self.teacher, self.head, self._tokenizers, reads_apart)
        self._member_alignments = [(each, each.alignment) for each in known_teachers(self.teacher)]

    # ---- The loss ---------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The objective on one micro-batch, divided by the units of the whole batch.

        Args:
            num_items_in_batch: a count per [`Unit`], from `_get_num_items_in_batch`; the micro-batch's own by default.
        """
        requires = self._requirements(inputs)
        evaluates = self._evaluation is not None
        needs_whole = not self._needs_losses_alone(inputs) if evaluates else return_outputs
        heads = None if needs_whole else chunked_heads(self, inputs, requires)
        rows = None if needs_whole or (evaluates and heads is None) else head_rows(self, inputs, requires)
        asked = requires if heads is None else replace(requires, labels=False)
        seeing_rows = nullcontext() if rows is None else rows.at_heads_of(*hooked_models(self))
        with seeing_rows, nullcontext() if heads is None else heads.held_back():
            student, teacher, where, outputs = self._compare(model, inputs, asked, num_items_in_batch, rows)
        progress = self._progress()
        counts, processes = _counts(where).clamp(min=1), 1
        if isinstance(num_items_in_batch, Tensor):  # DDP, FSDP and ZeRO average gradients over processes
            counts, processes = num_items_in_batch, self.accelerator.num_processes // self.get_tp_size()
        counts = counts[self._unit_of_term]
        objective, gradient, agreeing = self.distillation_objective, None, None
        if heads is None:
            losses = objective(student, teacher, where, progress)
        else:
            agreeing = heads.agreeing(teacher, where) if evaluates and self.args.report_agreement else None
            shares = self._weights(progress, heads.dtype) * processes / counts
            losses, gradient = heads.losses(objective, student, teacher, where, progress, shares)
        if self._evaluation is not None:
            self._tally(self._evaluation, model, inputs, requires, losses, (student, teacher, where), agreeing)
        means = torch.stack([total for total, _ in losses.values()]) * processes / counts
        if self._evaluation is None:
            self._log_window += means.detach()
        loss = torch.dot(means, self._weights(progress, means.dtype))
        loss = loss if gradient is None else loss + gradient
        return (loss, self._after_a_loss(outputs, requires)) if return_outputs else loss

    def _requirements(self, batch: Batch) -> Requirements:
        """What this batch must be asked for: in evaluation the labels' loss too, if there are labels."""
        self._resolve_head(batch)
        requires = self.distillation_objective.requires
        if self._evaluation is not None:
            return requires | Requirements(labels=self.head.has_labels(batch), teacher=self.args.report_agreement)
        if not self._batch_checked:
            self._check_batch(batch)
            self._batch_checked = True
        return requires

    def _check_batch(self, batch: Batch) -> None:
        preflight.check_batch(batch, self.head, self.distillation_objective)
        check_token_ids(batch, "student", self.model)
        for teacher in online_teachers(self.teacher):
            if not teacher.reads_apart:
                check_token_ids(as_read_by_teacher(batch, teacher.input_names), "teacher", teacher.model)
        if self.distillation_objective.requires.labels and self.compute_loss_func is None:
            check_class_indices(batch, self.head, self.model)

    def _resolve_head(self, batch: Batch) -> None:
        """Let the labels decide the problem where student and teacher leave it open, as the student's forward will."""
        if (resolved := self.head.resolved(batch)) is self.head:
            return
        self.head = resolved
        for teacher in online_teachers(self.teacher):
            teacher_head = head_of(teacher.model)
            is_open = getattr(teacher_head, "open_classes", None) is not None
            preflight.check_models(self.model, teacher.model, resolved, resolved if is_open else teacher_head)
            teacher.head, teacher.model.config.problem_type = resolved, "multi_label_classification"
        self._align()

    def _compare(
        self,
        model: nn.Module,
        batch: Batch,
        requires: Requirements,
        num_items_in_batch: Tensor | int | None = None,
        rows: HeadRows | None = None,
    ) -> tuple[Signals, Signals | None, Positions, Any]:
        """Ask teacher and student, at these rows only where heads see no others."""
        check_recordings(batch, self.model)
        for each, alignment in self._member_alignments:  # another trainer may have told a shared one something else
            each.alignment = alignment
        teacher = self.teacher.signals(batch) if self.teacher is not None and requires.teacher else None
        where = self._positions(batch)
        inputs = self._student_inputs(batch)
        inputs = {name: value for name, value in inputs.items() if name not in self.head.label_names}
        inputs |= self.head.derived_inputs(self.model, batch)
        states = teacher.encoder_states if teacher is not None and self._shares_encoder else None
        if states is not None and encodes_alike(self.model, self.teacher, batch):
            inputs["encoder_outputs"] = BaseModelOutput(last_hidden_state=states.clone())
        labels = self.head.labels(batch) if rows is None else rows.of_labels(self.head.labels(batch), where)
        replaces_loss = self.compute_loss_func is not None or (self.label_smoother is not None and "labels" in labels)
        targets = labels.pop("labels", None) if replaces_loss else None
        inputs |= labels if requires.labels else {}
        if not requires.labels and "use_cache" in self._signature_columns:
            inputs["use_cache"] = False  # decoders keep one where no labels are given
        outputs, features = outputs_and_features(self.model, model, inputs, where.tokens)
        student = replace(self.head.signals(outputs, batch), features=features)
        if requires.labels and replaces_loss:
            total = self._replaced_label_loss(outputs, targets, where, num_items_in_batch)
            student = replace(student, label_loss=total)
        if rows is not None:
            student, where = rows.of_signals(student, True), rows.of_positions(where)
            teacher = teacher and rows.of_signals(teacher, getattr(self.teacher, "model", None) in hooked_models(self))
        if teacher is not None:
            student, teacher = self._alignment(student, teacher)
        check_positions(student, teacher, where)
        return student, teacher, where, outputs

    def _replaced_label_loss(
        self, outputs: Any, targets: Tensor | None, where: Positions, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        """The labels' sum by `compute_loss_func` or label smoothing, where the user asked for one of them."""
        if self.compute_loss_func is None:
            shifted = isinstance(self.head, CausalLMHead) and self.head.shifts_labels
            smoother: Any = self.label_smoother
            smoothed: Tensor = smoother(outputs, targets, shift_labels=shifted, num_items_in_batch=1)
            return smoothed
        count = where.counts[Unit.LABEL]
        if isinstance(num_items_in_batch, Tensor):
            count = num_items_in_batch[list(Unit).index(Unit.LABEL)]
        count = count.clamp(min=1)
        total: Tensor = self.compute_loss_func(outputs, targets, num_items_in_batch=count) * count
        return total

    def _student_inputs(self, batch: Batch) -> dict[str, Any]:
        """The batch without what only the teacher reads."""
        self._set_signature_columns_if_needed()
        return {name: value for name, value in batch.items() if name not in self._teacher_columns}

    def _weights(self, progress: float, dtype: torch.dtype) -> Tensor:
        """The weights of the terms, sent to the device only when they have changed."""
        weights = tuple(self.distillation_objective.weights(progress).values())
        if self._sent_weights is None or (weights, dtype) != self._sent_weights[0]:
            sent = torch.tensor(weights, dtype=dtype, device=self.args.device)
            self._sent_weights = (weights, dtype), sent
        return self._sent_weights[1]

    def _progress(self) -> float:
        return min(1.0, self.state.global_step / self.state.max_steps) if self.state.max_steps > 0 else 0.0

    # ---- Counting the units -----------------------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """The number of every [`Unit`] in the accumulated batch, over all processes, shape `(len(Unit),)`.

        Reduced even where this process drew no batch, since the others wait for it.
        """
        if self._evaluation is not None:
            return None
        for batch in batch_samples:
            self._resolve_head(batch)
        self._counted = [(batch, self.head.positions(batch)) for batch in batch_samples]
        counts = [_counts(where).to(device) for _, where in self._counted]
        own = reduce(torch.add, counts) if counts else torch.zeros(len(Unit), dtype=torch.long, device=device)
        if self.accelerator.num_processes > 1:
            own = self.accelerator.reduce(own, "sum") / (self.get_tp_size() * self.get_cp_size() * self.get_sp_size())
        return own.clamp(min=1)

    def _positions(self, batch: Batch) -> Positions:
        """Where the batch counts, looked up if it is one of those just counted."""
        counted = (where for known, where in self._counted if _are_one(known, batch))
        return next(counted, None) or self.head.positions(batch)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        if 0 < len(batches) < num_batches and not has_length(self.train_dataset):
            logger.warning_once(
                f"The training stream ended {len(batches)} batches into an accumulation window of {num_batches}. "
                "These batches are left out, so that their gradients do not leak into the next epoch."
            )
            return [], counts
        return batches, counts

    # ---- Columns, epochs, searches ----------------------------------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the columns that only the teacher reads, too."""
        is_needed = self._signature_columns is None
        super()._set_signature_columns_if_needed()
        if is_needed:
            teacher: frozenset[str] = self.teacher.input_names if self.teacher is not None else frozenset()
            own = {f"{TEACHER_PREFIX}{name}" for name in teacher}
            raw = self._teacher_inputs.raw_columns if self._teacher_inputs is not None else frozenset()
            self._teacher_columns = (teacher | own | raw | {TEACHER_POSITIONS}) - set(self._signature_columns)
            self._signature_columns += sorted(self._teacher_columns)

    def _find_teacher_inputs(self, dataset: Any) -> None:
        """Find out which raw columns the teacher's processing class reads, at the first data set there is."""
        if self.teacher_processing_class is None or self._teacher_inputs is not None or dataset is None:
            return
        teacher: Any = self.teacher
        rows = sampled_rows(dataset, NUM_COLUMN_ROWS)
        if not rows:
            raise ConfigurationError(
                f"the teacher is to read raw columns by a {type(self.teacher_processing_class).__name__}, and the "
                "data set is a stream of which no row can be looked at beforehand. Give it as an `IterableDataset` of "
                "`datasets`, or make the teacher's inputs in it (`teacher_input_ids` …) and leave "
                "`teacher_processing_class` out."
            )
        names, tokenizer = self._named_columns, self._tokenizers[0]
        columns = raw_columns(rows, self.teacher_processing_class, teacher.input_names, tokenizer, names)
        limits = [max_positions(each.model) for each in online_teachers(teacher)]
        limit = min((each for each in limits if each is not None), default=None)
        self._teacher_inputs = TeacherInputs(
            self.teacher_processing_class, teacher.input_names, columns, max_length=limit
        )
        if isinstance(self.head, CausalLMHead):
            self._teacher_positions = TeacherPositions(self._tokenizers[:2], columns)
        self._signature_columns = None

    def collator_for(self, collator: Any, is_training: bool) -> Any:
        """What makes batches: `collator`, with masks that do not change with the epoch in evaluation, where it draws
        masks; beside it the teacher's inputs, where the teacher reads others than the student."""
        if not is_training and hasattr(collator, "for_evaluation"):
            collator = collator.for_evaluation()
        if self._teacher_inputs is not None:
            hidden = self._teacher_inputs.raw_columns if self.args.remove_unused_columns else frozenset()
            collator = DataCollatorWithTeacherInputs(collator, self._teacher_inputs, hidden, self._teacher_positions)
        return collator if self.teacher is None else self.teacher.collator_for(collator)

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Callable[[Any], Any] | None = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader[Any]:
        self._find_teacher_inputs(dataset)
        collator = self.data_collator
        self.data_collator = self.collator_for(collator, is_training)
        try:
            return super()._get_dataloader(dataset, description, batch_size, sampler_fn, is_training, dataloader_key)
        finally:
            self.data_collator = collator

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        _check_arguments(self.args, self._given_objective)
        self._bind()

    # ---- Starting and going on --------------------------------------------------------------------------------------

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:  # type: ignore[override]  # called by keyword
        if hasattr(self.data_collator, "set_epoch"):
            self.data_collator.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        is_first_run = self.state.global_step == 0
        start = super()._init_training_state(*args, **kwargs)
        if self.distillation_objective.is_balanced:
            self._balance()
        if self.args.preflight and is_first_run and self.is_world_process_zero():
            rehearsal.preflight_report(self)
        return start

    def _balance(self) -> None:
        """Scale the weights by gradients at the start of training, which a resumed run takes from its checkpoint."""
        scales = self._resumed_scales
        if scales is None:
            (scales,) = broadcast_object_list([balancing_scales(self)])  # processes may differ in the last digits
        self.distillation_objective = self.distillation_objective.scaled(scales)


def _are_one(known: Batch, batch: Batch) -> bool:
    """Whether every tensor is the same object: batches may share one, such as a mask that is made once."""
    tensors = [name for name in known if torch.is_tensor(known[name])]
    return known.keys() == batch.keys() and all(known[name] is batch[name] for name in tensors)


def _counts(where: Positions) -> Tensor:
    """The number of every unit, shape `(len(Unit),)`."""
    return torch.stack([where.counts[unit] for unit in Unit])


def _check_arguments(args: TrainingArguments, objective: Objective | None) -> None:
    if not isinstance(args, DistillationTrainingArguments):
        raise ConfigurationError(
            f"`args` is a {type(args).__name__}, which has no temperature and no alpha. Pass "
            "`DistillationTrainingArguments`, which takes the same arguments and those two."
        )
    defaults = {"temperature": 2.0, "alpha": 0.5}
    changed = [f"{name}={getattr(args, name)}" for name, value in defaults.items() if getattr(args, name) != value]
    if objective is not None and changed:
        raise ConfigurationError(
            f"`args` has {', '.join(changed)}, and `objective=` would ignore it. Give the temperature and the weights "
            "to the terms of the objective, or leave `objective` out."
        )
    if args.n_gpu > 1:
        logger.warning(
            f"{args.n_gpu} GPUs are visible to one process. hf_distill uses the first; start one process per GPU with "
            "`accelerate launch` or `torchrun` to use all of them."
        )
        args._n_gpu = 1


def _check_top_k(teacher: Teacher | None, objective: Objective) -> None:
    """No term asks for classes that a cache or a server does not know.

    Raises:
        UnsupportedModelError: naming the terms that do.
    """
    asked = known_teachers(teacher)
    known = [each for each in asked if isinstance(each, (CachedTeacher, ServedTeacher)) and each.gives_top_k]
    if not known:
        return
    terms = {name: weighted.term for name, weighted in objective.terms.items()}
    asking = [name for name, term in terms.items() if term.requires.teacher and term.reads_every_class]
    if isinstance(teacher, CompositeTeacher):
        asking.append(f"the {type(teacher).__name__} that it is a part of")
    if asking:
        raise UnsupportedModelError(
            f"{known[0].holding} classes of each position, and every class is asked for by {', '.join(asking)}. Use "
            "`SoftTargetTerm`, cache all classes with `top_k=None`, or pass a model as `teacher=`."
        )
