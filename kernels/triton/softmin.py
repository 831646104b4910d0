"""softmin: logarithms of the row sums r_i = sum_j b_j e_ij, safe whatever their size."""

# Annotations stay what they are: Triton reads them.
import triton
import triton.language as tl

from .pairs import attraction, gain_of, item_and_tile, lifted, own_tile


@triton.jit
def log_row_sums(
    x,
    y,
    f,
    lift_x,
    column,
    common,
    b,
    unit_x,
    unit_y,
    scale,
    sums,
    out,
    n,
    m,
    d,
    parts,
    FINISH: tl.constexpr,
    FLOOR: tl.constexpr,
    COST: tl.constexpr,
    PARTS: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    DTYPE: tl.constexpr,
    LIMIT: tl.constexpr,
):
    """One program a (item, tile of rows). f, lift_x [items][n], column, b [items][m], common, scale [items].

    FINISH: the sums are there, as [parts][items][n] to be added in order; out receives log r, and only where
    one is outside of [2^-LIMIT, 2^LIMIT] are the rows of the tile summed again, with a running maximum.
    Otherwise all are, f is not read and out receives -eps log sum_j b_j exp((g_j - C_ij) / eps).
    """
    tiles = tl.cdiv(n, ROWS)
    items = tl.num_programs(0) // tiles
    item, tile = item_and_tile(tiles)
    start = tile * ROWS
    rows = tl.minimum(tl.arange(0, ROWS), n - 1 - start)
    inside = start + tl.arange(0, ROWS) < n
    scale_item = tl.load(scale + item)
    at = item * n + start
    last = m
    if FINISH:
        total = tl.zeros((ROWS,), dtype=tl.float64)
        for part in range(0, parts, 16):
            chunk = part + tl.arange(0, 16)
            where = sums + (chunk.to(tl.int64) * items * n)[:, None] + (at + rows)[None, :]
            total += tl.sum(tl.load(where, mask=(chunk < parts)[:, None], other=0.0).to(tl.float64), 0)
        within = (total > 2.0**-LIMIT) & (total < 2.0**LIMIT)
        last = tl.where(tl.sum((inside & (within == 0)).to(tl.int32), 0) > 0, m, 0)

    low_x = tl.cast(n, tl.int64) * d
    low_y = tl.cast(m, tl.int64) * d
    x += (item * n * max(PARTS, 1) + start) * d
    y += item * m * max(PARTS, 1) * d
    gain = gain_of(unit_x, unit_y, scale, item, DTYPE)
    column += item * m
    b += item * m
    u, u_low = own_tile(x, rows, low_x, d, PARTS, WHOLE, DEPTH)
    largest = tl.full((ROWS,), float("-inf"), dtype=DTYPE)
    again = tl.zeros((ROWS,), dtype=tl.float64)
    for first in range(0, last, COLUMNS):
        columns = tl.minimum(tl.arange(0, COLUMNS), m - 1 - first)
        there = first + tl.arange(0, COLUMNS) < m
        weight = tl.load(b + first + columns, mask=there, other=0.0).to(DTYPE)
        other = tl.load(column + first + columns) + tl.log2(weight)
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
        bits = bits + other[None, :]
        before = largest
        largest = tl.maximum(largest, tl.max(bits, 1))
        reference = tl.where(largest > float("-inf"), largest, 0.0)
        again *= tl.exp2(before - reference).to(tl.float64)
        again += tl.sum(tl.exp2(bits - reference[:, None]), 1).to(tl.float64)
    safe = tl.log2(again) + largest.to(tl.float64) + tl.load(common + item)
    if FINISH:
        safe += lifted(f + at, lift_x + at, rows, inside, scale_item)
        result = tl.where(within, tl.log2(tl.where(within, total, 1.0)), safe) * 0.6931471805599453
    else:
        result = tl.load(lift_x + at + rows) - safe / scale_item
    tl.store(out + at + rows, result.to(out.dtype.element_ty), mask=inside)
