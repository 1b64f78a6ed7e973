"""The tokenizer that a teacher reads by."""

from hf_distill import ServedTeacher, head_of
from hf_distill.teachers import OnlineTeacher, own_tokenizer
from tests.house.local_hub import put_tokenizer
from tests.teachers.completions_server import MODEL, CompletionsServer
from tests.tiny_models import llama


def online(folder, layers=2):
    model = llama(layers=layers)
    model.save_pretrained(folder)
    return OnlineTeacher(type(model).from_pretrained(folder), head_of(model))


def test_that_in_the_folder_it_came_from(tmp_path):
    teacher, ours = online(tmp_path / "model"), put_tokenizer(str(tmp_path / "ours"), ["c"])
    assert own_tokenizer(teacher, ours) is None
    theirs = put_tokenizer(str(tmp_path / "model"), ["a b"])
    assert own_tokenizer(teacher, ours).get_vocab() == theirs.get_vocab()
    teacher.reads_apart = True
    assert own_tokenizer(teacher, ours) is None


def test_the_students_where_a_server_reads_alike(tmp_path):
    ours = put_tokenizer(str(tmp_path / "ours"), ["a b c d"])
    with CompletionsServer(llama(layers=2), ours) as server:
        assert own_tokenizer(ServedTeacher(server.url, MODEL), ours) is ours
        assert len(server.bodies) == 1
