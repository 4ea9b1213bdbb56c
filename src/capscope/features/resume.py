"""Writing fields so that a killed process goes on where it was: to the same bytes.

Rows go to ``.<name>.unfinished``. Now and then they are brought to the disk, and then
``.<name>.journal`` says how many there are and what their checksums were.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capscope.errors import CapscopeError
from capscope.features.fields import Field, FieldWriter, check_ids, check_room
from capscope.files import discard, read_json, write_json, writing
from capscope.lock import one_writer

JOURNAL_SECONDS = 10.0
"""Time between two notes in the journal: what a kill costs at most, and a batch."""


class JournalledWriter(FieldWriter):
    """A writer that notes how far it is; ``done`` rows are there already when it starts."""

    def __init__(
        self,
        part: Path,
        journal: Path,
        ids: NDArray[np.int64],
        fields: Mapping[str, Field],
        attributes: Mapping[str, Any],
        identity: str,
    ) -> None:
        super().__init__(part, ids, fields, attributes, self._noted(journal, identity))
        self._journal, self._identity = journal, identity
        self._due = time.monotonic() + JOURNAL_SECONDS

    @staticmethod
    def _noted(journal: Path, identity: str) -> dict[str, Any] | None:
        """Return the note about the unfinished rows, if they are of the same extraction."""
        try:
            note = read_json(journal)
        except CapscopeError:
            return None
        return note if isinstance(note, dict) and note.get("identity") == identity else None

    def append(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the rows of the next images; see `FieldWriter`."""
        super().append(arrays)
        if time.monotonic() >= self._due:
            self.note()

    def note(self) -> None:
        """Say in the journal how far this is."""
        self.sync()
        note = {"identity": self._identity, "done": self.done, "checksums": self.checksums}
        write_json(self._journal, note)
        self._due = time.monotonic() + JOURNAL_SECONDS


@contextmanager
def resume_fields(
    path: Path,
    ids: Sequence[int],
    fields: Mapping[str, Field],
    attributes: Mapping[str, Any],
    identity: str,
) -> Iterator[JournalledWriter]:
    """Yield a writer; the file appears when the block ends. As `create_fields`, but resumed.

    Parameters
    ----------
    identity : str
        Of what is written, and from what: unfinished rows of another one are thrown away.

    Raises
    ------
    CapscopeError
        As `create_fields`; another process writes the same file.
    """
    numbers = check_ids(path, ids)
    part, journal = (path.with_name(f".{path.name}.{end}") for end in ("unfinished", "journal"))
    with writing(path), one_writer(path):
        part.touch()
        check_room(path, numbers, fields, there=512 * part.stat().st_blocks)
        writer = JournalledWriter(part, journal, numbers, fields, attributes, identity)
        try:
            yield writer
            writer.sync()
        except BaseException:
            writer.note()
            raise
        finally:
            writer.close()
        writer.verify(part)
        discard(journal)
        part.chmod(0o644)
        part.replace(path)
