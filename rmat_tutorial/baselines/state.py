"""What a baseline carries from call to call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from ..state import State
from .config import BaselineConfig


@dataclass(frozen=True)
class BaselineState(State):
    """The state of a baseline of any kind.

    Attributes:
        start: for each row the first position, counted as ``position`` is, that it may see: what lies before belongs
            to another stream, or to none.
    """

    config: BaselineConfig
    start: tuple[int, ...]

    @property
    def resettable(self) -> bool:
        """Always without segments, else at a segment boundary."""
        return super().resettable or self.config.kind in ("full", "window")

    def _reset(self, chosen: Tensor) -> Self:
        rows = zip(chosen.tolist(), self.start, strict=True)
        return replace(super()._reset(chosen), start=tuple(self.position if new else first for new, first in rows))
