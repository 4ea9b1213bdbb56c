"""DIFNet: grid cells and segments in two flows that share their layers, then become one.

Source: Wu et al. 2022 ("DIFNet: Boosting visual information flow for image captioning").
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.base import BaseTransformer, Encoded
from capscope.models.layers.post_norm import Embedded
from capscope.relevance import operations as ops


class DIFNet(BaseTransformer):
    """The base transformer with a second flow of segments.

    The first `shared_layers` layers are applied `iterations` times to each of the two flows, by
    turns; the flows are added, go through the other layers, and are added once more at the end.

    Parameters
    ----------
    vocabulary_size, feature_size : int
        V and D.
    segment_size : int
        Classes S of the segments (B, N, S), which lie on the same cells.
    shared_layers, iterations : int
    options
        As those of `BaseTransformer`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        segment_size: int = 133,
        hidden: int = 512,
        layers: int = 3,
        dropout: float = 0.1,
        shared_layers: int = 1,
        iterations: int = 2,
        **options: Any,
    ) -> None:
        if not 0 < shared_layers < layers:
            raise CapscopeError(
                f"shared_layers is {shared_layers} of {layers} layers: at least one, fewer than "
                "all, because the flows are added before the last layers"
            )
        self.shared_layers, self.iterations = shared_layers, iterations
        super().__init__(
            vocabulary_size, feature_size, hidden, layers=layers, dropout=dropout, **options
        )
        self.segments = Embedded(segment_size, hidden, dropout)
        self.draw_matrices()

    def flows(self, layers: int) -> list[int]:
        """Return how many visual flows share each layer of the encoder."""
        return [2] * self.shared_layers + [1] * (layers - self.shared_layers)

    def project_segments(self, features: Features) -> Tensor:
        """Return the embedded segments (B, N, H)."""
        segments, size = features.segments, self.segments.linear.in_features
        if segments is None:
            raise CapscopeError(
                "difnet needs the segments of its images, and these features have none: make them "
                "with capscope features (segments_...), or take the captioner base"
            )
        if segments.shape[:2] != features.cells.shape[:2] or segments.shape[2] != size:
            raise CapscopeError(
                f"segments {tuple(segments.shape)} do not fit cells {tuple(features.cells.shape)}: "
                f"expected one row for each cell, of {size} classes"
            )
        embedded: Tensor = self.segments(segments)
        return embedded

    def encoded(self, latent: Tensor, features: Features) -> Encoded:
        """Run the encoder on the embedded cells (B, N, H), and on the segments of `features`."""
        second = self.project_segments(features)
        assert features.segments is not None
        valid = self.attended(features.cells, latent, features.valid)
        valid_second = self.attended(features.segments, second)
        weights = []
        for layer in self.encoder[: self.shared_layers]:
            for _ in range(self.iterations):
                latent, own = layer(latent, valid)
                second, other = layer(second, valid_second, 1)
                weights += [own, other]
        fused = ops.add(latent, second)
        for layer in self.encoder[self.shared_layers :]:
            fused, own = layer(fused, valid)
            weights.append(own)
        return Encoded(ops.add(fused, latent, second), valid, weights)
