"""What the fused kernels can run on, and the tolerances that every backend keeps. Needs no Triton."""

from __future__ import annotations

import torch
from torch import Tensor

# How far outputs and gradients may be from those of the float64 reference on the same, rounded inputs: the largest
# difference of a tensor, relative to its largest number, or absolute where that is below one.
TOLERANCES = {torch.float64: 1e-11, torch.float32: 5e-6, torch.float16: 8e-3, torch.bfloat16: 6e-2}

WIDEST_HEAD = 128
MOST_HEADS = 65535  # of all rows of a batch together: the second axis of a CUDA grid
OLDEST_CHIP = 8  # the major compute capability from which Triton multiplies in tensor cores
HALF = (torch.float16, torch.bfloat16)


def obstacle(q: Tensor, interpreted: bool) -> str:
    """Why the fused kernels cannot attend with queries like ``q`` ``(B, H, L, d_h)``; empty when they can."""
    batch, heads, _, width = q.shape
    # Triton's interpreter gets the arithmetic of bfloat16 wrong, without a word.
    dtypes = (torch.float32, torch.float16) if interpreted else (torch.float32, *HALF)
    if not (q.is_cuda or interpreted):
        return f"needs tensors on a CUDA device, got q on {q.device}; use 'sdpa'"
    if q.dtype not in dtypes:
        return f"needs one of the dtypes {', '.join(map(str, dtypes))}, got {q.dtype}; use 'sdpa'"
    if width > WIDEST_HEAD:
        return f"needs a head width d_h of at most {WIDEST_HEAD}, got {width}; use 'sdpa'"
    if batch * heads > MOST_HEADS:
        return f"needs at most {MOST_HEADS} heads in a batch, B H, got {batch} · {heads}; use 'sdpa'"
    return ""


def mixture(q: Tensor, **others: Tensor | None) -> str:
    """Why the fused kernels cannot take ``others`` beside ``q``: which of them has another dtype; empty when none."""
    for name, x in others.items():
        if x is not None and x.dtype != q.dtype:
            return f"needs queries, keys and values of one dtype, got {name} in {x.dtype} and q in {q.dtype}"
    return ""
