"""The models of SPICE come once, whole, by network or by hand."""

import hashlib
import io
import random
import zipfile

import pytest
from http_server import serving

from capscope.errors import CapscopeError
from capscope.files import read_manifest
from capscope.metrics import spice_models as module
from capscope.metrics.spice_models import ARCHIVE, JARS, KIND, fetch_spice_models, spice_jars


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


RANDOM = random.Random(1)
CONTENT = {name: zipped({"a.class": RANDOM.randbytes(100_000)}) for name in JARS}
FOLDER = ARCHIVE.removesuffix(".zip")
MEMBERS = {f"{FOLDER}/{name}": content for name, content in CONTENT.items()}
MEMBERS |= {f"{FOLDER}/xom.jar": b"not needed", "../evil.jar": b"outside"}
ZIP = zipped(MEMBERS)
SHA1 = "sha1:" + hashlib.sha1(ZIP).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "resources" / "corenlp"


def fetch(folder, *addresses, checksum=SHA1):
    return fetch_spice_models(folder, addresses, checksum, timeout=5.0, pause=0.0)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".jar"}


def test_two_jars_of_the_archive_are_kept_and_nothing_else(folder):
    with serving(ZIP) as site:
        assert fetch(folder, site.address)
        assert not fetch(folder, site.address)
    assert site.asked == [""]
    assert contents(folder) == CONTENT
    assert {path.name for path in folder.iterdir()} == {*JARS, "manifest.json"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert spice_jars(folder) == [folder / name for name in JARS]
    assert read_manifest(folder, KIND, check_hashes=True)["params"]["checksum"] == SHA1


def test_a_download_that_breaks_off_goes_on_even_in_the_next_call(folder):
    with serving(ZIP, drop=[50_000, 10_000, 0, 0, 0, 0]) as site:
        with pytest.raises(CapscopeError, match=r"broke off.*\n.*put it at"):
            fetch(folder, site.address)
        with pytest.raises(CapscopeError, match="not available"):
            spice_jars(folder)
        fetch(folder, site.address)
    assert site.asked[-1] == "bytes=60000-"
    assert contents(folder) == CONTENT


def test_a_wrong_checksum_leaves_nothing_and_the_next_mirror_is_asked(folder):
    with serving(ZIP[:-5] + b"12345") as wrong, serving(ZIP) as right:
        with pytest.raises(CapscopeError, match="its sha1 is"):
            fetch(folder, wrong.address)
        assert list(folder.iterdir()) == []
        fetch(folder, wrong.address, right.address)
    assert contents(folder) == CONTENT


def flipped(content):
    """Change a byte in the middle of the first jar."""
    place = len(content) // 4
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    "content",
    [b"<html>moved</html>", ZIP[: len(ZIP) // 2], flipped(ZIP), zipped({"other.jar": b"x"})],
    ids=["page", "truncated", "damaged", "other"],
)
def test_without_a_checksum_a_wrong_archive_is_still_found_out(folder, content):
    with (
        serving(content, length=False) as site,
        pytest.raises(CapscopeError, match=r"was not the archive of CoreNLP.*addresses"),
    ):
        fetch(folder, site.address, checksum=None)
    assert not (folder / ARCHIVE).exists()
    assert not (folder / "manifest.json").exists()


def test_offline_the_archive_can_be_put_there_by_hand(folder):
    with pytest.raises(CapscopeError, match=rf"put it at {folder / ARCHIVE}"):
        fetch(folder, "http://127.0.0.1:9/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ARCHIVE).write_bytes(ZIP)
    fetch(folder, "http://127.0.0.1:9/")
    assert contents(folder) == CONTENT


def test_jars_can_be_put_there_by_hand_and_are_read_through(folder):
    folder.mkdir(parents=True)
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    assert fetch(folder)
    assert spice_jars(folder)


def test_a_damaged_jar_is_fetched_again(folder):
    with serving(ZIP) as site:
        fetch(folder, site.address)
        (folder / JARS[1]).write_bytes(CONTENT[JARS[1]][:-100])
        fetch(folder, site.address)
    assert contents(folder) == CONTENT


def test_a_full_disk_is_named_before_anything_is_fetched(folder, monkeypatch):
    monkeypatch.setattr(module, "_UNPACKED", 1 << 60)
    with serving(ZIP) as site, pytest.raises(CapscopeError, match=r"GB free, .* are needed"):
        fetch(folder, site.address)
    assert list(folder.iterdir()) == []
