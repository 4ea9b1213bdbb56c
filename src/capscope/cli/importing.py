"""``capscope import``: the original authors' checkpoints become runs."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, FOLDER, held, params_options


@click.group()
def command() -> None:
    """Turn the original authors' checkpoints into runs, which decode, explain and export take."""


@command.command("lrp_ic")
@click.option("--checkpoint", type=FILE, required=True, help="PyTorch file with a state_dict.")
@click.option("--wordmap", type=FILE, required=True, help="JSON with the id of each word.")
@click.option(
    "--captioner",
    type=click.Choice(["gridtd", "adaptive", "aoa"]),
    required=True,
    help="Which captioner it is.",
)
@click.option(
    "--features",
    type=click.Choice(["grid", "regions"]),
    required=True,
    help="Which visual features it reads.",
)
@click.option(
    "--image-size", default=224, show_default=True, help="Grid: pixels of its square images."
)
@click.option("--heads", default=8, show_default=True, help="Heads of aoa.")
@click.option(
    "--store", "store_dir", type=FOLDER, help="Regions: a feature store to check it against."
)
@click.option("--out", type=FOLDER, callback=held, required=True, help="The run folder to write.")
def lrp_ic(
    checkpoint: Path,
    wordmap: Path,
    captioner: str,
    features: str,
    image_size: int,
    heads: int,
    store_dir: Path | None,
    out: Path,
) -> None:
    """Import a checkpoint of LRP image captioning (Sun and others, 2022).

    \b
    capscope import lrp_ic --checkpoint c.pth --wordmap wordmap_flickr30k.json \\
        --captioner gridtd --features grid --out results/imported/gridtd
    """
    from capscope.importers.lrp_ic_runs import import_run

    import_run(
        checkpoint,
        wordmap,
        out,
        captioner=captioner,
        features=features,
        image_size=image_size,
        heads=heads,
        store_dir=store_dir,
    )


@command.command("latent")
@click.option("--checkpoint", type=FILE, required=True, help="PyTorch file with a state_dict.")
@click.option("--wordmap", type=FILE, required=True, help="JSON with the id of each word.")
@click.option("--store", "store_dir", type=FOLDER, help="A feature store to check it against.")
@click.option("--out", type=FOLDER, callback=held, required=True, help="The run folder to write.")
def latent(checkpoint: Path, wordmap: Path, store_dir: Path | None, out: Path) -> None:
    """Import the gridTD of the latent-space program (Elguendouze and others, 2023).

    \b
    capscope import latent --checkpoint c.pth --wordmap wordmap_coco2017.json \\
        --store results/coco2017/features/regions --out results/imported/latent
    """
    from capscope.importers.lrp_ic_runs import import_run

    import_run(
        checkpoint,
        wordmap,
        out,
        captioner="gridtd",
        features="regions",
        store_dir=store_dir,
        program="latent",
    )


@command.command("rnn_family")
@click.option("--checkpoint", type=FILE, required=True, help="PyTorch file with a state dict.")
@click.option(
    "--vocabulary", type=FILE, required=True, help="JSON with the id of each word, or the coco.pt."
)
@click.option(
    "--captioner",
    type=click.Choice(["rnn", "lstm", "attention_lstm"]),
    required=True,
    help="Which cell was trained; the checkpoint has all three.",
)
@click.option("--image-size", default=112, show_default=True, help="Pixels of its square images.")
@click.option("--out", type=FOLDER, callback=held, required=True, help="The run folder to write.")
def rnn_family(
    checkpoint: Path, vocabulary: Path, captioner: str, image_size: int, out: Path
) -> None:
    """Import a state dict of the recurrent captioners on RegNetX-400MF.

    \b
    capscope import rnn_family --checkpoint attn.pt --vocabulary coco.pt \\
        --captioner attention_lstm --out results/imported/attention_lstm
    """
    from capscope.importers.rnn_family_runs import import_run

    import_run(checkpoint, vocabulary, out, captioner=captioner, image_size=image_size)


@command.command("spatial")
@click.option("--checkpoint", type=FILE, required=True, help="PyTorch file with a state dict.")
@click.option("--infos", type=FILE, help="The infos.pkl beside it; read without unpickling it.")
@click.option("--words", type=FILE, help="The JSON of the label files, where there are no infos.")
@click.option(
    "--captioner",
    type=click.Choice(["spatial", "show_tell"]),
    help="Which captioner it is; by default as the infos say, else spatial.",
)
@click.option("--heads", type=int, help="Heads of attention, which no tensor tells; 8 by default.")
@click.option("--activation", type=click.Choice(["relu", "gelu"]), help="relu by default.")
@click.option(
    "--positions", type=click.Choice(["fixed"]), help="For sinusoids, which have no tensor."
)
@click.option(
    "--grid-mode",
    type=click.Choice(["box", "cell"]),
    default="box",
    show_default=True,
    help="How its grid vectors were made.",
)
@click.option("--store", "store_dir", type=FOLDER, help="A feature store to check it against.")
@click.option("--out", type=FOLDER, callback=held, required=True, help="The run folder to write.")
def spatial(
    checkpoint: Path,
    infos: Path | None,
    words: Path | None,
    captioner: str | None,
    heads: int | None,
    activation: str | None,
    positions: str | None,
    grid_mode: str,
    store_dir: Path | None,
    out: Path,
) -> None:
    """Import a checkpoint of the spatial transformer, or of its LSTM baseline.

    \b
    capscope import spatial --checkpoint save/model.pt --infos save/infos.pkl \\
        --out results/imported/spatial
    """
    from capscope.importers.spatial_runs import import_run

    import_run(
        checkpoint,
        out,
        infos=infos,
        words=words,
        captioner=captioner,
        heads=heads,
        activation=activation,
        positions=positions,
        grid_mode=grid_mode,
        store_dir=store_dir,
    )


@command.command("difnet")
@click.option("--checkpoint", type=FILE, required=True, help="PyTorch file with a state_dict.")
@click.option(
    "--vocabulary", type=FILE, required=True, help="The vocab.pkl; read without unpickling it."
)
@click.option("--heads", default=8, show_default=True, help="Heads, which no tensor tells.")
@click.option("--store", "store_dir", type=FOLDER, help="A feature store to check it against.")
@click.option("--out", type=FOLDER, callback=held, required=True, help="The run folder to write.")
def difnet(
    checkpoint: Path, vocabulary: Path, heads: int, store_dir: Path | None, out: Path
) -> None:
    """Import a checkpoint of DIFNet (Wu and others, 2022), of any of its modes.

    \b
    capscope import difnet --checkpoint DIFNet_lrp.pth --vocabulary vocab.pkl \\
        --out results/imported/difnet
    """
    from capscope.importers.difnet_runs import import_run

    import_run(checkpoint, vocabulary, out, heads=heads, store_dir=store_dir)


@command.command("difnet_annotations")
@click.option("--annotations", "folder", type=FOLDER, required=True, help="With the .npy files.")
@click.option("--name", default="coco2014", show_default=True, help="Of the data set.")
@click.option(
    "--words",
    type=click.Choice(["treebank", "spacy"]),
    default="treebank",
    show_default=True,
    help="Rules by which captions are split; spacy as published, if it is installed.",
)
@click.option(
    "--out", type=FILE, callback=held, required=True, help="Karpathy-layout JSON to write."
)
def difnet_annotations(folder: Path, name: str, words: str, out: Path) -> None:
    """Turn the annotations of DIFNet's program into a data set in Karpathy's layout.

    \b
    capscope import difnet_annotations --annotations m2_annotations --out dataset_coco.json
    """
    from capscope.data.annotations import karpathy_json
    from capscope.files import write_json
    from capscope.importers.difnet_annotations import read_annotations, spacy_rules
    from capscope.metrics.treebank import treebank_tokenize

    def treebank(text: str) -> list[str]:
        return treebank_tokenize([text])[0].split()

    tokenizer = treebank if words == "treebank" else spacy_rules()
    write_json(out, karpathy_json(read_annotations(folder, name, tokenizer)))


@command.command("labels")
@params_options
@click.option("--words", type=FILE, required=True, help="The JSON with words and images.")
@click.option("--labels", type=FILE, required=True, help="The HDF5 file with word ids.")
@click.option("--data", "data_dir", type=FOLDER, help="The data set to check them against.")
@click.option(
    "--out", type=FOLDER, callback=held, required=True, help="The vocabulary folder to write."
)
def labels(
    params_files: tuple[Path, ...],
    assignments: tuple[str, ...],
    words: Path,
    labels: Path,
    data_dir: Path | None,
    out: Path,
) -> None:
    """Import label files of self-critical captioning programs, to train with their word ids.

    \b
    capscope import labels --words data.json --labels data_label.h5 --out vocabulary
    """
    from capscope.data.annotations import open_dataset
    from capscope.importers.spatial_labels import import_labels
    from capscope.params import load_params

    dataset = None
    if data_dir is not None:
        dataset = open_dataset(data_dir, load_params(params_files, assignments))
    import_labels(words, labels, out, dataset)
