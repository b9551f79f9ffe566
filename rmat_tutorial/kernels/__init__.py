"""Implementations of ``hybrid_attention`` behind one signature. Nothing here knows of models.

A backend is a function ``(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths) -> (B, H, L, d_h)``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..attention import require_bank, require_segment
from ..config import BACKENDS, PATHS, require_paths
from ..validate import require_choice, require_float_tensor, require_int, require_like
from .eager import eager
from .sdpa import sdpa

BUILT: dict[str, Callable[..., Tensor]] = {"eager": eager, "sdpa": sdpa}


def hybrid_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_mem: Tensor | None,
    k_mem: Tensor | None,
    v_mem: Tensor | None,
    weights: Tensor,
    *,
    chunk_size: int,
    paths: tuple[str, ...] = PATHS,
    backend: str = "auto",
) -> Tensor:
    """The fused attention of the hybrid block, ``λ_1 A_full + λ_2 A_chunk + λ_3 A_mem`` (arXiv 2507.00453, eq. of
    the fusion; which of the three run is ``paths``).

    Args:
        q: queries ``(B, H, L, d_h)``, already rotated.
        k, v: keys (already rotated) and values, ``(B, H, S, d_h)`` with ``S >= L``; the queries are the last
            ``L`` of the ``S`` positions, so that a cache of the segment's earlier positions can be passed.
        q_mem: the queries before rotation, ``(B, H, L, d_h)``; ``None`` without the memory path.
        k_mem, v_mem: keys and values of the bank, ``(B, H, m, d_h)``; ``None`` without the memory path.
        weights: λ, ``(len(paths),)``, in the order of ``paths``.
        chunk_size: positions per chunk, ``C``.
        backend: ``"eager"`` (softmax written out), ``"sdpa"``
            (``torch.nn.functional.scaled_dot_product_attention``) or ``"auto"``.

    Returns:
        ``(B, H, L, d_h)``.

    Raises:
        TypeError, ValueError: an argument does not fit or contains NaN; the message names it.
        NotImplementedError: the backend is not built yet.
    """
    run = resolve_backend(backend)
    paths = require_paths(paths)
    require_segment(q, k, v)
    require_int("chunk_size", chunk_size, 1)
    require_float_tensor("weights", weights, ("len(paths)",), {"len(paths)": len(paths)})
    require_like("weights", weights, "q", q)
    if "memory" in paths:
        if q_mem is None or k_mem is None or v_mem is None:
            raise ValueError("q_mem, k_mem and v_mem must be given when paths contains 'memory', got None")
        require_bank(q_mem, k_mem, v_mem, dict(zip(("B", "H", "L", "d_h"), q.shape, strict=True)))
        require_like("q_mem", q_mem, "q", q)
    elif not (q_mem is None and k_mem is None and v_mem is None):
        raise ValueError(f"q_mem, k_mem and v_mem must be None when paths is {paths}, which lacks 'memory'")
    return run(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths)


def resolve_backend(backend: str) -> Callable[..., Tensor]:
    """The implementation that ``backend`` names; ``"auto"`` is the fastest one that is built.

    Raises:
        ValueError: there is no backend of that name.
        NotImplementedError: there will be one, but it is not built yet.
    """
    require_choice("backend", backend, BACKENDS)
    if backend == "auto":
        return sdpa
    if backend not in BUILT:
        raise NotImplementedError(
            f"backend {backend!r} is not built yet; use one of {', '.join(map(repr, BUILT))} or 'auto'"
        )
    return BUILT[backend]
