"""Trained networks attacked and diagnosed, and the referee's verdicts."""
