"""Two gaps of Triton 3.6's interpreter: loops under NumPy 2.4, and products of bfloat16 numbers."""

from __future__ import annotations

from typing import Any

import numpy
import triton.language as tl
from triton.runtime import interpreter

_patched = interpreter._patch_lang_tensor
_dot = interpreter.InterpreterBuilder.create_dot


def _with_index(tensor: Any, scope: Any) -> None:
    """Bounds of loops are arrays of one element, which NumPy does not take for integers any more."""
    _patched(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def _widened(handle: Any) -> Any:
    """bfloat16 numbers, which NumPy has as the integers of their bits, in float32."""
    if handle.dtype != tl.bfloat16:
        return handle
    bits = handle.data.astype(numpy.uint32) << 16
    return interpreter.TensorHandle(bits.view(numpy.float32), tl.float32)


def _dot_of_any(self: Any, a: Any, b: Any, *rest: Any) -> Any:
    return _dot(self, _widened(a), _widened(b), *rest)


interpreter._patch_lang_tensor = _with_index
interpreter.InterpreterBuilder.create_dot = _dot_of_any
