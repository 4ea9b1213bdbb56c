"""Contributions and entropies by position, positions and rates against the original's values."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from difnet_captioners import FOLDER, load
from torch.utils.flop_counter import FlopCounterMode

from capscope.benchmarks.contribution import entropy_by_position, mean_by_position
from capscope.features.visual import Features
from capscope.models import build
from capscope.models.layers.transformer import sinusoids
from capscope.training.schedules import Schedule

FIXTURE = "lrp_rules_and_stats.npz"


def numbered(golden, prefix):  # type: ignore[no-untyped-def]
    return [golden[f"{prefix}{i}"] for i in sorted(map(int, golden.keys(prefix)))]


def test_contributions_by_position_are_the_originals() -> None:
    golden = load(FIXTURE)
    for key in ("inp", "out"):
        found = mean_by_position(
            numbered(golden, f"show/{key}_lrp_"), len(golden[f"show/avg_{key}"]), parity=True
        )
        np.testing.assert_allclose(found, golden[f"show/avg_{key}"].numpy(), atol=1e-5)
        if key == "inp":  # the published figure leaves the first position out
            shown = golden["show/plotted_x"].numpy() - 1
            np.testing.assert_allclose(found[shown], golden["show/plotted_y"].numpy(), atol=1e-5)


def test_by_default_captions_count_only_where_they_have_a_word() -> None:
    found = mean_by_position([torch.ones(3, 2), torch.ones(1, 2) * 2], 4)
    np.testing.assert_allclose(found, [3, 2, 2, np.nan])


def test_entropies_are_the_originals() -> None:
    golden = load(FIXTURE)
    found = entropy_by_position(numbered(golden, "show/inp_lrp_"))
    np.testing.assert_allclose(found[3], golden["show/entropy_pos3"].numpy(), atol=1e-5)
    rows = [place for place in found if len(place)]
    everything = np.sort(np.concatenate(rows))
    np.testing.assert_allclose(everything, np.sort(golden["show/entropy_all"].numpy()), atol=1e-5)


def test_positions_are_the_originals_sinusoids() -> None:
    golden = load(FIXTURE)
    for key, rows in (("pos/table", None), ("pos/table512_rows", [0, 1, 2, 20, 54])):
        expected = golden[key]
        found = sinusoids(55 if rows else len(expected), expected.shape[1])
        found[0] = 0
        found = found if rows is None else found[rows]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_rate_of_each_epoch_is_the_originals() -> None:
    path = FOLDER / "data_case.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    rates = json.loads(path.read_text("utf-8"))["lr_per_xe_epoch"]
    for steps in (1, 7):
        schedule = Schedule("difnet", 1e-4, steps * len(rates), len(rates))
        found = [schedule.at(steps * epoch + steps - 1) for epoch in range(len(rates))]
        assert found == pytest.approx(rates, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["base", "difnet"])
def test_operations_are_those_that_the_original_counts(mode: str) -> None:
    """A multiplication and its addition are two operations here, one there."""
    path = FOLDER / "inventory.json"
    if not path.exists():
        pytest.skip(f"fixture {path} is not here (CAPSCOPE_GOLDEN names another folder)")
    listed = json.loads(path.read_text("utf-8"))["inventory"][mode]
    shapes = {key: shape for key, (shape, _) in listed["state_dict"].items()}
    words, hidden = shapes["decoder.word_emb.weight"]
    size = shapes["embed_image.0.weight"][1]
    model = build(mode, vocabulary_size=words, feature_size=size, hidden=hidden).eval()
    features = Features(torch.rand(1, 49, size), segments=torch.rand(1, 49, 133))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.readout(model.hidden(features, torch.randint(4, words, (1, 10))).values)
    by_operator = listed["fvcore_by_operator"]
    assert counter.get_total_flops() == 2 * (by_operator["linear"] + by_operator["matmul"])
