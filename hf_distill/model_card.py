"""The card of a distilled student: who taught it, by which method, on what, and what came of it."""

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedTokenizerBase
from transformers.trainer_utils import unwrap_peft_model

from hf_distill import recipes
from hf_distill.heads import Head
from hf_distill.objective import Objective
from hf_distill.report import DistillationReport
from hf_distill.report.markdown import markdown_table
from hf_distill.report.sources import hub_id, is_repo_id
from hf_distill.report.term_words import term_rows
from hf_distill.teachers import CachedTeacher, ColumnTeacher, ServedTeacher, known_teachers, online_teachers
from hf_distill.version import __version__


TAGS = ("distillation", "knowledge-distillation", "hf_distill")

PIPELINES = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForImageClassification": "image-classification",
    "AutoModelForAudioClassification": "audio-classification",
    "AutoModelForVideoClassification": "video-classification",
    "AutoModelForImageTextToText": "image-text-to-text",
    "AutoModelForSemanticSegmentation": "image-segmentation",
    "AutoModelForObjectDetection": "object-detection",
    "AutoModelForSpeechSeq2Seq": "automatic-speech-recognition",
    "AutoModelForCTC": "automatic-speech-recognition",
    "AutoModelForZeroShotImageClassification": "zero-shot-image-classification",
    "AutoModelForMultipleChoice": "multiple-choice",
    "AutoModel": "feature-extraction",
    "AutoModelForTextEncoding": "feature-extraction",
}
"""Auto class → what the Hub calls the task; an encoder–decoder of texts may do several."""

HYPERPARAMETERS = ("learning_rate", "lr_scheduler_type", "optim", "num_train_epochs", "max_steps", "seed")

CITATION = re.compile(r"(?P<authors>[^:]+): (?P<title>.+?), (?P<year>\d{4}),? (?P<url>https://\S+?)[.,]?(?:\s|$)")
"""What stands under References in the docstring of a recipe."""


def model_card(
    trainer: Any, repo_id: str, report: DistillationReport | None = None, **metadata: str | list[str] | None
) -> ModelCard:
    """The card of a trainer's student. It holds no path of the machine that it was trained on.

    Args:
        repo_id: what the student is called on the Hub.
        report: whose numbers go into the metadata and the text.
        metadata: what `Trainer.create_model_card` takes: language, license, tags, model_name, finetuned_from, tasks,
            dataset_tags, dataset, dataset_args.
    """
    data = _card_data(trainer, repo_id, report, metadata)
    teachers = ", ".join(map(_teacher_words, known_teachers(trainer.teacher))) or "no teacher"
    sections = {
        "How to use": _how_to_use(trainer, repo_id),
        "Teacher": f"{teachers}." if trainer.teacher is not None else "None: it was trained on labels alone.",
        "Method": _method(trainer),
        "Training": _training(trainer, metadata),
        "Results": report.to_markdown(level=3) if report is not None else _last_evaluation(trainer),
        "Citation": _citation(trainer.distillation_objective.recipe),
    }
    text = "\n\n".join(f"## {name}\n\n{content}" for name, content in sections.items() if content)
    summary = "A student, distilled with [hf_distill](https://github.com/hf-distill/hf_distill) "
    summary += f"{__version__} from {teachers}."
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {data.model_name}\n\n{summary}\n\n{text}\n")


def _card_data(
    trainer: Any, repo_id: str, report: DistillationReport | None, metadata: Mapping[str, Any]
) -> ModelCardData:
    is_peft = unwrap_peft_model(trainer.model) is not trainer.model
    own = metadata.get("finetuned_from") or hub_id(trainer.model)
    taught_by = [name for each in online_teachers(trainer.teacher) if (name := hub_id(each.model))]
    base = own or (taught_by[0] if len(taught_by) == 1 else taught_by) or None
    pipeline = _listed(metadata.get("tasks")) or [PIPELINES.get(trainer.head.auto_class.__name__, "")]
    name = metadata.get("model_name") or repo_id.split("/")[-1]
    results = _results(trainer, report, pipeline[0] or "other", metadata)
    return ModelCardData(
        language=metadata.get("language"),
        license=metadata.get("license"),
        library_name="peft" if is_peft else "transformers",
        tags=list(dict.fromkeys([*TAGS, *_listed(metadata.get("tags")), "generated_from_trainer"])),
        datasets=_datasets(trainer, metadata) or None,
        base_model=base,
        base_model_relation=("adapter" if is_peft else "finetune") if base else None,
        pipeline_tag=pipeline[0] or None,
        model_name=name,
        eval_results=results or None,
    )


def _results(
    trainer: Any, report: DistillationReport | None, task: str, metadata: Mapping[str, Any]
) -> list[EvalResult]:
    """The student's numbers, of the report or else of the last evaluation."""
    if report is not None:
        values = {name: metric.models["student"].value for name, metric in report.metrics.items()}
        student = report.imitation.get("student")
        if student is not None and student.agreement is not None:
            values["agreement"] = student.agreement.value
        values |= {f"{name}_retention": m.retention.value for name, m in report.metrics.items() if m.retention}
    else:
        values = {name.removeprefix("eval_"): value for name, value in _evaluation(trainer).items()}
    dataset = (_datasets(trainer, metadata) or ["unknown"])[0]
    label = (_listed(metadata.get("dataset")) or [dataset])[0]
    config = next(iter(_listed(metadata.get("dataset_args"))), None)
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=label if dataset != "unknown" else "evaluation set",
            dataset_args={"config": config} if config else None,
            metric_type=name.replace("loss/", "loss_"),
            metric_name=name,
            metric_value=round(float(value), 6),
        )
        for name, value in values.items()
        if value == value
    ]


def _evaluation(trainer: Any) -> dict[str, float]:
    """What the last evaluation of the training found, without its speed."""
    history: list[dict[str, float]] = trainer.state.log_history
    last = next((log for log in reversed(history) if "eval_loss" in log), dict[str, float]())
    return {
        name: value
        for name, value in last.items()
        if name.startswith("eval_") and not name.endswith(("runtime", "per_second"))
    }


def _last_evaluation(trainer: Any) -> str:
    rows = [[name.removeprefix("eval_"), f"{value:.4g}"] for name, value in _evaluation(trainer).items()]
    return markdown_table((["metric", "value"], rows)) if rows else ""


def _datasets(trainer: Any, metadata: Mapping[str, Any]) -> list[str]:
    """Ids on the Hub: those given, or the one that the data set was loaded by. A path is none."""
    if given := _listed(metadata.get("dataset_tags")):
        return given
    checksums = getattr(getattr(trainer.train_dataset, "info", None), "download_checksums", None) or {}
    found = (re.match(r"hf://datasets/([^@]+)@", url) for url in checksums)
    return list(dict.fromkeys(match[1] for match in found if match))


def _teacher_words(teacher: Any) -> str:
    if isinstance(teacher, ServedTeacher):
        model = f"`{teacher.model_name}`" if is_repo_id(teacher.model_name) else "a language model"
        return f"{model}, which a server ran and told the {teacher.top_k} likeliest tokens of"
    if isinstance(teacher, CachedTeacher):
        return "a teacher whose answers were cached"
    if isinstance(teacher, ColumnTeacher):
        return f"the answers in the column `{teacher.column}` of the data set"
    name = hub_id(teacher.model)
    if name is None:
        return f"a {type(unwrap_peft_model(teacher.model)).__name__} of {teacher.model.num_parameters():,} parameters"
    revision = getattr(teacher.model.config, "_commit_hash", None)
    link = f"[{name}](https://huggingface.co/{name})"
    return f"{link} at revision `{revision}`" if revision else link


def _method(trainer: Any) -> str:
    objective: Objective = trainer.distillation_objective
    rows = term_rows(objective)
    intro = f"Recipe: `recipes.{objective.recipe}`." if objective.recipe else "An objective of its own."
    if objective.recipe and (paper := _paper(objective.recipe)):
        intro += f" {paper['authors']}: [{paper['title']}]({paper['url']}), {paper['year']}."
    return f"{intro}\n\n{markdown_table((['term', 'weight', 'what it compares'], rows))}"


def _training(trainer: Any, metadata: Mapping[str, Any]) -> str:
    args = trainer.args
    unused = "num_train_epochs" if args.max_steps > 0 else "max_steps"  # one of the two counts
    values = {name: getattr(args, name) for name in HYPERPARAMETERS if name != unused}
    values["batch size"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    values["steps taken"] = trainer.state.global_step
    values["training rows"] = len(trainer.train_dataset) if hasattr(trainer.train_dataset, "__len__") else "a stream"
    if datasets := _datasets(trainer, metadata):
        values["data"] = ", ".join(datasets)
    rows = [[name, str(getattr(value, "value", value))] for name, value in values.items()]
    return markdown_table((["setting", "value"], rows))


def _how_to_use(trainer: Any, repo_id: str) -> str:
    head: Head = trainer.head
    model_class = head.auto_class.__name__
    processor = trainer.processing_class
    lines = [f'model = {model_class}.from_pretrained("{repo_id}")']
    names: list[str] = [model_class]
    if processor is not None:
        names.insert(0, "AutoTokenizer" if isinstance(processor, PreTrainedTokenizerBase) else "AutoProcessor")
        lines.append(f'processor = {names[0]}.from_pretrained("{repo_id}")')
    return "\n".join(["```python", f"from transformers import {', '.join(names)}", "", *lines, "```"])


def _paper(recipe: str) -> dict[str, str] | None:
    text = inspect.getdoc(getattr(recipes, recipe)) or ""
    match = CITATION.match(" ".join(text.partition("References:")[2].split()))
    return match.groupdict() if match else None


def _citation(recipe: str | None) -> str:
    """BibTeX of the recipe's paper."""
    if recipe is None or (paper := _paper(recipe)) is None:
        return ""
    authors = " and ".join(re.sub(r"^et al\.$", "others", name) for name in _authors(paper["authors"]))
    fields = {"title": paper["title"], "author": authors, "year": paper["year"], "url": paper["url"]}
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"```bibtex\n@misc{{{recipe}{paper['year']},\n{body}\n}}\n```"


def _authors(words: str) -> Sequence[str]:
    return words.replace(" et al.", ", et al.").split(", ")


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def repository_name(name: str | None, folder: str) -> str:
    """What a student is called: its id on the Hub, or else the last part of the folder that it is saved in."""
    return next((each for each in (name, Path(folder).name) if each and is_repo_id(each)), "student")
