"""Downloads end with the whole, right file or with none, whatever the server does."""

import fcntl
import hashlib
import random
import socket

import pytest
from http_server import serving
from small_disk import files_of_at_most

from capscope.data import download as module
from capscope.data.download import download, free_space
from capscope.errors import CapscopeError

CONTENT = random.Random(1).randbytes(300_000)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


def fetch(path, *addresses, **options):
    options = {"checksum": SHA256, "pause": 0.0, "timeout": 5.0} | options
    return download(path, addresses, **options)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "file.zip"


def rest(path):
    return path.with_name(f".{path.name}.part")


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_file_arrives_and_is_not_fetched_again(path):
    with serving(CONTENT) as site:
        assert fetch(path, site.address) == path
        fetch(path, site.address)
    assert path.read_bytes() == CONTENT
    assert site.asked == [""]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_dropped_connection_goes_on_where_it_broke_off(path):
    with serving(CONTENT, drop=[70_000, 1, 0, 100_000]) as site:
        fetch(path, site.address)
    assert path.read_bytes() == CONTENT
    assert site.asked == ["", *(f"bytes={n}-" for n in (70_000, 70_001, 70_001, 170_001))]


def test_a_server_that_does_not_know_ranges_starts_anew(path):
    with serving(CONTENT, drop=[70_000], ranges=False) as site:
        fetch(path, site.address)
    assert path.read_bytes() == CONTENT
    assert len(site.asked) == 2


def test_a_killed_download_goes_on_in_the_next_call_on_another_mirror(path):
    with (
        serving(CONTENT, drop=[90_000, 0, 0, 0, 0]) as site,
        pytest.raises(CapscopeError, match=r"connection broke off \(4 attempts\)"),
    ):
        fetch(path, site.address)
    assert not path.exists()
    assert rest(path).stat().st_size == 90_000
    with serving(CONTENT) as site:
        fetch(path, f"http://127.0.0.1:{closed_port()}/file.zip", site.address)
    assert site.asked == ["bytes=90000-"]
    assert path.read_bytes() == CONTENT


def test_without_a_checksum_the_rest_of_another_call_is_not_trusted(path):
    path.parent.mkdir()
    rest(path).write_bytes(b"something else")
    with serving(CONTENT) as site:
        fetch(path, site.address, checksum=None)
    assert site.asked == [""]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("length", [True, False])
def test_a_rest_that_does_not_fit_is_thrown_away(path, length):
    path.parent.mkdir()
    rest(path).write_bytes(b"x" * 10)
    with serving(CONTENT, length=length) as site:
        fetch(path, site.address)
    assert site.asked == ["bytes=10-", ""]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("more", [b"", b"x"])
def test_a_rest_as_long_as_the_file_or_longer_ends_well(path, more):
    path.parent.mkdir()
    rest(path).write_bytes(CONTENT + more)
    with serving(CONTENT) as site:
        fetch(path, site.address)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[:-1] + b"?", b"<html>sorry</html>"])
@pytest.mark.parametrize("length", [True, False])
def test_a_wrong_file_is_refused_and_the_next_mirror_asked(path, content, length):
    with serving(content, length=length) as wrong, serving(CONTENT) as right:
        with pytest.raises(CapscopeError, match=r"its sha256 is [0-9a-f]{64}, not [0-9a-f]{64}"):
            fetch(path, wrong.address)
        assert not path.exists()
        assert not rest(path).exists()
        fetch(path, wrong.address, right.address)
    assert path.read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_but_not_one_without_the_file(path):
    with serving(CONTENT, statuses=[503, 429]) as site:
        fetch(path, site.address)
    assert len(site.asked) == 3
    path.unlink()
    with serving(CONTENT, statuses=[404]) as site, pytest.raises(CapscopeError, match="HTTP 404"):
        fetch(path, site.address)
    assert len(site.asked) == 1


def test_offline_every_address_and_the_place_for_the_file_are_named(path):
    addresses = [f"http://127.0.0.1:{closed_port()}/{name}" for name in "ab"]
    with pytest.raises(CapscopeError) as caught:
        fetch(path, *addresses, "ftp://example.org/file.zip")
    message = str(caught.value)
    for part in (*addresses, "refused", "not an http", f"put it at {path}"):
        assert part in message


def test_a_file_that_was_put_there_by_hand_is_checked(path):
    path.parent.mkdir()
    path.write_bytes(b"other")
    with pytest.raises(CapscopeError, match=r"not the file that is expected.*remove it"):
        fetch(path)
    path.write_bytes(CONTENT)
    assert fetch(path) == path


def test_a_full_disk_is_named_before_the_transfer_and_during_it(path, monkeypatch):
    with serving(CONTENT) as site:
        with pytest.raises(CapscopeError, match=r"GB free, .* GB are needed"):
            fetch(path, site.address, room=1 << 60)
        monkeypatch.setattr(module, "free_space", lambda *_: None)
        path.parent.mkdir(exist_ok=True)
        with (
            files_of_at_most(100_000),
            pytest.raises(CapscopeError, match=r"cannot write .*file\.zip"),
        ):
            fetch(path, site.address)
    assert not path.exists()


def test_two_downloads_of_one_file_do_not_mix(path):
    path.parent.mkdir()
    with rest(path).open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(CapscopeError, match="another process"):
            fetch(path, "http://127.0.0.1:9/")


def test_an_unknown_checksum_is_named(path):
    with serving(CONTENT) as site, pytest.raises(CapscopeError, match=r"crc99:0.*no such"):
        fetch(path, site.address, checksum="crc99:0")


def test_the_space_of_a_folder_that_is_not_there_is_that_of_its_parent(path):
    free_space(path.parent, 0)
