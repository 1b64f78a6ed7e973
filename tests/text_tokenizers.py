"""Tokenizers that cut the same text in different places, and where each has read how much of it."""

from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


TEXTS = (
    "hello world, the naïve café is 😀 open",
    "the quick brown fox jumps over the lazy dog  twice",
    "hello there, world of words and word pieces",
)


@cache
def byte_pair_tokenizer(trim_offsets=True, add_prefix_space=False):
    """As GPT-2's: bytes, so that characters beyond ASCII take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


@cache
def wordpiece_tokenizer():
    """As BERT's: no blanks, no accents, no capitals."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=80, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@cache
def unigram_tokenizer():
    """As T5's: a blank that is made up before the text, and characters that are put together."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


TOKENIZERS = {
    "bytes": byte_pair_tokenizer,
    "bytes with blanks": lambda: byte_pair_tokenizer(trim_offsets=False),
    "bytes after a blank": lambda: byte_pair_tokenizer(add_prefix_space=True),
    "word pieces": wordpiece_tokenizer,
    "unigrams": unigram_tokenizer,
}


def points(tokenizer, text, num_tokens):
    """Position → characters read, for one unpadded row of the first `num_tokens` tokens: the definition in loops."""
    encoding = tokenizer(text, return_offsets_mapping=True)
    ids, spans = encoding["input_ids"], encoding["offset_mapping"]
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.eos_token_id}
    of_text = [i for i, index in enumerate(ids) if index not in special]
    found = {}
    for i in range(num_tokens):
        later = [j for j in of_text if j > i]
        if i in of_text:
            end = spans[i][1]
            is_point = end > 0 and all(spans[j][0] >= end and spans[j][1] > end for j in later)
        else:
            end = 0
            is_point = bool(later) and later[0] == i + 1 and i + 1 == of_text[0]
        rest = text[end : spans[later[0]][0] if later else len(text)]
        if is_point and rest.strip() == "":
            found[i] = end
    return found
