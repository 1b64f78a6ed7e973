"""A student made out of its teacher."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, overload

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.quantizers.base import HfQuantizer

from hf_distill.errors import ConfigurationError, UnsupportedModelError
from hf_distill.students.depth import Layers, kept_layers, with_kept_layers
from hf_distill.students.factorisation import factorisation_faults, with_factorised_embeddings
from hf_distill.students.rebuild import rebuilt, tensors_of
from hf_distill.students.stacks import stacks_of
from hf_distill.students.vocabulary import Vocabulary, vocab_size_of, vocabulary_faults, with_vocabulary_of
from hf_distill.students.width import narrower_widths, with_narrower_layers
from hf_distill.students.width_families import family_of
from hf_distill.types import Batch
from hf_distill.version import __version__


@overload
def student_from_teacher(
    teacher: PreTrainedModel,
    *,
    num_hidden_layers: int | Mapping[str, int] | None = ...,
    layers: Layers | Mapping[str, Layers] = ...,
    hidden_size: int | None = ...,
    num_attention_heads: int | None = ...,
    num_key_value_heads: int | None = ...,
    intermediate_size: int | None = ...,
    importance_data: Iterable[Batch] | None = ...,
    embedding_size: int | None = ...,
    vocabulary: None = ...,
    processing_class: None = ...,
) -> PreTrainedModel: ...


@overload
def student_from_teacher(
    teacher: PreTrainedModel,
    *,
    num_hidden_layers: int | Mapping[str, int] | None = ...,
    layers: Layers | Mapping[str, Layers] = ...,
    hidden_size: int | None = ...,
    num_attention_heads: int | None = ...,
    num_key_value_heads: int | None = ...,
    intermediate_size: int | None = ...,
    importance_data: Iterable[Batch] | None = ...,
    embedding_size: int | None = ...,
    vocabulary: Vocabulary,
    processing_class: PreTrainedTokenizerBase,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]: ...


def student_from_teacher(
    teacher: PreTrainedModel,
    *,
    num_hidden_layers: int | Mapping[str, int] | None = None,
    layers: Layers | Mapping[str, Layers] = "uniform",
    hidden_size: int | None = None,
    num_attention_heads: int | None = None,
    num_key_value_heads: int | None = None,
    intermediate_size: int | None = None,
    importance_data: Iterable[Batch] | None = None,
    embedding_size: int | None = None,
    vocabulary: Vocabulary | None = None,
    processing_class: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel | tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A copy of a teacher with fewer layers, narrower layers or fewer tokens, its head included.

    The student is of the teacher's class and loads with `from_pretrained` without this library. It shares no weight
    with the teacher, which stays as it was. `config.student_of` says what it was made of.

    Args:
        teacher: any model, with weights in memory. Fewer layers or tokens can be had of any architecture, narrower
            layers of those in `docs/students.md`.
        num_hidden_layers: how many layers to keep. Of a model with several stacks of layers (`encoder` and `decoder`,
            `text` and `vision`), of each, or a mapping from the names of some.
        layers: which: a rule of `chosen_layers` (`"uniform"`, `"alternate"`, `"first"`, `"last"`), indices from 0
            on, or a mapping to these from the names of stacks.
        hidden_size: how many hidden units to keep.
        num_attention_heads: how many heads to keep in each layer. Heads keep their size. Where an architecture has
            hidden_size / num_attention_heads for it, this follows from `hidden_size`.
        num_key_value_heads: how many heads of keys and values to keep, for grouped-query attention. By default all
            of them, or as many as there are heads if the teacher shares none.
        intermediate_size: how many neurons to keep between the two projections of a feed-forward layer.
        importance_data: a few batches with labels. The units without which the teacher's own loss would change least,
            to first order, go. Without batches the smallest go.
        embedding_size: how wide embeddings are to be, where the architecture projects them to the hidden size
            (ELECTRA, ALBERT): their principal subspace is kept.
        vocabulary: texts, token ids, or rows of token ids. Tokens that they do not need go.
        processing_class: the teacher's tokenizer, with `vocabulary`.

    Returns:
        The student, in eval mode and trainable. With `vocabulary`, the student and its tokenizer.

    Raises:
        ConfigurationError: if something impossible is asked for, naming everything that is.
        UnsupportedModelError: if the architecture has no such student, or the teacher's weights are not at hand.
        MissingInputError: if the teacher computes no loss for a batch of `importance_data`.

    References:
        Sanh et al.: DistilBERT, 2019, https://arxiv.org/abs/1910.01108, section 3, for taking layers of the teacher;
        Michel, Levy, Neubig, 2019, https://arxiv.org/abs/1905.10650, and Molchanov et al., 2019,
        https://arxiv.org/abs/1906.10771, for importance.

    Example:

        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
        >>> teacher = BertForSequenceClassification(BertConfig(vocab_size=50, num_hidden_layers=12, **sizes))
        >>> student = student_from_teacher(teacher, num_hidden_layers=6, intermediate_size=32)
        >>> student.config.num_hidden_layers, student.config.intermediate_size
        (6, 32)
        >>> student.config.student_of["layers"]
        {'layers': [0, 2, 4, 7, 9, 11]}
    """
    _check_weights(teacher)
    wanted = {
        "hidden_size": hidden_size,
        "num_attention_heads": num_attention_heads,
        "num_key_value_heads": num_key_value_heads,
        "intermediate_size": intermediate_size,
    }
    is_narrower = any(size is not None for size in wanted.values())
    is_shorter = num_hidden_layers is not None or layers != "uniform"
    stacks = stacks_of(teacher) if is_shorter else ()
    kept, faults = kept_layers(stacks, num_hidden_layers, layers) if is_shorter else ({}, [])
    if is_narrower:
        widths, width_faults = narrower_widths(teacher.config, family_of(teacher), wanted)
        faults += width_faults
    elif importance_data is not None:
        faults.append(f"importance_data= is given, but none of {', '.join(wanted)}, which it would be used for")
    faults += factorisation_faults(teacher, embedding_size, hidden_size)
    faults += vocabulary_faults(teacher, vocabulary, processing_class)
    if faults:
        raise ConfigurationError("; ".join(faults) + ".")

    student, made = teacher, _provenance(teacher)
    if is_narrower:
        student = with_narrower_layers(student, widths, importance_data)
        made["widths"] = asdict(widths)
        made["units_chosen_by"] = "size of weights" if importance_data is None else "importance"
    if is_shorter:
        student = with_kept_layers(student, stacks, kept)
        made["layers"] = {name: list(indices) for name, indices in kept.items()}
    if embedding_size is not None:
        student = with_factorised_embeddings(student, embedding_size)
        made["embedding_size"] = embedding_size
    if vocabulary is not None and processing_class is not None:
        student, processing_class = with_vocabulary_of(student, vocabulary, processing_class)
        made["vocab_size"] = vocab_size_of(student.config)
    if student is teacher:
        student = rebuilt(teacher, teacher.config, tensors_of(teacher))
    student.config.student_of = made
    student.name_or_path = student.config.name_or_path = ""
    return student if processing_class is None else (student, processing_class)


def _provenance(teacher: PreTrainedModel) -> dict[str, Any]:
    """What the student came from; a teacher that is itself such a student says what it came from."""
    config: Any = teacher.config
    source = {
        "name_or_path": teacher.name_or_path,
        "revision": getattr(config, "_commit_hash", None),
        "model_class": type(teacher).__name__,
        "student_of": getattr(config, "student_of", None),
    }
    return {"teacher": {name: value for name, value in source.items() if value}, "hf_distill_version": __version__}


def _how_to_unpack(quantizer: HfQuantizer) -> str:
    config: Any = quantizer.quantization_config
    if hasattr(config, "dequantize"):
        return f"Load it with `quantization_config={type(config).__name__}(dequantize=True)`."
    if type(quantizer)._dequantize is not HfQuantizer._dequantize:
        return "Call `dequantize()` on it, or load it unquantised."
    return "Load it unquantised."


def _check_weights(teacher: Any) -> None:
    """The teacher is a model whose weights lie here as they are."""
    if not isinstance(teacher, PreTrainedModel):
        raise UnsupportedModelError(
            f"teacher= is a {type(teacher).__name__} and no PreTrainedModel. Load the model first; of one with "
            "adapters, pass `model.merge_and_unload()`."
        )
    quantizer: Any = getattr(teacher, "hf_quantizer", None)
    if quantizer is not None:
        raise UnsupportedModelError(
            f"the teacher {type(teacher).__name__} is quantised, and layers cannot be taken out of packed weights. "
            + _how_to_unpack(quantizer)
        )
    if any(parameter.is_meta for parameter in teacher.parameters()):
        raise UnsupportedModelError(
            f"some weights of the teacher {type(teacher).__name__} are not in memory (they are on the device 'meta'). "
            "Load it without offloading."
        )
