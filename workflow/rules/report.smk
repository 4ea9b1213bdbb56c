rule write_report:
    input:
        data="results/{dataset}/data/manifest.json",
        scores="results/{dataset}/scores/captions.csv",
        measures=expand("{run}/benchmarks/{measure}.csv", run=RUNS, measure=MEASURES),
        compared=expand("results/{{dataset}}/scores/{page}.html", page=COMPARED),
        published=PUBLISHED,
    output:
        page=report(
            "results/{dataset}/report/report.html",
            caption="../report/page.rst",
            category="Page",
            labels={"page": "captions and their explanations"},
        ),
        site=expand(
            "results/{{dataset}}/report/{page}.html",
            page=["index", "matrix", "gallery", "runs", "tables"] + COMPARED,
        ),
        parts=[
            directory("results/{dataset}/report/assets"),
            directory("results/{dataset}/report/gallery"),
            directory("results/{dataset}/report/runs"),
        ],
        tables=report(
            directory("results/{dataset}/report/tables"),
            patterns=["{table}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        figures=report(
            directory("results/{dataset}/report/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/{dataset}/logs/report.log",
    benchmark:
        "results/{dataset}/logs/report.tsv"
    conda:
        "../../envs/capscope.yaml"
    resources:
        mem_mb=by_attempt(2000),
    params:
        out=subpath(output.page, parent=True),
        file=f"results/{DATASET}/params.json",
        contents=[RUNS, MEASURES, PUBLISHED],
        settings=config["report"],
    shell:
        "capscope report --params {params.file} --results results/{wildcards.dataset}"
        " --out {params.out} 2>&1 | tee {log}"
