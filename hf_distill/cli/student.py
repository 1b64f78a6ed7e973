"""`hf-distill student`: a student is made and written, untrained."""

from pathlib import Path
from typing import Any

from hf_distill.cli.arguments import OutputOptions, StudentOptions, TeacherOptions
from hf_distill.cli.calls import source_of, task_of
from hf_distill.jobs.evidence import check_nothing_is_lost
from hf_distill.jobs.models import load_model, load_processor, make_student
from hf_distill.whole_files import is_half_written, write_whole_model


def run(teacher: TeacherOptions, student: StudentOptions, output: OutputOptions, said: dict[str, Any]) -> None:
    """Make the student, and say how large it is."""
    folder = Path(output.output_dir)
    if not is_half_written(folder):
        check_nothing_is_lost(folder)
    task = task_of(teacher.task, teacher.teacher)
    model = load_model(teacher.teacher, task)
    made = make_student(source_of(student), model, task, output.seed)
    processor = load_processor(student.student or teacher.teacher, task)
    write_whole_model(folder, lambda aside: [each.save_pretrained(aside) for each in (made, processor)])
    print(
        f"The student has {made.num_parameters():,} parameters, the teacher {model.num_parameters():,}. It is in "
        f"{folder}, untrained."
    )
