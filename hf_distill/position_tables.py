"""How many tokens a model can read."""

from torch import nn
from transformers.trainer_utils import unwrap_peft_model


POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
"""What Transformers calls the tables of learned positions."""


def max_positions(model: nn.Module) -> int | None:
    """The longest row that the configuration provides for; None if it names no maximum.

    RoBERTa's table starts counting after its padding id, and its configuration includes those rows. They are not
    counted here.
    """
    maximum = getattr(getattr(unwrap_peft_model(model), "config", None), "max_position_embeddings", None)
    if not isinstance(maximum, int) or maximum < 0:  # XLNet has −1, for none
        return None
    indices = (table.padding_idx for table in _tables(model))
    return maximum - max((index + 1 for index in indices if index is not None), default=0)


def has_position_table(model: nn.Module) -> bool:
    """Whether positions are looked up in a table, which ends, so that a longer row is an error."""
    return bool(_tables(model))


def _tables(model: nn.Module) -> list[nn.Embedding]:
    named = model.named_modules()
    return [m for name, m in named if isinstance(m, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES]
