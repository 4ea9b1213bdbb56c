"""The guide to one's own data: a folder and a CSV become a captioner that explains its words."""

import csv
import re
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from project import ROOT, make_project

from capscope.data.scenes import write_scenes
from capscope.files import read_json

GUIDE = ROOT / "docs" / "how-to" / "own-data.md"
SMALL = {
    "seeds": [1],
    "features": {"grid": {"image_size": 64}},
    "systems": {
        "gridtd": {
            "vocabulary": {"min_count": 1},
            "model": {"embedding": 8, "hidden": 16, "attention": 8},
            "xe": {"epochs": 3, "batch_size": 8, "validation_images": 4},
        }
    },
    "explanations": {"images": 2, "explainers": ["lrp", "attention"], "controls": []},
    "benchmarks": {"measures": ["conservation"], "bootstrap": 20},
    "metrics": {"meteor": False, "tokenizer": "python"},
}
"""What makes the example fit a test; all else is the guide's overlay and params.yaml."""

HARMFUL = (
    "|touch canary;.png",
    "$(touch canary).png",
    "`touch canary`.png",
    "-rf.png",
    "a'b\" &.png",
)
"""Names of files that would do something, were they ever part of a command."""
HTML = "<img src=x onerror=alert(1)>"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text("utf-8"), re.S)


def my_data(folder: Path) -> Path:
    """Draw pictures, and write what is said of them as a spreadsheet would."""
    scenes = {"seed": 3, "size": 64, "train": 24, "val": 0, "test": 0, "shift": 0, "bias": 0.85}
    write_scenes(folder / "drawn", scenes | {"val": 1, "test": 1})
    drawn = read_json(folder / "drawn" / "dataset.json")["images"]
    (folder / "my_data").mkdir()
    (folder / "drawn" / "images").rename(folder / "my_data" / "images")
    header = blocks("text")[1].splitlines()[0].split(",")
    for image, name in zip(drawn, HARMFUL, strict=False):
        below = folder / "my_data" / "images" / image["split"]
        (below / image["filename"]).rename(below / name)
        image["filename"] = name
    drawn[0]["sentences"][0]["raw"] += f" {HTML}"
    with (folder / "my_data" / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(header)
        for image in drawn:
            path = f"{image['split']}/{image['filename']}"
            rows.writerows((path, sentence["raw"]) for sentence in image["sentences"])
    return folder / "my_data"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_folder_and_a_csv_become_a_captioner_that_explains_its_words(tmp_path):
    project = make_project(tmp_path / "project")
    (project.folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    project.environment["MY_DATA"] = str(my_data(tmp_path))
    weights = tmp_path / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_0(weights=None).state_dict(), weights)
    (example,) = blocks("yaml")
    (project.folder / "config" / "mine.yaml").write_text(example)
    small = SMALL | {"features": {"grid": {"image_size": 64, "weights": str(weights)}}}
    (project.folder / "small.yaml").write_text(yaml.safe_dump(small))
    train = blocks("sh")[0].splitlines()[-1]
    command = train.replace("config/mine.yaml", "config/mine.yaml small.yaml").split()
    project.run(*command)
    results = project.folder / "results" / "mine"
    page = (results / "report" / "index.html").read_text("utf-8")
    assert "mine" in page
    pages = [*(results / "report").rglob("*.html"), *(results / "report").rglob("*.js")]
    assert not any("<img src=x" in path.read_text("utf-8") for path in pages)
    assert not (project.folder / "canary").exists()
    images = read_json(results / "data" / "manifest.json")["images"]
    assert images == {"train": 20, "val": 3, "test": 3}
    for line in blocks("sh")[1].splitlines():
        photos = str(tmp_path / "my_data" / "images" / "test")
        said = project.run(*line.replace("holiday/", photos).split()).stdout
        assert said
    assert "<html" in (project.folder / "holiday.html").read_text("utf-8")
