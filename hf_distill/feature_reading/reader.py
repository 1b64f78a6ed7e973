"""Reading the features of one model in its one ordinary forward."""

from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import unwrap_peft_model
from transformers.utils import logging
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.feature_reading.projections import Projections
from hf_distill.feature_reading.stacks import Stack, anatomy_of, stacks_of
from hf_distill.types import Feature


logger = logging.get_logger(__name__)

OUTPUT_NAME = "distillation_features"
"""The entry of a model's outputs in which its features travel."""
PROJECTED = ("queries", "keys", "values")


class FeatureReader:
    """Reads features of a model while it is called, without a second forward and without slower attention.

    Hidden states come from the model's own recording (`output_hidden_states`). Queries, keys and values are what the
    projections return, seen by forward hooks, so that SDPA and flash attention stay on. Only attention probabilities
    need the eager attention, to which the model is then switched, with a warning.

    Inside `with reader:` each forward of the model returns the features too, as one more entry of its outputs, so that
    wrappers such as DDP see them; [`take`] takes them out again. Outside, nothing is recorded. Hooks must be there
    before a compiled model is called for the first time, so make the reader before that.

    Args:
        model: a `PreTrainedModel`, or a PEFT model of one.
        features: what to read.
        projections: name → learned map, applied to the features whose `projection` names it, inside the forward. They
            must be part of the model.

    Raises:
        UnsupportedModelError: if a layer or a side does not exist, or the model has no projections that we know.
        ConfigurationError: with gradient checkpointing of the reentrant kind, which loses the gradient of what is read
            inside of a block.
    """

    def __init__(
        self, model: nn.Module, features: Collection[Feature], projections: Mapping[str, nn.Module] | None = None
    ) -> None:
        self.model = model
        self.features = tuple(sorted(features, key=str))
        self.projections = projections or {}
        self.is_recording = False
        self._recorded: dict[tuple[str, int, str | None], Tensor] = {}
        self._stacks = stacks_of(model)
        layers = {feature.layer for feature in self.features if feature.kind == "hidden_states"}
        self._keyword_arguments: dict[str, Any] = {"output_hidden_states": sorted(layers)} if layers else {}
        for stack in self._stacks.values():  # else the first call does it, which a compiled one cannot
            maybe_install_capturing_hooks(stack.model)
        for feature in self.features:
            self._check(feature)
        if any(feature.kind == "attentions" for feature in self.features):
            self._keyword_arguments["output_attentions"] = True
            _use_eager_attention(unwrap_peft_model(model))
        self._not_asked_for = _names_of_what_is_recorded(unwrap_peft_model(model), self._keyword_arguments)
        hooks: list[Any] = [model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        read = {(f.side, f.layer) for f in self.features if f.kind in PROJECTED}
        for side, layer in sorted(read, key=str):
            projections_of_layer = self._stack(side).projections(layer)
            for index, module in enumerate(projections_of_layer.modules):
                hook = _ProjectionHook(self, projections_of_layer, index, side, layer)
                hooks.append(module.register_forward_hook(hook))
        hooks.append(model.register_forward_hook(self._end))
        self._hooks = hooks

    def remove(self) -> None:
        """Take the hooks out of the model."""
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> "FeatureReader":
        self.is_recording = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.is_recording = False
        self._recorded.clear()

    def take(self, outputs: Any) -> tuple[Any, dict[Feature, Tensor]]:
        """The outputs without the features, and the features."""
        features = dict(zip(self.features, outputs[OUTPUT_NAME], strict=True))
        return _without(outputs, {OUTPUT_NAME}), features

    # Dynamo runs the hooks of the outermost module outside of its graph; on their own they are not worth one.
    @torch.compiler.disable
    def _begin(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        self._recorded.clear()
        return (args, kwargs | self._keyword_arguments) if self.is_recording else None

    @torch.compiler.disable
    def _end(self, model: nn.Module, args: Any, outputs: Any) -> Any:
        if not self.is_recording:
            return outputs
        features = tuple(self._feature(outputs, feature) for feature in self.features)
        self._recorded.clear()
        outputs = _without(outputs, self._not_asked_for)
        outputs[OUTPUT_NAME] = features
        return outputs

    def _feature(self, outputs: Any, feature: Feature) -> Tensor:
        if feature.kind in PROJECTED:
            tensor = self._recorded[feature.kind, feature.layer, feature.side]
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
        return tensor if feature.projection is None else self.projections[feature.projection](tensor)

    def _stack(self, side: str | None) -> Stack:
        return self._stacks[side if side in self._stacks else ""]

    def _check(self, feature: Feature) -> None:
        num_layers = anatomy_of(self.model).stack(feature.side).num_layers
        first = 0 if feature.kind == "hidden_states" else 1
        if not first <= feature.layer <= num_layers:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} has {feature.kind} of the layers {first} to {num_layers}, and layer "
                f"{feature.layer} is asked for. Choose another `layer_map`."
            )


class _ProjectionHook:
    """Keeps what one projection returned, while its reader records."""

    def __init__(
        self, reader: FeatureReader, projections: Projections, index: int, side: str | None, layer: int
    ) -> None:
        self.reader, self.projections, self.index, self.side, self.layer = reader, projections, index, side, layer

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if self.reader.is_recording:
            for kind, heads in self.projections.kinds_of(self.index, output).items():
                self.reader._recorded[kind, self.layer, self.side] = heads


def check_checkpointing(model: nn.Module) -> None:
    """Refuses a model whose gradient checkpointing is of the reentrant kind.

    Raises:
        ConfigurationError: if it is, since what is read inside of a block then has no gradient.
    """
    for module in model.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        if getattr(module, "gradient_checkpointing", False) and getattr(function, "keywords", {}).get("use_reentrant"):
            raise ConfigurationError(
                f"{type(model).__name__} checkpoints with use_reentrant=True, which gives what is read inside of a "
                "block no gradient. Pass `gradient_checkpointing_kwargs={'use_reentrant': False}`."
            )


def _recorded_by_the_model(outputs: Any, kind: str, side: str | None) -> Any:
    """The tuple of all layers, by the names that Transformers' outputs have for it."""
    of_the_side = outputs.get(f"{side}_output")  # of CLIP
    if of_the_side is not None:
        return of_the_side.get(kind)
    return outputs.get(f"{side}_{kind}", outputs.get(kind))


def _names_of_what_is_recorded(model: Any, arguments: Collection[str]) -> set[str]:
    """The entries of the outputs that are there only because the arguments ask for them."""
    kinds = [name.removeprefix("output_") for name in arguments if not getattr(model.config, name, False)]
    cross = ["cross_attentions"] if "attentions" in kinds else []
    return {f"{side}{kind}" for side in ("", "encoder_", "decoder_") for kind in kinds} | set(cross)


def _without(outputs: Any, names: Collection[str]) -> Any:
    """A copy, since Transformers' outputs let nothing be deleted."""
    return type(outputs)(**{name: value for name, value in outputs.items() if name not in names})


def _use_eager_attention(model: Any) -> None:
    implementation = model.config._attn_implementation
    if implementation == "eager":
        return
    logger.warning(
        f"A term reads the attention probabilities of {type(model).__name__}, which {implementation!r} attention never "
        "makes, so the model is switched to the slower 'eager' attention. Relations of queries, keys and values "
        "(`RelationTerm`) keep the fast one."
    )
    model.set_attn_implementation("eager")
