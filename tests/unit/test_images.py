import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from bad_images import RED, picture, save_all, unreadable_files
from PIL import Image as Pillow

from capscope.data.annotations import Dataset, Image
from capscope.data.images import (
    UnreadableImageError,
    check_images,
    map_ahead,
    preprocess,
    read_image,
)
from capscope.errors import CapscopeError


@pytest.mark.parametrize("name", unreadable_files())
def test_an_unreadable_file_is_named_in_one_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(unreadable_files()[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImageError, match=name):
            read_image(tmp_path / name)


def test_what_is_not_a_file_is_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    for name in ("absent.jpg", "pipe.jpg", "broken.jpg", "."):
        with pytest.raises(UnreadableImageError, match="is missing"):
            read_image(tmp_path / name)


def test_the_size_is_checked_before_the_pixels_are_decoded(tmp_path: Path) -> None:
    picture(100, 100).save(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match="100 x 100 pixels"):
        read_image(tmp_path / "x.png", max_pixels=9_999)
    assert read_image(tmp_path / "x.png", max_pixels=10_000).size == (100, 100)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_extreme_shapes_are_read_and_prepared(tmp_path: Path, size: tuple[int, int]) -> None:
    picture(*size).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    assert image.size == size
    assert preprocess(image, 32).isfinite().all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LAB", "HSV", "RGB"])
def test_every_common_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    kind = {"CMYK": "jpg", "YCbCr": "jpg", "LAB": "tiff", "HSV": "tiff"}.get(mode, "png")
    path = tmp_path / f"x.{kind}"
    source = picture().convert("RGB").convert(mode) if mode != "LAB" else None
    if source is None or mode == "HSV":
        pytest.importorskip("PIL.ImageCms")
        source = picture().convert("L")
    source.save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.size == (40, 30)


def test_cmyk_keeps_its_colours(tmp_path: Path) -> None:
    Pillow.new("RGB", (16, 16), RED).convert("CMYK").save(tmp_path / "x.jpg", quality=95)
    assert np.abs(np.asarray(read_image(tmp_path / "x.jpg")).astype(int) - RED).max() < 12


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, kind: str) -> None:
    values = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    Pillow.fromarray(values).save(tmp_path / f"x.{kind}")
    found = np.asarray(read_image(tmp_path / f"x.{kind}"))
    np.testing.assert_array_equal(found[..., 0], values // 257)


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path: Path) -> None:
    Pillow.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "x.png")
    assert np.asarray(read_image(tmp_path / "x.png")).max() == 0


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Pillow.fromarray(np.random.default_rng(0).random((4, 4), np.float32)).save(tmp_path / "x.tiff")
    with pytest.raises(UnreadableImageError, match="floating point"):
        read_image(tmp_path / "x.tiff")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_transparent_parts_show_white_and_opaque_ones_their_colour(
    tmp_path: Path, mode: str
) -> None:
    image = Pillow.new("RGBA", (8, 4), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (4, 0, 8, 4))
    path, options = tmp_path / "x.png", {}
    if mode in ("P", "L", "RGB"):  # one colour is declared transparent
        image = image.convert("RGB").convert(mode)
        dark = image.getpixel((0, 0))
        options = {"transparency": dark}
    else:
        image = image.convert(mode)
    image.save(path, **options)
    found = np.asarray(read_image(path))
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] < 255).any()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    image = picture(48, 32)
    image.save(tmp_path / "x.png", exif=exif)
    found = read_image(tmp_path / "x.png")
    turned = orientation >= 5
    assert found.size == ((32, 48) if turned else (48, 32))
    pixels = np.asarray(image)
    flips = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: pixels[::-1].swapaxes(0, 1),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: pixels[:, ::-1].swapaxes(0, 1),
    }
    np.testing.assert_array_equal(np.asarray(found), flips[orientation])


def test_a_broken_orientation_tag_does_not_spoil_the_image(tmp_path: Path) -> None:
    picture().save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 40)
    assert read_image(tmp_path / "x.jpg").size == (40, 30)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [Pillow.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "webp" else {}
    frames[0].save(tmp_path / f"x.{kind}", save_all=True, append_images=frames[1:], **options)
    assert (np.asarray(read_image(tmp_path / f"x.{kind}")) == (255, 0, 0)).all()


def test_the_format_is_told_by_the_content_not_the_name(tmp_path: Path) -> None:
    picture().save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "-strange;name|é.jpg")
    assert read_image(tmp_path / "-strange;name|é.jpg").size == (40, 30)


@pytest.mark.parametrize("size", [16, 64])
def test_preparing_equals_torchvision(size: int) -> None:
    transforms = torchvision.transforms
    twin = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    torch.testing.assert_close(preprocess(picture(), size), twin(picture()))


def files_and_dataset(tmp_path: Path) -> tuple[Dataset, int]:
    bad = unreadable_files()
    save_all(tmp_path, bad)
    for name in ("first.png", "last.png"):
        picture().save(tmp_path / name)
    names = ["first.png", *bad, "absent.jpg", "last.png"]
    images = tuple(Image(n, name, "train", ("x",), (("x",),)) for n, name in enumerate(names))
    return Dataset("toy", tmp_path, images), len(bad) + 1


def test_checking_skips_and_lists_what_cannot_be_read(tmp_path: Path) -> None:
    dataset, bad = files_and_dataset(tmp_path)
    readable, skipped = check_images(dataset, dataset.images, policy="skip")
    assert [image.file for image in readable] == ["first.png", "last.png"]
    assert [(image.width, image.height) for image in readable] == [(40, 30), (40, 30)]
    assert len(skipped) == bad
    assert all(one.file in one.reason for one in skipped)


def test_checking_stops_at_the_first_unreadable_image_under_fail(tmp_path: Path) -> None:
    dataset, _ = files_and_dataset(tmp_path)
    with pytest.raises(UnreadableImageError, match=r"empty\.jpg"):
        check_images(dataset, dataset.images, policy="fail")


def test_a_path_that_leaves_the_root_stops_even_under_skip(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    picture().save(tmp_path / "outside.png")
    (root / "x.png").symlink_to(tmp_path / "outside.png")
    dataset = Dataset("toy", root, (Image(1, "x.png", "train", ("x",), (("x",),)),))
    with pytest.raises(CapscopeError, match="leaves the image folder"):
        check_images(dataset, dataset.images, policy="skip")


def test_threads_keep_the_order_and_do_not_run_far_ahead() -> None:
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        return number * 2

    results = map_ahead(work, range(1000), workers=2)
    assert [next(results) for _ in range(3)] == [0, 2, 4]
    assert len(started) < 50
    assert list(results) == [2 * number for number in range(3, 1000)]
