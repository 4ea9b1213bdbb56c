"""LRP through the transformers of DIFNet by alpha-beta rules, as a closed recursion.

All words of a caption go back together. The published program goes to the encoder's output; here
relevance goes on through the encoder, to grid cells and segments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from capscope.features.visual import Features
from capscope.relevance.alpha_beta import AlphaBeta, Rows, add, clone
from capscope.relevance.post_norm_passes import EmbeddedPass, FlowPass, Weights, WordPass

if TYPE_CHECKING:
    from capscope.models.base import BaseTransformer
    from capscope.models.difnet import DIFNet


@dataclass
class DualFlowRelevance:
    """Relevance of T words of B captions; that of a word sums to 1 over all inputs.

    Attributes
    ----------
    ids : Tensor (B, T)
        The explained words.
    encoded : Tensor (B, T, N, H)
        Of the encoder's output.
    embedded : Tensor (B, T, T, H)
        Of the sums of word vectors and positions.
    layers : list of Tensor (B, T, N, H)
        Of the encoder's output, what each layer of the decoder sends there.
    words : list of Tensor (B, T, T, H)
        Of the words at the input of each layer of the decoder, the first of them `embedded`.
    last : Tensor (B, T, T, H)
        Of the words at the decoder's output.
    cells, segments : Tensor (B, T, N, D), (B, T, N, S) or None
        Of the visual features, if relevance went on to them; `segments` of two flows.
    """

    ids: Tensor
    encoded: Tensor
    embedded: Tensor
    last: Tensor
    layers: list[Tensor] = field(default_factory=list)
    words: list[Tensor] = field(default_factory=list)
    cells: Tensor | None = None
    segments: Tensor | None = None

    def to(self, kind: torch.dtype) -> DualFlowRelevance:
        """Return the same in another precision."""
        return DualFlowRelevance(
            self.ids,
            self.encoded.to(kind),
            self.embedded.to(kind),
            self.last.to(kind),
            [one.to(kind) for one in self.layers],
            [one.to(kind) for one in self.words],
            None if self.cells is None else self.cells.to(kind),
            None if self.segments is None else self.segments.to(kind),
        )


class EncoderPass(NamedTuple):
    """The encoder's forward pass."""

    values: Tensor
    valid: Tensor
    image: EmbeddedPass
    segments: EmbeddedPass | None
    shared: list[tuple[FlowPass, FlowPass]]
    rest: list[FlowPass]
    flows: tuple[Tensor, Tensor] | None
    last: Tensor


class DIFNetLRP:
    """Explains words of `base` and `difnet`.

    It holds the weights in the types that the rules need; they are taken anew when they have
    changed.

    Parameters
    ----------
    captioner : BaseTransformer
    rules : AlphaBeta
    rescaled : bool
        The encoder's output gets, over all layers of the decoder, the sum of their relevances'
        absolute values (a variant that the published program holds and does not run).
    """

    def __init__(
        self,
        captioner: BaseTransformer,
        rules: AlphaBeta = AlphaBeta(),  # noqa: B008  frozen
        *,
        rescaled: bool = False,
    ) -> None:
        self.captioner, self.rules, self.rescaled = captioner, rules, rescaled
        self.weights = Weights(rules)

    @torch.no_grad()
    def explain(
        self,
        features: Features,
        inputs: Tensor,
        ids: Tensor | None = None,
        *,
        to_inputs: bool = True,
    ) -> DualFlowRelevance:
        """Explain the word that follows each of the inputs.

        Parameters
        ----------
        features : Features
            Of B images.
        inputs : Tensor (B, T)
            Captions from the start on.
        ids : Tensor (B, T) or None
            What is explained after inputs 0 to t; None: what the captioner finds most probable
            there (published), whether the caption goes on with it or not.
        to_inputs : bool
            Whether relevance goes on to cells and segments.
        """
        model, encoder = self.captioner, self.encode(features)
        layers = self.decode(encoder, inputs)
        x = layers[-1].y
        if ids is None:
            ids = (x.to(model.words.weight.dtype) @ model.words.weight.t()).argmax(-1)
        r = self.seed(x, ids) * model.is_word(inputs).unsqueeze(-1)
        rows = Rows.own(inputs.shape[1])
        last = rows.dense(r)
        sent: list[Tensor] = []
        words: list[Tensor] = []
        for word_layer in reversed(layers):
            r, rows, to_encoder = word_layer.back(r, rows)
            sent.insert(0, to_encoder)
            words.insert(0, rows.dense(r))
        encoded = torch.stack(sent).sum(0)
        found = DualFlowRelevance(ids, encoded, words[0], last, sent, words)
        if self.rescaled:
            found.encoded = found.encoded * self._scale(found)
        if to_inputs:
            found.cells, found.segments = self._to_inputs(encoder, found.encoded)
        return found

    def seed(self, x: Tensor, ids: Tensor) -> Tensor:
        """Return the relevance (B, T, H) below the output layer, 1 for each word."""
        alpha = self.rules.alpha
        products = x * self.captioner.words.weight[ids].to(x.dtype)
        for_it, against = products.clamp(min=0), products.clamp(max=0)
        seed = alpha * for_it / for_it.sum(-1, keepdim=True).clamp(min=1e-9)
        if alpha != 1:
            seed = seed - (alpha - 1) * against / against.sum(-1, keepdim=True).clamp(max=-1e-9)
        return seed.to(self.rules.carried)

    def _scale(self, found: DualFlowRelevance) -> Tensor:
        axes = (2, 3) if self.rules.over == "sample" else (0, 2, 3)
        parts = sum(layer.abs().sum(axes, keepdim=True) for layer in found.layers)
        return parts / found.encoded.abs().sum(axes, keepdim=True).clamp(min=1e-9)

    def decode(self, encoder: EncoderPass, inputs: Tensor) -> list[WordPass]:
        """Run the decoder on captions (B, T) from the start on, and remember as `encode` does."""
        model, exact = self.captioner, self.rules.exact
        read, steps = model.is_word(inputs), inputs.shape[1]
        places = torch.arange(1, steps + 1) * read
        x = model.embedding.weight[inputs].to(exact) + model.positions[places].to(exact)
        hidden = torch.ones(steps, steps, dtype=torch.bool).triu(1) | ~read.unsqueeze(1)
        layers: list[WordPass] = []
        for layer in model.word_layers:
            masked = ~encoder.valid.unsqueeze(1)
            layers.append(WordPass(self.weights, layer, x, read, hidden, encoder.values, masked))
            x = layers[-1].y
        return layers

    def encode(self, features: Features) -> EncoderPass:
        """Run the encoder, and remember what the way back needs."""
        model = self.captioner
        image = EmbeddedPass(self.weights, model.image, features.cells)
        valid = model.attended(features.cells, image.y, features.valid)
        x, hidden = image.y, ~valid.unsqueeze(1)
        shared: list[tuple[FlowPass, FlowPass]] = []
        segments, flows, rest = None, None, model.flow_layers
        if hasattr(model, "project_segments"):
            dual: DIFNet = model  # type: ignore[assignment]
            dual.project_segments(features)  # raises where they do not fit
            assert features.segments is not None
            segments = EmbeddedPass(self.weights, dual.segments, features.segments)
            second = segments.y
            hidden_second = ~model.attended(features.segments, second).unsqueeze(1)
            for layer in rest[: dual.shared_layers]:
                for _ in range(dual.iterations):
                    one = FlowPass(self.weights, layer, x, hidden)
                    other = FlowPass(self.weights, layer, second, hidden_second, 1)
                    shared.append((one, other))
                    x, second = one.y, other.y
            flows, rest = (x, second), rest[dual.shared_layers :]
            x = x + second
        passes = []
        for layer in rest:
            passes.append(FlowPass(self.weights, layer, x, hidden))
            x = passes[-1].y
        values = x if flows is None else x + flows[0] + flows[1]
        return EncoderPass(values, valid, image, segments, shared, passes, flows, x)

    def _to_inputs(self, encoder: EncoderPass, encoded: Tensor) -> tuple[Tensor, Tensor | None]:
        words, count = encoded.shape[1:3]
        rows = Rows.all(words, count)
        cells, segments = self.below_encoder(encoder, encoded.flatten(1, 2), rows)
        found = rows.apart(encoder.image.back(cells, rows))
        if segments is None or encoder.segments is None:
            return found, None
        return found, rows.apart(encoder.segments.back(segments, rows))

    def below_encoder(
        self, encoder: EncoderPass, r: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor | None]:
        """Return the relevance (B, P, H) of embedded cells and segments."""
        over, flows = self.rules.over, encoder.flows
        skipped: tuple[Tensor, ...] = ()
        if flows is not None:
            r, *skips = add((encoder.last, *flows), r, rows, over)
            skipped = tuple(skips)
        for layer in reversed(encoder.rest):
            r = layer.back(r, rows)
        if flows is None:
            return r, None
        parts = add(flows, r, rows, over)
        r, second = (
            clone(flow, part + skip, rows)
            for flow, part, skip in zip(flows, parts, skipped, strict=True)
        )
        for one, other in reversed(encoder.shared):
            r, second = one.back(r, rows), other.back(second, rows)
        return r, second
