use rule train as train_sat_r1 with:
    wildcard_constraints:
        regularizer="sat_r1",
    params:
        card=bench.declare(
            "sat_r1",
            label="SAT-R1",
            loss="regbench.regularizers.sat_r1:SATR1",
            hyperparameters={"weight": 0.2, "steps": 10},
            cost=lambda h, m: 2 + h["steps"] / m,
        ),
