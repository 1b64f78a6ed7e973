"""Feature knowledge by contrast: which of the teacher's rows is this one of the student?"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from hf_distill.errors import ConfigurationError
from hf_distill.functional import info_nce
from hf_distill.functional.masking import keep_counted
from hf_distill.functional.pooling import Pooling, pooled_states, rows_with_tokens
from hf_distill.functional.precision import computation_dtype, without_autocast
from hf_distill.layer_maps import LayerMap, LayerPair
from hf_distill.schedules import is_finite_number
from hf_distill.terms.feature_terms import Comparison
from hf_distill.terms.projected_states import ProjectedStateTerm
from hf_distill.terms.projection import LearnedValues, Projection
from hf_distill.types import Feature, Unit


@dataclass(frozen=True)
class ContrastiveTerm(ProjectedStateTerm):
    """How well a row of the student finds the same row of the teacher, and the other way round.

        Σ over rows i of the mean over pairs of layers of
        −log softmax_j(s_i · t_j / τ)_i − log softmax_j(t_i · s_j / τ)_i

    s and t are the pooled hidden states, each through a learned map to `projection_size` numbers, and divided by their
    lengths. The term is **not 0 where student and teacher agree**.

    A row is told from the other rows **of its micro-batch**, so that should be large, and the gradient depends on how
    a batch is split into micro-batches and over processes. The paper takes its negatives out of a memory of the whole
    data set. That would hold a vector of each row, be an epoch out of date, be each process's own, and have to be
    saved for a resumed training to be exact.

    Unit: row. Reads: hidden states of both, of the layers that `layer_map` names. Learns: two maps for each pair.

    Args:
        layer_map: as in [`FeatureTerm`].
        temperature: τ, above 0.
        projection_size: how many numbers are compared.
        pooled: one vector a row: that of the `"first"` or the `"last"` real token, or the `"mean"` of all.
        side: as in [`FeatureTerm`].

    Raises:
        ConfigurationError: if an argument is none of these.

    References:
        Tian, Krishnan, Isola: Contrastive Representation Distillation, 2020, https://arxiv.org/abs/1910.10699,
        section 3.

    Example:

        >>> from hf_distill.types import Anatomy, StackShape
        >>> student, teacher = Anatomy("S", {"": StackShape(2, 16)}), Anatomy("T", {"": StackShape(4, 32)})
        >>> list(ContrastiveTerm().bound("crd", student, teacher).learned_parts())
        ['crd_2_4', 'crd_2_4_teacher']
    """

    layer_map: LayerMap = "last"
    temperature: float = 0.07
    projection_size: int = 128
    pooled: Pooling = "mean"

    unit = Unit.ROW
    compares_rows = True

    def __post_init__(self) -> None:
        super().__post_init__()
        faults = []
        if not is_finite_number(self.temperature) or not self.temperature > 0:
            faults.append(f"temperature must be above 0, got {self.temperature!r}.")
        if type(self.projection_size) is not int or self.projection_size < 1:
            faults.append(f"projection_size must be a whole number of at least 1, got {self.projection_size!r}.")
        if self.pooled not in ("first", "last", "mean"):
            faults.append(f"pooled must be 'first', 'last' or 'mean', got {self.pooled!r}.")
        if faults:
            raise ConfigurationError(" ".join(faults))

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(
            Comparison(
                (self._read(pair, self._part(*pair)), self._read(pair, self._part(*pair, "teacher"))),
                (Feature("hidden_states", pair.teacher, self.side),),
            )
            for pair in self.layers
        )

    def learned_parts(self) -> Mapping[str, nn.Module]:
        parts: dict[str, nn.Module] = {}
        for pair in self.layers:
            parts[self._part(*pair)] = Projection(self.widths[0], self.projection_size)
            of_teacher = nn.Linear(self.widths[1], self.projection_size)
            values = torch.cat((of_teacher.weight, of_teacher.bias[:, None]), dim=1).detach()
            parts[self._part(*pair, "teacher")] = LearnedValues(values)
        return parts

    def distances(self, student: list[Tensor], teacher: list[Tensor], real: Tensor | None) -> Tensor:
        is_row = rows_with_tokens(real)
        ours = pooled_states(student[0], real, self.pooled)
        theirs = keep_counted(pooled_states(teacher[0], real, self.pooled), is_row)
        dtype = computation_dtype(theirs, student[1])
        weights = student[1].to(dtype)
        with without_autocast(theirs):
            projected = linear(theirs.to(dtype), weights[:, :-1], weights[:, -1])
        return info_nce(ours, projected, mask=is_row, temperature=self.temperature)

    def _read(self, pair: LayerPair, part: str) -> Feature:
        return Feature("hidden_states", pair.student, self.side, part)
