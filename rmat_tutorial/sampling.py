"""Choosing the next token from logits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .state import State
from .validate import require_int, require_number


class Generation(NamedTuple):
    """What ``generate`` returns.

    Attributes:
        tokens: the new tokens, ``(B, n)`` with ``n <= max_new_tokens``.
        state: the state after all but the last of them: pass ``tokens[:, -1:]`` as the next prompt to go on.
    """

    tokens: Tensor
    state: State


def require_sampling(temperature: float, top_k: int | None, vocab_size: int) -> None:
    """Raise unless the two settings of ``sample`` are in range."""
    require_number("temperature", temperature, 0.0)
    if top_k is not None:
        require_int("top_k", top_k, 1)
        if top_k > vocab_size:
            raise ValueError(f"top_k must be at most vocab_size ({vocab_size}), got {top_k}")


def chances(logits: Tensor, temperature: float, top_k: int | None = None) -> Tensor:
    """``softmax(logits / temperature)`` among the ``top_k`` largest, 0 elsewhere: what the next token is drawn from.

    Args:
        logits: ``(..., V)``.
        temperature: at least 0, which puts all on the largest.
        top_k: ``1 <= top_k <= V``; ``None`` keeps all.

    Returns:
        ``(..., V)``, which sums to 1 over the last axis. Of equal logits at the edge no more than ``top_k`` stay.
    """
    if temperature == 0:
        top_k = 1
    # Less the maximum first: a tiny temperature would otherwise overflow to inf - inf, and a tinier one divide by 0.
    temperature = max(temperature, torch.finfo(logits.dtype).tiny)
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    if top_k is not None:
        values, tokens = scaled.topk(top_k, dim=-1)
        scaled = torch.full_like(scaled, -torch.inf).scatter(-1, tokens, values)
    return scaled.softmax(dim=-1)


def sample(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """Draw one token a row from ``chances(logits, temperature, top_k)``; logits are ``(B, V)``.

    Returns:
        ``(B, 1)`` int64.
    """
    if temperature == 0 or top_k == 1:
        return logits.argmax(dim=-1, keepdim=True)
    return torch.multinomial(chances(logits, temperature, top_k), 1, generator=generator)
