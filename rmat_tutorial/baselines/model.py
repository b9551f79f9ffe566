"""What every baseline is: a stack of plain blocks that keeps, or does not keep, keys and values of earlier tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..language_model import LanguageModel
from ..rope import rope_frequencies, rope_tables
from ..validate import require_int
from .block import BaselineBlock, KeysValues, Rotation
from .config import BaselineConfig
from .state import BaselineState


class Baseline(LanguageModel):
    """A transformer of plain blocks. Its subclasses, one for each kind, differ in what a token sees and what is kept.

    Positions count from the begin of the present segment, so that they stay small in a stream of any length; what was
    kept of earlier tokens lies at negative ones. ``"full"`` has one segment without end.

    Args:
        config: sizes; its kind must be that of the class. ``language_model.build`` chooses the class.

    Raises:
        TypeError, ValueError: ``config`` is not a ``BaselineConfig`` or is of another kind.
    """

    config_class = BaselineConfig
    state_class = BaselineState

    def __init__(self, config: BaselineConfig) -> None:
        if not isinstance(config, BaselineConfig):
            raise TypeError(f"config must be a BaselineConfig, got {type(config).__name__}")
        if config.kind != self.kind:
            raise ValueError(f"config must be of kind {self.kind!r} for a {type(self).__name__}, got {config.kind!r}")
        super().__init__(config, BaselineBlock)

    def init_state(self, batch_size: int) -> BaselineState:
        require_int("batch_size", batch_size, 1)
        return BaselineState(
            config=self.config, memory=(), initial=(), cache=self._empty_cache(batch_size), position=0,
            start=(0,) * batch_size,
        )

    @abstractmethod
    def _empty_cache(self, batch_size: int) -> tuple[Any, ...]:
        """What each layer keeps before the first token."""

    def _zeros(self, batch_size: int, positions: int) -> tuple[KeysValues, ...]:
        """Room for ``positions`` keys and values a layer. Expanded zeros take no memory until they are filled."""
        zero = self.embed.weight.new_zeros(1)
        room = zero.expand(batch_size, self.config.n_heads, positions, self.config.head_dim)
        return tuple(KeysValues(room, room) for _ in self.blocks)

    def _rotation(self, first: int, stop: int) -> Rotation:
        """RoPE of the positions ``first .. stop - 1``, of which some may be negative: only distances matter."""
        weight = self.embed.weight
        frequencies = rope_frequencies(self.config.head_dim, self.config.rope_base, device=weight.device)
        return rope_tables(torch.arange(first, stop, device=weight.device), frequencies, weight.dtype)

    def _through_blocks(
        self, x: Tensor, pasts: Sequence[KeysValues | None], first: int, visible: Tensor | None
    ) -> tuple[Tensor, list[Tensor], list[KeysValues]]:
        """``x`` ``(B, n, d)``, at the positions from ``first`` on, through all blocks; ``visible`` as they take it.

        Returns:
            The last block's output, each block's input, and the keys and values that each then knows.
        """
        rotation = self._rotation(first, first + x.shape[1])
        inputs, known = [], []
        for block, past in zip(self.blocks, pasts, strict=True):
            inputs.append(x)
            x, keys_values = block(x, past, rotation, visible)
            known.append(keys_values)
        return x, inputs, known
