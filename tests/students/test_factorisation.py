"""Narrower embeddings: exact where the tables have the rank for it, the best subspace where they do not."""

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForPreTraining,
    AlbertForSequenceClassification,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForSequenceClassification,
    ElectraModel,
)

from hf_distill.errors import ConfigurationError
from hf_distill.students import student_from_teacher
from tests.students.teachers import ENCODER, TEACHERS, inputs_of, of, outputs_of


def albert(model_class=AlbertForSequenceClassification, **config):
    return of(model_class, AlbertConfig, **ENCODER, embedding_size=12, num_hidden_layers=2, **config)


def electra(embedding_size, model_class=ElectraForSequenceClassification):
    config = {**ENCODER, "embedding_size": embedding_size, "num_hidden_layers": 2, "layer_norm_eps": 1e-2}
    return of(model_class, ElectraConfig, **config)


def with_rank(model, rank):
    """Tables in a subspace of that rank, apart from their means; a normalisation that does something."""
    embeddings = model.base_model.embeddings
    size = embeddings.word_embeddings.weight.shape[1]
    basis = torch.randn(rank, size)
    for table in (embeddings.word_embeddings, embeddings.position_embeddings, embeddings.token_type_embeddings):
        rows = table.weight.shape[0]
        table.weight.data = torch.randn(rows, rank) @ basis + torch.randn(rows, 1)
    embeddings.LayerNorm.weight.data = torch.rand(size) + 0.5
    embeddings.LayerNorm.bias.data = torch.randn(size)
    return model


CASES = {
    "ALBERT": albert,
    "ELECTRA with a projection": lambda: electra(12),
    "ELECTRA without one": lambda: electra(16),
    "a model without head": lambda: electra(16, ElectraModel),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_where_the_rank_is_low(case, tmp_path):
    teacher = with_rank(CASES[case](), rank=5)
    student = student_from_teacher(teacher, embedding_size=6)
    assert student.base_model.embeddings.word_embeddings.weight.shape == (40, 6)
    said = [outputs_of(model, inputs_of(teacher)) for model in (student, teacher)]
    assert said[0].keys() == said[1].keys()
    for name in said[0].keys() - {"hidden_states.0"}:
        torch.testing.assert_close(said[0][name], said[1][name], rtol=1e-4, atol=1e-4)
    student.save_pretrained(tmp_path)
    loaded = type(student).from_pretrained(tmp_path)
    assert torch.equal(*(next(iter(outputs_of(model, inputs_of(teacher)).values())) for model in (loaded, student)))


def test_a_higher_rank_is_approximated_the_better_the_wider():
    teacher = with_rank(albert(), rank=11)
    expected = outputs_of(teacher, inputs_of(teacher))["hidden_states.1"]
    gaps = []
    for size in (3, 6, 9, 11):
        student = student_from_teacher(teacher, embedding_size=size)
        gaps.append((outputs_of(student, inputs_of(teacher))["hidden_states.1"] - expected).square().mean().item())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] > 1e-6


@pytest.mark.parametrize(
    ("teacher", "embedding_size", "message"),
    [
        (lambda: TEACHERS["bert"](1), 4, "embedding_size=4 .* BertForMaskedLM has no projection .*: electra, albert"),
        (lambda: electra(8, ElectraForMaskedLM), 4, "ElectraForMaskedLM writes tokens through its embeddings"),
        (lambda: albert(AlbertForPreTraining), 4, "AlbertForPreTraining writes tokens"),
        (lambda: electra(8), 8, r"embedding_size=8, but the teacher has 8 \(and .* hidden_size=16\): take 2 to 7"),
        (lambda: electra(16), 1, r"embedding_size=1, but the teacher has 16 .*: take 2 to 15"),
    ],
)
def test_other_embeddings_are_refused(teacher, embedding_size, message):
    with pytest.raises(ConfigurationError, match=message):
        student_from_teacher(teacher(), embedding_size=embedding_size)
