"""A captioner together with the network that makes its visual features: both can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.grid import GridExtractor
from capscope.features.store import grid_boxes
from capscope.features.visual import Features
from capscope.models.captioner import Captioner, Hidden, Memory, State, Step

BatchNorm = Literal["frozen", "train"]


class FromImages(Captioner):
    """Reads images: the ``cells`` of its features are preprocessed images (B, 3, S, S).

    Its rectifiers work in place.

    Parameters
    ----------
    captioner : Captioner
    extractor : GridExtractor
        Its network is trained from now on.
    batch_norm : {"frozen", "train"}
        Whether batch normalisation keeps its statistics in training, or takes those of each batch
        and follows them (published for the recurrent captioners).
    channels_last : bool
        The network computes with the channels of a pixel side by side, which takes a CPU a fifth
        less time, and rounds otherwise.
    """

    def __init__(
        self,
        captioner: Captioner,
        extractor: GridExtractor,
        batch_norm: BatchNorm = "frozen",
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if extractor.image_size is None:
            raise CapscopeError(
                "features.grid.image_size is native: images of different sizes are no batch; "
                "choose a size to fine-tune the network"
            )
        self.captioner, self.extractor, self.batch_norm = captioner, extractor, batch_norm
        self.vocabulary_size = captioner.vocabulary_size
        network = extractor.network.requires_grad_(True)
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=self._format)
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = True

    def train(self, mode: bool = True) -> FromImages:
        """Set the mode; statistics of batch normalisation stay as they are if frozen."""
        super().train(mode)
        if self.batch_norm == "frozen":
            self.extractor.network.eval()
        return self

    def look(self, features: Features) -> Features:
        """Return the visual features of images (B, 3, S, S)."""
        images = features.cells.contiguous(memory_format=self._format)
        cells = self.extractor(images)
        return Features(cells, grid_boxes(self.extractor.grid).expand(len(cells), -1, -1))

    def project(self, features: Features) -> Tensor:
        """Return the latent visual features (B, N, P)."""
        return self.captioner.project(self.look(features))

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return the captioner's memory."""
        boxes = grid_boxes(self.extractor.grid).expand(len(latent), -1, -1)
        return self.captioner.memory(latent, Features(latent, boxes))

    def encode(self, features: Features) -> Memory:
        """Return the memory of a batch of images."""
        return self.captioner.encode(self.look(features))

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the captioner's first state."""
        return self.captioner.start(memory, rows)

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Take one step of the captioner."""
        return self.captioner.step(word_ids, state, memory)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B, T) after images."""
        return self.captioner.hidden(self.look(features), word_ids)

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return the captioner's logits."""
        return self.captioner.readout(hidden, ids)


def split_weights(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the weights of a `FromImages` into those of its captioner and of its network."""
    parts: list[dict[str, Tensor]] = []
    for prefix in ("captioner.", "extractor.network."):
        own = {key: value for key, value in tensors.items() if key.startswith(prefix)}
        parts.append({key.removeprefix(prefix): value for key, value in own.items()})
    return parts[0], parts[1]


@torch.no_grad()
def pass_noise(network: nn.Module, size: int) -> None:
    """Let the statistics of batch normalisation see two images of noise, as published.

    The original finds out the number of channels by a forward pass in training mode.
    """
    training = network.training
    network.train()
    network(torch.randn(2, 3, size, size))
    network.train(training)
