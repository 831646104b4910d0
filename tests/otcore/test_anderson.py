"""Anderson acceleration on linear iterations, where it must end in about as many steps as unknowns."""

from __future__ import annotations

import torch

from otcore.anderson import Anderson
from tests.problems import cloud
from tests.tolerance import assert_solved


def test_linear_iteration_ends() -> None:
    n = 6
    matrix = cloud(n, n, 0) / n
    right = cloud(n, 1, 1).squeeze(1)
    solution = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - matrix, right)
    mixer = Anderson(torch.ones(1, n, dtype=torch.float64))
    z = torch.zeros(1, n, dtype=torch.float64)
    for _ in range(2 * n):
        z = mixer.mix(z, z @ matrix.T + right)
    assert_solved(z[0], solution)


def test_items_are_independent_and_reset() -> None:
    n = 5
    matrix = cloud(n, n, 2) / n

    def run(starts: torch.Tensor, reset_at: dict[int, list[bool]]) -> torch.Tensor:
        mixer = Anderson(torch.ones_like(starts))
        z = starts
        for k in range(4):
            if k in reset_at:
                mixer.reset(torch.tensor(reset_at[k]))
            z = mixer.mix(z, z @ matrix.T + 1.0)
        return z

    starts = cloud(2, n, 3)
    together = run(starts, {2: [True, False]})
    assert_solved(together[0], run(starts[:1], {2: [True]})[0])
    assert_solved(together[1], run(starts[1:], {})[0])


def test_first_step_is_plain() -> None:
    mixer = Anderson(torch.ones(1, 3))
    image = torch.tensor([[1.0, 2.0, 3.0]])
    assert torch.equal(mixer.mix(torch.zeros(1, 3), image), image)
    # A fixed point: no difference to divide by.
    assert torch.equal(mixer.mix(image, image), image)
