"""Tiny real models and rows that several tests share."""

from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ReformerConfig,
    ReformerForSequenceClassification,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
    set_seed,
)


VOCAB_SIZE = 40
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
BLOCK_SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
SIZES = {"vocab_size": VOCAB_SIZE, **BLOCK_SIZES}
EOS = 2
"""The id that BART reads its summary from; below all others that rows are made of."""


def bert(model_class: Any = BertForSequenceClassification, layers: int = 1, **config: Any) -> PreTrainedModel:
    """A BERT without dropout, its weights large enough that outputs of two seeds differ by much."""
    set_seed(layers)
    return model_class(
        BertConfig(num_hidden_layers=layers, initializer_range=0.3, **{**SIZES, **NO_DROPOUT, **config})
    )


def llama(layers: int = 1, **config: Any) -> PreTrainedModel:
    set_seed(layers)
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, initializer_range=0.3, **{**SIZES, **config}))


def vision(model_class: Any, config_class: Any, layers: int = 1, **config: Any) -> PreTrainedModel:
    """A Vision Transformer, or the Audio Spectrogram Transformer, which is one of a spectrogram."""
    set_seed(layers)
    sizes = {**BLOCK_SIZES, **NO_DROPOUT, "patch_size": 4, "num_hidden_layers": layers, "initializer_range": 0.3}
    return model_class(config_class(**{**sizes, **config}))


def bart(model_class: Any = BartForConditionalGeneration, layers: int = 1, **config: Any) -> PreTrainedModel:
    return model_class(encoder_decoder(BartConfig, layers, activation_dropout=0.0, eos_token_id=EOS, **config))


def encoder_decoder(config_class: Any, layers: int, **config: Any) -> Any:
    """A configuration in the names that BART and Whisper share."""
    set_seed(layers)
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": layers, "attention_heads": 2, "ffn_dim": 24}.items()
    }
    shared = {"d_model": 16, "init_std": 0.3, "dropout": 0.0, "attention_dropout": 0.0}
    return config_class(vocab_size=VOCAB_SIZE, **{**shared, **sides, **config})


def t5(layers: int = 1) -> PreTrainedModel:
    """Its decoder starts with the token that pads."""
    set_seed(layers)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": layers, "num_heads": 2}
    return T5ForConditionalGeneration(
        T5Config(vocab_size=VOCAB_SIZE, **sizes, dropout_rate=0.0, pad_token_id=0, decoder_start_token_id=0)
    )


def whisper(layers: int = 1) -> PreTrainedModel:
    lengths = {"num_mel_bins": 4, "max_source_positions": 8, "max_target_positions": 24}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return WhisperForConditionalGeneration(encoder_decoder(WhisperConfig, layers, **lengths, **ids))


def listener(model_class: Any = Wav2Vec2ForCTC, config_class: Any = Wav2Vec2Config, layers: int = 1, **config: Any):
    """A model of the shape of Wav2Vec2, of whose frames each is made of 6 samples, 4 apart. Its padding is unseen."""
    set_seed(layers)
    sizes = {**BLOCK_SIZES, "vocab_size": 6, "num_hidden_layers": layers, "initializer_range": 0.3}
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (4, 2), "conv_stride": (2, 2), "num_feat_extract_layers": 2}
    convolutions |= {"num_conv_pos_embeddings": 3, "num_conv_pos_embedding_groups": 2, "feat_extract_norm": "layer"}
    names = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout")
    off = {**dict.fromkeys(names, 0.0), "layerdrop": 0.0, "mask_time_prob": 0.0}
    return model_class(config_class(**{**sizes, **convolutions, **off, "pad_token_id": 0, **config}))


def reformer(layers: int = 1) -> PreTrainedModel:
    """Its layers keep no activations: they compute them anew, and gradients in train mode alone."""
    set_seed(layers)
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 16, "attention_head_size": 8, "feed_forward_size": 24}
    chunks = {"local_attn_chunk_length": 4, "axial_pos_embds": False, "max_position_embeddings": 16}
    config = ReformerConfig(**sizes, **chunks, num_attention_heads=2, attn_layers=["local"] * layers, num_labels=3)
    return ReformerForSequenceClassification(config)


def segformer(layers: int = 1, **config: Any) -> PreTrainedModel:
    """Without the batch normalisation of its decoder, which sees how a batch is split."""
    set_seed(layers)
    per_stage = {
        "depths": [layers],
        "hidden_sizes": [8],
        "num_attention_heads": [2],
        "sr_ratios": [1],
        "patch_sizes": [3],
        "strides": [2],
        "mlp_ratios": [2],
    }
    no_dropout = {**NO_DROPOUT, "classifier_dropout_prob": 0.0, "drop_path_rate": 0.0}
    sizes = {"num_encoder_blocks": 1, "decoder_hidden_size": 8, "num_labels": 3, "initializer_range": 0.3}
    model = SegformerForSemanticSegmentation(SegformerConfig(**{**per_stage, **no_dropout, **sizes, **config}))
    model.decode_head.batch_norm = torch.nn.Identity()
    return model


def model_for(head: str, layers: int) -> PreTrainedModel:
    """A model with one of `ALL_HEADS`."""
    return {
        "single_label": lambda: bert(layers=layers, num_labels=3),
        "multi_label": lambda: bert(layers=layers, num_labels=3, problem_type="multi_label_classification"),
        "regression": lambda: bert(layers=layers, num_labels=1),
        "tokens": lambda: bert(BertForTokenClassification, layers=layers, num_labels=3),
        "answers": lambda: bert(BertForQuestionAnswering, layers=layers),
        "masked": lambda: bert(BertForMaskedLM, layers=layers),
        "causal": lambda: llama(layers=layers),
        "open_multi_label": lambda: bert(layers=layers, num_labels=3),
        "decoded_single_label": lambda: bart(BartForSequenceClassification, layers, num_labels=3),
        "images": lambda: vision(ViTForImageClassification, ViTConfig, layers, num_labels=3, image_size=8),
        "sounds": lambda: vision(
            ASTForAudioClassification,
            ASTConfig,
            layers,
            num_labels=3,
            max_length=8,
            num_mel_bins=8,
            frequency_stride=4,
            time_stride=4,
        ),
        "choices": lambda: bert(BertForMultipleChoice, layers),
        "next_sentence": lambda: bert(BertForNextSentencePrediction, layers),
        "pixels": lambda: segformer(layers),
        "seq2seq": lambda: t5(layers),
        "bart": lambda: bart(layers=layers),
        "speech": lambda: whisper(layers),
        "transcripts": lambda: listener(layers=layers),
        "embeddings": lambda: bert(BertModel, layers, add_pooling_layer=False),
    }[head]()


HEADS = ("single_label", "multi_label", "regression", "tokens", "answers", "masked", "causal")
"""One text in, and one model of the kind."""
WRITERS = ("seq2seq", "bart", "speech")
"""Labels that have a length of their own."""
ALL_HEADS = (
    *HEADS,
    *("open_multi_label", "decoded_single_label", "images", "sounds", "choices", "next_sentence", "pixels"),
    *WRITERS,
    *("transcripts", "embeddings"),
)
WITHOUT_OWN_LOSS = ("embeddings",)
WITHOUT_CLASSES = ("regression", "transcripts", "embeddings")
"""Their labels, if they have any, name no class of a position."""


def rows_for(head: str, lengths: tuple[int, ...] = (3, 9, 4, 7, 5, 8, 6, 4)) -> list[dict[str, Any]]:
    """Rows of unequal length.

    Rows 2 and 3 of masked models, writers and pixels hold no label, so that a micro-batch of 2 counts
    nothing.
    """
    generator = torch.Generator().manual_seed(0)
    return [_row(head, index, length, generator) for index, length in enumerate(lengths)]


def _row(head: str, index: int, length: int, generator: torch.Generator) -> dict[str, Any]:
    tokens = torch.randint(3, VOCAB_SIZE, (length,), generator=generator)
    row: dict[str, Any] = {"input_ids": tokens.tolist()}
    if head == "decoded_single_label":
        row["input_ids"].append(EOS)
    elif head == "choices":
        row["input_ids"] = torch.randint(3, VOCAB_SIZE, (3, length), generator=generator).tolist()
    elif head in ("images", "pixels"):
        row = {"pixel_values": torch.randn(3, 8, 8, generator=generator, dtype=torch.double)}
    elif head == "sounds":
        row = {"input_values": torch.randn(8, 8, generator=generator, dtype=torch.double)}
    elif head == "speech":
        row = {"input_features": torch.randn(4, 16, generator=generator, dtype=torch.double)}
    elif head == "transcripts":
        row = {"input_values": torch.randn(8 * length + index, generator=generator, dtype=torch.double)}
    elif head == "embeddings":
        return row
    return row | _labels(head, index, tokens.tolist())


def _labels(head: str, index: int, tokens: list[int]) -> dict[str, Any]:
    if head == "answers":
        return {"start_positions": index % len(tokens), "end_positions": len(tokens) - 1}
    kept = index not in (2, 3)
    labels: Any = index % 3
    if head.endswith("multi_label"):
        labels = [float(index % 2), float(index % 3 == 0), 1.0]
    elif head == "pixels":
        numbers = torch.arange(64).view(8, 8) * (index + 2)
        labels = torch.where((numbers % 5 < index % 4) | torch.tensor(not kept), 255, numbers % 3)
    elif head == "regression":
        labels = index / 4
    elif head == "next_sentence":
        labels = index % 2
    elif head == "tokens":
        labels = [-100 if position % 3 == 2 else token % 3 for position, token in enumerate(tokens)]
    elif head == "masked":
        labels = [token if kept and position % 2 else -100 for position, token in enumerate(tokens)]
    elif head == "causal":
        labels = tokens
    elif head == "transcripts":
        labels = [1 + token % 5 for token in tokens[: len(tokens) // 2]]
    elif head in WRITERS:
        written = [*reversed(tokens), EOS][index % 3 :]
        labels = [token if kept and position != 1 else -100 for position, token in enumerate(written)]
    return {"labels": labels}


def word_tokenizer(*words: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose ids count the words given; the first one stands for all others."""
    model = models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0])
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model))


class PaddingCollator:
    """Pads sounds and whole numbers, rows of unequal length, on the right, to the longest and `extra` more."""

    def __init__(self, extra: int = 0) -> None:
        self.extra = extra

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = {
            name: self._padded([torch.as_tensor(row[name]) for row in rows], -100 if name == "labels" else 0)
            for name in rows[0]
        }
        read = next((name for name in ("input_ids", "input_values") if name in rows[0]), None)
        if read is not None and batch[read].shape[1:] != (8, 8):
            ones = [torch.ones_like(torch.as_tensor(row[read]), dtype=torch.long) for row in rows]
            batch["attention_mask"] = self._padded(ones)
        return batch

    def _padded(self, values: list[Tensor], fill: int = 0) -> Tensor:
        is_sound = values[0].ndim == 1 and len(values[0]) > 8 and values[0].is_floating_point()
        if values[0].ndim == 0 or values[0].shape == (8, 8) or (values[0].is_floating_point() and not is_sound):
            return torch.stack(values)
        width = max(value.shape[-1] for value in values) + self.extra
        return torch.stack(
            [torch.nn.functional.pad(value, (0, width - value.shape[-1]), value=fill) for value in values]
        )
