"""What a teacher reads of a batch."""

from hf_distill.teachers.reading import as_read_by_teacher


NAMES = frozenset({"input_ids", "attention_mask", "decoder_input_ids"})


def test_without_inputs_of_its_own_it_reads_the_students():
    batch = {"input_ids": 1, "labels": 2}
    assert as_read_by_teacher(batch, NAMES) is batch


def test_its_own_inputs_take_the_place_of_all_but_the_decoders():
    batch = {"input_ids": 1, "attention_mask": 2, "decoder_input_ids": 3, "labels": 4, "teacher_input_ids": 5}
    read = as_read_by_teacher(batch, NAMES)
    assert (read["input_ids"], read["decoder_input_ids"], read["labels"]) == (5, 3, 4)
    assert "attention_mask" not in read
