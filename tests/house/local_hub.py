"""Tiny models and data sets in folders named like their ids on the Hub.

`from_pretrained` and `load_dataset` look for a folder of the given name before they ask the Hub. So a page can name
the models that its readers will use, and its blocks, run in a folder where a prelude has put tiny ones under the same
names, run the same code to the end.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast


SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def put_tokenizer(model_id: str, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """A tokenizer of the texts' words in the folder of that model."""
    splitter = Whitespace()
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text.lower())})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS.values(), *words])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = Lowercase(), splitter
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    backend.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **SPECIAL_TOKENS)
    tokenizer.save_pretrained(model_id)
    return tokenizer


def put_model(model_id: str, auto_class: type, model_type: str = "bert", **config: object) -> PreTrainedModel:
    """A model with random weights in the folder of that id.

    Args:
        model_id: the name that the page uses.
        auto_class: the Auto class whose head it is to have.
        model_type: the architecture, by Transformers' name.
        config: fields of its configuration, over those of a tiny encoder.
    """
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = auto_class.from_config(AutoConfig.for_model(model_type, **{**tiny, **config}))
    model.save_pretrained(model_id)
    return model


def put_dataset(
    dataset_id: str, splits: Mapping[str, Sequence[Mapping[str, object]]], config: str = "default"
) -> None:
    """Rows for each split in the folder of that data set, as the configuration of that name."""
    folder = Path(dataset_id)
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{config}-{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    files = "".join(f"  - split: {split}\n    path: {config}-{split}.jsonl\n" for split in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n")
