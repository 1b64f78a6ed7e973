import logging

import pytest
import yaml

from hf_distill.cli import main
from tests.tiny_jobs import QUICK, put_job


pytest.importorskip("optuna")


@pytest.mark.slow
def test_the_best_is_a_file_of_options_for_distill(tmp_path, capsys, caplog):
    words = put_job(tmp_path, "text-classification")
    out = tmp_path / "search"
    words = [*words, "--num_hidden_layers", "1", *QUICK, "--max_steps", "2"]
    space = ["--n_trials", "2", "--min_alpha", "0.3", "--max_alpha", "0.4"]
    logging.getLogger("transformers").propagate = True
    assert main(["tune", *words, *space, "--alpha", "0.9", "--output_dir", str(out)]) == 0
    assert "alpha=0.9 is not used: it is looked for between" in caplog.text
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert {"temperature", "alpha", "learning_rate", "teacher", "dataset"} <= best.keys()
    assert 0.3 <= best["alpha"] <= 0.4
    assert "n_trials" not in best and "output_dir" not in best
    assert "Best accuracy: " in capsys.readouterr().out
    assert main(["tune", str(out / "arguments.yaml"), "--seed", "7"]) == 1
    assert "(seed: None before, 7 now)" in capsys.readouterr().err
    assert main(["distill", str(out / "best.yaml"), "--output_dir", str(tmp_path / "student")]) == 0
