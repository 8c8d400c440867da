# 4. verdicts, curves and run records -> four tables of rows


ROWS = expand(
    f"{REPORTS}/{{rows}}.parquet", rows=["verdicts", "evaluations", "runs", "curves"]
)


rule collect:
    input:
        bench.files,
    output:
        ROWS,
    params:
        manifest=bench.manifest_path,
        code=bench.code("regbench.collect"),
    log:
        f"results/logs/{bench.name}-collect.log",
    localrule: True
    shell:
        "python -m regbench.collect {params.manifest:q} --out {REPORTS:q} > {log:q} 2>&1"
