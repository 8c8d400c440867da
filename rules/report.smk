# 5. rows -> tables and figures; `snakemake --report FILE` binds them into one HTML file


FIGURES = expand(f"{REPORTS}/figures/{{figure}}.png", figure=bench.members("figures"))
TABLES = expand(
    f"{REPORTS}/{{table}}",
    table=["summary.md", "accuracy.csv", "results.csv", "accuracy.md", "accuracy.tex"],
)


rule tables:
    input:
        ROWS,
    output:
        report(
            TABLES[:3],
            category="Tables",
            caption="../reports/tables.rst",
            labels={"table": "{table}"},
        ),
        TABLES[3:],
    params:
        gap=bench.gap,
        code=bench.code("regbench.tables", "regbench.rows", "regbench.summary"),
    log:
        f"results/logs/{bench.name}-tables.log",
    localrule: True
    shell:
        "python -m regbench.tables {REPORTS:q} {params.gap} > {log:q} 2>&1"


rule figures:
    input:
        ROWS,
    output:
        report(FIGURES, category="Figures", caption="../reports/figures.rst"),
    params:
        code=bench.code("regbench.figures", "regbench.rows", *bench.modules("figures")),
    log:
        f"results/logs/{bench.name}-figures.log",
    localrule: True
    shell:
        "python -m regbench.figures {REPORTS:q} > {log:q} 2>&1"


# Everything above the verdicts drawn anew from what lies here, finished or not: it asks for no
# file, so it can train nothing, and it needs no GPU.
rule report_figures:
    params:
        manifest=bench.manifest_path,
        gap=bench.gap,
    localrule: True
    shell:
        "python -m regbench.collect {params.manifest:q} --out {REPORTS:q} --partial"
        " && python -m regbench.tables {REPORTS:q} {params.gap}"
        " && python -m regbench.figures {REPORTS:q}"
