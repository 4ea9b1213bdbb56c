"""Files that are either whole or absent: atomic writes, hashes and manifests.

A bulk product (feature store, trained model, relevance store) ends with ``manifest.json``, the
only file of it that a workflow edge points at. It lists every file with its size and SHA-256 and
says what made it. A product that is a single file (captions, a table) has its manifest beside it,
``<name>.manifest``. Whoever reads a product compares it with its manifest first.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from capscope import __version__
from capscope.errors import CapscopeError
from capscope.lock import claim

MANIFEST = "manifest.json"
BULK = 32 << 20
"""Bytes above which a file or subfolder is hashed once and not each time that it is read."""
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}
"""Errors of the operating system that a user can do something about."""
SOURCE_SUFFIXES = {".py", ".json", ".txt"}
RECORDED_PACKAGES = ("torch", "torchvision", "numpy", "h5py", "pillow", "pycocoevalcap")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON-serialisable value; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``CAPSCOPE_CACHE``, or ``~/.cache/capscope``."""
    return Path(os.environ.get("CAPSCOPE_CACHE") or "~/.cache/capscope").expanduser()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Report a full disk or a folder that may not be written as a `CapscopeError`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = why_unwritable(error)
        if reason is None:
            raise
        raise CapscopeError(
            f"cannot write {path}: {reason}. Free space or choose another folder."
        ) from error


def why_unwritable(error: BaseException) -> str | None:
    """Return why a file could not be written, or None if that is not what an error says.

    HDF5 tells the number of the error in its message; when it closes a file, as a RuntimeError.
    """
    number = getattr(error, "errno", None)
    if number is None and (told := re.search(r"\berrno = (\d+)", str(error))):
        number = int(told[1])
    return os.strerror(number) if number in UNWRITABLE else None


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
    write_text(path, _as_json(value, indent))


def _as_json(value: Any, indent: int | None = 1) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file; errors name the file and the place."""
    with reading_json(path):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def reading_json(path: Path) -> Iterator[None]:
    """Let what goes wrong in reading a JSON file name the file and the place."""
    try:
        yield
    except FileNotFoundError as error:
        raise CapscopeError(f"{path} does not exist") from error
    except OSError as error:
        raise CapscopeError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise CapscopeError(f"{path} is not valid JSON: {error}") from error


@cache
def source_hash() -> str:
    """Return a hash of the source of this package: its version, also between two releases."""
    root = Path(__file__).parent
    files = sorted(path for path in root.rglob("*") if path.suffix in SOURCE_SUFFIXES)
    return digest([[path.relative_to(root).as_posix(), sha256_of(path)] for path in files])


def device_name() -> str:
    """Return the processor that this process computes on."""
    torch = sys.modules.get("torch")  # where it is not loaded, no GPU is used
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{platform.machine()} CPU"


def software() -> dict[str, str]:
    """What can change a number: versions of capscope, Python and packages, and the device."""
    found = {"capscope": __version__, "source": source_hash()[:16]}
    found |= {"python": platform.python_version(), "device": device_name()}
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
    files = {name: _entry_of(folder / name) for name in [*names, *folders]}
    return _write_record(folder / MANIFEST, kind, params, inputs, facts, files)


def seal_file(
    path: Path, kind: str, *, params: Any, inputs: Mapping[str, Path] = {}, **facts: Any
) -> Path:
    """Write the manifest of a product that is a single file; see `write_manifest`."""
    files = {path.name: _entry_of(path)}
    return _write_record(manifest_of(path), kind, params, inputs, facts, files)


def manifest_of(path: Path) -> Path:
    """Return where the manifest of a single file is."""
    return path.with_name(path.name + ".manifest")


def record_of(product: Path) -> Path:
    """Return the file whose hash stands for a product: its manifest, or itself if it has none."""
    if product.is_dir():
        return product / MANIFEST
    return manifest_of(product) if manifest_of(product).exists() else product


def _write_record(
    path: Path,
    kind: str,
    params: Any,
    inputs: Mapping[str, Path],
    facts: Mapping[str, Any],
    files: Mapping[str, Any],
) -> Path:
    record = {
        "kind": kind,
        "params": params,
        "params_sha256": digest(params),
        "inputs": {name: sha256_of(file) for name, file in inputs.items()},
        "software": software(),
        **facts,
        "files": files,
    }
    write_json(path, {**record, "record_sha256": digest(json.loads(json.dumps(record)))})
    return path


def read_manifest(folder: Path, kind: str, *, check_hashes: bool = False) -> dict[str, Any]:
    """Read the manifest of `folder`, and compare the files with it.

    What has more than `BULK` bytes is compared by size, and by hash when it is read for the first
    time since it was written; with `check_hashes` each time.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise CapscopeError(f"{folder} is not a finished {kind} folder: it has no {MANIFEST}")
    return _checked(path, folder, kind, check_hashes)


def check_file(path: Path, kind: str) -> dict[str, Any]:
    """Compare a product that is a single file with its manifest, and return that.

    Files of others have none: nothing is compared or known.
    """
    if not manifest_of(path).exists():
        return {}
    return _checked(manifest_of(path), path, kind, check_hashes=True)


def check_record(path: Path) -> dict[str, Any]:
    """Read a manifest of any kind, of a folder or of a single file; compare everything by hash."""
    product = path.parent if path.name == MANIFEST else path.with_suffix("")
    return _checked(path, product, None, check_hashes=True)


def _checked(path: Path, product: Path, kind: str | None, check_hashes: bool) -> dict[str, Any]:
    """Read a manifest and compare the files of its product with it."""
    manifest: dict[str, Any] = read_json(path)
    again = f"make {product} again (rm -f {path} && snakemake all)"
    try:
        record = {key: value for key, value in manifest.items() if key != "record_sha256"}
        hashed = manifest.get("record_sha256")
        if hashed is not None and (hashed, path.read_text("utf-8")) != (
            digest(record),
            _as_json(manifest),  # 1E-5 is as good a number as 1e-05, but not what was written
        ):
            raise CapscopeError(f"{path} differs from its own hash: {again}")
        if kind is not None and manifest.get("kind") != kind:
            raise CapscopeError(f"{product} holds {manifest.get('kind')!r}, expected {kind!r}")
        for name, entry in manifest["files"].items():
            _compare(path, path.parent / name, entry, again, check_hashes)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CapscopeError(f"{path} is no manifest: {again}") from error
    return manifest


def _compare(
    path: Path, listed: Path, entry: Mapping[str, Any], again: str, check_hashes: bool
) -> None:
    """Compare a file or subfolder with its entry in the manifest `path`."""
    if not listed.exists():
        raise CapscopeError(f"{listed} is listed in {path} but missing: {again}")
    found = _size_of(listed)
    expected = {key: entry[key] for key in found}
    if found != expected:
        raise CapscopeError(
            f"{listed} has {_in_words(found)}, {path} says {_in_words(expected)}: "
            f"{_CHANGED}; {again}"
        )
    note = _note(listed, entry["sha256"]) if found["bytes"] > BULK else None
    if not check_hashes and note is not None and note.exists():
        return
    if _hash_of(listed) != entry["sha256"]:
        raise CapscopeError(f"{listed} differs from its hash in {path}: {_CHANGED}; {again}")
    if note is not None:
        with suppress(OSError):  # without a note it is hashed the next time, too
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()


_CHANGED = "it was changed or damaged since it was made"


def _note(path: Path, sha256: str) -> Path:
    """Return the file that is there if this content, written at this time, had this hash."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    times = [[str(file), file.stat().st_mtime_ns] for file in files]
    return cache_folder() / "checked" / digest([str(path.resolve()), sha256, times])


def _entry_of(path: Path) -> dict[str, Any]:
    return {**_size_of(path), "sha256": _hash_of(path)}


def _files_in(folder: Path) -> list[Path]:
    """Return its files but hidden ones: Snakemake leaves one in every folder that a rule makes."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(file for file in files if not file.name.startswith("."))


def _size_of(path: Path) -> dict[str, int]:
    if path.is_file():
        return {"bytes": path.stat().st_size}
    sizes = [file.stat().st_size for file in _files_in(path)]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _hash_of(path: Path) -> str:
    if path.is_file():
        return sha256_of(path)
    files = _files_in(path)
    return digest([[file.relative_to(path).as_posix(), sha256_of(file)] for file in files])


def _in_words(size: Mapping[str, int]) -> str:
    return " of ".join(f"{count} {unit}" for unit, count in sorted(size.items()))
