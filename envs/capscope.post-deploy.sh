#!/bin/sh
# Runs in the new environment, in the folder of the workflow.
set -eu
pip install --require-hashes --requirement requirements.lock
pip install --no-deps --no-build-isolation --editable .
