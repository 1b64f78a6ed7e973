from datasets import Dataset

from hf_distill import DataCollatorForRowSeededMasking
from hf_distill.processing import Reading
from hf_distill.processing.blocks import block_collator, labelled_blocks, masking_collator, text_blocks
from tests.house.local_hub import put_tokenizer
from tests.text_tokenizers import byte_pair_tokenizer


TOKENIZER = byte_pair_tokenizer()


def tokens_of(texts):
    return [
        token for text in texts if text.strip() for token in [*TOKENIZER(text)["input_ids"], TOKENIZER.eos_token_id]
    ]


def test_texts_end_and_are_cut_into_blocks():
    rows = Dataset.from_dict({"text": ["hello world", "", "the fox", " "], "other": [1, 2, 3, 4]})
    tokens = tokens_of(rows["text"])
    blocks = labelled_blocks(rows, Reading(TOKENIZER, {"text": "text"}, max_length=3))
    assert len(tokens) % 3
    assert blocks["input_ids"][:] == [tokens[start : start + 3] for start in range(0, len(tokens) // 3 * 3, 3)]
    assert blocks["labels"][:] == blocks["input_ids"][:]
    assert blocks.column_names == ["input_ids", "labels"]


def test_too_little_text_is_one_short_block():
    rows = Dataset.from_dict({"text": ["hello"]})
    assert text_blocks(rows, Reading(TOKENIZER, {"text": "text"}, max_length=64))["input_ids"][:] == [
        tokens_of(["hello"])
    ]


def test_a_text_that_ends_already_gets_no_second_end():
    class Ended:
        eos_token_id = 0

        def __call__(self, texts):
            return {"input_ids": [[5, 6, 0] for _ in texts]}

    rows = Dataset.from_dict({"text": ["a", "b"]})
    blocks = text_blocks(rows, Reading(Ended(), {"text": "text"}, max_length=6))
    assert blocks["input_ids"][:] == [[5, 6, 0, 5, 6, 0]]


def test_padding_counts_nowhere():
    tokenizer = byte_pair_tokenizer(trim_offsets=False)
    tokenizer.pad_token = None
    collator = block_collator(Reading(tokenizer, {}))
    batch = collator([{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [5], "labels": [5]}])
    assert batch["labels"].tolist() == [[5, 6, 7], [5, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_masks_can_be_drawn_again(tmp_path):
    tokenizer = put_tokenizer(tmp_path, ["hello world"])
    assert isinstance(masking_collator(Reading(tokenizer, {})), DataCollatorForRowSeededMasking)
