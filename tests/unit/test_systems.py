"""Every attention captioner goes through all stages, from params to captions of a run."""

from pathlib import Path
from typing import Any

import pytest
from tiny_data import tiny_folders, tiny_params

from capscope.decoding.captions import decode_run
from capscope.files import read_json
from capscope.models.checkpoint import load_run
from capscope.params import Params, merge, validate
from capscope.training.run import train_run

MODELS: dict[str, dict[str, Any]] = {
    "aoa": {"heads": 4, "dropout": 0.1, "attention_dropout": 0.1},
    "adaptive": {"attention": 10, "dropout": 0.1, "global_from": None},
}
STAGES = ("xe", "lrp_xe", "scst", "lrp_scst")


def params_of(name: str) -> Params:
    """Return the tiny parameters with another captioner in place of gridTD."""
    params = tiny_params(epochs=1)
    system = dict(params["systems"]["gridtd"])
    system["xe"] = {**system["xe"], "epochs": 20, "patience": 20, "learning_rate": 0.02}
    system["captioner"] = name
    system["stages"] = list(STAGES)
    system["model"] = {"embedding": 12, "hidden": 16, "parity": False, **MODELS[name]}
    params = {**params, "systems": {"gridtd": system}}
    validate(params)
    return merge(params, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_captioner_trains_in_all_stages_and_speaks(name: str, tmp_path: Path) -> None:
    params = params_of(name)
    folders = tiny_folders(tmp_path, params)
    for stage in STAGES:
        first = params["systems"]["gridtd"][stage].get("from")
        train_run(
            tmp_path / stage,
            folders["data"],
            folders["vocabulary"],
            folders["features"],
            params,
            system="gridtd",
            stage=stage,
            seed=1,
            from_dir=None if first is None else tmp_path / first,
        )
        run = load_run(tmp_path / stage)
        assert run.info["captioner"] == name
        assert run.info["config"].get("global_from") == {"adaptive": "features"}.get(name)
        assert run.info["validation_cider"] > 1
    out = tmp_path / "captions.json"
    decode_run(
        tmp_path / "lrp_scst",
        folders["data"],
        folders["features"],
        params,
        split="test",
        out=out,
        also=[tmp_path / "xe"],
    )
    assert any(entry["caption"] for entry in read_json(out))
