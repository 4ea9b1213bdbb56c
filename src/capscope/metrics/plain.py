"""Captions and references in plain text: line k is of image k."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capscope.data.annotations import Dataset, Image
from capscope.data.tokens import tokenize
from capscope.errors import CapscopeError


def read_plain_captions(path: Path) -> dict[int, str]:
    """Read one caption a line; image ids are the numbers of the lines, from 1."""
    return dict(enumerate(_lines(path), start=1))


def read_plain_references(paths: Sequence[Path]) -> Dataset:
    """Read references: a file for each reference of an image, or one file with tabs in between.

    An empty line, or nothing between two tabs, is no reference; images may have different
    numbers of them.

    Raises
    ------
    CapscopeError
        The files differ in their number of lines, or an image has no reference.
    """
    files = [_lines(path) for path in paths]
    for path, lines in zip(paths, files, strict=True):
        if len(lines) != len(files[0]):
            raise CapscopeError(
                f"{path} has {len(lines)} lines but {paths[0]} has {len(files[0])}: line k of "
                "every file must be of image k"
            )
    images = []
    for number, row in enumerate(zip(*files, strict=True), start=1):
        texts = tuple(text for line in row for text in line.split("\t") if text.strip())
        if not texts:
            raise CapscopeError(f"{paths[0]}: line {number} holds no reference")
        words = tuple(tuple(tokenize(text)) for text in texts)
        images.append(Image(number, str(number), "test", texts, words))
    if not images:
        raise CapscopeError(f"{paths[0]} is empty: expected a line of references for each image")
    return Dataset(paths[0].stem, paths[0].parent, tuple(images))


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file; only a line feed ends one."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CapscopeError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CapscopeError(f"{path} is not UTF-8 text: {error}") from error
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.rstrip("\r") for line in lines]
