"""SPICE (Anderson et al. 2016): the scene graph of a caption against that of its references.

The jar of pycocoevalcap does it, with CoreNLP 3.6.0 to parse; see `spice_models`. It was written
for Java 8 and runs on today's with parts of Java opened to it and `script_engine` beside it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from capscope.errors import CapscopeError
from capscope.files import writing
from capscope.lifeline import tied
from capscope.metrics.java import jar, java_command
from capscope.metrics.meteor import LONGEST
from capscope.metrics.script_engine import write_script_engine
from capscope.metrics.spice_models import spice_jars
from capscope.metrics.statistics import Measure, ratio_of_sums
from capscope.metrics.task import Task

SPICE_JAR = "spice/spice-1.0.jar"
MAIN = "edu.anu.spice.SpiceScorer"
CATEGORIES = {
    "All": "SPICE",
    "Object": "SPICE-object",
    "Relation": "SPICE-relation",
    "Attribute": "SPICE-attribute",
    "Color": "SPICE-color",
    "Cardinality": "SPICE-cardinality",
    "Size": "SPICE-size",
}
"""SPICE's categories of tuples, and what their F-scores are called here."""
PARSED_AT_ONCE = 10_000
"""Texts that one process parses: what a crash loses, and how often models are loaded."""
_REFERENCES = 5  # texts of one entry while parsing; any small number

# What SPICE's serialisation library looks into, and what Java 24 warns of otherwise.
_OPENED = ("lang", "math", "net", "text", "util", "util.concurrent")
_OPTIONS = (
    *(f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in _OPENED),
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)

Entry = dict[str, Any]


def spice_command(jars: Sequence[Path], engine: Path, memory_gb: int) -> list[str]:
    """Return the command that runs SPICE, without its arguments.

    Parameters
    ----------
    jars : sequence of Path
        Of CoreNLP 3.6.0.
    engine : Path
        From `write_script_engine`.
    memory_gb : int
        The most that Java may take.
    """
    path = os.pathsep.join(str(part) for part in (engine, *jars, jar(SPICE_JAR)))
    return java_command(*_OPTIONS, f"-Xmx{memory_gb}G", "-cp", path, MAIN)


class Spice:
    """Scores captions with SPICE's jar, in processes that are run again once if they fail.

    Parameters
    ----------
    models : Path
        Folder that `fetch_spice_models` filled.
    cache : Path, optional
        Folder that keeps parses between runs. SPICE's cache has code for x86 processors only;
        elsewhere it is left out with a warning.
    memory_gb : int
        The most that Java may take.
    timeout : float
        Seconds for one process, which parses up to `PARSED_AT_ONCE` texts.
    launcher : sequence of str, optional
        What to run in place of `spice_command`.

    Raises
    ------
    UnavailableError
        The models are not there.
    """

    names = tuple(CATEGORIES.values())

    def __init__(
        self,
        models: Path,
        *,
        cache: Path | None = None,
        memory_gb: int = 8,
        timeout: float = 3600.0,
        launcher: Sequence[str] | None = None,
    ) -> None:
        self._jars = spice_jars(models)
        self._cache = cache
        if cache is not None and platform.machine().lower() not in ("x86_64", "amd64"):
            warnings.warn(
                f"SPICE cannot keep parses on {platform.machine()}: it parses all captions anew",
                stacklevel=2,
            )
            self._cache = None
        self._memory_gb = memory_gb
        self._timeout = timeout
        self._launcher = launcher

    def measures(self, task: Task) -> list[dict[str, Measure]]:
        """Score every row of a task; its tokenised texts, as the published evaluation does."""
        texts = task.tokenized
        if self._cache is not None:
            self._parse([text for group in texts.references for text in group])
            self._parse([text for row in texts.rows for text in row])
        rows = range(len(texts.rows))
        return [
            _measures(self._scores(task.against(texts, row), texts.rows[row]))
            for row in tqdm(rows, desc="SPICE", unit="row", delay=2)
        ]

    def _parse(self, texts: Sequence[str]) -> None:
        """Fill the cache: within one process SPICE would parse a text as often as it occurs."""
        distinct = list(dict.fromkeys(map(_short, texts)))
        with tqdm(total=len(distinct), desc="parsing", unit="text", delay=2) as progress:
            for start in range(0, len(distinct), PARSED_AT_ONCE):
                batch = distinct[start : start + PARSED_AT_ONCE]
                groups = [batch[k : k + _REFERENCES] for k in range(0, len(batch), _REFERENCES)]
                self._scores(groups, [group[0] for group in groups])
                progress.update(len(batch))

    def _scores(
        self, references: Sequence[Sequence[str]], captions: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return the F-scores (N, categories), NaN where there is nothing to score."""
        entries = [
            {"image_id": place, "test": _short(caption), "refs": list(map(_short, texts))}
            for place, (texts, caption) in enumerate(zip(references, captions, strict=True))
        ]
        with tempfile.TemporaryDirectory(prefix="capscope-spice-") as folder:
            try:
                found = self._run(entries, Path(folder))
            except _NoScoresError:
                try:
                    found = self._run(entries, Path(folder))
                except _NoScoresError as problem:
                    raise CapscopeError(
                        f"SPICE {problem}, twice. It may take {self._memory_gb} GB of memory "
                        "(metrics.spice_options.memory_gb); if its parses are damaged, remove "
                        f"{self._cache}; or set metrics.spice to false."
                    ) from problem
        return np.array(found, np.float64).reshape(len(entries), len(CATEGORIES))

    def _run(self, entries: Sequence[Entry], folder: Path) -> list[list[float]]:
        """Run one process; its input is ASCII, whatever the locale."""
        given, written, said = (folder / name for name in ("in.json", "out.json", "log.txt"))
        given.write_text(json.dumps(entries), encoding="ascii")
        written.unlink(missing_ok=True)
        launcher = self._launcher
        if launcher is None:
            write_script_engine(folder / "engine.jar")
            launcher = spice_command(self._jars, folder / "engine.jar", self._memory_gb)
        cache = []
        if self._cache is not None:
            with writing(self._cache):
                self._cache.mkdir(parents=True, exist_ok=True)
            cache = ["-cache", str(self._cache)]
        command = [*launcher, str(given), *cache, "-out", str(written), "-subset", "-silent"]
        with said.open("wb") as log:
            try:
                done = subprocess.run(
                    tied(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=self._timeout,
                )
            except subprocess.TimeoutExpired:
                raise _NoScoresError(f"did not end within {self._timeout:g} s") from None
            except OSError as error:
                raise CapscopeError(f"cannot start Java ({launcher[0]}): {error}") from error
        if done.returncode:
            text = _without_traces(said.read_text("utf-8", "replace"))
            raise _NoScoresError(f"ended with status {done.returncode}: {text}")
        return _read(written, len(entries))


class _NoScoresError(Exception):
    """The process ended without scores; the message completes "SPICE ..."."""


def _without_traces(log: str) -> str:
    """Return the end of what Java said, without the lines of stack traces."""
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("\t")]
    return " / ".join(lines[-4:])[-800:] or "it said nothing"


def _short(text: str) -> str:
    return " ".join(text.split(" ")[:LONGEST])


def _read(path: Path, count: int) -> list[list[float]]:
    try:
        loaded = json.loads(path.read_text("utf-8"))
        rows = {item["image_id"]: _row(item["scores"]) for item in loaded}
        return [rows[place] for place in range(count)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _NoScoresError(f"wrote no scores that can be read ({error!r})") from error


def _row(scores: Mapping[str, Mapping[str, float | None]]) -> list[float]:
    """Return the F-score of every category; null is undefined."""
    values = (scores[category]["f"] for category in CATEGORIES)
    return [float("nan") if value is None else float(value) for value in values]


def _measures(scores: NDArray[np.float64]) -> dict[str, Measure]:
    """Return means over the images where a category occurs."""
    measures = {}
    for name, values in zip(CATEGORIES.values(), scores.T, strict=True):
        defined = ~np.isnan(values)
        sums = np.column_stack([np.nan_to_num(values), defined])
        measures[name] = Measure(sums, ratio_of_sums, int(defined.sum()), note="CoreNLP 3.6.0")
    return measures
