"""Runs compared image by image: the tests, the histograms and the page."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner
from PIL import Image

from capscope.cli import capscope
from capscope.data.image_folder import with_image_files
from capscope.errors import CapscopeError
from capscope.files import write_json
from capscope.metrics.pairs import ScoredRun, SplitScores, read_scores
from capscope.metrics.results import read_references
from capscope.report.comparison import write_comparison
from capscope.report.histogram import Series, counted, difference_edges, histogram, score_edges

HOSTILE = "</script><b>"
METRICS = ("BLEU-4", "CIDEr", "CHAIR-s")
RUNS = {
    ("spatial", "xe", "1"): [[0.1, 0.8, 1], [0.2, 1.0, 0], [0.3, 0.4, 1], [0.0, 0.6, math.nan]],
    ("spatial", "scst", "1"): [[0.4, 1.2, 0], [0.2, 1.5, 0], [0.5, 0.1, 1], [0.1, 0.6, 0]],
    ("gridtd", "xe", "2"): [[0.1, 0.8, 1], [0.2, 1.0, 0], [0.3, 0.4, 1], [0.0, 0.6, math.nan]],
}


def caption(run, image_id) -> str:
    return f"a {run[1]} cat {HOSTILE} {image_id}"


@pytest.fixture
def scores(tmp_path):
    """Tables as ``capscope evaluate`` writes them."""
    folder = tmp_path / "scores"
    folder.mkdir()
    with (folder / "per_image.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        head = ["dataset", "system", "stage", "seed", "split", "image_id", "caption", *METRICS]
        writer.writerow(head)
        for image_id in range(4):
            writer.writerow(["toy", "human", "", "", "test", image_id, "", 0.5, 2.0, 0.0])
        for run, rows in RUNS.items():
            for image_id, values in enumerate(rows):
                cells = ["" if math.isnan(value) else value for value in values]
                said = caption(run, image_id)
                writer.writerow(["toy", *run, "test", image_id, said, *cells])
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "system", "stage", "seed", "split", "metric", "value"])
        for run in [("human", "", ""), *RUNS]:
            for place, metric in enumerate(METRICS):
                writer.writerow(["toy", *run, "test", metric, 0.1 * place + len(run[1])])
    return folder


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "captions.json"
    notes = [{"image_id": k, "caption": f"A cat {HOSTILE} number {k}."} for k in range(4)]
    write_json(path, {"annotations": notes})
    images = tmp_path / "images"
    images.mkdir()
    for image_id in (0, 1):
        Image.new("RGB", (40, 30), (90 * image_id, 20, 30)).save(images / f"toy_00{image_id}.png")
    return with_image_files(read_references(path), images)


def test_pairs_are_tested_as_scipy_tests_them(scores):
    (split,) = read_scores(scores, [("spatial", "scst", "1"), ("spatial", "xe", "1")])
    assert split.image_ids == (0, 1, 2, 3)
    assert split.metrics == ["BLEU-4", "CIDEr", "CHAIR-s"]
    ((first, second, lines),) = split.pairs()
    assert (first.title, second.title) == ("spatial scst seed 1", "spatial xe seed 1")
    for place, line in enumerate(lines[:2]):
        ours, theirs = (np.array(RUNS[run])[:, place] for run in list(RUNS)[1::-1])
        expected = scipy.stats.ttest_rel(ours, theirs)
        assert line["t"] == pytest.approx(expected.statistic, abs=1e-9)
        assert line["p"] == pytest.approx(expected.pvalue, abs=1e-9)
        assert line["difference"] == pytest.approx((ours - theirs).mean())
        assert line["images"] == 4
    chair = lines[2]
    assert chair["images"] == 3
    assert chair["direction"] == "lower"
    assert chair["first_mean"] == pytest.approx(1 / 3)


def test_runs_without_scores_and_a_single_run_are_errors(scores, tmp_path):
    with pytest.raises(CapscopeError, match="no scores of the run spatial xe seed 7"):
        read_scores(scores, [("spatial", "xe", "7"), ("spatial", "xe", "1")])
    with pytest.raises(CapscopeError, match="a comparison needs two or more"):
        read_scores(scores, [("spatial", "xe", "1")])
    with pytest.raises(CapscopeError, match=r"captions\.csv does not exist: run `capscope evalu"):
        read_scores(tmp_path)
    (scores / "captions.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CapscopeError, match=r"captions\.csv is not a table of scores"):
        read_scores(scores)


def test_every_value_is_in_one_bin_and_no_difference_in_the_middle_one():
    values = np.array([0.0, 0.25, 5.99, 7.0, math.nan, -0.0])
    edges = score_edges("CIDEr", [values])
    assert np.allclose(np.diff(edges), 0.25)
    counts = counted(values, edges)
    assert counts.sum() == 5
    assert counts[0] == 2
    assert counts[1] == 1
    assert counts[-1] == 2
    for size, bins in ((10, 11), (100, 21), (600, 31)):
        differences = np.linspace(-0.3, 0.7, size)
        edges = difference_edges(differences)
        assert len(edges) == bins + 1
        assert edges[bins // 2] < 0 < edges[bins // 2 + 1]
        assert counted(differences, edges).sum() == size
    assert np.allclose(score_edges("BLEU-4", [values / 10]), np.linspace(0, 1, 21))


def test_bars_of_differences_are_for_the_run_that_is_better():
    values = np.array([0.5, -0.5, 0.0])
    for direction, expected in (("higher", "against even for"), ("lower", "for even against")):
        drawn = histogram("x", [Series("x", values, direction, {})], difference_edges(values))
        assert re.findall(r'class="bar (\w+)"', drawn) == expected.split()


def test_the_page_stands_alone_and_escapes_what_captions_say(scores, dataset, tmp_path):
    out = tmp_path / "page.html"
    write_comparison(read_scores(scores), dataset, out, images=24)
    page = out.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<b> 0" not in page
    assert page.count("data:image/webp") >= 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])
    assert data["test"]["ids"] == [0, 1, 2, 3]
    runs = {run["title"]: run for run in data["test"]["runs"]}
    assert list(runs) == ["spatial xe seed 1", "spatial scst seed 1", "gridtd xe seed 2"]
    assert runs["spatial xe seed 1"]["captions"][2] == caption(("spatial", "xe", "1"), 2)
    assert runs["spatial xe seed 1"]["scores"]["CHAIR-s"] == [1, 0, 1, None]
    for pair in ("0-1", "0-2", "1-2"):
        assert f'<section id="test-{pair}">' in page
    first = page[page.index('<section id="test-0-1">') : page.index('<section id="test-0-2">')]
    shown = [int(k) for k in re.findall(r">image (\d+)<", first)]
    assert shown == [2, 1, 0]  # by CIDEr: xe is better on 2 alone, scst most on 1
    equal = page[page.index('<section id="test-0-2">') : page.index('<section id="test-1-2">')]
    assert ">image " not in equal


def test_of_many_runs_pairs_of_one_system_and_of_the_best_are_laid_out(dataset, tmp_path):
    """Seven runs of three systems; the last has the best CIDEr."""
    rng = np.random.default_rng(0)
    names = ["a xe", "a scst", "a lrp_xe", "b xe", "b scst", "c xe", "c scst"]
    runs = tuple(
        ScoredRun(name, ("a cat",) * 4, {"CIDEr": 1.0 + k}, {"CIDEr": rng.random(4) + k})
        for k, name in enumerate(names)
    )
    write_comparison([SplitScores("test", (0, 1, 2, 3), runs, {})], dataset, tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    shown = re.findall(r'<section id="test-(\d)-(\d)">', page)
    same = [("0", "1"), ("0", "2"), ("1", "2"), ("3", "4"), ("5", "6")]
    assert sorted(shown) == sorted([*same, *((str(k), "6") for k in range(5))])
    note = page[page.index('id="test-distributions"') :]
    note = note[: note.index("</p>")]
    drawn = re.findall(r'class="swatch (run\d)"></i>([^<]+?) (?=<|$)', note)
    assert [(colour, title.strip()) for colour, title in drawn] == [
        ("run0", "c scst"),
        ("run1", "b scst"),
        ("run2", "a lrp_xe"),
    ]


def test_files_of_captions_are_compared_by_command(dataset, tmp_path):
    for name in ("one", "two"):
        said = [{"image_id": k, "caption": f"a {name} cat number {k}"} for k in range(4)]
        write_json(tmp_path / f"{name}.json", said)
    params = Path(__file__).resolve().parents[2] / "params.yaml"
    arguments = [
        "--params",
        params,
        "--references",
        tmp_path / "captions.json",
        "--images",
        tmp_path / "images",
    ]
    for name in ("one", "two"):
        arguments += ["--candidates", tmp_path / f"{name}.json"]
    settings = ["--set", "metrics.meteor=false", "--set", "metrics.tokenizer=python"]
    out = ["--out", tmp_path / "page.html"]
    done = CliRunner().invoke(capscope, ["compare", *map(str, [*arguments, *settings, *out])])
    assert done.exit_code == 0, done.output
    assert "one − two" in (tmp_path / "page.html").read_text()
    wrong = CliRunner().invoke(capscope, ["compare", "--out", str(tmp_path / "x.html")])
    assert wrong.exit_code == 2
    assert "both --scores and --data are needed" in wrong.output


def test_image_files_are_found_by_the_number_that_their_name_ends_with(dataset, tmp_path):
    assert [image.file for image in dataset.images] == ["toy_000.png", "toy_001.png", "2", "3"]
    Image.new("RGB", (4, 3)).save(tmp_path / "images" / "1.png")
    with pytest.raises(CapscopeError, match="are both image 1"):
        with_image_files(dataset, tmp_path / "images")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CapscopeError, match="no file whose name ends with the id"):
        with_image_files(dataset, tmp_path / "empty")
