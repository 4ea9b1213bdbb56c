"""The entries of a Karpathy-layout JSON, one at a time.

Loaded as a whole, the captions of COCO take several times the memory of what is kept of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from capscope.errors import CapscopeError
from capscope.files import reading_json

_BLANK = re.compile(r"[ \t\n\r]*")


def read_entries(path: Path, key: str) -> Iterator[Any]:
    """Yield the members of the list that a JSON object has under a key.

    Raises
    ------
    CapscopeError
        The file does not exist, is not valid JSON, or has no such list; some members may have been
        yielded before.
    """
    with reading_json(path):
        yield from _Scanner(path.read_text("utf-8")).members(path, key)


class _Scanner:
    """Reads a JSON text value by value."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.decoder = json.JSONDecoder()

    def members(self, path: Path, key: str) -> Iterator[Any]:
        """Yield the members of the list under `key`."""
        found = False
        if self.at("{"):
            for _ in self.parted("}"):
                if self.next() != '"':
                    raise json.JSONDecodeError("Expecting a name", self.text, self.place)
                name = self.value()
                self.expect(":")
                if name == key and self.at("["):
                    found = True
                    for _ in self.parted("]"):
                        yield self.value()
                else:
                    self.value()
        else:
            self.value()
        if self.next() != "":
            raise json.JSONDecodeError("Extra data", self.text, self.place)
        if not found:
            raise CapscopeError(f"{path} is not Karpathy-layout JSON: no list {key!r}")

    def parted(self, end: str) -> Iterator[None]:
        """Stop at each value between commas, until an end."""
        if self.at(end):
            return
        yield
        while self.at(","):
            yield
        self.expect(end)

    def next(self) -> str:
        """Return the next character that is not blank; nothing at the end."""
        blank = _BLANK.match(self.text, self.place)
        assert blank is not None  # nothing is blank, too
        self.place = blank.end()
        return self.text[self.place : self.place + 1]

    def at(self, character: str) -> bool:
        """Pass over a character, if it comes next."""
        there = self.next() == character
        self.place += there
        return there

    def expect(self, character: str) -> None:
        """Pass over a character that must come next."""
        if not self.at(character):
            raise json.JSONDecodeError(f"Expecting {character!r}", self.text, self.place)

    def value(self) -> Any:
        """Read a value."""
        self.next()
        found, self.place = self.decoder.raw_decode(self.text, self.place)
        return found
