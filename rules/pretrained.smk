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
        weights=bench.weights,  # no param: a file that was moved makes nothing anew
    params:
        card=bench.card,
        code=bench.adopting_code,
        folder=lambda wildcards, output: Path(output.card).parent,
    shell:
        "python -m regbench.adopt {params.card:q} --weights {resources.weights:q}"
        " --data {input.data:q} --out {params.folder:q} > {log:q} 2>&1"
