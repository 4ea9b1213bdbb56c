# All methods in one job: the run and its images are read once.
rule relevance:
    input:
        data="results/{dataset}/data/manifest.json",
        features=features_of,
        run="results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
        decoded="results/{dataset}/runs/{system}/{stage}/seed{seed}/decoded/{split}.json",
        shards=shards_of(
            "relevance",
            "results/{dataset}/runs/{system}/{stage}/seed{seed}/relevance/{split}.shards",
        ),
    output:
        "results/{dataset}/runs/{system}/{stage}/seed{seed}/relevance/{split}.json",
    log:
        "results/{dataset}/logs/relevance/{system}-{stage}-seed{seed}-{split}.log",
    benchmark:
        "results/{dataset}/logs/relevance/{system}-{stage}-seed{seed}-{split}.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        features=subpath(input.features, parent=True),
        run=subpath(input.run, parent=True),
        gather=gathering,
        file=f"results/{DATASET}/params.json",
        timing="results/{dataset}/logs/relevance/{system}-{stage}-seed{seed}-{split}.json",
        settings=settings_to_explain,
    shell:
        "capscope relevance {params.gather} --params {params.file} --run {params.run}"
        " --data {params.data} --features {params.features} --split {wildcards.split}"
        " --timing {params.timing} 2>&1 | tee {log}"


# One job of several (`--set-scatter relevance=8`); the rule above joins what they made.
rule relevance_shard:
    input:
        data="results/{dataset}/data/manifest.json",
        features=features_of,
        run="results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
        decoded="results/{dataset}/runs/{system}/{stage}/seed{seed}/decoded/{split}.json",
    output:
        temp(
            "results/{dataset}/runs/{system}/{stage}/seed{seed}/relevance/{split}.shards/"
            "{scatteritem}/manifest.json"
        ),
    log:
        "results/{dataset}/logs/relevance/{system}-{stage}-seed{seed}-{split}-{scatteritem}.log",
    benchmark:
        "results/{dataset}/logs/relevance/{system}-{stage}-seed{seed}-{split}-{scatteritem}.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        features=subpath(input.features, parent=True),
        run=subpath(input.run, parent=True),
        file=f"results/{DATASET}/params.json",
        settings=settings_to_explain,
    shell:
        "capscope relevance --shard {wildcards.scatteritem} --params {params.file}"
        " --run {params.run} --data {params.data} --features {params.features}"
        " --split {wildcards.split} 2>&1 | tee {log}"


rule object_relevance:
    input:
        data="results/{dataset}/data/manifest.json",
        features=features_of,
        run="results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
        relevance=relevance_of,
    output:
        "results/{dataset}/runs/{system}/{stage}/seed{seed}/relevance/objects.csv",
    log:
        "results/{dataset}/logs/objects/{system}-{stage}-seed{seed}.log",
    benchmark:
        "results/{dataset}/logs/objects/{system}-{stage}-seed{seed}.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        mem_mb=by_attempt(2000),
        runtime=by_attempt(60),
    params:
        data=subpath(input.data, parent=True),
        features=subpath(input.features, parent=True),
        run=subpath(input.run, parent=True),
        file=f"results/{DATASET}/params.json",
        splits=splits_to_explain,
        settings=config["benchmarks"]["latent_objects"],
    shell:
        "capscope objects --params {params.file} --run {params.run} --data {params.data}"
        " --features {params.features} 2>&1 | tee {log}"


rule measure:
    input:
        data="results/{dataset}/data/manifest.json",
        features=features_of,
        run="results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
        relevance=relevance_of,
        shards=shards_of(
            "measure", "results/{dataset}/runs/{system}/{stage}/seed{seed}/benchmarks/shards"
        ),
    output:
        expand(
            "results/{{dataset}}/runs/{{system}}/{{stage}}/seed{{seed}}/benchmarks/{measure}.csv",
            measure=MEASURES,
        ),
        expand(
            "results/{{dataset}}/runs/{{system}}/{{stage}}/seed{{seed}}/benchmarks/details/{table}.csv",
            table=[*MEASURES, "words"],
        ),
    log:
        "results/{dataset}/logs/benchmarks/{system}-{stage}-seed{seed}.log",
    benchmark:
        "results/{dataset}/logs/benchmarks/{system}-{stage}-seed{seed}.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        features=subpath(input.features, parent=True),
        run=subpath(input.run, parent=True),
        gather=gathering,
        file=f"results/{DATASET}/params.json",
        measures=MEASURES,
        splits=splits_to_explain,
        settings=MEASURING,
    shell:
        "capscope benchmark {params.measures} {params.gather} --params {params.file}"
        " --run {params.run} --data {params.data} --features {params.features} 2>&1 | tee {log}"


# One job of several (`--set-scatter measure=4`), with its share of the measures.
rule measure_shard:
    input:
        data="results/{dataset}/data/manifest.json",
        features=features_of,
        run="results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
        relevance=relevance_of,
    output:
        temp(
            "results/{dataset}/runs/{system}/{stage}/seed{seed}/benchmarks/shards/"
            "{scatteritem}/manifest.json"
        ),
    log:
        "results/{dataset}/logs/benchmarks/{system}-{stage}-seed{seed}-{scatteritem}.log",
    benchmark:
        "results/{dataset}/logs/benchmarks/{system}-{stage}-seed{seed}-{scatteritem}.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        features=subpath(input.features, parent=True),
        run=subpath(input.run, parent=True),
        file=f"results/{DATASET}/params.json",
        measures=MEASURES,
        settings=MEASURING,
    shell:
        "capscope benchmark {params.measures} --shard {wildcards.scatteritem}"
        " --params {params.file} --run {params.run} --data {params.data}"
        " --features {params.features} 2>&1 | tee {log}"
