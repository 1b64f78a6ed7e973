"""Long training neither grows nor slows down."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_memory_and_steps_stay_flat(tmp_path):
    program = (
        "import json, pathlib, sys; sys.path.insert(0, 'benchmarks/endurance'); from soak import drift, soak; "
        f"found = soak(pathlib.Path({str(tmp_path)!r}), 50_000); "
        "print(json.dumps([drift(found['yardsticks_per_step']), drift(found['mebibytes'])]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    slower, larger = json.loads(done.stdout.splitlines()[-1])
    assert slower < 0.05
    assert larger < 0.05
