"""Words of captions: clean text, one rule of tokenisation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

WORD = re.compile(r"\w+")
LINE_BREAKING = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that captions must not hold: controls (line feed, NEL, VT, NUL, ...), lone
surrogates, line and paragraph separators. Line-based tools count lines by them, and one such
character shifts every later caption of a file by one."""


def clean_text(text: str) -> str:
    """Replace controls and line separators by blanks, then make every run of blanks one blank."""
    if not text.isascii() or not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in LINE_BREAKING else c for c in text)
    return " ".join(text.split())


def tokenize(text: str) -> list[str]:
    r"""Return the words of a caption: lower case, maximal runs of ``\w``.

    Punctuation is dropped and apostrophes split words, as in the COCO 2017 preparation of Sun et
    al. (Information Fusion 77, 2022).
    """
    return WORD.findall(text.lower())


def clean_tokens(tokens: Iterable[str]) -> list[str]:
    """Return ready-made tokens; one with a blank or a control inside becomes several."""
    return clean_text(" ".join(tokens)).split()
