"""``capscope frequencies``: count document frequencies, or convert published ones."""

from __future__ import annotations

from pathlib import Path

import click

from capscope.cli.options import FILE, held


@click.command()
@click.argument("source", type=FILE)
@click.option("--out", type=FILE, callback=held, required=True, help="The n-gram file, JSON.")
@click.option(
    "--kind",
    type=click.Choice(["words", "idxs"]),
    default="words",
    show_default=True,
    help="Of an n-gram file: n-grams of words, or of word ids.",
)
@click.option(
    "--tokenizer",
    type=click.Choice(["java", "python"]),
    default="java",
    show_default=True,
    help="Of captions: as in params.yaml.",
)
def command(source: Path, out: Path, kind: str, tokenizer: str) -> None:
    """Count the document frequencies of captions for CIDEr, or convert published ones.

    \b
    Of captions:   capscope frequencies captions_train2017.json --out train.json
    Of a data set: capscope frequencies dataset_coco.json --out train.json   (its train split)
    Published:     capscope frequencies coco-train-words.p --out train.json  (not unpickled)

    Use the file as `capscope evaluate --frequencies train.json`, or as metrics.frequencies.
    """
    from capscope.metrics.corpus import read_corpus
    from capscope.metrics.frequencies import DocumentFrequencies
    from capscope.metrics.frequency_files import write_frequencies
    from capscope.metrics.tokenized import Tokenizer, regroup

    corpus = read_corpus(source, kind)
    table = corpus.table
    if table is None:
        if kind != "words":
            raise click.UsageError("captions are counted as words; --kind idxs is for n-gram files")
        flat = Tokenizer(tokenizer).files([[t for group in corpus.groups for t in group]])[0]
        images = regroup(flat, corpus.groups)
        table = DocumentFrequencies.of([[text.split() for text in texts] for texts in images])
    write_frequencies(out, table, kind)
    click.echo(f"{len(table.counts)} n-grams of {table.images:g} images in {out}")
