"""Where a trainer and an evaluation get their tokens: what a task and a corpus have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

IGNORED = -100
"""Target of a position that no loss and no score looks at (``ignore_index`` of ``cross_entropy``)."""


class Source(Protocol):
    """A task, or a corpus."""

    metric: str
    """``"accuracy"`` or ``"bits_per_byte"``."""

    @property
    def vocab_size(self) -> int: ...

    def describe(self) -> dict[str, Any]:
        """What identifies the source, as JSON values; ``"kind"`` names its class."""
        ...

    def batch(self, batch_size: int, tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``(tokens, targets)``, both ``(B, T)`` int64; a target of ``IGNORED`` is not scored."""
        ...

    def stream(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same as ``batch``, cut into pieces of ``piece`` tokens (the last may be shorter)."""
        ...
