"""The tile shapes of the kernels: one short table, so that nothing is tuned at the first call."""

from typing import NamedTuple


class Tile(NamedTuple):
    """Rows and columns of a tile, coordinates at a time, warps of a program, stages of its loads."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


# Inner products, by capability (the largest not above the device's) and by coordinates a point (the first not
# below, or the last). A warp's rows of a tile are summed within threads, its columns across eight, so tiles
# are tall; two programs or more fit a multiprocessor: one takes exponentials while another multiplies.
_PRODUCTS = {
    80: {
        16: Tile(128, 32, 16, 4, 2),
        32: Tile(128, 32, 32, 4, 2),
        64: Tile(128, 32, 64, 4, 2),
        128: Tile(128, 64, 32, 8, 2),
    },
    90: {
        16: Tile(128, 32, 16, 4, 3),
        32: Tile(128, 32, 32, 4, 3),
        64: Tile(128, 32, 64, 4, 3),
        128: Tile(128, 64, 64, 8, 2),
    },
}
MOST_DEPTH = 64
# Of points one at a time.
POINT_TILE = Tile(256, 1, 1, 4, 1)
# By bits, for row sums alone and for both sums.
_DIFFERENCES = {
    32: (Tile(32, 64, 1, 4, 1), Tile(64, 32, 1, 4, 1)),
    64: (Tile(32, 32, 1, 4, 1), Tile(32, 32, 1, 4, 1)),
}


def product_tile(capability: int, width: int) -> Tile:
    """The tile of inner products of points with so many coordinates."""
    table = _PRODUCTS[max((known for known in _PRODUCTS if known <= capability), default=min(_PRODUCTS))]
    return table[min((known for known in table if known >= width), default=max(table))]


def difference_tile(bits: int, both: bool) -> Tile:
    """The tile of differences computed in float32 or float64, for row sums or for both sums."""
    return _DIFFERENCES[bits][both]


def plan_tile(parts: int, width: int, wide: bool) -> Tile:
    """The tile of the plan where it is multiplied by columns."""
    if parts == 0:
        return Tile(32, 32, 1, 4, 1) if wide else Tile(64, 32, 1, 4, 1)
    return Tile(64, 32, width if width <= MOST_DEPTH else 32, 4, 2)


def values_width(columns: int, wide: bool) -> int:
    """How many columns the plan is multiplied by at a time."""
    return min(max(16, 1 << (columns - 1).bit_length()), 32 if wide else 64)


def slope_tile(bits: int) -> Tile:
    """The tile of slopes of distances."""
    return Tile(32, 32, 8, 4, 1) if bits == 32 else Tile(16, 32, 8, 4, 1)


def product_tiles(capability: int) -> list[Tile]:
    """All tiles of that capability."""
    return list(_PRODUCTS[capability].values())


def padded_width(d: int) -> int:
    """The number of coordinates, some of them 0, that products of points with d of them are made of."""
    depth = min(max(16, 1 << max(d - 1, 0).bit_length()), MOST_DEPTH)
    return max(-(-d // depth), 1) * depth
