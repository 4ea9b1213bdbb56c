"""Run time of every explainer per explained word: to the visual features, and on to the pixels.

Prints CPU seconds of the process, one thread, best of a few runs. Bars: Grad-CAM to the features in
0.01 s a word (captions one at a time); the image part of LRP, for all words of a caption, in
1.3 (T + 2) forward passes of the network (see also relevance_image.py and relevance_decoder.py).

    python benchmarks/explainers.py --captioner gridtd
    python benchmarks/explainers.py --captioner aoa --network small --size 128 --batch 16
"""

import argparse
import time
from collections.abc import Callable

import torch
import torchvision

from capscope.data.vocabulary import Vocabulary
from capscope.explain import EXPLAINERS, explainer_class
from capscope.explain.subject import Subject
from capscope.features.grid import GridExtractor
from capscope.features.small import SmallNetwork
from capscope.models import build

NETWORKS = {
    "vgg16": lambda: torchvision.models.vgg16(weights=None).features[:-1],
    "small": lambda: SmallNetwork([16, 32, 64, 64, 128, 128]),
}
LONG = 4.0  # seconds; what takes longer runs once


def cpu_seconds(function: Callable[[], object], repeats: int) -> float:
    best, left = float("inf"), repeats
    while left:
        start = time.process_time()
        function()
        taken = time.process_time() - start
        best, left = min(best, taken), 0 if taken > LONG else left - 1
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captioner", choices=("gridtd", "adaptive", "aoa"), default="gridtd")
    parser.add_argument("--network", choices=NETWORKS, default="vgg16")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--words", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=512, help="also the embedding")
    parser.add_argument("--vocabulary", type=int, default=9586)
    parser.add_argument("--steps", type=int, default=16, help="of integrated gradients")
    parser.add_argument("--explainers", nargs="+", choices=EXPLAINERS, default=list(EXPLAINERS))
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = NETWORKS[options.network]().eval()
    extractor = GridExtractor(options.network, network, options.size, layer="last")
    captioner = build(
        options.captioner,
        vocabulary_size=options.vocabulary,
        feature_size=extractor.dim,
        embedding=options.hidden,
        hidden=options.hidden,
    ).eval()
    words = tuple(map(str, range(options.vocabulary)))
    subject = Subject(captioner, Vocabulary(words, 0, 1, 2, 3), extractor)
    images = torch.randn(options.batch, 3, options.size, options.size)
    features = subject.look(images)
    word_ids = torch.randint(4, options.vocabulary, (options.batch, options.words))
    inputs, lengths = subject.inputs(word_ids), torch.full((options.batch,), options.words)
    forward = cpu_seconds(lambda: subject.look(images), options.repeats + 1)

    height, width = extractor.grid
    print(
        f"{options.captioner}, H = {options.hidden}, {options.network} at {options.size} pixels, "
        f"{height} x {width} cells, {options.batch} captions of {options.words} words"
    )
    print(f"one forward pass of the network {forward:.4f} s; CPU seconds a word, one thread")
    print(f"{'':22}{'features':>10}{'pixels':>10}   image part, forward passes")
    for name in options.explainers:
        method = explainer_class(name)(subject, steps=options.steps)

        def explain(seen: torch.Tensor | None) -> float:
            return cpu_seconds(
                lambda: method.explain(seen, features, inputs, lengths),  # noqa: B023
                options.repeats,
            )

        explain(None)  # warm
        to_features, to_pixels = explain(None), explain(images)
        count = options.batch * options.words
        passes = (to_pixels - to_features) / forward
        print(f"{name:22}{to_features / count:10.4f}{to_pixels / count:10.4f}{passes:12.1f}")
    print(f"{'bars':22}{0.01:10.4f} (gradcam){1.3 * (options.words + 2):15.1f} (lrp)")


if __name__ == "__main__":
    main()
