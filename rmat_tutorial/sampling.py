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


def sample(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """Draw one token a row from ``softmax(logits / temperature)`` restricted to the ``top_k`` largest.

    Args:
        logits: ``(B, V)``. temperature: 0 takes the largest logit.

    Returns:
        ``(B, 1)`` int64.
    """
    if temperature == 0 or top_k == 1:
        return logits.argmax(dim=-1, keepdim=True)
    # Less the maximum first: a tiny temperature would otherwise overflow to inf - inf, and a tinier one divide by 0.
    temperature = max(temperature, torch.finfo(logits.dtype).tiny)
    scaled = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    if top_k is None:
        return torch.multinomial(scaled.softmax(dim=-1), 1, generator=generator)
    values, tokens = scaled.topk(top_k, dim=-1)
    return tokens.gather(-1, torch.multinomial(values.softmax(dim=-1), 1, generator=generator))
