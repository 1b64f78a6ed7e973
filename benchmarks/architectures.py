"""Every architecture of Transformers that has a head we know, as a tiny pair: do the promised equalities hold?

    python benchmarks/architectures.py                       # all heads, about two hours
    python benchmarks/architectures.py --heads SequenceClassification CausalLM
    python benchmarks/architectures.py --again               # where something did not hold when it was last run

For each model class behind an Auto class, student and teacher are made from one small configuration and two seeds.
`check_invariances` is run, then a step of training and an evaluation. What cannot be made small by the fields that
architectures share, or reads other rows than those here, is counted apart, and nothing is said about it. Heads that
are not run keep their last results.
"""

import argparse
import contextlib
import inspect
import io
import json
import logging
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import RESULTS, save

from hf_distill import DistillationTrainer, DistillationTrainingArguments, check_invariances
from hf_distill.errors import DistillationError


sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tiny_models import PaddingCollator, rows_for


HEADS = {
    "SequenceClassification": "decoded_single_label",
    "TokenClassification": "tokens",
    "QuestionAnswering": "answers",
    "MultipleChoice": "choices",
    "NextSentencePrediction": "next_sentence",
    "MaskedLM": "masked",
    "CausalLM": "causal",
    "Seq2SeqLM": "seq2seq",
    "ImageTextToText": "causal",
    "ImageClassification": "single_label",
    "VideoClassification": "single_label",
    "AudioClassification": "single_label",
    "SemanticSegmentation": "pixels",
    "ObjectDetection": "boxes",
    "CTC": "transcripts",
    "SpeechSeq2Seq": "seq2seq",
    "ZeroShotImageClassification": "pairs",
    "TextEncoding": "embeddings",
}
"""Auto class, without `AutoModelFor`, → the labels that its models learn from."""

SIDE = 64
"""Of an image, in pixels, and of a spectrogram, in columns and rows."""
NUM_SAMPLES = 8000
"""Of a sound: enough for what the convolutions of Wav2Vec2 and its kin need."""
NUM_FRAMES = 4
"""Of a film."""
NAMES_OF_SIZES = (
    (
        32,
        "hidden_size d_model n_embd dim emb_dim embedding_size word_embed_proj_dim max_source_positions embed_dim "
        "projection_dim feature_projection_input_dim",
    ),
    (40, "intermediate_size encoder_ffn_dim decoder_ffn_dim hidden_dim d_ff ffn_dim d_inner n_inner ffn_hidden_size"),
    (16, "head_dim d_kv d_head moe_intermediate_size"),
    (
        2,
        "num_hidden_layers n_layer n_layers num_layers num_attention_heads n_head n_heads num_heads "
        "num_key_value_heads encoder_attention_heads decoder_attention_heads num_experts num_local_experts "
        "eos_token_id num_conv_pos_embedding_groups",
    ),
    (1, "encoder_layers decoder_layers num_decoder_layers num_experts_per_tok num_random_blocks bos_token_id depth"),
    (NUM_FRAMES, "num_frames frames_per_clip block_size"),
    (64, "max_position_embeddings n_positions vocab_size"),
    (SIDE, "image_size num_mel_bins crop_size"),
    (8, "rotary_dim attention_window local_attention patch_size num_queries"),
    (3, "mask_token_id"),
    (0.2, "initializer_range init_std"),
    (
        0.0,
        "hidden_dropout_prob attention_probs_dropout_prob dropout attention_dropout activation_dropout dropout_rate "
        "resid_pdrop embd_pdrop attn_pdrop hidden_dropout classifier_dropout summary_last_dropout pooler_dropout "
        "seq_classif_dropout qa_dropout classifier_dropout_prob embedding_dropout mlp_dropout drop_path_rate "
        "layerdrop feat_proj_dropout final_dropout mask_time_prob",
    ),
    (False, "use_timm_backbone use_pretrained_backbone"),
)
SMALL = {name: size for size, names in NAMES_OF_SIZES for name in names.split()}
"""The fields that most configurations have under one of these names."""
WIDTHS = {
    "hidden_size",
    "embed_dim",
    "dim",
    "head_dim",
    "patch_size",
    "num_attention_heads",
    "num_heads",
    "num_queries",
}
KEPT: tuple[set[str], ...] = (
    set(),
    {"layer_types"},
    WIDTHS,
    {*WIDTHS, "num_hidden_layers", "depths", "drop_path_rate"},
)
"""What is left as it is where an architecture cannot be had with all of them small, in the order that is tried."""
CLASSIFIERS = ("single_label", "decoded_single_label", "tokens", "pixels", "boxes")

FILE = RESULTS / "architectures.json"
MAX_PARAMETERS = 30_000_000
MAX_SECONDS = 120
"""Of processor time, so that a busy machine does not count."""


class OutOfTimeError(BaseException):
    """A model that takes longer than `MAX_SECONDS`."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


# ---- Models ---------------------------------------------------------------------------------------------------------


def small_config(config_class: Any, task: str, keeping: set[str]) -> Any:
    """A configuration whose fields, and those of its parts, are small where they have a name that we know.

    Args:
        keeping: fields that keep their default.
    """
    default = config_class()
    parts = {name: getattr(default, name, None) for name in config_class.sub_configs}
    parts = {name: small_part(part, task, keeping) for name, part in parts.items() if part is not None}
    fields = small_fields(default, task, keeping) | parts
    fields |= {"num_labels": 3} if task in CLASSIFIERS else {}
    return config_class(**fields, pad_token_id=0, decoder_start_token_id=0)


def small_part(part: Any, task: str, keeping: set[str]) -> Any:
    parts = {name: getattr(part, name, None) for name in type(part).sub_configs}
    parts = {name: small_part(inner, task, keeping) for name, inner in parts.items() if inner is not None}
    return {**part.to_dict(), **small_fields(part, task, keeping), **parts, "pad_token_id": 0}


def small_fields(default: Any, task: str, keeping: set[str]) -> dict[str, Any]:
    known = default.to_dict()
    fields = {
        name: type(known[name])(size)
        for name, size in SMALL.items()
        if name in known and type(known[name]) in (int, float, bool)
    }
    lists = {name: known[name] for name in ("depths", "layer_types") if isinstance(known.get(name), (list, tuple))}
    fields |= {"depths": [1] * len(lists["depths"])} if "depths" in lists else {}
    fields |= {"layer_types": [lists["layer_types"][0], lists["layer_types"][-1]]} if lists.get("layer_types") else {}
    fields |= {"is_decoder": True} if task == "causal" and "is_decoder" in known else {}
    return {name: size for name, size in fields.items() if name not in keeping}


def small_pair(model_class: Any, config_class: Any, task: str) -> tuple[Any, Any]:
    """Student and teacher, as small as they can be had.

    Raises:
        ValueError: where the architecture wants other fields, or reads other rows.
    """
    refusals = []
    for keeping in KEPT:
        try:
            return pair_of(model_class, config_class, task, keeping)
        except Exception as error:
            refusals.append(f"{type(error).__name__}: {error}")
    raise ValueError(refusals[0])


def pair_of(model_class: Any, config_class: Any, task: str, keeping: set[str]) -> tuple[Any, Any]:
    with torch.device("meta"):
        size = sum(weight.numel() for weight in model_class(small_config(config_class, task, keeping)).parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} million parameters")
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(model_class(small_config(config_class, task, keeping)).eval())
    with torch.no_grad():
        models[0](**Collator(models[0])(small_rows(models[0], task)[4:]))
    return models[0], models[1]


# ---- Rows -----------------------------------------------------------------------------------------------------------


def small_rows(model: Any, task: str) -> list[dict[str, Any]]:
    """Rows of what the model reads, with labels for its head."""
    texts = rows_for("seq2seq" if task == "pairs" else "single_label" if task in ("pixels", "boxes") else task)
    main = "input_ids" if task == "pairs" else type(model).main_input_name
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index, row in enumerate(texts):
        inputs = {name: value for name, value in row.items() if name not in ("labels", "input_values")}
        if main != "input_ids":
            inputs = {main: media(model, main, index, generator)}
        if task == "pairs":
            inputs = {"input_ids": [*row["input_ids"], 2], "pixel_values": media(model, "pixel_values", 0, generator)}
        rows.append(inputs | labels_of(task, row, index))
    return rows


def media(model: Any, name: str, index: int, generator: torch.Generator) -> torch.Tensor:
    """An image, a film, a sound or a spectrogram, by the name that the model has for it."""
    shape: tuple[int, ...] = (SIDE, SIDE)
    if name.startswith("pixel_values"):
        is_film = "Video" in type(model).__name__ or "videos" in name or hasattr(model.config, "tubelet_size")
        shape = (NUM_FRAMES, 3, SIDE, SIDE) if is_film else (3, SIDE, SIDE)
    elif name == "input_values" and not hasattr(model.config, "frequency_stride"):
        shape = (NUM_SAMPLES + 100 * index,)
    return torch.randn(shape, generator=generator)


def labels_of(task: str, row: dict[str, Any], index: int) -> dict[str, Any]:
    if task == "pixels":
        numbers = torch.arange(SIDE * SIDE).view(SIDE, SIDE) * (index + 2)
        return {"labels": torch.where(numbers % 5 == 0, 255, numbers % 3)}
    if task == "boxes":
        places = [[0.3 + 0.05 * number, 0.4, 0.2, 0.3] for number in range(1 + index % 3)]
        classes = [(index + number) % 3 for number in range(len(places))]
        return {"labels": {"class_labels": torch.tensor(classes), "boxes": torch.tensor(places)}}
    return {"labels": row["labels"]} if task != "pairs" and "labels" in row else {}


class Collator(PaddingCollator):
    """Pads, and leaves out what the model does not read."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.taken = set(inspect.signature(model.forward).parameters)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        targets = [row["labels"] for row in rows if isinstance(row.get("labels"), dict)]
        batch: dict[str, Any] = dict(
            super().__call__([{n: v for n, v in row.items() if not isinstance(v, dict)} for row in rows])
        )
        batch |= {"labels": targets} if targets else {}
        return {name: value for name, value in batch.items() if name in self.taken}


# ---- Trying ---------------------------------------------------------------------------------------------------------


def tried(model_class: Any, config_class: Any, task: str) -> tuple[str, str]:
    """What came of one architecture, and why."""
    try:
        pair = small_pair(model_class, config_class, task)
    except Exception as error:
        return "not tried", f"{type(error).__name__}: {error}"
    try:
        return equalities(*pair, task)
    except DistillationError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"


def equalities(student: Any, teacher: Any, task: str) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = DistillationTrainer(
            model=student,
            teacher=teacher,
            args=DistillationTrainingArguments(
                output_dir=folder,
                alpha=0.0 if task == "embeddings" else 0.5,
                max_steps=1,
                per_device_train_batch_size=4,
                eval_do_concat_batches=task != "boxes",
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                save_strategy="no",
            ),
            train_dataset=small_rows(student, task),
            eval_dataset=small_rows(student, task),
            data_collator=Collator(student),
        )
        report = check_invariances(trainer)
        trainer.train()
        trainer.evaluate()
    broken = [f"{check.name} {check.difference:.1e} {check.reason}" for check in report.checks if check.held is False]
    return ("broken", "; ".join(broken)) if broken else ("held", str(report.dtype).removeprefix("torch."))


def classes_of(auto_name: str) -> Iterator[tuple[Any, Any]]:
    mapping = getattr(transformers, f"AutoModelFor{auto_name}")._model_mapping
    for config_class in mapping:
        try:
            models = mapping[config_class]
        except (ImportError, AttributeError, ValueError):
            continue
        for model_class in models if isinstance(models, (tuple, list)) else [models]:
            yield model_class, config_class


# ---- Telling --------------------------------------------------------------------------------------------------------


def state_of(state: str, why: str) -> str:
    """ "named" where the check gives a reason for each equality that does not hold."""
    reasons = [re.fullmatch(r".* \d\.\de[+-]\d+ ?(.*)", part) for part in why.split("; ")]
    return "named" if state == "broken" and all(reason and reason[1] for reason in reasons) else state


def table(heads: dict[str, dict[str, Any]]) -> str:
    states = {
        "held": "all equalities hold",
        "named": "but for one, and the check says why",
        "broken": "broken",
        "refused": "refused in a sentence",
        "error": "fails with its own error",
        "not tried": "not to be had tiny",
    }
    lines = [f"| head | {' | '.join(states.values())} |", f"|---|{'---|' * len(states)}"]
    for head, found in heads.items():
        came_to = [state_of(*outcome) for outcome in found.values()]
        lines.append(f"| {head} | {' | '.join(str(came_to.count(state)) for state in states)} |")
    lines.append("\nWhat did not hold, and why:\n")
    lines += ["| model | what |", "|---|---|"]
    for found in heads.values():
        lines += [
            f"| `{name}` | {state}: {' '.join(why.split())[:300].replace('|', '/')} |"
            for name, (state, why) in found.items()
            if state not in ("held", "not tried")
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--again", action="store_true", help="only the classes of these heads that are in the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for head in arguments.heads:
        known = json.loads(FILE.read_text())["heads"] if FILE.exists() else {}
        found = known.get(head, {}) if arguments.again else {}
        for model_class, config_class in classes_of(head):
            name = model_class.__name__
            if found.get(name, ("",))[0] in ("held", "not tried"):
                continue
            try:
                with time_limit():
                    found[name] = tried(model_class, config_class, HEADS[head])
            except OutOfTimeError:
                found[name] = "not tried", f"took more than {MAX_SECONDS} s"
        known |= {head: found}
        heads = {name: known[name] for name in HEADS if name in known}
        save("architectures", {"heads": heads}, table(heads))


if __name__ == "__main__":
    main()
