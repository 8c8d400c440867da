# 3. weights + suite card -> one verdict per attack and image


rule attack:
    input:
        data=bench.data,
        card=f"{RUN}/card.json",
        best=f"{RUN}/best.safetensors",
        last=f"{RUN}/last.safetensors",
        sources=bench.sources,
    output:
        f"{RUN}/{{suite}}-{{key}}.parquet",
    log:
        f"{RUN}/{{suite}}-{{key}}.log",
    resources:
        gpu=bench.gpu,
    params:
        card=bench.suite_card,
        code=bench.attack_code,
        folder=lambda wildcards, input: Path(input.card).parent,
        sources=bench.source_option,
    shell:
        "python -m regbench.attack {params.card:q} --run {params.folder:q}"
        " {params.sources} --data {input.data:q} --out {output:q} > {log:q} 2>&1"
