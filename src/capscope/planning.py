"""An estimate of what a workflow takes, from rates that were measured step by step.

Nothing is scaled from one machine or one size to another: a step whose rate has not been measured
on the device, at the sizes of the data set's parameters, is listed without hours.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from capscope.errors import CapscopeError
from capscope.params import explained_splits, explanations_of, run_systems

RATES_FILE = "rates.csv"
COLUMNS = ("device", "dataset", "system", "step", "unit", "rate", "memory_mb", "numbers", "command")
IMAGES = {
    "coco2014": {"train": 113287, "val": 5000, "test": 5000},
    "flickr30k": {"train": 29000, "val": 1014, "test": 1000},
}
"""Images of the splits that Karpathy published."""
REFERENCES = 5
"""References of an image, in all these data sets."""
WORDS = 10
"""Words of a caption, about."""
RECORD = 500
"""Bytes of a generated caption with its word ids and log-probabilities, about."""
BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class Rate:
    """One measured rate.

    Attributes
    ----------
    unit : str
        What it counts a second.
    rate : float
    memory_mb : int
        Most memory that the program had by then: of the GPU, or of the process on a CPU.
    numbers : int
        How many numbers are stored: of an image's features, of a captioner's weights, or (step
        relevance) of a word's maps.
    """

    unit: str
    rate: float
    memory_mb: int
    numbers: int


@dataclass(frozen=True)
class Step:
    """A line of the plan: what all jobs of a step take together.

    Attributes
    ----------
    system, step, unit : str
    items : int
        Images or captions that go through the step.
    jobs : int
        Into which the workflow divides it.
    hours, memory_gb : float or None
        On one device; of one job. None where the rate has not been measured.
    disk_gb : float or None
    """

    system: str
    step: str
    items: int
    unit: str
    jobs: int
    hours: float | None
    memory_gb: float | None
    disk_gb: float | None


def read_rates(path: Path | None = None) -> dict[tuple[str, str, str, str], Rate]:
    """Read measured rates by device, data set, system and step.

    Parameters
    ----------
    path : Path or None
        A table as ``benchmarks/rates.py`` prints it; None is that of the package.

    Raises
    ------
    CapscopeError
        The file is not such a table.
    """
    if path is None:
        text = resources.files("capscope").joinpath(RATES_FILE).read_text("utf-8")
    else:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CapscopeError(f"cannot read rates {path}: {error}") from error
    reader = csv.DictReader(text.splitlines())
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise CapscopeError(f"{path}: expected the columns {', '.join(COLUMNS)}")
    found = {}
    for number, line in enumerate(reader, 2):
        try:
            numbers = int(line["memory_mb"]), int(line["numbers"])
            rate = Rate(line["unit"], float(line["rate"]), *numbers)
        except (TypeError, ValueError) as error:
            raise CapscopeError(f"{path}: line {number}: {error}") from error
        found[line["device"], line["dataset"], line["system"], line["step"]] = rate
    return found


def plan(
    params: Mapping[str, Any],
    rates: Mapping[tuple[str, str, str, str], Rate],
    device: str,
    images: Mapping[str, int],
    scatter: Mapping[str, int] | None = None,
) -> list[Step]:
    """Estimate every step of a workflow.

    Parameters
    ----------
    params : mapping
    rates : mapping
        As `read_rates` returns them.
    device : str
        One that they were measured on.
    images : mapping
        Images of each split.
    scatter : mapping, optional
        Into how many jobs each of extract, decode and relevance is divided; 1 if not given.

    Raises
    ------
    CapscopeError
        No rate was measured on `device`, or a split has no number of images.
    """
    known = sorted({key[0] for key in rates})
    if device not in known:
        raise CapscopeError(f"no rates of the device {device!r}; there are: {', '.join(known)}")
    for split in ("train", "val", *params["dataset"]["evaluate"]):
        if split not in images:
            raise CapscopeError(f"how many images has the split {split!r}? Give --images {split}=N")
    steps: list[Step] = []
    seen: set[str] = set()
    for system, settings in run_systems(params).items():
        estimate = _Estimate(params, rates, device, images, system, scatter or {})
        if settings["features"] not in seen:
            seen.add(settings["features"])
            steps.append(estimate.features(settings["features"]))
        steps += estimate.runs()
    return steps


@dataclass(frozen=True)
class _Estimate:
    """The steps of one system."""

    params: Mapping[str, Any]
    rates: Mapping[tuple[str, str, str, str], Rate]
    device: str
    images: Mapping[str, int]
    system: str
    scatter: Mapping[str, int]

    def features(self, kind: str) -> Step:
        """Return the extraction, whose store all systems on these features share."""
        items, rate = sum(self.images.values()), self._rate("features")
        size = BYTES[self.params["features"][kind]["dtype"]]
        disk = items * rate.numbers * size / 1e9 if rate else None
        return self._step("features", items, "image", self.scatter.get("extract", 1), disk)

    def runs(self) -> Iterator[Step]:
        """Return training, decoding and explaining of all runs."""
        params, seeds = self.params, len(self.params["seeds"])
        settings = params["systems"][self.system]
        for stage in _trained(settings):
            yield self._training(stage, settings[stage], seeds)
        runs, splits = len(settings["stages"]) * seeds, params["dataset"]["evaluate"]
        items = runs * sum(self.images[split] for split in splits)
        disk = items * RECORD / 1e9
        jobs = runs * len(splits) * self.scatter.get("decode", 1)
        yield self._step("decode", items, "image", jobs, disk)
        jobs = captions = 0
        for stage in settings["stages"]:
            run = f"{self.system}/{stage}"
            own, splits = explanations_of(params, run), explained_splits(params, run)
            images = sum(min(own["images"], self.images[split]) for split in splits)
            jobs += seeds * len(splits)
            captions += seeds * images * len([*own["explainers"], *own["controls"]])
        rate = self._rate("relevance")
        maps = captions * WORDS * rate.numbers * BYTES["float16"] / 1e9 if rate else None
        yield self._step(
            "relevance", captions, "caption", jobs * self.scatter.get("relevance", 1), maps
        )

    def _training(self, stage: str, recipe: Mapping[str, Any], seeds: int) -> Step:
        by_image = stage.endswith("scst")
        a_pass = self.images["train"] * (1 if by_image else REFERENCES)
        steps = recipe["epoch_steps"]
        items = recipe["epochs"] * (a_pass if steps is None else steps * recipe["batch_size"])
        rate, decoding = self._rate(stage), self._rate("decode")
        validated = min(recipe["validation_images"], self.images["val"])
        hours = disk = None
        if rate and decoding:
            validation = recipe["epochs"] * validated / decoding.rate
            hours = seeds * (items / rate.rate + validation) / 3600
            disk = seeds * 2 * rate.numbers * BYTES["float32"] / 1e9
        unit = "image" if by_image else "caption"
        memory = rate.memory_mb / 1000 if rate else None
        return Step(self.system, stage, seeds * items, unit, seeds, hours, memory, disk)

    def _step(self, name: str, items: int, unit: str, jobs: int, disk: float | None) -> Step:
        rate = self._rate(name)
        hours = items / rate.rate / 3600 if rate else None
        memory = rate.memory_mb / 1000 if rate else None
        return Step(self.system, name, items, unit, jobs, hours, memory, disk)

    def _rate(self, step: str) -> Rate | None:
        return self.rates.get((self.device, self.params["dataset"]["name"], self.system, step))


def _trained(settings: Mapping[str, Any]) -> list[str]:
    """Return the stages that are trained: those listed, and those that they start from."""
    found: list[str] = []
    for stage in settings["stages"]:
        chain = [stage]
        while (before := settings[chain[-1]].get("from")) is not None:
            chain.append(before)
        found += [one for one in reversed(chain) if one not in found]
    return found


def as_text(steps: Sequence[Step], device: str, processes: int) -> str:
    """Render a plan as a Markdown table, marked as an estimate."""
    lines = [
        f"Estimate for one {device}, from measured rates; - is not measured.",
        "",
        "| system | step | items | jobs | hours | memory, GB | disk, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for step in steps:
        items = f"{step.items:,} {step.unit}s"
        numbers = (_number(value) for value in (step.hours, step.memory_gb, step.disk_gb))
        cells = (step.system, step.step, items, str(step.jobs), *numbers)
        lines.append(f"| {' | '.join(cells)} |")
    hours = sum(step.hours for step in steps if step.hours is not None)
    disk = sum(step.disk_gb for step in steps if step.disk_gb is not None)
    missing = sum(step.hours is None for step in steps)
    least = "at least " if missing else ""
    lines += ["", f"In all {least}{hours:,.1f} hours of the device, and {disk:,.1f} GB."]
    if device != "cpu":
        lines.append(
            "Explaining and its benchmarks compute on processors: they have rates of a cpu."
        )
    if processes > 1:
        lines.append(f"At best, {processes} processes divide the hours of a training among them.")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"
