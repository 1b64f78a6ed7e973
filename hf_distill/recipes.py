"""Published methods, each a short function that returns an objective and reads like its paper."""

from collections.abc import Callable, Sequence
from functools import wraps
from itertools import pairwise
from typing import Literal, ParamSpec

from hf_distill.errors import ConfigurationError
from hf_distill.functional import (
    cosine_distance,
    inter_class_pearson_distance,
    non_target_class_kl,
    normalized_squared_distance,
    rkd_angle,
    rkd_distance,
    target_class_kl,
)
from hf_distill.functional.pooling import Pooling
from hf_distill.layer_maps import LayerMap, check_layer_map
from hf_distill.objective import Objective
from hf_distill.schedules import During, Schedule, is_finite_number
from hf_distill.terms import (
    AttentionScoreTerm,
    BoxTerm,
    ContrastiveTerm,
    DecoupledTerm,
    HardLabelTerm,
    HiddenStateTerm,
    IntraClassTerm,
    RelationTerm,
    RowRelationTerm,
    SelectivityTerm,
    SoftTargetTerm,
    Term,
    UniversalLogitTerm,
    VariationalTerm,
)


Parameters = ParamSpec("Parameters")


def _published(method: Callable[Parameters, Objective]) -> Callable[Parameters, Objective]:
    """The recipe, whose objectives know its name, so that a model card can cite the paper."""

    @wraps(method)
    def named(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Objective:
        objective = method(*args, **kwargs)
        objective.recipe = method.__name__
        return objective

    return named


def _rest(alpha: float) -> float:
    """1 − α, of a number alone: one of two weights that move would have to move against the other."""
    if not is_finite_number(alpha) or not 0 <= alpha <= 1:
        raise ConfigurationError(
            f"alpha must be a number between 0 and 1, got {alpha!r}: the soft targets weigh 1 - alpha."
        )
    return 1 - alpha


@_published
def hinton(temperature: float | Schedule = 2.0, alpha: float = 0.5) -> Objective:
    """Soft targets next to hard ones: L = α · L_labels + (1 − α) · T² · KL(teacher_T ‖ student_T).

    Args:
        temperature: T of the soft targets, above 0.
        alpha: weight of the labels, from 0 (teacher alone) to 1 (labels alone).

    References:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, 2015, https://arxiv.org/abs/1503.02531.
    """
    return Objective({"labels": (alpha, HardLabelTerm()), "soft": (_rest(alpha), SoftTargetTerm(temperature))})


@_published
def dkd(temperature: float | Schedule = 4.0, alpha: float | Schedule = 1.0, beta: float | Schedule = 8.0) -> Objective:
    """Decoupled distillation: L = L_labels + α · TCKD + β · NCKD. A plain KL has α = 1 and β = 1 − p_teacher(label).

    Args:
        temperature: T of both parts, above 0.
        alpha: weight of the labelled class against the rest.
        beta: weight of the rest among themselves. The surer the teacher is, the more this may be.

    References:
        Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation, 2022, https://arxiv.org/abs/2203.08679.
    """
    return Objective(
        {
            "labels": (1.0, HardLabelTerm()),
            "target": (alpha, DecoupledTerm(temperature, target_class_kl)),
            "non_target": (beta, DecoupledTerm(temperature, non_target_class_kl)),
        }
    )


@_published
def dist(alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0, temperature: float | Schedule = 1.0) -> Objective:
    """Relations of probabilities in place of their values: L = α · L_labels + β · L_inter + γ · L_intra.

    Args:
        alpha: weight of the labels.
        beta: weight of the correlation over the classes of each row.
        gamma: weight of the correlation over the rows of each class, which only micro-batches of many rows can tell.
        temperature: T of both correlations, above 0.

    References:
        Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher, 2022,
        https://arxiv.org/abs/2205.10536.
    """
    return Objective(
        {
            "labels": (alpha, HardLabelTerm()),
            "inter": (beta, SoftTargetTerm(temperature, inter_class_pearson_distance)),
            "intra": (gamma, IntraClassTerm(temperature)),
        }
    )


@_published
def uld(temperature: float | Schedule = 1.0, weight: float | Schedule = 1.5) -> Objective:
    """Universal logit distillation, for a teacher with another tokenizer: L = L_labels + λ · T · Σ_i |p_(i) − q_(i)|.

    Args:
        temperature: T of the sorted probabilities, above 0.
        weight: λ of their distance.

    References:
        Boizard, El Haddad, Hudelot, Colombo: Towards Cross-Tokenizer Distillation: the Universal Logit Distillation
        Loss for LLMs, 2024, https://arxiv.org/abs/2402.12030.
    """
    return Objective({"labels": (1.0, HardLabelTerm()), "soft": (weight, UniversalLogitTerm(temperature))})


@_published
def hungarian_matching(
    temperature: float | Schedule = 1.0, labels: float = 1.0, classes: float = 1.0, boxes: float = 1.0
) -> Objective:
    """A detector's labels, and its teacher's classes and boxes: the first of the three parts of DETRDistill.

        L = labels · L_labels + classes · Σ T² · KL(teacher_T ‖ student_T) + boxes · Σ w · (5 · L1 + 2 · (1 − GIoU))

    Both sums run over the pairs of boxes of an image, as `heads.query_matching` pairs them, and are averaged over
    images; w is the teacher's score of a box. The features and the teacher's queries, which the paper learns from as
    well, are left out.

    Args:
        temperature: T of the classes, above 0.
        labels: the weight of the labels; 0 leaves a term out.
        classes: that of the classes.
        boxes: that of the boxes.

    References:
        Chang et al.: DETRDistill: A Universal Knowledge Distillation Framework for DETR-families, 2023,
        https://arxiv.org/abs/2211.10156, section on Hungarian-matching logits distillation.
    """
    return Objective(
        {
            "labels": (labels, HardLabelTerm()),
            "soft": (classes, SoftTargetTerm(temperature)),
            "boxes": (boxes, BoxTerm()),
        }
    )


@_published
def patient_kd(
    temperature: float | Schedule = 5.0,
    alpha: float = 0.5,
    beta: float = 0.1,
    layer_map: LayerMap = "skip",
    pooled: Pooling = "first",
    side: str | None = None,
) -> Objective:
    """Soft and hard targets, and the [CLS] states on the way: L = α · L_labels + (1 − α) · L_soft + β · L_patient.

        L_patient = mean over layers of ‖h_student / ‖h_student‖ − h_teacher / ‖h_teacher‖‖²,  h of the first token

    Args:
        temperature: T of the soft targets, above 0.
        alpha: weight of the labels. The paper's α is 1 − `alpha`.
        beta: weight of the states. The paper's 10 to 1000 go with a mean over the D features: divide them by D.
        layer_map: `"skip"` for PKD-Skip, `"top"` for PKD-Last.
        pooled: whose state h is. The first token's is [CLS]. Where tokens see only those before them (GPT-2, Llama) it
            knows nothing of the row, so take `"last"`; and `"mean"` where no token stands for the row (T5).
        side: `"encoder"` or `"decoder"`, where the models have both.

    References:
        Sun, Cheng, Gan, Liu: Patient Knowledge Distillation for BERT Model Compression, 2019,
        https://arxiv.org/abs/1908.09355, equations 7 and 8.
    """
    states = HiddenStateTerm(layer_map, normalized_squared_distance, pooled, side=side)
    return Objective(
        {
            "labels": (alpha, HardLabelTerm()),
            "soft": (_rest(alpha), SoftTargetTerm(temperature)),
            "patient": (beta, states),
        }
    )


@_published
def distilbert(temperature: float | Schedule = 2.0, side: str | None = None) -> Objective:
    """Soft and hard targets, and the direction of last hidden states: L = 5 · L_ce + 2 · L_mlm + L_cos.

    Args:
        temperature: T of the soft targets, above 0.
        side: `"encoder"` or `"decoder"`, where the models have both.

    References:
        Sanh, Debut, Chaumond, Wolf: DistilBERT, a distilled version of BERT, 2019, https://arxiv.org/abs/1910.01108,
        section 2; the weights are those of the authors' code.
    """
    return Objective(
        {
            "soft": (5.0, SoftTargetTerm(temperature)),
            "labels": (2.0, HardLabelTerm()),
            "cosine": (1.0, HiddenStateTerm("last", cosine_distance, side=side)),
        }
    )


@_published
def tinybert(
    stage: Literal["layers", "prediction"], layer_map: LayerMap = "uniform", side: str | None = None
) -> Objective:
    """The layers first, then the predictions: L = L_embd + L_hidn + L_attn, in a second training L = L_pred.

    Args:
        stage: `"layers"` or `"prediction"`.
        layer_map: which layers are compared in the first one.
        side: `"encoder"` or `"decoder"`, where the models have both.

    Raises:
        ConfigurationError: for another stage.

    References:
        Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding, 2020,
        https://arxiv.org/abs/1909.10351, equations 7 to 11.
    """
    if stage not in ("layers", "prediction"):
        raise ConfigurationError(f"stage must be 'layers' or 'prediction', got {stage!r}.")
    if stage == "prediction":
        return Objective({"soft": (1.0, SoftTargetTerm(temperature=1.0))})
    return Objective(
        {
            "embeddings": (1.0, HiddenStateTerm([(0, 0)], side=side)),
            "hidden": (1.0, HiddenStateTerm(layer_map, side=side)),
            "attention": (1.0, AttentionScoreTerm(layer_map, side=side)),
        }
    )


@_published
def minilm(side: str | None = None) -> Objective:
    """The attention and the relations of values in the last layers: L = L_attention + L_values.

    Args:
        side: `"encoder"` or `"decoder"`, where the models have both.

    References:
        Wang et al.: MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
        Transformers, 2020, https://arxiv.org/abs/2002.10957, equations 3 to 6.
    """
    return Objective({name: (1.0, RelationTerm(relations=(name,), side=side)) for name in ("attention", "values")})


@_published
def minilmv2(num_relation_heads: int | None = None, teacher_layer: int = -1, side: str | None = None) -> Objective:
    """The relations of queries, of keys and of values in one layer: L = ⅓ (L_queries + L_keys + L_values).

    Args:
        num_relation_heads: into how many heads all are split. By default those of the teacher are 16 wide, as in the
            paper: 48 for a width of 768, 64 for 1024; or wider, where the student's width has no such divisor.
        teacher_layer: the layer that the student's last one learns from. The paper takes the last one of a teacher of
            12 layers, and of 24 the 21st (BERT) or the 19th (RoBERTa).
        side: `"encoder"` or `"decoder"`, where the models have both.

    References:
        Wang et al.: MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained
        Transformers, 2021, https://arxiv.org/abs/2012.15828, its multi-head self-attention relations.
    """
    width = 16 if num_relation_heads is None else None
    term = RelationTerm(
        [(-1, teacher_layer)], num_relation_heads=num_relation_heads, relation_head_width=width, side=side
    )
    return Objective({"relations": (1.0, term)})


@_published
def rkd(
    labels: float = 1.0,
    distance: float = 25.0,
    angle: float = 50.0,
    pooled: Pooling = "mean",
    side: str | None = None,
) -> Objective:
    """How rows lie to each other: L = labels · L_labels + distance · L_RKD-D + angle · L_RKD-A.

    Args:
        labels: weight of the labels, 0 to leave them out.
        distance: weight of the relative distances of pairs of rows.
        angle: weight of the angles of triplets of rows; B³ of them in a micro-batch of B rows.
        pooled: how the last hidden states become one vector a row.
        side: `"encoder"` or `"decoder"`, where the models have both.

    References:
        Park, Kim, Lu, Cho: Relational Knowledge Distillation, 2019, https://arxiv.org/abs/1904.05068, section 3.2.
    """
    return Objective(
        {
            "labels": (labels, HardLabelTerm()),
            "distance": (distance, RowRelationTerm(distance=rkd_distance, pooled=pooled, side=side)),
            "angle": (angle, RowRelationTerm(distance=rkd_angle, pooled=pooled, side=side)),
        }
    )


@_published
def distil_whisper(temperature: float | Schedule = 2.0) -> Objective:
    """Soft and hard targets of a decoder: L = 0.8 · L_labels + L_soft. The labels are the teacher's transcripts.

    The student has the whole encoder, frozen, which [`share_encoder`] gives it.

    Args:
        temperature: T of the soft targets, above 0.

    References:
        Gandhi, von Platen, Rush: Distil-Whisper: Robust Knowledge Distillation via Large-Scale Pseudo Labelling, 2023,
        https://arxiv.org/abs/2311.00430, section 3; temperature and weights are those of the authors' code.
    """
    return Objective({"labels": (0.8, HardLabelTerm()), "soft": (1.0, SoftTargetTerm(temperature))})


@_published
def vid(
    labels: float = 1.0,
    weight: float | Schedule = 1.0,
    layer_map: LayerMap = "uniform",
    side: str | None = None,
) -> Objective:
    """What the teacher's layers say that the student's do not: L = labels · L_labels + weight · Σ −log q(t | s).

    Args:
        labels: weight of the labels, 0 to leave them out.
        weight: λ of the variational bound.
        layer_map: which layers are compared.
        side: `"encoder"` or `"decoder"`, where the models have both.

    References:
        Ahn, Hu, Damianou, Lawrence, Dai: Variational Information Distillation for Knowledge Transfer, 2019,
        https://arxiv.org/abs/1904.05835.
    """
    return Objective(
        {"labels": (labels, HardLabelTerm()), "information": (weight, VariationalTerm(layer_map, side=side))}
    )


@_published
def crd(
    labels: float = 1.0,
    soft: float = 0.0,
    weight: float | Schedule = 0.8,
    soft_temperature: float | Schedule = 4.0,
    pooled: Pooling = "mean",
    side: str | None = None,
) -> Objective:
    """Rows that find themselves in the teacher: L = labels · L_labels + soft · L_soft + weight · L_contrast.

    Args:
        labels: weight of the labels, 0 to leave them out.
        soft: weight of soft targets, 0 to leave them out.
        weight: β of the contrast.
        soft_temperature: T of the soft targets, above 0.
        pooled: how the last hidden states become one vector a row.
        side: `"encoder"` or `"decoder"`, where the models have both.

    References:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020, https://arxiv.org/abs/1910.10699; the
        weights are those of the authors' code.
    """
    return Objective(
        {
            "labels": (labels, HardLabelTerm()),
            "soft": (soft, SoftTargetTerm(soft_temperature)),
            "contrast": (weight, ContrastiveTerm(pooled=pooled, side=side)),
        }
    )


@_published
def nst(labels: float = 1.0, weight: float | Schedule = 50.0, side: str | None = None) -> Objective:
    """What the units of the last layer look at: L = labels · L_labels + weight · MMD².

    Args:
        labels: weight of the labels, 0 to leave them out.
        weight: of the discrepancy.
        side: `"encoder"` or `"decoder"`, where the models have both.

    References:
        Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017,
        https://arxiv.org/abs/1707.01219; the weight is that of RepDistiller's code.
    """
    return Objective({"labels": (labels, HardLabelTerm()), "selectivity": (weight, SelectivityTerm(side=side))})


@_published
def mobilebert_like(
    layer_map: Sequence[tuple[int, int]], transfer: float = 0.5, alpha: float = 0.5, side: str | None = None
) -> Objective:
    """Progressive knowledge transfer: one layer after the other, from the lowest up, and then the predictions.

        L = L_FMT + L_AT of layer ℓ, while it is ℓ's turn;  at last L = α · L_labels + (1 − α) · L_soft

    Args:
        layer_map: the pairs (student layer, teacher layer) in the order of their turns, such as
            `layer_maps.layer_pairs("uniform", 6, 12)`.
        transfer: the fraction of training that belongs to the layers, each as long as the others; in (0, 1).
        alpha: weight of the labels among the predictions.
        side: `"encoder"` or `"decoder"`, where the models have both.

    Raises:
        ConfigurationError: if `layer_map` is no pairs, or `transfer` is not between 0 and 1.

    References:
        Sun, Yu, Song, Liu, Yang, Zhou: MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices, 2020,
        https://arxiv.org/abs/2004.02984, sections on training objectives and training strategies.
    """
    if isinstance(layer_map, str) or not is_finite_number(transfer) or not 0 < transfer < 1:
        raise ConfigurationError(
            f"transfer must lie between 0 and 1 and layer_map hold a pair at least, got {transfer!r} and "
            f"{layer_map!r}."
        )
    check_layer_map(layer_map)
    turns = [*(transfer * turn / len(layer_map) for turn in range(len(layer_map))), transfer]
    terms: dict[str, tuple[Schedule, Term]] = {}
    for pair, turn in zip(layer_map, pairwise(turns), strict=True):
        terms[f"features_{pair[0]}"] = During(1.0, *turn), HiddenStateTerm([pair], side=side)
        terms[f"attention_{pair[0]}"] = During(1.0, *turn), RelationTerm([pair], ("attention",), side=side)
    terms["labels"] = During(alpha, transfer, 1.0), HardLabelTerm()
    terms["soft"] = During(_rest(alpha), transfer, 1.0), SoftTargetTerm(temperature=1.0)
    return Objective(terms)
