"""Reads pickles of NumPy arrays and plain data without unpickling them.

Detector weights are published as a pickled dict of arrays, a run's options as a pickled namespace
of numbers and texts, words as an object of a program's class. A pickle is a program for a small
stack machine, some of whose instructions call any function by name. The machine here knows the
instructions that build plain data; it looks no name up, but builds arrays itself where functions of
NumPy and PyTorch that build arrays and tensors are named, and dicts where classes of known objects
are. Everything else ends the reading.
"""

from __future__ import annotations

import pickletools
import re
from collections import Counter
from collections.abc import Callable, Set
from io import BytesIO
from math import prod
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from capscope.errors import CapscopeError

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NUMBERS_AND_TEXTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
OPTIONS = frozenset({"argparse.Namespace"})
"""Classes whose objects every pickle may hold."""
RECONSTRUCTORS = {("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor")}
"""By which protocols 0 and 1 make objects."""
DTYPE = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1|\?)")
"""Types of numbers; objects, which hold anything, are not among them."""


class _Named(NamedTuple):
    """A function or class that a pickle names; it is never looked up."""

    module: str
    name: str


class _Type:
    """A NumPy dtype in the making."""

    def __init__(self, name: str) -> None:
        if not DTYPE.fullmatch(name):
            raise CapscopeError(f"it holds values of type {name!r}, no numbers")
        self.dtype = np.dtype(name)

    def build(self, state: Any) -> None:
        """Take the byte order, the second of the entries that NumPy keeps."""
        order: Any = str(state[1]).replace("|", "=")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """A NumPy array in the making."""

    def __init__(self) -> None:
        self.array = np.empty(0)

    def build(self, state: Any) -> None:
        """Take (version, shape, type, whether in Fortran's order, bytes)."""
        *_, shape, kind, fortran, data = state
        self.array = _array(data, kind, shape, "F" if fortran else "C")


class _Object:
    """An object of a known class in the making, which comes out as the dict of its attributes."""

    def __init__(self) -> None:
        self.attributes: dict[Any, Any] = {}

    def build(self, state: Any) -> None:
        """Take names and values."""
        self.attributes.update(_a(dict, state))


class _Mark:
    """A place on the stack where a collection begins."""


MARK = _Mark()


def load_pickled_data(stream: IO[bytes], classes: Set[str] = frozenset()) -> Any:
    """Return the dicts, lists, numbers, texts and NumPy arrays of a pickle (any protocol).

    Parameters
    ----------
    stream : binary file
    classes : set of str
        Classes (``module.name``) whose objects come out as the dicts of their attributes.

    Raises
    ------
    CapscopeError
        It holds anything else, or is damaged.
    """
    try:
        return _finished(_run(stream, OPTIONS | classes), {})
    except CapscopeError:
        raise
    except MemoryError as error:
        raise CapscopeError("reading it takes too much memory for its size") from error
    except Exception as error:  # what a damaged pickle does to its own stack has no end of names
        raise CapscopeError(f"it is damaged, or no pickle ({error})") from error


def _run(stream: IO[bytes], classes: Set[str]) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    collections: dict[str, Callable[[list[Any]], Any]]
    collections = {"TUPLE": tuple, "LIST": list, "DICT": _pairs}
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        if name in NUMBERS_AND_TEXTS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            stack.append(MARK)
        elif name == "POP":
            stack.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in collections:
            stack.append(collections[name](_since_mark(stack)))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
            _a(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _since_mark(stack)
            _a(dict, stack[-1]).update(_pairs(items))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "GLOBAL":
            stack.append(_Named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_Named(*stack[-2:])]
        elif name == "REDUCE":
            function, given = stack[-2:]
            stack[-2:] = [_called(function, given, classes)]
        elif name == "NEWOBJ":
            kind, given = stack[-2:]
            stack[-2:] = [_made(kind, given, classes)]
        elif name == "BUILD":
            state = stack.pop()
            _a((_Type, _Array, _Object), stack[-1]).build(state)
        elif name == "STOP":
            return stack.pop()
        else:
            raise CapscopeError(f"it holds more than arrays and plain data ({name})")
    raise CapscopeError("it is cut short")


def _called(function: Any, arguments: Any, classes: Set[str]) -> Any:
    """Return what a few functions and classes would; a pickle that names others is refused."""
    named = _a(_Named, function)
    place = named.module.replace("numpy._core", "numpy.core"), named.name
    if place == ("numpy.core.multiarray", "_reconstruct"):
        return _Array()
    if place == ("numpy", "dtype"):
        return _Type(_text(arguments[0]))
    if place == ("numpy.core.multiarray", "scalar"):
        return _array(arguments[1], arguments[0], (), "C").item()
    if place == ("numpy.core.numeric", "_frombuffer"):
        data, kind, shape, order = arguments
        return _array(data, kind, shape, order)
    if place == ("_codecs", "encode"):
        return _bytes(arguments[0])
    if place == ("__builtin__", "bytes") and not arguments:
        return b""
    if place == ("collections", "OrderedDict"):
        return {key: value for pairs in arguments for key, value in pairs}
    if place == ("collections", "Counter"):
        return dict(Counter(*arguments))
    if place == ("collections", "defaultdict"):
        return {}
    if place == ("torch.storage", "_load_from_bytes"):
        return _storage(_bytes(arguments[0]))
    if place == ("torch._utils", "_rebuild_tensor_v2"):
        return _view(*arguments[:4])
    if place in RECONSTRUCTORS:
        return _made(arguments[0], (), classes)
    raise _refused(named)


def _storage(data: bytes) -> Tensor:
    """Return the numbers that a tensor is a view of; PyTorch keeps them in a file of its own."""
    found = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    return torch.tensor([], dtype=found.dtype).set_(found)


def _view(numbers: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray[Any, Any]:
    """Return a tensor as an array; one of more numbers than were stored is an error."""
    stored = _a(Tensor, numbers)
    if prod(shape) > stored.numel():
        raise CapscopeError(f"it holds a tensor {tuple(shape)} of {stored.numel()} numbers")
    found = stored.as_strided(tuple(shape), tuple(strides), int(offset))
    array: np.ndarray[Any, Any] = found.numpy().copy()
    return array


def _made(kind: Any, arguments: Any, classes: Set[str]) -> _Object:
    """Return a new object of a known class, which takes no arguments."""
    named = _a(_Named, kind)
    if f"{named.module}.{named.name}" in classes and not arguments:
        return _Object()
    raise _refused(named)


def _refused(named: _Named) -> CapscopeError:
    return CapscopeError(
        "it holds more than arrays and plain data, and a pickle can run code "
        f"({named.module}.{named.name})"
    )


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    values = np.frombuffer(_bytes(data), _a(_Type, kind).dtype)
    shaped = values.reshape(shape, order="F" if order == "F" else "C")
    return shaped.astype(shaped.dtype.newbyteorder("="), copy=False)


def _bytes(data: Any) -> Any:
    """Return bytes; Python 2 has them as texts, of which each letter is one."""
    return data.encode("latin-1") if isinstance(data, str) else data


def _text(data: Any) -> str:
    return data.decode("ascii") if isinstance(data, bytes) else str(_a(str, data))


def _a(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise CapscopeError(f"it is damaged, or no pickle of plain data ({type(value).__name__})")
    return value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _since_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1
    while stack[place] is not MARK:  # an empty stack ends this as an IndexError
        place -= 1
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _finished(node: Any, done: dict[int, Any]) -> Any:
    """Return `node` with its arrays in place; nothing unfinished is left.

    A collection that stands at many places is finished once, in `done`: lists of the same lists
    can stand for more than any memory holds.
    """
    if isinstance(node, _Array):
        return node.array
    if isinstance(node, _Object):
        return _finished(node.attributes, done)
    if isinstance(node, (dict, list, tuple)) and not isinstance(node, _Named):
        if id(node) not in done:
            if isinstance(node, dict):
                done[id(node)] = {key: _finished(value, done) for key, value in node.items()}
            else:
                done[id(node)] = [_finished(item, done) for item in node]
        return done[id(node)]
    if isinstance(node, (_Named, _Type, _Mark)):
        raise CapscopeError("it holds more than arrays and plain data, and a pickle can run code")
    return node
