"""Heads that write down a sound."""

import copy

import pytest
import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    HubertConfig,
    HubertForCTC,
    ParakeetCTCConfig,
    ParakeetForCTC,
    SEWConfig,
    SEWForCTC,
    UniSpeechConfig,
    UniSpeechForCTC,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    WavLMConfig,
    WavLMForCTC,
    set_seed,
)

from hf_distill import check_invariances
from hf_distill.errors import ConfigurationError, LengthMismatchError, UnsupportedModelError
from hf_distill.heads import CTCHead, head_of
from hf_distill.types import Unit
from tests.gradients import recorded_run, relative_difference
from tests.reference import ctc_loss
from tests.tiny_models import BLOCK_SIZES, PaddingCollator, listener, model_for, rows_for
from tests.tiny_trainers import check_that_the_student_alone_learns, float32, trainer_for


ROWS = rows_for("transcripts")
OF_WAVLM = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
HUBERT, SEW, WAVLM = (HubertForCTC, HubertConfig), (SEWForCTC, SEWConfig), (WavLMForCTC, WavLMConfig)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_own_loss_is_one_number_a_row(reduction):
    model = listener(ctc_loss_reduction=reduction).double().eval()
    batch, head = PaddingCollator()(ROWS), head_of(model)
    losses = []
    for row in ROWS:
        loss = ctc_loss(model(row["input_values"][None]).logits[0], row["labels"])
        losses.append(loss / len(row["labels"]) if reduction == "mean" else loss)
    total = head.label_loss(model(**batch), batch)
    assert torch.allclose(total.double(), sum(losses), rtol=1e-6)
    assert head.positions(batch).counts[Unit.LABEL] == len(ROWS)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_both_reductions_do_not_depend_on_how_a_batch_is_split(tmp_path, reduction):
    whole, split = (
        recorded_run(tmp_path, listener(ctc_loss_reduction=reduction), listener(layers=2), ROWS, *sizes, alpha=1.0)
        for sizes in ((8,), (2, 4))
    )
    assert relative_difference(split[0][0], whole[0][0]) < 1e-6
    assert split[1][0]["loss/labels"] == pytest.approx(whole[1][0]["loss/labels"], rel=1e-6)


def test_a_row_without_labels_is_blank_throughout():
    model = listener().double().eval()
    batch = {"input_values": ROWS[0]["input_values"][None], "labels": torch.full((1, 2), -100)}
    blanks = model(batch["input_values"]).logits[0].log_softmax(-1)[:, 0]
    assert torch.allclose(head_of(model).label_loss(model(**batch), batch).double(), -blanks.sum())


def test_a_transcript_that_is_longer_than_its_sound_may_be_left_out():
    rows = [{**ROWS[0], "labels": [1, 2] * 20}, ROWS[1]]
    batch = PaddingCollator()(rows)
    totals = []
    for zero_infinity in (False, True):
        model = listener(ctc_zero_infinity=zero_infinity).double().eval()
        totals.append(head_of(model).label_loss(model(**batch), batch))
    alone = PaddingCollator()(rows[1:])
    assert totals[0].isinf()
    assert torch.allclose(totals[1], head_of(model).label_loss(model(**alone), alone))


@pytest.mark.parametrize("reduction", ["none", None])
def test_no_sum_can_be_made_of_it(reduction):
    with pytest.raises(ConfigurationError, match=rf"`ctc_loss_reduction` must be 'sum' or 'mean', got {reduction!r}"):
        CTCHead(lambda lengths: lengths, reduction)


def test_a_model_that_does_not_say_how_it_down_samples(monkeypatch):
    monkeypatch.setattr("hf_distill.heads.resolve.frame_count", lambda model: None)
    with pytest.raises(UnsupportedModelError, match=r"Wav2Vec2ForCTC has no head .* \(it does not say how many"):
        head_of(listener())


def test_a_copy_of_the_head_is_the_head():
    batch, head = PaddingCollator()(ROWS), head_of(listener())
    assert torch.equal(copy.deepcopy(head).mask(batch), head.mask(batch))
    assert not head.mask(batch).all()


@OF_WAVLM
@pytest.mark.parametrize("model", [(), HUBERT, WAVLM], ids=["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize("norm, has_mask", [("layer", True), ("group", True), ("group", False)])
def test_frames_of_padding_change_nothing_where_the_model_has_layer_norm(model, norm, has_mask):
    """Group normalisation takes its statistics over time, padding included, and no mask reaches it. What does change
    then is inside of the model: which frames count is the same. Such models are made to be called without a mask."""
    student = listener(*model, feat_extract_norm=norm).double().eval()
    head, results = head_of(student), []
    for extra in (0, 9):
        batch = PaddingCollator(extra)(ROWS[:2])
        if not has_mask:
            del batch["attention_mask"]
        outputs, mask = student(**batch), head.mask(batch)
        assert mask.shape == outputs.logits.shape[:2]
        assert mask.all() == (not has_mask)
        results.append((outputs.logits[mask], head.label_loss(outputs, batch)))
    is_same = has_mask and norm == "layer"
    assert torch.equal(mask.sum(1), torch.tensor([5, 17])) or not has_mask
    assert (results[0][0].shape == results[1][0].shape) == has_mask
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-6) == is_same
    if has_mask:
        assert torch.allclose(results[0][0], results[1][0]) == is_same


@pytest.mark.parametrize(
    "model, options, is_same",
    [
        (SEW, {"squeeze_factor": 3}, False),
        (SEW, {"squeeze_factor": 1}, True),
        ((UniSpeechForCTC, UniSpeechConfig), {}, True),
        ((Data2VecAudioForCTC, Data2VecAudioConfig), {}, False),
        ((Wav2Vec2ConformerForCTC, Wav2Vec2ConformerConfig), {}, False),
    ],
    ids=["sew", "sew without squeezing", "unispeech", "data2vec", "conformer"],
)
def test_other_models_that_see_padding_or_do_not(model, options, is_same):
    """What docs/heads.md says about each, with layer normalisation and a mask."""
    student = listener(*model, **options).double().eval()
    head, results = head_of(student), []
    for extra in (0, 9):
        batch = PaddingCollator(extra)(ROWS[:2])
        results.append(student(**batch).logits[head.mask(batch)])
    assert torch.allclose(*results) == is_same


PAIRS = {
    "wav2vec2 from hubert": (listener, lambda: listener(*HUBERT, layers=2)),
    "sew from wavlm": (lambda: listener(*SEW, squeeze_factor=2), lambda: listener(*WAVLM, layers=2)),
    "group norm from layer norm": (lambda: listener(feat_extract_norm="group"), lambda: listener(*HUBERT, layers=2)),
}


@OF_WAVLM
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_architectures_that_down_sample_alike_learn_from_each_other(tmp_path, pair, alpha):
    student, teacher = (make() for make in PAIRS[pair])
    rows = float32(ROWS)
    if alpha == 0:
        rows = [{"input_values": row["input_values"]} for row in rows]
    trainer = trainer_for(
        tmp_path, student=student, teacher=teacher, rows=rows, alpha=alpha, max_steps=12, report_agreement=True
    )
    check_that_the_student_alone_learns(trainer)
    metrics = trainer.evaluate(rows)
    assert 0 <= metrics["eval_agreement"] <= 1
    assert "eval_perplexity" not in metrics


def parakeet(layers):
    set_seed(layers)
    sizes = {**BLOCK_SIZES, "num_hidden_layers": layers, "num_mel_bins": 16, "subsampling_conv_channels": 8}
    sizes |= {"subsampling_factor": 4, "conv_kernel_size": 3, "layerdrop": 0.0, "dropout": 0.0}
    return ParakeetForCTC(ParakeetCTCConfig(vocab_size=6, pad_token_id=0, encoder_config=sizes))


def wav2vec2_bert(layers):
    set_seed(layers)
    sizes = {**BLOCK_SIZES, "num_hidden_layers": layers, "feature_projection_input_dim": 16, "vocab_size": 6}
    return Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**sizes, apply_spec_augment=False, layerdrop=0.0, pad_token_id=0))


def collated_spectrograms(rows):
    lengths = torch.tensor([len(row["input_features"]) for row in rows])
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_features": pad([row["input_features"] for row in rows], batch_first=True),
        "attention_mask": (torch.arange(lengths.max()) < lengths[:, None]).long(),
        "labels": pad([torch.tensor(row["labels"]) for row in rows], batch_first=True, padding_value=-100),
    }


@pytest.mark.parametrize("build", [parakeet, wav2vec2_bert])
def test_spectrograms(tmp_path, build):
    rows = [{"input_features": torch.randn(12 + 3 * index, 16), "labels": [1 + index % 5]} for index in range(8)]
    trainer = trainer_for(
        tmp_path,
        student=build(1),
        teacher=build(2),
        rows=rows,
        data_collator=collated_spectrograms,
        max_steps=12,
        report_agreement=True,
    )
    batch = collated_spectrograms(rows)
    outputs = trainer.model.eval()(**batch)
    assert trainer.head.mask(batch).shape == outputs.logits.shape[:2]
    check_that_the_student_alone_learns(trainer)


def test_another_rate_of_frames(tmp_path):
    teacher = listener(*HUBERT, layers=2, conv_stride=(2, 4))
    trainer = trainer_for(tmp_path, student=listener(), teacher=teacher, rows=float32(ROWS))
    with pytest.raises(
        LengthMismatchError, match=r"student gives 17 frames for a batch and the teacher 9, .*`alpha=1`"
    ):
        trainer.train()


def test_the_promised_equalities_hold(tmp_path):
    report = check_invariances(trainer_for(tmp_path, "transcripts", rows=float32(ROWS)))
    assert report.held, str(report)
    assert report["accumulation"].held


def test_one_class_a_frame():
    where = head_of(model_for("transcripts", 1)).positions(PaddingCollator()(ROWS))
    frames = [(len(row["input_values"]) - 6) // 4 + 1 for row in ROWS]
    assert where.mask.sum(1).tolist() == frames
    assert where.counts.items() >= {Unit.LABEL: 8, Unit.POSITION: sum(frames)}.items()
