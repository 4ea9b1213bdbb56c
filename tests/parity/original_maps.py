"""The maps that the published evaluation judges, of every word of a caption, with their colours."""

import re
from dataclasses import dataclass
from functools import cached_property

import torch
from image_networks import Golden
from original_captioners import captioner_of, cells
from torch import Tensor

from capscope.data.images import IMAGENET_MEAN, IMAGENET_STD
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.models.published import with_doubled_bias
from capscope.relevance.backward import WordRelevance, word_relevance
from capscope.relevance.image import ImageRelevance
from capscope.relevance.image_rules import GRADIENT, GUIDED, LRP
from capscope.relevance.image_upscale import pyramid_expand
from capscope.relevance.rules import GRADIENT_AS_PUBLISHED, LRP_AS_PUBLISHED

METHODS = ("lrp", "GuidedBackpropagate", "gradient", "GuidedGradCam", "GradCam")


class Evaluated:
    """A fixture of the published evaluation: captioner, images, and what was explained."""

    def __init__(self, name: str) -> None:
        self.golden = Golden(f"lrp_ic/{name}")
        self.captioner, network = captioner_of(self.golden)
        assert network is not None
        self.network = network
        raw = self.golden["img_uint8"].permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
        self.images = (raw - mean) / std
        word_map = self.golden.meta["word_map"]
        self.words = {number: word for word, number in word_map.items()}
        self.special = {word_map[f"<{word}>"] for word in ("pad", "start", "end", "unk")}
        self.start, self.end = word_map["<start>"], word_map["<end>"]
        self._explained: dict[tuple[int, str], Explained] = {}

    def features(self, images: Tensor) -> Features:
        with torch.no_grad():
            return Features(cells(self.network(images)))

    def explainer(self, method: str) -> Captioner:
        """Return the captioner whose probabilities and states a method's class uses."""
        return with_doubled_bias(self.captioner) if method == "lrp" else self.captioner

    def spoken(self, image: int, method: str) -> list[str]:
        """Return the words of the caption that a method's class explains."""
        ids = self.golden[f"caption.{method}.{image}"].tolist()
        return [self.words[word_id] for word_id in ids[1:]]

    def explained(self, image: int, method: str) -> "Explained":
        if (image, method) not in self._explained:
            self._explained[image, method] = Explained(self, image, method)
        return self._explained[image, method]

    def files(self, prefix: str) -> list[tuple[str, str, int, str]]:
        """Return key, class, image number and the end of the name of all files of a kind."""
        found = [
            (prefix + key, match[1], int(match[2]), match[3])
            for key in self.golden.keys(prefix)
            if (match := re.fullmatch(r"(\w+)\.\D*(\d+)\.\w+?_(\w+)\.json", key))
        ]
        assert len(found) == len(self.golden.keys(prefix))
        return found


@dataclass
class Explained:
    """What one class of explainers says of one caption."""

    of: Evaluated
    image: int
    method: str

    @cached_property
    def word_ids(self) -> Tensor:
        found: Tensor = self.of.golden[f"caption.{self.method}.{self.image}"]
        return found

    @cached_property
    def features(self) -> Features:
        return self.of.features(self.of.images[self.image : self.image + 1])

    @cached_property
    def found(self) -> WordRelevance:
        rules = LRP_AS_PUBLISHED if self.method == "lrp" else GRADIENT_AS_PUBLISHED
        model = self.of.explainer(self.method)
        return word_relevance(model, self.features, self.word_ids[None], rules)

    @property
    def attention(self) -> Tensor:
        """Return the attention maps (T, 1, H, W), enlarged."""
        weights = self.found.attention
        assert weights is not None
        return self._expand(weights[0])

    @cached_property
    def cam(self) -> Tensor:
        """Return Grad-CAM (T, N) as the class computes it."""
        grid, gradient = self.features.cells[0], self._gradient
        cam = (grid @ gradient.mean(1).unsqueeze(2)).squeeze(2).relu()
        return cam / (cam.amax(1, keepdim=True) + 1e-6)

    @cached_property
    def maps(self) -> Tensor:
        """Return the published maps (T, 3 or 1, H, W): those of LRP add up over words."""
        if self.method == "GradCam":
            return self._expand(self.cam)
        rules = {"lrp": LRP, "gradient": GRADIENT}.get(self.method, GUIDED)
        image = self.of.images[self.image : self.image + 1]
        back = self._gradient.transpose(1, 2).unflatten(2, self._grid).unsqueeze(0)
        found = ImageRelevance(self.of.network, rules).maps(image, back)[0]
        if self.method == "lrp":
            return found.cumsum(0)
        if self.method == "GuidedGradCam":
            return found * self._expand(self.cam)
        return found

    @property
    def _gradient(self) -> Tensor:
        found = self.found.features[0]
        if self.method in ("GuidedBackpropagate", "GuidedGradCam"):
            return torch.where(self.features.cells > 0, found, 0.0)
        return found

    @property
    def _grid(self) -> tuple[int, int]:
        side = round(self.features.cells.shape[1] ** 0.5)
        return side, side

    def _expand(self, weights: Tensor) -> Tensor:
        factor = self.of.images.shape[-1] // self._grid[1]
        return pyramid_expand(weights.unflatten(1, self._grid), factor).unsqueeze(1)
