import json
from pathlib import Path
from typing import Any

import pytest

from capscope.data.entities import coco_entities, instances_of, parse_instances, read_instances
from capscope.errors import CapscopeError


def annotation(**change: Any) -> dict[str, Any]:
    made = {"id": 1, "image_id": 7, "category_id": 18, "bbox": [1, 2, 3.5, 4], "area": 9}
    return {key: value for key, value in (made | change).items() if value is not ...}


def loaded(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "7.jpg", "width": 100, "height": 50},
            {"id": 8, "file_name": "8.jpg", "width": 10, "height": 20},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 37, "name": "sports ball"}],
        "annotations": list(annotations),
    }


def test_objects_are_found_by_image(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    mask = {"size": [50, 100], "counts": "abc"}
    extra = {"segmentation": mask, "iscrowd": 1, "scene_object": 2}
    path.write_text(json.dumps(loaded(annotation(), annotation(id=2, category_id=37, **extra))))
    instances = read_instances(path)
    dog, ball = instances.objects(7)
    assert (dog.category, dog.box, dog.area, dog.mask) == ("dog", (1, 2, 3.5, 4), 9, None)
    assert (ball.category, ball.mask, ball.crowd) == ("sports ball", mask, True)
    assert ball.scene_object == 2
    assert instances.objects(8) == ()
    assert instances.categories == {18: "dog", 37: "sports ball"}


def test_an_object_without_area_has_that_of_its_box() -> None:
    assert parse_instances(loaded(annotation(area=...)), "x").objects(7)[0].area == 14


def test_entities_hold_corners_and_the_way_to_the_network() -> None:
    entities = coco_entities(parse_instances(loaded(annotation()), "x"))
    assert entities == {
        "7.jpg": {
            "categories": {"dog": "18"},
            "bbox": {"18": [[1, 2, 4.5, 6]]},
            "shape": [100, 50],
            "resize_ratio": [2.24, 4.48],
        }
    }


def test_the_part_of_some_images_is_cut_out() -> None:
    whole = loaded(annotation(), annotation(id=2, image_id=8))
    part = instances_of(whole, {8})
    assert [one["id"] for one in part["images"]] == [8]
    assert [one["id"] for one in part["annotations"]] == [2]
    assert part["categories"] == whole["categories"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category_id": 99}, "annotation 1 is malformed .*99"),
        ({"bbox": [1, 2, 3]}, "annotation 1 is malformed"),
        ({"bbox": ...}, "annotation 1 is malformed .*bbox"),
        ({"bbox": ["a", 2, 3, 4]}, "annotation 1 is malformed"),
        ({"bbox": [0, 0, -1, 4]}, "annotation 1 has the impossible box"),
        ({"bbox": [0, 0, float("nan"), 4]}, "annotation 1 has the impossible box"),
        ({"image_id": 99}, "unknown image 99"),
        ({"id": 2}, "annotation id 2 occurs twice"),
    ],
)
def test_a_wrong_annotation_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CapscopeError, match=rf"boxes\.json.*{message}"):
        parse_instances(loaded(annotation(id=2), annotation(**change)), "boxes.json")


@pytest.mark.parametrize("value", [[], {}, {"images": []}, None, {"images": [1]}])
def test_a_file_of_another_layout_is_named(value: Any) -> None:
    with pytest.raises(CapscopeError, match=r"boxes\.json is not COCO instances"):
        parse_instances(value, "boxes.json")


def test_an_image_without_size_is_named() -> None:
    broken = loaded()
    del broken["images"][0]["width"]
    with pytest.raises(CapscopeError, match=r"boxes\.json.*width"):
        parse_instances(broken, "boxes.json")
