"""Files are whole or absent, and a manifest tells what belongs to a product."""

import errno
import hashlib
import json
import threading
import time

import pytest

from capscope import files
from capscope.errors import CapscopeError
from capscope.files import (
    MANIFEST,
    atomic_path,
    check_file,
    digest,
    discard,
    manifest_of,
    part_of,
    read_json,
    read_manifest,
    seal_file,
    sha256_of,
    write_json,
    write_manifest,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_finished(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("new")
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_or_closed_disk_is_an_error_that_names_the_file(tmp_path, code):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("ne")
            raise OSError(code, "no")

    with pytest.raises(CapscopeError, match=r"cannot write .*a\.txt"):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_other_failures_of_the_system_keep_their_traceback(tmp_path):
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "a.txt"):
        raise IsADirectoryError


def test_json_round_trips_and_refuses_nan(tmp_path):
    value = {"b": [1, 2.5, None], "a": "grüße \u2028"}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1} x'])
def test_broken_json_is_an_error_that_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CapscopeError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_missing_json_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(CapscopeError, match=r"a\.json does not exist"):
        read_json(tmp_path / "a.json")


def test_hashes_agree_with_hashlib(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_the_digest_of_a_value_ignores_the_order_of_its_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])


@pytest.fixture
def product(tmp_path):
    folder = tmp_path / "product"
    for name in ("sub", "sub/deep", "state"):
        (folder / name).mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"12345")
    (folder / "sub" / "b.bin").write_bytes(b"678")
    (folder / "sub" / "deep" / "c.bin").write_bytes(b"90")
    (folder / "state" / "c.bin").write_bytes(b"in progress")
    (folder / ".a.bin.x.part").write_bytes(b"left over")
    write_text(tmp_path / "input.json", "{}")
    write_manifest(
        folder,
        "toy",
        params={"x": 1},
        inputs={"data": tmp_path / "input.json"},
        folders=["sub"],
        images=2,
    )
    return folder


def test_a_manifest_lists_the_finished_files_and_what_made_them(product):
    manifest = read_manifest(product, "toy", check_hashes=True)
    assert set(manifest["files"]) == {"a.bin", "sub"}
    assert manifest["files"]["a.bin"] == {
        "bytes": 5,
        "sha256": hashlib.sha256(b"12345").hexdigest(),
    }
    assert manifest["files"]["sub"]["files"] == 2
    assert manifest["files"]["sub"]["bytes"] == 5
    assert manifest["images"] == 2
    assert manifest["params_sha256"] == digest({"x": 1})
    assert manifest["inputs"]["data"] == hashlib.sha256(b"{}").hexdigest()
    assert manifest["software"]["capscope"]


def test_writing_a_manifest_again_gives_the_same_bytes(product):
    before = (product / MANIFEST).read_bytes()
    manifest = json.loads(before)
    write_manifest(
        product,
        "toy",
        params={"x": 1},
        inputs={"data": product.parent / "input.json"},
        folders=["sub"],
        images=manifest["images"],
    )
    assert (product / MANIFEST).read_bytes() == before


def test_an_unfinished_folder_is_refused(tmp_path):
    with pytest.raises(CapscopeError, match=r"is not a finished toy folder"):
        read_manifest(tmp_path, "toy")


def test_a_folder_of_another_kind_is_refused(product):
    with pytest.raises(CapscopeError, match="holds 'toy', expected 'run'"):
        read_manifest(product, "run")


def test_a_missing_file_is_found(product):
    (product / "a.bin").unlink()
    with pytest.raises(CapscopeError, match=r"a\.bin is listed in .* but missing"):
        read_manifest(product, "toy")


def test_a_truncated_file_is_found(product):
    (product / "a.bin").write_bytes(b"1234")
    with pytest.raises(CapscopeError, match=r"a\.bin has 4 bytes, .* says 5 bytes"):
        read_manifest(product, "toy")


def test_a_file_missing_in_a_folder_is_found(product):
    (product / "sub" / "deep" / "c.bin").unlink()
    with pytest.raises(CapscopeError, match=r"sub has 3 bytes of 1 files, .* 5 bytes of 2 files"):
        read_manifest(product, "toy")


def test_a_renamed_file_in_a_folder_is_found(product):
    (product / "sub" / "b.bin").rename(product / "sub" / "d.bin")
    with pytest.raises(CapscopeError, match=r"sub differs from its hash"):
        read_manifest(product, "toy")


def test_a_flipped_byte_is_found(product):
    (product / "a.bin").write_bytes(b"12346")
    with pytest.raises(CapscopeError, match=r"a\.bin differs from its hash"):
        read_manifest(product, "toy")


def test_a_large_file_is_compared_with_its_hash_when_it_was_written_anew(
    product, monkeypatch, tmp_path
):
    monkeypatch.setattr(files, "BULK", 4)
    monkeypatch.setenv("CAPSCOPE_CACHE", str(tmp_path / "cache"))
    hashed = []
    original = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: hashed.append(path) or original(path))
    for _ in range(2):
        read_manifest(product, "toy")
    assert len(hashed) == 3  # a.bin, and two files of the folder sub
    (product / "a.bin").write_bytes(b"12346")
    with pytest.raises(CapscopeError, match=r"a\.bin differs from its hash"):
        read_manifest(product, "toy")
    (product / "a.bin").write_bytes(b"12345")
    hashed.clear()
    read_manifest(product, "toy")
    assert hashed == [product / "a.bin"]
    read_manifest(product, "toy", check_hashes=True)
    assert len(hashed) == 4


@pytest.mark.parametrize("key", ["params", "images", "software", "files"])
def test_a_manifest_that_was_changed_is_found(product, key):
    manifest = read_json(product / MANIFEST)
    write_json(product / MANIFEST, {**manifest, key: {"a": 1}})
    with pytest.raises(CapscopeError, match="differs from its own hash"):
        read_manifest(product, "toy")


@pytest.mark.parametrize(
    "content", ["[]", "1", "{}", '{"kind": "toy"}', '{"kind": "toy", "files": 1}']
)
def test_what_is_no_manifest_is_found(product, content):
    (product / MANIFEST).write_text(content)
    with pytest.raises(CapscopeError, match="manifest"):
        read_manifest(product, "toy")


def test_a_product_that_is_a_single_file_has_its_manifest_beside_it(tmp_path):
    path = tmp_path / "scores.csv"
    write_text(path, "a,b\n1,2\n")
    seal_file(path, "table", params={"x": 1}, split="test")
    assert manifest_of(path).name == "scores.csv.manifest"
    assert read_json(manifest_of(path))["split"] == "test"
    check_file(path, "table")
    write_text(path, "a,b\n1,3\n")
    with pytest.raises(CapscopeError, match=r"scores\.csv differs from its hash"):
        check_file(path, "table")
    manifest_of(path).unlink()
    check_file(path, "table")  # a table of somebody else


def test_what_a_killed_process_left_half_written_is_written_over(tmp_path):
    part_of(tmp_path / "a.txt").write_text("longer than what comes")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_is_discarded_with_what_was_half_written_of_it_and_nothing_else(tmp_path):
    for name in ("a.txt", ".a.txt.part", ".b.txt.part", "kept.part"):
        (tmp_path / name).touch()
    discard(tmp_path / "a.txt")
    assert names(tmp_path) == [".b.txt.part", "kept.part"]


def test_two_writers_of_a_file_wait_for_each_other(tmp_path):
    path, order = tmp_path / "a.txt", []

    def write(text):
        with atomic_path(path) as temporary:
            order.append(text)
            temporary.write_text(text)
            started.set()
            time.sleep(0.05)
            assert temporary.read_text() == text
            order.append(text)

    started = threading.Event()
    first = threading.Thread(target=write, args=("first",))
    first.start()
    started.wait()
    write("second")
    first.join()
    assert order == ["first", "first", "second", "second"]
    assert path.read_text() == "second"
    assert names(tmp_path) == ["a.txt"]


def test_what_snakemake_leaves_in_a_folder_is_no_part_of_it(tmp_path):
    folder = tmp_path / "report"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "a.csv").write_text("a\n")
    write_manifest(folder, "report", params={}, inputs={}, folders=["tables"])
    (folder / "tables" / ".snakemake_timestamp").touch()
    read_manifest(folder, "report")
    (folder / "tables" / "b.csv").touch()
    with pytest.raises(CapscopeError, match="2 files"):
        read_manifest(folder, "report")
