rule train_captioner:
    input:
        data="results/{dataset}/data/manifest.json",
        vocabulary="results/{dataset}/vocabulary/{system}/manifest.json",
        features=features_to_train,
        start=start_of,
    output:
        "results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
    log:
        "results/{dataset}/logs/train/{system}-{stage}-seed{seed}.log",
    benchmark:
        "results/{dataset}/logs/train/{system}-{stage}-seed{seed}.tsv"
    priority: TRAINING_FIRST
    conda:
        "../../envs/capscope.yaml"
    # A second thread saves a sixth of the time; a second run beside it, nearly half. One thread also
    # makes the weights the same on every number of cores.
    threads: PROCESSES
    resources:
        gpu=PROCESSES,
        mem_mb=memory_to_train,
        runtime=by_attempt(600),
    params:
        data=subpath(input.data, parent=True),
        vocabulary=subpath(input.vocabulary, parent=True),
        features=subpath(input.features, parent=True),
        start=lambda wildcards, input: f"--from {Path(input.start).parent}" if input.start else "",
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        captioner=lookup(dpath="systems/{system}/captioner", within=config),
        kind=lookup(dpath="systems/{system}/features", within=config),
        model=lookup(dpath="systems/{system}/model", within=config),
        recipe=lookup(dpath="systems/{system}/{stage}", within=config),
        precision=config["training"]["precision"],
        launcher=LAUNCHER,
    shell:
        "{params.launcher} capscope train --params {params.file} --system {wildcards.system}"
        " --stage {wildcards.stage} --seed {wildcards.seed} --data {params.data}"
        " --vocabulary {params.vocabulary} --features {params.features} {params.start}"
        " --out {params.out} 2>&1 | tee {log}"


# The features of a run whose training went through the image network, which is in its folder.
rule extract_fine_tuned:
    input:
        data="results/{dataset}/data/manifest.json",
        run="results/{dataset}/runs/{system}/{stage}/seed{seed}/manifest.json",
    output:
        "results/{dataset}/runs/{system}/{stage}/seed{seed}/features/manifest.json",
    log:
        "results/{dataset}/logs/features/{system}-{stage}-seed{seed}.log",
    benchmark:
        "results/{dataset}/logs/features/{system}-{stage}-seed{seed}.tsv"
    conda:
        "../../envs/capscope.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=by_attempt(4000),
        runtime=by_attempt(240),
    params:
        data=subpath(input.data, parent=True),
        run=subpath(input.run, parent=True),
        out=subpath(output[0], parent=True),
        file=f"results/{DATASET}/params.json",
        settings=EXTRACTION["grid"],
    shell:
        "capscope features --params {params.file} --kind grid --data {params.data}"
        " --run {params.run} --out {params.out} 2>&1 | tee {log}"
