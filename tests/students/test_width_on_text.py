"""On real text, what importance keeps is worth more than what chance keeps."""

from statistics import median

import pytest
import torch
from datasets import load_dataset
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from hf_distill.students import student_from_teacher
from hf_distill.students.width import KeptUnits, widths_of, with_kept_units
from hf_distill.students.width_families import FAMILIES


def batches_of(ids, num_batches, seed):
    starts = torch.randint(len(ids) - 64, (num_batches, 16), generator=torch.Generator().manual_seed(seed))
    rows = [torch.stack([ids[start : start + 64] for start in batch]) for batch in starts]
    return [{"input_ids": row, "labels": row} for row in rows]


def loss_on(model, batches):
    with torch.no_grad():
        return sum(model(**batch).loss.item() for batch in batches) / len(batches)


@pytest.fixture(scope="module")
def text(real_data):
    """Characters of plays, as ids."""
    files = {split: f"{real_data}/tiny_shakespeare/{split}.parquet" for split in ("train", "validation")}
    speeches = load_dataset("parquet", data_files=files)
    return {split: torch.tensor(list("\n\n".join(speeches[split]["text"]).encode())).clamp(max=127) for split in files}


@pytest.fixture(scope="module")
def teacher(text):
    set_seed(0)
    sizes = {"vocab_size": 128, "hidden_size": 48, "intermediate_size": 160, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=6, num_key_value_heads=3, head_dim=8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for batch in batches_of(text["train"], 400, seed=0):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def at_random(model, widths, seed):
    generator = torch.Generator().manual_seed(seed)

    def some(size, of):
        return torch.randperm(of, generator=generator)[:size].sort().values

    old = widths_of(model.config, FAMILIES["llama"])
    heads, groups, neurons = [], [], []
    for _ in range(model.config.num_hidden_layers):
        groups.append(some(widths.num_key_value_heads, old.num_key_value_heads))
        shared = old.num_attention_heads // old.num_key_value_heads
        kept = widths.num_attention_heads // widths.num_key_value_heads
        heads.append(torch.cat([group * shared + some(kept, shared) for group in groups[-1]]))
        neurons.append(some(widths.intermediate_size, old.intermediate_size))
    hidden = [some(widths.hidden_size, old.hidden_size)] if widths.hidden_size < old.hidden_size else []
    return with_kept_units(model, widths, KeptUnits(hidden, heads, groups, neurons))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [
        {"intermediate_size": 60},
        {"num_attention_heads": 3},
        {"num_attention_heads": 4, "num_key_value_heads": 2},
        {"hidden_size": 36},
    ],
    ids=str,
)
def test_importance_beats_chance(teacher, text, sizes):
    held_out = batches_of(text["validation"], 8, seed=1)
    by_importance = student_from_teacher(teacher, **sizes, importance_data=batches_of(text["train"], 8, seed=2))
    widths = widths_of(by_importance.config, FAMILIES["llama"])
    by_chance = [loss_on(at_random(teacher, widths, seed), held_out) for seed in range(8)]
    ours, whole = loss_on(by_importance, held_out), loss_on(teacher, held_out)
    assert whole < ours < median(by_chance)
