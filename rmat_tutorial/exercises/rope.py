"""The exercises of notebook 02: the frequencies, the rotation, and a score straight from the distance."""

from __future__ import annotations

import cmath
import math
from itertools import product
from random import Random

import torch
from torch import Tensor

from .exercise import Case, Exercise, Inputs, Mistake, random_tensor

_BASES = (10.0, 50.0, 100.0, 400.0, 500_000.0)


def _steps(head_dim: int) -> Tensor:
    """0, 2, 4, … up to d_h − 2."""
    return torch.arange(0, head_dim, 2, dtype=torch.float64)


def _powers(head_dim: int, base: float) -> Tensor:
    return torch.tensor(base, dtype=torch.float64) ** (-_steps(head_dim) / head_dim)


def _few_digits(output: Tensor, expected: Tensor) -> bool:
    """Whether a float64 result is right to the digits of float32 only."""
    return 1e-9 < (output - expected).abs().max() < 1e-4


# 1. The frequencies ----------------------------------------------------------------------------------------------


def _draw_width(sizes: dict[str, int], random: Random) -> Inputs:
    return 2 * sizes["d_h/2"], random.choice(_BASES)


def _frequencies(head_dim: int, base: float) -> Tensor:
    return torch.tensor([1 / base ** (2 * i / head_dim) for i in range(head_dim // 2)], dtype=torch.float64)


_FREQUENCY_MISTAKES = (
    Mistake(
        "Your exponent is positive: the frequencies grow. The first pair is the fastest, one radian a position, and "
        "each next one is slower: base^(−2i/d_h).",
        lambda d, b: b ** (_steps(d) / d),
    ),
    Mistake(
        "In Python -base ** x is -(base ** x): the minus belongs into the exponent, base ** (-x).",
        lambda d, b: -(b ** (_steps(d) / d)),
    ),
    Mistake(
        "The 2 is missing in the exponent: you took base^(−i/d_h). It is base^(−2i/d_h), so that the pairs reach from "
        "1 down to nearly 1/base.",
        lambda d, b: b ** (-_steps(d) / (2 * d)),
    ),
    Mistake(
        "You divided by the number of pairs, d_h/2, and kept the 2: your exponent is twice the right one, "
        "−2i/d_h.",
        lambda d, b: b ** (-2 * _steps(d) / d),
    ),
    Mistake("The exponent is not divided by d_h: it is −2i/d_h.", lambda d, b: b ** -_steps(d)),
    Mistake(
        "You divided with //, which rounds down to a whole number. Divide with /.",
        lambda d, b: b ** torch.floor(-_steps(d) / d),
    ),
    Mistake(
        "You made a frequency for each of the d_h features. Two features are one pair, turned by one angle: there are "
        "d_h/2 frequencies.",
        lambda d, b: b ** (-torch.arange(d, dtype=torch.float64) / d),
    ),
    Mistake(
        "Every frequency comes twice. Two features are one pair, turned by one angle: there are d_h/2 frequencies.",
        lambda d, b: _powers(d, b).repeat_interleave(2),
    ),
    Mistake(
        "All frequencies come twice, one row after the other. There is one for each pair: d_h/2 of them.",
        lambda d, b: _powers(d, b).repeat(2),
    ),
    Mistake(
        "Your pairs are counted from 1. The first is i = 0, which turns one radian a position.",
        lambda d, b: b ** (-(_steps(d) + 2) / d),
    ),
    Mistake(
        "Your last frequency is 1/base. The exponents go in steps of 2/d_h, so the last is −(d_h − 2)/d_h.",
        lambda d, b: b ** -torch.linspace(0, 1, d // 2, dtype=torch.float64),
    ),
    Mistake(
        "The order is reversed: the fastest pair, 1 radian a position, comes first.",
        lambda d, b: _powers(d, b).flip(0),
    ),
    Mistake(
        "The base is not used: your numbers are those of base 10,000, whatever was given.",
        lambda d, b: _powers(d, 10_000.0),
    ),
    Mistake("The base is not used: you took e^(−2i/d_h). It is base^(−2i/d_h).", lambda d, b: _powers(d, math.e)),
    Mistake(
        "You multiplied by 2π. The frequency is the angle in radians, base^(−2i/d_h) as it stands.",
        lambda d, b: 2 * math.pi * _powers(d, b),
    ),
    Mistake(
        "You returned how many positions a full turn takes, 2π / frequency. Asked for is the angle per position.",
        lambda d, b: 2 * math.pi / _powers(d, b),
    ),
)


def _starts_at_one(output: Tensor, expected: Tensor, head_dim: int, base: float) -> str | None:
    if abs(output[0] - 1) < 1e-5:
        return None
    return f"The first pair turns by base^0 = 1 radian a position, but your first frequency is {output[0]:.4g}."


def _one_ratio(output: Tensor, expected: Tensor, head_dim: int, base: float) -> str | None:
    if len(output) < 2 or torch.allclose(output[1:] / output[:-1], expected[1:] / expected[:-1], rtol=1e-5):
        return None
    return (
        f"From each pair to the next the frequency is multiplied by base^(−2/d_h), here {base:g}^(−2/{head_dim}) = "
        f"{expected[1]:.4g}; from your first to your second it is {output[1] / output[0]:.4g}."
    )


def _all_digits_of_frequencies(output: Tensor, expected: Tensor, head_dim: int, base: float) -> str | None:
    if not _few_digits(output, expected):
        return None
    return (
        "The dtype is float64, the digits are not: your exponents were float32 on the way, so only seven digits are "
        "right. Give torch.arange dtype=torch.float64."
    )


FREQUENCIES = Exercise(
    name="02.frequencies",
    contract="frequencies(head_dim, base) -> (d_h/2,) in float64, with d_h = head_dim: pair i turns by base^(−2i/d_h) "
    "radians a position, for i = 0 to d_h/2 − 1.",
    inputs=("head_dim", "base"),
    output=("d_h/2",),
    # The frequencies are 1, 0.1, 0.01, 0.001.
    example=Case({"d_h/2": 4}, (8, 10_000.0)),
    draw=_draw_width,
    reference=_frequencies,
    mistakes=_FREQUENCY_MISTAKES,
    laws=(_starts_at_one, _one_ratio, _all_digits_of_frequencies),
    dtype=torch.float64,
)

# 2. The rotation -------------------------------------------------------------------------------------------------


def _draw_vectors(sizes: dict[str, int], random: Random) -> Inputs:
    positions = [random.randint(1, 30) for _ in range(sizes["L"])]
    x = random_tensor(random, sizes["B"], sizes["H"], sizes["L"], sizes["d_h"])
    return x, torch.tensor(positions), random.choice(_BASES)


def _rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
    numbers, width = x.tolist(), x.shape[-1]
    turned = torch.empty(x.shape, dtype=torch.float64)
    for b, h, p, i in product(*map(range, (*x.shape[:3], width // 2))):
        even, odd = numbers[b][h][p][2 * i : 2 * i + 2]
        pair = complex(even, odd) * cmath.exp(1j * positions[p].item() * base ** (-2 * i / width))
        turned[b, h, p, 2 * i], turned[b, h, p, 2 * i + 1] = pair.real, pair.imag
    return turned


def _angles(x: Tensor, positions: Tensor, base: float) -> Tensor:
    return positions.double()[:, None] * _powers(x.shape[-1], base)


def _neighbours(x: Tensor, angles: Tensor) -> Tensor:
    """Pairs (2i, 2i + 1) turned by ``angles`` (L, d_h/2)."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def _halves(x: Tensor, angles: Tensor) -> Tensor:
    """Pairs (i, i + d_h/2) turned by ``angles`` (L, d_h/2)."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def _mixed(x: Tensor, angles: Tensor, *signs: float) -> Tensor:
    """Pairs (±e·cos ± o·sin, ±e·sin ± o·cos)."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    a, b, c, d = signs
    return torch.stack((a * even * cos + b * odd * sin, c * even * sin + d * odd * cos), dim=-1).flatten(-2)


def _crossed(x: Tensor, angles: Tensor) -> Tensor:
    """The tables belong to neighbours, the partner of each feature is half the width away."""
    cos, sin = (table.to(x.dtype).repeat_interleave(2, dim=-1) for table in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _crossed_back(x: Tensor, angles: Tensor) -> Tensor:
    """The tables belong to halves, the partner of each feature is its neighbour."""
    cos, sin = (table.to(x.dtype).repeat(1, 2) for table in (angles.cos(), angles.sin()))
    return x * cos + torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2) * sin


def _swapped(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


def _second_mixed_up(x: Tensor, positions: Tensor, base: float) -> Tensor:
    angles = _angles(x, positions, base)
    right, wrong = _neighbours(x, angles), _mixed(x, math.pi / 2 - angles, 1, -1, 1, 1)
    return torch.stack((right[..., 0::2], wrong[..., 1::2]), dim=-1).flatten(-2)


def _grown(x: Tensor, positions: Tensor, base: float) -> Tensor:
    return _neighbours(x, positions.double()[:, None] / _powers(x.shape[-1], base))


def _overwritten(x: Tensor, positions: Tensor, base: float) -> Tensor:
    angles = _angles(x, positions, base)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    turned = x.clone()
    turned[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    turned[..., 1::2] = turned[..., 0::2] * sin + x[..., 1::2] * cos
    return turned


def _side_by_side(x: Tensor, positions: Tensor, base: float) -> Tensor:
    turned = _neighbours(x, _angles(x, positions, base))
    return torch.cat((turned[..., 0::2], turned[..., 1::2]), dim=-1)


def _added(x: Tensor, positions: Tensor, base: float) -> Tensor:
    angles = _angles(x, positions, base)
    return x + torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(x.dtype)


def _whole_width(x: Tensor, positions: Tensor, base: float) -> Tensor:
    joined = x.transpose(1, 2).flatten(-2)
    turned = _neighbours(joined, _angles(joined, positions, base))
    return turned.unflatten(-1, (x.shape[1], x.shape[-1])).transpose(1, 2)


_BACKWARDS = (
    "Your rotation goes the other way: distances have their sign flipped. Counter-clockwise is "
    "(e·cos − o·sin, e·sin + o·cos)."
)
_PAIRS = (
    "You paired feature i with feature i + d_h/2. Here a pair is two neighbours, 2i and 2i + 1: x[..., 0::2] and "
    "x[..., 1::2]"
)

_ROTATION_MISTAKES = (
    Mistake(_BACKWARDS, lambda x, p, b: _neighbours(x, -_angles(x, p, b))),
    Mistake(f"{_PAIRS}.", lambda x, p, b: _halves(x, _angles(x, p, b))),
    Mistake(f"{_PAIRS}. The rotation also goes the other way.", lambda x, p, b: _halves(x, -_angles(x, p, b))),
    Mistake(
        "The pairs are turned rightly, but returned in the wrong order: first all the even features, then all the odd "
        "ones. Put each pair side by side again: torch.stack((even, odd), dim=-1).flatten(-2), not torch.cat.",
        _side_by_side,
    ),
    Mistake(
        "The second feature of each pair was computed from the first one after it had been overwritten. Keep both old "
        "values until both new ones are there; x[..., 0::2] is a view, not a copy.",
        _overwritten,
    ),
    Mistake(
        "The signs make a stretch, not a rotation: one of the two sin terms needs a minus. "
        "(e·cos − o·sin, e·sin + o·cos).",
        lambda x, p, b: _mixed(x, _angles(x, p, b), 1, 1, 1, 1),
    ),
    Mistake(
        "Both sin terms have a minus. Only the first has: (e·cos − o·sin, e·sin + o·cos).",
        lambda x, p, b: _mixed(x, _angles(x, p, b), 1, -1, -1, 1),
    ),
    Mistake(
        "You mirrored each pair instead of turning it: a minus is at the last cos. (e·cos − o·sin, e·sin + o·cos).",
        lambda x, p, b: _mixed(x, _angles(x, p, b), 1, 1, 1, -1),
    ),
    Mistake(
        "In the second feature cos and sin have changed places: it is e·sin + o·cos.", _second_mixed_up
    ),
    Mistake(
        "The two features of each pair have changed places before the turn: the even one, x[..., 0::2], is the first.",
        lambda x, p, b: _neighbours(_swapped(x), _angles(x, p, b)),
    ),
    Mistake(
        "The two features of each pair have changed places after the turn: (e·cos − o·sin) comes first.",
        lambda x, p, b: _swapped(_neighbours(x, _angles(x, p, b))),
    ),
    Mistake(
        "Two conventions are mixed: your cos and sin come in neighbours, but each feature is turned with the one d_h/2 "
        "away. The partner of feature 2i is 2i + 1.",
        lambda x, p, b: _crossed(x, _angles(x, p, b)),
    ),
    Mistake(
        "Two conventions are mixed: neighbours are turned together, but your cos and sin repeat after d_h/2 features. "
        "Features 2i and 2i + 1 need the same angle: repeat_interleave(2, dim=-1), not repeat or cat.",
        lambda x, p, b: _crossed_back(x, _angles(x, p, b)),
    ),
    Mistake(
        "Only the cos terms are there: each feature is shrunk by itself. In a rotation the two features of a pair mix: "
        "(e·cos − o·sin, e·sin + o·cos).",
        lambda x, p, b: _mixed(x, _angles(x, p, b), 1, 0, 0, 1),
    ),
    Mistake(
        "cos and sin are swapped: at position 0, where cos = 1 and sin = 0, nothing may move.",
        lambda x, p, b: _neighbours(x, math.pi / 2 - _angles(x, p, b)),
    ),
    Mistake("Nothing was turned: you returned x as it came.", lambda x, p, b: x.clone()),
    Mistake(
        "The given positions are not used: your vectors count 0, 1, 2, … A piece of a segment need not begin at 0.",
        lambda x, p, b: _neighbours(x, _angles(x, torch.arange(len(p)), b)),
    ),
    Mistake(
        "Your angles belong to the positions plus 1. Position 0 is not turned at all.",
        lambda x, p, b: _neighbours(x, _angles(x, p + 1, b)),
    ),
    Mistake(
        "positions * frequencies pairs them off one by one. Every position needs every frequency, an (L, d_h/2) table: "
        "positions[:, None] * frequencies.",
        lambda x, p, b: _neighbours(x, p * _powers(x.shape[-1], b)),
    ),
    Mistake(
        "Your table of angles is (d_h/2, L), rows and columns swapped. It is (L, d_h/2): positions[:, None] * "
        "frequencies.",
        lambda x, p, b: _neighbours(x, _angles(x, p, b).T),
    ),
    Mistake(
        "You added the frequency to the position. The angle is position times frequency.",
        lambda x, p, b: _neighbours(x, p[:, None] + _powers(x.shape[-1], b)),
    ),
    Mistake(
        "Every pair is turned by the same angle, that of the first. Pair i turns by position · base^(−2i/d_h).",
        lambda x, p, b: _neighbours(x, p.double()[:, None].expand(-1, x.shape[-1] // 2)),
    ),
    Mistake(
        "Your later pairs turn faster, by position · base^(+2i/d_h). They should be slower: base^(−2i/d_h).",
        _grown,
    ),
    Mistake(
        "Your angles lack the 2: pair i is turned by position · base^(−i/d_h). It is base^(−2i/d_h).",
        lambda x, p, b: _neighbours(x, p.double()[:, None] * _powers(x.shape[-1], b).sqrt()),
    ),
    Mistake(
        "The frequencies are in reverse order: your first pair is the slowest. It should be the fastest.",
        lambda x, p, b: _neighbours(x, _angles(x, p, b).flip(-1)),
    ),
    Mistake(
        "The base is not used: your angles are those of base 10,000, whatever was given.",
        lambda x, p, b: _neighbours(x, _angles(x, p, 10_000.0)),
    ),
    Mistake(
        "The frequencies run on from head to head, as if all heads were one wide vector. Every head has its own d_h "
        "features and the same d_h/2 angles.",
        _whole_width,
    ),
    Mistake(
        "You added sines and cosines to x. That is another way to mark a position; here each pair is turned.", _added
    ),
    Mistake(
        "You took the angles for degrees. cos and sin of torch want radians, and base^(−2i/d_h) is in radians.",
        lambda x, p, b: _neighbours(x, torch.deg2rad(_angles(x, p, b))),
    ),
)


def _keeps_lengths(output: Tensor, expected: Tensor, x: Tensor, positions: Tensor, base: float) -> str | None:
    before, after = (tensor.double().unflatten(-1, (-1, 2)).norm(dim=-1) for tensor in (x, output))
    wrong = ((before - after).abs() > 1e-4 * (1 + before)).nonzero()
    if not len(wrong):
        return None
    b, h, p, i = wrong[0].tolist()
    return (
        f"A rotation keeps the length of every pair, but x[{b}, {h}, {p}, {2 * i}:{2 * i + 2}] has length "
        f"{before[b, h, p, i]:.4g} and your result there {after[b, h, p, i]:.4g}."
    )


def _turned_by(output: Tensor, expected: Tensor, x: Tensor, positions: Tensor, base: float) -> str | None:
    wrong = ((output - expected).abs() > 1e-4 * (1 + expected.abs())).nonzero()
    if not len(wrong):
        return None
    b, h, p, feature = wrong[0].tolist()
    pair = slice(feature - feature % 2, feature - feature % 2 + 2)
    started, ended = (cmath.phase(complex(*tensor[b, h, p, pair].tolist())) for tensor in (x, output))
    angle = positions[p].item() * base ** (-pair.start / x.shape[-1])
    shown = [math.degrees(value) % 360 for value in (ended - started, angle)]
    return (
        f"Pair {pair.start // 2} at position {positions[p].item()} is turned by {shown[0]:.1f}°. It should be turned "
        f"by {positions[p].item()} · {base:g}^(−{pair.start}/{x.shape[-1]}) radians, which is {shown[1]:.1f}°."
    )


def _all_digits(output: Tensor, expected: Tensor, x: Tensor, *others: Tensor | float) -> str | None:
    if x.dtype != torch.float64 or not _few_digits(output, expected):
        return None
    return (
        "The input is float64, and your result is right to the seven digits of float32 only: something on the way is "
        "float32 or complex64. Take each table to the dtype of the input, or leave it in float64."
    )


def _even_width(sizes: dict[str, int]) -> dict[str, int]:
    return sizes | {"d_h": 2 * sizes["d_h"]}


ROTATE = Exercise(
    name="02.rotate",
    contract="rotate(x (B, H, L, d_h), positions (L,), base) -> (B, H, L, d_h): pair (2i, 2i + 1) of every vector, "
    "turned counter-clockwise by its position times base^(−2i/d_h); in the dtype of x.",
    inputs=("x", "positions", "base"),
    output=("B", "H", "L", "d_h"),
    # The frequencies are 1 and 0.1; position 0 stays as it is.
    example=Case(
        {"B": 1, "H": 1, "L": 2, "d_h": 4},
        (torch.tensor([[[[1.0, 0.0, 2.0, 1.0], [1.0, 0.0, 2.0, 1.0]]]]), torch.tensor([0, 3]), 100.0),
    ),
    draw=_draw_vectors,
    reference=_rotate,
    mistakes=_ROTATION_MISTAKES,
    laws=(_keeps_lengths, _turned_by, _all_digits),
    fit=_even_width,
)

# 3. The score from the distance, in complex numbers ---------------------------------------------------------------


def _draw_heads(sizes: dict[str, int], random: Random) -> Inputs:
    heads, pairs = sizes["H"], sizes["d_h/2"]
    distances = [random.choice((-1, 1, 1)) * random.randint(1, 12) for _ in range(sizes["D"])]
    frequencies = [2.0**-i for i in random.sample(range(7), pairs)]
    return (
        random_tensor(random, heads, 2 * pairs),
        random_tensor(random, heads, 2 * pairs),
        torch.tensor(distances),
        torch.tensor(sorted(frequencies, reverse=True)),
    )


def _distance_scores(q: Tensor, k: Tensor, distances: Tensor, frequencies: Tensor) -> Tensor:
    queries, keys, speeds = q.tolist(), k.tolist(), frequencies.tolist()
    scores = torch.zeros(len(queries), len(distances), dtype=torch.float64)
    for h, j, i in product(range(len(queries)), range(len(distances)), range(len(speeds))):
        (a, b), (c, d) = queries[h][2 * i : 2 * i + 2], keys[h][2 * i : 2 * i + 2]
        angle = distances[j].item() * speeds[i]
        scores[h, j] += (a * c + b * d) * math.cos(angle) + (a * d - b * c) * math.sin(angle)
    return scores


def _complex(x: Tensor) -> Tensor:
    return torch.complex(x[..., 0::2].double(), x[..., 1::2].double())


def _waves(q: Tensor, k: Tensor, distances: Tensor, frequencies: Tensor) -> Tensor:
    """Every pair's share in every score, complex: (H, D, d_h/2)."""
    angles = distances.double()[:, None] * frequencies
    return (_complex(q) * _complex(k).conj())[:, None] * torch.exp(1j * angles)


def _sum(waves: Tensor, q: Tensor) -> Tensor:
    return waves.real.sum(-1).to(q.dtype)


def _by_halves(x: Tensor) -> Tensor:
    return torch.stack(x.chunk(2, dim=-1), dim=-1).flatten(-2)


def _conjugate(x: Tensor) -> Tensor:
    return x * torch.tensor([1.0, -1.0], dtype=x.dtype).repeat(x.shape[-1] // 2)


def _only_cosine(q: Tensor, k: Tensor, distances: Tensor, frequencies: Tensor) -> Tensor:
    cosine = (distances.double()[:, None] * frequencies).cos()
    return (_waves(q, k, 0 * distances, frequencies).real * cosine).sum(-1).to(q.dtype)


def _without_i(q: Tensor, k: Tensor, distances: Tensor, frequencies: Tensor) -> Tensor:
    growth = (distances.double()[:, None] * frequencies).exp()
    return _sum(_waves(q, k, 0 * distances, frequencies) * growth, q)


def _summed_first(q: Tensor, k: Tensor, distances: Tensor, frequencies: Tensor) -> Tensor:
    turns = torch.exp(1j * distances.double()[:, None] * frequencies).sum(-1)
    return ((_complex(q) * _complex(k).conj()).sum(-1)[:, None] * turns).real.to(q.dtype)


_SCORE_MISTAKES = (
    Mistake(
        "The conjugate is missing: you added the angles of q and k. A score compares them: multiply q by the "
        "conjugate of k.",
        lambda q, k, t, f: _sum(_waves(q, _conjugate(k), t, f), q),
    ),
    Mistake(
        "You conjugated the product of q and k. Only k is conjugated: a score compares the two angles, and the "
        "conjugate of a product adds them.",
        lambda q, k, t, f: _sum(_waves(_conjugate(q), k, t, f), q),
    ),
    Mistake(
        "You summed over the pairs first and multiplied the sums. Each pair turns at its own speed: multiply pair by "
        "pair, then sum.",
        _summed_first,
    ),
    Mistake(
        "Your distances have their sign flipped. It comes from a conjugate on q instead of k, or from e^(−iθΔ). The "
        "distance is query minus key: q times the conjugate of k, times e^(+iθΔ).",
        lambda q, k, t, f: _sum(_waves(q, k, -t, f), q),
    ),
    Mistake(
        "The sign of the distance is lost: a key ahead of the query is scored like one behind it. Use the distance "
        "as it is, not its absolute value.",
        lambda q, k, t, f: _sum(_waves(q, k, t.abs(), f), q),
    ),
    Mistake(
        "You took the imaginary part. The dot product of two pairs is the real part of q · conj(k).",
        lambda q, k, t, f: _waves(q, k, t, f).imag.sum(-1).to(q.dtype),
    ),
    Mistake(
        "You added the imaginary part to the real part. The score is the real part alone.",
        lambda q, k, t, f: (_waves(q, k, t, f) * (1 - 1j)).real.sum(-1).to(q.dtype),
    ),
    Mistake(
        "You took the absolute value of the sum. The score is its real part, which may be negative.",
        lambda q, k, t, f: _waves(q, k, t, f).sum(-1).abs().to(q.dtype),
    ),
    Mistake(
        "You took the absolute value of every pair: the distance falls out, because |e^(iθΔ)| = 1. Take the real part.",
        lambda q, k, t, f: _waves(q, k, t, f).abs().sum(-1).to(q.dtype),
    ),
    Mistake(
        "The sine is missing: the real part of a product is not the product of the real parts. Multiply the complex "
        "numbers first, then take the real part.",
        _only_cosine,
    ),
    Mistake("The i is missing in the exponent: e^(θΔ) grows, e^(iθΔ) turns.", _without_i),
    Mistake(
        "Nothing is turned against the other: this is q·k at distance 0, whatever the distance. Multiply the product "
        "by e^(iθΔ), once; the same angle on both q and k cancels.",
        lambda q, k, t, f: _sum(_waves(q, k, 0 * t, f), q),
    ),
    Mistake(
        "Your angle is twice the right one: q and k are turned by the whole distance each, in opposite directions. "
        "Turn their product once.",
        lambda q, k, t, f: _sum(_waves(q, k, 2 * t, f), q),
    ),
    Mistake(
        f"{_PAIRS} make one complex number.",
        lambda q, k, t, f: _sum(_waves(_by_halves(q), _by_halves(k), t, f), q),
    ),
    Mistake(
        "Every pair is turned by the same angle, that of the first frequency. Pair i turns by Δ · frequencies[i].",
        lambda q, k, t, f: _sum(_waves(q, k, t, f[:1].expand_as(f)), q),
    ),
    Mistake(
        "The frequencies are not used: every pair is turned by Δ radians. Pair i turns by Δ · frequencies[i].",
        lambda q, k, t, f: _sum(_waves(q, k, t, torch.ones_like(f)), q),
    ),
    Mistake(
        "You divided the distances by the frequencies. An angle is distance times frequency.",
        lambda q, k, t, f: _sum(_waves(q, k, t, 1 / f), q),
    ),
    Mistake(
        "Every query met the keys of all heads, and their scores were added. Head h has one query and one key.",
        lambda q, k, t, f: _sum(_waves(q, k.sum(0, keepdim=True).expand_as(k), t, f), q),
    ),
    Mistake(
        "You divided by √d_h. Asked for is the dot product itself, before it is scaled.",
        lambda q, k, t, f: _sum(_waves(q, k, t, f), q) / q.shape[-1] ** 0.5,
    ),
    Mistake(
        "You took the mean over the pairs. A score is their sum.",
        lambda q, k, t, f: _waves(q, k, t, f).real.mean(-1).to(q.dtype),
    ),
)

def _product_or_turn(
    output: Tensor, expected: Tensor, q: Tensor, k: Tensor, distances: Tensor, frequencies: Tensor
) -> str | None:
    wrong = ((output - expected).abs() > 1e-4 * (1 + expected.abs())).nonzero()
    if not len(wrong):
        return None
    h, j = wrong[0].tolist()
    distance, should, yours = distances[j].item(), f"{expected[h, j]:.4g}", f"{output[h, j]:.4g}"
    if distance == 0:
        return (
            f"At distance 0 nothing is turned: the score of head {h} is q·k = {should}, yours is {yours}. Look at the "
            "product of the pairs, before e^(iθΔ)."
        )
    before = "At distance 0 you are right, so the products are. " if 0 in distances else ""
    return f"{before}At distance {distance} the score of head {h} should be {should}, yours is {yours}."


COMPLEX = Exercise(
    name="02.complex",
    contract="distance_scores(q (H, d_h), k (H, d_h), distances (D,), frequencies (d_h/2,)) -> (H, D): the dot product "
    "of each head's q and k, turned at two positions that differ by the distance, query minus key; without the √d_h.",
    inputs=("q", "k", "distances", "frequencies"),
    output=("H", "D"),
    example=Case(
        {"H": 1, "D": 3, "d_h/2": 2},
        (
            torch.tensor([[1.0, 2.0, 0.0, 1.0]]),
            torch.tensor([[2.0, 1.0, 3.0, 1.0]]),
            torch.tensor([0, 1, -2]),
            torch.tensor([1.0, 0.5]),
        ),
    ),
    draw=_draw_heads,
    reference=_distance_scores,
    mistakes=_SCORE_MISTAKES,
    laws=(_product_or_turn, _all_digits),
)

EXERCISES = (FREQUENCIES, ROTATE, COMPLEX)
