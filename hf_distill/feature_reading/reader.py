"""Reading the features of one model in its one ordinary forward."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from hf_distill.errors import UnsupportedModelError
from hf_distill.feature_reading.checkpointing import check_checkpointing
from hf_distill.feature_reading.learned_parts import attach_parts, detach_parts
from hf_distill.feature_reading.projections import Projections
from hf_distill.feature_reading.stacks import Stack, anatomy_of, stacks_of
from hf_distill.types import Feature, Unit


logger = logging.get_logger(__name__)

PROJECTED = ("queries", "keys", "values")


class FeatureReader:
    """Reads features of a model while it is called, without a second forward and without slower attention.

    Hidden states come from the model's own recording (`output_hidden_states`). Queries, keys and values are what the
    projections return, seen by forward hooks, so that SDPA and flash attention stay on. Only attention probabilities
    need the eager attention, to which the model is then switched, with a warning, until the reader is removed.

    Between [`attach`] and [`remove`], [`call`] gives the outputs of the model and its features. They travel with
    the outputs, so that wrappers such as DDP see them. A call that does not go through the reader records nothing.
    Hooks must be there before a compiled model is called for the first time, so attach the reader before that.

    Args:
        model: a `PreTrainedModel`, or a PEFT model of one.
        features: what to read.
        parts: the learned parts that features with a `projection` go through, by its name. They become a submodule of
            the model, which its state does not show, and are called inside its forward, so that whatever treats the
            parameters of the model (optimizer, clipping, DDP, FSDP) treats theirs.

    Raises:
        UnsupportedModelError: if a layer or a side does not exist, or the model has no projections that we know.
    """

    def __init__(
        self, model: nn.Module, features: Collection[Feature], parts: Mapping[str, nn.Module] | None = None
    ) -> None:
        self.model = model
        self.features = tuple(sorted(features, key=str))
        self.parts = nn.ModuleDict(parts)
        self._stacks = stacks_of(model)
        anatomy = anatomy_of(model)
        for feature in self.features:
            first = 0 if feature.kind == "hidden_states" else 1
            _check_layer(feature, first, anatomy.stack(feature.side).num_layers, anatomy.model)
        kinds = {feature.kind for feature in self.features}
        layers = {feature.layer for feature in self.features if feature.kind == "hidden_states"}
        base: Any = unwrap_peft_model(model)
        self._arguments: dict[str, Any] = {"output_attentions": True} if "attentions" in kinds else {}
        if layers and not base.config.output_hidden_states:  # else all are recorded, and stay in the outputs
            self._arguments["output_hidden_states"] = sorted(layers)
        self._unasked = _recorded_names(base, self._arguments)
        read = {(f.side, f.layer) for f in self.features if f.kind in PROJECTED}
        self._projections = {place: self._stack(place[0]).projections(place[1]) for place in sorted(read, key=str)}
        self._recorded: dict[tuple[str, int, str | None], Tensor] = {}
        self._is_recording = False
        self._handles: list[Any] = []
        self._tokens: Mapping[Unit, Tensor | None] = {}
        self._attention: str | None = None

    def attach(self) -> None:
        """Put the hooks and the learned parts in.

        Raises:
            ConfigurationError: with activation checkpointing of the reentrant kind.
        """
        check_checkpointing(self.model)
        if "output_attentions" in self._arguments:
            self._attention = _use_eager_attention(unwrap_peft_model(self.model))
        for stack in self._stacks.values():  # else the first call does it, which a compiled one cannot
            maybe_install_capturing_hooks(stack.model)
        self._handles = [self.model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for (side, layer), projections in self._projections.items():
            for index, module in enumerate(projections.modules):
                hook = _ProjectionHook(self, projections, index, side, layer)
                self._handles.append(module.register_forward_hook(hook))
        self._handles.append(self.model.register_forward_hook(self._end))
        if len(self.parts):
            weight = next(parameter for parameter in self.model.parameters() if parameter.is_floating_point())
            self._handles += attach_parts(self.model, self.parts.to(weight.device, weight.dtype))
        vars(self.model)["_feature_reader"] = self

    def remove(self) -> None:
        """Take all of it out again."""
        for handle in self._handles:
            handle.remove()
        if len(self.parts):
            detach_parts(self.model)
        if self._attention is not None:
            unwrap_peft_model(self.model).set_attn_implementation(self._attention)
        self._handles, self._attention = [], None
        del vars(self.model)["_feature_reader"]

    def call(
        self, model: nn.Module, inputs: Mapping[str, Any], tokens: Mapping[Unit, Tensor | None]
    ) -> tuple[Any, dict[Feature, Tensor]]:
        """The outputs of a forward, and the features.

        Args:
            model: the model, or what it is wrapped in.
            inputs: what it is called with.
            tokens: from `Positions`. Padding is 0 where the learned parts read it, whatever stands there.
        """
        self._is_recording, self._tokens = True, tokens
        try:
            outputs, features = model(**inputs)
        finally:
            self._is_recording, self._tokens = False, {}
            self._recorded.clear()
        return outputs, dict(zip(self.features, features, strict=True))

    # Dynamo runs the hooks of the outermost module outside of its graph; on their own they are not worth one.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _begin(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        return (args, kwargs | self._arguments) if self._is_recording else None

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _end(self, model: nn.Module, args: Any, outputs: Any) -> Any:
        if not self._is_recording:
            return outputs
        features = tuple(self._feature(outputs, feature) for feature in self.features)
        self._recorded.clear()
        # A copy, since Transformers' outputs let nothing be deleted.
        kept = {name: value for name, value in outputs.items() if name not in self._unasked}
        return type(outputs)(kept), features

    def _feature(self, outputs: Any, feature: Feature) -> Tensor:
        real = self._tokens.get(Unit.DECODER_TOKEN if feature.side == "decoder" else Unit.TOKEN)
        if feature.kind in PROJECTED:
            tensor = self._recorded[feature.kind, feature.layer, feature.side]
            self._check_tokens(feature, tensor, real)
        else:
            recorded = _recorded_by_the_model(outputs, feature.kind, feature.side) or ()
            num_layers = len(self._stack(feature.side).blocks)
            first = 0 if feature.kind == "hidden_states" else 1
            if len(recorded) != num_layers + 1 - first:
                raise UnsupportedModelError(
                    f"{type(self.model).__name__} has {num_layers} blocks and recorded {len(recorded)} "
                    f"{feature.kind}, so hf_distill cannot tell which is which. Use terms that read logits and labels "
                    "only."
                )
            tensor = recorded[feature.layer - first]
        if feature.projection is None:
            return tensor
        projected: Tensor = self.parts[feature.projection](
            tensor if real is None else tensor.masked_fill(~real[..., None], 0.0)
        )
        return projected

    def _check_tokens(self, feature: Feature, heads: Tensor, real: Tensor | None) -> None:
        given = (heads.shape[0], heads.shape[2])
        if real is not None and given != real.shape:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} made {feature.kind} of layer {feature.layer} for (rows, tokens) = "
                f"{given}, and the batch has {tuple(real.shape)}, so hf_distill cannot tell which is of which token. "
                "Use a term that reads hidden states, as the recipes patient_kd, vid, crd and nst do."
            )

    def _stack(self, side: str | None) -> Stack:
        return self._stacks[side if side is not None and side in self._stacks else ""]


def reader_of(model: nn.Module) -> FeatureReader | None:
    """The reader that is attached to a model; a copy of the model has a copy of it."""
    reader: FeatureReader | None = vars(model).get("_feature_reader")
    return reader


def outputs_and_features(
    owner: nn.Module,
    model: nn.Module,
    inputs: Mapping[str, Any],
    tokens: Mapping[Unit, Tensor | None] = MappingProxyType({}),
) -> tuple[Any, Mapping[Feature, Tensor]]:
    """One forward, and what the reader of `owner` finds in it, if it has one.

    Args:
        owner: the model itself.
        model: the same, or what it is wrapped in.
        inputs: what it is called with.
        tokens: from `Positions`.
    """
    reader = reader_of(owner)
    return (model(**inputs), {}) if reader is None else reader.call(model, inputs, tokens)


class _ProjectionHook:
    """Keeps what one projection returned, while its reader records, so not while a backward pass recomputes it."""

    def __init__(
        self, reader: FeatureReader, projections: Projections, index: int, side: str | None, layer: int
    ) -> None:
        self.reader, self.projections, self.index, self.side, self.layer = reader, projections, index, side, layer

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if not self.reader._is_recording:
            return
        for kind, heads in self.projections.kinds_of(self.index, output).items():
            if (kind, self.layer, self.side) in self.reader._recorded:
                raise UnsupportedModelError(
                    f"block {self.layer} of {type(self.reader.model).__name__} runs several times in one forward, so "
                    f"its {kind} are those of several layers. Use terms that read logits and labels only."
                )
            self.reader._recorded[kind, self.layer, self.side] = heads


def _check_layer(feature: Feature, first: int, num_layers: int, model: str) -> None:
    if not first <= feature.layer <= num_layers:
        raise UnsupportedModelError(
            f"{model} has {feature.kind} of the layers {first} to {num_layers}, and layer {feature.layer} is asked "
            "for. Choose another `layer_map`."
        )


def _recorded_by_the_model(outputs: Any, kind: str, side: str | None) -> Any:
    """The tuple of all layers, by the names that Transformers' outputs have for it."""
    of_the_side = outputs.get(f"{side}_output")  # of CLIP
    if of_the_side is not None:
        return of_the_side.get(kind)
    return outputs.get(f"{side}_{kind}", outputs.get(kind))


def _recorded_names(model: Any, arguments: Collection[str]) -> set[str]:
    """The entries of the outputs that are there only because the arguments ask for them."""
    kinds = [name.removeprefix("output_") for name in arguments if not getattr(model.config, name, False)]
    cross = ["cross_attentions"] if "attentions" in kinds else []
    return {f"{side}{kind}" for side in ("", "encoder_", "decoder_") for kind in kinds} | set(cross)


def _use_eager_attention(model: Any) -> str | None:
    """Switch the model to it; what it had before, if that was another one."""
    implementation: str = model.config._attn_implementation
    if implementation == "eager":
        return None
    logger.warning(
        f"A term reads the attention probabilities of {type(model).__name__}, which {implementation!r} attention "
        "never makes, so the model is switched to the slower 'eager' attention. Relations of queries, keys and values "
        "(`RelationTerm`) keep the fast one."
    )
    model.set_attn_implementation("eager")
    return implementation
