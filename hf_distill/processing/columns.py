"""Which columns of a data set a task reads."""

from collections.abc import Collection, Mapping, Sequence

from hf_distill.errors import ConfigurationError


INPUT_ROLES = ("text", "text_pair", "image", "audio")
ROLES = (*INPUT_ROLES, "label")
"""What a column can be for a task. A question is the text and its context the pair; what is to be written is the
label."""


def find_columns(
    names: Collection[str],
    known_inputs: Sequence[Mapping[str, str]],
    known_labels: Sequence[str],
    given: Mapping[str, str | None],
) -> dict[str, str]:
    """Role → column, for the inputs of a task and, if there is one, its label.

    Args:
        names: the columns of the data set.
        known_inputs: combinations of roles and names that data sets of the task use, in the order of trying.
        known_labels: likewise for the label.
        given: what the user named; as soon as one input is named, all of them are.

    Raises:
        ConfigurationError: if a named column is not there, or none is named and no known combination is.
    """
    named = {role: name for role, name in given.items() if name is not None}
    if missing := [f"{role}_column={name!r}" for role, name in named.items() if name not in names]:
        raise ConfigurationError(f"{', '.join(missing)} is no column of the data set, which has {', '.join(names)}.")
    inputs = {role: name for role, name in named.items() if role != "label"}
    if not inputs:
        fitting = (known for known in known_inputs if set(known.values()) <= set(names))
        inputs = dict(next(fitting, {}))
    needed = set.intersection(*(set(known) for known in known_inputs))
    if not needed <= inputs.keys():
        raise ConfigurationError(
            f"it is not clear which column holds the {' and the '.join(sorted(needed - inputs.keys()))}: the data set "
            f"has {', '.join(names)}. Name it by {', '.join(f'`{role}_column`' for role in sorted(needed))}."
        )
    label = named.get("label") or next((name for name in known_labels if name in names), None)
    return inputs if label is None else {**inputs, "label": label}
