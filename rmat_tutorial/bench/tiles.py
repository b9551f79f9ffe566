"""The fused forward with every choice of tile sizes: how long it takes, and what it needs of the chip."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import torch
from tqdm.auto import tqdm

from ..kernels.counting import Shape, Tiles, count
from .attention import random_inputs
from .rounds import Effort, measure

QUERIES = (16, 32, 64, 128)
KEYS = (16, 32, 64, 128)
WARPS = (4, 8)
STAGES = 3


def measure_tiles(
    shape: Shape, dtype: torch.dtype, device: torch.device, effort: Effort, bar: tqdm, only: int | None = None
) -> dict[str, Any]:
    """Time of the fused forward by tile sizes.

    Args:
        only: the first so many choices, for a trial.

    Returns:
        For json: ``shape``, ``dtype``, and ``choices``, each with ``queries``, ``keys``, ``warps`` and ``stages``; with
        ``seconds`` of each round, or the ``reason`` why not; with ``bytes`` that such tiles read and write; and of the
        compiled kernel ``registers`` of a thread, bytes of ``shared`` memory of a program and ``spills``.

    Raises:
        ImportError: triton is not installed.
    """
    from ..kernels.triton_launch import Call, launch_forward

    *tensors, weights = (x.detach() for x in random_inputs(shape, dtype, device))
    call = Call(*tensors, weights, None, None, shape.chunk_size, True, True)
    outputs = call.new_outputs()
    choices = list(product(QUERIES, KEYS, WARPS))[:only]
    runs = {choice: partial(launch_forward, call, *outputs, as_triton(*choice)) for choice in choices}
    measured = measure(runs, device, effort, bar)
    found = []
    for queries, keys, warps in choices:
        choice = (queries, keys, warps)
        tiled = count("triton", shape, dtype, Tiles(queries, keys)).forward
        row: dict[str, Any] = {"queries": queries, "keys": keys, "warps": warps, "stages": STAGES, **tiled._asdict()}
        if choice in measured.seconds:
            row |= {"seconds": measured.seconds[choice], **needs(runs[choice]())}
        else:
            row["reason"] = measured.reasons[choice]
        found.append(row)
    return {"shape": shape._asdict(), "dtype": str(dtype).removeprefix("torch."), "choices": found}


def as_triton(queries: int, keys: int, warps: int) -> dict[str, int]:
    return {"BLOCK_M": queries, "BLOCK_N": keys, "num_warps": warps, "num_stages": STAGES}


def needs(kernel: Any) -> dict[str, int | None]:
    """What a compiled kernel needs of the chip; nothing is known in the interpreter."""
    if kernel is None:
        return {"registers": None, "shared": None, "spills": None}
    return {"registers": kernel.n_regs, "shared": kernel.metadata.shared, "spills": kernel.n_spills}
