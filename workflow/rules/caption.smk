rule decode:
    input:
        data="results/{dataset}/data/manifest.json",
        features=features_of,
        run="results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
        shards=shards_of(
            "decode",
            "results/{dataset}/runs/{system}/{stage}/seed{seed}/decoded/{split}.shards",
        ),
    output:
        "results/{dataset}/runs/{system}/{stage}/seed{seed}/decoded/{split}.json",
    log:
        "results/{dataset}/logs/decode/{system}-{stage}-seed{seed}-{split}.log",
    benchmark:
        "results/{dataset}/logs/decode/{system}-{stage}-seed{seed}-{split}.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        gpu=one_gpu,
        mem_mb=by_attempt(4000),
        runtime=by_attempt(120),
    params:
        data=subpath(input.data, parent=True),
        features=subpath(input.features, parent=True),
        run=subpath(input.run, parent=True),
        gather=gathering,
        file=f"results/{DATASET}/params.json",
        settings=config["decoding"],
    shell:
        "capscope decode {params.gather} --params {params.file} --run {params.run}"
        " --data {params.data} --features {params.features} --split {wildcards.split}"
        " --out {output} 2>&1 | tee {log}"


# One job of several (`--set-scatter decode=8`); the rule above joins what they made.
rule decode_shard:
    input:
        data="results/{dataset}/data/manifest.json",
        features=features_of,
        run="results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
    output:
        temp(
            "results/{dataset}/runs/{system}/{stage}/seed{seed}/decoded/{split}.shards/"
            "{scatteritem}/manifest.json"
        ),
    log:
        "results/{dataset}/logs/decode/{system}-{stage}-seed{seed}-{split}-{scatteritem}.log",
    benchmark:
        "results/{dataset}/logs/decode/{system}-{stage}-seed{seed}-{split}-{scatteritem}.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        gpu=1,
        mem_mb=by_attempt(4000),
        runtime=by_attempt(120),
    params:
        data=subpath(input.data, parent=True),
        features=subpath(input.features, parent=True),
        run=subpath(input.run, parent=True),
        out="results/{dataset}/runs/{system}/{stage}/seed{seed}/decoded/{split}.json",
        file=f"results/{DATASET}/params.json",
        settings=config["decoding"],
    shell:
        "capscope decode --shard {wildcards.scatteritem} --params {params.file} --run {params.run}"
        " --data {params.data} --features {params.features} --split {wildcards.split}"
        " --out {params.out} 2>&1 | tee {log}"


# All runs at once: one start of the METEOR process serves them all.
rule evaluate:
    input:
        data="results/{dataset}/data/manifest.json",
        decoded=expand("{run}/decoded/{split}.json", run=RUNS, split=SPLITS),
        frequencies=FREQUENCIES,
        models=models_at_hand,
    output:
        table="results/{dataset}/scores/captions.csv",
        images="results/{dataset}/scores/per_image.csv",
        comparisons="results/{dataset}/scores/comparisons.csv",
        seeds="results/{dataset}/scores/seeds.csv",
        summary="results/{dataset}/scores/metrics.json",
    log:
        "results/{dataset}/logs/evaluate.log",
    benchmark:
        "results/{dataset}/logs/evaluate.tsv"
    conda:
        "../../envs/capscope.yaml"
    threads: 1
    resources:
        gpu=1 if LEARNED else 0,
        mem_mb=by_attempt(4000 + 1000 * SPICE["memory_gb"] * config["metrics"]["spice"]),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        runs=expand("--run {run}", run=RUNS),
        out=subpath(output.table, parent=True),
        file=f"results/{DATASET}/params.json",
        splits=SPLITS,
        models=models_at_hand,
        settings=[SCORING, FREQUENCIES, RESAMPLING],
    shell:
        "capscope evaluate --params {params.file} --data {params.data} {params.runs}"
        " --out {params.out} 2>&1 | tee {log}"


# One page of all runs, where there are several.
rule compare_runs:
    input:
        data="results/{dataset}/data/manifest.json",
        overall="results/{dataset}/scores/captions.csv",
        images="results/{dataset}/scores/per_image.csv",
    output:
        report(
            "results/{dataset}/scores/comparison.html",
            caption="../report/comparison.rst",
            category="Page",
            labels={"page": "runs compared image by image"},
        ),
    log:
        "results/{dataset}/logs/compare_runs.log",
    benchmark:
        "results/{dataset}/logs/compare_runs.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        mem_mb=2000,
    params:
        data=subpath(input.data, parent=True),
        scores=subpath(input.images, parent=True),
        file=f"results/{DATASET}/params.json",
        settings=config["report"],
    shell:
        "capscope compare --params {params.file} --data {params.data} --scores {params.scores}"
        " --out {output} 2>&1 | tee {log}"


# On request, as `snakemake spice_models`: 385 MB, once for all data sets.
rule spice_models:
    output:
        SPICE_MODELS,
    log:
        f"results/{DATASET}/logs/spice_models.log",
    benchmark:
        f"results/{DATASET}/logs/spice_models.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        runtime=by_attempt(120),
    params:
        file=f"results/{DATASET}/params.json",
        settings=[SPICE["addresses"], SPICE["checksum"]],
    shell:
        "capscope spice-models --params {params.file} 2>&1 | tee {log}"
