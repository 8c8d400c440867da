# 3b. weights + diagnosis card -> what tells masked gradients from robustness, and a few images


rule diagnose:
    input:
        data=bench.data,
        card=f"{RUN}/card.json",
        best=f"{RUN}/best.safetensors",
        last=f"{RUN}/last.safetensors",
    output:
        diagnostics=f"{RUN}/diagnostics-{{key}}.parquet",
        gallery=f"{RUN}/gallery-{{key}}.parquet",
    log:
        f"{RUN}/diagnostics-{{key}}.log",
    priority: bench.judged_at_once
    resources:
        gpu=bench.gpu,
    params:
        card=bench.diagnosis_card,
        code=bench.diagnosis_code,
        folder=lambda wildcards, input: Path(input.card).parent,
    shell:
        "python -m regbench.diagnose {params.card:q} --run {params.folder:q}"
        " --data {input.data:q} --out {output.diagnostics:q} --gallery {output.gallery:q}"
        " > {log:q} 2>&1"
