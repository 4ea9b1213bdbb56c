"""The seven LIME variants against the original program: masks, log-probabilities, fits, ranks."""

import json

import numpy as np
import pytest
import torch
from image_networks import Golden
from latent_captioner import captions_of, latent_captioner, numbers

from capscope.explain.latent.masks import subsets, up_to_pairs
from capscope.explain.latent.objects import by_class
from capscope.explain.latent.perturbed import Perturbed
from capscope.explain.latent.published import (
    BEAM,
    STEPS,
    VARIANTS,
    fit_variant,
    order_of,
    variant_masks,
    word_target,
)
from capscope.explain.latent.replacement import SIGMA, Constant, RejectionNoise, Replacement
from capscope.features.visual import Features

ABSOLUTE = 1e-5
TIE = 1e-9


@pytest.fixture(scope="module", params=list(VARIANTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def golden(name: str) -> Golden:
    return Golden(f"latent_xic/{name}.npz")


def masks_of(golden: Golden, image: str) -> torch.Tensor:
    return golden["masks" if "masks" in golden else f"masks_{image}"].bool()


def test_masks_are_the_published_ones(name: str, golden: Golden) -> None:
    classes = captions_of(golden, "classes")
    explained = set(numbers(golden, "outprobs_"))
    _, cells = latent_captioner()
    for image, class_ids in enumerate(classes):
        found = variant_masks(name, cells.shape[1], class_ids)
        assert (found is not None) == (str(image) in explained)
        if found is None:
            continue
        expected = masks_of(golden, str(image))
        if VARIANTS[name].masks == "drawn":  # the published ones were drawn once and kept
            assert found.shape == expected.shape
            assert (found.sum(1) == expected.sum(1)).all()
        else:
            assert torch.equal(found, expected)


@pytest.mark.slow
def test_log_probabilities_and_captions_of_every_perturbation(name: str, golden: Golden) -> None:
    captioner, cells = latent_captioner()
    word_map = captions_of(Golden("latent_xic/model.npz"), "word_map")
    words = {word_id: word for word, word_id in word_map.items()}
    special = {word_map[f"<{kind}>"] for kind in ("pad", "start", "end", "unk")}
    if VARIANTS[name].magnitude == "15":
        bounds = Golden("latent_xic/ablation.npz")
        state = np.random.RandomState(golden.meta["numpy_seed"])
        replace: Replacement = RejectionNoise(
            SIGMA, bounds["bounds_min"], bounds["bounds_max"], state
        )
    else:
        replace = Constant(0.0)
    said = []
    for image in sorted(numbers(golden, "outprobs_"), key=int):
        perturbed = Perturbed(captioner, Features(cells[[int(image)]]), replace)
        found = perturbed.search(
            masks_of(golden, image),
            start=word_map["<start>"],
            end=word_map["<end>"],
            beam=BEAM,
            steps=STEPS,
        )
        expected = golden[f"outprobs_{image}"]
        torch.testing.assert_close(found.log_probs, expected, rtol=0, atol=ABSOLUTE)
        said += [
            " ".join(words[one] for one in caption if one not in special)
            for caption in found.captions
        ]
    assert said == captions_of(golden, "beam_sentences_in_call_order")


def test_noise_is_drawn_number_by_number() -> None:
    golden, bounds = Golden("latent_xic/lime3.npz"), Golden("latent_xic/ablation.npz")
    captioner, cells = latent_captioner()
    state = np.random.RandomState(golden.meta["numpy_seed"])
    replace = RejectionNoise(SIGMA, bounds["bounds_min"], bounds["bounds_max"], state)
    (key,) = golden.keys("projected_after_noise_first")
    expected = golden[f"projected_after_noise_first{key}"]
    with torch.no_grad():
        latent = captioner.project(Features(cells[:1]))
    count = len(expected)
    found = replace(latent.expand(count, -1, -1), golden["masks"][:count].bool())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_fits_and_orders(name: str, golden: Golden) -> None:
    word_map = captions_of(Golden("latent_xic/model.npz"), "word_map")
    fits = [key for key in golden.keys("fit") if key.endswith("_what")]
    assert fits
    for key in fits:
        number = key.removesuffix("_what")
        what = json.loads(str(golden.arrays[f"fit{key}"]))
        image = str(what["image"])
        ids = [word_map[word] for word in what["object"].split()]
        y = word_target(golden[f"outprobs_{image}"], ids)
        stored = golden.arrays[f"fit{number}_y"]
        np.testing.assert_allclose(y, stored, rtol=0, atol=ABSOLUTE)
        masks = masks_of(golden, image)
        found = fit_variant(masks, stored[:, None])
        coefficients = golden.arrays[f"fit{number}_coef"]
        np.testing.assert_allclose(found.coefficients[0], coefficients, rtol=0, atol=1e-9)
        intercept = golden.arrays[f"fit{number}_intercept"]
        np.testing.assert_allclose(found.intercepts[0], intercept, rtol=0, atol=1e-9)
        order = order_of(coefficients, "original")
        expected = golden.arrays[f"fit{number}_order"]
        assert (np.abs(coefficients[order] - coefficients[expected]) <= TIE).all()
        turned = coefficients[order_of(coefficients)]
        assert (np.diff(turned) >= 0).all()


def test_objects_are_the_classes_with_the_lowest_ids() -> None:
    golden = Golden("latent_xic/lime_5obj.npz")
    classes = captions_of(golden, "classes")
    _, cells = latent_captioner()
    for image in numbers(golden, "masks_"):
        groups = by_class(classes[int(image)], cells.shape[1])
        chosen = torch.stack([groups[one] for one in sorted(groups)[:5]])
        assert torch.equal(subsets(chosen), golden[f"masks_{image}"].bool())


def test_pairs_of_all_features() -> None:
    golden = Golden("latent_xic/lime1.npz")
    masks = golden["masks"].bool()
    assert torch.equal(up_to_pairs(masks.shape[1]), masks)
