"""Extraction that is killed at random moments ends at the bytes of one that is not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "unit" / "kill_extraction.py"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_extraction_goes_on_to_the_bit_and_redoes_no_complete_shard(tmp_path, seed):
    kills = int(os.environ.get("CAPSCOPE_KILLS", "6"))
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(kills), str(seed)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["whole"].keys() >= {"features.h5", "extractor.safetensors", "manifest.json"}
    assert all(outcome == report["whole"] for outcome in report["outcomes"])
    assert report["redone"] == 0
    assert report["resumed"] > 0
