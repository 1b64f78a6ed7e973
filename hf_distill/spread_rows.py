"""Which rows stand for a whole data set."""

from itertools import pairwise
from random import Random


def spread_rows(count: int, length: int) -> list[int]:
    """The numbers of `count` of `length` rows, or of all if there are fewer: one out of each of as many equal parts.

    So data that is sorted by class keeps its classes. The place within a part is drawn, each time the same, so of data
    whose classes take turns there are as many of each as chance gives.

    Example:

        >>> spread_rows(4, 12)
        [2, 5, 7, 9]
    """
    if count >= length:
        return list(range(length))
    starts, draw = [index * length // count for index in range(count + 1)], Random(0)
    return [start + int(draw.random() * (end - start)) for start, end in pairwise(starts)]
