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


def test_a_student_is_not_written_over_its_teacher(tmp_path, capsys):
    put_teacher(tmp_path / "teacher", "fill-mask")
    before = (tmp_path / "teacher" / "model.safetensors").read_bytes()
    words = ["--teacher", str(tmp_path / "teacher"), "--layers", "0,2"]
    assert main(["student", *words, "--output_dir", str(tmp_path / "teacher")]) == 1
    assert "holds config.json, model.safetensors of something else, which would be lost" in capsys.readouterr().err
    assert (tmp_path / "teacher" / "model.safetensors").read_bytes() == before
