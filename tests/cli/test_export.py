import pytest

from hf_distill.cli import main
from tests.slow_cases import slow_but
from tests.tiny_jobs import put_job


# Of torch's own pytree, which Transformers' exporters use.
pytestmark = pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning", "ignore:.*LeafSpec:FutureWarning")


@pytest.mark.parametrize(
    "task",
    slow_but(["text-classification"], ["text-classification", "token-classification", "image-classification"]),
)
def test_a_program_that_answers_as_the_model(task, tmp_path, capsys):
    words = put_job(tmp_path, task)
    out = tmp_path / "program"
    words = ["export", words[1], *words[2:], "--output_dir", str(out), "--format", "torch", "--num_rows", "6"]
    assert main([*words, "--batch_size", "3"]) == 0
    assert "Largest difference" in capsys.readouterr().out
    assert (out / "model.pt2").is_file()
