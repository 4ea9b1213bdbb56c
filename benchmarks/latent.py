"""Explanations in latent space against naive twins, in one run: CPU time, one thread.

The twins do what the published program does: LRP word by word with a dense identity matrix for
every sum, one product a feature; perturbations one mask at a time, the image projected anew for
each. They are timed on some words and masks and scaled up; what both find must agree. Bars: LRP of
a caption at most 1/30 of the twin (5.3 s published); 1,000 perturbations of a given caption with
the fit in 12 s; 1,000 perturbed searches (3 x 20) at most 1/8 of single ones (0.55 s published).

    OMP_NUM_THREADS=1 python benchmarks/latent.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from capscope.data.vocabulary import Vocabulary
from capscope.explain.latent.masks import drawn
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.replacement import Constant
from capscope.explain.lime import LIME
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.models.gridtd import GridTD
from capscope.relevance.backward import word_relevance
from capscope.relevance.recursion_latent import FIXES, Moments, latent_lrp
from capscope.relevance.reference import weighted_sum
from capscope.relevance.rules import LRP

EPSILON = 0.01
START, END = 1, 2


def cpu_seconds(function: Callable[[], object], repeats: int = 1) -> float:
    """Return the best CPU time of several calls."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times)


def identity_rule(x: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
    """Return x R / den(z) by a dense product with an identity matrix, as published."""
    return weighted_sum(x, torch.eye(len(x)), z, relevance, EPSILON)


def naive_word(model: GridTD, cells: Tensor, now: Moments, word_id: int, t: int) -> Tensor:
    """Return the score (N,) of each feature for word t, one rule call after the other."""
    size, c = model.hidden_size, slice(2 * model.hidden_size, 3 * model.hidden_size)
    projected = cells @ model.projection.weight.T + model.projection.bias
    values = projected.relu()
    layer = model.global_projection
    average = values.mean(0)
    pooled = layer.weight @ average + layer.bias
    start = torch.zeros_like(now.logits[t])
    start[word_id] = now.logits[t, word_id]
    total = now.h2[t + 1] + now.mixed[t]
    relevance = weighted_sum(total, model.words.weight, now.logits[t], start, EPSILON)
    to_h2 = identity_rule(now.h2[t + 1], total, relevance)
    to_mixed = identity_rule(now.mixed[t], total, relevance)
    weights = [
        torch.cat([lstm.weight_ih, lstm.weight_hh], 1)[c]
        for lstm in (model.attention_lstm, model.language_lstm)
    ]
    carry1 = carry2 = recurrent = torch.zeros(size)
    to_values, to_pooled = torch.zeros_like(values), torch.zeros_like(pooled)
    for j in range(t, -1, -1):
        to_c2 = carry2 + to_h2
        i, f, g, _ = now.z2[j].chunk(4)
        to_g = identity_rule(i.sigmoid() * g.tanh(), now.c2[j + 1], to_c2)
        carry2 = identity_rule(f.sigmoid() * now.c2[j], now.c2[j + 1], to_c2)
        x = torch.cat([now.x2[j], now.h2[j]])
        above = weighted_sum(x, weights[1], now.z2[j, c], to_g, EPSILON)
        to_mixed = above[:size] + (to_mixed if j == t else 0)
        beta = now.beta[j]
        to_sentinel = identity_rule(beta * now.sentinel[j], now.mixed[j], to_mixed)
        to_context = identity_rule((1 - beta) * now.context[j], now.mixed[j], to_mixed)
        for k, value in enumerate(values):
            to_values[k] += identity_rule(now.alpha[j, k] * value, now.context[j], to_context)
        to_c1 = carry1 + to_sentinel + above[size : 2 * size] + recurrent
        i, f, g, _ = now.z1[j].chunk(4)
        to_g = identity_rule(i.sigmoid() * g.tanh(), now.c1[j + 1], to_c1)
        carry1 = identity_rule(f.sigmoid() * now.c1[j], now.c1[j + 1], to_c1)
        x = torch.cat([now.x1[j], now.h1[j]])
        below = weighted_sum(x, weights[0], now.z1[j, c], to_g, EPSILON)
        to_h2 = above[2 * size :] + below[:size]
        to_pooled = to_pooled + below[size : size + len(pooled)]
        recurrent = below[-size:]
    to_average = weighted_sum(average, layer.weight, pooled, to_pooled, EPSILON)
    scores = []
    for k, value in enumerate(values):
        share = identity_rule(value / len(values), average, to_average)
        for part in (share, to_values[k]):
            weight = model.projection.weight
            scores.append(weighted_sum(cells[k], weight, projected[k], part, EPSILON).sum())
    return torch.stack(scores).view(-1, 2).sum(1)


def report(name: str, ours: float, twin: float, bar: str) -> None:
    print(f"{name:<44} {ours:8.2f} s   twin {twin:8.2f} s   {twin / ours:7.1f} x   bar: {bar}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {
        "words": 10,
        "perturbations": 1000,
        "regions": 36,
        "features": 2048,
        "hidden": 1024,
        "embedding": 512,
        "vocabulary": 11027,
        "naive-masks": 6,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    captioner = GridTD(
        given.vocabulary,
        given.features,
        given.embedding,
        given.hidden,
        attention=given.regions,
        global_from="projected",
        parity=True,
    ).eval()
    captioner.words.bias[END] = -50.0  # no search ends early
    features = Features(torch.randn(1, given.regions, given.features).relu())
    caption = torch.randint(4, given.vocabulary, (given.words + 1,))
    caption[0] = START

    trace = latent_lrp(captioner, features.cells[0], caption, EPSILON, FIXES)
    scores = [
        naive_word(captioner, features.cells[0], trace.moments, int(caption[t + 1]), t)
        for t in (0, given.words - 1)
    ]
    scale = float(trace.scores().abs().max())
    for t, score in zip((0, -1), scores, strict=True):
        assert float((trace.scores()[t] - score).abs().max()) < 1e-4 * scale

    def word_by_word() -> None:
        for t in range(given.words):
            naive_word(captioner, features.cells[0], trace.moments, int(caption[t + 1]), t)

    twin = cpu_seconds(word_by_word)
    with torch.enable_grad():
        engine = cpu_seconds(
            lambda: word_relevance(captioner, features, caption.unsqueeze(0), LRP), 3
        )
    published = cpu_seconds(lambda: latent_lrp(captioner, features.cells[0], caption), 3)
    report("latent LRP of a caption (engine)", engine, twin, "30 x")
    report("latent LRP of a caption (as published)", published, twin, "30 x")

    words = tuple(f"w{number}" for number in range(given.vocabulary))
    subject = Subject(captioner, Vocabulary(words, pad=0, start=START, end=END, unk=3))
    method = LIME(subject, lime={"samples": given.perturbations})
    lime = cpu_seconds(lambda: method.caption(features, caption))
    masks = drawn(given.regions, 5, given.perturbations, 0)

    def one_by_one() -> Tensor:
        found = []
        for mask in masks[: given.naive_masks]:
            perturbed = Perturbed(captioner, features, Constant(0.0))
            found.append(perturbed.word_log_probs(mask.unsqueeze(0), caption))
        return torch.cat(found)

    twin = cpu_seconds(one_by_one) * len(masks) / given.naive_masks
    together = Perturbed(captioner, features, Constant(0.0))
    few = together.word_log_probs(masks[: given.naive_masks], caption)
    torch.testing.assert_close(few, one_by_one(), atol=1e-4, rtol=1e-4)
    report(f"LIME, {len(masks)} perturbations with the fit", lime, twin, "12 s")

    def searches() -> None:
        for mask in masks[: given.naive_masks]:
            perturbed = Perturbed(captioner, features, Constant(0.0))
            perturbed.search(mask.unsqueeze(0), start=START, end=END)

    twin = cpu_seconds(searches) * len(masks) / given.naive_masks
    ours = cpu_seconds(lambda: together.search(masks, start=START, end=END))
    report(f"{len(masks)} perturbed searches, 3 x 20", ours, twin, "8 x")


if __name__ == "__main__":
    main()
