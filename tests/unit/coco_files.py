"""COCO 2017 in small: annotations and pictures in the published layout."""

from __future__ import annotations

import json

from bad_images import picture

CATEGORIES = [{"id": 18, "name": "dog"}]


def captions_json(ids, words="A dog's ball, number"):
    images = [
        {"id": n, "file_name": f"{n:012d}.jpg", "width": 40 + n % 7, "height": 30} for n in ids
    ]
    annotations = [
        {"id": 10 * n + k, "image_id": n, "caption": f"{words} {n} {k}."}
        for k in range(2)
        for n in ids
    ]
    return {"images": images, "annotations": annotations}


def instances_json(ids):
    boxes = [
        {"id": n, "image_id": n, "category_id": 18, "bbox": [1.0, 2.0, 3.0, 4.0], "iscrowd": 0}
        for n in ids
    ]
    return {**captions_json(ids), "categories": CATEGORIES, "annotations": boxes}


def write_coco2017(root, train=(9, 4, 7, 2, 11), test=(6, 3)):
    """Write both parts below `root`; ids in the given order."""
    (root / "annotations").mkdir(parents=True)
    for part, ids in (("train2017", train), ("val2017", test)):
        (root / part).mkdir()
        for kind, loaded in (("captions", captions_json(ids)), ("instances", instances_json(ids))):
            (root / "annotations" / f"{kind}_{part}.json").write_text(json.dumps(loaded))
        for n in ids:
            picture(40 + n % 7, 30).save(root / part / f"{n:012d}.jpg")


def coco2017_settings(root, train=3, downloads=()):
    return {
        "name": "coco2017",
        "reader": "coco2017",
        "coco2017": {
            "annotations": str(root / "annotations"),
            "images": str(root),
            "instances": str(root / "annotations" / "instances_val2017.json"),
            "train": train,
        },
        "downloads": list(downloads),
        "on_unreadable": "fail",
        "evaluate": ["test"],
    }
