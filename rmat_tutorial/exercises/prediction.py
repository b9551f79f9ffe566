"""Exercises of notebook 06 on predictions: what they cost in bits per byte, what the next token is drawn from."""

from __future__ import annotations

import math
from random import Random

import torch
from torch import Tensor

from .exercise import Case, Exercise, Inputs, Mistake, random_tensor

# Bits per byte


def _draw_predictions(sizes: dict[str, int], random: Random) -> Inputs:
    targets = [random.randrange(sizes["V"]) for _ in range(sizes["T"] - 1)]
    # Not all the same, or a column of the logits would be right that was not chosen by the targets.
    targets.append(random.choice([token for token in range(sizes["V"]) if token != targets[-1]]))
    return random_tensor(random, sizes["T"], sizes["V"]), torch.tensor(targets)


def _bits(logits: Tensor, targets: Tensor) -> list[float]:
    """−log2 of the chance of each target: log2 of the sum of exp(logit − logit of the target)."""
    rows = zip(logits.tolist(), targets.tolist(), strict=True)
    return [math.log2(sum(math.exp(logit - row[target]) for logit in row)) for row, target in rows]


def _mean_bits(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.tensor(sum(_bits(logits, targets)) / len(targets), dtype=torch.float64)


def _at(values: Tensor, targets: Tensor) -> Tensor:
    """Of each row of ``values`` ``(T, V)`` the one at its target, ``(T,)``."""
    return values[torch.arange(len(targets)), targets]


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    return -_at(logits.log_softmax(-1), targets)


_LN2 = math.log(2)

_BITS_MISTAKES = (
    Mistake("You used the natural logarithm: these are nats. A bit is ln 2 nats, so divide by ln 2, or take log2.",
            lambda x, y: _nats(x, y).mean()),
    Mistake("You used the logarithm to base 10. Bits are counted to base 2: log2.",
            lambda x, y: _nats(x, y).mean() / math.log(10)),
    Mistake("You multiplied the nats by ln 2. A bit is less than a nat, so there are more of them: divide.",
            lambda x, y: _nats(x, y).mean() * _LN2),
    Mistake("You divided by ln 2 twice: log2 counts in bits already.", lambda x, y: _nats(x, y).mean() / _LN2**2),
    Mistake("You divided the nats by log10(2). A bit is ln 2 nats: math.log(2), the natural logarithm.",
            lambda x, y: _nats(x, y).mean() / math.log10(2)),
    Mistake("You took log2 of the nats, so there are two logarithms. A bit is ln 2 nats: divide by ln 2.",
            lambda x, y: _nats(x, y).mean().log2()),
    Mistake("You took a logarithm twice: log_softmax has one in it. Its results are negative, and then that is NaN.",
            lambda x, y: -_at(x.log_softmax(-1), y).log2().mean()),
    Mistake(
        "You return the perplexity, exp of the nats or 2 to the power of the bits. Asked for are the bits themselves.",
        lambda x, y: _nats(x, y).mean().exp(),
    ),
    Mistake("You return e to the power of the bits. Asked for are the bits themselves.",
            lambda x, y: (_nats(x, y).mean() / _LN2).exp()),
    Mistake("You return 2 to the power of the nats. Asked for are bits, nats / ln 2, without a power.",
            lambda x, y: 2 ** _nats(x, y).mean()),
    Mistake("You return 2 to the power of −bits, a mean chance. Asked for are the bits themselves.",
            lambda x, y: (-_nats(x, y).mean()).exp()),
    Mistake("You return the sum over the positions. Divide by their number T.", lambda x, y: _nats(x, y).sum() / _LN2),
    Mistake("You return the sum over the positions, in nats. Divide by their number T, and by ln 2.",
            lambda x, y: _nats(x, y).sum()),
    Mistake("You return the bits of each position. Asked for is one number, their mean.",
            lambda x, y: _nats(x, y) / _LN2),
    Mistake("You return the nats of each position. Asked for is one number: their mean, divided by ln 2.", _nats),
    Mistake("You divided the sum by V, the size of the vocabulary. Divide by T, the number of positions.",
            lambda x, y: _nats(x, y).sum() / _LN2 / x.shape[-1]),
    Mistake(
        "You divided by V as well: the mean is over T · V numbers, and all but T of them are 0. Pick one number for "
        "each position, that of its target, and take the mean of those.",
        lambda x, y: _nats(x, y).mean() / _LN2 / x.shape[-1],
    ),
    Mistake("You divided by 8, or by ln 256. A target is one byte already: its bits are −log2 of its chance.",
            lambda x, y: _nats(x, y).mean() / _LN2 / 8),
    Mistake("The softmax is missing: you used the logits as if they were logarithms of chances.",
            lambda x, y: -_at(x, y).mean()),
    Mistake("The softmax is missing: you used the logits as if they were logarithms of chances.",
            lambda x, y: -_at(x, y).mean() / _LN2),
    Mistake(
        "The softmax is missing: you took the logarithm of the logits. A logit may be negative, and then that is NaN.",
        lambda x, y: -_at(x, y).log2().mean(),
    ),
    Mistake(
        "You divided the logits by their sum. A logit may be negative, a chance may not: the softmax takes exp first.",
        lambda x, y: -_at(x / x.sum(-1, keepdim=True), y).log2().mean(),
    ),
    Mistake("You took the logarithm of exp(logit), not divided by the sum over the vocabulary, and its sign is wrong.",
            lambda x, y: _at(x, y).mean() / _LN2),
    Mistake("Your chances are powers of 2, divided by their sum. The softmax takes powers of e; log2 comes after it.",
            lambda x, y: _nats(x * _LN2, y).mean() / _LN2),
    Mistake(
        "You used a sigmoid for each logit. The chances of all bytes must sum to 1: a softmax over the vocabulary.",
        lambda x, y: -_at(x.sigmoid(), y).log2().mean(),
    ),
    Mistake(
        "Your softmax runs over the positions. At each position the chances of all bytes sum to 1: dim=-1.",
        lambda x, y: -_at(x.softmax(0), y).log2().mean(),
    ),
    Mistake(
        "Your softmax runs over all T · V numbers at once. Each position has chances of its own: dim=-1.",
        lambda x, y: -_at(x.flatten().softmax(0).view_as(x), y).log2().mean(),
    ),
    Mistake(
        "You applied the softmax twice. cross_entropy and log_softmax have one in them: give them the logits.",
        lambda x, y: _nats(x.softmax(-1), y).mean() / _LN2,
    ),
    Mistake(
        "You applied the softmax twice, and the result is in nats. cross_entropy has one in it: give it the logits, "
        "and divide by ln 2.",
        lambda x, y: _nats(x.softmax(-1), y).mean(),
    ),
    Mistake(
        "You shifted the targets: logits[t] is set beside targets[t + 1]. targets[t] is the byte that came after "
        "position t already.",
        lambda x, y: _nats(x[:-1], y[1:]).mean() / _LN2,
    ),
    Mistake(
        "You shifted the targets: logits[t] is set beside targets[t + 1]. targets[t] is the byte that came after "
        "position t already.",
        lambda x, y: _nats(x, y.roll(-1)).mean() / _LN2,
    ),
    Mistake("You shifted the logits: logits[t + 1] is set beside targets[t]. They belong together as they stand.",
            lambda x, y: _nats(x[1:], y[:-1]).mean() / _LN2),
    Mistake("You shifted the logits: logits[t + 1] is set beside targets[t]. They belong together as they stand.",
            lambda x, y: _nats(x, y.roll(1)).mean() / _LN2),
    Mistake("The sign is wrong: log2 of a chance is negative, and bits are −log2.",
            lambda x, y: -_nats(x, y).mean() / _LN2),
    Mistake("The sign is wrong, and the logarithm is the natural one. Bits are −log2 of the chance.",
            lambda x, y: -_nats(x, y).mean()),
    Mistake(
        "You took the mean of the chances first and then its logarithm. Each position costs its own bits: logarithm "
        "first, then the mean.",
        lambda x, y: -(-_nats(x, y)).exp().mean().log2(),
    ),
    Mistake("You return the mean chance of the bytes that came: the logarithm is missing.",
            lambda x, y: (-_nats(x, y)).exp().mean()),
    Mistake(
        "You took the largest chance at each position. Asked for is the chance of the byte that came, targets[t], "
        "likely or not.",
        lambda x, y: -x.log_softmax(-1).amax(-1).mean() / _LN2,
    ),
    Mistake(
        "You took the entropy, the bits that the model expects. Asked for are those that the bytes that came cost: "
        "the targets are not used.",
        lambda x, y: -(x.softmax(-1) * x.log_softmax(-1)).sum(-1).mean() / _LN2,
    ),
    Mistake(
        "You took the mean over the whole vocabulary. Pick one number for each position: the chance of its target.",
        lambda x, y: -x.log_softmax(-1).mean() / _LN2,
    ),
    Mistake(
        "Every position is set beside every target: logits[:, targets] is (T, T). Pick one number for each position: "
        "logits[torch.arange(T), targets], or gather.",
        lambda x, y: -x.log_softmax(-1)[:, y].mean() / _LN2,
    ),
    Mistake("You took the chance of all other bytes, 1 − p. Bits are −log2 of p itself.",
            lambda x, y: -torch.log2(1 - (-_nats(x, y)).exp()).mean()),
    Mistake("You return the share of right guesses. Asked for is −log2 of the chance of the byte that came.",
            lambda x, y: (x.argmax(-1) == y).to(x).mean()),
    Mistake("You left out the last position. Its target has come as well: the mean is over all of them.",
            lambda x, y: _nats(x[:-1], y[:-1]).mean() / _LN2),
    Mistake("You left out the first position. Its target has come as well: the mean is over all of them.",
            lambda x, y: _nats(x[1:], y[1:]).mean() / _LN2),
    Mistake("You counted the last position only. The mean is over all of them.", lambda x, y: _nats(x, y)[-1] / _LN2),
    Mistake("You counted the first position only. The mean is over all of them.", lambda x, y: _nats(x, y)[0] / _LN2),
)


def _costs_so_much(output: Tensor, expected: Tensor, logits: Tensor, targets: Tensor) -> str | None:
    if torch.allclose(output, expected, rtol=1e-5, atol=1e-5):
        return None
    first = "No chance is above 1, so no byte costs less than 0 bits. " if output < 0 else ""
    bits = ", ".join(f"{number:.4g}" for number in _bits(logits, targets))
    return f"{first}The bytes that came cost {bits} bits, one after the other. Asked for is the mean of these."


BITS_PER_BYTE = Exercise(
    name="06.bits_per_byte",
    contract="bits_per_byte(logits (T, V), targets (T,)) -> number: the mean over the positions t of −log2 of the "
    "chance that softmax(logits[t]) gives to the byte that came, targets[t].",
    inputs=("logits", "targets"),
    output=(),
    # The chances are 1/2, 1/4, 1/8, 1/8 and then 1/4 each: the bytes that came cost 3 bits and 2.
    example=Case({"T": 2, "V": 4}, (torch.tensor([[2.0, 1.0, 0.0, 0.0], [0.0] * 4]) * _LN2, torch.tensor([2, 0]))),
    draw=_draw_predictions,
    reference=_mean_bits,
    mistakes=_BITS_MISTAKES,
    laws=(_costs_so_much,),
    is_trained=False,
    # Of one position nothing is left when the targets are shifted, and a vocabulary of one byte costs nothing.
    fit=lambda sizes: {"T": sizes["T"] + 1, "V": max(sizes["V"], 2)},
)

# What the next token is drawn from


def _some_of_the_vocabulary(sizes: dict[str, int]) -> dict[str, int]:
    """All tokens in the draw where both sizes are equal, and where there is one token; else at least three left out."""
    if sizes["V"] == 1:
        return sizes | {"k": 1}
    return sizes if sizes["V"] == sizes["k"] else sizes | {"V": sizes["V"] + sizes["k"] + 1}


def _draw_logits(sizes: dict[str, int], random: Random) -> Inputs:
    quarters = random.sample(range(-12, 13), sizes["V"])  # none twice: which k are the largest is not open
    return torch.tensor(quarters) / 4, random.choice((0.25, 0.5, 0.75, 1.5, 2.0)), sizes["k"]


def _chances(logits: Tensor, temperature: float, top_k: int) -> Tensor:
    numbers = logits.tolist()
    largest = sorted(range(len(numbers)), key=lambda token: -numbers[token])[:top_k]
    powers = {token: math.exp(numbers[token] / temperature) for token in largest}
    chances = [powers.get(token, 0.0) / sum(powers.values()) for token in range(len(numbers))]
    return torch.tensor(chances, dtype=torch.float64)


def _is_among(logits: Tensor, count: int, largest: bool = True) -> Tensor:
    """Whether each token is among the ``count`` with the largest (or the smallest) logits."""
    chosen = torch.zeros_like(logits, dtype=torch.bool)
    chosen[logits.topk(count, largest=largest).indices] = True
    return chosen


def _among(logits: Tensor, chosen: Tensor) -> Tensor:
    """The softmax over the chosen tokens, 0 elsewhere; NaN when none is chosen."""
    return torch.where(chosen, logits, -math.inf).softmax(-1)


def _without(chances: Tensor, logits: Tensor, top_k: int) -> Tensor:
    return torch.where(_is_among(logits, top_k), chances, 0.0)


_ZERO_IS_NO_END = (
    "You put 0 on the logits of the others. exp(0) is 1, so they stay in the draw: put −inf there, whose exp is 0."
)
_TWICE = "You applied the softmax twice, the second time to chances. Put −inf on the other logits, and apply it once."
_TWO_SCALES = (
    "You compare logits that are divided by the temperature with a k-th largest that is not, or the other way round. "
    "Take both from the same numbers."
)
_ONE_MORE = "You kept k + 1 tokens. The k-th largest has the index k − 1, because counting starts at 0."
_ONE_LESS = "You kept k − 1 tokens. The k-th largest belongs to them: compare with >=, not with >."

_CHANCES_MISTAKES = (
    Mistake(
        "The chances of the kept tokens do not sum to 1: what was taken from the others is missing. Put −inf on their "
        "logits before the softmax, or divide by the sum after it.",
        lambda x, t, k: _without((x / t).softmax(-1), x, k),
    ),
    Mistake(
        "The chances of the kept tokens do not sum to 1, and the temperature is not used.",
        lambda x, t, k: _without(x.softmax(-1), x, k),
    ),
    Mistake(
        "You divided the chances by the temperature, after the softmax. It divides the logits, before it.",
        lambda x, t, k: _among(x, _is_among(x, k)) / t,
    ),
    Mistake(
        "You divided the chances by the temperature, after the softmax, and those of the kept tokens do not sum to 1. "
        "Divide the logits, and put −inf on those of the others, before the softmax.",
        lambda x, t, k: _without(x.softmax(-1) / t, x, k),
    ),
    Mistake("You multiplied the logits by the temperature. Divide: a high temperature makes the chances more alike.",
            lambda x, t, k: _among(x * t, _is_among(x, k))),
    Mistake("You divided by the temperature twice.", lambda x, t, k: _among(x / t / t, _is_among(x, k))),
    Mistake(
        "The temperature has no effect. Either it is not used, or it divides after the softmax and is lost when the "
        "chances are divided by their sum. It divides the logits, before the softmax.",
        lambda x, t, k: _among(x, _is_among(x, k)),
    ),
    Mistake("top_k is not used: every token is still in the draw.", lambda x, t, k: (x / t).softmax(-1)),
    Mistake("You kept the k smallest logits. Keep the k largest.",
            lambda x, t, k: _among(x / t, _is_among(x, k, largest=False))),
    Mistake("Kept and shut out are swapped: the k largest are what you shut out.",
            lambda x, t, k: _among(x / t, ~_is_among(x, k))),
    Mistake(
        "You kept all tokens from the k-th smallest on. kthvalue and sort count from the smallest: the k-th largest is "
        "topk(k).values[-1], or the number V − k + 1 from below.",
        lambda x, t, k: _among(x / t, x >= x.kthvalue(k).values),
    ),
    Mistake("Your comparison goes the other way: you kept the k-th largest and all below it.",
            lambda x, t, k: _among(x / t, x <= x.topk(k).values[-1])),
    Mistake(_TWO_SCALES, lambda x, t, k: _among(x / t, x / t >= x.topk(k).values[-1])),
    Mistake(_TWO_SCALES, lambda x, t, k: _among(x / t, x >= (x / t).topk(k).values[-1])),
    Mistake(_ONE_MORE, lambda x, t, k: _among(x / t, _is_among(x, k + 1))),
    Mistake(_ONE_MORE, lambda x, t, k: _among(x / t, _is_among(x, min(k + 1, len(x))))),
    Mistake(_ONE_LESS, lambda x, t, k: _among(x / t, _is_among(x, k - 1))),
    Mistake(_ONE_LESS, lambda x, t, k: _among(x / t, _is_among(x, k - 1)).nan_to_num()),
    Mistake(_ONE_LESS, lambda x, t, k: _among(x / t, _is_among(x, max(k - 1, 1)))),
    Mistake(_ZERO_IS_NO_END, lambda x, t, k: _without(x / t, x, k).softmax(-1)),
    Mistake(
        "You put 0 on the logits of the others, and the temperature is not used. exp(0) is 1, so they stay in the "
        "draw: put −inf there.",
        lambda x, t, k: _without(x, x, k).softmax(-1),
    ),
    Mistake(
        "You kept the first k tokens of the vocabulary. Keep those with the k largest logits, wherever they stand.",
        lambda x, t, k: _among(x / t, torch.arange(len(x)) < k),
    ),
    Mistake(
        "argsort says which token stands at each rank; you read it as the rank of each token. The ranks are the "
        "argsort of the argsort; topk(k).indices are the tokens themselves.",
        lambda x, t, k: _among(x / t, x.argsort(descending=True) < k),
    ),
    Mistake(
        "The chances are sorted: the largest come first. Entry i must be the chance of token i: put each in its place "
        "with scatter(-1, indices, chances).",
        lambda x, t, k: _among(x / t, _is_among(x, k)).sort(descending=True).values,
    ),
    Mistake(
        "You return the k chances alone. The result has V numbers, one for each token, 0 for those shut out: put each "
        "in its place with scatter(-1, indices, chances).",
        lambda x, t, k: (x / t).topk(k).values.softmax(-1),
    ),
    Mistake(
        "You return the k chances alone, in the order of the vocabulary. The result has V numbers, 0 for those shut "
        "out.",
        lambda x, t, k: (x / t)[_is_among(x, k)].softmax(-1),
    ),
    Mistake(
        "You return the k chances alone, and they do not sum to 1. The result has V numbers, 0 for those shut out.",
        lambda x, t, k: (x / t).softmax(-1).topk(k).values,
    ),
    Mistake("The softmax is missing: you return logits.",
            lambda x, t, k: torch.where(_is_among(x, k), x / t, -math.inf)),
    Mistake("The softmax is missing: you return logits.", lambda x, t, k: _without(x / t, x, k)),
    Mistake("You return the logarithms of the chances: use softmax, not log_softmax.",
            lambda x, t, k: _among(x / t, _is_among(x, k)).log()),
    Mistake("You return exp of the logits. Divide it by its sum: chances sum to 1.",
            lambda x, t, k: _without((x / t).exp(), x, k)),
    Mistake(
        "You divided the logits by their sum. A logit may be negative, a chance may not: the softmax takes exp first.",
        lambda x, t, k: _without(x / t, x, k) / _without(x / t, x, k).sum(),
    ),
    Mistake("You divided by the largest chance. Divide by the sum: chances sum to 1.",
            lambda x, t, k: _without((x - x.max()).div(t).exp(), x, k)),
    Mistake("You put all on the largest logit. The draw is among k tokens, each with its own chance.",
            lambda x, t, k: _is_among(x, 1).to(x)),
    Mistake("Your k tokens all have the same chance. Among those kept the softmax still decides.",
            lambda x, t, k: _is_among(x, k).to(x) / k),
    Mistake(_TWICE, lambda x, t, k: _among((x / t).softmax(-1), _is_among(x, k))),
    Mistake(_TWICE, lambda x, t, k: _without((x / t).softmax(-1), x, k).softmax(-1)),
    Mistake(_TWICE, lambda x, t, k: _among(x.softmax(-1) / t, _is_among(x, k))),
)


def _keeps_the_largest(output: Tensor, expected: Tensor, logits: Tensor, temperature: float, top_k: int) -> str | None:
    wrong = ((output != 0) != (expected != 0)).nonzero()
    if not len(wrong):
        return None
    sorted_output, sorted_expected = output.sort().values, expected.sort().values
    if torch.equal(sorted_output == 0, sorted_expected == 0) and torch.allclose(sorted_output, sorted_expected):
        return (
            "The chances are right, but in the wrong places. Entry i must be the chance of token i: topk(k).indices "
            "says which tokens they belong to, and scatter(-1, indices, chances) puts each in its place."
        )
    token = int(wrong[0])
    if expected[token]:
        return f"Token {token} is among the {top_k} with the largest logits, but its chance is 0 in your result."
    return (
        f"Token {token} is not among the {top_k} with the largest logits. Its chance must be exactly 0, so that it is "
        f"never drawn, and yours is {output[token]:.3g}. exp(−inf) is exactly 0."
    )


def _sums_to_one(output: Tensor, expected: Tensor, *_: object) -> str | None:
    if output.min() < 0:
        return f"A chance is never negative, and yours of token {int(output.argmin())} is {output.min():.3g}."
    if abs(output.sum() - 1) > 1e-4:
        return f"The right tokens are in the draw, but their chances sum to {output.sum():.4g}, and not to 1."
    return None


def _has_the_ratios(output: Tensor, expected: Tensor, logits: Tensor, temperature: float, top_k: int) -> str | None:
    if top_k == 1 or torch.allclose(output, expected, rtol=1e-5, atol=1e-5):
        return None
    (one, two), (first, second) = logits.topk(2).values.tolist(), logits.topk(2).indices.tolist()
    return (
        f"The right tokens are in the draw and their chances sum to 1, but they are shared out wrongly. Tokens {first} "
        f"and {second} have logits {one:.4g} and {two:.4g}. So at temperature {temperature:g} the first comes "
        f"exp({one - two:.4g} / {temperature:g}) = {math.exp((one - two) / temperature):.4g} times as often as the "
        f"second; in your result {output[first] / output[second]:.4g} times."
    )


CHANCES = Exercise(
    name="06.chances",
    contract="chances(logits (V,), temperature, top_k) -> (V,): softmax(logits / temperature) among the top_k largest "
    "logits, exactly 0 for all others; the sum is 1. temperature > 0, 1 <= top_k <= V.",
    inputs=("logits", "temperature", "top_k"),
    output=("V",),
    # exp of these, divided by ½, is 4 to the power of 1, 3, 0, 2: of the two largest, 64 and 16, the shares are 4 : 1.
    example=Case({"V": 4, "k": 2}, (torch.tensor([1.0, 3.0, 0.0, 2.0]) * _LN2, 0.5, 2)),
    draw=_draw_logits,
    reference=_chances,
    mistakes=_CHANCES_MISTAKES,
    laws=(_keeps_the_largest, _sums_to_one, _has_the_ratios),
    is_trained=False,
    fit=_some_of_the_vocabulary,
)

EXERCISES = (BITS_PER_BYTE, CHANCES)
