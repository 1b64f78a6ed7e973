"""What models say, in words."""

import pytest

from hf_distill.report.answers import MAX_TEXT, collect
from tests.report.tiny_reports import baseline_for, reported_trainer, rows_of
from tests.tiny_models import VOCAB_SIZE, word_tokenizer


TOKENIZER = word_tokenizer(*[f"w{index}" for index in range(VOCAB_SIZE)])


def answers_of(tmp_path, task, **changes):
    trainer = reported_trainer(tmp_path, task, processing_class=TOKENIZER, **changes)
    return trainer, collect(trainer, baseline_for(trainer, task), trainer.eval_dataset)


def test_classes_by_name(tmp_path):
    _, answers = answers_of(tmp_path, "single_label", per_device_eval_batch_size=3)
    assert answers.words["label"] == [
        "bad",
        "<fair>",
        "good & cheap",
        "bad",
        "<fair>",
        "good & cheap",
        "bad",
        "<fair>",
    ]
    assert answers.words["student"] == answers.words["baseline"] != answers.words["teacher"]
    assert all(word.endswith("%)") for word in answers.words["student"])
    assert answers.lengths == [3, 9, 4, 7, 5, 8, 6, 4]
    assert all(len(sums["rows"]) == 8 for sums in answers.sums.values())


@pytest.mark.parametrize(
    ("task", "label"), [("answers", ("w", "w")), ("regression", ("0.25",)), ("multi_label", ("LABEL_0, LABEL_2",))]
)
def test_other_answers(task, label, tmp_path):
    _, answers = answers_of(tmp_path, task)
    assert all(part in answers.words["label"][1] for part in label)
    assert len(answers.words["teacher"]) == len(answers.words["label"]) == 8


def test_texts(tmp_path):
    trainer = reported_trainer(tmp_path, processing_class=TOKENIZER)
    rows = [{**row, "sentence": "long " * 200} for row in rows_of("single_label")]
    text = collect(trainer, None, rows).texts[0]
    assert text.startswith("long long") and len(text) == MAX_TEXT
    decoded = collect(trainer, None, rows_of("single_label")).texts[0]
    assert decoded.split()[0] == f"w{rows[0]['input_ids'][0]}"


def test_a_stream_is_read_once(tmp_path):
    trainer = reported_trainer(tmp_path)
    assert len(collect(trainer, None, iter(rows_of("single_label"))).texts) == 8
