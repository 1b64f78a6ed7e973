"""Small trained tokenizers, one of each kind of model."""

import json

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertTokenizer,
    CLIPTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Tokenizer,
)

from tests.tiny_models import word_tokenizer


TEXTS = [
    "First Citizen: Before we proceed any further, hear me speak.",
    "All: Speak, speak. You are all resolved rather to die than to famish?",
    "First, you know Caius Marcius is chief enemy to the people.",
    "Let us kill him, and we'll have corn at our own price. Is't a verdict?",
    "We are accounted poor citizens, the patricians good. What authority surfeits on would relieve us.",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
] * 3


def model_of(backend: Tokenizer, trainer: trainers.Trainer) -> dict:
    backend.train_from_iterator(TEXTS, trainer)
    return json.loads(backend.to_str())["model"]


def wordpiece() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizer(
        vocab=model_of(backend, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))["vocab"]
    )


def byte_level_bpe() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    model = model_of(backend, trainer)
    return GPT2Tokenizer(vocab=model["vocab"], merges=list(map(tuple, model["merges"])), pad_token="<|endoftext|>")


def bpe_with_word_ends() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    backend.normalizer = normalizers.Lowercase()
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(words)
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    model = model_of(backend, trainer)
    return CLIPTokenizer(vocab=model["vocab"], merges=list(map(tuple, model["merges"])))


def bpe_that_falls_back_to_bytes() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    model = model_of(backend, trainers.BpeTrainer(vocab_size=400, special_tokens=special))
    return LlamaTokenizer(vocab=model["vocab"], merges=list(map(tuple, model["merges"])))


def unigram() -> PreTrainedTokenizerBase:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>")
    pieces = [tuple(piece) for piece in model_of(backend, trainer)["vocab"]]
    return T5Tokenizer(vocab=[*pieces, *((f"<extra_id_{index}>", 0.0) for index in range(99, -1, -1))])


def words() -> PreTrainedTokenizerBase:
    """With a token that was added later, and is not special."""
    tokenizer = word_tokenizer("[UNK]", *sorted({word for text in TEXTS for word in text.split()}))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens(["citizenship"])
    return tokenizer


def ambiguous_bpe() -> PreTrainedTokenizerBase:
    """Some tokens can be merged in two ways, as in tokenizers that were converted from SentencePiece."""
    vocabulary = {
        token: index for index, token in enumerate(["<unk>", "a", "b", "c", "d", "bc", "ab", "abc", "cd", "abcd"])
    }
    merges = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc"), ("c", "d"), ("ab", "cd"), ("abc", "d")]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


TOKENIZERS = {
    "WordPiece": wordpiece,
    "byte-level BPE": byte_level_bpe,
    "BPE with word ends": bpe_with_word_ends,
    "BPE that falls back to bytes": bpe_that_falls_back_to_bytes,
    "unigram": unigram,
    "words": words,
}
