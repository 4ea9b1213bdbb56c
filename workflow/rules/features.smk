rule train_backbone:
    input:
        data="results/{dataset}/data/manifest.json",
    output:
        "results/{dataset}/backbone/manifest.json",
    log:
        "results/{dataset}/logs/backbone.log",
    benchmark:
        "results/{dataset}/logs/backbone.tsv"
    conda:
        "../../envs/capscope.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=60,
    params:
        data=subpath(input.data, parent=True),
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=[config["backbone"], GRID["image_size"]],
    shell:
        "capscope backbone --params {params.file}"
        " --data {params.data} --out {params.out} 2>&1 | tee {log}"


rule extract_grid:
    input:
        data="results/{dataset}/data/manifest.json",
        backbone=["results/{dataset}/backbone/manifest.json"] if TRAINED else [],
        weights=WEIGHTS,
    output:
        "results/{dataset}/features/grid/manifest.json",
    log:
        "results/{dataset}/logs/features/grid.log",
    benchmark:
        "results/{dataset}/logs/features/grid.tsv"
    conda:
        "../../envs/capscope.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=240,
    params:
        data=subpath(input.data, parent=True),
        backbone=f"--backbone results/{DATASET}/backbone" if TRAINED else "",
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=[GRID, config["dataset"]["on_unreadable"]],
    shell:
        "capscope features --params {params.file} --kind grid"
        " --data {params.data} {params.backbone} --out {params.out} 2>&1 | tee {log}"


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
    conda:
        "../../envs/capscope.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=60,
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
        detector=["results/{dataset}/features/detector/manifest.json"] if DETECTED else [],
        weights=DETECTOR_WEIGHTS,
    output:
        "results/{dataset}/features/regions/manifest.json",
    log:
        "results/{dataset}/logs/features/regions.log",
    benchmark:
        "results/{dataset}/logs/features/regions.tsv"
    conda:
        "../../envs/detectron2.yaml" if WITH_DETECTRON2 else "../../envs/capscope.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=240,
    params:
        data=subpath(input.data, parent=True),
        detector=f"--detector results/{DATASET}/features/detector" if DETECTED else "",
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=[REGIONS, config["dataset"]["on_unreadable"]],
    shell:
        "capscope features --params {params.file} --kind regions"
        " --data {params.data} {params.detector} --out {params.out} 2>&1 | tee {log}"
