"""Training that is killed at random moments ends at the bytes of one that is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "unit" / "kill_training.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "seed"), [("xe", 1), ("xe", 2), ("scst", 3), ("lrp_xe", 4), ("lrp_scst", 5)]
)
def test_a_killed_training_goes_on_to_the_bit(tmp_path, stage, seed):
    kills = int(os.environ.get("CAPSCOPE_KILLS", "6"))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(kills), str(seed), stage],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["whole"].keys() >= {"model.safetensors", "metrics.csv", "manifest.json"}
    assert all(outcome == report["whole"] for outcome in report["outcomes"])
    assert report["resumable"] > 0
