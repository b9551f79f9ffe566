"""What a model carries from call to call: what it remembers, and the unfinished segment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from .config import ModelConfig


class SegmentCache(NamedTuple):
    """Room for one segment of one layer; positions from ``State.position`` on are zeros.

    Attributes:
        k, v: rotated keys and values, ``(B, H, L, d_h)``.
        hidden: the block's output, ``(B, L, d)``, from which the memory is written when the segment is complete.
    """

    k: Tensor
    v: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class State:
    """Everything a model remembers of a stream. A value: calls return a new state and leave the old one as it is.

    Attributes:
        config: of the model that made it; another model refuses it.
        memory: the vectors that are handed from segment to segment, ``(B, m, d)`` each; empty in a model without.
        initial: the learned vectors, ``(m, d)`` each, to which ``reset`` returns ``memory``; not counted in
            ``nbytes``, because they are the model's parameters.
        cache: each layer's tensors of tokens that were read, ``(B, ...)``, each a ``NamedTuple``.
        position: of the next token. In a model of segments, tokens of the unfinished segment read so far,
            ``0 <= position < L``; 0 at a segment boundary.
    """

    config: ModelConfig
    memory: tuple[Tensor, ...]
    initial: tuple[Tensor, ...]
    cache: tuple[Any, ...]
    position: int

    @property
    def batch_size(self) -> int:
        """Rows, ``B``: streams that are read side by side."""
        return self.cache[0][0].shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all that is carried: memory and cache."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())

    def tensors(self) -> list[Tensor]:
        """Memory and cache of every layer."""
        return [*self.memory, *(tensor for layer in self.cache for tensor in layer)]

    def detach(self) -> Self:
        """The same values, through which no gradient flows back: the cut of truncated back-propagation.

        ``initial`` keeps its gradient, because a row that is reset starts from the learned vectors again.
        """
        return replace(self._map(Tensor.detach), initial=self.initial)

    def leaves(self) -> Self:
        """The same values, through which no gradient flows back: it stays in the ``grad`` of each tensor."""
        return replace(self._map(lambda tensor: tensor.detach().requires_grad_()), initial=self.initial)

    def to(self, *args: object, **kwargs: object) -> Self:
        """The state on another device or in another dtype; arguments as ``torch.Tensor.to``."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    @property
    def resettable(self) -> bool:
        """Whether ``reset`` works here: at a segment boundary."""
        return self.position == 0

    def reset(self, rows: Tensor | Sequence[int]) -> Self:
        """A state whose ``rows`` are as before the first token, and whose other rows are as they are.

        Args:
            rows: row numbers, or a boolean mask of shape ``(B,)``.

        Raises:
            TypeError: ``rows`` is neither.
            ValueError: the state is inside a segment, where rows share one position (a model without segments can
                be reset anywhere); or a row does not exist.
        """
        if not self.resettable:
            raise ValueError(
                f"reset works at a segment boundary only: this state is {self.position} tokens into a segment, "
                "and all rows share that position; feed the rest of the segment first"
            )
        return self._reset(self._row_mask(rows))

    def _reset(self, chosen: Tensor) -> Self:
        """``reset`` of the rows in a boolean mask ``(B,)``."""
        memory = tuple(
            torch.where(chosen[:, None, None], learned, vectors)
            for learned, vectors in zip(self.initial, self.memory, strict=True)
        )
        return replace(self, memory=memory)

    def _row_mask(self, rows: Tensor | Sequence[int]) -> Tensor:
        try:
            rows = torch.as_tensor(rows)
        except (RuntimeError, TypeError, ValueError):
            raise TypeError(f"rows must be row numbers or a boolean mask, got {rows!r}") from None
        if rows.dtype == torch.bool:
            if rows.shape != (self.batch_size,):
                raise ValueError(f"rows as a mask must have shape ({self.batch_size},), got {tuple(rows.shape)}")
            chosen = rows
        else:
            if rows.numel() and (rows.is_floating_point() or rows.is_complex()):
                raise TypeError(f"rows must be row numbers or a boolean mask, got dtype {rows.dtype}")
            for row in rows.flatten().tolist():
                if not 0 <= row < self.batch_size:
                    raise ValueError(f"rows must lie in 0..{self.batch_size - 1}, got {row}")
            chosen = torch.zeros(self.batch_size, dtype=torch.bool)
            chosen[rows.flatten().long()] = True
        return chosen.to(self.cache[0][0].device)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            memory=tuple(map(function, self.memory)),
            initial=tuple(map(function, self.initial)),
            cache=tuple(type(layer)(*map(function, layer)) for layer in self.cache),
        )


class RMATState(State):
    """The state of an ``RMAT``: a bank for each layer, and a ``SegmentCache`` for each.

    Its size is fixed: the banks and room for one segment, however many tokens were read.
    """
