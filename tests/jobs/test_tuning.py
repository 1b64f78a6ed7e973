import pytest

from hf_distill import DistillationTrainingArguments, recipes
from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import job_data
from hf_distill.jobs.models import StudentSource
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
    for trial in study.trials:
        assert 1.0 <= trial.params["temperature"] <= 4.0
        assert 0.2 <= trial.params["alpha"] <= 0.8
        assert 1e-4 <= trial.params["learning_rate"] <= 1e-2
        assert len(trial.intermediate_values) == 2  # so that a bad one can be broken off
    assert tune(pair, STUDENT, arguments(tmp_path), space=space, n_trials=3) == best


def test_of_a_recipe_the_learning_rate_alone(tmp_path):
    best = tune(pair_of(tmp_path), STUDENT, arguments(tmp_path), recipes.dkd(), n_trials=1)
    assert best["arguments"].keys() == {"learning_rate"}


def test_refuses_a_score_that_is_not_measured(tmp_path):
    with pytest.raises(ConfigurationError, match=r"metric='bleu' is not measured; these are: .*accuracy"):
        tune(pair_of(tmp_path), STUDENT, arguments(tmp_path), n_trials=1, metric="bleu")


@pytest.mark.parametrize(
    ("task", "score"), [("text-classification", "accuracy"), ("question-answering", "f1"), ("fill-mask", "perplexity")]
)
def test_the_main_score(task, score, tmp_path):
    assert main_score(pair_of(tmp_path, task)) == score
