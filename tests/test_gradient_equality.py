"""However a batch is split, padded or recomputed, the gradient is the one of the formula."""

import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from tests.gradients import TEMPERATURE, alpha_of, recorded_run, relative_difference
from tests.processes import run_two_processes
from tests.reference import reference_gradients, reference_means
from tests.slow_cases import slow_but
from tests.tiny_models import ALL_HEADS, model_for, rows_for


NAMES = {field.name for field in fields(TrainingArguments)}
CHECKPOINTING = "activation_checkpointing" if "activation_checkpointing" in NAMES else "gradient_checkpointing"
SPLITS = {
    "one batch of 8": {"batch_size": 8},
    "4 batches of 2": {"batch_size": 2, "accumulation": 4},
    "8 batches of 1": {"batch_size": 1, "accumulation": 8},
    "padded further": {"batch_size": 8, "extra_padding": 5},
    "checkpointed": {"batch_size": 4, "accumulation": 2, CHECKPOINTING: True},
}


def check_equal(head, rows, gradients, log, tolerance=1e-6):
    alpha = alpha_of(head)
    means, expected = reference_gradients(
        model_for(head, 1).double().train(), model_for(head, 2).double().eval(), head, rows, TEMPERATURE, alpha
    )
    used = {name: gradient for name, gradient in expected.items() if name in gradients}
    assert sum(gradient.norm() for gradient in used.values()) > 1e-3  # the comparison is not between zeros
    assert relative_difference(gradients, used) < tolerance
    for name in means.keys() - {"agreement"}:
        assert log[f"loss/{name}"] == pytest.approx(means[name], rel=1e-6)
    assert log["loss"] == pytest.approx(alpha * means.get("labels", 0.0) + (1 - alpha) * means["soft"], rel=1e-6)


@pytest.mark.parametrize("head", ALL_HEADS)
@pytest.mark.parametrize("split", slow_but(["4 batches of 2", "padded further"], SPLITS))
def test_gradient_and_logged_loss_equal_the_reference(tmp_path, head, split):
    rows = rows_for(head)
    (gradients,), (log,), _ = recorded_run(
        tmp_path, model_for(head, 1), model_for(head, 2), rows, **SPLITS[split], alpha=alpha_of(head)
    )
    check_equal(head, rows, gradients, log)


@pytest.mark.parametrize("head", slow_but(["single_label", "tokens", "masked", "seq2seq"], ALL_HEADS))
def test_a_short_last_window_is_averaged_over_its_own_units(tmp_path, head):
    rows = rows_for(head, lengths=(3, 9, 4, 7, 5, 8, 6, 4, 7, 3, 5))
    options = {"batch_size": 2, "accumulation": 4, "alpha": alpha_of(head)}
    steps, logs, _ = recorded_run(tmp_path, model_for(head, 1), model_for(head, 2), rows, **options)
    assert len(steps) == 2
    check_equal(head, rows[:8], steps[0], logs[0])
    check_equal(head, rows[8:], steps[1], logs[1])


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler"),
                pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
            ],
        ),
    ],
)
@pytest.mark.parametrize("head", slow_but(["single_label"], ["single_label", "masked", "causal"]))
def test_compiled_gradient_equals_the_reference(tmp_path, head, backend):
    rows = rows_for(head)
    (gradients,), (log,), _ = recorded_run(
        tmp_path,
        model_for(head, 1),
        model_for(head, 2),
        rows,
        batch_size=2,
        accumulation=4,
        torch_compile=True,
        torch_compile_backend=backend,
    )
    check_equal(head, rows, {name.replace("_orig_mod.", ""): value for name, value in gradients.items()}, log)


@pytest.mark.distributed
@pytest.mark.parametrize("head", slow_but(["masked"], ["single_label", "masked", "causal"]))
@pytest.mark.parametrize("batch_size, accumulation", slow_but([(1, 4)], [(4, 1), (1, 4)]))
def test_two_processes_equal_the_reference(tmp_path, head, batch_size, accumulation):
    """Two gloo processes. Rank 1 of the masked rows sees micro-batches without a single label."""
    run_two_processes(Path(__file__).with_name("two_processes.py"), tmp_path, head, batch_size, accumulation)
    models = model_for(head, 1).double().eval(), model_for(head, 2).double().eval()
    means = reference_means(*models, head, rows_for(head)[:5], TEMPERATURE)
    for rank in range(2):
        saved = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        check_equal(head, rows_for(head), saved["gradients"], saved["log"])
        for name, key in {"labels": "loss/labels", "soft": "loss/soft", "agreement": "agreement"}.items():
            assert saved["metrics"][f"eval_{key}"] == pytest.approx(means[name].item(), rel=1e-6)
