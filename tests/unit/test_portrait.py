"""What the viewer of the pages is given: layers that lie over an image as pictures show them."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from capscope.report.heatmaps import layer, limit_of
from capscope.report.portrait import about, call, caption_data, map_data, picture
from capscope.report.views import FINE, MIDDLE, PLACES, View


def maps(side, words=3, seed=0):
    return np.random.default_rng(seed).normal(size=(words, side, side))


def levels_of(found):
    """Return the levels of a map as the browser has them, (words, h, w) or (words, regions)."""
    content = base64.b64decode(found["levels"])
    words = len(found["where"])
    if found["kind"] == "fine":
        row = np.asarray(Image.open(io.BytesIO(content)))
        tiles = row.reshape(found["h"], words, -1).transpose(1, 0, 2)
        return tiles[..., : found["w"]].astype(int)
    return np.frombuffer(content, np.uint8).astype(int).reshape(words, found["h"], found["w"])


def ramp_of(name):
    return np.frombuffer(base64.b64decode(about([], [])["ramps"][name]), np.uint8).reshape(256, 4)


def test_levels_over_the_faded_image_are_the_panel_of_pictures():
    """The browser fades an image as the style sheet says and lays coloured levels over it."""
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    view = View("LRP", maps(32))
    over = ramp_of("maps")[view.levels()[1]]
    grey = image @ np.array([0.299, 0.587, 0.114])
    faded = 0.1 * image + 0.9 * (60 + 0.72 * grey)[..., None]
    share = over[..., 3:] / 255
    expected = (1 - share) * faded + share * over[..., :3]
    assert np.abs(expected - view.panel(image, 1)).max() <= 4
    assert ramp_of("maps")[MIDDLE, 3] == ramp_of("areas")[MIDDLE, 3] == 0


def test_strength_decides_how_much_a_layer_hides_and_sign_its_colour():
    found = layer(np.array([[-1.0, 0.0, 0.5, 1.0]]), 1.0)
    opacity = found[0, :, 3].astype(int)
    assert opacity[1] == 0
    assert opacity[0] == opacity[3] > opacity[2] > 0
    assert found[0, 0, 2] > found[0, 0, 0]  # against: blue
    assert found[0, 3, 0] > found[0, 3, 2]  # for: red


def test_cells_are_kept_exactly_and_fine_maps_nearly():
    coarse, fine = View("attention", maps(8)), View("LRP", maps(2 * FINE + 3))
    for view, kind, tolerance in ((coarse, "cells", 0), (fine, "fine", 12)):
        found = map_data(view, 0, 3)
        assert found["kind"] == kind
        difference = levels_of(found) - view.levels().astype(int)
        assert np.abs(difference).mean() <= tolerance


def test_where_there_is_no_relevance_a_fine_map_draws_nothing():
    found = np.zeros((2, 2 * FINE, 2 * FINE))
    found[1, 9, 9] = 1.0
    levels = levels_of(map_data(View("LRP", found), 0, 2))
    assert (levels[0] == MIDDLE).all()
    assert (levels[1, 16:] == MIDDLE).all()


def test_regions_are_told_by_their_boxes_and_a_level_for_each_word():
    boxes = np.array([[0.25, 0.25, 0.75, 0.75], [0.0, 0.0, 0.0, 0.0]])
    view = View("LRP", maps(8, 1), regions=np.array([[1.0, -0.5]]), boxes=boxes)
    found = caption_data(["cat"], np.array([0.5]), {0: view})
    assert found["boxes"] == boxes.tolist()
    (one,) = found["maps"]
    assert one["kind"] == "regions"
    expected = MIDDLE + np.rint([127, -127 * 0.5**0.6])
    np.testing.assert_array_equal(levels_of(one), [[expected]])


@pytest.mark.parametrize("place", range(9))
def test_where_the_relevance_is_is_said_in_words(place):
    found = np.full((1, 9, 9), -1.0)
    row, column = divmod(place, 3)
    found[0, 3 * row + 1, 3 * column + 1] = 2.0
    found[0, 3 * ((row + 1) % 3), 3 * column] = 0.5
    assert View("LRP", found).places() == [(place, 0.8)]
    assert PLACES[4] == "in the middle"


def test_a_map_without_relevance_has_a_place_too():
    assert View("LRP", np.zeros((1, 6, 6))).places() == [(0, 0.0)]


def test_a_caption_holds_what_explainers_say_of_each_word():
    before = np.array([[0.0, 0.0], [-2.0, 0.0]])
    view = View("LRP", maps(8, 2), before=before)
    found = caption_data(["a", "cat"], np.array([0.25, 0.5, 0.9]), {3: view}, verdicts={1: "wrong"})
    assert found["p"] == [0.25, 0.5]
    assert found["verdicts"] == [None, "wrong"]
    (one,) = found["maps"]
    assert (one["e"], one["h"], one["w"], one["kind"]) == (3, 8, 8, "cells")
    assert one["before"] == [[], [-1.0]]
    assert limit_of(view.maps) > 0


@pytest.mark.parametrize("text", ["</script>", "<!--", "a\u2028b\u2029c", 'q"\\n', "é"])
def test_statements_end_no_script_and_keep_the_text(text):
    statement = call("list", {"words": [text]})
    assert "<" not in statement
    assert "\u2028" not in statement
    assert "\u2029" not in statement
    assert json.loads(statement.removeprefix("capscope.list(").removesuffix(");\n")) == {
        "words": [text]
    }


def test_large_pictures_are_made_smaller_and_small_ones_kept():
    for width, expected in ((800, 384), (100, 100)):
        content = picture(np.zeros((width // 2, width, 3), np.uint8), 384)
        assert Image.open(io.BytesIO(content)).size == (expected, expected // 2)
