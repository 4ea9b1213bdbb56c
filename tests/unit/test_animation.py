"""A caption as an animation: frames, their order, labels, scales and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capscope.errors import CapscopeError
from capscope.report.animation import ANIMATED, frames, save_animation, smooth
from capscope.report.heatmaps import overlay_regions, published_blend
from capscope.report.views import View

PICTURE = np.full((320, 400, 3), 120, np.uint8)
WORDS = ["a", "red", "dog"]


def cells(*strengths: float) -> np.ndarray:
    """Return one map a strength, that lights up one corner of a 2 x 2 grid after the other."""
    maps = np.zeros((len(strengths), 4))
    maps[np.arange(len(strengths)), np.arange(len(strengths))] = strengths
    return maps.reshape(-1, 2, 2)


def view(maps: np.ndarray) -> View:
    return View("attention", np.repeat(np.repeat(maps, 8, 1), 8, 2), cells=maps)


def redness(frame: Image.Image) -> np.ndarray:
    """Return how much more red than blue the picture's quadrants are (2, 2)."""
    pixels = np.asarray(frame, dtype=float)[:320]
    excess = pixels[..., 0] - pixels[..., 2]
    return excess.reshape(2, 160, 2, 200).mean((1, 3))


def test_there_is_one_frame_a_word_and_its_map_lies_where_the_word_looks() -> None:
    drawn = frames(PICTURE, WORDS, view(cells(1, 1, 1)))
    assert len(drawn) == 3
    assert {frame.size for frame in drawn} == {(400, 360)}
    for number, frame in enumerate(drawn):
        assert redness(frame).flatten().argmax() == number


def test_all_words_share_one_scale() -> None:
    strong, _, weak = (
        redness(frame).max() for frame in frames(PICTURE, WORDS, view(cells(1, 1, 0.1)))
    )
    assert weak < 0.5 * strong


def test_the_word_stands_below_its_picture() -> None:
    drawn = frames(PICTURE, ["mm", "mm", "iiii"], view(cells(1, 1, 1)))
    bands = [np.asarray(frame)[320:] for frame in drawn]
    assert all(band.min() < 80 for band in bands)
    assert np.array_equal(bands[0], bands[1])
    assert not np.array_equal(bands[0], bands[2])


def test_cells_are_enlarged_smoothly_and_keep_their_range() -> None:
    found = smooth(np.array([[0.0, 0.0], [0.0, 1.0]]), 64, 96)
    assert found.shape == (64, 96)
    assert found.min() == 0
    assert found.max() == 1
    assert np.abs(np.diff(found, axis=0)).max() < 0.1
    assert np.abs(np.diff(found, axis=1)).max() < 0.1
    assert (np.diff(found[:, -1]) >= 0).all()


@pytest.mark.parametrize(
    ("size", "expected"), [((112, 112), (320, 320)), ((1000, 2000), (320, 640))]
)
def test_small_pictures_are_enlarged_and_large_ones_reduced(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    (frame,) = frames(np.zeros((*size, 3), np.uint8), ["a"], view(cells(1)))
    width, height = frame.size
    assert (height - max(24, round(width * 0.1)), width) == expected


def test_regions_are_outlined_as_in_other_pictures() -> None:
    boxes = np.array([[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.9, 0.9]])
    regions = np.array([[1.0, 0.2], [0.1, 2.0]])
    shown = View("attention", np.zeros((2, 4, 4)), regions=regions, boxes=boxes)
    drawn = frames(PICTURE, WORDS[:2], shown)
    expected = overlay_regions(PICTURE, regions[1], boxes, limit=shown.limit())
    assert np.array_equal(np.asarray(drawn[1])[:320], expected)


def test_maps_of_pixels_are_shown_as_they_are() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 16, 16))
    drawn = frames(PICTURE, WORDS, View("LRP", maps))
    assert len({frame.tobytes() for frame in drawn}) == 3


@pytest.mark.parametrize("ending", ANIMATED)
def test_an_animation_plays_its_frames_for_800_milliseconds_each_without_end(
    ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{ending}"
    save_animation(frames(PICTURE, WORDS, view(cells(1, 1, 1))), path)
    with Image.open(path) as found:
        assert found.n_frames == 3
        assert found.info["loop"] == 0
        for number in range(3):
            found.seek(number)
            found.load()
            assert found.info["duration"] == 800
            assert redness(found.convert("RGB")).flatten().argmax() == number
    again = tmp_path / f"b{ending}"
    save_animation(frames(PICTURE, WORDS, view(cells(1, 1, 1))), again)
    assert again.read_bytes() == path.read_bytes()


def test_what_cannot_be_animated_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CapscopeError, match=r"film.mp4 is no animation: end it in .gif, .apng"):
        save_animation([Image.new("RGB", (4, 4))], tmp_path / "film.mp4")
    with pytest.raises(CapscopeError, match="has no frame"):
        save_animation([], tmp_path / "film.gif")
    with pytest.raises(CapscopeError, match="2 words needs 2 maps of attention, got 3"):
        frames(PICTURE, WORDS[:2], view(cells(1, 1, 1)))
    assert not list(tmp_path.iterdir())


def test_the_published_picture_of_images_that_are_no_squares_has_its_sides_right() -> None:
    attention = np.array([[0.0, 1.0], [0.0, 0.0], [0.5, 0.0]])
    found = published_blend(np.zeros((6, 4, 3), np.uint8), attention, band=2)
    assert found.shape == (8, 4, 3)
    assert not found[:2].any()
    assert np.array_equal(found[2:, :, 0], 0.5 * np.repeat(np.repeat(attention, 2, 0), 2, 1))
