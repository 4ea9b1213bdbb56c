"""What the rules share: names derived from the parameters, the lock, and the jobs' environment."""

import atexit
import shlex
import sys
from pathlib import Path

from capscope.benchmarks import BENCHMARKS
from capscope.data.sources import annotation_files, missing_files
from capscope.errors import CapscopeError
from capscope.files import read_json, write_json
from capscope.lifeline import WORKFLOW
from capscope.lock import one_writer
from capscope.metrics.spice_models import models_folder
from capscope.params import (
    expand_path,
    explained_splits,
    explanations_of,
    in_order,
    run_systems,
    validate,
)

try:
    validate(config)
except CapscopeError as error:
    raise WorkflowError(str(error)) from None

config = in_order(config)

DATASET = config["dataset"]["name"]
READER = config["dataset"]["reader"]
SPLITS = config["dataset"]["evaluate"]
GRID = config["features"]["grid"]
SYSTEMS = run_systems(config)
RUNS = [
    f"results/{DATASET}/runs/{system}/{stage}/seed{seed}"
    for system, settings in SYSTEMS.items()
    for stage in settings["stages"]
    for seed in config["seeds"]
]

DATA_SETTINGS = {
    "reader": READER,
    "source": config["dataset"][READER],
    "on_unreadable": config["dataset"]["on_unreadable"],
}
# Files from outside that a change of must be noticed; downloads and drawn scenes have none.
try:
    SOURCES = [str(path) for path in annotation_files(config["dataset"]).values()]
except CapscopeError as error:
    raise WorkflowError(str(error)) from None
TRAINED = GRID["weights"] == "trained"
WEIGHTS = [] if GRID["weights"] in ("trained", "download") else [str(expand_path(GRID["weights"]))]
REGIONS = config["features"]["regions"]
DETECTED = REGIONS["weights"] == "trained"
WITH_DETECTRON2 = (
    REGIONS["network"] == "bottom_up" and REGIONS["bottom_up"]["backend"] == "detectron2"
)
DETECTOR_WEIGHTS = (
    [] if REGIONS["weights"] in ("trained", "download") else [str(expand_path(REGIONS["weights"]))]
)

# What makes each kind of features: files, options of `capscope features`, parameters.
BACKBONE, DETECTOR = f"results/{DATASET}/backbone", f"results/{DATASET}/features/detector"
NETWORKS = {
    "grid": [f"{BACKBONE}/manifest.json"] if TRAINED else WEIGHTS,
    "regions": [f"{DETECTOR}/manifest.json"] if DETECTED else DETECTOR_WEIGHTS,
}
NETWORK_OPTIONS = {
    "grid": f"--backbone {BACKBONE}" if TRAINED else "",
    "regions": f"--detector {DETECTOR}" if DETECTED else "",
}
EXTRACTION = {
    kind: [config["features"][kind], config["dataset"]["on_unreadable"], NETWORKS[kind]]
    for kind in ("grid", "regions")
}

# Features of others take the place of extracted ones.
IMPORTED = {kind: sources for kind, sources in config["features"]["imported"].items() if sources}
for kind, sources in IMPORTED.items():
    files = [str(expand_path(source["path"])) for source in sources]
    NETWORKS[kind] = files
    NETWORK_OPTIONS[kind] = " ".join(
        f"--import {source['format']} {shlex.quote(file)}"
        for source, file in zip(sources, files, strict=True)
    )
    EXTRACTION[kind] = [sources, config["dataset"]["on_unreadable"], files]


# Into how many jobs a step is divided, as by `--set-scatter decode=8`, or `set-scatter` in a profile.
scattergather:
    extract=1,
    decode=1,
    relevance=1,
    measure=1,


# Masks tell where an object is; only drawn scenes can be drawn again without it.
MASKED = READER == "scenes" or config["dataset"][READER].get("instances") is not None
HAS = {"captions": True, "boxes": MASKED, "scenes": READER == "scenes"}
MEASURES = [
    measure for measure in config["benchmarks"]["measures"] if HAS[BENCHMARKS[measure].needs]
]
# A scene that is drawn again needs the network that the features came from.
REDRAWN = config["benchmarks"]["removal_images"] and not IMPORTED
MEASURES = [measure for measure in MEASURES if measure != "removal" or REDRAWN]

DATA = [f"results/{DATASET}/data/manifest.json"]
KINDS = sorted({settings["features"] for settings in SYSTEMS.values()})
FEATURES = [f"results/{DATASET}/features/{kind}/manifest.json" for kind in KINDS]
VOCABULARIES = [f"results/{DATASET}/vocabulary/{system}/manifest.json" for system in SYSTEMS]
MODELS = [f"{run}/manifest.json" for run in RUNS]
CAPTIONS = [f"{run}/decoded/{split}.json" for run in RUNS for split in SPLITS]
SCORES = [f"results/{DATASET}/scores/captions.csv"]
COMPARED = ["comparison"] if len(RUNS) > 1 else []  # a page of two or more runs
SCORES += [f"results/{DATASET}/scores/{page}.html" for page in COMPARED]
MEASURED = [f"{run}/benchmarks/{measure}.csv" for run in RUNS for measure in MEASURES]
if config["benchmarks"]["latent_objects"]["table"]:
    MEASURED += [f"{run}/relevance/objects.csv" for run in RUNS]
REPORT = [f"results/{DATASET}/report/{part}" for part in ("index.html", "tables", "figures")]
PUBLISHED = sorted(str(path) for path in Path("results/published").glob("*.csv"))

# Which measures there are is in the paths; the rest decides what they say.
MEASURING = {key: value for key, value in config["benchmarks"].items() if key != "measures"}

# Where answers are kept does not change them.
SCORING = {key: value for key, value in config["metrics"].items() if key != "cache"}

# Metrics that need a model are left out until it is there; SPICE's is fetched on request.
SPICE = config["metrics"]["spice_options"]
SPICE_MODELS = str(models_folder(SPICE) / "manifest.json")
LEARNED = [metric for metric in ("bertscore", "clipscore") if config["metrics"][metric]]
METRIC_MODELS = [SPICE_MODELS] if config["metrics"]["spice"] else []
METRIC_MODELS += [
    str(expand_path(config["metrics"][f"{metric}_options"]["model"]) / "config.json")
    for metric in LEARNED
]

# A file that CIDEr's document frequencies come from, if it is not the data set.
CORPUS = config["metrics"]["frequencies"]
FREQUENCIES = [] if CORPUS in ("references", "train") else [str(expand_path(CORPUS))]

# A training by several processes is started by torchrun.
PROCESSES = config["training"]["processes"]
TORCHRUN = f"torchrun --standalone --nproc-per-node {PROCESSES} --no-python"
LAUNCHER = TORCHRUN if PROCESSES > 1 else ""

# What much waits for goes first, so that cores do not stand idle at the end.
FEATURES_FIRST, TRAINING_FIRST = 20, 10

RESAMPLING = [config["benchmarks"]["bootstrap"], config["benchmarks"]["seed"]]

# Jobs find the capscope command beside the interpreter even where its environment is not
# activated. Progress bars are shown and logged once a second. By default glibc returns large blocks
# to the system at once; PyTorch asks for them again in the next step, and clearing the pages costs
# up to half of the time. Jobs end with the workflow ($PPID), even if that is killed.
shell.prefix(
    "set -euo pipefail; "
    f"export PATH=$PATH:{Path(sys.executable).parent} {WORKFLOW}=$PPID "
    "TQDM_MININTERVAL=1 MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=10000000000; "
)


def take_lock():
    """Hold a lock on the results of this data set until this process ends, however it ends.

    The profile switches Snakemake's own lock off: it outlives a killed process and then asks for
    `--unlock`.
    """
    lock = one_writer(Path(f"results/{DATASET}"))
    try:
        lock.__enter__()
    except CapscopeError as error:
        raise WorkflowError(f"another snakemake is at work: {error}") from None
    atexit.register(lock.__exit__, None, None, None)


def write_params():
    """Write the merged parameters for the jobs; an unchanged file is left alone."""
    path = Path(f"results/{DATASET}/params.json")
    if not path.exists() or read_json(path) != config:
        write_json(path, config)


def sources(wildcards):
    """Return the files that the data set is read from; say what to put where if one is missing."""
    missing = missing_files(config["dataset"])
    if missing:
        raise WorkflowError(missing)
    return SOURCES


def shards_of(step, product):
    """Return what the shards of a step leave for a product; a single job has none.

    They are no part of what makes the product, so the profiles leave changed sets of input files
    out of `rerun-triggers`: what a rule reads is in its parameters, too.
    """
    shards = getattr(gather, step)(f"{product}/{{scatteritem}}/manifest.json", allow_missing=True)
    return shards if len(shards) > 1 else []


def extracted_shards(kind):
    """Return what the shards of an extraction leave; imported features have none."""
    return (
        []
        if kind in IMPORTED
        else shards_of("extract", f"results/{{dataset}}/features/{kind}/shards")
    )


def gathering(wildcards, input):
    """Return the option that makes a command join shards, if there are any."""
    return f"--gather {len(input.shards)}" if input.shards else ""


def one_gpu(wildcards, input):
    """Return how many GPUs a job takes that one can speed up; joining shards takes none."""
    return 0 if input.shards else 1


def by_attempt(amount):
    """Return a resource of which each attempt asks for as much again; `retries` says how many."""
    return lambda wildcards, attempt: amount * attempt


def memory_to_train(wildcards, attempt):
    """Return megabytes: rewards hold the n-grams of all training references, 3.3 GB for COCO."""
    return attempt * (8000 if wildcards.stage.endswith("scst") else 4000)


def models_at_hand(wildcards):
    """Return a file of every model that a metric needs, as far as it is in a folder."""
    return [path for path in METRIC_MODELS if Path(path).exists()]


def features_of(wildcards):
    """Return the manifest of the visual features that a run reads.

    A stage that fine-tunes the image network makes others than the data set's, for itself and for
    the stages that start from it.
    """
    settings, stage = SYSTEMS[wildcards.system], wildcards.stage
    while settings[stage].get("encoder") != "fine_tuned":
        if "from" not in settings[stage]:
            return features_to_begin_with(wildcards)
        stage = settings[stage]["from"]
    run = f"results/{wildcards.dataset}/runs/{wildcards.system}/{stage}/seed{wildcards.seed}"
    return f"{run}/features/manifest.json"


def features_to_begin_with(wildcards):
    """Return the manifest of the data set's visual features, of the kind that a system reads."""
    kind = SYSTEMS[wildcards.system]["features"]
    return f"results/{wildcards.dataset}/features/{kind}/manifest.json"


def features_to_train(wildcards):
    """Return the manifest of the visual features that a stage is trained on."""
    if SYSTEMS[wildcards.system][wildcards.stage].get("encoder") == "fine_tuned":
        return features_to_begin_with(wildcards)
    return features_of(wildcards)


def relevance_of(wildcards):
    """Return the relevance of a run in all splits whose captions are explained."""
    run = f"results/{wildcards.dataset}/runs/{wildcards.system}/{wildcards.stage}/seed{wildcards.seed}"
    return [f"{run}/relevance/{split}.json" for split in splits_to_explain(wildcards)]


def splits_to_explain(wildcards):
    """Return the splits of a run whose captions are explained."""
    return explained_splits(config, f"{wildcards.system}/{wildcards.stage}")


def settings_to_explain(wildcards):
    """Return ``explanations`` as they are for a run."""
    return explanations_of(config, f"{wildcards.system}/{wildcards.stage}")


def start_of(wildcards):
    """Return the manifest of the run that a stage's first weights come from, if it has one."""
    settings = SYSTEMS[wildcards.system][wildcards.stage]
    folder = f"results/{wildcards.dataset}/runs/{wildcards.system}"
    if "from" not in settings:
        return []
    return f"{folder}/{settings['from']}/seed{wildcards.seed}/manifest.json"
