"""How long explaining takes, per word: beside the results, because it differs from run to run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Stopwatch:
    """Adds up the time of an explainer, without reading images or writing relevance.

    Attributes
    ----------
    words : int
        Explained words.
    seconds : float
        On the clock.
    cpu_seconds : float
        Of all threads of this process.
    """

    words: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @contextmanager
    def explaining(self, words: int) -> Iterator[None]:
        """Count the time of a block that explains so many words."""
        clock, cpu = time.perf_counter(), time.process_time()
        yield
        self.words += words
        self.seconds += time.perf_counter() - clock
        self.cpu_seconds += time.process_time() - cpu

    def __add__(self, other: Stopwatch) -> Stopwatch:
        """Return the times of two, as if one had done both."""
        return Stopwatch(
            self.words + other.words,
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the times, and milliseconds of CPU for each word."""
        each = 1000 * self.cpu_seconds / self.words if self.words else None
        return {
            "words": self.words,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "cpu_ms_per_word": None if each is None else round(each, 3),
        }
