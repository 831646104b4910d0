"""Reading IDX files, the format MNIST is published in (Y. LeCun, http://yann.lecun.com/exdb/mnist).

A file is: two zero bytes, a byte for the element type (0x08: unsigned byte), a byte for the number of
dimensions, each dimension as a big-endian 32-bit integer, then the elements in C order.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
_REMEDY = "get the file again, or point to an intact copy"


def read_idx(path: str | Path, ndim: int) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, gzip-compressed or plain (told by its first bytes).

    Args:
        path: the file.
        ndim: the number of dimensions it must have (3 for images, 1 for labels).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file or is cut short; the message names the file, what was expected
            and what would work.
    """
    path = Path(path)
    content = _content(path)
    header = 4 + 4 * ndim
    expected = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if content[:4] != expected:
        raise ValueError(
            f"{path} does not start like an IDX file of unsigned bytes with {ndim} dimension(s): expected "
            f"the bytes {expected.hex(' ')}, found {content[:4].hex(' ') or 'none'}; {_REMEDY}"
        )
    if len(content) < header:
        raise ValueError(
            f"{path} ends inside its header: expected {header} bytes of it, found {len(content)}; {_REMEDY}"
        )
    shape = struct.unpack(f">{ndim}I", content[4:header])
    if len(content) - header != math.prod(shape):
        what = "is cut short" if len(content) - header < math.prod(shape) else "is too long"
        raise ValueError(
            f"{path} {what}: the header says {' x '.join(map(str, shape))} = {math.prod(shape)} bytes of "
            f"data, found {len(content) - header}; {_REMEDY}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    raw = path.read_bytes()
    if not raw.startswith(_GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is a damaged or truncated gzip file ({error}); {_REMEDY}") from error
