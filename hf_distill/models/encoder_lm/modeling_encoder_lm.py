"""The encoder language model: a Transformer encoder with the heads of Transformers' language models.

Shapes: B batch, L tokens, S cached tokens before them, V vocabulary, H hidden_size, A heads, D = H / A, C classes.

Arguments that every `forward` shares:
    input_ids: `(B, L)`, tokens; exactly one of it and `inputs_embeds` is given.
    attention_mask: `(B, S + L)`, 1 at real tokens and 0 at padding, all real if None; or `(B, 1, L, S + L)`, which the
        attention takes as it is.
    position_ids: `(B, L)` or `(1, L)`, `S, S + 1, …` if None. Rows that are padded on the left need their own, which
        `generate` gives them.
    inputs_embeds: `(B, L, H)`, rows of the embedding matrix, which the model multiplies by `H ** 0.5`.
    output_hidden_states, output_attentions: adds `hidden_states`, a tuple of `num_hidden_layers + 1` tensors
        `(B, L, H)`, or `attentions`, a tuple of `num_hidden_layers` tensors `(B, A, L, S + L)` (eager attention only).
    return_dict: False for a tuple.
    num_items_in_batch: what the loss is divided by, instead of the number of labels in this batch.

Loads from the Hub as remote code, so it imports nothing of the package it comes with but its configuration.
"""

# Transformers' decorators and `post_init` have no types.
# mypy: allow-untyped-decorators, allow-untyped-calls

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation.utils import GenerationMixin
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.pytorch_utils import apply_chunking_to_forward
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_encoder_lm import EncoderLMConfig


try:
    from transformers.modeling_utils import slice_logits_to_keep
except ImportError:  # Transformers 5.20, the last for Python 3.10

    def slice_logits_to_keep(hidden_states: Tensor, logits_to_keep: int | Tensor) -> Tensor:
        """The last positions, or those of an index, before the decoder makes logits of them."""
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return hidden_states[:, kept]


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each `(B, L, D)`, that turn queries and keys by their position."""


def sinusoidal_positions(position_ids: Tensor, size: int) -> Tensor:
    """Position vectors of sines and cosines.

        p[2i] = sin(position / 10000^(2i / size)),  p[2i + 1] = cos(position / 10000^(2i / size))

    Args:
        position_ids: any shape `(…)`.
        size: width of the vectors, even.
    Returns: `(…, size)`, float32.
    References: Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
    """
    exponents = torch.arange(0, size, 2, device=position_ids.device, dtype=torch.float32) / size
    angles = position_ids[..., None].float() * torch.exp(-math.log(10000.0) * exponents)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


class EncoderLMAttention(nn.Module):
    """Multi-head self-attention `softmax(QKᵀ / √D) V`, Vaswani et al. (2017), section 3.2.

    Args:
        config: configuration of the model.
        layer_idx: index of the layer, which is its place in the cache.
    """

    num_key_value_groups = 1

    def __init__(self, config: EncoderLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = config.is_decoder
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: Rotation | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The outputs `(B, L, H)`, and the attention probabilities `(B, A, L, S + L)` if attention is eager."""
        input_shape = hidden_states.shape[:-1]
        hidden_shape = (*input_shape, -1, self.head_dim)
        queries = self.q_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        keys = self.k_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        values = self.v_proj(hidden_states).view(hidden_shape).transpose(1, 2)
        if position_embeddings is not None:
            queries, keys = apply_rotary_pos_emb(queries, keys, *position_embeddings)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)

        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, probabilities = attend(
            self,
            queries,
            keys,
            values,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(attended.reshape(*input_shape, -1).contiguous()), probabilities


class EncoderLMFeedForward(nn.Module):
    """Position-wise feed-forward network `max(0, xW₁ + b₁)W₂ + b₂`, Vaswani et al. (2017), equation 2.

    `config.hidden_act` stands for the maximum.
    """

    def __init__(self, config: EncoderLMConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act_fn = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(B, L, H)` to `(B, L, H)`."""
        outputs: Tensor = self.down_proj(self.act_fn(self.up_proj(hidden_states)))
        return outputs


class EncoderLMLayer(GradientCheckpointingLayer):
    """Attention and feed-forward, each `LayerNorm(x + Sublayer(x))`, or `x + Sublayer(LayerNorm(x))` if pre-norm."""

    def __init__(self, config: EncoderLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.chunk_size_feed_forward = config.chunk_size_feed_forward
        self.self_attn = EncoderLMAttention(config, layer_idx)
        self.self_attn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = EncoderLMFeedForward(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: Rotation | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """`(B, L, H)` to `(B, L, H)`."""
        attended, _ = self.self_attn(
            self.self_attn_norm(hidden_states) if self.pre_norm else hidden_states,
            attention_mask=attention_mask,
            position_embeddings=position_embeddings,
            past_key_values=past_key_values,
            **kwargs,
        )
        hidden_states = hidden_states + self.dropout(attended)
        if self.pre_norm:
            hidden_states = hidden_states + self.dropout(self._feed_forward(self.mlp_norm(hidden_states)))
        else:
            hidden_states = self.self_attn_norm(hidden_states)
            hidden_states = self.mlp_norm(hidden_states + self.dropout(self._feed_forward(hidden_states)))
        return hidden_states

    def _feed_forward(self, hidden_states: Tensor) -> Tensor:
        return apply_chunking_to_forward(self._feed_forward_chunk, self.chunk_size_feed_forward, 1, hidden_states)

    def _feed_forward_chunk(self, hidden_states: Tensor) -> Tensor:
        return cast(Tensor, self.mlp(hidden_states))


class EncoderLMPreTrainedModel(PreTrainedModel):
    """What all encoder language models share: loading, saving, initialisation and what they support."""

    config: EncoderLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLMLayer"]  # noqa: RUF012 (this and the next as in PreTrainedModel)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": EncoderLMLayer, "attentions": EncoderLMAttention}  # noqa: RUF012


def _with_is_decoder(config: EncoderLMConfig, is_decoder: bool) -> EncoderLMConfig:
    """The configuration itself if it says so already, or else a copy that does."""
    if config.is_decoder == is_decoder:
        return config
    config = copy.deepcopy(config)
    config.is_decoder = is_decoder
    return config


class EncoderLMModel(EncoderLMPreTrainedModel):
    """The encoder without a head. It is bidirectional, or causal with a cache if `config.is_decoder`.

    Args:
        config: configuration of the model.
    """

    def __init__(self, config: EncoderLMConfig) -> None:
        super().__init__(config)
        position_type = config.position_embedding_type
        self.embed_scale = math.sqrt(config.hidden_size)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = (
            nn.Embedding(config.max_position_embeddings, config.hidden_size) if position_type == "learned" else None
        )
        self.rotary_emb = LlamaRotaryEmbedding(cast(LlamaConfig, config)) if position_type == "rotary" else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList([EncoderLMLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.pre_norm else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The last hidden states.

        Args:
            past_key_values: keys and values of the S tokens before; a causal model adds those of these tokens.
            use_cache: whether a causal model starts a cache if it got none. `config.use_cache` if None.
        Returns: `last_hidden_state`, `(B, L, H)`, and `past_key_values` if there is a cache.
        Raises: ValueError: if both or none of `input_ids` and `inputs_embeds` are given, or if learned positions are
            too few.
        """
        if (input_ids is None) == (inputs_embeds is None):
            given = "neither" if input_ids is None else "both"
            raise ValueError(f"Exactly one of input_ids and inputs_embeds must be given, not {given}.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and self.config.is_decoder and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        # Transformers' `is_causal` of one call, which it writes into the configuration meanwhile, goes first.
        is_causal = getattr(self.config, "is_causal", self.config.is_decoder)
        mask = self._mask(is_causal, inputs_embeds, attention_mask, past_key_values, position_ids)
        positions = self._next_positions(inputs_embeds, past_key_values) if position_ids is None else position_ids
        hidden_states = self.dropout(self._embed(inputs_embeds, positions))
        rotation = self.rotary_emb(hidden_states, positions) if self.rotary_emb is not None else None
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask=mask,
                position_embeddings=rotation,
                past_key_values=past_key_values,
                # Flash attention reads packed rows from them, as the causal mask does and the bidirectional does not.
                position_ids=position_ids if is_causal else None,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden_states), past_key_values=past_key_values)

    def _next_positions(self, inputs_embeds: Tensor, past_key_values: Cache | None) -> Tensor:
        past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
        return (torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) + past_length).unsqueeze(0)

    def _embed(self, inputs_embeds: Tensor, positions: Tensor) -> Tensor:
        hidden_states = inputs_embeds * self.embed_scale
        if self.embed_positions is not None:
            self._check_learned_positions(positions)
            hidden_states = hidden_states + self.embed_positions(positions)
        elif self.rotary_emb is None:
            vectors = sinusoidal_positions(positions, self.config.hidden_size)
            hidden_states = hidden_states + vectors.to(hidden_states.dtype)
        return hidden_states

    def _check_learned_positions(self, positions: Tensor) -> None:
        """Raise before the lookup does, with both lengths. On a GPU, where values are not at hand, by shape alone."""
        known = self.config.max_position_embeddings
        length = positions.shape[-1]
        if positions.device.type == "cpu" and not torch.compiler.is_compiling():
            length = int(positions.max()) + 1
        if length > known:
            raise ValueError(
                f"An input has {length} positions, and max_position_embeddings={known} of them are learned. "
                "Truncate it, or choose position_embedding_type='sinusoidal' or 'rotary'."
            )

    def _mask(
        self,
        is_causal: bool,
        inputs_embeds: Tensor,
        attention_mask: Tensor | None,
        past_key_values: Cache | None,
        position_ids: Tensor | None,
    ) -> Any:
        if is_causal:
            return create_causal_mask(
                self.config, inputs_embeds, attention_mask, past_key_values=past_key_values, position_ids=position_ids
            )
        return create_bidirectional_mask(self.config, inputs_embeds, attention_mask, past_key_values=past_key_values)


class EncoderLMForMaskedLM(EncoderLMPreTrainedModel):
    """The bidirectional encoder with a linear decoder, for masked language modelling.

    Args:
        config: configuration of the model.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: EncoderLMConfig) -> None:
        config = _with_is_decoder(config, False)
        super().__init__(config)
        self.model = EncoderLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Scores of all tokens at every position.

        Args:
            labels: `(B, L)`, the tokens that were masked, and -100 elsewhere.
        Returns: `logits`, `(B, L, V)`, and with labels `loss`, the mean cross-entropy in nats per label.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EncoderLMForCausalLM(EncoderLMPreTrainedModel, GenerationMixin):
    """The causal encoder with a linear decoder, which generates.

    Args:
        config: configuration of the model.
    """

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: EncoderLMConfig) -> None:
        config = _with_is_decoder(config, True)
        super().__init__(config)
        self.model = EncoderLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Scores of all tokens for the position after each one.

        Args:
            past_key_values: keys and values of the S tokens before, to which those of these tokens are added.
            labels: `(B, L)`, the tokens themselves, and -100 where a token is not to be predicted. The loss compares
                the scores at each position with the label at the next.
            use_cache: whether to return keys and values. `config.use_cache` if None.
            logits_to_keep: the last K positions, or the indices of the positions, to score. 0 for all.
        Returns: `logits`, `(B, L, V)`, or `(B, K, V)` of those kept; with labels `loss`, the mean cross-entropy in
            nats per label; `past_key_values` if there is a cache.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class EncoderLMForSequenceClassification(EncoderLMPreTrainedModel):
    """The bidirectional encoder with a linear classifier of the whole sequence, or a regression.

    It reads the first token that the attention mask keeps, or with `config.classifier_pooling="mean"` the mean of all
    that it keeps.

    Args:
        config: configuration of the model.
    """

    def __init__(self, config: EncoderLMConfig) -> None:
        config = _with_is_decoder(config, False)
        super().__init__(config)
        self.num_labels = cast(int, config.num_labels)
        self.model = EncoderLMModel(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the loss divides by `num_items_in_batch`: Transformers' regression and multi-label losses do not."""
        if self.config.problem_type is None:
            return self.config.num_labels != 1
        return self.config.problem_type == "single_label_classification"

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Scores of the classes.

        Args:
            labels: `(B)` classes, `(B)` or `(B, C)` numbers of a regression, or `(B, C)` zeros and ones as floats. If
                `config.problem_type` is None, the first labels decide which.
        Returns: `logits`, `(B, C)`, and with labels `loss`: mean cross-entropy in nats per row, mean squared error, or
            mean binary cross-entropy.
        Raises: ValueError: if the mean of the tokens is read, and `attention_mask` does not tell which are real.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        pooled = self._pool(outputs.last_hidden_state, attention_mask)
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **kwargs)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _pool(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        if self.config.classifier_pooling == "mean":
            return self._mean(hidden_states, attention_mask)
        if attention_mask is None or attention_mask.ndim != 2:
            return hidden_states[:, 0]
        first = attention_mask.to(hidden_states.device).int().argmax(dim=1)
        return hidden_states[torch.arange(first.shape[0], device=first.device), first]

    def _mean(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        if attention_mask is None:
            return hidden_states.mean(dim=1)
        if attention_mask.ndim != 2:
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}, and classifier_pooling='mean' needs one of "
                "shape (batch, tokens) to tell real tokens from padding."
            )
        real = attention_mask.to(hidden_states)[..., None]
        return (hidden_states * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


class EncoderLMForTokenClassification(EncoderLMPreTrainedModel):
    """The bidirectional encoder with a linear classifier of each token.

    Args:
        config: configuration of the model.
    """

    def __init__(self, config: EncoderLMConfig) -> None:
        config = _with_is_decoder(config, False)
        super().__init__(config)
        self.num_labels = cast(int, config.num_labels)
        self.model = EncoderLMModel(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput:
        """Scores of the classes of each token.

        Args:
            labels: `(B, L)`, classes, and -100 at tokens that do not count.
        Returns: `logits`, `(B, L, C)`, and with labels `loss`, the mean cross-entropy in nats per label.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config, **kwargs)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EncoderLMForQuestionAnswering(EncoderLMPreTrainedModel):
    """The bidirectional encoder with a linear layer that scores each token as start and as end of the answer.

    Args:
        config: configuration of the model.
    """

    def __init__(self, config: EncoderLMConfig) -> None:
        config = _with_is_decoder(config, False)
        super().__init__(config)
        self.model = EncoderLMModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput:
        """Scores of each token as the first and as the last of the answer.

        Args:
            start_positions, end_positions: `(B)`, indices of tokens. An index of L or more does not count.
        Returns: `start_logits` and `end_logits`, `(B, L)`, and with both positions `loss`, the mean of both
            cross-entropies in nats per row.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        logits = self.qa_outputs(outputs.last_hidden_state)
        start_logits, end_logits = logits[..., 0].contiguous(), logits[..., 1].contiguous()
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **kwargs)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def _classifier_dropout(config: EncoderLMConfig) -> nn.Dropout:
    own = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if own is None else own)


__all__ = [
    "EncoderLMForCausalLM",
    "EncoderLMForMaskedLM",
    "EncoderLMForQuestionAnswering",
    "EncoderLMForSequenceClassification",
    "EncoderLMForTokenClassification",
    "EncoderLMModel",
    "EncoderLMPreTrainedModel",
]
