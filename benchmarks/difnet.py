"""DIFNet and its base transformer against naive twins of the published loops, in one run.

CPU seconds of the process, best of a few runs, one thread, at the published sizes: an XE step, an
SCST step (10 images, beams of 5, reward left out), beam search with 5 beams at a batch of 32, and
LRP of one caption of 11 words to the encoder's output and to the inputs, with its largest
difference from double precision. The twins do as the published program does: caches of what is not
projected yet, the encoded image copied to every beam, all candidates sorted, all steps, gradient
through the search, torch's own products; LRP by a loop over words and rules
(`capscope.relevance.alpha_beta_reference`).

    python benchmarks/difnet.py --captioners base difnet
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from capscope.decoding.ended_beam import ended_beam_search
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.base import BaseTransformer
from capscope.relevance.alpha_beta import AlphaBeta
from capscope.relevance.alpha_beta_reference import explain_by_loop
from capscope.relevance.product import fastest_products
from capscope.relevance.recursion_difnet import DIFNetLRP
from capscope.training.batches import CaptionBatch
from capscope.training.objectives import caption_log_probs, cross_entropy, self_critical_loss

PAD, BOS, EOS = 1, 2, 3
STEPS, BEAM = 20, 5


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def images(count: int) -> Features:
    return Features(torch.rand(count, 49, 2048), segments=torch.rand(count, 49, 133))


def naive_attention(block, query: Tensor, read: Tensor, valid: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
    """Project all that is read, then attend head by head (sheet, 4.3 and 4.4)."""
    attention, heads = block.attention, block.attention.heads

    def split(layer: torch.nn.Linear, x: Tensor) -> Tensor:
        return layer(x).view(*x.shape[:2], heads, -1)

    q, k = split(attention.query, query), split(attention.key, read)
    v = split(attention.value, read).permute(0, 2, 1, 3)
    scores = q.permute(0, 2, 1, 3) @ k.permute(0, 2, 3, 1) / q.shape[-1] ** 0.5
    if valid is not None:
        scores = scores.masked_fill(~valid[:, None, None], -torch.inf)
    weights = attention.dropout(scores.softmax(-1))
    found = attention.output((weights @ v).permute(0, 2, 1, 3).flatten(2))
    return block.norm(query + block.dropout(found))  # type: ignore[no-any-return]


def naive_layer(layer, x: Tensor, past: Tensor, encoded: Tensor, valid: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    x = layer.norms[0](x + layer.dropout(naive_attention(layer.own, x, past, None)))
    x = layer.norms[1](x + layer.dropout(naive_attention(layer.cross, x, encoded, valid)))
    feed = layer.feed_forward
    inner = feed.dropout(torch.relu(feed.inner(x)))
    return layer.norms[2](x + layer.dropout(feed.outer(inner)))  # type: ignore[no-any-return]


def naive_beam(model: BaseTransformer, features: Features) -> tuple[Tensor, Tensor]:
    """Search as the published program does; ids and log-probabilities (B, K, T)."""
    batch = len(features.cells)
    encoded = model.encoded(model.project(features), features)
    values, valid, cells = encoded.values, encoded.valid, features.cells
    scores, alive = torch.zeros(batch, 1, 1), torch.ones(batch, BEAM, 1)
    fed, rows = torch.full((batch, 1), BOS), 1
    past: list[Tensor | None] = [None] * len(model.word_layers)
    said, spoken, whole = [], [], []
    for t in range(STEPS):
        x = model.embedding(fed.reshape(-1, 1)) + model.positions[t + 1]
        for i, layer in enumerate(model.word_layers):
            before = past[i]
            read = x if before is None else torch.cat([before, x], 1)
            past[i] = read
            x = naive_layer(layer, x, read, values, valid)
        log_probs = model.words(x).log_softmax(-1).view(batch, rows, -1)
        candidates = scores + log_probs
        if t:
            alive = alive * (fed.view(batch, BEAM, 1) != EOS)
            log_probs = log_probs * alive
            ended = scores.expand_as(candidates).contiguous()
            ended[:, :, 1:] = -999
            candidates = alive * candidates + ended * (1 - alive)
        whole.append(log_probs)
        best, order = candidates.view(batch, -1).sort(-1, descending=True)
        best, order = best[:, :BEAM], order[:, :BEAM]
        parents, fed = order // log_probs.shape[-1], order % log_probs.shape[-1]
        scores = best.unsqueeze(-1)
        flat = (torch.arange(batch).unsqueeze(1) * rows + parents).flatten()
        past = [one[flat] for one in past if one is not None]
        values, valid, cells = values[flat], valid[flat], cells[flat]
        alive = alive.gather(1, parents.unsqueeze(-1)) if t else alive
        chosen = log_probs.reshape(batch, -1).gather(1, order)
        said = [one.gather(1, parents) for one in said] + [fed]
        spoken = [one.gather(1, parents) for one in spoken] + [chosen]
        rows = BEAM
    return torch.stack(said, -1), torch.stack(spoken, -1)


def measure(name: str, repeats: int) -> None:
    torch.manual_seed(0)
    model = build(name, vocabulary_size=10_201, feature_size=2048, padding=PAD)
    assert isinstance(model, BaseTransformer)
    model.train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-5, betas=(0.9, 0.98))

    def step(loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        adam.step()

    def show(what: str, ours: float, twin: float, bar: str) -> None:
        print(
            f"{name:7} {what:28} {ours:7.3f} s  twin {twin:7.3f} s  {twin / ours:5.1f} x  ({bar})"
        )

    features, ids = images(50), torch.randint(4, 10_201, (50, 13))
    ids[:, 0] = BOS
    batch = CaptionBatch(ids[:, :-1], ids[:, 1:], torch.ones(50, 12, dtype=torch.bool))

    def twin_xe() -> None:
        logits = model.readout(model.hidden(features, ids).values)
        log_probs = logits.log_softmax(-1)[:, :-1].reshape(-1, 10_201)
        step(torch.nn.functional.nll_loss(log_probs, ids[:, 1:].reshape(-1), ignore_index=PAD))

    def ours_xe() -> None:
        with fastest_products():
            loss = cross_entropy(model, features, batch)
        step(loss)

    twin = cpu_seconds(twin_xe, repeats)
    show(
        "XE step, 50 x 13",
        cpu_seconds(ours_xe, repeats),
        twin,
        "at least 0.95",
    )
    features, reward = images(10), torch.randn(50)

    def twin_scst() -> None:
        _, log_probs = naive_beam(model, features)
        step(-(log_probs.mean(-1).flatten() * reward).mean())

    def ours_scst() -> None:
        found = ended_beam_search(
            model, features, start=BOS, end=EOS, beam=BEAM, steps=STEPS, stop=False
        ).word_ids.flatten(0, 1)
        with fastest_products():
            log_probs = caption_log_probs(model, features, found, start=BOS, end=EOS)
        step(self_critical_loss(log_probs, found, reward, end=EOS, per="position"))

    twin = cpu_seconds(twin_scst, 1)
    show("SCST step, 10 x 5 x 20", cpu_seconds(ours_scst, repeats), twin, "at least 3")

    model.eval()
    with torch.no_grad():
        one, ten, many = images(1), images(10), images(32)
        alone = cpu_seconds(lambda: naive_beam(model, one), repeats)
        published = cpu_seconds(lambda: naive_beam(model, ten), 1) / 10
        forced = cpu_seconds(
            lambda: ended_beam_search(
                model, many, start=BOS, end=EOS, beam=BEAM, steps=STEPS, stop=False
            ),
            1,
        )
        show("beam 5, 20 steps, an image", forced / 32, alone, "one at a time")
        show("  the twin by tens", forced / 32, published, "at least 5")
        half = cpu_seconds(
            lambda: ended_beam_search(model, many, start=BOS, end=EOS, beam=BEAM, steps=11), 1
        )
        show("beam 5, stops at 11", half / 32, alone, "at least 8")

    caption = ids[:1, :11]
    lrp = DIFNetLRP(model)
    exact = DIFNetLRP(model, AlphaBeta(carried=torch.float64)).explain(one, caption)
    found = lrp.explain(one, caption)
    to_encoder = cpu_seconds(lambda: lrp.explain(one, caption, to_inputs=False), repeats)
    to_inputs = cpu_seconds(lambda: lrp.explain(one, caption), repeats)
    twin = cpu_seconds(lambda: explain_by_loop(model, one, caption), repeats)
    show("LRP to the encoder, 11 words", to_encoder, twin, "at least 6")
    show("LRP to the inputs, 11 words", to_inputs, twin, "at most 0.8 s")
    for part in ("encoded", "embedded", "cells", "segments"):
        ours, right = getattr(found, part), getattr(exact, part)
        if ours is not None:
            gap = ((ours - right).abs().amax((2, 3)) / right.abs().amax((2, 3))).max()
            print(f"{name:7} LRP {part:24} {gap:.1e} of the largest from float64 (at most 1e-3)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captioners", nargs="+", default=["base", "difnet"])
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.captioners:
        measure(name, options.repeats)


if __name__ == "__main__":
    main()
