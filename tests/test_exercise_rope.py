"""The exercises of notebook 02: wrong answers get the right diagnosis, right ones pass, whatever they look like."""

import math

import pytest
import torch
from answers import assert_diagnosed, assert_passes, named

from rmat_tutorial import apply_rope, rope_frequencies
from rmat_tutorial.exercises import EXERCISES

FREQUENCIES, ROTATE, COMPLEX = "02.frequencies", "02.rotate", "02.complex"


pytestmark = pytest.mark.usefixtures("own_home")


# The frequencies -------------------------------------------------------------------------------------------------


def frequencies_by_arange(head_dim, base):
    return base ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)


def frequencies_by_loop(head_dim, base):
    values = [1.0]
    while len(values) < head_dim // 2:
        values.append(values[-1] * base ** (-2 / head_dim))
    return torch.tensor(values, dtype=torch.float64)


def frequencies_by_logspace(head_dim, base):
    pairs = head_dim // 2
    return torch.logspace(0, -(pairs - 1) / pairs, pairs, base=base, dtype=torch.float64)


def frequencies_by_exp(head_dim, base):
    return torch.exp(-math.log(base) * torch.arange(head_dim // 2).double() * 2 / head_dim)


def frequencies_single(head_dim, base):
    return 1 / base ** (torch.arange(0, head_dim, 2).float() / head_dim)


def frequencies_growing(head_dim, base):
    return torch.tensor([base ** (2 * i / head_dim) for i in range(head_dim // 2)], dtype=torch.float64)


def frequencies_minus_outside(head_dim, base):
    return torch.tensor([-base ** (2 * i / head_dim) for i in range(head_dim // 2)], dtype=torch.float64)


def frequencies_without_two(head_dim, base):
    return torch.tensor([base ** -(i / head_dim) for i in range(head_dim // 2)], dtype=torch.float64)


def frequencies_over_pairs(head_dim, base):
    pairs = head_dim // 2
    return torch.tensor([base ** (-2 * i / pairs) for i in range(pairs)], dtype=torch.float64)


def frequencies_floored(head_dim, base):
    return torch.tensor([base ** (-2 * i // head_dim) for i in range(head_dim // 2)], dtype=torch.float64)


def frequencies_of_features(head_dim, base):
    return torch.tensor([1 / base ** (i / head_dim) for i in range(head_dim)], dtype=torch.float64)


def frequencies_doubled(head_dim, base):
    return torch.stack([frequencies_by_loop(head_dim, base)] * 2, dim=1).flatten()


def frequencies_from_one(head_dim, base):
    return torch.tensor([base ** (-2 * i / head_dim) for i in range(1, head_dim // 2 + 1)], dtype=torch.float64)


def frequencies_reversed(head_dim, base):
    return frequencies_by_loop(head_dim, base).sort().values


def frequencies_of_the_usual_base(head_dim, base):
    return frequencies_by_loop(head_dim, 10_000)


def frequencies_in_turns(head_dim, base):
    return 2 * math.pi * frequencies_by_loop(head_dim, base)


def periods(head_dim, base):
    return math.tau / frequencies_by_loop(head_dim, base)


def frequencies_arithmetic(head_dim, base):
    return torch.linspace(1, 1 / base, head_dim // 2 + 1, dtype=torch.float64)[:-1]


def frequencies_of_base_squared(head_dim, base):
    return frequencies_by_loop(head_dim, base) / 3


def frequencies_cast_late(head_dim, base):
    return torch.exp(-math.log(base) * torch.arange(0, head_dim, 2) / head_dim).double()


def frequencies_as_list(head_dim, base):
    return frequencies_by_loop(head_dim, base).tolist()


# The rotation ----------------------------------------------------------------------------------------------------


def rotate_written_out(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def rotate_complex(x, positions, base):
    angles = positions.double()[:, None] * frequencies_by_loop(x.shape[-1], base)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).double().contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2).to(x.dtype)


def rotate_by_loops(x, positions, base):
    turned = torch.zeros_like(x)
    for place, position in enumerate(positions.tolist()):
        for i, frequency in enumerate(frequencies_by_loop(x.shape[-1], base).tolist()):
            cos, sin = math.cos(position * frequency), math.sin(position * frequency)
            turned[:, :, place, 2 * i] = cos * x[:, :, place, 2 * i] - sin * x[:, :, place, 2 * i + 1]
            turned[:, :, place, 2 * i + 1] = sin * x[:, :, place, 2 * i] + cos * x[:, :, place, 2 * i + 1]
    return turned


def rotate_by_matrices(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    matrices = torch.stack((angles.cos(), -angles.sin(), angles.sin(), angles.cos()), dim=-1).unflatten(-1, (2, 2))
    return torch.einsum("lprc,bhlpc->bhlpr", matrices.to(x.dtype), x.unflatten(-1, (-1, 2))).flatten(-2)


def rotate_with_swapped_copy(x, positions, base):
    angles = (positions[:, None] * frequencies_by_arange(x.shape[-1], base)).repeat_interleave(2, dim=-1)
    swapped = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
    return x * angles.cos().to(x.dtype) + swapped * angles.sin().to(x.dtype)


def rotate_into_empty(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    turned = torch.empty_like(x)
    turned[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
    turned[..., 1::2] = x[..., ::2] * sin + x[..., 1::2] * cos
    return turned


def rotate_back(x, positions, base):
    return rotate_complex(x, -positions, base)


def rotate_halves(x, positions, base):
    angles = (positions[:, None] * frequencies_by_arange(x.shape[-1], base)).repeat(1, 2)
    first, second = x.chunk(2, dim=-1)
    return x * angles.cos().to(x.dtype) + torch.cat((-second, first), dim=-1) * angles.sin().to(x.dtype)


def rotate_halves_by_view(x, positions, base):
    pairs = x.unflatten(-1, (2, -1)).transpose(-2, -1).flatten(-2)
    return rotate_complex(pairs, positions, base).unflatten(-1, (-1, 2)).transpose(-2, -1).flatten(-2)


def rotate_halves_back(x, positions, base):
    return rotate_halves(x, -positions, base)


def rotate_and_concatenate(x, positions, base):
    turned = rotate_complex(x, positions, base).unflatten(-1, (-1, 2))
    return torch.cat((turned[..., 0], turned[..., 1]), dim=-1)


def rotate_through_a_view(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    turned = x.clone()
    even, odd = turned[..., 0::2], turned[..., 1::2]
    turned[..., 0::2] = even * cos - odd * sin
    turned[..., 1::2] = even * sin + odd * cos
    return turned


def with_matrix(x, positions, base, matrix):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    entries = torch.stack(matrix(angles.cos(), angles.sin()), dim=-1).unflatten(-1, (2, 2)).to(x.dtype)
    return torch.einsum("lprc,bhlpc->bhlpr", entries, x.unflatten(-1, (-1, 2))).flatten(-2)


def rotate_stretched(x, positions, base):
    return with_matrix(x, positions, base, lambda cos, sin: (cos, sin, sin, cos))


def rotate_mirrored(x, positions, base):
    return with_matrix(x, positions, base, lambda cos, sin: (cos, sin, sin, -cos))


def rotate_only_cos(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    return x * angles.cos().repeat_interleave(2, dim=-1).to(x.dtype)


def rotate_cos_and_sin_swapped(x, positions, base):
    return with_matrix(x, positions, base, lambda cos, sin: (sin, -cos, cos, sin))


def rotate_not_at_all(x, positions, base):
    return x * 1


def rotate_from_zero(x, positions, base):
    return rotate_complex(x, torch.arange(x.shape[-2]), base)


def rotate_from_one(x, positions, base):
    return rotate_complex(x, positions + 1, base)


def rotate_as_one(x, positions, base):
    angle = positions.to(x.dtype)[:, None]
    even, odd = x[..., ::2], x[..., 1::2]
    pairs = (even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos())
    return torch.stack(pairs, dim=-1).flatten(-2)


def rotate_slow_first(x, positions, base):
    angles = positions.double()[:, None] * frequencies_by_loop(x.shape[-1], base).flip(0)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).double().contiguous())
    return torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2).to(x.dtype)


def rotate_with_the_usual_base(x, positions, base):
    return rotate_by_loops(x, positions, 10_000.0)


def rotate_before_the_split(x, positions, base):
    B, H, L, width = x.shape
    wide = x.permute(0, 2, 1, 3).reshape(B, 1, L, H * width)
    return rotate_complex(wide, positions, base).reshape(B, L, H, width).permute(0, 2, 1, 3)


def rotate_by_adding(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    marks = torch.zeros(x.shape[-2:], dtype=x.dtype)
    marks[:, 0::2], marks[:, 1::2] = angles.sin(), angles.cos()
    return x + marks


def rotate_in_degrees(x, positions, base):
    return rotate_complex(x, positions * math.pi / 180, base)


def rotate_paired_off(x, positions, base):
    turns = torch.polar(torch.ones(1, dtype=torch.float64), positions * frequencies_by_loop(x.shape[-1], base))
    return torch.view_as_real(pairs_of(x.double()) * turns).flatten(-2).to(x.dtype)


def rotate_by_transposed_table(x, positions, base):
    angles = torch.outer(frequencies_by_loop(x.shape[-1], base), positions.double())
    return torch.view_as_real(pairs_of(x.double()) * torch.exp(1j * angles)).flatten(-2).to(x.dtype)


def rotate_by_sum(x, positions, base):
    angles = positions.double().unsqueeze(1).add(frequencies_by_loop(x.shape[-1], base))
    return torch.view_as_real(pairs_of(x.double()) * torch.exp(1j * angles)).flatten(-2).to(x.dtype)


def rotate_odd_first(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., 1::2], x[..., 0::2]
    return torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)


def rotate_and_swap(x, positions, base):
    turned = rotate_by_loops(x, positions, base)
    return torch.stack((turned[..., 1::2], turned[..., 0::2]), dim=-1).flatten(-2)


def rotate_second_mixed_up(x, positions, base):
    return with_matrix(x, positions, base, lambda cos, sin: (cos, -sin, cos, sin))


def rotate_halves_with_tables_of_neighbours(x, positions, base):
    angles = (positions[:, None] * frequencies_by_arange(x.shape[-1], base)).repeat_interleave(2, dim=-1)
    half = x.shape[-1] // 2
    partner = x.roll(half, dims=-1) * torch.tensor([-1] * half + [1] * half)
    return x * angles.cos().to(x.dtype) + partner * angles.sin().to(x.dtype)


def rotate_neighbours_with_tables_of_halves(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    angles = torch.cat((angles, angles), dim=-1)
    partner = torch.view_as_real(1j * pairs_of(x)).flatten(-2)
    return x * angles.cos().to(x.dtype) + partner * angles.sin().to(x.dtype)


def rotate_with_single_tables(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    turns = torch.exp(1j * angles).to(torch.complex64)
    return torch.view_as_real(pairs_of(x) * turns).flatten(-2).to(x.dtype)


def rotate_one_pair(x, positions, base):
    return torch.cat((rotate_complex(x, positions, base)[..., :2], x[..., 2:]), dim=-1)


def rotate_and_stretch(x, positions, base):
    return rotate_complex(x, positions, base) * (1 + positions[:, None]).to(x.dtype)


def rotate_in_double(x, positions, base):
    angles = positions[:, None] * frequencies_by_arange(x.shape[-1], base)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = (even * angles.cos() - odd * angles.sin(), even * angles.sin() + odd * angles.cos())
    return torch.stack(turned, dim=-1).flatten(-2)


def rotate_unflattened(x, positions, base):
    return rotate_written_out(x, positions, base).unflatten(-1, (-1, 2))


def rotate_in_place(x, positions, base):
    x.copy_(rotate_written_out(x, positions, base))
    return x.clone()


def rotate_detached(x, positions, base):
    return rotate_written_out(x.detach(), positions, base)


# The score from the distance -------------------------------------------------------------------------------------


def pairs_of(x):
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())


def turned(x, positions, frequencies):
    """x (H, d_h) at every position: (H, D, d_h)."""
    angles = positions[:, None] * frequencies
    return torch.view_as_real(pairs_of(x)[:, None] * torch.exp(1j * angles)).flatten(-2)


def scores_complex(q, k, distances, frequencies):
    pairs = torch.view_as_complex(q.unflatten(-1, (-1, 2))) * torch.view_as_complex(k.unflatten(-1, (-1, 2))).conj()
    return (pairs[:, None] * torch.exp(1j * distances[:, None] * frequencies)).real.sum(dim=-1)


def scores_by_product(q, k, distances, frequencies):
    angles = distances.to(frequencies)[:, None] * frequencies
    pairs = torch.complex(q[:, ::2], q[:, 1::2]) * torch.complex(k[:, ::2], -k[:, 1::2])
    return (pairs @ torch.polar(torch.ones_like(angles), angles).T).real


def scores_by_turning_the_query(q, k, distances, frequencies):
    return torch.einsum("hdc,hc->hd", turned(q, distances, frequencies), k)


def scores_by_turning_both(q, k, distances, frequencies):
    return (turned(q, 20 + distances, frequencies) * turned(k, torch.full_like(distances, 20), frequencies)).sum(-1)


def scores_by_cos_and_sin(q, k, distances, frequencies):
    angles = distances[:, None] * frequencies
    along = q[:, ::2] * k[:, ::2] + q[:, 1::2] * k[:, 1::2]
    across = q[:, ::2] * k[:, 1::2] - q[:, 1::2] * k[:, ::2]
    return along @ angles.cos().T + across @ angles.sin().T


def scores_by_loops(q, k, distances, frequencies):
    rows = []
    for h in range(len(q)):
        row = []
        for distance in distances:
            score = 0
            for i, frequency in enumerate(frequencies):
                a, b = torch.complex(*q[h, 2 * i : 2 * i + 2]), torch.complex(*k[h, 2 * i : 2 * i + 2])
                angle = distance * frequency
                score = score + (a * b.conj() * torch.complex(angle.cos(), angle.sin())).real
            row.append(score)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def scores_without_conjugate(q, k, distances, frequencies):
    waves = torch.exp(1j * distances[:, None] * frequencies)
    return torch.einsum("hp,hp,dp->hd", pairs_of(q), pairs_of(k), waves).real


def scores_conjugate_of_q(q, k, distances, frequencies):
    waves = torch.exp(1j * distances[:, None] * frequencies)
    return torch.einsum("hp,hp,dp->hd", pairs_of(q).conj().resolve_conj(), pairs_of(k), waves).real


def scores_key_minus_query(q, k, distances, frequencies):
    return scores_by_turning_both(q, k, -distances, frequencies)


def scores_of_size(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q, k, distances.abs(), frequencies)


def scores_imaginary(q, k, distances, frequencies):
    angles = distances[:, None] * frequencies
    along = q[:, ::2] * k[:, ::2] + q[:, 1::2] * k[:, 1::2]
    across = q[:, 1::2] * k[:, ::2] - q[:, ::2] * k[:, 1::2]
    return along @ angles.sin().T + across @ angles.cos().T


def scores_absolute(q, k, distances, frequencies):
    parts = (scores_by_cos_and_sin, scores_imaginary)
    return torch.hypot(*(part(q, k, distances, frequencies) for part in parts))


def scores_of_lengths(q, k, distances, frequencies):
    lengths = q.unflatten(-1, (-1, 2)).norm(dim=-1) * k.unflatten(-1, (-1, 2)).norm(dim=-1)
    return lengths.sum(-1)[:, None].expand(-1, len(distances))


def scores_without_sine(q, k, distances, frequencies):
    return (q * k).unflatten(-1, (-1, 2)).sum(-1) @ (distances[:, None] * frequencies).cos().T


def scores_without_i(q, k, distances, frequencies):
    return ((pairs_of(q) * pairs_of(k).conj()).real) @ torch.exp(distances[:, None] * frequencies).T


def scores_unturned(q, k, distances, frequencies):
    return (q * k).sum(-1, keepdim=True).repeat(1, len(distances))


def scores_both_turned_alike(q, k, distances, frequencies):
    return (turned(q, distances, frequencies) * turned(k, distances, frequencies)).sum(-1)


def scores_turned_apart(q, k, distances, frequencies):
    return (turned(q, distances, frequencies) * turned(k, -distances, frequencies)).sum(-1)


def scores_halves(q, k, distances, frequencies):
    order = torch.arange(q.shape[-1]).unflatten(0, (2, -1)).T.flatten()
    return scores_by_turning_the_query(q[:, order], k[:, order], distances, frequencies)


def scores_one_speed(q, k, distances, frequencies):
    waves = torch.polar(torch.ones_like(distances.to(q)), distances * frequencies.max())
    return ((pairs_of(q) * pairs_of(k).conj()).sum(-1, keepdim=True) * waves).real


def scores_of_radians(q, k, distances, frequencies):
    waves = torch.exp(1j * distances.to(q.dtype))
    return ((pairs_of(q) * pairs_of(k).conj()).sum(-1, keepdim=True) * waves).real


def scores_conjugate_of_the_product(q, k, distances, frequencies):
    waves = torch.exp(1j * distances[:, None] * frequencies)
    return ((pairs_of(q) * pairs_of(k)).conj()[:, None] * waves).real.sum(-1)


def scores_of_sums(q, k, distances, frequencies):
    products = torch.einsum("hp,hp->h", pairs_of(q), pairs_of(k).conj())
    return torch.outer(products, torch.exp(1j * distances[:, None] * frequencies).sum(dim=1)).real


def scores_of_both_parts(q, k, distances, frequencies):
    waves = (pairs_of(q) * pairs_of(k).conj())[:, None] * torch.exp(1j * distances[:, None] * frequencies)
    return torch.view_as_real(waves).sum((-1, -2))


def scores_over_frequencies(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q, k, distances, frequencies.reciprocal())


def scores_across_heads(q, k, distances, frequencies):
    waves = torch.exp(1j * distances[:, None] * frequencies)
    return torch.einsum("hp,gp,dp->hd", pairs_of(q), pairs_of(k).conj(), waves).real


def scores_in_single(q, k, distances, frequencies):
    return scores_complex(q.float(), k.float(), distances, frequencies.float()).to(q.dtype)


def scores_with_too_long_a_key(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q, k + 1, distances, frequencies)


def scores_one_step_off(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q, k, distances + distances.sign(), frequencies)


def scores_scaled(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q, k, distances, frequencies) * q.shape[-1] ** -0.5


def scores_mean(q, k, distances, frequencies):
    return torch.einsum("hdc,hc->hd", turned(q, distances, frequencies), k) / len(frequencies)


def scores_twice(q, k, distances, frequencies):
    return 2 * scores_by_cos_and_sin(q, k, distances, frequencies)


def scores_left_complex(q, k, distances, frequencies):
    return (pairs_of(q) * pairs_of(k).conj()) @ torch.exp(1j * distances[:, None] * frequencies).T


def scores_left_double(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q.double(), k.double(), distances, frequencies.double())


def scores_transposed(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q, k, distances, frequencies).T


def scores_of_first_head(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q[:1].expand_as(q), k, distances, frequencies)


def scores_summed_over_heads(q, k, distances, frequencies):
    return scores_by_cos_and_sin(q, k, distances, frequencies).sum(0)


RIGHT = [
    (FREQUENCIES, rope_frequencies),
    (FREQUENCIES, frequencies_by_arange),
    (FREQUENCIES, frequencies_by_loop),
    (FREQUENCIES, frequencies_by_logspace),
    (FREQUENCIES, frequencies_by_exp),
    (ROTATE, apply_rope),
    (ROTATE, rotate_written_out),
    (ROTATE, rotate_complex),
    (ROTATE, rotate_by_loops),
    (ROTATE, rotate_by_matrices),
    (ROTATE, rotate_with_swapped_copy),
    (ROTATE, rotate_into_empty),
    (COMPLEX, scores_complex),
    (COMPLEX, scores_by_product),
    (COMPLEX, scores_by_turning_the_query),
    (COMPLEX, scores_by_turning_both),
    (COMPLEX, scores_by_cos_and_sin),
    (COMPLEX, scores_by_loops),
]

# In each group, those that no known mistake covers come last: the laws and the symptoms must tell.
WRONG = [
    (FREQUENCIES, frequencies_growing, "Your exponent is positive"),
    (FREQUENCIES, frequencies_minus_outside, "In Python -base ** x is -(base ** x)"),
    (FREQUENCIES, frequencies_without_two, "The 2 is missing in the exponent"),
    (FREQUENCIES, frequencies_over_pairs, "You divided by the number of pairs"),
    (FREQUENCIES, frequencies_floored, "You divided with //"),
    (FREQUENCIES, frequencies_of_features, "a frequency for each of the d_h features"),
    (FREQUENCIES, frequencies_doubled, "Every frequency comes twice"),
    (FREQUENCIES, frequencies_from_one, "Your pairs are counted from 1"),
    (FREQUENCIES, frequencies_reversed, "The order is reversed"),
    (FREQUENCIES, frequencies_of_the_usual_base, "The base is not used"),
    (FREQUENCIES, frequencies_in_turns, "You multiplied by 2π"),
    (FREQUENCIES, periods, "how many positions a full turn takes"),
    (FREQUENCIES, frequencies_single, "their dtype is torch.float32; it must be torch.float64"),
    (FREQUENCIES, frequencies_cast_late, "The dtype is float64, the digits are not"),
    (FREQUENCIES, frequencies_arithmetic, "here 10000^(−2/8) = 0.1; from your first to your second it is 0.75"),
    (FREQUENCIES, frequencies_of_base_squared, "Your result is 0.3333 times the right one"),
    (FREQUENCIES, frequencies_as_list, "returned a list; it must return a torch tensor"),
    (ROTATE, rotate_back, "goes the other way: distances have their sign flipped"),
    (ROTATE, rotate_halves, "You paired feature i with feature i + d_h/2"),
    (ROTATE, rotate_halves_by_view, "You paired feature i with feature i + d_h/2"),
    (ROTATE, rotate_halves_back, "x[..., 1::2]. The rotation also goes the other way"),
    (ROTATE, rotate_and_concatenate, "returned in the wrong order"),
    (ROTATE, rotate_through_a_view, "after it had been overwritten"),
    (ROTATE, rotate_stretched, "a stretch, not a rotation"),
    (ROTATE, rotate_mirrored, "You mirrored each pair"),
    (ROTATE, rotate_only_cos, "Only the cos terms"),
    (ROTATE, rotate_cos_and_sin_swapped, "cos and sin are swapped"),
    (ROTATE, rotate_not_at_all, "Nothing was turned"),
    (ROTATE, rotate_from_zero, "The given positions are not used"),
    (ROTATE, rotate_from_one, "the positions plus 1"),
    (ROTATE, rotate_as_one, "Every pair is turned by the same angle"),
    (ROTATE, rotate_slow_first, "in reverse order"),
    (ROTATE, rotate_with_the_usual_base, "The base is not used"),
    (ROTATE, rotate_before_the_split, "run on from head to head"),
    (ROTATE, rotate_by_adding, "You added sines and cosines"),
    (ROTATE, rotate_in_degrees, "You took the angles for degrees"),
    (ROTATE, rotate_paired_off, "pairs them off one by one"),
    (ROTATE, rotate_by_transposed_table, "Your table of angles is (d_h/2, L)"),
    (ROTATE, rotate_by_sum, "You added the frequency to the position"),
    (ROTATE, rotate_odd_first, "have changed places before the turn"),
    (ROTATE, rotate_and_swap, "have changed places after the turn"),
    (ROTATE, rotate_second_mixed_up, "In the second feature cos and sin have changed places"),
    (ROTATE, rotate_halves_with_tables_of_neighbours, "your cos and sin come in neighbours"),
    (ROTATE, rotate_neighbours_with_tables_of_halves, "your cos and sin repeat after d_h/2 features"),
    (ROTATE, rotate_with_single_tables, "right to the seven digits of float32 only"),
    (ROTATE, rotate_one_pair, "Pair 1 at position 3 is turned by 0.0°. It should be turned by 3 · 100^(−2/4) radians"),
    (ROTATE, rotate_and_stretch, "A rotation keeps the length of every pair"),
    (ROTATE, rotate_in_double, "dtype is torch.float64 where the input has torch.float32"),
    (ROTATE, rotate_unflattened, "expected (B, H, L, d_h) = (1, 1, 2, 4), got (1, 1, 2, 2, 2)"),
    (ROTATE, rotate_in_place, "changes its input x in place"),
    (ROTATE, rotate_detached, "no gradient reaches the inputs"),
    (COMPLEX, scores_without_conjugate, "The conjugate is missing"),
    (COMPLEX, scores_conjugate_of_q, "Your distances have their sign flipped"),
    (COMPLEX, scores_key_minus_query, "Your distances have their sign flipped"),
    (COMPLEX, scores_of_size, "The sign of the distance is lost"),
    (COMPLEX, scores_imaginary, "You took the imaginary part"),
    (COMPLEX, scores_absolute, "the absolute value of the sum"),
    (COMPLEX, scores_of_lengths, "the absolute value of every pair"),
    (COMPLEX, scores_without_sine, "The sine is missing"),
    (COMPLEX, scores_without_i, "The i is missing in the exponent"),
    (COMPLEX, scores_unturned, "Nothing is turned against the other"),
    (COMPLEX, scores_both_turned_alike, "Nothing is turned against the other"),
    (COMPLEX, scores_turned_apart, "Your angle is twice the right one"),
    (COMPLEX, scores_halves, "You paired feature i with feature i + d_h/2"),
    (COMPLEX, scores_one_speed, "Every pair is turned by the same angle, that of the first frequency"),
    (COMPLEX, scores_of_radians, "The frequencies are not used"),
    (COMPLEX, scores_scaled, "You divided by √d_h"),
    (COMPLEX, scores_mean, "You took the mean over the pairs"),
    (COMPLEX, scores_conjugate_of_the_product, "You conjugated the product of q and k"),
    (COMPLEX, scores_of_sums, "You summed over the pairs first"),
    (COMPLEX, scores_of_both_parts, "You added the imaginary part to the real part"),
    (COMPLEX, scores_over_frequencies, "You divided the distances by the frequencies"),
    (COMPLEX, scores_across_heads, "Every query met the keys of all heads"),
    (COMPLEX, scores_in_single, "right to the seven digits of float32 only"),
    (COMPLEX, scores_with_too_long_a_key, "nothing is turned: the score of head 0 is q·k = 5, yours is 9"),
    (COMPLEX, scores_one_step_off, "At distance 0 you are right, so the products are. At distance 1 the score of"),
    (COMPLEX, scores_twice, "Your result is 2 times the right one"),
    pytest.param(
        COMPLEX, scores_left_complex, "dtype is torch.complex64 where the input has torch.float32",
        marks=pytest.mark.filterwarnings("ignore:Casting complex values to real"),
    ),
    (COMPLEX, scores_left_double, "dtype is torch.float64 where the input has torch.float32"),
    (COMPLEX, scores_transposed, "Yours reads (D, H)."),
    (COMPLEX, scores_of_first_head, "It is right only when H = 1."),
    (COMPLEX, scores_summed_over_heads, "Yours reads (D)."),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=named)
def test_right_answers_pass(exercise, answer, capsys):
    assert_passes(exercise, answer, capsys)


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG, ids=named)
def test_wrong_answers_are_diagnosed(exercise, answer, words, capsys):
    assert_diagnosed(exercise, answer, words, capsys)


@pytest.mark.parametrize("base", [10.0, 10_000.0])
@pytest.mark.parametrize("width", [2, 4, 24, 64])
def test_the_references_are_what_the_package_does(width, base):
    assert torch.allclose(EXERCISES[FREQUENCIES].reference(width, base), rope_frequencies(width, base), atol=1e-15)
    torch.manual_seed(1)
    x, positions = torch.randn(2, 3, 5, width).double(), torch.tensor([0, 7, 7, 63, 1_000_000])
    turned = apply_rope(x, positions, base)
    assert torch.allclose(EXERCISES[ROTATE].reference(x, positions, base), turned, atol=1e-9)
    q, k = x[0, :, 0], x[1, :, 0]
    distances = torch.tensor([-12, 0, 5, 400])
    at = [apply_rope(q, (1000 + distance).expand(3), base) for distance in distances]
    expected = torch.stack([(one * apply_rope(k, torch.full((3,), 1000), base)).sum(-1) for one in at], dim=1)
    straight = EXERCISES[COMPLEX].reference(q, k, distances, rope_frequencies(width, base))
    assert torch.allclose(straight, expected, atol=1e-9)
