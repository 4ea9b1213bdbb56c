"""One thread per test process: many small operations, often several processes on few cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Let processes that run side by side start the files that take minutes, so that no such file
    is alone at the end; one process alone runs them last, as `testpaths` has it."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: "integration" not in item.path.parts)
