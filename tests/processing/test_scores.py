import numpy as np
import pytest
from sklearn.metrics import f1_score
from transformers import EvalPrediction

from hf_distill.processing import Reading
from hf_distill.processing.scores import class_scores, macro_f1


def scored(problem, predictions, labels):
    return class_scores(None, Reading(None, {}, problem))(EvalPrediction(predictions, np.array(labels)))


def one_hot(classes, size):
    return np.eye(size)[classes]


def test_classes_with_labels_that_do_not_count():
    guesses, labels = np.array([0, 1, 2, 1]), [0, 2, 2, -100]
    scores = scored("single_label_classification", one_hot(guesses, 3), labels)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx(f1_score(labels[:3], guesses[:3], average="macro"))


def test_rows_of_which_none_counts_have_no_score():
    assert np.isnan(list(scored("single_label_classification", one_hot([0, 1], 2), [-100, -100]).values())).all()


def test_scores_are_the_first_of_several_outputs():
    scores = one_hot([0, 1], 2)
    assert scored("single_label_classification", (scores, np.ones((2, 3))), [0, 1])["accuracy"] == 1.0


def test_tags():
    guesses, labels = np.array([[0, 1, 1], [1, 0, 0]]), [[0, 1, -100], [0, 0, -100]]
    assert scored("single_label_classification", one_hot(guesses, 2), labels)["accuracy"] == pytest.approx(3 / 4)


def test_several_labels():
    logits, labels = np.array([[1.0, -1.0], [1.0, 1.0]]), [[1.0, 0.0], [0.0, 1.0]]
    scores = scored("multi_label_classification", logits, labels)
    assert scores["exact_match"] == 0.5
    assert scores["micro_f1"] == pytest.approx(f1_score(np.array(labels), logits > 0, average="micro"))


def test_numbers():
    guesses, labels = np.array([[1.0], [2.0], [4.0]]), [1.0, 3.0, 4.0]
    scores = scored("regression", guesses, labels)
    assert scores["mean_squared_error"] == pytest.approx(1 / 3)
    assert scores["pearson"] == pytest.approx(np.corrcoef([1, 2, 4], labels)[0, 1])
    assert scored("regression", np.ones((3, 1)), labels)["pearson"] == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_macro_f1(seed):
    guesses, truths = np.random.default_rng(seed).integers(0, 4, (2, 30))
    assert macro_f1(guesses, truths) == pytest.approx(f1_score(truths, guesses, average="macro"))
