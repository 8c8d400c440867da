use rule train as train_fgsm_rs with:
    wildcard_constraints:
        regularizer="fgsm_rs",
    params:
        card=bench.declare(
            "fgsm_rs",
            label="FGSM-RS",
            loss="regbench.regularizers.fgsm_rs:FGSMRS",
            hyperparameters={"relative_step": 1.25},
            cost=lambda h, m: 2,
        ),
