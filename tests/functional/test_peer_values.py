"""Numbers that other libraries compute on the same tensors, and what has to be done to ours for it to be theirs.

Each value was computed by the call that stands beside it, with the names of this file for the tensors. A difference
in definition is not hidden in the tolerance: it is written out in the expression for ours, and said in words.

What cannot be made into the other is not here: of torchdistill 1.1.5 SPKDLoss, whose similarities are divided by
their sum in place of their length; FSPLoss, which compares flows by the lengths of columns; and CRDLoss, a contrast
with a memory.
"""

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from hf_distill.functional import (
    LinearLogits,
    attention_kl,
    attention_mse,
    chunked_distillation_loss,
    correlation_congruence,
    cosine_distance,
    forward_kl,
    fsp_distance,
    gaussian_nll,
    hidden_mse,
    info_nce,
    inter_class_pearson_distance,
    intra_class_pearson_distance,
    jensen_shannon,
    listwise_kl,
    logit_mse,
    margin_mse,
    neuron_selectivity_mmd,
    normalized_squared_distance,
    on_top_k,
    pkt,
    reverse_kl,
    rkd_angle,
    rkd_distance,
    standardized_divergence,
    top_k_logits,
    total_variation,
)
from tests.functional.waves import wave


N, C = 6, 5
S, T = wave(N, C, step=1.7, scale=3), wave(N, C, step=2.3, scale=3)
"""Logits."""
LABELS = torch.tensor([0, -100, 3, 1, -100, 2])
LABELLED = LABELS != -100
S_ROWS, T_ROWS = wave(N, 4, step=1.3), wave(N, 4, step=0.7)
S_STATES, T_STATES = wave(2, 3, 4, step=1.9), wave(2, 3, 4, step=0.6)
S_LATER, T_LATER = wave(2, 3, 4, step=1.1), wave(2, 3, 4, step=2.9)
MASK = torch.tensor([[True, True, True], [True, True, False]])
S_SCORES, T_SCORES = wave(2, 2, 3, 3, step=1.4, scale=2), wave(2, 2, 3, 3, step=0.8, scale=2).abs()
VARIANCES = wave(N, 4, step=0.5).exp()
S_HIDDEN, T_HIDDEN, S_HEAD, T_HEAD = (
    wave(*shape, step=step, scale=3).float()
    for shape, step in (((N, 3), 1.2), ((N, 4), 0.9), ((C, 3), 2.1), ((C, 4), 1.6))
)
QUERIES, DOCUMENTS = wave(3, 4, step=1.5), wave(3, 3, 4, step=0.4)
RELEVANCE = wave(3, 3, step=1.8)


class Peer(NamedTuple):
    """One number of another library."""

    source: str
    call: str
    value: float
    ours: Callable[[], Tensor]
    difference: str = "none"


def mean_entropy() -> Tensor:
    probabilities = torch.softmax(T / 2, dim=-1)
    return -(probabilities * probabilities.log()).sum(dim=-1).mean()


def mean_choice_of_itself() -> tuple[Tensor, Tensor]:
    """KL of choosing oneself or another, and the probability of another, by the kernels of `pkt` with the diagonal."""
    itself = [
        1 / ((1 + normalize(rows, dim=-1) @ normalize(rows, dim=-1).T) / 2).sum(dim=-1) for rows in (T_ROWS, S_ROWS)
    ]
    p, q = (torch.stack((each, 1 - each)) for each in itself)
    return (p * (p / q).log()).sum(dim=0), p[1]


def scores() -> Tensor:
    return torch.einsum("bd,kbd->bk", QUERIES, DOCUMENTS)


def chunked(**options) -> Tensor:
    student, teacher = LinearLogits(S_HIDDEN, S_HEAD), LinearLogits(T_HIDDEN, T_HEAD)
    return chunked_distillation_loss(student, teacher, LABELS, mask=LABELLED, temperature=2.0, **options)


TEXTBREWER = "TextBrewer 0.2.1.post1"
TORCHDISTILL = "torchdistill 1.1.5"
LIGER = "liger-kernel 0.8.5"
TRL = "trl 1.16.0"
MODELOPT = "nvidia-modelopt 0.47.0"
SENTENCE_TRANSFORMERS = "sentence-transformers 6.2.0"
DISTILLKIT = "DistillKit a61c2e7"

PEERS = [
    Peer(
        TEXTBREWER,
        "kd_ce_loss(S, T, temperature=2.0)",
        2.1868472392063985,
        lambda: forward_kl(S, T, temperature=2.0).mean() / 4 + mean_entropy(),
        "no T², and with the teacher's entropy",
    ),
    Peer(
        TEXTBREWER,
        "kd_mse_loss(S, T, temperature=2.0)",
        2.3065693738359103,
        lambda: logit_mse(S, T, temperature=2.0).mean() / 4,
        "no T²",
    ),
    Peer(
        TEXTBREWER,
        "hid_mse_loss(S_STATES, T_STATES, MASK)",
        0.9743618243324766,
        lambda: hidden_mse(S_STATES, T_STATES, mask=MASK).sum() / MASK.sum(),
    ),
    Peer(
        TEXTBREWER,
        "cos_loss(S_STATES, T_STATES, MASK)",
        0.963270232378233,
        lambda: cosine_distance(S_STATES, T_STATES, mask=MASK).sum() / MASK.sum(),
    ),
    Peer(
        TEXTBREWER,
        "pkd_loss(S_STATES, T_STATES)",
        2.4243644851119655,
        lambda: normalized_squared_distance(S_STATES[:, 0], T_STATES[:, 0]).mean(),
    ),
    Peer(
        TEXTBREWER,
        "att_mse_loss(S_SCORES, T_SCORES, MASK)",
        3.7692187429543864,
        lambda: (
            (attention_mse(S_SCORES, T_SCORES, token_mask=MASK) * MASK.sum(1)[:, None, None]).sum()
            / (2 * MASK.sum(1).square().sum())
        ),
        "the mean over pairs of tokens, where ours is one over tokens of one over tokens",
    ),
    Peer(
        TEXTBREWER,
        "att_ce_loss(S_SCORES, T_SCORES)",
        1.8203200190429474,
        lambda: (
            attention_kl(S_SCORES.softmax(-1), T_SCORES.softmax(-1)).mean()
            - (T_SCORES.softmax(-1) * T_SCORES.log_softmax(-1)).sum(-1).mean()
        ),
        "with the teacher's entropy",
    ),
    Peer(
        TEXTBREWER,
        "fsp_loss([S_STATES, S_LATER], [T_STATES, T_LATER], MASK)",
        0.15634253273971327,
        lambda: fsp_distance((S_STATES, S_LATER), (T_STATES, T_LATER), mask=MASK).mean() / 4**2,
        "the mean over the 4 · 4 entries in place of the sum",
    ),
    Peer(
        TEXTBREWER,
        "mmd_loss([normalize(S_STATES, dim=1)] * 2, [normalize(T_STATES, dim=1)] * 2)",
        0.061691315230687035,
        lambda: neuron_selectivity_mmd(S_STATES, T_STATES).mean() / 3**2,
        "the mean over the 3 · 3 pairs of tokens in place of the sum; patterns are not divided by their lengths there",
    ),
    Peer(
        TORCHDISTILL,
        'KDLoss(*PATHS, temperature=2.0, alpha=0.0)({"s": {"o": S}}, {"t": {"o": T}})',
        0.9601746749559137,
        lambda: forward_kl(S, T, temperature=2.0).mean() / 4,
        "no T² without labels",
    ),
    Peer(
        TORCHDISTILL,
        'KDLoss(*PATHS, temperature=2.0, alpha=0.3)({"s": {"o": S}}, {"t": {"o": T}}, LABELS)',
        3.2461711802719533,
        lambda: (
            0.7 * forward_kl(S, T, temperature=2.0).mean()
            - 0.3 * S.log_softmax(-1)[LABELLED].gather(1, LABELS[LABELLED, None]).mean()
        ),
        "soft targets of all rows, labelled or not",
    ),
    Peer(
        TORCHDISTILL,
        'RKDLoss("", "", 1.0, 1.0, "mean").compute_rkd_distance_loss(T_ROWS, S_ROWS)',
        0.12270045188632617,
        lambda: rkd_distance(S_ROWS, T_ROWS).mean() * (N - 1) / N,
        "the mean over all pairs, those of a row with itself among them",
    ),
    Peer(
        TORCHDISTILL,
        'RKDLoss("", "", 1.0, 1.0, "mean").compute_rkd_angle_loss(T_ROWS, S_ROWS)',
        0.15671888002522724,
        lambda: rkd_angle(S_ROWS, T_ROWS).mean() * (N - 1) * (N - 2) / N**2,
        "the mean over all triplets, those without an angle among them",
    ),
    Peer(
        TORCHDISTILL,
        'CCKDLoss("l", "l", {"type": "gaussian", "gamma": 0.4, "max_p": 30}, "batchmean")('
        '{"l": {"output": normalize(S_ROWS)}}, {"l": {"output": normalize(T_ROWS)}})',
        0.05855906718877947,
        lambda: (N * correlation_congruence(S_ROWS, T_ROWS, gamma=0.4).sum()).sqrt() / N**2,
        "the distance in place of its square; rows are to be normalised by the caller; the kernel's series, of which "
        "2 terms are the default there and 30 are taken here",
    ),
    Peer(
        TORCHDISTILL,
        "PKTLoss(*PATHS, eps=0.0).cosine_similarity_loss(S_ROWS, T_ROWS)",
        0.15486307484504844,
        lambda: (mean_choice_of_itself()[0] + mean_choice_of_itself()[1] * pkt(S_ROWS, T_ROWS)).sum() / N**2,
        "a row may choose itself, whose KL is added by the chain rule; the mean over pairs",
    ),
    Peer(
        TORCHDISTILL,
        'VIDLoss({"p": {"student": VID, "teacher": VID}})({"v": {"o": (S_ROWS, VARIANCES)}}, {"v": {"o": T_ROWS}})',
        0.37625278662828837,
        lambda: gaussian_nll(S_ROWS, T_ROWS, VARIANCES.log()).mean(),
    ),
    Peer(
        TORCHDISTILL,
        'DISTLoss(*PATHS, beta=1.0, gamma=0.0, tau=2.0)({"s": {"o": S}}, {"t": {"o": T}})',
        4.002753083362391,
        lambda: 4 * inter_class_pearson_distance(S, T, temperature=2.0).mean(),
        "times T²",
    ),
    Peer(
        TORCHDISTILL,
        'DISTLoss(*PATHS, beta=0.0, gamma=1.0, tau=2.0)({"s": {"o": S}}, {"t": {"o": T}})',
        4.196490069487347,
        lambda: 4 * intra_class_pearson_distance(S, T, temperature=2.0).mean(),
        "times T²",
    ),
    Peer(
        TORCHDISTILL,
        'LogitStdKDLoss(*PATHS, temperature=2.0, eps=0.0, alpha=0.0)({"s": {"o": S}}, {"t": {"o": T}})',
        0.20619311525892034,
        lambda: standardized_divergence(S, T, temperature=2.0 * sqrt(C / (C - 1))).mean() / (4 * C / (C - 1)),
        "no T² without labels; the standard deviation divides by C − 1",
    ),
    Peer(
        LIGER,
        "LigerFusedLinearJSDLoss(0.3, 0.7, beta=0, temperature=2.0, compiled=False, chunk_size=2)"
        "(S_HIDDEN, S_HEAD, T_HIDDEN, T_HEAD, LABELS)",
        0.5381848216056824,
        lambda: chunked(soft_weight=0.7 / 4, hard_weight=0.3).total / LABELLED.sum(),
        "no T²",
    ),
    Peer(
        LIGER,
        "LigerFusedLinearJSDLoss(0.0, 1.0, beta=1, temperature=2.0, compiled=False)"
        "(S_HIDDEN, S_HEAD, T_HIDDEN, T_HEAD, LABELS)",
        0.13049189746379852,
        lambda: chunked(divergence=reverse_kl).soft / 4 / LABELLED.sum(),
        "no T²",
    ),
    Peer(
        LIGER,
        "LigerFusedLinearJSDLoss(0.0, 1.0, beta=0.3, temperature=2.0, compiled=False)"
        "(S_HIDDEN, S_HEAD, T_HIDDEN, T_HEAD, LABELS)",
        0.02495831809937954,
        lambda: (
            jensen_shannon(S_HIDDEN @ S_HEAD.T, T_HIDDEN @ T_HEAD.T, beta=0.3, temperature=2.0, mask=LABELLED).sum()
            * (0.3 * 0.7 / 4 / LABELLED.sum())
        ),
        "no T², and not divided by β(1 − β)",
    ),
    Peer(
        LIGER,
        "LigerFusedLinearCosineSimilarityLoss(0.0, 1.0, beta=1.0, compiled=False)"
        "(S_HIDDEN, S_HEAD, T_HIDDEN, T_HEAD, LABELS)",
        0.1311432421207428,
        lambda: cosine_distance(S_HIDDEN @ S_HEAD.T, T_HIDDEN @ T_HEAD.T, mask=LABELLED).sum() / LABELLED.sum(),
    ),
    Peer(
        TRL,
        "GKDTrainer.generalized_jsd_loss(S, T, LABELS, beta=0.0, temperature=2.0)",
        1.0595869997642298,
        lambda: forward_kl(S, T, temperature=2.0, mask=LABELLED).sum() / LABELLED.sum() / 4,
        "no T²",
    ),
    Peer(
        TRL,
        "GKDTrainer.generalized_jsd_loss(S, T, LABELS, beta=1.0, temperature=2.0)",
        0.9188286826166112,
        lambda: reverse_kl(S, T, temperature=2.0, mask=LABELLED).sum() / LABELLED.sum() / 4,
        "no T²",
    ),
    Peer(
        TRL,
        "GKDTrainer.generalized_jsd_loss(S, T, LABELS, beta=0.3, temperature=2.0)",
        0.17935619825381954,
        lambda: jensen_shannon(S, T, beta=0.3, temperature=2.0, mask=LABELLED).sum() / LABELLED.sum() * 0.3 * 0.7 / 4,
        "no T², and not divided by β(1 − β)",
    ),
    Peer(
        TRL,
        "_chunked_divergence_loss(S_HIDDEN[None], T_HIDDEN[None], S_HEAD, T_HEAD, LABELLED[None], 0.0, "
        "temperature=2.0)[0]",
        0.11845836043357849,
        lambda: chunked().soft / 4 / LABELLED.sum(),
        "no T²",
    ),
    Peer(
        MODELOPT,
        'LogitsDistillationLoss(temperature=2.0, reduction="none")(S, T).mean()',
        3.840698699823656,
        lambda: forward_kl(S, T, temperature=2.0).mean(),
    ),
    Peer(
        MODELOPT,
        "LogitsDistillationLoss(temperature=2.0)(S, T)",
        0.768139739964731,
        lambda: forward_kl(S, T, temperature=2.0).mean() / C,
        "the mean over the classes too, by default",
    ),
    Peer(
        SENTENCE_TRANSFORMERS,
        "MarginMSELoss(None).compute_loss_from_embeddings([QUERIES, *DOCUMENTS], RELEVANCE)",
        2.6681107053550366,
        lambda: margin_mse(scores(), RELEVANCE).mean(),
    ),
    Peer(
        SENTENCE_TRANSFORMERS,
        "DistillKLDivLoss(None, temperature=2.0).compute_loss_from_embeddings([QUERIES, *DOCUMENTS], RELEVANCE)",
        0.40584191986276114,
        lambda: listwise_kl(scores(), RELEVANCE, temperature=2.0).mean(),
    ),
    Peer(
        SENTENCE_TRANSFORMERS,
        "MultipleNegativesSymmetricRankingLoss(None, scale=10.0).compute_loss_from_embeddings([S_ROWS, T_ROWS], None)",
        7.987926970946472,
        lambda: info_nce(S_ROWS, T_ROWS, temperature=0.1).mean() / 2,
        "the mean of both directions in place of the sum",
    ),
    Peer(
        DISTILLKIT,
        "dense_kl_div(S[None], T[None], LABELLED[None], temperature=2.0)",
        4.238348484039307,
        lambda: forward_kl(S, T, temperature=2.0, mask=LABELLED).sum() / 4,
        "T² is put on by its caller",
    ),
    Peer(
        DISTILLKIT,
        "sparse_kl_div(S[None], *top_k_of(T, 3), LABELLED[None], missing=SYMMETRIC_UNIFORM)",
        12.094239144635996,
        lambda: on_top_k(forward_kl)(S, top_k_logits(T, 3), mask=LABELLED).sum(),
    ),
    Peer(
        DISTILLKIT,
        "dense_js_div(S[None], T[None], LABELLED[None], temperature=2.0)",
        0.8150599598884583,
        lambda: jensen_shannon(S, T, temperature=2.0, mask=LABELLED).sum() / 4 / 4,
        "T² is put on by its caller; not divided by β(1 − β)",
    ),
    Peer(
        DISTILLKIT,
        "dense_tvd(S[None], T[None], LABELLED[None], temperature=2.0)",
        2.0373220443725586,
        lambda: total_variation(S, T, temperature=2.0, mask=LABELLED).sum() / 2,
        "T² is put on by its caller; ours is times T",
    ),
]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: f"{peer.source.split()[0]}: {peer.call}")
def test_the_number_of_another_library(peer: Peer) -> None:
    """To 1e-5, since some of them compute in float32."""
    assert peer.ours().item() == pytest.approx(peer.value, rel=1e-5), peer.difference
