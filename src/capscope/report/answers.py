"""Four questions, answered in words and figures that are computed from the numbers of the runs.

What was not run says so, with what to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from capscope.report.evidence import SIGNIFICANT, Column, Evidence, change, percent
from capscope.report.stages import changes
from capscope.report.table import Table

NOT_RUN, NOTHING = "not run", "nothing to measure"
PIXELS = Column("ground_truth", "pixels", "noun", "hit")
POOLED = Column("ground_truth", "pooled", "noun", "hit")
GRID = Column("ground_truth", "grid", "noun", "hit")
DELETION = Column("deletion", "grid", "noun", "deletion")
VISION = Column("contribution", "grid", "all", "vision")
SECOND_FLOW = {"difnet": "base"}
"""Captioners with a second visual flow, and the same without it."""
PRECISION = ("word_precision", "word_precision@10", "object_precision")
"""Precision of object words: the first of these that was scored answers."""


@dataclass(frozen=True)
class Answer:
    """A question with its answer."""

    name: str
    question: str
    verdict: str
    """A word or two."""
    sentences: tuple[str, ...]
    evidence: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The figures, as cells of a table."""


def answers(evidence: Evidence) -> list[Answer]:
    """Answer all questions."""
    return [
        which_explainer(evidence),
        do_attention_weights_explain(evidence),
        does_lrp_fine_tuning_help(evidence),
        does_a_second_flow_help(evidence),
    ]


def answer_tables(found: Sequence[Answer]) -> list[Table]:
    """Return the answers as a table, and the figures of each as another."""
    cells = [
        {"question": a.question, "answer": a.verdict, "in words": " ".join(a.sentences)}
        for a in found
    ]
    note = "Computed from the matrix and its paired tests."
    tables = [Table("answers", "Four questions", note, pd.DataFrame(cells))]
    for answer in found:
        if len(answer.evidence):
            words = " ".join(answer.sentences)
            tables.append(Table(f"answer_{answer.name}", answer.question, words, answer.evidence))
    return tables


def which_explainer(evidence: Evidence) -> Answer:
    """Say which explainer points at the named object most often, and what a word costs."""
    name, question = "explainer", "Which explainer finds the right object most often, at what cost?"
    hits = evidence.values(PIXELS)
    if hits.empty:
        needed = "it needs the benchmark ground_truth, and images whose objects are known"
        return _without_hits(evidence, name, question, needed)
    order = ranked(hits)
    firsts = hits.idxmax(axis=1).value_counts()
    best, shared = order[0], hits[order[:2]].dropna()
    sentences = [
        f"{evidence.title(best)}: the strongest point of its map lies on the named object for "
        f"{percent(shared[best].mean())} of nouns ({evidence.split} split, {_mean_over(shared)})"
    ]
    if len(order) > 1:
        second = order[1]
        leads = [evidence.lead(PIXELS, best, second, run) for run in hits.index]
        ahead = sum(lead is not None and lead.is_ahead for lead in leads)
        sentences[0] += (
            f", ahead of {evidence.title(second)} with {percent(shared[second].mean())}. It is "
            f"first for {_of(int(firsts.get(best, 0)), len(hits))}; its lead over the second is "
            f"more than chance for {_of(ahead, len(shared))} (paired test, p < {SIGNIFICANT})"
        )
    sentences[0] += "."
    pooled = evidence.values(POOLED)
    if len(pooled.columns):
        first = ranked(pooled)[0]
        sentences.append(
            "Summed over the cells of the grid, where a finer raster gives no lead, "
            f"{evidence.title(first)} is first with {percent(pooled[first].mean())}."
        )
    verdict = evidence.title(best)
    controls = evidence.values(PIXELS, controls=True).mean().sort_values(ascending=False)
    if len(controls):
        control = str(controls.index[0])
        leads = [evidence.lead(PIXELS, best, control, run) for run in hits.index]
        above = sum(lead is not None and lead.is_ahead for lead in leads)
        sentences.append(
            f"The best control, {evidence.title(control)}, hits {percent(controls[control])}; "
            f"{evidence.title(best)} is above it by more than chance for {_of(above, len(hits))}."
        )
        if 2 * above <= len(hits):
            verdict += ", though too few words show that it is above controls"
    sentences.append(_cost(evidence, best, order))
    means = pooled.mean()
    figures = pd.DataFrame(
        {
            "explainer": [evidence.title(one) for one in order],
            "hit, pixels": [f"{hits[one].mean():.2f}" for one in order],
            "hit, pooled": [_number(means.get(one)) for one in order],
            "first for": [f"{firsts.get(one, 0)} of {hits[one].count()}" for one in order],
            "CPU ms a word": [_number(evidence.cost.get(one), 1) for one in order],
        }
    )
    return Answer(name, question, verdict, tuple(sentences), figures)


def ranked(hits: pd.DataFrame) -> list[str]:
    """Order explainers (columns) by how many others each beats, on captioners (rows) of both.

    Not every explainer fits every captioner, so that means over all that each fits do not compare.
    """
    beaten = {
        one: sum((hits[one] - hits[other]).mean() > 0 for other in hits if other != one)
        for one in hits
    }
    return [str(one) for one in sorted(hits, key=lambda one: (-beaten[one], -hits[one].mean()))]


def _without_hits(evidence: Evidence, name: str, question: str, needed: str) -> Answer:
    """Return the answer where there are no hits: not run, or nothing to be found."""
    if evidence.was_measured("ground_truth") and evidence.values(GRID).empty:
        reason = f"No caption of the {evidence.split} split names an object that its image shows."
        return Answer(name, question, NOTHING, (reason,))
    return Answer(name, question, NOT_RUN, (f"Not run: {needed}.",))


def _cost(evidence: Evidence, best: str, names: Sequence[str]) -> str:
    cost = evidence.cost
    if best not in cost:
        return "What it costs was not timed where these results come from."
    text = f"Explaining a word by {evidence.title(best)} takes {cost[best]:.1f} ms of CPU time"
    others = cost[[name for name in names if name in cost and name != best]]
    if len(others):
        cheapest = str(others.idxmin())
        text += f"; {evidence.title(cheapest)}, the cheapest of the others, {cost[cheapest]:.1f} ms"
    return f"{text} (on the machine of this run)."


def do_attention_weights_explain(evidence: Evidence) -> Answer:
    """Hold attention weights against controls and against LRP, at their own resolution."""
    name, question = "attention", "Do attention weights explain?"
    column, places = POOLED, "summed over the cells of the grid"
    hits = evidence.values(column)
    if "attention" not in hits:
        column, places = GRID, "at the visual features"
        hits = evidence.values(column)
    if "attention" not in hits:
        needed = "it needs the explainer attention and the benchmark ground_truth"
        return _without_hits(evidence, name, question, needed)
    hits = hits[hits["attention"].notna()]
    controls = evidence.values(column, controls=True).reindex(hits.index)
    lines, above, below = [], 0, 0
    for run in hits.index:
        known = controls.loc[run].dropna() if len(controls.columns) else pd.Series(dtype=float)
        leads = [evidence.lead(column, "attention", str(control), run) for control in known.index]
        beaten = bool(leads) and all(lead is not None and lead.is_ahead for lead in leads)
        above += beaten
        behind = evidence.lead(column, "lrp", "attention", run)
        below += behind is not None and behind.is_ahead
        lines.append(
            {
                "captioner": run,
                "attention": f"{hits.loc[run, 'attention']:.2f}",
                "best control": f"{known.max():.2f} ({evidence.title(str(known.idxmax()))})"
                if len(known)
                else "-",
                "above every control": "yes" if beaten else "no",
                "LRP": _number(hits.loc[run].get("lrp")),
                "LRP - attention": str(behind) if behind else "-",
            }
        )
    count = len(hits)
    means = hits.mean()
    sentences = [
        f"Attention weights point at the named object for {percent(means['attention'])} of nouns "
        f"({evidence.split} split, {places}, {_mean_over(hits)})"
        + (f"; LRP does for {percent(means['lrp'])}." if "lrp" in means else "."),
        f"They are above every control for {_of(above, count)}, and behind LRP by more than "
        f"chance for {_of(below, count)} (paired tests, p < {SIGNIFICANT}).",
    ]
    areas = evidence.values(DELETION).mean()
    if {"attention", "lrp"} <= set(areas.index):
        sentences.append(
            "When the features that they mark go first, the area under a noun's probability is "
            f"{areas['attention']:.2f}; in the order of LRP {areas['lrp']:.2f} (less is better)."
        )
    if 2 * above <= count:
        ahead = means["attention"] > controls.max(axis=1).mean()
        verdict = "not shown by so few words" if ahead else "no better than controls"
    elif 2 * below >= count:
        verdict = "in part"
    else:
        verdict = "yes, as far as measured"
    return Answer(name, question, verdict, tuple(sentences), pd.DataFrame(lines))


def does_lrp_fine_tuning_help(evidence: Evidence) -> Answer:
    """Say what fine-tuning with LRP does to the precision of object words."""
    name, question = "fine_tuning", "Does LRP fine-tuning make object words more precise?"
    found = changes(evidence.results, evidence.split)
    metric = next((m for m in PRECISION if any(line["metric"] == m for line in found)), None)
    if metric is None:
        needed = "it needs the stages lrp_xe or lrp_scst beside those that they start from"
        return Answer(name, question, NOT_RUN, (f"Not run: {needed}.",))
    lines, sentences, better, worse = [], [], 0, 0
    of_metric = [line for line in found if line["metric"] == metric]
    for line in of_metric:
        sure = line["p_bootstrap"] < SIGNIFICANT
        better += sure and line["difference"] > 0
        worse += sure and line["difference"] < 0
        same = [f for f in found if all(f[k] == line[k] for k in ("system", "before", "after"))]
        cider = next((f for f in same if f["metric"] == "CIDEr"), None)
        by = _change(line)
        sentences.append(
            f"{line['system']}, {line['before']} to {line['after']}: {metric.replace('_', ' ')} "
            f"{_number(line['value_before'], 3)} to {_number(line['value_after'], 3)}, {by}"
            + (f"; CIDEr {_change(cider)}." if cider else ".")
        )
        lines.append(
            {
                "captioner": line["system"],
                "stages": f"{line['before']} to {line['after']}",
                metric.replace("_", " "): by,
                "CIDEr": _change(cider) if cider else "-",
                "seeds": str(line["seeds"]),
            }
        )
    count = len(of_metric)
    if max(line["seeds"] for line in of_metric) < 2:
        sentences.append("With one seed this says nothing of what training anew would change.")
    verdict = _verdict(better, worse, count)
    return Answer(name, question, verdict, tuple(sentences), pd.DataFrame(lines))


def does_a_second_flow_help(evidence: Evidence) -> Answer:
    """Compare the visual share of relevance of captioners with and without a second flow."""
    name = "second_flow"
    question = "Does a second visual flow raise the visual share of relevance?"
    shares = evidence.values(VISION)
    lines, sentences, higher, lower = [], [], 0, 0
    for run, architecture in evidence.captioners.items():
        stage = run.rpartition(" ")[2]
        for other, plain in evidence.captioners.items():
            if plain != SECOND_FLOW.get(architecture) or other.rpartition(" ")[2] != stage:
                continue
            for explainer in shares:
                lead = evidence.lead(VISION, run, other, str(explainer), compared="captioners")
                if lead is None:
                    continue
                higher += lead.is_ahead
                lower += lead.difference < 0 and lead.p < SIGNIFICANT
                pair = shares[explainer]
                sentences.append(
                    f"By {evidence.title(str(explainer))}, the image takes {percent(pair[run])} of "
                    f"the relevance of a word in {run}, and {percent(pair[other])} in {other}: "
                    f"{lead}."
                )
                lines.append(
                    {
                        "with": run,
                        "without": other,
                        "explainer": evidence.title(str(explainer)),
                        "share with": f"{pair[run]:.3f}",
                        "share without": f"{pair[other]:.3f}",
                        "difference": str(lead),
                    }
                )
    if not lines:
        needed = "it needs the captioners difnet and base at one stage, LRP, and contribution"
        return Answer(name, question, NOT_RUN, (f"Not run: {needed}.",))
    verdict = _verdict(higher, lower, len(lines))
    return Answer(name, question, verdict, tuple(sentences), pd.DataFrame(lines))


def _verdict(up: int, down: int, count: int) -> str:
    """Return the answer to whether something rises, of which so many cases surely do or fall."""
    if not up and not down:
        return "no clear change"
    if up and not down:
        return "yes" if up == count else f"in {up} of {count}"
    return (
        ("no, it falls" if down == count else f"it falls in {down} of {count}")
        if not up
        else (f"mixed: up in {up}, down in {down} of {count}")
    )


def _change(line: dict[str, float]) -> str:
    return change(line["difference"], line["low"], line["high"], line["p_bootstrap"])


def _mean_over(frame: pd.DataFrame) -> str:
    return f"mean over {len(frame)} captioners" if len(frame) > 1 else "one captioner"


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} captioners" if whole > 1 else ("it" if part else "no captioner")


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.{digits}f}"
