"""What holds for every test: no network, one thread, the same seed, and a reason for each skip."""

import gc
import os
import tempfile
import threading
from pathlib import Path


# Read by the libraries when they are imported, so set before any of them is. A home of its own keeps whatever the
# machine has cached, and other test processes, out of the tests.
HUGGING_FACE_HOME = tempfile.TemporaryDirectory(prefix="hf_distill-tests-")
os.environ.update(
    HF_HOME=HUGGING_FACE_HOME.name,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="agg",
)

import pytest  # noqa: E402
import torch  # noqa: E402
from tqdm.std import tqdm  # noqa: E402
from transformers import set_seed  # noqa: E402

from tests.browser import CHROMIUM, chromium  # noqa: E402
from tests.house.network_guard import forbidden_network  # noqa: E402


torch.set_num_threads(1)
tqdm.set_lock(threading.RLock())  # the default one is shared with forked processes, and stays taken if one is killed

collect_ignore_glob = ["house/doc_preludes/*"]  # run by test_docs.py in a folder of their own, not on import


def pytest_addoption(parser):
    parser.addoption(
        "--real-data",
        metavar="DIR",
        default=os.environ.get("HF_DISTILL_DATA"),
        help="folder of real data sets, for the tests that want them (default: the variable HF_DISTILL_DATA)",
    )


def missing_parts():
    """For each marker that needs more than a CPU, why its tests cannot run here."""
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "torch finds no CUDA device"
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        reasons["distributed"] = "this torch has no gloo backend"
    if CHROMIUM is None:
        reasons["browser"] = "no chromium, chromium-browser or google-chrome is installed"
    return reasons


def pytest_collection_modifyitems(items):
    reasons = missing_parts()
    for item in items:
        for marker in reasons.keys() & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason=reasons[marker]))


def pytest_collection_finish():
    """Take what was imported out of the garbage collector's sight: Accelerate calls it whenever a training begins, and
    it would look at all of that each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random state, whichever ran before it."""
    set_seed(0)


@pytest.fixture(autouse=True)
def no_network():
    """Fail a test of which any line, also one inside a library that swallows the error, reaches for the network."""
    with forbidden_network() as attempts:
        yield
    assert not attempts, f"the test reached for the network: {attempts}"


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests that are marked `browser`."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def real_data(request):
    """The folder of real data sets that `--real-data` or HF_DISTILL_DATA names; the test is skipped without it."""
    folder = request.config.getoption("--real-data")
    if folder is None:
        pytest.skip("needs real data sets: pass --real-data DIR or set HF_DISTILL_DATA")
    if not Path(folder).is_dir():
        pytest.fail(f"--real-data or HF_DISTILL_DATA names {folder}, which is not a folder")
    return Path(folder).resolve()
