"""Images with captions written below them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from capscope.report.captioned import MARGIN, NARROWEST, WIDEST, captioned, save_captioned


def test_the_image_stays_and_every_line_finds_room_below_it(tmp_path):
    image = Image.new("RGB", (300, 200), (200, 30, 40))
    one = captioned(image, ["a red wall"])
    assert one.width == 300
    assert np.array_equal(np.asarray(one)[:200], np.asarray(image))
    below = np.asarray(one)[200:]
    assert (below < 100).any()
    assert (below[:MARGIN] == 255).all()
    assert (below[-2:] == 255).all()
    long = captioned(image, ["a red wall " * 12, "another"])
    assert long.height > one.height + 40
    assert (np.asarray(long)[200:, -MARGIN + 2 :] == 255).all()
    save_captioned(image, ["a red wall"], tmp_path / "new" / "1.jpg")
    assert Image.open(tmp_path / "new" / "1.jpg").size == one.size


def test_small_images_get_a_margin_and_large_ones_shrink():
    assert captioned(Image.new("RGB", (20, 10)), ["a"]).width == NARROWEST
    assert captioned(Image.new("L", (4000, 1000)), ["a"]).width == WIDEST
