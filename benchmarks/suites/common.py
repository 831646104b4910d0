"""What the suites share: the grid of sizes, and arguments for the verbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from clouds import pair
from torch import Tensor

BACKENDS = ["cpu", "dense"]
LARGEST_DENSE = 2**24  # numbers in the largest array the dense backend may make here: 64 MiB in fp32


def load(name: str) -> Any:
    """The backend; NotImplementedError, which asv takes as "skip", when it is not usable here."""
    from otcore import backends

    backend = backends.load(name)
    if isinstance(backend, str):
        raise NotImplementedError(backend)
    return backend


class Verb:
    """One verb of the Backend protocol on one problem. A subclass defines `call`.

    The potentials are those after eight averaged updates, so that the plan looks as it does in a solve.
    """

    params: tuple[list[Any], ...] = (BACKENDS, [500, 5000], [2, 64], [0.05, 0.5])
    param_names = ("backend", "N", "D", "blur")
    timeout = 120
    warmup_time = 0.05
    dense_width = 1  # numbers a pair needs in the dense backend: 1, or D where it stores differences

    def setup(self, backend: str, n: int, d: int, blur: float) -> None:
        if backend == "dense" and n * n * (d if self.dense_width > 1 else 1) > LARGEST_DENSE:
            raise NotImplementedError("too large for the dense backend")
        self.backend = load(backend)
        self.eps = blur**2
        x, y = (points.float().unsqueeze(0) for points in pair("uniform", n, d))
        a = torch.full((1, n), 1 / n)
        f, g = torch.zeros(1, n), torch.zeros(1, n)
        for _ in range(8):
            log_r, log_c = self.backend.sweep(x, y, f, g, a, a, cost=2, eps=self.eps)
            f, g = f - self.eps * log_r / 2, g - self.eps * log_c / 2
        self.problem = (x, y, f, g, a, a)

    def call(self) -> object:
        raise NotImplementedError


def solver_step(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Callable[[], object]:
    """Forward and backward."""
    x = x.requires_grad_()
    return lambda: torch.autograd.grad(loss(x, y), x)
