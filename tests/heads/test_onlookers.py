"""Models that look at pictures, films or sounds, and write or choose: known heads on inputs of their own."""

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForVideoClassification,
    BertConfig,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    CsmConfig,
    CsmForConditionalGeneration,
    DiaConfig,
    DiaForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    PI0Config,
    PI0ForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    set_seed,
)

from hf_distill import check_invariances
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


def listener(layers):
    """A sound of 16 columns is 8 frames, of which two stand in the place of one token."""
    set_seed(layers)
    heard = {**BLOCK_SIZES, "intermediate_size": 32, "num_hidden_layers": 1, "initializer_range": 0.3}
    written = {**SIZES, "num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": layers, "initializer_range": 0.3}
    return VoxtralForConditionalGeneration(
        VoxtralConfig(
            audio_config={**heard, "num_mel_bins": 4, "max_source_positions": 8},
            text_config={**written, "model_type": "llama"},
            audio_token_id=PICTURE,
        )
    )


def qwen_vl(layers):
    """The patches of all pictures of a batch lie in one tensor."""
    set_seed(layers)
    rotation = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    seen = {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2}
    patches = {"patch_size": 4, "spatial_merge_size": 1, "temporal_patch_size": 1}
    written = {**SIZES, "num_hidden_layers": layers, "num_key_value_heads": 1, "initializer_range": 0.3}
    return Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config={**written, "rope_parameters": rotation, "bos_token_id": 1, "eos_token_id": 2},
            vision_config={**seen, **patches},
            image_token_id=PICTURE,
            vision_start_token_id=PICTURE - 1,
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


def heard_texts():
    """Texts after a sound."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_ids": row["input_ids"],
            "labels": row["labels"],
            "input_features": torch.randn(4, 16, generator=generator, dtype=torch.double),
        }
        for row in described_pictures()
    ]


class PatchCollator(PaddingCollator):
    """As the processor of Qwen-VL makes a batch."""

    def __call__(self, rows):
        pictures = {name: torch.cat([row[name] for row in rows]) for name in ("pixel_values", "image_grid_thw")}
        texts = [{name: value for name, value in row.items() if name not in pictures} for row in rows]
        return {**pictures, **super().__call__(texts)}


def texts_with_patches():
    generator = torch.Generator().manual_seed(0)
    rows = []
    for row in described_pictures():
        kinds = [int(token == PICTURE) for token in row["input_ids"]]
        patches = torch.randn(NUM_PATCHES, 48, generator=generator)
        grid = torch.tensor([[1, 2, 2]])
        texts = {name: row[name] for name in ("input_ids", "labels")}
        rows.append({**texts, "mm_token_type_ids": kinds, "pixel_values": patches, "image_grid_thw": grid})
    return rows


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
    "listener": (listener, heard_texts, CausalLMHead, AutoModelForSeq2SeqLM),
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
        if name in ("llava", "listener"):
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


@pytest.mark.parametrize("batch_size, accumulation", [(8, 1), (2, 4)])
def test_patches_of_all_pictures_in_one_tensor(tmp_path, batch_size, accumulation):
    options = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    rows = texts_with_patches()
    trainer = trainer_for(
        tmp_path, student=qwen_vl(1), teacher=qwen_vl(2), rows=rows, data_collator=PatchCollator(), **options
    )
    report = check_invariances(trainer)
    assert all(check.held for check in report.checks), str(report)
    trainer.train()
    log = next(log for log in trainer.state.log_history if "loss/soft" in log)
    expected = 0.0
    for row in rows:
        with torch.no_grad():
            ours, theirs = (
                model(**PatchCollator()([row])).logits[0, :-1] / TEMPERATURE for model in (qwen_vl(1), qwen_vl(2))
            )
        counts = torch.tensor(row["labels"][1:]) != -100
        q, p = (scores[counts].log_softmax(-1) for scores in (ours, theirs))
        expected += TEMPERATURE**2 * (p.exp() * (p - q)).sum().item()
    counted = sum(label != -100 for row in rows for label in row["labels"][1:])
    assert log["loss/soft"] == pytest.approx(expected / counted, rel=1e-4)


@pytest.mark.parametrize(
    "model_class, config_class, reason",
    [
        (BlipForConditionalGeneration, BlipConfig, "what its own loss averages over was not verified"),
        (PI0ForConditionalGeneration, PI0Config, "it takes no labels"),
        (MusicgenForCausalLM, MusicgenDecoderConfig, "what its own loss averages over was not verified"),
        (DiaForConditionalGeneration, DiaConfig, "what its own loss averages over was not verified"),
        (CsmForConditionalGeneration, CsmConfig, "it has a head on top, whose outputs are of its own kind"),
    ],
)
def test_others_are_refused(model_class, config_class, reason):
    with torch.device("meta"):
        model = model_class(config_class())
    with pytest.raises(UnsupportedModelError, match=rf"^{model_class.__name__} has no head .*\({reason}.*`head=`"):
        head_of(model)
