"""Transformer-XL: attention over the segment and the cached one before it (Dai et al., arXiv 1901.02860)."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from ..block import insert
from .block import KeysValues, fit_all, visible_keys
from .model import Baseline
from .state import BaselineState


class SegmentAndPast(NamedTuple):
    """Room of one layer for the unfinished segment and the one before.

    Attributes:
        k, v: of the two segments, ``(B, H, 2 L, d_h)``; zeros at a segment boundary.
        hidden: the layer's inputs, ``(B, L, d)``: at a segment boundary of the segment before. Inside a segment its
            own replace them, because what is needed of those before stands in ``k`` and ``v`` by then.
    """

    k: Tensor
    v: Tensor
    hidden: Tensor


class TransformerXL(Baseline, kind="transformer-xl"):
    """Every token sees the tokens before it in its segment and all of the segment before.

    A layer caches its inputs of the segment before and makes keys and values of them with the present weights. No
    gradient flows through the cache. Relative position comes from RoPE here; the paper has an encoding of its own.
    """

    def _empty_cache(self, batch_size: int) -> tuple[SegmentAndPast, ...]:
        length = self.config.segment_len
        hidden = self.embed.weight.new_zeros(1).expand(batch_size, length, self.config.d_model)
        return tuple(SegmentAndPast(k, v, hidden) for k, v in self._zeros(batch_size, 2 * length))

    def _read(self, x: Tensor, state: BaselineState) -> tuple[Tensor, BaselineState]:
        begin, end, length = state.position, state.position + x.shape[1], self.config.segment_len
        room, keys = range(-length, length), range(min(state.start), end)
        if begin == 0:
            pasts = self._before(state) if keys.start < 0 else [None] * len(self.blocks)
        else:
            both = [KeysValues(layer.k, layer.v) for layer in state.cache]
            pasts = fit_all(both, room, range(keys.start, begin))
        visible = visible_keys(range(begin, end), keys, state.start, x.device)
        x, inputs, known = self._through_blocks(x, pasts, begin, visible)
        hidden = [insert(layer.hidden, new.detach(), begin) for layer, new in zip(state.cache, inputs, strict=True)]
        if end == length:
            known, end = self._zeros(x.shape[0], 2 * length), 0
            state = replace(state, start=tuple(max(first - length, -length) for first in state.start))
        else:
            known = fit_all(known, keys, room)
        cache = tuple(SegmentAndPast(k, v, layer) for (k, v), layer in zip(known, hidden, strict=True))
        return x, replace(state, cache=cache, position=end)

    def _before(self, state: BaselineState) -> list[KeysValues]:
        """Keys and values of the segment before, from the cached inputs."""
        rotation = self._rotation(-self.config.segment_len, 0)
        return [
            block.keys_values(block.norm1(layer.hidden), rotation)
            for block, layer in zip(self.blocks, state.cache, strict=True)
        ]
