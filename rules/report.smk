# 5. rows -> tables and figures; `snakemake --report FILE` binds them into one HTML file


FIGURES = expand(f"{REPORTS}/figures/{{figure}}.png", figure=bench.members("figures"))
TABLES = expand(
    f"{REPORTS}/{{table}}",
    table=[
        "summary.md",
        "accuracy.csv",
        "published.csv",
        "results.csv",
        "doubts.csv",
        "intervals.csv",
        "comparisons.csv",
        "masking.csv",
        "costs.csv",
        "accuracy.md",
        "accuracy.tex",
        "published.md",
    ],
)
PUBLISHED = expand(
    f"{workflow.basedir}/config/{{numbers}}.yaml",
    numbers=["published", "leaderboard"],
)
PAGE = f"{REPORTS}/index.html"


rule tables:
    input:
        rows=ROWS,
        published=PUBLISHED,
    output:
        report(
            TABLES[:9],
            category="Tables",
            caption="../reports/tables.rst",
        ),
        TABLES[9:],
    log:
        f"results/logs/{bench.name}-tables.log",
    localrule: True
    params:
        folder=lambda wildcards, input: Path(input.rows[0]).parent,
        gap=bench.gap,
        comparing=bench.comparing,
        manifest=bench.manifest_path,
        code=bench.code("regbench.tables"),
    shell:
        "python -m regbench.tables {params.folder:q} {params.gap} {params.comparing}"
        " --published {input.published:q} --manifest {params.manifest:q} > {log:q} 2>&1"


rule figures:
    input:
        ROWS,
    output:
        report(FIGURES, category="Figures", caption="../reports/figures.rst"),
        [figure.replace(".png", ".pdf") for figure in FIGURES],
    log:
        f"results/logs/{bench.name}-figures.log",
    localrule: True
    params:
        folder=lambda wildcards, input: Path(input[0]).parent,
        code=bench.code("regbench.figures.__main__", *bench.modules("figures")),
    shell:
        "python -m regbench.figures {params.folder:q} > {log:q} 2>&1"


rule page:
    input:
        rows=ROWS,
        figures=FIGURES,
        published=PUBLISHED,
        templates=expand(
            f"{workflow.basedir}/regbench/report/templates/page.{{kind}}",
            kind=["html", "css", "js"],
        ),
    output:
        PAGE,
    log:
        f"results/logs/{bench.name}-page.log",
    localrule: True
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
        gap=bench.gap,
        comparing=bench.comparing,
        manifest=bench.manifest_path,
        configfiles=bench.configfiles,
        code=bench.code("regbench.page"),
    shell:
        "python -m regbench.page {params.folder:q} {params.gap} {params.comparing}"
        " --published {input.published:q}"
        " --manifest {params.manifest:q} {params.configfiles} > {log:q} 2>&1"


# Everything above the verdicts drawn anew from what lies here, finished or not: it asks for no
# file, so it can train nothing, and it needs no GPU. What the stored report holds beyond the config
# is never dropped.
rule report_figures:
    log:
        f"results/logs/{bench.name}-report_figures.log",
    localrule: True
    params:
        reports=REPORTS,
        manifest=bench.manifest_path,
        gap=bench.gap,
        comparing=bench.comparing,
        published=PUBLISHED,
        configfiles=bench.configfiles,
        replace="",
    shell:
        "(python -m regbench.collect {params.manifest:q} --out {params.reports:q} --partial"
        " {params.replace}"
        " && python -m regbench.tables {params.reports:q} {params.gap} {params.comparing}"
        " --published {params.published:q} --manifest {params.manifest:q}"
        " && python -m regbench.figures {params.reports:q}"
        " && python -m regbench.page {params.reports:q} {params.gap} {params.comparing}"
        " --published {params.published:q}"
        " --manifest {params.manifest:q} {params.configfiles}) 2>&1 | tee {log:q}"


# The same, but what the stored report holds beyond the config goes.
use rule report_figures as replace_report with:
    params:
        replace="--replace",
