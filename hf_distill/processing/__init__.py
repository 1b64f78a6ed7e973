"""From the rows of a data set to the inputs of a model: a small function for each task, in one table."""

from hf_distill.processing.columns import ROLES, check_inputs, find_columns
from hf_distill.processing.labels import Labels, class_ids, labels_of
from hf_distill.processing.reading import Reading
from hf_distill.processing.tasks import TASKS, Task, task_of


__all__ = [
    "ROLES",
    "TASKS",
    "Labels",
    "Reading",
    "Task",
    "check_inputs",
    "class_ids",
    "find_columns",
    "labels_of",
    "task_of",
]
