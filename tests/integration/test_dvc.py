"""DVC beside Snakemake: checkouts, changed parameters, experiments, remotes of two kinds."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
import yaml
from project import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def recorded(finished, tmp_path_factory):
    """A finished project whose results DVC and Git have recorded."""
    project = Project(tmp_path_factory.mktemp("recorded") / "project")
    shutil.copytree(finished.folder, project.folder)
    project.run("dvc", "repro")
    project.run("git", "add", ".")
    project.run("git", "commit", "--quiet", "--allow-empty", "--message", "results")
    return project


@pytest.fixture
def project(recorded, tmp_path):
    copy = Project(tmp_path / "project")
    shutil.copytree(recorded.folder, copy.folder)
    return copy


def change(project, **sections):
    """Lay values over params.yaml; return what it was."""
    path = project.folder / "params.yaml"
    before = path.read_text("utf-8")
    params = yaml.safe_load(before)
    for section, values in sections.items():
        params[section] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return before


def kept(project):
    """Return what DVC keeps of a project: no file that Snakemake makes before jobs."""
    of_snakemake = ("params.json", ".snakemake_timestamp")
    found = project.outputs()
    return {name: found[name] for name in found if not name.endswith(of_snakemake)}


def started(output):
    """Return the rules that ran, by the output of Snakemake."""
    return set(re.findall(r"^(?:local)?rule (\w+):", output, re.M)) - {"all"}


def test_nothing_is_left_to_do_after_a_checkout(project, recorded):
    shutil.rmtree(project.folder / "results" / "smoke")
    project.run("dvc", "checkout")
    assert project.planned() == {}
    assert "Data and pipelines are up to date" in project.run("dvc", "repro").stdout
    assert project.outputs() == kept(recorded)

    profile = project.folder / "profiles" / "default" / "config.yaml"
    divided = "set-scatter: [extract=2, decode=3, relevance=3, measure=3]\n"
    profile.write_text(profile.read_text("utf-8") + divided)
    project.snakemake("--touch", "all")  # times of a checkout say nothing of what was made first
    assert project.planned() == {}, "how many jobs make a result is no part of it"
    assert "Nothing to be done" in project.run("snakemake", "all").stdout


def test_a_damaged_file_in_what_dvc_keeps_is_found(project):
    model = project.folder / "results/smoke/runs/gridtd/xe/seed1/model.safetensors"
    content = model.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    kept = project.folder / ".dvc/cache/files/md5" / found[:2] / found[2:]
    kept.chmod(0o644)
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shutil.rmtree(project.folder / "results" / "smoke")
    checked_out = project.run("dvc", "checkout", check=False)
    verified = project.run("capscope", "verify", "results/smoke", check=False)
    assert checked_out.returncode or "seed1/manifest.json && snakemake all" in verified.stdout
    assert not model.exists() or verified.returncode == 1


def test_a_parameter_changed_and_changed_back_runs_what_it_concerns_each_time(project, recorded):
    concerned = {"write_report"}
    before = change(project, report={"images": 1})
    assert started(project.snakemake("all").stdout) == concerned
    assert project.outputs() != recorded.outputs()
    assert started(project.run("dvc", "repro").stdout) == set()
    assert project.planned() == {}

    (project.folder / "params.yaml").write_text(before)
    assert started(project.run("dvc", "repro").stdout) == concerned
    assert project.planned() == {}
    assert project.outputs() == recorded.outputs()
    assert "Data and pipelines are up to date" in project.run("dvc", "repro").stdout


def test_an_experiment_runs_what_it_concerns_and_is_compared(project):
    done = project.run("dvc", "exp", "run", "--set-param", "decoding.max_length=4")
    ran = started(done.stdout)
    assert {"decode", "evaluate", "relevance", "measure", "write_report"} <= ran
    assert not ran & {"prepare_data", "build_vocabulary", "extract_grid", "train_captioner"}
    assert project.planned() == {}, "Snakemake has nothing to add"

    difference = json.loads(project.run("dvc", "metrics", "diff", "--json").stdout)
    (changed,) = difference.values()
    assert any("gridtd.xe.seed1.test.BLEU-4" in key for key in changed), changed
    shown = project.run("dvc", "exp", "show", "--csv").stdout
    assert "decoding.max_length" in shown
    project.run("dvc", "plots", "diff", "HEAD")
    assert "BLEU-4" in (project.folder / "dvc_plots" / "index.html").read_text("utf-8")


def cloned(project, folder):
    clone = Project(folder)
    project.run("git", "clone", "--quiet", ".", str(clone.folder))
    return clone


def test_a_remote_that_speaks_s3_gives_a_clone_all_results(project, recorded, tmp_path):
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--port", str(port)],
        env={**os.environ, **KEYS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until_listening(port, server)
        _make_bucket(address, "capscope")
        project.environment |= KEYS
        project.run("dvc", "remote", "add", "--default", "store", "s3://capscope/results")
        project.run("dvc", "remote", "modify", "store", "endpointurl", address)
        project.run("dvc", "push")
        project.run("git", "commit", "--quiet", "--all", "--message", "remote")
        clone = cloned(project, tmp_path / "clone")
        clone.environment |= KEYS
        clone.run("dvc", "pull")
        assert clone.outputs() == kept(recorded)
        clone.snakemake("--touch", "all")
        assert clone.planned() == {}
    finally:
        server.terminate()
        server.wait(20)


def _until_listening(port, server):
    end = time.monotonic() + 60
    while True:
        assert server.poll() is None
        assert time.monotonic() < end
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


def _make_bucket(address, name):
    import boto3

    options = {"endpoint_url": address, "region_name": "us-east-1"}
    options |= {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    boto3.client("s3", **options).create_bucket(Bucket=name)
