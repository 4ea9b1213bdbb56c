"""Evaluating captions: the function, the command, bad input."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from capscope.cli.evaluate import command
from capscope.data.scenes.write import write_scenes
from capscope.errors import CapscopeError
from capscope.metrics.evaluate import CaptionScorer, evaluate_captions, leave_one_out
from capscope.metrics.meteor import Meteor
from capscope.metrics.results import check_ids, read_references, read_results
from capscope.metrics.statistics import resample

REFERENCES = {
    "one": ["A man rides a horse.", "A person on a horse!"],
    "two": ["The cat sits.", "A cat is sitting down."],
}
CANDIDATES = {"two": "the cat sits", "one": "a man on a horse"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    sizes = {"seed": 3, "size": 64, "train": 1, "val": 1, "test": 6, "shift": 4, "bias": 0.8}
    write_scenes(folder, sizes)
    return folder


@pytest.fixture
def params(tmp_path) -> Path:
    loaded = yaml.safe_load(Path("params.yaml").read_text())
    loaded["metrics"]["meteor"] = False
    loaded["metrics"]["cache"] = str(tmp_path / "cache")
    loaded["benchmarks"]["bootstrap"] = 20
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(loaded))
    return path


def make_run(folder: Path, scenes: Path, seed: int, splits=("test", "shift")) -> Path:
    images = json.loads((scenes / "dataset.json").read_text())["images"]
    (folder / "decoded").mkdir(parents=True)
    info = {"system": "gridtd", "stage": "xe", "seed": seed}
    (folder / "model.json").write_text(json.dumps(info))
    for split in splits:
        captions = [
            {"image_id": image["cocoid"], "caption": image["sentences"][seed]["raw"]}
            for image in images
            if image["split"] == split
        ]
        (folder / "decoded" / f"{split}.json").write_text(json.dumps(captions))
    return folder


def test_measures_come_in_the_order_of_the_references():
    measures = evaluate_captions(REFERENCES, CANDIDATES, meteor=False)
    assert list(measures) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert measures["ROUGE-L"].per_image[1] == 1.0
    assert measures["CIDEr"].value == pytest.approx(measures["CIDEr"].per_image.mean())


def test_without_meteor_and_with_the_python_tokeniser_no_java_is_started(monkeypatch):
    expected = evaluate_captions(REFERENCES, CANDIDATES, meteor=False)
    monkeypatch.setattr("subprocess.Popen", None)
    measures = evaluate_captions(REFERENCES, CANDIDATES, meteor=False, tokenizer="python")
    assert {k: v.value for k, v in measures.items()} == {k: v.value for k, v in expected.items()}


@pytest.mark.slow
def test_the_wrapped_originals_give_the_same_scores():
    ours = evaluate_captions(REFERENCES, CANDIDATES, meteor=False)
    theirs = evaluate_captions(
        REFERENCES, CANDIDATES, meteor=False, backend="reference", parity=True
    )
    for name, measure in theirs.items():
        assert type(measure) is not type(ours[name])
        assert measure.value == pytest.approx(ours[name].value, abs=1e-12)
        assert measure.per_image == pytest.approx(ours[name].per_image, abs=1e-12)
        (drawn,), (other,) = resample([measure]), resample([ours[name]])
        assert drawn.tolist() == other.tolist()


@pytest.mark.slow
def test_meteor_is_part_of_the_evaluation_unless_refused():
    measures = evaluate_captions(REFERENCES, CANDIDATES)
    assert measures["METEOR"].per_image[1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("references", "candidates", "message"),
    [
        ({1: ["a"], 2: ["b"]}, {1: "a"}, r"1 references without a caption \(image ids 2\)"),
        ({1: ["a"]}, {1: "a", 7: "b", 9: "c"}, r"2 captions without references \(image ids 7, 9\)"),
        ({1: []}, {1: "a"}, "image 1 needs a list with at least one reference"),
        ({1: "a cat"}, {1: "a"}, "image 1 needs a list"),
        ({1: ["a", None]}, {1: "a"}, "image 1: captions and references must be strings"),
        ({1: ["a"]}, {1: ["a"]}, "image 1: captions and references must be strings"),
        ({}, {}, "nothing to evaluate"),
    ],
)
def test_wrong_input_is_named(references, candidates, message):
    with pytest.raises(CapscopeError, match=message):
        evaluate_captions(references, candidates, meteor=False)


def test_empty_and_huge_captions_are_scored():
    candidates = {"one": "", "two": "cat " * 5000}
    measures = evaluate_captions(REFERENCES, candidates, meteor=False)
    assert measures["CIDEr"].per_image[0] == 0.0
    assert 0 < measures["BLEU-1"].per_image[1] < 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not valid JSON"),
        ("{}", "expected a list of captions"),
        ("[3]", "entry 0 is not an object"),
        ('[{"caption": "a"}]', "entry 0 needs a whole number 'image_id', found None"),
        ('[{"image_id": true, "caption": "a"}]', "found True"),
        ('[{"image_id": 1}]', "image 1 needs a string 'caption', found None"),
        ('[{"image_id": 1, "caption": 5}]', "image 1 needs a string 'caption', found 5"),
        (
            '[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]',
            "image 1 occurs twice",
        ),
    ],
)
def test_a_results_file_that_is_none_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(CapscopeError, match=message) as error:
        read_results(path)
    assert str(path) in str(error.value)


def test_ids_are_named_on_both_sides_but_not_all_of_them():
    with pytest.raises(CapscopeError) as error:
        check_ids(range(20), range(15, 30), "results.json")
    assert "10 captions without references (image ids 20, 21, 22, 23, 24, ...)" in str(error.value)
    assert "15 references without a caption (image ids 0, 1, 2, 3, 4, ...)" in str(error.value)


@pytest.mark.slow
def test_humans_are_scored_reference_against_the_others(tmp_path):
    references = [["a dog runs", "the dog runs", "dog"], ["a cat", "a cat", "cats"]]
    measures = leave_one_out(references)
    assert measures["ROUGE-L"].count == 6
    scored = [
        evaluate_captions(
            {
                i: [text for k, text in enumerate(refs) if k != chosen]
                for i, refs in enumerate(refs_)
            },
            {i: refs[chosen] for i, refs in enumerate(refs_)},
            meteor=False,
        )
        for refs_ in [references]
        for chosen in range(3)
    ]
    for name, measure in measures.items():
        assert measure.value == pytest.approx(sum(one[name].value for one in scored) / 3)
    assert leave_one_out([["a dog"], ["a cat", "cats"]]) is None


def test_the_command_scores_all_runs_and_splits(tmp_path, scenes, params):
    runs = [make_run(tmp_path / f"seed{seed}", scenes, seed) for seed in (1, 2)]
    arguments = ["--params", str(params), "--data", str(scenes), "--out", str(tmp_path / "scores")]
    for run in runs:
        arguments += ["--run", str(run)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "left_right_accuracy" in done.output
    assert "object_f1: F1 of object_precision and object_recall" in done.output
    with (tmp_path / "scores" / "captions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    cells = {(row["system"], row["seed"], row["split"], row["metric"]): row for row in rows}
    assert len(cells) == len(rows)
    for split in ("test", "shift"):
        for name in ("CIDEr", "object_f1", "colour_accuracy", "CHAIR-s", "relation_accuracy"):
            human, ours = cells["human", "", split, name], cells["gridtd", "2", split, name]
            assert human["definition"] == ours["definition"] != ""
            if ours["value"]:
                assert float(ours["low"]) <= float(ours["value"]) <= float(ours["high"])
    perfect = cells["gridtd", "1", "test", "ROUGE-L"]
    assert float(perfect["value"]) == 1.0
    assert perfect["count"] == "6"
    by_run = json.loads((tmp_path / "scores" / "metrics.json").read_text("utf-8"))
    assert by_run["gridtd"]["xe"]["seed1"]["test"]["ROUGE-L"] == 1.0
    assert set(by_run["human"]) == {"test", "shift"}
    with (tmp_path / "scores" / "per_image.csv").open() as stream:
        per_image = list(csv.DictReader(stream))
    assert len(per_image) == 3 * (6 + 4)
    assert {row["ROUGE-L"] for row in per_image if row["system"] == "gridtd"} == {"1"}


def test_scores_of_the_same_captions_are_the_same_bytes(tmp_path, scenes, params):
    run = make_run(tmp_path / "run", scenes, 1, ("test",))
    for name in ("first", "second"):
        arguments = ["--params", str(params), "--data", str(scenes), "--run", str(run)]
        CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / name)])
    first, second = (
        (tmp_path / name / "captions.csv").read_bytes() for name in ("first", "second")
    )
    assert first == second


def test_a_reinforced_run_is_signed_and_training_frequencies_are_named(tmp_path, scenes, params):
    runs = [make_run(tmp_path / f"seed{seed}", scenes, seed, ("test",)) for seed in (1, 2)]
    signature = {"end_token": "none", "frequencies": "training", "baseline": "greedy"}
    info = {"system": "gridtd", "stage": "scst", "seed": 2, "signature": signature}
    (runs[1] / "model.json").write_text(json.dumps(info))
    arguments = ["--params", str(params), "--data", str(scenes), "--out", str(tmp_path / "scores")]
    for run in runs:
        arguments += ["--run", str(run)]
    done = CliRunner().invoke(command, [*arguments, "--frequencies", "train"])
    text = "end token none, df training, baseline greedy"
    assert f"gridtd scst seed 2: {text}" in done.output
    with (tmp_path / "scores" / "captions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["signature"] for row in rows if row["stage"] == "scst"} == {text}
    assert {row["signature"] for row in rows if row["stage"] != "scst"} == {""}
    (definition,) = {row["definition"] for row in rows if row["metric"] == "CIDEr"}
    assert definition.endswith("; document frequencies from 1 training images")
    with (tmp_path / "scores" / "comparisons.csv").open() as stream:
        compared = next(csv.DictReader(stream))
    assert (compared["first"], compared["second"]) == ("gridtd xe", "gridtd scst")


def test_a_run_of_other_images_leaves_no_scores(tmp_path, scenes, params):
    run = make_run(tmp_path / "run", scenes, 1)
    captions = json.loads((run / "decoded" / "test.json").read_text())
    captions[0]["image_id"] = 999
    (run / "decoded" / "test.json").write_text(json.dumps(captions))
    arguments = ["--params", str(params), "--data", str(scenes), "--run", str(run)]
    done = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "scores")])
    assert isinstance(done.exception, CapscopeError)
    assert "image ids 999" in str(done.exception)
    assert not (tmp_path / "scores").exists()


def test_a_run_without_captions_is_named(tmp_path, scenes, params):
    run = make_run(tmp_path / "run", scenes, 1, ())
    arguments = ["--params", str(params), "--data", str(scenes), "--run", str(run)]
    done = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "scores")])
    assert "holds no captions" in str(done.exception)


def test_files_of_any_origin_are_scored(tmp_path, params):
    annotations = [
        {"image_id": place, "caption": text}
        for place, texts in enumerate(REFERENCES.values())
        for text in texts
    ]
    references, results = tmp_path / "captions.json", tmp_path / "mine.json"
    references.write_text(json.dumps({"images": [], "annotations": annotations}))
    captions = [{"image_id": 1, "caption": "The cat sits."}, {"image_id": 0, "caption": "A horse"}]
    results.write_text(json.dumps(captions))
    arguments = ["--params", str(params), "--references", str(references)]
    arguments += ["--candidates", str(results), "--out", str(tmp_path)]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.output.splitlines()[0].split() == ["test", "mine"]
    done = CliRunner().invoke(command, [*arguments, "--human"], catch_exceptions=False)
    assert done.output.splitlines()[0].split() == ["test", "human", "leave-one-out", "mine"]
    with (tmp_path / "per_image.csv").open() as stream:
        scores = {row["image_id"]: row for row in csv.DictReader(stream) if row["system"] == "mine"}
    assert (scores["1"]["caption"], scores["1"]["ROUGE-L"]) == ("The cat sits.", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no list 'annotations'"),
        ('{"annotations": []}', "no list 'annotations'"),
        ('{"annotations": [7]}', r"annotations\[0\] needs a whole number"),
        ('{"annotations": [{"image_id": 1, "caption": null}]}', r"annotations\[0\] needs"),
    ],
)
def test_a_references_file_that_is_none_says_what_is_wrong(tmp_path, text, message):
    (tmp_path / "captions.json").write_text(text)
    with pytest.raises(CapscopeError, match=message):
        read_references(tmp_path / "captions.json")


@pytest.mark.parametrize("arguments", [[], ["--data", "x"], ["--references", "x", "--run", "y"]])
def test_half_a_command_says_what_is_missing(arguments):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert "--references and --candidates" in done.output


def test_meteor_is_asked_once_per_distinct_caption(tmp_path):
    class Counting(Meteor):
        asked = 0

        def _ask(self, requests):
            self.asked += len(requests)
            return [[0.0] * 23 for _ in requests]

    meteor = Counting()
    leave_one_out([["a dog", "a dog", "a dog"]] * 4, partial(CaptionScorer, meteor=meteor))
    assert meteor.asked == 3
