"""Parameters: one file, named overlays, one schema."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from capscope.errors import CapscopeError

if TYPE_CHECKING:
    from jsonschema import ValidationError

Params = dict[str, Any]


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema of ``params.yaml``."""
    text = resources.files("capscope").joinpath("params.schema.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def load_params(
    paths: Sequence[Path], assignments: Iterable[str] = (), *, run: str | None = None
) -> Params:
    """Read parameter files (YAML, JSON) in order, later ones over earlier ones, then assignments.

    With `run`, as system/stage, ``explanations`` are those of that run; assignments come last. The
    keys come back in the order of `in_order`.

    Raises `CapscopeError` naming the file, or the key and what is allowed there.
    """
    merged: Params = {}
    for path in paths:
        try:
            text = path.read_text("utf-8")
            # YAML reads 5e-05, as JSON writes small numbers, as text.
            loaded = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        except OSError as error:
            raise CapscopeError(f"cannot read parameters {path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError, json.JSONDecodeError) as error:
            kind = "JSON" if path.suffix == ".json" else "YAML"
            raise CapscopeError(f"{path} is not valid {kind}: {error}") from error
        if not isinstance(loaded, dict):
            raise CapscopeError(f"{path} holds no parameters (expected a mapping)")
        merged = merge(merged, loaded)
    assigned = _assigned(assignments)
    merged = merge(merged, assigned)
    validate(merged)
    if run is not None:
        own = explanations_of(merged, run)
        merged["explanations"] = merge(own, assigned.get("explanations", {}))
    return in_order(merged)


def in_order(params: Mapping[str, Any]) -> Params:
    """Return parameters with the keys of all mappings sorted.

    They are written into results, whose bytes, and which jobs Snakemake runs again, must not
    depend on the order of keys in a file.
    """
    ordered: Params = json.loads(json.dumps(params, sort_keys=True))
    return ordered


def load_section(name: str, assignments: Iterable[str]) -> Params:
    """Read ``key=value`` for keys of one section, such as ``beam=5`` of ``decoding``.

    Raises `CapscopeError` naming the key and what is allowed there.
    """
    found = _assigned(assignments)
    section = {**schema()["properties"][name], "required": []}
    _check({name: found}, {"type": "object", "properties": {name: section}})
    return found


def _assigned(assignments: Iterable[str]) -> Params:
    """Return ``key.sub=value`` assignments as nested mappings, later ones over earlier ones."""
    merged: Params = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise CapscopeError(f"--set {assignment!r}: expected KEY=VALUE, such as seeds=[1,2]")
        try:
            nested: Any = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise CapscopeError(f"--set {assignment!r}: the value is not valid YAML") from error
        for part in reversed(key.split(".")):
            nested = {part: nested}
        merged = merge(merged, nested)
    return merged


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Params:
    """Lay `over` over `base`; mappings merge key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def validate(params: Mapping[str, Any]) -> None:
    """Check `params` against the schema; the error names every wrong key or value."""
    _check(params, schema())
    _report(_broken_chains(params["systems"]))
    _report(_unknown_systems(params))


def _check(values: Mapping[str, Any], rules: Mapping[str, Any]) -> None:
    import jsonschema

    validator = jsonschema.Draft202012Validator(rules)
    _report(line for error in validator.iter_errors(values) for line in _explain(error))


def _report(problems: Iterable[str]) -> None:
    """Raise all `problems` as one error, if there are any."""
    lines = sorted(set(problems))
    if lines:
        raise CapscopeError("wrong parameters:\n" + "\n".join(lines))


def run_systems(params: Mapping[str, Any]) -> Params:
    """Return the systems that are run, by name: those of ``run_systems`` that have stages."""
    chosen = params["run_systems"]
    return {
        name: settings
        for name, settings in params["systems"].items()
        if settings["stages"] and (chosen == "all" or name in chosen)
    }


def explanations_of(params: Mapping[str, Any], run: str) -> Params:
    """Return ``explanations`` as they are for one run, given as system/stage.

    A run that the parameters do not know, such as an imported one, has no settings of its own.
    """
    settings = params["explanations"]
    return {**merge(settings, (settings["runs"] or {}).get(run, {})), "runs": None}


def explained_splits(params: Mapping[str, Any], run: str = "") -> list[str]:
    """Return the splits whose captions are explained: those chosen of the ones that are captioned.

    All of these, if none of them is among the chosen.
    """
    splits: list[str] = params["dataset"]["evaluate"]
    chosen = explanations_of(params, run)["splits"] or splits
    return [split for split in splits if split in chosen] or splits


def _unknown_systems(params: Mapping[str, Any]) -> Iterator[str]:
    """Say which systems are to be run that there are not."""
    known = list(params["systems"])
    for name in params["run_systems"] if params["run_systems"] != "all" else []:
        if name not in known:
            yield f"  run_systems: {name!r} is none of the systems: {', '.join(known)}"


def _broken_chains(systems: Mapping[str, Any]) -> Iterator[str]:
    """Say which stages have no parameters, or lead back to themselves by their ``from``."""
    for name, settings in systems.items():
        for number, listed in enumerate(settings["stages"]):
            chain, key = [listed], f"stages.{number}"
            while chain[-1] in settings and chain.count(chain[-1]) == 1:
                key = f"{chain[-1]}.from"
                before = settings[chain[-1]].get("from")
                if before is None:
                    break
                chain.append(before)
            else:
                place = f"  systems.{name}.{key}: "
                if chain[-1] not in settings:
                    yield f"{place}the system has no section {chain[-1]!r}"
                else:
                    yield f"{place}a circle: {' <- '.join(chain)}; one stage must start anew (xe)"


def _explain(error: ValidationError) -> Iterator[str]:
    """Say in one line each what is wrong where, and what the schema has to say about it."""
    place = [str(part) for part in error.absolute_path]
    rule: Any = error.schema
    value: Any = error.instance
    if error.validator == "additionalProperties":
        known = list(rule["properties"])
        for key in map(str, value):
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                yield f"  {'.'.join([*place, key])}: unknown key; {hint}"
        return
    text = error.message
    if isinstance(value, str) and rule.get("type") == "number":
        text += " (YAML reads 1e-3 as text: write 1.0e-3)"
    if "description" in rule:
        text += f". {rule['description']}"
    yield f"  {'.'.join(place) or '(top)'}: {text}"


def expand_path(text: str) -> Path:
    """Expand ``~`` and ``${NAME}`` or ``${NAME:-default}`` in a path parameter."""

    def replace(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        value = os.environ.get(name, default)
        if value is None:
            raise CapscopeError(f"path {text!r}: set the environment variable {name}")
        return value

    return Path(re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", replace, text)).expanduser()
