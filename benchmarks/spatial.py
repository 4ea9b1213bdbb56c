"""The spatial transformer against naive twins of the published loops, in one run.

CPU time of the process, one thread. The twins do what the published program does: one image at a
time in decoding, the whole prefix fed again at each step, the memory projected anew in each layer
of each step, products of X-Linear attention (B, Q, N, H) formed twice, features repeated for each
caption of an image. Both compute the same: what they find is compared. Weights are random with the
end suppressed for the rates, so that all steps run (the worst case).

    OMP_NUM_THREADS=1 python benchmarks/spatial.py --images 32 --cross dot_product
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from capscope.decoding.sampling import argmax, drawn, roll_out
from capscope.decoding.slots import slot_search
from capscope.features.visual import Features
from capscope.models.layers.xlinear import XLinearAttention
from capscope.models.spatial import SpatialTransformer
from capscope.relevance.backward import word_relevance
from capscope.relevance.rules import LRP
from capscope.training.batches import CaptionBatch
from capscope.training.objectives import caption_log_probs, cross_entropy, self_critical_loss

END = 0


class PublishedXLinear(torch.nn.Module):
    """X-Linear attention as published: all products of a query and a key are formed, twice."""

    def __init__(self, own: XLinearAttention) -> None:
        super().__init__()
        self.own = own

    def keys(self, x: Tensor) -> Tensor:
        return self.own.keys(x)

    def values(self, x: Tensor) -> Tensor:
        return self.own.values(x)

    def forward(
        self, h: Tensor, values: Tensor, keys: Tensor, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        own = self.own
        asked, factor = own.pair_query(h), own.value_query(h)
        pairs = functional.linear(
            asked.unsqueeze(2) * keys.unsqueeze(1), own.pair.weight, own.pair.bias
        ).relu()
        weights = own.score(pairs).squeeze(-1).softmax(-1)
        gate = torch.sigmoid(own.gate(pairs.mean(2)))
        found = weights.unsqueeze(2) @ (factor.unsqueeze(2) * values.unsqueeze(1))
        return gate * found.squeeze(2), weights.unsqueeze(2)


def published(captioner: SpatialTransformer) -> SpatialTransformer:
    """Let a captioner attend as published; the weights stay the same objects."""
    for layer in captioner.decoder:
        if isinstance(layer.cross, XLinearAttention):
            layer.cross = PublishedXLinear(layer.cross)
    return captioner


class Twin:
    """The published loops on one captioner."""

    def __init__(self, captioner: SpatialTransformer, length: int) -> None:
        self.captioner, self.length = captioner, length

    def next_words(self, encoded: Tensor, features: Features, prefixes: Tensor) -> Tensor:
        """Return log-probabilities (M, V) after prefixes (M, T) over M copies of the memory."""
        model = self.captioner
        rows = encoded.expand(len(prefixes), -1, -1).contiguous()
        memory = model._remembered(rows, features._replace(valid=None))
        x = model.embedded(prefixes, model.table[: prefixes.shape[1]])
        steps = torch.ones(1, prefixes.shape[1], prefixes.shape[1], dtype=torch.bool).tril()
        x, _ = model._decoded(x, steps, memory, [None] * len(model.decoder))
        return model.readout(x[:, -1:])[:, 0].log_softmax(-1)

    def encode(self, features: Features) -> Tensor:
        model = self.captioner
        return model.encoded(model.project(features), features).values

    def roll_out(self, features: Features, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Say captions of all rows of `features`, the whole prefix again at each step."""
        encoded = self.encode(features)
        prefixes = torch.full((len(encoded), 1), END)
        log_probs = []
        for _ in range(self.length):
            known = self.next_words(encoded, features, prefixes)
            words = choose(known)
            log_probs.append(known.gather(1, words.unsqueeze(1)))
            prefixes = torch.cat([prefixes, words.unsqueeze(1)], 1)
        self.next_words(encoded, features, prefixes)  # the published, useless last pass
        self.spoken = torch.cat(log_probs, 1)
        return prefixes[:, 1:]

    def beams(self, features: Features, slots: int, groups: int, penalty: float) -> list[list[int]]:
        """Search captions of one image, group behind group, candidate by candidate."""
        encoded = self.encode(features)
        first = self.next_words(encoded, features, torch.full((slots, 1), END))
        known = [first.clone() for _ in range(groups)]
        words = [[[] for _ in range(slots)] for _ in range(groups)]  # type: list[list[list[int]]]
        scores = [[0.0] * slots for _ in range(groups)]
        done: list[list[tuple[float, list[int]]]] = [[] for _ in range(groups)]
        for time_ in range(self.length + groups - 1):
            for g in range(groups):
                t = time_ - g
                if not 0 <= t < self.length:
                    continue
                log_probs = known[g].clone()
                log_probs[:, -1] -= 1000
                for earlier in words[:g]:
                    for slot in earlier:
                        log_probs[:, slot[t]] -= penalty
                ranked, order = log_probs.sort(1, descending=True)
                candidates = []
                for c in range(slots):
                    for q in range(slots if t else 1):
                        total = scores[g][q] + ranked[q, c].item()
                        candidates.append((total, q, int(order[q, c])))
                candidates.sort(key=lambda one: -one[0])
                words[g] = [[*words[g][q], word] for _, q, word in candidates[:slots]]
                scores[g] = [total for total, _, _ in candidates[:slots]]
                for slot in range(slots):
                    if words[g][slot][-1] == END or t == self.length - 1:
                        done[g].append((scores[g][slot], words[g][slot]))
                        scores[g][slot] = -1000.0
                prefixes = torch.tensor([[END, *slot] for slot in words[g]])
                known[g] = self.next_words(encoded, features, prefixes)
        found = [sorted(one, key=lambda entry: -entry[0])[:slots] for one in done]
        return [[word for word in said if word != END] for group in found for _, said in group]


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the best CPU time of several calls."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times)


def report(name: str, ours: float, twin: float, bar: str) -> None:
    print(f"{name},{ours:.4f},{twin:.4f},{twin / ours:.2f},{ours / twin:.3f},{bar}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {
        "images": 32,
        "length": 16,
        "regions": 36,
        "features": 2048,
        "hidden": 512,
        "layers": 6,
        "vocabulary": 9488,
        "captions": 5,
        "xe-images": 3,
        "scst-images": 2,
        "repeats": 1,
        "words": 16,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cross", choices=["dot_product", "xlinear"], default="dot_product")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def build() -> SpatialTransformer:
        return SpatialTransformer(
            given.vocabulary,
            given.features,
            given.hidden,
            feed_forward=4 * given.hidden,
            layers=given.layers,
            cross=given.cross,
            dropout=0.0,
        )

    captioner = build()
    with torch.no_grad():
        captioner.words.weight.mul_(6)  # peaked, as after training
    copy = build()
    copy.load_state_dict(captioner.state_dict())
    twin = Twin(published(copy).eval(), given.length)
    boxes = torch.rand(given.images, given.regions, 2, 2).sort(2).values.flatten(2)
    cells = torch.randn(given.images, given.regions, given.features).relu()
    features = Features(cells, boxes)
    one = features.select(slice(0, 1))
    repeats = given.repeats

    def beams(some: Features, slots: int, groups: int) -> list[list[tuple[int, ...]]]:
        found = slot_search(
            captioner,
            some,
            start=END,
            end=END,
            beam=slots,
            groups=groups,
            max_length=given.length,
        )
        return [[hypothesis.word_ids for hypothesis in image] for image in found]

    print(f"{given.cross}, per image or per step,ours,twin,twin/ours,ours/twin,bar")
    captioner.eval()
    with torch.no_grad():
        for slots, groups in ((5, 1), (2, 3)):
            ours, theirs = beams(one, slots, groups)[0], twin.beams(one, slots, groups, 0.5)
            assert ours == [tuple(said) for said in theirs], "captions differ"
        for model in (captioner, copy):
            model.words.bias[END] = -1e4  # all steps run

        def greedy() -> Tensor:
            memory = captioner.encode(features)
            return roll_out(
                captioner, memory, argmax, start=END, end=END, steps=given.length
            ).word_ids

        mine = cpu_seconds(greedy, repeats) / given.images
        other = cpu_seconds(lambda: twin.roll_out(one, lambda p: p.argmax(-1)), repeats)
        report("greedy", mine, other, "twin/ours >= 8")
        for name, slots, groups, bar in (("beam 5", 5, 1, 5), ("diverse 6/3", 2, 3, 10)):
            mine = cpu_seconds(lambda s=slots, g=groups: beams(features, s, g), repeats)
            other = cpu_seconds(lambda s=slots, g=groups: twin.beams(one, s, g, 0.5), repeats)
            report(name, mine / given.images, other, f"twin/ours >= {bar}")

    per_image = given.captions
    generator = torch.Generator().manual_seed(1)
    learn = {
        name: torch.optim.Adam(m.parameters(), 1e-5)
        for name, m in (("ours", captioner), ("twin", copy))
    }

    def updated(name: str, loss: Tensor) -> None:
        learn[name].zero_grad()
        loss.backward()
        learn[name].step()

    few = features.select(slice(0, given.xe_images))
    shape = (given.xe_images * per_image, given.length + 1)
    words = torch.randint(1, given.vocabulary - 1, shape, generator=generator)
    inputs = torch.cat([torch.zeros_like(words[:, :1]), words[:, :-1]], 1)
    batch = CaptionBatch(inputs, words, torch.ones_like(words, dtype=torch.bool))
    repeated = few.select(torch.arange(given.xe_images).repeat_interleave(per_image))

    def xe() -> None:
        updated("ours", cross_entropy(captioner, few, batch))

    def published_xe() -> None:
        logits = copy.readout(copy.hidden(repeated, inputs).values).log_softmax(-1)
        loss = functional.nll_loss(logits.flatten(0, 1), words.flatten())
        updated("twin", loss)

    xe(), published_xe()
    report(
        "XE step", cpu_seconds(xe, repeats), cpu_seconds(published_xe, repeats), "ours/twin <= 0.75"
    )

    some = features.select(slice(0, given.scst_images))
    copies = some.select(torch.arange(given.scst_images).repeat_interleave(per_image))

    def scst() -> None:
        with torch.no_grad():
            memory = captioner.encode(some)
            options = {"start": END, "end": END, "steps": given.length}
            said = roll_out(captioner, memory, drawn(), rows=per_image, **options).word_ids
            roll_out(captioner, memory, argmax, **options)
        said = said.flatten(0, 1)
        log_probs = caption_log_probs(captioner, some, said, start=END, end=END)
        updated("ours", self_critical_loss(log_probs, said, torch.ones(len(said)), end=END))

    def published_scst() -> None:
        twin.roll_out(copies, lambda p: torch.multinomial(p.detach().exp(), 1).squeeze(1))
        spoken = twin.spoken
        with torch.no_grad():
            twin.roll_out(copies, lambda p: p.argmax(-1))
        updated("twin", -spoken.mean())

    report(
        "SCST step",
        cpu_seconds(scst, repeats),
        cpu_seconds(published_scst, repeats),
        "ours/twin <= 0.25",
    )

    explained = features.select(slice(0, 4))
    ids = torch.randint(1, given.vocabulary - 1, (4, given.words + 1), generator=generator)

    def train() -> None:
        captioner.zero_grad()
        logits = captioner.readout(captioner.hidden(explained, ids[:, :-1]).values)
        functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()

    train()
    once = cpu_seconds(train, max(2, repeats))
    lrp = cpu_seconds(
        lambda: word_relevance(captioner, explained, ids, LRP, channels=False), max(2, repeats)
    )
    print(
        f"LRP of {given.words} words,{lrp:.4f},{once:.4f} (forward + backward),,"
        f"{lrp / once / given.words:.3f} a word,<= 0.25 a word"
    )


if __name__ == "__main__":
    main()
