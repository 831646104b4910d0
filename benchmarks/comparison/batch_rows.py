"""Many small problems in one call: time against GeomLoss, and what ragged sizes cost; second derivatives.

The ragged batch is judged against the time that its pairs need: the seconds that a pair takes in a regular
batch of as many items, times its pairs. A pair counts once for each sweep of its item, and those of the
self-terms, which are symmetric, count half.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from clouds import normal
from torch import Tensor

from . import peers
from .footprint_rows import LINEAR, _python
from .line import Check, Line, duration, size
from .machine import has_avx512
from .options import Options
from .schedule_rows import FP32_FLOOR, NARROW, TENSORIZED
from .timing import interleave

ITEMS, POINTS, DIMENSION = 256, 64, 8
BATCH_ROW = f"samples_loss batch {ITEMS}x{POINTS}x{DIMENSION}"
BATCH_BAR = 20.0
BATCH_OPTIONS: dict[str, Any] = {"p": 2, "blur": 0.05, "scaling": 0.7}

RAGGED_ROW = f"divergence ragged {ITEMS} x 16..512 x {DIMENSION}"
RAGGED_BAR = 1.2
SMALLEST, LARGEST = 16, 512
RAGGED_BLUR = 0.5

HVP_ROW = "memory hvp"
HVP_SIZES = (1000, 2000, 4000)

# Run in a fresh interpreter: one Hessian-vector product of the debiased divergence.
HVP = """
import json, pathlib, sys, time, torch
sys.path.append(str(pathlib.Path.cwd().parent))  # the clouds of tests/problems.py
from otcore import sinkhorn_divergence
from clouds import pair
from comparison.memory import peak_beyond

def product(x, y, u):
    (gradient,) = torch.autograd.grad(sinkhorn_divergence(x, y, blur=0.5, tol=1e-4), x, create_graph=True)
    return torch.autograd.grad((gradient * u).sum(), x)[0]

def points(n):
    x, y = (t.float() for t in pair("normal", n, 2))
    return x.requires_grad_(), y, torch.ones_like(x)

product(*points(100))
arguments = points(int(sys.argv[1]))
peak = peak_beyond(lambda: product(*arguments))
start = time.perf_counter()
h = product(*arguments)
seconds = time.perf_counter() - start
# The divergence has curvature 1/N along a common translation of x: each row of the product is the weight.
error = float((h * len(h) - 1).abs().max())
print(json.dumps({"peak": peak, "seconds": seconds, "error": error}))
"""
HVP_ERROR = 1e-2


def batch_lines(options: Options) -> Iterator[Line]:
    """SamplesLoss forward and backward, all items in one call."""
    if not options.wants_peer(TENSORIZED, has_bar=True):
        return
    x, y = (t.float() for t in _batch())
    ours, theirs = (_step(module, x, y) for module in ("otcore", "geomloss"))
    timings = interleave({"otcore": ours, TENSORIZED: theirs}, options.rounds)
    yield Line(
        row=BATCH_ROW,
        against=TENSORIZED,
        ours=duration(timings.median("otcore")),
        theirs=duration(timings.median(TENSORIZED)),
        figure=timings.ratio(TENSORIZED, "otcore"),
        bar=BATCH_BAR if has_avx512() else BATCH_BAR * NARROW,
        at_least=True,
        check=_same_as_geomloss(ours, theirs),
        detail=f"{timings.ratio_of_medians(TENSORIZED, 'otcore'):.3g} x of medians",
    )


def _batch() -> tuple[Tensor, Tensor]:
    x, y = (normal(ITEMS * POINTS, DIMENSION, seed).view(ITEMS, POINTS, DIMENSION) for seed in (0, 1))
    return x, 0.7 * y + 0.2


def _step(module: str, x: Tensor, y: Tensor) -> peers.Step:
    """The sum over the items of the SamplesLoss of otcore or GeomLoss, and its gradient."""
    if module == "otcore":
        from otcore import SamplesLoss

        loss = SamplesLoss("sinkhorn", **BATCH_OPTIONS)
    else:
        from geomloss import SamplesLoss

        loss = SamplesLoss("sinkhorn", backend="tensorized", **BATCH_OPTIONS)
    return peers.value_and_gradient(lambda u, v: loss(u, v).sum(), x, y)


def _same_as_geomloss(ours: peers.Step, theirs: peers.Step) -> Check:
    """Our fp32 sum and gradient against GeomLoss's in fp64: at most twice GeomLoss's own error in fp32."""
    exact = _step("geomloss", *_batch())()
    texts, ok = [], True
    for what, found, peer, reference in zip(("value", "gradient"), ours(), theirs(), exact, strict=True):
        scale = reference.norm()
        error, allowed = (float((t.double() - reference).norm() / scale) for t in (found, peer))
        allowed = max(2 * allowed, FP32_FLOOR)
        ok = ok and error <= allowed
        texts.append(f"{what} {error:.1e} of {allowed:.1e}")
    return Check(ok, "error " + ", ".join(texts))


def ragged_lines(options: Options) -> Iterator[Line]:
    """One ragged call, forward and backward, against the time that its pairs need."""
    draw = torch.Generator().manual_seed(0)
    n, m = (torch.randint(SMALLEST, LARGEST + 1, (ITEMS,), generator=draw).tolist() for _ in range(2))
    ragged = _items(n, 0), [0.7 * y + 0.2 for y in _items(m, 1)]
    even = round(math.sqrt(sum(map(_pairs, n, m)) / ITEMS / 2))
    regular = tuple(
        torch.stack(list(side)) for side in (_items([even] * ITEMS, 0), _items([even] * ITEMS, 1))
    )
    regular = regular[0], 0.7 * regular[1] + 0.2
    needed = _work(ragged, n, m) / _work(regular, [even] * ITEMS, [even] * ITEMS)
    timings = interleave({"ragged": _solve(ragged), "regular": _solve(regular)}, options.rounds)
    yield Line(
        row=RAGGED_ROW,
        against=f"its pairs, at the speed of {ITEMS} x {even}",
        ours=duration(timings.median("ragged")),
        theirs=duration(timings.median("regular") * needed),
        figure=timings.ratio("ragged", "regular") / needed,
        bar=RAGGED_BAR,
        at_least=False,
        check=_same_one_by_one(ragged),
        detail=f"{needed:.3g} x the regular batch's pairs and sweeps",
    )


def _items(sizes: list[int], seed: int) -> list[Tensor]:
    return list(normal(sum(sizes), DIMENSION, seed).float().split(sizes))


def _pairs(n: int, m: int) -> float:
    """Pairs of one sweep over x-y and the two self-terms."""
    return n * m + 0.5 * (n * n + m * m)


def _work(clouds: Any, n: list[int], m: list[int]) -> float:
    """Pairs times sweeps, over the items."""
    from otcore import sinkhorn_divergence

    solution = sinkhorn_divergence(*clouds, blur=RAGGED_BLUR, return_solution=True)
    sweeps = torch.as_tensor(solution.n_iter).tolist()
    return sum(_pairs(*counts) * times for *counts, times in zip(n, m, sweeps, strict=True))


def _solve(clouds: Any) -> Callable[[], object]:
    from otcore import sinkhorn_divergence

    x, y = clouds
    x = [t.requires_grad_() for t in x] if isinstance(x, list) else x.requires_grad_()

    def step() -> object:
        value = sinkhorn_divergence(x, y, blur=RAGGED_BLUR).sum()
        return torch.autograd.grad(value, x)

    return step


def _same_one_by_one(clouds: tuple[list[Tensor], list[Tensor]]) -> Check:
    """Some items of the ragged call against calls of their own."""
    from otcore import sinkhorn_divergence

    together = sinkhorn_divergence(*clouds, blur=RAGGED_BLUR)
    chosen = range(0, ITEMS, 16)
    alone = torch.stack([sinkhorn_divergence(clouds[0][i], clouds[1][i], blur=RAGGED_BLUR) for i in chosen])
    error = float(((together[list(chosen)] - alone) / alone).abs().max())
    return Check(error <= 1e-5, f"value off by {error:.1e} from single calls")


def hvp_lines(_: Options) -> Iterator[Line]:
    """Peak memory beyond the inputs of a Hessian-vector product, at growing N."""
    measured = [json.loads(_python(HVP, str(n))) for n in HVP_SIZES]
    peaks = [max(1, result["peak"]) for result in measured]
    error, seconds = max(result["error"] for result in measured), measured[1]["seconds"]
    n = HVP_SIZES[-1]
    yield Line(
        row=HVP_ROW,
        against=f"N = {', '.join(str(n) for n in HVP_SIZES)}",
        ours=", ".join(size(peak) for peak in peaks),
        theirs=f"matrix {size(4.0 * n * n)}",
        figure=math.log(peaks[-1] / peaks[0]) / math.log(HVP_SIZES[-1] / HVP_SIZES[0]),
        bar=LINEAR,
        at_least=False,
        check=Check(error <= HVP_ERROR, f"along a translation off by {error:.0e}"),
        unit="(exponent of N)",
        detail=f"{peaks[-1] / (2 * n):.0f} bytes a point; N = {HVP_SIZES[1]} in {duration(seconds)}",
    )


ROWS = {BATCH_ROW: batch_lines, RAGGED_ROW: ragged_lines, HVP_ROW: hvp_lines}
