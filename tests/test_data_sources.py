import logging
from importlib.util import find_spec

import pytest
from datasets import Dataset, DatasetDict

from hf_distill.data_sources import load_splits, some_rows, train_and_evaluation
from hf_distill.errors import ConfigurationError, EmptyDatasetError


ROWS = {"text": ["a fine film", "a dull film"], "label": [1, 0]}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt"])
def test_reads_a_file(suffix, tmp_path):
    path, rows = tmp_path / f"rows{suffix}", Dataset.from_dict(ROWS)
    if suffix in (".csv", ".tsv"):
        rows.to_csv(path, sep="\t" if suffix == ".tsv" else ",")
    elif suffix == ".parquet":
        rows.to_parquet(path)
    elif suffix == ".txt":
        path.write_text("\n".join(ROWS["text"]))
    else:
        rows.to_json(path)
    splits = load_splits(str(path))
    assert list(splits) == ["train"]
    expected = {"text": ROWS["text"]} if suffix == ".txt" else ROWS
    assert splits["train"].to_dict() == expected


def test_refuses_another_format(tmp_path):
    path = tmp_path / "rows.xls"
    path.write_text("")
    with pytest.raises(ConfigurationError, match=r"format '.xls', and these are read: .csv, "):
        load_splits(str(path))


def test_says_why_a_file_cannot_be_read(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\nfine,1\ndull, but,long,0\n")
    with pytest.raises(
        ConfigurationError, match=r"rows.csv' cannot be read: ParserError: .* 2 fields in line 3, saw 4"
    ):
        load_splits(str(tmp_path / "rows.csv"))


@pytest.mark.skipif(find_spec("torchcodec") is not None, reason="torchcodec is installed")
def test_says_what_is_missing_for_sounds(tmp_path):
    for name in ("high", "low"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(ConfigurationError, match=r"cannot be read: ImportError: .* please install 'torchcodec'"):
        load_splits(str(tmp_path))


@pytest.mark.parametrize("source", ["rows.csv", "./rows", "/gone/rows"])
def test_names_a_path_that_is_not_there(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=f"dataset='{source}' is no file and no folder, seen from {tmp_path}"):
        load_splits(source)


def test_reads_a_folder_of_files(tmp_path):
    for split in ("train", "test"):
        Dataset.from_dict(ROWS).to_parquet(tmp_path / f"{split}.parquet")
    assert set(load_splits(str(tmp_path))) == {"train", "test"}


@pytest.mark.parametrize("saved", [Dataset.from_dict(ROWS), DatasetDict(train=Dataset.from_dict(ROWS))])
def test_reads_what_datasets_has_saved(saved, tmp_path):
    saved.save_to_disk(tmp_path / "data")
    splits = load_splits(str(tmp_path / "data"))
    assert isinstance(splits, DatasetDict)
    assert splits["train"].to_dict() == ROWS


def splits_of(**sizes):
    return DatasetDict({name: Dataset.from_dict({"x": list(range(size))}) for name, size in sizes.items()})


def test_says_when_rows_to_train_on_are_evaluated_on(caplog):
    logging.getLogger("transformers").propagate = True
    assert len(train_and_evaluation(splits_of(train=5), None)[1]) == 5
    assert "The data set has the split 'train' alone, so all of its 5 rows are evaluated on." in caplog.text


def test_evaluates_on_the_first_usual_split():
    train, evaluation = train_and_evaluation(splits_of(train=5, test=3, validation=2))
    assert (len(train), len(evaluation)) == (5, 2)
    assert len(train_and_evaluation(splits_of(train=5, test=3, validation=2), evaluation_split="test")[1]) == 3
    assert len(train_and_evaluation(splits_of(train=5), evaluation_splits=splits_of(train=4))[1]) == 4


def test_holds_a_tenth_out_and_says_so(caplog):
    logging.getLogger("transformers").propagate = True
    train, evaluation = train_and_evaluation(splits_of(train=40), seed=1)
    assert sorted([*train["x"], *evaluation["x"]]) == list(range(40))
    assert len(evaluation) == 4
    assert "a tenth of 'train' is held out (4 of 40 rows)" in caplog.text
    assert evaluation["x"][:] == train_and_evaluation(splits_of(train=40), seed=1)[1]["x"][:]


def test_refuses_a_split_that_is_not_there():
    with pytest.raises(ConfigurationError, match=r"train_split='fit' is no split of the data set, which has train"):
        train_and_evaluation(splits_of(train=3), "fit")
    with pytest.raises(ConfigurationError, match="eval_split='dev'"):
        train_and_evaluation(splits_of(train=3), evaluation_split="dev")
    with pytest.raises(ConfigurationError, match="a, b, and it is not clear which one to evaluate on"):
        train_and_evaluation(splits_of(a=3, b=2), None)


def test_some_rows():
    rows = splits_of(train=5)["train"]
    assert some_rows(rows, None) is rows
    assert some_rows(rows, 2)["x"][:] == [1, 2]
    assert len(some_rows(rows, 9)) == 5
    for count in (0, -5):
        with pytest.raises(EmptyDatasetError, match=f"5 rows, of which at most {count} are taken"):
            some_rows(rows, count)


@pytest.mark.parametrize("count", [70, 100, 199])
def test_some_rows_have_all_classes_whether_these_are_sorted_or_take_turns(count):
    chosen = some_rows(splits_of(train=200)["train"], count)["x"][:]
    assert sorted(set(chosen)) == chosen and len(chosen) == count
    for classes in ([row // 20 for row in chosen], [row % 10 for row in chosen]):
        assert set(classes) == set(range(10))


@pytest.mark.parametrize(("name", "text"), [("rows.csv", "text,label\n"), ("rows.jsonl", ""), ("rows.json", "[]")])
def test_a_file_without_rows(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(EmptyDatasetError, match=f"{name}' has no rows, or a split without any"):
        load_splits(str(tmp_path / name))


def test_a_saved_split_without_rows(tmp_path):
    DatasetDict(train=Dataset.from_dict(ROWS), validation=Dataset.from_dict(ROWS).select([])).save_to_disk(tmp_path)
    with pytest.raises(EmptyDatasetError, match="a split without any"):
        load_splits(str(tmp_path))


def test_one_row_has_no_tenth():
    with pytest.raises(EmptyDatasetError, match="'train' has 1 rows, and no split is there for evaluation"):
        train_and_evaluation(splits_of(train=1))
