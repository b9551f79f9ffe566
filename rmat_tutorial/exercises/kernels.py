"""The exercises of notebook 08: merge softmaxes over disjoint keys, and the way back to the scores of several paths."""

from __future__ import annotations

import math
from itertools import product
from random import Random

import torch
from torch import Tensor

from .exercise import Case, Exercise, Inputs, Mistake, random_tensor

# 1. Merge --------------------------------------------------------------------------------------------------------


def _draw_parts(sizes: dict[str, int], random: Random) -> Inputs:
    """Log-sum-exps that exp cannot take, and parts that are empty for a row, whose output is zero; never all."""
    P, L = sizes["P"], sizes["L"]
    outputs = random_tensor(random, P, L, sizes["d_h"])
    log_sums = random_tensor(random, P, L) + torch.tensor([random.choice((0, 0, 100, -150)) for _ in range(L)])
    for row in range(L):
        # The first row has its keys in the last part alone, the second none there; the others as it comes.
        keeps = (P - 1, 0)[row] if row < 2 else random.randrange(P)
        empty = [part != keeps and (row == 0 or random.random() < (0.3, 1)[row == 1 and part == P - 1])
                 for part in range(P)]
        outputs[empty, row], log_sums[empty, row] = 0.0, -math.inf
    return outputs, log_sums


def _merge(outputs: Tensor, log_sums: Tensor) -> Tensor:
    parts, numbers = range(len(outputs)), outputs.tolist()
    merged = torch.zeros(outputs.shape[1:], dtype=torch.float64)
    for i in range(merged.shape[0]):
        row = log_sums[:, i].tolist()
        for p, j in product(parts, range(merged.shape[1])):
            # The share of a part, from its differences to all: one over Σ exp(other − own).
            share = 0.0 if row[p] == -math.inf else 1 / sum(math.exp(other - row[p]) for other in row)
            merged[i, j] += share * numbers[p][i][j]
    return merged


def _weigh(outputs: Tensor, weights: Tensor) -> Tensor:
    return (weights[..., None] * outputs).sum(0)


def _less_the_largest(log_sums: Tensor) -> Tensor:
    return (log_sums - log_sums.amax(0)).exp()


def _one_after_the_other(outputs: Tensor, log_sums: Tensor) -> Tensor:
    """The running form, which asks for −inf − (−inf) where nothing has come yet."""
    merged, log_sum = outputs[0], log_sums[0]
    for output, other in zip(outputs[1:], log_sums[1:], strict=True):
        both = torch.logaddexp(log_sum, other)
        merged = merged * (log_sum - both).exp()[:, None] + output * (other - both).exp()[:, None]
        log_sum = both
    return merged


_OVERFLOW = (
    "Your weights are right while the log-sum-exps are small. exp of 89 is beyond float32, and ∞/∞ is NaN; exp of −150 "
    "is 0, and 0/0 is NaN too. Take the largest of each row off before exp, or use torch.softmax, which does."
)

_MERGE_MISTAKES = (
    Mistake(
        "You took the mean of the parts, as if each had seen the same keys' worth. The share of a part is "
        "proportional to the exp of its log-sum-exp.",
        lambda outputs, log_sums: outputs.mean(0),
    ),
    Mistake(
        "You added the parts up. Each was normalised by itself, so each counts only with its share of all the keys.",
        lambda outputs, log_sums: outputs.sum(0),
    ),
    Mistake(_OVERFLOW, lambda outputs, log_sums: _weigh(outputs, log_sums.exp() / log_sums.exp().sum(0))),
    Mistake(_OVERFLOW, lambda outputs, log_sums: _weigh(outputs, log_sums.exp()) / log_sums.exp().sum(0)[:, None]),
    Mistake(
        "The normalisation is missing: you weighed with exp of each log-sum-exp, less the largest. These weights do "
        "not sum to 1; divide by their sum.",
        lambda outputs, log_sums: _weigh(outputs, _less_the_largest(log_sums)),
    ),
    Mistake(
        "The normalisation is missing: you weighed with exp of the log-sum-exps. These weights do not sum to 1, and "
        "overflow besides. Use a softmax.",
        lambda outputs, log_sums: _weigh(outputs, log_sums.exp()),
    ),
    Mistake(
        "You weighed in proportion to the log-sum-exps themselves. They are logarithms: the shares are proportional to "
        "their exp.",
        lambda outputs, log_sums: _weigh(outputs, log_sums / log_sums.sum(0)),
    ),
    Mistake(
        "You multiplied with the log-sum-exps themselves, and −inf times 0 is NaN. They are logarithms: the shares are "
        "proportional to their exp.",
        lambda outputs, log_sums: _weigh(outputs, log_sums),
    ),
    Mistake(
        "You took the part with the largest log-sum-exp alone. The others have keys too: each counts with its share.",
        lambda outputs, log_sums: outputs[log_sums.argmax(0), torch.arange(log_sums.shape[1])],
    ),
    Mistake(
        "Your weights are powers of two. The log-sum-exps here are natural logarithms: use exp. (The package's kernels "
        "keep theirs to base 2, and use exp2.)",
        lambda outputs, log_sums: _weigh(outputs, (log_sums * math.log(2)).softmax(0)),
    ),
    Mistake(
        "You turned the log-sum-exps from base 2 into natural ones. They are natural logarithms already.",
        lambda outputs, log_sums: _weigh(outputs, (log_sums / math.log(2)).softmax(0)),
    ),
    Mistake(
        "The sign is flipped: the part with the larger log-sum-exp must get the larger share.",
        lambda outputs, log_sums: _weigh(outputs, (-log_sums).softmax(0)),
    ),
    Mistake(
        "Your softmax runs over the rows. It belongs over the parts, axis 0: the shares of one row sum to 1.",
        lambda outputs, log_sums: _weigh(outputs, log_sums.softmax(1)),
    ),
    Mistake(
        "You normalised over all parts and rows together. Each row has its own shares, which sum to 1 over the parts.",
        lambda outputs, log_sums: _weigh(outputs, log_sums.flatten().softmax(0).view_as(log_sums)),
    ),
    Mistake(
        "You divided by the number of parts as well. The shares sum to 1 already: add the weighted parts up.",
        lambda outputs, log_sums: _weigh(outputs, log_sums.softmax(0)) / len(log_sums),
    ),
    Mistake(
        "You weighed with the logarithms of the shares: use softmax, not log_softmax.",
        lambda outputs, log_sums: _weigh(outputs, log_sums.log_softmax(0)),
    ),
    Mistake(
        "You used a sigmoid on each log-sum-exp. The shares then do not sum to 1: they are a softmax over the parts.",
        lambda outputs, log_sums: _weigh(outputs, log_sums.sigmoid()),
    ),
    Mistake(
        "You applied the softmax twice. One makes shares of the log-sum-exps.",
        lambda outputs, log_sums: _weigh(outputs, log_sums.softmax(0).softmax(0)),
    ),
    Mistake(
        "You divided the sum of the parts by the sum of the exps, as if the parts were not normalised yet. They are: "
        "each has to be multiplied with its own exp first.",
        lambda outputs, log_sums: outputs.sum(0) / log_sums.exp().sum(0)[:, None],
    ),
    Mistake(
        "The parts are in the reverse order: share number p belongs to outputs[p].",
        lambda outputs, log_sums: _weigh(outputs, log_sums.softmax(0).flip(0)),
    ),
    Mistake(
        "The weighted parts are not added up: the axis of the parts is still there. Sum over it (dim=0).",
        lambda outputs, log_sums: log_sums.softmax(0)[..., None] * outputs,
    ),
    Mistake(
        "You return the last part alone, times its share: the loop overwrites what it found before. Add each part on.",
        lambda outputs, log_sums: (log_sums.softmax(0)[..., None] * outputs)[-1],
    ),
    Mistake(
        "The shares (P, L) met the features of outputs (P, L, d_h): shapes are lined up from the right, and sizes that "
        "happen to be equal, or 1, pass. Give the shares an axis more at the end, weights[..., None].",
        lambda outputs, log_sums: (log_sums.softmax(0)[:, None, :] * outputs).sum(0),
    ),
    Mistake(
        "Where the first parts of a row are empty you ask for −inf − (−inf), which is NaN. Begin with a finite number, "
        "or take the largest of all parts off at once.",
        _one_after_the_other,
    ),
)


def _lies_between_the_parts(output: Tensor, expected: Tensor, outputs: Tensor, log_sums: Tensor) -> str | None:
    empty = (log_sums == -math.inf)[..., None]
    low = outputs.masked_fill(empty, math.inf).amin(0) - 1e-4
    high = outputs.masked_fill(empty, -math.inf).amax(0) + 1e-4
    outside = ((output < low) | (output > high)).nonzero()
    if not len(outside):
        return None
    i, j = outside[0].tolist()
    seen = ", ".join(f"{part[i, j]:.3g}" for part, log_sum in zip(outputs, log_sums, strict=True)
                     if log_sum[i] > -math.inf)
    return (
        f"The shares of the parts are none below 0 and sum to 1. So each number lies between the smallest and the "
        f"largest of the parts that are not empty. result[{i}, {j}] is {output[i, j]:.3g}, and the parts have {seen}."
    )


MERGE = Exercise(
    name="08.merge",
    contract="merge(outputs (P, L, d_h), log_sums (P, L)) -> (L, d_h): attention over all keys, from the attentions "
    "over P disjoint parts of them and the natural log-sum-exps of their scores; a part that is empty for a row has "
    "the log-sum-exp −inf and an output of zeros.",
    inputs=("outputs", "log_sums"),
    output=("L", "d_h"),
    example=Case(
        {"P": 2, "L": 3, "d_h": 2},
        (
            torch.tensor([[[4.0, 0.0], [2.0, 6.0], [0.0, 0.0]], [[0.0, 4.0], [6.0, 2.0], [5.0, 7.0]]]),
            torch.tensor([[math.log(3), 0.0, -math.inf], [0.0, 0.0, math.log(2)]]),
        ),
    ),
    draw=_draw_parts,
    reference=_merge,
    mistakes=_MERGE_MISTAKES,
    laws=(_lies_between_the_parts,),
)

# 2. Back to the scores -------------------------------------------------------------------------------------------


def _draw_shares(sizes: dict[str, int], random: Random) -> Inputs:
    """Shares of paths that each see some of the keys, at least one of each row."""
    P, L, S = sizes["P"], sizes["L"], sizes["S"]
    hidden = torch.tensor([random.random() < 0.3 for _ in range(P * L * S)]).reshape(P, L, S)
    for p, i in product(range(P), range(L)):
        hidden[p, i, random.randrange(S)] = False
    shares = (random_tensor(random, P, L, S) / 2).masked_fill(hidden, -math.inf).softmax(-1)
    weights = (random_tensor(random, P) / 2).softmax(0)
    width = sizes["d_h"]
    return shares, weights, random_tensor(random, L, width), random_tensor(random, S, width)


def _score_gradient(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    """By the derivatives of a softmax, ∂P_b / ∂s_a = P_b (δ_ab − P_a), one score at a time."""
    d_scores = torch.zeros(shares.shape[1:], dtype=torch.float64)
    rows, keys = map(range, d_scores.shape)
    for i in rows:
        d_share = [sum(a * b for a, b in zip(d_out[i].tolist(), value, strict=True)) for value in v.tolist()]
        for share, weight in zip(shares[:, i].tolist(), weights.tolist(), strict=True):
            for a, b in product(keys, keys):
                d_scores[i, a] += weight * d_share[b] * share[b] * ((a == b) - share[a])
    return d_scores


def _back(
    shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor, mean_axis: int = -1, sign: float = 1.0
) -> Tensor:
    """What is asked for, or with the mean along another axis, or with another sign of it."""
    d_shares = d_out @ v.T
    means = (shares * d_shares).sum(mean_axis, keepdim=True)
    return torch.einsum("p,pij->ij", weights, shares * (d_shares - sign * means))


def _per_path(shares: Tensor, d_out: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``dP`` (L, S), and ``D_p`` (P, L, 1)."""
    d_shares = d_out @ v.T
    return d_shares, (shares * d_shares).sum(-1, keepdim=True)


def _mixed_first(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    mixed, d_shares = torch.einsum("p,pij->ij", weights, shares), d_out @ v.T
    return mixed * (d_shares - (mixed * d_shares).sum(-1, keepdim=True))


def _mean_of_keys(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    d_shares = d_out @ v.T
    return torch.einsum("p,pij->ij", weights, shares * (d_shares - (shares * d_shares).mean(-1, keepdim=True)))


def _sum_without_shares(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    d_shares = d_out @ v.T
    return torch.einsum("p,pij->ij", weights, shares * (d_shares - d_shares.sum(-1, keepdim=True)))


def _against_the_keys(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    d_shares = d_out @ v.T
    means = (shares * d_shares).sum(-1)
    return torch.einsum("p,pij->ij", weights, shares * (d_shares - means[:, None, :]))


def _only_its_own(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("p,pij->ij", weights, shares * (1 - shares) * (d_out @ v.T))


def _without_shares(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    d_shares, means = _per_path(shares, d_out, v)
    return torch.einsum("p,pij->ij", weights, d_shares - means)


def _mean_not_shared(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    d_shares, means = _per_path(shares, d_out, v)
    return torch.einsum("p,pij->ij", weights, shares * d_shares - means)


def _mean_not_weighed(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    d_shares, means = _per_path(shares, d_out, v)
    return (weights[:, None, None] * shares * d_shares - shares * means).sum(0)


_BACK_MISTAKES = (
    Mistake(
        "D is missing: you multiplied each share with its dP. A softmax shares out, so what one key gains the others "
        "lose: take D_p, the sum of P_p ∘ dP over the keys, off dP first.",
        lambda shares, weights, d_out, v: torch.einsum("p,pij->ij", weights, shares * (d_out @ v.T)),
    ),
    Mistake(
        "All paths share one D: that of the output, where they are mixed. Each path has a softmax of its own, and so a "
        "D_p of its own, the sum of P_p ∘ dP over its keys.",
        _mixed_first,
    ),
    Mistake(
        "λ is missing: every path counts once. Path p counts λ_p times.",
        lambda shares, weights, d_out, v: _back(shares, torch.ones_like(weights), d_out, v),
    ),
    Mistake(
        "λ comes in twice: perhaps in dP or D_p, and again in the sum over the paths. Path p counts λ_p times.",
        lambda shares, weights, d_out, v: _back(shares, weights**2, d_out, v),
    ),
    Mistake(
        "λ weighs P_p ∘ dP but not P_p ∘ D_p. It weighs the whole of a path: λ_p P_p ∘ (dP − D_p).",
        _mean_not_weighed,
    ),
    Mistake(
        "The sign of D is flipped: it is taken off dP, dP − D_p.",
        lambda shares, weights, d_out, v: _back(shares, weights, d_out, v, sign=-1.0),
    ),
    Mistake(
        "The sign of the whole is flipped: a share grows with its own score. It is dP − D_p, not D_p − dP.",
        lambda shares, weights, d_out, v: -_back(shares, weights, d_out, v),
    ),
    Mistake(
        "P_p is missing in front of the bracket: a key with no share gets no gradient. P_p ∘ (dP − D_p).",
        _without_shares,
    ),
    Mistake(
        "D_p must be multiplied with P_p as well: P_p ∘ (dP − D_p), not P_p ∘ dP − D_p.",
        _mean_not_shared,
    ),
    Mistake(
        "You took the mean over the keys for D_p. It is the sum of P_p ∘ dP over the keys; the shares make a mean of "
        "it.",
        _mean_of_keys,
    ),
    Mistake(
        "Your D is the sum of dP over the keys. Each counts with its share: D_p is the sum of P_p ∘ dP.",
        _sum_without_shares,
    ),
    Mistake(
        "Your D_p sums over the queries. A softmax runs over the keys of one query: sum over the last axis.",
        lambda shares, weights, d_out, v: _back(shares, weights, d_out, v, mean_axis=-2),
    ),
    Mistake(
        "D_p (P, L), one number a query, met the keys: shapes are lined up from the right, and L = S lets it pass. "
        "Keep the axis, sum(dim=-1, keepdim=True).",
        _against_the_keys,
    ),
    Mistake(
        "You took P(1 − P), the derivative of a share by its own score. It moves with the scores of all the other keys "
        "too: P_p ∘ (dP − D_p) has them all.",
        _only_its_own,
    ),
    Mistake(
        "You divided by √d_h. That belongs to the step from the scores to q and k; asked for is the gradient of the "
        "scores that go into exp.",
        lambda shares, weights, d_out, v: _back(shares, weights, d_out, v) / math.sqrt(v.shape[1]),
    ),
    Mistake(
        "This is dP, the gradient of the shares. Asked for is that of the scores, one softmax further back.",
        lambda shares, weights, d_out, v: d_out @ v.T,
    ),
    Mistake(
        "The paths are not added up: their axis is still there. They share one matrix of scores, so sum over it "
        "(dim=0).",
        lambda shares, weights, d_out, v: weights[:, None, None] * shares * (
            d_out @ v.T - _per_path(shares, d_out, v)[1]
        ),
    ),
    Mistake(
        "You took the mean over the paths. λ sums to 1 already: add them up.",
        lambda shares, weights, d_out, v: _back(shares, weights, d_out, v) / len(weights),
    ),
    Mistake(
        "The paths are in the reverse order: λ number p belongs to shares[p].",
        lambda shares, weights, d_out, v: _back(shares, weights.flip(0), d_out, v),
    ),
    Mistake(
        "Your result is transposed: keys by queries. The package's second backward kernel has it so; asked for is "
        "queries by keys.",
        lambda shares, weights, d_out, v: _back(shares, weights, d_out, v).T,
    ),
)


def _rows_sum_to_zero(output: Tensor, expected: Tensor, *inputs: Tensor) -> str | None:
    sums = output.sum(-1)
    wrong = (sums.abs() > 1e-3).nonzero()
    if not len(wrong):
        return None
    i = wrong[0].item()
    return (
        f"Adding one number to all scores of a query changes no share, so the gradient of its scores sums to 0. Your "
        f"row {i} sums to {sums[i]:.3g}."
    )


SCORE_GRADIENT = Exercise(
    name="08.score_gradient",
    contract="score_gradient(shares (P, L, S), weights (P,), d_out (L, d_h), v (S, d_h)) -> (L, S): the gradient of "
    "the scores that P paths share, Σ_p λ_p P_p ∘ (dP − D_p) with dP = d_out vᵀ and D_p the sum of P_p ∘ dP over the "
    "keys; P_p is shares[p], λ_p is weights[p].",
    inputs=("shares", "weights", "d_out", "v"),
    output=("L", "S"),
    example=Case(
        {"P": 2, "L": 2, "S": 3, "d_h": 2},
        (
            torch.tensor([[[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]], [[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]]]),
            torch.tensor([0.5, 0.5]),
            torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
            torch.tensor([[4.0, 0.0], [2.0, 4.0], [0.0, 8.0]]),
        ),
    ),
    draw=_draw_shares,
    reference=_score_gradient,
    mistakes=_BACK_MISTAKES,
    laws=(_rows_sum_to_zero,),
    is_trained=False,
)

EXERCISES = (MERGE, SCORE_GRADIENT)
