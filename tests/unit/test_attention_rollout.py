"""Attention rollout against the product of whole layers, and its limits."""

from __future__ import annotations

import torch
from linear_captioner import VOCABULARY, LinearCaptioner
from torch import Tensor
from toy_subjects import BATCH, LENGTHS, WORDS, examples, explain, some_regions, toy_subject

from capscope.explain import explainer_class
from capscope.explain.attention_rollout import rollout
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.models.captioner import AttentionLayers, Hidden

HEADS = 2


def weights(*shape: int, causal: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + causal)
    scores = torch.randn(*shape, generator=generator)
    if causal:
        later = torch.ones(shape[-2:]).triu(1).bool()
        scores = scores.masked_fill(later, float("-inf"))
    return scores.softmax(-1)


def some_layers(cells: int, encoder: int, decoder: int) -> AttentionLayers:
    return AttentionLayers(
        tuple(weights(BATCH, HEADS, cells, cells) for _ in range(encoder)),
        tuple(weights(BATCH, HEADS, WORDS, WORDS, causal=True) for _ in range(decoder)),
        tuple(weights(BATCH, HEADS, WORDS, cells) for _ in range(decoder)),
    )


def slow_rollout(layers: AttentionLayers, row: int) -> Tensor:
    """Multiply the layers as matrices over features and words together: (T, N + T)."""
    cells = layers.cross[0].shape[-1]
    total = torch.eye(cells + WORDS)
    for attention in layers.encoder:
        matrix = torch.eye(cells + WORDS)
        matrix[:cells, :cells] = (attention[row].mean(0) + torch.eye(cells)) / 2
        total = matrix @ total
    for attention, cross in zip(layers.decoder, layers.cross, strict=True):
        matrix = torch.eye(cells + WORDS)
        matrix[cells:, cells:] = (attention[row].mean(0) + torch.eye(WORDS)) / 2
        total = matrix @ total
        matrix = torch.eye(cells + WORDS)
        matrix[cells:, cells:] = torch.eye(WORDS) / 2
        matrix[cells:, :cells] = cross[row].mean(0) / 2
        total = matrix @ total
    return total[cells:]


class Stacked(LinearCaptioner):
    """A captioner that reports attention of three encoder and two decoder layers."""

    def hidden(self, features: Features, word_ids: Tensor) -> Hidden:
        layers = some_layers(features.cells.shape[1], 3, 2)
        return super().hidden(features, word_ids)._replace(layers=layers)


def test_rollout_equals_the_product_of_whole_layers() -> None:
    for encoder, decoder in ((0, 1), (1, 1), (3, 2)):
        layers = some_layers(5, encoder, decoder)
        grid, words = rollout(layers)
        for row in range(BATCH):
            expected = slow_rollout(layers, row)
            torch.testing.assert_close(grid[row], expected[:, :5])
            torch.testing.assert_close(words[row], expected[:, 5:])
        torch.testing.assert_close(grid.sum(-1) + words.sum(-1), torch.ones(BATCH, WORDS))


def test_a_captioner_with_layers_of_attention_is_explained_by_all_of_them() -> None:
    subject, features = Subject(Stacked().eval(), VOCABULARY), some_regions()
    inputs = subject.inputs(examples()[1])
    method = explainer_class("attention_rollout")(subject)
    found = method.explain(None, features, inputs, LENGTHS)
    grid, words = rollout(some_layers(3, 3, 2))
    torch.testing.assert_close(found.grid[0], grid[0])
    torch.testing.assert_close(found.words[0], words[0])
    assert found.words.triu(1).eq(0).all()


def test_rollout_of_one_layer_is_raw_attention() -> None:
    for captioner in ("gridtd", "aoa"):
        subject = toy_subject(captioner)
        found, raw = explain("attention_rollout", subject), explain("attention", subject)
        assert found.grid.equal(raw.grid)
        assert found.pixels.equal(raw.pixels)
        assert found.words is None
