"""SPICE, BERTScore and CLIPScore beside the other metrics: asked for, averaged, or missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from http_server import serving
from PIL import Image as Pillow
from test_spice_models import CONTENT, SHA1, ZIP, contents
from tiny_models import tiny_bert, tiny_clip

from capscope.cli.evaluate import command as evaluate
from capscope.cli.spice_models import command as fetch
from capscope.data.annotations import Dataset, Image
from capscope.data.tokens import tokenize
from capscope.metrics.bertscore import BertScore
from capscope.metrics.clipscore import ClipScore
from capscope.metrics.optional import add_optional
from capscope.metrics.rows import HUMAN, Captions, Row
from capscope.metrics.statistics import mean
from capscope.metrics.task import Task, Texts
from capscope.params import load_params

ROOT = Path(__file__).resolve().parents[2]
REFERENCES = {
    1: ("A dog on the couch.", "The red dog sits.", "a dog"),
    2: ("Two dogs on a street.", "Dogs walking!"),
    3: ("A man walking.", "a man with a hat", "the man"),
}
CAPTIONS = {1: "a red dog", 2: "a cat", 3: "a man with a hat"}
SPLITS = {1: "test", 2: "test", 3: "shift"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"bert": str(tiny_bert(folder / "bert")), "clip": str(tiny_clip(folder / "clip"))}


@pytest.fixture
def settings(tmp_path, models):
    return {
        "tokenizer": "python",
        "parity": False,
        "timeout": 60,
        "cache": None,
        "spice": False,
        "bertscore": False,
        "clipscore": False,
        "spice_options": {"models": str(tmp_path / "none"), "memory_gb": 1, "timeout": 60},
        "bertscore_options": {
            "model": models["bert"],
            "layers": 2,
            "aggregation": ["best", "pairs"],
        },
        "clipscore_options": {"model": models["clip"], "batch_size": 2},
    }


@pytest.fixture
def dataset(tmp_path):
    images = []
    for number, (image_id, texts) in enumerate(REFERENCES.items()):
        Pillow.new("RGB", (40, 32), (80 * number, 200, 30)).save(tmp_path / f"{image_id}.png")
        tokens = tuple(tuple(tokenize(text)) for text in texts)
        images.append(Image(image_id, f"{image_id}.png", SPLITS[image_id], texts, tokens))
    return Dataset("toy", tmp_path, tuple(images))


@pytest.fixture
def rows(dataset):
    made = []
    for split in ("test", "shift"):
        images = dataset.split(split)
        other = {"BLEU-1": mean(np.zeros(len(images)))}
        made.append(Row(Captions(HUMAN, "", "", split, ()), other))
        for seed in (1, 2):
            texts = tuple(CAPTIONS[image.id] for image in images)
            made.append(Row(Captions("gridtd", "xe", seed, split, texts), other))
    return made


def test_nothing_is_loaded_or_added_unless_it_is_asked_for(rows, dataset, settings):
    for name in ("bertscore", "clipscore", "spice"):
        settings[f"{name}_options"] = None
    assert add_optional(rows, dataset, settings) == rows


def test_rows_get_the_scores_of_their_captions_and_humans_those_of_their_references(
    rows, dataset, settings
):
    found = add_optional(rows, dataset, settings | {"bertscore": True, "clipscore": True})
    assert [row.captions for row in found] == [row.captions for row in rows]
    for row in found:
        images = dataset.split(row.captions.split)
        references = [image.references for image in images]
        captions = [[CAPTIONS[image.id] for image in images]]
        left_out = [None]
        if row.captions.system == HUMAN:
            left_out = list(range(min(map(len, references))))
            captions = [[texts[k] for texts in references] for k in left_out]
        raw = Texts(references, captions)
        plain = Texts(
            *([[" ".join(tokenize(t)) for t in g] for g in part] for part in vars(raw).values())
        )
        task = Task(raw, plain, left_out, [dataset.path(image) for image in images])
        rounds = [
            {**bert, **clip}
            for bert, clip in zip(
                BertScore(**settings["bertscore_options"]).measures(task),
                ClipScore(**settings["clipscore_options"]).measures(task),
                strict=True,
            )
        ]
        assert set(row.measures) == {"BLEU-1", *rounds[0]}
        for name in rounds[0]:
            per_image = np.mean([scores[name].per_image for scores in rounds], axis=0)
            np.testing.assert_allclose(row.measures[name].per_image, per_image, rtol=0, atol=1e-6)
            value = np.mean([scores[name].value for scores in rounds])
            assert row.measures[name].value == pytest.approx(value, abs=1e-6)
            assert "weights sha256" in row.measures[name].note


@pytest.mark.filterwarnings("ignore:CLIPScore is not computed")
def test_a_missing_model_leaves_a_reason_in_place_of_scores(rows, dataset, settings):
    settings["clipscore_options"] = {"model": "/no/such/model", "batch_size": 2}
    asked = settings | {"spice": True, "bertscore": True, "clipscore": True}
    with pytest.warns(UserWarning, match=r"SPICE is not computed: models not available.*spice-mod"):
        found = add_optional(rows, dataset, asked)
    for row in found:
        for name in ("SPICE", "SPICE-size", "CLIPScore", "RefCLIPScore"):
            measure = row.measures[name]
            assert np.isnan(measure.value)
            assert np.isnan(measure.per_image).all()
            assert len(measure.per_image) == len(dataset.split(row.captions.split))
            assert measure.note.startswith("not computed: model")
        assert row.measures["BERTScore"].value > 0


def test_references_without_images_have_no_clipscore(rows, dataset, settings):
    for image in dataset.images:
        dataset.path(image).unlink()
    with pytest.warns(UserWarning, match="none of the 2 image files"):
        found = add_optional(rows, dataset, settings | {"clipscore": True})
    assert all("image files is there" in row.measures["CLIPScore"].note for row in found)


@pytest.fixture
def command(tmp_path, models):
    """Run ``capscope evaluate`` on COCO files, with the parameters of this repository."""
    annotations = [
        {"image_id": image_id, "caption": text}
        for image_id, ts in REFERENCES.items()
        for text in ts
    ]
    (tmp_path / "references.json").write_text(json.dumps({"annotations": annotations}))
    for name in ("first", "second"):
        captions = [{"image_id": k, "caption": f"{text} on"} for k, text in CAPTIONS.items()]
        (tmp_path / f"{name}.json").write_text(json.dumps(captions))

    def run(*assignments):
        arguments = ["--params", str(ROOT / "params.yaml"), "--human", "--out", str(tmp_path)]
        arguments += ["--references", str(tmp_path / "references.json")]
        for name in ("first", "second"):
            arguments += ["--candidates", str(tmp_path / f"{name}.json")]
        fixed = ["meteor=false", "tokenizer=python", "cache=null"]
        fixed += [f"spice_options.models={tmp_path / 'none'}", "bertscore_options.layers=2"]
        fixed.append(f"bertscore_options.model={models['bert']}")
        for assignment in (*fixed, *assignments):
            arguments += ["--set", f"metrics.{assignment}"]
        return CliRunner().invoke(evaluate, arguments, catch_exceptions=False)

    return run


@pytest.mark.filterwarnings("ignore:SPICE is not computed")
def test_all_tables_hold_what_was_computed_and_what_was_not(command, tmp_path):
    done = command("spice=true", "bertscore=true")
    assert done.exit_code == 0, done.output
    assert "not computed: models not available" in done.output
    with (tmp_path / "captions.csv").open() as stream:
        lines = {(line["system"], line["metric"]): line for line in csv.DictReader(stream)}
    for system in ("human", "first", "second"):
        spice, bert = lines[system, "SPICE"], lines[system, "BERTScore"]
        assert (spice["value"], spice["low"], spice["high"], spice["count"]) == ("", "", "", "0")
        assert "`capscope spice-models`" in spice["definition"]
        assert float(bert["low"]) <= float(bert["value"]) <= float(bert["high"])
        assert "transformers" in bert["definition"]
    with (tmp_path / "per_image.csv").open() as stream:
        for line in csv.DictReader(stream):
            assert line["SPICE"] == ""
            assert float(line["BERTScore-pairs"]) > 0
    for table in ("comparisons.csv", "seeds.csv"):
        with (tmp_path / table).open() as stream:
            metrics = {line["metric"] for line in csv.DictReader(stream)}
        assert "BERTScore" in metrics
        assert "SPICE" not in metrics
        assert "nan" not in (tmp_path / table).read_text().replace("nance", "")


def test_the_metrics_are_off_by_default(command, tmp_path):
    assert command().exit_code == 0
    header = (tmp_path / "per_image.csv").read_text().splitlines()[0]
    assert "SPICE" not in header
    assert "BERTScore" not in header
    assert "CLIPScore" not in header


def test_the_command_for_the_models_takes_folder_and_addresses_from_the_parameters(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("no_proxy", "*")
    with serving(ZIP) as site:
        arguments = ["--params", str(ROOT / "params.yaml")]
        for assignment in (
            f"models={tmp_path / 'models'}",
            f"addresses=[{site.address}]",
            f"checksum={SHA1}",
        ):
            arguments += ["--set", f"metrics.spice_options.{assignment}"]
        first, second = (CliRunner().invoke(fetch, arguments) for _ in range(2))
    assert "are now in" in first.output
    assert "were already in" in second.output
    assert contents(tmp_path / "models") == CONTENT
    assert len(site.asked) == 1


def test_the_default_addresses_are_those_of_the_authors_of_the_parser():
    options = load_params([ROOT / "params.yaml"])["metrics"]["spice_options"]
    assert options["addresses"]
    for address in options["addresses"]:
        assert address.split("/")[2].endswith("stanford.edu")
