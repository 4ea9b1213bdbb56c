"""The pickled vocabulary of DIFNet's program (``vocab.pkl``), read without unpickling it.

A pickle is a program for a stack machine that may call any function. The machine here knows the
instructions that build plain data; functions and classes are names that are never looked up, and
only those that a vocabulary needs may be named.
"""

from __future__ import annotations

import pickletools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from capscope.data.vocabulary import Vocabulary
from capscope.errors import CapscopeError

SPECIAL = ("<unk>", "<pad>", "<bos>", "<eos>")
LARGEST = 1 << 28
"""Bytes of a vocabulary file."""
NAMED = {
    ("data.vocab", "Vocab"),
    ("data.vocab", "_default_unk_index"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("copy_reg", "_reconstructor"),
    ("copyreg", "_reconstructor"),
    ("__builtin__", "object"),
    ("builtins", "object"),
}
"""What the pickle of a vocabulary names."""
VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING"),
    "SHORT_BINSTRING",
}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Loaded(NamedTuple):
    """What a ``vocab.pkl`` holds."""

    vocabulary: Vocabulary
    counts: dict[str, int]
    """How often each word was counted, rare ones too."""


class _Name(NamedTuple):
    module: str
    name: str


class _Mark:
    """Where a collection begins on the stack."""


def read_vocabulary(path: Path) -> Loaded:
    """Read a pickled vocabulary.

    Raises
    ------
    CapscopeError
        The file is too large, damaged, names what no vocabulary needs, or holds none.
    """
    if not path.is_file():
        raise CapscopeError(f"{path} does not exist, or is no file")
    if path.stat().st_size > LARGEST:
        raise CapscopeError(f"{path} is larger than any vocabulary: {path.stat().st_size} bytes")
    try:
        found = _run(path.read_bytes())
    except CapscopeError as error:
        raise CapscopeError(f"{path}: {error}") from error
    except Exception as error:  # what a damaged pickle does to its own stack has no end of names
        raise CapscopeError(f"{path} is damaged, or no pickle ({error})") from error
    words, counts = (found.get(key) if isinstance(found, dict) else None for key in KEYS)
    texts = isinstance(words, list) and all(isinstance(word, str) for word in words)
    if not texts or not isinstance(counts, dict):
        raise CapscopeError(f"{path} holds no vocabulary: no list itos, or no counts freqs")
    assert isinstance(words, list)
    if tuple(words[: len(SPECIAL)]) != SPECIAL:
        raise CapscopeError(
            f"{path}: the first words are {words[: len(SPECIAL)]}, expected {list(SPECIAL)}"
        )
    return Loaded(Vocabulary(tuple(words), pad=1, start=2, end=3, unk=0), dict(counts))


KEYS = ("itos", "freqs")


def published_vocabulary(counts: Mapping[str, int], minimum: int = 5) -> Vocabulary:
    """Return the vocabulary of words counted `minimum` times or more, as published.

    Special words first, then by falling count, ties in alphabetical order.
    """
    kept = [word for word, count in counts.items() if count >= minimum and word not in SPECIAL]
    kept.sort(key=lambda word: (-counts[word], word))
    return Vocabulary((*SPECIAL, *kept), pad=1, start=2, end=3, unk=0)


def _run(data: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        place = max(i for i, value in enumerate(stack) if isinstance(value, _Mark))
        found = stack[place + 1 :]
        del stack[place:]
        return found

    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name == "MARK":
            stack.append(_Mark())
        elif name in ("LIST", "TUPLE"):
            stack.append(since_mark() if name == "LIST" else tuple(since_mark()))
        elif name == "DICT":
            items = since_mark()
            stack.append(dict(zip(items[::2], items[1::2], strict=True)))
        elif name == "APPEND":
            stack[-2].append(stack.pop())
        elif name == "APPENDS":
            items = since_mark()
            stack[-1].extend(items)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "SETITEMS":
            items = since_mark()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if argument is None else int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(str(argument))])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "GLOBAL":
                module, _, called = str(argument).partition(" ")
            else:
                called, module = stack.pop(), stack.pop()
            if (module, called) not in NAMED:
                raise CapscopeError(f"it names {module}.{called}, which no vocabulary needs")
            stack.append(_Name(module, called))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(_made(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            stack[-1].update(state)
        elif name == "POP":
            stack.pop()
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise CapscopeError(f"it has the instruction {name}, which builds no plain data")
    raise CapscopeError("it ends too early")


def _made(called: Any, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Return what a class stands for: a dict of its attributes, or its items."""
    if not isinstance(called, _Name):
        raise CapscopeError("it calls what is no class")
    if called.name == "Counter" and arguments:
        return dict(Counter(arguments[0]))
    return {}
