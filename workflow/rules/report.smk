rule write_report:
    input:
        data="results/{dataset}/data/manifest.json",
        scores="results/{dataset}/scores/captions.csv",
        measures=expand("{run}/benchmarks/{measure}.csv", run=RUNS, measure=MEASURES),
        published=PUBLISHED,
    output:
        page=report(
            "results/{dataset}/report/index.html",
            caption="../report/page.rst",
            category="Results",
            labels={"result": "captions and their explanations"},
        ),
    log:
        "results/{dataset}/logs/report.log",
    benchmark:
        "results/{dataset}/logs/report.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        mem_mb=2000,
    params:
        out=subpath(output.page, parent=True),
        file=f"results/{DATASET}/params.json",
        settings=config["report"],
    shell:
        "capscope report --params {params.file} --results results/{wildcards.dataset}"
        " --out {params.out} > {log} 2>&1"
