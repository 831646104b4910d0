"""grad for p = 1: sum_j pi_ij (x_i - y_j) / |x_i - y_j|. (For p = 2 it is `plan_times` with SLOPES.)

Differences are taken before they are summed: where points nearly coincide, sums of pi_ij / |x_i - y_j| times
x_i and y_j apart would cancel.
"""

# Annotations stay what they are: Triton reads them.
import triton
import triton.language as tl

from .pairs import item_and_tile, square_distances


@triton.jit
def distance_slopes(
    x,
    y,
    row,
    column,
    scale,
    out,
    n,
    m,
    d,
    FLOOR: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """One program a (item, tile of rows). x [items][n][d], y [items][m][d]; out [items][n][d], of DTYPE.

    row [items][n] and column [items][m] have the logarithms of the weights in them. Pairs no
    farther than sqrt(FLOOR) have no slope.
    """
    item, tile = item_and_tile(tl.cdiv(n, ROWS))
    start = tile * ROWS
    rows = tl.minimum(tl.arange(0, ROWS), n - 1 - start)
    inside = start + tl.arange(0, ROWS) < n
    gain = tl.load(scale + item).to(DTYPE)
    at = item * n + start
    x += at * d
    out += at * d
    y += item * m * d
    column += item * m
    own_bits = tl.load(row + at + rows)
    for first in range(0, m, COLUMNS):
        columns = tl.minimum(tl.arange(0, COLUMNS), m - 1 - first)
        there = first + tl.arange(0, COLUMNS) < m
        other_bits = tl.load(column + first + columns, mask=there, other=float("-inf"))
        y_tile = y + tl.cast(first, tl.int64) * d
        squares = square_distances(x, y_tile, rows, columns, d, ROWS, COLUMNS, DTYPE)
        distance = tl.sqrt(tl.maximum(squares, tl.full((), FLOOR, DTYPE)))
        plan = tl.exp2(own_bits[:, None] + other_bits[None, :] - gain * distance)
        # At the kink the slope is 0.
        sloped = squares > tl.full((), FLOOR, DTYPE)
        weight = tl.where(sloped, plan / tl.where(sloped, distance, 1.0), 0.0)
        for k in range(0, d, DEPTH):
            across = k + tl.arange(0, DEPTH)
            own = tl.load(x + rows[:, None] * d + across[None, :], mask=(across < d)[None, :], other=0.0).to(
                DTYPE
            )
            other = tl.load(
                y_tile + columns[:, None] * d + across[None, :], mask=(across < d)[None, :], other=0.0
            ).to(DTYPE)
            slope = tl.sum(weight[:, :, None] * (own[:, None, :] - other[None, :, :]), 1)
            # A program alone writes these; the columns before come first.
            place = out + rows[:, None] * d + across[None, :]
            mask = inside[:, None] & (across < d)[None, :]
            slope += tl.load(place, mask=mask & (first > 0), other=0.0)
            tl.store(place, slope, mask=mask)
        tl.debug_barrier()
