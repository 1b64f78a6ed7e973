"""The main job: a language model teaches a smaller one, and the evidence that it helped.

Without arguments it needs no network: the text is the Python language reference that every CPython carries. It trains
a teacher, trains a student on the text alone, distils the same student, and writes a table, a plot and a report:

    python examples/distill_language_model.py

With a network, any text data set and any causal language model as the teacher:

    python examples/distill_language_model.py --dataset Salesforce/wikitext --dataset_config wikitext-2-raw-v1 \
        --teacher openai-community/gpt2 --block_size 256
"""

import json
import math
import re
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    default_data_collator,
    set_seed,
)

from hf_distill import (
    DistillationTrainer,
    DistillationTrainingArguments,
    EncoderLMConfig,
    EncoderLMForCausalLM,
    distillation_report,
)


@dataclass
class JobArguments:
    """What the main job works on. The defaults finish in less than five minutes on two cores."""

    output_dir: str = field(default="outputs/language_model", metadata={"help": "Where models and evidence go."})
    dataset: str | None = field(
        default=None, metadata={"help": "A data set by Hub id or path; the Python language reference if left out."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "The configuration of that data set."})
    text_column: str = field(default="text", metadata={"help": "Its column of text."})
    teacher: str | None = field(
        default=None, metadata={"help": "A causal language model by Hub id or path; trained here if left out."}
    )
    vocab_size: int = field(default=1024, metadata={"help": "Tokens of the BPE, where no teacher brings a tokenizer."})
    block_size: int = field(default=128, metadata={"help": "Tokens per row."})
    teacher_hidden_size: int = 128
    teacher_num_hidden_layers: int = 4
    teacher_learning_rate: float = 5e-3
    teacher_steps: int = 400
    student_hidden_size: int = 64
    student_num_hidden_layers: int = 2
    student_learning_rate: float = field(default=1.6e-2, metadata={"help": "Of both students, distilled or not."})
    student_steps: int = 300
    temperature: float = 2.0
    alpha: float = 0.5
    batch_size: int = 16
    seed: int = 0
    smoke: bool = field(default=False, metadata={"help": "A few steps of tiny models, to see that all runs."})

    def __post_init__(self) -> None:
        if self.smoke:
            self.teacher_steps = self.student_steps = 3
            self.teacher_hidden_size = self.student_hidden_size = 32
            self.block_size, self.batch_size, self.vocab_size = 32, 4, 300


def python_reference() -> dict[str, list[str]]:
    """The paragraphs of the Python language reference; every tenth topic is for validation, and shares none."""
    from pydoc_data.topics import topics

    names = sorted(topics)
    held_out = names[::10]
    paragraphs = {name: re.split(r"\n\s*\n", topics[name].strip()) for name in names}
    validation = dict.fromkeys(chain.from_iterable(paragraphs[name] for name in held_out))
    everything = dict.fromkeys(chain.from_iterable(paragraphs.values()))
    return {"train": [text for text in everything if text not in validation], "validation": list(validation)}


def load_texts(job: JobArguments) -> dict[str, list[str]]:
    """Texts to train on and texts to measure on."""
    if job.dataset is None:
        texts = python_reference()
    else:
        splits = load_dataset(job.dataset, job.dataset_config)
        texts = {name: list(splits[name][job.text_column]) for name in ("train", "validation")}
    return {name: part[: 200 if job.smoke else None] for name, part in texts.items()}


def byte_pair_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """A byte-level BPE trained on the texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>")


def blocks(texts: list[str], tokenizer: PreTrainedTokenizerBase, size: int) -> Dataset:
    """The texts one after the other, cut into rows of `size` tokens."""
    tokens = list(chain.from_iterable(tokenizer([text + "\n\n" for text in texts])["input_ids"]))
    rows = [tokens[start : start + size] for start in range(0, len(tokens) - size + 1, size)]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def encoder_lm(
    tokenizer: PreTrainedTokenizerBase, hidden_size: int, num_layers: int, dropout: float
) -> PreTrainedModel:
    """A causal language model with random weights."""
    return EncoderLMForCausalLM(
        EncoderLMConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=max(1, hidden_size // 32),
            intermediate_size=4 * hidden_size,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            position_embedding_type="rotary",
            pre_norm=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


@dataclass
class MainJob:
    """The data, and one way to train on it: with a teacher or on the text alone."""

    job: JobArguments
    tokenizer: PreTrainedTokenizerBase
    train: Dataset
    validation: Dataset

    @classmethod
    def prepare(cls, job: JobArguments) -> "MainJob":
        texts = load_texts(job)
        if job.teacher is None:
            tokenizer = byte_pair_tokenizer(texts["train"], job.vocab_size)
        else:
            tokenizer = AutoTokenizer.from_pretrained(job.teacher)
        return cls(
            job, tokenizer, *(blocks(texts[name], tokenizer, job.block_size) for name in ("train", "validation"))
        )

    def teacher(self) -> PreTrainedModel:
        if self.job.teacher is not None:
            return AutoModelForCausalLM.from_pretrained(self.job.teacher)
        set_seed(self.job.seed)
        teacher = encoder_lm(self.tokenizer, self.job.teacher_hidden_size, self.job.teacher_num_hidden_layers, 0.1)
        self.fit("teacher", teacher, self.job.teacher_steps, self.job.teacher_learning_rate)
        return teacher

    def student(self, seed: int) -> PreTrainedModel:
        set_seed(seed)
        return encoder_lm(self.tokenizer, self.job.student_hidden_size, self.job.student_num_hidden_layers, 0.0)

    def fit(
        self,
        name: str,
        model: PreTrainedModel,
        steps: int,
        learning_rate: float,
        seed: int = 0,
        teacher: PreTrainedModel | None = None,
    ) -> DistillationTrainer:
        """Train `model` with `teacher`, or on the text alone if there is none."""
        trainer = DistillationTrainer(
            model=model,
            teacher=teacher,
            args=DistillationTrainingArguments(
                output_dir=str(Path(self.job.output_dir) / name),
                temperature=self.job.temperature,
                alpha=1.0 if teacher is None else self.job.alpha,
                max_steps=steps,
                learning_rate=learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=0.1,
                per_device_train_batch_size=self.job.batch_size,
                per_device_eval_batch_size=2 * self.job.batch_size,
                eval_strategy="steps",
                eval_steps=max(1, steps // 6),
                logging_steps=max(1, steps // 6),
                save_strategy="no",
                report_to=[],
                seed=seed,
            ),
            train_dataset=self.train,
            eval_dataset=self.validation,
            data_collator=default_data_collator,
            processing_class=self.tokenizer,
        )
        trainer.train()
        trainer.save_model()
        return trainer

    def measure(self, name: str, model: PreTrainedModel, teacher: PreTrainedModel) -> dict[str, Any]:
        """What the model knows and what it costs."""
        args = DistillationTrainingArguments(
            output_dir=str(Path(self.job.output_dir) / "measure"),
            alpha=1.0,
            report_agreement=model is not teacher,
            per_device_eval_batch_size=2 * self.job.batch_size,
            report_to=[],
        )
        trainer = DistillationTrainer(
            model=model,
            teacher=teacher if model is not teacher else None,
            args=args,
            eval_dataset=self.validation,
            data_collator=default_data_collator,
        )
        metrics = trainer.evaluate()
        weights = Path(self.job.output_dir, name).glob("*.safetensors")
        return {
            "model": name,
            "perplexity": metrics["eval_perplexity"],
            "agreement": metrics.get("eval_agreement", 1.0),
            "parameters": model.num_parameters(),
            "megabytes": sum(path.stat().st_size for path in weights) / 1e6 or math.nan,
            "tokens_per_second": self.throughput(model),
        }

    def throughput(self, model: PreTrainedModel, seconds: float = 2.0) -> float:
        """Tokens read per second, forward only, in the fastest of many batches of `batch_size` rows."""
        batch = torch.tensor(self.validation[: self.job.batch_size]["input_ids"], device=model.device)
        model.eval()
        fastest, end = math.inf, time.perf_counter() + seconds
        with torch.inference_mode():
            while (start := time.perf_counter()) < end:
                model(input_ids=batch, use_cache=False)
                fastest = min(fastest, time.perf_counter() - start)
        return batch.numel() / fastest


def curve(trainer: DistillationTrainer) -> list[dict[str, float]]:
    """What was measured during training."""
    return [log for log in trainer.state.log_history if "eval_perplexity" in log]


def table(rows: list[dict[str, Any]]) -> str:
    """The evidence in Markdown."""
    lines = [
        "| model | validation perplexity | agreement with the teacher | parameters | on disk | tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['model']} | {row['perplexity']:.2f} | {row['agreement']:.1%} | {row['parameters']:,} | "
            f"{row['megabytes']:.2f} MB | {row['tokens_per_second']:,.0f} |"
        )
    return "\n".join(lines)


def plot(curves: dict[str, list[dict[str, float]]], teacher_perplexity: float, path: Path) -> None:
    """Validation perplexity over training."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for name, curve in curves.items():
        axes.plot([log["step"] for log in curve], [log["eval_perplexity"] for log in curve], marker="o", label=name)
    axes.axhline(teacher_perplexity, color="0.4", linestyle="--", label="teacher")
    axes.set(xlabel="step", ylabel="validation perplexity", title="Did distilling help?")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(job: JobArguments) -> None:
    output_dir = Path(job.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    work = MainJob.prepare(job)
    print(f"{len(work.train)} rows of {job.block_size} tokens to train on, {len(work.validation)} to measure on")

    print("\n1/3  teacher")
    teacher = work.teacher()
    print("\n2/3  student on the text alone")
    alone = work.student(job.seed)
    trainers = {"student alone": work.fit("student", alone, job.student_steps, job.student_learning_rate, job.seed)}
    print("\n3/3  the same student with the teacher")
    distilled = work.student(job.seed)
    trainers["student distilled"] = work.fit(
        "distilled", distilled, job.student_steps, job.student_learning_rate, job.seed, teacher
    )
    curves = {name: curve(trainer) for name, trainer in trainers.items()}

    named = {"teacher": teacher, "student": alone, "distilled": distilled}
    rows = [work.measure(name, model, teacher) for name, model in named.items()]
    (output_dir / "evidence.json").write_text(json.dumps({"models": rows, "curves": curves}, indent=2))
    (output_dir / "evidence.md").write_text(table(rows) + "\n")
    plot(curves, rows[0]["perplexity"], output_dir / "evidence.png")
    distillation_report(trainers["student distilled"], alone, batch_sizes=(1, job.batch_size)).save(
        output_dir / "report"
    )
    print(f"\n{table(rows)}\n\n{time.perf_counter() - start:.0f} s; evidence and models are in {output_dir}/")


if __name__ == "__main__":
    main(*HfArgumentParser(JobArguments).parse_args_into_dataclasses())
