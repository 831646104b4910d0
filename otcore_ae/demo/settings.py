"""What the demo trains, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the weights of the latent terms are per model, everything else is shared.

    The published settings (Adam 1e-3, weights 0.1 and m / 600) are for 30,000 steps on MNIST. Here 1,680
    steps have to do, so the learning rate is four times as high, and each weight is the best of those tried
    by the global OT: 0.1 among 0.03 to 0.3 for the local model, 0.8 among 0.4 to 2.4 for the global.

    Args:
        epochs: of each model.
        evaluations: how many times a model is evaluated, evenly over the epochs.
        averaged: the table shows means over this many last evaluations.
        local_weight, global_weight: weights of the latent terms.
        hidden: widths of the networks' hidden layers.
        batch_size: rows a step.
        learning_rate: of Adam.
        prior_draws: prior samples per evaluation of the global OT.
    """

    epochs: int = 120
    evaluations: int = 60
    averaged: int = 10
    local_weight: float = 0.1
    global_weight: float = 0.8
    hidden: tuple[int, ...] = (256, 256, 256)
    batch_size: int = 100
    learning_rate: float = 4e-3
    prior_draws: int = 4

    @property
    def evaluate_every(self) -> int:
        """Epochs between two evaluations."""
        return max(1, self.epochs // self.evaluations)

    @property
    def trained_epochs(self) -> int:
        """`epochs`, cut to a whole number of evaluation intervals so that the last epoch is evaluated."""
        return self.epochs - self.epochs % self.evaluate_every


QUICK_EPOCHS = 12
