"""Files that are either whole or absent: atomic writes, hashes and manifests.

A bulk product (feature store, trained model, relevance store) ends with ``manifest.json``, the
only file of it that a workflow edge points at. It lists every file with its size and SHA-256 and
says what made it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from capscope import __version__
from capscope.errors import CapscopeError
from capscope.lock import claim

MANIFEST = "manifest.json"
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "h5py", "pillow", "pycocoevalcap")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-serialisable value; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report a full disk or a folder that may not be written as a `CapscopeError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise CapscopeError(
                f"cannot write {path}: {error.strerror}. Free space or choose another folder."
            ) from error
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path, ``.<name>.part`` beside `path`; rename it onto `path` at the end.

    On any exception, Ctrl-C included, the temporary file is removed and `path` keeps what it had.
    What a killed process left half written is written over by the next writer of `path`; two
    writers at once wait for each other. A full disk or a read-only folder is reported as a
    `CapscopeError` that names the file.
    """
    part = part_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = claim(part, wait=True)
        assert handle is not None
        try:
            os.ftruncate(handle, 0)
            yield part
            os.fsync(handle)
            part.chmod(0o644)
            part.replace(path)
            _sync_folder(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)


def part_of(path: Path) -> Path:
    """Return where `path` is written before it gets its name."""
    return path.with_name(f".{path.name}.part")


def discard(path: Path) -> None:
    """Remove a file, and what a killed process left of it half written."""
    for one in (path, part_of(path)):
        one.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (a crash could otherwise bring the old name back)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Write `value` as JSON, atomically; keys keep their order, NaN is refused."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; errors name the file and the place."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CapscopeError(f"{path} does not exist") from error
    except OSError as error:
        raise CapscopeError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise CapscopeError(f"{path} is not valid JSON: {error}") from error


def software() -> dict[str, str]:
    """Versions that can change a number: capscope, Python and the packages that compute."""
    found = {"capscope": __version__, "python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_manifest(
    folder: Path,
    kind: str,
    *,
    params: Any,
    inputs: Mapping[str, Path] = {},
    folders: Sequence[str] = (),
    **facts: Any,
) -> Path:
    """Seal `folder`: list its files with size and SHA-256, and say what made them.

    Parameters
    ----------
    folder : Path
        The finished product. Its own files are listed one by one, hidden ones left out.
    kind : str
        What it is: ``features``, ``run``, ``relevance``, ...
    params : JSON-serialisable
        The part of the parameters that this product depends on.
    inputs : mapping of str to Path
        Manifests (or single files) that it was made from, recorded by hash.
    folders : sequence of str
        Subfolders that belong to the product, with one entry each, however many files they hold;
        other subfolders are products of their own.
    facts
        Further JSON-serialisable facts, such as counts.
    """
    whole = [path.name for path in folder.iterdir() if path.is_file() and path.name != MANIFEST]
    names = sorted(name for name in whole if not name.startswith("."))
    manifest = {
        "kind": kind,
        "params": params,
        "params_sha256": digest(params),
        "inputs": {name: sha256_of(path) for name, path in inputs.items()},
        "software": software(),
        **facts,
        "files": {
            name: {**_size_of(folder / name), "sha256": _hash_of(folder / name)}
            for name in [*names, *folders]
        },
    }
    write_json(folder / MANIFEST, manifest)
    return folder / MANIFEST


def read_manifest(folder: Path, kind: str, *, check_hashes: bool = False) -> dict[str, Any]:
    """Read and verify the manifest of `folder`: kind and sizes always, hashes on demand."""
    path = folder / MANIFEST
    if not path.exists():
        raise CapscopeError(f"{folder} is not a finished {kind} folder: it has no {MANIFEST}")
    manifest: dict[str, Any] = read_json(path)
    if manifest.get("kind") != kind:
        raise CapscopeError(f"{folder} holds {manifest.get('kind')!r}, expected {kind!r}")
    for name, entry in manifest["files"].items():
        listed = folder / name
        if not listed.exists():
            raise CapscopeError(f"{listed} is listed in {path} but missing: make {folder} again")
        found = _size_of(listed)
        expected = {key: entry[key] for key in found}
        if found != expected:
            raise CapscopeError(
                f"{listed} has {_in_words(found)}, {path} says {_in_words(expected)}: "
                f"make {folder} again"
            )
        if check_hashes and _hash_of(listed) != entry["sha256"]:
            raise CapscopeError(f"{listed} differs from its hash in {path}: make {folder} again")
    return manifest


def _size_of(path: Path) -> dict[str, int]:
    if path.is_file():
        return {"bytes": path.stat().st_size}
    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _hash_of(path: Path) -> str:
    if path.is_file():
        return sha256_of(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[file.relative_to(path).as_posix(), sha256_of(file)] for file in files])


def _in_words(size: Mapping[str, int]) -> str:
    return " of ".join(f"{count} {unit}" for unit, count in sorted(size.items()))
