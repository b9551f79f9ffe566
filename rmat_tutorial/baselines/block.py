"""The block of every baseline: causal attention with RoPE and an FFN, each behind a LayerNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from ..block import merge_heads, split_heads
from ..kernels.sdpa import causal
from ..rope import rotate_pairs
from .config import BaselineConfig

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of each position's angles, ``(n, d_h / 2)`` each."""


class KeysValues(NamedTuple):
    """Rotated keys and values of some positions of one layer, ``(B, H, S, d_h)`` each."""

    k: Tensor
    v: Tensor


class BaselineBlock(nn.Module):
    """``x + Attention(LayerNorm(x)) W_o``, then ``x + FFN(LayerNorm(x))``: the hybrid block with one attention.

    Args:
        config: the model's configuration.
    """

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        d = config.d_model
        self.n_heads = config.n_heads
        self.norm1 = nn.LayerNorm(d)
        self.to_q = nn.Linear(d, d, bias=False)
        self.to_k = nn.Linear(d, d, bias=False)
        self.to_v = nn.Linear(d, d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        self.norm2 = nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, config.ffn_width), nn.GELU(), nn.Linear(config.ffn_width, d))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, past: KeysValues | None, rotation: Rotation, visible: Tensor | None
    ) -> tuple[Tensor, KeysValues]:
        """Read a piece after the positions of ``past``.

        Args:
            x: ``(B, n, d)``.
            past: keys and values of the ``S - n`` positions before, or ``None``.
            rotation: of the piece's positions.
            visible: which of the ``S`` positions each of the piece sees, boolean ``(n, S)`` or ``(B, 1, n, S)``;
                ``None``: itself and every one before it.

        Returns:
            The block's output ``(B, n, d)``, and the keys and values of all ``S`` positions.
        """
        h = self.norm1(x)
        q = rotate_pairs(split_heads(self.to_q(h), self.n_heads), *rotation)
        known = self.keys_values(h, rotation)
        if past is not None:
            known = KeysValues(torch.cat((past.k, known.k), dim=2), torch.cat((past.v, known.v), dim=2))
        attended = causal(q, *known) if visible is None else scaled_dot_product_attention(q, *known, attn_mask=visible)
        x = x + self.dropout(self.out(merge_heads(attended)))
        return x + self.dropout(self.ffn(self.norm2(x))), known

    def keys_values(self, h: Tensor, rotation: Rotation) -> KeysValues:
        """Keys and values of normalised inputs ``h`` ``(B, n, d)`` at the positions of ``rotation``."""
        k, v = (split_heads(project(h), self.n_heads) for project in (self.to_k, self.to_v))
        return KeysValues(rotate_pairs(k, *rotation), v)


def fit(x: Tensor, covered: range, wanted: range) -> Tensor:
    """``x`` ``(..., S, width)``, which covers the positions ``covered``, cut and padded with zeros to ``wanted``."""
    edges = (0, 0, covered.start - wanted.start, wanted.stop - covered.stop)
    return pad(x, edges) if any(edges) else x


def fit_all(layers: Sequence[KeysValues], covered: range, wanted: range) -> tuple[KeysValues, ...]:
    """``fit`` for the keys and values of every layer."""
    return tuple(KeysValues(fit(k, covered, wanted), fit(v, covered, wanted)) for k, v in layers)


def visible_keys(
    queries: range, keys: range, start: tuple[int, ...], device: torch.device, window: int | None = None
) -> Tensor | None:
    """Which keys each query sees, as ``BaselineBlock`` takes it: none later, none before ``start``, ``window`` in all.

    Args:
        queries, keys: positions; the queries are the last of the keys.
        start: for each row, the first position that it may see; the least of them is at or before the first key.
    """
    rows_differ = max(start) > keys.start
    if not rows_differ and (window is None or len(keys) <= window):
        return None
    query = torch.arange(queries.start, queries.stop, device=device)[:, None]
    key = torch.arange(keys.start, keys.stop, device=device)
    seen = key <= query
    if window is not None:
        seen &= key > query - window
    if rows_differ:
        seen = seen & (key >= torch.tensor(start, device=device)[:, None, None, None])
    return seen
