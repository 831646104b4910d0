"""The device itself: streams, several GPUs, torch.compile, CUDA graphs, and memory when it runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from otcore import SamplesLoss, SinkhornDivergence, sinkhorn_divergence
from tests.problems import cloud
from tests.tolerance import assert_solved

Step = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


def pair(n: int, d: int, seed: int = 0, device: str = "cuda") -> tuple[Tensor, Tensor]:
    x, y = cloud(n, d, 2 * seed + 1), 0.8 * cloud(n + 10, d, 2 * seed + 2)
    return x.to(device, torch.float32).requires_grad_(), y.to(device, torch.float32)


def step(**options: Any) -> Step:
    """Value and gradient."""

    def call(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        value = sinkhorn_divergence(x, y, **options)
        return value.detach(), *torch.autograd.grad(value, x)

    return call


@pytest.mark.parametrize(("n", "d"), [(100, 3), (3000, 3), (500, 40)])
def test_the_same_bits_again_and_on_another_stream(n: int, d: int) -> None:
    x, y = pair(n, d)
    call = step(blur=0.1 * d**0.5)
    first, again = call(x, y), call(x, y)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        aside = call(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    for other in (again, aside):
        assert all(torch.equal(*both) for both in zip(first, other, strict=True))


@pytest.mark.parametrize("d", [3, 40])
def test_solves_on_two_streams_at_once(d: int) -> None:
    problems = [pair(800, d, seed) for seed in range(4)]
    call = step(blur=0.1 * d**0.5)
    alone = [call(*problem) for problem in problems]
    streams = [torch.cuda.Stream() for _ in problems]
    together = []
    for stream, problem in zip(streams, problems, strict=True):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            together.append(call(*problem))
    torch.cuda.synchronize()
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(*both) for both in zip(one, other, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
@pytest.mark.parametrize("d", [3, 40])
def test_points_on_another_than_the_current_device(d: int) -> None:
    call = step(blur=0.1 * d**0.5)
    first = call(*pair(300, d))
    other = call(*pair(300, d, device="cuda:1"))
    assert torch.cuda.current_device() == 0
    for one, two in zip(first, other, strict=True):
        assert two.device == torch.device("cuda:1")
        assert torch.equal(one.cpu(), two.cpu())


@pytest.mark.parametrize(
    ("loss", "d", "backend"),
    [
        (SinkhornDivergence(blur=0.2), 3, "inductor"),
        (SinkhornDivergence(blur=0.5), 40, "aot_eager"),
        (SamplesLoss(blur=0.2, diameter=2.0), 3, "aot_eager"),
    ],
    ids=str,
)
def test_compiled_whole(loss: Any, d: int, backend: str) -> None:
    def scaled(x: Tensor, y: Tensor) -> Tensor:
        return 2.0 * loss(x.tanh(), y)

    x, y = pair(200, d)
    expected = scaled(x, y)
    value = torch.compile(scaled, fullgraph=True, backend=backend)(x, y)
    assert_solved(value.cpu(), expected.cpu(), torch.float32)
    for got, wanted in zip(torch.autograd.grad(value, x), torch.autograd.grad(expected, x), strict=True):
        assert_solved(got.cpu(), wanted.cpu(), torch.float32)


def captured(call: Step, x: Tensor, y: Tensor) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
    """The graph of a call, and where its replays leave the results."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(x, y)
    return graph, out


@pytest.mark.parametrize("n", [100, 3000])
def test_a_solve_in_a_cuda_graph(n: int) -> None:
    """One launch where clouds are small, a loop in the graph where they are large; replayed on new points."""
    call = step(blur=0.1)
    x, y = pair(n, 3)
    graph, out = captured(call, x, y)
    for seed in (1, 2, 3):
        points = pair(n, 3, seed)
        with torch.no_grad():
            x.copy_(points[0])
            y.copy_(points[1])
        graph.replay()
        for got, wanted in zip(out, call(x, y), strict=True):
            assert torch.equal(got, wanted)


def test_a_replay_does_not_look_at_numbers() -> None:
    x, y = pair(100, 3)
    graph, (value, _) = captured(step(blur=0.1), x, y)
    with torch.no_grad():
        x[0, 0] = torch.nan
    graph.replay()
    assert value.isnan()


def test_a_fixed_schedule_in_a_cuda_graph() -> None:
    loss = SamplesLoss(blur=0.1, diameter=2.0)

    def call(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        value = loss(x, y)
        return value.detach(), *torch.autograd.grad(value, x)

    x, y = pair(300, 3)
    graph, out = captured(call, x, y)
    graph.replay()
    for got, wanted in zip(out, call(x, y), strict=True):
        assert torch.equal(got, wanted)


def test_what_cannot_be_captured_says_so() -> None:
    x, y = pair(100, 40)
    with (
        pytest.raises(RuntimeError, match=r"torch\.cuda\.graph|CUDA graph"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        sinkhorn_divergence(x, y, blur=0.5)
    torch.cuda.synchronize()
    assert sinkhorn_divergence(x, y, blur=0.5).isfinite()


@pytest.mark.parametrize("d", [3, 40])
def test_nothing_stays_allocated(d: int) -> None:
    """After a solve, and after one for which memory did not suffice, and then a small one works."""
    call = step(blur=0.1 * d**0.5)
    call(*pair(100, d))
    x, y = pair(400_000, d)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**22) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            call(x, y)
        gc.collect()
        assert torch.cuda.memory_allocated() == before
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    small = pair(100, d)
    before = torch.cuda.memory_allocated()
    results = call(*small)
    del results
    gc.collect()
    assert torch.cuda.memory_allocated() == before
