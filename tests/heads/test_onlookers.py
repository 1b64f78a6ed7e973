"""Models that look at pictures and write, or at moving pictures: known heads on inputs of their own."""

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForVideoClassification,
    BertConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PI0Config,
    PI0ForConditionalGeneration,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    set_seed,
)

from hf_distill.errors import UnsupportedModelError
from hf_distill.heads import CausalLMHead, Seq2SeqHead, SingleLabelHead, head_of
from tests.gradients import ALPHA, TEMPERATURE, recorded_run, relative_difference
from tests.tiny_models import BLOCK_SIZES, NO_DROPOUT, SIZES, VOCAB_SIZE, PaddingCollator, llama, rows_for
from tests.tiny_trainers import trainer_for


PICTURE = VOCAB_SIZE - 1
"""The token in whose place a patch of the picture is read."""
NUM_PATCHES = 4
SEEN = {**BLOCK_SIZES, "image_size": 8, "patch_size": 4, "initializer_range": 0.3}


def llava(layers):
    set_seed(layers)
    return LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**SEEN, num_hidden_layers=1),
            text_config=LlamaConfig(**SIZES, num_hidden_layers=layers, initializer_range=0.3),
            image_token_index=PICTURE,
            vision_feature_layer=-1,
        )
    )


def captioner(layers):
    set_seed(layers)
    decoding = {**SIZES, **NO_DROPOUT, "initializer_range": 0.3, "is_decoder": True, "add_cross_attention": True}
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**SEEN, **NO_DROPOUT, num_hidden_layers=1),
        BertConfig(**decoding, num_hidden_layers=layers),
    )
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return VisionEncoderDecoderModel(config=config)


def viewer(layers):
    set_seed(layers)
    sizes = {**SEEN, **NO_DROPOUT, "num_hidden_layers": layers}
    return VideoMAEForVideoClassification(VideoMAEConfig(**sizes, num_frames=2, tubelet_size=2, num_labels=3))


def described_pictures():
    """Texts after a picture, which is left out of the labels."""
    texts, pictures = rows_for("causal"), rows_for("images")
    patches = [PICTURE] * NUM_PATCHES
    return [
        {
            "input_ids": patches + [token % PICTURE for token in text["input_ids"]],
            "labels": [-100] * NUM_PATCHES + [token % PICTURE for token in text["labels"]],
            "pixel_values": picture["pixel_values"],
        }
        for text, picture in zip(texts, pictures, strict=True)
    ]


def captions():
    return [
        {"pixel_values": row["pixel_values"], "labels": row["labels"][NUM_PATCHES:]} for row in described_pictures()
    ]


def videos():
    generator = torch.Generator().manual_seed(0)
    films = torch.randn(8, 2, 3, 8, 8, generator=generator, dtype=torch.double)
    return [{"pixel_values": film, "labels": index % 3} for index, film in enumerate(films)]


MODELS = {
    "llava": (llava, described_pictures, CausalLMHead, AutoModelForImageTextToText),
    "captioner": (captioner, captions, Seq2SeqHead, AutoModelForImageTextToText),
    "viewer": (viewer, videos, SingleLabelHead, AutoModelForVideoClassification),
}


@pytest.mark.parametrize("name", MODELS)
def test_heads(name):
    build, _, head_class, auto_class = MODELS[name]
    head = head_of(build(1))
    assert type(head) is head_class and head.auto_class is auto_class


@pytest.mark.parametrize("name", MODELS)
def test_loss_is_that_of_the_definition(tmp_path, name):
    """Both losses, written out position by position from what the models say of each row alone."""
    build, rows_of, *_ = MODELS[name]
    _, (log,), _ = recorded_run(tmp_path, build(1), build(2), rows_of(), batch_size=8)
    student, teacher = build(1).double().eval(), build(2).double().eval()
    hard, soft = [], []
    for row in rows_of():
        batch = PaddingCollator()([row])
        with torch.no_grad():
            ours, theirs = (model(**batch).logits.flatten(0, -2) for model in (student, teacher))
        labels = torch.as_tensor(row["labels"]).view(-1)
        if name == "llava":
            ours, theirs, labels = ours[:-1], theirs[:-1], labels[1:]
        for said, wanted, label in zip(ours, theirs, labels, strict=True):
            if label != -100:
                hard.append(-said.log_softmax(-1)[label])
                p, q = (wanted / TEMPERATURE).log_softmax(-1), (said / TEMPERATURE).log_softmax(-1)
                soft.append(TEMPERATURE**2 * sum(p[c].exp() * (p[c] - q[c]) for c in range(len(p))))
    expected = {"loss/labels": sum(hard) / len(hard), "loss/soft": sum(soft) / len(soft)}
    expected["loss"] = ALPHA * expected["loss/labels"] + (1 - ALPHA) * expected["loss/soft"]
    assert {name: log[name] for name in expected} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=1e-6
    )
    assert expected["loss/soft"] > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_how_a_batch_is_split_and_padded_changes_nothing(tmp_path, name):
    build, rows_of, *_ = MODELS[name]
    whole, _, _ = recorded_run(tmp_path, build(1), build(2), rows_of(), batch_size=8)
    split, _, _ = recorded_run(tmp_path, build(1), build(2), rows_of(), batch_size=2, accumulation=4, extra_padding=3)
    assert relative_difference(split[0], whole[0]) < 1e-6  # norms of Llama are computed in float32


def test_a_language_model_learns_from_one_that_also_looks_at_pictures(tmp_path):
    trainer = trainer_for(tmp_path, "causal", student=llama(), teacher=llava(2))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize(
    "model_class, config_class, reason",
    [
        (BlipForConditionalGeneration, BlipConfig, "what its own loss averages over was not verified"),
        (PI0ForConditionalGeneration, PI0Config, "it takes no labels"),
    ],
)
def test_others_are_refused(model_class, config_class, reason):
    with torch.device("meta"):
        model = model_class(config_class())
    with pytest.raises(UnsupportedModelError, match=rf"^{model_class.__name__} has no head .*\({reason}.*`head=`"):
        head_of(model)
