"""The base transformer of DIFNet: grid cells alone, with an additional residual sum.

Source: Wu et al. 2022 ("DIFNet: Boosting visual information flow for image captioning").
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from capscope.errors import CapscopeError
from capscope.features.visual import Features
from capscope.models.captioner import (
    Captioner,
    Hidden,
    Memory,
    State,
    Step,
)
from capscope.models.layers.cache import Decoded, Past, hidden_of, nothing_read, pasts, state_after
from capscope.models.layers.post_norm import Embedded, FlowLayer, WordLayer
from capscope.models.layers.transformer import Sizes, earlier, sinusoids
from capscope.relevance import operations as ops


class Encoded(NamedTuple):
    """What the encoder makes of B images."""

    values: Tensor
    """(B, N, H)."""
    valid: Tensor
    """(B, N) bool: which cells are attended to."""
    weights: list[Tensor]
    """(B, N, heads, N) of each use of a layer."""


class BaseTransformer(Captioner):
    """A transformer on grid cells, with attention that adds its input twice.

    Keys and values of the cells are projected once for each image and kept in the memory; the
    state keeps those of the words. `hidden` takes K captions of each image, too: word ids
    (B K, T), the K of an image one after the other. The same weights serve plain use and LRP.

    Parameters
    ----------
    vocabulary_size, feature_size : int
        V and D.
    hidden, heads, feed_forward, layers : int
        H, its heads, inner size of the feed-forward networks, layers of encoder and of decoder.
    dropout : float
        On attention weights, inner layers and sums, in training.
    longest : int
        Words that positions tell apart.
    padding : int
        Word id that is no word.
    parity : bool
        As published: word vectors, positions and the vector of padding are drawn like all matrices
        (the last two stay as they are), and a cell is hidden where its embedding sums to exactly 0.
        By default word vectors are normal, positions are sinusoids, and cells that are all zeros
        are hidden.
    """

    folds = True

    def __init__(
        self,
        vocabulary_size: int,
        feature_size: int,
        hidden: int = 512,
        heads: int = 8,
        feed_forward: int = 2048,
        layers: int = 3,
        dropout: float = 0.1,
        longest: int = 54,
        padding: int = 0,
        parity: bool = False,
    ) -> None:
        super().__init__()
        self.vocabulary_size, self.hidden_size = vocabulary_size, hidden
        self.longest, self.padding, self.parity = longest, padding, parity
        sizes = Sizes(hidden, heads, feed_forward, dropout)
        self.image = Embedded(feature_size, hidden, dropout)
        self.encoder = nn.ModuleList(FlowLayer(sizes, n) for n in self.flows(layers))
        self.embedding = nn.Embedding(vocabulary_size, hidden, padding_idx=padding)
        self.decoder = nn.ModuleList(WordLayer(sizes) for _ in range(layers))
        self.words = nn.Linear(hidden, vocabulary_size, bias=False)
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(longest + 1, hidden))
        self.draw_matrices()

    @property
    def flow_layers(self) -> list[FlowLayer]:
        """The layers of the encoder."""
        return cast("list[FlowLayer]", list(self.encoder))

    @property
    def word_layers(self) -> list[WordLayer]:
        """The layers of the decoder."""
        return cast("list[WordLayer]", list(self.decoder))

    def flows(self, layers: int) -> list[int]:
        """Return how many visual flows share each layer of the encoder."""
        return [1] * layers

    def draw_matrices(self) -> None:
        """Draw all matrices anew (Glorot and Bengio 2010), but for word vectors.

        Those are normal: of a size with their positions, beside which Glorot's would vanish.
        """
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if self.parity:
            nn.init.xavier_uniform_(self.positions)
            return
        nn.init.normal_(self.embedding.weight)
        with torch.no_grad():
            self.positions[0] = 0
            self.embedding.weight[self.padding] = 0

    def project(self, features: Features) -> Tensor:
        """Return the embedded cells (B, N, H)."""
        latent: Tensor = self.image(features.cells)
        return latent

    def attended(self, raw: Tensor, latent: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return which visual features take part, (B, N) bool."""
        if self.parity:
            return latent.sum(-1) != 0
        shown = (raw != 0).any(-1)
        return shown if valid is None else shown & valid

    def encoded(self, latent: Tensor, features: Features) -> Encoded:
        """Run the encoder on the embedded cells (B, N, H)."""
        valid = self.attended(features.cells, latent, features.valid)
        weights = []
        for layer in self.encoder:
            latent, own = layer(latent, valid)
            weights.append(own)
        return Encoded(latent, valid, weights)

    def memory(self, latent: Tensor, features: Features) -> Memory:
        """Return keys and values for each layer of the decoder."""
        return self._remembered(self.encoded(latent, features))

    def _remembered(self, encoded: Encoded) -> Memory:
        memory: Memory = {"valid": encoded.valid}
        for number, layer in enumerate(self.word_layers):
            memory[f"keys{number}"] = layer.cross.attention.keys(encoded.values)
            memory[f"values{number}"] = layer.cross.attention.values(encoded.values)
        return memory

    def start(self, memory: Memory, rows: int = 1) -> State:
        """Return the state before the first word: nothing has been read."""
        return nothing_read(memory["values0"], rows, len(self.decoder))

    def step(self, word_ids: Tensor, state: State, memory: Memory) -> Step:
        """Feed word ids (B, K); attention is that of the last layer, (B, K, heads, N)."""
        batch, rows = word_ids.shape
        place = state["read"].shape[-1] + 1
        self._check_length(place)
        now = self.is_word(word_ids.unsqueeze(-1), place)
        read = torch.cat([state["read"], now], 2)
        fed = word_ids.reshape(-1, 1)
        x = self.embedded(fed, torch.full_like(fed, place))
        past = pasts(state, len(self.decoder))
        said = now.reshape(-1, 1, 1).to(x.dtype)
        x, layers = self._decoded(x, read.flatten(0, 1).unsqueeze(1), said, memory, past)
        log_probs = self.readout(x).log_softmax(-1).view(batch, rows, -1)
        return Step(log_probs, state_after(read, layers), layers[-1].cross)

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        """Feed word ids (B K, T) in one pass; attention (B K, T, heads, N) of the last layer."""
        encoded = self.encoded(self.project(features), features)
        memory = ops.border(self._remembered(encoded))
        steps = word_ids.shape[1]
        self._check_length(steps)
        read = self.is_word(word_ids)
        places = torch.arange(1, steps + 1, device=word_ids.device) * read
        x = self.embedded(word_ids, places)
        seen = earlier(steps, x.device) & read.unsqueeze(1)
        said = read.unsqueeze(-1).to(x.dtype)
        x, layers = self._decoded(x, seen, said, memory, [None] * len(self.decoder))
        return hidden_of(x, encoded.weights, layers)

    def embedded(self, word_ids: Tensor, places: Tensor) -> Tensor:
        """Return word vectors plus those of their places (1, 2, ...; 0 for padding)."""
        return ops.add(ops.embedding(self.embedding, word_ids), self.positions[places])

    def is_word(self, word_ids: Tensor, place: int = 1) -> Tensor:
        """Return which ids (..., T) from a `place` on are words: no padding, or the first of all.

        A vocabulary without a start has captions begin with padding.
        """
        places = torch.arange(place, place + word_ids.shape[-1], device=word_ids.device)
        return (word_ids != self.padding) | (places == 1)

    def _check_length(self, steps: int) -> None:
        if steps > self.longest:
            raise CapscopeError(
                f"a caption of {steps} words with its start, but positions tell {self.longest} "
                "apart: lower max_length, or raise longest of the captioner"
            )

    def _decoded(
        self,
        x: Tensor,
        seen: Tensor,
        said: Tensor,
        memory: Memory,
        past: list[Past] | list[None],
    ) -> tuple[Tensor, list[Decoded]]:
        """Run the decoder on embedded words (B K, Q, H)."""
        layers: list[Decoded] = []
        for i, layer in enumerate(self.decoder):
            found = layer(
                x, seen, said, memory[f"keys{i}"], memory[f"values{i}"], memory["valid"], past[i]
            )
            layers.append(found)
            x = found.x
        return x, layers

    def readout(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """Return logits, or only those of `ids`."""
        if ids is None:
            return ops.stabilise(ops.affine(hidden, self.words.weight), "linear")
        return ops.selected_linear(self.words, hidden, ids)
