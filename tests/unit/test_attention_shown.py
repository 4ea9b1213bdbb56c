"""Attention seen: a strip with a panel a word and an animation, of every captioner that attends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_subjects import BLIND, CONFIGS, LENGTHS, examples, explain, toy_subject

from capscope.report.animation import ANIMATED, frames, save_animation
from capscope.report.montage import montage
from capscope.report.views import View

ATTENDING = [captioner for captioner in CONFIGS if captioner not in BLIND]
LONGEST = int(LENGTHS.argmax())
SPOKEN = [f"word{number}" for number in range(int(LENGTHS.max()))]


def picture() -> np.ndarray:
    """Return the image of the longest of the examples."""
    return (examples()[0][LONGEST].clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()


@pytest.fixture(params=ATTENDING)
def seen(request: pytest.FixtureRequest) -> View:
    """Return the attention of the words of the longest of the examples."""
    subject = toy_subject(request.param)
    explanation = explain("attention", subject)
    assert subject.network is not None
    assert explanation.pixels is not None
    cells = explanation.grid[LONGEST].double().numpy().reshape(-1, *subject.network.grid)
    return View("attention", explanation.pixels[LONGEST].double().numpy(), cells=cells)


def strip(pixels: np.ndarray, view: View) -> np.ndarray:
    return np.asarray(montage(pixels, SPOKEN, [view], dots_per_inch=40))


@pytest.fixture(scope="module")
def blank() -> np.ndarray:
    """Return a strip without attention."""
    pixels = picture()
    return strip(pixels, View("attention", np.zeros((len(SPOKEN), *pixels.shape[:2]))))


def test_every_captioner_with_attention_has_a_strip_with_a_panel_a_word(
    seen: View, blank: np.ndarray
) -> None:
    drawn = strip(picture(), seen)
    assert drawn.shape == blank.shape
    touched = (drawn != blank).any((0, 2)).nonzero()[0]
    assert np.ptp(touched) > drawn.shape[1] * (len(SPOKEN) - 1) / (len(SPOKEN) + 1)


def test_every_captioner_with_attention_has_an_animation_with_a_frame_a_word(
    seen: View, tmp_path: Path
) -> None:
    drawn = frames(picture(), SPOKEN, seen)
    assert len(drawn) == len(SPOKEN)
    for ending in ANIMATED:
        save_animation(drawn, tmp_path / f"attention{ending}")
        with Image.open(tmp_path / f"attention{ending}") as animation:
            assert animation.n_frames == len(SPOKEN)  # type: ignore[attr-defined]
