"""The recurrence over segments: layer after layer or as a wavefront, launched one by one or as a graph."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from ..baselines import count_parameters
from ..config import RMATConfig
from ..orders import ways
from .models import speeds
from .rounds import Effort, measure

PLAIN = "eager loop"
FASTEST = "wavefront and graph"


class Stream(NamedTuple):
    """What is read at once: ``segments`` of ``batch`` rows. ``precision`` is that of the products of matrices."""

    config: RMATConfig
    batch: int
    segments: int
    precision: str


def measure_recurrence(
    stream: Stream, training: bool, bar: tqdm, device: torch.device, effort: Effort
) -> dict[str, Any]:
    """Tokens per second of every way through a stream that ``orders.ways`` knows, and over those of the plain loop.

    Returns:
        For json: ``batch_size``, ``tokens`` of a row, and ``models`` as of ``measure_training``, by way.
    """
    config, batch, segments, precision = stream
    torch.manual_seed(0)
    runs = ways(config, batch, segments, training=training, precision=precision, device=device)
    measured = measure(runs, device, effort, bar)
    tokens = segments * config.segment_len
    reasons = {} if FASTEST in runs else dict.fromkeys(("graph", FASTEST), "needs a CUDA device")
    parameters = dict.fromkeys(runs, count_parameters(config))
    return {"batch_size": batch, "tokens": tokens,
            "models": speeds(parameters, measured, batch * tokens, PLAIN, reasons)}
