"""The reference backend: the three attentions one after the other, each with its softmax written out."""

from __future__ import annotations

from torch import Tensor

from ..attention import chunked_weights, full_weights, memory_weights, per_path


def eager(
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
    """``hybrid_attention`` by its definition; arguments as there, already checked."""
    attended = {
        "full": lambda: full_weights(q, k) @ v,
        "chunk": lambda: chunked_weights(q, k, chunk_size) @ v,
        "memory": lambda: memory_weights(q_mem, k_mem) @ v_mem,
    }
    return sum(weight * attended[path]() for weight, path in zip(per_path(weights, q), paths, strict=True))
