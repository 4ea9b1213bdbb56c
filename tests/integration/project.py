"""A workflow of its own for the tests: a copy of the rules, with the smoke parameters."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from capscope.params import merge

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = (
    "Snakefile",
    "workflow",
    "profiles",
    "config",
    "envs",
    "dvc.yaml",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "requirements.lock",
    "results/published",
)


class Project:
    """A folder with the workflow in it; commands run there in this environment."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
        }

    def run(self, *command, check=True):
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done

    def snakemake(self, *arguments, check=True):
        return self.run("snakemake", "--cores", "2", *arguments, check=check)

    def planned(self, overlay=None, *arguments):
        """Names and counts of the jobs that Snakemake would run, by an overlay if there is one."""
        arguments = ["--dry-run", *arguments]
        if overlay is not None:
            (self.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
            arguments += ["--configfile", "overlay.yaml"]
        text = self.snakemake(*arguments, "--", "all").stdout
        return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", text, re.M)}

    def outputs(self):
        """Bytes of all finished results: everything but logs and training in progress."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted((self.folder / "results").rglob("*"))
            if path.is_file() and not {"logs", "state", "tensorboard"} & set(path.parts)
        }

    def writing_times(self):
        return {
            path.relative_to(self.folder).as_posix(): path.stat().st_mtime_ns
            for path in (self.folder / "results").rglob("*")
            if path.is_file()
        }


ONE_RUN = {
    "run_systems": ["gridtd"],
    "systems": {
        "gridtd": {"stages": ["xe"], "xe": {"epoch_steps": 12, "checkpoint_seconds": 0.001}}
    },
    "decoding": {"batch_size": 2},
    "explanations": {
        "splits": None,
        "images": 2,
        "batch_size": 1,
        "explainers": ["lrp", "attention", "attention_lrp", "gradcam", "gradient_x_input"],
        "controls": ["feature_norm", "random_decoder", "initial_decoder"],
    },
}
"""What is enough to test orchestration.

It has batches to deal out to several jobs, and a training with a state after each of its steps.
"""


def make_project(folder):
    """Copy the workflow to `folder`, with one run of the smoke overlay in params.yaml."""
    folder.mkdir()
    for name in WORKFLOW:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)
    params, smoke = (
        yaml.safe_load((ROOT / name).read_text("utf-8"))
        for name in ("params.yaml", "config/smoke.yaml")
    )
    few = merge(merge(params, smoke), ONE_RUN)
    (folder / "params.yaml").write_text(yaml.safe_dump(few, sort_keys=False))
    project = Project(folder)
    project.run("git", "init", "--quiet")
    project.run("git", "add", ".")
    project.run("git", "commit", "--quiet", "--message", "workflow")
    return project
