"""A teacher that has answered before, and need not be at hand any more."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model

from hf_distill.cache import CacheReader, RealSpan, row_keys
from hf_distill.cache.feature_records import Place
from hf_distill.cache.manifest import TEACHER, tokenizer_hash, weight_hash
from hf_distill.cache.shards import Row
from hf_distill.errors import CacheMismatchError, DamagedCacheError, MissingInputError, MissingTeacherError
from hf_distill.heads import Head, QuestionAnsweringHead, Seq2SeqHead
from hf_distill.heads.alignment import Alignment
from hf_distill.heads.base import real_tokens
from hf_distill.teachers.base import Teacher
from hf_distill.teachers.kept_layers import given_states, place_of, placed_states, tokens_of
from hf_distill.teachers.reading import as_read_by_teacher
from hf_distill.types import TEACHER_POSITIONS, TEACHER_PREFIX, Anatomy, Batch, Feature, Signals, TopKLogits


PADDED_VECTORS = ("inputs_embeds", "decoder_inputs_embeds", "bbox")
"""Inputs that have several numbers for each token."""

_INCIDENTAL = (
    *("architectures", "dtype", "label2id", "output_attentions", "output_hidden_states", "problem_type"),
    *("return_dict", "transformers_version", "use_cache"),
)
"""What of a configuration changes no answer, or is known by weights and head. Dropout does not either."""

_NUM_SHOWN = 8
"""Numbers of a row that an error shows."""


class CachedTeacher(Teacher):
    """What [`cache_teacher`] has written down, in place of the model that said it.

    A row is found by its content: by what the teacher read of it and where it counts, without padding. So it does not
    matter in which order, batch, epoch or process a row comes, nor which other rows do. A row that the teacher was
    never asked about is refused.

    The data loader looks rows up, in its workers where it has some, and what it finds travels in the batch.

    Args:
        path: the folder of the cache.

    Raises:
        CacheMismatchError: if it holds no finished cache.
        DamagedCacheError: if files are not as they were written.
    """

    may_download = False
    """Whether its tokenizer is looked for beyond this machine."""
    reads_apart = False
    """Whether it reads by a processing class of its own."""

    def __init__(self, path: str | Path) -> None:
        self.cache = CacheReader(path)
        self.name_or_path = str(self.cache.path / TEACHER)
        self.config = _config(self.cache.path / TEACHER)
        self.alignment = Alignment()
        self.head: Head | None = None
        self._entries = {name: f"cached_{self.cache.name}_{name}" for name in (*self.cache.records.fills, "places")}
        places = () if self.cache.feature_records is None else self.cache.feature_records.places
        self._layer_entries = {place: f"cached_{self.cache.name}_layer_{place.side}{place.layer}" for place in places}
        self._read: dict[Feature, Place] = {}

    @property
    def input_names(self) -> frozenset[str]:
        return frozenset(self.cache.manifest.inputs) | self.entry_names

    @property
    def entry_names(self) -> frozenset[str]:
        """What the answers are called in a batch, after `TEACHER_PREFIX`."""
        return frozenset((*self._entries.values(), *self._layer_entries.values()))

    @property
    def anatomy(self) -> Anatomy:
        """Of the model whose hidden states are kept.

        Raises:
            MissingTeacherError: if none are.
        """
        if self.cache.feature_records is None:
            raise MissingTeacherError(
                f"the cache {str(self.cache.path)!r} holds no layers of its teacher. Name them when it is made, as in "
                "`cache_teacher(…, layers=[2, 4, 6])`, or pass the model itself as `teacher=`."
            )
        return self.cache.feature_records.anatomy

    def read_features(self, features: Collection[Feature]) -> set[Feature]:
        """Look these up from now on, beside the answers.

        Returns:
            Those that are not kept.
        """
        found = {feature: place_of(feature, self.anatomy) for feature in features}
        self._read = {feature: place for feature, place in found.items() if place in self._layer_entries}
        return set(features) - self._read.keys()

    @property
    def gives_top_k(self) -> bool:
        """Whether only the likeliest classes of each position are known."""
        return "indices" in self._entries

    @property
    def drawn_at(self) -> float | None:
        """The temperature at which the classes that are known were drawn; None if they were not."""
        known: float | None = self.cache.manifest.answers.get("drawn_at")
        return known

    @property
    def holding(self) -> str:
        """What it knows, for errors."""
        chosen = "likeliest" if self.drawn_at is None else "drawn"
        return f"the cache {str(self.cache.path)!r} holds the {self.cache.manifest.answers.get('k', '')} {chosen}"

    def meet(self, student: nn.Module, head: Head) -> None:
        """Be read by the student's head.

        Raises:
            CacheMismatchError: if the answers were read by a head of another kind.
        """
        self.head = head
        if getattr(head, "open_classes", None) is None:
            self._check_head(head)

    def collator_for(self, collator: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return DataCollatorWithAnswers(collator, self)

    def answers(self, batch: Batch) -> dict[str, Tensor]:
        """What is kept about the rows of a batch, under the names that a batch has for it.

        Raises:
            MissingInputError: if the batch lacks what the teacher read.
            CacheMismatchError: if the teacher was not asked about a row, or read more of it than is kept.
        """
        head = self._head_for(batch)
        self._check_head(head)
        manifest = self.cache.manifest
        read = as_read_by_teacher(batch, frozenset(manifest.teacher_inputs))
        given = read_names(head, read, manifest.teacher_inputs)
        if missing := [name for name in manifest.inputs if name not in given]:
            raise MissingInputError(
                f"the cache {str(self.cache.path)!r} finds rows by {list(manifest.inputs)}, and the batch lacks "
                f"{missing}: it has only {sorted(batch)}. Keep these columns in the data set."
            )
        if added := [name for name in given if name not in manifest.inputs]:
            raise CacheMismatchError(
                f"the batch has {added}, which the teacher reads, and when the cache {str(self.cache.path)!r} was "
                f"made it was given {list(manifest.inputs)} alone. Leave them out, or cache the answers to them."
            )
        mask = answer_mask(head, batch).cpu()
        entries = {name: read[name].cpu() for name in manifest.inputs}
        keys = batch_keys(head, entries, mask, batch)
        found = self.cache.find(keys)
        for row in (found < 0).nonzero()[0][:1]:
            raise self._missing_row(int(row), entries, keys)
        counts = mask.reshape(len(mask), -1).sum(1).tolist()
        places = list(mask.reshape(len(mask), -1).nonzero()[:, 1].split(counts))
        rows = [self._row(*each) for each in zip(found.tolist(), keys, counts, strict=True)]
        said = self.cache.records.decode([row.answer for row in rows], counts)
        return self._batched(said, places, mask[0].numel()) | self._layers(rows, head, batch)

    def _layers(self, rows: Sequence[Row], head: Head, batch: Batch) -> dict[str, Tensor]:
        records, places = self.cache.feature_records, set(self._read.values())
        if records is None or not places:
            return {}
        states = placed_states([row.features for row in rows], records, places, head, batch)
        return {f"{TEACHER_PREFIX}{self._layer_entries[place]}": value for place, value in states.items()}

    def _row(self, number: int, key: bytes, num_positions: int) -> Row:
        row = self.cache.row(number, key)
        if row.num_positions != num_positions:
            raise DamagedCacheError(
                f"the cache {str(self.cache.path)!r} has {row.num_positions} positions of a row that has "
                f"{num_positions}."
            )
        return row

    def _batched(self, said: list[dict[str, Tensor]], places: list[Tensor], num_places: int) -> dict[str, Tensor]:
        """Rows side by side, `(B, N, …)`; what pads them lies one place beyond the last."""
        pad = torch.nn.utils.rnn.pad_sequence
        made = {name: pad([each[name] for each in said], batch_first=True) for name in said[0]}
        made["places"] = pad(places, batch_first=True, padding_value=num_places)
        return {f"{TEACHER_PREFIX}{self._entries[name]}": value for name, value in made.items()}

    def signals(self, batch: Batch) -> Signals:
        """What the teacher said about these rows. Where no data loader has looked them up, they are looked up here."""
        if f"{TEACHER_PREFIX}{self._entries['places']}" not in batch:
            device = next(value.device for value in batch.values() if isinstance(value, Tensor))
            batch = {**batch, **{name: value.to(device) for name, value in self.answers(batch).items()}}
        head = self._head_for(batch)
        kept = {name: batch[f"{TEACHER_PREFIX}{entry}"] for name, entry in self._entries.items()}
        shape = answer_mask(head, batch).shape
        fills = self.cache.records.fills
        full = {name: _placed(kept[name], kept["places"], shape, fill) for name, fill in fills.items()}
        logits: Any = full["values"]
        if self.gives_top_k:
            num_classes: int = self.cache.manifest.answers["num_classes"]
            num_others = num_classes - full["values"].shape[-1]
            logits = TopKLogits(full["values"], full["indices"], full["tail"], num_others, num_classes, self.drawn_at)
        logits = logits.transpose(1, 2) if isinstance(head, QuestionAnsweringHead) else logits
        features = {}
        for feature, place in self._read.items():
            states = batch[f"{TEACHER_PREFIX}{self._layer_entries[place]}"]
            features[feature] = given_states(states, tokens_of(place, head, batch))
        said = self.alignment.of_teacher(Signals(logits, is_distribution=head.is_distribution))
        return replace(said, features=features)

    def check(self, teacher: PreTrainedModel | None = None, tokenizer: Any = None) -> None:
        """Look at every byte of the cache, and whether a model and a tokenizer are those that it was made with.

        Raises:
            DamagedCacheError: if a file is not as it was written.
            CacheMismatchError: if the model or the tokenizer is another one.
        """
        self.cache.check()
        manifest = self.cache.manifest
        pairs = []
        if teacher is not None:
            pairs.append(("a teacher", "weights", manifest.teacher["weights"], weight_hash(teacher)))
        if tokenizer is not None:
            pairs.append(("a tokenizer", "tokens", manifest.tokenizer, tokenizer_hash(tokenizer)))
        for what, of, then, now in pairs:
            if then != now:
                raise CacheMismatchError(
                    f"the cache {str(self.cache.path)!r} was made with {what} whose {of} have the SHA-256 {then}, and "
                    f"those given have {now}. Cache the answers anew for them."
                )
        config = self.config if teacher is None else unwrap_peft_model(teacher).config
        if differences := config_differences(self.config, config):
            raise CacheMismatchError(
                f"the cache {str(self.cache.path)!r} was made with a teacher whose configuration is another one than "
                f"that of the teacher given: {'; '.join(differences)}. Cache the answers anew for it."
            )

    def _head_for(self, batch: Batch) -> Head:
        if self.head is None:
            raise CacheMismatchError(
                f"the cache {str(self.cache.path)!r} has not met a head by which batches are read. Pass it to "
                "`DistillationTrainer(teacher=…)`, or call `meet(student, head)`."
            )
        self.head = self.head.resolved(batch)  # and so it stays for rows without labels
        return self.head

    def _check_head(self, head: Head) -> None:
        ours, theirs = head_description(head), dict(self.cache.manifest.head)
        if ours != theirs:
            raise CacheMismatchError(
                f"the student's outputs are read by {ours}, and the answers in the cache {str(self.cache.path)!r} "
                f"were read by {theirs}. Pass that head as `head=`, or cache the answers with the student's."
            )

    def _missing_row(self, row: int, entries: Mapping[str, Tensor], keys: Sequence[bytes]) -> CacheMismatchError:
        shown = {name: values[row].flatten()[:_NUM_SHOWN].tolist() for name, values in entries.items()}
        manifest = self.cache.manifest
        return CacheMismatchError(
            f"row {row} of a batch has the key {keys[row].hex()}, which is none of the {len(self.cache)} in the cache "
            f"{str(self.cache.path)!r}; it begins {shown}. The cache was made from {manifest.data['num_rows']} rows "
            f"by {dict(manifest.processing)}. Prepare rows as for the cache (the same tokenizer, truncation and "
            "collator), cache those that it lacks, the evaluation's too (`eval_dataset=`), or pass the model itself "
            "as `teacher=`. Where a row is masked or augmented anew each time, no cache serves it; "
            "`DataCollatorForRowSeededMasking` draws masks that can be cached (`epochs=`)."
        )


class DataCollatorWithAnswers:
    """A collator, and beside what it returns a cached teacher's answers to it.

    Args:
        collator: the Trainer's.
        teacher: whose answers.
    """

    def __init__(self, collator: Callable[[Any], Any], teacher: CachedTeacher) -> None:
        self.collator = collator
        self.teacher = teacher

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        return {**batch, **self.teacher.answers(batch)}


def load_teacher(path: str | Path, *, teacher: PreTrainedModel | None = None, tokenizer: Any = None) -> CachedTeacher:
    """The teacher whose answers [`cache_teacher`] has written into a folder. `teacher=path` does the same.

    Args:
        path: the folder.
        teacher: the model that is meant, to have its weights compared with those of the cache.
        tokenizer: likewise.

    Raises:
        CacheMismatchError: if it is no finished cache, or that of another teacher or tokenizer.
        DamagedCacheError: if files are not as they were written. With `teacher` or `tokenizer`, every byte is looked
            at; otherwise those of a row when it is read.
    """
    cached = CachedTeacher(path)
    if teacher is not None or tokenizer is not None:
        cached.check(teacher, tokenizer)
    return cached


def config_differences(then: Any, now: Any) -> list[str]:
    """What makes two configurations those of different teachers, with both values: its weights alone do not tell how
    they are used, nor what its classes are called."""
    ours, theirs = (_telling(json.loads(json.dumps(each.to_dict(), default=str))) for each in (then, now))
    return [
        f"{name}: {ours.get(name)!r} and {theirs.get(name)!r}"
        for name in dict.fromkeys((*ours, *theirs))
        if ours.get(name) != theirs.get(name)
    ]


def _telling(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _telling(value) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in _INCIDENTAL and not name.startswith("_") and "dropout" not in name
    }


def head_description(head: Head) -> dict[str, Any]:
    """What a manifest says of a head: its class, and how it reads outputs. Where it counts is part of a row's key."""
    return {"class": type(head).__name__, "reading": head.reading}


def answer_mask(head: Head, batch: Batch) -> Tensor:
    """Bool `(B, …)`: where an answer is kept. For answers in a text, each token has a start and an end."""
    return real_tokens(batch) if isinstance(head, QuestionAnsweringHead) else head.mask(batch)


def read_names(head: Head, batch: Batch, teacher_inputs: Sequence[str]) -> list[str]:
    """The entries by which a row is found: all tensors that the teacher reads. A decoder's inputs are made of the
    labels, where the batch does not bring them."""
    names = [name for name in teacher_inputs if isinstance(batch.get(name), Tensor)]
    makes_inputs = isinstance(head, Seq2SeqHead) and "decoder_input_ids" not in names
    return [*names, "labels"] if makes_inputs and isinstance(batch.get("labels"), Tensor) else names


def batch_keys(head: Head, entries: Mapping[str, Tensor], mask: Tensor, batch: Batch) -> list[bytes]:
    """A key for each row of a batch, as `cache.row_keys`.

    Args:
        head: by which it is read.
        entries: what the teacher read, on the CPU.
        mask: from `answer_mask`, on the CPU.
        batch: the whole of it.
    """
    spans = {"": _span(entries.get("attention_mask")), "decoder": _span(entries.get("decoder_attention_mask"))}
    if spans["decoder"] is None and isinstance(head, Seq2SeqHead):
        spans["decoder"] = _trailing(mask)
    found = {}
    for name, values in entries.items():
        side = "decoder" if name.startswith("decoder_") or name == "labels" else ""
        found[name] = values, _fitting(spans[side], name, values)
    span = _fitting(spans[""], "", mask) if head.positions_are_tokens else None
    found["positions"] = mask, _trailing(mask) if span is None else span
    if isinstance(batch.get(TEACHER_POSITIONS), Tensor):
        found[TEACHER_POSITIONS] = batch[TEACHER_POSITIONS].cpu(), _trailing(mask)
    return row_keys(found)


def _span(real: Tensor | None) -> RealSpan | None:
    return None if real is None or real.ndim < 2 else RealSpan.of(real.bool())


def _trailing(mask: Tensor) -> RealSpan | None:
    """The span up to the last place that counts. Pixels have none: their answers depend on how many there are."""
    return RealSpan.of(mask, from_first=False) if mask.ndim == 2 else None


def _fitting(span: RealSpan | None, name: str, values: Tensor) -> RealSpan | None:
    """The span, if the tensor is padded as the mask is."""
    if span is None or values.shape[: len(span.shape)] != span.shape:
        return None
    return span if values.ndim == len(span.shape) or name in PADDED_VECTORS else None


def _placed(values: Tensor, places: Tensor, shape: torch.Size, fill: float) -> Tensor:
    """`(B, …, *)`: rows of values `(B, N, *)` in their places, and what fills the others."""
    num_rows, num_places, rest = len(values), shape[1:].numel(), values.shape[2:]
    full = values.new_full((num_rows, num_places + 1, *rest), fill)
    rows = torch.arange(num_rows, device=values.device)[:, None]
    full[rows, places] = values
    return full[:, :num_places].reshape(*shape, *rest)


def _config(folder: Path) -> Any:
    """The teacher's configuration, without any code of its own."""
    try:
        try:
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except ValueError:  # of a model that has
            return PreTrainedConfig.from_pretrained(folder)
    except Exception as error:  # whatever Transformers raises for what is no configuration
        raise DamagedCacheError(
            f"the cache {str(folder.parent)!r} lacks its teacher's configuration, or has one that cannot be read: "
            f"{error}. Download or build the cache again."
        ) from error
