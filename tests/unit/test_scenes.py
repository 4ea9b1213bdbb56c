"""The drawn data set: pictures, masks, bias and files."""

import errno
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capscope.data.annotations import open_dataset
from capscope.data.scenes import Recipe, read_recipes, render, visible_mask, write_scenes
from capscope.data.scenes.lexicon import CLASSES, COLOURS, PLACES, WEATHER
from capscope.data.scenes.recipe import choose_classes, sample_recipe
from capscope.data.scenes.render import PAINTERS
from capscope.errors import CapscopeError
from capscope.files import read_manifest

SETTINGS = {"seed": 3, "size": 96, "train": 6, "val": 2, "test": 2, "shift": 3, "bias": 0.85}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes")
    write_scenes(out, SETTINGS)
    return out


def recipes(count: int, bias: float = 0.85, seed: int = 0) -> list[Recipe]:
    rng = np.random.default_rng(seed)
    return [sample_recipe(rng, 96, bias) for _ in range(count)]


def test_every_class_has_a_painter_and_a_mutual_companion() -> None:
    assert set(PAINTERS) == set(CLASSES)
    assert len(CLASSES) >= 16
    for name, entry in CLASSES.items():
        assert CLASSES[entry.companion].companion == name
        assert set(entry.places) <= set(PLACES)
        assert len(entry.poses) == 2
        assert all(len(pose) == 4 for pose in entry.poses)


def test_the_same_seed_gives_the_same_bytes_with_one_or_two_workers(
    drawn: Path, tmp_path: Path
) -> None:
    write_scenes(tmp_path, SETTINGS, workers=2)
    first, second = (read_manifest(d, "data", check_hashes=True) for d in (drawn, tmp_path))
    assert first["files"] == second["files"]


def test_another_seed_gives_other_pictures(drawn: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, {**SETTINGS, "seed": 4, "val": 0, "test": 0, "shift": 0})
    name = "images/train/000001.png"
    assert (tmp_path / name).read_bytes() != (drawn / name).read_bytes()


def test_a_recipe_read_back_paints_the_stored_picture_and_mask(drawn: Path) -> None:
    dataset = json.loads((drawn / "dataset.json").read_text())
    read = read_recipes(drawn)
    assert set(read) == {image["cocoid"] for image in dataset["images"]}
    for image in dataset["images"]:
        name = f"{image['split']}/{image['filename']}"
        recipe = read[image["cocoid"]]
        stored = np.asarray(Image.open(drawn / "images" / name))
        mask = np.asarray(Image.open(drawn / "masks" / name))
        np.testing.assert_array_equal(render(recipe), stored)
        np.testing.assert_array_equal(visible_mask(recipe), mask)


def test_boxes_and_run_lengths_match_the_masks(drawn: Path) -> None:
    instances = json.loads((drawn / "instances.json").read_text())
    files = {image["id"]: image["file_name"] for image in instances["images"]}
    folders = {path.name: path for path in (drawn / "masks").rglob("*.png")}
    assert instances["annotations"]
    for entry in instances["annotations"]:
        mask = np.asarray(Image.open(folders[files[entry["image_id"]]]))
        visible = mask == entry["scene_object"] + 1
        counts = entry["segmentation"]["counts"]
        values = np.arange(len(counts)) % 2 == 1
        decoded = np.repeat(values, counts).reshape(visible.shape[::-1]).T
        np.testing.assert_array_equal(decoded, visible)
        x, y, width, height = entry["bbox"]
        rows, columns = np.nonzero(visible)
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert entry["area"] == visible.sum()


def test_leaving_an_object_out_changes_only_the_pixels_around_it() -> None:
    for recipe in recipes(12):
        whole = render(recipe).astype(int)
        for index, thing in enumerate(recipe.objects):
            changed = (render(recipe, without=index) != whole).any(2)
            assert changed[visible_mask(recipe) == index + 1].mean() > 0.9
            changed[thing.top : thing.y + thing.height // 8 + 4, :] = False
            assert not changed.any()


def test_objects_hide_what_lies_behind_them() -> None:
    hidden = 0
    for recipe in recipes(40):
        mask = visible_mask(recipe)
        for index in range(len(recipe.objects)):
            alone = Recipe(**{**vars(recipe), "objects": (recipe.objects[index],)})
            full = visible_mask(alone) == 1
            later = mask > index + 1
            np.testing.assert_array_equal(mask == index + 1, full & ~later)
            hidden += bool((full & later).any())
    assert hidden >= 5


def test_the_front_most_object_comes_last_in_the_recipe() -> None:
    for recipe in recipes(30):
        ground = [thing.y for thing in recipe.objects if not thing.air]
        assert ground == sorted(ground)


def test_companions_come_together_as_often_as_the_bias_says() -> None:
    rng = np.random.default_rng(0)

    def share(bias: float) -> float:
        drawn = [choose_classes(rng, 2, bias) for _ in range(3000)]
        assert all(len(set(names)) == 2 for names in drawn)
        return sum(CLASSES[a].companion == b for a, b in drawn) / len(drawn)

    assert share(0.85) == pytest.approx(0.85, abs=0.03)
    assert share(0.0) == pytest.approx(1 / (len(CLASSES) - 1), abs=0.02)


def test_classes_colours_places_and_weather_all_occur() -> None:
    seen: Counter[str | None] = Counter()
    for recipe in recipes(600):
        seen.update([recipe.place, recipe.weather, recipe.time])
        seen.update(thing.name for thing in recipe.objects)
        seen.update(thing.colour for thing in recipe.objects)
    expected = [*CLASSES, *COLOURS, *PLACES, *WEATHER, "day", "evening", "night"]
    assert min(seen[name] for name in expected) >= 5


def test_objects_lie_inside_the_picture_whatever_its_size() -> None:
    rng = np.random.default_rng(1)
    for size in (64, 128, 200):
        for _ in range(60):
            for thing in sample_recipe(rng, size, 0.85).objects:
                assert thing.left >= 0
                assert thing.top >= 0
                assert thing.left + thing.width <= size
                assert thing.y <= size


def test_a_folder_without_recipes_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match=r"scenes\.json"):
        read_recipes(tmp_path)


def test_drawing_again_leaves_nothing_of_other_settings_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    write_scenes(tmp_path, {**SETTINGS, "train": 4})
    mine = tmp_path / "images" / "train" / "holiday.png"
    mine.write_bytes(b"not ours")
    write_scenes(tmp_path, {**SETTINGS, "train": 2})
    drawn = {path.name for path in (tmp_path / "images" / "train").iterdir()}
    assert drawn == {"000001.png", "000002.png", "holiday.png"}
    assert len(list((tmp_path / "masks" / "train").iterdir())) == 2


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_picture_that_changes_after_it_was_drawn_is_damage_whatever_is_skipped(
    drawn: Path, tmp_path: Path, policy: str
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(drawn, folder)
    picture = next(folder.glob("images/*/*.png"))
    picture.write_bytes(bytes(picture.stat().st_size))
    settings = {"reader": "scenes", "scenes": {}, "name": "toy", "on_unreadable": policy}
    message = r"images differs from its hash .* changed or damaged since it was made; make .* again"
    with pytest.raises(CapscopeError, match=message):
        open_dataset(folder, {"dataset": settings})


def test_a_full_disk_is_named_and_leaves_no_finished_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("capscope.data.scenes.write.Image.Image.save", full)
    with pytest.raises(CapscopeError, match="No space left on device"):
        write_scenes(tmp_path, SETTINGS)
    assert not (tmp_path / "manifest.json").exists()
