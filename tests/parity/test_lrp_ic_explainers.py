"""Whole explainers with parity, from image and caption to every map, against the original program.

The pieces have tests of their own (`test_lrp_ic_explain`, `test_lrp_ic_image_maps`); here the
published methods run as a user runs them.
"""

import re

import pytest
import torch
from image_networks import GOLDEN, Golden
from original_captioners import captioner_of, cells, close
from PIL import Image as Pillow

from capscope.data.images import preprocess
from capscope.data.vocabulary import Vocabulary
from capscope.explain import explainer_class
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import enlarged
from capscope.explain.subject import Subject
from capscope.features.grid import GridExtractor

RELATIVE = 1e-4  # stated in the fixtures' README, of the array's maximum
METHODS = {
    "lrp": "lrp",
    "gradient": "gradient",
    "GuidedBackpropagate": "guided_backprop",
    "GradCam": "gradcam",
    "GuidedGradCam": "guided_gradcam",
}
STORED = re.compile(rf"({'|'.join(METHODS)})(?:\.h(\d+))?\.caption_ids")
FILES = sorted(path.name for path in (GOLDEN / "lrp_ic").glob("*_explain.npz"))
NO_WORDS = Vocabulary(("<pad>", "<end>"), 0, None, 1, None)


@pytest.fixture(scope="module", params=FILES or ["gridtd_explain.npz"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(f"lrp_ic/{request.param}")


def subject_of(golden: Golden) -> Subject:
    captioner, network = captioner_of(golden)
    assert network is not None
    return Subject(
        captioner, NO_WORDS, GridExtractor("vgg", network, len(golden["img"][0, 0]), layer="last")
    )


def published(golden: Golden) -> list[tuple[str, str, int | None]]:
    """Return the prefix of every stored explanation, its method, and its head or None."""
    found = [match for name in golden.keys("") if (match := STORED.fullmatch(name))]
    assert found
    prefixes = (match[0].removesuffix(".caption_ids") for match in found)
    return [(p, m[1], m[2] and int(m[2])) for p, m in zip(prefixes, found, strict=True)]


def explain(
    golden: Golden, subject: Subject, name: str, stored: str, head: int | None
) -> Explanation:
    method = explainer_class(METHODS[name])(subject, head=head, parity=True)
    inputs = golden[f"{stored}.caption_ids"].unsqueeze(0)
    lengths = torch.tensor([inputs.shape[1] - 1])
    return method.explain(golden["img"], subject.look(golden["img"]), inputs, lengths)


def test_every_published_explanation_from_image_to_maps(golden: Golden) -> None:
    subject = subject_of(golden)
    for stored, name, head in published(golden):
        found = explain(golden, subject, name, stored, head)
        gradient = cells(golden[f"{stored}.r_feat"])
        if name not in ("GradCam", "GuidedGradCam"):
            close(found.grid[0], gradient.sum(-1), RELATIVE)
        words = golden[f"{stored}.r_words"]
        said = words.tril() if words.isfinite().all() else torch.where(words.isnan(), 0.0, words)
        torch.testing.assert_close(found.words[0], said, rtol=0, atol=RELATIVE)
        if f"{stored}.map_as_original" not in golden:
            continue
        chosen, expected = golden[f"{stored}.map_t"], golden[f"{stored}.map_as_original"]
        if name == "GradCam":
            close(found.grid[0, chosen], expected, RELATIVE)
        else:
            close(found.pixels[0, chosen], expected.sum(1), RELATIVE)


def test_the_explained_image_is_the_stored_picture(golden: Golden) -> None:
    picture = Pillow.fromarray(golden.arrays["img_uint8"])
    close(preprocess(picture, picture.width).unsqueeze(0), golden["img"], RELATIVE)


def test_a_word_has_an_image_of_its_own_without_the_published_accumulation(golden: Golden) -> None:
    subject = subject_of(golden)
    for stored, name, head in published(golden):
        if name == "lrp" and f"{stored}.map_per_word" in golden:
            chosen = golden[f"{stored}.map_t"]
            found = explain(golden, subject, name, stored, head).pixels[0]
            own = found.diff(dim=0, prepend=torch.zeros_like(found[:1]))
            close(own[chosen], golden[f"{stored}.map_per_word"].sum(1), 10 * RELATIVE)


def test_published_attention_is_that_of_the_explainers_forward_pass(golden: Golden) -> None:
    subject = subject_of(golden)
    stored, _, _ = next(entry for entry in published(golden) if entry[1] == "gradient")
    alphas = golden["gradient.state.alphas"]
    heads = alphas.unsqueeze(1) if alphas.dim() == 2 else alphas
    inputs = golden[f"{stored}.caption_ids"].unsqueeze(0)
    lengths = torch.tensor([inputs.shape[1] - 1])
    for head in range(heads.shape[1]):
        method = explainer_class("attention")(subject, head=head, parity=True)
        found = method.explain(golden["img"], subject.look(golden["img"]), inputs, lengths)
        close(found.grid[0], heads[:, head], RELATIVE)
        smooth = enlarged(subject, heads[None, :, head], golden["img"].shape[-1], parity=True)
        close(found.pixels, smooth, RELATIVE)
