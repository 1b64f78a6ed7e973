import numpy as np
import pytest
import torch
from transformers import ViTImageProcessor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from hf_distill.errors import ConfigurationError
from hf_distill.processing import Reading
from hf_distill.processing.media import ImageCollator, SoundCollator, classified_media, wave_of
from tests.tiny_jobs import rows_of


def reading_of(processor, role, column, **settings):
    ids = {0: 1, 1: 0}
    return Reading(processor, {role: column, "label": "label"}, "single_label_classification", ids, 2, **settings)


def test_pictures():
    rows = rows_of("image-classification", 4)
    reading = reading_of(ViTImageProcessor(size={"height": 8, "width": 8}), "image", "img")
    processed = classified_media(rows, reading)
    assert processed.column_names == ["img", "labels"]
    batch = ImageCollator(reading)([processed[index] for index in range(4)])
    assert batch["labels"].tolist() == [1 - label for label in rows["label"]]
    pixels = torch.tensor(np.stack([np.asarray(each) for each in rows["img"]])).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(batch["pixel_values"], ((pixels - 0.5) / 0.5).float())


def test_recordings():
    rows = rows_of("audio-classification", 3)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=True)
    reading = reading_of(extractor, "audio", "audio", sampling_rate=8000)
    processed = classified_media(rows, reading)
    batch = SoundCollator(reading)([processed[index] for index in range(3)])
    lengths = [len(each) for each in rows["audio"]]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["input_values"].shape == (3, max(lengths))
    assert batch["labels"].tolist() == [1 - label for label in rows["label"]]


def test_recordings_for_whisper_have_the_one_length_that_it_reads():
    rows = rows_of("audio-classification", 2)
    reading = reading_of(WhisperFeatureExtractor(), "audio", "audio", sampling_rate=16000)
    batch = SoundCollator(reading)(list(classified_media(rows, reading)))
    assert batch["input_features"].shape == (2, 80, 3000)


def test_rows_without_labels():
    rows = rows_of("image-classification", 2).remove_columns("label")
    reading = Reading(ViTImageProcessor(size={"height": 8, "width": 8}), {"image": "img"})
    processed = classified_media(rows, reading)
    assert ImageCollator(reading)([processed[0], processed[1]]).keys() == {"pixel_values"}


def test_whole_numbers_of_16_bits_lie_between_minus_one_and_one():
    np.testing.assert_array_equal(wave_of([-(2**15), 2**14], 8000, 8000), np.float32([-1.0, 0.5]))
    np.testing.assert_array_equal(wave_of([0.25, -0.5], 8000, 8000), np.float32([0.25, -0.5]))
    said = {"array": np.array([0.5]), "sampling_rate": 8000}
    np.testing.assert_array_equal(wave_of(said, 8000, None), np.float32([0.5]))


@pytest.mark.parametrize("recording", [[0.1], {"array": [0.1], "sampling_rate": 8000}])
def test_refuses_another_rate(recording):
    with pytest.raises(ConfigurationError, match=r"sampling_rate=(None|8000), and the model reads 16000"):
        wave_of(recording, 16000, None)


def test_names_the_recording_that_is_too_short():
    rows = rows_of("audio-classification", 4)  # of 200, 208, 216 and 224 samples
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=8000, return_attention_mask=True)
    reading = reading_of(extractor, "audio", "audio", sampling_rate=8000, least_samples=210)
    with pytest.raises(ConfigurationError, match=r"the recording in row 1 has 208 samples, and .* reads 210 or more"):
        classified_media(rows.select([3, 1]), reading)
    assert len(classified_media(rows.select([2, 3]), reading)) == 2
    with pytest.raises(ConfigurationError, match="the recording in row 1 of a batch has 200 samples"):
        SoundCollator(reading)([rows[3], rows[0]])
