"""KeOps: a ground cost written as a formula, reduced in linear memory on the CPU or the GPU.

KeOps compiles a reduction the first time that it meets a formula with this dimension and dtype (some seconds)
and keeps it on disk; sizes, temperatures and floors are arguments of the compiled code. The items of a batch
are blocks of a block-sparse reduction over all points, one after another.

Every verb is exp(m_i) sum_j exp(l_ij - m_i) w_ij with l_ij = (f_i + g_j - C_ij) / eps + log b_j and m_i =
max_j l_ij: a pass for the maximum, then a compensated (Kahan) sum. KeOps's own log-sum-exp adds plainly when
it runs over blocks: at 20,000 points in float32 it is sixty times less accurate than torch. The costs 1 and 2
are made of differences of coordinates, so clouds need no centring.

Source: Charlier, Feydy, Glaunes, Collin, Durif, "Kernel operations on the GPU, with autodiff, without memory
overflows", JMLR 22 (2021).
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..problem import Cost, Problem

# T is the floor of cost 1. Where the distance is 0, KeOps's derivative of the root is 0.
_NAMED = {1: "Sqrt(T+ReLU(SqDist(X,Y)-T))", 2: "(SqDist(X,Y)/IntCst(2))"}
_EXAMPLES = '"Norm2(X-Y)", "SqDist(X,Y) / IntCst(2)" or "IntCst(1) - (X|Y)"'
# For log 0: far below any logit, and finite.
_LOG_OF_ZERO = -1e30
_PROBES = 16
_MOST_COLUMNS = 32


class Keops:
    """See `otcore.backends.Backend` for the verbs; `cost` is 1, 2 or a formula in X and Y.

    The formula is a scalar, symmetric in X and Y, which have D coordinates each: as in GeomLoss,
    "Norm2(X-Y)", "(SqDist(X,Y) / IntCst(2))", "(IntCst(1) - (X|Y))".

    Raises:
        ImportError: when made without pykeops or without a C++ compiler.
    """

    name = "keops"

    def __init__(self) -> None:
        if importlib.util.find_spec("pykeops") is None:
            raise ImportError("pykeops is not installed: pip install 'otcore[keops]'")
        compilers = [os.environ.get("CXX", ""), "g++", "clang++" if sys.platform == "darwin" else ""]
        if not any(name and shutil.which(name) for name in compilers):
            raise ImportError("KeOps compiles its formulas and finds no C++ compiler: install g++ or set CXX")

    def refuses(self, problem: Problem) -> str | None:
        if not isinstance(problem.cost, (int, str)):
            return 'the cost is a function; use a formula such as "Norm2(X-Y)"'
        if isinstance(problem.cost, int) and problem.backend != self.name:
            return 'the cost is no formula; for p=1 and p=2 it has to be asked for, with backend="keops"'
        device = problem.x.device.type
        if device == "cuda" and not _pykeops().config.gpu_available:
            return "the points are on the GPU and KeOps found no CUDA libraries"
        return None if device in ("cpu", "cuda") else f"the points are on {problem.x.device}"

    def softmin(
        self,
        x: Tensor,
        y: Tensor,
        g: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float | Tensor,
        floor: float = 0.0,
    ) -> Tensor:
        pairs = _checked(x, y, x.new_zeros(x.shape[:2]), g, b, cost, eps, floor)
        column = eps.unsqueeze(-1) if isinstance(eps, Tensor) else eps
        return -column * pairs.log_sums()

    def sweep(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float | Tensor,
        same: bool = False,
        floor: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        log_r = _checked(x, y, f, g, b, cost, eps, floor).log_sums()
        return log_r, log_r if same else _checked(y, x, g, f, a, cost, eps, floor).log_sums()

    def apply(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        v: Tensor,
        *,
        cost: Cost,
        eps: float,
        floor: float = 0.0,
    ) -> Tensor:
        pairs, width = _checked(x, y, f, g, b, cost, eps, floor), v.shape[-1]
        # Few widths are compiled: powers of two, the columns that are missing being 0.
        step = min(_MOST_COLUMNS, 1 << (width - 1).bit_length())
        padded = torch.nn.functional.pad(v.to(x.dtype), (0, -width % step))
        sums = torch.cat([pairs.sums("*V", part) for part in padded.chunk(padded.shape[-1] // step, -1)], -1)
        return a.unsqueeze(-1) * pairs.largest.exp() * sums[..., :width]

    def grad(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        a: Tensor,
        b: Tensor,
        *,
        cost: Cost,
        eps: float,
        normalise: bool = False,
        floor: float = 0.0,
    ) -> Tensor:
        slope = f"Grad({_formula(cost)},X,IntCst(1))"
        pairs = _checked(x, y, f, g, b, cost, eps, floor)
        sums = pairs.sums(f"*Concat(IntCst(1),{slope})")
        if normalise:
            return sums[..., 1:] / sums[..., :1]
        return a.unsqueeze(-1) * pairs.largest.exp() * sums[..., 1:]


class _Pairs:
    """The logits l_ij = (f_i + g_j - C_ij) / eps + log b_j of a batch, as the arguments of KeOps."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        f: Tensor,
        g: Tensor,
        b: Tensor,
        cost: Cost,
        eps: float | Tensor,
        floor: float,
    ) -> None:
        batch, n, d = x.shape
        self.rows, self.dimension = (batch, n), d
        self.logit = f"(F+G-{_formula(cost)})*S+L"
        inverse = 1.0 / torch.as_tensor(eps, dtype=torch.float64, device=x.device)
        columns = (f, g, b.log().clamp(min=_LOG_OF_ZERO), inverse.view(-1, 1).expand(batch, n))
        self.arguments = [
            *(_points(t) for t in (x, y)),
            *(_points(t.to(x.dtype).unsqueeze(-1)) for t in columns),
            x.new_full((1,), floor),
        ]
        self.ranges = _blocks(batch, n, y.shape[1], x.device)

    @cached_property
    def largest(self) -> Tensor:
        """m_i = max_j l_ij, (B, N, 1)."""
        return self._reduce(self.logit, "Max")

    def sums(self, weight: str = "", v: Tensor | None = None) -> Tensor:
        """sum_j exp(l_ij - m_i) w_ij, (B, N, K); the weight may use V, the columns of v (B, M, K)."""
        more = [_points(self.largest)] if v is None else [_points(self.largest), _points(v)]
        return self._reduce(f"Exp({self.logit}-M){weight}", "Sum", *more)

    def log_sums(self) -> Tensor:
        """log sum_j exp(l_ij), (B, N)."""
        return (self.largest + self.sums().log()).squeeze(-1)

    def _reduce(self, formula: str, operation: str, *more: Tensor) -> Tensor:
        arguments = [*self.arguments, *more]
        device = "CPU" if arguments[0].device.type == "cpu" else "GPU_1D"
        with _quiet(), torch.no_grad():
            reduction = _reduction(formula, operation, tuple(t.shape[-1] for t in arguments))
            try:
                reduced: Tensor = reduction(*arguments, ranges=self.ranges, backend=device)
            except ImportError as error:
                raise RuntimeError(
                    f"KeOps did not compile {formula!r} ({error}): its compiler may lack Python's headers; "
                    "pykeops.test_torch_bindings() tells more."
                ) from error
        return reduced.view(*self.rows, -1)


@cache
def _reduction(formula: str, operation: str, widths: tuple[int, ...]) -> Any:
    """The reduction over j; `widths` are the columns of its arguments, the first of `names`."""
    names = ("X=Vi", "Y=Vj", "F=Vi", "G=Vj", "L=Vj", "S=Vi", "T=Pm", "M=Vi", "V=Vj")
    aliases = [f"{name}({i},{k})" for i, (name, k) in enumerate(zip(names, widths, strict=False))]
    scheme = "kahan_scheme" if operation == "Sum" else "auto"
    return importlib.import_module("pykeops.torch").Genred(
        formula, aliases, reduction_op=operation, axis=1, sum_scheme=scheme, use_fast_math=False
    )


def _checked(x: Tensor, y: Tensor, f: Tensor, g: Tensor, b: Tensor, cost: Cost, *options: Any) -> _Pairs:
    """The pairs, once KeOps is known to take the cost."""
    if isinstance(cost, str):
        _check(cost, x.shape[-1], x.dtype, x.device)
    return _Pairs(x, y, f, g, b, cost, *options)


def _formula(cost: Cost) -> str:
    if isinstance(cost, str):
        return f"({cost})"
    if isinstance(cost, int):
        return _NAMED[cost]
    raise TypeError("KeOps takes formulas, not functions")


def _points(t: Tensor) -> Tensor:
    """(B, N, K) as (B N, K)."""
    return t.detach().reshape(-1, t.shape[-1]).contiguous()


@lru_cache(maxsize=64)
def _blocks(batch: int, n: int, m: int, device: torch.device) -> tuple[Tensor, ...]:
    """KeOps's `ranges`: rows [n k, n (k + 1)) meet columns [m k, m (k + 1))."""
    item = torch.arange(batch + 1, device=device)
    rows, columns = (torch.stack([size * item[:-1], size * item[1:]], 1) for size in (n, m))
    return rows, item[1:], columns, columns, item[1:], rows


@cache
def _pykeops() -> Any:
    """The module, imported when it is first needed: it probes compilers and GPUs, and says so on stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module("pykeops")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without KeOps's reports on what it compiles."""
    pykeops = _pykeops()
    before = pykeops.verbose
    pykeops.set_verbose(False)
    try:
        yield
    finally:
        pykeops.set_verbose(before)


@cache
def _check(cost: str, d: int, dtype: torch.dtype, device: torch.device) -> None:
    """Check that KeOps takes the formula, and that it is a scalar and symmetric in X and Y.

    Raises:
        ValueError: naming `cost`, what it was, and what would work.
    """
    reason = _flaw(cost, d)
    if reason is None:
        draw = torch.rand(2, _PROBES, 1, d, generator=torch.Generator().manual_seed(0))
        x, y = draw.to(device, dtype)
        zero, one = torch.zeros_like(x[..., 0]), torch.ones_like(x[..., 0])
        there, back = (_Pairs(*pair, zero, zero, one, cost, 1.0, 0.0).log_sums() for pair in ((x, y), (y, x)))
        if not torch.allclose(there, back, rtol=1e-3, atol=1e-5, equal_nan=True):
            reason = "it changes when X and Y are swapped"
    if reason is not None:
        raise ValueError(
            f"cost is {cost!r}: {reason}. Use a formula of KeOps with one value, symmetric in X and Y, "
            f"{d} coordinates each, such as {_EXAMPLES}."
        )


def _flaw(cost: str, d: int) -> str | None:
    """What is wrong with the formula, as far as that shows before anything is compiled."""
    with _quiet():
        formulas = importlib.import_module("keopscore.formulas")
        operation = importlib.import_module("keopscore.formulas.Operation").Operation
        parse = importlib.import_module("keopscore.formulas.GetReduction").GetReduction
        # KeOps evaluates formulas as Python: nothing but its own operations and whole numbers may pass.
        known = {"X", "Y", *(name for name, value in vars(formulas).items() if callable(value))}
        try:
            for node in ast.walk(ast.parse(cost.strip(), mode="eval")):
                if isinstance(node, ast.Name) and node.id not in known:
                    return f"KeOps has no {node.id}"
                if isinstance(node, ast.Constant) and type(node.value) is not int:
                    return f"{node.value!r} is not a whole number (a fraction p/q is RatCst(p, q))"
                if isinstance(node, ast.Attribute):
                    return f"KeOps has no {ast.unparse(node)}"
            formula = parse(
                f"Sum_Reduction({_formula(cost)},0)", [f"X=Var(0,{d},0)", f"Y=Var(1,{d},1)"]
            ).formula
        except Exception as error:
            reason = str(error).removeprefix("[KeOps] Error : ").split(" (error at line")[0]
            return f"KeOps cannot read it ({reason})"
    if not isinstance(formula, operation) or {v.ind for v in formula.Vars_} != {0, 1}:
        return "it is no operation on X and Y"
    return None if formula.dim == 1 else f"it has {formula.dim} values"
