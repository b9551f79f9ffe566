"""The three attentions of the hybrid block, with the softmax written out. The readable reference.

Keys may be longer than queries: the queries are then the last positions, as with a key/value cache.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .validate import require_float_tensor, require_int, require_like


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, ``exp(s) / Σ exp(s)``; nothing to see (an empty axis) gives nothing, not NaN."""
    if scores.shape[-1] == 0:
        return scores
    # Less the row's maximum, which cancels in the quotient: exp of a large score would overflow.
    exps = torch.exp(scores - scores.amax(dim=-1, keepdim=True).detach())
    return exps / exps.sum(dim=-1, keepdim=True)


def scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    """``q kᵀ / √d_h``: ``(B, H, L_q, d_h)``, ``(B, H, L_k, d_h)`` -> ``(B, H, L_q, L_k)``."""
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])


def query_and_key_positions(n_queries: int, n_keys: int, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """Positions of the queries ``(n_queries, 1)`` and of the keys ``(1, n_keys)``; the queries are the last."""
    key_positions = torch.arange(n_keys, device=device)
    return key_positions[n_keys - n_queries:, None], key_positions[None, :]


def chunk_mask(n_queries: int, n_keys: int, chunk_size: int, device: torch.device | None = None) -> Tensor:
    """Which query sees which key inside chunks, ``(n_queries, n_keys)`` bool: one chunk, and not later."""
    query, key = query_and_key_positions(n_queries, n_keys, device)
    return (key <= query) & (key // chunk_size == query // chunk_size)


def causal_softmax(scores: Tensor) -> Tensor:
    """Softmax of ``scores`` ``(B, H, L_q, L_k)`` over the keys that are not later than the query; 0 for the others."""
    query, key = query_and_key_positions(*scores.shape[-2:], scores.device)
    return softmax(scores.masked_fill(key > query, -math.inf))


def full_weights(q: Tensor, k: Tensor) -> Tensor:
    """Weights of causal attention over the segment: ``(B, H, L_q, L_k)``, rows sum to one."""
    return causal_softmax(scaled_scores(q, k))


def chunked_weights(q: Tensor, k: Tensor, chunk_size: int) -> Tensor:
    """Weights of causal attention inside the query's own chunk, ``chunk = position // C``: ``(B, H, L_q, L_k)``."""
    visible = chunk_mask(q.shape[-2], k.shape[-2], chunk_size, q.device)
    return softmax(scaled_scores(q, k).masked_fill(~visible, -math.inf))


def memory_weights(q: Tensor, k_mem: Tensor) -> Tensor:
    """Weights of attention over the memory bank: ``(B, H, L, m)``. Memory has no position and no mask."""
    return softmax(scaled_scores(q, k_mem))


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over the segment, ``A_full = softmax(q kᵀ / √d_h + causal mask) v``.

    Args:
        q: ``(B, H, L, d_h)``, already rotated. k, v: ``(B, H, S, d_h)`` with ``S >= L``; the queries are the last.

    Returns:
        ``(B, H, L, d_h)``.

    Raises:
        TypeError, ValueError: shapes or dtypes do not fit, or an input contains NaN.
    """
    require_segment(q, k, v)
    return full_weights(q, k) @ v


def chunked_attention(q: Tensor, k: Tensor, v: Tensor, chunk_size: int) -> Tensor:
    """Causal attention inside each chunk of ``chunk_size`` positions; the last chunk may be shorter.

    Args and Raises as ``full_attention``; ``chunk_size`` is at least 1.

    Returns:
        ``(B, H, L, d_h)``.
    """
    require_segment(q, k, v)
    require_int("chunk_size", chunk_size, 1)
    return chunked_weights(q, k, chunk_size) @ v


def memory_attention(q: Tensor, k_mem: Tensor, v_mem: Tensor) -> Tensor:
    """Attention from the segment to the memory bank, ``A_mem = softmax(q k_Mᵀ / √d_h) v_M``.

    Args:
        q: ``(B, H, L, d_h)``, not rotated. k_mem, v_mem: ``(B, H, m, d_h)``.

    Returns:
        ``(B, H, L, d_h)``; zeros when the bank is empty (``m = 0``).

    Raises:
        TypeError, ValueError: shapes or dtypes do not fit, or an input contains NaN.
    """
    require_bank(q, k_mem, v_mem, q_name="q")
    return memory_weights(q, k_mem) @ v_mem


def fuse(outputs: Tensor, mix: Tensor) -> Tensor:
    """``Σ_p λ_p outputs[p]`` with ``λ = softmax(mix)``: ``(P, ...)``, ``(P,)`` -> ``(...)``, one output a path."""
    return torch.tensordot(torch.softmax(mix, dim=0), outputs, dims=1)


def per_path(weights: Tensor, outputs: Tensor) -> tuple[Tensor, ...]:
    """λ of each path, to be multiplied with ``outputs`` ``(B, H, L, d_h)``.

    Args:
        weights: ``(P,)``, or ``(B, P)`` where each row has a λ of its own.
    """
    if weights.dim() == 1:
        return weights.unbind()
    # A single number takes the dtype of what it multiplies. So does one for each row.
    return weights.to(outputs.dtype)[:, :, None, None, None].unbind(1)


def require_segment(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raise unless ``q``, ``k``, ``v`` are the queries, keys and values of one segment."""
    sizes: dict[str, int] = {}
    require_float_tensor("q", q, ("B", "H", "L", "d_h"), sizes)
    for name, value in (("k", k), ("v", v)):
        require_float_tensor(name, value, ("B", "H", "S", "d_h"), sizes)
        require_like(name, value, "q", q)
    require_some("q", q)
    if sizes["S"] < sizes["L"]:
        raise ValueError(f"k and v must have at least as many positions as q ({sizes['L']}), got {sizes['S']}")


def require_bank(
    q: Tensor, k_mem: Tensor, v_mem: Tensor, sizes: dict[str, int] | None = None, *, q_name: str = "q_mem"
) -> None:
    """Raise unless the three are the queries for the memory, called ``q_name``, and the bank's keys and values."""
    sizes = {} if sizes is None else sizes
    require_float_tensor(q_name, q, ("B", "H", "L", "d_h"), sizes)
    for name, value in (("k_mem", k_mem), ("v_mem", v_mem)):
        require_float_tensor(name, value, ("B", "H", "m", "d_h"), sizes)
        require_like(name, value, q_name, q)
    require_some(q_name, q)


def require_some(name: str, queries: Tensor) -> None:
    """Raise if there is no query at all: no row, head, position or feature."""
    if queries.numel() == 0:
        raise ValueError(f"{name} is empty, shape {tuple(queries.shape)}; every axis must be at least 1")
