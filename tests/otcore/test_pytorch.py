"""What PyTorch users expect of an operation: autocast, copies, threads, gradient modes, clear refusals."""

from __future__ import annotations

import copy
import io
import pickle
import threading
import time
import warnings

import pytest
import torch
from torch import Tensor

import otcore
from tests.problems import cloud, weights

X, Y = cloud(40, 3, 0).float(), cloud(30, 3, 1).float()
LOSSES = {
    "divergence": otcore.SinkhornDivergence(blur=0.1),
    "samples_loss": otcore.SamplesLoss(blur=0.1),
    "cosine": otcore.SinkhornDivergence(blur=0.1, cost="cosine"),
    "function": otcore.SinkhornDivergence(blur=0.1, cost=torch.cdist),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("backend", ["auto", "dense"])
def test_autocast_changes_nothing(name: str, backend: str) -> None:
    loss = copy.deepcopy(LOSSES[name])
    loss.backend = backend
    results = []
    for enabled in (False, True):
        x = X.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            value = loss(x, Y)
        value.backward()
        results.append((value, x.grad))
    for wanted, got in zip(*results, strict=True):
        assert torch.equal(got, wanted)


def test_autocast_takes_what_its_layers_give() -> None:
    layer = torch.nn.Linear(3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = layer(X)
        value = otcore.sinkhorn_divergence(latents, Y)
    assert latents.dtype == torch.bfloat16
    assert value.dtype == torch.float32
    value.backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("name", ["divergence", "samples_loss", "cosine"])
def test_copies_and_pickles(name: str) -> None:
    loss = LOSSES[name]
    wanted = loss(X, Y)
    assert torch.equal(copy.deepcopy(loss)(X, Y), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(loss))(X, Y), wanted)
    buffer = io.BytesIO()
    torch.save(loss.state_dict(), buffer)


def test_a_solution_can_be_stored() -> None:
    s = otcore.sinkhorn_divergence(X, Y, return_solution=True)
    again = pickle.loads(pickle.dumps(s))
    assert torch.equal(again.transport(), s.transport())
    warm = otcore.sinkhorn_divergence(X, Y, init=again, return_solution=True)
    assert warm.n_iter == 1


def test_same_bits_for_every_number_of_threads() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x = cloud(700, 2, 0).float().requires_grad_()
            value = otcore.sinkhorn_divergence(x, cloud(600, 2, 1).float(), blur=0.05)
            batch = [cloud(20 + 30 * i, 2, i).float().requires_grad_() for i in range(5)]
            ragged = otcore.sinkhorn_divergence(batch, batch[::-1], blur=0.1)
            results.append([value, ragged, *torch.autograd.grad(value + ragged.sum(), [x, *batch])])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_other_python_threads_run_meanwhile(part: str) -> None:
    x = cloud(3000, 16, 0).float().requires_grad_()
    y = cloud(3000, 16, 1).float()
    loss = otcore.SamplesLoss(blur=0.01, scaling=0.97 if part == "forward" else 0.1)
    value = loss(x, y) if part == "backward" else None
    span: list[float] = []

    def work() -> None:
        span.append(time.perf_counter())
        if value is None:
            loss(x, y)
        else:
            value.backward()
        span.append(time.perf_counter())

    worker = threading.Thread(target=work)
    ticks = [time.perf_counter()]
    worker.start()
    while worker.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.0005)
    within = [t for t in ticks if span[0] < t < span[1]]
    # Were the lock of the interpreter held, this thread would not have run at all in between.
    assert len(within) > 5


def test_no_grad_is_no_grad() -> None:
    x = X.clone().requires_grad_()
    with torch.no_grad():
        assert not otcore.sinkhorn_divergence(x, Y).requires_grad
    with torch.inference_mode():
        assert not otcore.sinkhorn_divergence(x, Y).requires_grad
    assert torch.is_grad_enabled()


def test_devices_must_agree() -> None:
    with pytest.raises(ValueError, match=r"x is on cpu and y on meta"):
        otcore.sinkhorn_divergence(X, Y.to("meta"))
    with pytest.raises(ValueError, match=r"a is on meta and x on cpu"):
        otcore.sinkhorn_divergence(X, Y, weights(40, 2).float().to("meta"), weights(30, 3).float())


TRANSFORMS = {
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "grad": torch.func.grad,
    "vmap": lambda f: lambda x: torch.func.vmap(f)(x.unsqueeze(0)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_compiled_transforms_are_refused(name: str) -> None:
    """PyTorch cannot trace them through an operator; for jvp it would give zeros in silence."""

    def value(x: Tensor) -> Tensor:
        return otcore.sinkhorn_divergence(x, Y)

    transformed = TRANSFORMS[name](value)
    assert transformed(X).abs().sum() > 0
    with pytest.raises(Exception, match=r"cannot trace torch\.func transforms"):
        torch.compile(transformed, fullgraph=True)(X)


def test_compile_with_changing_shapes() -> None:
    compiled = torch.compile(otcore.sinkhorn_divergence, fullgraph=True, dynamic=True)
    for n in (20, 33, 47):
        x = cloud(n, 3, n).float().requires_grad_()
        compiled(x, Y).backward()
        other = x.detach().clone().requires_grad_()
        otcore.sinkhorn_divergence(other, Y).backward()
        torch.testing.assert_close(x.grad, other.grad)


def test_nothing_is_read_while_a_cuda_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a number is an error there: no checks, no warnings, and the schedule needs a diameter."""
    for module in (otcore.problem, otcore.operators):
        monkeypatch.setattr(module, "readable", lambda tensor: False)
    broken = X.clone()
    broken[0, 0] = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert otcore.sinkhorn_divergence(broken, Y, backend="dense").isnan()
        assert otcore.sinkhorn_divergence(X, Y, blur=0.01, tol=1e-9, max_iter=1).isfinite()
    with pytest.raises(RuntimeError, match="diameter="):
        LOSSES["samples_loss"](X, Y)
    assert otcore.SamplesLoss(blur=0.1, diameter=2.0)(X, Y).isfinite()
