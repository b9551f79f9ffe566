"""The backend ``triton``: the fused kernels as two custom operators of torch, one forward and one backward.

To autograd and to ``torch.compile`` either operator is one step that they need not look into.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .limits import mixture, obstacle
from .triton_launch import INTERPRETED, Call, run_backward, run_forward


def fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_mem: Tensor | None,
    k_mem: Tensor | None,
    v_mem: Tensor | None,
    weights: Tensor,
    chunk_size: int,
    paths: tuple[str, ...],
    rope: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """``hybrid_attention`` in one kernel; arguments as there, already checked.

    Args:
        rope: cosines and sines of the positions ``0 .. S - 1``, each ``(S, d_h / 2)``. ``q`` and ``k`` are then not
            rotated; the kernels turn them as they load them. ``q_mem`` is ``q``, which is read once for all paths.

    Raises:
        ValueError: the kernels cannot run on these tensors.
    """
    others = {"k": k, "v": v, "q_mem": q_mem, "k_mem": k_mem, "v_mem": v_mem}
    if reason := obstacle(q, interpreted=INTERPRETED) or mixture(q, **others):
        raise ValueError(f"backend 'triton' {reason}")
    cos, sin = (None, None) if rope is None else rope
    shared = q_mem is q
    out, _ = hybrid_forward(
        q, k, v, None if shared else q_mem, k_mem, v_mem, weights, cos, sin,
        chunk_size, "full" in paths, "chunk" in paths,
    )
    return out


@torch.library.custom_op("rmat_tutorial::hybrid_forward", mutates_args=())
def hybrid_forward(
    q: Tensor, k: Tensor, v: Tensor, q_mem: Tensor | None, k_mem: Tensor | None, v_mem: Tensor | None, weights: Tensor,
    cos: Tensor | None, sin: Tensor | None, chunk_size: int, full: bool, chunk: bool,
) -> tuple[Tensor, Tensor]:
    """The output ``(B, H, L, d_h)``, and the log-sum-exp of every row of every path, base 2, see ``new_rows``."""
    return run_forward(Call(q, k, v, q_mem, k_mem, v_mem, weights, cos, sin, chunk_size, full, chunk))


@torch.library.custom_op("rmat_tutorial::hybrid_backward", mutates_args=())
def hybrid_backward(
    q: Tensor, k: Tensor, v: Tensor, q_mem: Tensor | None, k_mem: Tensor | None, v_mem: Tensor | None, weights: Tensor,
    cos: Tensor | None, sin: Tensor | None, chunk_size: int, full: bool, chunk: bool,
    out: Tensor, log_sums: Tensor, d_out: Tensor,
) -> list[Tensor]:
    """The gradients of the tensors that ``Call.differentiable`` names, in its order, and of ``weights``."""
    call = Call(q, k, v, q_mem, k_mem, v_mem, weights, cos, sin, chunk_size, full, chunk)
    return run_backward(call, out, log_sums, d_out)


@hybrid_forward.register_fake
def _(*inputs):
    return Call(*inputs).new_outputs()


@hybrid_backward.register_fake
def _(*inputs):
    call = Call(*inputs[:-3])
    return [*call.new_gradients(), torch.empty_like(call.weights)]


def keep(ctx, inputs, output) -> None:
    """Keep what the backward needs: the inputs, the output, and three numbers a row."""
    ctx.save_for_backward(*inputs[:9], *output)
    ctx.options = inputs[9:]


def differentiate(ctx, d_out: Tensor, _) -> tuple[Tensor | None, ...]:
    """The gradient of every argument of ``hybrid_forward``."""
    *inputs, out, log_sums = ctx.saved_tensors
    call = Call(*inputs, *ctx.options)
    *gradients, d_weights = hybrid_backward(*call, out, log_sums, d_out)
    found = dict(zip(call.differentiable, gradients, strict=True)) | {"weights": d_weights}
    return tuple(found.get(name) for name in Call._fields)


hybrid_forward.register_autograd(differentiate, setup_context=keep)
