"""The public files of a data set, fetched and unpacked once: ``dataset.downloads``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from capscope.data.archive import unpack_zip
from capscope.data.download import download, free_space
from capscope.errors import CapscopeError
from capscope.files import read_json, write_json
from capscope.params import expand_path


def fetch_downloads(settings: Mapping[str, Any], **options: float) -> list[Path]:
    """Fetch what ``dataset.downloads`` lists, unless it is there; return what was fetched.

    A file to be unpacked goes when its content is there; ``.<file>.unpacked`` then says so.
    Whatever interrupts this, the next call goes on.

    Parameters
    ----------
    settings : mapping
        ``dataset`` of the parameters. An entry of ``downloads`` has ``file`` (where it goes),
        ``addresses`` (tried in order), ``checksum`` and ``bytes`` (or null), ``unpack`` (a folder,
        or null) and ``members`` (names in the archive, or null for all).
    options
        ``timeout`` and ``pause`` of `capscope.data.download.download`.

    Raises
    ------
    CapscopeError
        The data set has no public files; an address, the disk or the archive fails, and where to
        put a copy that was fetched elsewhere.
    """
    if not settings["downloads"]:
        raise CapscopeError(
            f"data set {settings['name']} (reader {settings['reader']}) has nothing to download: "
            "dataset.downloads is empty"
        )
    return [
        expand_path(entry["file"]) for entry in settings["downloads"] if _fetched(entry, options)
    ]


def _fetched(entry: Mapping[str, Any], options: Mapping[str, float]) -> bool:
    path = expand_path(entry["file"])
    folder = expand_path(entry["unpack"]) if entry["unpack"] else None
    stamp = path.with_name(f".{path.name}.unpacked")
    wanted = {key: entry[key] for key in ("addresses", "checksum", "unpack", "members")}
    if folder is not None and _unpacked(stamp, wanted, folder):
        return False
    if folder is None and path.is_file():
        return False
    room = entry["bytes"] or 0 if folder else 0  # photographs unpack to their own size
    if not path.is_file():
        free_space(path.parent, (entry["bytes"] or 0) + room - _begun(path))
    download(path, entry["addresses"], checksum=entry["checksum"], room=room, **options)
    if folder is not None:
        try:
            names = unpack_zip(path, folder, entry["members"])
        except CapscopeError as error:
            if entry["checksum"] is None and "damaged" in str(error):
                path.unlink()
                raise CapscopeError(f"{error}. It is removed; name another address") from error
            raise
        write_json(stamp, {**wanted, "files": names}, indent=None)
        path.unlink()
    return True


def _unpacked(stamp: Path, wanted: Mapping[str, Any], folder: Path) -> bool:
    """Say whether an archive was unpacked, and all that it gave is still there."""
    if not stamp.is_file():
        return False
    told = read_json(stamp)
    names = told.pop("files")
    return bool(told == wanted) and all((folder / name).is_file() for name in names)


def _begun(path: Path) -> int:
    part = path.with_name(f".{path.name}.part")
    return part.stat().st_size if part.is_file() else 0
