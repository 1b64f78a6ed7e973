"""The options of the commands, in groups. A field's `help` is its only description.

Nothing here imports torch, so that `--help` answers at once. Options of training are those of
`DistillationTrainingArguments`, and are added where a command runs.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


def option(help: str, default: Any = None) -> Any:
    """A field with its description."""
    return field(default=default, metadata={"help": help})


Recipe = Literal[
    "hinton",
    "dkd",
    "dist",
    "uld",
    "patient_kd",
    "distilbert",
    "tinybert",
    "minilm",
    "minilmv2",
    "rkd",
    "distil_whisper",
]


@dataclass
class TeacherOptions:
    """Who teaches."""

    _argument_group_name = "teacher"

    teacher: str = field(metadata={"help": "The teacher: an id on the Hub, or a folder."})
    task: str | None = option(
        "What the models do, by the name that Transformers' pipelines give it; found from the teacher if left out."
    )


@dataclass
class StudentOptions:
    """Who learns: a model of its own, or what is kept of the teacher."""

    _argument_group_name = "student: a model of its own, or what is kept of the teacher"

    student: str | None = option("The student: an id on the Hub, or a folder.")
    from_scratch: bool = option("Start that student with random weights.", False)
    num_hidden_layers: int | None = option("Layers of the teacher to keep.")
    layers: str = option("Which: uniform, alternate, first, last, or their numbers, as 0,3,11.", "uniform")
    hidden_size: int | None = option("Hidden units to keep.")
    num_attention_heads: int | None = option("Heads of each layer to keep.")
    num_key_value_heads: int | None = option("Heads of keys and values to keep.")
    intermediate_size: int | None = option("Neurons of each feed-forward layer to keep.")
    embedding_size: int | None = option("Width of the embeddings to keep (ELECTRA, ALBERT).")


@dataclass
class DataOptions:
    """What is read."""

    _argument_group_name = "data"

    dataset: str = field(
        metadata={"help": "An id on the Hub, a folder, or a file: csv, tsv, json, jsonl, parquet, arrow, txt."}
    )
    dataset_config: str | None = option("Which of its configurations, where it has several.")
    train_split: str = option("The split to train on.", "train")
    eval_dataset: str | None = option("Another data set to evaluate on, given as `dataset` is.")
    eval_split: str | None = option(
        "The split to evaluate on; validation, dev or test if left out, or a tenth of the training rows."
    )
    text_column: str | None = option("The column of texts, words or questions; a common name if left out.")
    text_pair_column: str | None = option("The column of second texts, or of contexts of questions.")
    image_column: str | None = option("The column of pictures.")
    audio_column: str | None = option("The column of recordings.")
    label_column: str | None = option("The column of labels, tags, answers, or of texts to be written.")
    max_length: int | None = option("Tokens of a row or block; 128 (questions: 384), or what the model can read.")
    max_target_length: int | None = option("Tokens of a text that is to be written; 128 if left out.")
    sampling_rate: int | None = option("Samples a second of recordings that do not say it.")
    max_train_samples: int | None = option("Train on the first rows only.")
    max_eval_samples: int | None = option("Evaluate on the first rows only.")


@dataclass
class ObjectiveOptions:
    """What is learnt."""

    _argument_group_name = "what is learnt"

    recipe: Recipe = option("A published method, by its name in `hf_distill.recipes`.", "hinton")
    recipe_args: str | None = option(
        "Arguments of the recipe, as 'stage: layers, layer_map: last'. Those of hinton are --temperature and --alpha."
    )


@dataclass
class BaselineOptions:
    """What the student is compared with."""

    _argument_group_name = "comparison"

    baseline: bool = option(
        "Also train the same student on the labels alone, in --output_dir/baseline, to see what the teacher gave.",
        False,
    )

@dataclass
class ResumeOptions:
    """How the job goes."""

    _argument_group_name = "job"

    resume: bool = option("Go on with the job in --output_dir from its last whole checkpoint.", False)
