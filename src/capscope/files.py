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
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from capscope import __version__
from capscope.errors import CapscopeError

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
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds.

    On any exception, Ctrl-C included, the temporary file is removed and `path` keeps what it had.
    A full disk or a read-only folder is reported as a `CapscopeError` that names the file.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise CapscopeError(
                f"cannot write {path}: {error.strerror}. Free space or choose another folder; "
                "nothing was changed."
            ) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
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
    folder: Path, kind: str, *, params: Any, inputs: Mapping[str, Path] = {}, **facts: Any
) -> Path:
    """Seal `folder`: list its files with size and SHA-256, and say what made them.

    Parameters
    ----------
    folder : Path
        The finished product. Hidden files, ``state/`` and ``tensorboard/`` are left out.
    kind : str
        What it is: ``features``, ``run``, ``relevance``, ...
    params : JSON-serialisable
        The part of the parameters that this product depends on.
    inputs : mapping of str to Path
        Manifests (or single files) that it was made from, recorded by hash.
    facts
        Further JSON-serialisable facts, such as counts.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        left_out = relative.parts[0] in {"state", "tensorboard", MANIFEST}
        if path.is_file() and not left_out and not path.name.startswith("."):
            files[relative.as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {
        "kind": kind,
        "params": params,
        "params_sha256": digest(params),
        "inputs": {name: sha256_of(path) for name, path in inputs.items()},
        "software": software(),
        **facts,
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)
    return folder / MANIFEST


def read_manifest(folder: Path, kind: str, *, check_hashes: bool = False) -> dict[str, Any]:
    """Read and verify the manifest of `folder`: kind and file sizes always, hashes on demand."""
    path = folder / MANIFEST
    if not path.exists():
        raise CapscopeError(f"{folder} is not a finished {kind} folder: it has no {MANIFEST}")
    manifest: dict[str, Any] = read_json(path)
    if manifest.get("kind") != kind:
        raise CapscopeError(f"{folder} holds {manifest.get('kind')!r}, expected {kind!r}")
    for name, entry in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            raise CapscopeError(f"{file} is listed in {path} but missing: make {folder} again")
        size = file.stat().st_size
        if size != entry["bytes"]:
            raise CapscopeError(
                f"{file} has {size} bytes, {path} says {entry['bytes']}: make {folder} again"
            )
        if check_hashes and sha256_of(file) != entry["sha256"]:
            raise CapscopeError(f"{file} differs from its hash in {path}: make {folder} again")
    return manifest
