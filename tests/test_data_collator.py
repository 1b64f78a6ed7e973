"""Masks that depend on the seed, the epoch and the row alone, whatever surrounds the row."""

import copy
import hashlib
import json
import os
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from hf_distill.data_collator import DataCollatorForRowSeededMasking
from hf_distill.errors import ConfigurationError


SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNK, CLS, SEP, MASK = range(5)
NUM_WORDS = 95
VOCAB_SIZE = NUM_WORDS + len(SPECIAL_TOKENS)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def make_tokenizer(**kwargs: Any) -> PreTrainedTokenizerFast:
    words = SPECIAL_TOKENS + [f"word{index}" for index in range(NUM_WORDS)]
    model = models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]")
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(model), **{**dict(zip(names, SPECIAL_TOKENS, strict=True)), **kwargs}
    )


def make_rows(num_rows: int, seed: int = 0, shortest: int = 5, longest: int = 60) -> list[dict[str, list[int]]]:
    source = random.Random(seed)
    rows = []
    for _ in range(num_rows):
        words = [source.randrange(len(SPECIAL_TOKENS), VOCAB_SIZE) for _ in range(source.randint(shortest, longest))]
        rows.append({"input_ids": [CLS, *words, SEP], "attention_mask": [1] * (len(words) + 2)})
    return rows


def without_padding(batch: dict[str, Any], lengths: list[int], side: str = "right") -> list[tuple[Any, Any]]:
    """Input ids and labels of each row, padding cut off."""
    pairs = []
    for ids, labels, length in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), lengths, strict=True):
        real = slice(0, length) if side == "right" else slice(len(ids) - length, None)
        pairs.append((ids[real], labels[real]))
    return pairs


def row_by_row(collator: Any, rows: list[dict[str, list[int]]]) -> list[tuple[Any, Any]]:
    return [without_padding(collator([row]), [len(row["input_ids"])])[0] for row in rows]


def lengths_of(rows: list[dict[str, list[int]]]) -> list[int]:
    return [len(row["input_ids"]) for row in rows]


class TestMasks:
    def test_the_scheme_in_plain_loops(self, tokenizer: PreTrainedTokenizerFast) -> None:
        collator = DataCollatorForRowSeededMasking(tokenizer, seed=7)
        collator.set_epoch(3)
        for row in make_rows(30):
            ids = row["input_ids"]
            message = b"".join(struct.pack("<q", number) for number in [7, 3, *ids])
            stream = struct.unpack(f"<{3 * len(ids)}I", hashlib.shake_128(message).digest(12 * len(ids)))
            expected_ids, expected_labels = [], []
            for position, token in enumerate(ids):
                chosen, action, word = (number / 2**32 for number in stream[3 * position : 3 * position + 3])
                predicted = token not in range(5) and chosen < 0.15
                expected_labels.append(token if predicted else -100)
                if predicted and action < 0.8:
                    token = MASK
                elif predicted and action < 0.9:
                    token = int(word * 2**32) % VOCAB_SIZE
                expected_ids.append(token)
            assert row_by_row(collator, [row]) == [(expected_ids, expected_labels)]

    def test_pinned(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Masks of old runs and caches stay valid: this changes only with a note in the changelog."""
        collator = DataCollatorForRowSeededMasking(tokenizer, seed=0)
        labels = collator([{"input_ids": list(range(5, 45))}])["labels"][0]
        assert [token for token in labels.tolist() if token != -100] == [5, 15, 16, 22, 28, 37]

    @pytest.mark.parametrize("probability, mask_share, random_share", [(0.15, 0.8, 0.1), (0.4, 0.5, 0.5), (1, 0, 0)])
    def test_shares_are_those_asked_for(
        self, tokenizer: PreTrainedTokenizerFast, probability: float, mask_share: float, random_share: float
    ) -> None:
        rows = make_rows(400, shortest=60)
        collator = DataCollatorForRowSeededMasking(
            tokenizer, mlm_probability=probability, mask_replace_prob=mask_share, random_replace_prob=random_share
        )
        num_words = num_predicted = num_masked = num_changed = 0
        for row, (ids, labels) in zip(rows, row_by_row(collator, rows), strict=True):
            for before, after, label in zip(row["input_ids"], ids, labels, strict=True):
                num_words += before >= len(SPECIAL_TOKENS)
                num_predicted += label != -100
                num_masked += label != -100 and after == MASK
                num_changed += label != -100 and after not in (MASK, before)

        self.assert_binomial(num_predicted, num_words, probability)
        # A random token is the mask token or the token itself in 2 of 100 cases.
        self.assert_binomial(num_masked, num_predicted, mask_share + random_share / VOCAB_SIZE)
        self.assert_binomial(num_changed, num_predicted, random_share * (1 - 2 / VOCAB_SIZE))

    @staticmethod
    def assert_binomial(num_hits: int, num_trials: int, probability: float) -> None:
        deviation = (num_trials * probability * (1 - probability)) ** 0.5
        assert num_trials > 3000
        assert abs(num_hits - num_trials * probability) <= 4 * deviation

    def test_random_tokens_are_uniform_over_the_vocabulary(self, tokenizer: PreTrainedTokenizerFast) -> None:
        collator = DataCollatorForRowSeededMasking(
            tokenizer, mlm_probability=1, mask_replace_prob=0, random_replace_prob=1
        )
        counts = np.zeros(VOCAB_SIZE)
        for ids, _ in row_by_row(collator, make_rows(400, shortest=60)):
            np.add.at(counts, ids[1:-1], 1)
        expected = counts.sum() / VOCAB_SIZE
        chi_squared = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_squared - (VOCAB_SIZE - 1)) < 4 * (2 * (VOCAB_SIZE - 1)) ** 0.5

    def test_masks_of_neighbours_and_of_epochs_are_independent(self, tokenizer: PreTrainedTokenizerFast) -> None:
        collator = DataCollatorForRowSeededMasking(tokenizer, mlm_probability=0.5)
        row = make_rows(1, shortest=60)[0]
        masks = []
        for epoch in range(200):
            collator.set_epoch(epoch)
            masks.append([label != -100 for label in row_by_row(collator, [row])[0][1]][1:-1])
        predicted = np.array(masks)
        self.assert_binomial(int((predicted[:, 1:] == predicted[:, :-1]).sum()), 200 * 59, 0.5)
        self.assert_binomial(int((predicted[1:] == predicted[:-1]).sum()), 199 * 60, 0.5)

    def test_epochs_seeds_and_rows_differ(self, tokenizer: PreTrainedTokenizerFast) -> None:
        collator = DataCollatorForRowSeededMasking(tokenizer, seed=0)
        row, other = make_rows(2, shortest=60)
        changed = {"input_ids": [*row["input_ids"][:-2], UNK, SEP], "attention_mask": row["attention_mask"]}
        first = row_by_row(collator, [row])[0][1]
        places = [[label != -100 for label in labels] for _, labels in row_by_row(collator, [row, other, changed])]
        assert places[0] != places[1] and places[0] != places[2]

        collator.set_epoch(1)
        assert row_by_row(collator, [row])[0][1] != first
        collator.set_epoch(0)
        assert row_by_row(collator, [row])[0][1] == first
        assert row_by_row(DataCollatorForRowSeededMasking(tokenizer, seed=1), [row])[0][1] != first

    def test_special_tokens_are_never_predicted_and_nothing_else_changes(
        self, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        rows = make_rows(8)
        collator = DataCollatorForRowSeededMasking(tokenizer, mlm_probability=1.0)
        parent = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.0)
        batch, plain = collator(rows), parent(rows)
        special = torch.isin(plain["input_ids"], torch.tensor([PAD, CLS, SEP]))
        assert torch.equal(batch["labels"] == -100, special)
        assert torch.equal(batch["labels"][~special], plain["input_ids"][~special])
        assert torch.equal(batch["input_ids"][special], plain["input_ids"][special])
        assert torch.equal(batch["attention_mask"], plain["attention_mask"])
        assert {name: (entry.dtype, entry.shape) for name, entry in batch.items()} == {
            name: (entry.dtype, entry.shape) for name, entry in plain.items()
        }

    def test_the_inputs_are_left_as_they_were(self, tokenizer: PreTrainedTokenizerFast) -> None:
        inputs = torch.arange(5, 45).reshape(2, 20)
        masked, labels = DataCollatorForRowSeededMasking(tokenizer, mlm_probability=0.5).torch_mask_tokens(inputs)
        assert torch.equal(inputs, torch.arange(5, 45).reshape(2, 20))
        assert not torch.equal(masked, inputs) and not torch.equal(labels, inputs)

    def test_a_given_special_tokens_mask_is_obeyed(self, tokenizer: PreTrainedTokenizerFast) -> None:
        rows = [{**row, "special_tokens_mask": [0] + [1] * (len(row["input_ids"]) - 1)} for row in make_rows(3)]
        batch = DataCollatorForRowSeededMasking(tokenizer, mlm_probability=1.0)(rows)
        assert "special_tokens_mask" not in batch
        assert (batch["labels"][:, 0] == CLS).all() and (batch["labels"][:, 1:] == -100).all()

    def test_tokens_equal_to_padding_are_never_predicted(self) -> None:
        tokenizer = make_tokenizer(pad_token="word0")
        word = tokenizer.pad_token_id
        rows = [{"input_ids": [9, word, 8, 7], "special_tokens_mask": [0] * 4}]
        batch = DataCollatorForRowSeededMasking(tokenizer, mlm_probability=1.0)(rows)
        assert batch["labels"].tolist() == [[9, -100, 8, 7]]

    def test_a_row_may_get_no_mask(self, tokenizer: PreTrainedTokenizerFast) -> None:
        collator = DataCollatorForRowSeededMasking(tokenizer)
        numbers = [
            sum(label != -100 for label in labels) for _, labels in row_by_row(collator, make_rows(50, 0, 2, 4))
        ]
        assert 0 in numbers and max(numbers) > 0


class TestIndependence:
    def test_of_the_batch_its_order_and_its_padding(self, tokenizer: PreTrainedTokenizerFast) -> None:
        rows = make_rows(12)
        collator = DataCollatorForRowSeededMasking(tokenizer)
        alone = row_by_row(collator, rows)
        assert any(label != -100 for _, labels in alone for label in labels)

        assert without_padding(collator(rows), lengths_of(rows)) == alone
        assert without_padding(collator(rows[::-1]), lengths_of(rows[::-1])) == alone[::-1]
        wide = DataCollatorForRowSeededMasking(tokenizer, pad_to_multiple_of=128)(rows)
        assert wide["input_ids"].shape == (12, 128)
        assert without_padding(wide, lengths_of(rows)) == alone

        left = DataCollatorForRowSeededMasking(make_tokenizer(padding_side="left"))(rows)
        assert left["input_ids"][:, 0].eq(PAD).any()
        assert without_padding(left, lengths_of(rows), side="left") == alone

    def test_of_the_form_of_the_rows_and_of_the_tensors(self, tokenizer: PreTrainedTokenizerFast) -> None:
        rows = make_rows(6)
        collator = DataCollatorForRowSeededMasking(tokenizer)
        expected = collator(rows)
        specials = [
            {**row, "special_tokens_mask": [int(token < 5) for token in row["input_ids"]]} for row in make_rows(6)
        ]
        lists = [row["input_ids"] for row in rows]
        arrays = DataCollatorForRowSeededMasking(tokenizer, return_tensors="np")(rows)
        for name in ("input_ids", "labels"):
            assert torch.equal(collator(specials)[name], expected[name])
            assert torch.equal(collator(lists)[name], expected[name])
            assert isinstance(arrays[name], np.ndarray)
            assert np.array_equal(arrays[name], expected[name].numpy())

    def test_of_any_stream_of_random_numbers(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """The parent would make one from the seed, and refuse to in a process that is no worker of a data loader."""
        for return_tensors in ("pt", "np"):
            collator = DataCollatorForRowSeededMasking(tokenizer, seed=-1, return_tensors=return_tensors)
            collator(make_rows(2))
            assert collator.generator is None

    def test_of_the_global_random_state_which_stays(self, tokenizer: PreTrainedTokenizerFast) -> None:
        rows = make_rows(4)
        collator = DataCollatorForRowSeededMasking(tokenizer)
        results = []
        for seed in (0, 1):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
            results.append(collator(rows))
            assert random.getstate() == before[0]
            assert np.random.get_state()[1].tolist() == before[1]
            assert torch.equal(torch.get_rng_state(), before[2])
        assert torch.equal(results[0]["input_ids"], results[1]["input_ids"])

    @pytest.mark.slow
    def test_of_the_process(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        tokenizer.save_pretrained(tmp_path)
        rows = make_rows(4)
        script = (
            "import json, sys\n"
            "from transformers import PreTrainedTokenizerFast\n"
            "from hf_distill.data_collator import DataCollatorForRowSeededMasking\n"
            "tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])\n"
            "collator = DataCollatorForRowSeededMasking(tokenizer, seed=5)\n"
            "collator.set_epoch(2)\n"
            "batch = collator(json.loads(sys.argv[2]))\n"
            "print(json.dumps([batch['input_ids'].tolist(), batch['labels'].tolist()]))\n"
        )
        environment = {**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": os.pathsep.join(sys.path)}
        output = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), json.dumps(rows)],
            env=environment, capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip

        collator = DataCollatorForRowSeededMasking(tokenizer, seed=5)
        collator.set_epoch(2)
        batch = collator(rows)
        assert json.loads(output.splitlines()[-1]) == [batch["input_ids"].tolist(), batch["labels"].tolist()]


class TestEpoch:
    @pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # Python warns of threads, not of us
    @pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
    def test_reaches_persistent_workers(self, tokenizer: PreTrainedTokenizerFast, start_method: str) -> None:
        rows = make_rows(8)
        collator = DataCollatorForRowSeededMasking(tokenizer)
        loader = DataLoader(
            rows,
            batch_size=4,
            collate_fn=collator,
            num_workers=2,
            persistent_workers=True,
            multiprocessing_context=start_method,
        )
        per_epoch = []
        for epoch in range(3):
            collator.set_epoch(epoch)
            labels = [batch["labels"].tolist() for batch in loader]
            assert labels == [collator(rows[:4])["labels"].tolist(), collator(rows[4:])["labels"].tolist()]
            per_epoch.append(labels)
        assert per_epoch[0] != per_epoch[1] != per_epoch[2] != per_epoch[0]

    @pytest.mark.parametrize(
        "duplicate", [copy.deepcopy, lambda collator: pickle.loads(pickle.dumps(collator))], ids=["deepcopy", "pickle"]
    )
    def test_a_copy_keeps_the_epoch_and_goes_its_own_way(
        self, tokenizer: PreTrainedTokenizerFast, duplicate: Any
    ) -> None:
        collator = DataCollatorForRowSeededMasking(tokenizer)
        collator.set_epoch(3)
        copied = duplicate(collator)
        assert copied.epoch == 3
        assert copied._shared_epoch.is_shared()
        copied.set_epoch(4)
        assert (collator.epoch, copied.epoch) == (3, 4)

    def test_the_evaluation_copy_has_the_same_masks_forever(self, tokenizer: PreTrainedTokenizerFast) -> None:
        rows = make_rows(6, shortest=40)
        collator = DataCollatorForRowSeededMasking(
            tokenizer,
            mlm_probability=0.3,
            mask_replace_prob=0.6,
            random_replace_prob=0.2,
            pad_to_multiple_of=8,
            seed=9,
        )
        evaluation = collator.for_evaluation()
        fixed = evaluation(rows)["labels"]
        for epoch in range(3):
            collator.set_epoch(epoch)
            evaluation.set_epoch(epoch)
            assert torch.equal(evaluation(rows)["labels"], fixed)
            assert torch.equal(collator.for_evaluation()(rows)["labels"], fixed)
            assert not torch.equal(collator(rows)["labels"], fixed)
        for name in ("mlm_probability", "mask_replace_prob", "random_replace_prob", "pad_to_multiple_of", "seed"):
            assert getattr(evaluation, name) == getattr(collator, name)
        assert collator.masks_follow_epoch and not evaluation.masks_follow_epoch


class TestRefusals:
    def test_all_faults_at_once(self, tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(ConfigurationError, match=r"mlm=False.*whole_word_mask=True.*seed .* got None"):
            DataCollatorForRowSeededMasking(tokenizer, mlm=False, whole_word_mask=True, seed=None)

    @pytest.mark.parametrize("seed", [1.0, True, "1", 2**63, -(2**63) - 1])
    def test_seed(self, tokenizer: PreTrainedTokenizerFast, seed: object) -> None:
        with pytest.raises(ConfigurationError, match="seed must be an integer that fits in 64 bits, got"):
            DataCollatorForRowSeededMasking(tokenizer, seed=seed)

    @pytest.mark.parametrize("epoch", [-1, 0.5, True, None])
    def test_epoch(self, tokenizer: PreTrainedTokenizerFast, epoch: object) -> None:
        with pytest.raises(ConfigurationError, match=f"epoch must be an integer of at least 0, got {epoch}"):
            DataCollatorForRowSeededMasking(tokenizer).set_epoch(epoch)

    def test_the_parents_own_checks_stay(self, tokenizer: PreTrainedTokenizerFast) -> None:
        with pytest.raises(ValueError, match="mlm_probability"):
            DataCollatorForRowSeededMasking(tokenizer, mlm_probability=1.5)
        with pytest.raises(ValueError, match="mask token"):
            DataCollatorForRowSeededMasking(make_tokenizer(mask_token=None))
