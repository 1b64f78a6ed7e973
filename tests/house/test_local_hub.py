"""The folders that stand in for the Hub are found by the loading code that users call."""

import torch
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.house.local_hub import put_dataset, put_model, put_tokenizer


def test_a_model_and_its_tokenizer_load_by_their_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vocabulary = put_tokenizer("org/teacher", ["A good film.", "A bad one."])
    saved = put_model(
        "org/teacher", AutoModelForSequenceClassification, vocab_size=len(vocabulary), id2label={0: "bad", 1: "good"}
    )
    loaded = AutoModelForSequenceClassification.from_pretrained("org/teacher")
    assert loaded.config.id2label == {0: "bad", 1: "good"}
    assert all(torch.equal(one, other) for one, other in zip(saved.parameters(), loaded.parameters(), strict=True))
    tokenizer = AutoTokenizer.from_pretrained("org/teacher")
    encoded = tokenizer(["a GOOD film", "unheard"], padding=True, return_tensors="pt")
    assert tokenizer.batch_decode(encoded["input_ids"]) == [
        "[CLS] a good film [SEP]",
        "[CLS] [UNK] [SEP] [PAD] [PAD]",
    ]
    assert loaded(**encoded).logits.shape == (2, 2)


def test_a_data_set_loads_by_its_id_and_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = {"train": [{"text": "a", "label": 0}, {"text": "b", "label": 1}], "validation": [{"text": "c", "label": 1}]}
    put_dataset("org/rows", rows, config="small")
    loaded = load_dataset("org/rows", "small")
    assert {split: list(loaded[split]) for split in loaded} == rows
    assert list(load_dataset("org/rows", "small", split="train")["label"]) == [0, 1]
