"""slice: the transport of two clouds of as many points along one direction a program, and its slopes.

Projection, sort and difference stay in registers and shared memory; what goes to memory is the slopes.
"""

# Annotations stay what they are: Triton reads them.
import triton
import triton.language as tl


@triton.jit
def _sorted_keys(points, directions, n, count, line, D: tl.constexpr, PAD: tl.constexpr):
    """Positions on the line and, below them, indices, as sorted 64-bit integers; padding comes last."""
    at = tl.arange(0, PAD)
    inside = at < n
    position = tl.zeros((PAD,), dtype=tl.float32)
    for k in range(D):
        direction = tl.load(directions + k * count + line)
        position += tl.load(points + at * D + k, mask=inside, other=0.0) * direction
    bits = (position + 0.0).to(tl.int32, bitcast=True)  # both zeros are the same position
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # of the same order as the numbers
    key = (bits.to(tl.int64) << 32) | at.to(tl.int64)
    return tl.sort(tl.where(inside, key, 0x7FFFFFFFFFFFFFFF))


@triton.jit
def _position(key):
    bits = (key >> 32).to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def slice_lines(
    x,
    y,
    directions,
    costs,
    slopes_x,
    slopes_y,
    n,
    count,
    p,
    D: tl.constexpr,
    PAD: tl.constexpr,
    POWER: tl.constexpr,
    NEED_X: tl.constexpr,
    NEED_Y: tl.constexpr,
):
    """One program a (direction, item). x, y [items][n][D] float32, directions [D][count].

    costs [items][count] receives the mean of |x_(i) - y_(i)|^p over the sorted projections, slopes
    [items][count][n] its derivatives in the projection of every point. PAD is a power of two, at least n;
    POWER 1 or 2, or 0 for any p >= 1.
    """
    line = tl.program_id(0)
    item = tl.program_id(1)
    key_x = _sorted_keys(x + item * n * D, directions, n, count, line, D, PAD)
    key_y = _sorted_keys(y + item * n * D, directions, n, count, line, D, PAD)
    inside = tl.arange(0, PAD) < n
    difference = tl.where(inside, _position(key_x) - _position(key_y), 0.0)
    size = tl.abs(difference)
    sign = tl.where(difference > 0, 1.0, tl.where(difference < 0, -1.0, 0.0))
    if POWER == 2:
        cost = difference * difference
        slope = 2.0 * difference
    elif POWER == 1:
        cost = size
        slope = sign
    else:
        power = tl.where(size > 0, tl.exp2((p - 1.0) * tl.log2(tl.where(size > 0, size, 1.0))), 0.0)
        cost = size * power
        slope = p * power * sign
    row = item * count + line
    tl.store(costs + row, tl.sum(cost, 0) / n)
    slope = slope / n
    if NEED_X:
        tl.store(slopes_x + row * n + (key_x & 0xFFFFFFFF), slope, mask=inside)
    if NEED_Y:
        tl.store(slopes_y + row * n + (key_y & 0xFFFFFFFF), -slope, mask=inside)


def warps_of(pad: int) -> int:
    """Warps of a program; with more of them the largest would not keep to their registers."""
    return min(max(pad // 256, 1), 8)
