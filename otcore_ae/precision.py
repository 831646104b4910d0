"""Where half precision ends: latents, images and losses are float32 also where networks run in bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """`values` in float32 where they are float16 or bfloat16, else as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
