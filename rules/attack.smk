# 3. weights + suite card -> one verdict per attack and image


# `use rule` replaces all inputs or none
JUDGED = {
    "data": bench.data,
    "card": f"{RUN}/card.json",
    "best": f"{RUN}/best.safetensors",
    "last": f"{RUN}/last.safetensors",
    "sources": bench.sources,
}


rule attack:
    input:
        **JUDGED,
        pieces=bench.pieces,
    output:
        f"{RUN}/{{suite}}-{{key}}.parquet",
    log:
        f"{RUN}/{{suite}}-{{key}}.log",
    priority: bench.judged_at_once
    resources:
        gpu=bench.gpu,
    params:
        card=bench.suite_card,
        code=bench.attack_code,
        folder=lambda wildcards, input: Path(input.card).parent,
        sources=bench.source_option,
        verdicts=lambda wildcards, output: output[0],
        piece="",
    shell:
        "python -m regbench.attack {params.card:q} --run {params.folder:q} {params.sources}"
        " --data {input.data:q} --out {params.verdicts:q} {params.piece} > {log:q} 2>&1"


# One piece of an attack that the config cuts into `pieces:`, which the suite's job then finds.
# Not scattergather: its number is one for all, and --set-scatter would change verdicts.
use rule attack as attack_piece with:
    input:
        **JUDGED,
    output:
        temp(f"{RUN}/{{suite}}-{{key}}.parts/{{attack}}-{{piece}}.parquet"),
    log:
        f"{RUN}/{{suite}}-{{key}}-{{attack}}-{{piece}}.log",
    params:
        verdicts=lambda wildcards, output: Path(output[0]).parent.with_suffix(
            ".parquet"
        ),
        piece="--piece {attack} {piece}",
