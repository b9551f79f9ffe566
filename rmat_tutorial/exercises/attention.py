"""The exercises of notebook 01: scaled scores, the causal softmax, the split into heads."""

from __future__ import annotations

import math
from itertools import product
from random import Random

import torch
from torch import Tensor

from .exercise import Case, Exercise, Inputs, Mistake, random_tensor

# 1. Scaled scores ------------------------------------------------------------------------------------------------


def _draw_queries_and_keys(sizes: dict[str, int], random: Random) -> Inputs:
    batch, heads, width = sizes["B"], sizes["H"], sizes["d_h"]
    return (
        random_tensor(random, batch, heads, sizes["L"], width),
        random_tensor(random, batch, heads, sizes["S"], width),
    )


def _scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    queries, keys = q.tolist(), k.tolist()
    scores = torch.empty(*q.shape[:3], k.shape[2], dtype=torch.float64)
    for b, h, i, j in product(*map(range, scores.shape)):
        dot = sum(x * y for x, y in zip(queries[b][h][i], keys[b][h][j], strict=True))
        scores[b, h, i, j] = dot / math.sqrt(q.shape[-1])
    return scores


def _dots(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)


_SCORE_MISTAKES = (
    Mistake("Your scores are not divided by √d_h.", _dots),
    Mistake(
        "You divided by d_h instead of √d_h (scaling both q and k by 1/√d_h does the same).",
        lambda q, k: _dots(q, k) / q.shape[-1],
    ),
    Mistake("You multiplied by √d_h instead of dividing.", lambda q, k: _dots(q, k) * q.shape[-1] ** 0.5),
    Mistake("You multiplied by d_h instead of dividing by √d_h.", lambda q, k: _dots(q, k) * q.shape[-1]),
    Mistake(
        "You divided by √d, the width of the whole model. Each head has d_h = d / H features: divide by √d_h.",
        lambda q, k: _dots(q, k) / (q.shape[1] * q.shape[-1]) ** 0.5,
    ),
    Mistake(
        "You divided by √L, the number of queries, instead of √d_h: the width of a head is the last axis of q.",
        lambda q, k: _dots(q, k) / q.shape[-2] ** 0.5,
    ),
    Mistake(
        "You divided by √S, the number of keys, instead of √d_h: the width of a head is the last axis of k.",
        lambda q, k: _dots(q, k) / k.shape[-2] ** 0.5,
    ),
    Mistake(
        "Queries and keys are swapped: your row i belongs to key i. Rows are queries, columns are keys: q kᵀ.",
        lambda q, k: _dots(k, q) / q.shape[-1] ** 0.5,
    ),
    Mistake(
        "Queries and keys are swapped (rows are queries: q kᵀ), and your scores are not divided by √d_h.",
        lambda q, k: _dots(k, q),
    ),
    Mistake(
        "You changed the shape of k with view or reshape where a transpose is needed: the shape is right, but the "
        "numbers of different keys are mixed. k.transpose(-2, -1) moves the axes.",
        lambda q, k: q @ k.reshape(*k.shape[:2], k.shape[3], k.shape[2]) / q.shape[-1] ** 0.5,
    ),
    Mistake(
        "You already applied the softmax. The scores are what goes into it.",
        lambda q, k: (_dots(q, k) / q.shape[-1] ** 0.5).softmax(-1),
    ),
    Mistake(
        "Your scores are the cosine of the angle between q and k. Keep the lengths of the vectors: divide the dot "
        "product by √d_h, not by their norms.",
        lambda q, k: _dots(q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)),
    ),
)

SCALED_SCORES = Exercise(
    name="01.scaled_scores",
    contract="scaled_scores(q (B, H, L, d_h), k (B, H, S, d_h)) -> (B, H, L, S): the dot product of every query "
    "with every key of its head, divided by √d_h.",
    inputs=("q", "k"),
    output=("B", "H", "L", "S"),
    # d_h = 4 makes the divisor 2.
    example=Case(
        {"B": 1, "H": 1, "L": 2, "S": 3, "d_h": 4},
        (
            torch.tensor([[[[1.0, 0.0, 2.0, -1.0], [0.0, 3.0, 1.0, 2.0]]]]),
            torch.tensor([[[[2.0, 1.0, 0.0, 4.0], [1.0, 1.0, 3.0, 1.0], [-2.0, 0.0, 1.0, 5.0]]]]),
        ),
    ),
    draw=_draw_queries_and_keys,
    reference=_scaled_scores,
    mistakes=_SCORE_MISTAKES,
)

# 2. The causal softmax -------------------------------------------------------------------------------------------


def _draw_scores(sizes: dict[str, int], random: Random) -> Inputs:
    return (random_tensor(random, sizes["B"], sizes["H"], sizes["L"], sizes["L"]),)


def _causal_softmax(scores: Tensor) -> Tensor:
    rows = scores.tolist()
    weights = torch.zeros(scores.shape, dtype=torch.float64)
    for b, h, i in product(*map(range, scores.shape[:3])):
        seen = rows[b][h][i][: i + 1]
        powers = [math.exp(score - max(seen)) for score in seen]
        for j, power in enumerate(powers):
            weights[b, h, i, j] = power / sum(powers)
    return weights


def _keep(scores: Tensor, kept: Tensor, filler: float = -math.inf) -> Tensor:
    return scores.masked_fill(~kept, filler)


def _grid(scores: Tensor) -> Tensor:
    return torch.ones(scores.shape[-2:], dtype=torch.bool)


_HIDES_PAST = (
    "Your mask hides the past instead of the future: it is transposed. Row i is the token that looks: it may see "
    "the columns j ≤ i."
)
_INVERTED = (
    "Your mask is inverted: it hides the past and the token itself, and keeps the future. Keep the columns j ≤ i, "
    "hide j > i."
)
_HIDES_ITSELF = (
    "The diagonal is hidden: a token must see itself. Keep the columns j ≤ i, not j < i; otherwise the first token "
    "sees nothing at all."
)
_LOWEST = torch.finfo(torch.float32).min

_SOFTMAX_MISTAKES = (
    Mistake("Nothing is masked: every token also sees the tokens after it.", lambda s: s.softmax(-1)),
    Mistake(_HIDES_PAST, lambda s: _keep(s, _grid(s).triu()).softmax(-1)),
    Mistake(_INVERTED, lambda s: _keep(s, _grid(s).triu(1)).softmax(-1)),
    Mistake(_INVERTED, lambda s: _keep(s, _grid(s).triu(1), _LOWEST).softmax(-1)),
    Mistake(_HIDES_ITSELF, lambda s: _keep(s, _grid(s).tril(-1)).softmax(-1)),
    Mistake(_HIDES_ITSELF, lambda s: _keep(s, _grid(s).tril(-1), _LOWEST).softmax(-1)),
    Mistake(
        "Your mask lets each token see one token ahead: hide from the diagonal above the main one, triu(1).",
        lambda s: _keep(s, _grid(s).tril(1)).softmax(-1),
    ),
    Mistake(
        "You masked after the softmax: the rows no longer sum to 1, because the future took its share first. Mask "
        "the scores before the softmax.",
        lambda s: s.softmax(-1).tril(),
    ),
    Mistake(
        "You hid the future by setting its scores to 0. But exp(0) = 1: a hidden score has to be −inf, whose "
        "exponential is 0.",
        lambda s: s.tril().softmax(-1),
    ),
    Mistake(
        "You set the scores of the future to 0 before the softmax and removed its weights afterwards, so the rows no "
        "longer sum to 1. Hide scores with −inf before the softmax.",
        lambda s: s.tril().softmax(-1).tril(),
    ),
    Mistake(
        "Your softmax runs over the queries (dim=-2), so the columns sum to 1. Each query shares out its weight over "
        "the keys: dim=-1.",
        lambda s: _keep(s, _grid(s).tril()).softmax(-2),
    ),
    Mistake(
        "Your softmax runs over the heads (dim=1). Each query shares out its weight over the keys: dim=-1.",
        lambda s: _keep(s, _grid(s).tril()).softmax(1),
    ),
    Mistake(
        "Your softmax runs over the batch (dim=0). Each query shares out its weight over the keys: dim=-1.",
        lambda s: _keep(s, _grid(s).tril()).softmax(0),
    ),
    Mistake("You returned the masked scores: the softmax is missing.", lambda s: _keep(s, _grid(s).tril())),
    Mistake(
        "You returned the logarithms of the weights: use softmax, not log_softmax.",
        lambda s: _keep(s, _grid(s).tril()).log_softmax(-1),
    ),
    Mistake(
        "Your mask multiplies 0 by −inf, and that is NaN. Fill the hidden places instead: masked_fill, torch.where, "
        "or −inf with triu(1).",
        lambda s: (s + (~_grid(s).tril()).to(s.dtype) * -math.inf).softmax(-1),
    ),
    Mistake(
        "You added a mask of 0 and 1 to the scores. That shifts them by 1 and hides nothing: the mask that is added "
        "holds 0 where a token may look and −inf where it may not.",
        lambda s: (s + _grid(s).tril().to(s.dtype)).softmax(-1),
    ),
)


def _token_sees_itself(output: Tensor, expected: Tensor, scores: Tensor) -> str | None:
    later = slice(1, None)  # With a finite stand-in for −∞, a first row that hides everything is not 0.
    diagonal = output.diagonal(dim1=-2, dim2=-1)[..., later]
    sums_to_one = (output.sum(-1)[..., later] - 1).abs() < 1e-4
    return _HIDES_ITSELF if diagonal.numel() and sums_to_one.all() and (diagonal.abs() < 1e-7).all() else None


def _future_is_zero(output: Tensor, expected: Tensor, scores: Tensor) -> str | None:
    above = output.triu(1).nonzero()
    if not len(above):
        return None
    b, h, i, j = above[0].tolist()
    weight = output[b, h, i, j]
    advice = "Hide it before the softmax with −inf or the dtype's lowest number"
    if weight < 0.01:
        advice += ": a score such as −10 only makes the weight small"
    return f"The future must get a weight of exactly 0, but token {i} gives {weight:.3g} to token {j}. {advice}."


def _rows_sum_to_one(output: Tensor, expected: Tensor, scores: Tensor) -> str | None:
    wrong = ((output.sum(-1) - 1).abs() > 1e-4).nonzero()
    if not len(wrong):
        return None
    b, h, i = wrong[0].tolist()
    return f"Each row must sum to 1, but the weights of token {i} sum to {output[b, h, i].sum():.3g}."


CAUSAL_SOFTMAX = Exercise(
    name="01.causal_mask",
    contract="causal_softmax(scores (B, H, L, L)) -> (B, H, L, L): softmax over the keys j ≤ i of each query i; "
    "exactly 0 above the diagonal, each row sums to 1.",
    inputs=("scores",),
    output=("B", "H", "L", "L"),
    example=Case(
        {"B": 1, "H": 1, "L": 3},
        (torch.tensor([[[[1.0, 3.0, 2.0], [0.0, 1.0, 4.0], [2.0, 0.0, 1.0]]]]),),
    ),
    draw=_draw_scores,
    reference=_causal_softmax,
    mistakes=_SOFTMAX_MISTAKES,
    laws=(_token_sees_itself, _future_is_zero, _rows_sum_to_one),
)

# 3. The split into heads -----------------------------------------------------------------------------------------


def _draw_hidden(sizes: dict[str, int], random: Random) -> Inputs:
    shape = (sizes["B"], sizes["L"], sizes["H"] * sizes["d_h"])
    count = torch.Size(shape).numel()
    # All values differ, so that each number of a result tells where it came from.
    return torch.tensor(random.sample(range(count), count), dtype=torch.float32).reshape(shape), sizes["H"]


def _split_heads(x: Tensor, n_heads: int) -> Tensor:
    width = x.shape[-1] // n_heads
    heads = [
        [[token[h * width : (h + 1) * width] for token in sequence] for h in range(n_heads)]
        for sequence in x.tolist()
    ]
    return torch.tensor(heads, dtype=torch.float64)


def _view(x: Tensor, n_heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], n_heads, x.shape[-1] // n_heads)


_HEAD_MISTAKES = (
    Mistake(
        "You split the width into heads without moving the head axis: the shape is right, but the numbers come from "
        "the wrong tokens. First view as (B, L, H, d_h), then transpose L and H.",
        lambda x, n: x.reshape(x.shape[0], n, x.shape[1], -1),
    ),
    Mistake(
        "The heads are interleaved: your head h took the features h, h + H, h + 2H, … It must take d_h neighbours: "
        "h·d_h to (h + 1)·d_h. View as (B, L, H, d_h), not (B, L, d_h, H).",
        lambda x, n: x.reshape(*x.shape[:2], -1, n).permute(0, 3, 1, 2),
    ),
    Mistake(
        "The numbers are in the right heads, but the head axis is still behind the tokens: the shape is "
        "(B, L, H, d_h). Transpose axes 1 and 2.",
        _view,
    ),
    Mistake(
        "The head axis is in its place, but the last two axes are swapped: the shape is (B, H, d_h, L). "
        "Only L and H change places.",
        lambda x, n: _view(x, n).permute(0, 2, 3, 1),
    ),
    Mistake(
        "You used n_heads as the width of a head. It is the number of heads: the width is d_h = d / n_heads.",
        lambda x, n: x.reshape(*x.shape[:2], -1, n).transpose(1, 2),
    ),
    Mistake(
        "You swapped the heads with the batch: the shape is (H, L, B, d_h). Transpose axes 1 and 2, not 0 and 2.",
        lambda x, n: _view(x, n).transpose(0, 2),
    ),
    Mistake(
        "The heads come before the batch: the shape is (H, B, L, d_h). Put the head axis second (dim=1).",
        lambda x, n: _view(x, n).permute(2, 0, 1, 3),
    ),
    Mistake(
        "The heads are the last axis: the shape is (B, L, d_h, H). Put the head axis second (dim=1).",
        lambda x, n: _view(x, n).permute(0, 1, 3, 2),
    ),
    Mistake(
        "You transposed x and then cut it with a view: the shape is right, but each vector mixes tokens. Split the "
        "width while it is the last axis, then transpose L and H.",
        lambda x, n: x.transpose(1, 2).reshape(x.shape[0], n, x.shape[1], -1),
    ),
)


def _comes_from_its_token(output: Tensor, expected: Tensor, x: Tensor, n_heads: int) -> str | None:
    wrong = (output != expected).nonzero()
    if not len(wrong):
        return None
    b, h, position, feature = wrong[0].tolist()
    place = f"result[{b}, {h}, {position}, {feature}]"
    should = f"x[{b}, {position}, {h * output.shape[-1] + feature}]"
    found = (x == output[b, h, position, feature]).nonzero()
    if not len(found):
        return f"{place} is {output[b, h, position, feature]:.4g}, which is no number of x; it must be {should}."
    return f"{place} holds x[{', '.join(map(str, found[0].tolist()))}]; it must hold {should}."


SPLIT_HEADS = Exercise(
    name="01.split_heads",
    contract="split_heads(x (B, L, d), n_heads) -> (B, H, L, d_h) with H = n_heads and d_h = d / H: head h gets the "
    "features h·d_h to (h + 1)·d_h of every token.",
    inputs=("x", "n_heads"),
    output=("B", "H", "L", "d_h"),
    example=Case(
        {"B": 1, "H": 2, "L": 3, "d_h": 2},
        (torch.tensor([[[1.0, 2.0, 3.0, 4.0], [11.0, 12.0, 13.0, 14.0], [21.0, 22.0, 23.0, 24.0]]]), 2),
    ),
    draw=_draw_hidden,
    reference=_split_heads,
    mistakes=_HEAD_MISTAKES,
    laws=(_comes_from_its_token,),
)

EXERCISES = (SCALED_SCORES, CAUSAL_SOFTMAX, SPLIT_HEADS)
