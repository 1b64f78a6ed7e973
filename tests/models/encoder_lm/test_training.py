"""Losses of every head, gradients, checkpointing, and half precision."""

import math

import pytest
import torch
from transformers import Trainer, TrainingArguments, set_seed

from hf_distill.models.encoder_lm import (
    EncoderLMForCausalLM,
    EncoderLMForMaskedLM,
    EncoderLMForQuestionAnswering,
    EncoderLMForSequenceClassification,
    EncoderLMForTokenClassification,
)
from tests.models.encoder_lm.tiny_encoders import (
    HEADS,
    NO_DROPOUT,
    POSITIONS,
    labels_for,
    output,
    padded,
    random_tokens,
    tiny,
    tiny_config,
)


def surprise(logits, label):
    """`-log softmax(logits)[label]` in plain arithmetic."""
    scores = logits.double().tolist()
    highest = max(scores)
    return highest + math.log(sum(math.exp(score - highest) for score in scores)) - scores[label]


@pytest.mark.parametrize("num_items_in_batch", [None, 11])
@pytest.mark.parametrize(
    ("model_class", "shift"),
    [(EncoderLMForMaskedLM, 0), (EncoderLMForTokenClassification, 0), (EncoderLMForCausalLM, 1)],
)
def test_loss_of_tokens(model_class, shift, num_items_in_batch):
    model = tiny(model_class)
    batch = padded((6, 3))
    labels = labels_for(model, batch["input_ids"])["labels"].masked_fill(batch["attention_mask"] == 0, -100)
    outputs = model(**batch, labels=labels, num_items_in_batch=num_items_in_batch)
    losses = []
    for row in range(2):
        for place in range(6 - shift):
            if labels[row, place + shift] != -100:
                losses.append(surprise(outputs.logits[row, place], labels[row, place + shift]))
    assert len(losses) == 7
    assert outputs.loss.item() == pytest.approx(sum(losses) / (num_items_in_batch or 7), abs=1e-5)


def test_shifted_labels():
    model = tiny(EncoderLMForCausalLM)
    tokens = random_tokens(2, 5)
    shifted = torch.cat((tokens[:, 1:], torch.full((2, 1), -100)), dim=1)
    assert torch.equal(model(tokens, labels=tokens).loss, model(tokens, labels=tokens, shift_labels=shifted).loss)
    halved = shifted.masked_fill(torch.arange(5) > 1, -100)
    assert not torch.equal(model(tokens, labels=tokens).loss, model(tokens, labels=tokens, shift_labels=halved).loss)


@pytest.mark.parametrize("num_items_in_batch", [None, 11])
def test_loss_of_classes(num_items_in_batch):
    model = tiny(EncoderLMForSequenceClassification)
    labels = torch.tensor([2, 0, 1])
    outputs = model(random_tokens(3, 4), labels=labels, num_items_in_batch=num_items_in_batch)
    losses = [surprise(outputs.logits[row], label) for row, label in enumerate(labels.tolist())]
    assert outputs.loss.item() == pytest.approx(sum(losses) / (num_items_in_batch or 3), abs=1e-5)
    assert model.config.problem_type == "single_label_classification"
    assert model.accepts_loss_kwargs


def test_loss_of_a_regression():
    model = tiny(EncoderLMForSequenceClassification, num_labels=1)
    labels = [0.5, -1.0, 2.0]
    outputs = model(random_tokens(3, 4), labels=torch.tensor(labels))
    squares = [(outputs.logits[row, 0].item() - label) ** 2 for row, label in enumerate(labels)]
    assert outputs.loss.item() == pytest.approx(sum(squares) / 3, abs=1e-5)
    assert not model.accepts_loss_kwargs


def test_loss_of_several_labels():
    model = tiny(EncoderLMForSequenceClassification, problem_type="multi_label_classification")
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    outputs = model(random_tokens(2, 4), labels=labels)
    losses = []
    for row in range(2):
        for label in range(3):
            probability = 1 / (1 + math.exp(-outputs.logits[row, label].item()))
            losses.append(-math.log(probability if labels[row, label] else 1 - probability))
    assert outputs.loss.item() == pytest.approx(sum(losses) / 6, abs=1e-5)
    assert not model.accepts_loss_kwargs


@pytest.mark.parametrize("num_items_in_batch", [None, 11])
def test_loss_of_answers(num_items_in_batch):
    """A position past the end does not count."""
    model = tiny(EncoderLMForQuestionAnswering)
    starts, ends = torch.tensor([1, 9, 0]), torch.tensor([3, 9, 4])
    outputs = model(
        random_tokens(3, 5), start_positions=starts, end_positions=ends, num_items_in_batch=num_items_in_batch
    )
    losses = [
        [surprise(logits[row], positions[row]) for row in (0, 2)]
        for logits, positions in ((outputs.start_logits, starts), (outputs.end_logits, ends))
    ]
    expected = sum(sum(side) / (num_items_in_batch or 2) for side in losses) / 2
    assert outputs.loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("model_class", HEADS)
def test_no_loss_without_labels(model_class):
    assert tiny(model_class)(random_tokens(2, 4)).loss is None


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("position_type", POSITIONS)
@pytest.mark.parametrize("model_class", HEADS)
def test_every_parameter_has_a_gradient(model_class, position_type, pre_norm):
    model = tiny(model_class, position_embedding_type=position_type, pre_norm=pre_norm, hidden_act="gelu").train()
    tokens = random_tokens(4, 6)
    model(tokens, **labels_for(model, tokens)).loss.backward()
    for name, parameter in model.named_parameters():
        if name.endswith("k_proj.bias"):
            # Adds the same number to all scores of a query, which the softmax takes away, unless positions turn it.
            assert parameter.grad is not None
        else:
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("model_class", HEADS)
def test_checkpointing_gives_the_same_gradients(model_class, use_reentrant):
    tokens = random_tokens(3, 6)
    gradients = []
    for checkpointing in (False, True):
        model = tiny(model_class, hidden_dropout_prob=0.2).train()
        passes = []
        model.model.layers[0].mlp.register_forward_hook(lambda *call, passes=passes: passes.append(1))
        if checkpointing:
            older_name = model.gradient_checkpointing_enable
            getattr(model, "activation_checkpointing_enable", older_name)({"use_reentrant": use_reentrant})
        set_seed(3)
        model(tokens, **labels_for(model, tokens), use_cache=False).loss.backward()
        assert len(passes) == 1 + checkpointing
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("position_type", POSITIONS)
@pytest.mark.parametrize("model_class", HEADS)
def test_half_precision(model_class, position_type, dtype):
    batch = padded((6, 3))
    for implementation in ("eager", "sdpa"):
        model = tiny(model_class, position_embedding_type=position_type, attn_implementation=implementation)
        expected = output(model, **batch)
        found = output(model.to(dtype), **batch)
        assert found.dtype == dtype
        assert found.isfinite().all()
        real = batch["attention_mask"].bool()
        if found.shape[:2] == real.shape:
            expected, found = expected[real], found[real]
        assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("model_class", HEADS)
def test_autocast(model_class):
    model = tiny(model_class, **NO_DROPOUT).train()
    tokens = random_tokens(2, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(tokens, **labels_for(model, tokens)).loss
    loss.backward()
    assert loss.isfinite()
    expected = model(tokens, **labels_for(model, tokens)).loss
    assert loss.item() == pytest.approx(expected.item(), rel=0.05)


class GradientTrainer(Trainer):
    """The plain Trainer, which keeps the gradient of its last step."""

    def training_step(self, *arguments, **options):
        loss = super().training_step(*arguments, **options)
        self.gradients = [parameter.grad.clone() for parameter in self.model.parameters()]
        return loss


@pytest.mark.parametrize(
    ("model_class", "options"),
    [
        (EncoderLMForMaskedLM, {}),
        (EncoderLMForCausalLM, {}),
        (EncoderLMForTokenClassification, {}),
        (EncoderLMForSequenceClassification, {}),
        (EncoderLMForSequenceClassification, {"num_labels": 1}),
        (EncoderLMForSequenceClassification, {"problem_type": "multi_label_classification"}),
        (EncoderLMForQuestionAnswering, {}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else value.__name__,
)
def test_accumulation_of_the_plain_trainer(model_class, options, tmp_path):
    """Four batches of 2 give the gradient of one of 8, because each loss says whether it divides by the items."""
    gradients = []
    for size in (8, 2):
        model = tiny(model_class, **NO_DROPOUT, **options)
        tokens = random_tokens(8, 6)
        labels = labels_for(model, tokens)
        if "num_labels" in options:
            labels = {"labels": torch.arange(8) / 4}
        elif "problem_type" in options:
            labels = {"labels": (tokens[:, :3] % 2).float()}
        rows = [
            {"input_ids": tokens[row], **{name: values[row] for name, values in labels.items()}} for row in range(8)
        ]
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            max_steps=1,
            learning_rate=0.0,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = GradientTrainer(model, arguments, train_dataset=rows)
        trainer.train()
        gradients.append(trainer.gradients)
    for whole, accumulated in zip(*gradients, strict=True):
        assert torch.allclose(whole, accumulated, atol=1e-5)
    assert max(whole.abs().max() for whole in gradients[0]) > 0.05


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("position_type", POSITIONS)
def test_learns_rows_by_heart(position_type, pre_norm):
    """Rows without repetition, so that only a model that reads its tokens and positions can know the next one."""
    model = EncoderLMForCausalLM(tiny_config(position_embedding_type=position_type, pre_norm=pre_norm, **NO_DROPOUT))
    rows = torch.stack([torch.randperm(47)[:10] + 3 for _ in range(4)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = model(rows, labels=rows).loss.item()
    for _ in range(150):
        loss = model(rows, labels=rows).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(first - math.log(50)) < 0.1
    assert loss < 0.3
    written = model.eval().generate(rows[:, :2], max_new_tokens=8, do_sample=False)
    assert (written == rows).float().mean() > 0.9
