"""The reference of parameters: every key of the schema, with what `params.yaml` has for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from imports import SOURCE

from capscope.params import schema

NAMED = "<name>"
"""Stands for keys that a user names."""


def parameter_page() -> str:
    """Return the text of the page."""
    given = yaml.safe_load((SOURCE.parents[1] / "params.yaml").read_text("utf-8"))
    lines = ["Parameters", "==========", "", INTRODUCTION]
    for section, rule in schema()["properties"].items():
        lines += [section, "-" * len(section), "", _plain(rule.get("description", "")), ""]
        lines += [".. list-table::", "   :header-rows: 1", "   :widths: 30 15 15 40", ""]
        lines += _row("key", "value", "default", "")
        for key, leaf, default in _leaves(rule, given.get(section), section):
            lines += _row(
                f"``{key}``", _allowed(leaf), default, _plain(leaf.get("description", ""))
            )
        lines.append("")
    return "\n".join(lines)


INTRODUCTION = """\
All keys of ``params.yaml``, from the schema that checks them. A default is what ``params.yaml``
has; keys of a system that it leaves out may be left out. ``systems.<name>`` is the first system
there.
"""


def _leaves(rule: Mapping[str, Any], given: Any, key: str) -> Iterator[tuple[str, Any, str]]:
    own = given if isinstance(given, Mapping) else {}
    if isinstance(rule.get("additionalProperties"), Mapping):
        first = next(iter(own.values()), None)
        yield from _leaves(rule["additionalProperties"], first, f"{key}.{NAMED}")
    elif "properties" in rule:
        for name, inner in rule["properties"].items():
            yield from _leaves(inner, own.get(name), f"{key}.{name}")
    else:
        left_out = given is None and "null" not in str(rule)
        yield key, rule, "" if left_out else f"``{json.dumps(given)}``"


def _allowed(rule: Mapping[str, Any]) -> str:
    if "enum" in rule:
        return ", ".join(f"``{json.dumps(value)}``" for value in rule["enum"])
    kind = rule.get("type", "")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    found = [f"{sign} {rule[name]}" for name, sign in limits.items() if name in rule]
    return f"{text} {', '.join(found)}".strip()


def _plain(text: str) -> str:
    """Return text that reStructuredText leaves as it is, but for code in backticks."""
    return re.sub(r"([\\*_|])", r"\\\1", text)


def _row(*cells: str) -> list[str]:
    first, *others = ("     - " + " ".join(cell.split()) for cell in cells)
    return ["   * - " + first.removeprefix("     - "), *others]
