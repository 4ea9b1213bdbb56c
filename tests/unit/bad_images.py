"""Image files of every awkward kind, made on the spot."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

RED = (200, 30, 30)


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """Return noise with a red left half."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = RED
    return Image.fromarray(pixels)


def jpeg(**options: object) -> bytes:
    stream = io.BytesIO()
    picture(200, 160).save(stream, "JPEG", **options)
    return stream.getvalue()


def png(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Return a PNG of a few kilobytes that claims, and would fill, width x height pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 4_000_000, 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def flipped(data: bytes) -> bytes:
    """Return data with the middle overwritten."""
    middle = len(data) // 2
    return data[:middle] + b"\xff\x00" * 200 + data[middle + 400 :]


def unreadable_files() -> dict[str, bytes]:
    """Files that no reader should accept, by name; their contents."""
    gif = io.BytesIO()
    picture().save(gif, "GIF")
    tiff = io.BytesIO()
    picture(300, 300).save(tiff, "TIFF", compression="tiff_deflate")
    whole = png(picture(100, 100))
    return {
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "text.png": b"hello",
        "truncated.jpg": jpeg()[:2000],
        "truncated.png": whole[: len(whole) // 2],
        "truncated.tiff": tiff.getvalue()[:-4000],
        "header_only.jpg": jpeg()[:20],
        "header_only.gif": gif.getvalue()[:12],
        "corrupt.png": flipped(whole),
        "bomb.png": bomb(30_000, 30_000),
        "small_bomb.png": bomb(8_000, 8_000),
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    }


def save_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).write_bytes(data)
