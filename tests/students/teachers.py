"""Tiny teachers of many architectures, and what each of them reads."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    CLIPConfig,
    CLIPModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LongformerConfig,
    LongformerForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    XLMConfig,
    XLMWithLMHeadModel,
    set_seed,
)

from tests import tiny_models
from tests.tiny_models import NO_DROPOUT, SIZES, VOCAB_SIZE


SPECIAL_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {**SIZES, "initializer_range": 0.3}


def of(model_class: Any, config_class: Any, **config: Any) -> PreTrainedModel:
    set_seed(0)
    return model_class(config_class(**config)).eval()


def clip(layers: int) -> PreTrainedModel:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "initializer_range": 0.3}
    text = {
        **sizes,
        **SPECIAL_IDS,
        "vocab_size": VOCAB_SIZE,
        "num_hidden_layers": layers,
        "max_position_embeddings": 16,
    }
    vision = {**sizes, "num_hidden_layers": layers + 2, "image_size": 8, "patch_size": 4}
    return of(CLIPModel, CLIPConfig, text_config=text, vision_config=vision, projection_dim=8)


def t5(layers: int) -> PreTrainedModel:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "dropout_rate": 0.0, "initializer_factor": 3.0}
    config = {"vocab_size": VOCAB_SIZE, "num_layers": layers, "pad_token_id": 0, "decoder_start_token_id": 0}
    return of(T5ForConditionalGeneration, T5Config, **sizes, **config)


def llama(layers: int, **config: Any) -> PreTrainedModel:
    """With grouped-query attention."""
    sizes = {**ENCODER, "num_attention_heads": 4, "num_key_value_heads": 2, **config}
    return of(LlamaForCausalLM, LlamaConfig, **sizes, **SPECIAL_IDS, num_hidden_layers=layers)


def modernbert(layers: int, **config: Any) -> PreTrainedModel:
    """Its windows are 2 tokens wide, so that what a layer sees depends on its kind."""
    ids = {"cls_token_id": 1, "sep_token_id": 2, **SPECIAL_IDS}
    sizes = {**ENCODER, "num_hidden_layers": layers, "local_attention": 4, **config}
    return of(ModernBertForMaskedLM, ModernBertConfig, **sizes, **ids)


TEACHERS: dict[str, Callable[[int], PreTrainedModel]] = {
    "bert": lambda layers: tiny_models.bert(BertForMaskedLM, layers).eval(),
    "roberta": lambda layers: of(
        RobertaForSequenceClassification, RobertaConfig, **ENCODER, **SPECIAL_IDS, num_hidden_layers=layers
    ),
    "distilbert": lambda layers: of(
        DistilBertForMaskedLM,
        DistilBertConfig,
        vocab_size=VOCAB_SIZE,
        dim=16,
        n_heads=2,
        hidden_dim=24,
        n_layers=layers,
    ),
    "electra": lambda layers: of(
        ElectraForSequenceClassification, ElectraConfig, **ENCODER, embedding_size=8, num_hidden_layers=layers
    ),
    "deberta-v2": lambda layers: of(
        DebertaV2ForSequenceClassification,
        DebertaV2Config,
        **{**ENCODER, **NO_DROPOUT},
        num_hidden_layers=layers,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=4,
        norm_rel_ebd="layer_norm",
        conv_kernel_size=3,
        conv_act="gelu",
    ),
    "modernbert": modernbert,
    "gpt2": lambda layers: of(
        GPT2LMHeadModel, GPT2Config, vocab_size=VOCAB_SIZE, n_embd=16, n_head=2, n_layer=layers, **SPECIAL_IDS
    ),
    "llama": llama,
    "t5": t5,
    "bart": lambda layers: tiny_models.bart(layers=layers, pad_token_id=0, bos_token_id=1).eval(),
    "vit": lambda layers: tiny_models.vision(
        ViTForImageClassification, ViTConfig, layers, num_labels=3, image_size=8
    ).eval(),
    "whisper": lambda layers: tiny_models.whisper(layers).eval(),
    "clip": clip,
    "longformer": lambda layers: of(
        LongformerForMaskedLM,
        LongformerConfig,
        **ENCODER,
        num_hidden_layers=layers,
        attention_window=[4, 4, 8, 8][:layers],
    ),
    "qwen2_moe": lambda layers: of(
        Qwen2MoeForCausalLM,
        Qwen2MoeConfig,
        **{**ENCODER, **SPECIAL_IDS, "num_key_value_heads": 1, "num_experts": 3, "num_experts_per_tok": 2},
        num_hidden_layers=layers,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        mlp_only_layers=[layers - 1],
    ),
    "dinov2": lambda layers: of(
        Dinov2ForImageClassification,
        Dinov2Config,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=layers,
        image_size=8,
        patch_size=4,
        num_labels=3,
    ),
    "xlm": lambda layers: of(
        XLMWithLMHeadModel, XLMConfig, vocab_size=VOCAB_SIZE, emb_dim=16, n_heads=2, n_layers=layers
    ),
}


def masked_bert(vocab_size: int, layers: int = 1, **config: Any) -> PreTrainedModel:
    sizes = {**ENCODER, "vocab_size": vocab_size, "num_hidden_layers": layers}
    return of(BertForMaskedLM, BertConfig, **sizes, **config)


def albert(layers: int) -> PreTrainedModel:
    return of(AlbertForMaskedLM, AlbertConfig, **ENCODER, embedding_size=8, num_hidden_layers=layers)


def qwen2(layers: int) -> PreTrainedModel:
    """Its queries, keys and values have a bias."""
    return of(Qwen2ForCausalLM, Qwen2Config, **ENCODER, **SPECIAL_IDS, num_hidden_layers=layers, num_key_value_heads=1)


def inputs_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Two rows, the second of them shorter where rows have a length."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCAB_SIZE, (2, 9), generator=generator)
    mask = torch.ones_like(ids)
    ids[1, 6:], mask[1, 6:] = 0, 0
    ids[0, 8] = ids[1, 5] = 2
    texts = {"input_ids": ids, "attention_mask": mask}
    images = {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    sounds = {"input_features": torch.randn(2, 4, 16, generator=generator)}
    written = {"decoder_input_ids": ids[:, :5]}
    by_type = {
        "vit": images,
        "dinov2": images,
        "clip": texts | images,
        "whisper": sounds | written,
        "t5": texts | written,
        "bart": texts | written,
    }
    return by_type.get(model.config.model_type, texts)


def outputs_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor that the model says, hidden states included."""
    keep_no_cache = {} if model.config.model_type in ("vit", "dinov2", "clip", "longformer") else {"use_cache": False}
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True, **keep_no_cache)
    found = {}
    for name, value in outputs.items():
        for index, tensor in enumerate(value if isinstance(value, tuple) else [value]):
            if isinstance(tensor, Tensor):
                found[f"{name}.{index}"] = tensor
    return found


def tied_names(model: PreTrainedModel) -> list[list[str]]:
    """The groups of names that stand for one parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(sorted(group) for group in names.values() if len(group) > 1)
