"""The published evaluation of explanations: ablation, correctness, true and hallucinated words."""

import csv
import json
import re
from collections import defaultdict

import numpy as np
import pytest
import torch
from image_networks import Golden
from original_captioners import close
from original_maps import METHODS, Evaluated
from torch import Tensor

from capscope.benchmarks.ablation import (
    Deleted,
    ablate_patches,
    ablate_words,
    most_relevant_inputs,
    patch_masks,
)
from capscope.benchmarks.correctness import (
    THRESHOLDS,
    box_scores,
    published_box_scores,
    published_correctness,
)
from capscope.benchmarks.hallucination import looked_at_image, statistics
from capscope.benchmarks.places import boxes_on
from capscope.benchmarks.probability import word_probabilities
from capscope.benchmarks.published import (
    EARLIEST_PATCHES,
    EARLIEST_WORDS,
    QUANTILES,
    STOP,
    kind_of,
    random_control,
    summarise_ablation,
    true_word,
    word_forms,
)
from capscope.data.wordlists import object_words
from capscope.decoding.beam import beam_search
from capscope.features.visual import Features
from capscope.metrics.frequent import FREQUENT_WORDS

PROBABILITY = 1e-4  # stated in the fixtures' README
MAP = 1e-4
BEAMS = {"lrp": 2}  # the other classes caption with 3
RECAPTION_BEAM = 3
LONGEST = 50


@pytest.fixture(scope="module", params=["evaluation.npz", "evaluation2.npz"])
def evaluated(request: pytest.FixtureRequest) -> Evaluated:
    return Evaluated(request.param)


@pytest.fixture(scope="module")
def first() -> Evaluated:
    return Evaluated("evaluation.npz")


def caption(evaluated: Evaluated, features: Features, beam: int) -> list[list[int]]:
    found = beam_search(
        evaluated.captioner,
        features,
        start=evaluated.start,
        end=evaluated.end,
        beam=beam,
        max_length=LONGEST,
        parity=True,
    )
    return [[i for i in best[0].word_ids if i not in evaluated.special] for best in found]


def test_the_explained_captions_come_from_published_beam_search(evaluated: Evaluated) -> None:
    features = evaluated.features(evaluated.images)
    names = [name.split(".") for name in evaluated.golden.keys("caption.")]
    assert {method.removesuffix("neg") for method, _ in names} == set(METHODS)
    found = {beam: caption(evaluated, features, beam) for beam in {*BEAMS.values(), RECAPTION_BEAM}}
    for method, image in names:
        ours = found[BEAMS.get(method.removesuffix("neg"), RECAPTION_BEAM)][int(image)]
        expected = evaluated.golden[f"caption.{method}.{image}"].tolist()
        assert [evaluated.start, *ours] == expected


def test_the_maps_and_states_that_are_judged() -> None:
    evaluated = Evaluated("evaluation2.npz")
    for key in evaluated.golden.keys("map."):
        method, image = key.split(".")
        explained = evaluated.explained(int(image), method)
        found = explained.cam if method == "GradCam" else explained.maps.mean(1)
        close(found, evaluated.golden[f"map.{key}"], MAP)
    for image in range(len(evaluated.images)):
        explained = evaluated.explained(image, "lrp")
        assert explained.found.attention is not None
        close(explained.found.attention[0], evaluated.golden[f"alphas.{image}"], MAP)
        close(beta(evaluated, image, "lrp"), evaluated.golden[f"betas.{image}"], MAP)


def beta(evaluated: Evaluated, image: int, method: str) -> Tensor:
    """Return the weight of the sentinel for each word, (T,)."""
    explained, captioner = evaluated.explained(image, method), evaluated.explainer(method)
    looked = looked_at_image(captioner, explained.features, explained.word_ids[None, :-1])
    assert looked is not None
    return 1 - looked


# Ablation


def test_block_masks(first: Evaluated) -> None:
    relevance, meta = first.golden["toy.relevance"], first.golden.meta
    names = first.golden.keys("toy.block_mask")
    assert names
    for name in names:
        count = int(name.lstrip("_") or meta["num_delete_patches"])
        found = patch_masks(relevance[None], len(relevance), meta["patch_size"], count)[0]
        assert torch.equal(found.float(), first.golden[f"toy.block_mask{name}"])


def drawn_for(first: Evaluated, image: int):
    height, width = first.images.shape[-2:]
    seed = first.golden.meta["seed"] + image
    return random_control(first.spoken(image, "lrp"), height, width, seed)


def test_the_random_control_draws_what_the_original_drew(first: Evaluated) -> None:
    drawn, meta = Golden("lrp_ic/ablation_random.npz"), first.golden.meta
    for image in range(len(first.images)):
        control = drawn_for(first, image)
        assert drawn.meta["seeds"][f"img{image}"] == meta["seed"] + image
        stored = drawn.keys(f"img{image}.")
        ids = drawn[f"img{image}.caption_ids"]
        assert torch.equal(ids, first.golden[f"caption.lrp.{image}"])
        for name in stored:
            match = re.fullmatch(r"t(\d+)\.(\w+)", name)
            if match is None:
                assert name == "caption_ids"
                continue
            word, expected = int(match[1]), drawn[f"img{image}.{name}"]
            if match[2] == "permutation":
                assert control.maps[word].flatten().tolist() == expected.tolist()
            elif match[2] == "mask":
                found = patch_masks(
                    control.maps[word][None],
                    len(expected),
                    meta["patch_size"],
                    meta["num_delete_patches"],
                )
                assert torch.equal(found[0], expected.bool())
            else:
                assert control.deleted[word] == expected.tolist()
        words = {int(name[1:].split(".")[0]) for name in stored if name.startswith("t")}
        assert words == set(control.maps) | set(control.deleted)
        calls = [(call["t"], call["kind"]) for call in drawn.meta["calls"][f"img{image}"]]
        ours = [(t, "image") for t in control.maps] + [(t, "word") for t in control.deleted]
        assert calls == sorted(ours)


def lost_with_patches(
    first: Evaluated, method: str, image: int, maps: dict[int, Tensor]
) -> dict[int, float | None]:
    """Return what object words lose when the largest patches of their maps are masked."""
    meta, ids = first.golden.meta, first.golden[f"caption.{method}.{image}"].tolist()
    captioner, features = first.explainer(method), first.features(first.images[image : image + 1])
    positions = list(maps)
    picture = first.images[image].expand(len(positions), -1, -1, -1)
    masks = patch_masks(
        torch.stack(list(maps.values())),
        picture.shape[-1],
        meta["patch_size"],
        meta["num_delete_patches"],
    )
    asked = [ids[t + 1] for t in positions]
    before = word_probabilities(
        captioner,
        lambda rows: features.select(torch.zeros(rows.stop - rows.start, dtype=torch.long)),
        [ids[: t + 1] for t in positions],
        asked,
    )
    after = ablate_patches(
        picture,
        masks,
        asked,
        first.start,
        captioner,
        first.features,
        lambda changed: caption(first, changed, RECAPTION_BEAM),
    )
    losses = zip(positions, before.tolist(), after, strict=True)
    return {t: None if new is None else old - new for t, old, new in losses}


def lost_with_words(
    first: Evaluated, method: str, image: int, deleted: list[Deleted]
) -> dict[int, float]:
    ids = first.golden[f"caption.{method}.{image}"].tolist()
    features = first.features(first.images[image : image + 1])
    found = ablate_words(first.explainer(method), features, ids, deleted)
    return {one.position: loss for one, loss in zip(deleted, found, strict=True)}


@pytest.mark.slow
def test_every_ablation_of_the_original(first: Evaluated) -> None:
    files = first.files("ablation.")
    assert files
    for key, method, image, ending in files:
        (expected,) = json.loads(str(first.golden.arrays[key]))
        kind = ending.removesuffix("_ablation")
        spoken, explained = first.spoken(image, method), first.explained(image, method)
        objects = [
            t
            for t, word in enumerate(spoken)
            if t >= EARLIEST_PATCHES and word_forms(word) & object_words()
        ]
        kinds = {t: kind_of(word) for t, word in enumerate(spoken) if t >= EARLIEST_WORDS}
        if kind == "random":
            control = drawn_for(first, image)
            maps = control.maps
            deleted = [Deleted(t, tuple(places)) for t, places in control.deleted.items()]
        else:
            judged = (explained.attention if kind == "attention" else explained.maps).mean(1)
            maps = {t: judged[t] for t in objects}
            words = explained.found.words[0]
            deleted = [most_relevant_inputs(words, t) for t, found in kinds.items() if found]
        assert list(maps) == objects
        lost = lost_with_patches(first, method, image, maps)
        gone, kept = (next(iter(entry.values())) for entry in expected["image_ablation"])
        assert gone == [[str(t), spoken[t]] for t, loss in lost.items() if loss is None]
        rest = {t: loss for t, loss in lost.items() if loss is not None}
        assert [entry[:2] for entry in kept] == [[str(t), spoken[t]] for t in rest]
        agree([entry[2] for entry in kept], list(rest.values()))
        if kind == "attention":
            assert "words_ablation" not in expected
            continue
        losses = lost_with_words(first, method, image, deleted)
        stops, others = (next(iter(entry.values())) for entry in expected["words_ablation"])
        for theirs, stop in ((stops, True), (others, False)):
            ours = {t: loss for t, loss in losses.items() if (kinds[t] == STOP) == stop}
            assert list(theirs) == [str(t) for t in ours]
            agree([value for (value,) in theirs.values()], list(ours.values()))


def agree(expected: list[float], found: list[float]) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=PROBABILITY)


def test_the_summary_of_the_ablations(first: Evaluated) -> None:
    stored: dict[str, list[list]] = defaultdict(lambda: [[], [], []])
    for key, _, _, ending in first.files("ablation."):
        (entry,) = json.loads(str(first.golden.arrays[key]))
        stops, objects, patches = stored[ending.removesuffix("_ablation")]
        gone, kept = (next(iter(part.values())) for part in entry["image_ablation"])
        patches += [None] * len(gone) + [loss for _, _, loss in kept]
        for part, losses in zip(entry.get("words_ablation", []), (stops, objects), strict=False):
            losses += [loss for values in next(iter(part.values())).values() for loss in values]
    lines = list(csv.reader(str(first.golden.arrays["agg.ablation_csv"]).split()))
    assert len(lines) == 3 * len(stored)
    for counts, shares, means in zip(*(lines[start::3] for start in range(3)), strict=True):
        summary = summarise_ablation(*stored[shares[0]])
        cases = [summary.cases[0], summary.cases[1], summary.cases[2], summary.cases[2]]
        assert [int(count) for count in counts[1:]] == cases
        expected = [*summary.not_raised, summary.disappeared]
        np.testing.assert_allclose([float(cell) for cell in shares[1:]], expected, atol=1e-9)
        np.testing.assert_allclose([float(cell) for cell in means[1:]], summary.drop, atol=1e-9)


# Correctness


def test_overlap_with_boxes_as_published_and_as_meant(first: Evaluated) -> None:
    golden = first.golden
    relevance, boxes = golden["toy.map"], golden["toy.boxes"]
    found = published_box_scores(relevance, boxes.tolist())
    agree(golden["toy.overlap_as_original_inplace"], found)
    height, width = relevance.shape
    shares = boxes / torch.tensor([width, height, width, height])
    meant = box_scores(relevance[None], boxes_on(shares, relevance.shape, None))[0]
    agree(golden["toy.overlap_fresh_copy"], meant)


def test_the_correctness_of_every_method(evaluated: Evaluated) -> None:
    entities = json.loads(str(evaluated.golden.arrays["category_dict"]))
    files = evaluated.files("bbox.")
    assert files
    for key, method, image, ending in files:
        stored = json.loads(str(evaluated.golden.arrays[key]))
        name = next(name for name in entities if name in key)
        judged = ending.removesuffix("correctness").rstrip("_")
        explained = evaluated.explained(image, method.removesuffix("neg"))
        found = published_correctness(
            explained.attention if judged == "attention" else explained.maps,
            evaluated.spoken(image, explained.method),
            entities[name],
            negative=judged.endswith("neg"),
        )
        assert list(stored) == [name]
        assert list(found) == list(stored[name])
        for category, scores in stored[name].items():
            assert [float(threshold) for threshold in scores] == list(THRESHOLDS)
            agree(list(scores.values()), found[category].tolist())


def test_the_mean_correctness_of_every_method(first: Evaluated) -> None:
    scores: dict[str, list[list[float]]] = defaultdict(list)
    for key, _, _, ending in first.files("bbox."):
        judged = ending.removesuffix("correctness").rstrip("_")
        for categories in json.loads(str(first.golden.arrays[key])).values():
            scores[judged] += [list(category.values()) for category in categories.values()]
    head, *lines = csv.reader(str(first.golden.arrays["agg.correctness_csv"]).split())
    assert [float(threshold) for threshold in head[1:]] == list(THRESHOLDS)
    assert {line[0] for line in lines} == set(scores)
    for name, *cells in lines:
        np.testing.assert_allclose([float(c) for c in cells], np.mean(scores[name], 0), atol=1e-9)


# True and hallucinated words


def test_statistics_of_true_and_hallucinated_words(evaluated: Evaluated) -> None:
    prefix = "tpfp2." if evaluated.golden.keys("tpfp2.") else "tpfp."
    files = evaluated.files(prefix)
    assert files
    for key, method, image, ending in files:
        records = json.loads(str(evaluated.golden.arrays[key]))
        judged, outcome = re.fullmatch(r"(\w+)_(TP|FP)_statistics", ending).groups()
        places = frequent_places(evaluated, method, image, true=outcome == "TP")
        spoken = evaluated.spoken(image, method)
        assert [record["word"] for record in records] == [spoken[t] for t in places]
        if not places:
            continue
        if judged == "beta":
            found = 1 - beta(evaluated, image, method)[places]
            agree([float(record["1-beta"]) for record in records], found.tolist())
            continue
        explained = evaluated.explained(image, method)
        maps = (explained.attention if judged == "attention" else explained.maps).mean(1)
        found = statistics(maps[places], QUANTILES)
        largest = maps.abs().max()
        for row, record in enumerate(records):
            for name in set(record) - {"word", "quantile"}:
                close_to(float(record[name]), float(found[name][row]), largest)
            for value, share in zip(record["quantile"], QUANTILES, strict=True):
                close_to(float(value), float(found[f"quantile {share:g}"][row]), largest)


def close_to(expected: float, found: float, largest: Tensor) -> None:
    assert abs(found - expected) <= 1e-5 * float(largest) + 1e-12


def frequent_places(evaluated: Evaluated, method: str, image: int, true: bool) -> list[int]:
    """Return where a caption says frequent words that are true (or hallucinated)."""
    word_ids = evaluated.golden[f"caption.{method}.{image}"].tolist()[1:]
    frequent = [t for t, i in enumerate(word_ids) if evaluated.words[i] in PUBLISHED_LIST]
    if "all_caps" not in evaluated.golden:  # no references are stored: nothing is hallucinated
        return frequent if true else []
    references = evaluated.golden["all_caps"][image].tolist()
    return [t for t in frequent if true_word(word_ids[t], references) == true]


PUBLISHED_LIST = FREQUENT_WORDS["flickr30k"]


def test_the_stored_references_are_those_that_words_are_looked_up_in() -> None:
    evaluated = Evaluated("evaluation2.npz")
    stored = json.loads(str(evaluated.golden.arrays["references"]))
    for texts, rows in zip(stored, evaluated.golden["all_caps"].tolist(), strict=True):
        said = [[evaluated.words[i] for i in row if i not in evaluated.special] for row in rows]
        assert [" ".join(words) for words in said] == texts
