"""Measure the rates that `capscope plan` estimates with, at the sizes of a data set's parameters.

    python benchmarks/rates.py --params config/coco2014.yaml --system gridtd >> rates.csv

Features and references are random, of the real sizes; weights are untrained, so captions are as
long as they may be. On a CPU: CPU time on one thread. On a GPU: seconds, everything waited for.
"""

import argparse
import csv
import resource
import sys
import time
from pathlib import Path

import torch
from training_steps import corpus_of

from capscope.data.vocabulary import Vocabulary
from capscope.decoding.captions import caption_images
from capscope.explain import explainer_class
from capscope.explain.subject import Subject
from capscope.features.classifier import cut
from capscope.features.device import compute_device
from capscope.features.grid import GridExtractor
from capscope.features.store import grid_boxes
from capscope.features.visual import Features
from capscope.models import build, configure
from capscope.params import load_params
from capscope.planning import COLUMNS, WORDS
from capscope.training.computation import Computation
from capscope.training.loop import Recipe
from capscope.training.optimisers import build_optimiser
from capscope.training.stages import build_stage

ROOT = Path(__file__).resolve().parents[1]
REGION_SIZE = 2048
VOCABULARY = 9500
IMAGES = 500


def seconds(device, function, repeats):
    """Return the least time of several calls, after one that does not count."""
    function()
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(repeats):
        begun = clock()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - begun)
    return min(times)


def memory_mb(device):
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated() / 1e6)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def network_of(settings):
    """Return the image network of a grid, with random weights."""
    network = cut(settings["network"], settings["layer"], settings["pool"])
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0, 0.02)
    return GridExtractor(settings["network"], network, settings["image_size"], layer="last")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--params", type=Path, nargs="+", required=True)
    parser.add_argument("--system", required=True)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = compute_device()
    params = load_params([ROOT / "params.yaml", *given.params])
    settings = params["systems"][given.system]
    kind, name = settings["features"], settings["captioner"]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    files = " ".join(str(path) for path in given.params)
    command = f"python benchmarks/rates.py --params {files} --system {given.system}"
    title = "cpu" if device.type == "cpu" else torch.cuda.get_device_name().lower()

    def print_rate(step, unit, rate, numbers):
        place = (title, params["dataset"]["name"], given.system, step, unit)
        cells = (*place, f"{rate:.4g}", memory_mb(device), numbers, command)
        assert len(cells) == len(COLUMNS)
        writer.writerow(cells)
        sys.stdout.flush()

    extractor, side = None, params["features"][kind]["image_size"]
    count, size = params["features"]["regions"]["regions"], REGION_SIZE
    if kind == "grid":
        extractor = network_of(params["features"]["grid"]).to(device)
        count, size = extractor.grid[0] * extractor.grid[1], extractor.dim
        images = torch.randn(4, 3, side, side, device=device)
        with torch.inference_mode():
            spent = seconds(device, lambda: extractor(images), given.repeats)
        print_rate("features", "image", len(images) / spent, count * size)

    words = ("<pad>", *(f"w{i}" for i in range(1, VOCABULARY - 3)), "<unk>", "<start>", "<end>")
    ends = {"start": VOCABULARY - 2, "end": VOCABULARY - 1, "unk": VOCABULARY - 3}
    vocabulary = Vocabulary(words, pad=0, **ends)
    sizes = configure(name, kind, settings["model"], count, 0)
    captioner = build(name, vocabulary_size=VOCABULARY, feature_size=size, **sizes)
    computation = Computation(device=device)
    computation.prepare(captioner)
    boxes = torch.rand(IMAGES, count, 4)
    if extractor is not None:
        boxes = grid_boxes(extractor.grid).expand(IMAGES, -1, -1)
    features = Features(torch.randn(IMAGES, count, size), boxes).to(device)
    corpus = corpus_of(IMAGES, WORDS, vocabulary, features)
    weights = sum(parameter.numel() for parameter in captioner.parameters())
    for stage_name in ("xe", "scst", "lrp_xe", "lrp_scst"):
        if stage_name not in settings:
            continue
        recipe, own = Recipe.split(settings[stage_name])
        stage = build_stage(stage_name, captioner.train(), corpus, own)
        optimiser = build_optimiser(captioner, recipe)
        for group in optimiser.param_groups:
            group["lr"] = 0.0
        batch = stage.batches(recipe.batch_size, seed=0, epoch=0)[0]
        trained = list(captioner.parameters())

        def step(stage=stage, optimiser=optimiser, batch=batch, trained=trained):
            optimiser.zero_grad(set_to_none=True)
            computation.gradients(stage, batch, trained)
            optimiser.step()

        spent = seconds(device, step, given.repeats)
        print_rate(stage_name, stage.unit, len(batch) / spent, weights)
    captioner.eval()
    some = features.select(slice(0, 8))
    spent = seconds(
        device,
        lambda: caption_images(captioner, some, vocabulary, params["decoding"]),
        given.repeats,
    )
    print_rate("decode", "image", 8 / spent, weights)
    if extractor is not None and device.type == "cpu":
        method = explainer_class("lrp")(Subject(captioner, vocabulary, extractor))
        images = torch.randn(1, 3, side, side)
        ids = torch.full((1, WORDS), 7)
        inputs = method.subject.inputs(ids)
        lengths = torch.tensor([WORDS])
        spent = seconds(
            device,
            lambda: method.explain(images, method.subject.look(images), inputs, lengths),
            given.repeats,
        )
        maps = count + WORDS + params["explanations"]["map_size"] ** 2
        print_rate("relevance", "caption", 1 / spent, maps)


if __name__ == "__main__":
    main()
