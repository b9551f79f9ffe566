"""Looking inside a model while it reads: attention maps, λ, gates, pooled writes and banks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from .attention import chunked_weights, full_weights, memory_weights
from .block import HybridBlock
from .language_model import LanguageModel
from .memory import MemoryWrite
from .model import RMAT


@dataclass
class LayerTrace:
    """What one layer did with one segment. ``P`` is the number of positions that were read while recording.

    Attributes:
        full, chunk: attention maps ``(B, H, P, S)`` over the ``S`` positions of the segment seen so far; ``None``
            when the model lacks the path.
        memory: attention map over the bank, ``(B, H, P, m)``, or ``None``.
        mix: λ of each path.
        bank: the bank as the segment read it, ``(B, m, d)``, or ``None``.
        write: the write after the segment; ``None`` while it is unfinished or without the memory path.
    """

    full: Tensor | None = None
    chunk: Tensor | None = None
    memory: Tensor | None = None
    mix: dict[str, float] = field(default_factory=dict)
    bank: Tensor | None = None
    write: MemoryWrite | None = None


@dataclass
class SegmentTrace:
    """One segment, layer by layer."""

    layers: list[LayerTrace]


@dataclass
class Trace:
    """What ``record`` collects: the segments in the order in which they were read."""

    segments: list[SegmentTrace] = field(default_factory=list)


@contextmanager
def record(model: RMAT) -> Iterator[Trace]:
    """Record everything that ``model`` does inside the ``with`` block, without changing its outputs.

    A segment that is read in pieces becomes one ``SegmentTrace``. Tensors are detached copies. When no recording
    is on, a model does no work for it.

    Raises:
        TypeError: ``model`` is not an ``RMAT``.
    """
    if not isinstance(model, RMAT):
        raise TypeError(f"model must be an RMAT, got {type(model).__name__}")
    trace = Trace()
    taps = [_Recorder(trace, model, layer) for layer in range(model.config.n_layers)]
    with _tapped(model.blocks, taps):
        yield trace


@contextmanager
def collect_gates(model: LanguageModel, margin: float = 0.0) -> Iterator[list[Tensor]]:
    """The write gates ``z`` ``(B, w, d)`` of every layer and segment, with their gradient: for a penalty on them.

    With ``margin``, the gates that scores higher by so much would give: where those are shut, the gates are shut
    and not at the edge of opening. A model without gates gives none.
    """
    found: list[Tensor] = []
    blocks = [block for block in model.blocks if isinstance(block, HybridBlock) and block.memory is not None]
    if margin:
        taps = [_WriteCollector(found, lambda hidden, write, opening=block.memory.opening:
                                opening(write.gate_score + margin)) for block in blocks]
    else:
        taps = [_WriteCollector(found, lambda hidden, write: write.gate)] * len(blocks)
    with _tapped(blocks, taps):
        yield found


@torch.no_grad()
def written_segments(model: RMAT, tokens: Tensor) -> list[list[Tensor]]:
    """For each layer the segments ``(B, L, d)`` that its memory is written from while ``model`` reads ``(B, T)``."""
    found: list[list[Tensor]] = [[] for _ in model.blocks]
    with _tapped(model.blocks, [_WriteCollector(layer, lambda hidden, write: hidden) for layer in found]):
        model(tokens)
    return found


@contextmanager
def _tapped(blocks: Sequence[HybridBlock], taps: list) -> Iterator[None]:
    for block, tap in zip(blocks, taps, strict=True):
        block.taps.append(tap)
    try:
        yield
    finally:
        for block, tap in zip(blocks, taps, strict=True):
            block.taps.remove(tap)


class _WriteCollector:
    """Adds to ``found`` one tensor of every write, that which ``choose`` returns."""

    def __init__(self, found: list[Tensor], choose: Callable[[Tensor, MemoryWrite], Tensor]) -> None:
        self.found, self.choose = found, choose

    def attended(self, *_: object) -> None:
        """Attention is of no interest here."""

    def written(self, hidden: Tensor, write: MemoryWrite) -> None:
        self.found.append(self.choose(hidden, write))


class _Recorder:
    """The tap of one layer; the first layer opens a segment in the trace."""

    def __init__(self, trace: Trace, model: RMAT, layer: int) -> None:
        self.trace, self.config, self.layer = trace, model.config, layer
        self.segment: SegmentTrace | None = None
        self.read_to: tuple[int, int] | None = None  # rows, and positions of the segment read so far
        self.segments_begun = 0

    @torch.no_grad()
    def attended(
        self, q: Tensor, k: Tensor, q_mem: Tensor | None, k_mem: Tensor | None, weights: Tensor, bank: Tensor | None
    ) -> None:
        rows, seen = q.shape[0], k.shape[-2]
        if (rows, seen - q.shape[-2]) != self.read_to:
            if self.segments_begun == len(self.trace.segments):
                self.trace.segments.append(SegmentTrace([LayerTrace() for _ in range(self.config.n_layers)]))
            self.segment = self.trace.segments[self.segments_begun]
            self.segments_begun += 1
        self.read_to = (rows, seen)
        layer = self.segment.layers[self.layer]
        paths = self.config.paths
        layer.mix = dict(zip(paths, weights.tolist(), strict=True))
        layer.bank = None if bank is None else bank.detach().clone()
        if "full" in paths:
            layer.full = _joined(layer.full, full_weights(q, k))
        if "chunk" in paths:
            layer.chunk = _joined(layer.chunk, chunked_weights(q, k, self.config.chunk_size))
        if "memory" in paths:
            layer.memory = _joined(layer.memory, memory_weights(q_mem, k_mem))

    def written(self, hidden: Tensor, write: MemoryWrite) -> None:
        self.segment.layers[self.layer].write = MemoryWrite(*(tensor.detach().clone() for tensor in write))


def _joined(earlier: Tensor | None, rows: Tensor) -> Tensor:
    """Rows of an attention map under the earlier ones, whose later columns are zeros: they could not see them."""
    rows = rows.detach()
    if earlier is None:
        return rows
    return torch.cat((pad(earlier, (0, rows.shape[-1] - earlier.shape[-1])), rows), dim=-2)
