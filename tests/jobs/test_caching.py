import torch

from hf_distill import head_of
from hf_distill.jobs.caching import cache
from hf_distill.jobs.data import job_data
from hf_distill.jobs.models import load_model, load_processor, load_teacher, task_of_model
from tests.tiny_jobs import put_teacher, rows_of


TASK = "text-classification"


def test_rows_to_train_on_and_to_evaluate_on(tmp_path):
    put_teacher(tmp_path / "teacher", TASK)
    data = job_data(TASK, rows_of(TASK), rows_of(TASK, 12, seed=1))
    made = cache(str(tmp_path / "teacher"), data, tmp_path / "answers", dtype="float32")
    texts = {*data.train["sentence"], *data.evaluation["sentence"]}
    assert len(made.cache) == len(texts)  # a text that stands twice is one row
    model, processor = load_model(str(tmp_path / "teacher"), TASK).eval(), load_processor(tmp_path / "teacher", TASK)
    made.meet(model, head_of(model))
    batch = processor(data.evaluation["sentence"][:], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(made.signals(batch).logits, model(**batch).logits)


def test_the_folder_is_a_teacher_with_its_task_and_its_reader(tmp_path):
    task = "image-classification"
    put_teacher(tmp_path / "teacher", task)
    data = job_data(task, rows_of(task), rows_of(task, 12, seed=1))
    cache(str(tmp_path / "teacher"), data, tmp_path / "answers")
    assert task_of_model(str(tmp_path / "answers")) == task
    kept, own = (load_processor(str(tmp_path / name), task) for name in ("answers", "teacher"))
    assert kept.to_dict() == own.to_dict()
    assert len(load_teacher(str(tmp_path / "answers"), task).cache) == 36
