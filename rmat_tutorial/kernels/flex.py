"""The backend on FlexAttention: one launch for the three paths, each a head of its own over the same keys.

The queries of every path stand side by side as heads that share keys and values (grouped queries), and the bank's keys
stand after the segment's. A block mask says which path sees which key, so tiles that a path does not see cost nothing.
The three outputs are then added with their weights. The scores of the chunk are computed twice, for ``full`` and for
``chunk``.

On a CUDA device FlexAttention is compiled, with a backward. On a CPU, and on MPS, torch has no backward for it, and
the forward is not compiled here: it is slow, and good for comparing numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, lru_cache

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from ..attention import per_path
from ..config import PATHS
from .sdpa import over_bank


def flex(
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
    """``hybrid_attention`` with one call of FlexAttention; arguments as there, already checked.

    Raises:
        NotImplementedError: a gradient is wanted where FlexAttention has no backward.
    """
    has_gradient = any(x is not None and x.requires_grad for x in (q, k, v, q_mem, k_mem, v_mem))
    if q.device.type != "cuda" and torch.is_grad_enabled() and has_gradient:
        raise NotImplementedError(
            f"backend 'flex' has no backward on {q.device.type}; use 'sdpa', or call it under torch.no_grad()"
        )
    n_slots = 0 if k_mem is None else k_mem.shape[2]
    if paths == ("memory",) and n_slots == 0:
        return over_bank(q_mem, k_mem, v_mem)
    queries, keys, values = side_by_side(q, k, v, q_mem, k_mem, v_mem, paths)
    seen = path_mask(q.shape[2], keys.shape[2] - n_slots, n_slots, chunk_size, paths, q.device)
    attended = attention(q.device.type)(
        queries.flatten(0, 1), keys.flatten(0, 1)[:, None], values.flatten(0, 1)[:, None],
        block_mask=seen, enable_gqa=True,
    ).unflatten(0, q.shape[:2])
    return mixed(attended, per_path(weights, q))


def side_by_side(
    q: Tensor, k: Tensor, v: Tensor, q_mem: Tensor | None, k_mem: Tensor | None, v_mem: Tensor | None,
    paths: tuple[str, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """The queries of every path ``(B, H, P, L, d_h)``; keys and values of the segment and of the bank in one."""
    segment, bank = "full" in paths or "chunk" in paths, "memory" in paths
    keys = torch.cat([k] * segment + [k_mem] * bank, dim=2)
    values = torch.cat([v] * segment + [v_mem] * bank, dim=2)
    return torch.stack([q_mem if path == "memory" else q for path in paths], dim=2), keys, values


def mixed(attended: Tensor, weights: Iterable[Tensor]) -> Tensor:
    """``Σ_p λ_p attended[:, :, p]``: ``(B, H, P, L, d_h)`` and what ``per_path`` gives -> ``(B, H, L, d_h)``."""
    return sum(weight * path for weight, path in zip(weights, attended.unbind(2), strict=True))


@lru_cache(maxsize=64)
def path_mask(
    n_queries: int, n_keys: int, n_slots: int, chunk_size: int, paths: tuple[str, ...], device: torch.device
) -> BlockMask:
    """Which path, as a head, sees which of the segment's and then the bank's keys: ``(1, P, L, S + m)``."""
    # As tensors, so that FlexAttention is not compiled anew for other numbers.
    offset, n_local, size = torch.tensor([n_keys - n_queries, n_keys, chunk_size], device=device)
    kinds = torch.tensor([PATHS.index(path) for path in paths], device=device)

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        kind, position = kinds[head], query + offset
        causal = (key < n_local) & (key <= position)
        in_chunk = causal & (key // size == position // size)
        return ((kind == 0) & causal) | ((kind == 1) & in_chunk) | ((kind == 2) & (key >= n_local))

    return create_block_mask(sees, None, len(paths), n_queries, n_keys + n_slots, device=device)


@cache
def attention(device: str) -> Callable[..., Tensor]:
    """FlexAttention, compiled where it pays to wait for the compiler."""
    return torch.compile(flex_attention) if device == "cuda" else flex_attention
