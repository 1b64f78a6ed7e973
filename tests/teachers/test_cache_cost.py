"""What building a cache takes: said as it is, and no more than is said."""

import logging
from collections import namedtuple

import pytest
import torch

from hf_distill import cache_teacher
from hf_distill.cache import ROW_FRAME_SIZE
from hf_distill.cache.shards import Row
from hf_distill.errors import ConfigurationError
from hf_distill.peak_memory import peak_bytes
from hf_distill.teachers import cache_cost
from hf_distill.teachers.cache_cost import Progress, warn_of_room
from tests.teachers.test_cached import cached
from tests.tiny_models import llama


LENGTH, VOCABULARY, NUM_ROWS = 32, 5_000, 16
ROWS = [{"input_ids": [token % 50 for token in range(row, row + LENGTH)]} for row in range(NUM_ROWS)]


def collate(rows):
    ids = torch.tensor([row["input_ids"] for row in rows])
    return {"input_ids": ids, "labels": ids.clone()}


@pytest.mark.parametrize("options", [{"top_k": 4}, {"top_k": 4, "drawn_at": 2.0}])
def test_the_scores_of_a_batch_are_held_once(tmp_path, options):
    """A sixteenth of them, a row, is sorted and summed in a few copies, in float64 where some are drawn."""
    teacher = llama(vocab_size=VOCABULARY)
    scores = NUM_ROWS * LENGTH * VOCABULARY * 4

    def build():
        cache_teacher(teacher, ROWS, tmp_path / "cache", data_collator=collate, batch_size=NUM_ROWS, **options)

    assert scores < peak_bytes(build, torch.device("cpu")) < 1.6 * scores


def test_scores_that_do_not_fit_are_refused_before_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_cost, "free_bytes", lambda device: 5_000_000)
    message = (
        r"`batch_size=16` rows of 32 positions have 10\.2 MB of scores over 5,000 tokens, and cpu has 5\.0 MB left. "
        r"Pass a `batch_size` of at most 7"
    )
    teacher = llama(vocab_size=VOCABULARY)
    options = {"data_collator": collate, "top_k": 4}
    with pytest.raises(ConfigurationError, match=message):
        cache_teacher(teacher, ROWS, tmp_path / "cache", batch_size=16, **options)
    assert len(cache_teacher(teacher, ROWS, tmp_path / "cache", batch_size=7, **options).cache) == NUM_ROWS


def test_bytes_to_come_follow_from_rows_that_were_compressed():
    with Progress("a teacher", 4, largest=5e6) as progress:
        assert str(progress) == "0 of at most 5.0 MB"
        rows = [Row(b"", 1, bytes(10**6 - ROW_FRAME_SIZE)), Row(b"", 1, bytes(10**6), bytes(10**6 - ROW_FRAME_SIZE))]
        assert list(progress.counted(iter(rows))) == rows
        assert str(progress) == "3.0 MB of about 6.0 MB"


def test_the_bar_says_what_is_then_on_the_disk(tmp_path, monkeypatch):
    said = []

    class Kept(Progress):
        def __exit__(self, *_):
            said.append((self.num_bytes, self.done))

    monkeypatch.setattr("hf_distill.teachers.caching.Progress", Kept)
    files = cached(tmp_path / "cache", "causal", top_k=5).cache.manifest.files
    ((num_bytes, done),) = said
    on_disk = sum(file.num_bytes for name, file in files.items() if name.startswith("shard"))
    assert done == 8
    assert 0 <= on_disk - num_bytes < 2_000  # Arrow's schema


def test_a_disk_that_may_be_too_small_is_warned_of(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("hf_distill.teachers.cache_cost"), "warning", said.append)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(cache_cost.shutil, "disk_usage", lambda folder: usage(3_000_000))
    warn_of_room(tmp_path, 2_900_000)
    assert said == []
    warn_of_room(tmp_path, 3_100_000)
    assert "at most 3.1 MB, and the disk" in said[0] and "has 3.0 MB left" in said[0]
