"""Class scores of student and teacher are brought onto the student's classes."""

from functools import partial

import pytest
import torch
from transformers import BertConfig

from hf_distill.errors import ClassMismatchError, LengthMismatchError, VocabularyMismatchError
from hf_distill.functional import forward_kl, jensen_shannon, logit_mse, reverse_kl, total_variation
from hf_distill.functional.top_k import on_top_k, top_k_logits
from hf_distill.heads import alignment
from hf_distill.heads.alignment import (
    Alignment,
    JointAlignment,
    MemberAlignment,
    TranscriptAlignment,
    UnalignedClasses,
    VocabularyAlignment,
    WidthAlignment,
    check_positions,
    class_alignment,
    transcript_alignment,
    vocabulary_alignment,
)
from hf_distill.types import Positions, Signals


def config(*names):
    return BertConfig(id2label=dict(enumerate(names)))


@pytest.fixture
def warnings_said(monkeypatch):
    said = []
    monkeypatch.setattr(alignment.logger, "warning_once", said.append)
    return said


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (("sad", "happy", "angry"), ("angry", "sad", "happy")),
        (("sad", "happy"), ("sad", "angry", "happy")),
        (("Sad", " HAPPY "), ("happy", "Angry", "sad")),
        (("a", "A"), ("A", "b", "a")),
    ],
)
@pytest.mark.parametrize("class_axis", [-1, -2])
def test_each_class_is_found_by_its_name(ours, theirs, class_axis):
    teacher = torch.randn(4, len(theirs), len(theirs))
    aligned = class_alignment(config(*ours), config(*theirs), class_axis)
    _, signals = aligned(Signals(torch.zeros(4, len(ours), 2)), Signals(teacher))
    distinct = len({name.strip().lower() for name in ours}) == len(ours)
    for index, name in enumerate(ours):
        same = [
            i
            for i, other in enumerate(theirs)
            if (other.lower() == name.strip().lower() if distinct else other == name)
        ]
        assert torch.equal(signals.logits.select(class_axis, index), teacher.select(class_axis, same[0]))
    assert signals.logits.shape[class_axis] == len(ours)


@pytest.mark.parametrize("theirs", [("sad", "happy"), ("SAD", "Happy"), (" sad", "happy")])
def test_the_same_classes_cost_nothing(theirs, warnings_said):
    student, teacher = Signals(torch.zeros(2)), Signals(torch.ones(2))
    aligned = class_alignment(config("sad", "happy"), config(*theirs))(student, teacher)
    assert aligned[0] is student
    assert aligned[1] is teacher
    assert warnings_said == []


@pytest.mark.parametrize("unnamed", ["student", "teacher", "both"])
def test_classes_without_names_are_taken_in_order_and_that_is_said(unnamed, warnings_said):
    named, placeholders = config("sad", "happy", "angry"), BertConfig(num_labels=3)
    student = named if unnamed == "teacher" else placeholders
    teacher = named if unnamed == "student" else placeholders
    assert type(class_alignment(student, teacher)) is Alignment
    if unnamed == "both":
        assert warnings_said == []
    else:
        assert f"The {unnamed}'s classes have no names" in warnings_said[0]
        assert "order: ['sad', 'happy', 'angry']" in warnings_said[0]


def test_classes_without_names_and_another_number():
    with pytest.raises(
        ClassMismatchError, match=r"student has 2 classes and the teacher 3\. .*num_labels=3.*id2label"
    ):
        class_alignment(BertConfig(num_labels=2), config("sad", "happy", "angry"))


@pytest.mark.parametrize("theirs", [("sad", "happy"), ("sad", "happy", "furious"), ("x", "y", "z", "sad", "happy")])
def test_a_teacher_that_lacks_classes(theirs):
    with pytest.raises(
        ClassMismatchError,
        match=r"classes \['sad', 'Angry', 'happy'\] and the teacher \[.*\], which lacks \['Angry'\], so it cannot say",
    ):
        class_alignment(config("sad", "Angry", "happy"), config(*theirs))


@pytest.mark.parametrize("ours, theirs", [(("a", "a"), ("a", "b")), (("a", "b"), ("b", "a", "a"))])
def test_one_name_for_two_classes(ours, theirs):
    with pytest.raises(ClassMismatchError, match=r"where 'a' stands for two classes\. Give each class a name"):
        class_alignment(config(*ours), config(*theirs))


@pytest.mark.parametrize(
    "student_size, teacher_size, tokens",
    [(40, 48, (40, 40)), (48, 40, (40, 40)), (44, 48, (40, 40)), (48, 44, (40, 43)), (40, 48, (40, 41))],
)
def test_rows_of_padding_have_no_probability_in_either(student_size, teacher_size, tokens, warnings_said):
    student, teacher = torch.randn(2, 3, student_size), torch.randn(2, 3, teacher_size)
    aligned = vocabulary_alignment(student_size, teacher_size, *tokens)
    for before, signals in zip((student, teacher), aligned(Signals(student), Signals(teacher)), strict=True):
        assert torch.equal(signals.logits[..., :40], before[..., :40])
        assert signals.logits.shape == (2, 3, student_size)
        assert (signals.logits[..., 40:] == -torch.inf).all()
    assert warnings_said == []


def test_vocabularies_of_one_size_cost_nothing():
    student, teacher = Signals(torch.zeros(2)), Signals(torch.ones(2))
    aligned = vocabulary_alignment(50304, 50304, 50257, None)(student, teacher)
    assert aligned[0] is student
    assert aligned[1] is teacher


@pytest.mark.parametrize("sizes, tokens", [((50304, 50257), (50257, None)), ((50257, 50304), (None, 50257))])
def test_one_tokenizer_is_taken_for_both_and_that_is_said(sizes, tokens, warnings_said):
    assert isinstance(vocabulary_alignment(*sizes, *tokens), VocabularyAlignment)
    (warning,) = warnings_said
    assert f"The student has vocab_size {sizes[0]} and the teacher {sizes[1]}. " in warning
    assert "with 50257 tokens, so it is taken to be that of both, and the 47 further rows to be padding" in warning


@pytest.mark.parametrize(
    "sizes, tokens, message",
    [
        ((40, 48), (None, None), r"vocab_size 40 and the teacher 48, and without a tokenizer .*`processing_class=`"),
        ((40, 48), (44, 44), r"vocab_size 40 and the teacher 48, and the tokenizer knows 44 tokens, .* no padding"),
        ((48, 40), (44, None), r"vocab_size 48 and the teacher 40, and the tokenizer knows 44 tokens"),
        ((48, 44), (40, None), r"vocab_size 48 and the teacher 44, and the student's tokenizer knows 40 .* not show"),
        ((30522, 50265), (None, 30522), r"30522 and the teacher 50265, and the teacher's tokenizer knows 30522"),
    ],
)
def test_rows_that_may_be_tokens(sizes, tokens, message):
    with pytest.raises(VocabularyMismatchError, match=message):
        vocabulary_alignment(*sizes, *tokens)


def writer(size, blank):
    return BertConfig(vocab_size=size, pad_token_id=blank)


@pytest.mark.parametrize(
    "ours, theirs, rows",
    [
        ({"_": 0, "a": 1, "b": 2}, {"b": 0, "a": 1, "-": 2}, [2, 1, 0]),
        ({"_": 0, "a": 1, "b": 2}, {"-": 0, "B": 1, "A": 2}, [0, 2, 1]),
        ({"_": 0, "a": 1, "A": 2}, {"-": 0, "A": 1, "a": 2}, [0, 2, 1]),
        ({"_": 0, "a": 1}, {"b": 0, "-": 1, "a": 2}, [1, 2]),
        ({"_": 0, "a": 1, "eos_token": 2}, {"a": 0, "-": 1}, [1, 0, None]),
        ({"_": 0, "a": 1, "unk_token": 2}, {"unk_token": 0, "a": 1, "-": 2}, [2, 1, 0]),
        ({"_": 0, "a": 1, "beyond": 7}, {"a": 0, "-": 1}, [1, 0, None]),
    ],
    ids=["other order", "other case", "case that counts", "more", "special", "special of both", "padding"],
)
def test_each_token_that_is_written_is_found_by_its_string(ours, theirs, rows, warnings_said):
    blanks = ours["_"], theirs["-"]
    sizes = len(rows), max(theirs.values()) + 1
    configs = [writer(size, blank) for size, blank in zip(sizes, blanks, strict=True)]
    aligned = transcript_alignment(*configs, ours, theirs)
    student, teacher = torch.randn(2, 4, sizes[0]), torch.randn(2, 4, sizes[1])
    a, b = aligned(Signals(student), Signals(teacher))
    for row, found in enumerate(rows):
        if found is None:
            assert (a.logits[..., row] == -torch.inf).all() and (b.logits[..., row] == -torch.inf).all()
        else:
            assert torch.equal(a.logits[..., row], student[..., row])
            assert torch.equal(b.logits[..., row], teacher[..., found])
    assert a.logits.shape == b.logits.shape == student.shape
    assert warnings_said == []


def test_the_same_transcripts_cost_nothing():
    tokens = {"a": 0, "b": 1, "-": 2}
    student, teacher = Signals(torch.zeros(1, 2, 3)), Signals(torch.ones(1, 2, 3))
    aligned = transcript_alignment(writer(3, 2), writer(3, 2), tokens, tokens)(student, teacher)
    assert aligned[0] is student
    assert aligned[1] is teacher


def test_a_teacher_that_lacks_a_token():
    with pytest.raises(
        VocabularyMismatchError, match=r"with 3 tokens and the teacher with 2, without \['b'\], so it cannot say"
    ):
        transcript_alignment(writer(3, 0), writer(2, 0), {"_": 0, "a": 1, "b": 2}, {"-": 0, "a": 1})


@pytest.mark.parametrize("tokens", [(None, None), ({"a": 1}, None), (None, {"a": 1})])
def test_transcripts_without_both_tokenizers(tokens, warnings_said):
    for other, shown in ((writer(4, 0), "4 with the blank at 0"), (writer(3, 2), "3 with the blank at 2")):
        with pytest.raises(
            VocabularyMismatchError,
            match=rf"student has vocab_size 3 with the blank at 0 and the teacher has vocab_size {shown}, and with",
        ):
            transcript_alignment(writer(3, 0), other, *tokens)
    assert isinstance(transcript_alignment(writer(3, 0), writer(3, 0), *tokens), TranscriptAlignment)
    warned = ["a row is taken to be the same token in both" in warning for warning in warnings_said]
    assert warned == ([] if tokens == (None, None) else [True])


def test_lengths_that_nothing_can_make_equal():
    with pytest.raises(LengthMismatchError, match=r"student gives 5 frames for a batch and the teacher 4"):
        TranscriptAlignment()(Signals(torch.zeros(2, 5, 3)), Signals(torch.zeros(2, 4, 3)))
    with pytest.raises(LengthMismatchError, match=r"have width 5 and the teacher's 4, .*hidden_size=4"):
        WidthAlignment()(Signals(torch.zeros(2, 5)), Signals(torch.zeros(2, 4)))


DIVERGENCES = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
    "jensen_shannon 0.1": partial(jensen_shannon, beta=0.1),
    "jensen_shannon 0.9": partial(jensen_shannon, beta=0.9),
    "total_variation": total_variation,
    "logit_mse": logit_mse,
}


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("student_size, teacher_size", [(5, 7), (8, 5), (8, 7)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_every_divergence_is_the_one_of_the_tokens_alone(divergence, student_size, teacher_size, temperature):
    """Rows of padding with the largest logit of all change neither value nor gradient."""
    student, teacher = torch.randn(4, student_size).double(), torch.randn(4, teacher_size).double()
    student[:, 5:], teacher[:, 5:] = 9.0, 9.0
    values, gradients = [], []
    for aligned in (VocabularyAlignment(5, student_size), None):
        ours = student.clone().requires_grad_() if aligned else student[:, :5].clone().requires_grad_()
        pair = Signals(ours), Signals(teacher if aligned else teacher[:, :5])
        a, b = aligned(*pair) if aligned else pair
        values.append(DIVERGENCES[divergence](a.logits, b.logits, temperature=temperature))
        values[-1].sum().backward()
        gradients.append(ours.grad)
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients[0][:, :5], gradients[1], rtol=0, atol=1e-12)
    assert (gradients[0][:, 5:] == 0).all()
    assert gradients[1].abs().max() > 1e-3


def test_several_teachers_know_what_every_one_of_them_knows():
    """The second lacks the student's last class, so neither teacher and no student says anything of it."""
    first, second = TranscriptAlignment([1, 0, 2]), TranscriptAlignment([0, 1, None])
    joint = JointAlignment([first, second])
    scores = Signals(torch.tensor([[[1.0, 2.0, 3.0]]])), Signals(torch.tensor([[[4.0, 5.0]]]))
    answers = [
        MemberAlignment(own, [other]).of_teacher(signals).logits.flatten().tolist()
        for own, other, signals in ((first, second, scores[0]), (second, first, scores[1]))
    ]
    assert answers == [[2.0, 1.0, -torch.inf], [4.0, 5.0, -torch.inf]]
    student, teacher = joint(scores[0], scores[0])
    assert student.logits.flatten().tolist() == [1.0, 2.0, -torch.inf]
    assert teacher is scores[0]
    with pytest.raises(LengthMismatchError, match="gives 2 frames for a batch and the teacher 1"):
        joint(Signals(torch.zeros(1, 2, 3)), scores[0])
    assert not JointAlignment([Alignment(), UnalignedClasses()]).same_classes


def test_outputs_for_other_positions_than_the_batch_has():
    where = Positions(torch.ones(2, 5, dtype=torch.bool), {})
    fitting, longer = Signals(torch.zeros(2, 5, 3)), Signals(torch.zeros(2, 8, 3))
    check_positions(fitting, fitting, where)
    check_positions(fitting, None, where)
    for who, pair in {"student": (longer, fitting), "teacher": (fitting, longer)}.items():
        message = rf"the {who}'s outputs have the shape \(2, 8, 3\), and .* the shape \(2, 5\), .*`head=`"
        with pytest.raises(LengthMismatchError, match=message):
            check_positions(*pair, where)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("k", [11, 12])
def test_likeliest_tokens_of_a_teacher_that_knows_more_are_all_that_it_says(k, temperature):
    """One that is left out is a token in some rows, and in others it is none of the student's."""
    student, teacher = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(0)).double()
    tokens = VocabularyAlignment(8, student_size=8)
    left_out = top_k_logits(teacher, 11).indices.sum(-1) - sum(range(12))
    assert (left_out > -8).any() and (left_out <= -8).any()
    dense, kept = (tokens.of_teacher(Signals(each)).logits for each in (teacher, top_k_logits(teacher, k)))
    found, expected = (on_top_k(forward_kl)(student[:, :8], each, temperature=temperature) for each in (kept, dense))
    if temperature == 3.0 and k == 11:  # between the exponents that are kept
        torch.testing.assert_close(found, expected, rtol=0.2, atol=0.01)
    else:
        torch.testing.assert_close(found, expected)
