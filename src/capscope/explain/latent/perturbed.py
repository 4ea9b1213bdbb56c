"""What a captioner says of one image when visual features are perturbed: many at once.

The image is projected once. All perturbations go through the decoder as one batch, in chunks that
fit into a limit of memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from capscope.decoding.beam import Beams
from capscope.decoding.hypothesis import searching
from capscope.explain.latent.replacement import Replacement
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Memory, State, select_rows

MEMORY = 1 << 29
"""Bytes that the tensors of one chunk may take, by default."""
LARGEST_CHUNK = 256
"""Perturbations of one chunk at most: beyond, nothing gets faster."""


class Spoken(NamedTuple):
    """What perturbed searches found."""

    captions: list[tuple[int, ...]]
    """The best caption of each perturbation, without start and end."""
    log_probs: Tensor
    """(n, V) the largest log-probability of each word over all steps and live beams."""


class Perturbed:
    """One image, of which visual features can be perturbed.

    Latent features are replaced behind the projection. What a captioner reads of the unprojected
    features besides (a global feature, self-attention over them) is replaced in the same places by
    `cells`, so that nothing of a perturbed feature is left.

    Parameters
    ----------
    captioner : Captioner
        In evaluation mode.
    features : Features
        Of one image.
    latent : Replacement
        For the latent features.
    cells : Replacement or None
        For the unprojected features; None leaves them as they are.
    memory_limit : int
        Bytes of one chunk.
    """

    def __init__(
        self,
        captioner: Captioner,
        features: Features,
        latent: Replacement,
        cells: Replacement | None = None,
        memory_limit: int = MEMORY,
    ) -> None:
        self.captioner, self.features = captioner, features
        self.replace_latent, self.replace_cells = latent, cells
        self.memory_limit = memory_limit
        with torch.no_grad():
            self.projected = captioner.project(features)

    def rows_at_once(self, beam: int = 1) -> int:
        """Return how many perturbations one chunk holds."""
        numbers = 3 * self.projected[0].numel() + 3 * beam * self.captioner.vocabulary_size
        if self.replace_cells is not None:
            numbers += 2 * self.features.cells[0].numel()
        return max(1, min(LARGEST_CHUNK, self.memory_limit // (4 * numbers)))

    def memories(self, masks: Tensor, beam: int = 1) -> Iterator[tuple[slice, Memory]]:
        """Yield rows of `masks` (n, N) and the memory of the image with these perturbations."""
        size = self.rows_at_once(beam)
        for first in range(0, len(masks), size):
            rows = slice(first, min(first + size, len(masks)))
            chosen = masks[rows]
            own = self.features.select(torch.zeros(len(chosen), dtype=torch.long))
            if self.replace_cells is not None:
                own = own._replace(cells=self.replace_cells(own.cells, chosen))
            latent = self.replace_latent(self.projected.expand(len(chosen), -1, -1), chosen)
            yield rows, self.captioner.memory(latent, own)

    def word_log_probs(self, masks: Tensor, word_ids: Tensor) -> Tensor:
        """Return log-probabilities (n, T) of the words of a given caption.

        Parameters
        ----------
        masks : Tensor (n, N) bool
        word_ids : Tensor (T + 1,)
            The caption with the start token.
        """
        found = self.projected.new_empty(len(masks), len(word_ids) - 1)
        with searching(self.captioner):
            for rows, memory in self.memories(masks):
                count = rows.stop - rows.start
                state = self.captioner.start(memory, 1)
                for t, (fed, asked) in enumerate(
                    zip(word_ids[:-1].tolist(), word_ids[1:].tolist(), strict=True)
                ):
                    given = torch.full((count, 1), fed, device=found.device)
                    step = self.captioner.step(given, state, memory)
                    state = step.state
                    found[rows, t] = step.log_probs[:, 0, asked]
        return found

    def search(
        self,
        masks: Tensor,
        *,
        start: int,
        end: int,
        beam: int = 3,
        steps: int = 20,
        word_ids: Sequence[int] | None = None,
    ) -> Spoken:
        """Search a caption for each perturbation, as published: the beam shrinks, nothing is cut.

        Parameters
        ----------
        masks : Tensor (n, N) bool
        start, end : int
        beam, steps : int
            A caption that never ends is its first ``steps - 1`` words.
        word_ids : sequence of int, optional
            Words whose log-probabilities are kept: `Spoken.log_probs` is (n, len(word_ids)).
        """
        found = []
        with searching(self.captioner):
            for _, memory in self.memories(masks, beam):
                found.append(
                    _search(self.captioner, memory, start, end, beam, steps, word_ids),
                )
        return Spoken(
            [caption for one in found for caption in one.captions],
            torch.cat([one.log_probs for one in found]),
        )


def _search(
    captioner: Captioner,
    memory: Memory,
    start: int,
    end: int,
    beam: int,
    steps: int,
    word_ids: Sequence[int] | None,
) -> Spoken:
    state = captioner.start(memory, beam)
    like = next(tensor for tensor in state.values() if tensor.is_floating_point())
    batch = len(like)
    beams = Beams(batch, beam, steps, end=end, shrink=True, like=like)
    fed = torch.full((batch, beam), start)
    images, active = torch.arange(batch), torch.ones(batch, dtype=torch.bool)
    kept = slice(None) if word_ids is None else torch.tensor(list(word_ids))
    size = captioner.vocabulary_size if word_ids is None else len(word_ids)
    largest = like.new_full((batch, size), -torch.inf)
    captions: dict[int, tuple[int, ...]] = {}
    for t in range(steps):
        step = captioner.step(fed, state, memory)
        live = (beams.scores > -torch.inf) & active.unsqueeze(1)
        seen = step.log_probs[..., kept].masked_fill(~live.unsqueeze(-1), -torch.inf).amax(1)
        largest[images] = torch.maximum(largest[images], seen)
        state = select_rows(step.state, beams.advance(step.log_probs, active))
        active = beams.alive()
        if t + 1 == steps or not bool(active.any()):
            break
        if 2 * int(active.sum()) <= len(images):
            captions |= _collect(beams, images, ~active, steps)
            images = images[active]
            memory, state = _pick(memory, active), _pick(state, active)
            beams.select(active)
            active = active[active]
        fed = beams.last_words()
    captions |= _collect(beams, images, torch.ones_like(active), steps)
    return Spoken([captions[image] for image in range(batch)], largest)


def _pick(tensors: Memory | State, rows: Tensor) -> dict[str, Tensor]:
    return {name: tensor[rows] for name, tensor in tensors.items()}


def _collect(beams: Beams, images: Tensor, which: Tensor, steps: int) -> dict[int, tuple[int, ...]]:
    completed = beams.hypotheses()
    return {
        image: (completed[place] or [beams.unfinished(place, steps - 1)])[0].word_ids
        for place, image in enumerate(images.tolist())
        if which[place]
    }
