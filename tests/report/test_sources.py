"""Which names of models may be published."""

import pytest

from hf_distill.report.sources import hub_id, is_repo_id
from tests.tiny_models import bert


def test_ids_of_the_hub(tmp_path, monkeypatch):
    model = bert()
    assert hub_id(model) is None
    model.config._name_or_path = "org/model"
    assert hub_id(model) == "org/model"
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_id(model) is None


@pytest.mark.parametrize("name", ["", "/home/me/model", "../model", "C:\\models\\me"])
def test_paths_are_no_ids(name):
    assert not is_repo_id(name)
