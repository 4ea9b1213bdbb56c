"""Imports a TSV with little memory beyond what the program itself takes: run as a script.

python import_in_little_memory.py TSV DATA OUT BYTES
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from published_features import import_params

from capscope.features.importing.write import import_features


def data_bytes() -> int:
    """Return the size of this process's data, as the limit counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmData")).split()[1])


def main(tsv: str, data: str, out: str, more: str) -> None:
    """Import `tsv` with `more` bytes of memory."""
    limit = data_bytes() + int(more)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    import_features([("tsv", Path(tsv))], Path(data), import_params(), Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
