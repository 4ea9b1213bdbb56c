#!/bin/sh
# Runs in the new environment, in the folder of the workflow.
set -eu
pip install --require-hashes --requirement requirements.lock
pip install --no-deps --no-build-isolation --editable .
pip install --no-deps \
    fvcore==0.1.5.post20221221 iopath==0.1.9 yacs==0.1.8 termcolor==3.3.0 \
    cloudpickle==3.1.2 portalocker==4.4.2
# Its C++ is compiled against the installed torch; setup.py imports it, hence no isolation.
pip install --no-deps --no-build-isolation \
    "git+https://github.com/facebookresearch/detectron2@02b5c4e295e990042a714712c21dc79b731e8833"
