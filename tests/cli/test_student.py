from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_distill.cli import main
from tests.tiny_jobs import put_teacher


def test_a_student_is_written_with_its_tokenizer(tmp_path, capsys):
    teacher = put_teacher(tmp_path / "teacher", "fill-mask")
    out = tmp_path / "student"
    words = ["--teacher", str(tmp_path / "teacher"), "--layers", "0,2", "--intermediate_size", "8"]
    assert main(["student", *words, "--output_dir", str(out)]) == 0
    student = AutoModelForMaskedLM.from_pretrained(out)
    assert student.config.student_of["layers"] == {"layers": [0, 2]}
    assert student.config.intermediate_size == 8
    AutoTokenizer.from_pretrained(out)
    said = capsys.readouterr().out
    assert f"{student.num_parameters():,} parameters, the teacher {teacher.num_parameters():,}" in said
