"""Batches that a model cannot read are said in one sentence that names the model."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BertModel,
    CanineConfig,
    CanineForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2ForSequenceClassification,
)

from hf_distill.errors import ConfigurationError, MissingInputError, UnsupportedModelError
from hf_distill.heads.frames import least_samples
from hf_distill.refused_batches import check_token_ids, naming_the_model
from tests.tiny_models import VOCAB_SIZE, bert, listener, model_for, rows_for, vision
from tests.tiny_trainers import float32, trainer_for


TOO_LARGE = {"input_ids": torch.tensor([[3, VOCAB_SIZE]])}


def test_a_token_that_has_no_embedding(tmp_path):
    rows = [{**row, "input_ids": [*row["input_ids"], VOCAB_SIZE]} for row in rows_for("single_label")]
    with pytest.raises(
        ConfigurationError, match=r"holds 40, and the student Bert\w+ has .* 40 tokens, 0 to 39.*resize"
    ):
        trainer_for(tmp_path, rows=rows).train()


def test_a_token_that_the_teacher_does_not_know(tmp_path):
    rows = [{**row, "input_ids": [*row["input_ids"], VOCAB_SIZE]} for row in rows_for("single_label")]
    student = bert(num_labels=3, vocab_size=VOCAB_SIZE + 1)
    with pytest.raises(ConfigurationError, match=r"and the teacher Bert.*`teacher_processing_class=`"):
        trainer_for(tmp_path, student=student, rows=rows).train()


def test_what_has_no_embedding_of_its_own_is_not_looked_for():
    """Pictures stand in the place of tokens, characters are hashed, vectors are given, a model has no table."""
    check_token_ids({**TOO_LARGE, "pixel_values": torch.zeros(1, 3, 8, 8)}, "student", bert())
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    canine = CanineForSequenceClassification(CanineConfig(**sizes, num_hash_buckets=8, num_hash_functions=2))
    check_token_ids({"input_ids": torch.tensor([[2000]])}, "student", canine)
    check_token_ids({"inputs_embeds": torch.zeros(1, 2, 16)}, "student", bert())
    check_token_ids(TOO_LARGE, "student", nn.Linear(1, 1))
    with pytest.raises(ConfigurationError):
        check_token_ids(TOO_LARGE, "student", bert())


def viewer(layers, image_size):
    return vision(ViTForImageClassification, ViTConfig, layers, image_size=image_size, num_labels=3)


def test_a_teacher_of_larger_images(tmp_path):
    trainer = trainer_for(
        tmp_path, student=viewer(1, 8), teacher=viewer(2, 16), rows=float32(rows_for("images")), preflight=True
    )
    message = (
        r"^the teacher ViTForImageClassification cannot compute a batch of .*pixel_values \(4, 3, 8, 8\).* "
        r"\(ValueError: Input image size \(8\*8\) doesn't match model \(16\*16\)\)\. .*image_size=8 and the "
        r"teacher's image_size=16.*`teacher_processing_class=`\.$"
    )
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        trainer.train()
    assert isinstance(caught.value.__cause__, ValueError)


class Picky(BertModel):
    def forward(self, *args, **kwargs):
        raise AssertionError("three separators, please.\nSee the paper.")


@pytest.mark.parametrize("who, remedy", [("student", "Prepare the data set"), ("teacher", "If it reads other inputs")])
def test_an_error_of_a_model_names_it(who, remedy):
    models = {"student": bert(), "teacher": bert(), who: bert(Picky)}
    reason = r"input_ids \(1, 2\) \(AssertionError: three separators, please\)"
    message = rf"^the {who} Picky cannot compute a batch of {reason}\. {remedy}"
    with pytest.raises(UnsupportedModelError, match=message), naming_the_model(models, TOO_LARGE, []):
        models[who](**TOO_LARGE)


def test_other_errors_stay_as_they_are():
    models = {"student": bert()}
    for error in (KeyError("elsewhere"), MissingInputError("one of ours")):
        with pytest.raises(type(error)), naming_the_model(models, TOO_LARGE, []):
            raise error

    class Large(BertModel):
        def forward(self, *args, **kwargs):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    models = {"student": bert(Large)}
    with pytest.raises(RuntimeError, match="allocate memory"), naming_the_model(models, TOO_LARGE, []):
        models["student"](**TOO_LARGE)


def test_a_batch_that_both_can_compute_changes_nothing(tmp_path):
    trainer = trainer_for(tmp_path, teacher=model_for("single_label", 2), preflight=True)
    trainer.train()
    assert trainer.state.global_step == 2


def test_a_recording_of_which_the_model_makes_no_frame(tmp_path):
    student = listener(Wav2Vec2ForSequenceClassification, num_labels=2, classifier_proj_size=8)
    least = least_samples(student)
    rows = [{"input_values": torch.randn(least - (row == 2)), "labels": row % 2} for row in range(4)]
    rows = [{**row, "attention_mask": torch.ones(len(row["input_values"]), dtype=torch.long)} for row in rows]

    def padded(batch):
        return {
            name: pad_sequence([torch.as_tensor(row[name]) for row in batch], True)
            if name != "labels"
            else torch.tensor([row[name] for row in batch])
            for name in batch[0]
        }

    message = rf"row {{}} of a batch has {least - 1} samples, and Wav2Vec2For\w+ reads {least} or more"
    for size, row in ((4, 2), (1, 0)):  # alone and beside longer ones
        options = {
            "per_device_train_batch_size": size,
            "per_device_eval_batch_size": size,
            "alpha": 1.0,
            "max_steps": 4,
        }
        trainer = trainer_for(
            tmp_path, student=student, teacher=False, rows=rows, eval_dataset=rows, data_collator=padded, **options
        )
        for run in (trainer.train, trainer.evaluate):
            with pytest.raises(ConfigurationError, match=message.format(row)):
                run()
