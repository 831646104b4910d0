"""apply: the plan times a matrix, sum_j pi_ij v_jk; for p = 2 also its slopes, sum_j pi_ij (x_i - y_j)."""

# Annotations stay what they are: Triton reads them.
import triton
import triton.language as tl

from .pairs import attraction, gain_of, item_and_tile, own_tile


@triton.jit
def plan_times(
    x,
    y,
    row,
    column,
    unit_x,
    unit_y,
    scale,
    v,
    own,
    out,
    n,
    m,
    d,
    width,
    SLOPES: tl.constexpr,
    FLOOR: tl.constexpr,
    COST: tl.constexpr,
    PARTS: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """One program a (item, tile of rows, WIDTH columns of v). v [items][m][width] to out [items][n][width].

    row [items][n] and column [items][m] have the logarithms of the weights in them. SLOPES: out is own_i
    times the row sum less the product, own [items][n][width].
    """
    item, tile = item_and_tile(tl.cdiv(n, ROWS))
    start = tile * ROWS
    rows = tl.minimum(tl.arange(0, ROWS), n - 1 - start)
    inside = start + tl.arange(0, ROWS) < n
    across = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    gain = gain_of(unit_x, unit_y, scale, item, DTYPE)
    low_x = tl.cast(n, tl.int64) * d
    low_y = tl.cast(m, tl.int64) * d
    at = item * n + start
    x += item * max(PARTS, 1) * low_x + tl.cast(start, tl.int64) * d
    y += item * max(PARTS, 1) * low_y
    column += item * m
    v += item * m * width
    own_bits = tl.load(row + at + rows)
    u, u_low = own_tile(x, rows, low_x, d, PARTS, WHOLE, DEPTH)
    product = tl.zeros((ROWS, WIDTH), dtype=DTYPE)
    row_sum = tl.zeros((ROWS,), dtype=DTYPE)
    for first in range(0, m, COLUMNS):
        columns = tl.minimum(tl.arange(0, COLUMNS), m - 1 - first)
        there = first + tl.arange(0, COLUMNS) < m
        other = tl.load(column + first + columns, mask=there, other=float("-inf"))
        bits = attraction(
            x,
            y + tl.cast(first, tl.int64) * d,
            rows,
            columns,
            u,
            u_low,
            low_x,
            low_y,
            gain,
            d,
            FLOOR,
            COST,
            PARTS,
            WHOLE,
            ROWS,
            COLUMNS,
            DEPTH,
            DTYPE,
        )
        plan = tl.exp2(bits + (own_bits[:, None] + other[None, :]))
        where = v + tl.cast(first, tl.int64) * width + columns[:, None] * width + across[None, :]
        values = tl.load(where, mask=there[:, None] & (across < width)[None, :], other=0.0).to(DTYPE)
        if plan.dtype == tl.float64:
            product = tl.dot(plan, values, product, out_dtype=tl.float64)
        else:
            product = tl.dot(plan, values, product, input_precision="tf32x3")
        if SLOPES:
            row_sum += tl.sum(plan, 1)
    mask = inside[:, None] & (across < width)[None, :]
    place = at * width + rows[:, None] * width + across[None, :]
    if SLOPES:
        product = tl.load(own + place, mask=mask, other=0.0).to(DTYPE) * row_sum[:, None] - product
    tl.store(out + place, product.to(out.dtype.element_ty), mask=mask)
