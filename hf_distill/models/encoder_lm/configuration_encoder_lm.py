"""Configuration of the encoder language model."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters


@strict
class EncoderLMConfig(PreTrainedConfig):
    """Sizes and options of an encoder language model. The defaults are those of the Transformer's paper.

    Args:
        vocab_size: number of tokens.
        hidden_size: width of the hidden states.
        num_hidden_layers: number of layers.
        num_attention_heads: number of attention heads, each of width `hidden_size / num_attention_heads`.
        intermediate_size: inner width of the feed-forward network.
        hidden_act: its activation, any name of Transformers' `ACT2FN`.
        hidden_dropout_prob: dropout of the embeddings and of the output of each sublayer.
        attention_probs_dropout_prob: dropout of the attention probabilities.
        max_position_embeddings: number of tokens that the model is made for. Learned positions end there; sinusoidal
            and rotary ones are computed for any position.
        position_embedding_type: "sinusoidal" or "learned" vectors added to the embeddings, or "rotary" (queries and
            keys turned by their position).
        rope_parameters: of rotary positions, as Transformers writes them (`rope_type`, `rope_theta` …).
        pre_norm: `x + Sublayer(LayerNorm(x))` with a last LayerNorm after all layers, instead of
            `LayerNorm(x + Sublayer(x))`.
        layer_norm_eps: added to the variance in every LayerNorm.
        initializer_range: standard deviation of new weights, embeddings included. Embeddings enter the model times
            `hidden_size ** 0.5`; a tied decoder reads them without that factor, so a fresh language model starts near
            a loss of `log(vocab_size)`.
        tie_word_embeddings: whether the decoder of the language models shares the weight of the embeddings.
        classifier_dropout: dropout before a classifier, `hidden_dropout_prob` if None.
        classifier_pooling: what a sequence classifier reads: "cls" the first token, or "mean" the mean of all tokens,
            both among the tokens that the attention mask keeps.
        is_decoder: whether a token sees only itself and the tokens before it. `EncoderLMForCausalLM` sets it, the
            other heads unset it, each on its own copy of the configuration.
        use_cache: whether a causal model returns its keys and values.
        pad_token_id, bos_token_id, eos_token_id: special tokens of the tokenizer.

    Raises:
        huggingface_hub.errors.StrictDataclassError: if a value has the wrong type, or if values are out of range or
            contradict each other, in which case all of them are named.

    References: Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762 (the model); Su et
        al., "RoFormer", 2021, https://arxiv.org/abs/2104.09864 (rotary positions).

    Example:
        >>> config = EncoderLMConfig(vocab_size=100, hidden_size=32, num_attention_heads=4)
        >>> config.position_embedding_type, config.pre_norm, config.hidden_act
        ('sinusoidal', False, 'relu')
    """

    model_type = "encoder_lm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (a field would be saved)

    vocab_size: int = 30522
    hidden_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    hidden_act: str = "relu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    position_embedding_type: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    rope_parameters: RopeParameters | dict[str, Any] | None = None
    pre_norm: bool = False
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    classifier_dropout: float | int | None = None
    classifier_pooling: Literal["cls", "mean"] = "cls"
    is_decoder: bool = False
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def convert_rope_params_to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Fill in the rotary parameters that are missing, if positions are rotary."""
        if self.position_embedding_type != "rotary":
            return kwargs
        return super().convert_rope_params_to_dict(**kwargs)

    def validate_architecture(self) -> None:
        """Raise a ValueError that names every value that is out of range or contradicts another."""
        faults = [*self._size_faults(), *self._probability_faults()]
        if self.hidden_act not in ACT2FN:
            faults.append(f"hidden_act={self.hidden_act!r} is none of {sorted(ACT2FN)}")
        if self.rope_parameters and self.position_embedding_type != "rotary":
            faults.append(
                f"rope_parameters={self.rope_parameters} need position_embedding_type='rotary', "
                f"which is {self.position_embedding_type!r}"
            )
        if faults:
            raise ValueError("; ".join(faults) + ".")

    def _size_faults(self) -> list[str]:
        sizes = (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        )
        faults = [f"{name}={getattr(self, name)} is not positive" for name in sizes if getattr(self, name) < 1]
        if faults:
            return faults
        heads = f"hidden_size={self.hidden_size} and num_attention_heads={self.num_attention_heads}"
        head_size, rest = divmod(self.hidden_size, self.num_attention_heads)
        if rest:
            faults.append(f"{heads} do not fit: the first is not a multiple of the second")
        elif self.position_embedding_type == "rotary" and head_size % 2:
            faults.append(f"{heads} give heads of width {head_size}, and rotary positions need an even one")
        if self.position_embedding_type == "sinusoidal" and self.hidden_size % 2:
            faults.append(f"hidden_size={self.hidden_size} is odd, and sinusoidal positions need an even one")
        return faults

    def _probability_faults(self) -> list[str]:
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        values = {name: getattr(self, name) for name in names}
        return [
            f"{name}={value} is not a probability in [0, 1]"
            for name, value in values.items()
            if value is not None and not 0 <= value <= 1
        ]


__all__ = ["EncoderLMConfig"]
