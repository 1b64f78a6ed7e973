"""A teacher behind a server teaches what it teaches beside the student."""

import logging
import time

import pytest
import torch
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import DataCollatorWithFlattening, TrainerCallback

from hf_distill import (
    DecoupledTerm,
    DistillationTrainer,
    EnsembleTeacher,
    Objective,
    RoutedTeacher,
    ServedTeacher,
    SoftTargetTerm,
    cache_teacher,
    check_invariances,
    load_teacher,
)
from hf_distill.errors import (
    CacheMismatchError,
    ConfigurationError,
    MissingInputError,
    TeacherServerError,
    UnsupportedModelError,
    VocabularyMismatchError,
)
from hf_distill.functional import forward_kl, on_top_k, top_k_logits
from hf_distill.heads import CausalLMHead
from hf_distill.types import TopKLogits
from tests.gradients import arguments
from tests.teachers.completions_server import MODEL, CompletionsServer, changed, status
from tests.teachers.test_cached import cached, check_equal_training, rows_of, trained
from tests.text_tokenizers import byte_pair_tokenizer
from tests.tiny_models import VOCAB_SIZE, PaddingCollator, llama, model_for, rows_for, word_tokenizer
from tests.tiny_trainers import trainer_for


WORDS = [f"w{number}" for number in range(VOCAB_SIZE)]


def served(server, model=MODEL, **options):
    """A teacher that is asked at most twice, and has met a student."""
    teacher = ServedTeacher(server.url, model, **{"retries": 1, "timeout": 10, **options})
    teacher.meet(llama(), CausalLMHead())
    return teacher


def soft(temperature):
    return Objective({"soft": (1.0, SoftTargetTerm(temperature))})


def left_padded(batch):
    """The same rows with their padding before them."""
    moved = {name: torch.zeros_like(value) for name, value in batch.items()}
    for name, value in batch.items():
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            moved[name][row] = value[row].roll(value.shape[1] - length)
    return moved


@pytest.mark.parametrize("arrange", [dict, left_padded])
def test_signals_are_the_top_k_of_the_model_at_every_position_that_counts(arrange):
    model = model_for("causal", 2)
    batch = arrange(PaddingCollator(extra=2)(rows_for("causal")))
    with CompletionsServer(model) as server:
        said = served(server, top_k=5).signals(batch).logits
    mask = CausalLMHead().mask(batch)
    assert mask.sum() == sum(len(row["input_ids"]) - 1 for row in rows_for("causal"))
    assert isinstance(said, TopKLogits)
    assert said.shape == (*batch["input_ids"].shape, VOCAB_SIZE)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        real = batch["attention_mask"][row].bool()
        with torch.no_grad():
            alone = model(input_ids=batch["input_ids"][row][real][None]).logits[0, : length - 1]
        expected, found = top_k_logits(alone, 5), said[row][mask[row]]
        torch.testing.assert_close(found.values, expected.values)
        assert torch.equal(found.indices, expected.indices)
        torch.testing.assert_close(found.tail[:, 0], expected.tail[:, 0])


def test_only_real_tokens_of_rows_that_count_are_sent_to_the_completions():
    rows = [row["input_ids"] for row in rows_for("causal")]
    batch = PaddingCollator(extra=3)(rows_for("causal"))
    batch["labels"][2] = -100
    with CompletionsServer(model_for("causal", 2)) as server:
        served(server).signals(batch)
    assert sorted(server.prompts) == sorted(row for index, row in enumerate(rows) if index != 2)
    assert set(server.paths) == {"/v1/completions"}
    assert all(body["prompt_logprobs"] == 20 and body["max_tokens"] == 1 for body in server.bodies)
    assert all(body["model"] == MODEL for body in server.bodies)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
def test_all_tokens_are_the_dense_teacher_in_loss_and_gradient(temperature, tmp_path):
    dense, model = (llama(layers=2) for _ in range(2))
    with CompletionsServer(model, max_logprobs=VOCAB_SIZE) as server:
        teachers = dense, ServedTeacher(server.url, MODEL, top_k=10**6)
        trainers = [trainer_for(tmp_path, "causal", teacher=each, objective=soft(temperature)) for each in teachers]
        found = [loss_and_gradient(trainer) for trainer in trainers]
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


def test_some_tokens_are_the_top_k_of_the_model_in_loss_and_gradient(tmp_path):
    model = llama(layers=2)
    with CompletionsServer(model) as server:
        teacher = ServedTeacher(server.url, MODEL, top_k=6)
        trainer = trainer_for(tmp_path, "causal", teacher=teacher, objective=soft(1.0))
        loss, gradient = loss_and_gradient(trainer)
    batch = PaddingCollator()(rows_for("causal")[:4])
    student = trainer.model
    student.zero_grad()
    with torch.no_grad():
        theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    ours = student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    mask = CausalLMHead().mask(batch)
    expected = on_top_k(forward_kl)(ours[mask], top_k_logits(theirs[mask], 6)).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, gradient_of(student), rtol=1e-4, atol=1e-6)


def loss_and_gradient(trainer):
    batch = trainer._prepare_inputs(PaddingCollator()(rows_for("causal")[:4]))
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return loss.detach(), gradient_of(trainer.model)


def gradient_of(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_the_call_with_three_arguments_trains_and_evaluates(tmp_path):
    with CompletionsServer(llama(layers=2)) as server:
        trainer = DistillationTrainer(
            model=llama(),
            args=arguments(tmp_path, max_steps=2, report_agreement=True),
            teacher=ServedTeacher(server.url, MODEL),
            train_dataset=rows_for("causal"),
            eval_dataset=rows_for("causal"),
            data_collator=PaddingCollator(),
        )
        trainer.train()
        scores = trainer.evaluate()
    assert scores["eval_loss/soft"] > 0
    assert 0 <= scores["eval_agreement"] <= 1


def test_training_is_that_beside_the_model(tmp_path):
    with CompletionsServer(model_for("causal", 2), max_logprobs=VOCAB_SIZE) as server:
        teacher = ServedTeacher(server.url, MODEL, top_k=VOCAB_SIZE)
        beside, behind = (trained(tmp_path, "causal", each) for each in (model_for("causal", 2), teacher))
    check_equal_training(beside, behind, "causal", tolerance=1e-5)


class Stalls(TrainerCallback):
    """From a step on, the server answers nothing more."""

    def __init__(self, server, step):
        self.server, self.step = server, step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.server.faults = [lambda handler, answer: self.server.released.wait(30)]


@pytest.mark.slow
def test_a_server_that_stalls_in_the_middle_of_training_costs_nothing_that_was_learned(tmp_path):
    with CompletionsServer(model_for("causal", 2)) as server:
        teacher = ServedTeacher(server.url, MODEL, top_k=7, timeout=3, retries=0)
        saving = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
        whole = trained(tmp_path / "whole", "causal", teacher, **saving)
        with pytest.raises(TeacherServerError, match="no whole answer within 3 seconds"):
            trained(tmp_path / "run", "causal", teacher, callbacks=[Stalls(server, step=2)], **saving)
        server.faults = []
        resumed = trained(tmp_path / "run", "causal", teacher, resume=True, **saving)
    assert resumed._initial_global_step == 2
    check_equal_training(whole, resumed, "causal", tolerance=1e-9)


def test_a_cache_of_it_trains_like_the_server_and_asks_it_once(tmp_path):
    rows = rows_of("causal")
    with CompletionsServer(model_for("causal", 2)) as server:
        teacher = ServedTeacher(server.url, MODEL, top_k=7, vocab_size=VOCAB_SIZE, api_key="secret")
        found = cache_teacher(
            teacher, rows, tmp_path / "cache", dtype="float32", batch_size=3, data_collator=PaddingCollator()
        )
        first_batch = 3  # looked at beforehand, for the shape of an answer
        assert len(server.prompts) == len(rows) + first_batch
        online = trained(tmp_path, "causal", ServedTeacher(server.url, MODEL, top_k=7))
    offline = trained(tmp_path, "causal", tmp_path / "cache")
    check_equal_training(online, offline, "causal")
    manifest = found.cache.manifest
    assert manifest.answers["k"] == 7
    assert manifest.teacher["served_as"] == MODEL
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_cache_of_another_served_model_or_k_is_refused(tmp_path):
    with CompletionsServer(model_for("causal", 2)) as server:
        options = {"data_collator": PaddingCollator()}
        teacher = ServedTeacher(server.url, MODEL, top_k=3, vocab_size=VOCAB_SIZE)
        with pytest.raises(ConfigurationError, match=r"`top_k` is 4, and the server .* asked for 3 tokens"):
            cache_teacher(teacher, rows_for("causal"), tmp_path / "cache", top_k=4, **options)
        with pytest.raises(UnsupportedModelError, match=r"`layers=\[-1\]` keeps hidden states, and the server"):
            cache_teacher(teacher, rows_for("causal"), tmp_path / "cache", layers=[-1], **options)
        cache_teacher(teacher, rows_for("causal"), tmp_path / "cache", **options)
        other = ServedTeacher(server.url, MODEL, top_k=4, vocab_size=VOCAB_SIZE)
        with pytest.raises(CacheMismatchError, match=r"answers\.k: 3 and 4"):
            cache_teacher(other, rows_for("causal"), tmp_path / "cache", **options)
        teacher.model_name = "org/another"
        teacher._answers = lambda texts: ServedTeacher._answers(served(server, top_k=3), texts)
        with pytest.raises(CacheMismatchError, match=r"teacher\.served_as: 'org/teacher' and 'org/another'"):
            cache_teacher(teacher, rows_for("causal"), tmp_path / "cache", **options)
    assert load_teacher(tmp_path / "cache").gives_top_k


def test_the_promised_equalities_hold_for_it_and_for_a_cache_of_likeliest_tokens(tmp_path):
    with CompletionsServer(model_for("causal", 2)) as server:
        report = check_invariances(trainer_for(tmp_path, "causal", teacher=ServedTeacher(server.url, MODEL)))
    assert report.held, str(report)
    cached(tmp_path / "cache", "causal", top_k=5)
    report = check_invariances(trainer_for(tmp_path, "causal", teacher=tmp_path / "cache"))
    assert report.held, str(report)


class SlowServer(CompletionsServer):
    def answer(self, body):
        time.sleep(0.05)
        return super().answer(body)


def test_several_rows_are_asked_about_at_once_and_no_more_than_allowed():
    batch = PaddingCollator()(rows_for("causal"))
    with SlowServer(model_for("causal", 2)) as server:
        served(server, max_concurrent_requests=3).signals(batch)
    assert 1 < server.most_at_once <= 3


def test_a_row_that_fails_ends_the_others():
    batch = PaddingCollator()(rows_for("causal"))
    with CompletionsServer(model_for("causal", 2), faults=[status(400, "no"), status(503)]) as server:
        with pytest.raises(TeacherServerError, match="refuses, status 400"):
            served(server, max_concurrent_requests=1, retries=9).signals(batch)
        assert len(server.bodies) <= 2


@pytest.mark.parametrize("student_size", [VOCAB_SIZE - 4, VOCAB_SIZE + 4])
def test_a_vocabulary_that_is_padded_otherwise(student_size, tmp_path):
    """36 words, of which the rows beyond are padding: both are compared at the words alone."""
    words = word_tokenizer(*WORDS[:36])
    model, student = llama(layers=2), llama(vocab_size=student_size)
    rows = [{name: [each % 36 for each in row[name]] for name in row} for row in rows_for("causal")]
    with CompletionsServer(model, spaced(words), max_logprobs=VOCAB_SIZE) as server:
        teacher = ServedTeacher(server.url, MODEL, top_k=VOCAB_SIZE, vocab_size=VOCAB_SIZE)
        options = {"objective": soft(1.0), "processing_class": spaced(words)}
        trainer = trainer_for(tmp_path, "causal", student, teacher, rows, **options)
        batch = trainer._prepare_inputs(PaddingCollator()(rows[:4]))
        loss = trainer.compute_loss(trainer.model, batch)
    with torch.no_grad():
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        ours, theirs = (each(**inputs).logits[..., :36].log_softmax(-1) for each in (student, model))
    mask = CausalLMHead().mask(batch)
    expected = (theirs.exp() * (theirs - ours)).sum(-1)[mask].mean()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-6)


def test_a_token_that_the_student_has_not_is_named():
    with CompletionsServer(llama(layers=2)) as server:
        teacher = ServedTeacher(server.url, MODEL, retries=0)
        teacher.meet(llama(vocab_size=30), CausalLMHead())
        with pytest.raises(TeacherServerError, match=r"token ids are numbers below 30\. Pass .*`vocab_size=`"):
            teacher.signals({"input_ids": torch.tensor([[3, 4, 5]])})


def spaced(tokenizer):
    """A tokenizer of words that takes a text apart at its blanks."""
    tokenizer.backend_tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


def test_the_servers_tokenizer_is_compared_with_the_students(tmp_path):
    ours = spaced(word_tokenizer(*WORDS))
    with CompletionsServer(llama(layers=2), spaced(word_tokenizer(*WORDS))) as server:
        teacher = ServedTeacher(server.url, MODEL)
        trainer_for(tmp_path, "causal", teacher=teacher, processing_class=ours)
        (body,) = server.bodies
        assert body["prompt"].split() == WORDS
    swapped = [*WORDS[:7], WORDS[8], WORDS[7], *WORDS[9:]]
    for others, message in (
        (swapped, r"as 40 tokens and that of 'org/teacher' .* as 40, and they part at token 7, which is 'w7'"),
        ([*WORDS[:20], *(f"v{n}" for n in range(20))], "they part at token 20"),
    ):
        with CompletionsServer(llama(layers=2), spaced(word_tokenizer(*others))) as server:
            teacher = ServedTeacher(server.url, MODEL, top_k=2)
            with pytest.raises(VocabularyMismatchError, match=message):
                trainer_for(tmp_path, "causal", teacher=teacher, processing_class=ours)
            with pytest.raises(VocabularyMismatchError, match=message):
                teacher.meet(llama(), CausalLMHead())
                cache_teacher(teacher, rows_for("causal"), tmp_path / "cache", processing_class=ours)


def test_a_server_that_adds_tokens_to_a_text_reads_another_one(tmp_path):
    def one_more(answer):
        answer["choices"][0]["prompt_logprobs"].append({"1": {"logprob": -1.0}})

    words = spaced(word_tokenizer(*WORDS))
    with (
        CompletionsServer(llama(layers=2), words, faults=[changed(one_more)]) as server,
        pytest.raises(VocabularyMismatchError, match=r"as 40 tokens and that of .* as 41, .* at token 40, which"),
    ):
        served(server).same_tokenizer(words)


def test_a_tokenizer_of_bytes_reads_its_probe_again():
    tokenizer = byte_pair_tokenizer()
    with CompletionsServer(llama(layers=2, vocab_size=len(tokenizer)), tokenizer) as server:
        teacher = ServedTeacher(server.url, MODEL)
        assert teacher.same_tokenizer(tokenizer) is tokenizer
        assert "\ufffd" not in server.bodies[0]["prompt"]


def test_what_is_assumed_is_said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_distill"), "propagate", True)
    with CompletionsServer(llama(layers=2)) as server, caplog.at_level("WARNING"):
        assert served(server).same_tokenizer(None) is None
    assert "No tokenizer is at hand" in caplog.text
    assert "what all others weigh is taken to follow a power law" in caplog.text


def test_what_a_server_cannot_serve_is_refused(tmp_path):
    with CompletionsServer(llama(layers=2)) as server:
        teacher = served(server)
        with pytest.raises(UnsupportedModelError, match="the student is read by a SingleLabelHead"):
            trainer_for(tmp_path, teacher=teacher)
        objective = Objective({"decoupled": (1.0, DecoupledTerm())})
        with pytest.raises(UnsupportedModelError, match=r"tells the 20 likeliest .* asked for by decoupled"):
            trainer_for(tmp_path, "causal", teacher=teacher, objective=objective)
        for several in (EnsembleTeacher([teacher, llama(layers=2)]), RoutedTeacher({"a": teacher}, column="which")):
            with pytest.raises(UnsupportedModelError, match=f"asked for by the {type(several).__name__}"):
                trainer_for(tmp_path, "causal", teacher=several)


def test_rows_that_are_not_one_text_each_are_refused():
    batch = PaddingCollator()(rows_for("causal"))
    ids = batch["input_ids"]
    packed = DataCollatorWithFlattening()([{"input_ids": row["input_ids"]} for row in rows_for("causal")])
    holes = batch["attention_mask"].clone()
    holes[1, 2] = 0
    later = CausalLMHead().mask({**batch, "shift_labels": ids})
    assert later.all()
    cases = [
        ({"attention_mask": holes}, ConfigurationError, r"row 1 has padding between its tokens: 8 real ones in 9"),
        ({"input_ids": None}, MissingInputError, "reads 'input_ids', and the batch has only"),
        ({"teacher_input_ids": ids}, ConfigurationError, "inputs of the teacher's own"),
        ({"attention_mask": torch.ones(8, 1, 9, 9)}, ConfigurationError, r"of shape \(8, 1, 9, 9\)"),
        ({"cu_seq_lens_q": torch.tensor([0, 3])}, ConfigurationError, r"\['cu_seq_lens_q'\], which pack"),
        ({"shift_labels": ids}, ConfigurationError, "row 0 counts at 7 positions that no real token follows"),
    ]
    with CompletionsServer(llama(layers=2)) as server:
        teacher = served(server)
        for change, kind, message in cases:
            with pytest.raises(kind, match=message):
                teacher.signals({**batch, **change})
        with pytest.raises(ConfigurationError, match="`position_ids` that start over"):
            teacher.signals(packed)
        assert server.bodies == []
        positions = torch.arange(ids.shape[1]).expand(ids.shape)
        teacher.signals({**batch, "position_ids": positions})


def test_a_student_without_a_configuration_needs_the_vocabulary_named():
    student = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigurationError, match=r"'org/teacher' at http://h:8000/v1/completions .* `vocab_size` is"):
        ServedTeacher("http://h:8000", MODEL).meet(student, CausalLMHead())
    teacher = ServedTeacher("http://h:8000", MODEL, vocab_size=12)
    teacher.meet(student, CausalLMHead())
    assert (teacher.top_k, teacher.vocab_size) == (12, 12)


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://h:8000", "http://h:8000/v1/completions"),
        ("http://h:8000/", "http://h:8000/v1/completions"),
        ("https://h/team/v1/", "https://h/team/v1/completions"),
        ("http://h:8000/v1/completions", "http://h:8000/v1/completions"),
        ("http://user:word@[::1]:8000/v1", "http://[::1]:8000/v1/completions"),
    ],
)
def test_addresses(given, endpoint):
    assert ServedTeacher(given, MODEL).server.url == endpoint


def test_arguments_out_of_range_are_all_named():
    with pytest.raises(ConfigurationError) as caught:
        ServedTeacher("http://h", "", top_k=0, vocab_size=0, timeout=0, retries=-1, max_concurrent_requests=0)
    for name in ("top_k", "vocab_size", "timeout", "retries", "max_concurrent_requests", "model"):
        assert f"`{name}`" in str(caught.value)


def test_the_key_comes_from_the_argument_or_the_environment(monkeypatch):
    monkeypatch.setenv("HF_DISTILL_TEACHER_API_KEY", "from-environment")
    batch = PaddingCollator()(rows_for("causal")[:1])
    with CompletionsServer(llama(layers=2)) as server:
        served(server).signals(batch)
        served(server, api_key="given").signals(batch)
    assert [each["Authorization"] for each in server.headers] == ["Bearer from-environment", "Bearer given"]


def test_the_card_names_the_model_and_holds_no_address_and_no_key(tmp_path):
    with CompletionsServer(llama(layers=2)) as server:
        teacher = ServedTeacher(server.url, MODEL, api_key="secret")
        trainer = trainer_for(tmp_path, "causal", teacher=teacher)
        trainer.train()
        trainer.save_model(tmp_path / "student")
        trainer.create_model_card()
        assert "`org/teacher`, which a server ran and told the 20" in (tmp_path / "README.md").read_text()
        teacher.model_name = "/srv/models/ours"
        trainer.create_model_card()
    assert "from a language model, which a server ran" in (tmp_path / "README.md").read_text()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"secret" not in path.read_bytes()
            assert server.url.encode() not in path.read_bytes()
