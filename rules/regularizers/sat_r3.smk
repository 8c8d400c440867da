use rule train as train_sat_r3 with:
    wildcard_constraints:
        regularizer="sat_r3",
    params:
        card=bench.declare(
            "sat_r3",
            label="SAT-R3",
            loss="regbench.regularizers.sat_r3:SATR3",
            hyperparameters={
                "weight": 1.0,
                "tau": 0.4,
                "alpha": 0.01,
                "epsilon_low": 0.1,
                "epsilon_high": 0.3,
                "projected": False,
            },
            cost=lambda h, m: 3,
        ),
