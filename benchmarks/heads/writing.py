"""Heads that write a text after reading one: translation (Multi30k) and headlines (AG's news)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from harness import Job, read
from scores import bleu, rouge_l
from tokens import byte_pair_tokenizer
from transformers import (
    DataCollatorForSeq2Seq,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hf_distill import DistillationTrainer


MAX_LENGTH = 64
MAX_WRITTEN = 40


def _model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> PreTrainedModel:
    """Pegasus, since its layers normalise first and so need no long warmup."""
    return PegasusForConditionalGeneration(
        PegasusConfig(
            vocab_size=len(tokenizer),
            d_model=width,
            encoder_layers=layers,
            decoder_layers=layers,
            encoder_attention_heads=width // 32,
            decoder_attention_heads=width // 32,
            encoder_ffn_dim=2 * width,
            decoder_ffn_dim=2 * width,
            max_position_embeddings=MAX_LENGTH,
            dropout=0.1,
            scale_embedding=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            forced_eos_token_id=None,
        )
    )


@torch.inference_mode()
def written(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[str]:
    """What the model writes greedily."""
    model.eval()
    answers: list[str] = []
    for start in range(0, len(texts), 100):
        inputs = tokenizer(
            list(texts[start : start + 100]), truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
        )
        tokens = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_WRITTEN,
            do_sample=False,
            num_beams=1,
        )
        answers += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return answers


def _job(
    train: Dataset,
    evaluation: Dataset,
    columns: tuple[str, str],
    quality: tuple[str, Callable[[Sequence[str], Sequence[str]], float]],
    **settings: Any,
) -> Job:
    """A job that writes the second column after reading the first.

    Args:
        quality: name and function of a score of what is written for the first 300 rows, besides perplexity.
        settings: of the job, and besides the `vocab_size` of the tokenizer that both columns share.
    """
    source, target = columns
    tokenizer = byte_pair_tokenizer((row[name] for row in train for name in columns), settings.pop("vocab_size"))

    def encode(row: dict[str, Any]) -> dict[str, Any]:
        read_tokens, write_tokens = (
            tokenizer(row[name], truncation=True, max_length=MAX_LENGTH)["input_ids"] for name in columns
        )
        return {"input_ids": read_tokens, "labels": write_tokens, "length": len(read_tokens) + len(write_tokens)}

    rows = train.map(encode, remove_columns=train.column_names)
    measured = evaluation.map(encode, remove_columns=evaluation.column_names).sort("length")
    heard = evaluation.select(range(min(300, len(evaluation))))

    def measure(trainer: DistillationTrainer) -> dict[str, float]:
        perplexity = trainer.evaluate(measured)["eval_perplexity"]
        answers = written(trainer.model, tokenizer, heard[source])
        return {"perplexity": perplexity, quality[0]: quality[1](answers, heard[target])}

    return Job(
        head="Seq2SeqHead",
        score="perplexity",
        lower_is_better=True,
        teacher=lambda: _model(tokenizer, 192, 3),
        student=lambda _: _model(tokenizer, 96, 1),
        teacher_rows=rows,
        rows=rows,
        measure=measure,
        models="Pegasus from scratch, 3 + 3 layers of width 192; student 1 + 1 of 96",
        batch_size=64,
        arguments={"train_sampling_strategy": "group_by_length"},
        trainer={"data_collator": DataCollatorForSeq2Seq(tokenizer)},
        **settings,
    )


def translation(data: Path) -> Job:
    return _job(
        read(data, "multi30k", "train"),
        read(data, "multi30k", "validation"),
        ("en", "de"),
        ("BLEU", bleu),
        data="Multi30k English to German, 29,000 pairs (BLEU on 300, greedy, words of scores.py)",
        vocab_size=3000,
        teacher_rate=2e-3,
        teacher_steps=700,
        steps=300,
        rates=(4e-3, 8e-3),
    )


def headlines(data: Path) -> Job:
    return _job(
        read(data, "ag_news_headlines", "train"),
        read(data, "ag_news_headlines", "validation"),
        ("document", "summary"),
        ("ROUGE-L", rouge_l),
        data="AG's news, 6,600 headlines (ROUGE-L on 300, greedy, words of scores.py)",
        vocab_size=2000,
        teacher_rate=2e-3,
        teacher_steps=300,
        steps=200,
        rates=(4e-3, 8e-3),
    )
