"""Batched beam search against a naive twin, in one run: CPU time of the process, one thread.

The naive twin captions one image at a time, feeds the whole prefix of every hypothesis at each
step and projects the image anew for it. Both must find the same captions. Then 100 images are
captioned from stored features, in captions that never end early, beside the published program's
time for one image (0.49 s on another machine; the bar is 8 times its rate).

    OMP_NUM_THREADS=1 python benchmarks/beam_search.py --images 32 --beam 3
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.beam import beam_search
from capscope.decoding.captions import caption_split
from capscope.features.store import FeatureStore, create_store
from capscope.features.visual import Features
from capscope.files import write_manifest
from capscope.models.captioner import Captioner
from capscope.models.gridtd import GridTD

START, END = 1, 2
PUBLISHED = 0.49  # seconds an image: beam 3, 20 steps, H = 1024, 36 regions, V = 9586
STORED = 100


def naive_beam_search(
    captioner: Captioner, features: Features, beam: int, max_length: int
) -> tuple[int, ...]:
    """Caption one image (B = 1) by the rules of `beam_search`, as one would write them down."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    completed: list[tuple[float, tuple[int, ...]]] = []
    for t in range(max_length + 1):
        prefixes = torch.tensor([[START, *words] for _, words in live])
        rows = Features(features.cells.expand(len(live), -1, -1))
        hidden = captioner.hidden(rows, prefixes).values[:, -1:]
        log_probs = captioner.readout(hidden)[:, 0].log_softmax(-1)
        if t == max_length:
            log_probs[:, :END] = log_probs[:, END + 1 :] = -torch.inf
        totals = log_probs + torch.tensor([[total] for total, _ in live])
        values, places = totals.flatten().topk(2 * beam)
        ranked = [
            (value, (*live[place // totals.shape[1]][1], place % totals.shape[1]))
            for value, place in zip(values.tolist(), places.tolist(), strict=True)
        ]
        completed += [c for c in ranked[:beam] if c[1][-1] == END]
        live = [c for c in ranked if c[1][-1] != END][:beam]
        if completed and max(completed)[0] >= live[0][0]:
            break
    return max(completed)[1][:-1]


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    """Return the best CPU time of several calls."""
    times = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        times.append(time.process_time() - begun)
    return min(times)


def stored(folder: Path, regions: int, size: int) -> FeatureStore:
    """Write and open features of `STORED` images."""
    attributes = {"grid": [regions, 1], "network": "random"}
    with create_store(
        folder, range(STORED), cells=regions, dim=size, dtype="float16", attributes=attributes
    ) as writer:
        writer.append(torch.randn(STORED, regions, size).relu())
    write_manifest(folder, "features", params={})
    return FeatureStore.open(folder)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {
        "images": 32,
        "beam": 3,
        "length": 20,
        "regions": 36,
        "features": 2048,
        "hidden": 1024,
        "embedding": 512,
        "vocabulary": 9586,
        "naive-images": 2,
        "repeats": 2,
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
    ).eval()
    captioner.words.weight.mul_(8.0)  # peaked, as after training
    features = Features(torch.randn(given.images, given.regions, given.features).relu())

    def ours(images: slice) -> list[tuple[int, ...]]:
        found = beam_search(
            captioner,
            features.select(images),
            start=START,
            end=END,
            beam=given.beam,
            max_length=given.length,
        )
        return [hypotheses[0].word_ids for hypotheses in found]

    def naive(image: int) -> tuple[int, ...]:
        alone = features.select(slice(image, image + 1))
        return naive_beam_search(captioner, alone, given.beam, given.length)

    some = range(given.naive_images)
    assert ours(slice(0, len(some))) == [naive(image) for image in some], "captions differ"
    batched = cpu_seconds(lambda: ours(slice(None)), given.repeats) / given.images
    single = cpu_seconds(lambda: [ours(slice(i, i + 1)) for i in some], given.repeats) / len(some)
    twin = cpu_seconds(lambda: [naive(i) for i in some], given.repeats) / len(some)
    print("search,images,seconds_per_image,naive_over_this")
    for name, images, seconds in (
        ("batched", given.images, batched),
        ("batched", 1, single),
        ("naive", 1, twin),
    ):
        print(f"{name},{images},{seconds:.4f},{twin / seconds:.1f}")

    captioner.words.bias[END] = -1e4  # no caption ends early
    words = ("<pad>", "<start>", "<end>", "<unk>", *(f"w{i}" for i in range(4, given.vocabulary)))
    vocabulary = Vocabulary(words, pad=0, start=START, end=END, unk=3)
    settings = {"beam": given.beam, "max_length": given.length - 1, "batch_size": STORED}
    with tempfile.TemporaryDirectory() as name:
        store = stored(Path(name), given.regions, given.features)
        ids = list(range(STORED))
        seconds = cpu_seconds(
            lambda: list(caption_split(captioner, store, ids, vocabulary, settings)), 1
        )
    print(f"{STORED} images from stored features: {seconds / STORED:.4f} s an image, ", end="")
    print(f"{PUBLISHED * STORED / seconds:.1f} times the published rate (bar 8)")


if __name__ == "__main__":
    main()
