"""Scores of written text and of found objects, as their papers define them."""

import math
import re
import string
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np


def answer_words(text: str) -> list[str]:
    """SQuAD's normalisation: lower case, without punctuation, articles and extra blanks."""
    letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", letters).split()


def _f1(num_common: float, num_predicted: int, num_true: int) -> float:
    return 2 * num_common / (num_predicted + num_true) if num_predicted + num_true else 1.0


def answer_scores(prediction: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of words, with the closest answer.

    References: Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016,
        https://arxiv.org/abs/1606.05250, section 6.1.
    """
    predicted = answer_words(prediction)
    exact = f1 = 0.0
    for answer in map(answer_words, answers):
        exact = max(exact, float(predicted == answer))
        f1 = max(f1, _f1(sum((Counter(predicted) & Counter(answer)).values()), len(predicted), len(answer)))
    return exact, f1


def words(text: str) -> list[str]:
    """Words and single punctuation marks, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def bleu(predictions: Sequence[str], references: Sequence[str]) -> float:
    """BLEU-4 of a corpus with one reference each, 0 to 100, over `words`, not smoothed.

    References: Papineni et al., "BLEU: a Method for Automatic Evaluation of Machine Translation", 2002,
        https://aclanthology.org/P02-1040, section 2.3.
    """
    matched, possible = [0] * 4, [0] * 4
    predicted_length = true_length = 0
    for predicted, true in zip(map(words, predictions), map(words, references), strict=True):
        predicted_length, true_length = predicted_length + len(predicted), true_length + len(true)
        for order in range(4):
            of_predicted, of_true = (
                Counter(tuple(text[start : start + order + 1]) for start in range(len(text) - order))
                for text in (predicted, true)
            )
            matched[order] += sum((of_predicted & of_true).values())
            possible[order] += sum(of_predicted.values())
    if not all(matched):
        return 0.0
    precision = sum(math.log(hits / tries) for hits, tries in zip(matched, possible, strict=True)) / 4
    return 100 * math.exp(precision + min(0.0, 1 - true_length / predicted_length))


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> float:
    """The mean F1 of the longest common subsequence of words, 0 to 100.

    References: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004,
        https://aclanthology.org/W04-1013, section 3.1, with β = 1.
    """
    pairs = list(zip(map(words, predictions), map(words, references), strict=True))
    return 100 * sum(_f1(_common_subsequence(*pair), *map(len, pair)) for pair in pairs) / len(pairs)


def _common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    lengths = [0] * (len(second) + 1)
    for item in first:
        before = 0
        for index, other in enumerate(second, 1):
            above = lengths[index]
            lengths[index] = before + 1 if item == other else max(above, lengths[index - 1])
            before = above
    return lengths[-1]


def edits(predicted: Sequence[Hashable], true: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that turn one into the other."""
    distances = list(range(len(true) + 1))
    for row, item in enumerate(predicted, 1):
        before, distances[0] = distances[0], row
        for index, other in enumerate(true, 1):
            above = distances[index]
            distances[index] = min(above + 1, distances[index - 1] + 1, before + (item != other))
            before = above
    return distances[-1]


def are_found(overlaps: np.ndarray, least: float) -> list[bool]:
    """Which of the boxes of one class find an object of one picture.

    The first box chooses first: the object that it overlaps most, of those that are left.

    Args:
        overlaps: `(boxes, objects)`, intersection over union; the surest box first.
        least: from which overlap on an object is found.
    """
    left = overlaps.copy()
    found = []
    for row in left:
        is_found = bool(row.size and row.max() >= least)
        if is_found:
            left[:, row.argmax()] = -1
        found.append(is_found)
    return found


def average_precision(scores: Sequence[float], is_found: Sequence[bool], num_objects: int) -> float:
    """The area under the precision over recall, where precision is the best one at that recall or a higher one.

    References: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", 2010,
        https://doi.org/10.1007/s11263-009-0275-4, section 4.2, at all recalls in place of eleven, as VOC 2010 and
        later have it.
    """
    hits = np.asarray(is_found)[np.argsort(-np.asarray(scores), kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[hits].sum() / num_objects)
