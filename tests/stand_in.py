"""Other kernels in the place of the CPU's: the whole suite then tests those.

OTCORE_TEST_KERNELS=cuda or triton runs what the tests ask of the backend `cpu` on the GPU: tensors go there
and results come back. OTCORE_TEST_KERNELS=emulated runs it in the emulation of the CUDA kernels, on the host.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from otcore import backends
from otcore.backends.cpu import Cpu
from otcore.problem import Problem
from otcore.solution import Potentials, Solved

VARIABLE = "OTCORE_TEST_KERNELS"
_VERBS = ("softmin", "sweep", "apply", "grad")
# Whole operations that Python's form does on the verbs.
_OPTIONAL = ("anneal", "follow", "gradients", "diameter")


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Problem):
        tensors = {
            name: _moved(getattr(value, name), device) for name in ("x", "y", "a", "b", "init") if name
        }
        return dataclasses.replace(value, **tensors)
    if isinstance(value, Potentials | Solved):
        return type(value)(*(_moved(part, device) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(_moved(part, device) for part in value)
    return value


def _kernels(wanted: str, dimensions: int) -> Any:
    if wanted == "emulated":
        from tests.kernels.emulated import emulated

        return emulated() if dimensions <= 16 else backends.load("dense")
    return backends.load("triton" if dimensions > 16 else wanted)


def _through(wanted: str, verb: str) -> Callable[..., Any]:
    device = "cpu" if wanted == "emulated" else "cuda"

    def call(self: Cpu, *args: Any, **options: Any) -> Any:
        points = args[0].x if isinstance(args[0], Problem) else args[0]
        method = getattr(_kernels(wanted, points.shape[-1]), verb)
        moved = {name: _moved(value, device) for name, value in options.items()}
        return _moved(method(*(_moved(value, device) for value in args), **moved), "cpu")

    return call


def install() -> None:
    """Replace the CPU kernels by those that the environment names, if it does."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    if wanted != "emulated" and not torch.cuda.is_available():
        raise RuntimeError(f"{VARIABLE}={wanted} needs a GPU, and torch finds none")
    for verb in _VERBS:
        setattr(Cpu, verb, _through(wanted, verb))
    for whole in _OPTIONAL:
        if hasattr(Cpu, whole):
            delattr(Cpu, whole)
    if wanted in ("emulated", "cuda"):
        from otcore.operators import point_gradients
        from otcore.solver import anneal

        Cpu.anneal = _whole(wanted, "anneal", anneal)  # type: ignore[method-assign]
        Cpu.gradients = _whole(wanted, "gradients", point_gradients)  # type: ignore[method-assign]


def _whole(wanted: str, operation: str, reference: Callable[..., Any]) -> Callable[..., Any]:
    """The operation of the CUDA backend; in more dimensions than it has, Python's form."""
    through = _through(wanted, operation)

    def call(self: Cpu, problem: Problem, *rest: Any) -> Any:
        if problem.x.shape[-1] <= 16:
            return through(self, problem, *rest)
        return reference(backends.load("dense"), problem, *rest)

    return call
