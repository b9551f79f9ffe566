"""How long a backend takes beside one causal attention over the segment: ``python -m rmat_tutorial.kernels.timing``.

The yardstick is torch's FlashAttention over the same queries, keys and values, without a chunk and without a bank. It
computes one of the three paths.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer

from ..config import BACKENDS
from . import resolve_backend
from .sdpa import causal

YARDSTICK = "causal attention alone"


def compare(
    backends: list[str], *, batch: int, heads: int, length: int, width: int, chunk_size: int, slots: int,
    dtype: torch.dtype, device: str, seconds: float = 1.0,
) -> dict[str, tuple[float, float]]:
    """Milliseconds of the forward, and of forward and backward, for the yardstick and for each backend.

    Args:
        batch, heads, length, width: ``B``, ``H``, ``L`` and ``d_h``.
        chunk_size, slots: ``C`` and ``m``.
        seconds: how long each is repeated; the median counts.
    """
    def random(rows: int) -> Tensor:
        return torch.randn(batch, heads, rows, width, dtype=dtype, device=device, requires_grad=True)

    q, k, v, q_mem, k_mem, v_mem = (random(rows) for rows in (length,) * 4 + (slots,) * 2)
    weights = torch.full((3,), 1 / 3, dtype=dtype, device=device, requires_grad=True)
    inputs = (q, k, v, q_mem, k_mem, v_mem, weights)
    attentions: dict[str, Callable[[], Tensor]] = {YARDSTICK: lambda: flash(q, k, v)}
    for backend in backends:
        run = resolve_backend(backend)
        attentions[backend] = lambda run=run: run(*inputs, chunk_size, ("full", "chunk", "memory"))
    direction = torch.randn_like(q)
    return {name: (median(attend, seconds), median(lambda attend=attend: learn(attend, inputs, direction), seconds))
            for name, attend in attentions.items()}


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention over the segment by torch's FlashAttention, or what torch has for float32 and on a CPU."""
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]) if q.is_cuda else nullcontext():
        return causal(q, k, v)


def learn(attend: Callable[[], Tensor], inputs: tuple[Tensor, ...], direction: Tensor) -> None:
    """Forward and backward; the gradients are thrown away."""
    torch.autograd.grad(attend(), inputs, direction, allow_unused=True)


def median(run: Callable[[], object], seconds: float) -> float:
    """Milliseconds of one run, after one that compiles and tunes."""
    run()
    return Timer("run()", globals={"run": run}).blocked_autorange(min_run_time=seconds).median * 1e3


def main() -> None:
    """Print a line for each: milliseconds, and times the yardstick."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, size in {"batch": 8, "heads": 16, "length": 2048, "width": 64, "chunk-size": 256, "slots": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backends", nargs="+", default=["triton", "sdpa", "flex"], choices=BACKENDS)
    options = vars(parser.parse_args())
    times = compare(**options | {"dtype": getattr(torch, options["dtype"])})
    forward, both = times[YARDSTICK]
    print(f"{'':<22}  forward           forward and backward")
    for name, (ours, ours_both) in times.items():
        print(f"{name:<22}  {ours:7.3f} ms  {ours / forward:4.2f}×  {ours_both:7.3f} ms  {ours_both / both:4.2f}×")


if __name__ == "__main__":
    main()
