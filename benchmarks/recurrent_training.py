"""Training the recurrent captioners: a step with the image network, and one on stored features.

    python benchmarks/recurrent_training.py [--batch 128] [--repeats 3]

Compares, at the published sizes (RegNetX-400MF on 112 x 112 pixels, 16 words, 864 words known):
1. our fine-tuning step with a naive twin of the published loop: channels first, one step of the
   cell after the other, the input projected and the words scored anew at each, sums over copies;
2. our step on frozen, stored features with our fine-tuning step.
CPU time of the process, one thread; best of the repeats. Each kind of step runs in a process of its
own, whose peak memory is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from capscope.features.classifier import cut
from capscope.features.grid import GridExtractor
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.from_images import FromImages
from capscope.training.batches import CaptionBatch
from capscope.training.fine_tuning import normalised
from capscope.training.loop import Recipe
from capscope.training.objectives import cross_entropy
from capscope.training.optimisers import build_optimiser

WORDS, EMBEDDING, HIDDEN, STEPS, PIXELS, CHANNELS, GRID = 864, 256, 512, 16, 112, 400, 4
CAPTIONERS = ("rnn", "lstm", "attention_lstm")
FINE_TUNING, STORED = 1.2, 5.0
Step = Callable[[], float]


class Naive(nn.Module):
    """The published model, straight from its equations."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, gates = kind, 1 if kind == "rnn" else 4
        self.network = network()
        self.conv = nn.Conv2d(CHANNELS, HIDDEN, 1)
        self.first = nn.Linear(CHANNELS * GRID * GRID, HIDDEN)
        self.embedding = nn.Parameter(torch.randn(WORDS, EMBEDDING) / WORDS**0.5)
        self.x = nn.Parameter(torch.randn(EMBEDDING, gates * HIDDEN) / EMBEDDING**0.5)
        self.h = nn.Parameter(torch.randn(HIDDEN, gates * HIDDEN) / HIDDEN**0.5)
        self.a = nn.Parameter(torch.randn(HIDDEN, gates * HIDDEN) / HIDDEN**0.5)
        self.b = nn.Parameter(torch.zeros(gates * HIDDEN))
        self.words = nn.Linear(HIDDEN, WORDS)

    def forward(self, images: Tensor, captions: Tensor) -> Tensor:
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        maps = self.network((images.to(torch.float32).div(255) - mean) / deviation)
        fed, targets = captions[:, :-1], captions[:, 1:]
        embedded = self.embedding[fed]
        attended = None
        if self.kind == "attention_lstm":
            attended = self.conv(maps)
            h = c = attended.mean((2, 3))
        else:
            h = self.first(maps.flatten(1))
            c = torch.zeros_like(h)
        states = torch.zeros(len(images), STEPS, HIDDEN)
        for t in range(STEPS):
            h, c = self.step(embedded[:, t], h, c, attended)
            states[:, t] = h
        scores = torch.zeros(len(images), STEPS, WORDS)
        for t in range(STEPS):
            scores[:, t] = self.words(states[:, t])
        flat, wanted = scores.reshape(-1, WORDS), targets.reshape(-1)
        loss = functional.cross_entropy(flat, wanted, ignore_index=0, reduction="sum")
        return loss / len(images)

    def step(
        self, x: Tensor, h: Tensor, c: Tensor, attended: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        z = x.mm(self.x) + h.mm(self.h) + self.b
        if self.kind == "rnn":
            return torch.tanh(z), c
        if attended is not None:
            flat = attended.reshape(len(h), HIDDEN, -1)
            scores = torch.bmm(h.unsqueeze(1), flat) / torch.sqrt(torch.tensor(float(HIDDEN)))
            weights = functional.softmax(scores, dim=2)
            z = z + torch.bmm(flat, weights.transpose(1, 2)).squeeze(2).mm(self.a)
        i, f, o, g = (z[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
        sigmoid, tanh = nn.Sigmoid(), nn.Tanh()
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c


def network() -> nn.Module:
    """Return RegNetX-400MF without its classifier, new weights in it."""
    from torchvision.models import regnet_x_400mf

    own = cut("regnet_x_400mf")
    state = regnet_x_400mf(weights=None).state_dict()
    own.load_state_dict({key: state[key] for key in own.state_dict()})
    return own


def examples(batch: int) -> tuple[Tensor, Tensor]:
    """Return images (B, S, S, 3) as bytes, and padded captions (B, 17)."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (batch, PIXELS, PIXELS, 3), generator=generator)
    captions = torch.randint(4, WORDS, (batch, STEPS + 1), generator=generator)
    ends = torch.randint(8, STEPS + 1, (batch, 1), generator=generator)
    places = torch.arange(STEPS + 1)
    captions = captions.masked_fill(places == ends, 2).masked_fill(places > ends, 0)
    captions[:, 0] = 1
    return images.to(torch.uint8), captions


def naive_step(kind: str, batch: int) -> Step:
    """Return one step of the twin: loss, gradients, AdamW."""
    model = Naive(kind).train()
    images, captions = examples(batch)
    images = images.permute(0, 3, 1, 2).contiguous()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)

    def step() -> float:
        loss = model(images, captions)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def our_step(kind: str, batch: int, stored: bool) -> Step:
    """Return one step of ours, on images or on the features of their network."""
    extractor = GridExtractor("regnet_x_400mf", network(), PIXELS, layer="trunk_output")
    visual = {} if kind == "attention_lstm" else {"visual": "flatten", "cells": GRID * GRID}
    sizes = {"vocabulary_size": WORDS, "feature_size": CHANNELS}
    captioner = build(kind, **sizes, embedding=EMBEDDING, hidden=HIDDEN, **visual)
    pixels, captions = examples(batch)
    if stored:
        with torch.no_grad():
            cells = extractor(normalised(pixels)).half()
        trained = captioner.train()
    else:
        trained = FromImages(captioner, extractor, "train").train()
    valid = captions[:, 1:] != 0
    framed = CaptionBatch(captions[:, :-1], captions[:, 1:], valid)
    recipe = Recipe(
        *(1, None, batch, 1e-3, "constant", (0.9, 0.999), None, 1, 1, 1, "last", 1.0),
        optimiser="adamw",
        weight_decay=0.01,
        decayed="all",
    )
    optimiser = build_optimiser(trained, recipe)

    def step() -> float:
        features = Features(cells.float() if stored else normalised(pixels))
        loss = cross_entropy(trained, features, framed, per="caption")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def measured(what: str, kind: str, batch: int, repeats: int) -> tuple[float, float]:
    """Return CPU seconds of the best step, and the peak memory of the process in MiB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    step = naive_step(kind, batch) if what == "naive" else our_step(kind, batch, what == "stored")
    step()
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        loss = step()
        times.append(time.process_time() - begun)
    assert np.isfinite(loss)
    return min(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--captioner", choices=CAPTIONERS, action="append")
    arguments = parser.parse_args()
    missed = []
    for kind in arguments.captioner or CAPTIONERS:
        found = {}
        for what in ("naive", "fine-tuned", "stored"):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                call = (what, kind, arguments.batch, arguments.repeats)
                found[what] = pool.apply(measured, call)
            seconds, memory = found[what]
            print(f"{kind:15} {what:11} {seconds:7.3f} s a step, peak {memory:6.0f} MiB")
        naive, tuned, stored = (found[what][0] for what in ("naive", "fine-tuned", "stored"))
        print(f"{kind:15} fine-tuning {naive / tuned:5.2f} times as fast as the naive twin")
        print(f"{kind:15} stored      {tuned / stored:5.2f} times as fast as fine-tuning")
        if naive / tuned < FINE_TUNING:
            missed.append(f"{kind}: fine-tuning below {FINE_TUNING} times")
        if tuned / stored < STORED:
            missed.append(f"{kind}: stored features below {STORED} times")
    raise SystemExit("\n".join(missed))


if __name__ == "__main__":
    main()
