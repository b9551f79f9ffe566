"""Rotary position embedding, per head (Su et al., arXiv 2104.09864; section 3 of arXiv 2507.00453)."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .validate import require_float_tensor, require_int, require_number


def rope_frequencies(head_dim: int, base: float = 10000.0, *, device: torch.device | str | None = None) -> Tensor:
    """Angle per position of each pair of a head: ``base^(-2i / d_h)`` for ``i = 0 .. d_h/2 - 1``.

    Args:
        head_dim: width ``d_h`` of one head, even.
        base: base of the geometric series, above 1.

    Returns:
        ``(d_h / 2,)`` in radians per position, float64. The first pair turns fastest, one radian a position.

    Raises:
        TypeError, ValueError: ``head_dim`` is odd or below 2, or ``base`` is not above 1.
    """
    require_int("head_dim", head_dim, 2)
    if head_dim % 2:
        raise ValueError(f"head_dim must be even, because RoPE rotates pairs, got {head_dim}")
    require_number("base", base, 1.0, above=True)
    return base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)


def apply_rope(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """Rotate pair ``(2i, 2i+1)`` of every vector by ``position * base^(-2i / d_h)``.

    Args:
        x: queries or keys, ``(..., L, d_h)``.
        positions: ``(L,)``, the position of each vector inside its segment.
        base: base of the frequencies.

    Returns:
        The rotated vectors, shape, dtype and device of ``x``. Lengths are kept, and the product of a query
        with a key depends on the distance of their positions only.

    Raises:
        TypeError, ValueError: shapes do not fit, the head width is odd, ``x`` contains NaN, or a position is
            not finite.
    """
    require_float_tensor("x", x, ("...", "L", "d_h"))
    if not isinstance(positions, Tensor):
        raise TypeError(f"positions must be a torch.Tensor, got {type(positions).__name__}")
    if positions.shape != x.shape[-2:-1]:
        raise ValueError(f"positions must have shape (L,) = {tuple(x.shape[-2:-1])}, got {tuple(positions.shape)}")
    if positions.is_complex() or positions.dtype == torch.bool:
        raise TypeError(f"positions must be numbers, got dtype {positions.dtype}")
    if not torch.isfinite(positions).all():
        raise ValueError("positions contains NaN or inf; every position must be finite")
    frequencies = rope_frequencies(x.shape[-1], base, device=x.device)
    return rotate_pairs(x, *rope_tables(positions.to(x.device), frequencies, x.dtype))


def rope_tables(positions: Tensor, frequencies: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every angle, each ``(L, d_h / 2)``.

    The angles are formed in float64: in float32 a position of a million would be off by a twentieth of a radian.
    """
    angles = positions.to(torch.float64)[:, None] * frequencies
    return angles.cos().to(dtype), angles.sin().to(dtype)


@cache
def segment_tables(
    length: int, head_dim: int, base: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """``rope_tables`` of the positions ``0 .. length - 1``, made once for every block that needs them.

    They are never dropped: a CUDA graph goes on reading them where they lay when it was captured.
    """
    # A table first made in inference mode could never be saved for a backward pass.
    with torch.inference_mode(False):
        positions = torch.arange(length, device=device)
        return rope_tables(positions, rope_frequencies(head_dim, base, device=device), dtype)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of the last axis of ``x`` ``(..., L, d_h)`` by the angle whose ``cos`` and ``sin`` are given."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
