"""The name under which RobustBench looks for AutoAttack's state."""

from pyautoattack.state import EvaluationState

__all__ = ["EvaluationState"]
