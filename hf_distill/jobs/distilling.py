"""The whole job: a teacher, a student, data; a student that has learnt, and what it has learnt."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from hf_distill.errors import ConfigurationError
from hf_distill.jobs.data import Data
from hf_distill.jobs.evidence import Evidence
from hf_distill.jobs.exporting import EXPORTS, NO_PROGRAMS, programs_of
from hf_distill.jobs.leaving_out import check_terms, without_each
from hf_distill.jobs.models import StudentSource, load_model, load_processor, make_student
from hf_distill.jobs.pairs import Pair, make_pair
from hf_distill.jobs.reporting import REPORT, write_report
from hf_distill.jobs.training import LABELS_ALONE, load_state, measure, measure_trained, train, trainer_for
from hf_distill.objective import Objective
from hf_distill.teachers import CachedTeacher
from hf_distill.trainer import DistillationTrainer
from hf_distill.training_args import DistillationTrainingArguments


BASELINE = "baseline"
"""The folder, in that of the job, of the student that learnt from the labels alone."""


def distil(
    teacher: str,
    source: StudentSource,
    data: Data,
    args: DistillationTrainingArguments,
    evidence: Evidence,
    objective: Objective | None = None,
    with_baseline: bool = False,
    with_exports: bool = False,
    steps_without_each: int | None = None,
    resume: bool = False,
) -> Mapping[str, Any]:
    """Measure the teacher and the student as it is made; distil it, measure it again, and report on it.

    Args:
        teacher: an id or a path, also of a cache, which is not measured itself.
        source: of the student.
        data: with rows to train on.
        args: of the Trainer; the student is saved in their `output_dir`.
        evidence: where the measurements are kept.
        objective: in place of the default by `args.temperature` and `args.alpha`.
        with_baseline: whether the same student is also trained on the labels alone, in the folder `baseline`.
        with_exports: whether the student is also exported, in the folder `exports`, for the report.
        steps_without_each: if given, the student is trained again for so many steps with all terms and without each
            of them, for the report to say which one helped.
        resume: whether to go on with what an earlier run of the same job has left.

    Returns:
        Name → measurements, of `teacher`, `student before`, `distilled` and, with a baseline, `labels alone`; and of
        what else was asked for.
    """
    if steps_without_each is not None:
        check_terms(objective, args, steps_without_each)
    known = set(evidence.found)
    pair = make_pair(teacher, source, data, args.seed)
    trainer = pair.trainer(args, objective, report_agreement=_can_agree(pair))
    if "teacher" not in evidence.found and (own := _teacher_alone(pair, args)) is not None:
        evidence.tell("The teacher is measured.")
        evidence.measured("teacher", lambda: measure(own))
    if "student before" not in evidence.found:
        evidence.tell("The student is measured as it is made.")
        evidence.measured("student before", lambda: measure(trainer))
    if "distilled" not in evidence.found:
        evidence.tell("The student is distilled.")
        train(trainer, resume)
        evidence.measured("distilled", lambda: measure_trained(trainer))
    baseline = None
    if with_baseline:
        student = make_student(source, pair.teacher, data.task_name, args.seed)
        folder = f"{args.output_dir}/{BASELINE}"
        baseline = trainer_for(student, data, pair.student_reading, args, output_dir=folder, **LABELS_ALONE)
        if "labels alone" not in evidence.found:
            evidence.tell("The same student is trained on the labels alone.")
            train(baseline, resume)
            evidence.measured("labels alone", lambda: measure(baseline))
    trials = None
    if steps_without_each is not None:
        trials = without_each(pair, source, args, objective, evidence, steps_without_each, resume)
    programs = NO_PROGRAMS
    folder = str(args.output_dir)
    if with_exports and args.world_size == 1:
        programs = programs_of(folder, data, f"{folder}/{EXPORTS}", evidence, args.per_device_eval_batch_size)
    if not Path(folder, REPORT).is_dir() or evidence.found.keys() != known:
        for each in filter(None, (trainer, baseline)):
            if each.state.global_step == 0:  # an earlier run has trained it
                each.model.load_state_dict(load_model(str(each.args.output_dir), data.task_name).state_dict())
                load_state(each, str(each.args.output_dir))
        evidence.tell("The report is made.")
        write_report(trainer, None if baseline is None else baseline.model, programs, trials)
    return evidence.found


def _teacher_alone(pair: Pair, args: DistillationTrainingArguments) -> DistillationTrainer | None:
    """A Trainer of the teacher, to measure it; None where there is no model, or nothing to measure."""
    if isinstance(pair.teacher, CachedTeacher) or pair.teacher_reading is None or not pair.data.has_labels:
        return None
    return trainer_for(pair.teacher, pair.data, pair.teacher_reading, args, **LABELS_ALONE)


def _can_agree(pair: Pair) -> bool:
    """Whether it can be said how often the two choose the same class: not where they write in other tokens."""
    return pair.teacher_processor is None or pair.data.task.scores is not None


def fine_tune(
    model: PreTrainedModel,
    processor: Any,
    data: Data,
    args: DistillationTrainingArguments,
    evidence: Evidence,
    resume: bool = False,
) -> Mapping[str, Any]:
    """Train a model on the labels alone, as a teacher has to be, and measure it before and after."""
    alone = {**LABELS_ALONE, "push_to_hub": args.push_to_hub}
    trainer = trainer_for(model, data, data.reading(model, processor), args, **alone)
    if "before" not in evidence.found:
        evidence.tell("The model is measured as it is.")
        evidence.measured("before", lambda: measure(trainer))
    if "fine-tuned" not in evidence.found:
        evidence.tell("The model is fine-tuned.")
        train(trainer, resume)
        evidence.measured("fine-tuned", lambda: measure(trainer))
    return evidence.found


def compare(
    model: str, teacher: str | None, data: Data, args: DistillationTrainingArguments
) -> Mapping[str, Mapping[str, Any]]:
    """Measure a model, and beside it a teacher: also how often the two choose the same class.

    Raises:
        ConfigurationError: if there are neither labels nor a teacher to measure it by.
    """
    data = replace(data, train=None)
    if teacher is None:
        if not data.has_labels:
            raise ConfigurationError(
                "no column of labels was found, so there is nothing to measure the model by: the data set has the "
                f"columns {', '.join(data.evaluation.column_names)}. Name it by `label_column`, or a `teacher`."
            )
        loaded = load_model(model, data.task_name)
        reading = data.reading(loaded, load_processor(model, data.task_name))
        return {"model": measure(trainer_for(loaded, data, reading, args, **LABELS_ALONE))}
    pair = make_pair(teacher, StudentSource(model), data, args.seed)
    own = _teacher_alone(pair, args)
    found = {} if own is None else {"teacher": measure(own)}
    alpha = args.alpha if data.has_labels else 0.0
    return {**found, "model": measure(pair.trainer(args, report_agreement=_can_agree(pair), alpha=alpha))}
