"""Couplings of what a rounded plan leaves over: measures of equal mass on x and y, sent to each other nearby.

What is left is coupled in the cells of a tree, from small cells to the whole: in each cell the lesser of the
two masses, in proportion on both sides, as a product; what remains goes on to the cell's parent. Any such
coupling is a valid part of a plan, so the tree decides how good an upper bound is, not whether it is one.

Products need no pass over pairs. For the cost |x - y|^2 / 2 their cost is one of moments; for |x - y| the
root of the mean square bounds it (Jensen). Time is O(P D log^2 P), memory O(P D), for P = N + M points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Levels of the tree between two choices of where to start: small cells are near, large ones more diffuse.
_LEVEL_STEP = 3
_SMALLEST_CELL = 4


class Leftover(NamedTuple):
    """The masses to couple, (B, N) and (B, M), and the weights a and b that the entropy is relative to."""

    rows: Tensor
    columns: Tensor
    a: Tensor
    b: Tensor


class Coupling(NamedTuple):
    """Several couplings R of the same leftover, (K, B) each.

    Attributes:
        cost: <C, R>, or an upper bound.
        entropy: an upper bound of sum (P + R) log((P + R) / a b) - sum P log(P / a b), for any plan P of the
            mass that is not left over.
    """

    cost: Tensor
    entropy: Tensor


class _Joint(NamedTuple):
    """x and y as one list of points in the order of the tree, padded by points without mass; (B, P, ...)."""

    points: Tensor
    rows: Tensor
    columns: Tensor
    a: Tensor
    b: Tensor


def couple(x: Tensor, y: Tensor, sent: Tensor, left: Leftover, total: Tensor, cost: int) -> Coupling:
    """Couplings that start at several levels of a median-split tree over `sent` and y.

    Args:
        x, y: the points, (B, N, D) and (B, M, D).
        sent: where the plan sends x, (B, N, D): points of x then lie near the points of y they belong to.
        left: what is to be coupled, of equal mass on both sides.
        total: the mass of the plan and its coupling together, (B,).
        cost: 1 or 2.
    """
    joint, depth = _tree(x, y, sent, left)
    choices = [_climb(joint, start, total, cost) for start in range(0, depth + 1, _LEVEL_STEP)]
    return Coupling(*(torch.stack(part) for part in zip(*choices, strict=True)))


def product(left: Leftover, cost: Tensor, total: Tensor) -> Coupling:
    """The product of the two sides as the only coupling, for any ground cost; `cost` (B,) is its <C, R>."""
    mass = left.rows.sum(-1)
    own = _relative(left.rows, left.a).sum(-1) + _relative(left.columns, left.b).sum(-1) - _xlogx(mass)
    mixed = own - _share(mass, total) - _share(total - mass, total)
    return Coupling(cost.unsqueeze(0), mixed.unsqueeze(0))


def _tree(x: Tensor, y: Tensor, sent: Tensor, left: Leftover) -> tuple[_Joint, int]:
    where, points = torch.cat([sent, y], 1), torch.cat([x, y], 1)
    count = points.shape[1]
    size = 1 << (count - 1).bit_length()
    depth = max(0, (size // _SMALLEST_CELL).bit_length() - 1)
    # Padding repeats points; it has no mass.
    fill = torch.arange(size, device=x.device) % count
    order = _median_splits(where[:, fill], depth)
    index = fill[order]

    def gathered(values: Tensor) -> Tensor:
        return values.gather(
            1, index.view(*index.shape, *[1] * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
        )

    present = (order < count).to(x.dtype)
    none_x, none_y = torch.zeros_like(left.rows), torch.zeros_like(left.columns)
    sides = (left.rows, none_y), (none_x, left.columns), (left.a, none_y), (none_x, left.b)
    rows, columns, a, b = (gathered(torch.cat(side, 1)) * present for side in sides)
    return _Joint(gathered(points - points.mean(1, keepdim=True)), rows, columns, a, b), depth


def _median_splits(where: Tensor, depth: int) -> Tensor:
    """An order (B, P) in which the cells of level k are the 2^k equal runs, split along their widest axis."""
    batch, size, dimension = where.shape
    order = torch.arange(size, device=where.device).expand(batch, size)
    if dimension == 0:
        return order
    for level in range(depth):
        cells = where.gather(1, order.unsqueeze(-1).expand(-1, -1, dimension)).view(
            batch, 1 << level, -1, dimension
        )
        axis = (cells.amax(2) - cells.amin(2)).argmax(-1)
        keys = cells.gather(-1, axis.view(batch, -1, 1, 1).expand(-1, -1, cells.shape[2], 1)).squeeze(-1)
        order = order.view(keys.shape).gather(-1, keys.sort(dim=-1, stable=True).indices).view(batch, size)
    return order


def _climb(joint: _Joint, start: int, total: Tensor, cost: int) -> tuple[Tensor, Tensor]:
    """Cost and entropy of the coupling that starts in the cells of level `start`."""
    rows, columns = joint.rows, joint.columns
    left = rows.sum(-1)
    price, entropy = torch.zeros_like(left), -_share(total - left, total)
    for level in range(start, -1, -1):
        cells = rows.shape[0], 1 << level, -1
        heavy, light = rows.view(cells).sum(-1), columns.view(cells).sum(-1)
        mass = torch.minimum(heavy, light)
        part_rows, part_columns = (
            (part.view(cells) * (mass / side.clamp(min=_tiny(side))).clamp(max=1.0).unsqueeze(-1)).view_as(
                part
            )
            for part, side in ((rows, heavy), (columns, light))
        )
        moved = mass.sum(-1)
        entropy = entropy + (_relative(part_rows, joint.a) + _relative(part_columns, joint.b)).sum(-1)
        entropy = entropy - _xlogx(mass).sum(-1) - _share(moved, total)
        price = price + _product_cost(joint.points, part_rows, part_columns, mass, cost)
        rows, columns = rows - part_rows, columns - part_columns
    return price, entropy


def _product_cost(points: Tensor, rows: Tensor, columns: Tensor, mass: Tensor, cost: int) -> Tensor:
    """The cost of the products of the rows and columns of each cell, whose mass is (B, cells); (B,)."""
    cells = mass.shape[0], mass.shape[1], -1
    squares = (0.5 * (rows + columns) * points.square().sum(-1)).view(cells).sum(-1)
    first, second = (
        (part.unsqueeze(-1) * points).view(*cells, points.shape[-1]).sum(2)
        if points.shape[-1]
        else points[:, :1]
        for part in (rows, columns)
    )
    half_square = (squares - (first * second).sum(-1) / mass.clamp(min=_tiny(mass))).clamp(min=0.0)
    if cost == 2:
        return half_square.sum(-1)
    return (2.0 * half_square * mass).sqrt().sum(-1)


def _tiny(like: Tensor) -> float:
    return float(torch.finfo(like.dtype).tiny)


def _xlogx(mass: Tensor) -> Tensor:
    result: Tensor = torch.special.xlogy(mass, mass)
    return result


def _relative(part: Tensor, whole: Tensor) -> Tensor:
    """part log(part / whole), 0 where there is none."""
    result: Tensor = torch.special.xlogy(part, part / whole.clamp(min=_tiny(whole)))
    return result


def _share(mass: Tensor, total: Tensor) -> Tensor:
    """mass log(mass / total): what knowing from which part of a mixture a pair comes is worth, at most."""
    return _relative(mass.clamp(min=0.0), total)
