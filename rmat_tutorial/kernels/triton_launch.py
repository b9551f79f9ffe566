"""How the Triton kernels are launched: the tensors they get, the sizes of their tiles, the outputs they fill."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .triton_dkv import dkv_kernel
from .triton_dq import dq_kernel
from .triton_forward import forward_kernel
from .triton_tiles import HIGHEST, TABLE_ROWS

# Decided when triton is imported: with TRITON_INTERPRET=1 the kernels run in numpy, on the CPU.
INTERPRETED = not isinstance(forward_kernel, triton.JITFunction)
INTERPRETER_TILES = {"BLOCK_M": 16, "BLOCK_N": 16}
# Queries and keys of a tile, warps, stages of the pipeline, by bytes of an element. Where there are several, the
# fastest is found by trial at the first call with other ``TRIED_BY``, or another dtype. Compiled for an H100 none
# spills a register in a loop at d_h = 64. A product of float32 needs many more registers, so its tiles are small.
FORWARD_TILES = {2: ((128, 128, 8, 2), (128, 64, 8, 3), (64, 128, 4, 2), (64, 64, 8, 3), (64, 64, 4, 2)),
                 4: ((32, 32, 4, 1),)}
DQ_TILES = {2: ((128, 64, 8, 2), (128, 64, 8, 3), (64, 64, 4, 2), (64, 32, 4, 3)), 4: ((16, 32, 4, 1),)}
DKV_TILES = {2: ((64, 128, 8, 2), (64, 64, 4, 2), (64, 64, 4, 3), (32, 128, 8, 3), (32, 64, 4, 3)),
             4: ((16, 16, 4, 1),)}
# What the best sizes hang on: how many queries, keys and heads there are, and what else a program has to keep at hand.
TRIED_BY = ["D", "query_class", "key_class", "head_class", "FULL", "CHUNK", "MEMORY", "ROPE", "SHARED"]
SMALLEST_CLASS, LARGEST_CLASS = 64, 4096


def tuned(kernel: Any, tiles: dict[int, tuple[tuple[int, int, int, int], ...]]) -> dict[int, Any]:
    """The kernel by bytes of an element, its tile sizes chosen by trial; as it is where it is interpreted."""
    if INTERPRETED:
        return dict.fromkeys(tiles, kernel)
    return {size: triton.autotune([config(*choice) for choice in choices], key=TRIED_BY)(kernel)
            for size, choices in tiles.items()}


def size_class(size: int) -> int:
    """A power of two for sizes that the same tiles suit: a trial for each length of a stream would take long."""
    return min(max(triton.next_power_of_2(size), SMALLEST_CLASS), LARGEST_CLASS)


def config(queries: int, keys: int, warps: int, stages: int) -> triton.Config:
    """A choice of tile sizes as Triton wants it."""
    return triton.Config({"BLOCK_M": queries, "BLOCK_N": keys}, num_warps=warps, num_stages=stages)


FORWARD, DQ, DKV = tuned(forward_kernel, FORWARD_TILES), tuned(dq_kernel, DQ_TILES), tuned(dkv_kernel, DKV_TILES)


class Call(NamedTuple):
    """The arguments of either operator: those of ``hybrid_attention``, with the paths as flags.

    Attributes:
        q_mem: ``None`` where the bank is read with ``q`` as it is given, before ``cos`` and ``sin`` turn it.
        cos, sin: of every position, ``(S, d_h / 2)``, where ``q`` and ``k`` are not rotated yet; else ``None``.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    q_mem: Tensor | None
    k_mem: Tensor | None
    v_mem: Tensor | None
    weights: Tensor
    cos: Tensor | None
    sin: Tensor | None
    chunk_size: int
    full: bool
    chunk: bool

    @property
    def differentiable(self) -> tuple[str, ...]:
        """Names of the tensors, ``weights`` aside, that the output depends on."""
        segment = self.full or self.chunk
        used = {
            "q": segment or self.q_mem is None, "k": segment, "v": segment,
            "q_mem": self.q_mem is not None, "k_mem": self.k_mem is not None, "v_mem": self.v_mem is not None,
        }
        return tuple(name for name, is_used in used.items() if is_used)

    def new_outputs(self) -> tuple[Tensor, Tensor]:
        """Room for the output, and for the log-sum-exp of every row of every path."""
        return new_like(self.q), new_rows(self.q, self.weights.shape[-1], HIGHEST.value)

    def new_gradients(self) -> list[Tensor]:
        """Room for the gradients of ``differentiable``, in that order."""
        return [new_like(getattr(self, name)) for name in self.differentiable]


def new_like(x: Tensor) -> Tensor:
    """Room for ``(B, H, L, d_h)`` in the order ``(B, L, H, d_h)``, so that the heads merge without a copy."""
    batch, heads, length, width = x.shape
    return x.new_empty(batch, length, heads, width).transpose(1, 2)


def new_rows(q: Tensor, n_paths: int, fill: float) -> Tensor:
    """Room for a number for each row of every path, ``(P, B H, rows)`` float32, and ``fill`` from row L on.

    ``rows`` is L, rounded up to a multiple of ``TABLE_ROWS``.
    """
    batch, heads, length, _ = q.shape
    rows = math.ceil(length / TABLE_ROWS.value) * TABLE_ROWS.value
    tables = q.new_empty(n_paths, batch * heads, rows, dtype=torch.float32)
    tables[..., length:] = fill
    return tables


def run_forward(call: Call) -> tuple[Tensor, Tensor]:
    """The output and the log-sum-exps."""
    out, log_sums = call.new_outputs()
    launch_forward(call, out, log_sums)
    return out, log_sums


def launch_forward(call: Call, out: Tensor, log_sums: Tensor, choice: dict[str, int] | None = None) -> Any:
    """Fill ``new_outputs``; returns the compiled kernel, or ``None`` in the interpreter.

    Args:
        choice: ``BLOCK_M``, ``BLOCK_N``, ``num_warps`` and ``num_stages``, in place of those found by trial.
    """
    kernels = FORWARD if choice is None else dict.fromkeys(FORWARD, forward_kernel)
    return launch(kernels, call, lambda meta: triton.cdiv(call.q.shape[2], meta["BLOCK_M"]), {"out": out}, choice,
                  log_sums=log_sums)


def run_backward(call: Call, out: Tensor, log_sums: Tensor, d_out: Tensor) -> list[Tensor]:
    """The gradients of ``call.differentiable`` and, last, of ``weights``."""
    found = dict(zip(call.differentiable, call.new_gradients(), strict=True))
    gradients = {f"d_{name}": found.get(name) for name in ("q", "k", "v", "q_mem", "k_mem", "v_mem")}
    d_queries = {name: gradients.pop(name) for name in ("d_q", "d_q_mem")}
    rows = {"log_sums": log_sums, "means": new_rows(call.q, len(log_sums), 0.0), "d_scale": call.q.shape[3] ** -0.5}
    launch(DQ, call, lambda meta: triton.cdiv(call.q.shape[2], meta["BLOCK_M"]),
           {"out": out, "d_out": d_out} | d_queries, **rows)
    n_keys = call.k.shape[2] if call.full or call.chunk else 0
    n_slots = 0 if call.k_mem is None else call.k_mem.shape[2]
    launch(DKV, call, lambda meta: triton.cdiv(n_keys, meta["BLOCK_N"]) + triton.cdiv(n_slots, meta["BLOCK_N"]),
           {"d_out": d_out} | gradients, **rows)
    d_weights = rows["means"].unflatten(1, call.q.shape[:2]).sum((2, 3)).T.contiguous()
    return [*found.values(), d_weights.sum_to_size(call.weights.shape).to(call.weights.dtype)]


def launch(
    kernels: dict[int, Any], call: Call, tiles: Callable[[dict[str, int]], int], more: dict[str, Tensor | None],
    choice: dict[str, int] | None = None, **rows: Any,
) -> Any:
    """Run a kernel on a grid of ``tiles`` by ``B H``. ``more``: the tensors beside the inputs, ``rows``: the rest."""
    batch, n_heads, n_queries, width = call.q.shape
    n_keys = call.k.shape[2]
    inputs = {name: getattr(call, name) for name in ("q", "k", "v", "q_mem", "k_mem", "v_mem")}
    arguments = heads_and_strides(inputs | more) | rows | {
        "weights": call.weights.float().contiguous(),
        "weights_stride": call.weights.shape[1] if call.weights.dim() == 2 else 0,
        "cos": None if call.cos is None else call.cos.contiguous(),
        "sin": None if call.sin is None else call.sin.contiguous(),
        "n_heads": n_heads,
        "n_queries": n_queries,
        "n_keys": n_keys,
        "n_slots": 0 if call.k_mem is None else call.k_mem.shape[2],
        # Without the path every key is in one chunk, and the full path is that chunk's.
        "chunk_size": min(call.chunk_size, n_keys) if call.chunk else n_keys,
        "query_class": size_class(n_queries),
        "key_class": size_class(n_keys),
        "head_class": size_class(batch * n_heads),
        "scale": math.log2(math.e) / math.sqrt(width),
        "FULL": call.full,
        "CHUNK": call.chunk,
        "MEMORY": call.k_mem is not None,
        "ROPE": call.cos is not None,
        "SHARED": call.q_mem is None,
        "D": width,
        "BLOCK_D": max(16, triton.next_power_of_2(width)),
    }
    device = torch.cuda.device(call.q.device) if call.q.is_cuda else contextlib.nullcontext()
    kernel = kernels[call.q.element_size()]
    with device:
        return kernel[lambda meta: (tiles(meta), batch * n_heads)](
            **arguments, **(choice or (INTERPRETER_TILES if INTERPRETED else {}))
        )


def heads_and_strides(tensors: dict[str, Tensor | None]) -> dict[str, Any]:
    """Each tensor ``(B, H, rows, d_h)``, its rows dense, and as ``NAME_strides`` the strides of the other axes."""
    arguments: dict[str, Any] = {}
    for name, x in tensors.items():
        if x is not None and x.stride(3) != 1:
            x = x.contiguous()
        arguments |= {name: x, f"{name}_strides": (0, 0, 0) if x is None else x.stride()[:3]}
    return arguments
