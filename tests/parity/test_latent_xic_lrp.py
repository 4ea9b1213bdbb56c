"""Latent LRP against the original program: states, relevance of every word, and each fix."""

import numpy as np
import pytest
import torch
from image_networks import Golden
from latent_captioner import captions_of, latent_captioner, numbers

from capscope.decoding.beam import beam_search
from capscope.features.visual import Features
from capscope.relevance.backward import word_relevance
from capscope.relevance.recursion_latent import FIXES, LatentTrace, latent_lrp
from capscope.relevance.rules import LRP

STATES = {
    "predictions": "logits",
    "alphas": "alpha",
    "betas": "beta",
    "h1t": "h1",
    "c1t": "c1",
    "h2t": "h2",
    "c2t": "c2",
    "st": "sentinel",
    "context": "context",
    "context_hat": "mixed",
}
RELATIVE = 1e-4


def close_by_word(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare the scores of each word, relative to the largest of the word."""
    scale = expected.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=RELATIVE)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    found = found.reshape(expected.shape)
    scale = float(expected.abs().max()) or 1.0
    torch.testing.assert_close(found, expected, rtol=0, atol=RELATIVE * scale)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden("latent_xic/lrp.npz")


def traced(golden: Golden, image: str, fixes: tuple[str, ...] = ()) -> LatentTrace:
    captioner, cells = latent_captioner()
    epsilon = Golden("latent_xic/lrp.npz").meta["epsilon"]
    ids = Golden("latent_xic/lrp.npz")[f"cap_ids_{image}"]
    return latent_lrp(captioner, cells[int(image)], ids, epsilon, fixes)


def test_states_of_every_step(golden: Golden) -> None:
    for image in numbers(golden, "cap_ids_"):
        found = traced(golden, image)
        for theirs, ours in STATES.items():
            close(getattr(found.moments, ours), golden[f"{theirs}_{image}"])
        for theirs, z in (("1", found.moments.z1), ("2", found.moments.z2)):
            i, f, g, _ = z.chunk(4, dim=1)
            close(g, golden[f"g{theirs}t_{image}"])
            close(i.sigmoid(), golden[f"i{theirs}t_act_{image}"])
            close(f.sigmoid(), golden[f"f{theirs}t_act_{image}"])
        close(found.average, golden[f"avg_feature_{image}"])
        close(found.unrectified, golden[f"global_img_feature_before_act_{image}"])


def test_scores_and_word_relevance_as_published(golden: Golden) -> None:
    for image in numbers(golden, "scores_"):
        found = traced(golden, image)
        close_by_word(found.scores(), golden[f"scores_{image}"])
        expected = golden[f"word_relevance_{image}"].nan_to_num(0.0)
        close(found.word_relevance(), expected)


def test_every_part_of_the_relevance(golden: Golden) -> None:
    parts = [key for key in golden.arrays.files if key.startswith("rif_")]
    assert parts
    for key in parts:
        image, word = key.removeprefix("rif_").split("_t")
        t = int(word)
        found = traced(golden, image)
        close(found.features[t], golden[key])
        close(found.values[t], golden[f"r_img_feature_proj_{image}_t{word}"])
        close(found.pooled[t], golden[f"r_global_img_feature_{image}_t{word}"])
        close(found.words[t, : t + 1], golden[f"r_word_embedding_{image}_t{word}"])


@pytest.mark.parametrize("count", range(1, len(FIXES) + 1))
def test_scores_with_fixes_one_after_the_other(count: int) -> None:
    golden = Golden("latent_xic/lrp_fixed.npz")
    fixes = FIXES[:count]
    tag = "all" if count == len(FIXES) else "_".join(fixes)
    for image in numbers(golden, f"{tag}/scores_"):
        found = traced(golden, image, fixes)
        close_by_word(found.scores(), golden[f"{tag}/scores_{image}"])
        if f"{tag}/word_relevance_{image}" in golden:
            expected = golden[f"{tag}/word_relevance_{image}"].nan_to_num(0.0)
            close(found.word_relevance(), expected)


def test_the_engine_gives_the_scores_with_all_fixes() -> None:
    golden, given = Golden("latent_xic/lrp_fixed.npz"), Golden("latent_xic/lrp.npz")
    captioner, cells = latent_captioner()
    for image in numbers(golden, "all/scores_"):
        ids = given[f"cap_ids_{image}"].unsqueeze(0)
        found = word_relevance(captioner, Features(cells[[int(image)]]), ids, LRP)
        close_by_word(found.features[0].sum(-1), golden[f"all/scores_{image}"])


def test_captions_are_those_that_the_explainer_decodes(golden: Golden) -> None:
    captioner, cells = latent_captioner()
    model = Golden("latent_xic/model.npz")
    word_map = captions_of(model, "word_map")
    found = beam_search(
        captioner,
        Features(cells),
        start=word_map["<start>"],
        end=word_map["<end>"],
        beam=2,
        max_length=50,
        parity=True,
    )
    special = [word_map[f"<{name}>"] for name in ("pad", "start", "end", "unk")]
    for image in numbers(golden, "cap_ids_"):
        ids = [word for word in found[int(image)][0].word_ids if word not in special]
        np.testing.assert_array_equal(ids, golden[f"cap_ids_{image}"][1:])
        np.testing.assert_array_equal(ids, model[f"beam2_max50_ids_{image}"])
