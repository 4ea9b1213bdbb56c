"""The training stages by name; a stage is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capscope.models.captioner import Captioner
from capscope.training.stages.lrp_scst import RelevanceSelfCritical
from capscope.training.stages.lrp_xe import RelevanceCrossEntropy
from capscope.training.stages.scst import SelfCritical
from capscope.training.stages.stage import Corpus, Stage
from capscope.training.stages.xe import CrossEntropy

STAGES: dict[str, type[Stage]] = {
    "xe": CrossEntropy,
    "scst": SelfCritical,
    "lrp_xe": RelevanceCrossEntropy,
    "lrp_scst": RelevanceSelfCritical,
}


def build_stage(
    name: str, captioner: Captioner, corpus: Corpus, settings: Mapping[str, Any]
) -> Stage:
    """Build the stage `name` for a captioner."""
    return STAGES[name](captioner, corpus, settings)
