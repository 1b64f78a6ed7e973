"""A model in shards: every process holds a part of each weight, and gathers a block while it runs."""

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress

from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.trainer_utils import unwrap_peft_model


def shard(model: nn.Module) -> None:
    """Shard a frozen model over all processes by FSDP2, so that none ever holds it whole."""
    for unit in units_of(model):
        fully_shard(unit)
    fully_shard(model, reshard_after_forward=True)  # by default what is in no unit would stay gathered


def is_sharded(model: nn.Module) -> bool:
    """Whether its weights are split over processes, so that all of them must call it together."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def units_of(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that are gathered when they run, and let go of afterwards, inner ones first.

    These are the blocks that Transformers names, the entries of other lists, and the embeddings and the head of a
    vocabulary. What shares a weight with something else, and what is left, is gathered as long as the model runs.
    """
    model = unwrap_peft_model(model)
    units = list(_blocks(model, getattr(model, "_no_split_modules", None) or ()))
    inside = {part for unit in units for part in unit.modules()}
    units += [part for part in _of_vocabulary(model) if part not in inside]
    holders = _holders(model)
    return [unit for unit in units if all(holders[weight] == number for weight, number in _holders(unit).items())]


def _blocks(module: nn.Module, names: Collection[str], *, is_entry: bool = False) -> Iterator[nn.Module]:
    if type(module).__name__ in names:
        yield module
        return
    is_list = isinstance(module, nn.ModuleList)
    for child in module.children():
        yield from _blocks(child, names, is_entry=is_list)
    if is_entry and not is_list:
        yield module


def _of_vocabulary(model: nn.Module) -> Iterator[nn.Module]:
    if isinstance(model, PreTrainedModel):
        with suppress(NotImplementedError):  # of those that read no tokens
            for module in (model.get_input_embeddings(), model.get_output_embeddings()):
                if isinstance(module, (nn.Embedding, nn.Linear)):
                    yield module


def _holders(model: nn.Module) -> Counter[nn.Parameter]:
    """How many modules hold each weight."""
    return Counter(weight for module in model.modules() for weight in module.parameters(recurse=False))
