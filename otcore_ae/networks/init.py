"""Weight initialisation of the Global-SAE experiments."""

from __future__ import annotations

from torch import nn


def kaiming_init(module: nn.Module) -> nn.Module:
    """Kaiming-normal weights and zero biases on every Linear and Conv2d; all else keeps PyTorch's default.

    ConvTranspose2d is left alone, as in the published code. Changes `module` in place and returns it.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module
