"""Distances of feature maps against the papers' equations in loops. What holds for all: test_feature_contract.py."""

import pytest
import torch

from hf_distill.errors import ConfigurationError
from hf_distill.functional import fsp_distance, neuron_selectivity_mmd
from tests.functional.waves import wave


# Channels, then a grid of 2 × 2, as in the models.
FIRST, TEACHER_FIRST = wave(2, 3, 2, 2, step=1.7), wave(2, 3, 2, 2, step=0.9)
LAST, TEACHER_LAST = wave(2, 5, 2, 2, step=2.3), wave(2, 5, 2, 2, step=1.1)


def sites(feature_map):
    return feature_map.flatten(2).transpose(1, 2)


def test_fsp_in_loops():
    """Equations 1 and 2: G_ij = Σ over height and width of F1_hwi · F2_hwj / (h · w)."""
    student, teacher = (sites(FIRST), sites(LAST)), (sites(TEACHER_FIRST), sites(TEACHER_LAST))
    values = fsp_distance(student, teacher)
    assert values.shape == (2,)

    def flow(first, last, row, i, j):
        return sum(first[row, i, h, w].item() * last[row, j, h, w].item() for h in range(2) for w in range(2)) / 4

    for row in range(2):
        expected = sum(
            (flow(TEACHER_FIRST, TEACHER_LAST, row, i, j) - flow(FIRST, LAST, row, i, j)) ** 2
            for i in range(3)
            for j in range(5)
        )
        assert values[row].item() == pytest.approx(expected, rel=1e-12)


def test_neuron_selectivity_in_loops():
    """Equation 6 with the polynomial kernel of degree 2, between 3 channels of the teacher and 5 of the student."""
    values = neuron_selectivity_mmd(sites(LAST), sites(FIRST))
    assert values.shape == (2,)

    def patterns(maps, row):
        channels = [channel.flatten().tolist() for channel in maps[row]]
        return [[x / sum(y * y for y in channel) ** 0.5 for x in channel] for channel in channels]

    def mean_kernel(some, others):
        kernels = [sum(x * y for x, y in zip(a, b, strict=True)) ** 2 for a in some for b in others]
        return sum(kernels) / len(kernels)

    for row in range(2):
        s, t = patterns(LAST, row), patterns(FIRST, row)
        expected = mean_kernel(t, t) + mean_kernel(s, s) - 2 * mean_kernel(s, t)
        assert values[row].item() == pytest.approx(expected, rel=1e-10)
        assert expected > 0.1


def test_values_of_another_implementation():
    """FSP and NSTLoss of HobbitLong/RepDistiller at b84f547; FSP takes the mean over the 3 · 5 entries and rows."""
    flows = fsp_distance((sites(FIRST), sites(LAST)), (sites(TEACHER_FIRST), sites(TEACHER_LAST)))
    assert flows.mean().item() / 15 == pytest.approx(0.24894166516622865, rel=1e-10)
    selectivity = neuron_selectivity_mmd(sites(FIRST), sites(LAST))
    assert selectivity.tolist() == pytest.approx([0.9734279695102928, 0.27146320527270174], rel=1e-10)


def test_which_channel_looks_does_not_matter():
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = sites(7 * LAST[:, order])
    torch.testing.assert_close(
        neuron_selectivity_mmd(shuffled, sites(LAST)), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_refusals():
    small = sites(FIRST)[:, :1]
    with pytest.raises(ConfigurationError, match=r"sites \[\(2, 4\), \(2, 1\), \(2, 4\), \(2, 1\)\].*Pool"):
        fsp_distance((sites(LAST), small), (sites(LAST), small))
    with pytest.raises(ConfigurationError, match=r"shape \(2, 4, 3\) and teacher_features \(2, 4, 5\)"):
        fsp_distance((sites(FIRST), sites(LAST)), (sites(LAST), sites(LAST)))
    with pytest.raises(ConfigurationError, match=r"have 4 axes, \(2, 3, 2, 2\), and 3 are needed"):
        neuron_selectivity_mmd(FIRST, FIRST)
