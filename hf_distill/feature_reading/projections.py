"""Where a block makes its queries, keys and values."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from hf_distill.errors import UnsupportedModelError


SEPARATE = (
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
)
"""What Transformers calls three linear maps."""
FUSED = {"GPT2Attention": "c_attn", "ModernBertAttention": "Wqkv", "Phi3Attention": "qkv_proj"}
"""Attentions whose one linear map gives all queries, then all keys, then all values, and what it is called. Maps of
the same names have other layouts elsewhere, so none is guessed."""
TOKENS_FIRST = {"LongformerSelfAttention", "LEDEncoderSelfAttention"}
"""Attentions that are given `(L, B, H)`, so that their maps do not make what is looked for."""
HEAD_SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim")
CROSS_ATTENTION = ("cross", "encoder_attn", "encdec")
"""What the names of attentions from a decoder to an encoder contain."""


class Projections(NamedTuple):
    """The linear maps of one self-attention, and how their outputs fall into heads."""

    modules: tuple[nn.Module, ...]
    """Of queries, keys and values in this order, or the one of all three."""
    num_heads: int
    head_size: int

    def kinds_of(self, index: int, output: Tensor) -> dict[str, Tensor]:
        """What the map `modules[index]` made: kind → `(B, heads, L, d)`.

        Keys and values that groups of queries share are repeated, once for each head.
        """
        if len(self.modules) == 3:
            return {("queries", "keys", "values")[index]: self._heads(output)}
        size = self.num_heads * self.head_size
        rest = (output.shape[-1] - size) // 2
        queries, keys, values = output.split((size, rest, rest), dim=-1)
        return {"queries": self._heads(queries), "keys": self._heads(keys), "values": self._heads(values)}

    def _heads(self, flat: Tensor) -> Tensor:
        heads: Tensor = flat.unflatten(-1, (-1, self.head_size)).transpose(1, 2)
        repeats = self.num_heads // heads.shape[1]
        return heads.repeat_interleave(repeats, dim=1) if repeats > 1 else heads


def self_attentions(block: nn.Module) -> Iterator[nn.Module]:
    """The parts of a block that attend within one sequence, by the names of their projections.

    None where the block is a stage, which holds blocks itself: those may read windows, or share weights.
    """
    if any(is_stack(module) for module in block.modules()):
        return
    for path, module in block.named_modules():
        if _linear_maps(module) and not any(word in path.lower() for word in CROSS_ATTENTION):
            yield module


def is_stack(module: nn.Module) -> bool:
    """Whether it is a list of which every entry holds an attention, of a kind that we know or called so."""
    return isinstance(module, nn.ModuleList) and len(module) > 0 and all(_attends(block) for block in module)


def projections_of(block: nn.Module, config: Any) -> Projections:
    """The projections of a block's one self-attention.

    Args:
        config: the model's, for what the attention itself does not say.

    Raises:
        UnsupportedModelError: if the block has several, or its projections do not fall into heads.
    """
    attentions = list(self_attentions(block))
    if len(attentions) != 1:
        raise UnsupportedModelError(
            f"a block {type(block).__name__} has {len(attentions)} self-attentions whose queries, keys and values "
            "hf_distill knows how to read, and exactly one is needed. Use a term that reads hidden states, as the "
            "recipes patient_kd, vid, crd and nst do."
        )
    (attention,) = attentions
    modules = _linear_maps(attention)
    head_size = next((getattr(attention, name) for name in HEAD_SIZES if hasattr(attention, name)), None)
    width = _width(modules[0])
    num_heads = width // head_size if width and head_size else 0
    if len(modules) == 1:
        num_heads = config.num_attention_heads
    if not width or not head_size or width % head_size or num_heads < 1:
        raise UnsupportedModelError(
            f"the projections of {type(attention).__name__} give {width} numbers a token, and its heads have the size "
            f"{head_size}, so they do not fall into heads. Use a term that reads hidden states, as the recipes "
            "patient_kd, vid, crd and nst do."
        )
    return Projections(modules, num_heads, head_size)


def _attends(block: nn.Module) -> bool:
    return any("attention" in type(module).__name__.lower() or _linear_maps(module) for module in block.modules())


def _linear_maps(module: nn.Module) -> tuple[nn.Module, ...]:
    """The maps that make queries, keys and values, or the one that makes all; none where the module has none."""
    children = dict(module.named_children())
    names = [parent.__name__ for parent in type(module).__mro__]
    if not TOKENS_FIRST.isdisjoint(names):
        return ()
    fused = next((FUSED[name] for name in names if name in FUSED), None)
    if fused is not None:
        return (children[fused],)
    return next((tuple(children[name] for name in trio) for trio in SEPARATE if children.keys() >= set(trio)), ())


def _width(linear: nn.Module) -> int | None:
    """The number of outputs of a linear map, of GPT-2's `Conv1D`, or of one that an adapter wraps."""
    wrapped: Any = getattr(linear, "base_layer", linear)
    width: int | None = getattr(wrapped, "out_features", getattr(wrapped, "nf", None))
    return width
