# On request, as `snakemake export`: the data set as self-critical captioning programs read it.
rule export:
    input:
        f"results/{DATASET}/exported/ngrams.json",
        expand(f"results/{DATASET}/exported/{{kind}}/manifest.json", kind=KINDS),


rule export_labels:
    input:
        data="results/{dataset}/data/manifest.json",
    output:
        words="results/{dataset}/exported/data.json",
        labels="results/{dataset}/exported/data_label.h5",
        ngrams="results/{dataset}/exported/ngrams.json",
    log:
        "results/{dataset}/logs/export_labels.log",
    benchmark:
        "results/{dataset}/logs/export_labels.tsv"
    conda:
        "../../envs/capscope.yaml"
    params:
        data=subpath(input.data, parent=True),
        file=f"results/{DATASET}/params.json",
    shell:
        "capscope export labels --params {params.file} --data {params.data} --words {output.words}"
        " --labels {output.labels} --ngrams {output.ngrams} 2>&1 | tee {log}"


# ResNet maps and their means, or regions with boxes in pixels, relative boxes and grid vectors.
rule export_features:
    input:
        features="results/{dataset}/features/{kind}/manifest.json",
    output:
        "results/{dataset}/exported/{kind}/manifest.json",
    log:
        "results/{dataset}/logs/export_{kind}.log",
    benchmark:
        "results/{dataset}/logs/export_{kind}.tsv"
    wildcard_constraints:
        kind="grid|regions",
    conda:
        "../../envs/capscope.yaml"
    params:
        features=subpath(input.features, parent=True),
        out=subpath(output[0], parent=True),
    shell:
        "capscope export features --features {params.features} --out {params.out} 2>&1 | tee {log}"
