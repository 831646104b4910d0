"""The Sinkhorn loops: `anneal` converges, `follow` keeps GeomLoss's schedule. A backend is its verbs to them.

A sweep gives r_i = sum_j b_j exp((f_i + g_j - C_ij) / eps) and c_j likewise, from which both half-steps of
the symmetric update follow in O(N + M), as well as the marginal error, the value and its lower bound. So each
iteration is one sweep.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .anderson import Anderson
from .backends import Backend, prepared
from .backends.stepped import SteppedSolve, kernels_for
from .dual import averaged, damping, gauged, geomloss_value, marginal_error, translated, transport_value
from .problem import Problem
from .schedule import annealing_temperatures, bounding_box_diagonal, extrapolated
from .solution import Potentials, Solved, Status

# Between temperatures the potentials only have to be good enough to extrapolate from.
_LOOSE_TOLERANCE = 0.01
_LOOSE_SWEEPS = 60
_WINDOW = 10
# Sweeps without a tenth of progress after which acceleration rests, and for how many plain updates at first.
_PATIENCE = 60
_REST = 10
# Temperatures above so many times diameter^p take float64.
_FLAT = 8.0


class _Pair(NamedTuple):
    """One transport problem: x-y, or a self-term, for which y is x, b is a and both rho are equal."""

    x: Tensor
    y: Tensor
    a: Tensor
    b: Tensor
    rho: tuple[float, float]
    same: bool


class _Descent(NamedTuple):
    """Where a solve stopped: its last sweep, and its report, (B,) each."""

    f: Tensor
    g: Tensor
    log_r: Tensor
    error: Tensor
    n_iter: Tensor
    status: Tensor


def anneal(backend: Backend, problem: Problem) -> Solved:
    """Solve to the tolerance of the problem: x-y by annealing (or from `init`), the self-terms directly.

    Reported are the number of x-y sweeps, and the largest error and worst status of the three transports.
    """
    native = getattr(backend, "anneal", None)
    if native is not None:
        solved: Solved = native(problem)
        return solved
    if problem.sizes is not None:
        parts = [anneal(backend, item) for item in problem.split()]
        return Solved(
            torch.cat([part.value for part in parts]),
            Potentials.join([part.potentials for part in parts], problem.sizes),
            torch.cat([part.status for part in parts]),
            torch.cat([part.n_iter for part in parts]),
            torch.cat([part.marginal_error for part in parts]),
            torch.cat([part.pairs for part in parts]),
        )
    kernels = kernels_for(backend, problem)
    if kernels is not None:
        return SteppedSolve(prepared(backend, problem), kernels, problem).run()
    dtype = problem.x.dtype
    if _is_flat(problem):
        problem = problem.wide()
    backend = prepared(backend, problem)
    cross, xx, yy = _pairs(problem)
    init = None if problem.init is None else problem.init.to(problem.x.dtype)
    batch = len(problem.x)
    final = [[problem.eps]] * batch
    schedules = final if init is not None else _schedules(problem)
    main = _descend(backend, problem, cross, schedules, None if init is None else (init.f, init.g))
    value = _value(main, cross, problem.eps)
    f, g = gauged(main.f, main.g, problem.a, problem.b) if problem.balanced else (main.f, main.g)
    n, m = problem.x.shape[1], problem.y.shape[1]
    pairs = main.n_iter.double() * n * m
    if not problem.debias:
        potentials = Potentials(f, g, None, None)
        return Solved(value.to(dtype), potentials, main.status, main.n_iter, main.error, pairs)
    f_xx, g_yy = (None, None) if init is None else (init.f_xx, init.g_yy)
    self_x = _descend(backend, problem, xx, final, None if f_xx is None else (f_xx, f_xx))
    self_y = _descend(backend, problem, yy, final, None if g_yy is None else (g_yy, g_yy))
    mass_gap = problem.a.sum(-1, dtype=torch.float64) - problem.b.sum(-1, dtype=torch.float64)
    value = (
        value
        - 0.5 * _value(self_x, xx, problem.eps)
        - 0.5 * _value(self_y, yy, problem.eps)
        + 0.5 * problem.eps * mass_gap.square()
    )
    descents = main, self_x, self_y
    return Solved(
        value.to(dtype),
        Potentials(f, g, self_x.f, self_y.f),
        torch.stack([d.status for d in descents]).amax(0),
        main.n_iter,
        torch.stack([d.error for d in descents]).amax(0),
        pairs + self_x.n_iter.double() * n * n + self_y.n_iter.double() * m * m,
    )


def follow(
    backend: Backend, problem: Problem, eps_list: list[float]
) -> tuple[Tensor, Potentials, Potentials]:
    """Make one symmetric averaged update at each temperature of `eps_list`, as GeomLoss does.

    Returns:
        GeomLoss's value (B,), and the potentials before and after a last full parallel half-step at the last
        temperature.
    """
    native = getattr(backend, "follow", None)
    if native is not None:
        result: tuple[Tensor, Potentials, Potentials] = native(problem, eps_list)
        return result
    if problem.sizes is not None:
        values, befores, afters = zip(*(follow(backend, q, eps_list) for q in problem.split()), strict=True)
        sizes = problem.sizes
        return torch.cat(values), Potentials.join(befores, sizes), Potentials.join(afters, sizes)
    dtype = problem.x.dtype
    if _is_flat(problem, eps_list[0]):
        problem = problem.wide()
    backend = prepared(backend, problem)
    cross, xx, yy = _pairs(problem)
    f, g, f_after, g_after = _follow_pair(backend, problem, cross, eps_list)
    if not problem.debias:
        after = Potentials(f_after, g_after, None, None)
        return geomloss_value(problem, after).to(dtype), Potentials(f, g, None, None), after
    f_xx, _, f_xx_after, _ = _follow_pair(backend, problem, xx, eps_list)
    g_yy, _, g_yy_after, _ = _follow_pair(backend, problem, yy, eps_list)
    after = Potentials(f_after, g_after, f_xx_after, g_yy_after)
    return geomloss_value(problem, after).to(dtype), Potentials(f, g, f_xx, g_yy), after


def _is_flat(problem: Problem, largest: float | None = None) -> bool:
    """Whether the temperature is so far above the largest cost that float32 would round the value away.

    The largest cost, where it is not given, is read off the clouds: only if it matters.
    """
    if not isinstance(problem.cost, int) or problem.x.dtype != torch.float32:
        return False
    if largest is None:
        largest = float(bounding_box_diagonal(problem.x, problem.y).min()) ** problem.p
    return problem.eps > _FLAT * largest


def _pairs(problem: Problem) -> tuple[_Pair, _Pair, _Pair]:
    x, y, a, b = problem.x, problem.y, problem.a, problem.b
    rho_x, rho_y = problem.rho
    return (
        _Pair(x, y, a, b, (rho_x, rho_y), same=False),
        _Pair(x, x, a, a, (rho_x, rho_x), same=True),
        _Pair(y, y, b, b, (rho_y, rho_y), same=True),
    )


def _value(descent: _Descent, pair: _Pair, eps: float) -> Tensor:
    return transport_value(descent.f, descent.g, descent.log_r, pair.a, pair.b, eps, pair.rho)


def _schedules(problem: Problem) -> list[list[float]]:
    """The temperatures of each item."""
    batch = len(problem.x)
    if problem.diameter is not None:
        diameters = [problem.diameter] * batch
    else:
        diameters = bounding_box_diagonal(problem.x, problem.y).tolist()
    return [annealing_temperatures(d, problem.eps, problem.scaling, problem.p) for d in diameters]


def _start(backend: Backend, problem: Problem, pair: _Pair, eps: Tensor) -> tuple[Tensor, Tensor]:
    """f = lam softmin(g = 0) and g = lam softmin(f = 0)."""
    column = eps.unsqueeze(-1)
    f = backend.softmin(pair.x, pair.y, torch.zeros_like(pair.b), pair.b, eps=eps, **problem.ground)
    f = damping(column, pair.rho[0]) * f
    if pair.same:
        return f, f
    g = backend.softmin(pair.y, pair.x, torch.zeros_like(pair.a), pair.a, eps=eps, **problem.ground)
    return f, damping(column, pair.rho[1]) * g


def _update(
    pair: _Pair, f: Tensor, g: Tensor, log_r: Tensor, log_c: Tensor, eps: Tensor
) -> tuple[Tensor, Tensor]:
    """The averaged symmetric update, and the best translation after it."""
    f = averaged(f, log_r, eps, pair.rho[0])
    if pair.same:
        return f, f
    return translated(f, averaged(g, log_c, eps, pair.rho[1]), pair.a, pair.b, pair.rho)


def _descend(
    backend: Backend,
    problem: Problem,
    pair: _Pair,
    schedules: list[list[float]],
    start: tuple[Tensor, Tensor] | None,
) -> _Descent:
    """Anneal one transport problem, all items of the batch in lockstep, each through its own temperatures.

    At each temperature: averaged updates with Anderson acceleration, until the error is small enough; then a
        linear extrapolation
    to the next temperature. An item whose error doubles makes a plain update and forgets its history. An item
    that has stopped is recorded as it was at its last sweep, whatever the others still do.
    """
    dtype, device = pair.x.dtype, pair.x.device
    batch, n = pair.a.shape
    last = torch.tensor([len(s) - 1 for s in schedules], device=device)
    longest = max(len(s) for s in schedules)
    ladder = torch.tensor(
        [s + [problem.eps] * (longest - len(s)) for s in schedules], dtype=torch.float64, device=device
    )
    level = torch.zeros_like(last)
    count = torch.zeros_like(last)
    n_iter = torch.zeros_like(last)
    finished = torch.zeros(batch, dtype=torch.bool, device=device)
    old_error = torch.full((batch,), torch.inf, dtype=torch.float64, device=device)
    mixer = Anderson(torch.cat([pair.a, pair.b], -1), _WINDOW)
    # The best potentials at this temperature, and when acceleration rests.
    best, mark = old_error, old_error
    since, rest, span = torch.zeros_like(last), torch.zeros_like(last), torch.full_like(last, _REST)

    eps = ladder[:, 0].to(dtype)
    f, g = start or _start(backend, problem, pair, eps)
    z_best = torch.cat([f, g], -1)
    z_old, eps_old = z_best, eps.unsqueeze(-1)
    out = _Descent(f, g, torch.zeros_like(f), old_error, n_iter, torch.full_like(last, int(Status.MAX_ITER)))
    while True:
        column = eps.unsqueeze(-1)
        log_r, log_c = backend.sweep(
            pair.x, pair.y, f, g, pair.a, pair.b, eps=eps, same=pair.same, **problem.ground
        )
        z = torch.cat([f, g], -1)
        error = marginal_error(f, g, log_r, log_c, pair.a, pair.b, pair.rho)
        count, n_iter = count + 1, n_iter + (~finished).long()
        final = level == last
        good = error <= torch.where(final, problem.tol, max(problem.tol, _LOOSE_TOLERANCE))
        over = count >= torch.where(final, problem.max_iter, _LOOSE_SWEEPS)
        better = error < best
        best, z_best = torch.where(better, error, best), _choose(better, z, z_best)
        progress = error < 0.9 * mark
        mark, since = torch.where(progress, error, mark), torch.where(progress, 0, since + 1)

        # A count beyond max_iter is the sweep at the best potentials, which ends the solve.
        spent = count > torch.where(final, problem.max_iter, _LOOSE_SWEEPS)
        lost = (
            ~good & ~spent & (~error.isfinite() | (error > best) & over | (rest == 0) & (since >= _PATIENCE))
        )
        n_iter = n_iter - (spent & final & ~finished).long()
        stop = good | spent | (over & ~lost)
        stopping = stop & final & ~finished
        status = torch.where(good, int(Status.CONVERGED), int(Status.MAX_ITER))
        status = torch.where(error.isfinite(), status, int(Status.NOT_FINITE))
        report = _Descent(
            _settled(f, log_r, pair.a, column, pair.rho[0]),
            _settled(g, log_c, pair.b, column, pair.rho[1]),
            *(log_r, error, n_iter, status),
        )
        out = _Descent(*(_choose(stopping, new, old) for new, old in zip(report, out, strict=True)))
        finished = finished | stopping
        if bool(finished.all()):
            return out

        image = torch.cat(_update(pair, f, g, log_r, log_c, column), -1)
        mixer.reset(lost | (rest > 0) | (error > 2.0 * old_error))
        z = _choose(lost, z_best, mixer.mix(z, image))
        mixer.reset(lost)
        since = torch.where(lost | (rest == 1), 0, since)
        rest = torch.where(lost, span, (rest - 1).clamp(min=0))
        span = torch.where(lost, 2 * span, span)
        old_error = error.masked_fill(lost, torch.inf)
        advance = (stop | (lost & over)) & ~final
        if longest > 1 and bool(advance.any()):
            eps_next = ladder.gather(1, (level + 1).clamp(max=longest - 1).unsqueeze(1)).to(dtype)
            ahead = extrapolated(z, z_old, column, eps_old, eps_next)
            # The first temperature has no predecessor: nothing to extrapolate from.
            z, z_old = _choose(advance & (level > 0), ahead, z), _choose(advance, z, z_old)
            eps_old, eps = _choose(advance, column, eps_old), _choose(advance, eps_next, column).squeeze(1)
            mixer.reset(advance)
            old_error, best, mark = (t.masked_fill(advance, torch.inf) for t in (old_error, best, mark))
            since, rest, count = (t.masked_fill(advance, 0) for t in (since, rest, count))
            span = span.masked_fill(advance, _REST)
            level = level + advance.long()
        f, g = z[:, :n].contiguous(), z[:, n:].contiguous()


def _settled(f: Tensor, log_r: Tensor, a: Tensor, eps: Tensor, rho: float) -> Tensor:
    """With a whole half-step for the points without weight, which have not counted in the error."""
    return torch.where(a > 0, f, damping(eps, rho) * (f - eps * log_r))


def _choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """`yes` for the items where the mask, (B,), is true."""
    return torch.where(mask.view(-1, *[1] * (yes.dim() - 1)), yes, no)


def _follow_pair(
    backend: Backend, problem: Problem, pair: _Pair, eps_list: list[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def sweep(eps: float) -> tuple[Tensor, Tensor]:
        return backend.sweep(pair.x, pair.y, f, g, pair.a, pair.b, eps=eps, same=pair.same, **problem.ground)

    f, g = _start(backend, problem, pair, pair.x.new_full((len(pair.x),), eps_list[0]))
    for eps in eps_list:
        log_r, log_c = sweep(eps)
        f, g = averaged(f, log_r, eps, pair.rho[0]), averaged(g, log_c, eps, pair.rho[1])
    eps = eps_list[-1]
    log_r, log_c = sweep(eps)
    after = damping(eps, pair.rho[0]) * (f - eps * log_r), damping(eps, pair.rho[1]) * (g - eps * log_c)
    return f, g, *after
