"""sweep: row and column sums of e_ij = exp((f_i + g_j - C_ij) / eps), one exponential a pair."""

# Annotations stay what they are: Triton reads them.
import triton
import triton.language as tl

from .pairs import attraction, gain_of, own_tile


@triton.jit
def row_and_column_sums(
    x,
    y,
    row,
    column,
    a,
    b,
    unit_x,
    unit_y,
    scale,
    row_sums,
    column_sums,
    n,
    m,
    d,
    row_tiles,
    column_tiles,
    SAME: tl.constexpr,
    FLOOR: tl.constexpr,
    COST: tl.constexpr,
    PARTS: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """One program a (item, segment of columns, group of rows), of column_tiles and row_tiles tiles.

    row, a [items][n] and column, b [items][m]; scale [items]. row_sums [segments][items][n] receives
    the sums of b_j e_ij over each segment, column_sums [groups][items][m] those of a_i e_ij over each group.
    SAME: y is x, and only tiles on and above the diagonal are computed (ROWS is a multiple of COLUMNS); what
    a row lacks are its column sums, which are not written where a group and a segment do not meet.
    """
    items = tl.num_programs(0)
    item = tl.program_id(0).to(tl.int64)
    segment = tl.program_id(1)
    group = tl.program_id(2)
    gain = gain_of(unit_x, unit_y, scale, item, DTYPE)
    low_x = tl.cast(n, tl.int64) * d
    low_y = tl.cast(m, tl.int64) * d
    x += item * max(PARTS, 1) * low_x
    y += item * max(PARTS, 1) * low_y
    row += item * n
    a += item * n
    column += item * m
    b += item * m
    row_sums += (segment * items + item) * n
    column_sums += (group * items + item) * m
    first_row = group * row_tiles
    last_row = tl.minimum(first_row + row_tiles, tl.cdiv(n, ROWS))
    last_column = tl.minimum((segment + 1) * column_tiles, tl.cdiv(m, COLUMNS))
    for i in range(first_row, last_row):
        start = i * ROWS
        rows = tl.minimum(tl.arange(0, ROWS), n - 1 - start)
        inside = start + tl.arange(0, ROWS) < n
        own = tl.load(row + start + rows)
        row_weight = tl.load(a + start + rows, mask=inside, other=0.0).to(DTYPE)
        x_tile = x + tl.cast(start, tl.int64) * d
        u, u_low = own_tile(x_tile, rows, low_x, d, PARTS, WHOLE, DEPTH)
        row_sum = tl.zeros((ROWS,), dtype=tl.float64)
        first_column = segment * column_tiles
        if SAME:
            first_column = tl.maximum(first_column, i * (ROWS // COLUMNS))
        for j in range(first_column, last_column):
            first = j * COLUMNS
            columns = tl.minimum(tl.arange(0, COLUMNS), m - 1 - first)
            there = first + tl.arange(0, COLUMNS) < m
            other = tl.load(column + first + columns)
            column_weight = tl.load(b + first + columns, mask=there, other=0.0).to(DTYPE)
            bits = attraction(
                x_tile,
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
            e = tl.exp2(bits + (own[:, None] + other[None, :]))
            row_sum += tl.sum(e * column_weight[None, :], 1).to(tl.float64)
            column_sum = tl.sum(e * row_weight[:, None], 0)
            if SAME:
                column_sum = tl.where(j < (i + 1) * (ROWS // COLUMNS), 0.0, column_sum)
            # A program alone writes these; the rows before in its group come first.
            at = column_sums + first + columns
            column_sum += tl.load(at, mask=there & (i > first_row), other=0.0)
            tl.store(at, column_sum, mask=there)
        tl.store(row_sums + start + rows, row_sum.to(DTYPE), mask=inside)
        tl.debug_barrier()
