"""KL and cross-entropy over a large vocabulary, forward and backward to hidden states and head.

2,048 positions of 384 numbers on both sides and 32,000 classes, T = 2, ½ each: inputs and bare products are those of
`benchmarks/chunked_head.py`. Liger is given T² with its weight, so that it computes the same up to the mean over
positions; TRL's chunked loss has no cross-entropy, and is compared with ours without one. Time is the processor's.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from chunked_head import TEMPERATURE, Measured, bare_products, chunked, dense
from libraries import DISTILLKIT, Contender, Libraries
from measuring import in_turn, ratio
from torch import Tensor
from torch.nn.functional import cross_entropy

from hf_distill.functional import LinearLogits, chunked_distillation_loss


VOCAB_SIZE = 32_000
BARE = "the four matrix products alone"


def kl_alone(student: LinearLogits, teacher: LinearLogits, labels: Tensor) -> None:
    chunked_distillation_loss(student, teacher, temperature=TEMPERATURE).total.backward()


def liger(student: LinearLogits, teacher: LinearLogits, labels: Tensor, loss: Callable[..., Tensor]) -> None:
    loss(student.hidden_states, student.weight, teacher.hidden_states, teacher.weight, labels).backward()


def liger_loss(**options: Any) -> Callable[..., Tensor]:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    return LigerFusedLinearJSDLoss(0.5, 0.5 * TEMPERATURE**2, beta=0.0, temperature=TEMPERATURE, **options)


def liger_eager(student: LinearLogits, teacher: LinearLogits, labels: Tensor, chunk_size: int) -> None:
    liger(student, teacher, labels, liger_loss(compiled=False, chunk_size=chunk_size))


def liger_compiled(student: LinearLogits, teacher: LinearLogits, labels: Tensor, chunk_size: int) -> None:
    liger(student, teacher, labels, liger_loss(compiled=True, chunk_size=chunk_size))


def trl(student: LinearLogits, teacher: LinearLogits, labels: Tensor) -> None:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    hidden_states = (each.hidden_states[None] for each in (student, teacher))
    mask = (labels != -100)[None]
    heads = student.weight, teacher.weight
    loss, *_ = _chunked_divergence_loss(*hidden_states, *heads, mask, beta=0.0, temperature=TEMPERATURE)
    loss.backward()


def whole_logits(
    student: LinearLogits, teacher: LinearLogits, labels: Tensor, divergence: Callable[[Tensor, Tensor], Tensor]
) -> None:
    teacher_logits = (teacher.hidden_states @ teacher.weight.t()).detach()
    logits = student.hidden_states @ student.weight.t()
    (0.5 * divergence(logits, teacher_logits) + 0.5 * cross_entropy(logits, labels)).backward()


def modelopt(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    from modelopt.torch.distill import LogitsDistillationLoss

    return LogitsDistillationLoss(TEMPERATURE, reduction="none")(logits, teacher_logits).mean()


def distillkit(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    from distillkit.lossfuncs.kl import dense_kl_div

    return dense_kl_div(logits[None], teacher_logits[None], temperature=TEMPERATURE) * TEMPERATURE**2 / len(logits)


CONTENDERS = [
    Contender(BARE, bare_products),
    Contender("ours in chunks of 128", chunked),
    Contender("ours in chunks of 128, compiled", partial(chunked, compiled=True)),
    Contender("Liger in chunks of 128", partial(liger_eager, chunk_size=128), "liger-kernel"),
    Contender("Liger in chunks of 1,024, its default", partial(liger_eager, chunk_size=1024), "liger-kernel"),
    Contender("Liger in chunks of 128, compiled", partial(liger_compiled, chunk_size=128), "liger-kernel"),
    Contender(
        "Liger in chunks of 1,024, compiled, its default", partial(liger_compiled, chunk_size=1024), "liger-kernel"
    ),
    Contender("ours, whole logits", dense),
    Contender("Model-Optimizer, whole logits", partial(whole_logits, divergence=modelopt), "nvidia-modelopt"),
    Contender("DistillKit, whole logits", partial(whole_logits, divergence=distillkit), DISTILLKIT),
    Contender("ours, KL alone", kl_alone),
    Contender("TRL, KL alone", trl, "trl"),
]


class OfProcessor(Measured):
    """Seconds of the processor, which is one thread's, since others may use the machine meanwhile."""

    def __call__(self) -> float:
        start = time.process_time()
        super().__call__()
        return time.process_time() - start


def measure(libraries: Libraries, rounds: int) -> tuple[dict[str, Any], list[str]]:
    running = {each.name: OfProcessor(each.run, VOCAB_SIZE) for each in libraries.present(CONTENDERS)}
    for name, measured in running.items():
        if "compiled" in name:
            measured()
    seconds = in_turn(running, rounds)
    memory = {name: measured.mebibytes for name, measured in running.items()}
    lines = [
        "| KL and cross-entropy, 2,048 positions × 32,000 classes | time, over that of the matrix products | seconds "
        "| peak memory, MiB |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {ratio(seconds, name, BARE):.2f} | {statistics.median(seconds[name]):.1f} | {memory[name]:,.0f} |"
        for name in running
    ]
    return {"seconds": seconds, "peak_mebibytes": memory}, lines
