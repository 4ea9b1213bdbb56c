"""METEOR: scores in Python against the jar's own, and a process that dies, hangs or babbles."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from capscope.errors import CapscopeError
from capscope.metrics.meteor import LONGEST, Meteor, meteor_command, meteor_scores

REFERENCES = [
    ["a man rides a brown horse", "a person on a horse"],
    ["the cats are sitting", "the cat"],
    ["a red bus"],
    ["two dogs run on the grass", "dogs running"],
    ["a dog"],
    ["a cat"],
]
CAPTIONS = ["a person rides a horse", "the cats", "a red bus", "a dog runs on grass", "", "zebra"]

# Answers every request with 23 times the number of its fields, unless told to misbehave.
FAKE = """
import pathlib, sys, time
count, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
starts = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(starts))
for place, line in enumerate(sys.stdin):
    if place == 2 and (starts == 1 or mode.endswith("always")):
        if mode.startswith("crash"):
            sys.exit("out of memory")
        if mode.startswith("hang"):
            time.sleep(60)
        if mode.startswith("babble"):
            print("Error: 0,5", flush=True)
    print(*[line.count("|||")] * 23, flush=True)
"""


def fake(folder: Path, mode: str) -> list[str]:
    script = folder / "fake.py"
    script.write_text(FAKE)
    return [sys.executable, str(script), str(folder / "starts"), mode]


@pytest.mark.slow
def test_scores_equal_those_of_the_jar_also_under_a_german_locale(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
    with Meteor() as meteor:
        statistics = meteor.statistics(REFERENCES, CAPTIONS)
        shuffled = meteor.statistics(REFERENCES[::-1], CAPTIONS[::-1])
    np.testing.assert_array_equal(shuffled[::-1], statistics)
    rows = [" ".join(map(str, row)) for row in statistics]
    done = subprocess.run(
        meteor_command(),
        input=" ||| ".join(["EVAL", *rows]) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    *per_image, corpus = map(float, done.stdout.split())
    ours, ours_per_image = meteor_scores(statistics)
    np.testing.assert_allclose(ours_per_image, per_image, rtol=0, atol=1e-15)
    assert ours == pytest.approx(corpus, abs=1e-15)
    assert ours_per_image[2] == 1.0
    assert ours_per_image[4] == 0.0


@pytest.mark.parametrize(("mode", "timeout"), [("crash", 60), ("hang", 3), ("babble", 60)])
@pytest.mark.slow
def test_a_process_that_fails_once_is_started_again(tmp_path, mode, timeout):
    with Meteor(timeout=timeout, command=fake(tmp_path, mode)) as meteor:
        statistics = meteor.statistics(REFERENCES, CAPTIONS)
    assert statistics[:, 0].tolist() == [len(references) + 1 for references in REFERENCES]
    assert (tmp_path / "starts").read_text() == "2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "timeout", "message"),
    [
        ("crash always", 60, "stopped twice at .*out of memory"),
        ("hang always", 0.5, "did not answer within 0.5 s twice"),
        ("babble always", 60, "answered 'Error: 0,5' twice"),
    ],
)
def test_a_process_that_fails_twice_is_reported(tmp_path, mode, timeout, message):
    with (
        Meteor(timeout=timeout, command=fake(tmp_path, mode)) as meteor,
        pytest.raises(CapscopeError, match=message),
    ):
        meteor.statistics(REFERENCES, CAPTIONS)


def test_a_missing_java_is_named():
    with pytest.raises(CapscopeError, match="cannot start Java"):
        Meteor(command=["/no/such/java"]).statistics(REFERENCES, CAPTIONS)


def test_thousands_of_requests_do_not_block_on_full_pipes(tmp_path):
    captions = [f"caption {number} " + "word " * 100 for number in range(3000)]
    with Meteor(timeout=60, command=fake(tmp_path, "well")) as meteor:
        assert meteor.statistics([["a"]] * 3000, captions).shape == (3000, 23)


def test_huge_captions_are_cut_and_field_marks_removed(tmp_path):
    echo = "import sys\nfor line in sys.stdin: print(*[len(line.split())] * 23, flush=True)"
    with Meteor(timeout=60, command=[sys.executable, "-c", echo]) as meteor:
        statistics = meteor.statistics([["a ||| b", "c\nd"], ["x " * 5000]], ["y", "z"])
    assert statistics[:, 0].tolist() == [9, LONGEST + 4]


def test_no_captions_start_no_process():
    assert Meteor(command=["/no/such/java"]).statistics([], []).shape == (0, 23)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ties processes on Linux only")
def test_the_process_ends_with_a_scorer_that_is_killed():
    code = (
        "import sys, time; from capscope.metrics.meteor import Meteor\n"
        "meteor = Meteor(command=[sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "meteor.start(); print(meteor._process.pid, flush=True); time.sleep(60)"
    )
    scorer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    process = Path(f"/proc/{int(scorer.stdout.readline())}/stat")
    scorer.kill()
    scorer.wait()
    end = time.monotonic() + 20
    while process.exists() and " Z " not in process.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    assert not process.exists() or " Z " in process.read_text()
