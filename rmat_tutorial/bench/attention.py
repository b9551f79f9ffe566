"""Attention: the backends against other ways of doing it, and against what the machine can do at the most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from ..config import BACKENDS, PATHS
from ..graphs import Pool, capture
from ..jobs import reason_of
from ..kernels import resolve_backend, suited
from ..kernels.counting import WAYS, Shape, Tiles, count
from ..kernels.sdpa import causal, chunked, over_bank
from ..rope import rope_frequencies, rope_tables, rotate_pairs
from .rounds import Effort, Run, measure, peak_of, per_second, ratio

FLOOR = "causal"  # on a CUDA device by FlashAttention-2 or not at all
CUDNN, EFFICIENT = "causal, cuDNN", "causal, efficient"  # by torch's other two, which are no floor
CHUNKS, BANK = "chunks alone", "bank alone"  # what sdpa does beside causal attention, but for the mixing
COMPILED = ("eager, compiled", "sdpa, compiled")
WRITTEN_OUT = ("eager", "eager, compiled")  # whose graphs would hold matrices of scores for good
ROPE_BEFORE, ROPE_ON_LOAD = "triton, rope before", "triton, rope on load"
NEEDS_CUDA = ("triton", CUDNN, EFFICIENT, ROPE_BEFORE, ROPE_ON_LOAD)
METHODS = (FLOOR, CUDNN, EFFICIENT, CHUNKS, BANK, *BACKENDS, *COMPILED, ROPE_BEFORE, ROPE_ON_LOAD)
IN_TORCH = {
    FLOOR: SDPBackend.FLASH_ATTENTION, CUDNN: SDPBackend.CUDNN_ATTENTION, EFFICIENT: SDPBackend.EFFICIENT_ATTENTION,
}
YARDSTICKS = ("eager", "sdpa", "flex", FLOOR)
DIRECTIONS = ("forward", "both")
TILES = Tiles(128, 64)  # what FlashAttention-2 takes at d_h = 64; for the bytes that are read again
PRODUCT, COPY = "product", "copy"


class Ceiling(NamedTuple):
    """What is measured for the machine's own limits: a product of two square matrices, and a copy.

    Attributes:
        side: rows and columns of the matrices.
        bytes: that are copied: so many are read, and so many written.
    """

    side: int
    bytes: int


def measure_attention(
    shape: Shape, bar: tqdm, names: Sequence[str], dtype: torch.dtype, ceiling: Ceiling, device: torch.device,
    effort: Effort,
) -> dict[str, Any]:
    """Time and peak memory of methods, forward and forward with backward, and the machine's ceilings.

    With CUDA, replays of graphs are timed, but for the methods ``WRITTEN_OUT``: what Python needs to launch a kernel
    is longer than a short kernel runs, and says nothing of it.

    Args:
        names: of ``METHODS``.

    Returns:
        For json: ``shape``, ``dtype``; ``methods``: by name and direction ``seconds`` of each round and ``peak_bytes``,
        or the ``reason`` why not, whether it was ``replayed``, and what the way costs; ``ratios``: by direction, name
        and yardstick; ``ceilings``.
    """
    attends, reasons = methods(shape, names, dtype, device)
    runs = {(name, direction): run for name, both in attends.items() for direction, run in both.items()}
    replayed = [name for name in attends if device.type == "cuda" and name not in WRITTEN_OUT]
    pool = Pool() if replayed else None
    timed = {key: Replayed(run, device, pool) if key[0] in replayed else run for key, run in runs.items()}
    limits = ceilings(ceiling, dtype, device)
    measured = measure({**timed, **limits}, device, effort, bar)
    # With CUDA a peak of the first call would be that of compiling and tuning: it is measured after the rounds.
    peaks = {key: peak_of(runs[key], device) for key in measured.seconds if key in runs}
    found: dict[str, Any] = {}
    for name in names:
        way = counted_as(name, shape, dtype, device)
        found[name] = {"cost": None if way is None else costs(way, shape, dtype), "replayed": name in replayed}
        for direction in DIRECTIONS:
            key = (name, direction)
            if key in measured.seconds:
                found[name][direction] = {"seconds": measured.seconds[key], "peak_bytes": peaks[key]}
            else:
                found[name][direction] = {"reason": reasons.get(name) or measured.reasons[key]}
    return {
        "shape": shape._asdict(), "dtype": str(dtype).removeprefix("torch."), "methods": found,
        "ratios": {way: ratios({name: one[way] for name, one in found.items()}) for way in DIRECTIONS},
        "ceilings": {
            "flops_per_second": per_second(2 * ceiling.side**3, measured.seconds[PRODUCT]),
            "bytes_per_second": per_second(2 * ceiling.bytes, measured.seconds[COPY]),
        },
    }


class Replayed:
    """A method as a CUDA graph, which the first call captures.

    Args:
        pool: shared with graphs whose results nobody reads.
    """

    def __init__(self, run: Run, device: torch.device, pool: Pool) -> None:
        self.run, self.device, self.pool = run, device, pool
        self._replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self._replay is None:
            self._replay, _ = capture(self.run, self.device, self.pool)
        self._replay()


def ratios(found: dict[str, Any]) -> dict[str, Any]:
    """For each method that ran, by yardstick, how many times the yardstick's time it took."""
    times = {name: one["seconds"] for name, one in found.items() if "seconds" in one}
    return {name: {other: ratio(ours, times[other])._asdict() for other in YARDSTICKS if other in times}
            for name, ours in times.items()}


def methods(
    shape: Shape, names: Sequence[str], dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, dict[str, Run]], dict[str, str]]:
    """For each method that may run here its two directions; for the others the reason."""
    torch.compiler.reset()  # what was compiled for another shape would be compiled anew, for any
    inputs = random_inputs(shape, dtype, device)
    direction = torch.randn_like(inputs[0])
    attends, reasons = {}, {}
    for name in names:
        if name in NEEDS_CUDA and device.type != "cuda":
            reasons[name] = "needs a CUDA device"
            continue
        try:
            attends[name] = attention(name, inputs, shape.chunk_size)
        except ImportError as error:
            reasons[name] = reason_of(error)
    return {name: {"forward": partial(no_gradient, attend), "both": partial(learn, attend, inputs, direction)}
            for name, attend in attends.items()}, reasons


def random_inputs(shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """q, k, v, q_mem, k_mem, v_mem and weights."""
    generator = torch.Generator(device).manual_seed(0)
    heads = (torch.randn(sizes, dtype=dtype, device=device, generator=generator) for sizes in shape.of_tensors())
    weights = torch.full((len(PATHS),), 1 / len(PATHS), dtype=dtype, device=device)
    return tuple(x.requires_grad_() for x in (*heads, weights))


def attention(name: str, inputs: tuple[Tensor, ...], chunk_size: int) -> Callable[[], Tensor]:
    """The method ``name`` on these inputs.

    Raises:
        ImportError: it needs a package that is not installed.
    """
    q, k, v, _, k_mem, v_mem, weights = inputs
    if name in IN_TORCH:
        return lambda: alone(q, k, v, IN_TORCH[name])
    if name == CHUNKS:
        return lambda: chunked(q, k, v, chunk_size)
    if name == BANK:
        return lambda: over_bank(q, k_mem, v_mem)
    if name in COMPILED:
        return partial(torch.compile(resolve_backend(name.split(",")[0])), *inputs, chunk_size, PATHS)
    if name in (ROPE_BEFORE, ROPE_ON_LOAD):
        run = resolve_backend("triton")
        tables = rope_tables(torch.arange(q.shape[2], device=q.device),
                             rope_frequencies(q.shape[3], device=q.device), q.dtype)
        if name == ROPE_ON_LOAD:
            return lambda: run(q, k, v, q, k_mem, v_mem, weights, chunk_size, PATHS, tables)
        return lambda: run(rotate_pairs(q, *tables), rotate_pairs(k, *tables), v, q, k_mem, v_mem, weights,
                           chunk_size, PATHS)
    return partial(resolve_backend(name), *inputs, chunk_size, PATHS)


def alone(q: Tensor, k: Tensor, v: Tensor, implementation: SDPBackend) -> Tensor:
    """Causal attention over the segment by one of torch's implementations; on a CPU by the one that torch has.

    Raises:
        RuntimeError: it does not take such tensors on this device.
    """
    with sdpa_kernel(implementation) if q.is_cuda else nullcontext():
        return causal(q, k, v)


@torch.no_grad()
def no_gradient(attend: Callable[[], Tensor]) -> Tensor:
    """Forward alone; nothing is kept for a backward."""
    return attend()


def learn(attend: Callable[[], Tensor], inputs: tuple[Tensor, ...], direction: Tensor) -> None:
    """Forward and backward; the gradients are thrown away."""
    torch.autograd.grad(attend(), inputs, direction, allow_unused=True)


def ceilings(ceiling: Ceiling, dtype: torch.dtype, device: torch.device) -> dict[str, Run]:
    """A product of matrices and a copy, which show what the machine can do at the most."""
    a, b = (torch.randn(ceiling.side, ceiling.side, device=device).to(dtype) for _ in range(2))
    source = torch.zeros(ceiling.bytes, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    return {PRODUCT: lambda: a @ b, COPY: lambda: target.copy_(source)}


def counted_as(name: str, shape: Shape, dtype: torch.dtype, device: torch.device) -> str | None:
    """The way of ``counting`` that a method is; ``None`` where it is none of them."""
    if name == "auto":
        return suited(torch.empty(shape.batch, shape.heads, 1, shape.width, dtype=dtype, device=device))
    return FLOOR if name in IN_TORCH else name if name in WAYS else None


def costs(way: str, shape: Shape, dtype: torch.dtype) -> dict[str, Any]:
    """What is counted of a way, by direction: operations and compulsory bytes, and bytes with what tiles read again."""
    least, tiled = count(way, shape, dtype), count(way, shape, dtype, TILES)
    return {direction: {**getattr(least, direction)._asdict(), "bytes_in_tiles": getattr(tiled, direction).bytes}
            for direction in DIRECTIONS}
