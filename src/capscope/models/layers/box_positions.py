"""Encodings of where visual features lie, from their boxes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.geometry import grid_marginals, grid_weights
from capscope.features.visual import Features
from capscope.models.layers.transformer import checked, sinusoids
from capscope.relevance import operations as ops

Kind = Literal["none", "fixed", "learned", "gxg", "g2", "box"]
KINDS = ("none", "fixed", "learned", "gxg", "g2", "box")


class BoxPositions(nn.Module):
    """Adds to each visual feature x where its box lies.

    A box is spread over a grid of `side` x `side` cells; r and c are the shares of its height in
    each row and of its width in each column, w the shares of its area in each cell
    (`capscope.features.geometry`).

    Parameters
    ----------
    kind : str
        none: x. fixed: x plus the sinusoids of its columns and rows, weighted by c and r. learned:
        x + W1 r + W2 c. gxg: W3 x + W1 r + W2 c, so that x is a linear image of itself. g2:
        x + W w. box: x plus two layers on x0, y0, x1, y1.
    size : int
        Channels H of x.
    side : int
        Rows and columns of the grid.
    mode : {"box", "cell"}
        Whether w are shares of the box, or covered shares of each cell, which keep its size; r and
        c are then the sums of w over columns and over rows.
    dropout : float
        On the sum.
    """

    def __init__(
        self,
        kind: Kind,
        size: int,
        side: int = 12,
        mode: Literal["box", "cell"] = "box",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checked("positions", kind, KINDS)
        checked("grid_mode", mode, ("box", "cell"))
        self.kind, self.side, self.mode = kind, side, mode
        self.dropout = nn.Dropout(0.0 if kind == "none" else dropout)
        self.rows: Tensor
        self.columns: Tensor
        if kind == "fixed":
            table = sinusoids(side, size)
            self.register_buffer("columns", table, persistent=False)
            # Rows have the cosines where columns have the sines, so that the two differ.
            swapped = table.view(side, -1, 2).flip(-1).flatten(1)
            self.register_buffer("rows", swapped, persistent=False)
        if kind in ("learned", "gxg"):
            self.row_layer, self.column_layer = nn.Linear(side, size), nn.Linear(side, size)
        if kind == "gxg":
            self.own_layer = nn.Linear(size, size)
        if kind == "g2":
            self.cell_layer = nn.Linear(side**2, size)
        if kind == "box":
            self.box_inner, self.box_outer = nn.Linear(4, size // 2), nn.Linear(size // 2, size)

    def forward(self, x: Tensor, features: Features) -> Tensor:
        """Return x (B, N, H) with the positions of the `features` it is of."""
        if self.kind == "none":
            return x
        if features.boxes is None:
            raise CapscopeError(
                f"positions: {self.kind} needs the boxes of the visual features, and these have "
                "none: take a feature store with boxes, or positions: none"
            )
        if self.kind == "gxg":
            x = ops.linear(self.own_layer, x)
        encoded: Tensor = self.dropout(ops.add(x, self.encoding(features.boxes.to(x.dtype))))
        return encoded

    def encoding(self, boxes: Tensor) -> Tensor:
        """Return what is added (B, N, H) for boxes (B, N, 4)."""
        if self.kind == "box":
            inner = torch.relu(ops.affine(boxes, self.box_inner.weight, self.box_inner.bias))
            return ops.affine(inner, self.box_outer.weight, self.box_outer.bias)
        if self.kind == "g2":
            cells = grid_weights(boxes, self.side, self.mode).to(boxes)
            return ops.affine(cells, self.cell_layer.weight, self.cell_layer.bias)
        rows, columns = self.marginals(boxes)
        if self.kind == "fixed":
            return columns @ self.columns + rows @ self.rows
        return ops.affine(rows, self.row_layer.weight, self.row_layer.bias) + ops.affine(
            columns, self.column_layer.weight, self.column_layer.bias
        )

    def marginals(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares (B, N, side) of each row and of each column."""
        if self.mode == "cell":
            cells = grid_weights(boxes, self.side, "cell").to(boxes)
            cells = cells.view(*cells.shape[:-1], self.side, self.side)
            return cells.sum(-1), cells.sum(-2)
        rows, columns = grid_marginals(boxes, self.side)
        return rows.to(boxes), columns.to(boxes)
