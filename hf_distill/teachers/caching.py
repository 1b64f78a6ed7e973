"""Ask a teacher once about every row, and write down what it says."""

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase, default_data_collator

from hf_distill.cache import ROW_FRAME_SIZE, CacheWriter, DenseRecords, FeatureRecords, Manifest, Records, TopKRecords
from hf_distill.cache.manifest import MANIFEST, tokenizer_hash
from hf_distill.cache.records import Answers, CacheDType, check_dtype
from hf_distill.cache.shards import Row
from hf_distill.cache.writer import rows_per_shard_of
from hf_distill.errors import (
    CacheMismatchError,
    ConfigurationError,
    EmptyDatasetError,
    MissingInputError,
)
from hf_distill.functional.drawn_classes import drawn_logits
from hf_distill.functional.pooling import Pooling
from hf_distill.functional.top_k import top_k_logits
from hf_distill.heads import CTCHead, Head, QuestionAnsweringHead
from hf_distill.teachers.cache_cost import Progress, check_logits_fit, warn_of_room
from hf_distill.teachers.cacheable import askable, check_cacheable, check_drawn, check_reads_rows, served_top_k
from hf_distill.teachers.cached import (
    CachedTeacher,
    answer_mask,
    batch_keys,
    config_differences,
    head_description,
    read_names,
)
from hf_distill.teachers.kept_layers import Layers, encoded_states, mean_tokens, reading_layers, with_fixed_lengths
from hf_distill.teachers.online import OnlineTeacher
from hf_distill.teachers.own_tokenizer import own_tokenizer
from hf_distill.teachers.reading import as_read_by_teacher
from hf_distill.teachers.served import ServedTeacher
from hf_distill.types import TAIL_EXPONENTS, TEACHER_PREFIX, Batch, Feature, TopKLogits


NUM_PROBED_ROWS = 64
NUM_PROBED_ALONE = 4
MAX_SHARD_ROWS = 2**14
MAX_SHARD_BYTES = 2**27
"""Of a shard's answers before compression, and of its inputs: what is lost at most when a build is killed."""

LABEL_COLUMNS = ("label", "label_ids", "labels")


def cache_teacher(
    teacher: PreTrainedModel | str | Path | OnlineTeacher | ServedTeacher,
    dataset: Any,
    path: str | Path,
    *,
    eval_dataset: Any = None,
    processing_class: Any = None,
    data_collator: Callable[[Any], Any] | None = None,
    head: Head | None = None,
    batch_size: int = 32,
    top_k: int | None = None,
    drawn_at: float | None = None,
    dtype: CacheDType = "float16",
    layers: Layers | None = None,
    pooled: Pooling | None = None,
    epochs: int | None = None,
    remove_unused_columns: bool = True,
) -> CachedTeacher:
    """What a teacher says about every row of a data set, written into a folder that can be trained from.

    The teacher runs once over the rows, in batches of similar length, in eval mode and its own dtype, where it is (on
    the GPU of its process, if it is given by name). A build that was stopped, at whatever moment, goes on where it was
    when it is called again, and gives the same files; a finished one is opened. Several processes (`torchrun`,
    `accelerate launch`) share the shards.

    Args:
        teacher: a model, a Hub id, a local path or a [`ServedTeacher`]. Of several teachers, each has a cache of its
            own, and a list of caches is a teacher.
        dataset: the rows to train on, as they go to the Trainer: anything with a length and rows by number.
        path: the folder to be made.
        eval_dataset: rows to evaluate on, which are collated by `data_collator.for_evaluation()`, where it has one.
        processing_class: the tokenizer, image processor or feature extractor. A tokenizer is compared with the
            student's later on, and pads where there is no `data_collator`.
        data_collator: what makes batches, as in `Trainer`.
        head: how to read the outputs of a model that we do not know.
        batch_size: rows that the teacher reads at once.
        top_k: for language models: keep this many of the likeliest tokens of each position, with the weight of all
            others. None keeps every token that the teacher tells.
        drawn_at: keep `top_k` tokens that are drawn ([`functional.drawn_logits`]) in place of the likeliest, so that
            the gradient of `forward_kl` is right on average at this temperature, the only one at which they can be
            compared then. A row's tokens are drawn once, by its content.
        dtype: what numbers are kept in: "float32", "float16", "bfloat16" or "uint8".
        layers: for terms that compare layers: those whose hidden states are kept too, counted as in
            [`layer_maps.layer_pairs`]: 0 is what the first block reads, −1 the last layer. Of an encoder–decoder, by
            its sides: `{"encoder": [3, 6], "decoder": [6]}`.
        pooled: keep one vector a row of these layers, as [`HiddenStateTerm`] with the same `pooled` compares. None
            keeps every token.
        epochs: for a collator that draws other masks in each epoch: of how many.
        remove_unused_columns: whether the collator gets to see the columns that the teacher reads, and labels, alone.

    Returns:
        The teacher that the folder now is; `teacher=path` is the same.

    Raises:
        ConfigurationError: if an argument is none of those above, numbers do not fit into `dtype`, or rows are masked
            or augmented anew each time, which no cache can serve.
        CacheMismatchError: if there is another cache at `path`, begun or finished.
        UnsupportedModelError: if answers of this kind depend on more than their row.
        VocabularyMismatchError: if the rows were made by another tokenizer than the teacher's own.
        EmptyDatasetError: if there are no rows.
        MissingInputError: if a batch holds nothing that the teacher reads.
    """
    check_dtype(dtype)
    path = Path(path)
    asked = askable(teacher, head)
    check_cacheable(asked.head, top_k)
    check_drawn(asked, top_k, drawn_at)
    rows = _Rows(asked, dataset, data_collator, processing_class, eval_dataset, epochs, remove_unused_columns)
    if isinstance(asked, ServedTeacher):
        top_k = served_top_k(asked, top_k, layers)
        asked.same_tokenizer(rows.tokenizer)
    elif rows.tokenizer is not None and not rows.hold_own_inputs:
        check_reads_rows(asked, rows.tokenizer)
    inputs, keys = rows.probe()
    model: Any = getattr(asked, "model", None)  # which a server has not
    with reading_layers(model, layers, pooled, dtype) as kept:
        build = _Build(path, asked, rows, inputs, batch_size, top_k, drawn_at, dtype, kept)
        manifest = build.manifest(keys, rows.tokenizer)
        if (path / MANIFEST).is_file():
            return _opened(path, manifest, asked.config)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigurationError(
                f"`path` {str(path)!r} exists and is no cache. Choose a folder that does not exist."
            )
        build.write(manifest)
    return CachedTeacher(path)


def _opened(path: Path, manifest: Manifest, config: Any) -> CachedTeacher:
    cached = CachedTeacher(path)
    if differences := cached.cache.manifest.differences(manifest) + config_differences(cached.config, config):
        raise CacheMismatchError(
            f"there is another cache at {str(path)!r}; that one and the one to be made differ in "
            f"{'; '.join(differences)}. Choose another `path`, or delete it."
        )
    return cached


@dataclass(frozen=True)
class _Pass:
    """One way through some rows."""

    dataset: Any
    collator: Any
    epoch: int


class _Rows:
    """All rows that are asked about, and how they become batches."""

    def __init__(
        self,
        teacher: OnlineTeacher | ServedTeacher,
        dataset: Any,
        collator: Any,
        processing_class: Any,
        eval_dataset: Any,
        epochs: int | None,
        remove_unused_columns: bool,
    ) -> None:
        readers = (
            processing_class,
            getattr(processing_class, "tokenizer", None),
            getattr(collator, "tokenizer", None),
        )
        self.tokenizer = next((each for each in readers if isinstance(each, PreTrainedTokenizerBase)), None)
        if collator is None:
            pads = isinstance(processing_class, PreTrainedTokenizerBase)
            collator = DataCollatorWithPadding(processing_class) if pads else default_data_collator
        self.teacher = teacher
        self.reader = self.tokenizer or processing_class
        self.collator = collator
        self.epochs = epochs
        kept = {*teacher.input_names, *teacher.head.label_names, *LABEL_COLUMNS}
        self._kept = kept if remove_unused_columns else None
        evaluations = list(eval_dataset.values()) if isinstance(eval_dataset, dict) else [eval_dataset]
        for_evaluation = collator.for_evaluation() if hasattr(collator, "for_evaluation") else collator
        self.passes = [_Pass(dataset, collator, epoch) for epoch in range(1 if epochs is None else epochs)]
        self.passes += [_Pass(each, for_evaluation, 0) for each in evaluations if each is not None]
        for each in self.passes:
            if not isinstance(each.dataset, Sized) or not hasattr(each.dataset, "__getitem__"):
                raise ConfigurationError(
                    f"the data set is a {type(each.dataset).__name__}, a stream without a length or rows by number. "
                    "Write it to disk first, or pass the model itself as `teacher=`."
                )
            if not len(each.dataset):
                raise EmptyDatasetError("a data set to cache has 0 rows, so there is nothing to ask the teacher.")

    def fetched(self, chosen: _Pass, numbers: Sequence[int]) -> list[Any]:
        """Rows of a data set, without columns that are not read."""
        if hasattr(chosen.collator, "set_epoch"):
            chosen.collator.set_epoch(chosen.epoch)
        rows = (chosen.dataset[number] for number in numbers)
        return [row if self._kept is None else {name: row[name] for name in row if self._keeps(name)} for row in rows]

    @property
    def hold_own_inputs(self) -> bool:
        """Whether the teacher's inputs stand beside the student's, so that it need not read as the student does."""
        (row,) = self.fetched(self.passes[0], [0])
        return isinstance(row, Mapping) and any(name.startswith(TEACHER_PREFIX) for name in row)

    def _keeps(self, name: str) -> bool:
        return self._kept is None or name in self._kept or name.startswith(TEACHER_PREFIX)

    def probe(self) -> tuple[tuple[str, ...], list[bytes]]:
        """Look at some rows of each data set twice.

        Returns:
            The entries by which rows are found, and the keys of the rows that were looked at.
        """
        inputs = None
        keys = []
        for chosen in self.passes:
            number = min(NUM_PROBED_ROWS, len(chosen.dataset))
            numbers = [index * len(chosen.dataset) // number for index in range(number)]
            batch, again = (chosen.collator(self.fetched(chosen, numbers)) for _ in range(2))
            inputs = inputs or self._inputs(batch)
            first = self.keys(batch, inputs)
            if len(first) != number:
                raise ConfigurationError(
                    f"{type(chosen.collator).__name__} makes {len(first)} rows of {number}, so that what a row is "
                    "changes from batch to batch. Pack the rows once, in the data set, and cache these."
                )
            if first != self.keys(again, inputs):
                raise ConfigurationError(
                    f"the same row gave {list(inputs)} of other content on a second look, so it is masked or "
                    f"augmented anew each time (by {type(chosen.collator).__name__}, or a transform of the data set), "
                    "and answers to the one are none to the other. For masked language models pass "
                    "`data_collator=DataCollatorForRowSeededMasking(…)` here and to the Trainer; apply other "
                    "augmentation once, with `datasets.map`; or pass the model itself as `teacher=`."
                )
            alone = numbers[:NUM_PROBED_ALONE]
            apart = [chosen.collator(self.fetched(chosen, [number])) for number in alone]
            if [key for each in apart for key in self.keys(each, inputs)] != first[: len(alone)]:
                raise ConfigurationError(
                    f"a row alone gives {list(inputs)} of another content than among others, so the teacher reads "
                    "its padding. Let the collator return an `attention_mask`, or pad all rows to one length in the "
                    "data set."
                )
            keys += first
        self._check_epochs(inputs or (), keys)
        return inputs or (), keys

    def _check_epochs(self, inputs: tuple[str, ...], keys: list[bytes]) -> None:
        first = self.passes[0]
        if self.epochs is not None or not hasattr(first.collator, "set_epoch"):
            return
        number = min(NUM_PROBED_ROWS, len(first.dataset))
        rows = self.fetched(first, [index * len(first.dataset) // number for index in range(number)])
        first.collator.set_epoch(1)
        is_other = self.keys(first.collator(rows), inputs) != keys[:number]
        first.collator.set_epoch(0)
        if is_other:
            raise ConfigurationError(
                f"{type(first.collator).__name__} draws other masks in each epoch. Pass `epochs=`, for how many to "
                "cache, or make it with `masks_follow_epoch=False`."
            )

    def _inputs(self, batch: Batch) -> tuple[str, ...]:
        read = as_read_by_teacher(batch, self.teacher.input_names)
        names = read_names(self.teacher.head.resolved(batch), read, sorted(self.teacher.input_names))
        if not names:
            raise MissingInputError(
                f"the teacher reads {sorted(self.teacher.input_names)}, and a batch has only {sorted(batch)}. Keep "
                "these columns in the data set."
            )
        return tuple(names)

    def keys(self, batch: Batch, inputs: Sequence[str]) -> list[bytes]:
        """A key for each row of a batch."""
        read = as_read_by_teacher(batch, self.teacher.input_names)
        head = self.teacher.head.resolved(batch)
        missing = [name for name in inputs if not isinstance(read.get(name), Tensor)]
        if missing:
            raise MissingInputError(
                f"some batches have {list(inputs)}, and one lacks {missing}. Give all of them all."
            )
        return batch_keys(head, {name: read[name] for name in inputs}, answer_mask(head, batch), batch)

    def processing(self) -> dict[str, Any]:
        """What a manifest says of the collator."""
        options: dict[str, Any] = {}
        if is_dataclass(self.collator):
            values = {field.name: getattr(self.collator, field.name) for field in fields(self.collator)}
            options = {name: value for name, value in values.items() if isinstance(value, (str, int, float, bool))}
        name = getattr(self.collator, "__name__", type(self.collator).__name__)
        return {"collator": name, "options": options, "epochs": self.epochs}


class _Build:
    """One run of a teacher over its rows."""

    def __init__(
        self,
        path: Path,
        teacher: OnlineTeacher | ServedTeacher,
        rows: _Rows,
        inputs: tuple[str, ...],
        batch_size: int,
        top_k: int | None,
        drawn_at: float | None,
        dtype: CacheDType,
        layers: FeatureRecords | None,
    ) -> None:
        self.path, self.teacher, self.rows, self.inputs = path, teacher, rows, inputs
        self.batch_size, self.top_k, self.drawn_at = batch_size, top_k, drawn_at
        first = rows.passes[0]
        batch = first.collator(rows.fetched(first, range(min(batch_size, len(first.dataset)))))
        self.head = teacher.head.resolved(batch)
        values, mask, features = self._asked(batch)
        self.records = self._records(tuple(values.shape[mask.ndim :]), dtype)
        self.layers = layers and with_fixed_lengths(layers, features, self.head, batch)
        positions = mask.sum().item() / len(mask)
        self.bytes_per_row = max(1.0, self.records.num_bytes(math.ceil(positions)))
        if self.layers is not None:
            self.bytes_per_row += self.layers.num_bytes(mean_tokens(self.layers, self.head, batch))
        of_inputs = sum(value.nbytes for value in batch.values() if isinstance(value, Tensor)) / len(mask)
        size = min(MAX_SHARD_ROWS, MAX_SHARD_BYTES / max(self.bytes_per_row, of_inputs))
        self.rows_per_shard = rows_per_shard_of(path) or max(1, int(size / batch_size)) * batch_size

    def manifest(self, keys: list[bytes], tokenizer: PreTrainedTokenizerBase | None) -> Manifest:
        """What identifies the build."""
        num_rows = sum(len(each.dataset) for each in self.rows.passes)
        fingerprint = hashlib.sha256(b"".join([str(num_rows).encode(), *keys])).hexdigest()
        return Manifest(
            teacher=self.teacher.identity(),
            tokenizer=None if tokenizer is None else tokenizer_hash(tokenizer),
            head=head_description(self.head),
            inputs=self.inputs,
            teacher_inputs=tuple(sorted(self.teacher.input_names)),
            processing=self.rows.processing(),
            data={"num_rows": num_rows, "fingerprint": fingerprint},
            answers=self.records.description(),
            rows_per_shard=self.rows_per_shard,
            features={} if self.layers is None else self.layers.description(),
        )

    def write(self, manifest: Manifest) -> None:
        """Write what is not yet written, showing how far it is."""
        rank, num_processes = (
            int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1))
        )
        plan = self._plan()
        writer = CacheWriter(self.path, manifest, len(plan), is_main=rank == 0)
        open_ = [number for number in range(rank, len(plan), num_processes) if not writer.is_written(number)]
        num_rows = sum(len(plan[number][1]) for number in open_)
        expected = num_rows * (self.bytes_per_row + ROW_FRAME_SIZE)
        warn_of_room(writer.folder, expected)
        with Progress(manifest.teacher["class"], num_rows, expected) as progress:
            for number in open_:
                writer.write(number, self._answered(*plan[number], progress))

        def save_teacher(folder: Path) -> None:
            self.teacher.save_configuration(folder)
            if hasattr(self.rows.reader, "save_pretrained"):
                self.rows.reader.save_pretrained(folder)
            if isinstance(self.head, CTCHead) and (own := own_tokenizer(self.teacher, None)) is not None:
                own.save_pretrained(folder)  # which may number the letters in another way

        writer.finish(save_teacher)

    def _plan(self) -> list[tuple[_Pass, range]]:
        """The rows of every shard."""
        return [
            (each, range(start, min(start + self.rows_per_shard, len(each.dataset))))
            for each in self.rows.passes
            for start in range(0, len(each.dataset), self.rows_per_shard)
        ]

    def _answered(self, chosen: _Pass, numbers: range, progress: Progress) -> Iterator[Row]:
        """The rows of one shard with their answers, rows of similar length in one batch."""
        rows = self.rows.fetched(chosen, numbers)
        if all(isinstance(row, Mapping) and "input_ids" in row for row in rows):
            rows.sort(key=lambda row: len(row["input_ids"]))
        for start in range(0, len(rows), self.batch_size):
            batch = chosen.collator(rows[start : start + self.batch_size])
            yield from progress.counted(self._rows_of(batch))

    def _rows_of(self, batch: Batch) -> Iterator[Row]:
        keys = self.rows.keys(batch, self.inputs)
        values, mask, features = self._asked(batch)
        states = [b""] * len(keys)
        if self.layers is not None:
            states = encoded_states(self.layers, features, self.head, batch, len(keys))
        numbers = mask.flatten(1).sum(1).tolist() if mask.ndim > 1 else mask.long().tolist()
        for key, number, answer, state in zip(keys, numbers, self._kept(values, mask, keys), states, strict=True):
            yield Row(key, number, self.records.encode(answer), state)

    def _kept(self, values: Any, mask: Tensor, keys: list[bytes]) -> Iterator[Answers]:
        """What is kept of each row: of a vocabulary row by row, since all at once takes many times the logits."""
        if isinstance(self.records, TopKRecords):
            for row, key in enumerate(keys):
                yield self._top_k(values[row, mask[row]], key, self.records)
        else:
            numbers = mask.reshape(len(keys), -1).sum(1).tolist()
            yield from ({"values": part} for part in values[mask].cpu().split(numbers))

    def _top_k(self, counted: Any, key: bytes, records: TopKRecords) -> Answers:
        top: TopKLogits = counted
        if records.drawn_at is not None:
            generator = torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))
            points = torch.rand(len(counted), generator=generator).to(counted.device)
            top = drawn_logits(counted, records.k, points, temperature=records.drawn_at)
        elif isinstance(counted, Tensor):
            top = top_k_logits(counted, records.k)
        return {name: getattr(top, name).cpu() for name in ("values", "indices", "tail")}

    def _asked(self, batch: Batch) -> tuple[Tensor, Tensor, Mapping[Feature, Tensor]]:
        """The teacher's answers `(B, …, *)`; where they are kept, `(B, …)`; and the hidden states that are."""
        if isinstance(self.teacher, OnlineTeacher):
            batch = send_to_device(batch, self.teacher.model.device)
        self.teacher.head = self.head = self.teacher.head.resolved(batch)
        if isinstance(self.teacher, OnlineTeacher) and self.head.is_language_model:
            check_logits_fit(self.teacher.model, answer_mask(self.head, batch), self.batch_size)
        said = self.teacher.signals(batch)
        return (
            said.logits.transpose(1, 2) if isinstance(self.head, QuestionAnsweringHead) else said.logits,
            answer_mask(self.head, batch),
            said.features,
        )

    def _records(self, shape: tuple[int, ...], dtype: CacheDType) -> Records:
        if self.top_k is None:
            fill = -torch.inf if isinstance(self.head, QuestionAnsweringHead) else 0.0
            return DenseRecords(shape, dtype, fill)
        return TopKRecords(min(self.top_k, shape[-1]), shape[-1], len(TAIL_EXPONENTS), dtype, self.drawn_at)
