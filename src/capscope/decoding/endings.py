"""Captions that break off: words that no caption ends with."""

from __future__ import annotations

BAD_ENDINGS = frozenset(
    ("with", "in", "on", "of", "a", "at", "to", "for", "an", "this", "his", "her", "that", "the")
)


def strip_bad_endings(sentence: str, *, also: frozenset[str] = frozenset()) -> str:
    """Remove trailing words that no sentence ends with as the program of Sun et al. 2022 does.

    Words are split at single blanks, so a trailing blank protects the sentence. A sentence of
    such words only is returned as it is.

    Parameters
    ----------
    sentence : str
    also : frozenset of str
        Further endings to remove; gridTD's published program has "and" there.
    """
    words = sentence.split(" ")
    while words and words[-1] in BAD_ENDINGS | also:
        words.pop()
    return " ".join(words) if words else sentence
