"""Files of any origin: COCO and plain text, one or several, from the command line."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from capscope.cli.evaluate import command
from capscope.cli.frequencies import command as count
from capscope.errors import CapscopeError
from capscope.metrics import evaluate_captions
from capscope.metrics.frequencies import DocumentFrequencies
from capscope.metrics.frequency_files import read_frequencies
from capscope.metrics.plain import read_plain_captions, read_plain_references
from capscope.metrics.submissions import DEFAULTS

REFERENCES = {
    1: ["A man rides a horse.", "A person on a horse!"],
    2: ["The cat sits.", "A cat is sitting down."],
    7: ["Two dogs run on the beach.", "Dogs at the sea, running."],
}
GOOD = {1: "A man rides a horse", 2: "the cat sits", 7: "two dogs run on the beach"}
POOR = {1: "a bus", 2: "a cat", 7: "a man rides a horse"}


def coco_captions(references):
    pairs = [(image, text) for image, texts in references.items() for text in texts]
    entries = [
        {"image_id": image, "id": k, "caption": text} for k, (image, text) in enumerate(pairs)
    ]
    return json.dumps({"annotations": entries, "images": []})


def coco_results(captions):
    return json.dumps([{"image_id": image, "caption": text} for image, text in captions.items()])


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Files in a folder without a params.yaml, as outsiders have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAPSCOPE_CACHE", str(tmp_path / "cache"))
    Path("captions.json").write_text(coco_captions(REFERENCES))
    Path("good.json").write_text(coco_results(GOOD))
    Path("poor.json").write_text(coco_results(POOR))
    for name, captions in (("good", GOOD), ("poor", POOR)):
        Path(f"{name}.txt").write_text("".join(text + "\n" for text in captions.values()))
    Path("tabs.txt").write_text("".join("\t".join(texts) + "\n" for texts in REFERENCES.values()))
    for k in (0, 1):
        lines = "".join(texts[k] + "\r\n" for texts in REFERENCES.values())
        Path(f"references{k}.txt").write_bytes(lines.encode())
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(command, [*arguments, "--no-meteor"], catch_exceptions=False)


def scores(output):
    return {
        (row["system"], row["metric"]): row["value"] for row in csv.DictReader(output.splitlines())
    }


COCO = ("--references", "captions.json", "--candidates", "good.json")


def test_no_params_are_needed_and_the_defaults_are_those_of_the_project(files, monkeypatch):
    done = run(*COCO)
    assert done.exit_code == 0
    assert done.output.splitlines()[0].split() == ["test", "good"]
    shipped = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    for section, defaults in DEFAULTS.items():
        assert {key: shipped[section][key] for key in defaults} == defaults


def test_table_csv_and_json_hold_the_same_scores(files):
    table, rows, loaded = (run(*COCO, "--format", form) for form in ("table", "csv", "json"))
    expected = evaluate_captions(REFERENCES, GOOD, meteor=False)
    found = scores(rows.output)
    parsed = {one["metric"]: one["value"] for one in json.loads(loaded.output)["scores"]}
    assert list(parsed) == list(expected)
    for name, measure in expected.items():
        assert parsed[name] == pytest.approx(measure.value, abs=1e-12)
        assert float(found["good", name]) == pytest.approx(measure.value, abs=1e-5)
        assert f"{measure.value:.3f}" in table.output


@pytest.mark.parametrize(
    "references",
    [
        ("--references", "tabs.txt"),
        ("--references", "references0.txt", "--references", "references1.txt"),
    ],
)
def test_plain_text_scores_as_coco_files_do(files, references):
    plain = run("--plain", *references, "--candidates", "good.txt", "--format", "csv")
    coco = run(*COCO, "--format", "csv")
    assert scores(plain.output) == scores(coco.output)


@pytest.mark.slow
def test_several_candidates_are_compared_on_the_same_images(files):
    arguments = [*COCO, "--candidates", "poor.json", "--out", "out"]
    done = run(*arguments)
    assert "good - poor" in done.output
    assert "p (bootstrap)" in done.output
    assert "p (t-test per image)" in done.output
    with Path("out/comparisons.csv").open() as stream:
        rows = {row["metric"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"}
    row = rows["ROUGE-L"]
    assert (row["first"], row["second"], row["images"]) == ("good", "poor", "3")
    first, second = (
        evaluate_captions(REFERENCES, captions, meteor=False)["ROUGE-L"].value
        for captions in (GOOD, POOR)
    )
    assert float(row["difference"]) == pytest.approx(first - second, abs=1e-5)
    assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
    loaded = json.loads(run(*arguments, "--format", "json").output)
    assert len(loaded["comparisons"]) == len(rows)


def test_files_of_one_name_are_told_apart(files):
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "results.json").write_text(coco_results(GOOD))
    both = ["--candidates", "a/results.json", "--candidates", "b/results.json"]
    done = run("--references", "captions.json", *both, "--format", "csv")
    assert {system for system, _ in scores(done.output)} == {"a/results.json", "b/results.json"}
    with pytest.raises(CapscopeError, match=r"name a/results.json twice"):
        run("--references", "captions.json", *both[:2], *both[:2])


def test_a_file_that_is_called_human_is_a_file(files):
    Path("human.json").write_text(coco_results(POOR))
    done = run(*COCO, "--candidates", "human.json", "--human")
    head = done.output.splitlines()[0].split()
    assert head == ["test", "human", "leave-one-out", "good", "human"]
    assert "good - human" in done.output


def test_a_part_of_the_images_can_be_scored_on_request(files):
    Path("part.json").write_text(coco_results({1: GOOD[1], 7: GOOD[7]}))
    arguments = ["--references", "captions.json", "--candidates", "part.json"]
    with pytest.raises(CapscopeError, match=r"part.json: 1 references without .*ids 2"):
        run(*arguments)
    done = run(*arguments, "--only-captioned", "--format", "csv")
    part = {image: REFERENCES[image] for image in (1, 7)}
    expected = evaluate_captions(part, {1: GOOD[1], 7: GOOD[7]}, meteor=False)
    value = float(scores(done.output)["part", "CIDEr"])
    assert value == pytest.approx(expected["CIDEr"].value, abs=1e-5)
    Path("part.json").write_text(coco_results({99: "x"}))
    with pytest.raises(CapscopeError, match="none of its 1 captions has references"):
        run(*arguments, "--only-captioned")


def test_humans_are_scored_on_request(files):
    done = run(*COCO, "--human", "--format", "csv")
    assert ("human", "CIDEr") in scores(done.output)
    assert ("human", "CIDEr") not in scores(run(*COCO, "--format", "csv").output)


@pytest.mark.slow
def test_document_frequencies_come_from_where_they_are_asked_from(files):
    """The source changes CIDEr, nothing else, and is named beside it."""
    corpus = {k: [f"A dog number {k} runs.", "The cat sits."] for k in range(8)}
    Path("training.json").write_text(coco_captions(corpus))
    texts = [[text.lower().rstrip(".").split() for text in texts] for texts in corpus.values()]
    table = DocumentFrequencies.of(texts)
    ngrams = {"document_frequency": dict(table.counts), "ref_len": table.images}
    Path("ngrams.p").write_bytes(pickle.dumps(ngrams))
    karpathy = {
        "images": [
            {
                "filename": f"{k}.jpg",
                "imgid": k,
                "split": "restval" if k else "train",
                "sentences": [{"raw": text} for text in texts],
            }
            for k, texts in corpus.items()
        ]
    }
    karpathy["images"].append({**karpathy["images"][0], "imgid": 99, "split": "test"})
    Path("karpathy.json").write_text(json.dumps(karpathy))
    found = {
        source: list(
            csv.DictReader(
                run(*COCO, "--format", "csv", "--frequencies", source).output.splitlines()
            )
        )
        for source in ("references", "training.json", "ngrams.p", "karpathy.json")
    }
    ciders = {source: rows[-1] for source, rows in found.items()}
    expected = evaluate_captions(
        REFERENCES, GOOD, meteor=False, frequencies=read_frequencies(Path("ngrams.p"))
    )["CIDEr"].value
    for source in ("training.json", "ngrams.p", "karpathy.json"):
        assert float(ciders[source]["value"]) == pytest.approx(expected, abs=1e-5)
    assert ciders["references"]["value"] != ciders["ngrams.p"]["value"]
    notes = {source: row["definition"].split("; ")[1] for source, row in ciders.items()}
    assert notes == {
        "references": "document frequencies from the evaluated references",
        "training.json": "document frequencies from 8 images of training.json",
        "ngrams.p": "document frequencies from ngrams.p (8 images)",
        "karpathy.json": "document frequencies from 8 training images of karpathy.json",
    }
    others = {source: [row["value"] for row in rows[:-1]] for source, rows in found.items()}
    assert all(values == others["references"] for values in others.values())


def test_an_ngram_file_is_made_of_captions_or_of_a_published_one(files):
    corpus = {k: [f"A dog number {k} runs.", "The cat sits."] for k in range(4)}
    Path("training.json").write_text(coco_captions(corpus))
    made = ["training.json", "--out", "made.json", "--tokenizer", "python"]
    done = CliRunner().invoke(count, made, catch_exceptions=False)
    assert done.output == "41 n-grams of 4 images in made.json\n"
    table = read_frequencies(Path("made.json"))
    assert table.counts[("the", "cat", "sits")] == 4
    values = {
        source: scores(run(*COCO, "--format", "csv", "--frequencies", source).output)
        for source in ("training.json", "made.json")
    }
    assert values["training.json"] == values["made.json"]
    ids = {"document_frequency": {("12", "0"): 1.0}, "ref_len": 3}
    Path("idxs.p").write_bytes(pickle.dumps(ids))
    converted = ["idxs.p", "--out", "idxs.json", "--kind", "idxs"]
    done = CliRunner().invoke(count, converted, catch_exceptions=False)
    assert read_frequencies(Path("idxs.json"), "idxs").counts == {(12, 0): 1.0}
    assert CliRunner().invoke(count, [*made, "--kind", "idxs"]).exit_code == 2


def test_frequencies_that_cannot_be_had_are_refused(files):
    with pytest.raises(CapscopeError, match="has no images in its split train"):
        run(*COCO, "--frequencies", "train")
    with pytest.raises(CapscopeError, match=r"cannot read .*absent.json"):
        run(*COCO, "--frequencies", "absent.json")
    Path("ngrams.json").write_text('{"ref_len": 2, "words": {"a": 1}}')
    with pytest.raises(CapscopeError, match=r"metrics.frequencies to references"):
        run(*COCO, "--frequencies", "ngrams.json", "--backend", "reference")


@pytest.mark.slow
def test_the_originals_and_the_python_tokeniser_give_the_same(files):
    ours = scores(run(*COCO, "--format", "csv").output)
    for flags in (("--backend", "reference"), ("--tokenizer", "python"), ("--parity",)):
        assert scores(run(*COCO, "--format", "csv", *flags).output) == ours


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ("no json", "good.json is not valid JSON"),
        ("[" * 100_000, "good.json is not valid JSON"),
        ('[{"image_id": ' + "9" * 5000 + "}]", "good.json is not valid JSON"),
        ("\udcff", "good.json is not valid JSON"),
        ("[1]", "entry 0 is not an object"),
        (coco_results({**GOOD, 8: "x", 9: "y"}), r"2 captions without references \(image ids 8, 9"),
        (coco_results({1: "x"}), r"2 references without a caption \(image ids 2, 7"),
        (coco_results({1: "x", 3: "y"}), r"1 captions without .*ids 3\); 2 references without"),
        (coco_results({**GOOD, 2: 5}), "image 2 needs a string 'caption', found 5"),
        (coco_results({**GOOD, 2: None}), "image 2 needs a string 'caption', found None"),
        (coco_results(GOOD)[:-1] + ', {"image_id": 7, "caption": "b"}]', "image 7 occurs twice"),
        ('[{"image_id": "1", "caption": "a"}]', "whole number 'image_id', found '1'"),
    ],
)
def test_bad_candidates_are_named(files, candidates, message):
    Path("good.json").write_bytes(candidates.encode("utf-8", "surrogateescape"))
    with pytest.raises(CapscopeError, match=message) as error:
        run(*COCO)
    assert "good.json" in str(error.value)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        ("{}", "no list 'annotations'"),
        ("{", "is not valid JSON"),
        (coco_captions(REFERENCES).replace('"A man rides a horse."', "3"), r"annotations\[0\]"),
    ],
)
def test_bad_references_are_named(files, references, message):
    Path("captions.json").write_text(references)
    with pytest.raises(CapscopeError, match=message) as error:
        run(*COCO)
    assert "captions.json" in str(error.value)


def test_empty_and_huge_captions_are_scored_with_a_warning(files):
    Path("good.json").write_text(coco_results({**GOOD, 1: " ", 2: "cat " * 3000}))
    with pytest.warns(UserWarning, match="good.json") as warned:
        done = run(*COCO, "--format", "csv")
    told = [str(warning.message) for warning in warned]
    assert "good.json: 1 captions are empty and score 0" in told
    assert "good.json: 1 captions are cut to 250 words for METEOR" in told
    assert 0 < float(scores(done.output)["good", "BLEU-1"]) < 0.01


def test_plain_references_may_differ_in_number(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("\ufeffa dog\n\nthree\tfour\n", encoding="utf-8")
    second.write_text("the dog\na cat\n\n")
    images = read_plain_references([first, second]).images
    assert [image.references for image in images] == [
        ("a dog", "the dog"),
        ("a cat",),
        ("three", "four"),
    ]
    assert [image.id for image in images] == [1, 2, 3]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (["a\nb\n", "a\n"], r"1.txt has 1 lines but .*0.txt has 2"),
        (["a\n \n"], "line 2 holds no reference"),
        ([""], "is empty"),
        ([b"\xff\xfe"], "is not UTF-8 text"),
    ],
)
def test_plain_references_that_do_not_fit_are_named(tmp_path, contents, message):
    paths = [tmp_path / f"{k}.txt" for k in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CapscopeError, match=message):
        read_plain_references(paths)


def test_plain_captions_keep_empty_lines_and_need_one_for_each_image(files):
    Path("lines.txt").write_text("a\n\nc")
    assert read_plain_captions(Path("lines.txt")) == {1: "a", 2: "", 3: "c"}
    Path("lines.txt").write_text("a\nb\n")
    with pytest.raises(CapscopeError, match=r"lines.txt: 1 references without .*ids 3"):
        run("--plain", "--references", "tabs.txt", "--candidates", "lines.txt")
    with pytest.raises(CapscopeError, match="cannot read"):
        run("--plain", "--references", "tabs.txt", "--candidates", "absent.txt")


def test_several_references_that_are_not_plain_are_refused(files):
    with pytest.raises(CapscopeError, match="add --plain"):
        run(*COCO, "--references", "captions.json")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--candidates", "good.json"),
        (*COCO, "--data", "x", "--run", "y", "--out", "z"),
        ("--plain", "--data", "x", "--run", "y", "--out", "z"),
    ],
)
def test_arguments_that_do_not_belong_together_are_refused(files, arguments):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2
    assert "--references and --candidates" in done.output
