"""The chunked head against plain loops, and against what autograd makes of whole logits in float64."""

import math
import shutil
from functools import partial

import pytest
import torch
from torch.nn.functional import cross_entropy, linear

from hf_distill.errors import ConfigurationError
from hf_distill.functional import (
    LinearLogits,
    chunked_distillation_loss,
    forward_kl,
    jensen_shannon,
    on_top_k,
    reverse_kl,
    top_k_logits,
)
from hf_distill.types import TopKLogits
from tests.functional.divergence_cases import loop_distribution, loop_forward_kl, loop_kl, loop_reverse_kl


N, V = 7, 11
LABELS = torch.tensor([3, -100, 0, 10, 5, -100, 5])
every_divergence = pytest.mark.parametrize("divergence", [forward_kl, reverse_kl])
VARIANTS = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.3},
    "soft-cap": {"softcap": 2.0},
    "all": {"bias": True, "scale": 0.3, "softcap": 2.0},
}


def linear_logits(width, seed, bias=False, dtype=torch.float64, num_positions=N, num_classes=V, **options):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return LinearLogits(
        draw(num_positions, width), draw(num_classes, width), draw(num_classes) if bias else None, **options
    )


def student_and_teacher(**options):
    student, teacher = linear_logits(4, 1, **options), linear_logits(6, 2, **options)
    for tensor in student[:3]:
        if tensor is not None:
            tensor.requires_grad_()
    return student, teacher


def whole(source):
    """The logits, as the model's own lines would build them."""
    logits = linear(source.hidden_states, source.weight, source.bias) * source.scale
    return logits if source.softcap is None else torch.tanh(logits / source.softcap) * source.softcap


def gradients(total, source):
    tensors = [tensor for tensor in source[:3] if tensor is not None]
    return torch.autograd.grad(total, tensors)


def dense(student, teacher, divergence, temperature, weights=(1.0, 1.0), labels=LABELS):
    """What the chunked loss is, by whole logits."""
    logits = whole(student)
    soft = divergence(logits, teacher, temperature=temperature).sum()
    hard = cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    return weights[0] * soft + weights[1] * hard, soft, hard


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("divergence, loop", [(forward_kl, loop_forward_kl), (reverse_kl, loop_reverse_kl)])
def test_the_equations_in_loops(divergence, loop, temperature):
    student, teacher = student_and_teacher()
    loss = chunked_distillation_loss(
        student, teacher, LABELS, temperature=temperature, divergence=divergence, soft_weight=0.3, hard_weight=0.7
    )
    soft = hard = 0.0
    for n in range(N):
        scores, others = (
            [sum(x * w for x, w in zip(row.tolist(), column.tolist(), strict=True)) for column in source.weight]
            for source in (student, teacher)
            for row in [source.hidden_states[n]]
        )
        soft += loop(scores, others, temperature)
        if LABELS[n] >= 0:
            hard -= math.log(loop_distribution(scores, 1.0)[LABELS[n]])
    assert loss.soft.item() == pytest.approx(soft, rel=1e-12)
    assert loss.hard.item() == pytest.approx(hard, rel=1e-12)
    assert loss.total.item() == pytest.approx(0.3 * soft + 0.7 * hard, rel=1e-12)
    assert not loss.soft.requires_grad and not loss.hard.requires_grad


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
@every_divergence
def test_gradients_equal_those_of_whole_logits(variant, chunk_size, divergence):
    student, teacher = student_and_teacher(**VARIANTS[variant])
    weights = 0.3, torch.tensor(0.7, dtype=torch.float64)
    loss = chunked_distillation_loss(
        student,
        teacher,
        LABELS,
        temperature=3.0,
        divergence=divergence,
        soft_weight=weights[0],
        hard_weight=weights[1],
        chunk_size=chunk_size,
    )
    expected = dense(student, whole(teacher), divergence, 3.0, weights)
    torch.testing.assert_close(tuple(loss), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(5 * loss.total, student), gradients(5 * expected[0], student))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@every_divergence
def test_gradcheck(variant, temperature, divergence):
    student, teacher = student_and_teacher(**VARIANTS[variant])
    tensors = [tensor for tensor in student[:3] if tensor is not None]

    def total(*tensors):
        own = student._replace(**dict(zip(("hidden_states", "weight", "bias"), tensors, strict=False)))
        return chunked_distillation_loss(
            own, teacher, LABELS, temperature=temperature, divergence=divergence, chunk_size=3
        ).total

    assert torch.autograd.gradcheck(total, tensors)


@every_divergence
def test_a_teacher_by_its_logits(divergence):
    student, teacher = student_and_teacher()
    ours = chunked_distillation_loss(student, whole(teacher), temperature=2.0, divergence=divergence, chunk_size=3)
    theirs = chunked_distillation_loss(student, teacher, temperature=2.0, divergence=divergence, chunk_size=3)
    torch.testing.assert_close(tuple(ours), tuple(theirs))
    torch.testing.assert_close(gradients(ours.total, student), gradients(theirs.total, student))
    assert ours.hard == 0


@every_divergence
def test_zero_at_equality(divergence):
    student, _ = student_and_teacher(dtype=torch.float32)
    teacher = LinearLogits(student.hidden_states.detach(), student.weight.detach())
    loss = chunked_distillation_loss(student, teacher, temperature=2.0, divergence=divergence)
    assert loss.total == 0
    for gradient in gradients(loss.total, student):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_float32_is_as_exact_as_whole_logits_and_close_to_float64():
    options = {"num_positions": 64, "num_classes": 5000}
    doubles = linear_logits(32, 1, **options), linear_logits(48, 2, **options)
    for each in doubles[0][:2]:
        each.requires_grad_()
    labels = torch.arange(64) * 71 % 5000
    exact = dense(doubles[0], whole(doubles[1]), forward_kl, 2.0, labels=labels)[0]
    student, teacher = (LinearLogits(*(each.detach().float() for each in source[:2])) for source in doubles)
    for each in student[:2]:
        each.requires_grad_()
    loss = chunked_distillation_loss(student, teacher, labels, temperature=2.0, chunk_size=16)
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(exact.item(), rel=1e-6)
    dense_total = dense(student, whole(teacher), forward_kl, 2.0, labels=labels)[0]
    found = zip(
        gradients(loss.total, student), gradients(dense_total, student), gradients(exact, doubles[0]), strict=True
    )
    for ours, by_logits, expected in found:
        assert (ours - expected).norm() < 1e-6 * expected.norm()
        torch.testing.assert_close(ours, by_logits, rtol=1e-5, atol=1e-5 * by_logits.abs().max().item())


def loop_top_k(scores, indices, log_probabilities, log_tail, temperature):
    q = loop_distribution(scores, temperature)
    p = [math.exp(each) for each in log_probabilities] + [math.exp(log_tail)]
    known = [q[index] for index in indices]
    return temperature**2 * loop_kl(p, [*known, sum(q) - sum(known)])


def top_k(teacher, k):
    return top_k_logits(whole(teacher).detach(), k)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_top_k_targets_in_loops(k):
    student, teacher = student_and_teacher()
    targets = top_k(teacher, k)
    loss = chunked_distillation_loss(student, targets, LABELS, temperature=2.0, chunk_size=3)
    log_p = torch.log_softmax(whole(teacher) / 2.0, dim=-1)
    values, indices = log_p.topk(k, dim=-1)
    rest = log_p.scatter(1, indices, -torch.inf).logsumexp(-1)
    expected = sum(
        loop_top_k(whole(student)[n].tolist(), *(each[n].tolist() for each in (indices, values, rest)), 2.0)
        for n in range(N)
    )
    assert loss.soft.item() == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(
        lambda *tensors: chunked_distillation_loss(LinearLogits(*tensors), targets, LABELS, temperature=2.0).total,
        student[:2],
    )


def test_all_classes_of_top_k_are_the_dense_targets():
    student, teacher = student_and_teacher(bias=True, softcap=3.0)
    targets = top_k(teacher, V)
    assert targets.num_others == 0
    ours = chunked_distillation_loss(student, targets, LABELS, temperature=2.0, chunk_size=3)
    theirs = chunked_distillation_loss(student, teacher, LABELS, temperature=2.0)
    torch.testing.assert_close(tuple(ours), tuple(theirs))
    torch.testing.assert_close(gradients(ours.total, student), gradients(theirs.total, student))


def test_a_class_without_mass_among_the_k():
    student, teacher = student_and_teacher()
    targets = top_k(teacher, 4)
    targets.values[:, -1] = -torch.inf
    loss = chunked_distillation_loss(student, targets)
    assert all(gradient.isfinite().all() for gradient in (loss.total, *gradients(loss.total, student)))


def test_a_place_among_the_k_without_a_class_counts_nothing():
    student, teacher = student_and_teacher()
    three = top_k(teacher, 3)
    nothing = torch.full((N, 1), -torch.inf, dtype=torch.float64)
    values, indices = torch.cat((three.values, nothing), 1), torch.cat((three.indices, three.indices[:, :1]), 1)
    four = TopKLogits(values, indices, three.tail, V - 3, V)
    losses = [chunked_distillation_loss(student, targets, LABELS, temperature=2.0) for targets in (three, four)]
    torch.testing.assert_close(tuple(losses[1]), tuple(losses[0]))
    torch.testing.assert_close(*(gradients(loss.total, student) for loss in losses))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_top_k_is_the_divergence_over_k_classes_and_the_others(temperature):
    student, teacher = student_and_teacher()
    targets = top_k(teacher, 4)
    ours = chunked_distillation_loss(student, targets, temperature=temperature, chunk_size=3)
    theirs = on_top_k(forward_kl)(whole(student), targets, temperature=temperature).sum()
    torch.testing.assert_close(ours.total, theirs)
    torch.testing.assert_close(gradients(ours.total, student), gradients(theirs, student))


@every_divergence
def test_a_class_that_neither_has_equals_dropping_it(divergence):
    student, teacher = student_and_teacher(bias=True)
    with torch.no_grad():
        student.bias[-1] = teacher.bias[-1] = -torch.inf
    labels = LABELS.clamp(max=V - 2)
    ours = chunked_distillation_loss(student, teacher, labels, temperature=2.0, divergence=divergence)
    fewer = [source._replace(weight=source.weight[:-1], bias=source.bias[:-1]) for source in (student, teacher)]
    theirs = chunked_distillation_loss(*fewer, labels, temperature=2.0, divergence=divergence)
    torch.testing.assert_close(tuple(ours), tuple(theirs))
    torch.testing.assert_close(gradients(ours.total, student), gradients(theirs.total, student))
    logits = whole(teacher)
    assert torch.isneginf(logits[:, -1]).all()
    by_logits = chunked_distillation_loss(student, logits, labels, temperature=2.0, divergence=divergence)
    torch.testing.assert_close(tuple(by_logits), tuple(theirs))


def test_the_weight_of_a_tied_embedding_gets_both_gradients():
    _, teacher = student_and_teacher()
    embedding = linear_logits(4, 3).weight.requires_grad_()
    tokens = torch.arange(N)
    loss = chunked_distillation_loss(LinearLogits(embedding[tokens].tanh(), embedding), teacher, LABELS, chunk_size=3)
    expected = dense(LinearLogits(embedding[tokens].tanh(), embedding), whole(teacher), forward_kl, 1.0)
    torch.testing.assert_close(*(torch.autograd.grad(total, embedding) for total in (loss.total, expected[0])))


@pytest.mark.parametrize("frozen", ["hidden_states", "weight", "bias"])
def test_what_is_frozen_gets_no_gradient(frozen):
    student, teacher = student_and_teacher(bias=True)
    getattr(student, frozen).requires_grad_(False)
    chunked_distillation_loss(student, teacher, LABELS).total.backward()
    assert {name for name in student._fields[:3] if getattr(student, name).grad is None} == {frozen}
    with torch.no_grad():
        assert not chunked_distillation_loss(student, teacher, LABELS).total.requires_grad


def test_two_backward_passes_add_up():
    student, teacher = student_and_teacher()
    loss = chunked_distillation_loss(student, teacher, LABELS)
    first = (
        gradients(loss.total, student) if False else torch.autograd.grad(loss.total, student[:2], retain_graph=True)
    )
    second = torch.autograd.grad(2 * loss.total, student[:2])
    torch.testing.assert_close([2 * gradient for gradient in first], list(second))


MASK = torch.tensor([True, True, False, True, False, True, True])


@pytest.mark.parametrize("by", ["heads", "logits", "top k"])
def test_positions_that_do_not_count_are_left_out_whatever_stands_there(by):
    student, teacher = student_and_teacher(bias=True)
    few_student, few_teacher = (
        each._replace(hidden_states=each.hidden_states.detach()[MASK]) for each in (student, teacher)
    )
    few_student.hidden_states.requires_grad_()
    targets, few_targets = {
        "heads": lambda: (teacher, few_teacher),
        "logits": lambda: (whole(teacher), whole(few_teacher)),
        "top k": lambda: (top_k(teacher, 4), top_k(few_teacher, 4)),
    }[by]()
    expected = chunked_distillation_loss(few_student, few_targets, LABELS[MASK], temperature=2.0)
    for tensor in (student[0], *{"heads": teacher[:1], "logits": (targets,), "top k": ()}[by]):
        tensor.data[~MASK] = torch.nan
    if by == "top k":
        targets.values[~MASK] = torch.nan
    loss = chunked_distillation_loss(student, targets, LABELS, mask=MASK, temperature=2.0, chunk_size=3)
    torch.testing.assert_close(tuple(loss), tuple(expected))
    found, wanted = gradients(loss.total, student), gradients(expected.total, few_student)
    torch.testing.assert_close((found[0][MASK], *found[1:]), wanted)
    assert torch.equal(found[0][~MASK], torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("by", ["heads", "logits", "top k"])
@every_divergence
def test_classes_that_one_side_alone_has_count_in_the_cross_entropy(by, divergence):
    student, _ = student_and_teacher(bias=True)
    with torch.no_grad():
        student.bias[8] = 40.0  # far more than any class that both have
    teacher = linear_logits(6, 2, bias=True, num_classes=9)
    if by == "top k" and divergence is reverse_kl:
        return
    targets = {"heads": teacher, "logits": whole(teacher), "top k": top_k_logits(whole(teacher)[:, :8], 4)}[by]
    weights = 0.3, 0.7
    loss = chunked_distillation_loss(
        student, targets, LABELS, num_classes=8, temperature=2.0, divergence=divergence, chunk_size=3,
        soft_weight=weights[0], hard_weight=weights[1],
    )  # fmt: skip
    dense_targets = targets if by == "top k" else whole(teacher)[:, :8]
    alone = chunked_distillation_loss(student, targets, num_classes=8, temperature=2.0, divergence=divergence)
    soft = on_top_k(divergence)(whole(student)[:, :8], dense_targets, temperature=2.0).sum()
    expected = torch.autograd.grad(soft, student[:3], retain_graph=True)
    torch.testing.assert_close(gradients(alone.total, student), expected)
    hard = cross_entropy(whole(student), LABELS, reduction="sum")
    expected = weights[0] * soft + weights[1] * hard
    torch.testing.assert_close(tuple(loss), (expected, soft, hard))
    torch.testing.assert_close(gradients(loss.total, student), gradients(expected, student))


def test_no_position_counts():
    student, teacher = (source._replace(hidden_states=source[0][:0]) for source in student_and_teacher())
    loss = chunked_distillation_loss(student, teacher, LABELS[:0])
    assert loss.total == 0
    assert torch.equal(torch.autograd.grad(loss.total, student.weight)[0], torch.zeros(V, 4, dtype=torch.float64))


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_summed_in_float32(autocast):
    """The products are those that a bfloat16 model makes; the sums over positions do not round to bfloat16."""
    options = {"num_positions": 512, "dtype": torch.bfloat16}
    student, teacher = linear_logits(4, 1, **options), linear_logits(6, 2, **options)
    labels = torch.arange(512) % V
    if autocast:
        student, teacher = (source._replace(weight=source.weight.float()) for source in (student, teacher))
    weight = student.weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = chunked_distillation_loss(student, teacher, labels, temperature=2.0, chunk_size=16)
    (gradient,) = torch.autograd.grad(loss.total, weight)
    assert loss.total.dtype == torch.float32 and gradient.dtype == weight.dtype
    exact = LinearLogits(student[0].double(), student[1].detach().double().requires_grad_())
    expected = dense(
        exact, whole(LinearLogits(teacher[0].double(), teacher[1].double())), forward_kl, 2.0, labels=labels
    )
    (other,) = torch.autograd.grad(expected[0], exact.weight)
    assert loss.total.item() == pytest.approx(expected[0].item(), rel=5e-3)
    assert (gradient.double() - other).norm() < 1e-2 * other.norm()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "no labels"])
@pytest.mark.parametrize(
    ("divergence", "k"), [(forward_kl, None), (reverse_kl, None), (forward_kl, 3)], ids=["forward", "reverse", "top k"]
)
def test_compiled(divergence, k, labels):
    student, teacher = student_and_teacher()
    targets = teacher if k is None else top_k(teacher, k)
    torch.compiler.reset()
    for others in ({}, {"mask": MASK}) if k else ({}, {"mask": MASK}, {"mask": MASK, "num_classes": V - 3}):
        ours, theirs = (
            chunked_distillation_loss(
                student,
                targets,
                labels,
                temperature=2.0,
                divergence=divergence,
                chunk_size=3,
                compiled=compiled,
                **others,
            )
            for compiled in (True, False)
        )
        torch.testing.assert_close(tuple(ours), tuple(theirs))
        torch.testing.assert_close(gradients(ours.total, student), gradients(theirs.total, student))


def test_refusals():
    student, teacher = student_and_teacher()
    refused = partial(pytest.raises, ConfigurationError)
    with refused(match=r"the student has logits of shape \(7, 11\) and the teacher \(7, 10\)"):
        chunked_distillation_loss(student, torch.zeros(N, 10))
    with refused(match=r"the teacher has hidden_states of shape \(7, 6\), a weight of shape \(11, 4\)"):
        chunked_distillation_loss(student, teacher._replace(weight=student.weight))
    with refused(match=r"a bias of shape \(7,\)\. Pass \(N, H\), \(V, H\) and \(V,\)"):
        chunked_distillation_loss(student._replace(bias=torch.zeros(N)), teacher)
    with refused(match=r"the student has logits of shape \(7, 11\) and the teacher \(3, 11\)"):
        chunked_distillation_loss(student, top_k(teacher, 2)[:3])
    with refused(match=r"temperature is 0\.5, and of a teacher's 2 likeliest classes alone it is not known"):
        chunked_distillation_loss(student, top_k(teacher, 2), temperature=0.5)
    with refused(match=r"labels are torch\.int64 of shape \(3,\)\. Pass int64 labels of shape \(7,\), -100"):
        chunked_distillation_loss(student, teacher, LABELS[:3])
    with refused(match=r"divergence must be `forward_kl` or `reverse_kl`, got .*jensen_shannon"):
        chunked_distillation_loss(student, teacher, divergence=jensen_shannon)
    with refused(match=r"divergence must be `forward_kl`, got .*reverse_kl"):
        chunked_distillation_loss(student, top_k(teacher, 2), divergence=reverse_kl)
    with refused(match=r"mask is torch\.int64 of shape \(7,\)\. Pass a bool mask of shape \(7,\)"):
        chunked_distillation_loss(student, teacher, mask=LABELS)
    with refused(match=r"num_classes is 12, and the student has 11 classes"):
        chunked_distillation_loss(student, teacher, num_classes=12)
    with refused(match=r"temperature must be a finite number above 0, got 0\. chunk_size must be at least 1, got 0"):
        chunked_distillation_loss(student, teacher, temperature=0, chunk_size=0)
