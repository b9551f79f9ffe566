"""Implementations of ``hybrid_attention`` behind one signature. Nothing here knows of models.

A backend is a function ``(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths) -> (B, H, L, d_h)``.

    ========  ===================================================  ================================================
    backend   how                                                  where
    ========  ===================================================  ================================================
    eager     three attentions, every softmax written out          anywhere, any dtype; the reference
    sdpa      three calls of torch's fused attention               anywhere, any dtype
    flex      one launch of FlexAttention, a head for each path    CUDA; without gradients, slowly, on a CPU or MPS
    triton    one kernel forward, two backward                     CUDA; float32, float16, bfloat16; d_h up to 128
    ========  ===================================================  ================================================

What ``auto`` takes, by the first line that fits:

    ====================================================  ========  ================================================
    tensors                                               takes     because
    ====================================================  ========  ================================================
    on a CPU or MPS                                       sdpa      Triton has no compiler for them; FlexAttention
                                                                    has no backward there
    on CUDA, without the package triton                   sdpa      there is nothing to compile the kernels with
    on CUDA, float64, or d_h > 128, or B H > 65 535       sdpa      the kernels do not take them (``limits``)
    on CUDA, compute capability below 8.0, as of a T4     sdpa      Triton leaves the tensor cores of such chips idle,
                                                                    and the tiles are for more shared memory
    on CUDA, float32                                      sdpa      the kernels take three products of tensor cores
                                                                    for one, in small tiles: right, but not fast
    on CUDA, float16 and bfloat16                         triton    q, k and v are read as for one attention, and
                                                                    the output is written once
    ====================================================  ========  ================================================

What they agree within: ``TOLERANCES`` in ``limits``.

What the fused kernels move. With ``rope`` the tables of cosines and sines are read beside every tile that is turned.

    ==================  =======================================================================================
    forward             reads q and q_mem once (once in all where they are one tensor); k and v once for each tile of
                        queries that sees them, as causal attention does; the bank once for each tile of queries;
                        writes the output once, and a log-sum-exp for each row and path
    backward, queries   reads q, q_mem, the output and its gradient once; k and v as the forward, those of the chunk
                        and the bank twice; writes the gradients of q and q_mem once, and a mean for each row and path
    backward, keys      reads k, v and the bank once; q, q_mem and the gradient of the output once for each tile of
                        keys that they see; writes the gradients of k, v and the bank once
    ==================  =======================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from ..attention import require_bank, require_segment
from ..config import BACKENDS, PATHS, require_paths
from ..rope import rotate_pairs
from ..validate import require_choice, require_float_tensor, require_int, require_like
from .eager import eager
from .limits import HALF, OLDEST_CHIP, obstacle
from .sdpa import sdpa

HAS_TRITON = find_spec("triton") is not None


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
    rope: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The fused attention of the hybrid block, ``λ_1 A_full + λ_2 A_chunk + λ_3 A_mem`` (arXiv 2507.00453, eq. of
    the fusion; which of the three run is ``paths``).

    Args:
        q: queries ``(B, H, L, d_h)``, already rotated, unless ``rope`` is given.
        k, v: keys (rotated as ``q``) and values, ``(B, H, S, d_h)`` with ``S >= L``; the queries are the last
            ``L`` of the ``S`` positions, so that a cache of the segment's earlier positions can be passed.
        q_mem: the queries before rotation, ``(B, H, L, d_h)``; ``None`` without the memory path.
        k_mem, v_mem: keys and values of the bank, ``(B, H, m, d_h)``; ``None`` without the memory path.
        weights: λ, ``(len(paths),)``, in the order of ``paths``; or ``(B, len(paths))``, one for each row, as where
            rows are of different layers.
        chunk_size: positions per chunk, ``C``.
        backend: ``"eager"``, ``"sdpa"``, ``"flex"``, ``"triton"`` or ``"auto"``; see the tables above.
        rope: cosines and sines of the positions ``0 .. S - 1``, ``(S, d_h / 2)`` each, as ``rope_tables`` makes them.
            ``q`` and ``k`` are then not rotated yet. ``"triton"`` turns them as it loads them.

    Returns:
        ``(B, H, L, d_h)``.

    Raises:
        TypeError, ValueError: an argument does not fit or contains NaN, or the backend cannot run on such tensors; the
            message names it.
        ImportError: the backend needs a package that is not installed.
        NotImplementedError: a gradient is wanted of ``"flex"`` where it has no backward.
    """
    run = resolve_backend(backend)
    paths = require_paths(paths)
    require_segment(q, k, v)
    require_int("chunk_size", chunk_size, 1)
    axes = ("B", "len(paths)") if getattr(weights, "ndim", 1) == 2 else ("len(paths)",)
    require_float_tensor("weights", weights, axes, {"B": q.shape[0], "len(paths)": len(paths)})
    require_like("weights", weights, "q", q)
    if "memory" in paths:
        if q_mem is None or k_mem is None or v_mem is None:
            raise ValueError("q_mem, k_mem and v_mem must be given when paths contains 'memory', got None")
        require_bank(q_mem, k_mem, v_mem, dict(zip(("B", "H", "L", "d_h"), q.shape, strict=True)))
        require_like("q_mem", q_mem, "q", q)
    elif not (q_mem is None and k_mem is None and v_mem is None):
        raise ValueError(f"q_mem, k_mem and v_mem must be None when paths is {paths}, which lacks 'memory'")
    if rope is not None:
        require_tables(rope, q, k)
        if backend == "triton" or (backend == "auto" and suited(q) == "triton"):
            return resolve_backend("triton")(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths, rope)
        cos, sin = rope
        q, k = rotate_pairs(q, cos[-q.shape[2]:], sin[-q.shape[2]:]), rotate_pairs(k, cos, sin)
    return run(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths)


def require_tables(rope: tuple[Tensor, Tensor], q: Tensor, k: Tensor) -> None:
    """Raise unless ``rope`` holds a cosine and a sine for each pair of each key."""
    for name, table in zip(("rope[0]", "rope[1]"), rope, strict=True):
        require_float_tensor(name, table, ("S", "d_h / 2"), {"S": k.shape[2], "d_h / 2": k.shape[3] // 2})
        require_like(name, table, "q", q)


def resolve_backend(backend: str) -> Callable[..., Tensor]:
    """The implementation that ``backend`` names; only then is what it needs imported.

    Raises:
        ValueError: there is no backend of that name.
        ImportError: it needs a package that is not installed.
    """
    require_choice("backend", backend, BACKENDS)
    if backend == "flex":
        from .flex import flex

        return flex
    if backend == "triton":
        if not HAS_TRITON:
            raise ImportError(
                "backend 'triton' needs the package triton, which is not installed: "
                "pip install triton==3.7.1 (on Linux), or use 'sdpa'"
            )
        from .triton_ops import fused

        return fused
    return {"eager": eager, "sdpa": sdpa, "auto": auto}[backend]


def auto(q: Tensor, *others: Tensor | int | tuple[str, ...] | None) -> Tensor:
    """``hybrid_attention`` with the backend that suits ``q``; arguments as there, already checked."""
    return resolve_backend(suited(q))(q, *others)


def suited(q: Tensor) -> str:
    """The backend that ``"auto"`` stands for with queries like ``q``."""
    fits = q.is_cuda and HAS_TRITON and q.dtype in HALF and not obstacle(q, interpreted=False)
    # Of all that torch says of a device torch.compile looks through the properties alone.
    return "triton" if fits and torch.cuda.get_device_properties(q.device).major >= OLDEST_CHIP else "sdpa"
