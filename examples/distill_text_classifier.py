"""A text classifier teaches a smaller one on text that nobody labelled: the same five lines, with another head.

Only some rows have labels for the student. Alone it learns from those; distilled it learns from all rows, without a
single label, by what the teacher says (`alpha=0`).

Without arguments it needs no network: each paragraph of the Python language reference is to be sorted into the part
of the reference that it comes from. With a network, any text data set and any classifier:

    python examples/distill_text_classifier.py --dataset stanfordnlp/sst2 --text_column sentence \
        --teacher textattack/bert-base-uncased-SST-2
"""

import json
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset
from distill_language_model import byte_pair_tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from hf_distill import (
    DistillationTrainer,
    DistillationTrainingArguments,
    EncoderLMConfig,
    EncoderLMForSequenceClassification,
)


PARTS = {
    "statements": ("assert", "assignment", "break", "compound", "continue", "del", "global", "import", "return"),
    "expressions": ("binary", "calls", "comparisons", "lambda", "operator-summary", "slicings", "subscriptions"),
    "data model": ("customization", "descriptors", "numeric-types", "sequence-types", "typesmethods", "typesseq"),
    "text": ("formatstrings", "strings", "string-methods", "numbers", "identifiers"),
    "debugger": ("debugger",),
    "types": ("bltin-type-objects", "types", "typesfunctions", "typesmapping", "typesmodules", "dynamic-features"),
}


@dataclass
class JobArguments:
    """What the example works on. The defaults finish in about a minute on two cores."""

    output_dir: str = field(default="outputs/text_classifier", metadata={"help": "Where models and evidence go."})
    dataset: str | None = field(
        default=None, metadata={"help": "A data set by Hub id or path; the Python language reference if left out."}
    )
    text_column: str = field(default="text", metadata={"help": "Its column of text."})
    teacher: str | None = field(
        default=None, metadata={"help": "A classifier by Hub id or path; trained here if left out."}
    )
    labelled_rows: int = field(default=200, metadata={"help": "Rows whose labels the student may see."})
    steps: int = field(default=400, metadata={"help": "Of the teacher and of both students."})
    teacher_learning_rate: float = 2e-3
    student_learning_rate: float = 5e-3
    temperature: float = 2.0
    seed: int = 0
    smoke: bool = field(default=False, metadata={"help": "A few steps, to see that all runs."})


def python_reference() -> DatasetDict:
    """Paragraphs of the Python language reference, labelled with the part they come from."""
    from pydoc_data.topics import topics

    part_of: dict[str, int] = {}
    for label, names in enumerate(PARTS.values()):
        for paragraph in chain.from_iterable(topics[name].split("\n\n") for name in names if name in topics):
            if len(paragraph) > 40:
                part_of.setdefault(" ".join(paragraph.split()), label)
    data = Dataset.from_dict({"text": list(part_of), "label": list(part_of.values())})
    splits = data.train_test_split(test_size=0.2, seed=0)
    return DatasetDict(train=splits["train"], validation=splits["test"])


def classifier(tokenizer: PreTrainedTokenizerBase, labels: list[str], size: int, layers: int) -> PreTrainedModel:
    return EncoderLMForSequenceClassification(
        EncoderLMConfig(
            vocab_size=len(tokenizer),
            hidden_size=size,
            num_hidden_layers=layers,
            num_attention_heads=max(1, size // 32),
            intermediate_size=2 * size,
            pad_token_id=tokenizer.pad_token_id,
            classifier_pooling="mean",
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
    )


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


def save(evidence: list[dict[str, Any]], output_dir: Path) -> None:
    """Write the evidence, and print the short of it."""
    (output_dir / "evidence.json").write_text(json.dumps(evidence, indent=2))
    for row in evidence:
        agreement = f"{row['eval_agreement']:.1%}" if "eval_agreement" in row else "–"
        print(
            f"{row['model']:>10}: accuracy {row['eval_accuracy']:.1%}, agreement with the teacher {agreement}, "
            f"{row['parameters']:,} parameters"
        )


def main(job: JobArguments) -> None:
    data = python_reference() if job.dataset is None else load_dataset(job.dataset)
    if job.dataset is None:
        tokenizer = byte_pair_tokenizer(data["train"]["text"], 1024)
        labels = list(PARTS)
    else:
        tokenizer = AutoTokenizer.from_pretrained(job.teacher)
        labels = data["train"].features["label"].names
    rows = data.map(lambda row: tokenizer(row[job.text_column], truncation=True, max_length=96))

    def fit(
        name: str, model: PreTrainedModel, train: Dataset, learning_rate: float, teacher: PreTrainedModel | None = None
    ) -> dict[str, Any]:
        trainer = DistillationTrainer(
            model=model,
            teacher=teacher,
            args=DistillationTrainingArguments(
                output_dir=str(Path(job.output_dir) / name),
                temperature=job.temperature,
                alpha=1.0 if teacher is None else 0.0,
                report_agreement=teacher is not None,
                max_steps=3 if job.smoke else job.steps,
                learning_rate=learning_rate,
                per_device_train_batch_size=32,
                logging_steps=50,
                save_strategy="no",
                report_to=[],
                seed=job.seed,
            ),
            train_dataset=train,
            eval_dataset=rows["validation"],
            processing_class=tokenizer,
            compute_metrics=accuracy,
        )
        trainer.train()
        trainer.save_model()
        return {"model": name, "parameters": model.num_parameters(), **trainer.evaluate()}

    def student() -> PreTrainedModel:
        set_seed(job.seed)
        return classifier(tokenizer, labels, size=32, layers=1)

    evidence = []
    if job.teacher is None:
        set_seed(job.seed)
        teacher = classifier(tokenizer, labels, size=128, layers=3)
        evidence.append(fit("teacher", teacher, rows["train"], job.teacher_learning_rate))
    else:
        teacher = AutoModelForSequenceClassification.from_pretrained(job.teacher)
    labelled, unlabelled = rows["train"].select(range(job.labelled_rows)), rows["train"].remove_columns("label")
    evidence.append(fit("student", student(), labelled, job.student_learning_rate))
    evidence.append(fit("distilled", student(), unlabelled, job.student_learning_rate, teacher))

    save(evidence, Path(job.output_dir))


if __name__ == "__main__":
    main(*HfArgumentParser(JobArguments).parse_args_into_dataclasses())
