"""How many frames a model makes of a sound."""

import copy
import pickle

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Data2VecAudioForCTC,
    GraniteSpeech5ForCTC,
    HubertForCTC,
    LasrForCTC,
    ParakeetForCTC,
    SEWConfig,
    SEWDConfig,
    SEWDForCTC,
    SEWForCTC,
    UniSpeechForCTC,
    UniSpeechSatForCTC,
    Wav2Vec2BertForCTC,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2ForCTC,
    WavLMForCTC,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

from hf_distill.heads.frames import frame_count, least_frames, least_samples, real_frames
from tests.tiny_models import SIZES, listener


WAVEFORMS = (
    *(Data2VecAudioForCTC, HubertForCTC, SEWForCTC, UniSpeechForCTC, UniSpeechSatForCTC),
    *(Wav2Vec2ConformerForCTC, Wav2Vec2ForCTC, WavLMForCTC),
)
SPECTROGRAMS = {GraniteSpeech5ForCTC: 320, LasrForCTC: 128, ParakeetForCTC: 80, Wav2Vec2BertForCTC: 160}
"""Columns of a spectrogram, by their height."""


def test_every_architecture_is_tried():
    tried = {model_class.__name__ for model_class in (*WAVEFORMS, *SPECTROGRAMS, SEWDForCTC)}
    assert tried >= set(MODEL_FOR_CTC_MAPPING_NAMES.values())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("model_class", [*WAVEFORMS, *SPECTROGRAMS])
def test_the_rule_is_that_of_the_model(model_class):
    """The model of its default configuration, without weights: only shapes are computed."""
    with torch.device("meta"):
        sizes = {} if model_class is GraniteSpeech5ForCTC else {"vocab_size": 8}
        model = model_class(model_class.config_class(**sizes)).eval()
        for length in (1999, 2000, 4321):
            shape = (1, length, SPECTROGRAMS[model_class]) if model_class in SPECTROGRAMS else (1, length)
            expected = model(torch.zeros(shape)).logits.shape[1]
            assert frame_count(model)(torch.tensor(length, device="cpu")) == expected


@pytest.mark.parametrize("model_class, config_class", [(SEWForCTC, SEWConfig), (SEWDForCTC, SEWDConfig)])
@pytest.mark.parametrize("length", [60, 61, 70])
def test_a_model_that_squeezes_frames_gives_as_many_as_it_had(model_class, config_class, length):
    model = listener(model_class, config_class, squeeze_factor=2, max_position_embeddings=64).eval()
    batch = {"input_values": torch.randn(2, length)}
    assert real_frames(batch, frame_count(model)).shape == model(**batch).logits.shape[:2]


def test_frames_of_padding_are_left_out():
    """A frame is made of 6 samples, 4 apart."""
    count = frame_count(listener())
    mask = torch.ones(4, 20, dtype=torch.long)
    for row, length in enumerate((20, 10, 9, 5)):
        mask[row, length:] = 0
    expected = [[4 * frame + 6 <= length for frame in range(4)] for length in (20, 10, 9, 5)]
    sounds = torch.zeros(4, 20)
    assert real_frames({"input_values": sounds, "attention_mask": mask}, count).tolist() == expected
    assert real_frames({"input_values": sounds}, count).tolist() == [[True] * 4] * 4
    assert real_frames({"input_features": torch.zeros(4, 20, 7)}, count).tolist() == [[True] * 4] * 4


def test_the_rule_holds_no_model():
    count = frame_count(listener())
    lengths = torch.arange(6, 100)
    for other in (copy.deepcopy(count), pickle.loads(pickle.dumps(count))):
        assert torch.equal(other(lengths), count(lengths))
    assert len(pickle.dumps(count)) < 10_000


def test_a_model_of_texts_has_no_rule():
    assert frame_count(BertForMaskedLM(BertConfig(**SIZES, num_hidden_layers=1))) is None


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("model_class", WAVEFORMS)
def test_of_fewer_than_the_least_samples_there_is_no_frame(model_class):
    with torch.device("meta"):
        model = model_class(model_class.config_class(vocab_size=8)).eval()
        with torch.device("cpu"):
            least = least_samples(model)
        assert model(torch.zeros(1, least)).logits.shape[1] == least_frames(model)
        with pytest.raises(RuntimeError, match=r"Kernel size can't be greater|size is too small"):
            model(torch.zeros(1, least - 1))
    assert least == (720 if model_class is SEWForCTC else 400)


def test_what_reads_no_waveform_has_no_least_samples():
    assert least_samples(BertForMaskedLM(BertConfig(**SIZES, num_hidden_layers=1))) == 1
