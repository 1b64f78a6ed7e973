"""Which layers of a teacher a shorter student keeps."""

from collections.abc import Sequence
from typing import Literal, get_args


LayerRule = Literal["uniform", "alternate", "first", "last"]


def chosen_layers(rule: LayerRule, num_kept: int, num_layers: int) -> tuple[int, ...]:
    """The layers that a rule keeps, n of them out of N.

    | rule | keeps | 6 of 12 |
    |---|---|---|
    | `uniform` | ⌊i · (N − 1) / (n − 1) + ½⌋, i = 0 … n − 1: first, last, and evenly between | 0 2 4 7 9 11 |
    | `alternate` | ⌊i · N / n⌋: every (N / n)-th from the first on | 0 2 4 6 8 10 |
    | `first` | the n nearest to the input | 0 1 2 3 4 5 |
    | `last` | the n nearest to the output | 6 7 8 9 10 11 |

    Args:
        rule: one of the above.
        num_kept: n, from 1 to N.
        num_layers: N.

    Returns:
        Indices from 0, ascending.

    References:
        Sanh et al.: DistilBERT, 2019, https://arxiv.org/abs/1910.01108, whose released checkpoint began as 6 layers
        of BERT taken by the `uniform` rule; Shleifer, Rush: Pre-trained Summarization Distillation, 2020,
        https://arxiv.org/abs/2010.13002, section 3.2, maximally spaced layers.

    Example:

        >>> chosen_layers("uniform", 3, 12)
        (0, 6, 11)
    """
    if rule == "first":
        return tuple(range(num_kept))
    if rule == "last":
        return tuple(range(num_layers - num_kept, num_layers))
    if rule == "alternate":
        return tuple(i * num_layers // num_kept for i in range(num_kept))
    gaps = max(num_kept - 1, 1)
    return tuple((2 * i * (num_layers - 1) + gaps) // (2 * gaps) for i in range(num_kept))


def layer_faults(where: str, layers: str | Sequence[int], num_kept: int | None, num_layers: int) -> list[str]:
    """What is impossible about a choice of layers, each with both values.

    Args:
        where: `" for "` and the stack that it is about; empty if there is one.
        layers: a rule, or the layers themselves.
        num_kept: how many are asked for; None if that was left open.
        num_layers: how many the teacher has.
    """
    faults = []
    if num_kept is not None and not 1 <= num_kept <= num_layers:
        faults.append(f"num_hidden_layers={num_kept}{where}, but the teacher has {num_layers}: take 1 to {num_layers}")
    if isinstance(layers, str):
        if layers not in get_args(LayerRule):
            known = ", ".join(map(repr, get_args(LayerRule)))
            faults.append(f"layers={layers!r}{where} is no rule: choose {known}, or list the layers from 0 on")
        elif layers != "uniform" and num_kept is None:
            faults.append(f"layers={layers!r}{where} says which but not how many: pass `num_hidden_layers=`")
        return faults
    layers = list(layers)
    if not layers:
        faults.append(f"layers=[]{where} keeps none of the teacher's {num_layers}: name at least one")
    outside = [layer for layer in layers if not 0 <= layer < num_layers]
    if outside:
        faults.append(
            f"layers={layers}{where} names {outside}, but the teacher has 0 to {num_layers - 1}, counted from 0"
        )
    if layers != sorted(set(layers)):
        faults.append(f"layers={layers}{where} must ascend without repeats, as {sorted(set(layers))} does")
    if num_kept is not None and num_kept != len(layers):
        faults.append(
            f"num_hidden_layers={num_kept} and {len(layers)} layers {layers}{where} disagree: leave one of them out"
        )
    return faults
