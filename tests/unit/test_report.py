"""The report reads result files only, and shows what they say: no more, nothing unescaped."""

import base64
import json
import re
from dataclasses import replace

import pandas as pd
import pytest
from toy_results import HOSTILE, write_results

from capscope.errors import CapscopeError
from capscope.files import read_json, write_json, write_manifest
from capscope.report.headline import as_text, headline
from capscope.report.results import read_results
from capscope.report.site import write_report
from capscope.report.table import Table, latex, markdown, with_interval
from capscope.report.tables import all_tables


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path)


def report(results, tmp_path, images=2):
    folder, published = results
    params = {
        "report": {"images": images},
        "dataset": {"name": "toy", "reader": "scenes", "scenes": {}},
    }
    write_report(folder, published, params, tmp_path / "out")
    return (tmp_path / "out" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_the_page_stands_alone_and_nothing_from_outside_runs_in_it(results, tmp_path):
    page = report(results, tmp_path)
    assert HOSTILE not in page
    assert "\\u003cscript>alert(1)\\u003c/script>" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "3 images could not be read" in page


def test_systems_are_compared_and_seeds_summarised(results, tmp_path):
    report(results, tmp_path)
    compared = (tmp_path / "out" / "tables" / "comparisons_test.csv").read_text().splitlines()
    assert compared[0] == "systems,CIDEr,object_f1"
    assert '"+0.500 [+0.250, +0.750], p 0.002 | 0.004"' in compared[1]
    assert '"+0.000 [+0.000, +0.000], p 1.000 | -"' in compared[1]
    seeds = (tmp_path / "out" / "tables" / "seeds_test.csv").read_text().splitlines()
    assert seeds == ["system,seeds,CIDEr", "gridtd xe,2,2.500 ± 0.125"]


def test_a_reinforced_row_says_what_was_rewarded(results, tmp_path):
    path = results[0] / "scores" / "captions.csv"
    head, *lines = path.read_text().splitlines()
    lines.append("toy,gridtd,scst,1,test,CIDEr,2.7,2.6,2.8,,2,higher,how alike")
    signed = ["end token both, df training" if ",scst," in line else "" for line in lines]
    rows = [f'{line},"{text}"' for line, text in zip(lines, signed, strict=True)]
    path.write_text("\n".join([f"{head},signature", *rows]) + "\n")
    page = report(results, tmp_path)
    assert "end token both, df training" in page
    table = (tmp_path / "out" / "tables" / "captions_test.csv").read_text().splitlines()
    assert table[0].startswith("system,signature,CIDEr")
    assert any(line.startswith('gridtd scst (seed 1),"end token both') for line in table)


def test_seeds_and_object_words_of_a_reinforced_system_say_so_too(results, tmp_path):
    scores = results[0] / "scores"
    head, *lines = (scores / "captions.csv").read_text().splitlines()
    for stage, signature in (("xe", ""), ("scst", '"df training, baseline greedy"')):
        lines.append(
            f"toy,gridtd,{stage},1,test,word_f1,0.5,,,,2,higher,f; the words: a,{signature}"
        )
    rows = [line if line.count("word_f1") else f"{line}," for line in lines]
    (scores / "captions.csv").write_text("\n".join([f"{head},signature", *rows]) + "\n")
    with (scores / "seeds.csv").open("a") as stream:
        stream.write(
            'toy,test,gridtd,scst,CIDEr,2,2.6,0.5,2.4,2.6,"df training, baseline greedy"\n'
        )
    report(results, tmp_path)
    tables = tmp_path / "out" / "tables"
    assert (tables / "seeds_test.csv").read_text().splitlines() == [
        "system,seeds,signature,CIDEr",
        "gridtd xe,2,-,2.500 ± 0.125",
        'gridtd scst,2,"df training, baseline greedy",2.600 ± 0.500',
    ]
    assert (tables / "object_words_test.csv").read_text().splitlines() == [
        "words,system,signature,F1",
        "published list,gridtd xe (seed 1),-,0.500",
        'published list,gridtd scst (seed 1),"df training, baseline greedy",0.500',
    ]


def test_lists_of_object_words_are_rows_of_a_table_of_their_own(results, tmp_path):
    folder, _ = results
    means = {"word_precision": 0.5, "word_recall": 0.25, "word_f1": 0.375}
    with (folder / "scores" / "captions.csv").open("a") as stream:
        for split in ("test", "shift"):
            for suffix, more, words in (("", 0, "cat"), ("@2", 0.125, "cat, dog")):
                for name, value in means.items():
                    row = f"toy,gridtd,xe,1,{split},{name}{suffix},{value + more},,,,2,higher"
                    stream.write(f'{row},"meaning of {name}; the words: {words}"\n')
    with (folder / "scores" / "seeds.csv").open("a") as stream:
        stream.write("toy,test,gridtd,xe,word_f1@2,2,0.5,0.125,0.4,0.6,\n")
    page = report(results, tmp_path)
    tables = tmp_path / "out" / "tables"
    assert (tables / "object_words_test.csv").read_text().splitlines() == [
        "words,system,precision,recall,F1",
        "published list,gridtd xe (seed 1),0.500,0.250,0.375",
        "2 most frequent,gridtd xe (seed 1),0.625,0.375,0.500",
        "2 most frequent,gridtd xe (2 seeds),-,-,0.500 ± 0.125",
    ]
    for name in ("captions_test", "seeds_test"):
        assert "word_" not in (tables / f"{name}.csv").read_text()
    text = (tables / "object_words_shift.md").read_text()
    assert "* precision: meaning of word_precision\n" in text
    assert "* 2 most frequent: cat, dog\n" in text
    # What two tables have in common stands on the page once.
    assert page.count("means over the words.") == page.count("As above.") == 1
    assert page.count("meaning of word_precision") == 1


def test_every_word_has_a_layer_and_its_preceding_words(results, tmp_path):
    report(results, tmp_path)
    image = data_of(tmp_path / "out" / "gallery" / "1.js", "image")
    (caption,) = image["captions"]
    assert caption["words"] == ["a", HOSTILE]
    assert caption["p"] == [0.905, 0.497]
    assert caption["verdicts"] == [None, "hallucinated"]
    lrp, attention = caption["maps"]  # controls are not shown
    assert (lrp["h"], lrp["w"], attention["h"], attention["w"]) == (8, 8, 2, 3)
    for one in (lrp, attention):
        assert one["kind"] == "cells"
        assert len(base64.b64decode(one["levels"])) == 2 * one["w"] * one["h"]
        assert len(one["where"]) == 2
    # Input 1 is the word "a"; its relevance for the second word is negative.
    assert lrp["before"] == [[], [-1.0]]
    assert attention["before"] is None
    about = data_of(tmp_path / "out" / "gallery" / "about.js", "about")
    assert about["runs"] == ["gridtd xe (seed 1)"]
    assert about["explainers"] == ["LRP", "attention"]
    listed = data_of(tmp_path / "out" / "gallery" / "index.js", "list")
    assert [entry["said"] for entry in listed] == [
        [[0, ["a", HOSTILE], "-h"]],
        [[0, ["a", HOSTILE], "-r"]],
    ]


def data_of(path, function):
    """Return what a script of the gallery hands over; it is a single statement."""
    found = re.fullmatch(rf"capscope\.{function}\((.*)\);\n", path.read_text("utf-8"))
    assert found
    assert "<" not in found[1]
    return json.loads(found[1])


def test_curves_of_all_runs_are_one_table_for_dvc_plots(results, tmp_path):
    report(results, tmp_path)
    assert (tmp_path / "out" / "tables" / "validation.csv").read_text().splitlines() == [
        "dataset,system,stage,seed,run,epoch,step,CIDEr",
        "toy,gridtd,xe,1,gridtd xe (seed 1),1,2,0.5",
    ]


def test_pages_of_the_site_name_only_files_that_are_there(results, tmp_path):
    report(results, tmp_path)
    out = tmp_path / "out"
    pages = [*out.glob("*.html"), *out.glob("runs/*.html")]
    assert len(pages) == 7
    for page in pages:
        text = page.read_text("utf-8")
        assert HOSTILE not in text
        for target in re.findall(r'(?:src|href)="([^"#]+)', text):
            if not target.startswith("data:"):
                assert (page.parent / target).exists(), (page.name, target)
    assert "hit" in (out / "runs" / "gridtd_xe_seed1.html").read_text("utf-8")


def test_tables_say_what_the_files_say_in_three_formats(results, tmp_path):
    report(results, tmp_path)
    tables = tmp_path / "out" / "tables"
    captions = pd.read_csv(tables / "captions_test.csv")
    assert captions["system"].tolist() == ["human, leave-one-out", "gridtd xe (seed 1)", "chance"]
    assert captions["CIDEr"].tolist()[:2] == [3.0, 2.5]
    truth = pd.read_csv(tables / "ground_truth_test.csv")
    assert truth["noun hit"].tolist()[0] == "0.90 [0.85, 0.95]"
    assert set(truth["explainer"]) == {"LRP", "attention", "random_decoder"}
    for name in ("captions_test", "ground_truth_test", "published"):
        assert "gridtd" in (tables / f"{name}.md").read_text() or name.startswith("ground")
        assert "\\begin{tabular}" in (tables / f"{name}.tex").read_text()
    assert "* CIDEr: how alike" in (tables / "captions_test.md").read_text()


def test_a_metric_without_its_model_is_said_to_be_missing_and_breaks_no_table(results, tmp_path):
    folder, published = results
    reason = "not computed: models not available in /x; `capscope spice-models` fetches them once"
    with (folder / "scores" / "captions.csv").open("a") as stream:
        for system in ("human,,", "gridtd,xe,1"):
            for name in ("SPICE", "SPICE-object"):
                stream.write(f"toy,{system},test,{name},,,,,0,higher,graphs; {reason}\n")
    with (published / "paper.csv").open("a") as stream:
        stream.write("gridtd,toy,xe,SPICE,0.2,page 3\n")
    page = report(results, tmp_path)
    tables = tmp_path / "out" / "tables"
    captions = pd.read_csv(tables / "captions_test.csv")
    assert captions["SPICE"].tolist()[:2] == ["not computed"] * 2
    assert captions["CIDEr"].tolist()[:2] == [3.0, 2.5]
    assert captions["colour_accuracy"].tolist()[1] == "-"
    compared = pd.read_csv(tables / "published.csv").query("metric == 'SPICE'")
    assert compared["ours"].tolist() == ["not computed"]
    for text in (page, (tables / "captions_test.md").read_text()):
        assert "SPICE was not computed: models not available in /x;" in text
        assert "SPICE-object was" not in text


def test_published_values_are_never_guessed(results):
    published = next(t for t in all_tables(read_results(*results)) if t.name == "published").cells
    assert published["paper"].tolist() == ["2.75", "not available", "1.5"]
    assert published["ours"].tolist() == ["2.5000", "not run", "not run"]
    assert published["difference"].tolist() == ["-0.2500", "", ""]
    assert published["band"].tolist() == ["± 0.0825", "", ""]
    assert published["verdict"].tolist() == ["lower", "", ""]


def test_a_tolerance_of_the_file_decides_the_verdict(results):
    folder, published = results
    (published / "paper.csv").write_text(
        "system,dataset,stage,metric,condition,value,tolerance,source\n"
        "gridtd,toy,xe,CIDEr,beam 3,2.75,0.3,page 1\ngridtd,toy,xe,CIDEr,beam 5,2.4,0.05,page 1\n"
        "gridtd,toy,xe,CIDEr,,,,nobody has it\ngridtd,toy,xe,validation CIDEr,,0.5,,page 2\n"
    )
    path = folder / "runs" / "gridtd" / "xe" / "seed1"
    write_json(path / "model.json", {**read_json(path / "model.json"), "validation_cider": 0.51})
    write_manifest(path, "run", params={"x": 1})
    cells = next(t for t in all_tables(read_results(folder, published)) if t.name == "published")
    verdicts = ["within the band", "higher", "not available", "within the band"]
    assert cells.cells["verdict"].tolist() == verdicts
    assert cells.cells["condition"].tolist() == ["beam 3", "beam 5", "", ""]


def test_a_data_set_under_another_name_is_compared_with_the_same_papers(results):
    folder, published = results
    (published / "paper.csv").write_text(
        "system,dataset,stage,metric,condition,value,source\n"
        "gridtd,coco2014,xe,CIDEr,,2.75,page 1\n"
        "gridtd,coco2014,xe,training loss,last step,2.5,page 2\n"
        "gridtd,flickr30k,xe,CIDEr,,2.75,page 3\n"
    )
    write_manifest(folder / "data", "data", params={"reader": "coco2014"})
    cells = next(t for t in all_tables(read_results(folder, published)) if t.name == "published")
    assert cells.cells["ours"].tolist() == ["2.5000", "2.0000", "not run"]


def test_the_headline_stands_beside_what_to_compare_it_with(results):
    found = read_results(*results)
    numbers = {n.name: (n.value, n.beside) for n in headline(found)["gridtd xe (seed 1)"]}
    assert numbers["CIDEr"] == ("2.50", "(human 3.00)")
    assert numbers["left right accuracy"] == ("0.80", "(chance 0.50)")
    assert numbers["colour accuracy"] == ("no such words", "")
    assert numbers["LRP noun hit"] == ("0.90", "(attention 0.70; random_decoder 0.10)")
    assert "LRP noun choice" in as_text(found)


def test_the_headline_of_several_runs_is_a_table(results):
    found = read_results(*results)
    other = replace(found.runs[0], stage="scst")
    lines = as_text(replace(found, runs=[found.runs[0], other])).splitlines()
    assert lines[0].split()[:3] == ["toy,", "test", "CIDEr"]
    assert [line.split()[0] for line in lines[1:]] == ["human", "gridtd", "gridtd"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.slow
def test_the_same_results_give_the_same_page(results, tmp_path):
    assert report(results, tmp_path) == report(results, tmp_path)


def test_missing_results_name_the_file_and_the_command(results):
    folder, published = results
    (folder / "scores" / "captions.csv").unlink()
    with pytest.raises(CapscopeError, match=r"captions\.csv does not exist: run `capscope eval"):
        read_results(folder, published)


def test_a_run_that_was_not_scored_is_left_out(results):
    folder, published = results
    other = folder / "runs" / "gridtd" / "xe" / "seed2"
    other.mkdir()
    info = json.loads((other.parent / "seed1" / "model.json").read_text())
    write_json(other / "model.json", {**info, "seed": 2})
    write_manifest(other, "run", params={})
    assert [run.seed for run in read_results(folder, published).runs] == [1]


def test_a_latex_table_can_be_pasted_whatever_is_in_it():
    cells = pd.DataFrame([{"a_%": "1 & 2", "b": "word " * 20}])
    text = latex(Table("a_b", "100 %", "note & {x}", cells))
    assert text.startswith("% needs \\usepackage{booktabs}\n\\begin{table}[tb]\n")
    assert r"\caption{100 \%. note \& \{x\}}" in text
    assert r"\begin{tabular}{lp{0.45\textwidth}}" in text
    assert r"a\_\% & b \\" in text
    assert r"1 \& 2 & word" in text
    wide = latex(Table("wide", "T", "n", pd.DataFrame([dict.fromkeys("abcdef", "1")])))
    assert wide.count("{table*}") == 2
    assert r"\resizebox{\textwidth}{!}{%" in wide
    assert r"\end{tabular}}" in wide


def test_every_latex_table_of_a_report_is_balanced_and_has_as_many_cells_in_each_line(
    results, tmp_path
):
    """Without LaTeX at hand: what would stop it, and what would silently move a line."""
    report(results, tmp_path)
    files = sorted((tmp_path / "out" / "tables").glob("*.tex"))
    assert len(files) > 5
    for file in files:
        text = file.read_text("utf-8")
        bare = re.sub(r"\\[\\&%$#_{}]", "", text)  # without what is escaped
        assert bare.count("{") == bare.count("}"), file
        assert re.findall(r"\\begin\{(.*?)\}", text) == re.findall(r"\\end\{(.*?)\}", text)[::-1]
        body = text[text.index("\\toprule") : text.index("\\bottomrule")]
        counts = {
            len(re.findall(r"(?<!\\)&", line))
            for line in body.splitlines()
            if line.endswith("\\\\")
        }
        assert len(counts) == 1, file
        assert not re.search(r"^[\[*]", body, re.MULTILINE)
        assert not re.search(r"(?<!\\)[#%]", body)
        assert text.isascii() or not re.search(r"[±×−–↑↓]", text)


def test_a_line_that_begins_with_a_bracket_is_no_option_of_the_line_before():
    text = latex(
        Table("t", "T", "n", pd.DataFrame([{"a": "1", "b": "2"}, {"a": "[0, 1]", "b": "*"}]))
    )
    assert "\n{}[0, 1] & * \\\\" in text


def test_a_bar_in_a_cell_breaks_no_markdown_table():
    cells = pd.DataFrame([{"a": "x | y", "b": 1}])
    assert markdown(cells).splitlines()[2] == r"| x \| y | 1 |"


def test_an_interval_is_left_out_where_there_is_none():
    assert with_interval({"value": 0.5, "low": float("nan"), "high": float("nan")}) == "0.50"
    assert with_interval({"value": 0.5, "low": 0.25, "high": 1.0}) == "0.50 [0.25, 1.00]"
