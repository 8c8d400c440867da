# 2. images + run card -> weights, learning curve, run record


# What every training has in common. It matches no file itself: each file of rules/regularizers/
# declares one method by `use rule train as train_NAME with`, its own name and card.
rule train:
    input:
        data=bench.data,
    output:
        **NETWORK,
    log:
        f"{RUN}/train.log",
    wildcard_constraints:
        regularizer=r"(?!)",
    priority: bench.early_seeds_first
    resources:
        gpu=bench.gpu,
    params:
        card="",
        code=bench.training_code,
        folder=lambda wildcards, output: Path(output.card).parent,
    shell:
        "python -m regbench.train {params.card:q}"
        " --data {input.data:q} --out {params.folder:q} > {log:q} 2>&1"
