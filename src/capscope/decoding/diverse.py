"""Diverse beam search: several captions of an image that differ (Vijayakumar et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from capscope.decoding.beam import Beams, LengthPenalty, only
from capscope.decoding.hypothesis import Hypothesis, searching
from capscope.decoding.sampling import forbid
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, State, select_rows

PENALISED_GROUPS = 2
"""Published: only the first two groups' words are penalised in later groups."""
CUT = 20
"""Published: a caption that never ended is cut to this many ids, the start among them."""


def diverse_beam_search(
    captioner: Captioner,
    features: Features,
    *,
    start: int,
    end: int,
    groups: int,
    beam: int,
    max_length: int,
    penalty: float = 0.5,
    length_normalisation: float = 0.0,
    length_penalty: LengthPenalty = "power",
    forbidden: Sequence[int] = (),
    parity: bool = False,
) -> list[list[Hypothesis]]:
    """Run `groups` beam searches side by side that are pushed away from each other.

    At each step, group g ranks a word lower by `penalty` for every live hypothesis of the groups
    before it that says the word at the same step (Hamming diversity; the paper's equation 5).
    The penalty decides the ranking of the step; scores stay sums of log-probabilities.

    With `parity` the published program's rules hold instead: what is penalised are the words that
    groups 0 and 1 were *fed* with, once each, and the penalty enters the score; beams shrink; when
    a group finishes, the groups after it sit the step out;
    a group without a completed caption returns the first live one of group 0, cut to 20 ids.

    Returns
    -------
    list of list of Hypothesis
        For each image the best caption of each group, in the order of the groups.
    """
    steps = max_length if parity else max_length + 1
    with searching(captioner):
        memory = captioner.encode(features)
        batch, device = features.cells.shape[0], features.cells.device
        searches = [
            Beams(
                batch,
                beam,
                steps,
                end=end,
                length_normalisation=length_normalisation,
                length_penalty=length_penalty,
                shrink=parity,
                like=features.cells,
            )
            for _ in range(groups)
        ]
        state = captioner.start(memory, groups * beam)
        fed = torch.full((batch, groups, beam), start, device=device)
        for t in range(steps):
            step = captioner.step(fed.flatten(1), state, memory)
            log_probs = forbid(step.log_probs, forbidden)
            if t == max_length:
                log_probs = only(log_probs, end)
            by_group = log_probs.view(batch, groups, beam, -1)
            advance = _advance_published if parity else _advance
            moved, rows = advance(searches, by_group, fed, penalty)
            state = _held(moved.repeat_interleave(beam, 1), select_rows(step.state, rows), state)
            if not any(bool(search.improvable().any()) for search in searches):
                break
            fed = torch.where(
                moved.unsqueeze(-1), torch.stack([s.last_words() for s in searches], 1), fed
            )
        cut = searches[0]
        best = [search.hypotheses() for search in searches]
        return [
            [(group[image] or [cut.unfinished(image, CUT - 1)])[0] for group in best]
            for image in range(batch)
        ]


def _held(moved: Tensor, new: State, old: State) -> State:
    """Return the new state of the rows that `moved` (B, K), and the old one of the others.

    What a captioner keeps of each word, (B, K, S, ...), has grown: old rows get zeros.
    """
    held = {}
    for name, tensor in new.items():
        before = old[name]
        if before.dim() > 2 and before.shape[2] < tensor.shape[2]:
            missing = tensor.shape[2] - before.shape[2]
            before = torch.cat([before, torch.zeros_like(tensor[:, :, :missing])], 2)
        held[name] = torch.where(
            moved.view(*moved.shape, *[1] * (tensor.dim() - 2)), tensor, before
        )
    return held


def _advance(
    searches: list[Beams], log_probs: Tensor, fed: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """Advance all groups (B, G, K, V); return who moved (B, G) and the rows (B, G K)."""
    batch, _, beam, vocabulary = log_probs.shape
    said = log_probs.new_zeros(batch, vocabulary)
    moved, rows = [], []
    for g, search in enumerate(searches):
        active = search.alive()
        parents = search.advance(log_probs[:, g], active, penalty * said)
        live = (search.scores > -torch.inf).to(said.dtype) * active.unsqueeze(1)
        said = said.scatter_add(1, search.last_words(), live)
        moved.append(active)
        rows.append(parents + g * beam)
    return torch.stack(moved, 1), torch.cat(rows, 1)


def _advance_published(
    searches: list[Beams], log_probs: Tensor, fed: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """Advance all groups by the published rules."""
    batch, _, beam, vocabulary = log_probs.shape
    previous = log_probs.new_zeros(batch, vocabulary)
    skip = torch.zeros(batch, dtype=torch.bool, device=log_probs.device)
    moved, rows = [], []
    for g, search in enumerate(searches):
        live = search.scores > -torch.inf
        active = live.any(-1) & ~skip
        lowered = log_probs[:, g] - penalty * previous.unsqueeze(1)
        parents = search.advance(lowered, active)
        if g < PENALISED_GROUPS:
            spoken = (live & active.unsqueeze(1)).to(previous.dtype)
            previous = previous.scatter_reduce(1, fed[:, g], spoken, "amax")
        skip = skip | (active & ~search.alive())
        moved.append(active)
        rows.append(parents + g * beam)
    return torch.stack(moved, 1), torch.cat(rows, 1)
