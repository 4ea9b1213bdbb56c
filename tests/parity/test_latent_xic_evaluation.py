"""The published "correlation" and ablation against the original program."""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from image_networks import ROOT, Golden
from latent_captioner import captions_of, latent_captioner

from capscope.benchmarks.latent_published import (
    Ablation,
    AblationType,
    InOrder,
    common_objects,
    compare_rank,
    random_positions,
    rank_score,
)
from capscope.explain.latent.objects import match_objects, objects_of_tags
from capscope.explain.latent.published import VARIANTS, variant_masks
from capscope.explain.latent.replacement import SIGMA, Constant, RejectionNoise
from capscope.features.regions import read_names
from capscope.features.visual import Features

NAMES = Path(os.environ.get("CAPSCOPE_DATA", ROOT / "../shared/data")) / "bu_tsv/objects_vocab.txt"
NOUNS = {
    *("man", "frisbee", "sign", "dog", "table", "boat", "water", "cat", "bed", "tree", "hot"),
    *("stop", "zorp", "bench", "kite"),
}
PLURALS = {"people", "trees"}
"""The table of tags that the fixtures were made with; all other words are JJ."""
TIE = 1e-9


def finder(caption: str) -> list[str]:
    tags = [
        (word, "NN" if word in NOUNS else "NNS" if word in PLURALS else "JJ")
        for word in caption.split()
    ]
    return objects_of_tags(tags)


def class_names() -> list[str]:
    if not NAMES.exists():
        pytest.skip(f"{NAMES} is not here (CAPSCOPE_DATA names another folder)")
    return read_names(str(NAMES))


def objects_by_image(golden: Golden) -> tuple[list[list[tuple[str, int]]], int]:
    """Return the common objects of each image with their references, and the non-common ones."""
    found, missing = [], 0
    for caption, ids in zip(
        captions_of(golden, "captions"), captions_of(golden, "classes"), strict=True
    ):
        common, gone = common_objects(match_objects(finder(caption), ids, class_names()))
        found.append([(one.name, one.reference) for one in common if one.reference is not None])
        missing += gone
    return found, missing


@pytest.mark.parametrize("method", ["lrp", "random"])
def test_rank_score_of_lrp_and_random(method: str) -> None:
    golden = Golden(f"latent_xic/correlation_{method}.npz")
    by_image, missing = objects_by_image(golden)
    what = captions_of(golden, "what")
    expected = golden.arrays["ref_rank_distance_similarity"]
    asked = [(image, *one) for image, found in enumerate(by_image) for one in found]
    assert [(one["image"], one["object"]) for one in what] == [one[:2] for one in asked]
    source = random.Random(golden.meta["python_random_seed"])
    features = golden.arrays["order"].shape[1]
    compared = []
    scores = Golden("latent_xic/lrp.npz")
    for row, (image, name, reference) in enumerate(asked):
        order = golden.arrays["order"][row].tolist()
        if method == "random":
            assert order == source.sample(range(features), features)
        else:
            said = captions_of(golden, "captions")[image].split()
            rows = [said.index(word) for word in name.split()]
            relevance = scores[f"scores_{image}"][rows].mean(0)
            ranked = relevance[order]
            assert (ranked[:-1] >= ranked[1:] - 1e-6 * relevance.abs().max()).all()
        compared.append(compare_rank(order, reference))
        np.testing.assert_allclose(compared[-1], expected[row], atol=1e-12)
    found = rank_score(compared, missing)
    summary = captions_of(Golden("latent_xic/correlation_summary.npz"), "metrics")[method]
    assert (found.common, found.non_common) == (summary["nb_common"], summary["nb_missing"])
    np.testing.assert_allclose(found.distance, summary["avg_distance"], rtol=1e-12)
    np.testing.assert_allclose(found.score, summary["score"], rtol=1e-12)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_rank_score_of_lime(name: str) -> None:
    golden = Golden(f"latent_xic/{name}.npz")
    by_image, _ = objects_by_image(golden)
    fits = iter(
        sorted(int(key.removesuffix("_what")) for key in golden.keys("fit") if "what" in key)
    )
    compared, missing = [], 0
    for image, (caption, ids) in enumerate(
        zip(captions_of(golden, "captions"), captions_of(golden, "classes"), strict=True)
    ):
        count = latent_captioner()[1].shape[1]
        if VARIANTS[name].masks == "objects" and variant_masks(name, count, ids) is None:
            continue
        missing += common_objects(match_objects(finder(caption), ids, class_names()))[1]
        for object_name, reference in by_image[image]:
            number = next(fits)
            what = json.loads(str(golden.arrays[f"fit{number}_what"]))
            assert (what["image"], what["object"]) == (image, object_name)
            found = compare_rank(golden.arrays[f"fit{number}_order"].tolist(), reference)
            assert found.reference == what["ref"]
            assert found.rank == what["rank"]
            assert found.distance == what["distance"]
            np.testing.assert_allclose(found.similarity, what["similarity"], rtol=1e-12)
            compared.append(found)
    assert next(fits, None) is None
    total = rank_score(compared, missing)
    summary = captions_of(Golden("latent_xic/correlation_summary.npz"), "metrics")[name]
    for expected in (summary, golden.meta):
        assert (total.common, total.non_common) == (expected["nb_common"], expected["nb_missing"])
        np.testing.assert_allclose(total.distance, expected["avg_distance"], rtol=1e-12)
        np.testing.assert_allclose(total.score, expected["score"], rtol=1e-12)


def ablations() -> list[str]:
    golden = Golden("latent_xic/ablation.npz")
    return [key.removesuffix("/calls") for key in golden.arrays.files if key.endswith("/calls")]


@pytest.mark.slow
def test_ablation_of_every_type_and_method() -> None:
    golden = Golden("latent_xic/ablation.npz")
    captioner, cells = latent_captioner()
    word_map = captions_of(Golden("latent_xic/model.npz"), "word_map")
    classes = captions_of(golden, "classes")
    explanations = captions_of(golden, "explanations")
    metrics = captions_of(golden, "metrics")
    names = sorted({name for by_image in explanations.values() for name in by_image})
    images = [f"{number:0{len(Path(names[0]).stem)}d}.jpg" for number in range(1, len(cells) + 1)]
    assert set(names) <= set(images)
    for tag in ablations():
        method, kind = tag.split("/")[0], AblationType.parse(tag.split("/")[1])
        assert str(kind) == tag.split("/")[1]
        ablation = Ablation(
            captioner,
            word_map,
            finder,
            kind,
            golden["bounds_min"],
            golden["bounds_max"],
            float(golden["max_fill"]),
            np.random.RandomState(golden.meta["numpy_seed"]),
        )
        source = random.Random(golden.meta["python_random_seed"])
        given = explanations.get(method, explanations["lrp"])
        said = []
        for number, image in enumerate(images):
            asked = []
            for entry in given.get(image, []):
                ((name, order),) = entry.items()
                if method.startswith("random"):
                    positions = random_positions(kind, cells.shape[1], classes[number], source)
                else:
                    positions = kind.positions(order, classes[number])
                asked.append((name, positions))
                if name not in word_map:  # the original draws no further
                    break
            said += ablation.image(Features(cells[[number]]), asked)
        calls = captions_of(golden, f"{tag}/calls")
        assert [one.positions for one in said] == [call["pos"] for call in calls], tag
        assert [one.caption for one in said] == [call["sentence"] for call in calls], tag
        found = ablation.figures.to_json()
        for name, expected in metrics[tag].items():
            assert found[name] == pytest.approx(expected, abs=1e-4 if name == "avg_drop" else 0)


def test_ablated_features_are_those_that_reach_the_decoder() -> None:
    golden = Golden("latent_xic/ablation.npz")
    captioner, cells = latent_captioner()
    with torch.no_grad():
        latent = captioner.project(Features(cells))
    torch.testing.assert_close(latent, golden["unperturbed_projected"], rtol=0, atol=1e-6)
    tags = [key.removesuffix("/projected") for key in golden.arrays.files if "/projected" in key]
    assert tags
    for tag in tags:
        magnitude = AblationType.parse(tag.split("/")[1]).magnitude
        expected = golden[f"{tag}/projected"]
        calls = captions_of(golden, f"{tag}/calls")[: len(expected)]
        positions = [call["pos"] for call in calls]
        masks = torch.zeros(expected.shape[:2], dtype=torch.bool)
        for row, chosen in zip(masks, positions, strict=True):
            row[chosen] = True
        state = np.random.RandomState(golden.meta["numpy_seed"])
        noise = RejectionNoise(SIGMA, golden["bounds_min"], golden["bounds_max"], state)
        replace = {
            "min": Constant(0.0),
            "max": Constant(float(golden["max_fill"])),
            "15": InOrder(noise, positions),
        }[magnitude]
        found = replace(latent[:1].expand(len(expected), -1, -1), masks)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
