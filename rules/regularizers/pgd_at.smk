use rule train as train_pgd_at with:
    wildcard_constraints:
        regularizer="pgd_at",
    params:
        card=bench.declare(
            "pgd_at",
            label="PGD-AT",
            loss="regbench.regularizers.pgd_at:PGDAT",
            hyperparameters={"steps": 40, "step_size": 0.01},
            cost=lambda h, m: h["steps"] + 1,
        ),
