"""What each library computes as KL with a temperature, on the logits of tokens of which some are padding.

The definition, in float64: T² times the KL of each labelled token, and of these the mean. A library is called as its
own training code calls it. Its gradient is taken apart into the part along the gradient of the definition, and the
rest: a constant factor is a matter of the weight that is chosen, the rest is another quantity.
"""

from typing import Any, NamedTuple

import torch
from libraries import DISTILLKIT, Contender, Libraries
from torch import Tensor
from transformers.modeling_outputs import CausalLMOutput

from hf_distill.functional import forward_kl


ROWS, LENGTH, CLASSES, TEMPERATURE = 4, 12, 50, 2.0
PADDING = (0, 3, 5, 8)
"""Tokens of padding at the end of each row."""


class Batch(NamedTuple):
    student: Tensor
    teacher: Tensor
    labels: Tensor


def definition(batch: Batch) -> Tensor:
    p, q = (torch.log_softmax(each.double() / TEMPERATURE, dim=-1) for each in (batch.teacher, batch.student))
    kl = (p.exp() * (p - q)).sum(dim=-1)
    return TEMPERATURE**2 * kl[batch.labels != -100].mean()


def ours(batch: Batch) -> Tensor:
    mask = batch.labels != -100
    return forward_kl(batch.student, batch.teacher, temperature=TEMPERATURE, mask=mask).sum() / mask.sum()


def textbrewer(batch: Batch) -> Tensor:
    from textbrewer.losses import kd_ce_loss

    return kd_ce_loss(batch.student, batch.teacher, temperature=TEMPERATURE)


def textbrewer_masked(batch: Batch) -> Tensor:
    from textbrewer.distiller_utils import select_logits_with_mask
    from textbrewer.losses import kd_ce_loss

    mask = [batch.labels != -100]
    student, teacher = (select_logits_with_mask([each], mask)[0] for each in (batch.student, batch.teacher))
    return kd_ce_loss(student, teacher, temperature=TEMPERATURE)


def torchdistill(batch: Batch) -> Tensor:
    from torchdistill.losses.mid_level import KDLoss

    outputs = ({"logits": {"output": each.flatten(0, 1)}} for each in (batch.student, batch.teacher))
    return KDLoss("logits", "output", "logits", "output", TEMPERATURE, alpha=0.0)(*outputs)


def modelopt_default(batch: Batch) -> Tensor:
    from modelopt.torch.distill import LogitsDistillationLoss

    return LogitsDistillationLoss(TEMPERATURE)(batch.student, batch.teacher)


def modelopt_trainer(batch: Batch) -> Tensor:
    from modelopt.torch.distill import LogitsDistillationLoss

    mask = batch.labels != -100
    losses = LogitsDistillationLoss(TEMPERATURE, reduction="none")(batch.student, batch.teacher)
    return (losses * mask).sum() / mask.sum()


def trl(batch: Batch) -> Tensor:
    from trl.experimental.gkd import GKDTrainer

    return GKDTrainer.generalized_jsd_loss(*batch, beta=0.0, temperature=TEMPERATURE)


def trl_chunked(batch: Batch) -> Tensor:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    head = torch.eye(CLASSES)
    mask = batch.labels != -100
    return _chunked_divergence_loss(batch.student, batch.teacher, head, head, mask, beta=0.0, temperature=TEMPERATURE)[
        0
    ]


def liger(batch: Batch) -> Tensor:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    head = torch.eye(CLASSES)
    student, teacher = (each.flatten(0, 1) for each in (batch.student, batch.teacher))
    loss = LigerFusedLinearJSDLoss(0.0, 1.0, beta=0.0, temperature=TEMPERATURE, compiled=False)
    return loss(student, head, teacher, head, batch.labels.flatten())


def distillkit(batch: Batch) -> Tensor:
    from distillkit.lossfuncs.kl import KLDLoss
    from distillkit.signals import DenseSignal

    signal = DenseSignal(generation_temperature=1.0, hidden_states=None, vocab_size=CLASSES, logits=batch.teacher)
    mask = (batch.labels >= 0).unsqueeze(-1)
    return KLDLoss(TEMPERATURE)(CausalLMOutput(logits=batch.student), signal, mask=mask)


CONTENDERS = [
    Contender("`forward_kl`, summed and divided", ours),
    Contender("TextBrewer, `kd_ce_loss`", textbrewer, "textbrewer", "no T²; padding in the mean; a cross-entropy"),
    Contender(
        "TextBrewer, `kd_ce_loss` where the adaptor gives a mask",
        textbrewer_masked,
        "textbrewer",
        "no T²; a cross-entropy: with the teacher's entropy",
    ),
    Contender(
        "torchdistill, `KDLoss`", torchdistill, "torchdistill", "no T² unless labels are given; padding in the mean"
    ),
    Contender(
        "Model-Optimizer, `LogitsDistillationLoss` by default",
        modelopt_default,
        "nvidia-modelopt",
        "the mean is over the classes too; padding in the mean",
    ),
    Contender("Model-Optimizer, as its `KDTrainer` calls it", modelopt_trainer, "nvidia-modelopt"),
    Contender("TRL, `generalized_jsd_loss` at β = 0", trl, "trl", "no T²"),
    Contender("TRL, `_chunked_divergence_loss` at β = 0", trl_chunked, "trl", "no T²"),
    Contender("Liger, `LigerFusedLinearJSDLoss` at β = 0", liger, "liger-kernel", "no T²"),
    Contender("DistillKit, `KLDLoss`", distillkit, DISTILLKIT),
]


def measure(libraries: Libraries, rounds: int) -> tuple[dict[str, Any], list[str]]:
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, ROWS, LENGTH, CLASSES)
    labels = torch.randint(0, CLASSES, (ROWS, LENGTH))
    for row, count in enumerate(PADDING):
        labels[row, LENGTH - count :] = -100
    expected, expected_gradient = _value_and_gradient(definition, *logits, labels)
    found = {}
    lines = [
        "| KL of padded tokens, T = 2 | value, over the definition's | gradient along the definition's "
        "| the rest of it | what differs |",
        "|---|---|---|---|---|",
    ]
    for each in libraries.present(CONTENDERS):
        value, gradient = _value_and_gradient(each.run, *logits, labels)
        along = ((gradient * expected_gradient).sum() / expected_gradient.square().sum()).item()
        rest = ((gradient - along * expected_gradient).norm() / gradient.norm()).item()
        found[each.name] = {"value": value / expected, "along": along, "rest": rest}
        shown = "less than 1e-5" if rest < 1e-5 else f"{rest:.2f}"
        note = each.note or "nothing"
        lines.append(f"| {each.name} | {value / expected:.4f} | {along:.4f} | {shown} | {note} |")
    return found, lines


def _value_and_gradient(run: Any, student: Tensor, teacher: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    student = student.clone().requires_grad_()
    value = run(Batch(student, teacher, labels))
    value.backward()
    return value.item(), student.grad.double()
