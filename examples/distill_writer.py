"""Sequence to sequence: a writer teaches a smaller one to name a function by what it does.

    python examples/distill_writer.py

It reads "Recursively copy a directory tree" and writes "copy tree". The pairs are those of your own Python's standard
library. Translation and summarisation are the same call with other rows.
"""

from typing import Any

from comparison import ExampleArguments, compare
from datasets import Dataset
from distill_language_model import byte_pair_tokenizer
from documented_functions import documented_functions
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DataCollatorForSeq2Seq,
    HfArgumentParser,
    PreTrainedModel,
)


def words_of(name: str) -> str:
    return name.rpartition(".")[2].strip("_").replace("_", " ")


def main(job: ExampleArguments) -> None:
    pairs = [(line, words_of(name)) for name, line in documented_functions()]
    tokenizer = byte_pair_tokenizer([text for pair in pairs for text in pair], 1024)
    end: Any = tokenizer.eos_token_id
    rows = Dataset.from_dict(
        {
            "input_ids": [[*tokenizer(line)["input_ids"], end] for line, _ in pairs],
            "labels": [[*tokenizer(name)["input_ids"], end] for _, name in pairs],
        }
    ).train_test_split(test_size=0.1, seed=0)

    def writer(size: int, layers: int) -> PreTrainedModel:
        return BartForConditionalGeneration(
            BartConfig(
                vocab_size=len(tokenizer),
                d_model=size,
                encoder_layers=layers,
                decoder_layers=layers,
                encoder_attention_heads=size // 16,
                decoder_attention_heads=size // 16,
                encoder_ffn_dim=2 * size,
                decoder_ffn_dim=2 * size,
                max_position_embeddings=128,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=end,
                eos_token_id=end,
                decoder_start_token_id=end,
                forced_eos_token_id=None,
                scale_embedding=True,
            )
        )

    compare(
        job,
        lambda: writer(64, 2),
        lambda: writer(32, 1),
        rows["train"],
        rows["test"],
        "eval_loss/labels",
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )


if __name__ == "__main__":
    main(*HfArgumentParser(ExampleArguments).parse_args_into_dataclasses())
