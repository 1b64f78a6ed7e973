"""The table of rooms: imports point up it only."""

from pathlib import Path

import pytest

import hf_distill
from tests.house.imports import violations


PACKAGE = Path(hf_distill.__file__).parent

NOUNS = {"version", "errors", "types", "whole_files", "stopwatch", "peak_memory"}
SIGNALS = NOUNS | {"heads", "cache", "teachers"}
WHAT_TO_LEARN = {"functional", "schedules", "layer_maps", "terms", "objective"}
ALL_BUT_MODELS = SIGNALS | WHAT_TO_LEARN | {"data_collator", "recipes", "students", "report", "tally", "export"}
ALL_BUT_MODELS |= {"position_tables", "raw_columns", "teacher_inputs", "data_augmentation", "feature_reading"}
ALL_BUT_MODELS |= {"refused_batches", "preflight", "trial_batches", "teacher_scores", "rehearsal", "invariances"}
ALL_BUT_MODELS |= {"balance", "head_positions", "chunked_training", "sharding", "step_cost"}

TRAINER_HALVES = {
    "evaluation",
    "feature_training",
    "term_logging",
    "finite_losses",
    "length_grouping",
    "stream_resuming",
    "publishing",
}

# room: what it may import, which is always of an earlier row
ROOMS = {
    "version": set(),
    "errors": set(),
    "whole_files": set(),
    "stopwatch": set(),
    "peak_memory": set(),
    "types": {"errors"},
    "functional": {"types", "errors"},
    "heads": {"types", "errors", "functional"},
    "feature_reading": {"types", "errors"},
    "schedules": {"types", "errors"},
    "layer_maps": {"types", "errors", "functional"},
    "terms": {"types", "errors", "functional", "schedules", "layer_maps"},
    "objective": {"types", "errors", "schedules", "layer_maps", "terms"},
    "data_augmentation": {"types", "errors"},
    "data_collator": {"types", "errors", "heads"},
    "recipes": NOUNS | WHAT_TO_LEARN,
    "cache": {"types", "errors", "version", "whole_files"},
    "position_tables": set(),
    "sharding": set(),
    "raw_columns": {"types", "errors"},
    "teacher_inputs": {"types", "errors", "heads", "raw_columns"},
    "teachers": NOUNS
    | {
        "heads",
        "cache",
        "feature_reading",
        "functional",
        "position_tables",
        "raw_columns",
        "teacher_inputs",
        "sharding",
    },
    "students": NOUNS | {"layer_maps"},
    "models": set(),
    "preflight": SIGNALS | {"terms", "objective", "raw_columns"},
    "spread_rows": set(),
    "trial_batches": {"types", "errors", "teachers", "sharding", "spread_rows"},
    "memory": {"sharding"},
    "step_cost": {"types", "memory", "peak_memory", "stopwatch"},
    "teacher_scores": {"types", "errors", "heads"},
    "head_positions": SIGNALS | {"terms", "trial_batches"},
    "chunked_training": SIGNALS | WHAT_TO_LEARN | {"trial_batches", "head_positions"},
    "refused_batches": {"types", "errors", "heads", "raw_columns"},
    "rehearsal": SIGNALS
    | {"functional", "schedules", "terms", "objective", "position_tables", "memory", "preflight", "trial_batches"}
    | {"step_cost", "teacher_scores", "refused_batches", "head_positions", "chunked_training"},
    "balance": SIGNALS | {"terms", "objective", "trial_batches", "feature_reading", "rehearsal"},
    "tally": {"types", "errors", "heads"},
    "invariances": SIGNALS | {"position_tables", "tally", "trial_batches"},
    "export": {"types", "errors", "stopwatch"},
    "report": SIGNALS
    | {"export", "functional", "terms", "objective", "position_tables", "preflight", "rehearsal", "trial_batches"},
    "training_args": ALL_BUT_MODELS,
    "callbacks": ALL_BUT_MODELS | {"training_args"},
    "checkpoints": {"types", "errors", "whole_files"},
    "preemption": set(),
    "checkpoint_keeping": {"types", "errors", "checkpoints", "preemption", "training_args"},
    "evaluation": SIGNALS | {"terms", "objective", "tally", "training_args", "checkpoint_keeping"},
    "feature_training": SIGNALS | {"feature_reading", "objective", "evaluation"},
    "term_logging": {"checkpoints", "feature_training"},
    "finite_losses": SIGNALS | {"trial_batches", "rehearsal", "term_logging"},
    "length_grouping": {"finite_losses"},
    "stream_resuming": {"length_grouping"},
    "model_card": SIGNALS | {"version", "objective", "recipes", "report"},
    "publishing": {"term_logging", "report", "model_card"},
    "trainer": ALL_BUT_MODELS | TRAINER_HALVES | {"training_args", "callbacks"},
    "data_sources": {"errors", "spread_rows"},
    "processing": {"types", "errors", "heads", "data_collator", "raw_columns"},
    "jobs": ALL_BUT_MODELS | {"training_args", "trainer", "processing", "checkpoints", "preemption"},
    "cli": ALL_BUT_MODELS | {"training_args", "callbacks", "trainer", "models", "jobs", "data_sources", "processing"},
    "__main__": {"cli"},
}
TRAINERLESS = {"functional", "models"}


def test_imports_point_up_the_table():
    assert violations(PACKAGE, ROOMS, TRAINERLESS) == []


def test_the_table_itself_points_up():
    order = list(ROOMS)
    for room, allowed in ROOMS.items():
        assert allowed <= set(order[: order.index(room)]), f"'{room}' may import a later row"


# file: (its text, the line and words of the one fault that is to be found, or None)
PLANTED = {
    "down the table": ("functional/a.py", "from hf_distill.trainer import X", (1, "'functional' imports 'trainer'")),
    "inside a function": ("heads/a.py", "def f():\n    import hf_distill.terms.base", (2, "'heads' imports 'terms'")),
    "for types only": (
        "types.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hf_distill.heads import Head",
        (3, "'types' imports 'heads', but may import errors"),
    ),
    "relative": ("terms/a.py", "\nfrom ..objective import Objective", (2, "'terms' imports 'objective'")),
    "relative room": ("terms/a.py", "from .. import trainer", (1, "'terms' imports 'trainer'")),
    "deep relative": ("models/b/a.py", "from ...errors import E", (1, "may import nothing of the house")),
    "by name": ("cache/a.py", "import_module('hf_distill.heads')", (1, "'cache' imports 'heads'")),
    "by relative name": ("cache/a.py", "importlib.import_module('..heads', __package__)", (1, "imports 'heads'")),
    "through the front door": ("heads/a.py", "from hf_distill import Objective", (1, "Objective from the package")),
    "the whole package": ("heads/a.py", "import hf_distill", (1, "imports all from the package")),
    "a new room": ("attic/a.py", "x = 1", (1, "'attic' is no room of the house")),
    "Transformers' Trainer": ("models/b/a.py", "from transformers import Trainer", (1, "Transformers' Trainer")),
    "its module": ("functional/a.py", "import transformers.trainer_utils", (1, "Transformers' Trainer")),
    "up the table": ("terms/a.py", "from hf_distill.types import Unit\nfrom ..functional import x", None),
    "the same room": ("models/b/a.py", "from .c import d\nfrom hf_distill.models.b import e", None),
    "somebody else's": ("models/b/a.py", "import hf_distillery\nfrom transformers import PreTrainedModel", None),
    "the front door itself": ("__init__.py", "from hf_distill.trainer import X", None),
}


@pytest.mark.parametrize("case", PLANTED)
def test_finds_what_breaks_the_rule(case, tmp_path):
    name, text, expected = PLANTED[case]
    path = tmp_path / "hf_distill" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    found = violations(tmp_path / "hf_distill", ROOMS, TRAINERLESS)
    if expected is None:
        assert found == []
    else:
        line, words = expected
        assert len(found) == 1
        assert found[0].startswith(f"{path}:{line}: ")
        assert words in found[0]
