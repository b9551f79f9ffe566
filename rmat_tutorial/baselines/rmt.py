"""The Recurrent Memory Transformer: memory tokens around each segment (Bulatov et al., arXiv 2207.06881)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from .block import KeysValues, fit_all
from .config import BaselineConfig
from .model import Baseline
from .state import BaselineState


class RecurrentMemoryTransformer(Baseline, kind="rmt"):
    """A segment is read as ``[memory ; segment ; memory]``; the outputs of the last part are the next memory.

    The memory tokens before the segment, at the positions ``-m .. -1``, are read by all of its tokens and see each
    other only. Those after it see everything, and no token of the segment sees them. They are written when the segment
    is complete. Gradients flow through the memory. It is taken behind the last LayerNorm, as in the authors' code for
    decoders, without which the residual stream would grow with every segment.
    """

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.memory = nn.Parameter(torch.randn(config.memory_tokens, config.d_model) * config.d_model**-0.5)

    def init_state(self, batch_size: int) -> BaselineState:
        state = super().init_state(batch_size)
        return replace(state, memory=(self.memory.expand(batch_size, -1, -1),), initial=(self.memory,))

    def _empty_cache(self, batch_size: int) -> tuple[KeysValues, ...]:
        return self._zeros(batch_size, self.config.memory_tokens + self.config.segment_len)

    def _read(self, x: Tensor, state: BaselineState) -> tuple[Tensor, BaselineState]:
        begin, end, length = state.position, state.position + x.shape[1], self.config.segment_len
        memory, = state.memory
        tokens, room = memory.shape[1], range(-memory.shape[1], length)
        first, pasts = begin, [None] * len(self.blocks)
        if begin == 0:
            first, x = -tokens, torch.cat((memory, x), dim=1)
        else:
            pasts = fit_all(state.cache, room, range(-tokens, begin))
        if end == length:
            x = torch.cat((x, memory), dim=1)
        x, _, known = self._through_blocks(x, pasts, first, self._visible(first, first + x.shape[1], x.device))
        segment = x[:, begin - first:end - first]
        if end < length:
            return segment, replace(state, cache=fit_all(known, range(-tokens, end), room), position=end)
        written = self.norm(x[:, end - first:])
        return segment, replace(state, memory=(written,), cache=self._empty_cache(x.shape[0]), position=0)

    def _visible(self, first: int, stop: int, device: torch.device) -> Tensor | None:
        """Which positions from ``-m`` on those from ``first`` to ``stop - 1`` see, as ``BaselineBlock`` takes it."""
        tokens, length = self.config.memory_tokens, self.config.segment_len
        if first >= 0 and stop <= length:
            return None
        query = torch.arange(first, stop, device=device)
        last_seen = torch.where(query < 0, -1, torch.where(query < length, query, stop - 1))
        return torch.arange(-tokens, stop, device=device) <= last_seen[:, None]
