"""Asking a teacher once about every row."""

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling, DataCollatorWithFlattening, DataCollatorWithPadding

from hf_distill import (
    CachedTeacher,
    DataCollatorForRowSeededMasking,
    EnsembleTeacher,
    cache_teacher,
    head_of,
    load_teacher,
)
from hf_distill.errors import (
    CacheMismatchError,
    ConfigurationError,
    EmptyDatasetError,
    MissingInputError,
    UnsupportedModelError,
)
from hf_distill.heads import SimilarityHead
from hf_distill.teachers import caching
from tests.cache.small_caches import contents
from tests.house.local_hub import put_tokenizer
from tests.processes import run_two_processes
from tests.teachers.test_cached import cached, rows_of, trained
from tests.test_comparable import named
from tests.text_tokenizers import wordpiece_tokenizer
from tests.tiny_detectors import detector
from tests.tiny_models import PaddingCollator, bert, model_for, rows_for


def test_it_counts_what_it_was_made_of(tmp_path):
    teacher = cached(tmp_path / "cache", dtype="float16")
    manifest = teacher.cache.manifest
    assert manifest.teacher["class"] == "BertForSequenceClassification"
    assert manifest.answers == {"kind": "dense", "shape": [3], "dtype": "float16", "fill": 0.0}
    assert manifest.inputs == ("attention_mask", "input_ids")
    assert manifest.data["num_rows"] == 8
    assert manifest.processing == {"collator": "PaddingCollator", "options": {}, "epochs": None}
    assert sum(manifest.shards.values()) == 8


def test_what_is_drawn_of_a_row_depends_on_its_content(tmp_path):
    several, alone = (
        cached(tmp_path / f"{size}", "causal", top_k=5, drawn_at=2.0, dtype="float32", batch_size=size)
        for size in (8, 1)
    )
    likeliest = cached(tmp_path / "likeliest", "causal", top_k=5, dtype="float32")
    assert several.cache.manifest.answers["drawn_at"] == 2.0
    assert "drawn_at" not in likeliest.cache.manifest.answers
    batch = PaddingCollator()(list(rows_of("causal")))
    said = []
    for teacher in (several, alone, likeliest):
        teacher.meet(None, head_of(model_for("causal", 2)))
        said.append(teacher.signals(batch).logits)
    assert torch.equal(said[0].indices, said[1].indices)
    assert not torch.equal(said[0].indices, said[2].indices)
    assert [each.drawn_at for each in said] == [2.0, 2.0, None]
    with pytest.raises(CacheMismatchError, match=r"answers\.drawn_at: None and 2\.0"):
        cached(tmp_path / "likeliest", "causal", top_k=5, drawn_at=2.0, dtype="float32")
    with pytest.raises(ConfigurationError, match=r"`drawn_at=2\.0` draws .* `top_k` is None and the teacher a Online"):
        cached(tmp_path / "all", "causal", drawn_at=2.0)


def test_rows_and_positions_are_drawn_apart(tmp_path):
    teacher = model_for("causal", 2)
    torch.nn.init.zeros_(teacher.get_output_embeddings().weight)  # all tokens are equally likely everywhere
    drawn = cached(tmp_path / "cache", "causal", teacher, top_k=5, drawn_at=1.0)
    drawn.meet(None, head_of(teacher))
    batch = PaddingCollator()(list(rows_of("causal")))
    where = head_of(teacher).mask(batch)
    first = torch.stack(
        [row[mask][:2, 0] for row, mask in zip(drawn.signals(batch).logits.indices, where, strict=True)]
    )
    assert len(first.unique(dim=0)) > len(first) / 2
    assert (first[:, 0] != first[:, 1]).any()


def test_a_finished_cache_is_opened_and_another_one_refused(tmp_path, monkeypatch):
    first = contents(cached(tmp_path / "cache").cache.path)
    with monkeypatch.context() as patch:
        patch.setattr(caching.CacheWriter, "__init__", None)  # nothing is written
        cached(tmp_path / "cache")
    assert contents(tmp_path / "cache") == first
    for options, message in {
        ("teacher", "weights"): (),
        ("dtype", r"answers\.dtype: 'float32' and 'float16'"): (),
        ("rows", r"data\.num_rows: 8 and 4"): (),
    }:
        value = {"teacher": model_for("single_label", 3), "dtype": "float16", "rows": rows_of("single_label")[:4]}
        with pytest.raises(CacheMismatchError, match=message):
            cached(tmp_path / "cache", **{options: value[options]})


def test_the_same_weights_in_another_use_are_another_teacher(tmp_path):
    first = named(bert(layers=2, num_labels=3))
    cached(tmp_path / "cache", teacher=first)
    first.save_pretrained(tmp_path / "model")
    first.config.problem_type = "single_label_classification"
    assert len(cached(tmp_path / "cache", teacher=first).cache) == 8
    assert len(cached(tmp_path / "cache", teacher=tmp_path / "model").cache) == 8
    more_heads = named(bert(layers=2, num_labels=3, num_attention_heads=4))
    renamed = named(bert(layers=2, num_labels=3), ("happy", "sad", "angry"))
    for other, message in (
        (more_heads, "num_attention_heads: 2 and 4"),
        (renamed, "id2label: {'0': 'sad', .* 'happy'"),
    ):
        other.load_state_dict(first.state_dict())
        with pytest.raises(CacheMismatchError, match=f"and the one to be made differ in {message}"):
            cached(tmp_path / "cache", teacher=other)
        with pytest.raises(CacheMismatchError, match=f"configuration is another one than .* given: {message}"):
            load_teacher(tmp_path / "cache", teacher=other)
    load_teacher(tmp_path / "cache", teacher=first)
    first.config.output_hidden_states = True
    first.config.hidden_dropout_prob = 0.3
    load_teacher(tmp_path / "cache", teacher=first)  # which answers as before


def test_shards_of_a_teacher_that_stops_are_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "MAX_SHARD_ROWS", 3)
    whole = contents(cached(tmp_path / "whole").cache.path)
    assert sum(name.startswith("shard") for name in whole) == 3

    teacher = model_for("single_label", 2)
    calls = []

    def stop(module, args):
        calls.append(module)
        if len(calls) == 3:  # once to see what an answer is, and then for two of three shards
            raise KeyboardInterrupt

    hook = teacher.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cache", teacher=teacher)
    hook.remove()
    assert not (tmp_path / "cache").exists()
    with pytest.raises(CacheMismatchError, match=r"teacher\.weights"):
        cached(tmp_path / "cache", teacher=model_for("single_label", 3))
    assert contents(cached(tmp_path / "cache", teacher=teacher).cache.path) == whole


def test_a_build_goes_on_with_another_batch_size(tmp_path, monkeypatch):
    """As it has to where the teacher ran out of memory. 8 rows in shards of 6 and 2, and not of 4."""
    monkeypatch.setattr(caching, "MAX_SHARD_ROWS", 6)
    teacher = model_for("single_label", 2)
    with monkeypatch.context() as patch:
        patch.setattr(caching.CacheWriter, "finish", lambda *_: None)
        with pytest.raises(CacheMismatchError, match="and not finished"):
            cached(tmp_path / "cache", teacher=teacher, batch_size=3)
    smaller = cached(tmp_path / "cache", teacher=teacher, batch_size=4)
    assert list(smaller.cache.manifest.shards.values()) == [6, 2]
    assert len(cached(tmp_path / "cache", teacher=teacher, batch_size=1).cache) == 8


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint8"])
def test_how_far_off_each_precision_is(dtype, tmp_path):
    teacher, rows = model_for("single_label", 2), rows_of("single_label")
    batch = PaddingCollator()(rows)
    found = cached(tmp_path / "cache", teacher=teacher, dtype=dtype)
    found.meet(None, head_of(teacher))
    with torch.no_grad():
        exact = teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    largest = {"float16": exact.abs().max() * 2**-11, "bfloat16": exact.abs().max() * 2**-8}
    largest["uint8"] = (exact.amax(1) - exact.amin(1)).max() / 255 / 2
    assert (found.signals(batch).logits - exact).abs().max() <= 1.01 * largest[dtype] + 1e-6


def masking_tokenizer(folder):
    return put_tokenizer(str(folder / "tokenizer"), [f"w{number}" for number in range(30)])


def test_masks_that_are_drawn_anew_are_refused(tmp_path):
    tokenizer = masking_tokenizer(tmp_path)
    rows = [{"input_ids": row["input_ids"]} for row in rows_for("masked")]
    teacher = model_for("masked", 2)
    with pytest.raises(ConfigurationError, match=r"masked or augmented anew each time \(by DataCollatorForLanguage"):
        cached(tmp_path / "a", teacher=teacher, rows=rows, data_collator=DataCollatorForLanguageModeling(tokenizer))
    collator = DataCollatorForRowSeededMasking(tokenizer)
    with pytest.raises(ConfigurationError, match=r"draws other masks in each epoch\. Pass `epochs=`"):
        cached(tmp_path / "a", teacher=teacher, rows=rows, data_collator=collator)


def test_masks_of_several_epochs_and_of_the_evaluation(tmp_path):
    tokenizer = masking_tokenizer(tmp_path)
    rows = [{"input_ids": [5 + token % 30 for token in row["input_ids"] * 3]} for row in rows_for("masked")]
    collator = DataCollatorForRowSeededMasking(tokenizer, mlm_probability=0.4)
    path = tmp_path / "cache"
    options = {"rows": rows, "data_collator": collator, "eval_dataset": rows[:3]}
    teacher = cached(path, teacher=model_for("masked", 2), epochs=3, **options)
    assert len(teacher.cache) == 3 * 8 + 3
    trained(tmp_path, "masked", path, eval_strategy="epoch", **options)
    with pytest.raises(CacheMismatchError, match="which is none of the 27"):
        trained(tmp_path, "masked", path, num_train_epochs=4, **options)


def test_padding_that_the_teacher_would_read_is_refused(tmp_path):
    def collator(rows):
        batch = PaddingCollator()(rows)
        return {name: value for name, value in batch.items() if name != "attention_mask"}

    with pytest.raises(ConfigurationError, match="so the teacher reads its padding"):
        cached(tmp_path / "cache", data_collator=collator)


def test_rows_that_are_packed_by_the_collator_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="DataCollatorWithFlattening makes 1 rows of 8"):
        cached(tmp_path / "cache", "causal", data_collator=DataCollatorWithFlattening())


def test_answers_that_belong_to_no_row_are_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="SimilarityHead compare the rows of a micro-batch"):
        cached(tmp_path / "cache", "embeddings", head=SimilarityHead())
    with pytest.raises(UnsupportedModelError, match="ObjectDetectionHead are sets of boxes"):
        cache_teacher(detector("detr"), [{}], tmp_path / "cache")
    with pytest.raises(
        UnsupportedModelError, match=r"`top_k=3` keeps the likeliest tokens .* SingleLabelHead has none"
    ):
        cached(tmp_path / "cache", top_k=3)
    with pytest.raises(UnsupportedModelError, match="`teacher` is a EnsembleTeacher"):
        cached(tmp_path / "cache", teacher=EnsembleTeacher([model_for("single_label", 2)]))


def test_what_cannot_be_asked_about_is_refused(tmp_path):
    with pytest.raises(EmptyDatasetError, match="has 0 rows"):
        cached(tmp_path / "cache", rows=[])
    with pytest.raises(ConfigurationError, match="a stream without a length"):
        cached(tmp_path / "cache", rows=iter(rows_of("single_label")))
    with pytest.raises(MissingInputError, match="a batch has only"):
        cached(tmp_path / "cache", rows=[{"labels": 1}], data_collator=lambda rows: {"labels": torch.ones(len(rows))})
    with pytest.raises(ConfigurationError, match=r"`dtype` must be one of .* got 'int4'"):
        cached(tmp_path / "cache", dtype="int4")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigurationError, match="exists and is no cache"):
        cached(tmp_path / "full")


def test_a_teacher_by_its_folder_and_rows_with_raw_text(tmp_path):
    tokenizer = wordpiece_tokenizer()
    model = bert(layers=2, num_labels=3, vocab_size=len(tokenizer))
    model.save_pretrained(tmp_path / "model")
    texts = ["a fine film", "a dull film", "film"]
    data = Dataset.from_dict({"text": texts, "label": [0, 1, 2]}).map(lambda row: tokenizer(row["text"]))
    cached_by_path = cache_teacher(tmp_path / "model", data, tmp_path / "cache", processing_class=tokenizer)
    cached_by_path.meet(None, head_of(model))
    rows = [{name: row[name] for name in cached_by_path.cache.manifest.inputs} for row in data]
    batch = DataCollatorWithPadding(tokenizer)(rows)
    with torch.no_grad():
        expected = model.eval()(**batch).logits
    torch.testing.assert_close(cached_by_path.signals(batch).logits, expected.half(), atol=2e-3, rtol=0)
    assert CachedTeacher(tmp_path / "cache").config.num_labels == 3


@pytest.mark.distributed
@pytest.mark.slow
def test_two_processes_write_what_one_does(tmp_path):
    run_two_processes(Path(__file__).with_name("two_builders.py"), tmp_path / "two")
    run = [sys.executable, str(Path(__file__).with_name("two_builders.py")), str(tmp_path / "one")]
    subprocess.run(run, check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def slow_build(path):
    """A build of 16 shards that takes about a second, whatever the machine."""
    torch.set_num_threads(1)
    teacher = model_for("single_label", 2)
    teacher.register_forward_pre_hook(lambda module, args: time.sleep(0.03))
    rows = rows_for("single_label", lengths=tuple(3 + number % 7 for number in range(64)))
    caching.MAX_SHARD_ROWS = 4
    cached(path, teacher=teacher, rows=rows, batch_size=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_twenty_kills_at_random_moments(tmp_path):
    def build(path):
        process = multiprocessing.get_context("fork").Process(target=slow_build, args=(path,))
        process.start()
        return process

    start = time.monotonic()
    build(tmp_path / "whole").join()
    seconds, draw, kills, path = time.monotonic() - start, random.Random(0), 0, tmp_path / "cache"
    while kills < 20:
        process = build(path)
        process.join(draw.uniform(0.0, 0.5) * seconds)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        if path.exists():
            assert contents(path) == contents(tmp_path / "whole")
            shutil.rmtree(path)
    build(path).join()
    assert contents(path) == contents(tmp_path / "whole")
