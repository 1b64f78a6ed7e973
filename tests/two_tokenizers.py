"""Two tokenizers that have nothing in common, and pairs of sentences."""

from functools import cache
from typing import Any

from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from tokenizers.trainers import WordPieceTrainer
from transformers import PreTrainedTokenizerFast


QUESTIONS = ("Where is the Cat?", "Who sits here?", "What is red?", "Is it late?")
SENTENCES = (
    "The cat sits on the mat.",
    "A dog sits here, and it is old.",
    "The mat is red.",
    "It is late, and the old cat sleeps.",
)


def pair_rows() -> list[dict[str, Any]]:
    """Pairs of sentences with the student's tokens, as `datasets.map` leaves them."""
    return [
        {
            "question": QUESTIONS[index % 4],
            "sentence": SENTENCES[index // 2 % 4],
            **byte_pair_tokenizer()(QUESTIONS[index % 4], SENTENCES[index // 2 % 4]),
            "labels": index % 3,
        }
        for index in range(8)
    ]


@cache
def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    """As BERT's: lower case, word pieces, `token_type_ids` that tell the sentences of a pair apart."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        QUESTIONS + SENTENCES, WordPieceTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@cache
def byte_pair_tokenizer() -> PreTrainedTokenizerFast:
    """As RoBERTa's: bytes, merged by pairs, and no `token_type_ids`."""
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        QUESTIONS + SENTENCES, vocab_size=300, special_tokens=special, show_progress=False, min_frequency=1
    )
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )
