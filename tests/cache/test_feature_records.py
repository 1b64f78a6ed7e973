"""Hidden states come back layer by layer, or an error of ours says why not."""

import pytest
import torch

from hf_distill.cache import FeatureRecords, Manifest
from hf_distill.cache.feature_records import Place
from hf_distill.errors import ConfigurationError, DamagedCacheError
from hf_distill.types import Anatomy, StackShape
from tests.cache.small_caches import manifest


ANATOMY = Anatomy("T", {"decoder": StackShape(2, 6), "encoder": StackShape(3, 4)})
LAYERS = {"decoder": (2,), "encoder": (0, 3)}
PLACES = (Place("decoder", 2), Place("encoder", 0), Place("encoder", 3))


def states(decoder, encoder):
    return {
        place: torch.randn(*shape) for place, shape in zip(PLACES, ((decoder, 6), *[(encoder, 4)] * 2), strict=True)
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("numbers", [(0, 1), (3, 7)])
def test_each_layer_is_rounded_once(dtype, numbers):
    records, kept = FeatureRecords(ANATOMY, LAYERS, dtype=dtype), states(*numbers)
    assert records.places == PLACES
    found = records.decode(records.encode(kept), dict(zip(("decoder", "encoder"), numbers, strict=True)), PLACES)
    assert all(torch.equal(found[place], kept[place].to(getattr(torch, dtype))) for place in PLACES)


def test_eight_bits_have_steps_of_their_own_for_each_token_and_layer():
    records, kept = FeatureRecords(ANATOMY, LAYERS, dtype="uint8"), states(3, 5)
    kept[PLACES[1]] *= 1000
    found = records.decode(records.encode(kept), {"decoder": 3, "encoder": 5}, PLACES)
    for place, values in kept.items():
        step = (values.amax(1) - values.amin(1)) / 255
        assert ((found[place] - values).abs() <= 0.501 * step[:, None]).all()


def test_one_vector_a_row_and_only_what_is_wanted():
    records, kept = FeatureRecords(ANATOMY, LAYERS, pooled="mean", dtype="float32"), states(1, 1)
    found = records.decode(records.encode(kept), {"decoder": 9, "encoder": 4}, PLACES[1:2])
    assert found.keys() == {PLACES[1]} and torch.equal(found[PLACES[1]], kept[PLACES[1]])
    assert records.num_bytes({"decoder": 9, "encoder": 4}) == 4 * (6 + 4 + 4)


def test_another_number_of_tokens_and_numbers_that_do_not_fit():
    records, kept = FeatureRecords(ANATOMY, LAYERS), states(3, 5)
    with pytest.raises(DamagedCacheError, match="a record of a cache"):
        records.decode(records.encode(kept), {"decoder": 3, "encoder": 6}, PLACES)
    kept[PLACES[0]][0, 0] = 1e6
    with pytest.raises(ConfigurationError, match="dtype='float16' cannot keep them all"):
        records.encode(kept)


def test_the_manifest_says_all_of_it():
    records = FeatureRecords(ANATOMY, LAYERS, "last", "bfloat16", {"encoder": 7})
    read = Manifest.from_json(manifest(features=records.description()).to_json()).feature_records
    assert read == records
    assert Manifest.from_json(manifest().to_json()).feature_records is None


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": {}},
        {"layers": {"encoder": [4]}},
        {"layers": {"else": [1]}},
        {"stacks": {"encoder": {"num_layers": 3, "hidden_size": 2**40}}, "layers": {"encoder": [1]}},
        {"stacks": {"encoder": {"num_layers": 3}}},
        {"pooled": "max"},
        {"dtype": "int4"},
        {"num_tokens": {"encoder": -1}},
        {"num_tokens": [1]},
        {"more": 1},
    ],
)
def test_what_is_none_of_ours_is_refused(changes):
    known = {**FeatureRecords(ANATOMY, LAYERS).description(), **changes}
    with pytest.raises(DamagedCacheError, match="a manifest describes features as"):
        Manifest.from_json(manifest(features=known).to_json())
