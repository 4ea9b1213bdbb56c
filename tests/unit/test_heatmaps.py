"""Colours and overlays of relevance, and the figure of a caption."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from capscope.errors import CapscopeError
from capscope.relevance.image_upscale import expansion_matrix, pyramid_expand
from capscope.report.heatmaps import enlarge, layer, limit_of, overlay, overlay_regions
from capscope.report.montage import WIDEST_OF_SEVERAL, montage, save_png
from capscope.report.views import View

RANDOM = np.random.default_rng(0)
PICTURE = RANDOM.integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("factor", [1, 3, 16])
def test_enlargement_keeps_constant_maps(size: int, factor: int) -> None:
    assert np.allclose(expansion_matrix(size, factor).sum(1), 1)


@pytest.mark.parametrize("sigma", [None, 0.0, 4.0])
def test_enlargement_equals_zoom_and_blur_of_scipy(sigma: float | None) -> None:
    grid = RANDOM.standard_normal((4, 5))
    zoomed = ndimage.zoom(grid, 8, order=1, mode="mirror", grid_mode=True)
    blur = 16 / 6 if sigma is None else sigma
    expected = ndimage.gaussian_filter(zoomed, blur, mode="reflect") if blur else zoomed
    found = pyramid_expand(torch.from_numpy(grid), 8, sigma).numpy()
    assert np.allclose(found, expected, atol=1e-12)


def test_enlargement_works_on_stacks_of_maps() -> None:
    maps = torch.randn(2, 3, 4, 4)
    assert torch.allclose(pyramid_expand(maps, 4)[1, 2], pyramid_expand(maps[1, 2], 4), atol=1e-6)


def test_colours_are_symmetric_about_zero() -> None:
    shown = layer(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]), limit=2).astype(int)
    assert shown[2, 3] == 0
    assert shown[0, 2] > shown[0, 0]
    assert shown[4, 0] > shown[4, 2]
    assert abs(shown[0].sum() - shown[4].sum()) < 120


def test_no_relevance_leaves_the_faded_image() -> None:
    blank = overlay(PICTURE, np.zeros((6, 8)))
    assert blank.shape == PICTURE.shape
    assert np.array_equal(blank, overlay(PICTURE, np.zeros(PICTURE.shape[:2])))


def test_overlay_reddens_positive_and_blues_negative_places() -> None:
    relevance: NDArray[np.float64] = np.zeros((48, 64))
    relevance[:, :20], relevance[:, 44:] = 1.0, -1.0
    grey = np.full_like(PICTURE, 128)
    shown = overlay(grey, relevance).astype(int)
    assert (shown[:, :20, 0] > shown[:, :20, 2] + 60).all()
    assert (shown[:, 44:, 2] > shown[:, 44:, 0] + 60).all()


@pytest.mark.parametrize("shape", [(6, 8), (7, 9), (96, 128), (48, 64), (1, 1)])
def test_maps_of_any_size_fit_their_image(shape: tuple[int, int]) -> None:
    assert overlay(PICTURE, RANDOM.standard_normal(shape)).shape == PICTURE.shape
    assert np.allclose(enlarge(np.ones(shape), 48, 64), 1)


def test_one_strong_pixel_does_not_bleach_the_map() -> None:
    relevance = np.ones((50, 50))
    relevance[0, 0] = 1000
    assert limit_of(relevance) == 1


@pytest.mark.parametrize("bad", [np.array([np.nan, 1.0]), np.array([np.inf]), np.array([])])
def test_relevance_that_is_not_finite_is_refused(bad: NDArray[np.float64]) -> None:
    with pytest.raises(CapscopeError, match="finite"):
        limit_of(bad)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CapscopeError, match=r"image \(H, W, 3\)"):
        overlay(PICTURE[..., 0], np.zeros((3, 3)))
    with pytest.raises(CapscopeError, match="2 words needs 2 maps of LRP, got 3"):
        montage(PICTURE, ["a", "dog"], [View("LRP", np.zeros((3, 4, 4)))])


@pytest.mark.parametrize("words", [[], ["$dog$"], ["a", "very" * 20, "long", "<unk>", "word"] * 5])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("with_words", [True, False])
@pytest.mark.slow
def test_captions_of_any_length_become_a_figure(
    words: list[str], with_words: bool, views: int
) -> None:
    count = len(words)
    maps = RANDOM.standard_normal((count, 4, 4))
    before = np.tril(RANDOM.standard_normal((count, count)), -1) if with_words else None
    shown = [View("LRP", maps, before), View("attention", maps), View("$x$", maps)][:views]
    figure = montage(PICTURE, words, shown, title="a $title$", dots_per_inch=40)
    assert figure.mode == "RGB"
    assert figure.width > 60
    assert np.asarray(figure).std() > 5


def test_explainers_stand_below_each_other_and_words_side_by_side() -> None:
    maps = RANDOM.standard_normal((3, 4, 4))

    def size(count: int, words: int) -> tuple[int, int]:
        views = [View("LRP", maps[:1].repeat(words, 0))] * count
        return montage(PICTURE, ["dog"] * words, views, dots_per_inch=40).size

    row, blocks = size(3, WIDEST_OF_SEVERAL - 1), size(3, WIDEST_OF_SEVERAL)
    assert size(2, WIDEST_OF_SEVERAL - 1)[0] == row[0] > blocks[0]
    assert size(2, WIDEST_OF_SEVERAL - 1)[1] < row[1] < blocks[1]


def test_regions_are_outlined_in_the_colour_of_their_relevance() -> None:
    boxes = np.array([[0.1, 0.1, 0.4, 0.9], [0.6, 0.2, 0.9, 0.8], [0.4, 0.0, 0.6, 0.1], [0.0] * 4])
    grey = np.full((100, 100, 3), 128, dtype=np.uint8)
    shown = overlay_regions(grey, np.array([1.0, -0.8, 0.01, 5e-9]), boxes).astype(int)
    red, blue, nothing = shown[10, 25], shown[20, 75], shown[95, 95]
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    assert (nothing == overlay(grey, np.zeros((2, 2)))[0, 0]).all()
    inside, outside = shown[50, 25], shown[50, 50]
    assert inside[0] - inside[2] > 20
    assert abs(outside[0] - outside[2]) < 5
    assert np.abs(shown[0, 50] - nothing).max() < 20


def test_of_regions_that_are_equally_relevant_the_surest_are_outlined() -> None:
    grey = np.full((80, 80, 3), 128, np.uint8)
    edges = np.arange(12) / 12
    boxes = np.stack([edges, np.zeros(12), edges + 1 / 12, np.ones(12)], 1)
    shown = overlay_regions(grey, 0.5 + 1e-7 * np.arange(12), boxes)
    outlined = (shown == shown[0, 0]).all(-1).any(0)
    assert outlined[:53].any()
    assert not outlined[54:].any()


def test_a_view_draws_regions_where_there_are_some_and_maps_elsewhere() -> None:
    maps, boxes = RANDOM.standard_normal((2, 4, 4)), np.array([[0.2, 0.2, 0.7, 0.7]])
    regions = np.array([[1.0], [-1.0]])
    assert np.array_equal(View("a", maps).panel(PICTURE, 1), overlay(PICTURE, maps[1]))
    shown = View("a", maps, regions=regions, boxes=boxes).panel(PICTURE, 1)
    assert np.array_equal(shown, overlay_regions(PICTURE, regions[1], boxes))


def test_influences_are_shares_of_the_strongest_preceding_word() -> None:
    before = np.array([[9.0, 9.0, 9.0], [2.0, 9.0, 9.0], [1.0, -4.0, 9.0]])
    view = View("a", np.zeros((3, 2, 2)), before)
    assert [view.influences(word).tolist() for word in range(3)] == [[], [1.0], [0.25, -1.0]]
    assert View("a", np.zeros((3, 2, 2))).influences(2).tolist() == []


def test_the_same_figure_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "two.png"):
        views = [View("LRP", np.ones((2, 4, 4)), np.eye(2))]
        figure = montage(PICTURE, ["a", "dog"], views, dots_per_inch=50)
        save_png(figure, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert Image.open(tmp_path / "one.png").format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]
