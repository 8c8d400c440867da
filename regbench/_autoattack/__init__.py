"""`autoattack` for RobustBench, which imports that name but is published with `pyautoattack`.

RobustBench 1.1.1 imports `autoattack` (not on PyPI) and asks pip for `pyautoattack`, the same
attacks under another interface. This package gives the latter the interface of the former
(github.com/fra31/auto-attack), so that `import robustbench` and `robustbench.benchmark` work
after a plain pip install. A real `autoattack` that is installed comes first.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import pyautoattack
import torch

__all__ = ["AutoAttack"]


class AutoAttack(pyautoattack.AutoAttack):
    """pyautoattack's AutoAttack under the names that RobustBench calls, its attacks untouched."""

    def __init__(
        self,
        model: torch.nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: torch.device | str = "cuda",
        log_path: str | Path | None = None,
    ) -> None:
        if is_tf_model:
            raise ValueError("TensorFlow models are not supported here; wrap the model in PyTorch")
        super().__init__(
            model,
            attacks=list(attacks_to_run) or None,
            device=device,
            eps=eps,
            norm=norm,
            seed=seed,
            version=version,
        )
        if log_path is not None:
            self.logger.addHandler(logging.FileHandler(log_path))
        if verbose:
            self.logger.setLevel(logging.DEBUG)

    def run_standard_evaluation(
        self,
        x_orig: torch.Tensor,
        y_orig: torch.Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: Path | None = None,
        batch_size: int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the adversarial images; with `return_labels`, the predictions too."""
        x_adv, y_adv = super().run_standard_evaluation(
            x_orig, y_orig, batch_size=batch_size or bs, state_path=state_path
        )
        # pyautoattack's own run_standard_evaluation_individual expects the pair
        return (x_adv, y_adv) if return_labels or batch_size else x_adv
