rule prepare_data:
    input:
        sources,
    output:
        "results/{dataset}/data/manifest.json",
    log:
        "results/{dataset}/logs/data.log",
    benchmark:
        "results/{dataset}/logs/data.tsv"
    conda:
        "../../envs/capscope.yaml"
    threads: 2
    resources:
        runtime=by_attempt(60),
    params:
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=[DATA_SETTINGS, SOURCES],
    shell:
        "capscope data --params {params.file} --workers {threads} --out {params.out} 2>&1 | tee {log}"


# On request, as `snakemake download_data`: what is there already is not fetched again.
rule download_data:
    log:
        f"results/{DATASET}/logs/download_data.log",
    conda:
        "../../envs/capscope.yaml"
    resources:
        runtime=by_attempt(1440),
    params:
        file=f"results/{DATASET}/params.json",
    shell:
        "capscope data --download --params {params.file} 2>&1 | tee {log}"


rule build_vocabulary:
    input:
        data="results/{dataset}/data/manifest.json",
    output:
        "results/{dataset}/vocabulary/{system}/manifest.json",
    log:
        "results/{dataset}/logs/vocabulary/{system}.log",
    benchmark:
        "results/{dataset}/logs/vocabulary/{system}.tsv"
    priority: FEATURES_FIRST
    conda:
        "../../envs/capscope.yaml"
    params:
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=lookup(dpath="systems/{system}/vocabulary", within=config),
    shell:
        "capscope vocabulary --params {params.file} --system {wildcards.system}"
        " --data {params.data} --out {params.out} 2>&1 | tee {log}"
