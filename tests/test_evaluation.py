"""Evaluation: exact sums over the whole set, whatever its batches."""

import math

import pytest
import torch
from transformers import MixtralConfig, MixtralForCausalLM, ProphetNetConfig, ProphetNetForCausalLM

from hf_distill.heads import SingleLabelHead
from tests.gradients import TEMPERATURE, alpha_of
from tests.reference import reference_means
from tests.tiny_models import ALL_HEADS, SIZES, WRITERS, PaddingCollator, model_for, rows_for
from tests.tiny_trainers import trainer_for, unlabelled


BATCH_SIZE = 3


def evaluator(output_dir, task, **changes):
    return trainer_for(
        output_dir,
        task,
        student=model_for(task, 1).double(),
        teacher=model_for(task, 2).double(),
        per_device_eval_batch_size=BATCH_SIZE,
        **changes,
    )


def means_of(task, rows):
    models = model_for(task, 1).double().eval(), model_for(task, 2).double().eval()
    with torch.no_grad():
        means = reference_means(*models, task, rows, TEMPERATURE)
    return {name: float(mean) for name, mean in means.items()}


def mean_of_batch_means(task, rows, name):
    batches = [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]
    return sum(means_of(task, batch)[name] for batch in batches) / len(batches)


@pytest.mark.parametrize("task", ALL_HEADS)
def test_metrics_are_those_of_the_whole_set(tmp_path, task):
    """Rows of unequal label counts, and a last batch of 2 rows."""
    rows = [
        row for index, row in enumerate(rows_for(task, lengths=(3, 9, 4, 7, 5, 8, 6, 4, 7, 9))) if index not in (2, 3)
    ]
    means = means_of(task, rows)
    alpha = alpha_of(task)
    metrics = evaluator(tmp_path, task, report_agreement=True, alpha=alpha).evaluate(rows)
    for name in means.keys() - {"agreement"}:
        assert metrics[f"eval_loss/{name}"] == pytest.approx(means[name], rel=1e-6)
        assert mean_of_batch_means(task, rows, name) != pytest.approx(means[name], rel=1e-4)
    loss = alpha * means.get("labels", 0.0) + (1 - alpha) * means["soft"]
    assert metrics["eval_loss"] == pytest.approx(loss, rel=1e-6)
    if task in ("masked", "causal", *WRITERS):
        assert metrics["eval_perplexity"] == pytest.approx(math.exp(means["labels"]), rel=1e-6)
    else:
        assert "eval_perplexity" not in metrics
    if task in ("regression", "embeddings"):
        assert "eval_agreement" not in metrics
    else:
        assert metrics["eval_agreement"] == pytest.approx(means["agreement"], abs=1e-12)


def test_a_batch_in_which_nothing_counts_changes_nothing(tmp_path):
    rows = rows_for("masked")  # rows 2 and 3 hold no label, and make up the second batch of 2
    metrics = evaluator(tmp_path, "masked").evaluate(rows[:4])
    trainer = evaluator(tmp_path, "masked")
    trainer.args.per_device_eval_batch_size = 2
    batched = trainer.evaluate(rows[:4])
    means = means_of("masked", rows[:2])
    for name in ("labels", "soft"):
        assert metrics[f"eval_loss/{name}"] == pytest.approx(means[name], rel=1e-6)
        assert batched[f"eval_loss/{name}"] == pytest.approx(means[name], rel=1e-6)


@pytest.mark.parametrize("task", ["single_label", "masked", "causal", "tokens"])
def test_text_without_labels_with_alpha_0(tmp_path, task):
    rows = unlabelled(rows_for(task))
    trainer = evaluator(tmp_path, task, alpha=0.0, report_agreement=True)
    metrics = trainer.evaluate(rows)
    every_token = [{**row, "labels": [0] * len(row["input_ids"])} for row in rows]  # all of them count
    rows = every_token if task in ("masked", "tokens") else rows_for(task)
    means = means_of(task, rows)
    assert metrics["eval_loss"] == metrics["eval_loss/soft"] == pytest.approx(means["soft"], rel=1e-6)
    assert metrics["eval_agreement"] == pytest.approx(means["agreement"])
    assert "eval_loss/labels" not in metrics and "eval_perplexity" not in metrics


def test_labels_are_measured_also_where_they_are_not_learned(tmp_path):
    metrics = evaluator(tmp_path, "causal", alpha=0.0).evaluate(rows_for("causal"))
    means = means_of("causal", rows_for("causal"))
    assert metrics["eval_loss"] == pytest.approx(means["soft"], rel=1e-6)
    assert metrics["eval_loss/labels"] == pytest.approx(means["labels"], rel=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(means["labels"]), rel=1e-6)


def test_agreement_is_measured_also_where_nothing_is_learned_from_the_teacher(tmp_path):
    rows, means = rows_for("tokens"), means_of("tokens", rows_for("tokens"))
    metrics = evaluator(tmp_path, "tokens", alpha=1.0, report_agreement=True).evaluate(rows)
    assert metrics["eval_agreement"] == pytest.approx(means["agreement"])
    assert 0 < means["agreement"] < 1
    assert metrics["eval_loss"] == pytest.approx(means["labels"], rel=1e-6)
    assert "eval_loss/soft" not in metrics
    assert "eval_agreement" not in evaluator(tmp_path, "tokens").evaluate(rows)


def test_before_and_after_training(tmp_path):
    """Accelerate prepares the student at its first use; the teacher must not take its place."""
    rows = rows_for("single_label")
    trainer = trainer_for(tmp_path, max_steps=20, learning_rate=3e-2, eval_dataset=rows, report_agreement=True)
    before = trainer.evaluate()
    assert before["eval_loss/labels"] == pytest.approx(means_of("single_label", rows)["labels"], rel=1e-4)
    untouched = trainer_for(tmp_path, max_steps=20, learning_rate=3e-2, eval_dataset=rows)
    for one in (trainer, untouched):
        one.train()
    for ours, theirs in zip(trainer.model.parameters(), untouched.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"]


def test_evaluating_during_training_changes_nothing(tmp_path):
    rows = rows_for("masked")
    watched = trainer_for(tmp_path, "masked", max_steps=4, eval_dataset=rows, eval_strategy="steps", eval_steps=1)
    alone = trainer_for(tmp_path, "masked", max_steps=4)
    watched.train()
    alone.train()
    for ours, theirs in zip(watched.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name in ("loss", "loss/labels", "loss/soft"):
        values = [[log[name] for log in trainer.state.log_history if name in log] for trainer in (watched, alone)]
        assert len(values[0]) == 4 and values[0] == values[1]


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def expected_accuracy(rows):
    student = model_for("single_label", 1).eval()
    hits = [student(torch.tensor([row["input_ids"]])).logits[0].argmax().item() == row["labels"] for row in rows]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_metrics_of_the_task(tmp_path, alpha):
    rows = rows_for("single_label")
    trainer = trainer_for(tmp_path, alpha=alpha, compute_metrics=accuracy, per_device_eval_batch_size=3)
    assert trainer.evaluate(rows)["eval_accuracy"] == expected_accuracy(rows)


def test_metrics_batch_by_batch(tmp_path):
    rows, hits = rows_for("single_label"), []

    def batched(prediction, compute_result):
        hits.extend((prediction.predictions.argmax(-1) == prediction.label_ids).tolist())
        return {"accuracy": sum(hits) / len(hits)} if compute_result else {}

    trainer = trainer_for(tmp_path, compute_metrics=batched, batch_eval_metrics=True, per_device_eval_batch_size=3)
    metrics = trainer.evaluate(rows)
    assert len(hits) == 8 and metrics["eval_accuracy"] == expected_accuracy(rows)
    assert metrics["eval_loss/soft"] == pytest.approx(means_of("single_label", rows)["soft"], rel=1e-4)


def test_several_sets(tmp_path):
    rows = rows_for("single_label")
    metrics = trainer_for(tmp_path, eval_dataset={"seen": rows[:5], "new": rows[5:]}).evaluate()
    for name, part in (("seen", rows[:5]), ("new", rows[5:])):
        means = means_of("single_label", part)
        assert metrics[f"eval_{name}_loss/labels"] == pytest.approx(means["labels"], rel=1e-4)
        assert metrics[f"eval_{name}_loss/soft"] == pytest.approx(means["soft"], rel=1e-4)


def test_predict(tmp_path):
    rows = rows_for("single_label")
    output = trainer_for(tmp_path, report_agreement=True).predict(rows)
    with torch.no_grad():
        inputs = {name: value for name, value in PaddingCollator()(rows).items() if name != "labels"}
        expected = model_for("single_label", 1).eval()(**inputs).logits
    assert torch.allclose(torch.tensor(output.predictions), expected, atol=1e-5)
    assert output.label_ids.tolist() == [row["labels"] for row in rows]
    means = means_of("single_label", rows)
    assert output.metrics["test_loss/soft"] == pytest.approx(means["soft"], rel=1e-4)
    assert output.metrics["test_agreement"] == pytest.approx(means["agreement"])


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_predict_without_labels(tmp_path, alpha):
    rows = unlabelled(rows_for("single_label"))
    output = trainer_for(tmp_path, alpha=alpha).predict(rows)
    assert output.predictions.shape == (8, 3) and output.label_ids is None
    assert ("test_loss" in output.metrics) == (alpha == 0)


class Scores(torch.nn.Module):
    """A model that returns a bare tensor, or a tuple that begins with it, and no loss."""

    def __init__(self, bare):
        super().__init__()
        self.embedding, self.bare = torch.nn.Embedding(40, 3), bare

    def forward(self, input_ids, attention_mask=None):
        scores = self.embedding(input_ids).mean(1)
        return scores if self.bare else (scores, scores.sum())


class FirstScores(SingleLabelHead):
    def logits(self, outputs, batch):
        return outputs["logits"] if isinstance(outputs, dict) else outputs if torch.is_tensor(outputs) else outputs[0]


@pytest.mark.parametrize("bare", [True, False])
def test_predictions_of_a_model_without_named_outputs(tmp_path, bare):
    """`Trainer` takes the first entry for a loss, which of a tensor is the first row."""
    torch.manual_seed(0)
    rows, student = unlabelled(rows_for("single_label")), Scores(bare)
    predictions = trainer_for(tmp_path, student=student, head=FirstScores(), alpha=0.0).predict(rows).predictions
    with torch.no_grad():
        expected = FirstScores().logits(student(PaddingCollator()(rows)["input_ids"]), {})
    assert torch.allclose(torch.tensor(predictions if bare else predictions[0]), expected, atol=1e-6)


@pytest.mark.parametrize("family", ["experts", "several tokens at once"])
@pytest.mark.parametrize("loss_alone", [True, False])
def test_a_perplexity_is_of_the_cross_entropy_alone(tmp_path, family, loss_alone):
    """Whatever else the own loss holds, such as what balances experts."""
    rows = rows_for("causal")
    if family == "experts":
        sizes = {**SIZES, "num_key_value_heads": 2, "num_local_experts": 4, "initializer_range": 0.3}
        routing = {"output_router_logits": True, "router_aux_loss_coef": 0.1}
        student, teacher = (
            MixtralForCausalLM(MixtralConfig(num_hidden_layers=layers, **sizes, **routing)) for layers in (1, 2)
        )
    else:
        layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
        heads = {"num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2}
        sizes = {"vocab_size": 40, "hidden_size": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
        config = ProphetNetConfig(**sizes, **layers, **heads, ngram=2, init_std=0.3, pad_token_id=0)
        student, teacher = (ProphetNetForCausalLM(config) for _ in range(2))
    alone = {"prediction_loss_only": loss_alone, "per_device_eval_batch_size": 1}  # ProphetNet sees padding
    trainer = trainer_for(tmp_path, "causal", student=student, teacher=teacher, **alone)
    metrics = trainer.evaluate(rows)
    shift = int(family == "experts")
    student.eval()
    losses = []
    for row in rows:
        with torch.no_grad():
            scores = student(torch.tensor([row["input_ids"]])).logits[0].log_softmax(-1)
        named = list(enumerate(row["labels"][shift:]))
        losses += [-scores[place, label].item() for place, label in named if label != -100]
    expected = sum(losses) / len(losses)
    assert math.log(metrics["eval_perplexity"]) == pytest.approx(expected, rel=1e-4)
    assert abs(metrics["eval_loss/labels"] - expected) > 1e-2  # the own loss is what is learned
    assert "eval_cross_entropy" not in metrics
