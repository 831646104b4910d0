"""Fresh random problems for the parity tests: hypothesis draws them and prints the failing one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor

# How long an example takes says nothing about whether it is right: no deadline. Failing ones are not shrunk,
# as every trial would run the peers again; the printed blob repeats one.
fresh = settings(
    derandomize=False,
    print_blob=True,
    deadline=None,
    max_examples=12,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Drawn:
    """A problem as SamplesLoss takes it. batch = 0: no batch dimension."""

    seed: int
    n: int
    m: int
    d: int
    batch: int
    p: int
    blur: float
    scaling: float
    debias: bool
    weighted: bool
    dead: bool  # some weights exactly zero
    shift: float

    @property
    def options(self) -> dict[str, object]:
        return {"p": self.p, "blur": self.blur, "scaling": self.scaling, "debias": self.debias}

    @property
    def _zero_is_negligible(self) -> bool:
        """GeomLoss writes -1e5 for log 0, which a cost above 1e5 eps outweighs: it then moves mass to
        points of zero weight."""
        reach = self.d**0.5 * (self.shift + 5)
        return reach**self.p / self.p < 5e4 * self.blur**self.p

    def points(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(self.seed)
        lead = (self.batch,) if self.batch else ()
        x = torch.randn(*lead, self.n, self.d, generator=draw, dtype=torch.float64)
        y = 0.7 * torch.rand(*lead, self.m, self.d, generator=draw, dtype=torch.float64) + self.shift
        # Values of fp32, so that every dtype sees the same problem.
        return x.float().to(dtype), y.float().to(dtype)

    def weights(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor] | None:
        """Weights that sum to one, or None for uniform ones."""
        if not self.weighted:
            return None
        draw = torch.Generator().manual_seed(self.seed + 1)
        return self._weights(self.n, draw, dtype), self._weights(self.m, draw, dtype)

    def _weights(self, n: int, draw: torch.Generator, dtype: torch.dtype) -> Tensor:
        lead = (self.batch,) if self.batch else ()
        raw = torch.rand(*lead, n, generator=draw, dtype=torch.float64) + 0.05
        if self.dead and n > 2 and self._zero_is_negligible:
            raw[..., n // 2] = 0
        # Multiples of 2^-20 that sum to one exactly, so that every dtype sees the same masses.
        steps = (raw / raw.sum(-1, keepdim=True) * 2**20).floor()
        steps[..., 0] += 2**20 - steps.sum(-1)
        return (steps / 2**20).to(dtype)


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    batched: bool = False,
    max_points: int = 60,
    debias: bool | None = None,
    p: int | None = None,
) -> Drawn:
    """Drawn problems; what is given is fixed, the rest varies."""
    return Drawn(
        seed=draw(st.integers(0, 2**31 - 1)),
        n=draw(st.integers(1, max_points)),
        m=draw(st.integers(1, max_points)),
        d=draw(st.sampled_from([1, 2, 3, 5, 16, 40])),
        batch=draw(st.integers(1, 4)) if batched else 0,
        p=draw(st.sampled_from([1, 2])) if p is None else p,
        blur=draw(st.sampled_from([0.05, 0.2, 1.0])),
        scaling=draw(st.sampled_from([0.3, 0.5, 0.7, 0.9])),
        debias=draw(st.booleans()) if debias is None else debias,
        weighted=draw(st.booleans()),
        dead=draw(st.booleans()),
        shift=draw(st.sampled_from([0.0, 0.3, 5.0])),
    )
