"""What a training needs to go on to the bit after it was killed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from capscope.errors import CapscopeError
from capscope.models.captioner import Captioner
from capscope.tensors import fit, read_metadata, read_tensors, write_tensors
from capscope.training.schedules import Schedule

STATE_FILE = "state.safetensors"
BEST_FILE = "best-epoch{}.safetensors"


@dataclass
class Progress:
    """Where a training is. Random numbers need no record: each step seeds its own.

    Attributes
    ----------
    key : str
        Hash of everything that the result depends on; another key is another training.
    epoch, batch, step : int
        Epochs done, batches done of the present one, steps done in all.
    sums, weight : dict of str to float, int
        Of the present epoch: each measure (the loss among them) times the weight of its batch,
        and the weights (words, captions).
    schedule : Schedule
    best_epoch, waited : int or None, int
        Epoch of the best validation score (0: the weights that a fine-tuning started from);
        epochs since.
    best_score, last_score : float or None
        The best and the latest validation score.
    rows, history : list of dict
        Lines of ``metrics.csv`` (of epochs) and of ``history.csv`` (of single steps) so far.
    """

    key: str
    schedule: Schedule
    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    weight: int = 0
    best_epoch: int | None = None
    best_score: float | None = None
    last_score: float | None = None
    waited: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def save_state(
    folder: Path, captioner: Captioner, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write weights, optimiser and progress as one file, atomically."""
    tensors = {f"model.{name}": tensor for name, tensor in captioner.state_dict().items()}
    for number, entry in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": tensor for name, tensor in entry.items()}
    write_tensors(folder / STATE_FILE, tensors, {"progress": json.dumps(asdict(progress))})


def load_state(
    folder: Path, captioner: Captioner, optimiser: torch.optim.Optimizer, key: str
) -> Progress | None:
    """Put a saved state back; None if there is none.

    Raises
    ------
    CapscopeError
        The state belongs to other parameters or data, or the file is damaged.
    """
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        tensors = read_tensors(path)
    except CapscopeError as error:
        raise CapscopeError(f"{error}; delete {folder} to train from the start") from error
    loaded = json.loads(read_metadata(path)["progress"])
    if loaded["key"] != key:
        raise CapscopeError(
            f"{folder} holds an unfinished training with other parameters or data; "
            f"delete {folder} to train from the start, or restore what it was started with"
        )
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    fit(captioner, weights, path)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, number, *rest = name.split(".")
        if kind == "optimiser":
            state.setdefault(int(number), {})[".".join(rest)] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    for parameter, entry in optimiser.state.items():
        for name, tensor in entry.items():  # fused steps need the layout of the parameter
            if tensor.shape == parameter.shape:
                entry[name] = torch.empty_like(parameter).copy_(tensor)
    return Progress(**{**loaded, "schedule": Schedule(**loaded["schedule"])})


def save_best(folder: Path, captioner: Captioner, epoch: int) -> None:
    """Keep the weights of the best epoch so far; older ones stay until `discard_older`."""
    write_tensors(folder / BEST_FILE.format(epoch), captioner.state_dict())


def discard_older(folder: Path, epoch: int) -> None:
    """Delete the best weights of other epochs, once the saved state names `epoch`."""
    for path in folder.glob(BEST_FILE.format("*")):
        if path.name != BEST_FILE.format(epoch):
            path.unlink()
