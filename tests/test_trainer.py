"""Training: what is refused, what moves, what is logged and what is saved."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import IterableDataset
from transformers import DistilBertConfig, DistilBertForSequenceClassification, TrainerCallback, TrainingArguments

from hf_distill import DistillationTrainer, OnlineTeacher, recipes
from hf_distill.errors import (
    ClassMismatchError,
    ConfigurationError,
    EmptyDatasetError,
    MissingInputError,
    MissingTeacherError,
    UnsupportedModelError,
    UntrainedTeacherError,
    VocabularyMismatchError,
)
from hf_distill.heads import Head, SingleLabelHead
from tests.gradients import GradientRecorder, arguments, recorded_run, relative_difference
from tests.reference import reference_gradients
from tests.tiny_models import VOCAB_SIZE, PaddingCollator, bert, model_for, rows_for, word_tokenizer
from tests.tiny_trainers import loss_logs, trainer_for, unlabelled


# ---- Refused before the first step ----------------------------------------------------------------------------------


def test_no_teacher(tmp_path):
    with pytest.raises(MissingTeacherError, match=r"reads a teacher \(labels, soft\), and there is none.*`alpha=1`"):
        trainer_for(tmp_path, teacher=False)
    with pytest.raises(MissingTeacherError, match="there is none"):
        trainer_for(tmp_path, teacher=False, alpha=1.0, report_agreement=True)


def test_the_student_as_its_own_teacher_is_refused_unharmed(tmp_path):
    student = model_for("single_label", 1)
    with pytest.raises(MissingTeacherError, match="same BertForSequenceClassification object"):
        trainer_for(tmp_path, student=student, teacher=student)
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_plain_arguments(tmp_path):
    with pytest.raises(ConfigurationError, match=r"`args` is a TrainingArguments.*`DistillationTrainingArguments`"):
        DistillationTrainer(
            model=model_for("single_label", 1),
            args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True),
            teacher=model_for("single_label", 2),
        )


def test_a_temperature_that_an_objective_would_ignore(tmp_path):
    with pytest.raises(ConfigurationError, match=r"`args` has temperature=4\.0, alpha=0\.1, and `objective=` would"):
        DistillationTrainer(
            model=model_for("single_label", 1),
            teacher=model_for("single_label", 2),
            objective=recipes.hinton(),
            args=arguments(tmp_path, temperature=4.0, alpha=0.1),
        )


def test_different_classes(tmp_path):
    with pytest.raises(ClassMismatchError, match="student has 3 classes and the teacher 5"):
        trainer_for(tmp_path, teacher=bert(layers=2, num_labels=5))


def test_other_heads(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"a SingleLabelHead and the teacher .* a TokenClassificationHead"):
        trainer_for(tmp_path, teacher=model_for("tokens", 2))


def test_different_vocabularies(tmp_path):
    """The teacher's tokenizer is found where the teacher was loaded from."""
    words = ["[UNK]", *(f"w{index}" for index in range(1, VOCAB_SIZE))]
    model_for("masked", 2).save_pretrained(tmp_path / "teacher")
    word_tokenizer(*words[::-1]).save_pretrained(tmp_path / "teacher")
    with pytest.raises(VocabularyMismatchError, match=r"have 40 and 40 tokens.*id 0 is '\[UNK\]'.*and 'w39' for the"):
        trainer_for(tmp_path, "masked", teacher=tmp_path / "teacher", processing_class=word_tokenizer(*words))
    loaded = type(model_for("masked", 2)).from_pretrained(tmp_path / "teacher")
    with pytest.raises(VocabularyMismatchError, match="have 40 and 40 tokens"):
        trainer_for(tmp_path, "masked", teacher=loaded, processing_class=word_tokenizer(*words))
    trainer_for(tmp_path, "masked", teacher=tmp_path / "teacher", processing_class=word_tokenizer(*words[::-1]))


def test_a_teacher_saved_without_tokenizer(tmp_path):
    model_for("masked", 2).save_pretrained(tmp_path / "teacher")
    tokenizer = word_tokenizer("[UNK]", "w")
    trainer = trainer_for(tmp_path, "masked", teacher=tmp_path / "teacher", processing_class=tokenizer)
    assert trainer.teacher.model.config.vocab_size == trainer.model.config.vocab_size


def test_an_untrained_teacher(tmp_path):
    model_for("masked", 2).save_pretrained(tmp_path / "teacher")
    with pytest.raises(UntrainedTeacherError, match="no weights for 4 parameters of BertForSequenceClassification"):
        trainer_for(tmp_path, teacher=str(tmp_path / "teacher"))


@pytest.mark.parametrize(
    "options, name",
    [
        ({"rows": []}, "`train_dataset`"),
        ({"eval_dataset": []}, "`eval_dataset`"),
        ({"eval_dataset": {"seen": rows_for("single_label"), "new": []}}, r"`eval_dataset\['new'\]`"),
    ],
)
def test_an_empty_data_set(tmp_path, options, name):
    with pytest.raises(EmptyDatasetError, match=f"{name} has 0 rows"):
        trainer_for(tmp_path, **options)


@pytest.mark.parametrize("head", ["single_label", "answers", "masked", "causal"])
def test_no_labels(tmp_path, head):
    trainer = trainer_for(tmp_path, head, rows=unlabelled(rows_for(head)))
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    with pytest.raises(
        MissingInputError, match=r"reads labels \(labels, soft\), and the batch lacks \['(labels|start)"
    ):
        trainer.train()
    assert all(torch.equal(before[name], parameter) for name, parameter in trainer.model.named_parameters())


def test_a_teacher_of_other_inputs(tmp_path):
    class Viewer(type(model_for("single_label", 2))):
        main_input_name = "pixel_values"

    viewer = Viewer(model_for("single_label", 2).config)
    trainer = trainer_for(tmp_path, teacher=viewer)
    with pytest.raises(MissingInputError, match=r"Viewer reads 'pixel_values', and the batch has only \['attention"):
        trainer.train()
    assert trainer.state.global_step == 0


# ---- What moves and what does not -----------------------------------------------------------------------------------


class SpoilingCallback(TrainerCallback):
    """Puts the teacher in train mode wherever it can, and watches what becomes of it."""

    def __init__(self, teacher):
        self.teacher, self.modes = teacher, []

    def on_step_begin(self, args, state, control, **kwargs):
        self.teacher.train()

    def on_step_end(self, args, state, control, **kwargs):
        self.modes.append(any(module.training for module in self.teacher.modules()))


def test_the_student_moves_and_the_teacher_does_not(tmp_path):
    teacher = bert(layers=2, num_labels=3, hidden_dropout_prob=0.3)
    spoiler = SpoilingCallback(teacher)
    trainer = trainer_for(tmp_path, teacher=teacher, callbacks=[spoiler], weight_decay=0.1)
    students = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    teachers = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    trainer.train()
    assert spoiler.modes == [False, False]
    assert all(torch.equal(teachers[name], tensor) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in teacher.parameters())
    assert not any(torch.equal(students[name], p) for name, p in trainer.model.named_parameters() if p.ndim > 1)


def test_the_loss_falls(tmp_path):
    trainer = trainer_for(tmp_path, max_steps=30, per_device_train_batch_size=8, learning_rate=3e-2)
    trainer.train()
    first, *_, last = loss_logs(trainer)
    for name in ("loss", "loss/labels", "loss/soft"):
        assert last[name] < 0.85 * first[name]


def test_checkpoints_hold_the_student_alone(tmp_path):
    trainer = trainer_for(tmp_path, save_strategy="steps", save_steps=1)
    trainer.train()
    names = set(model_for("single_label", 1).state_dict())
    for step in (1, 2):
        checkpoint = tmp_path / f"checkpoint-{step}"
        assert set(load_file(checkpoint / "model.safetensors")) == names
        optimizer = torch.load(checkpoint / "optimizer.pt", weights_only=True)
        held = sum(len(group["params"]) for group in optimizer["param_groups"])
        assert held == len(list(trainer.model.parameters())) == len(optimizer["state"])
        assert json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"] == 1
        assert {path.suffix for path in checkpoint.iterdir()} == {".safetensors", ".json", ".pt", ".pth", ".bin"}
    trainer.save_model(tmp_path / "final")
    assert set(load_file(tmp_path / "final" / "model.safetensors")) == names


def test_alpha_1_needs_no_teacher_and_is_plain_fine_tuning(tmp_path):
    rows = rows_for("single_label")
    recorder = GradientRecorder()
    trainer = trainer_for(
        tmp_path,
        student=model_for("single_label", 1).double(),
        teacher=False,
        alpha=1.0,
        learning_rate=0.0,
        max_steps=1,
        per_device_train_batch_size=8,
        callbacks=[recorder],
    )
    trainer.train()
    models = model_for("single_label", 1).double().train(), model_for("single_label", 2).double().eval()
    means, expected = reference_gradients(*models, "single_label", rows, temperature=1.0, alpha=1.0)
    assert relative_difference(recorder.steps[0], expected) < 1e-6
    (log,) = loss_logs(trainer)
    assert log["loss/labels"] == pytest.approx(means["labels"], rel=1e-6)
    assert "loss/soft" not in log


@pytest.mark.parametrize("head", ["single_label", "causal", "masked", "tokens", "answers"])
def test_text_without_labels_is_learned_with_alpha_0(tmp_path, head):
    trainer = trainer_for(tmp_path, head, rows=unlabelled(rows_for(head)), alpha=0.0, max_steps=20, learning_rate=3e-2)
    trainer.train()
    first, *_, last = loss_logs(trainer)
    assert 0 < last["loss/soft"] < 0.7 * first["loss/soft"]
    assert "loss/labels" not in first


@pytest.mark.parametrize("head", ["masked", "tokens", "causal"])
def test_a_window_in_which_nothing_counts_gives_exactly_0(tmp_path, head):
    rows = [{**row, "labels": [-100] * len(row["labels"])} for row in rows_for(head)]
    steps, logs, _ = recorded_run(tmp_path, model_for(head, 1), model_for(head, 2), rows, batch_size=2, accumulation=4)
    assert [log[name] for log in logs for name in ("loss", "loss/labels", "loss/soft")] == [0.0, 0.0, 0.0]
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in steps[0].values())


# ---- Batches of other shapes ----------------------------------------------------------------------------------------


class Typed(PaddingCollator):
    """Adds token types that alternate, so that they matter."""

    def __call__(self, rows):
        batch = super().__call__([{key: row[key] for key in ("input_ids", "labels")} for row in rows])
        batch["token_type_ids"] = torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"]) % 2
        return batch


def test_columns_that_only_the_teacher_reads(tmp_path):
    config = DistilBertConfig(vocab_size=VOCAB_SIZE, dim=16, n_heads=2, hidden_dim=24, n_layers=1, num_labels=3)
    teacher = model_for("single_label", 2)
    rows = [{**row, "token_type_ids": [0] * len(row["input_ids"]), "idle": 1} for row in rows_for("single_label")]
    received = []
    student = DistilBertForSequenceClassification(config)
    student.register_forward_pre_hook(lambda module, args, kwargs: received.append(set(kwargs)), with_kwargs=True)
    trainer = trainer_for(
        tmp_path, student=student, teacher=teacher, rows=rows, data_collator=Typed(), report_agreement=True
    )
    assert "token_type_ids" in trainer.get_train_dataloader().collate_fn.signature_columns
    batch = next(iter(trainer.get_train_dataloader()))
    said = trainer.teacher.signals(batch).logits
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    assert torch.equal(said, teacher(**inputs).logits)
    inputs.pop("token_type_ids")
    assert not torch.allclose(said, teacher(**inputs).logits, atol=1e-2)
    trainer.train()
    trainer.evaluate(rows)
    trainer.predict([{key: row[key] for key in row if key != "labels"} | {"labels": 0} for row in rows])
    own = {"input_ids", "attention_mask"}
    assert received and all(names in (own, own | {"labels"}) for names in received)


def test_unlabelled_prediction_spares_the_student_the_teachers_columns(tmp_path):
    config = DistilBertConfig(vocab_size=VOCAB_SIZE, dim=16, n_heads=2, hidden_dim=24, n_layers=1, num_labels=3)
    student = DistilBertForSequenceClassification(config)

    def collate(rows):
        batch = PaddingCollator()(rows)
        return {**batch, "token_type_ids": torch.zeros_like(batch["input_ids"])}

    trainer = trainer_for(tmp_path, student=student, data_collator=collate)
    output = trainer.predict(unlabelled(rows_for("single_label")))
    assert output.predictions.shape == (8, 3) and output.label_ids is None


class LeftPadding(PaddingCollator):
    def __call__(self, rows):
        batch = super().__call__(rows)
        lengths = batch["attention_mask"].sum(1)
        shifts = batch["attention_mask"].shape[1] - lengths
        rolled = {
            name: torch.stack([row.roll(int(shift)) for row, shift in zip(values, shifts, strict=True)])
            for name, values in batch.items()
        }
        positions = rolled["attention_mask"].cumsum(1) - 1
        return {**rolled, "position_ids": positions.clamp(min=0)}


class Shifted(PaddingCollator):
    """Gives labels as some collators do: already aligned with the logits."""

    def __call__(self, rows):
        batch = super().__call__(rows)
        return {**batch, "shift_labels": torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)}


@pytest.mark.parametrize("collator", [LeftPadding(), Shifted()], ids=lambda collator: type(collator).__name__)
def test_causal_batches_of_other_shapes(tmp_path, collator):
    rows = rows_for("causal")
    recorder = GradientRecorder()
    trainer = trainer_for(
        tmp_path,
        "causal",
        student=model_for("causal", 1).double(),
        teacher=model_for("causal", 2).double(),
        data_collator=collator,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_steps=1,
        learning_rate=0.0,
        temperature=3.0,
        alpha=0.3,
        callbacks=[recorder],
    )
    trainer.train()
    models = model_for("causal", 1).double().train(), model_for("causal", 2).double().eval()
    means, expected = reference_gradients(*models, "causal", rows, temperature=3.0, alpha=0.3)
    assert relative_difference(recorder.steps[0], expected) < 1e-6
    (log,) = loss_logs(trainer)
    assert log["loss/labels"] == pytest.approx(means["labels"], rel=1e-6)
    assert log["loss/soft"] == pytest.approx(means["soft"], rel=1e-6)


class Stream(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_a_stream_that_ends_inside_a_window_leaks_nothing_into_the_next_epoch(tmp_path):
    """3 batches of 2 rows in windows of 2: the third is left out, and each epoch's step is that of rows 0 to 3."""
    rows = rows_for("single_label")[:6]
    recorder = GradientRecorder()
    trainer = trainer_for(
        tmp_path,
        student=model_for("single_label", 1).double(),
        teacher=model_for("single_label", 2).double(),
        rows=Stream(rows),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=3,
        learning_rate=0.0,
        temperature=3.0,
        alpha=0.3,
        callbacks=[recorder],
    )
    trainer.train()
    assert trainer.state.global_step == 3
    models = model_for("single_label", 1).double().train(), model_for("single_label", 2).double().eval()
    means, expected = reference_gradients(*models, "single_label", rows[:4], temperature=3.0, alpha=0.3)
    assert [relative_difference(step, expected) < 1e-6 for step in recorder.steps] == [True] * 3
    assert [log["loss/soft"] for log in loss_logs(trainer)] == pytest.approx([means["soft"]] * 3, rel=1e-6)


# ---- Numbers --------------------------------------------------------------------------------------------------------


def test_bfloat16_is_close_to_float32(tmp_path):
    dtypes, logs = [], {}
    for bf16 in (False, True):
        options = {"bf16": bf16, "learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 8}
        trainer = trainer_for(tmp_path, preflight=False, **options)
        for model in (trainer.model, trainer.teacher.model):
            model.classifier.register_forward_hook(lambda module, args, output: dtypes.append(output.dtype))
        trainer.train()
        (logs[bf16],) = loss_logs(trainer)
    assert dtypes == [torch.float32] * 2 + [torch.bfloat16] * 2
    for name in ("loss", "loss/labels", "loss/soft"):
        assert logs[True][name] == pytest.approx(logs[False][name], rel=0.05)
        assert logs[True][name] != logs[False][name]


class Scorer(torch.nn.Module):
    """A model that no library knows: a mean of embeddings, scored under another name than `logits`."""

    main_input_name = "input_ids"
    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.embedding, self.out = torch.nn.Embedding(VOCAB_SIZE, 8), torch.nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask, labels=None):
        pooled = (self.embedding(input_ids) * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        scores = self.out(pooled)
        outputs = {"scores": scores}
        return outputs if labels is None else {"loss": torch.nn.functional.cross_entropy(scores, labels), **outputs}


class ScorerHead(Head):
    def logits(self, outputs, batch):
        return outputs["scores"]

    def mask(self, batch):
        return torch.ones(len(batch["input_ids"]), dtype=torch.bool)


def test_a_head_for_a_model_that_we_do_not_know(tmp_path):
    with pytest.raises(UnsupportedModelError, match=r"Scorer has no head .* pass it as `head=`"):
        trainer_for(tmp_path, student=Scorer(), teacher=Scorer())
    torch.manual_seed(1)
    student, teacher = Scorer(), Scorer()
    with torch.no_grad():
        batch = PaddingCollator()(rows_for("single_label"))
        inputs = batch["input_ids"], batch["attention_mask"]
        mine, yours = student(*inputs)["scores"], teacher(*inputs)["scores"]
    trainer = trainer_for(
        tmp_path,
        student=student,
        teacher=teacher,
        head=ScorerHead(),
        max_steps=1,
        per_device_train_batch_size=8,
        temperature=2.0,
        save_strategy="steps",
    )
    trainer.train()
    (log,) = loss_logs(trainer)
    q, p = (torch.softmax(scores / 2, dim=-1) for scores in (mine, yours))
    assert log["loss/soft"] == pytest.approx(4 * (p * (p.log() - q.log())).sum(-1).mean().item(), rel=1e-4)
    labels = batch["labels"]
    assert log["loss/labels"] == pytest.approx(-mine.log_softmax(-1)[range(8), labels].mean().item(), rel=1e-4)


def test_a_teacher_that_is_ready_made(tmp_path):
    teacher = OnlineTeacher(model_for("single_label", 2), SingleLabelHead())
    trainer = trainer_for(tmp_path, teacher=teacher)
    assert trainer.teacher is teacher
    trainer.train()
    assert loss_logs(trainer)[-1]["loss/soft"] > 0


def test_batches_that_share_a_tensor_count_apart(tmp_path):
    """A collator may make a mask once, and the labels of each batch count in other places all the same."""
    ones = torch.ones(4, 8, dtype=torch.long)
    rows = [
        {"input_ids": (row["input_ids"] * 8)[:8], "labels": [-100] * index + (row["labels"] * 8)[index:8]}
        for index, row in enumerate(rows_for("causal"))
    ]

    def collator_of(mask):
        return lambda rows: {
            "attention_mask": mask(),
            **{name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "labels")},
        }

    options = {"rows": rows, "max_steps": 1, "gradient_accumulation_steps": 2, "preflight": False}
    logs = []
    for collator in (collator_of(ones.clone), collator_of(lambda: ones)):
        trainer = trainer_for(tmp_path, "causal", data_collator=collator, **options)
        trainer.train()
        logs.append(loss_logs(trainer)[0])
    assert logs[0] == logs[1] and logs[0]["loss/labels"] > 0
