"""`hf-distill cache`: a teacher's answers are kept, to train from."""

from tempfile import TemporaryDirectory
from typing import Any

from hf_distill.cli.arguments import CacheOptions, DataOptions, TeacherOptions
from hf_distill.cli.calls import data_of, kept_layers_of, task_of
from hf_distill.jobs.caching import cache
from hf_distill.training_args import DistillationTrainingArguments


def run(teacher: TeacherOptions, data: DataOptions, what: CacheOptions, said: dict[str, Any]) -> None:
    """Ask the teacher, and say what is kept."""
    rows = data_of(data, task_of(teacher.task, teacher.teacher), what.seed)
    with TemporaryDirectory() as folder:
        args = DistillationTrainingArguments(output_dir=folder, use_cpu=what.use_cpu)
    made = cache(
        teacher.teacher,
        rows,
        what.output_dir,
        args.device,
        batch_size=what.batch_size,
        top_k=what.top_k,
        dtype=what.dtype,
        layers=kept_layers_of(what.layers),
        pooled=what.pooled,
        epochs=what.epochs,
    ).cache
    if args.process_index == 0:
        num_bytes = sum(file.num_bytes for file in made.manifest.files.values())
        print(
            f"The answers to {len(made)} rows take {num_bytes / 1e6:.2f} MB. They are in {what.output_dir}: "
            f"hf-distill distill --teacher {what.output_dir} --student …"
        )
