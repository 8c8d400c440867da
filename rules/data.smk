# 1. data set card -> training, validation and test images


rule data:
    output:
        "results/{dataset}/data-{key}.safetensors",
    log:
        "results/{dataset}/data-{key}.log",
    # a data set that is not to be had shows before anything is trained
    priority: bench.data_first
    params:
        card=bench.data_card,
        code=bench.data_code,
    shell:
        "python -m regbench.prepare {params.card:q} --out {output:q} > {log:q} 2>&1"
