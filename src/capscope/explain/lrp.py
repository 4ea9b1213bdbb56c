"""Layer-wise relevance propagation, from a word's logit to cells, preceding words and pixels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from capscope.explain.explainer import Explainer
from capscope.explain.explanation import Explanation
from capscope.explain.pixels import relevance_to_pixels
from capscope.features.visual import Features
from capscope.models.captioner import Captioner
from capscope.models.published import with_doubled_bias
from capscope.relevance import image_rules, rules
from capscope.relevance.backward import WordRelevance, word_relevance


class LRP(Explainer):
    """LRP with the epsilon rule in the decoder and alpha-beta (1, 0) in the image network.

    Gates and attention weights are constants (Arras et al. 2017; Sun et al. 2022). With parity,
    what the published program loses is lost, one bias of an LSTM counts twice, and the image of a
    word has the images of all words before it added to it.
    """

    name: ClassVar[str] = "lrp"
    title: ClassVar[str] = "LRP"

    def explained(self) -> Captioner:
        """Return the captioner whose logits are explained."""
        captioner = self.subject.captioner
        return with_doubled_bias(captioner) if self.parity else captioner

    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions; see `Explainer.explain`."""
        chosen = self.rules_of(rules.LRP, rules.LRP_AS_PUBLISHED)
        found = word_relevance(
            self.explained(), features, word_ids, chosen, channels=images is not None
        )
        explanation = propagated(self, images, found)
        if self.parity:
            explanation = explanation.as_published(accumulate=True)
        return explanation.within(lengths)


def propagated(explainer: Explainer, images: Tensor | None, found: WordRelevance) -> Explanation:
    """Carry the relevance of cells on to the pixels by LRP, and keep account of it."""
    grid = found.features.sum(-1)
    account = {"start": found.logits, "grid": grid.sum(-1), "words": found.words.sum(-1)}
    pixels = None
    if images is not None:
        subject = explainer.subject
        chosen = image_rules.LRP_PUBLISHED if explainer.parity else image_rules.LRP
        account["network"] = subject.network.to_maps(found.features).sum((-3, -2, -1))
        pixels = relevance_to_pixels(subject, images, found.features, chosen)
        account["pixels"] = pixels.sum((-2, -1))
    return Explanation(grid, found.words, pixels, conservation=account)
