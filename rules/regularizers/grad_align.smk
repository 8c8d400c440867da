use rule train as train_grad_align with:
    wildcard_constraints:
        regularizer="grad_align",
    params:
        card=bench.declare(
            "grad_align",
            label="GradAlign",
            loss="regbench.regularizers.grad_align:GradAlign",
            hyperparameters={"weight": 0.2},
            cost=lambda h, m: 3.5,
        ),
