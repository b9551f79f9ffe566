"""Chunked attention taken apart: its mask, the fold that spares what the mask hides, the pairs that remain."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from . import attention


def chunk_mask(T: int, C: int) -> Tensor:
    """Which token (row) may see which (column) in causal attention inside chunks of ``C``: ``(T, T)`` bool."""
    return attention.chunk_mask(T, T, C)


def fold(x: Tensor, C: int) -> Tensor:
    """``(B, H, T, d_h)`` -> ``(B, H, n, C, d_h)``; zeros behind the last token fill the last chunk up."""
    return pad(x, (0, 0, 0, -x.shape[2] % C)).unflatten(2, (-1, C))


def unfold(folded: Tensor, T: int) -> Tensor:
    """``(B, H, n, C, d_h)`` -> ``(B, H, T, d_h)``: the inverse of ``fold``."""
    return folded.flatten(2, 3)[:, :, :T]


def pairs(T: int, C: int) -> int:
    """How many pairs ``chunk_mask`` leaves: ``C (C + 1) / 2`` in each whole chunk, and those of a shorter last one."""
    whole, left_over = divmod(T, C)
    return whole * (C * (C + 1) // 2) + left_over * (left_over + 1) // 2
