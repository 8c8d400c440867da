use rule train as train_natural with:
    wildcard_constraints:
        regularizer="natural",
    params:
        card=bench.declare(
            "natural",
            label="natural",
            loss="regbench.regularizers.natural:Natural",
            hyperparameters={},
            cost=lambda h, m: 1,
        ),
