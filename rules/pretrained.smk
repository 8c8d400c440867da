# 2b. weights from elsewhere + card -> what a training leaves


rule adopt:
    input:
        data=bench.data,
    output:
        **NETWORK,
    log:
        f"{RUN}/adopt.log",
    wildcard_constraints:
        regularizer="pretrained",
    priority: bench.judged_at_once
    resources:
        gpu=bench.gpu,
    params:
        card=bench.card,
        weights=bench.weights,
        code=bench.adopting_code,
        folder=lambda wildcards, output: Path(output.card).parent,
    shell:
        "python -m regbench.adopt {params.card:q} --weights {params.weights:q}"
        " --data {input.data:q} --out {params.folder:q} > {log:q} 2>&1"
