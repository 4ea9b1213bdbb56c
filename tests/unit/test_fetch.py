"""Public files end unpacked in their places, whatever the network and the power do."""

import hashlib
import io
import zipfile

import pytest
import yaml
from click.testing import CliRunner
from coco_files import coco2017_settings, write_coco2017
from http_server import serving

from capscope.cli import capscope
from capscope.data import fetch as module
from capscope.data.annotations import open_dataset
from capscope.data.fetch import fetch_downloads
from capscope.data.prepare import prepare_dataset
from capscope.errors import CapscopeError
from capscope.params import load_params


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def content(tmp_path):
    """Return an archive that holds COCO 2017 in small."""
    source = tmp_path / "source"
    write_coco2017(source)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(source.rglob("*")):
            archive.write(path, path.relative_to(source))
    return buffer.getvalue()


def entry(folder, *addresses, content=None, **changes):
    checksum = None if content is None else f"md5:{hashlib.md5(content).hexdigest()}"
    return {
        "file": str(folder / "coco2017.zip"),
        "addresses": list(addresses),
        "checksum": checksum,
        "bytes": None,
        "unpack": str(folder),
        "members": None,
    } | changes


def fetch(folder, *downloads):
    return fetch_downloads(coco2017_settings(folder, downloads=downloads), pause=0.0, timeout=5.0)


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_from_a_server_that_drops_and_cuts_to_features(content, tmp_path):
    """The whole way of a data set: broken transfers, mirror, archive, annotations, grid."""
    folder = tmp_path / "coco"
    drops = [len(content) // 3, 0, 5_000]
    with (
        serving(content, drop=[100], ranges=False, length=False) as cut,
        serving(content, drop=drops, statuses=[503]) as site,
    ):
        one = entry(folder, cut.address, site.address, content=content)
        assert fetch(folder, one) == [folder / "coco2017.zip"]
        asked = len(site.asked) + len(cut.asked)
        assert fetch(folder, one) == []
        assert len(site.asked) + len(cut.asked) == asked, "nothing is fetched twice"
    assert names(folder) == names(tmp_path / "source") | {".coco2017.zip.unpacked"}
    settings = coco2017_settings(folder)
    prepare_dataset(tmp_path / "data", settings)
    dataset = open_dataset(tmp_path / "data", {"dataset": settings})
    assert len(dataset.split("train")) == 3


def test_without_a_network_the_error_says_what_to_put_where(tmp_path):
    folder = tmp_path / "coco"
    with pytest.raises(CapscopeError) as caught:
        fetch(folder, entry(folder, "http://127.0.0.1:9/coco2017.zip"))
    assert f"put it at {folder}/coco2017.zip" in str(caught.value)


def test_an_archive_that_was_put_there_is_checked_and_unpacked(content, tmp_path):
    folder = tmp_path / "coco"
    folder.mkdir()
    (folder / "coco2017.zip").write_bytes(content)
    fetch(folder, entry(folder, "http://127.0.0.1:9/x", content=content))
    assert "annotations/captions_val2017.json" in names(folder)
    assert not (folder / "coco2017.zip").exists()
    (folder / "coco2017.zip").write_bytes(content + b"x")
    (folder / "val2017" / "000000000003.jpg").unlink()
    with pytest.raises(CapscopeError, match="not the file that is expected"):
        fetch(folder, entry(folder, "http://127.0.0.1:9/x", content=content))


def test_what_was_removed_after_unpacking_is_fetched_again(content, tmp_path):
    folder = tmp_path / "coco"
    with serving(content) as site:
        fetch(folder, entry(folder, site.address))
        (folder / "val2017" / "000000000003.jpg").unlink()
        assert fetch(folder, entry(folder, site.address))
    assert (folder / "val2017" / "000000000003.jpg").exists()


def test_an_interrupted_unpacking_goes_on(content, tmp_path, monkeypatch):
    folder = tmp_path / "coco"

    def stop(archive, target, members):
        unpack(archive, target, ["annotations/captions_val2017.json"])
        raise KeyboardInterrupt

    unpack = module.unpack_zip
    monkeypatch.setattr(module, "unpack_zip", stop)
    with serving(content) as site:
        with pytest.raises(KeyboardInterrupt):
            fetch(folder, entry(folder, site.address))
        monkeypatch.setattr(module, "unpack_zip", unpack)
        before = (folder / "annotations" / "captions_val2017.json").stat().st_mtime_ns
        assert fetch(folder, entry(folder, site.address))
        assert site.asked == [""], "the archive was there already"
    assert (folder / "annotations" / "captions_val2017.json").stat().st_mtime_ns == before


def test_some_members_of_an_archive_are_taken(content, tmp_path):
    folder = tmp_path / "coco"
    wanted = ["annotations/captions_val2017.json"]
    with serving(content) as site:
        fetch(folder, entry(folder, site.address, members=wanted))
    assert names(folder) == {*wanted, ".coco2017.zip.unpacked"}


def test_a_file_that_is_no_archive_is_kept_as_it_is(tmp_path):
    one = entry(tmp_path, "", unpack=None, file=str(tmp_path / "a.json"))
    with serving(b"{}") as site:
        one["addresses"] = [site.address]
        assert fetch(tmp_path, one)
        assert fetch(tmp_path, one) == []
    assert (tmp_path / "a.json").read_bytes() == b"{}"


def test_a_page_in_place_of_an_archive_is_removed_and_named(tmp_path):
    wanted = r"is damaged, or no zip archive.*removed"
    with serving(b"<html>log in</html>") as site, pytest.raises(CapscopeError, match=wanted):
        fetch(tmp_path, entry(tmp_path, site.address))
    assert not (tmp_path / "coco2017.zip").exists()


def test_a_disk_that_is_too_small_is_noticed_before_the_transfer(content, tmp_path):
    with serving(content) as site, pytest.raises(CapscopeError, match=r"GB are needed"):
        fetch(tmp_path, entry(tmp_path, site.address, bytes=10**15))
    assert site.asked == []


def test_a_data_set_without_public_files_says_so(tmp_path):
    with pytest.raises(CapscopeError, match="nothing to download"):
        fetch(tmp_path)


def test_the_command_fetches_and_says_what(content, tmp_path):
    folder = tmp_path / "coco"
    with serving(content) as site:
        settings = coco2017_settings(folder, downloads=[entry(folder, site.address)])
        overlay = tmp_path / "coco2017.yaml"
        overlay.write_text(yaml.safe_dump({"dataset": settings}))
        arguments = ["data", "--params", "params.yaml", "--params", str(overlay), "--download"]
        for told in ("fetched:", "everything is there already"):
            found = CliRunner().invoke(capscope, arguments)
            assert found.exit_code == 0, found.output
            assert told in found.output


@pytest.mark.parametrize("name", ["flickr30k", "coco2014", "coco2017", "coco_pt"])
def test_the_overlays_name_whole_entries_below_one_root(name, monkeypatch):
    monkeypatch.setenv("CAPSCOPE_DATA", "/data")
    from pathlib import Path

    from capscope.params import expand_path

    root = Path(__file__).parents[2]
    params = load_params([root / "params.yaml", root / "config" / f"{name}.yaml"])
    entries = params["dataset"]["downloads"]
    assert entries
    for one in entries:
        file = expand_path(one["file"])
        assert file.is_relative_to("/data")
        if one["unpack"]:
            assert expand_path(one["unpack"]).is_relative_to("/data")
            assert all(address.endswith(".zip") for address in one["addresses"])
        else:
            assert all(address.endswith(file.name) for address in one["addresses"])
