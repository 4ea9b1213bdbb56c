"""Shards joined are the store of one job; unfinished work is gone on with, after a check."""

import json

import numpy as np
import pytest
import yaml
from bad_images import picture
from click.testing import CliRunner
from extraction_data import extraction_data

from capscope.cli import capscope
from capscope.errors import CapscopeError
from capscope.features import resume
from capscope.features.extract import left, prepare_features
from capscope.features.fields import Field, create_fields, map_fields
from capscope.features.job import gather_features
from capscope.features.resume import resume_fields
from capscope.features.store import FeatureStore
from capscope.files import read_json, sha256_of
from capscope.params import in_order
from capscope.shards import Shard

COUNT, BATCH = 23, 4


@pytest.fixture
def params(tmp_path):
    return extraction_data(tmp_path, COUNT, BATCH)


def make(folder, params, out="features", shard=None):
    arguments = [folder / "data", params, folder / "backbone"]
    prepare_features(folder / out, *arguments, None if shard is None else Shard.parse(shard))


def gather(folder, params, count, out="features"):
    trained = {"backbone": folder / "backbone"}
    gather_features(folder / out, folder / "data", params, "grid", trained, count)


def hashes(folder):
    return {
        str(path.relative_to(folder)): sha256_of(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_shards_joined_are_one_jobs_store_to_the_byte(tmp_path, params, count, policy):
    if policy == "skip":
        params["dataset"]["on_unreadable"] = "skip"
        for name in ("0.png", "13.png", "22.png"):
            (tmp_path / "images" / name).unlink()
    make(tmp_path, params, "whole")
    for number in reversed(range(1, count + 1)):
        make(tmp_path, params, shard=f"{number}/{count}")
    gather(tmp_path, params, count)
    assert hashes(tmp_path / "features") == hashes(tmp_path / "whole")
    assert len(FeatureStore.open(tmp_path / "features")) == COUNT - 3 * (policy == "skip")


def test_regions_are_joined_too(tmp_path):
    fields = {"regions": Field((2, 3), "float16"), "counts": Field((), "int32")}
    generator = np.random.default_rng(0)
    rows = {
        "regions": generator.normal(size=(300, 2, 3)).astype("float16"),
        "counts": generator.integers(0, 9, 300).astype("int32"),
    }
    for name, writer_of in (
        ("whole", create_fields),
        ("resumed", lambda *arguments: resume_fields(*arguments, identity="x")),
    ):
        with writer_of(tmp_path / name, range(300), fields, {"a": 1}) as writer:
            for start in range(0, 300, 100):
                writer.append({key: value[start : start + 100] for key, value in rows.items()})
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "resumed").read_bytes()


def test_a_complete_shard_is_kept_and_one_of_other_parameters_made_again(tmp_path, params):
    place = tmp_path / "features" / "shards" / "1-of-2"
    make(tmp_path, params, shard="1/2")
    before = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    make(tmp_path, params, shard="1-of-2")
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == before
    params["features"]["grid"]["dtype"] = "float16"
    make(tmp_path, params, shard="1/2")
    assert (place / "features.h5").stat().st_mtime_ns != before[place / "features.h5"]


def test_what_is_gathered_must_be_there_whole_and_of_one_kind(tmp_path, params):
    make(tmp_path, params, shard="1/2")
    with pytest.raises(CapscopeError, match=r"2-of-2 .* not finished.*--shard 2/2"):
        gather(tmp_path, params, 2)
    make(tmp_path, params | {"features": with_dtype(params, "float16")}, shard="2/2")
    with pytest.raises(CapscopeError, match="2-of-2 was made with other params"):
        gather(tmp_path, params, 2)
    make(tmp_path, params, shard="2/2")
    params["features"]["grid"]["scale"] = 2.0
    with pytest.raises(CapscopeError, match="made with other parameters"):
        gather(tmp_path, params, 2)
    params["features"]["grid"]["scale"] = "rms"
    store = tmp_path / "features" / "shards" / "2-of-2" / "features.h5"
    data = bytearray(store.read_bytes())
    data[-5] ^= 1
    store.write_bytes(data)
    with pytest.raises(CapscopeError, match="differs from its hash"):
        gather(tmp_path, params, 2)
    assert not (tmp_path / "features" / "manifest.json").exists()


def with_dtype(params, dtype):
    return json.loads(json.dumps(params["features"]).replace('"float32"', f'"{dtype}"', 1))


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2", ""])
def test_a_wrong_shard_is_named(text):
    with pytest.raises(CapscopeError, match="expected such as 2/8"):
        Shard.parse(text)


def test_more_shards_than_batches_are_refused(tmp_path, params):
    with pytest.raises(CapscopeError, match="7 shards, but the images fill 6 batches"):
        make(tmp_path, params, shard="1/7")


def test_shards_share_everything_between_them():
    items = list(range(17))
    for count in range(1, 18):
        parts = [Shard(number, count).part(items) for number in range(1, count + 1)]
        assert [item for part in parts for item in part] == items
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_is_left_of_chunks_begins_where_the_work_stopped():
    chunks = ["abc", "", "de", "f"]
    for done in range(7):
        assert "".join(left(chunks, done)) == "abcdef"[done:]
    assert list(left(chunks, 1)) == ["bc", "de", "f"]


class StopError(Exception):
    pass


def interrupted(path, rows, stop, identity="x"):
    """Write rows ten at a time until `stop`; return how many were there at the start."""
    fields = {"grid": Field((5,), "float32")}
    with resume_fields(path, range(len(rows)), fields, {"a": 1}, identity) as writer:
        begun = writer.done
        for start in range(begun, len(rows), 10):
            if start >= stop:
                raise StopError
            writer.append({"grid": rows[start : start + 10]})
    return begun


@pytest.fixture
def rows():
    return np.random.default_rng(1).normal(size=(95, 5)).astype("float32")


def test_unfinished_rows_are_gone_on_with(tmp_path, rows):
    path, whole = tmp_path / "some" / "features.h5", tmp_path / "whole.h5"
    interrupted(whole, rows, 99)
    with pytest.raises(StopError):
        interrupted(path, rows, 40)
    with pytest.raises(StopError):
        interrupted(path, rows, 70)
    assert interrupted(path, rows, 99) == 70
    assert path.read_bytes() == whole.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == ["features.h5"]


@pytest.mark.parametrize(
    "harm", ["identity", "row", "header", "cut", "empty", "journal", "no journal"]
)
def test_unfinished_rows_that_are_not_what_they_were_are_made_again(tmp_path, rows, harm):
    path, whole = tmp_path / "some" / "features.h5", tmp_path / "whole.h5"
    interrupted(whole, rows, 99)
    with pytest.raises(StopError):
        interrupted(path, rows, 40)
    part = path.with_name(".features.h5.unfinished")
    journal = path.with_name(".features.h5.journal")
    data = bytearray(part.read_bytes())
    if harm == "row":
        data[data.index(rows[3].tobytes())] ^= 1
        part.write_bytes(data)
    elif harm == "header":
        part.write_bytes(bytes(9) + data[9:])
    elif harm == "cut":
        part.write_bytes(data[:500])
    elif harm == "empty":
        part.write_bytes(b"")
    elif harm == "journal":
        journal.write_text("{")
    elif harm == "no journal":
        journal.unlink()
    assert interrupted(path, rows, 99, identity="y" if harm == "identity" else "x") == 0
    assert path.read_bytes() == whole.read_bytes()


def test_two_processes_do_not_write_one_store(tmp_path, rows):
    fields = {"grid": Field((5,), "float32")}
    arguments = [tmp_path / "features.h5", range(95), fields, {}, "x"]
    with resume_fields(*arguments) as writer:
        other = resume_fields(*arguments)
        with pytest.raises(CapscopeError, match="is being written by another run"):
            other.__enter__()
        writer.append({"grid": rows})
    assert len(map_fields(tmp_path / "features.h5")[0]) == 95


def test_the_journal_is_written_now_and_then(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(resume, "JOURNAL_SECONDS", 0.0)
    path = tmp_path / "features.h5"
    with resume_fields(path, range(95), {"grid": Field((5,), "float32")}, {}, "x") as writer:
        writer.append({"grid": rows[:10]})
        assert read_json(tmp_path / ".features.h5.journal")["done"] == 10
        writer.append({"grid": rows[10:]})


def test_the_command_makes_shards_and_joins_them(tmp_path, params):
    params = in_order(params)
    make(tmp_path, params, "whole")
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(params, sort_keys=False))
    places = [f"--{name}={tmp_path / name}" for name in ("data", "backbone")]
    arguments = ["features", f"--params={file}", *places, f"--out={tmp_path / 'features'}"]
    for more in (["--shard=1-of-2"], ["--shard=2/2"], ["--gather=2"]):
        found = CliRunner().invoke(capscope, [*arguments, *more])
        assert found.exit_code == 0, found.output
    assert hashes(tmp_path / "features") == hashes(tmp_path / "whole")
    assert CliRunner().invoke(capscope, [*arguments, "--gather=2", "--shard=1/2"]).exit_code == 2


def test_other_pictures_are_not_mixed_into_unfinished_work(tmp_path, params):
    good = (tmp_path / "images" / "20.png").read_bytes()
    (tmp_path / "images" / "20.png").write_bytes(b"")
    with pytest.raises(CapscopeError, match=r"20\.png"):
        make(tmp_path, params)
    (tmp_path / "images" / "20.png").write_bytes(good)
    picture(90, 90).save(tmp_path / "images" / "0.png")
    from capscope.data.prepare import prepare_dataset

    prepare_dataset(tmp_path / "data", params["dataset"])
    make(tmp_path, params)
    make(tmp_path, params, "whole")
    assert hashes(tmp_path / "features") == hashes(tmp_path / "whole")


def test_shards_of_an_earlier_number_are_removed_with_the_others(tmp_path, params):
    make(tmp_path, params, shard="1/3")
    for number in (1, 2):
        make(tmp_path, params, shard=f"{number}/2")
    gather(tmp_path, params, 2)
    assert not (tmp_path / "features" / "shards").exists()


def test_a_single_job_removes_the_shards_of_others(tmp_path, params):
    make(tmp_path, params, "whole")
    make(tmp_path, params, shard="1/3")
    make(tmp_path, params)
    assert hashes(tmp_path / "features") == hashes(tmp_path / "whole")


def test_a_shard_is_named_as_snakemake_names_it():
    assert str(Shard(2, 8)) == "2-of-8"
    assert Shard.parse("2-of-8") == Shard.parse("2/8") == Shard(2, 8)
