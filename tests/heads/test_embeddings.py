"""Heads that say everything in one vector."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextModel,
    GPT2Config,
    GPT2Model,
    HubertConfig,
    HubertModel,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    T5Config,
    T5EncoderModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Model,
    set_seed,
)

from hf_distill import check_invariances
from hf_distill.errors import ConfigurationError, LengthMismatchError, UnsupportedModelError, UntrainedTeacherError
from hf_distill.heads import EmbeddingHead, SimilarityHead, head_of
from hf_distill.types import Unit
from tests.gradients import TEMPERATURE, GradientRecorder, recorded_run, relative_difference
from tests.tiny_models import NO_DROPOUT, SIZES, PaddingCollator, bert, listener, model_for, rows_for, vision
from tests.tiny_trainers import check_that_the_student_alone_learns, float32, trainer_for


STATES = torch.arange(24.0).view(2, 4, 3) + torch.tensor([0.0, 0.5, -3.0])
RIGHT, LEFT = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
OUTPUTS = {"last_hidden_state": STATES, "pooler_output": torch.ones(2, 5, 1, 1)}
TEXTS, SOUNDS = rows_for("embeddings"), [{"input_values": row["input_values"]} for row in rows_for("transcripts")]
IMAGES = [{"pixel_values": row["pixel_values"]} for row in rows_for("images")]


@pytest.mark.parametrize(
    "pooling, mask, places",
    [
        ("mean", RIGHT, ([0, 1], [0, 1, 2, 3])),
        ("mean", LEFT, ([2, 3], [0, 1, 2, 3])),
        ("cls", RIGHT, ([0], [0])),
        ("last", RIGHT, ([1], [3])),
        ("last", LEFT, ([3], [3])),
        ("last", None, ([3], [3])),
    ],
)
def test_pooling_over_real_tokens(pooling, mask, places):
    """What stands in the padding, NaN included, does not count."""
    states = STATES.clone()
    batch = {"input_ids": torch.ones(2, 4, dtype=torch.long)}
    if mask is not None:
        batch["attention_mask"] = mask
        if pooling != "cls":
            states[mask == 0] = torch.nan
    vectors = EmbeddingHead(pooling).logits({"last_hidden_state": states}, batch)
    for row, chosen in enumerate(places):
        assert vectors[row].tolist() == pytest.approx([STATES[row, chosen, h].mean().item() for h in range(3)])


def test_pooler_and_places_of_an_image():
    assert EmbeddingHead("pooler").logits(OUTPUTS, {}).shape == (2, 5)
    image = torch.randn(2, 3, 4, 5)
    assert torch.allclose(EmbeddingHead("mean").logits({"last_hidden_state": image}, {}), image.mean((2, 3)))


def test_vectors_of_length_one():
    batch = {"attention_mask": RIGHT}
    plain, unit = (EmbeddingHead(normalize=normalize).logits(OUTPUTS, batch) for normalize in (False, True))
    for row in range(2):
        length = sum(number**2 for number in plain[row].tolist()) ** 0.5
        assert unit[row].tolist() == pytest.approx([number / length for number in plain[row].tolist()])


def test_half_precision_is_pooled_in_float32():
    states = torch.full((1, 4096, 1), 0.1, dtype=torch.bfloat16)
    batch = {"attention_mask": torch.ones(1, 4096)}
    vector = EmbeddingHead().logits({"last_hidden_state": states}, batch)
    assert vector.dtype == torch.float32
    assert vector.item() == pytest.approx(states[0, 0, 0].item(), rel=1e-5)


def test_rows_are_counted():
    where = EmbeddingHead().positions({"input_ids": torch.ones(3, 4)})
    assert where.mask.tolist() == [True, True, True]
    assert where.counts.items() >= {Unit.LABEL: 0, Unit.POSITION: 3}.items()


def test_options_that_are_none():
    with pytest.raises(ConfigurationError, match="`pooling` must be 'mean', 'cls', 'last' or 'pooler', got 'max'"):
        EmbeddingHead("max")


def test_outputs_that_are_not_there():
    with pytest.raises(
        UnsupportedModelError, match=r"no 'pooler_output', only \['last_hidden_state'\], so pooling='p"
    ):
        EmbeddingHead("pooler").logits({"last_hidden_state": STATES}, {})
    with pytest.raises(UnsupportedModelError, match=r"4 hidden states of an input whose mask stands for 9"):
        EmbeddingHead().logits(OUTPUTS, {"attention_mask": torch.ones(2, 9)})


def text_model(model_class, config_class, layers=1, **config):
    set_seed(layers)
    sizes = {**SIZES, "num_hidden_layers": layers, "initializer_range": 0.3, "pad_token_id": 0, **config}
    return model_class(config_class(**sizes))


def modern_bert(layers=1):
    ids = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return text_model(ModernBertModel, ModernBertConfig, layers, **ids)


def mpnet(layers=1):
    return text_model(MPNetModel, MPNetConfig, layers, **NO_DROPOUT)


def gpt2(layers=1):
    set_seed(layers)
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2Model(GPT2Config(vocab_size=40, n_embd=16, n_layer=layers, n_head=2, **off))


def vit(layers=1):
    return vision(ViTModel, ViTConfig, layers, image_size=8)


def conv_next(layers=1):
    set_seed(layers)
    return ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], patch_size=2, num_stages=2))


def t5_encoder():
    return T5EncoderModel(T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2))


PAIRS = {
    "bert": (lambda: bert(BertModel), lambda: bert(BertModel, 2), TEXTS),
    "bert from mpnet": (lambda: bert(BertModel), lambda: mpnet(2), TEXTS),
    "modern bert from bert": (modern_bert, lambda: bert(BertModel, 2), TEXTS),
    "gpt2 from llama": (gpt2, lambda: text_model(LlamaModel, LlamaConfig, 2), TEXTS),
    "vit from conv next": (vit, lambda: conv_next(2), IMAGES),
    "wav2vec2 from hubert": (
        lambda: listener(Wav2Vec2Model),
        lambda: listener(HubertModel, HubertConfig, 2),
        SOUNDS,
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_the_student_moves_and_the_teacher_does_not(tmp_path, pair):
    student, teacher, rows = PAIRS[pair]
    options = {"student": student(), "teacher": teacher(), "rows": float32(rows), "alpha": 0.0}
    trainer = trainer_for(tmp_path, **options, max_steps=12, report_agreement=True)
    check_that_the_student_alone_learns(trainer)
    metrics = trainer.evaluate(float32(rows))
    assert metrics["eval_loss"] == metrics["eval_loss/soft"] > 0
    assert "eval_agreement" not in metrics


@pytest.mark.parametrize(
    "build, pooling",
    [
        (lambda: bert(BertModel), "mean"),
        (modern_bert, "mean"),
        (mpnet, "mean"),
        (vit, "mean"),
        (lambda: listener(Wav2Vec2Model), "mean"),
        (gpt2, "last"),
        (lambda: text_model(LlamaModel, LlamaConfig), "last"),
        (t5_encoder, "mean"),
    ],
)
def test_the_default_is_the_mean_and_the_last_token_of_a_decoder(build, pooling):
    head = head_of(build())
    assert (type(head), head.pooling, head.normalize) == (EmbeddingHead, pooling, False)


def test_poolings_that_differ_are_refused_unless_one_is_chosen(tmp_path):
    options = {"student": bert(BertModel), "rows": TEXTS, "alpha": 0.0, "max_steps": 12}
    with pytest.raises(
        UnsupportedModelError,
        match=r"BertModel is read with pooling='mean' and the teacher GPT2Model with pooling='last', .*"
        r"`head=EmbeddingHead\(pooling='last'\)`",
    ):
        trainer_for(tmp_path, teacher=gpt2(2), **options)
    trainer = trainer_for(tmp_path, teacher=gpt2(2), head=EmbeddingHead("last", normalize=True), **options)
    check_that_the_student_alone_learns(trainer)


def test_frames_of_padding_do_not_count():
    model = listener(Wav2Vec2Model).double().eval()
    head = head_of(model)
    batches = [PaddingCollator(extra)(SOUNDS[:2]) for extra in (0, 9)]
    vectors = [head.logits(model(**batch), batch) for batch in batches]
    assert torch.allclose(vectors[0], vectors[1])
    for row, vector in zip(SOUNDS, vectors[0], strict=False):
        assert torch.allclose(vector, model(row["input_values"][None]).last_hidden_state[0].mean(0))


def test_two_decoders_are_invariant_to_padding(tmp_path):
    runs = [
        recorded_run(tmp_path, gpt2(1), gpt2(2), TEXTS, batch_size=8, extra_padding=extra, alpha=0.0)[1][0]
        for extra in (0, 5)
    ]
    assert runs[0]["loss"] == pytest.approx(runs[1]["loss"], rel=1e-9)


def test_the_promised_equalities_hold(tmp_path):
    report = check_invariances(trainer_for(tmp_path, "embeddings", alpha=0.0))
    assert report.held, str(report)
    assert report["padding"].held and report["accumulation"].held


def test_no_loss_of_its_own(tmp_path):
    rows = [{**row, "labels": 1} for row in TEXTS]
    for some in (TEXTS, rows):
        with pytest.raises(
            ConfigurationError, match=r"BertModel takes no \['labels'\], so it has no loss .*`alpha=0`"
        ):
            trainer_for(tmp_path, "embeddings", rows=some, alpha=0.5)
    trainer_for(tmp_path, "embeddings", rows=rows, alpha=0.0).train()


def test_another_width(tmp_path):
    teacher = text_model(BertModel, BertConfig, 2, hidden_size=32)
    trainer = trainer_for(tmp_path, "embeddings", teacher=teacher, alpha=0.0)
    with pytest.raises(
        LengthMismatchError,
        match=r"have width 16 and the teacher's 32, .*hidden_size=32, or .*SimilarityHead",
    ):
        trainer.train()


def test_a_teacher_by_its_path_needs_no_pooler_that_is_not_read(tmp_path):
    """As published masked language models have none."""
    folder = tmp_path / "teacher"
    model_for("masked", 2).save_pretrained(folder)
    options = {"teacher": folder, "alpha": 0.0, "max_steps": 12}
    check_that_the_student_alone_learns(trainer_for(tmp_path, "embeddings", **options))
    with pytest.raises(UntrainedTeacherError, match=r"no weights for 2 parameters of BertModel \(first: 'pooler"):
        trainer_for(tmp_path, "embeddings", head=EmbeddingHead("pooler"), **options)


def wide_bert():
    return text_model(BertModel, BertConfig, 2, hidden_size=32, add_pooling_layer=False, **NO_DROPOUT)


def neighbours(model, rows, temperature):
    """For each row the softmax over the others of the cosines times 20, divided by the temperature."""
    vectors = [model(torch.tensor([row["input_ids"]])).last_hidden_state[0].mean(0) for row in rows]
    lengths = [sum(number**2 for number in vector) ** 0.5 for vector in vectors]
    distributions = []
    for i, mine in enumerate(vectors):
        others = [j for j in range(len(rows)) if j != i]
        cosines = [
            sum(a * b for a, b in zip(mine, vectors[j], strict=True)) / (lengths[i] * lengths[j]) for j in others
        ]
        powers = [torch.exp(20 * cosine / temperature) for cosine in cosines]
        distributions.append([power / sum(powers) for power in powers])
    return distributions


@pytest.mark.parametrize("batch_size", [8, 4])
def test_similarities_of_unequal_widths_have_the_gradient_of_the_formula(tmp_path, batch_size):
    recorder = GradientRecorder()
    options = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 8 // batch_size}
    options |= {"temperature": TEMPERATURE, "alpha": 0.0, "learning_rate": 0.0, "max_steps": 1}
    student, teacher = model_for("embeddings", 1).double(), wide_bert().double()
    trainer_for(
        tmp_path, "embeddings", student, teacher, callbacks=[recorder], head=SimilarityHead(), **options
    ).train()
    total = 0.0
    for start in range(0, 8, batch_size):
        rows = TEXTS[start : start + batch_size]
        ours, theirs = (neighbours(model, rows, TEMPERATURE) for model in (student, teacher))
        for q, p in zip(ours, theirs, strict=True):
            total += sum(TEMPERATURE**2 * a * torch.log(a / b) for a, b in zip(p, q, strict=True)) / 8
    student.zero_grad()
    total.backward()
    expected = {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert relative_difference(recorder.steps[0], expected) < 1e-6
    assert expected["encoder.layer.0.output.dense.weight"].norm() > 1e-3


def test_similarities_teach_a_narrow_student(tmp_path):
    options = {"teacher": wide_bert(), "head": SimilarityHead(), "alpha": 0.0, "max_steps": 12}
    trainer = trainer_for(tmp_path, "embeddings", **options, report_agreement=True)
    check_that_the_student_alone_learns(trainer)
    assert 0 <= trainer.evaluate(TEXTS)["eval_agreement"] <= 1
    report = check_invariances(trainer)
    assert [check.name for check in report.checks if check.held is False] == ["accumulation"]
    assert "compared with the others of its micro-batch" in report["accumulation"].reason


def test_a_row_alone_is_like_nobody(tmp_path):
    batch = PaddingCollator()(TEXTS[:1])
    assert not SimilarityHead().mask(batch).any()
    options = {"teacher": wide_bert(), "head": SimilarityHead(), "alpha": 0.0, "per_device_train_batch_size": 1}
    steps, recorder = trainer_for(tmp_path, "embeddings", **options), GradientRecorder()
    steps.add_callback(recorder)
    steps.train()
    assert all((gradient == 0).all() for step in recorder.steps for gradient in step.values())


def test_a_scale_of_nothing():
    with pytest.raises(ConfigurationError, match="`scale` must be above 0, got 0"):
        SimilarityHead(scale=0)


def test_a_model_that_only_pools_is_told_how_to_be_read():
    """As DPR's encoders."""
    outputs = {"pooler_output": torch.ones(2, 5)}
    with pytest.raises(UnsupportedModelError, match=r"only \['pooler_output'\].*EmbeddingHead\(pooling='pooler'\)"):
        EmbeddingHead().logits(outputs, {"input_ids": RIGHT})
    assert torch.equal(EmbeddingHead("pooler").logits(outputs, {"input_ids": RIGHT}), outputs["pooler_output"])
