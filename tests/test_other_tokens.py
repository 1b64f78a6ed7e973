"""A causal student learns from a teacher with another tokenizer, where both have read the same text."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import BertForMaskedLM, DataCollatorForLanguageModeling, PreTrainedTokenizer

from hf_distill import (
    DistillationTrainer,
    Objective,
    SoftTargetTerm,
    check_invariances,
    preflight_report,
    recipes,
)
from hf_distill.errors import ConfigurationError, VocabularyMismatchError
from tests.gradients import GradientRecorder, arguments, relative_difference
from tests.text_tokenizers import (
    TEXTS,
    byte_pair_tokenizer,
    points,
    unigram_tokenizer,
    wordpiece_tokenizer,
)
from tests.tiny_models import bert, llama
from tests.tiny_trainers import loss_logs


TEMPERATURE, WEIGHT = 2.0, 1.5
TEACHERS = {"word pieces": wordpiece_tokenizer, "unigrams": unigram_tokenizer}
NO_MATCH = "😀"
"""Its only point to compare at is its last token, which predicts nothing."""
ROWS = (*TEXTS, "hello  there", "x\n", NO_MATCH, "naïve words", " the end")


def text_rows(tokenizer=None, texts=ROWS, **options):
    tokenizer = tokenizer or byte_pair_tokenizer()
    return [{"text": text, "number": i, **tokenizer(text, **options)} for i, text in enumerate(texts)]


def uld():
    return recipes.uld(temperature=TEMPERATURE, weight=WEIGHT)


def model_of(tokenizer, layers=1):
    return llama(layers=layers, vocab_size=len(tokenizer))


def text_trainer(output_dir, rows=None, teacher_tokenizer=None, recorder=None, **changes):
    """Eight rows in float64; `student_tokenizer` and what the Trainer takes by name among `changes`."""
    student_tokenizer = changes.pop("student_tokenizer", byte_pair_tokenizer())
    teacher_tokenizer = teacher_tokenizer or wordpiece_tokenizer()
    multiple = changes.pop("pad_to_multiple_of", None)
    options = {
        "model": model_of(student_tokenizer).double(),
        "teacher": model_of(teacher_tokenizer, 2).double(),
        "objective": uld(),
        "processing_class": student_tokenizer,
        "teacher_processing_class": teacher_tokenizer,
        "data_collator": DataCollatorForLanguageModeling(student_tokenizer, mlm=False, pad_to_multiple_of=multiple),
        "teacher_columns": None,
        "eval_dataset": None,
    }
    options |= {name: changes.pop(name) for name in options.keys() & changes.keys()}
    defaults = {"temperature": 2.0, "alpha": 0.5, "num_train_epochs": 1, "per_device_train_batch_size": 8}
    return DistillationTrainer(
        args=arguments(output_dir, **{**defaults, **changes}),
        train_dataset=Dataset.from_list(text_rows(student_tokenizer)) if rows is None else rows,
        callbacks=[recorder] if recorder else [],
        **options,
    )


def gradients_of(output_dir, rows=None, teacher_tokenizer=None, **changes):
    recorder = GradientRecorder()
    text_trainer(output_dir, rows, teacher_tokenizer, recorder, **changes).train()
    (gradients,) = recorder.steps
    return gradients


def sorted_distance(student, teacher):
    q, p = (torch.softmax(logits / TEMPERATURE, -1) for logits in (student, teacher))
    q, p = ([values[i] for i in values.detach().argsort(descending=True)] for values in (q, p))
    zero = torch.zeros((), dtype=torch.double)
    longest = max(len(p), len(q))
    p, q = (values + [zero] * (longest - len(values)) for values in (p, q))
    return TEMPERATURE * sum(abs(p_i - q_i) for p_i, q_i in zip(p, q, strict=True))


@cache
def reference(teacher_tokenizer, texts=ROWS, num_tokens=None, num_teacher_tokens=None):
    """The formula, one unpadded row at a time, over all pairs of positions that end at the same character."""
    student, teacher = model_of(byte_pair_tokenizer()).double(), model_of(teacher_tokenizer, 2).double()
    labels, distances = [], []
    for text in texts:
        ids = byte_pair_tokenizer()(text)["input_ids"][:num_tokens]
        teacher_ids = teacher_tokenizer(text, truncation=True, max_length=num_teacher_tokens or 1000)["input_ids"]
        (ours,) = student(input_ids=torch.tensor([ids])).logits
        with torch.no_grad():
            (theirs,) = teacher(input_ids=torch.tensor([teacher_ids])).logits
        for i in range(len(ids) - 1):
            labels.append(cross_entropy(ours[i], torch.tensor(ids[i + 1])))
        kept = len(teacher_ids) - (1 if num_teacher_tokens == len(teacher_ids) else 0)  # all but a [SEP] put in place
        for i, end in points(byte_pair_tokenizer(), text, len(ids) - 1).items():
            for j, other in points(teacher_tokenizer, text, kept).items():
                if end == other:
                    distances.append(sorted_distance(ours[i], theirs[j]))
    means = torch.stack(labels).mean(), torch.stack(distances).mean()
    (means[0] + WEIGHT * means[1]).backward()
    return [mean.item() for mean in means], {n: p.grad for n, p in student.named_parameters()}, len(distances)


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("batch_size, accumulation, multiple", [(8, 1, None), (2, 4, None), (1, 8, None), (4, 2, 16)])
def test_the_gradient_is_that_of_the_formula(tmp_path, teacher, batch_size, accumulation, multiple):
    recorder = GradientRecorder()
    trainer = text_trainer(
        tmp_path,
        teacher_tokenizer=TEACHERS[teacher](),
        recorder=recorder,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        pad_to_multiple_of=multiple,
    )
    trainer.train()
    (labels, soft), expected, num_pairs = reference(TEACHERS[teacher]())
    assert num_pairs > 20
    assert relative_difference(recorder.steps[0], expected) < 1e-6
    (log,) = loss_logs(trainer)
    assert log["loss/labels"] == pytest.approx(labels, rel=1e-6)
    assert log["loss/soft"] == pytest.approx(soft, rel=1e-6)


@pytest.mark.parametrize("teacher", TEACHERS)
def test_without_the_soft_term_or_with_wrong_positions_it_is_another_one(tmp_path, teacher, monkeypatch):
    """So the equality above says something about both."""
    _, expected, _ = reference(TEACHERS[teacher]())
    alone = gradients_of(tmp_path, teacher_tokenizer=TEACHERS[teacher](), objective=recipes.uld(weight=1e-9))
    assert relative_difference(alone, expected) > 1e-2
    shifted = lambda ours, theirs: np.where(ours >= 0, 0, -1)  # noqa: E731
    monkeypatch.setattr("hf_distill.teacher_inputs.corresponding_positions", shifted)
    assert relative_difference(gradients_of(tmp_path, teacher_tokenizer=TEACHERS[teacher]()), expected) > 1e-3


@pytest.mark.parametrize("sides", [("left", "right"), ("right", "left"), ("left", "left")])
def test_padding_on_either_side(tmp_path, sides):
    """LLaMA's positions are relative, so that padding on the left changes nothing else."""
    tokenizers = [copy.deepcopy(tokenizer()) for tokenizer in (byte_pair_tokenizer, wordpiece_tokenizer)]
    for tokenizer, side in zip(tokenizers, sides, strict=True):
        tokenizer.padding_side = side
    ours, theirs = tokenizers
    gradients = gradients_of(tmp_path, student_tokenizer=ours, teacher_tokenizer=theirs)
    assert relative_difference(gradients, reference(wordpiece_tokenizer())[1]) < 1e-6


def test_the_order_of_the_rows(tmp_path):
    forth, back = (gradients_of(tmp_path, Dataset.from_list(text_rows()[::step])) for step in (1, -1))
    assert relative_difference(forth, back) < 1e-6


def test_truncated_rows(tmp_path):
    rows = Dataset.from_list(text_rows(truncation=True, max_length=5))
    teacher = llama(2, vocab_size=len(wordpiece_tokenizer()), max_position_embeddings=9).double()
    found = gradients_of(tmp_path, rows, teacher=teacher)
    _, expected, _ = reference(wordpiece_tokenizer(), num_tokens=5, num_teacher_tokens=9)
    assert relative_difference(found, expected) < 1e-6


def test_labels_that_leave_a_prompt_out(tmp_path):
    """Positions are compared where the labels count, and only there."""
    trainer = text_trainer(tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    whole = trainer.head.positions(batch).mask
    batch["labels"][:, :4] = -100
    assert torch.equal(trainer.head.positions(batch).mask[:, 3:], whole[:, 3:])
    assert not trainer.head.positions(batch).mask[:, :3].any()
    assert whole[:, :3].any()


def test_what_the_batch_holds(tmp_path):
    trainer = text_trainer(tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["teacher_positions"].shape == batch["input_ids"].shape
    assert not {"text", "number", "offset_mapping"} & set(batch)
    student, teacher = byte_pair_tokenizer(), wordpiece_tokenizer()
    row = [
        (student.convert_ids_to_tokens(mine), teacher.convert_ids_to_tokens(batch["teacher_input_ids"][3, j].item()))
        for mine, j in zip(batch["input_ids"][3].tolist(), batch["teacher_positions"][3].tolist(), strict=True)
        if j >= 0
    ]
    assert row[0] == ("hello", "hello")
    assert len(row) >= 2
    signals = trainer.teacher.signals(batch)
    assert signals.logits.shape == (*batch["input_ids"].shape, len(teacher))
    assert not signals.logits.is_inference()


def test_it_learns_and_evaluates(tmp_path):
    rows = Dataset.from_list(text_rows())
    trainer = text_trainer(
        tmp_path,
        model=model_of(byte_pair_tokenizer()),
        teacher=model_of(wordpiece_tokenizer(), 2),
        eval_dataset=rows,
        learning_rate=3e-2,
        num_train_epochs=30,
    )
    before = trainer.evaluate()
    start, teacher = copy.deepcopy(trainer.model.state_dict()), copy.deepcopy(trainer.teacher.model.state_dict())
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss/soft"] < 0.7 * before["eval_loss/soft"]
    assert after["eval_loss/labels"] < before["eval_loss/labels"]
    assert after["eval_loss"] == pytest.approx(after["eval_loss/labels"] + WEIGHT * after["eval_loss/soft"])
    assert any(not torch.equal(start[name], value) for name, value in trainer.model.state_dict().items())
    assert all(torch.equal(teacher[name], value) for name, value in trainer.teacher.model.state_dict().items())


def test_the_invariances_hold_and_no_score_is_made_up(tmp_path):
    trainer = text_trainer(tmp_path)
    report = check_invariances(trainer)
    assert report.held, str(report)
    assert report["accumulation"].difference is not None and report["padding"].difference is not None
    rehearsed = preflight_report(trainer)
    assert rehearsed.teacher is None
    assert rehearsed.terms["soft"].count < rehearsed.terms["labels"].count


def test_the_same_tokenizer_gives_the_same_positions_and_training(tmp_path):
    """Where no character takes several tokens, any objective learns as without a tokenizer for the teacher."""
    rows = Dataset.from_list(text_rows(texts=[text for text in ROWS if text.isascii()]))
    trainer = text_trainer(tmp_path, rows, byte_pair_tokenizer(), objective=recipes.hinton(TEMPERATURE, 0.5))
    batch = next(iter(trainer.get_train_dataloader()))
    real = batch["attention_mask"].bool()
    own = torch.arange(real.shape[1]).expand_as(real)
    # A blank that trimmed spans say nothing of is the only exception.
    assert batch["teacher_positions"][real].ne(own[real]).sum() <= 1
    changes = {"objective": recipes.hinton(TEMPERATURE, 0.5)}
    rows = rows.filter(lambda row: not row["text"].startswith(" "))
    apart = gradients_of(tmp_path, rows, byte_pair_tokenizer(), **changes)
    together = gradients_of(tmp_path, rows, byte_pair_tokenizer(), teacher_processing_class=None, **changes)
    assert relative_difference(apart, together) < 1e-9


def test_the_default_objective_is_refused_by_name(tmp_path):
    with pytest.raises(
        VocabularyMismatchError, match=r"'soft' \(SoftTargetTerm\).*`objective=recipes\.uld\(\)`, which compares"
    ):
        text_trainer(tmp_path, objective=None)
    text_trainer(tmp_path, objective=None, alpha=1.0)  # reads labels alone


def test_agreement_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"`report_agreement=True` counts .* different vocabularies"):
        text_trainer(tmp_path, report_agreement=True)


def test_without_a_tokenizer_for_the_teacher_the_recipe_is_named(tmp_path):
    teacher = model_of(wordpiece_tokenizer(), 2)
    teacher.save_pretrained(tmp_path / "teacher")
    wordpiece_tokenizer().save_pretrained(tmp_path / "teacher")
    with pytest.raises(VocabularyMismatchError, match=r"`teacher_processing_class=`.*`objective=recipes\.uld\(\)`"):
        text_trainer(tmp_path, teacher=tmp_path / "teacher", teacher_processing_class=None, objective=uld())


def test_masked_models_are_refused_with_the_reason(tmp_path):
    with pytest.raises(ConfigurationError, match=r"MaskedLMHead lie on tokens.* under masks that hide other char"):
        text_trainer(tmp_path, model=bert(BertForMaskedLM, 1), teacher=bert(BertForMaskedLM, 2))


class Characters(PreTrainedTokenizer):
    """A tokenizer in Python, which knows no offsets."""

    vocab_size = 128

    def get_vocab(self):
        return {chr(index): index for index in range(self.vocab_size)}

    def _tokenize(self, text, **kwargs):
        return list(text)

    def _convert_token_to_id(self, token):
        return ord(token) % self.vocab_size

    def _convert_id_to_token(self, index):
        return chr(index)


def test_tokenizers_that_know_no_characters(tmp_path):
    with pytest.raises(ConfigurationError, match=r"`processing_class` is a NoneType.*fast tokenizer as `processing_c"):
        text_trainer(tmp_path, processing_class=None)
    with pytest.raises(ConfigurationError, match=r"`teacher_processing_class` is a Characters, .* Pass a fast"):
        text_trainer(tmp_path, teacher_processing_class=Characters())


def test_text_that_cannot_be_matched(tmp_path):
    pairs = [{"a": row["text"], "b": row["text"], "input_ids": row["input_ids"]} for row in text_rows()]
    with pytest.raises(ConfigurationError, match=r"raw columns of text are \['a', 'b'\].*holds the whole text"):
        text_trainer(tmp_path, pairs, teacher_columns=["a", "b"])
    ready = [{**row, "teacher_input_ids": [5, 6]} for row in text_rows()]
    with pytest.raises(ConfigurationError, match=r"are \[\]\. .*leave out columns .*\(`teacher_input_ids`\)"):
        text_trainer(tmp_path, ready)


def test_a_row_whose_tokens_are_not_those_of_its_text(tmp_path):
    rows = text_rows()
    rows[2]["text"] = "another text"
    trainer = text_trainer(tmp_path, rows, teacher_columns="text")
    with pytest.raises(ConfigurationError, match="where its text 'another text' gives token id"):
        next(iter(trainer.get_train_dataloader()))


def test_the_end_of_a_text_may_be_appended(tmp_path):
    """As language models are often trained; the column must then be named."""
    tokenizer = byte_pair_tokenizer()
    rows = [{"text": text, "input_ids": [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]} for text in TEXTS]
    trainer = text_trainer(tmp_path, rows, teacher_columns="text")
    batch = next(iter(trainer.get_train_dataloader()))
    for i, row in enumerate(rows):
        last = len(row["input_ids"]) - 1
        assert batch["teacher_positions"][i, last - 1] >= 0
        assert (batch["teacher_positions"][i, last:] == -1).all()


def test_another_term_beside_it_is_named(tmp_path):
    objective = Objective({"uld": (1.0, recipes.uld()), "more": (1.0, SoftTargetTerm())})
    with pytest.raises(VocabularyMismatchError, match=r"token: 'more' \(SoftTargetTerm\)\. Pass"):
        text_trainer(tmp_path, objective=objective)
