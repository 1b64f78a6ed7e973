"""A manifest is data, and is believed only where it is one of ours."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from hf_distill.cache import Manifest
from hf_distill.cache.manifest import CachedFile, check_file, tokenizer_hash, weight_hash
from hf_distill.errors import DamagedCacheError
from tests.cache.small_caches import manifest
from tests.tiny_models import word_tokenizer


TEXT = manifest(
    files={"shard-00000.arrow": CachedFile(3, "1f"), "teacher/config.json": CachedFile(3, "1f")},
    shards={"shard-00000.arrow": 4},
).to_json()


def changed(**changes):
    return json.dumps({**json.loads(TEXT), **changes})


def test_it_comes_back():
    assert Manifest.from_json(TEXT).to_json() == TEXT


def test_differences_are_named_with_both_values():
    then, now = manifest(), manifest(teacher={"class": "BertModel", "name": "c", "revision": "d", "weights": "2a"})
    assert then.differences(now) == ["teacher.weights: '1f' and '2a'"]
    assert then.differences(manifest(versions={"torch": "1"})) == []


@pytest.mark.parametrize(
    "name",
    [
        "../x.arrow",
        "/etc/passwd",
        "shard-00000.arrow/..",
        "teacher/../../x",
        "teacher/.x",
        "teacher/a/b",
        "shard-1.arrow",
    ],
)
def test_no_name_leads_out_of_the_folder(name):
    with pytest.raises(DamagedCacheError, match=r"lacks these fields, or has others in them: \['files'\]"):
        Manifest.from_json(changed(files={name: {"num_bytes": 1, "sha256": ""}}, shards={}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 1}, r"version 1, and this hf_distill .* reads 'hf_distill cache', version 2"),
        ({"format": "else"}, "is of the format 'else'"),
        ({"shards": {"shard-00007.arrow": 4}}, "names shards that are none of its files"),
        ({"more": 1}, r"\['more'\]"),
        ({"inputs": "input_ids"}, r"\['inputs'\]"),
        ({"rows_per_shard": -1}, r"\['rows_per_shard'\]"),
        ({"answers": {"kind": "dense", "shape": [2**40], "dtype": "float16"}}, r"\['answers'\]"),
        ({"answers": {"kind": "sparse", "dtype": "float16"}}, "answers of the kind 'sparse'"),
        ({"answers": {"kind": "dense", "shape": [2], "dtype": "float1"}}, "describes answers as"),
        ({"answers": {"kind": "top_k", "k": 9, "num_classes": 2, "num_tails": 3, "dtype": "float16"}}, "`top_k` must"),
    ],
)
def test_what_is_none_of_ours_is_refused(changes, message):
    with pytest.raises(DamagedCacheError, match=message):
        Manifest.from_json(changed(**changes))


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_error_of_ours(text):
    with pytest.raises(DamagedCacheError):
        Manifest.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(json.loads(TEXT))), JSON)
def test_any_value_of_a_field_is_taken_or_an_error_of_ours(name, value):
    try:
        found = Manifest.from_json(changed(**{name: value}))
    except DamagedCacheError:
        return
    assert all(file == "index.arrow" or file.startswith(("shard-", "teacher/")) for file in found.files)


def test_a_file_is_compared_with_what_was_written(tmp_path):
    (tmp_path / "index.arrow").write_bytes(b"abc")
    expected = CachedFile.of(tmp_path / "index.arrow")
    assert expected == CachedFile(3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert check_file(tmp_path, "index.arrow", expected, whole=True) == tmp_path / "index.arrow"
    (tmp_path / "index.arrow").write_bytes(b"abd")
    check_file(tmp_path, "index.arrow", expected, whole=False)
    with pytest.raises(DamagedCacheError, match="has the SHA-256 a52d"):
        check_file(tmp_path, "index.arrow", expected, whole=True)
    with pytest.raises(DamagedCacheError, match="has no bytes, and 3 were written"):
        check_file(tmp_path, "else", expected, whole=False)


def test_every_weight_and_buffer_counts():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).bfloat16()
    first = weight_hash(model)
    assert weight_hash(model) == first
    model[1].running_mean[0] += 1
    assert weight_hash(model) != first
    assert weight_hash(model.float()) != weight_hash(model.half())
    assert torch.is_tensor(model[0].weight)


def test_every_token_counts():
    assert tokenizer_hash(word_tokenizer("a", "b")) == tokenizer_hash(word_tokenizer("a", "b"))
    assert tokenizer_hash(word_tokenizer("a", "b")) != tokenizer_hash(word_tokenizer("b", "a"))
