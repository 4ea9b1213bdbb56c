"""CLIPScore and RefCLIPScore against a slow twin, with a tiny random CLIP model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tiny_models import tiny_clip
from torchvision import transforms

from capscope.data.images import UnreadableImageError
from capscope.metrics.clipscore import ClipScore
from capscope.metrics.pretrained import weights_digest
from capscope.metrics.task import Task, Texts, UnavailableError

REFERENCES = [
    ["A dog on the couch.", "the red dog sits"],
    ["Two dogs on a street", "dogs walking", "a dog"],
    ["a man", "a man walking with a hat"],
    ["a cat", "a green cat sits on a sofa"],
]
CAPTIONS = [
    "a red dog",
    "a cat",
    "a man walking on the street with a dog and a hat and a cat",
    "sofa",
]
HUMAN = [theirs[1] for theirs in REFERENCES]
SIZES = [(48, 32), (32, 64), (60, 90), (32, 32)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(1)
    paths = []
    for number, (width, height) in enumerate(SIZES):
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        paths.append(folder / f"{number}.png")
        image.save(paths[-1])
    return paths


def task(images, captions=(CAPTIONS,), left_out=(None,), references=REFERENCES):
    texts = Texts(references, captions)
    unused = Texts([["?"]] * len(references), [["?"] * len(references)] * len(captions))
    return Task(raw=texts, tokenized=unused, left_out=left_out, images=images)


class Twin:
    """One image and one text at a time, the image prepared as CLIP's authors do."""

    def __init__(self, folder):
        self.model = transformers.CLIPModel.from_pretrained(folder).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.preprocess = transforms.Compose(
            [
                transforms.Resize(32, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(32),
                transforms.ToTensor(),
                transforms.Normalize(
                    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
                ),
            ]
        )

    def cosine(self, image, text, other=None):
        """Of image and text, or of two texts."""
        pixels = self.preprocess(Image.open(image).convert("RGB"))[None]
        found = []
        for words in (text, other or text):
            ids = self.tokenizer("A photo depicts " + words)["input_ids"]
            ids = ids if len(ids) <= 20 else [*ids[:19], ids[-1]]
            with torch.no_grad():
                output = self.model(input_ids=torch.tensor([ids]), pixel_values=pixels)
            found.append(output.text_embeds[0])
        first = output.image_embeds[0] if other is None else found[0]
        return max(0.0, float(torch.cosine_similarity(first, found[1], dim=0)))

    def scores(self, image, caption, references):
        fits = 2.5 * self.cosine(image, caption)
        agrees = max(self.cosine(image, caption, reference) for reference in references)
        return fits, 2 / (1 / fits + 1 / agrees) if fits and agrees else 0.0


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_scores_are_those_of_the_equations(folder, images, batch_size):
    scorer = ClipScore(str(folder), batch_size=batch_size)
    ours, human = scorer.measures(task(images, [CAPTIONS, HUMAN], [None, 1]))
    twin = Twin(folder)
    for measures, captions, references in (
        (ours, CAPTIONS, REFERENCES),
        (human, HUMAN, [[theirs[0], *theirs[2:]] for theirs in REFERENCES]),
    ):
        expected = [twin.scores(*row) for row in zip(images, captions, references, strict=True)]
        for name, values in zip(ClipScore.names, zip(*expected, strict=True), strict=True):
            np.testing.assert_allclose(measures[name].per_image, values, rtol=0, atol=2e-4)
            assert measures[name].value == pytest.approx(np.mean(values), abs=2e-4)
            assert measures[name].count == len(captions)
            assert np.ptp(values) > 0.01


def test_a_negative_cosine_scores_0(folder, images):
    scorer = ClipScore(str(folder))
    plain = scorer.measures(task(images))[0]
    scorer._model.visual_projection.weight.data.neg_()
    turned = scorer.measures(task(images))[0]
    for name in ClipScore.names:
        assert (plain[name].per_image >= 0).all()
        assert (turned[name].per_image >= 0).all()
        np.testing.assert_array_equal(plain[name].per_image > 0, turned[name].per_image == 0)


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_caption_scores_0_with_a_warning(folder, images, empty):
    scorer = ClipScore(str(folder))
    with pytest.warns(UserWarning, match="1 empty captions is set to 0"):
        measures = scorer.measures(task(images, [[empty, *CAPTIONS[1:]]]))[0]
    full = scorer.measures(task(images))[0]
    for name in ClipScore.names:
        assert measures[name].per_image[0] == 0
        np.testing.assert_allclose(
            measures[name].per_image[1:], full[name].per_image[1:], rtol=0, atol=1e-6
        )


def test_long_captions_are_cut_to_what_clip_reads(folder, images):
    scorer = ClipScore(str(folder))
    long = ["a red dog " * 50] * 4
    measures = scorer.measures(task(images, [long, [text + "cat" for text in long]], [None] * 2))
    for name in ClipScore.names:
        np.testing.assert_array_equal(measures[0][name].per_image, measures[1][name].per_image)


def test_the_same_captions_get_the_same_bits(folder, images):
    first, second = (ClipScore(str(folder)).measures(task(images))[0] for _ in range(2))
    for name in ClipScore.names:
        np.testing.assert_array_equal(first[name].per_image, second[name].per_image)


def test_without_images_the_metric_is_unavailable(folder, images):
    missing = [path.with_suffix(".gone") for path in images]
    with pytest.raises(UnavailableError, match=r"none of the 4 image files .* .*0\.gone"):
        ClipScore(str(folder)).measures(task(missing))


def test_an_image_that_cannot_be_read_is_named(folder, images, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"bad\.png"):
        ClipScore(str(folder)).measures(task([*images[:3], tmp_path / "bad.png"]))


def test_a_model_that_is_not_here_makes_the_metric_unavailable(tmp_path):
    with pytest.raises(UnavailableError, match=r"not available.*clipscore_options\.model"):
        ClipScore(str(tmp_path / "nothing"))


def test_what_a_score_depends_on_stands_beside_it(folder, images):
    note = ClipScore(str(folder)).measures(task(images))[0]["CLIPScore"].note
    digest = weights_digest(transformers.CLIPModel.from_pretrained(folder))
    for part in (str(folder), digest[:16], "transformers 5", "torch 2", "pillow", "float32"):
        assert part in note
