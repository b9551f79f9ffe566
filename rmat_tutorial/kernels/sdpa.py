"""The backend on ``torch.nn.functional.scaled_dot_product_attention``: no matrix of scores is kept, no mask is built
for whole segments, and a chunk's cost is that of a chunk because chunks are folded into the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from ..attention import per_path


def sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_mem: Tensor | None,
    k_mem: Tensor | None,
    v_mem: Tensor | None,
    weights: Tensor,
    chunk_size: int,
    paths: tuple[str, ...],
) -> Tensor:
    """``hybrid_attention`` with fused softmax; arguments as there, already checked."""
    attended = {
        "full": lambda: causal(q, k, v),
        "chunk": lambda: chunked(q, k, v, chunk_size),
        "memory": lambda: over_bank(q_mem, k_mem, v_mem),
    }
    return sum(weight * attended[path]() for weight, path in zip(per_path(weights, q), paths, strict=True))


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last ``L`` of ``S`` positions to all of them: ``(B, H, L, d_h)``."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    if n_queries == n_keys:
        return scaled_dot_product_attention(q, k, v, is_causal=True)
    if n_queries == 1:
        return scaled_dot_product_attention(q, k, v)
    # is_causal would align the first query with the first key; with a cache the last aligns with the last.
    seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device).tril(n_keys - n_queries)
    return scaled_dot_product_attention(q, k, v, attn_mask=seen)


def chunked(q: Tensor, k: Tensor, v: Tensor, chunk_size: int) -> Tensor:
    """Causal attention inside each chunk, in three parts: the chunk that the cache began, whole chunks, the rest."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    start = n_keys - n_queries
    begun = min(-start % chunk_size, n_queries)
    whole = (n_queries - begun) // chunk_size * chunk_size
    parts = []
    if begun:
        first_key = start - start % chunk_size
        keys = slice(first_key, start + begun)
        parts.append(causal(q[:, :, :begun], k[:, :, keys], v[:, :, keys]))
    if whole:
        queries, keys = slice(begun, begun + whole), slice(start + begun, start + begun + whole)
        folded = (fold(x, chunk_size) for x in (q[:, :, queries], k[:, :, keys], v[:, :, keys]))
        parts.append(causal(*folded).reshape(*q.shape[:2], whole, q.shape[-1]))
    if begun + whole < n_queries:
        keys = slice(start + begun + whole, n_keys)
        parts.append(causal(q[:, :, begun + whole:], k[:, :, keys], v[:, :, keys]))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)


def fold(x: Tensor, chunk_size: int) -> Tensor:
    """``(B, H, n C, d_h)`` -> ``(B, H n, C, d_h)``: each chunk attends alone, as one more entry of the batch."""
    return x.reshape(x.shape[0], -1, chunk_size, x.shape[-1])


def over_bank(q_mem: Tensor, k_mem: Tensor, v_mem: Tensor) -> Tensor:
    """Attention over the bank without a mask; zeros when the bank is empty."""
    if k_mem.shape[-2] == 0:
        return q_mem @ k_mem.transpose(-2, -1) @ v_mem  # zeros, through which gradients flow as in the reference
    return scaled_dot_product_attention(q_mem, k_mem, v_mem)
