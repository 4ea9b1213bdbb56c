"""The object relation transformer: encoder attention knows where regions lie to each other.

Source: Herdade, Kappeler, Boakye, Soares 2019, "Image captioning: transforming objects into words"
(arXiv 1906.05963), section 3.2; the geometry is that of Hu et al. 2018, "Relation networks".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.geometry import relation_deltas, relation_features
from capscope.features.visual import Features
from capscope.models.layers.transformer import Activation, Norm
from capscope.models.spatial import SpatialTransformer

WAVES = 64
"""Sines and cosines of the four numbers that say how two boxes lie to each other."""
LEAST = 1e-6


class ObjectRelationTransformer(SpatialTransformer):
    """A transformer whose encoder adds ln(max(relu(W g), 1e-6)) to its scores.

    g are the sines and cosines of how two boxes lie to each other; every head of every layer has
    a W of its own.

    Parameters
    ----------
    vocabulary_size, feature_size, hidden, heads, feed_forward, layers, norm, activation, dropout
        As of `SpatialTransformer`.
    trigonometric : bool
        False takes the four numbers themselves as g.
    parity : bool
        As published: 1 is added to the sides of boxes, though they are relative to the image.
    """

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        hidden: int = 512,
        heads: int = 8,
        feed_forward: int = 2048,
        layers: int = 6,
        norm: Norm = "layer",
        activation: Activation = "relu",
        dropout: float = 0.1,
        trigonometric: bool = True,
        parity: bool = False,
    ) -> None:
        super().__init__(
            vocabulary_size,
            feature_size,
            hidden,
            heads,
            feed_forward,
            layers,
            positions="none",
            cross="dot_product",
            norm=norm,
            activation=activation,
            dropout=dropout,
        )
        self.trigonometric, self.parity = trigonometric, parity
        size = WAVES if trigonometric else 4
        self.geometry = nn.ModuleList(nn.Linear(size, heads) for _ in range(layers))
        for parameter in self.geometry.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def relations(self, features: Features) -> list[Tensor]:
        """Return what is added to the scores of each encoder layer, (B, N, heads, N)."""
        if features.boxes is None:
            raise CapscopeError(
                "object_relation needs the boxes of the visual features, and these have none: take "
                "a feature store with boxes, or the captioner spatial with positions: none"
            )
        boxes = features.boxes.to(features.cells.dtype)
        if self.trigonometric:
            related = relation_features(boxes, WAVES, self.parity)
        else:
            related = relation_deltas(boxes, self.parity)
        scored = (layer(related).transpose(2, 3) for layer in self.geometry)
        return [torch.relu(scores).clamp(min=LEAST).log() for scores in scored]
