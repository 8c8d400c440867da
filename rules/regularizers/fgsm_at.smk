use rule train as train_fgsm_at with:
    wildcard_constraints:
        regularizer="fgsm_at",
    params:
        card=bench.declare(
            "fgsm_at",
            label="FGSM-AT",
            loss="regbench.regularizers.fgsm_at:FGSMAT",
            hyperparameters={},
            cost=lambda h, m: 2,
        ),
