"""How a row of a table came about, and all results as a research object that others can read.

The export is a Process Run Crate (https://w3id.org/ro/wfrun/process/0.5), a profile of RO-Crate
1.1: every product with what it was made from, by which software and with which parameters.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capscope.errors import CapscopeError
from capscope.files import write_json
from capscope.records import Record, Records
from capscope.subject import subject_of

if TYPE_CHECKING:
    from rocrate.rocrate import ROCrate

CRATE_FILE = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
PARAMS_FILE = "params.json"
"""Stands at the top of the results of a data set."""


def results_of(table: Path) -> Path:
    """Return ``results/<data set>``, in which a table is."""
    for folder in table.resolve().parents:
        if (folder / PARAMS_FILE).exists() or (folder / "data" / "manifest.json").exists():
            return folder
    raise CapscopeError(f"{table} is not below the results of a data set (results/NAME)")


def row_of(table: Path, number: int) -> dict[str, str]:
    """Return a row of a CSV table, counted from 1 below the header."""
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError as error:
        raise CapscopeError(f"{table} does not exist") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise CapscopeError(f"{table} is not a CSV table: {error}") from error
    if not 1 <= number <= len(rows):
        raise CapscopeError(f"{table} has {len(rows)} rows: there is no row {number}")
    return rows[number - 1]


def chain_of(table: Path, number: int) -> Iterator[tuple[int, str, Record | None]]:
    """Yield what a row of a table was made from, and what that was made from, to the data.

    Of the inputs of a table of several runs, those that the row is not of are left out.

    Yields
    ------
    depth : int
    name : str
        What the product was to the one above it.
    record : Record or None
        None: it is from elsewhere, or no longer here.
    """
    table = table.resolve()
    folder = results_of(table)
    row, records = row_of(table, number), Records(folder)
    products = [record.product for record in records.by_hash.values()]
    subject = subject_of(table.stem, row, folder.name, products)
    seen: set[str] = set()

    def follow(record: Record, depth: int) -> Iterator[tuple[int, str, Record | None]]:
        for name, sha256 in record.inputs.items():
            found = records.by_hash.get(sha256)
            if found is None:
                yield depth, f"{name} {sha256[:16]}", None
            elif subject.includes(found.product, record.product):
                yield depth, name, found
                if sha256 not in seen:
                    seen.add(sha256)
                    yield from follow(found, depth + 1)

    first = records.of(table)
    yield 0, "table", first
    yield from follow(first, 1)


def describe(record: Record, folder: Path) -> list[str]:
    """Return lines that say what a product is and what made it."""
    content = record.content
    lines = [f"{content.get('kind')}: {record.product.relative_to(folder.parent)}"]
    lines.append(f"sha256 of its manifest: {record.sha256}")
    lines.append("software: " + ", ".join(f"{k} {v}" for k, v in content["software"].items()))
    lines.append(f"parameters: {json.dumps(content['params'], ensure_ascii=False)}")
    return lines


def write_crate(folder: Path) -> Path:
    """Describe the results of a data set as a Process Run Crate, in ``ro-crate-metadata.json``.

    The results themselves stay where they are.
    """
    from rocrate.rocrate import ROCrate

    records = Records(folder)
    crate = ROCrate()
    crate.name = f"capscope: results on {folder.resolve().name}"
    crate.description = "Image captions, their explanations, and measures of both."
    newest = max(record.path.stat().st_mtime for record in records.by_hash.values())
    crate.datePublished = datetime.fromtimestamp(newest, UTC)
    crate.root_dataset["conformsTo"] = {"@id": PROFILE}
    products = {sha256: _product(crate, one, folder) for sha256, one in records.by_hash.items()}
    for sha256, record in records.by_hash.items():
        inputs = [products[one] for one in record.inputs.values() if one in products]
        _action(crate, record, products[sha256], inputs)
    path = folder / CRATE_FILE
    write_json(path, crate.metadata.generate())
    return path


def _product(crate: ROCrate, record: Record, folder: Path) -> Any:
    """Add a product, with its files, to a crate."""
    from rocrate.model.dataset import Dataset
    from rocrate.model.file import File

    parts = []
    for name, entry in record.content.get("files", {}).items():
        path = record.path.parent / name
        place = path.relative_to(folder).as_posix()
        facts = {"contentSize": str(entry["bytes"]), "sha256": entry["sha256"]}
        kind, end = (Dataset, "/") if path.is_dir() else (File, "")
        parts.append(crate.add(kind(crate, dest_path=place + end, properties=facts)))
    if record.product != record.path.parent:
        return parts[0]
    facts = {"name": record.content.get("kind"), "manifestSha256": record.sha256}
    place = f"{record.product.relative_to(folder).as_posix()}/"
    product = crate.add(Dataset(crate, dest_path=place, properties=facts))
    product["hasPart"] = parts
    return product


def _action(crate: ROCrate, record: Record, product: Any, inputs: list[Any]) -> None:
    """Add to a crate what made a product."""
    from rocrate.model.contextentity import ContextEntity

    software = record.content["software"]
    program = f"#capscope-{software['source']}"
    if crate.dereference(program) is None:
        version = f"{software['capscope']} ({software['source']})"
        needs = [f"{name} {number}" for name, number in software.items() if name != "capscope"]
        facts = {"@type": "SoftwareApplication", "name": "capscope", "version": version}
        crate.add(ContextEntity(crate, program, {**facts, "softwareRequirements": needs}))
    made = datetime.fromtimestamp(record.path.stat().st_mtime, UTC).isoformat()
    text = json.dumps(record.content["params"], ensure_ascii=False)
    facts = {
        "@type": "CreateAction",
        "name": f"make {record.content.get('kind')}",
        "endTime": made,
        "description": f"with the parameters {text}",
    }
    action = crate.add(ContextEntity(crate, f"#made-{record.sha256[:16]}", facts))
    action["instrument"] = crate.dereference(program)
    action["object"], action["result"] = inputs, [product]
