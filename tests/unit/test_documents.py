"""What the documents say is true: examples are valid, files and targets that they name exist."""

import csv
import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from capscope.benchmarks import BENCHMARKS
from capscope.explain import EXPLAINERS
from capscope.models import CAPTIONERS
from capscope.params import load_params, schema

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

PUBLISHED = ("system", "dataset", "stage", "metric", "value", "source")


def blocks(document, language):
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.S)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_files_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_that_documents_name_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = re.findall(r"(?:^|`|&& )make ([a-z-]+)", document.read_text("utf-8"), re.M)
    assert set(named) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_overlays_that_documents_show_are_valid(document, tmp_path):
    for number, example in enumerate(blocks(document, "yaml")):
        overlay = yaml.safe_load(example)
        if not set(overlay) <= set(schema()["properties"]):
            continue  # a part of one, which its sentence names
        if document.stem.startswith("add-"):
            continue  # of something that is added first: tests/unit/test_how_to.py
        path = tmp_path / f"{number}.yaml"
        path.write_text(example)
        load_params([ROOT / "params.yaml", path])


def test_the_example_annotations_can_be_read(tmp_path):
    from capscope.data.annotations import read_karpathy

    (example,) = blocks(ROOT / "docs" / "how-to" / "own-data.md", "json")
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(example)))
    (image,) = read_karpathy(path, tmp_path, "mine").images
    assert image.references == ("A dog runs.",)


def test_captioners_and_explainers_of_the_schema_are_those_of_the_registries():
    properties = schema()["properties"]
    system = properties["systems"]["additionalProperties"]["properties"]
    assert set(system["captioner"]["enum"]) == set(CAPTIONERS)
    explanations = properties["explanations"]["properties"]
    named = {
        *explanations["explainers"]["items"]["enum"],
        *explanations["controls"]["items"]["enum"],
    }
    assert named == set(EXPLAINERS)


@pytest.mark.parametrize(
    ("page", "names"),
    [("benchmarks", BENCHMARKS), ("captioners", CAPTIONERS), ("explainers", EXPLAINERS)],
)
def test_everything_that_can_be_chosen_is_explained(page, names):
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_site_leads_to_every_page():
    listed = "\n".join(blocks(ROOT / "docs" / "index.md", "{toctree}")).splitlines()
    pages = [path.relative_to(ROOT / "docs").with_suffix("") for path in DOCUMENTS[3:]]
    lost = [str(page) for page in pages if not any(fnmatch(str(page), line) for line in listed)]
    assert lost == ["index"]


def test_every_overlay_is_listed():
    text = (ROOT / "config" / "README.md").read_text("utf-8")
    assert [path.name for path in (ROOT / "config").glob("*.yaml") if path.name not in text] == []


def test_the_pinned_packages_are_checked_by_hash_and_come_from_no_named_address():
    for name in ("requirements.lock", "envs/installer.lock"):
        text = (ROOT / name).read_text("utf-8")
        pins = re.findall(r"^\S+==\S+.*?(?=^\S|\Z)", text, re.M | re.S)
        assert pins
        assert all("--hash=sha256:" in pin for pin in pins)
        assert "://" not in text
        assert "index-url" not in text


def test_every_published_value_has_a_source():
    for path in (ROOT / "results" / "published").glob("*.csv"):
        rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
        for row in rows:
            assert all(row[name] for name in PUBLISHED if name != "value"), row
            assert set(row) <= {*PUBLISHED, "condition", "tolerance"}
            assert not row["value"] or float(row["value"]) > 0


def test_the_continuous_check_and_the_environments_read_as_yaml():
    for name in ("envs/capscope.yaml", "dvc.yaml", ".snakemake-workflow-catalog.yml"):
        assert yaml.safe_load((ROOT / name).read_text("utf-8"))
