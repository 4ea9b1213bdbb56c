"""``capscope export``: runs and data sets in the layouts of the original programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from capscope.cli.options import FILE, FOLDER, held, params_options


@click.group()
def command() -> None:
    """Write runs and data sets in layouts that the original authors' programs load."""


@command.command("lrp_ic")
@click.option("--run", "run_dir", type=FOLDER, required=True, help="A trained or imported run.")
@click.option("--checkpoint", type=FILE, required=True, help="PyTorch file to write.")
@click.option("--wordmap", type=FILE, required=True, help="JSON with the id of each word to write.")
def lrp_ic(run_dir: Path, checkpoint: Path, wordmap: Path) -> None:
    """Export a run for LRP image captioning (Sun and others, 2022)."""
    from capscope.importers.lrp_ic_runs import export_run

    export_run(run_dir, checkpoint, wordmap)


@command.command("coco_pt")
@params_options
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option(
    "--out", type=FOLDER, callback=held, required=True, help="Folder of coco.pt and coco.h5."
)
@click.option("--train", type=click.IntRange(1), default=10_000, show_default=True, help="Images.")
@click.option("--val", type=click.IntRange(1), default=500, show_default=True, help="Images.")
@click.option("--size", type=click.IntRange(8), default=112, show_default=True, help="Pixels.")
@click.option(
    "--words", type=click.IntRange(1), default=15, show_default=True, help="Longest caption."
)
@click.option(
    "--vocabulary",
    type=click.IntRange(1),
    default=860,
    show_default=True,
    help="Most frequent words that are kept, besides the special ones.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws images and captions.")
def coco_pt(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    data_dir: Path,
    out: Path,
    **sizes: int,
) -> None:
    """Export a data set in the layout of coco.pt: pictures and a caption each, as tensors."""
    from capscope.data.annotations import open_dataset
    from capscope.data.coco_pt_build import Recipe, write_coco_pt
    from capscope.files import MANIFEST
    from capscope.params import load_params

    dataset = open_dataset(data_dir, load_params(params_files, assignments))
    write_coco_pt(out, dataset, Recipe(**sizes), {"data": data_dir / MANIFEST})


@command.command("spatial")
@click.option("--run", "run_dir", type=FOLDER, required=True, help="A trained or imported run.")
@click.option("--checkpoint", type=FILE, required=True, help="State dict to write.")
@click.option("--words", type=FILE, required=True, help="JSON with the words to write.")
def spatial(run_dir: Path, checkpoint: Path, words: Path) -> None:
    """Export a run for the spatial transformer's program."""
    from capscope.importers.spatial_runs import export_run

    export_run(run_dir, checkpoint, words)


@command.command("difnet")
@params_options
@click.option("--run", "run_dir", type=FOLDER, required=True, help="A trained or imported run.")
@click.option("--checkpoint", type=FILE, required=True, help="Checkpoint to write.")
@click.option(
    "--mode",
    type=click.Choice(["base", "base_lrp", "difnet", "difnet_lrp"]),
    required=True,
    help="The original's mode that is to read it.",
)
@click.option("--vocabulary", type=FILE, help="The vocab.pkl to write.")
@click.option("--data", "data_dir", type=FOLDER, help="From `capscope data`, to count words.")
def difnet(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    run_dir: Path,
    checkpoint: Path,
    mode: str,
    vocabulary: Path | None,
    data_dir: Path | None,
) -> None:
    """Export a run for DIFNet's program.

    Words are in the order of their counts in the references that train and validate if there are
    data, else in that of the run.
    """
    from collections import Counter

    from capscope.data.annotations import open_dataset
    from capscope.importers.difnet_runs import export_run
    from capscope.params import load_params

    counts: Counter[str] = Counter()
    if data_dir is not None:
        dataset = open_dataset(data_dir, load_params(params_files, assignments))
        for image in dataset.split("train", "restval", "val"):
            for tokens in image.tokens:
                counts.update(tokens)
    export_run(run_dir, checkpoint, mode, vocabulary, counts)


@command.command("labels")
@params_options
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option("--words", type=FILE, required=True, help="JSON with words and images to write.")
@click.option("--labels", type=FILE, required=True, help="HDF5 with word ids to write.")
@click.option(
    "--threshold",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Words that occur no more often become UNK.",
)
@click.option(
    "--max-length", type=click.IntRange(1), default=16, show_default=True, help="Words; cut off."
)
@click.option("--ngrams", type=FILE, help="JSON with document frequencies of n-grams to write.")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    default="train",
    show_default=True,
    help="The images that n-grams are counted in; train includes restval.",
)
def labels(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    data_dir: Path,
    words: Path,
    labels: Path,
    threshold: int,
    max_length: int,
    ngrams: Path | None,
    split: str,
) -> None:
    """Export references as the label files of self-critical captioning programs."""
    from capscope.data.annotations import open_dataset
    from capscope.data.labels import published_labels, write_labels
    from capscope.metrics.label_frequencies import label_frequencies, write_label_frequencies
    from capscope.params import load_params

    dataset = open_dataset(data_dir, load_params(params_files, assignments))
    content = published_labels(dataset.images, threshold, max_length)
    write_labels(words, labels, content)
    if ngrams is not None:
        images = dataset.images if split == "all" else dataset.split(split)
        write_label_frequencies(ngrams, label_frequencies(images, content.vocabulary))


@command.command("features")
@click.option("--features", "store_dir", type=FOLDER, required=True, help="A feature store.")
@click.option(
    "--out", type=FOLDER, callback=held, required=True, help="Gets the folders att, fc, box, ..."
)
@click.option(
    "--grid",
    type=click.IntRange(1),
    default=12,
    show_default=True,
    help="Rows and columns that boxes are spread over.",
)
@click.option(
    "--grid-mode",
    type=click.Choice(["box", "cell"]),
    default="box",
    show_default=True,
    help="Shares of the box, or covered shares of each cell.",
)
def features(store_dir: Path, out: Path, grid: int, grid_mode: Literal["box", "cell"]) -> None:
    """Export features as folders with a file an image, for self-critical captioning programs."""
    from capscope.features.folders import write_folders

    write_folders(store_dir, out, grid=grid, mode=grid_mode)


@command.command("pictures")
@params_options
@click.option("--data", "data_dir", type=FOLDER, required=True, help="From `capscope data`.")
@click.option("--captions", type=FILE, required=True, help="COCO results JSON of a split.")
@click.option("--images", type=click.IntRange(1), help="So many of them; all by default.")
@click.option("--out", type=FOLDER, callback=held, required=True, help="Gets <image id>.jpg.")
def pictures(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    data_dir: Path,
    captions: Path,
    images: int | None,
    out: Path,
) -> None:
    """Export images with their captions written below."""
    from tqdm import tqdm

    from capscope.data.annotations import open_dataset
    from capscope.data.images import read_image
    from capscope.metrics.results import read_results
    from capscope.params import load_params
    from capscope.report.captioned import save_captioned

    dataset = open_dataset(data_dir, load_params(params_files, assignments))
    chosen = list(read_results(captions).items())[:images]
    for image_id, caption in tqdm(chosen, unit="image"):
        picture = read_image(dataset.path(dataset.by_id(image_id)))
        save_captioned(picture, [caption], out / f"{image_id}.jpg")
