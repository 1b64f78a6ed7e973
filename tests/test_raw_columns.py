"""The columns that a teacher reads for itself, found by what they hold."""

import numpy as np
import pytest
from PIL import Image
from transformers import ViTImageProcessor, Wav2Vec2FeatureExtractor

from hf_distill.errors import ConfigurationError
from hf_distill.raw_columns import raw_columns
from tests.two_tokenizers import byte_pair_tokenizer, pair_rows, wordpiece_tokenizer


TEXT_INPUTS = {"input_ids", "token_type_ids", "attention_mask"}
IMAGE = Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8))
RECORDING = {"array": np.zeros(8), "sampling_rate": 8000}


def columns(rows, **options):
    return raw_columns(rows, wordpiece_tokenizer(), TEXT_INPUTS, **options)


def test_the_pair_that_the_student_reads_in_its_order():
    assert columns(pair_rows(), student_tokenizer=byte_pair_tokenizer()) == {"text": ("question", "sentence")}


def test_truncated_and_padded_rows_are_recognised():
    tokenizer = byte_pair_tokenizer()
    rows = [
        {**row, **tokenizer(row["question"], row["sentence"], truncation=True, max_length=9, padding="max_length")}
        for row in pair_rows()
    ]
    assert len(rows[0]["input_ids"]) == 9
    assert columns(rows, student_tokenizer=tokenizer) == {"text": ("question", "sentence")}


def test_one_of_several_columns_of_text():
    rows = [{"id": f"row {i}", **row} for i, row in enumerate(pair_rows())]
    for row in rows:
        row |= byte_pair_tokenizer()(row["sentence"])
    assert columns(rows, student_tokenizer=byte_pair_tokenizer()) == {"text": ("sentence",)}


def test_no_column_is_what_the_student_reads():
    rows = [{"id": "a", "input_ids": [3, 4, 5]}, {"id": "b", "input_ids": [3, 5, 5]}]
    with pytest.raises(ConfigurationError, match=r"none of the columns of text \['id'\] .*`teacher_columns=`"):
        columns(rows, student_tokenizer=byte_pair_tokenizer())


def test_a_single_column_of_text_needs_no_tokenizer():
    assert columns([{"caption": "a cat", "label": 1}]) == {"text": ("caption",)}


def test_two_columns_of_text_without_the_students_tokenizer():
    with pytest.raises(ConfigurationError, match=r"raw text .* hold 2 of that kind \(\['question', 'sentence'\]\)"):
        columns([{"question": "a", "sentence": "b"}])


def test_named_columns():
    rows = [{"a": "one", "b": "two", "c": "three", "input_ids": [1]}]
    assert columns(rows, named=["c", "a"], student_tokenizer=byte_pair_tokenizer()) == {"text": ("c", "a")}
    with pytest.raises(ConfigurationError, match=r"names \['d'\], and the rows have \['a', 'b', 'c', 'input_ids'\]"):
        columns(rows, named=["a", "d"])


def test_inputs_that_are_ready_need_no_raw_columns():
    assert columns([{"teacher_input_ids": [1, 2], "text": "a", "other": "b"}]) == {}


def test_images_and_recordings():
    rows = [{"picture": IMAGE, "sound": RECORDING, "pixel_values": np.zeros((3, 4, 4)), "name": "a"}]
    assert raw_columns(rows, ViTImageProcessor(), {"pixel_values"}) == {"image": ("picture",)}
    assert raw_columns(rows, Wav2Vec2FeatureExtractor(), {"input_values"}) == {"audio": ("sound",)}
    arrays = [{"picture": np.zeros((3, 4, 4), dtype=np.uint8), "name": "a"}]
    assert raw_columns(arrays, ViTImageProcessor(), {"pixel_values"}, named=["picture"]) == {"image": ("picture",)}
    with pytest.raises(ConfigurationError, match=r"raw image .* \['picture'\] hold 0 of that kind"):
        raw_columns([{"picture": [1, 2]}], ViTImageProcessor(), {"pixel_values"})


def test_a_processing_class_that_makes_nothing_the_teacher_reads():
    with pytest.raises(ConfigurationError, match=r"BertTokenizer|TokenizersBackend|PreTrainedTokenizerFast"):
        raw_columns([{"text": "a"}], wordpiece_tokenizer(), {"pixel_values"})
