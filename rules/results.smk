# 4. verdicts, diagnostics, curves and run records -> tables of rows


ROWS = expand(f"{REPORTS}/{{rows}}.parquet", rows=bench.rows)


rule collect:
    input:
        bench.files(),
    output:
        ROWS,
    log:
        f"results/logs/{bench.name}-collect.log",
    localrule: True
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
        manifest=bench.manifest_path,
        code=bench.code("regbench.collect"),
    shell:
        "python -m regbench.collect {params.manifest:q} --out {params.folder:q} > {log:q} 2>&1"


# One method alone, which report_figures then puts beside what the report holds already.
for method in bench.methods:

    rule:
        name:
            f"only_{method}"
        input:
            bench.files(method),
        localrule: True
