import os
import signal

import pytest

from hf_distill import DistillationTrainingArguments, recipes
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import job_data
from hf_distill.jobs.models import StudentSource, make_student
from hf_distill.jobs.pairs import make_pair
from hf_distill.jobs.tuning import SearchSpace, main_score, tune
from tests.tiny_jobs import put_teacher, rows_of


optuna = pytest.importorskip("optuna")

STUDENT = StudentSource(sizes={"num_hidden_layers": 1})


def pair_of(folder, task="text-classification"):
    put_teacher(folder / "teacher", task)
    rows = rows_of(task)
    return make_pair(str(folder / "teacher"), STUDENT, job_data(task, rows, rows), 0)


def arguments(folder):
    return DistillationTrainingArguments(
        output_dir=str(folder / "out"),
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        per_device_train_batch_size=4,
        use_cpu=True,
        disable_tqdm=True,
    )


@pytest.fixture(autouse=True)
def experimental():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.slow
def test_finds_the_best_of_its_trainings_and_goes_on(tmp_path):
    pair, space = pair_of(tmp_path), SearchSpace(temperature=(1.0, 4.0), alpha=(0.2, 0.8), learning_rate=(1e-4, 1e-2))
    tune(pair, STUDENT, arguments(tmp_path), space=space, n_trials=1)
    best = tune(pair, STUDENT, arguments(tmp_path), space=space, n_trials=3)
    study = optuna.load_study(study_name="hf_distill", storage=f"sqlite:///{tmp_path}/out/study.db")
    assert len(study.trials) == 3
    assert best["metric"] == "accuracy"
    assert best["value"] == max(trial.value for trial in study.trials if trial.value is not None)
    assert len({trial.params["learning_rate"] for trial in study.trials}) == 3  # what is left is not tried once more
    for trial in study.trials:
        assert 1.0 <= trial.params["temperature"] <= 4.0
        assert 0.2 <= trial.params["alpha"] <= 0.8
        assert 1e-4 <= trial.params["learning_rate"] <= 1e-2
        assert len(trial.intermediate_values) == 2  # so that a bad one can be broken off
    assert tune(pair, STUDENT, arguments(tmp_path), space=space, n_trials=3) == best


@pytest.mark.slow
def test_of_a_recipe_the_learning_rate_alone(tmp_path):
    best = tune(pair_of(tmp_path), STUDENT, arguments(tmp_path), recipes.dkd(), n_trials=1)
    assert best["arguments"].keys() == {"learning_rate"}


def test_a_score_that_is_not_measured_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigurationError, match=r"metric='bleu' is not measured; these are: .*accuracy"):
        tune(pair_of(tmp_path), STUDENT, arguments(tmp_path), n_trials=1, metric="bleu")
    assert not (tmp_path / "out" / "study.db").exists()


def test_agreement_is_measured_where_it_is_to_be_best(tmp_path):
    best = tune(pair_of(tmp_path), STUDENT, arguments(tmp_path), n_trials=1, metric="agreement")
    assert best["metric"] == "agreement" and 0 <= best["value"] <= 1


def test_a_search_for_another_score_is_refused(tmp_path):
    pair = pair_of(tmp_path)
    tune(pair, STUDENT, arguments(tmp_path), n_trials=1)
    with pytest.raises(
        ConfigurationError, match=r"study.db holds 1 trainings, of which the best accuracy .* metric='loss'"
    ):
        tune(pair, STUDENT, arguments(tmp_path), n_trials=2, metric="loss")


@pytest.mark.slow
def test_a_training_that_diverges_does_not_end_the_search(tmp_path):
    space = SearchSpace(learning_rate=(1e-4, 1e30))
    best = tune(pair_of(tmp_path), STUDENT, arguments(tmp_path), space=space, n_trials=3)
    study = optuna.load_study(study_name="hf_distill", storage=f"sqlite:///{tmp_path}/out/study.db")
    assert {trial.state.name for trial in study.trials} == {"FAIL", "COMPLETE"}
    assert best["arguments"]["learning_rate"] < 1


def test_says_so_where_every_training_diverges(tmp_path):
    space = SearchSpace(learning_rate=(1e25, 1e30))
    with pytest.raises(ConfigurationError, match=r"none of the 1 trainings .* lower `max_learning_rate`"):
        tune(pair_of(tmp_path), STUDENT, arguments(tmp_path), space=space, n_trials=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_search_and_the_broken_training_does_not_count(tmp_path, monkeypatch, number):
    class Stopped(BaseException):
        pass

    def stop(number, frame):
        raise Stopped

    made = []

    def make_and_be_stopped(*arguments):
        made.append(make_student(*arguments))
        if len(made) == 2:  # the first was for the Trainer, the second is for the first training
            os.kill(os.getpid(), number)
        return made[-1]

    pair = pair_of(tmp_path)
    monkeypatch.setattr("hf_distill.jobs.tuning.make_student", make_and_be_stopped)
    before = signal.signal(number, stop)
    try:
        with pytest.raises(Stopped):
            tune(pair, STUDENT, arguments(tmp_path), n_trials=2)
    finally:
        signal.signal(number, before)
    study = optuna.load_study(study_name="hf_distill", storage=f"sqlite:///{tmp_path}/out/study.db")
    assert [trial.state.is_finished() and trial.state.name != "FAIL" for trial in study.trials] == [False]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"alpha": (0.9, 0.1)}, r"alpha is looked for from 0.9 to 0.1"),
        ({"alpha": (0.5, 1.5)}, r"alpha is looked for from 0.5 to 1.5"),
        ({"temperature": (0.0, 4.0)}, r"temperature is looked for from 0.0 to 4.0"),
        ({"learning_rate": (0.0, 1e-3)}, r"learning_rate is looked for from 0.0 to 0.001"),
        ({"learning_rate": (1e-5, float("nan"))}, r"learning_rate is looked for from 1e-05 to nan"),
        ({"alpha": (2.0, 3.0), "temperature": (4.0, 1.0)}, r"temperature is .*alpha is looked for from 2.0 to 3.0"),
    ],
)
def test_a_space_in_which_nothing_lies_is_refused(space, said):
    with pytest.raises(ConfigurationError, match=said):
        SearchSpace(**space)


def test_without_labels_the_teacher_alone_is_learnt_from(tmp_path):
    put_teacher(tmp_path / "teacher", "text-classification")
    rows = rows_of("text-classification").remove_columns("label")
    pair = make_pair(str(tmp_path / "teacher"), STUDENT, job_data("text-classification", rows, rows), 0)
    with pytest.raises(ConfigurationError, match=r"no column of labels was found, and alpha, .* from 0\.0 to 0\.9"):
        tune(pair, STUDENT, arguments(tmp_path), n_trials=1)
    best = tune(pair, STUDENT, arguments(tmp_path), space=SearchSpace(alpha=(0.0, 0.0)), n_trials=1)
    assert best["metric"] == "loss" and best["arguments"]["alpha"] == 0


def test_no_training_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"n_trials=0 tries nothing"):
        tune(pair_of(tmp_path), STUDENT, arguments(tmp_path), n_trials=0)


@pytest.mark.parametrize(
    ("task", "score"), [("text-classification", "accuracy"), ("question-answering", "f1"), ("fill-mask", "perplexity")]
)
def test_the_main_score(task, score, tmp_path):
    assert main_score(pair_of(tmp_path, task)) == score
