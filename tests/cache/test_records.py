"""Numbers come back in the precision that was chosen, or an error of ours says why not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_distill.cache import DenseRecords, TopKRecords
from hf_distill.cache.records import Cursor, planes
from hf_distill.errors import ConfigurationError, DamagedCacheError


FLOATS = ("float32", "float16", "bfloat16")


def top_k(num_classes: int, k: int, positions: int = 7):
    values, indices = (3 * torch.randn(positions, num_classes)).log_softmax(-1).topk(k)
    return {"values": values, "indices": indices, "tail": torch.randn(positions, 3)}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("positions", [0, 1, 300])
def test_dense_answers_are_rounded_once(dtype, positions):
    values = 5 * torch.randn(positions, 4, 2)
    records = DenseRecords((4, 2), dtype)
    kept = records.decode([records.encode({"values": values})], [positions])[0]["values"]
    assert kept.dtype == getattr(torch, dtype)
    assert torch.equal(kept, values.to(kept.dtype))


def test_eight_bits_are_half_a_step_off_at_most():
    values = 5 * torch.randn(50, 30)
    records = DenseRecords((30,), "uint8")
    kept = records.decode([records.encode({"values": values})], [50])[0]["values"]
    step = (values.amax(1) - values.amin(1)) / 255
    assert ((kept - values).abs() <= 0.5001 * step[:, None]).all()
    assert not torch.equal(kept, values)


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
@pytest.mark.parametrize("num_classes", [40, 2**16, 2**16 + 1, 250_000])
def test_top_k_answers(dtype, num_classes):
    answers = top_k(num_classes, 32)
    answers["indices"][0, 0] = num_classes - 1
    records = TopKRecords(32, num_classes, 3, dtype)
    kept = records.decode([records.encode(answers)], [7])[0]
    assert torch.equal(kept["indices"], answers["indices"])
    expected = answers["values"] if dtype == "uint8" else answers["values"].to(getattr(torch, dtype))
    torch.testing.assert_close(kept["values"], expected, atol=0.06 if dtype == "uint8" else 0.0, rtol=0.0)
    tail_dtype = torch.float32 if dtype == "float32" else torch.float16
    assert torch.equal(kept["tail"], answers["tail"].to(tail_dtype))


@pytest.mark.parametrize("num_classes", [1024, 2**16, 2**17])
def test_a_token_takes_no_more_than_promised(num_classes):
    assert TopKRecords(32, num_classes, 3).num_bytes(1000) / 1000 <= 4 * (32 + 1) + 8


def test_certainty_and_classes_without_mass_are_kept():
    answers = {"values": torch.tensor([[0.0, -torch.inf]]), "indices": torch.tensor([[1, 0]])}
    answers["tail"] = torch.full((1, 3), -torch.inf)
    records = TopKRecords(2, 2, 3)
    kept = records.decode([records.encode(answers)], [1])[0]
    assert kept["values"].tolist() == [[0.0, -torch.inf]]
    assert kept["tail"].isneginf().all()


@pytest.mark.parametrize(
    ("value", "dtype"), [(torch.nan, "float32"), (1e6, "float16"), (torch.inf, "uint8"), (torch.nan, "uint8")]
)
def test_what_does_not_fit_is_refused(value, dtype):
    values = torch.tensor([[1.0, value]])
    with pytest.raises(ConfigurationError, match=f"dtype='{dtype}' cannot keep them all"):
        DenseRecords((2,), dtype).encode({"values": values})


def test_unknown_precisions_and_numbers_of_classes_are_refused():
    with pytest.raises(ConfigurationError, match=r"`dtype` must be one of .* got 'int4'"):
        DenseRecords((2,), "int4")
    with pytest.raises(ConfigurationError, match="`top_k` must lie between 1 and the number of classes 5, got 6"):
        TopKRecords(6, 5, 3)


@pytest.mark.parametrize("num_classes", [40, 70_000])
def test_a_class_that_there_is_not(num_classes):
    answers = top_k(num_classes, 4)
    record = TopKRecords(4, num_classes, 3).encode({**answers, "indices": answers["indices"] * 0 + num_classes})
    with pytest.raises(DamagedCacheError, match=f"names class {num_classes}, and there are {num_classes}"):
        TopKRecords(4, num_classes, 3).decode([record], [7])


def test_long_records_are_compressed():
    values = torch.zeros(500, 3)
    assert len(DenseRecords((3,)).encode({"values": values})) < 100
    assert len(DenseRecords((3,)).encode({"values": values[:1]})) == 6


@given(st.binary(max_size=80), st.integers(0, 5))
def test_any_bytes_are_numbers_or_an_error_of_ours(record, positions):
    for records in (DenseRecords((3,)), TopKRecords(2, 70_000, 3), DenseRecords((2,), "uint8")):
        try:
            answers = records.decode([record], [positions])[0]
        except DamagedCacheError:
            continue
        assert all(len(value) == positions for value in answers.values())


def test_bytes_of_another_length_are_refused():
    with pytest.raises(DamagedCacheError, match="has 24 bytes, and 2 positions take 12"):
        DenseRecords((3,)).decode([bytes(24)], [2])
    with pytest.raises(DamagedCacheError, match="cannot be decompressed"):
        DenseRecords((3,)).decode([bytes(5)], [2])


def test_planes_come_back():
    array = np.array([[1, 515], [770, 4]], dtype=np.uint16)
    assert planes(array) == bytes([1, 3, 2, 4, 0, 2, 3, 0])
    rows = np.frombuffer(planes(array) + planes(array + 1), np.uint8).reshape(2, -1)
    assert np.array_equal(Cursor(rows).planes((2, 2), np.uint16), [array, array + 1])


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8"])
@pytest.mark.parametrize("num_classes", [40, 2**17 + 1])
def test_rows_read_together_are_those_read_alone(dtype, num_classes):
    counts = [3, 0, 9, 3, 1, 9]
    records = TopKRecords(5, num_classes, 3, dtype)
    encoded = [records.encode(top_k(num_classes, 5, positions=count)) for count in counts]
    for row, count, found in zip(encoded, counts, records.decode(encoded, counts), strict=True):
        alone = records.decode([row], [count])[0]
        assert len(found["values"]) == count
        assert all(torch.equal(found[name], alone[name]) for name in alone)
    assert records.decode([], []) == []
