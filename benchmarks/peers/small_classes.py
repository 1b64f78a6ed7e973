"""The loss of a small classifier and its gradient: 32 rows of 3 classes, half KL with T = 2, half cross-entropy."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from libraries import DISTILLKIT, Contender, Libraries
from measuring import in_turn, ratio
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from hf_distill.functional import forward_kl


ROWS, CLASSES, TEMPERATURE, REPETITIONS = 32, 3, 2.0, 500
BY_HAND = "by hand, with `kl_div`"


def by_hand(student: Tensor, teacher: Tensor) -> Tensor:
    log_q, p = log_softmax(student / TEMPERATURE, dim=-1), softmax(teacher / TEMPERATURE, dim=-1)
    return TEMPERATURE**2 * kl_div(log_q, p, reduction="batchmean")


def ours(student: Tensor, teacher: Tensor) -> Tensor:
    return forward_kl(student, teacher, temperature=TEMPERATURE).mean()


def textbrewer(student: Tensor, teacher: Tensor) -> Tensor:
    from textbrewer.losses import kd_ce_loss

    return kd_ce_loss(student, teacher, temperature=TEMPERATURE)


def torchdistill(student: Tensor, teacher: Tensor) -> Tensor:
    from torchdistill.losses.mid_level import KDLoss

    outputs = ({"logits": {"output": each}} for each in (student, teacher))
    return KDLoss("logits", "output", "logits", "output", TEMPERATURE, alpha=0.0)(*outputs)


def modelopt(student: Tensor, teacher: Tensor) -> Tensor:
    from modelopt.torch.distill import LogitsDistillationLoss

    return LogitsDistillationLoss(TEMPERATURE, reduction="none")(student, teacher).mean()


def trl(student: Tensor, teacher: Tensor) -> Tensor:
    from trl.experimental.gkd import GKDTrainer

    return GKDTrainer.generalized_jsd_loss(student, teacher, beta=0.0, temperature=TEMPERATURE)


def distillkit(student: Tensor, teacher: Tensor) -> Tensor:
    from distillkit.lossfuncs.kl import dense_kl_div

    return dense_kl_div(student[None], teacher[None], temperature=TEMPERATURE) * TEMPERATURE**2 / len(student)


CONTENDERS = [
    Contender(BY_HAND, by_hand),
    Contender("ours", ours),
    Contender("TextBrewer", textbrewer, "textbrewer"),
    Contender("torchdistill", torchdistill, "torchdistill"),
    Contender("Model-Optimizer", modelopt, "nvidia-modelopt"),
    Contender("TRL", trl, "trl"),
    Contender("DistillKit", distillkit, DISTILLKIT),
]


def seconds(divergence: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor, labels: Tensor) -> float:
    """Of the processor, for one loss and gradient."""
    start = time.process_time()
    for _ in range(REPETITIONS):
        student.grad = None
        (0.5 * divergence(student, teacher) + 0.5 * cross_entropy(student, labels)).backward()
    return (time.process_time() - start) / REPETITIONS


def measure(libraries: Libraries, rounds: int) -> tuple[dict[str, Any], list[str]]:
    torch.manual_seed(0)
    student, teacher = torch.randn(ROWS, CLASSES, requires_grad=True), torch.randn(ROWS, CLASSES)
    labels = torch.randint(0, CLASSES, (ROWS,))
    running = {
        each.name: partial(seconds, each.run, student, teacher, labels) for each in libraries.present(CONTENDERS)
    }
    found = in_turn(running, rounds)
    lines = ["| KL and cross-entropy, 32 rows × 3 classes | time, over that by hand | microseconds |", "|---|---|---|"]
    lines += [
        f"| {name} | {ratio(found, name, BY_HAND):.2f} | {1e6 * statistics.median(found[name]):.0f} |"
        for name in found
    ]
    return {"seconds": found}, lines
