"""A teacher that has answered before says what it would say now."""

import pickle

import pytest
import torch
from datasets import Dataset
from transformers import BertForMaskedLM, default_data_collator

from hf_distill import (
    CachedTeacher,
    DecoupledTerm,
    EnsembleTeacher,
    HiddenStateTerm,
    Objective,
    SoftTargetTerm,
    cache_teacher,
    check_invariances,
    head_of,
    load_teacher,
)
from hf_distill.errors import (
    CacheMismatchError,
    ConfigurationError,
    DamagedCacheError,
    MissingInputError,
    MissingTeacherError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from hf_distill.heads import EmbeddingHead
from hf_distill.processing import Reading
from hf_distill.processing.blocks import labelled_blocks
from hf_distill.teachers import OnlineTeacher
from hf_distill.types import TopKLogits
from tests.cache.small_caches import sign
from tests.gradients import alpha_of
from tests.text_tokenizers import byte_pair_tokenizer
from tests.tiny_models import ALL_HEADS, PaddingCollator, bert, llama, model_for, rows_for, word_tokenizer
from tests.tiny_trainers import loss_logs, trainer_for


def rows_of(task):
    """Rows whose inputs of floats are in float32; labels of classes stay as they are."""
    return [
        {
            name: value.float() if name.startswith("input_") or name == "pixel_values" else value
            for name, value in row.items()
        }
        if any(torch.is_tensor(value) for value in row.values())
        else row
        for row in rows_for(task)
    ]


def cached(path, task="single_label", teacher=None, rows=None, **options):
    options = {"dtype": "float32", "batch_size": 3, "data_collator": PaddingCollator(), **options}
    teacher = model_for(task, 2) if teacher is None else teacher
    return cache_teacher(teacher, rows_of(task) if rows is None else rows, path, **options)


def trained(output_dir, task, teacher, resume=False, **changes):
    """The student after two epochs of shuffled rows, in another batch size than the cache's."""
    options = {"num_train_epochs": 2, "max_steps": -1, "optim": "sgd", "train_sampling_strategy": "random"}
    options |= {"rows": rows_of(task), "alpha": alpha_of(task), **changes}
    trainer = trainer_for(output_dir, task, teacher=teacher, **options)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def check_equal_training(first, second, task, tolerance=2e-6):
    start = torch.cat([parameter.detach().flatten() for parameter in model_for(task, 1).parameters()])
    moved = (weights(first) - start).abs().max()
    assert moved > 1e-4
    assert (weights(first) - weights(second)).abs().max() < tolerance


@pytest.mark.parametrize("task", ALL_HEADS)
def test_cached_is_online(task, tmp_path):
    cached(tmp_path / "cache", task)
    online, offline = (trained(tmp_path, task, each) for each in (model_for(task, 2), tmp_path / "cache"))
    check_equal_training(online, offline, task)


@pytest.mark.parametrize("content", ["", "3", "[]", '{"model_type": "bert", "num_labels": "a"}'])
def test_a_configuration_that_is_none(content, tmp_path):
    path = cached(tmp_path / "cache").cache.path
    (path / "teacher" / "config.json").write_text(content)
    sign(path)
    with pytest.raises(DamagedCacheError, match="lacks its teacher's configuration, or has one that cannot be read"):
        CachedTeacher(path)


def test_one_image_with_labels_of_two_sizes(tmp_path):
    """The scores of its pixels are brought to the size of the labels, whose last columns do not count in one row."""
    model, row = model_for("pixels", 2), rows_of("pixels")[0]
    wide = torch.as_tensor(row["labels"]).clone()
    wide[:, -2:] = 255
    wide, narrow = ({**row, "labels": labels} for labels in (wide, wide[:, :-2].clone()))
    teacher = cached(tmp_path / "cache", "pixels", model, [wide])
    teacher.meet(None, head_of(model))
    said, expected = (
        each.signals(PaddingCollator()([wide])).logits for each in (teacher, OnlineTeacher(model, head_of(model)))
    )
    torch.testing.assert_close(said[..., :-2, :], expected[..., :-2, :])
    with pytest.raises(CacheMismatchError, match="which is none of the 1 in the cache"):
        teacher.signals(PaddingCollator()([narrow]))


def test_all_tokens_of_top_k_are_the_dense_cache(tmp_path):
    for k in (None, 10**6):
        cached(tmp_path / f"cache{k}", "causal", top_k=k)
    dense, top_k = (trained(tmp_path, "causal", tmp_path / f"cache{k}") for k in (None, 10**6))
    check_equal_training(dense, top_k, "causal")


@pytest.mark.parametrize("task", ["masked", "causal", "seq2seq"])
def test_top_k_trains_evaluates_and_reports_agreement(task, tmp_path):
    cached(tmp_path / "cache", task, top_k=30)
    online, top_k = (
        trained(tmp_path, task, each, report_agreement=True, eval_dataset=rows_of(task))
        for each in (model_for(task, 2), tmp_path / "cache")
    )
    theirs, ours = (each.evaluate() for each in (online, top_k))
    assert ours["eval_agreement"] == theirs["eval_agreement"]
    assert 0.5 < ours["eval_loss/soft"] / theirs["eval_loss/soft"] < 1.01
    soft = [[log["loss/soft"] for log in loss_logs(each)] for each in (online, top_k)]
    assert soft[1] == pytest.approx(soft[0], rel=0.5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_tokens_that_are_drawn_train_at_their_temperature(temperature, tmp_path):
    cached(tmp_path / "cache", "causal", top_k=30, drawn_at=temperature)
    online, drawn = (
        trained(tmp_path, "causal", each, temperature=temperature, eval_dataset=rows_of("causal"))
        for each in (model_for("causal", 2), tmp_path / "cache")
    )
    start = torch.cat([parameter.detach().flatten() for parameter in model_for("causal", 1).parameters()])
    moves = [weights(each) - start for each in (online, drawn)]
    assert torch.nn.functional.cosine_similarity(*moves, dim=0) > 0.9
    assert not torch.equal(*moves)
    assert drawn.evaluate()["eval_loss/soft"] > online.evaluate()["eval_loss/soft"]
    with pytest.raises(
        ConfigurationError, match=r"temperature is 3\.0, and a teacher's 30 classes that were drawn are"
    ):
        trained(tmp_path, "causal", tmp_path / "cache", temperature=3.0)


def test_rows_are_found_in_any_batch_padded_on_any_side(tmp_path):
    teacher, rows = model_for("tokens", 2), rows_of("tokens")
    answers = cached(tmp_path / "cache", "tokens", teacher)
    answers.meet(None, head_of(teacher))
    batch = PaddingCollator(extra=4)([rows[index] for index in (6, 1, 1, 4)])
    online = OnlineTeacher(teacher, head_of(teacher))
    for moved in (batch, {name: value.roll(4, dims=1) for name, value in batch.items()}):
        found = answers.signals(moved)
        mask = moved["labels"] != -100
        expected = answers.signals(batch).logits[batch["labels"] != -100]
        assert torch.equal(found.logits[mask], expected)
        assert not found.logits[~mask].any()
    torch.testing.assert_close(expected, online.signals(batch).logits[batch["labels"] != -100])


def test_it_works_from_the_workers_of_a_data_loader(tmp_path):
    cached(tmp_path / "cache")
    assert pickle.loads(pickle.dumps(CachedTeacher(tmp_path / "cache"))).input_names
    alone, with_workers = (
        trained(tmp_path, "single_label", tmp_path / "cache", dataloader_num_workers=number) for number in (0, 2)
    )
    assert torch.equal(weights(alone), weights(with_workers))


def test_a_list_of_caches_is_an_ensemble(tmp_path):
    models = [model_for("single_label", layers) for layers in (2, 3)]
    paths = [cached(tmp_path / f"cache{i}", teacher=model).cache.path for i, model in enumerate(models)]
    online, offline = (trained(tmp_path, "single_label", EnsembleTeacher(each)) for each in (models, paths))
    check_equal_training(online, offline, "single_label")


def test_an_ensemble_of_a_cache_and_a_model(tmp_path):
    models = [model_for("single_label", layers) for layers in (2, 3)]
    path = cached(tmp_path / "cache", teacher=models[0]).cache.path
    online, mixed = (trained(tmp_path, "single_label", each) for each in (models, [path, models[1]]))
    check_equal_training(online, mixed, "single_label")


def test_texts_packed_into_blocks_before_are_rows_like_any_other(tmp_path):
    tokenizer = byte_pair_tokenizer()
    texts = Dataset.from_dict({"text": ["the quick brown fox", "hello world, hello", "jumps over the lazy dog"] * 2})
    blocks = labelled_blocks(texts, Reading(tokenizer, {"text": "text"}, max_length=6)).to_list()
    assert len(blocks) > 4
    teacher, path = llama(2, vocab_size=len(tokenizer)), tmp_path / "cache"
    cached(path, "causal", teacher, rows=blocks, data_collator=default_data_collator)
    trainers = [
        trained(
            tmp_path,
            "causal",
            each,
            rows=blocks,
            student=llama(1, vocab_size=len(tokenizer)),
            data_collator=default_data_collator,
        )
        for each in (teacher, path)
    ]
    moved = (
        weights(trainers[0]) - torch.cat([p.flatten() for p in llama(1, vocab_size=len(tokenizer)).parameters()])
    ).abs()
    assert moved.max() > 1e-4 and (weights(trainers[0]) - weights(trainers[1])).abs().max() < 2e-6


def test_classes_are_aligned_by_name(tmp_path):
    names = [{0: "a", 1: "b", 2: "c"}, {0: "c", 1: "a", 2: "b"}]
    student, teacher = (
        bert(layers=layers, num_labels=3, id2label=each) for layers, each in zip((1, 2), names, strict=True)
    )
    cached(tmp_path / "cache", teacher=teacher)
    trainers = [
        trained(tmp_path, "single_label", each, student=bert(layers=1, num_labels=3, id2label=names[0]))
        for each in (teacher, tmp_path / "cache")
    ]
    check_equal_training(*trainers, "single_label")
    assert student.config.id2label != teacher.config.id2label


def test_a_vocabulary_with_padding_rows_is_aligned(tmp_path):
    words = word_tokenizer(*(f"w{number}" for number in range(40)))
    teacher = bert(BertForMaskedLM, layers=2, vocab_size=44)
    for k in (None, 6):
        cached(tmp_path / f"cache{k}", "masked", teacher, top_k=k, processing_class=words)
    trainers = [
        trained(tmp_path, "masked", each, processing_class=words)
        for each in (teacher, tmp_path / "cacheNone", tmp_path / "cache6")
    ]
    check_equal_training(*trainers[:2], "masked")
    batch = trainers[2].get_train_dataloader().collate_fn(rows_of("masked")[:2])
    student, kept, _, _ = trainers[2]._compare(
        trainers[2].model, trainers[2]._prepare_inputs(batch), trainers[2].distillation_objective.requires
    )
    assert isinstance(kept.logits, TopKLogits)
    assert kept.logits.shape == student.logits.shape
    assert int(kept.logits.indices.max()) < 40


def test_another_tokenizer_is_refused(tmp_path):
    words, others = (word_tokenizer(*(f"{letter}{number}" for number in range(40))) for letter in "wv")
    cached(tmp_path / "cache", "masked", processing_class=words)
    with pytest.raises(VocabularyMismatchError, match="40 token ids stand for different strings"):
        trainer_for(tmp_path, "masked", teacher=tmp_path / "cache", processing_class=others)


def test_a_row_that_was_not_asked_about_is_refused(tmp_path):
    cached(tmp_path / "cache", rows=rows_of("single_label")[:4])
    trainer = trainer_for(tmp_path, teacher=tmp_path / "cache", rows=rows_of("single_label"), preflight=False)
    message = r"row 0 of a batch has the key [0-9a-f]{32}, which is none of the 4 .* made from 4 rows by .*PaddingColl"
    with pytest.raises(CacheMismatchError, match=message):
        list(trainer.get_train_dataloader())


def test_filtered_and_selected_data_sets_are_served(tmp_path):
    data = Dataset.from_list(rows_for("single_label"))
    cached(tmp_path / "cache", rows=data)
    fewer = data.filter(lambda row: len(row["input_ids"]) > 4).select([3, 0, 1])
    teachers = model_for("single_label", 2), tmp_path / "cache"
    check_equal_training(*(trained(tmp_path, "single_label", each, rows=fewer) for each in teachers), "single_label")


def test_what_was_read_and_what_is_given_must_agree(tmp_path):
    teacher = cached(tmp_path / "cache")
    teacher.meet(None, head_of(model_for("single_label", 1)))
    batch = PaddingCollator()(rows_of("single_label"))
    with pytest.raises(MissingInputError, match=r"finds rows by \['attention_mask', 'input_ids'\], .* \['attention_m"):
        teacher.signals({"input_ids": batch["input_ids"]})
    with pytest.raises(
        CacheMismatchError, match=r"the batch has \['token_type_ids'\], .* \['attention_mask', 'input_"
    ):
        teacher.signals({**batch, "token_type_ids": torch.zeros_like(batch["input_ids"])})


def test_another_head_is_refused(tmp_path):
    cached(tmp_path / "cache")
    with pytest.raises(CacheMismatchError, match=r"'class': 'TokenClassificationHead'.*'class': 'SingleLabelHead'"):
        trainer_for(tmp_path, "tokens", teacher=tmp_path / "cache")
    cached(tmp_path / "vectors", "embeddings")
    with pytest.raises(CacheMismatchError, match=r"pooling='cls'.*pooling='mean'"):
        trainer_for(tmp_path, "embeddings", teacher=tmp_path / "vectors", head=EmbeddingHead("cls"), alpha=0.0)
    with pytest.raises(CacheMismatchError, match="has not met a head"):
        CachedTeacher(tmp_path / "cache").signals(PaddingCollator()(rows_of("single_label")))


def test_the_model_and_tokenizer_that_are_meant_are_compared(tmp_path):
    words = word_tokenizer("a", "b")
    cached(tmp_path / "cache", processing_class=words)
    load_teacher(tmp_path / "cache", teacher=model_for("single_label", 2), tokenizer=words)
    with pytest.raises(CacheMismatchError, match="made with a teacher whose weights have the SHA-256"):
        load_teacher(tmp_path / "cache", teacher=model_for("single_label", 3))
    with pytest.raises(CacheMismatchError, match="made with a tokenizer whose tokens have the SHA-256"):
        load_teacher(tmp_path / "cache", tokenizer=word_tokenizer("a", "c"))


def test_terms_that_a_cache_cannot_serve_are_refused(tmp_path):
    cached(tmp_path / "cache", "causal", top_k=4)
    objective = Objective({"decoupled": (1.0, DecoupledTerm())})
    with pytest.raises(UnsupportedModelError, match=r"holds the 4 likeliest classes .* asked for by decoupled"):
        trainer_for(tmp_path, "causal", teacher=tmp_path / "cache", objective=objective)
    with pytest.raises(UnsupportedModelError, match="asked for by the EnsembleTeacher"):
        trainer_for(tmp_path, "causal", teacher=[tmp_path / "cache"])
    objective = Objective({"hidden": (1.0, HiddenStateTerm(layer_map="uniform")), "soft": (1.0, SoftTargetTerm())})
    with pytest.raises(MissingTeacherError, match="holds no layers of its teacher"):
        trainer_for(tmp_path, "causal", teacher=tmp_path / "cache", objective=objective)


def test_the_promised_equalities_are_not_tried_without_a_model(tmp_path):
    cached(tmp_path / "cache")
    report = check_invariances(trainer_for(tmp_path, teacher=tmp_path / "cache"))
    assert "CachedTeacher" in str(report) or report.held
