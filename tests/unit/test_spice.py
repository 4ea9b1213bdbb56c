"""SPICE by a stand-in that speaks its files, and its own jar as far as it goes without models."""

from __future__ import annotations

import base64
import json
import platform
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import spice_stand_in

from capscope.errors import CapscopeError
from capscope.files import write_manifest
from capscope.metrics import spice as module
from capscope.metrics.java import TOKENIZER_JAR, jar
from capscope.metrics.script_engine import write_script_engine
from capscope.metrics.spice import CATEGORIES, Spice, spice_command
from capscope.metrics.spice_models import JARS, KIND
from capscope.metrics.task import Task, Texts, UnavailableError

REFERENCES = [
    ["a red dog", "two dogs on a sofa"],
    ["a cat", "a green cat sits", "a cat"],
    ["", "a man with a façade 旗"],
]
CAPTIONS = ["a red dog on a sofa", "a cat sits", ""]
HUMAN = [image[1] for image in REFERENCES]
TEXTS = Texts(REFERENCES, [CAPTIONS, HUMAN])
TASK = Task(raw=Texts(REFERENCES, []), tokenized=TEXTS, left_out=[None, 1], images=[])


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for name in JARS:
        (folder / name).write_bytes(b"jar")
    write_manifest(folder, KIND, params={})
    return folder


@pytest.fixture
def run(tmp_path, models):
    """Make a `Spice` that runs the stand-in; ``run.log()`` tells its calls."""

    def make(mode="well", **options):
        script = str(Path(spice_stand_in.__file__))
        launcher = [sys.executable, script, str(tmp_path / "log"), mode]
        options = {"cache": tmp_path / "new" / "cache", "timeout": 60.0} | options
        return Spice(models, launcher=launcher, **options)

    make.log = lambda: [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    return make


def expected(references, caption):
    entry = {"test": caption, "refs": references}
    return {CATEGORIES[name]: s["f"] for name, s in spice_stand_in.score(entry).items()}


def test_every_category_is_kept_per_image_and_undefined_ones_are_left_out_of_means(run):
    ours, human = run().measures(TASK)
    for measures, captions, references in (
        (ours, CAPTIONS, REFERENCES),
        (human, HUMAN, [[image[0], *image[2:]] for image in REFERENCES]),
    ):
        assert tuple(measures) == Spice.names
        rows = [expected(image, text) for image, text in zip(references, captions, strict=True)]
        for name, measure in measures.items():
            values = np.array([row[name] for row in rows], float)
            np.testing.assert_array_equal(measure.per_image, values)
            defined = values[~np.isnan(values)]
            np.testing.assert_allclose(measure.value, defined.mean() if len(defined) else np.nan)
            assert measure.count == len(defined)
    assert ours["SPICE-color"].count == 2
    assert ours["SPICE-cardinality"].count == 1
    assert human["SPICE-cardinality"].count == 0


@pytest.mark.slow
def test_every_text_is_parsed_once_and_not_again_in_the_next_run(run):
    first = run()
    first.measures(TASK)
    parsed = [text for call in run.log() for text in call["parsed"]]
    texts = {text for image in REFERENCES for text in image} | set(CAPTIONS)
    assert sorted(parsed) == sorted(texts)
    before = len(run.log())
    again = run().measures(TASK)
    assert [call["parsed"] for call in run.log()[before:]] == [[]] * before
    assert again[0]["SPICE"].value == first.measures(TASK)[0]["SPICE"].value


@pytest.mark.slow
def test_parsing_goes_in_portions_so_that_a_crash_loses_little(run, monkeypatch):
    monkeypatch.setattr(module, "PARSED_AT_ONCE", 2)
    run().measures(TASK)
    sizes = [len(call["parsed"]) for call in run.log()]
    assert max(sizes) == 2
    assert sum(sizes) == len({text for image in REFERENCES for text in image} | set(CAPTIONS))


@pytest.mark.slow
def test_without_a_cache_the_scores_are_the_same(run):
    with_cache = run().measures(TASK)
    without = run(cache=None).measures(TASK)
    assert run.log()[-1]["cache"] is None
    for ours, theirs in zip(without, with_cache, strict=True):
        for name in Spice.names:
            np.testing.assert_array_equal(ours[name].per_image, theirs[name].per_image)


def test_on_other_processors_the_cache_is_left_out_with_a_warning(run, monkeypatch):
    monkeypatch.setattr(module.platform, "machine", lambda: "arm64")
    with pytest.warns(UserWarning, match="cannot keep parses on arm64"):
        spice = run()
    spice.measures(TASK)
    assert {call["cache"] for call in run.log()} == {None}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["crash", "babble", "skip"])
def test_a_process_that_fails_once_is_run_again(run, mode):
    measures = run(mode).measures(TASK)
    assert measures[0]["SPICE"].value == run().measures(TASK)[0]["SPICE"].value


@pytest.mark.slow
def test_a_process_that_hangs_once_is_run_again(run):
    assert len(run("hang", timeout=8.0).measures(TASK)) == 2


@pytest.mark.parametrize(
    ("mode", "timeout", "message"),
    [
        ("crash always", 60.0, r"status 1: .*OutOfMemoryError: Java heap space, twice\. It may"),
        ("hang always", 0.3, r"did not end within 0\.3 s, twice"),
        ("babble always", 60.0, r"wrote no scores that can be read \(.*\), twice.*remove .*cache"),
        ("skip always", 60.0, r"wrote no scores.*set metrics\.spice to false"),
    ],
)
def test_a_process_that_fails_twice_is_reported(run, mode, timeout, message):
    with pytest.raises(CapscopeError, match=message):
        run(mode, timeout=timeout).measures(TASK)


def test_a_missing_java_is_named(models):
    with pytest.raises(CapscopeError, match="cannot start Java"):
        Spice(models, launcher=["/no/such/java"]).measures(TASK)


def test_missing_models_make_the_metric_unavailable_and_say_what_to_do(tmp_path, models):
    with pytest.raises(
        UnavailableError, match=r"not available in .*empty; `capscope spice-models`"
    ):
        Spice(tmp_path / "empty")
    (models / JARS[0]).write_bytes(b"cut")
    (models / JARS[1]).unlink()
    with pytest.raises(UnavailableError, match="not available"):
        Spice(models)


def test_java_is_asked_in_english_for_the_classes_of_all_jars(tmp_path, models):
    jars = [models / name for name in JARS]
    command = spice_command(jars, tmp_path / "engine.jar", 3)
    assert command[0].endswith("java")
    for option in ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8", "-Xmx3G"):
        assert option in command
    path = command[command.index("-cp") + 1].split(":")
    assert path[:3] == [str(tmp_path / "engine.jar"), *map(str, jars)]
    assert path[3:] == [str(jar("spice/spice-1.0.jar"))]
    assert command[-1] == "edu.anu.spice.SpiceScorer"


def test_the_script_engine_is_the_same_bytes_each_time(tmp_path):
    for name in ("a.jar", "b.jar"):
        write_script_engine(tmp_path / name)
    assert (tmp_path / "a.jar").read_bytes() == (tmp_path / "b.jar").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.jar") as content:
        service, *classes = sorted(content.namelist())
    assert service == "META-INF/services/javax.script.ScriptEngineFactory"
    assert classes == ["UnindentedJson.class"]


@pytest.fixture
def older_models(tmp_path):
    """CoreNLP 3.4.1, which the tokeniser brings: the code, no models."""
    folder = tmp_path / "older"
    folder.mkdir()
    (folder / JARS[0]).write_bytes(jar(TOKENIZER_JAR).read_bytes())
    write_script_engine(folder / JARS[1])
    write_manifest(folder, KIND, params={})
    return folder


@pytest.mark.slow
def test_spice_itself_opens_its_cache_and_writes_its_file_on_this_java(
    tmp_path, older_models, monkeypatch
):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    spice = Spice(older_models, cache=tmp_path / "cache", memory_gb=1)
    assert spice._scores([], []).shape == (0, len(CATEGORIES))
    assert (tmp_path / "cache" / "data.mdb").stat().st_size > 0


# What SPICE's cache holds of these texts, in SPICE's words: objects, (object, attribute), (object,
# object, relation). It was filled by a few lines of Java that call the cache of SPICE's jar.
PARSES = {
    "a red dog on a sofa": ["dog", "sofa", "dog red", "dog sofa on"],
    "two dogs on a couch": ["dog", "couch", "dog two", "dog couch on"],
    "a small cat": ["cat", "cat small"],
    "two dogs": ["dog", "dog two"],
    "": [],
}
CACHE = (
    "c-rmRPf7zZ6vy$GnNBH+CLqPqg=DJ-@g8C7AEY+WsdzUR;z_)M>w$o#nMtih#D(3+_p?aeB#&QUc9{{$MrnL~d3#"
    "p!#oc5*n%wcT_n!Px?pFc;00000_C@XW{;$3{r&INFu`}}>000000D!+&Y*kY++UPTVsh{*x^KJkD00030SJ~f%L"
    ";B-APEQ9CMyp3}Xa1%UQ;1QajCCyAVJPE{oTk1b35U)$_ijG7wOi%Zu8gf!+PX-+V+kiY)B1&Vw)PM8t(d`Qyb4v"
    "nxH-s_?XW!#g<r_|Cdb+3)oh*A1vUQK?c@x)wG<P3w_-j3JiuYZ"
)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="SPICE's cache is x86")
@pytest.mark.slow
def test_spice_itself_scores_captions_whose_parses_are_kept(tmp_path, older_models):
    """Expected are tuples counted by hand; a couch and a sofa are synonyms."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "data.mdb").write_bytes(zlib.decompress(base64.b85decode(CACHE)))
    cases = [
        ("two dogs on a couch", ["a red dog on a sofa", "two dogs"], 2 * 4 / (4 + 5)),
        ("two dogs", ["a red dog on a sofa", ""], 2 * 1 / (2 + 4)),
        ("", ["a small cat"], 0.0),
        ("a small cat", ["a small cat", "two dogs"], 2 * 2 / (2 + 4)),
    ]
    captions, references, f_scores = zip(*cases, strict=True)
    assert {*captions, *(text for texts in references for text in texts)} == set(PARSES)
    texts = Texts(references, [captions])
    spice = Spice(older_models, cache=tmp_path / "cache", memory_gb=1)
    (measures,) = spice.measures(Task(texts, texts, [None], []))
    expected = {
        "SPICE": f_scores,
        "SPICE-object": [1, 2 * 1 / (1 + 2), 0, 2 * 1 / (1 + 2)],
        "SPICE-relation": [1, 0, np.nan, np.nan],
        "SPICE-attribute": [2 * 1 / (1 + 2), 0, 0, 2 * 1 / (1 + 2)],
        "SPICE-color": [0, 0, np.nan, np.nan],
        "SPICE-cardinality": [1, np.nan, np.nan, 0],
        "SPICE-size": [np.nan, np.nan, 0, 1],
    }
    assert tuple(measures) == tuple(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(measures[name].per_image, values, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_spice_itself_without_a_parser_is_reported_in_its_own_words(tmp_path, older_models):
    spice = Spice(older_models, cache=tmp_path / "cache", memory_gb=1)
    with pytest.raises(CapscopeError, match=r"status 1: .*englishPCFG.*twice"):
        spice.measures(TASK)
