"""The code and models of Stanford CoreNLP 3.6.0, which SPICE parses with and no package holds."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from capscope.data.download import download, free_space
from capscope.errors import CapscopeError
from capscope.files import atomic_path, read_manifest, write_manifest
from capscope.metrics.cache import placed
from capscope.metrics.task import UnavailableError

ARCHIVE = "stanford-corenlp-full-2015-12-09.zip"
JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
KIND = "spice-models"
_UNPACKED = 420_000_000  # bytes of both jars


def models_folder(options: Mapping[str, Any]) -> Path:
    """Return the folder of both jars, by ``metrics.spice_options`` of the parameters."""
    return placed(options["models"], "corenlp-3.6.0")


def fetch_spice_models(
    folder: Path, addresses: Sequence[str], checksum: str | None = None, **options: float
) -> bool:
    """Fill `folder` with both jars, unless they are there already.

    Parameters
    ----------
    folder : Path
        The jars, or the archive under the name `ARCHIVE`, may have been put there by hand.
    addresses : sequence of str
        Of the archive, 385 MB; tried in order.
    checksum : str, optional
        Of the archive, such as ``sha1:<hex>``.
    options
        ``timeout`` and ``pause`` of `capscope.data.download.download`.

    Returns
    -------
    bool
        Whether anything had to be done.

    Raises
    ------
    CapscopeError
        No network, no room, or an archive that is not this one; says what to put where.
    """
    if _sealed(folder):
        return False
    if not all(_whole(folder / name) for name in JARS):
        archive = download(
            folder / ARCHIVE, addresses, checksum=checksum, room=_UNPACKED, **options
        )
        try:
            _unpack(archive, folder)
        except (zipfile.BadZipFile, EOFError, zlib.error) as error:
            archive.unlink()
            raise CapscopeError(
                f"{archive} was not the archive of CoreNLP 3.6.0 ({error}) and is removed: name "
                "another address in metrics.spice_options.addresses"
            ) from error
        archive.unlink()
    write_manifest(folder, KIND, params={"archive": ARCHIVE, "checksum": checksum})
    return True


def spice_jars(folder: Path) -> list[Path]:
    """Return both jars.

    Raises
    ------
    UnavailableError
        They are not in `folder`, or not whole.
    """
    if not _sealed(folder):
        raise UnavailableError(
            f"models not available in {folder}; `capscope spice-models` fetches them once"
        )
    return [folder / name for name in JARS]


def _sealed(folder: Path) -> bool:
    try:
        return set(JARS) <= set(read_manifest(folder, KIND)["files"])
    except CapscopeError:
        return False


def _whole(jar: Path) -> bool:
    """Read a jar through; every part of it has a CRC-32."""
    try:
        with zipfile.ZipFile(jar) as content:
            return content.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, zlib.error):
        return False


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        members = {Path(name).name: name for name in source.namelist()}
        missing = [name for name in JARS if name not in members]
        if missing:
            raise zipfile.BadZipFile(f"it lacks {' and '.join(missing)}")
        free_space(folder, sum(source.getinfo(members[name]).file_size for name in JARS))
        for name in JARS:
            with (
                atomic_path(folder / name) as temporary,
                source.open(members[name]) as stream,
                temporary.open("wb") as target,
            ):
                shutil.copyfileobj(stream, target, 1 << 20)
