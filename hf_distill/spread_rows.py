"""Which rows stand for a whole data set."""

from itertools import pairwise

import numpy as np


def spread_rows(count: int, length: int) -> list[int]:
    """The numbers of `count` of `length` rows, or of all if there are fewer: one out of each of as many equal parts.

    So data that is sorted by class keeps its classes. The place within a part is drawn, each time the same, so of data
    whose classes take turns there are as many of each as chance gives.

    Example:

        >>> spread_rows(4, 12)
        [1, 3, 6, 9]
    """
    if count >= length:
        return list(range(length))
    starts = [index * length // count for index in range(count + 1)]
    places = np.random.default_rng(0).random(count)
    return [start + int(place * (end - start)) for place, (start, end) in zip(places, pairwise(starts), strict=True)]
