"""Heads that predict tokens of a text: masked (WikiText-2) and the next one (Shakespeare)."""

from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset
from harness import Job, read
from tokens import byte_pair_tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast, default_data_collator

from hf_distill import (
    DataCollatorForRowSeededMasking,
    DistillationTrainer,
    EncoderLMConfig,
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
)


BLOCK_SIZE = 64
VOCAB_SIZE = 1024


def _blocks(rows: Dataset, tokenizer: PreTrainedTokenizerFast, is_causal: bool) -> Dataset:
    """The texts one after the other, cut into rows of one length."""
    tokens = list(chain.from_iterable(tokenizer([text for text in rows["text"] if text.strip()])["input_ids"]))
    blocks = [tokens[start : start + BLOCK_SIZE] for start in range(0, len(tokens) - BLOCK_SIZE + 1, BLOCK_SIZE)]
    return Dataset.from_dict({"input_ids": blocks, **({"labels": blocks} if is_causal else {})})


def _model(model_class: Any, tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> PreTrainedModel:
    return model_class(
        EncoderLMConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            intermediate_size=4 * width,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            position_embedding_type="rotary",
            pre_norm=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def _job(train: Dataset, evaluation: Dataset, model_class: Any, data: str, **settings: Any) -> Job:
    is_causal = model_class is EncoderLMForCausalLM
    tokenizer = byte_pair_tokenizer(train["text"], VOCAB_SIZE)
    rows, measured = (_blocks(part, tokenizer, is_causal) for part in (train, evaluation))
    masking = None if is_causal else DataCollatorForRowSeededMasking(tokenizer)

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        return {"perplexity": trainer.evaluate(measured)["eval_perplexity"]}

    return Job(
        head="CausalLMHead" if is_causal else "MaskedLMHead",
        data=f"{data}, {len(rows):,} rows of {BLOCK_SIZE} tokens out of {len(tokenizer):,}",
        score="perplexity",
        lower_is_better=True,
        teacher=lambda: _model(model_class, tokenizer, 128, 4),
        student=lambda _: _model(model_class, tokenizer, 64, 2),
        teacher_rows=rows,
        rows=rows,
        measure=measure,
        models="EncoderLM from scratch, 4 layers of width 128; student 2 of 64",
        trainer={"data_collator": masking or default_data_collator},
        **settings,
    )


def causal(data: Path) -> Job:
    return _job(
        read(data, "tiny_shakespeare", "train"),
        read(data, "tiny_shakespeare", "validation"),
        EncoderLMForCausalLM,
        data="Tiny Shakespeare",
        teacher_rate=4e-3,
        teacher_steps=500,
        steps=300,
        rates=(8e-3, 1.6e-2),
    )


def masked(data: Path) -> Job:
    return _job(
        read(data, "wikitext2_valid_test", "validation"),
        read(data, "wikitext2_valid_test", "test", 700),
        EncoderLMForMaskedLM,
        data="WikiText-2 validation file (measured on rows of its test file)",
        teacher_rate=4e-3,
        teacher_steps=800,
        steps=300,
        rates=(4e-3, 8e-3),
    )
