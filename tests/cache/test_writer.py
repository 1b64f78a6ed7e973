"""A cache is whole where it stands, and can be gone on with where it is not."""

import numpy as np
import pytest

from hf_distill.cache import INDEX_ROW_SIZE, CacheReader, CacheWriter, is_cache
from hf_distill.cache.writer import _write_index
from hf_distill.errors import CacheMismatchError
from tests.cache.small_caches import contents, manifest, rows_of, save_teacher, written


class Killed(BaseException):
    """As a signal is."""


def half(rows):
    yield rows[0]
    raise Killed


def test_a_build_that_was_killed_goes_on_and_equals_another(tmp_path):
    whole = contents(written(tmp_path / "whole"))
    writer = CacheWriter(tmp_path / "a", manifest(), 3)
    writer.write(1, rows_of(1))
    with pytest.raises(Killed):
        writer.write(0, half(rows_of(0)))
    assert not (tmp_path / "a").exists()
    assert is_cache(tmp_path / "a")
    with pytest.raises(CacheMismatchError, match=r"was begun in '.*a\.partial' and not finished"):
        CacheReader(tmp_path / "a")
    writer = CacheWriter(tmp_path / "a", manifest(), 3)
    assert [writer.is_written(number) for number in range(3)] == [False, True, False]
    for number in (0, 2):
        writer.write(number, rows_of(number))
    writer.finish(save_teacher)
    assert contents(tmp_path / "a") == whole
    assert not (tmp_path / "a.partial").exists()


def test_the_end_of_a_build_can_be_repeated(tmp_path):
    whole = contents(written(tmp_path / "whole"))

    def killed(folder):
        save_teacher(folder)
        raise Killed

    for save in (killed, save_teacher):
        writer = CacheWriter(tmp_path / "a", manifest(), 3)
        for number in range(3):
            if not writer.is_written(number):
                writer.write(number, rows_of(number))
        try:
            writer.finish(save)
        except Killed:
            assert not (tmp_path / "a").exists()
    assert contents(tmp_path / "a") == whole


def test_something_else_is_not_gone_on_with(tmp_path):
    CacheWriter(tmp_path / "a", manifest(), 3)
    with pytest.raises(CacheMismatchError, match=r"then and now differ in tokenizer: None and '7'\. Go on"):
        CacheWriter(tmp_path / "a", manifest(tokenizer="7"), 3)


def test_a_folder_that_was_moved_too_early_is_refused(tmp_path):
    CacheWriter(tmp_path / "a", manifest(), 3).folder.rename(tmp_path / "a")
    with pytest.raises(CacheMismatchError, match="was moved before it was finished"):
        CacheReader(tmp_path / "a")


def test_what_a_row_takes_in_the_index(tmp_path):
    for number in (1000, 5000):
        _write_index(tmp_path / str(number), np.random.default_rng(0).integers(256, size=(number, 16), dtype=np.uint8))
    one, other = ((tmp_path / str(number)).stat().st_size for number in (1000, 5000))
    assert (other - one) / 4000 == pytest.approx(INDEX_ROW_SIZE, rel=0.01)
