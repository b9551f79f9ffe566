"""The baselines that keep keys and values, of all tokens, of the segment, or of the last ones."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ..rope import rotate_pairs
from .block import KeysValues, fit_all, visible_keys
from .model import Baseline
from .state import BaselineState


class FullAttention(Baseline, kind="full"):
    """Every token sees every token before it (Vaswani et al., arXiv 1706.03762).

    Its cache, and with it ``nbytes``, grows with every token. ``position`` is the number of tokens read.
    """

    def _empty_cache(self, batch_size: int) -> tuple[KeysValues, ...]:
        return self._zeros(batch_size, 0)

    def _room(self, state: BaselineState, left: int) -> int:
        return left

    def _read(self, x: Tensor, state: BaselineState) -> tuple[Tensor, BaselineState]:
        begin, end = state.position, state.position + x.shape[1]
        kept = range(begin - state.cache[0].k.shape[2], begin)
        keys = range(min(state.start), end)  # what no row sees any more is dropped
        pasts = fit_all(state.cache, kept, range(keys.start, begin))
        visible = visible_keys(range(begin, end), keys, state.start, x.device)
        x, _, known = self._through_blocks(x, pasts, begin, visible)
        return x, replace(state, cache=tuple(known), position=end)


class SegmentOnly(Baseline, kind="segment"):
    """Every token sees the tokens before it in its segment; nothing is carried on to the next."""

    def _empty_cache(self, batch_size: int) -> tuple[KeysValues, ...]:
        return self._zeros(batch_size, self.config.segment_len)

    def _read(self, x: Tensor, state: BaselineState) -> tuple[Tensor, BaselineState]:
        begin, end, length = state.position, state.position + x.shape[1], self.config.segment_len
        pasts = fit_all(state.cache, range(length), range(begin))
        x, _, known = self._through_blocks(x, pasts, begin, None)
        if end == length:
            return x, replace(state, cache=self._empty_cache(x.shape[0]), position=0)
        return x, replace(state, cache=fit_all(known, range(end), range(length)), position=end)


class SlidingWindow(Baseline, kind="window"):
    """Every token sees the ``W`` last tokens, itself among them (the local attention of arXiv 2004.05150).

    Each layer keeps the keys and values of the ``W - 1`` last tokens, and through ``N`` layers a token is reached by
    the ``N (W - 1)`` before it.
    """

    def _empty_cache(self, batch_size: int) -> tuple[KeysValues, ...]:
        return self._zeros(batch_size, self.config.window - 1)

    def _read(self, x: Tensor, state: BaselineState) -> tuple[Tensor, BaselineState]:
        begin, end, length = state.position, state.position + x.shape[1], self.config.segment_len
        kept = self.config.window - 1
        keys = range(max(begin - kept, min(state.start)), end)
        pasts = fit_all(state.cache, range(begin - kept, begin), range(keys.start, begin))
        visible = visible_keys(range(begin, end), keys, state.start, x.device, self.config.window)
        x, _, known = self._through_blocks(x, pasts, begin, visible)
        cache = fit_all(known, keys, range(end - kept, end))
        if end < length:
            return x, replace(state, cache=cache, position=end)
        back = self._rotation(-length, 1 - length)  # of every key, because positions now count from here
        return x, replace(
            state, cache=tuple(KeysValues(rotate_pairs(k, *back), v) for k, v in cache), position=0,
            start=tuple(max(first - length, -kept) for first in state.start),
        )
