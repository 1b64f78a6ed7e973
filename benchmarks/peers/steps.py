"""A whole training step: `DistillationTrainer` and the trainers of other libraries, on the same pairs and rows.

All take the model, the rows and the arguments that matter as they are given: float32, fused AdamW, gradients clipped
at 1, no dropout, no padding. The learning rate is 0, so that the mean loss of all steps does not depend on the order
of the rows: where two trainers teach the same, it is the same number.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from libraries import DISTILLKIT, Contender, Libraries
from measuring import in_turn, ratio
from step_overhead import WARMUP_STEPS, Stopwatch
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    default_data_collator,
    get_linear_schedule_with_warmup,
    set_seed,
)

from hf_distill import DistillationTrainer, DistillationTrainingArguments


BATCH_SIZE, LENGTH = 8, 64
VOCAB_SIZES = {"causal": 32_000, "classification": 30_522}
STEPS = {"causal": 5, "classification": 12}
ALPHA, TEMPERATURE = 0.5, 2.0


def pair(task: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A student of half the teacher's layers."""
    set_seed(0)
    sizes = {"hidden_size": 256, "num_attention_heads": 4, "vocab_size": VOCAB_SIZES[task]}
    if task == "causal":
        configurations = (LlamaConfig(**sizes, intermediate_size=688, num_hidden_layers=n) for n in (2, 4))
        student, teacher = (LlamaForCausalLM(each) for each in configurations)
    else:
        no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        configurations = (
            BertConfig(**sizes, **no_dropout, intermediate_size=1024, num_hidden_layers=n) for n in (2, 4)
        )
        student, teacher = (BertForSequenceClassification(each) for each in configurations)
    return student, teacher.eval()


def rows(task: str) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    count = BATCH_SIZE * (STEPS[task] + WARMUP_STEPS)
    tokens = torch.randint(3, VOCAB_SIZES[task], (count, LENGTH), generator=generator)
    labels = tokens if task == "causal" else tokens[:, 0] % 2
    columns = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
    return Dataset.from_dict({name: column.tolist() for name, column in columns.items()})


def arguments(task: str) -> dict[str, Any]:
    return {
        "output_dir": tempfile.gettempdir(),
        "max_steps": STEPS[task] + WARMUP_STEPS,
        "per_device_train_batch_size": BATCH_SIZE,
        "learning_rate": 0.0,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 10**6,
        "disable_tqdm": True,
        "use_cpu": True,
    }


def trained(trainer_class: Callable[..., Any], task: str, **options: Any) -> tuple[float, float]:
    """Seconds a step, and the mean loss."""
    stopwatch = Stopwatch()
    trainer = trainer_class(
        train_dataset=rows(task), data_collator=default_data_collator, callbacks=[stopwatch], **options
    )
    loss = trainer.train().training_loss
    return stopwatch.seconds_per_step, loss


def ours(task: str) -> tuple[float, float]:
    student, teacher = pair(task)
    alpha, temperature = (0.0, 1.0) if task == "causal" else (ALPHA, TEMPERATURE)
    args = DistillationTrainingArguments(**arguments(task), alpha=alpha, temperature=temperature, preflight=False)
    return trained(DistillationTrainer, task, model=student, teacher=teacher, args=args)


def modelopt(task: str) -> tuple[float, float]:
    from modelopt.torch.distill.plugins.huggingface import KDTrainer
    from transformers import TrainingArguments

    student, teacher = pair(task)
    args = TrainingArguments(**arguments(task))
    return trained(KDTrainer, task, model=student, args=args, distill_args={"teacher_model": teacher})


def trl(task: str) -> tuple[float, float]:
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    student, teacher = pair(task)
    args = GKDConfig(**arguments(task), **trl_as_others(), lmbda=0.0, beta=0.0)
    return trained(GKDTrainer, task, model=student, teacher_model=teacher, args=args, processing_class=any_tokenizer())


def distillkit(task: str) -> tuple[float, float]:
    from distillkit.configuration import DistillationRunConfig
    from distillkit.signals import OnlineSignalSource
    from distillkit.trainer import DistillationTrainer as DistillKitTrainer
    from trl import SFTConfig

    student, teacher = pair(task)
    config = DistillationRunConfig(
        model="given",
        dataset={"train_dataset": {"disk_path": "given"}},
        teacher={"kind": "hf", "path": "given"},
        sequence_length=LENGTH,
        output_path="given",
        loss_functions=[{"function": "kl", "weight": 1.0, "temperature": 1.0}],
    )
    return trained(
        DistillKitTrainer,
        task,
        model=student,
        config=config,
        signal_source=OnlineSignalSource(teacher, VOCAB_SIZES[task]),
        true_vocab_size=VOCAB_SIZES[task],
        args=SFTConfig(**arguments(task), **trl_as_others(), dataset_kwargs={"skip_prepare_dataset": True}),
        processing_class=any_tokenizer(),
    )


def trl_as_others() -> dict[str, Any]:
    """TRL checkpoints gradients and computes in bfloat16 by default."""
    return {"gradient_checkpointing": False, "bf16": False}


def any_tokenizer() -> PreTrainedTokenizerFast:
    """TRL wants one, though the rows are token ids."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def textbrewer(task: str) -> tuple[float, float]:
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    def adaptor(batch: Any, outputs: Any) -> dict[str, Any]:
        return {"logits": (outputs.logits,), "losses": (outputs.loss,)}

    student, teacher = pair(task)
    starts, steps = [], STEPS[task] + WARMUP_STEPS

    def note_start(batch: Any) -> Any:
        starts.append(time.perf_counter())
        return batch

    with tempfile.TemporaryDirectory() as folder:
        distiller = GeneralDistiller(
            TrainingConfig(output_dir=folder, device="cpu", ckpt_steps=steps),
            DistillationConfig(
                temperature=TEMPERATURE, hard_label_weight=ALPHA, kd_loss_weight=(1 - ALPHA) * TEMPERATURE**2
            ),
            teacher,
            student,
            adaptor,
            adaptor,
        )
        distiller.train(
            torch.optim.AdamW(student.train().parameters(), lr=0.0, weight_decay=0.0, fused=True),
            DataLoader(rows(task), BATCH_SIZE, shuffle=True, collate_fn=default_data_collator),
            num_steps=steps + 1,  # whose start is the end of the last one that is timed
            max_grad_norm=1.0,
            scheduler_class=get_linear_schedule_with_warmup,
            scheduler_args={"num_warmup_steps": 0, "num_training_steps": steps},
            batch_postprocessor=note_start,
        )
    return (starts[-1] - starts[WARMUP_STEPS]) / STEPS[task], math.nan


CONTENDERS = {
    "causal": [
        Contender("`DistillationTrainer`", ours),
        Contender("Model-Optimizer, `KDTrainer`", modelopt, "nvidia-modelopt"),
        Contender("TRL, `GKDTrainer` with `lmbda=0`", trl, "trl"),
        Contender("DistillKit, `DistillationTrainer`", distillkit, DISTILLKIT),
    ],
    "classification": [
        Contender("`DistillationTrainer`", ours),
        Contender("TextBrewer, `GeneralDistiller`", textbrewer, "textbrewer"),
    ],
}


class Timed:
    """A contender; its loss is that of the last call."""

    def __init__(self, run: Callable[[str], tuple[float, float]], task: str) -> None:
        self.run, self.task, self.loss = run, task, math.nan

    def __call__(self) -> float:
        seconds, self.loss = self.run(self.task)
        return seconds


def measure(libraries: Libraries, rounds: int) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {}
    lines = ["| a training step | | ours, over it | milliseconds | mean loss |", "|---|---|---|---|---|"]
    for task, contenders in CONTENDERS.items():
        running = {each.name: Timed(each.run, task) for each in libraries.present(contenders)}
        seconds = in_turn(running, rounds)
        losses = {name: timed.loss for name, timed in running.items()}
        found[task] = {"seconds_per_step": seconds, "losses": losses}
        first = contenders[0].name
        for name in running:
            over, median = ratio(seconds, first, name), 1e3 * statistics.median(seconds[name])
            loss = "" if math.isnan(losses[name]) else f"{losses[name]:.5f}"
            lines.append(f"| {task} | {name} | {over:.2f} | {median:.0f} | {loss} |")
    return found, lines
