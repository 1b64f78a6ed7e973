import json

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel

from hf_distill import DistillationTrainingArguments, recipes
from hf_distill.jobs.data import job_data
from hf_distill.jobs.distilling import compare, distil, fine_tune
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.models import StudentSource, load_processor
from hf_distill.jobs.pairs import make_pair
from tests.house.local_hub import put_model, put_tokenizer
from tests.tiny_jobs import WORDS, put_teacher, rows_of


TASK = "text-classification"
STUDENT = StudentSource(sizes={"num_hidden_layers": 1})


@pytest.fixture
def teacher(tmp_path):
    put_teacher(tmp_path / "teacher", TASK)
    return str(tmp_path / "teacher")


def arguments(folder, **changes):
    settings = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "preflight": False}
    return DistillationTrainingArguments(
        output_dir=folder / "out", use_cpu=True, disable_tqdm=True, **{**settings, **changes}
    )


def data_of(rows):
    return job_data(TASK, rows, rows)


@pytest.mark.slow
def test_with_a_baseline_all_are_measured_on_the_same_rows(teacher, tmp_path):
    evidence = Evidence(tmp_path / "out")
    args = arguments(tmp_path)
    found = distil(teacher, STUDENT, data_of(rows_of(TASK)), args, evidence, with_baseline=True)
    assert list(found) == ["teacher", "student before", "distilled", "labels alone"]
    assert (tmp_path / "out" / "baseline" / "model.safetensors").is_file()
    assert "agreement" in found["distilled"]["scores"]
    assert "loss/soft" not in found["labels alone"]["scores"]
    assert json.loads(evidence.path.read_text()) == found


def test_a_finished_job_does_nothing_again(teacher, tmp_path):
    data, args = data_of(rows_of(TASK)), arguments(tmp_path)
    first = dict(distil(teacher, STUDENT, data, args, Evidence(tmp_path / "out"), with_baseline=True))
    again = distil(teacher, STUDENT, data, args, Evidence(tmp_path / "out"), with_baseline=True, resume=True)
    assert again == first


def test_text_without_labels(teacher, tmp_path):
    rows = rows_of(TASK).remove_columns("label")
    args = arguments(tmp_path, alpha=0.0)
    found = distil(teacher, STUDENT, data_of(rows), args, Evidence(tmp_path / "out"))
    assert list(found) == ["student before", "distilled"]
    assert found["distilled"]["scores"].keys() == {"loss", "loss/soft", "agreement"}


@pytest.mark.slow
def test_a_student_with_its_own_tokenizer(teacher, tmp_path):
    tokenizer = put_tokenizer(str(tmp_path / "own"), [" ".join(reversed(WORDS)), "other words"])
    put_model(str(tmp_path / "own"), AutoModel, vocab_size=len(tokenizer))
    source = StudentSource(str(tmp_path / "own"))
    found = distil(teacher, source, data_of(rows_of(TASK)), arguments(tmp_path), Evidence(tmp_path / "out"))
    assert "agreement" in found["distilled"]["scores"]


def test_a_recipe(teacher, tmp_path):
    found = distil(
        teacher, STUDENT, data_of(rows_of(TASK)), arguments(tmp_path), Evidence(tmp_path / "out"), recipes.distilbert()
    )
    assert "loss/cosine" in found["distilled"]["scores"]


def test_a_teacher_is_fine_tuned_on_labels(teacher, tmp_path):
    model = make_pair(teacher, STUDENT, data_of(rows_of(TASK)), 0).teacher
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evidence = Evidence(tmp_path / "out")
    found = fine_tune(model, load_processor(teacher, TASK), data_of(rows_of(TASK)), arguments(tmp_path), evidence)
    assert list(found) == ["before", "fine-tuned"]
    assert not all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_model_beside_its_teacher(teacher, tmp_path):
    rows: Dataset = rows_of(TASK)
    assert list(compare(teacher, None, data_of(rows), arguments(tmp_path))) == ["model"]
    found = compare(teacher, teacher, data_of(rows), arguments(tmp_path))
    assert found["model"]["scores"]["agreement"] == 1.0
    assert found["model"]["scores"]["accuracy"] == found["teacher"]["scores"]["accuracy"]
    unlabelled = compare(teacher, teacher, data_of(rows.remove_columns("label")), arguments(tmp_path))
    assert unlabelled["model"]["scores"]["agreement"] == 1.0
