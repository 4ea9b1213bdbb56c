"""``capscope latent``: the command line of the published latent-space program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capscope.cli.options import FILE, FOLDER, params_options

if TYPE_CHECKING:
    from capscope.benchmarks.latent_published import AblationType

MODELS = ("lrp", "lime1", "lime2", "lime3", "lime4", "lime5", "lime_5obj", "lime_8obj", "random")


@click.command()
@params_options
@click.option(
    "-d", "--dataset", default="coco2017", show_default=True, help="Names the folders, too."
)
@click.option(
    "--mode",
    type=click.Choice(["none", "prepar", "expl", "eval"]),
    required=True,
    help="Caption a split; convert the program's pickles to JSON; explain the captions; evaluate.",
)
@click.option(
    "--expl-model",
    "--expl_model",
    "method",
    help=f"One of: {', '.join(MODELS)}.",
)
@click.option(
    "--eval-type",
    "--eval_type",
    "evaluation",
    type=click.Choice(["correlation", "ablation"]),
    help="With --mode eval; correlation writes the orders that ablation reads.",
)
@click.option("--abl-type", "--abl_type", "ablation", help="vf_X_M or ob_X_M; M is min, max or 15.")
@click.option(
    "--test-split", "--test_split", "split", default="test", show_default=True, help="Split."
)
@click.option(
    "--run", "run_dir", type=FOLDER, help="Run.  [default: results/DATASET/runs/gridtd/xe/seed1]"
)
@click.option("--data", "data_dir", type=FOLDER, help="[default: results/DATASET/data]")
@click.option(
    "--features", "features_dir", type=FOLDER, help="[default: results/DATASET/features/regions]"
)
@click.option(
    "--out",
    type=FOLDER,
    help="Holds lrp_probs and lime_probs.  [default: results/DATASET/latent]",
)
@click.option(
    "--class-names", type=FILE, help="A line for each class, if the features do not name them."
)
@click.option(
    "--tags", type=FILE, help="JSON, word: tag; the nouns of a caption are its objects, then."
)
@click.option("--images", type=click.IntRange(1), help="Only the first images of the split.")
@click.option("--seed", default=1, show_default=True, help="Of masks, noise and random.")
@click.option("--parity", is_flag=True, help="As published, errors included.")
@click.option("-j", "--workers", type=int, hidden=True, expose_value=False, help="Changes nothing.")
@click.option(
    "--embed-dim", "--embed_dim", type=int, hidden=True, expose_value=False, help="Changes nothing."
)
@click.option(
    "--hidden-dim",
    "--hidden_dim",
    type=int,
    hidden=True,
    expose_value=False,
    help="Changes nothing.",
)
@click.option("--encoder", hidden=True, expose_value=False, help="Changes nothing.")
def command(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    dataset: str,
    mode: str,
    method: str | None,
    evaluation: str | None,
    ablation: str | None,
    split: str,
    run_dir: Path | None,
    data_dir: Path | None,
    features_dir: Path | None,
    out: Path | None,
    class_names: Path | None,
    tags: Path | None,
    images: int | None,
    seed: int,
    parity: bool,
) -> None:
    """Explain and evaluate in latent space as the published program does, on a trained run.

    \b
    capscope latent -d scenes --mode expl --expl-model lrp
    capscope latent -d scenes --mode eval --expl-model lrp --eval-type correlation
    capscope latent -d scenes --mode eval --expl-model lrp --eval-type ablation --abl-type vf_6_min

    Its options --workers, --embed_dim, --hidden_dim and --encoder are taken and change nothing: a
    run knows its sizes.
    """
    from capscope.benchmarks.latent_evaluate import LatentEvaluation
    from capscope.benchmarks.latent_explain import LatentExplanations
    from capscope.benchmarks.latent_files import LatentFiles
    from capscope.data.annotations import open_dataset
    from capscope.errors import CapscopeError
    from capscope.explain.split import open_subject
    from capscope.features.store import FeatureStore
    from capscope.files import write_json
    from capscope.params import load_params

    kind = _checked(mode, method, evaluation, ablation)
    folder = Path("results") / dataset
    files = LatentFiles(out or folder / "latent", dataset, split)
    if mode == "prepar":
        for path in files.prepare():
            click.echo(f"-> {path}")
        click.echo(f"{files.root} is ready")
        return
    run_dir = run_dir or folder / "runs" / "gridtd" / "xe" / "seed1"
    features_dir = features_dir or folder / "features" / "regions"
    params = load_params(params_files, assignments)
    found = open_dataset(data_dir or folder / "data", params)
    chosen = files.chosen(found.split(split))[:images]
    if not chosen:
        raise CapscopeError(f"data set {found.name} has no image of the split {split}")
    _, subject = open_subject(run_dir, features_dir)
    subject.captioner.eval()
    store = FeatureStore.open(features_dir)
    shared = (subject, store, chosen, files, seed, parity, class_names, tags)
    if mode in ("none", "expl"):
        explanations = LatentExplanations(*shared)
        if method is None or mode == "none":
            explanations.caption()
        else:
            explanations.explain(method)
        click.echo(f"{method or 'captions'}: {len(chosen)} images of {split} -> {files.root}")
        return
    assert method is not None
    evaluated = LatentEvaluation(*shared)
    figures = evaluated.correlate(method) if kind is None else evaluated.ablate(method, kind)
    name = "correlation" if kind is None else f"ablation_{kind}"
    path = files.root / "figures" / f"{dataset}_{split}_{method}_{name}.json"
    write_json(path, figures)
    for key, value in figures.items():
        click.echo(f"{key:<16} {value:.6g}")
    click.echo(f"-> {path}")


def _checked(
    mode: str, method: str | None, evaluation: str | None, ablation: str | None
) -> AblationType | None:
    """Return the type of ablation, if one is asked for; say what is wrong with the options."""
    from capscope.benchmarks.latent_published import AblationType
    from capscope.errors import CapscopeError
    from capscope.explain.latent.published import variant

    if method is None and mode in ("expl", "eval"):
        raise CapscopeError(f"--mode {mode} needs --expl-model: {', '.join(MODELS)}")
    if method is not None and method not in MODELS:
        variant(method)  # says what is wrong
    if mode == "expl" and method == "random":
        raise CapscopeError("random explains nothing: it is a baseline for --mode eval")
    if mode == "eval" and evaluation is None:
        raise CapscopeError("--mode eval needs --eval-type correlation or ablation")
    if (evaluation == "ablation") != (ablation is not None):
        raise CapscopeError("--abl-type goes with --eval-type ablation, such as vf_6_min")
    return None if ablation is None else AblationType.parse(ablation)
