"""Heads that say which text belongs to which image, or sound."""

import math

import pytest
import torch
from transformers import (
    BertConfig,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    ClapConfig,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
    set_seed,
)

from hf_distill import check_invariances, preflight_report
from hf_distill.errors import ConfigurationError, MissingInputError, UnsupportedModelError
from hf_distill.heads import DualEncoderHead, head_of
from hf_distill.types import Unit
from tests.gradients import ALPHA, TEMPERATURE, recorded_run, relative_difference
from tests.tiny_models import BLOCK_SIZES, NO_DROPOUT, SIZES, VOCAB_SIZE, PaddingCollator
from tests.tiny_trainers import check_that_the_student_alone_learns, float32, trainer_for


EOS = VOCAB_SIZE - 1
TEXT = {**SIZES, "max_position_embeddings": 32, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0}


def sides(layers, image_size=8, **sizes):
    """Text and vision configurations; more layers make it wider too."""
    set_seed(layers)
    common = {**BLOCK_SIZES, **sizes, "num_hidden_layers": layers, "hidden_size": 16 * layers}
    return {"text_config": {**TEXT, **common}, "vision_config": {**common, "image_size": image_size, "patch_size": 4}}


def clip(layers=1, **sizes):
    return CLIPModel(CLIPConfig(**sides(layers, **sizes), projection_dim=8 * layers))


def siglip(layers=1, **sizes):
    model = SiglipModel(SiglipConfig(**sides(layers, **sizes)))
    torch.nn.init.constant_(model.logit_bias, -1.0)
    return model


def chinese_clip(layers=1, **sizes):
    configs = sides(layers, **sizes)
    configs["text_config"] |= NO_DROPOUT
    return ChineseCLIPModel(ChineseCLIPConfig(**configs, projection_dim=8))


def two_encoders(layers=1):
    sizes = {**NO_DROPOUT, "num_hidden_layers": layers}
    image = ViTConfig(**BLOCK_SIZES, **sizes, image_size=8, patch_size=4)
    configs = VisionTextDualEncoderConfig.from_vision_text_configs(image, BertConfig(**SIZES, **sizes))
    set_seed(layers)
    return VisionTextDualEncoderModel(configs)


def clap(layers=1):
    set_seed(layers)
    text = {**TEXT, **NO_DROPOUT, "num_hidden_layers": layers, "max_position_embeddings": 40}
    patches = {"patch_embeds_hidden_size": 16, "patch_size": 2, "patch_stride": 2, "spec_size": 64, "window_size": 4}
    blocks = {"hidden_size": 32, "depths": [1, 1], "num_attention_heads": [2, 2], "num_hidden_layers": 2}
    sound = {**patches, **blocks, "num_mel_bins": 16, "drop_path_rate": 0.0}
    return ClapModel(ClapConfig(text_config=text, audio_config=sound, projection_dim=8))


def rows_of(name="pixel_values", shape=(3, 8, 8), count=8):
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(count):
        tokens = torch.randint(3, EOS, (5,), generator=generator).tolist()
        rows.append({"input_ids": [*tokens, EOS], name: torch.randn(shape, generator=generator, dtype=torch.double)})
    return rows


ROWS = rows_of()


def similarities(model, rows):
    """`z[image][text]`, by the formula: the scaled cosine of the two vectors, and SigLIP's bias."""
    outputs = model(**PaddingCollator()(rows))
    bias = model.logit_bias.squeeze() if hasattr(model, "logit_bias") else 0.0
    scale = torch.exp(model.logit_scale).squeeze()
    return [
        [scale * sum(a * b for a, b in zip(image, text, strict=True)) + bias for text in outputs.text_embeds]
        for image in outputs.image_embeds
    ]


def kl(student, teacher, temperature):
    q, p = (torch.stack(list(scores)) / temperature for scores in (student, teacher))
    q, p = q.exp() / q.exp().sum(), p.exp() / p.exp().sum()
    return temperature**2 * (p * (p / q).log()).sum()


def reference(student, teacher, rows, activation):
    """The mean of the own loss and that of the divergences, in one micro-batch."""
    ours = similarities(student, rows)
    with torch.no_grad():
        theirs = similarities(teacher, rows)
    number = range(len(rows))
    if activation == "sigmoid":
        zero = torch.zeros((), dtype=torch.double)
        pairs = [(ours[i][j], theirs[i][j]) for i in number for j in number]
        soft = sum(kl((a, zero), (b, zero), TEMPERATURE) for a, b in pairs) / len(pairs)
        signs = {True: 1.0, False: -1.0}
        own = sum(torch.log1p(torch.exp(-signs[i == j] * ours[i][j])) for i in number for j in number) / len(rows)
        return own, soft
    columns = [list(zip(*scores, strict=True)) for scores in (ours, theirs)]
    ways = [(ours, theirs), tuple(columns)]
    soft = sum(kl(a[i], b[i], TEMPERATURE) for a, b in ways for i in number) / (2 * len(rows))
    own = sum(torch.stack(list(a[i])).logsumexp(0) - a[i][i] for a, _ in ways for i in number) / (2 * len(rows))
    return own, soft


@pytest.mark.parametrize("build, activation", [(clip, "softmax"), (siglip, "sigmoid")])
@pytest.mark.parametrize("batch_size, accumulation", [(8, 1), (4, 2), (2, 4)])
def test_gradient_is_that_of_the_formula_within_each_micro_batch(
    tmp_path, build, activation, batch_size, accumulation
):
    """Several micro-batches of one size make the mean of their gradients, and each has pairs of its own."""
    (found,), (log,), _ = recorded_run(tmp_path, build(1), build(2), ROWS, batch_size, accumulation)
    student, teacher = build(1).double(), build(2).double()
    batches = [ROWS[start : start + batch_size] for start in range(0, len(ROWS), batch_size)]
    parts = [reference(student, teacher, batch, activation) for batch in batches]
    own, soft = (sum(each) / len(parts) for each in zip(*parts, strict=True))
    (ALPHA * own + (1 - ALPHA) * soft).backward()
    expected = {name: parameter.grad for name, parameter in student.named_parameters() if parameter.grad is not None}
    assert relative_difference(found, {name: expected[name] for name in found}) < 1e-6
    assert found.keys() == expected.keys()
    assert log["loss/labels"] == pytest.approx(own.item(), rel=1e-6)
    assert log["loss/soft"] == pytest.approx(soft.item(), rel=1e-6)


@pytest.mark.parametrize(
    "student, teacher",
    [(clip, clip), (siglip, siglip), (chinese_clip, clip), (two_encoders, clip)],
    ids=["clip", "siglip", "chinese clip from clip", "two encoders from clip"],
)
@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_the_student_moves_and_the_teacher_does_not(tmp_path, student, teacher, alpha):
    """Without any column of labels, whatever alpha is. The teachers are wider than their students."""
    rows = float32(ROWS)
    trainer = trainer_for(
        tmp_path, student=student(1), teacher=teacher(2), rows=rows, alpha=alpha, max_steps=12, report_agreement=True
    )
    check_that_the_student_alone_learns(trainer)
    metrics = trainer.evaluate(rows)
    assert {"eval_loss", "eval_loss/soft", "eval_loss/labels", "eval_agreement"} <= metrics.keys()
    assert "eval_perplexity" not in metrics


def test_sounds(tmp_path):
    rows = float32(rows_of("input_features", (1, 32, 16)))
    for row in rows:
        row["is_longer"] = False
    options = {"student": clap(1), "teacher": clap(2), "rows": rows, "data_collator": collated_sounds}
    check_that_the_student_alone_learns(trainer_for(tmp_path, **options, max_steps=12, learning_rate=1e-3))


def collated_sounds(rows):
    return {
        "input_ids": torch.tensor([row["input_ids"] for row in rows]),
        "input_features": torch.stack([row["input_features"] for row in rows]),
        "is_longer": torch.tensor([[row["is_longer"]] for row in rows]),
    }


def test_a_collator_may_ask_for_the_loss(tmp_path):
    """As those of Transformers' examples do. The teacher is not asked, and the student only where it is needed."""
    losses = {}
    for asks in (False, True):
        trainer = trainer_for(tmp_path, student=clip(1), teacher=clip(2), rows=float32(ROWS))
        if asks:
            plain = trainer.data_collator
            trainer.data_collator = lambda rows, plain=plain: {**plain(rows), "return_loss": True}
        trainer.train()
        losses[asks] = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        assert "return_loss" not in trainer.teacher.input_names
    assert losses[True] == losses[False]


def test_texts_without_an_image_of_their_own():
    batch = PaddingCollator()(float32(ROWS))
    batch["pixel_values"] = batch["pixel_values"][:4]
    model = clip()
    with pytest.raises(MissingInputError, match="8 texts and 4 images or sounds, which are no pairs"):
        head_of(model).signals(model(**batch), batch)


def test_counts():
    batch = PaddingCollator()(ROWS)
    where = head_of(clip()).positions(batch)
    assert where.mask.shape == (2, 8) and where.mask.all()
    assert where.counts.items() >= {Unit.LABEL: 1, Unit.POSITION: 16}.items()
    where = head_of(siglip()).positions(batch)
    assert where.mask.shape == (8, 8) and where.mask.all()
    assert where.counts.items() >= {Unit.LABEL: 1, Unit.POSITION: 64}.items()


def test_each_model_has_the_activation_of_its_loss():
    for build in (clip, chinese_clip, two_encoders, clap):
        assert head_of(build()).activation == "softmax"
    assert head_of(siglip()).activation == "sigmoid"
    with pytest.raises(ConfigurationError, match="`activation` must be 'softmax' or 'sigmoid', got 'tanh'"):
        DualEncoderHead("tanh")


def test_other_activations_are_refused_unless_they_are_chosen(tmp_path):
    options = {"student": clip(1), "teacher": siglip(2), "rows": float32(ROWS), "max_steps": 12}
    with pytest.raises(
        UnsupportedModelError,
        match=r"CLIPModel is read with activation='softmax' and the teacher SiglipModel with activation='sigmoid', "
        r".*`head=DualEncoderHead\(activation='sigmoid'\)`",
    ):
        trainer_for(tmp_path, **options)
    check_that_the_student_alone_learns(trainer_for(tmp_path, **options, head=DualEncoderHead()))


def test_a_teacher_by_its_path(tmp_path):
    clip(2).save_pretrained(tmp_path / "teacher")
    trainer = trainer_for(tmp_path, student=clip(1), teacher=tmp_path / "teacher", rows=float32(ROWS), max_steps=12)
    check_that_the_student_alone_learns(trainer)


def test_accumulation_is_said_to_be_out_of_reach(tmp_path):
    report = check_invariances(trainer_for(tmp_path, student=clip(1), teacher=clip(2), rows=float32(ROWS)))
    assert [check.name for check in report.checks if check.held is False] == ["accumulation"]
    assert "each row is compared with the others of its micro-batch" in report["accumulation"].reason
    assert report["order of rows"].held and report["padding"].held


def test_the_rehearsal_scores_what_the_teacher_finds(tmp_path):
    rows = float32(rows_of(count=32))
    report = preflight_report(trainer_for(tmp_path, student=clip(1), teacher=clip(2), rows=rows))
    assert report.teacher.metric == "accuracy"
    assert report.teacher.chance == pytest.approx(1 / 4)  # 4 rows a batch
    assert math.isfinite(report.terms["soft"].value)
