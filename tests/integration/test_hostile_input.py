"""Files from outside that want more than to be read: a canary that none of them may touch."""

import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from reliability import HOSTILE as HOSTILE_INPUT
from reliability import record

from capscope.data.annotations import read_karpathy
from capscope.data.archive import unpack_zip
from capscope.data.images import read_image
from capscope.errors import CapscopeError
from capscope.features.importing.hdf5 import GuardedHdf5
from capscope.files import read_json
from capscope.importers.difnet_vocabulary import read_vocabulary
from capscope.params import load_params
from capscope.report.own_images import card_of, write_page
from capscope.tensors import read_foreign, read_tensors

ROOT = Path(__file__).resolve().parents[2]
HTML = '</script><img src=x onerror="touch(canary)">'


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def torch_zip(canary, tmp_path):
    torch.save({"model": Canary(canary)}, tmp_path / "x.pth")
    return lambda: read_foreign(tmp_path / "x.pth")


def torch_legacy(canary, tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"model": Canary(canary)}, path, _use_new_zipfile_serialization=False)
    return lambda: read_foreign(path)


def torch_tar(canary, tmp_path):
    path, content = tmp_path / "x.pth", pickle.dumps(Canary(canary))
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return lambda: read_foreign(path)


def torch_tar_of_links(canary, tmp_path):
    path = tmp_path / "x.pth"
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "pickle")
            archive.addfile(entry)
    written(tmp_path, "pickle", pickle.dumps(Canary(canary)))
    return lambda: read_foreign(path)


def pickled_words(canary, tmp_path):
    path = written(tmp_path, "vocab.pkl", pickle.dumps(Canary(canary)))
    return lambda: read_vocabulary(path)


def pickled_array(canary, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    return lambda: read_foreign(path)


def pickle_named_safetensors(canary, tmp_path):
    path = written(tmp_path, "x.safetensors", pickle.dumps(Canary(canary)))
    return lambda: read_tensors(path)


def safetensors_of_a_huge_header(canary, tmp_path):
    path = written(tmp_path, "x.safetensors", struct.pack("<Q", 1 << 62) + b"{}")
    return lambda: read_tensors(path)


def safetensors_that_overlap(canary, tmp_path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": {**entry, "data_offsets": [4, 12]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(12)
    path = written(tmp_path, "x.safetensors", content)
    return lambda: read_tensors(path)


def yaml_tag(canary, tmp_path):
    text = f"seeds: !!python/object/apply:os.system ['touch {canary}']\n"
    path = written(tmp_path, "x.yaml", text.encode())
    return lambda: load_params([ROOT / "params.yaml", path])


def yaml_of_a_billion_laughs(canary, tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path = written(tmp_path, "x.yaml", "\n".join(lines).encode())
    return lambda: load_params([ROOT / "params.yaml", path])


def shell_in_a_name(canary, tmp_path):
    overlay = {"dataset": {"name": f"x; touch {canary}"}}
    path = written(tmp_path, "x.yaml", yaml.safe_dump(overlay).encode())
    return lambda: load_params([ROOT / "params.yaml", path])


def shell_in_a_system(canary, tmp_path):
    overlay = {"systems": {f"$(touch {canary})": {"captioner": "gridtd"}}}
    path = written(tmp_path, "x.yaml", yaml.safe_dump(overlay).encode())
    return lambda: load_params([ROOT / "params.yaml", path])


def json_too_deep(canary, tmp_path):
    path = written(tmp_path, "x.json", b"[" * 1_000_000)
    return lambda: read_json(path)


def zip_slip(tmp_path, name):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "sing")
    (tmp_path / "inside").mkdir()
    return lambda: unpack_zip(path, tmp_path / "inside")


def zip_link(canary, tmp_path):
    path, entry = tmp_path / "x.zip", zipfile.ZipInfo("link")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, str(canary))
    return lambda: unpack_zip(path, tmp_path / "inside")


def tar_for_a_zip(canary, tmp_path):
    path, entry = tmp_path / "x.zip", tarfile.TarInfo("link")
    entry.type, entry.linkname = tarfile.SYMTYPE, str(canary)
    with tarfile.open(path, "w") as archive:
        archive.addfile(entry)
    return lambda: unpack_zip(path, tmp_path / "inside")


def zip_bomb(canary, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for number in range(2):
            archive.writestr(f"{number}.txt", bytes(80 << 20))
    return lambda: unpack_zip(path, tmp_path / "inside")


def png_bomb(canary, tmp_path):
    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 20))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows)
    path = written(tmp_path, "x.png", content + chunk(b"IEND", b""))
    return lambda: read_image(path)


def gif_bomb(canary, tmp_path):
    size = struct.pack("<HH", 65_535, 65_535)
    content = b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + size + b"\0\x02\0;"
    path = written(tmp_path, "x.gif", content)
    return lambda: read_image(path)


def tiff_bomb(canary, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "x.tif")
    content = bytearray((tmp_path / "x.tif").read_bytes())
    first = struct.unpack_from("<I", content, 4)[0]
    for entry in range(struct.unpack_from("<H", content, first)[0]):
        place = first + 2 + 12 * entry
        if struct.unpack_from("<H", content, place)[0] in (256, 257):  # width, height
            struct.pack_into("<HII", content, place + 2, 4, 1, 100_000)
    path = written(tmp_path, "x.tif", bytes(content))
    return lambda: read_image(path)


def image_of_text(canary, tmp_path):
    path = written(tmp_path, "x.jpg", f"%!PS\n(touch {canary}) system\n".encode())
    return lambda: read_image(path)


def karpathy(tmp_path, file):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    tokens = {"raw": "a cat", "tokens": ["a", "cat"], "sentid": 0}
    image = {"filename": file, "split": "train", "imgid": 0, "sentids": [0], "sentences": [tokens]}
    path = written(tmp_path, "x.json", json.dumps({"dataset": "x", "images": [image]}).encode())

    def read():
        dataset = read_karpathy(path, tmp_path / "images", "x")
        read_image(dataset.path(dataset.images[0]))

    return read


def path_upwards(canary, tmp_path):
    return karpathy(tmp_path, "../secret.png")


def path_from_the_root(canary, tmp_path):
    return karpathy(tmp_path, str(tmp_path / "secret.png"))


def path_of_a_drive(canary, tmp_path):
    return karpathy(tmp_path, "C:\\secret.png")


def path_through_a_link(canary, tmp_path):
    read = karpathy(tmp_path, "link.png")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    return read


def hdf5_of_rubbish(canary, tmp_path):
    rubbish = random.Random(0).randbytes(4096)
    path = written(tmp_path, "x.h5", b"\x89HDF\r\n\x1a\n" + rubbish)
    return lambda: hdf5_names(path)


def hdf5_that_hangs(canary, tmp_path):
    os.mkfifo(tmp_path / "x.h5")  # opening waits for a writer that never comes
    return lambda: hdf5_names(tmp_path / "x.h5", seconds=5)


def hdf5_that_leads_out(canary, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["a"] = np.arange(3)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = h5py.ExternalLink("secret.h5", "/a")
    return lambda: hdf5_read(tmp_path / "x.h5")


def hdf5_names(path, seconds=20):
    reader = GuardedHdf5(seconds=seconds)
    try:
        reader.names(path)
    finally:
        reader.close()


def hdf5_read(path):
    reader = GuardedHdf5(seconds=20)
    try:
        reader.read(path, ["a"])
    finally:
        reader.close()


def zip_upwards(canary, tmp_path):
    return zip_slip(tmp_path, f"../{canary.name}")


def zip_from_the_root(canary, tmp_path):
    return zip_slip(tmp_path, str(canary))


def zip_of_a_drive(canary, tmp_path):
    return zip_slip(tmp_path, f"C:\\{canary.name}")


KINDS = {
    "pickles": (
        *(torch_zip, torch_legacy, torch_tar, torch_tar_of_links),
        *(pickled_words, pickled_array, pickle_named_safetensors),
    ),
    "tensors": (safetensors_of_a_huge_header, safetensors_that_overlap),
    "YAML and JSON": (yaml_tag, yaml_of_a_billion_laughs, json_too_deep),
    "names in parameters": (shell_in_a_name, shell_in_a_system),
    "archives": (zip_upwards, zip_from_the_root, zip_of_a_drive, zip_link, tar_for_a_zip, zip_bomb),
    "paths of images": (path_upwards, path_from_the_root, path_of_a_drive, path_through_a_link),
    "images": (png_bomb, gif_bomb, tiff_bomb, image_of_text),
    "HDF5": (hdf5_of_rubbish, hdf5_that_hangs, hdf5_that_leads_out),
}
HOSTILE = {make.__name__: make for made in KINDS.values() for make in made}


def is_refused(name, tmp_path):
    """Say whether an input ends in an error that a user can read, the canary untouched."""
    tmp_path.mkdir(exist_ok=True)
    canary = tmp_path / "canary"
    read = HOSTILE[name](canary, tmp_path)
    try:
        read()
    except CapscopeError:
        return not canary.exists()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_refused_and_does_nothing(name, tmp_path):
    assert is_refused(name, tmp_path)


@pytest.mark.long
def test_what_was_refused_is_counted(tmp_path):
    refused = {name: is_refused(name, tmp_path / name) for name in HOSTILE}
    kinds = [(kind, make.__name__) for kind, made in KINDS.items() for make in made]
    record(HOSTILE_INPUT, [(kind, "refused", refused[name]) for kind, name in kinds])
    assert [name for name in refused if not refused[name]] == []


def test_what_captions_and_file_names_say_is_no_html_in_a_page(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    card = card_of(HTML, pixels, (HTML, "cat"), np.array([0.5, 0.5]), [])
    write_page([card], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "onerror" in page
    assert "<img src=x" not in page
    assert "</script><img" not in page
