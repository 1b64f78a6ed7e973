"""Files of rows: what is read is what was written, or an error of ours."""

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill.cache import shards
from hf_distill.cache.shards import Shard, all_rows, write_shard
from hf_distill.errors import DamagedCacheError
from tests.cache.small_caches import key, row


def read(path):
    return [(*each[:2], bytes(each.answer), bytes(each.features)) for each in all_rows([Shard(path)])]


def test_rows_come_back_from_several_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "MAX_BATCH_ROWS", 3)
    rows = [row(number, positions=number % 3) for number in range(8)]
    write_shard(tmp_path / "a", rows)
    assert read(tmp_path / "a") == [tuple(each) for each in rows]
    assert np.array_equal(Shard(tmp_path / "a").keys(), np.repeat(np.arange(8), 16).reshape(8, 16))


def test_what_a_row_takes_beside_what_it_holds(tmp_path):
    sizes = {}
    for number in (1000, 5000):
        rows = [row(each % 256) for each in range(number)]
        write_shard(tmp_path / str(number), rows)
        held = sum(len(each.answer) + len(each.features) for each in rows)
        sizes[number] = (tmp_path / str(number)).stat().st_size - held
    assert (sizes[5000] - sizes[1000]) / 4000 == pytest.approx(shards.ROW_FRAME_SIZE, rel=0.01)


def test_datasets_reads_it_too(tmp_path):
    write_shard(tmp_path / "a.arrow", [row(number) for number in range(4)])
    found = datasets.Dataset.from_file(str(tmp_path / "a.arrow"))
    assert [each["key"] for each in found] == [key(number) for number in range(4)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "a"
    write_shard(path, [row(number) for number in range(4)])
    return path.read_bytes(), path


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flipped_bit_is_read(whole, data):
    written, path = whole
    expected = [tuple(row(number)) for number in range(4)]
    place, bit = data.draw(st.integers(0, len(written) - 1)), data.draw(st.integers(0, 7))
    damaged = path.with_name("b")
    damaged.write_bytes(written[:place] + bytes([written[place] ^ 1 << bit]) + written[place + 1 :])
    try:
        found = read(damaged)
    except DamagedCacheError:
        return
    assert found == expected[: len(found)]  # a bit of padding, or of the end of the stream


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1400))
def test_any_bytes_are_an_error_of_ours(whole, garbage, start):
    written, path = whole
    damaged = path.with_name("c")
    damaged.write_bytes(written[:start] + garbage)
    try:
        found = read(damaged)
    except DamagedCacheError:
        return
    assert found == [tuple(row(number)) for number in range(4)][: len(found)]


def test_other_columns_and_empty_values_are_refused(tmp_path):
    for name, table in {
        "columns": pa.table({"key": [1]}),
        "rows without an answer": pa.Table.from_pylist([{"key": None}], schema=shards.SCHEMA),
    }.items():
        with pa.OSFile(str(tmp_path / "a"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        with pytest.raises(DamagedCacheError, match=name):
            Shard(tmp_path / "a")
