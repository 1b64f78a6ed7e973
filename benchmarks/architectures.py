"""Every architecture of Transformers that has a head we know, as a tiny pair: do the promised equalities hold?

    python benchmarks/architectures.py                       # all heads, about 20 minutes
    python benchmarks/architectures.py --heads SequenceClassification CausalLM

For each model class behind an Auto class, student and teacher are made from one small configuration and two seeds.
`check_invariances` is run, then a step of training and an evaluation. What cannot be made small by the fields that
architectures share is counted apart, and nothing is said about it.
"""

import argparse
import contextlib
import inspect
import io
import logging
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import save

from hf_distill import DistillationTrainer, DistillationTrainingArguments, check_invariances


sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.tiny_models import PaddingCollator, rows_for


HEADS = {
    "SequenceClassification": "single_label",
    "TokenClassification": "tokens",
    "QuestionAnswering": "answers",
    "MultipleChoice": "choices",
    "NextSentencePrediction": "next_sentence",
    "MaskedLM": "masked",
    "CausalLM": "causal",
    "Seq2SeqLM": "seq2seq",
    "ImageClassification": "images",
}
"""Auto class → the rows of the tests that its models read."""

NAMES_OF_SIZES = {
    32: "hidden_size d_model n_embd dim emb_dim embedding_size word_embed_proj_dim",
    40: "intermediate_size encoder_ffn_dim decoder_ffn_dim hidden_dim d_ff ffn_dim d_inner n_inner ffn_hidden_size",
    16: "head_dim d_kv d_head moe_intermediate_size",
    2: "num_hidden_layers n_layer n_layers num_layers num_attention_heads n_head n_heads num_heads "
    "num_key_value_heads encoder_attention_heads decoder_attention_heads num_experts num_local_experts eos_token_id",
    1: "encoder_layers decoder_layers num_decoder_layers num_experts_per_tok num_random_blocks bos_token_id",
    64: "max_position_embeddings n_positions vocab_size",
    8: "rotary_dim attention_window local_attention image_size",
    4: "block_size patch_size",
    3: "mask_token_id",
    0.0: "hidden_dropout_prob attention_probs_dropout_prob dropout attention_dropout activation_dropout dropout_rate "
    "resid_pdrop embd_pdrop attn_pdrop hidden_dropout classifier_dropout summary_last_dropout pooler_dropout "
    "seq_classif_dropout qa_dropout classifier_dropout_prob embedding_dropout mlp_dropout",
}
SMALL = {name: size for size, names in NAMES_OF_SIZES.items() for name in names.split()}
"""The fields that most configurations have under one of these names."""

MAX_PARAMETERS = 3_000_000
MAX_SECONDS = 60


class OutOfTimeError(BaseException):
    """A model that takes longer than `MAX_SECONDS`."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def small_config(config_class: Any, task: str) -> Any:
    known = config_class().to_dict()
    fields = {name: size for name, size in SMALL.items() if name in known}
    fields |= {"num_labels": 3} if task in ("single_label", "tokens", "images") else {}
    fields |= {"is_decoder": True} if task == "causal" and "is_decoder" in known else {}
    return config_class(**fields, pad_token_id=0, decoder_start_token_id=0)


def small_pair(model_class: Any, config_class: Any, task: str) -> tuple[Any, Any]:
    """Student and teacher.

    Raises:
        Exception: any, where the architecture wants other fields, or reads other rows.
    """
    with torch.device("meta"):
        size = sum(weight.numel() for weight in model_class(small_config(config_class, task)).parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(f"{size / 1e6:.0f} million parameters")
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(model_class(small_config(config_class, task)).eval())
    taken = inspect.signature(models[0].forward).parameters
    batch = {name: value for name, value in PaddingCollator()(small_rows(task)[4:]).items() if name in taken}
    with torch.no_grad():
        models[0](**batch)
    return models[0], models[1]


def small_rows(task: str) -> list[dict[str, Any]]:
    return [
        {name: value.float() if name == "pixel_values" else value for name, value in row.items()}
        for row in rows_for(task)
    ]


def tried(model_class: Any, config_class: Any, task: str) -> tuple[str, str]:
    """What came of one architecture, and why."""
    try:
        pair = small_pair(model_class, config_class, task)
    except Exception as error:
        return "not tiny", f"{type(error).__name__}: {error}"
    try:
        return equalities(*pair, task)
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"


def equalities(student: Any, teacher: Any, task: str) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = DistillationTrainer(
            model=student,
            teacher=teacher,
            args=DistillationTrainingArguments(
                output_dir=folder,
                max_steps=1,
                per_device_train_batch_size=4,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
                save_strategy="no",
            ),
            train_dataset=small_rows(task),
            eval_dataset=small_rows(task),
            data_collator=PaddingCollator(),
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


def table(heads: dict[str, dict[str, tuple[str, str]]]) -> str:
    states = ("held", "broken", "error", "not tiny")
    lines = ["| head | all equalities hold | broken | error | not to be had tiny |", "|---|---|---|---|---|"]
    for head, found in heads.items():
        counts = [sum(state == wanted for state, _ in found.values()) for wanted in states]
        lines.append(f"| {head} | {' | '.join(map(str, counts))} |")
    lines.append("\nWhat did not hold, and why:\n")
    lines += ["| model | what |", "|---|---|"]
    for found in heads.values():
        lines += [
            f"| `{name}` | {state}: {' '.join(why.split())[:200].replace('|', '/')} |"
            for name, (state, why) in found.items()
            if state in ("broken", "error")
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    heads: dict[str, dict[str, tuple[str, str]]] = {}
    for head in arguments.heads:
        heads[head] = {}
        for model_class, config_class in classes_of(head):
            try:
                with time_limit():
                    heads[head][model_class.__name__] = tried(model_class, config_class, HEADS[head])
            except OutOfTimeError:
                heads[head][model_class.__name__] = "not tiny", f"took more than {MAX_SECONDS} s"
    save("architectures", {"heads": heads}, table(heads))


if __name__ == "__main__":
    main()
