"""The options of the commands, in groups. A field's `help` is its only description.

Nothing here imports torch, so that `--help` answers at once. Options of training are those of
`DistillationTrainingArguments`, and are added where a command runs.
"""

from dataclasses import dataclass, field
from typing import Any, Literal


def option(help: str, default: Any = None) -> Any:
    """A field with its description."""
    return field(default=default, metadata={"help": help})


COUNTS = ("num_rows", "batch_size", "max_length", "max_target_length", "sampling_rate", "epochs")
"""Options of which there is at least 1."""

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
    "vid",
    "crd",
    "nst",
    "mobilebert_like",
    "distil_whisper",
]


@dataclass
class TeacherOptions:
    """Who teaches."""

    _argument_group_name = "teacher"

    teacher: str = field(metadata={"help": "The teacher: an id on the Hub, a folder, or the folder of a cache."})
    task: str | None = option(
        "What the models do, by the name that Transformers' pipelines give it; found from the teacher if left out."
    )


@dataclass
class ModelOptions:
    """One model, to be trained or measured."""

    _argument_group_name = "model"

    model: str = field(metadata={"help": "The model: an id on the Hub, or a folder."})
    task: str | None = option(
        "What the model does, by the name that Transformers' pipelines give it; found from the model if left out."
    )


@dataclass
class OptionalTeacherOptions:
    """A teacher to compare a model with."""

    _argument_group_name = "teacher"

    teacher: str | None = option("A teacher: measured as well, and how often the two choose the same class.")


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
        metadata={
            "help": "An id on the Hub, a folder (of pictures or sounds too), or a file: csv, tsv, json, jsonl, "
            "parquet, arrow, txt."
        }
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
    max_train_samples: int | None = option("Train on so many rows only, spread evenly.")
    max_eval_samples: int | None = option("Evaluate on so many rows only, spread evenly.")


@dataclass
class ObjectiveOptions:
    """What is learnt."""

    _argument_group_name = "what is learnt"

    recipe: Recipe = field(
        default="hinton", metadata={"help": "A published method, by its name in `hf_distill.recipes`."}
    )
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
    exports: bool = option(
        "Also export the student for ONNX Runtime, with 8-bit weights too, and torch.export, in --output_dir/exports, "
        "compared with it in the report.",
        False,
    )
    leave_one_out: int | None = option(
        "Also train the student for this many steps with all terms, and without each, to see which one helped."
    )


@dataclass
class ResumeOptions:
    """How the job goes."""

    _argument_group_name = "job"

    resume: bool = option("Go on with the job in --output_dir from its last whole checkpoint.", False)


@dataclass
class BudgetOptions:
    """What the student may take, and what its training may cost."""

    _argument_group_name = "budget"

    budget: str = field(
        metadata={"help": "What the student may take: '3x faster', '3x smaller', a size ('10MB') or a time ('5ms')."}
    )
    cost_per_hour: float | None = option("The price of an hour of this machine, to say what the job will cost.")
    plan_only: bool = option("Find the student and say how long the job takes, and stop there.", False)


@dataclass
class OutputOptions:
    """Where something is written."""

    _argument_group_name = "output"

    output_dir: str = field(metadata={"help": "The folder that is written."})
    seed: int = option("Draws the weights that are new.", 42)


@dataclass
class EvaluationOptions:
    """How a model is measured."""

    _argument_group_name = "evaluation"

    output_file: str | None = option("Where the measurements are written, as JSON.")
    batch_size: int = option("Rows at a time.", 8)
    use_cpu: bool = option("Leave accelerators alone.", False)


@dataclass
class FinishedOptions:
    """The students that are compared."""

    _argument_group_name = "students"

    student: str = field(metadata={"help": "The distilled student: an id on the Hub, or a folder."})
    baseline: str | None = option("The same student, trained on the labels alone, to see what the teacher gave.")


@dataclass
class ReportOptions:
    """How they are compared."""

    _argument_group_name = "report"

    output_dir: str = field(metadata={"help": "The folder that is written: page, plots, JSON and Markdown."})
    confidence: float = option("Of the intervals.", 0.95)
    num_resamples: int = option("Draws of rows, for intervals and tests.", 1000)
    exports: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Folders of programs that `hf-distill export` has made of the student. Those in its own folder "
            "`exports` are found by themselves."
        },
    )
    batch_size: int = option("Rows at a time.", 8)
    use_cpu: bool = option("Leave accelerators alone.", False)


@dataclass
class ExportOptions:
    """What is exported, and how it is tried."""

    _argument_group_name = "export"

    output_dir: str = field(metadata={"help": "The folder that is written."})
    format: Literal["onnx", "torch"] = field(
        default="onnx", metadata={"help": "For ONNX Runtime and others, or for PyTorch without the model's code."}
    )
    int8: bool = option("Store weights as 8-bit integers (onnx).", False)
    num_rows: int = option("Rows of the evaluation data on which the program is compared with the model.", 100)
    batch_size: int = option("Rows at a time, on which it is also timed.", 8)


@dataclass
class CacheOptions:
    """What is kept of the answers, and where."""

    _argument_group_name = "cache"

    output_dir: str = field(metadata={"help": "The folder that is written."})
    top_k: int | None = option(
        "Keep this many of the likeliest tokens of a position, of language models; all if left out."
    )
    drawn_at: float | None = option(
        "Draw these tokens in place of keeping the likeliest, for training at this temperature."
    )
    dtype: Literal["float16", "bfloat16", "float32", "uint8"] = field(
        default="float16", metadata={"help": "What numbers are kept in."}
    )
    layers: str | None = option(
        "Keep the hidden states of these layers too, for recipes that compare layers: their numbers, as 0,3,-1, or "
        "those of each side, as 'encoder: [3, 6], decoder: [6]'."
    )
    pooled: Literal["first", "last", "mean"] | None = option(
        "Keep one vector a row of these layers, that of its first or last token or their mean; all tokens if left out."
    )
    epochs: int | None = option("Of how many epochs to keep the answers, where each has masks of its own (fill-mask).")
    batch_size: int = option("Rows that the teacher reads at once.", 32)
    seed: int = option(
        "Holds out the rows to evaluate on, where there is no split of them; that of the distillation.", 42
    )
    use_cpu: bool = option("Leave accelerators alone.", False)


@dataclass
class CheckOptions:
    """What is tried."""

    _argument_group_name = "check"

    num_rows: int = option("Rows of the training data on which the equalities are tried.", 8)


@dataclass
class SearchOptions:
    """How the search goes."""

    _argument_group_name = "search"

    n_trials: int = option("Trainings to try.", 20)
    min_temperature: float = option("Lowest temperature.", 1.0)
    max_temperature: float = option("Highest temperature.", 8.0)
    min_alpha: float = option("Smallest weight of the labels.", 0.0)
    max_alpha: float = option("Largest weight of the labels; below 1, where nothing is learnt from the teacher.", 0.9)
    min_learning_rate: float = option("Smallest learning rate.", 1e-5)
    max_learning_rate: float = option("Largest learning rate.", 1e-3)
    metric: str | None = option(
        "The score to be best, without the prefix eval_; that of the task if left out: accuracy, f1, micro_f1, "
        "mean_squared_error or perplexity."
    )
