"""Extractive question answering: a reader teaches a smaller one to find its way in a line of documentation.

    python examples/distill_question_answerer.py

The lines are those of your own Python's standard library, as "Recursively copy a directory tree: copytree, to be found
in shutil". What does it do, what is it called, where is it? A reader answers with a first and a last token; tokens of
the question and of padding are never compared.
"""

from typing import Any

import numpy as np
from comparison import ExampleArguments, compare
from datasets import Dataset
from distill_language_model import byte_pair_tokenizer
from documented_functions import documented_functions
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hf_distill import EncoderLMConfig, EncoderLMForQuestionAnswering


QUESTIONS = ("What does it do?", "What is it called?", "Where is it?")


def questions(pairs: list[tuple[str, str]]) -> Dataset:
    """Three questions on each function, a text, and the answer's place in it."""
    rows = []
    for name, line in pairs:
        module, _, called = name.rpartition(".")
        context = f"{line}: {called}, to be found in {module}"
        starts = (0, len(line) + 2, len(context) - len(module))
        for question, answer, start in zip(QUESTIONS, (line, called, module), starts, strict=True):
            rows.append({"question": question, "context": context, "start": start, "end": start + len(answer)})
    return Dataset.from_list(rows)


def encoded(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    def encode(row: dict[str, Any]) -> dict[str, Any]:
        tokens = tokenizer(row["question"] + "\n", row["context"], return_offsets_mapping=True)
        places = zip(tokens.sequence_ids(), tokens["offset_mapping"], strict=True)
        inside = [
            index
            for index, (sequence, (start, end)) in enumerate(places)
            if sequence == 1 and start < row["end"] and end > row["start"]
        ]
        return {"input_ids": tokens["input_ids"], "start_positions": inside[0], "end_positions": inside[-1]}

    return rows.map(encode, remove_columns=rows.column_names)


def exact_match(prediction: EvalPrediction) -> dict[str, float]:
    starts, ends = (np.argmax(logits, axis=-1) for logits in prediction.predictions)
    right = (starts == prediction.label_ids[0]) & (ends == prediction.label_ids[1])
    return {"exact_match": float(right.mean())}


def main(job: ExampleArguments) -> None:
    pairs = documented_functions()
    tokenizer = byte_pair_tokenizer([f"{name}\n{name}: {line}" for name, line in pairs], 2048)

    def reader(size: int, layers: int) -> PreTrainedModel:
        return EncoderLMForQuestionAnswering(
            EncoderLMConfig(
                vocab_size=len(tokenizer),
                hidden_size=size,
                num_hidden_layers=layers,
                num_attention_heads=size // 16,
                intermediate_size=2 * size,
                pad_token_id=tokenizer.pad_token_id,
            )
        )

    splits = encoded(questions(pairs), tokenizer).train_test_split(test_size=0.2, seed=0)
    compare(
        job,
        lambda: reader(64, 3),
        lambda: reader(32, 2),
        splits["train"],
        splits["test"],
        "eval_exact_match",
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=exact_match,
    )


if __name__ == "__main__":
    main(*HfArgumentParser(ExampleArguments).parse_args_into_dataclasses())
