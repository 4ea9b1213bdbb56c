"""Lists of words that come with the package: ``stop_words.txt`` and ``object_words.txt``."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def stop_words() -> frozenset[str]:
    """Return the 179 English stop words that Sun et al. (2022) use."""
    return frozenset(_words("stop_words.txt"))


@cache
def object_words() -> frozenset[str]:
    """Return the 101 object words of Sun et al. (2022): COCO categories and synonyms."""
    return frozenset(_words("object_words.txt"))


def _words(name: str) -> list[str]:
    """Return the lines of a list; those that begin with # are comments."""
    text = resources.files("capscope").joinpath("data", name).read_text("utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]
