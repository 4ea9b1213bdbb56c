"""All metrics of captions: which way is better, and what each one is, in one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from capscope.metrics.statistics import Measure


@dataclass(frozen=True)
class Metric:
    """What a reader must know about a metric."""

    name: str
    direction: str
    """``higher`` or ``lower``: what is better."""
    definition: str


METRICS = {
    metric.name: metric
    for metric in (
        *(
            Metric(f"BLEU-{n}", "higher", f"n-gram precision up to n = {n}, brevity penalty")
            for n in (1, 2, 3, 4)
        ),
        Metric("METEOR", "higher", "METEOR 1.5: aligned words, stems, synonyms and paraphrases"),
        Metric("ROUGE-L", "higher", "longest common subsequence, F with beta 1.2"),
        Metric(
            "CIDEr",
            "higher",
            "CIDEr-D from 0 to 10 (1.0 is printed as 100 in papers)",
        ),
        Metric("SPICE", "higher", "F of the propositions of scene graphs"),
        *(
            Metric(f"SPICE-{kind}", "higher", f"SPICE of {what} alone, where references have any")
            for kind, what in (
                ("object", "objects"),
                ("relation", "relations"),
                ("attribute", "attributes"),
                ("color", "colours"),
                ("cardinality", "numbers"),
                ("size", "sizes"),
            )
        ),
        Metric("BERTScore-P", "higher", "precision of tokens matched by embedding, best reference"),
        Metric("BERTScore-R", "higher", "recall of tokens matched by embedding, best reference"),
        Metric("BERTScore", "higher", "F of tokens matched by embedding, best reference"),
        Metric("BERTScore-pairs", "higher", "F of BERTScore, mean over all pairs with references"),
        Metric("CLIPScore", "higher", "2.5 times the cosine of image and caption in CLIP's space"),
        Metric(
            "RefCLIPScore",
            "higher",
            "harmonic mean of CLIPScore and the highest cosine with a reference",
        ),
        Metric(
            "object_precision",
            "higher",
            "named object classes that are depicted (boxes or references), of all named",
        ),
        Metric(
            "object_recall",
            "higher",
            "named object classes, of those named by at least 60 % of the references (3 of 5)",
        ),
        Metric("object_f1", "higher", "F1 of object_precision and object_recall"),
        Metric("CHAIR-i", "lower", "mentions of objects that are not depicted, of all mentions"),
        Metric("CHAIR-s", "lower", "captions with a mention of an object that is not depicted"),
        Metric(
            "colour_accuracy",
            "higher",
            "right colours, of the coloured mentions of objects in the scene",
        ),
        Metric(
            "left_right_accuracy",
            "higher",
            "true claims of left or right about objects in the scene; chance is a coin",
        ),
        Metric(
            "relation_accuracy",
            "higher",
            "true claims about positions of objects in the scene, all relations",
        ),
        Metric(
            "word_precision",
            "higher",
            "frequent words that some reference uses, of those in captions; mean over the words",
        ),
        Metric(
            "word_recall",
            "higher",
            "frequent words in captions, of those that some reference uses; mean over the words",
        ),
        Metric("word_f1", "higher", "F1 of each frequent word's precision and recall, mean"),
    )
}


def metric(name: str) -> Metric:
    """Return what is known of a metric; one at a cut-off (``word_f1@10``) is found by its name."""
    return METRICS[name.partition("@")[0]]


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names of metrics in the order of the registry, cut-offs behind the others."""
    order = list(METRICS)

    def place(name: str) -> tuple[bool, int, int]:
        base, at, cutoff = name.partition("@")
        return bool(at), int(cutoff or 0), order.index(base)

    return sorted(set(names), key=place)


def describe(name: str, measure: Measure) -> str:
    """Return the definition of a metric, and what is particular to this measure of it."""
    return "; ".join(filter(None, [metric(name).definition, measure.note]))
