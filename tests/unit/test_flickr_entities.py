"""Flickr30K Entities: sentences and annotations of its layout, and what becomes of them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from capscope.data.entities import parse_instances
from capscope.data.flickr_entities import (
    Phrase,
    entities_instances,
    entity_classes,
    is_entities_folder,
    read_annotation,
    read_phrases,
)
from capscope.data.naming import coco_words, flickr30k_words
from capscope.data.prepare import prepare_dataset
from capscope.errors import CapscopeError
from capscope.metrics.truth import read_truth

SENTENCES = """\
[/EN#1/people A young child] is wearing [/EN#2/clothing blue goggles] in [/EN#3/scene a pool] .
[/EN#1/people A boy] with [/EN#2/clothing/other goggles] swims with [/EN#4/animals his dog] .
[/EN#1/people The kid] and [/EN#0/notvisual it] have [/EN#5/other a gizmo] .
"""
ANNOTATION = """\
<annotation>
  <filename>100.jpg</filename>
  <size><width>333</width><height>500</height><depth>3</depth></size>
  <object><name>1</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>110</xmax><ymax>220</ymax>
    </bndbox></object>
  <object><name>2</name><name>5</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax>
    <ymax>4</ymax></bndbox></object>
  <object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object>
  <object><name>4</name><scene>0</scene><nobndbox>1</nobndbox></object>
  <object><name>1</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>6</xmax><ymax>7</ymax></bndbox>
  </object>
</annotation>
"""


@pytest.fixture
def folder(tmp_path):
    for name, text in (("Sentences/100.txt", SENTENCES), ("Annotations/100.xml", ANNOTATION)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


def test_phrases_come_with_entity_and_kinds(folder):
    sentences = read_phrases(folder / "Sentences/100.txt")
    assert sentences[0][0] == Phrase("1", ("people",), ("a", "young", "child"))
    assert sentences[1][1] == Phrase("2", ("clothing", "other"), ("goggles",))
    assert [len(phrases) for phrases in sentences] == [3, 3, 3]


def test_boxes_come_with_all_their_entities(folder):
    annotation = read_annotation(folder / "Annotations/100.xml")
    assert (annotation.width, annotation.height) == (333, 500)
    assert [box.entities for box in annotation.boxes] == [("1",), ("2", "5"), ("1",)]
    assert annotation.boxes[0].corners == (10, 20, 110, 220)


def test_an_entity_is_what_most_of_its_phrases_name():
    def phrase(words):
        return Phrase("7", ("other",), tuple(words.split()))

    named = flickr30k_words().named
    assert entity_classes([[phrase("a dog")], [phrase("a cat")], [phrase("the cat")]], named) == {
        "7": "cat"
    }
    assert entity_classes([[phrase("a dog house")]], named) == {"7": "building"}
    assert entity_classes([[phrase("a gizmo")]], named) == {}


def test_they_become_coco_instances(folder):
    loaded = entities_instances(folder, {5: "100.jpg", 6: "200.jpg"}, flickr30k_words().named)
    instances = parse_instances(loaded, "here")
    assert set(instances.categories.values()) == {"person", "glasses"}
    objects = instances.objects(5)
    assert [one.category for one in objects] == ["person", "glasses", "person"]
    assert objects[0].box == (10, 20, 100, 200)
    assert instances.pictures[5] == ("100.jpg", 333, 500)
    assert instances.objects(6) == ()


def test_a_data_set_with_entities_is_scored_by_its_own_words(folder, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images/100.jpg")
    tokens = ["a", "boy", "with", "goggles"]
    sentences = [{"raw": "A boy with goggles.", "tokens": tokens, "imgid": 5, "sentid": 0}]
    entry = {"filename": "100.jpg", "imgid": 5, "split": "test", "sentences": sentences}
    annotations = tmp_path / "dataset_flickr30k.json"
    annotations.write_text(json.dumps({"images": [entry, {**entry, "imgid": 6, "split": "train"}]}))
    settings = {
        "name": "flickr30k",
        "reader": "karpathy",
        "karpathy": {
            "annotations": str(annotations),
            "images": str(tmp_path / "images"),
            "instances": str(folder),
        },
        "downloads": [],
        "on_unreadable": "fail",
        "evaluate": ["test"],
    }
    dataset = prepare_dataset(tmp_path / "data", settings)
    truth = read_truth(tmp_path / "data", dataset, cutoffs=(1, 2, 99))
    captions = [["a", "kid", "in", "a", "hat", "with", "a", "dog"]]
    images = dataset.split("test")
    measures = truth.measures(images, [image.tokens for image in images], captions)
    assert truth.words is flickr30k_words()
    assert measures["CHAIR-i"].value == pytest.approx(2 / 3)  # hat and dog; the kid is there
    assert measures["CHAIR-s"].value == 1.0
    assert "word_f1" in measures
    assert truth.frequent == ["boy", "goggles"]
    assert {name for name in measures if "@" in name} == {
        f"word_{what}@{k}" for what in ("precision", "recall", "f1") for k in (1, 2)
    }


def test_flickr_words_hold_those_of_coco_and_more():
    assert coco_words().classes < flickr30k_words().classes
    caption = "two men in baseball caps play guitars near the train tracks"
    words = caption.split()
    assert flickr30k_words().named(words) == ["person", "hat", "guitar", "track"]
    assert flickr30k_words().named(["a", "light", "blue", "car", "leaves"]) == ["car"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<annotation>", "<!DOCTYPE x []><annotation>", "declares a document type"),
        ("</annotation>", "", "no annotation of Flickr30K Entities"),
        ("annotation>", "other>", "no <annotation> with a <size>"),
        ("<xmax>110</xmax>", "", "<bndbox> without <xmax>"),
        ("<xmax>110</xmax>", "<xmax>9</xmax>", "impossible box"),
        ("<xmax>110</xmax>", "<xmax>nan</xmax>", "impossible box"),
        ("<width>333</width>", "<width>wide</width>", "invalid literal"),
    ],
)
def test_an_annotation_that_is_none_says_what_is_wrong(folder, old, new, message):
    path = folder / "Annotations/100.xml"
    path.write_text(ANNOTATION.replace(old, new))
    with pytest.raises(CapscopeError, match=message) as error:
        read_annotation(path)
    assert str(path) in str(error.value)


def test_broken_phrases_and_missing_files_are_named(folder):
    (folder / "Sentences/100.txt").write_text("[/EN#1 A child] runs .\n")
    with pytest.raises(CapscopeError, match=r"100.txt: line 1 has a phrase that does not read"):
        read_phrases(folder / "Sentences/100.txt")
    (folder / "Sentences/100.txt").write_text(SENTENCES)
    (folder / "Annotations/100.xml").unlink()
    with pytest.raises(CapscopeError, match=r"cannot read .*100.xml"):
        entities_instances(folder, {5: "100.jpg"}, flickr30k_words().named)
    with pytest.raises(CapscopeError, match="no sentences of any of the 1 images"):
        entities_instances(folder, {5: "900.jpg"}, flickr30k_words().named)
    assert is_entities_folder(folder)
    assert not is_entities_folder(folder / "Sentences")
