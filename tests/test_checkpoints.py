"""A manifest tells a whole checkpoint from one that is unfinished, truncated or changed."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_distill.checkpoints import MANIFEST, OWN_ENTRY, checkpoints, damage, is_unfinished, write_manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"weights" * 10)
    (tmp_path / "shards" / "0.bin").write_bytes(bytes(2**22 + 5))  # longer than what is read at once
    write_manifest(tmp_path)
    return tmp_path


def test_a_whole_checkpoint_has_no_damage(folder):
    assert not is_unfinished(folder)
    assert damage(folder) == []
    files = json.loads((folder / MANIFEST).read_text())["files"]
    assert {name: file["bytes"] for name, file in files.items()} == {
        "model.safetensors": 70,
        "shards/0.bin": 2**22 + 5,
    }
    (folder / "notes.txt").write_text("not ours")
    assert damage(folder) == []


def test_the_checksum_is_that_of_zip_files(tmp_path):
    (tmp_path / "check").write_bytes(b"123456789")
    write_manifest(tmp_path)
    assert json.loads((tmp_path / MANIFEST).read_text())["files"]["check"]["crc32"] == "cbf43926"  # in every catalogue


def test_a_truncated_file(folder):
    (folder / "model.safetensors").write_bytes(b"weights" * 9)
    assert damage(folder) == ["model.safetensors has 63 bytes of 70"]


@pytest.mark.parametrize("name", ["model.safetensors", "shards/0.bin"])
@pytest.mark.parametrize("position", [0, -1])
def test_a_flipped_bit(folder, name, position):
    contents = bytearray((folder / name).read_bytes())
    contents[position] ^= 1
    (folder / name).write_bytes(contents)
    (fault,) = damage(folder)
    assert fault.startswith(f"{name} has other contents than were written (crc32 ")


def test_a_missing_file(folder):
    (folder / "shards" / "0.bin").unlink()
    assert damage(folder) == ["shards/0.bin is missing"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"model.safetensors": 3}}', '{"files": 3}', "\x00"])
def test_a_manifest_that_is_none(folder, text):
    (folder / MANIFEST).write_text(text)
    assert damage(folder) == [f"{MANIFEST} cannot be read"]


DAMAGES = st.sampled_from(
    [
        lambda content, place: content[:place],
        lambda content, place: content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :],
        lambda content, place: content[:place] + bytes([place % 256]) + content[place:],
        lambda content, place: content[place:] + content[:place],
        lambda content, place: bytes(len(content)),
    ]
)
anything = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def small(tmp_path):
    files = {"model.safetensors": b"weights" * 10, "optimizer.pt": bytes(range(256)), "parts/0.bin": b"\0\1"}
    (tmp_path / "parts").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    write_manifest(tmp_path)
    return tmp_path, files


@anything
@given(st.data())
def test_no_damaged_file_is_taken_for_a_whole_one(small, data):
    folder, files = small
    name = data.draw(st.sampled_from(sorted(files)))
    damaged = data.draw(DAMAGES)(files[name], data.draw(st.integers(0, len(files[name]) - 1)))
    (folder / name).write_bytes(damaged)
    try:
        faults = damage(folder)
        assert (faults == []) == (damaged == files[name])
        assert all(fault.startswith(name) for fault in faults)
    finally:
        (folder / name).write_bytes(files[name])


@anything
@given(st.data())
def test_no_damaged_manifest_is_believed(small, data):
    folder, _ = small
    whole = (folder / MANIFEST).read_bytes()
    damaged = data.draw(DAMAGES)(whole, data.draw(st.integers(0, len(whole) - 1)))
    (folder / MANIFEST).write_bytes(damaged)
    try:
        if damage(folder) == []:
            assert json.loads(damaged) == json.loads(whole)
    finally:
        (folder / MANIFEST).write_bytes(whole)


@anything
@given(st.binary(max_size=60) | st.sampled_from([b"[" * 5000, b'{"files": ' + b"9" * 5000 + b"}"]))
def test_any_bytes_are_no_manifest_and_no_state(small, content):
    folder, _ = small
    whole = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(content)
    try:
        assert damage(folder) == [f"{MANIFEST} cannot be read"]
        (folder / MANIFEST).unlink()
        (folder / "trainer_state.json").write_bytes(content)
        assert is_unfinished(folder)
    finally:
        (folder / "trainer_state.json").unlink(missing_ok=True)
        (folder / MANIFEST).write_bytes(whole)


def test_a_manifest_cannot_name_what_lies_outside(folder):
    (folder.parent / "secret").write_text("secret")
    files = {"../secret": {"bytes": 6, "crc32": "00000000"}}
    (folder / MANIFEST).write_text(json.dumps({"files": files}))
    assert damage(folder) == ["../secret is missing"]


@pytest.mark.parametrize(
    "state, unfinished",
    [
        (None, True),
        ('{"global_step": 3, "stateful_callb', True),
        ("[]", True),
        ('{"stateful_callbacks": {}}', False),
        (json.dumps({"stateful_callbacks": {OWN_ENTRY: {}}}), True),
    ],
    ids=["none", "truncated", "other", "of another Trainer", "ours"],
)
def test_without_a_manifest_the_last_file_tells(tmp_path, state, unfinished):
    if state is not None:
        (tmp_path / "trainer_state.json").write_text(state)
    assert is_unfinished(tmp_path) == unfinished
    assert damage(tmp_path) == []


def test_checkpoints_are_ordered_by_their_steps(tmp_path):
    for name in ("checkpoint-9", "checkpoint-100", "checkpoint-20", "checkpoint-x", "my-checkpoint-7"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-200").write_text("a file")
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-100", "checkpoint-20", "checkpoint-9"]
