use rule train as train_sat_r2 with:
    wildcard_constraints:
        regularizer="sat_r2",
    params:
        card=bench.declare(
            "sat_r2",
            label="SAT-R2",
            loss="regbench.regularizers.sat_r2:SATR2",
            hyperparameters={"weight": 5.0, "alpha": 0.01, "projected": False},
            cost=lambda h, m: 4,
        ),
