"""`hf-distill export`: a model becomes a program."""

from typing import Any

from hf_distill.cli.arguments import DataOptions, ExportOptions, ModelOptions
from hf_distill.cli.calls import rows_unseen_by, task_of
from hf_distill.jobs.exporting import export


def run(model: ModelOptions, data: DataOptions, what: ExportOptions, said: dict[str, Any]) -> None:
    """Export, and say how the program compares."""
    rows = rows_unseen_by(model.model, data, task_of(model.task, model.model))
    made = export(
        model.model,
        rows,
        what.output_dir,
        what.num_rows,
        what.batch_size,
        format=what.format,
        int8=what.int8,
    )
    agreement = "" if made.agreement is None else f", the largest logit is the same in {made.agreement:.1%}"
    print(
        f"Largest difference {made.max_difference:.2g}{agreement}; {made.speedup:.2f} times as fast as PyTorch, "
        f"{made.num_bytes / 1e6:.2f} MB. It is in {what.output_dir}."
    )
