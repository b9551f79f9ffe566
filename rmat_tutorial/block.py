"""The hybrid block: three attentions on one input, fused by learned weights, and a memory bank (arXiv 2507.00453)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from .config import RMATConfig
from .kernels import resolve_backend
from .memory import GatedFIFOMemory, MemoryWrite
from .rope import rotate_pairs, segment_tables
from .state import SegmentCache
from .validate import require_float_tensor, require_like


class BlockTap(Protocol):
    """An observer of one block. A block without taps computes nothing for them."""

    def attended(
        self, q: Tensor, k: Tensor, q_mem: Tensor | None, k_mem: Tensor | None, weights: Tensor, bank: Tensor | None
    ) -> None:
        """Called after an attention with its rotated queries and keys, the memory's, λ and the bank as it was read."""

    def written(self, hidden: Tensor, write: MemoryWrite) -> None:
        """Called after a write to the bank, with the segment ``(B, L, d)`` that it was made from."""


class HybridBlock(nn.Module):
    """``x + (λ_1 A_full + λ_2 A_chunk + λ_3 A_mem) W_o``, then ``x + FFN(LayerNorm(x))``, then the write to the bank.

    The paths share queries, keys and values; the bank has keys and values of its own.

    Args:
        config: the model's configuration.

    Raises:
        TypeError: ``config`` is not an ``RMATConfig``.
    """

    def __init__(self, config: RMATConfig) -> None:
        super().__init__()
        if not isinstance(config, RMATConfig):
            raise TypeError(f"config must be an RMATConfig, got {type(config).__name__}")
        d = config.d_model
        self.config = config
        self.attend_paths = resolve_backend(config.backend)
        self.norm1 = nn.LayerNorm(d)
        self.to_q = nn.Linear(d, d, bias=False)
        self.to_k = nn.Linear(d, d, bias=False)
        self.to_v = nn.Linear(d, d, bias=False)
        self.mix = nn.Parameter(torch.zeros(len(config.paths)))
        self.out = nn.Linear(d, d, bias=False)
        self.norm2 = nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.dropout = nn.Dropout(config.dropout)
        self.memory: GatedFIFOMemory | None = None
        if config.has_memory:
            self.to_mem_k = nn.Linear(d, d, bias=False)
            self.to_mem_v = nn.Linear(d, d, bias=False)
            self.memory = GatedFIFOMemory(
                d, config.memory_slots, config.write_slots, config.gate, config.carry, config.pool, config.gate_bias
            )
        self.taps: list[BlockTap] = []

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Read one whole segment and write the bank after it.

        Args:
            x: ``(B, L, d)`` with ``1 <= L <= segment_len``.
            memory: the bank before the segment, ``(B, m, d)``; ``None`` without the memory path.

        Returns:
            The block's output ``(B, L, d)`` and the bank after the segment.

        Raises:
            TypeError, ValueError: shapes or dtypes do not fit, or an input contains NaN.
        """
        require_float_tensor("x", x, ("B", "L", "d"), {"d": self.config.d_model})
        if not 1 <= x.shape[1] <= self.config.segment_len:
            raise ValueError(f"x must have 1 to segment_len = {self.config.segment_len} positions, got {x.shape[1]}")
        require_like("x", x, "the block's weights", self.mix)
        if self.memory is None:
            if memory is not None:
                raise ValueError(f"memory must be None when paths is {self.config.paths}, which lacks 'memory'")
        else:
            if memory is None:
                raise ValueError("memory must be given when paths contains 'memory'; start from memory.initial(B)")
            sizes = {"B": x.shape[0], "m": self.config.memory_slots, "d": self.config.d_model}
            require_float_tensor("memory", memory, ("B", "m", "d"), sizes)
            require_like("memory", memory, "x", x)
        x, _ = self.attend(x, memory)
        return x, self.write(memory, x)

    def attend(
        self, x: Tensor, memory: Tensor | None, cache: SegmentCache | None = None, position: int = 0
    ) -> tuple[Tensor, SegmentCache | None]:
        """Read a segment, or with ``cache`` the piece of it that starts at ``position``; the bank stays as it is.

        Arguments are unchecked. Returns the block's output for the piece, ``(B, L, d)``, and the cache with the
        piece in it.
        """
        end = position + x.shape[1]
        h = self.norm1(x)
        q, k, v = (split_heads(project(h), self.config.n_heads) for project in (self.to_q, self.to_k, self.to_v))
        cos, sin = segment_tables(
            self.config.segment_len, self.config.head_dim, self.config.rope_base, q.dtype, q.device
        )
        cos, sin = cos[position:end], sin[position:end]
        q_rotated, k_rotated = rotate_pairs(q, cos, sin), rotate_pairs(k, cos, sin)
        if cache is not None:
            cache = cache._replace(k=insert(cache.k, k_rotated, position), v=insert(cache.v, v, position))
            # Autocast leaves the cache in the dtype of the state, and converts nothing for a custom operator.
            k_rotated, v = (kept[:, :, :end].to(q.dtype) for kept in (cache.k, cache.v))
        q_mem = k_mem = v_mem = None
        if self.memory is not None:
            bank = self.memory.read_norm(memory)
            q_mem, k_mem, v_mem = (
                q,
                split_heads(self.to_mem_k(bank), self.config.n_heads),
                split_heads(self.to_mem_v(bank), self.config.n_heads),
            )
        weights = torch.softmax(self.mix, dim=-1)
        for tap in self.taps:
            tap.attended(q_rotated, k_rotated, q_mem, k_mem, weights, memory)
        attended = self.attend_paths(
            q_rotated, k_rotated, v, q_mem, k_mem, v_mem, weights, self.config.chunk_size, self.config.paths
        )
        x = x + self.dropout(self.out(merge_heads(attended)))
        x = x + self.dropout(self.ffn(self.norm2(x)))
        if cache is not None:
            cache = cache._replace(hidden=insert(cache.hidden, x, position))
        return x, cache

    def write(self, memory: Tensor | None, hidden: Tensor) -> Tensor | None:
        """The bank after a whole segment with output ``hidden`` ``(B, L, d)``; arguments are unchecked."""
        if self.memory is None:
            return None
        # In lower precision 1 − z would be 1 for a gate that is nearly shut, and a bank would never fade.
        with torch.autocast(hidden.device.type, enabled=False):
            write = self.memory.step(memory, hidden)
        for tap in self.taps:
            tap.written(hidden, write)
        return write.memory


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """``(B, L, d)`` -> ``(B, H, L, d_h)``; head ``h`` takes the features ``h d_h .. (h + 1) d_h - 1``."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """``(B, H, L, d_h)`` -> ``(B, L, d)``, the inverse of ``split_heads``."""
    return x.transpose(1, 2).flatten(-2)


def insert(buffer: Tensor, piece: Tensor, position: int) -> Tensor:
    """A copy of ``buffer`` ``(..., L, width)`` with ``piece`` ``(..., n, width)`` from ``position`` on."""
    filled = buffer.clone(memory_format=torch.contiguous_format)
    filled[..., position:position + piece.shape[-2], :] = piece
    return filled


def stream(
    read: Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]],
    x: Tensor,
    state: Tensor | None,
    length: int,
) -> Tensor:
    """Read ``x`` ``(B, T, d)`` in segments of ``length`` tokens, the state handed on; the outputs side by side.

    Args:
        read: a block, or what stands for one: segment and state -> outputs and next state.
        state: before the first segment; of a block with memory its bank ``(B, m, d)``.
        length: tokens in a segment, ``L``; the last may be shorter.
    """
    outputs = []
    for segment in x.split(length, dim=1):
        output, state = read(segment, state)
        outputs.append(output)
    return torch.cat(outputs, dim=1)


def stream_logits(
    tokens: Tensor,
    banks: Iterable[Tensor],
    embed: Callable[[Tensor], Tensor],
    blocks: Iterable[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]],
    norm: Callable[[Tensor], Tensor],
    head: Callable[[Tensor], Tensor],
    length: int,
) -> Tensor:
    """Read ``tokens`` ``(B, T)`` with a stack of blocks in segments of ``length`` tokens: logits ``(B, T, V)``.

    A block needs of a segment only what the block below made of it. So each may read all segments before the next
    begins.

    Args:
        banks: of each block the bank before the first segment, ``(B, m, d)``.
        embed, norm, head: of the model; ``(B, T)`` -> ``(B, T, d)``, then from the last block's output to logits.
        blocks: from the bottom up.
        length: tokens in a segment, ``L``; the last may be shorter.
    """
    x = embed(tokens)
    for block, bank in zip(blocks, banks, strict=True):
        x = stream(block, x, bank, length)
    return head(norm(x))
