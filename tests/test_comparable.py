"""Pairs whose classes or vocabularies differ on paper, and train as the pair that does not."""

import copy

import pytest
import torch
from transformers import BertForMaskedLM

from hf_distill.errors import ClassMismatchError, VocabularyMismatchError
from hf_distill.heads import alignment
from tests.gradients import GradientRecorder, relative_difference
from tests.tiny_models import VOCAB_SIZE, bert, listener, llama, model_for, rows_for, word_tokenizer
from tests.tiny_trainers import loss_logs, trainer_for


NAMES = ("sad", "happy", "angry")
ORDER = [2, 0, 1]
"""The permuted teacher's class i is the other's class ORDER[i]."""
TOKENS = ["[UNK]", *(f"w{index}" for index in range(1, VOCAB_SIZE))]


def named(model, names=NAMES):
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return model


def with_classes(model, order, names=NAMES):
    """The model with its classes in another order, or some of them: the rows of its classifier and its `id2label`."""
    model = copy.deepcopy(model)
    model.classifier.weight = torch.nn.Parameter(model.classifier.weight[order].clone())
    model.classifier.bias = torch.nn.Parameter(model.classifier.bias[order].clone())
    model.classifier.out_features = len(order)
    model.num_labels = len(order)
    return named(model, [names[index] for index in order])


class Reordered(torch.nn.Module):
    """A classifier whose scores come in another order, each with the very bits that it had.

    Reordered rows of a matrix are another product, whose last bits depend on the processor.
    """

    def __init__(self, classifier, order):
        super().__init__()
        self.classifier, self.order = classifier, order

    def forward(self, hidden):
        return self.classifier(hidden)[..., self.order]


def trained(output_dir, task, student, teacher, **changes):
    trainer = trainer_for(output_dir, task, student=student, teacher=teacher, max_steps=5, **changes)
    trainer.train()
    return trainer


@pytest.mark.parametrize("task", ["single_label", "multi_label", "tokens"])
def test_a_permuted_teacher_gives_the_same_training_bit_for_bit(tmp_path, task):
    teacher = named(model_for(task, 2))
    permuted = with_classes(teacher, ORDER)
    permuted.classifier = Reordered(copy.deepcopy(teacher.classifier), ORDER)
    ignored = named(copy.deepcopy(permuted))
    runs = {
        name: trained(tmp_path, task, named(model_for(task, 1)), model, alpha=0.3, eval_dataset=rows_for(task))
        for name, model in {"plain": teacher, "permuted": permuted, "ignored": ignored}.items()
    }
    weights = {name: run.model.state_dict() for name, run in runs.items()}
    start = named(model_for(task, 1)).state_dict()
    for name, value in weights["plain"].items():
        assert torch.equal(value, weights["permuted"][name])
    assert not torch.equal(weights["plain"]["classifier.weight"], start["classifier.weight"])
    assert not torch.equal(weights["plain"]["classifier.weight"], weights["ignored"]["classifier.weight"])
    kept = ("loss", "loss/labels", "loss/soft")
    plain, other = ([{key: log[key] for key in kept} for log in loss_logs(runs[n])] for n in ("plain", "permuted"))
    assert plain == other
    assert len(plain) == 5


@pytest.mark.parametrize("task", ["single_label", "multi_label", "tokens"])
def test_a_teacher_with_permuted_rows_gives_the_same_gradient(tmp_path, task):
    teacher = named(model_for(task, 2))
    expected = gradients_of(tmp_path, task, named(model_for(task, 1)), copy.deepcopy(teacher))
    found = gradients_of(tmp_path, task, named(model_for(task, 1)), with_classes(teacher, ORDER))
    ignored = gradients_of(tmp_path, task, named(model_for(task, 1)), named(with_classes(teacher, ORDER)))
    assert relative_difference(found, expected) < 1e-12
    assert relative_difference(ignored, expected) > 1e-2


def test_the_axis_of_the_classes_follows_the_labels(tmp_path):
    """Labels of floats, one a class, make a choice of many where no configuration says what the problem is."""
    rows, teacher = rows_for("multi_label"), named(model_for("single_label", 2))
    expected, found = (
        gradients_of(tmp_path, "multi_label", named(model_for("single_label", 1)), with_classes(teacher, order), rows)
        for order in ([0, 1, 2], ORDER)
    )
    assert relative_difference(found, expected) < 1e-12


@pytest.mark.parametrize("task", ["single_label", "multi_label", "tokens"])
def test_agreement_counts_classes_by_name(tmp_path, task):
    student = named(model_for(task, 1))
    metrics = {}
    for name, order in {"same": [0, 1, 2], "permuted": ORDER}.items():
        teacher = with_classes(student, order)
        trainer = trainer_for(
            tmp_path, task, student=named(model_for(task, 1)), teacher=teacher, report_agreement=True
        )
        metrics[name] = trainer.evaluate(rows_for(task))
    assert metrics["permuted"]["eval_agreement"] == metrics["same"]["eval_agreement"] == 1.0
    assert metrics["permuted"]["eval_loss/soft"] == pytest.approx(0.0, abs=1e-6)


def gradients_of(output_dir, task, student, teacher, rows=None, **changes):
    recorder = GradientRecorder()
    options = {"learning_rate": 0.0, "max_steps": 1, "per_device_train_batch_size": 8, **changes}
    trainer = trainer_for(
        output_dir,
        task,
        student=student.double(),
        teacher=teacher.double(),
        rows=rows,
        callbacks=[recorder],
        **options,
    )
    trainer.train()
    return recorder.steps[0]


@pytest.mark.parametrize("task", ["single_label", "multi_label", "tokens"])
def test_a_student_of_some_classes_learns_the_teacher_renormalised_over_them(tmp_path, task):
    """As from a teacher that never had the other class, whose rows are cut out of its classifier."""
    some = [2, 0]
    teacher = named(model_for(task, 2))
    rows = [{"input_ids": row["input_ids"]} for row in rows_for(task)]

    def student():
        return with_classes(named(model_for(task, 1)), some)

    found = gradients_of(tmp_path, task, student(), copy.deepcopy(teacher), rows, alpha=0)
    expected = gradients_of(tmp_path, task, student(), with_classes(teacher, some), rows, alpha=0)
    assert relative_difference(found, expected) < 1e-9
    assert found["classifier.weight"].shape[0] == 2
    assert found["classifier.weight"].norm() > 1e-3


def test_a_teacher_of_some_classes(tmp_path):
    with pytest.raises(ClassMismatchError, match=r"\['sad', 'happy', 'angry'\] and .* which lacks \['angry'\]"):
        trainer_for(
            tmp_path, student=named(bert(num_labels=3)), teacher=bert(layers=2, id2label={0: "happy", 1: "sad"})
        )


def test_a_number_needs_no_name(tmp_path):
    student, teacher = named(model_for("regression", 1), ["stars"]), named(model_for("regression", 2), ["rating"])
    trainer = trainer_for(tmp_path, "regression", student=student, teacher=teacher)
    before = copy.deepcopy(student.state_dict())
    trainer.train()
    assert any(not torch.equal(before[name], weight) for name, weight in student.state_dict().items())


def padded(model, num_rows):
    """The model with further rows in its vocabulary, of which it is very sure."""
    model = copy.deepcopy(model)
    model.resize_token_embeddings(VOCAB_SIZE + num_rows, mean_resizing=False)
    with torch.no_grad():
        output = model.get_output_embeddings()
        output.weight[VOCAB_SIZE:] = 3 * output.weight[:num_rows]
    return model


def language_model(task, layers):
    if task == "causal":
        return llama(layers=layers)
    return bert(BertForMaskedLM, layers=layers, tie_word_embeddings=False)


@pytest.mark.parametrize("task", ["masked", "causal"])
@pytest.mark.parametrize("student_rows, teacher_rows, alpha", [(0, 8, 0.3), (8, 0, 0.0), (4, 8, 0.0), (8, 4, 0.0)])
def test_padded_vocabularies_give_the_gradient_of_unpadded_ones(tmp_path, task, student_rows, teacher_rows, alpha):
    """With alpha = 0 where the student is padded: its own loss on the labels is the model's, padding included."""
    word_tokenizer(*TOKENS).save_pretrained(tmp_path / "teacher")
    pairs = {"padded": (student_rows, teacher_rows), "plain": (0, 0)}
    gradients = {}
    for name, (ours, theirs) in pairs.items():
        student, teacher = padded(language_model(task, 1), ours), padded(language_model(task, 2), theirs)
        teacher.name_or_path = str(tmp_path / "teacher")
        tokenizer = word_tokenizer(*TOKENS)
        gradients[name] = gradients_of(tmp_path, task, student, teacher, processing_class=tokenizer, alpha=alpha)
    for name, gradient in gradients["padded"].items():
        if gradient.shape != gradients["plain"][name].shape:
            assert (gradient[VOCAB_SIZE:] == 0).all()
            gradients["padded"][name] = gradient[:VOCAB_SIZE]
    assert relative_difference(gradients["padded"], gradients["plain"]) < 1e-9
    assert all(gradient.isfinite().all() for gradient in gradients["padded"].values())
    assert torch.stack([gradient.norm() for gradient in gradients["plain"].values()]).norm() > 1e-3


def test_agreement_of_padded_vocabularies_is_over_tokens(tmp_path):
    """The padded teacher likes its padding best, and still agrees with the student that it is made of."""
    student = language_model("causal", 1)
    teacher = padded(student, 8)
    tokenizer = word_tokenizer(*TOKENS)
    trainer = trainer_for(
        tmp_path, "causal", student=student, teacher=teacher, report_agreement=True, processing_class=tokenizer
    )
    metrics = trainer.evaluate(rows_for("causal"))
    inputs = torch.tensor([rows_for("causal")[1]["input_ids"]])
    assert (teacher(inputs).logits.argmax(-1) >= VOCAB_SIZE).any()
    assert metrics["eval_agreement"] == 1.0
    assert metrics["eval_loss/soft"] == pytest.approx(0.0, abs=1e-6)


def test_further_rows_that_nothing_explains(tmp_path):
    with pytest.raises(VocabularyMismatchError, match="vocab_size 40 and the teacher 48, and without a tokenizer"):
        trainer_for(tmp_path, "causal", teacher=padded(language_model("causal", 2), 8))


def test_a_permuted_vocabulary_of_another_size(tmp_path):
    """Both read the same token ids, so no order of the outputs can make up for it."""
    teacher = padded(language_model("masked", 2), 8)
    teacher.name_or_path = str(tmp_path / "teacher")
    word_tokenizer(*TOKENS[::-1]).save_pretrained(tmp_path / "teacher")
    with pytest.raises(VocabularyMismatchError, match=r"have 40 and 40 tokens, and 40 token ids stand for different"):
        trainer_for(tmp_path, "masked", teacher=teacher, processing_class=word_tokenizer(*TOKENS))


def test_the_teachers_tokenizer_alone_is_taken_for_both(tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(alignment.logger, "warning_once", warnings.append)
    word_tokenizer(*TOKENS).save_pretrained(tmp_path / "teacher")
    padded(language_model("causal", 2), 8).save_pretrained(tmp_path / "teacher")
    trainer = trainer_for(tmp_path, "causal", teacher=tmp_path / "teacher", report_agreement=True)
    trainer.train()
    (warning,) = set(warnings)
    assert "vocab_size 40 and the teacher 48. Only one tokenizer is at hand, with 40 tokens" in warning


LETTERS = ["[PAD]", "[UNK]", "a", "b", "c", "d"]


def letter_tokenizer(letters, unknown):
    tokenizer = word_tokenizer(*letters)
    tokenizer.unk_token = unknown
    return tokenizer


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_teacher_that_writes_with_permuted_letters_gives_the_same_gradient(tmp_path, is_ignored):
    """Its blank stands elsewhere and is called otherwise, its letters are capitals, and there are rows of padding."""
    order = [3, 5, 0, 2, 4, 1]
    names = {"[PAD]": "<blank>", "[UNK]": "<unk>", "a": "A", "b": "B", "c": "C", "d": "D"}
    teacher = listener(layers=2)
    gradients = []
    for is_permuted in (False, True):
        model = copy.deepcopy(teacher)
        folder = tmp_path / str(is_permuted)
        letters, unknown = LETTERS, "[UNK]"
        if is_permuted:
            weight, bias = model.lm_head.weight.data, model.lm_head.bias.data
            padding = torch.full((2,), 9.0)
            model.lm_head.weight.data = torch.cat((weight[order], weight[:2]))
            model.lm_head.bias.data = torch.cat((bias[order], padding))
            model.config.vocab_size, model.config.pad_token_id = 8, order.index(0)
            letters, unknown = [names[LETTERS[index]] for index in order], "<unk>"
            if is_ignored:
                letters[:2] = letters[1::-1]
        letter_tokenizer(letters, unknown).save_pretrained(folder)
        model.name_or_path = str(folder)
        processing_class = letter_tokenizer(LETTERS, "[UNK]")
        rows = [row | {"labels": [1 + label % 5 for label in row["labels"]]} for row in rows_for("transcripts")]
        gradients.append(
            gradients_of(tmp_path, "transcripts", listener(), model, rows, processing_class=processing_class)
        )
    difference = relative_difference(gradients[1], gradients[0])
    assert difference > 1e-2 if is_ignored else difference < 1e-12
