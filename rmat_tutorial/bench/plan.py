"""What is measured where: the shapes of the bars and some others, on a CUDA device and on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from ..config import RMATConfig
from ..kernels.counting import Shape
from .attention import COMPILED, METHODS, Ceiling, measure_attention
from .models import Sizes, measure_generation, measure_training
from .recurrence import Stream, measure_recurrence
from .rounds import Effort
from .tiles import measure_tiles

LONG, SHORT = "L = 2048, C = 256", "L = 512, C = 64"  # of the bars for a CUDA device
ON_CPU = "L = 1024, C = 64"  # of the bars for a CPU
READING, TRAINING = "reading, L = 128, N = 8", "training, L = 128, N = 8"  # of the recurrence


class Case(NamedTuple):
    """Something that is measured at one go.

    Attributes:
        part: ``"attention"``, ``"tiles"``, ``"training"``, ``"generation"`` or ``"recurrence"``.
        name: which of its kind.
        measure: what makes a result for json, given a progress bar to count on.
    """

    part: str
    name: str
    measure: Callable[[tqdm], dict[str, Any]]


class Plan(NamedTuple):
    """What is measured on a kind of device.

    Attributes:
        shapes: of attention, by name.
        tiled: the names of those for which tile sizes are tried.
        lengths: of the streams in training and generation, in segments.
        stream: of the recurrence.
    """

    shapes: dict[str, Shape]
    dtype: torch.dtype
    ceiling: Ceiling
    attention: Effort
    tiled: tuple[str, ...]
    tile_effort: Effort
    sizes: Sizes
    lengths: tuple[int, ...]
    stream: Stream
    models: Effort


CUDA = Plan(
    # As many tokens in each, so that a tile of queries of every head is many times what the chip does at once.
    shapes={
        LONG: Shape(8, 16, 2048, 64, 256, 64), SHORT: Shape(32, 16, 512, 64, 64, 64),
        "L = 8192, C = 256": Shape(2, 16, 8192, 64, 256, 64),
        "L = 2048, C = 256, d_h = 128": Shape(8, 8, 2048, 128, 256, 64),
    },
    dtype=torch.bfloat16, ceiling=Ceiling(8192, 2**30), attention=Effort(25, 0.02),
    tiled=(LONG, SHORT), tile_effort=Effort(9, 0.01),
    sizes=Sizes(
        RMATConfig(d_model=768, n_heads=12, n_layers=6, segment_len=512, chunk_size=128, memory_slots=64,
                   write_slots=16, gate="hard"),
        backends=("eager", "sdpa"), batch_tokens=65536, new_tokens=64, precision=torch.bfloat16,
    ),
    lengths=(4, 16, 64),
    stream=Stream(
        RMATConfig(d_model=512, n_heads=8, n_layers=8, segment_len=128, chunk_size=32, memory_slots=32, write_slots=8,
                   gate="hard"),
        batch=8, segments=32, precision="bfloat16",
    ),
    models=Effort(5, 0.2),
)
CPU = Plan(
    shapes={ON_CPU: Shape(1, 4, 1024, 64, 64, 64), "L = 256, C = 32": Shape(8, 4, 256, 64, 32, 64)},
    dtype=torch.float32, ceiling=Ceiling(1024, 2**28), attention=Effort(11, 0.05), tiled=(), tile_effort=Effort(1, 0.0),
    sizes=Sizes(
        RMATConfig(d_model=128, n_heads=2, n_layers=2, segment_len=1024, chunk_size=64, memory_slots=64,
                   write_slots=16, gate="hard"),
        backends=("eager",), batch_tokens=1024, new_tokens=32, precision=torch.float32,
    ),
    lengths=(1, 4, 8),
    stream=Stream(
        RMATConfig(d_model=64, n_heads=2, n_layers=8, segment_len=128, chunk_size=32, memory_slots=32, write_slots=8,
                   gate="hard"),
        batch=8, segments=8, precision="float32",
    ),
    models=Effort(5, 0.2),
)
SMALL = RMATConfig(d_model=16, n_heads=2, n_layers=1, segment_len=16, chunk_size=4, memory_slots=4, write_slots=2)


def trial(plan: Plan) -> Plan:
    """A small part of a plan, which takes seconds, and whose numbers mean nothing."""
    return plan._replace(
        shapes={"trial": Shape(1, 2, 32, 16, 8, 4)}, ceiling=Ceiling(64, 2**16), attention=Effort(3, 1e-3),
        tiled=("trial",) if plan.tiled else (), tile_effort=Effort(1, 1e-3),
        sizes=plan.sizes._replace(config=SMALL, batch_tokens=32, new_tokens=2), lengths=(2,),
        stream=plan.stream._replace(config=SMALL, batch=1, segments=2), models=Effort(2, 1e-3),
    )


def cases(device: torch.device, quick: bool) -> list[Case]:
    """What is measured on ``device``, what has bars first."""
    plan = CUDA if device.type == "cuda" else CPU
    plan = trial(plan) if quick else plan
    methods = [name for name in METHODS if name not in COMPILED or not quick]  # compiling takes a minute
    options = {"names": methods, "dtype": plan.dtype, "ceiling": plan.ceiling, "device": device,
               "effort": plan.attention}
    found = [Case("attention", name, partial(measure_attention, shape, **options))
             for name, shape in plan.shapes.items()]
    found += [Case("recurrence", name, partial(measure_recurrence, plan.stream, name == TRAINING, device=device,
                                               effort=plan.models)) for name in (READING, TRAINING)]
    for segments in plan.lengths:
        tokens = segments * plan.sizes.config.segment_len
        for part, run in (("training", measure_training), ("generation", measure_generation)):
            found.append(Case(part, f"T = {tokens}", partial(run, plan.sizes, tokens, device, plan.models)))
    only = 2 if quick else None
    return found + [Case("tiles", name, partial(_tiles, plan.shapes[name], plan, device, only)) for name in plan.tiled]


def _tiles(shape: Shape, plan: Plan, device: torch.device, only: int | None, bar: tqdm) -> dict[str, Any]:
    return measure_tiles(shape, plan.dtype, device, plan.tile_effort, bar, only)
