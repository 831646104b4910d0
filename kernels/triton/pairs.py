"""What the kernels share: potentials and costs of a tile of pairs, as logits in base 2.

With s = log2(e) / eps, the logit of a pair is s (f_i + g_j - C_ij). The cost C = |x - y|^2 / 2 may be split
as lift_x_i + lift_y_j - <u_i, v_j> with u, v the points about the centres of their clouds; potentials less
their lift are rounded to float32 only after their common size, that of the first column, has moved to the
rows.

PARTS says how a tile is computed. 0: from differences of coordinates, x [items][n][d]. 1: inner products of
points in half precision, [items][n][d]. 2: those of points that are the sum of two float16 numbers,
[items][2][n][d]: three products, the fourth being below the last place. With 1 and 2, d is a multiple of
DEPTH, the coordinates that are missing being 0.
"""

# Annotations stay what they are: Triton reads them.
import triton
import triton.language as tl


@triton.jit
def item_and_tile(tiles):
    """Of programs counted over the tiles of the first item, then those of the next: their grid has no end."""
    program = tl.program_id(0)
    return (program // tiles).to(tl.int64), program % tiles


@triton.jit
def lifted(potential, lift, at, mask, scale):
    """The potentials of these points less their lift, in bits; float64."""
    known = tl.load(potential + at, mask=mask, other=0.0).to(tl.float64)
    return scale * (known - tl.load(lift + at, mask=mask, other=0.0))


@triton.jit
def lifted_potentials(
    f,
    g,
    lift_x,
    lift_y,
    a,
    b,
    scale,
    row,
    column,
    common,
    n,
    m,
    WEIGHTED: tl.constexpr,
    SIZE: tl.constexpr,
):
    """One program a (item, SIZE rows and as many columns): all that a logit has besides what the pair adds.

    row [items][n] receives s (f - lift_x) + s (g_0 - lift_y_0), column [items][m] s (g - lift_y) less the
    latter, which is common [items], float64. WEIGHTED: plus log2 of the weights.
    """
    item, tile = item_and_tile(tl.cdiv(tl.maximum(n, m), SIZE))
    at = tile * SIZE + tl.arange(0, SIZE)
    scale_item = tl.load(scale + item)
    shift = lifted(g, lift_y, item * m, True, scale_item)
    rows = item * n + at
    bits = lifted(f, lift_x, rows, at < n, scale_item) + shift
    if WEIGHTED:
        bits += tl.log2(tl.load(a + rows, mask=at < n, other=1.0).to(tl.float64))
    tl.store(row + rows, bits.to(row.dtype.element_ty), mask=at < n)
    columns = item * m + at
    bits = lifted(g, lift_y, columns, at < m, scale_item) - shift
    if WEIGHTED:
        bits += tl.log2(tl.load(b + columns, mask=at < m, other=1.0).to(tl.float64))
    tl.store(column + columns, bits.to(column.dtype.element_ty), mask=at < m)
    tl.store(common + item, shift)


@triton.jit
def gain_of(unit_x, unit_y, scale, item, DTYPE: tl.constexpr):
    """What turns a cost or an inner product of stored points into bits."""
    units = tl.load(unit_x + item).to(tl.float64) * tl.load(unit_y + item).to(tl.float64)
    return (tl.load(scale + item) * units).to(DTYPE)


@triton.jit
def coordinates(points, at, first, d, DEPTH: tl.constexpr):
    return tl.load(points + at[:, None] * d + (first + tl.arange(0, DEPTH))[None, :])


@triton.jit
def own_tile(x, rows, low, d, PARTS: tl.constexpr, WHOLE: tl.constexpr, DEPTH: tl.constexpr):
    """The points of a program, if they are WHOLE: not longer than DEPTH; `low` is where the low parts are."""
    if PARTS > 0 and WHOLE:
        u = coordinates(x, rows, 0, d, DEPTH)
        u_low = u
        if PARTS == 2:
            u_low = coordinates(x + low, rows, 0, d, DEPTH)
    else:
        u = rows
        u_low = rows
    return u, u_low


@triton.jit
def add_products(products, u, u_low, y, columns, first, low, d, PARTS: tl.constexpr, DEPTH: tl.constexpr):
    v = tl.trans(coordinates(y, columns, first, d, DEPTH))
    if PARTS == 2:
        v_low = tl.trans(coordinates(y + low, columns, first, d, DEPTH))
        products = tl.dot(u_low, v, products)
        products = tl.dot(u, v_low, products)
    return tl.dot(u, v, products)


@triton.jit
def square_distances(x, y, rows, columns, d, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr):
    squares = tl.zeros((ROWS, COLUMNS), dtype=DTYPE)
    for k in range(d):
        along_x = tl.load(x + rows * d + k).to(DTYPE)
        along_y = tl.load(y + columns * d + k).to(DTYPE)
        difference = along_x[:, None] - along_y[None, :]
        squares += difference * difference
    return squares


@triton.jit
def attraction(
    x,
    y,
    rows,
    columns,
    u,
    u_low,
    low_x,
    low_y,
    gain,
    d,
    FLOOR: tl.constexpr,
    COST: tl.constexpr,
    PARTS: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """What a pair adds to its logit besides the lifted potentials, [ROWS][COLUMNS]."""
    if PARTS == 0:
        squares = square_distances(x, y, rows, columns, d, ROWS, COLUMNS, DTYPE)
        if COST == 2:
            bits = -0.5 * gain * squares
        else:
            bits = -gain * tl.sqrt(tl.maximum(squares, tl.full((), FLOOR, DTYPE)))
    else:
        products = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
        if WHOLE:
            products = add_products(products, u, u_low, y, columns, 0, low_y, d, PARTS, DEPTH)
        else:
            for first in range(0, d, DEPTH):
                part = coordinates(x, rows, first, d, DEPTH)
                part_low = part
                if PARTS == 2:
                    part_low = coordinates(x + low_x, rows, first, d, DEPTH)
                products = add_products(products, part, part_low, y, columns, first, low_y, d, PARTS, DEPTH)
        bits = gain * products
    return bits
