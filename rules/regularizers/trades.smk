use rule train as train_trades with:
    wildcard_constraints:
        regularizer="trades",
    params:
        card=bench.declare(
            "trades",
            label="TRADES",
            loss="regbench.regularizers.trades:TRADES",
            hyperparameters={"weight": 6.0, "steps": 40, "step_size": 0.01},
            cost=lambda h, m: h["steps"] + 2.5,
        ),
