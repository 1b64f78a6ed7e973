"""Rows are found by their keys, and what is damaged is not believed."""

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_distill.cache import CacheReader, is_cache
from hf_distill.cache.manifest import INDEX, MANIFEST
from hf_distill.cache.writer import _write_index
from hf_distill.errors import CacheMismatchError, DamagedCacheError
from tests.cache.small_caches import key, row, sign, written


@pytest.fixture
def path(tmp_path):
    return written(tmp_path / "cache")


def test_every_row_is_found_and_no_other(path):
    reader = CacheReader(path)
    assert len(reader) == 10
    order = [7, 0, 9, 3]
    found = reader.find([key(number) for number in order] + [key(11), key(255)])
    assert found.tolist() == [*order, -1, -1]
    assert [tuple(reader.row(int(n), key(n))) for n in order] == [tuple(row(n)) for n in order]


def test_keys_that_share_their_first_half(path):
    keys = [bytes(8) + bytes([n] * 8) for n in (3, 1, 2, 1)] + [bytes([255] * 16)]
    _write_index(path / INDEX, np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16))
    reader = CacheReader.__new__(CacheReader)
    reader.path = path
    assert reader.find([*keys, bytes(8) + bytes([4] * 8), bytes([255] * 15 + [0])]).tolist() == [0, 1, 2, 1, 4, -1, -1]


def test_it_travels_to_other_processes(path):
    reader = pickle.loads(pickle.dumps(CacheReader(path)))
    assert reader.find([key(4)]).tolist() == [4]


def test_the_index_is_compared_when_it_is_opened_and_a_shard_when_it_is_read(path):
    shard = path / "shard-00001.arrow"
    written_bytes = shard.read_bytes()
    place = written_bytes.index(bytes(row(5).answer))
    shard.write_bytes(written_bytes[:place] + b"\x77" + written_bytes[place + 1 :])
    reader = CacheReader(path)
    reader.row(0, key(0))
    with pytest.raises(DamagedCacheError, match=r"row 1 of the shard .* has the checksum"):
        reader.row(5, key(5))
    with pytest.raises(DamagedCacheError, match=r"shard-00001\.arrow .* has the SHA-256"):
        reader.check()
    index = path / INDEX
    index.write_bytes(index.read_bytes()[:-3] + b"abc")
    with pytest.raises(DamagedCacheError, match=r"index\.arrow .* has the SHA-256"):
        CacheReader(path)


@pytest.mark.parametrize("content", [b"", b"abc", bytes(64), b"\xff" * 64])
def test_an_index_that_is_none(path, content):
    (path / INDEX).write_bytes(content)
    sign(path)
    with pytest.raises(DamagedCacheError, match=r"the index of the cache .* cannot be read"):
        CacheReader(path).find([key(0)])


def test_a_shard_that_was_cut_is_refused_when_it_is_opened(path):
    shard = path / "shard-00002.arrow"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(
        DamagedCacheError, match=r"shard-00002\.arrow .* bytes were written|bytes, and \d+ were written"
    ):
        CacheReader(path)


def test_rows_that_are_not_what_the_index_says(path):
    reader = CacheReader(path)
    with pytest.raises(DamagedCacheError, match=f"has the key {key(3).hex()}, and its index says {key(4).hex()}"):
        reader.row(3, key(4))
    with pytest.raises(DamagedCacheError, match="names row 12 of 10"):
        reader.row(12, key(4))
    reader = CacheReader(path)
    reader._starts = np.array([0, 5, 8, 10])
    reader.manifest.shards["shard-00000.arrow"] = 5
    with pytest.raises(DamagedCacheError, match="has 4 rows, and 5 were written"):
        reader.row(0, key(0))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damaged_file_is_believed(path, data):
    name = data.draw(st.sampled_from([MANIFEST, INDEX, "shard-00000.arrow", "teacher/config.json"]))
    file = path / name
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    file.write_bytes(whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :])
    try:
        reader = CacheReader(path)
        for number in reader.find([key(number) for number in range(10)]).tolist():
            if number >= 0:
                assert tuple(reader.row(number, key(number))) == tuple(row(number))
    except (DamagedCacheError, CacheMismatchError):
        pass
    finally:
        file.write_bytes(whole)


def test_what_is_a_cache(path, tmp_path):
    assert is_cache(path)
    assert not is_cache(tmp_path / "else")
    with pytest.raises(CacheMismatchError, match="there is none"):
        CacheReader(tmp_path / "else")
