rule train_backbone:
    input:
        data="results/{dataset}/data/manifest.json",
    output:
        "results/{dataset}/backbone/manifest.json",
    log:
        "results/{dataset}/logs/backbone.log",
    benchmark:
        "results/{dataset}/logs/backbone.tsv"
    priority: FEATURES_FIRST
    conda:
        "../../envs/capscope.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=by_attempt(4000),
        runtime=by_attempt(60),
    params:
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=[config["backbone"], GRID["image_size"]],
    shell:
        "capscope backbone --params {params.file}"
        " --data {params.data} --out {params.out} 2>&1 | tee {log}"


# One job of several (`--set-scatter extract=8`); the rules below join what they made.
rule extract_shard:
    input:
        data="results/{dataset}/data/manifest.json",
        network=lambda wildcards: NETWORKS[wildcards.kind],
    output:
        temp("results/{dataset}/features/{kind}/shards/{scatteritem}/manifest.json"),
    log:
        "results/{dataset}/logs/features/{kind}-{scatteritem}.log",
    benchmark:
        "results/{dataset}/logs/features/{kind}-{scatteritem}.tsv"
    wildcard_constraints:
        kind="grid|regions",
    priority: FEATURES_FIRST
    conda:
        "../../envs/detectron2.yaml" if WITH_DETECTRON2 else "../../envs/capscope.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        network=lambda wildcards: NETWORK_OPTIONS[wildcards.kind],
        out="results/{dataset}/features/{kind}",
        file=f"results/{DATASET}/params.json",
        settings=lambda wildcards: EXTRACTION[wildcards.kind],
    shell:
        "capscope features --params {params.file} --kind {wildcards.kind} --data {params.data}"
        " {params.network} --shard {wildcards.scatteritem} --out {params.out} 2>&1 | tee {log}"


rule extract_grid:
    input:
        data="results/{dataset}/data/manifest.json",
        network=NETWORKS["grid"],
        shards=extracted_shards("grid"),
    output:
        "results/{dataset}/features/grid/manifest.json",
    log:
        "results/{dataset}/logs/features/grid.log",
    benchmark:
        "results/{dataset}/logs/features/grid.tsv"
    priority: FEATURES_FIRST
    conda:
        "../../envs/capscope.yaml"
    threads: 2
    resources:
        gpu=one_gpu,
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        network=NETWORK_OPTIONS["grid"],
        gather=gathering,
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=EXTRACTION["grid"],
    shell:
        "capscope features --params {params.file} --kind grid {params.gather}"
        " --data {params.data} {params.network} --out {params.out} 2>&1 | tee {log}"


rule train_detector:
    input:
        data="results/{dataset}/data/manifest.json",
        backbone="results/{dataset}/backbone/manifest.json",
    output:
        "results/{dataset}/features/detector/manifest.json",
    log:
        "results/{dataset}/logs/features/detector.log",
    benchmark:
        "results/{dataset}/logs/features/detector.tsv"
    priority: FEATURES_FIRST
    conda:
        "../../envs/capscope.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=by_attempt(4000),
        runtime=by_attempt(60),
    params:
        data=subpath(input.data, parent=True),
        backbone=subpath(input.backbone, parent=True),
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=[config["detector"], REGIONS["image_size"]],
    shell:
        "capscope detector --params {params.file} --data {params.data}"
        " --backbone {params.backbone} --out {params.out} 2>&1 | tee {log}"


rule extract_regions:
    input:
        data="results/{dataset}/data/manifest.json",
        network=NETWORKS["regions"],
        shards=extracted_shards("regions"),
    output:
        "results/{dataset}/features/regions/manifest.json",
    log:
        "results/{dataset}/logs/features/regions.log",
    benchmark:
        "results/{dataset}/logs/features/regions.tsv"
    priority: FEATURES_FIRST
    conda:
        "../../envs/detectron2.yaml" if WITH_DETECTRON2 else "../../envs/capscope.yaml"
    threads: 1
    resources:
        gpu=one_gpu,
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        network=NETWORK_OPTIONS["regions"],
        gather=gathering,
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=EXTRACTION["regions"],
    shell:
        "capscope features --params {params.file} --kind regions {params.gather}"
        " --data {params.data} {params.network} --out {params.out} 2>&1 | tee {log}"
