"""A teacher that runs elsewhere, and is asked over HTTP."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging

from hf_distill.errors import (
    ConfigurationError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from hf_distill.functional.top_k import top_k_of_known
from hf_distill.heads import CausalLMHead, Head
from hf_distill.heads.alignment import Alignment
from hf_distill.teachers import completions
from hf_distill.teachers.base import Teacher
from hf_distill.teachers.json_over_http import JSONServer
from hf_distill.teachers.text_spans import text_spans
from hf_distill.types import TAIL_EXPONENTS, Batch, Signals, TopKLogits


logger = logging.get_logger(__name__)

API_KEY_VARIABLE = "HF_DISTILL_TEACHER_API_KEY"

NUM_PROBED_TOKENS = 64
"""How many tokens of the vocabulary are in the text by which tokenizers are compared."""


class ServedTeacher(Teacher):
    """A causal language model behind an HTTP server, asked for the likeliest tokens of each position.

    The server is vLLM's, or answers as it does: `POST …/v1/completions` with token ids, `prompt_logprobs` in the
    answer. Each row is a request of its own, padding left out, so the server batches as it likes. The student gets
    [`types.TopKLogits`]: the same as from a model on this machine with its `top_k` likeliest tokens, but for
    temperatures above 1. There, how much all other tokens weigh is extrapolated, since the server tells it at 1 alone.

    A server that does not answer is asked again, after pauses that double; what it says is checked before it is used.

    Args:
        url: the address that OpenAI's clients take, `http://localhost:8000/v1`; `/v1` is added to one without a path.
        model: the name under which the server has the teacher.
        top_k: how many of the likeliest tokens are asked for. vLLM allows 20, unless it is started with
            `--max-logprobs`.
        vocab_size: how many scores the teacher's head has; the student's by default.
        api_key: sent as a bearer token; by default what the environment has as `HF_DISTILL_TEACHER_API_KEY`. It is in
            no file, card or message.
        timeout: seconds to wait for a connection, for the beginning of an answer, and for the whole of it.
        retries: how often a request is sent again.
        max_concurrent_requests: rows that are asked about at once.

    Raises:
        ConfigurationError: if an argument is out of its range.
    """

    may_download = False
    """Whether its tokenizer is looked for beyond this machine."""
    reads_apart = False
    """Whether it reads by a processing class of its own."""
    name_or_path = None
    gives_top_k = True
    """Whether only the likeliest classes of each position are known."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        top_k: int = 20,
        vocab_size: int | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        max_concurrent_requests: int = 16,
    ) -> None:
        counts = {
            "top_k": (top_k, 1),
            "retries": (retries, 0),
            "max_concurrent_requests": (max_concurrent_requests, 1),
        }
        counts |= {} if vocab_size is None else {"vocab_size": (vocab_size, 1)}
        faults = [f"`{name}` must be {least} or more, got {n!r}." for name, (n, least) in counts.items() if n < least]
        if not 0 < timeout < float("inf"):
            faults.append(f"`timeout` must be a number of seconds above 0, got {timeout!r}.")
        if not model:
            faults.append("`model` is empty. Pass the name under which the server has the teacher.")
        if faults:
            raise ConfigurationError(" ".join(faults))
        key = api_key or os.environ.get(API_KEY_VARIABLE, "").strip()
        self.server = JSONServer(_endpoint(url), timeout, retries, key)
        self.model_name = model
        self.max_concurrent_requests = max_concurrent_requests
        self.head: Head = CausalLMHead()
        self.alignment = Alignment()
        self._given_top_k, self._given_vocab_size = top_k, vocab_size
        self.config = _configuration(vocab_size)

    @property
    def input_names(self) -> frozenset[str]:
        return frozenset({"input_ids", "attention_mask", "position_ids"})

    @property
    def vocab_size(self) -> int:
        """How many scores the teacher has.

        Raises:
            ConfigurationError: if nothing tells.
        """
        size: int | None = self.config.vocab_size
        if size is None:
            raise ConfigurationError(
                f"how many scores {self.model_name!r} at {self.server.url} has is not known: `vocab_size` is None, "
                "and there is no student with a configuration to take it from. Pass the teacher's `vocab_size=`."
            )
        return size

    @property
    def top_k(self) -> int:
        """How many tokens are known of each position."""
        return min(self._given_top_k, self.vocab_size)

    @property
    def holding(self) -> str:
        """What it knows, for errors."""
        return f"the server {self.server.url} tells the {self.top_k} likeliest"

    def meet(self, student: nn.Module, head: Head) -> None:
        """Be read by the student's head.

        Raises:
            UnsupportedModelError: if the student is no causal language model.
            ConfigurationError: if the size of the vocabulary is not known.
        """
        self.check_head(head)
        self.head = head
        if self._given_vocab_size is None:
            config = getattr(unwrap_peft_model(student), "config", None)
            size = None if config is None else getattr(config.get_text_config(decoder=True), "vocab_size", None)
            self.config = _configuration(size)
        if self.top_k < self.vocab_size:
            logger.warning_once(
                f"The teacher's server {self.server.url} tells the {self.top_k} likeliest of {self.vocab_size} tokens "
                "at temperature 1. At higher temperatures, what all others weigh is taken to follow a power law."
            )

    def check_head(self, head: Head) -> None:
        """Raises:
        UnsupportedModelError: if a server cannot answer for such a head.
        """
        if not isinstance(head, CausalLMHead):
            raise UnsupportedModelError(
                f"`ServedTeacher` tells how likely the next token is, and the student is read by a "
                f"{type(head).__name__}. Pass a causal language model as the student, or a model as `teacher=`."
            )

    def same_tokenizer(self, tokenizer: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase | None:
        """The student's tokenizer, once the server has read a text as it does.

        The text has `NUM_PROBED_TOKENS` tokens from all over the vocabulary. Special tokens, and all others, are not
        compared, nor is the first token of the text, of which the server says nothing.

        Raises:
            VocabularyMismatchError: if it reads another text.
            TeacherServerError: if it does not answer.
        """
        if tokenizer is None:
            logger.warning_once(
                f"No tokenizer is at hand, so that of the teacher's server {self.server.url} is taken to be the one "
                "that made `input_ids`. Pass it as `processing_class=` to have it compared."
            )
            return None
        text = _probe(tokenizer)
        ours: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        limit = completions.max_answer_bytes(4 * len(text) + len(ours), 1)
        answer = self.server.post(completions.request(self.model_name, text, 1), limit)
        said = completions.tokens_by_position(answer, self.server.url)
        theirs = [sorted(each) if isinstance(each, Mapping) else [] for each in said]
        shared = min(len(ours), len(theirs))
        at = next((at for at in range(1, shared) if str(ours[at]) not in theirs[at]), shared)
        if at < max(len(ours), len(theirs)):
            token = tokenizer.convert_ids_to_tokens(ours[at]) if at < len(ours) else None
            raise VocabularyMismatchError(
                f"the student's tokenizer reads a text as {len(ours)} tokens and that of {self.model_name!r} at "
                f"{self.server.url} as {len(theirs)}, and they part at token {at}, which is {token!r} for the student "
                f"and of the ids {theirs[at] if at < len(theirs) else []} for the teacher, so the teacher would read "
                "another text. Give the student the teacher's tokenizer, or ask another teacher."
            )
        return tokenizer

    def identity(self) -> dict[str, Any]:
        """What a manifest says of the teacher. Nobody can tell which weights a server has, so its name stands for
        them."""
        name = {"name": self.model_name, "revision": None, "weights": None}
        return {"class": type(self).__name__, **name, "served_as": self.model_name}

    def save_configuration(self, folder: Path) -> None:
        """Write what is known of the teacher's configuration."""
        self.config.save_pretrained(folder)

    def signals(self, batch: Batch) -> Signals:
        """What the server says about a batch, on the batch's device.

        Raises:
            TeacherServerError: if it does not answer, or its answer makes no sense.
            MissingInputError: if the batch has no `input_ids`.
            ConfigurationError: if rows are not one text each, or a position counts of which the server says nothing.
        """
        spans = text_spans(batch)
        tokens, counted = batch["input_ids"], self.head.mask(batch).cpu()
        asked = {row: span for row, span in spans.items() if counted[row].any()}
        for row, (start, stop) in asked.items():
            unknown = counted[row].sum() - counted[row, start : stop - 1].sum()
            if unknown:
                raise ConfigurationError(
                    f"row {row} counts at {unknown} positions that no real token follows, and a server only says how "
                    "likely tokens are that it was sent. Leave out the labels there, or pass a model as `teacher=`."
                )
        on_cpu = tokens.cpu()
        texts = [on_cpu[row, start:stop].tolist() for row, (start, stop) in asked.items()]
        values = torch.zeros(*tokens.shape, self.top_k)
        indices = torch.zeros(*tokens.shape, self.top_k, dtype=torch.int64)
        tail = torch.zeros(*tokens.shape, len(TAIL_EXPONENTS))
        for (row, (start, stop)), answer in zip(asked.items(), self._answers(texts), strict=True):
            said = top_k_of_known(*answer, self.top_k, self.vocab_size)
            place = row, slice(start, stop - 1)
            values[place], indices[place], tail[place] = said.values, said.indices, said.tail
        values, indices, tail = (part.to(tokens.device) for part in (values, indices, tail))
        logits: Any = TopKLogits(values, indices, tail, self.vocab_size - self.top_k, self.vocab_size)
        return self.alignment.of_teacher(Signals(logits))

    def _answers(self, texts: Sequence[list[int]]) -> list[tuple[Tensor, Tensor]]:
        """Log-probabilities and ids for each row, several rows at once. The first failure ends the others."""
        self.server.open()
        stopped = Event()
        pool = ThreadPoolExecutor(self.max_concurrent_requests)
        try:
            return [each.result() for each in [pool.submit(self._answer, tokens, stopped) for tokens in texts]]
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, tokens: list[int], stopped: Event) -> tuple[Tensor, Tensor]:
        top_k = self.top_k
        limit = completions.max_answer_bytes(len(tokens), top_k)
        answer = self.server.post(completions.request(self.model_name, tokens, top_k), limit, stopped)
        return completions.log_probabilities(answer, tokens, top_k, self.vocab_size, self.server.url)


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    path = (parts.path.rstrip("/") or "/v1").removesuffix(f"/{completions.PATH}")
    return urlunsplit(parts._replace(path=f"{path}/{completions.PATH}"))


def _configuration(vocab_size: int | None) -> PreTrainedConfig:
    config: PreTrainedConfig = PreTrainedConfig.from_dict({"vocab_size": vocab_size})
    return config


def _probe(tokenizer: PreTrainedTokenizerBase) -> str:
    """A text of tokens from all over the vocabulary."""
    special = set(tokenizer.all_special_ids)
    ids = [index for index in sorted(tokenizer.get_vocab().values()) if index not in special]
    words: list[Any] = [tokenizer.decode([index]) for index in ids[:: 1 + len(ids) // NUM_PROBED_TOKENS]]
    return " ".join(word for word in words if "\ufffd" not in word)  # which is a part of a character
