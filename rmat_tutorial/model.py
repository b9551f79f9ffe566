"""The Recurrent Memory-Augmented Transformer: hybrid blocks, and a memory bank for each (arXiv 2507.00453)."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .block import HybridBlock
from .config import RMATConfig
from .language_model import LanguageModel, Output
from .state import RMATState, SegmentCache
from .validate import require_choice, require_int
from .wavefront import Wavefront

RMATOutput = Output
ORDERS = ("segments", "wavefront")


class RMAT(LanguageModel, kind="rmat"):
    """Recurrent Memory-Augmented Transformer.

    A segment reads the banks as they were before it; they are written as soon as it is complete.

    Attributes:
        order: in which whole segments are read. ``"segments"``: one after the other, each through all layers.
            ``"wavefront"``: a segment in each layer at once, see ``wavefront.py``; the same numbers up to rounding, in
            training too, in fewer and larger steps. It may be set at any time, and is no part of a checkpoint.

    Args:
        config: sizes and choices.

    Raises:
        TypeError: ``config`` is not an ``RMATConfig``.
    """

    config_class = RMATConfig
    state_class = RMATState

    def __init__(self, config: RMATConfig) -> None:
        if not isinstance(config, RMATConfig):
            raise TypeError(f"config must be an RMATConfig, got {type(config).__name__}")
        super().__init__(config, HybridBlock)
        self.wavefront: Wavefront | None = None

    @property
    def order(self) -> str:
        return "segments" if self.wavefront is None else "wavefront"

    @order.setter
    def order(self, order: str) -> None:
        require_choice("order", order, ORDERS)
        self.wavefront = Wavefront(self.config) if order == "wavefront" else None

    def init_state(self, batch_size: int) -> RMATState:
        require_int("batch_size", batch_size, 1)
        memories = [block.memory for block in self.blocks if block.memory is not None]
        return RMATState(
            config=self.config,
            memory=tuple(memory.initial(batch_size) for memory in memories),
            initial=tuple(memory.slots for memory in memories),
            cache=self._empty_cache(batch_size),
            position=0,
        )

    def _room(self, state: RMATState, left: int) -> int:
        whole = left - left % self.config.segment_len
        return whole if self.wavefront is not None and state.position == 0 and whole else super()._room(state, left)

    def _read(self, x: Tensor, state: RMATState) -> tuple[Tensor, RMATState]:
        """Read embedded tokens ``(B, n, d)`` of one segment, or of several whole ones; write the banks after each."""
        if x.shape[1] > self.config.segment_len:
            x, memory = self.wavefront.read(self.blocks, x, state.memory)
            return x, replace(state, memory=memory)
        end = state.position + x.shape[1]
        complete = end == self.config.segment_len
        in_one_piece = complete and state.position == 0
        memory, cache = list(state.memory), list(state.cache)
        for layer, block in enumerate(self.blocks):
            bank = memory[layer] if memory else None
            x, filled = block.attend(x, bank, None if in_one_piece else cache[layer], state.position)
            if not in_one_piece:
                cache[layer] = filled
            if complete and memory:
                memory[layer] = block.write(bank, x if in_one_piece else filled.hidden)
        if complete and not in_one_piece:
            cache = self._empty_cache(x.shape[0])
        return x, replace(
            state, memory=tuple(memory), cache=tuple(cache), position=0 if complete else end
        )

    def _empty_cache(self, batch_size: int) -> tuple[SegmentCache, ...]:
        """Room for one segment a layer. Expanded zeros take no memory until the first piece is inserted."""
        config = self.config
        zero = self.embed.weight.new_zeros(1)
        per_head = zero.expand(batch_size, config.n_heads, config.segment_len, config.head_dim)
        hidden = zero.expand(batch_size, config.segment_len, config.d_model)
        return tuple(SegmentCache(per_head, per_head, hidden) for _ in self.blocks)
