import pytest
from transformers import AutoModel

from hf_distill.errors import ConfigurationError
from hf_distill.jobs.caching import cache
from hf_distill.jobs.models import StudentSource
from hf_distill.jobs.pairs import make_pair
from hf_distill.teachers import CachedTeacher
from tests.house.local_hub import put_model, put_tokenizer
from tests.jobs.test_distilling import TASK, arguments, data_of, teacher  # noqa: F401  # a fixture
from tests.tiny_jobs import WORDS, rows_of


@pytest.fixture
def own_student(tmp_path):
    tokenizer = put_tokenizer(str(tmp_path / "own"), [" ".join(reversed(WORDS)), "other words"])
    put_model(str(tmp_path / "own"), AutoModel, vocab_size=len(tokenizer))
    return StudentSource(str(tmp_path / "own"))


def test_a_student_with_its_own_tokenizer(teacher, own_student, tmp_path):  # noqa: F811
    pair = make_pair(teacher, own_student, data_of(rows_of(TASK)), seed=0)
    assert pair.teacher_processor is not None
    batch = next(iter(pair.trainer(arguments(tmp_path)).get_train_dataloader()))
    assert {"input_ids", "teacher_input_ids"} <= set(batch)


def test_a_cache_as_teacher(teacher, own_student, tmp_path):  # noqa: F811
    data = data_of(rows_of(TASK))
    cache(teacher, data, tmp_path / "answers")
    pair = make_pair(str(tmp_path / "answers"), StudentSource(teacher), data, seed=0)
    assert isinstance(pair.teacher, CachedTeacher)
    assert pair.teacher_reading is None and pair.teacher_processor is None
    with pytest.raises(ConfigurationError, match="reads by another one, so none of its rows would be found"):
        make_pair(str(tmp_path / "answers"), own_student, data, seed=0)
    with pytest.raises(ConfigurationError, match="holds no weights to make a student of"):
        make_pair(str(tmp_path / "answers"), StudentSource(sizes={"num_hidden_layers": 1}), data, seed=0)
