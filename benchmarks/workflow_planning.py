"""How long Snakemake takes to plan a workflow of thousands of jobs (CPU time, one thread).

    python benchmarks/workflow_planning.py [JOBS]

Plans the demo with as many seeds as make JOBS (2,000) jobs, of which none has run.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = Path(sys.executable).with_name("snakemake")


def planned(seeds):
    """Return jobs, CPU seconds and seconds of one dry run."""
    overlay = {"dataset": {"name": "planning"}, "seeds": list(range(1, seeds + 1))}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(overlay, file)
        file.flush()
        command = [SNAKEMAKE, "--dry-run", "--quiet", "rules", "--configfile", file.name, "--"]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [*command, "all"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    jobs = next(int(line.split()[1]) for line in done.stdout.splitlines() if "total" in line)
    return jobs, cpu, seconds


def main():
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    two, three = planned(2)[0], planned(3)[0]
    print(f"{'jobs':>6} {'CPU s':>7} {'s':>7}")
    for jobs in (wanted // 10, wanted):
        found, cpu, seconds = planned(max(2, round((jobs - two) / (three - two)) + 2))
        print(f"{found:>6} {cpu:7.1f} {seconds:7.1f}")


if __name__ == "__main__":
    main()
