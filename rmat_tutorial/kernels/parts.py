"""Two steps of the fused attention by themselves, in PyTorch, for notebook 08."""

from __future__ import annotations

import torch
from torch import Tensor


def merge(outputs: Tensor, log_sums: Tensor) -> Tensor:
    """Attention over all keys, from attentions over disjoint parts of them.

    Args:
        outputs: ``(P, L, d_h)``, one attention a part; zeros where a part has no key for a row.
        log_sums: ``(P, L)``, the natural log-sum-exp of a part's scores; −inf where it has no key. No row is without
            any key.

    Returns:
        ``(L, d_h)``. Its own log-sum-exp is ``log_sums.logsumexp(0)``.
    """
    return (torch.softmax(log_sums, dim=0)[..., None] * outputs).sum(dim=0)


def score_gradient(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    """The gradient of the scores that some paths share: ``Σ_p λ_p P_p ∘ (dP − D_p)``.

    Args:
        shares: the softmax of each path, ``(P, L, S)``.
        weights: λ, ``(P,)``.
        d_out: the gradient of the output ``Σ_p λ_p P_p v``, ``(L, d_h)``.
        v: ``(S, d_h)``.

    Returns:
        ``(L, S)``.
    """
    d_shares = d_out @ v.T
    means = (shares * d_shares).sum(dim=-1, keepdim=True)
    return (weights[:, None, None] * shares * (d_shares - means)).sum(dim=0)
