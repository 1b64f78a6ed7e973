"""Sums of rows against plain loops over positions."""

import math

import pytest
import torch

from hf_distill.functional import top_k_logits
from hf_distill.heads import DualEncoderHead, QuestionAnsweringHead, SingleLabelHead, TokenClassificationHead
from hf_distill.report.row_sums import NUM_BINS, best_spans, edit_distance, row_sums, transcript_sums
from hf_distill.types import Signals


def test_tokens_are_counted_row_by_row():
    head, generator = TokenClassificationHead(), torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(3, 5, 4, generator=generator) for _ in range(2))
    labels = torch.randint(0, 4, (3, 5), generator=generator)
    labels[0, 2:], labels[2, 1] = -100, -100
    batch = {"input_ids": torch.ones(3, 5, dtype=torch.long), "labels": labels}
    sums = row_sums(head, Signals(student), Signals(teacher), head.positions(batch), batch)
    for row in range(3):
        own = dict.fromkeys(("answers", "correct", "nll", "agreed", "kl"), 0.0)
        bins = [[0.0, 0.0, 0.0] for _ in range(NUM_BINS)]
        classes = [[0, 0, 0] for _ in range(4)]
        for place in range(5):
            label = labels[row, place].item()
            if label == -100:
                continue
            q = [math.exp(value) for value in student[row, place].tolist()]
            p = [math.exp(value) for value in teacher[row, place].tolist()]
            q, p = [value / sum(q) for value in q], [value / sum(p) for value in p]
            choice = q.index(max(q))
            own["answers"] += 1
            own["correct"] += choice == label
            own["nll"] -= math.log(q[label])
            own["agreed"] += choice == p.index(max(p))
            own["kl"] += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            for index, value in enumerate((1, choice == label, max(q))):
                bins[int(max(q) * NUM_BINS)][index] += value
            classes[label][0] += 1
            classes[choice][1] += 1
            classes[label][2] += choice == label
        for name, value in own.items():
            assert sums[name][row].item() == pytest.approx(value, rel=1e-5), name
        found = torch.stack([sums[name][row] for name in ("bin_answers", "bin_correct", "bin_confidence")], 1)
        torch.testing.assert_close(found, torch.tensor(bins, dtype=torch.float64), rtol=1e-5, atol=1e-6)
        found = torch.stack([sums[name][row] for name in ("labelled", "chosen", "hits")], 1)
        assert found.tolist() == classes


def test_rows_without_labels_are_only_compared():
    batch = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    head, logits = SingleLabelHead(), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    sums = row_sums(head, Signals(logits), Signals(logits.flip(1)), head.positions(batch), batch)
    assert set(sums) == {"rows", "agreed", "kl", "compared"}
    assert sums["agreed"].tolist() == [[0.0], [0.0]]


def test_of_the_likeliest_classes_alone():
    """The divergence over the two likeliest classes and all others together, in plain loops."""
    batch = {"input_ids": torch.ones(3, 5, dtype=torch.long), "labels": torch.ones(3, 5, dtype=torch.long)}
    student, teacher = (torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    head = TokenClassificationHead()
    where = head.positions(batch)
    sums = row_sums(head, Signals(student), Signals(top_k_logits(teacher, 2)), where, batch)
    for row in range(3):
        agreed, kl = 0.0, 0.0
        for q, p in zip(student[row].softmax(-1).tolist(), teacher[row].softmax(-1).tolist(), strict=True):
            agreed += q.index(max(q)) == p.index(max(p))
            kept = sorted(range(7), key=p.__getitem__)[-2:]
            pairs = [(p[c], q[c]) for c in kept] + [(1 - sum(p[c] for c in kept), 1 - sum(q[c] for c in kept))]
            kl += sum(a * math.log(a / b) for a, b in pairs)
        assert sums["agreed"][row].item() == agreed
        assert sums["kl"][row].item() == pytest.approx(kl, rel=1e-4)


def test_the_text_of_an_image_is_its_own():
    head = DualEncoderHead()
    scores = torch.tensor([[3.0, 0.0], [4.0, 1.0]])
    batch = {"input_ids": torch.ones(2, 3, dtype=torch.long)}
    sums = row_sums(head, Signals(torch.stack((scores, scores.t()))), None, head.positions(batch), batch)
    assert sums["correct"].tolist() == [[1.0], [1.0]]  # image 0 and text 1 find theirs
    assert sums["answers"].tolist() == [[2.0], [2.0]]


def test_spans_start_before_they_end():
    starts, ends = torch.tensor([0.0, 0.0, 5.0, 0.0]), torch.tensor([9.0, 0.0, 0.0, 3.0])
    assert best_spans(torch.stack((starts, ends))[None]).tolist() == [[0, 0]]
    assert best_spans(torch.stack((starts, ends - 9 * (ends == 9)))[None]).tolist() == [[2, 3]]


def test_answers_overlap():
    head = QuestionAnsweringHead()
    logits = torch.zeros(2, 2, 6)
    logits[0, 0, 1], logits[0, 1, 3], logits[1, 0, 2], logits[1, 1, 2] = 9, 9, 9, 9
    batch = {"input_ids": torch.ones(2, 6, dtype=torch.long), "start_positions": torch.tensor([2, 2])}
    batch["end_positions"] = torch.tensor([4, 2])
    sums = row_sums(head, Signals(logits), None, head.positions(batch), batch)
    assert sums["exact"].tolist() == [[0.0], [1.0]]
    assert sums["overlap"].flatten().tolist() == pytest.approx([2 * 2 / (3 + 3), 1.0])


@pytest.mark.parametrize(
    ("first", "second", "edits"), [("", "abc", 3), ("abc", "abc", 0), ("flaw", "lawn", 2), ("ab", "ba", 2)]
)
def test_edits(first, second, edits):
    assert edit_distance(first, second) == edit_distance(second, first) == edits


def test_transcripts_are_read_greedily():
    frames = torch.nn.functional.one_hot(torch.tensor([[1, 1, 0, 1, 2, 5]]), 6).float()
    mask = torch.tensor([[True] * 5 + [False]])
    sums = transcript_sums(frames, mask, torch.tensor([[1, 1, 3, -100]]), blank=0)
    assert (sums["edits"].item(), sums["written"].item()) == (1, 3)  # it wrote 1 1 2
