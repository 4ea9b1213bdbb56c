"""The explainer protocol: what a method declares and does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, Literal

from torch import Tensor

from capscope.explain.explanation import Explanation
from capscope.explain.subject import Subject
from capscope.features.visual import Features
from capscope.relevance.rules import Rules


class Explainer(ABC):
    """A method that explains every word of every caption of a batch at once.

    Parameters
    ----------
    subject : Subject
    epsilon : float
        Stabiliser of the epsilon rule, for methods that propagate relevance.
    steps : int
        Points of a path integral, for integrated gradients.
    head : int or None
        The head of multi-head attention that is explained; None: all of them at once.
    precision : {"float32", "float64"}
        Of relevance on its way back, for alpha-beta LRP (its forward pass is in float64).
    parity : bool
        As published by Sun et al. 2022, quirks included; docs/explainers.md says what is different.

    Attributes
    ----------
    name, title : str
        Its key in `capscope.explain.EXPLAINERS`, and what tables call it.
    sign : {"signed", "positive"}
        Whether its maps have negative relevance.
    control : bool
        Whether it is a control, which should not find the objects of words.
    enlarges : bool
        Whether pixels are no more than the cells of a grid, enlarged.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    sign: ClassVar[Literal["signed", "positive"]] = "signed"
    control: ClassVar[bool] = False
    enlarges: ClassVar[bool] = False

    def __init__(
        self,
        subject: Subject,
        epsilon: float = 0.01,
        *,
        steps: int = 16,
        head: int | None = None,
        precision: str = "float32",
        parity: bool = False,
    ) -> None:
        self.subject = subject
        self.epsilon = epsilon
        self.steps = steps
        self.head = head
        self.precision = precision
        self.parity = parity

    def rules_of(self, right: Rules, published: Rules | None = None) -> Rules:
        """Return the decoder's rules, with this explainer's stabiliser and head."""
        chosen = published if self.parity and published is not None else right
        return replace(chosen, epsilon=self.epsilon, head=self.head)

    @classmethod
    def unfit(cls, subject: Subject) -> str | None:
        """Return why the method cannot explain `subject`; None if it can."""
        return None

    @abstractmethod
    def explain(
        self, images: Tensor | None, features: Features, word_ids: Tensor, lengths: Tensor
    ) -> Explanation:
        """Explain all words of all captions.

        Parameters
        ----------
        images : Tensor (B, 3, S, S) or None
            What the extractor saw; without images the explanation ends at the visual features.
        features : Features
            What the captioner saw.
        word_ids : Tensor (B, T + 1)
            Captions with the start token; see `Subject.inputs`.
        lengths : Tensor (B,)
            Number of words of each caption; what lies beyond is zero in the result.

        Returns
        -------
        Explanation
            ``pixels`` is (B, T, S, S), or None without images.
        """
