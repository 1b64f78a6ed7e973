"""`hf-distill tune`: numbers are found by trying."""

from pathlib import Path
from typing import Any

import yaml
from transformers.utils import logging

from hf_distill.cli.arguments import DataOptions, ObjectiveOptions, SearchOptions, StudentOptions, TeacherOptions
from hf_distill.cli.calls import data_of, objective_of, source_of, task_of
from hf_distill.jobs.evidence import open_search
from hf_distill.jobs.pairs import make_pair
from hf_distill.jobs.tuning import SearchSpace, tune
from hf_distill.training_args import DistillationTrainingArguments
from hf_distill.whole_files import write_whole


logger = logging.get_logger(__name__)

BEST = "best.yaml"
LOOKED_FOR = ("learning_rate", "temperature", "alpha")


def run(
    teacher: TeacherOptions,
    student: StudentOptions,
    data: DataOptions,
    what: ObjectiveOptions,
    search: SearchOptions,
    args: DistillationTrainingArguments,
    said: dict[str, Any],
) -> None:
    """Search, and write the best as a file of options for `hf-distill distill`."""
    rows = data_of(data, task_of(teacher.task, teacher.teacher), args.seed)
    source = source_of(student)
    pair = make_pair(teacher.teacher, source, rows, args.seed)
    space = SearchSpace(
        (search.min_temperature, search.max_temperature),
        (search.min_alpha, search.max_alpha),
        (search.min_learning_rate, search.max_learning_rate),
    )
    objective = objective_of(what, args)
    unused = ", ".join(f"{name}={said[name]}" for name in LOOKED_FOR if name in said)
    if unused:
        logger.warning(f"{unused} is not used: it is looked for between `min_…` and `max_…`.")
    changeable = (*vars(search), *LOOKED_FOR, "output_dir")
    open_search(str(args.output_dir), said, changeable, writes=args.process_index == 0)
    best = tune(pair, source, args, objective, space, search.n_trials, search.metric)
    if args.process_index == 0:
        options = {name: value for name, value in said.items() if name not in (*vars(search), "output_dir")}
        path = Path(str(args.output_dir), BEST)
        write_whole(path, yaml.safe_dump({**options, **best["arguments"]}, sort_keys=False, allow_unicode=True))
        found = ", ".join(f"{name} {value:.4g}" for name, value in best["arguments"].items())
        print(f"Best {best['metric']}: {best['value']:.4g}, trial {best['trial']}: {found}.")
        print(f"Train with it: hf-distill distill {path} --output_dir …")
