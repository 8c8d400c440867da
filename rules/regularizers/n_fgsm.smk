use rule train as train_n_fgsm with:
    wildcard_constraints:
        regularizer="n_fgsm",
    params:
        card=bench.declare(
            "n_fgsm",
            label="N-FGSM",
            loss="regbench.regularizers.n_fgsm:NFGSM",
            hyperparameters={"relative_noise": 2.0, "relative_step": 1.0},
            cost=lambda h, m: 2,
        ),
