"""A few rows stand for all, whatever order they are in."""

import pytest

from hf_distill.spread_rows import spread_rows


@pytest.mark.parametrize("length", [400, 401, 640, 1000, 2560, 64000])
@pytest.mark.parametrize("num_classes", [2, 5, 10])
def test_classes_are_all_there_whether_they_are_sorted_or_take_turns(length, num_classes):
    numbers = spread_rows(200, length)
    assert len(set(numbers)) == 200 and numbers == sorted(numbers) and numbers[0] >= 0 and numbers[-1] < length
    for classes in ([row % num_classes for row in numbers], [row * num_classes // length for row in numbers]):
        for each in range(num_classes):
            assert 0.4 < classes.count(each) / (200 / num_classes) < 2


def test_the_same_rows_each_time():
    assert spread_rows(50, 640) == spread_rows(50, 640)


def test_of_fewer_rows_all():
    assert spread_rows(5, 3) == [0, 1, 2] and spread_rows(5, 0) == [] and spread_rows(3, 3) == [0, 1, 2]
