"""One tiny model of each architecture whose features are read, and rows for it."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CLIPConfig,
    CLIPForImageClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
    set_seed,
)

from tests.tiny_models import EOS, NO_DROPOUT, VOCAB_SIZE, bart, encoder_decoder


TASKS = {
    "bert": "single_label",
    "roberta": "single_label",
    "distilbert": "single_label",
    "electra": "single_label",
    "deberta-v2": "single_label",
    "modernbert": "single_label",
    "gpt2": "causal",
    "llama": "causal",
    "t5": "seq2seq",
    "bart": "seq2seq",
    "whisper": "speech",
    "vit": "images",
    "clip": "images",
}
"""Architecture → the name of its rows in `tiny_models`."""
ENCODER_DECODERS = ("t5", "bart", "whisper")
CASES = [
    (architecture, side)
    for architecture in TASKS
    for side in (("encoder", "decoder") if architecture in ENCODER_DECODERS else (None,))
]
"""Every architecture with every side that it has."""


def model_of(architecture: str, layers: int, width: int = 16) -> PreTrainedModel:
    """Without dropout, with two heads, and with weights large enough that attention is far from uniform."""
    set_seed(layers)
    blocks = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24}
    common: dict[str, Any] = {**blocks, "initializer_range": 0.3, "num_labels": 3, "pad_token_id": 0}
    text = {**common, "vocab_size": VOCAB_SIZE, "max_position_embeddings": 32}
    encoder = {**text, **NO_DROPOUT}
    models: dict[str, Any] = {
        "bert": lambda: BertForSequenceClassification(BertConfig(**encoder)),
        "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**encoder)),
        "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**encoder, embedding_size=8)),
        "deberta-v2": lambda: _deberta(encoder),
        "distilbert": lambda: _distilbert(layers, width),
        "modernbert": lambda: ModernBertForSequenceClassification(
            ModernBertConfig(
                **text, cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2, local_attention=64
            )
        ),
        "gpt2": lambda: _gpt2(layers, width),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**text, num_key_value_heads=1)),
        "t5": lambda: _t5(layers, width),
        "bart": lambda: bart(layers=layers, d_model=width),
        "whisper": lambda: _whisper(layers, width),
        "vit": lambda: ViTForImageClassification(ViTConfig(**common, **NO_DROPOUT, image_size=8, patch_size=4)),
        "clip": lambda: _clip(layers, width),
    }
    model: PreTrainedModel = models[architecture]()
    return model


def batch_of(architecture: str) -> dict[str, torch.Tensor]:
    """Two rows, of which the second one is padded where it is text."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, VOCAB_SIZE, (2, 7), generator=generator)
    if TASKS[architecture] == "images":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.double)}
    if TASKS[architecture] == "speech":
        sound = torch.randn(2, 4, 16, generator=generator, dtype=torch.double)
        return {"input_features": sound, "decoder_input_ids": tokens}
    mask = torch.ones_like(tokens)
    mask[1, 5:] = 0
    batch = {"input_ids": tokens * mask, "attention_mask": mask}
    return batch | ({"decoder_input_ids": tokens.flip(0)} if TASKS[architecture] == "seq2seq" else {})


def _deberta(sizes: dict[str, Any]) -> PreTrainedModel:
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0}
    return DebertaV2ForSequenceClassification(DebertaV2Config(**sizes, **relative))


def _distilbert(layers: int, width: int) -> PreTrainedModel:
    sizes = {"dim": width, "n_layers": layers, "n_heads": 2, "hidden_dim": 24, "vocab_size": VOCAB_SIZE}
    no_dropout = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
    return DistilBertForSequenceClassification(
        DistilBertConfig(**sizes, **no_dropout, initializer_range=0.3, num_labels=3)
    )


def _gpt2(layers: int, width: int) -> PreTrainedModel:
    sizes = {"n_embd": width, "n_layer": layers, "n_head": 2, "n_inner": 24, "vocab_size": VOCAB_SIZE}
    ids = {"bos_token_id": 1, "eos_token_id": EOS}
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**sizes, **no_dropout, **ids, n_positions=32, initializer_range=0.3))


def _t5(layers: int, width: int) -> PreTrainedModel:
    sizes = {"d_model": width, "d_kv": width // 2, "d_ff": 24, "num_layers": layers, "num_heads": 2}
    ids = {"pad_token_id": 0, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCAB_SIZE, **sizes, **ids, dropout_rate=0.0))


def _whisper(layers: int, width: int) -> PreTrainedModel:
    lengths = {"num_mel_bins": 4, "max_source_positions": 8, "max_target_positions": 24}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS, "decoder_start_token_id": 1}
    return WhisperForConditionalGeneration(encoder_decoder(WhisperConfig, layers, d_model=width, **lengths, **ids))


def _clip(layers: int, width: int) -> PreTrainedModel:
    """The tower that sees, with a classifier on top."""
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24}
    vision = {**sizes, "image_size": 8, "patch_size": 4, "initializer_range": 1.0, "initializer_factor": 3.0}
    config = CLIPConfig(text_config={**sizes, "vocab_size": VOCAB_SIZE}, vision_config=vision, num_labels=3)
    return CLIPForImageClassification(config)
