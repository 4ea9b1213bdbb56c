"""What is unpacked stays in its folder, is whole, and can be taken up again."""

import stat
import zipfile

import pytest

from capscope.data import archive as module
from capscope.data.archive import unpack_zip
from capscope.errors import CapscopeError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("train/", b"")
        content.writestr("train/1.jpg", b"one" * 999)
        content.writestr("train/2.jpg", b"two", zipfile.ZIP_STORED)
        content.writestr("notes.txt", b"")
    return path


def add(path, name, data=b"x", mode=0):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with zipfile.ZipFile(path, "a") as content:
        content.writestr(entry, data)


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_files_are_unpacked(path, tmp_path):
    names = unpack_zip(path, tmp_path / "out")
    assert names == ["train/1.jpg", "train/2.jpg", "notes.txt"]
    found = files(tmp_path / "out")
    assert found == {"train/1.jpg": b"one" * 999, "train/2.jpg": b"two", "notes.txt": b""}


def test_members_can_be_chosen_and_a_missing_one_is_named(path, tmp_path):
    assert unpack_zip(path, tmp_path / "out", ["train/2.jpg"]) == ["train/2.jpg"]
    assert files(tmp_path / "out") == {"train/2.jpg": b"two"}
    with pytest.raises(CapscopeError, match=r"has no 3\.jpg"):
        unpack_zip(path, tmp_path / "out", ["3.jpg"])


def test_files_that_are_there_are_left_alone_and_cut_ones_made_again(path, tmp_path):
    out = tmp_path / "out"
    unpack_zip(path, out)
    before = (out / "train/1.jpg").stat().st_mtime_ns
    (out / "train/2.jpg").write_bytes(b"t")
    unpack_zip(path, out)
    assert (out / "train/1.jpg").stat().st_mtime_ns == before
    assert (out / "train/2.jpg").read_bytes() == b"two"


@pytest.mark.parametrize(
    "name", ["../evil", "train/../../evil", "/evil", "C:/evil", "a\\..\\evil", "..", "train//../.."]
)
def test_a_member_that_leaves_the_folder_is_refused(path, tmp_path, name):
    add(path, name)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(CapscopeError, match="not a path inside"):
        unpack_zip(path, tmp_path / "out")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_links_and_devices_are_refused(path, tmp_path, mode):
    add(path, "link", b"/etc/passwd", mode | 0o777)
    with pytest.raises(CapscopeError, match="'link' is a link or a device"):
        unpack_zip(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_that_comes_twice_is_refused(path, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        add(path, "train/1.jpg")
    with pytest.raises(CapscopeError, match="comes twice"):
        unpack_zip(path, tmp_path / "out")


def test_an_archive_that_grows_out_of_proportion_is_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("zeros", bytes(150 << 20))
    with pytest.raises(CapscopeError, match="would grow to"):
        unpack_zip(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_too_small_is_noticed_before(path, tmp_path, monkeypatch):
    asked = []

    def refuse(folder, needed):
        asked.append(needed)
        raise CapscopeError("too small")

    monkeypatch.setattr(module, "free_space", refuse)
    with pytest.raises(CapscopeError, match="too small"):
        unpack_zip(path, tmp_path / "out")
    assert asked == [3 * 999 + 3]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["cut", "flipped", "page", "empty"])
def test_a_damaged_archive_is_named_and_leaves_no_cut_file(path, tmp_path, kind):
    data = path.read_bytes()
    damaged = {
        "cut": data[:-30],
        "flipped": data.replace(b"two", b"tow"),
        "page": b"<html>Not found</html>",
        "empty": b"",
    }
    path.write_bytes(damaged[kind])
    with pytest.raises(CapscopeError, match=r"images\.zip is damaged"):
        unpack_zip(path, tmp_path / "out")
    assert set(files(tmp_path / "out")) <= {"train/1.jpg"}
