"""RoPE against multiplication by complex numbers, and the properties that make it worth having."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import complex_rope
from strategies import assert_one_line, gap, randn

from rmat_tutorial import apply_rope, rope_frequencies

bases = st.sampled_from((10.0, 10000.0, 500000.0))
widths = st.sampled_from((2, 4, 6, 16))
seeds = st.integers(0, 1000)


@given(widths, bases, seeds, st.lists(st.integers(0, 5000), min_size=1, max_size=6),
       st.sampled_from(((), (3,), (2, 3))))
def test_equals_complex_numbers(width, base, seed, positions, leading):
    x = randn(*leading, len(positions), width, seed=seed)
    positions = torch.tensor(positions)
    assert gap(apply_rope(x, positions, base), complex_rope(x, positions, base)) < 1e-12


@given(widths, seeds)
def test_far_positions_keep_float32_accuracy(width, seed):
    x, positions = randn(3, width, seed=seed, dtype=torch.float32), torch.tensor([0, 4095, 1_000_000])
    turned = apply_rope(x, positions)
    assert turned.dtype == torch.float32
    assert gap(turned.double(), complex_rope(x, positions)) < 2e-6


@given(widths, bases, seeds, st.integers(0, 50), st.integers(0, 50), st.integers(1, 500))
def test_scores_depend_on_the_distance_only(width, base, seed, query_at, key_at, shift):
    q, k = randn(1, width, seed=seed), randn(1, width, seed=seed + 1)

    def score(i: int, j: int) -> float:
        return (apply_rope(q, torch.tensor([i]), base) * apply_rope(k, torch.tensor([j]), base)).sum().item()

    assert score(query_at, key_at) == pytest.approx(score(query_at + shift, key_at + shift), abs=1e-9)


def test_scores_do_depend_on_the_distance():
    q = torch.ones(1, 4, dtype=torch.float64)
    scores = [(apply_rope(q, torch.tensor([p])) * q).sum().item() for p in range(4)]
    assert len({round(score, 6) for score in scores}) == 4


def test_the_first_pair_turns_one_radian_a_position_counter_clockwise():
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    angles = torch.tensor([3.0, 3.0 / 100.0], dtype=torch.float64)  # d_h = 4: frequencies 1 and 10000^(-1/2)
    expected = torch.stack([angles.cos(), angles.sin()], -1).flatten()[None]
    assert gap(apply_rope(x, torch.tensor([3])), expected) < 1e-15


@given(widths, bases, seeds)
def test_norms_are_kept_and_position_zero_is_the_identity(width, base, seed):
    x = randn(2, 4, width, seed=seed)
    turned = apply_rope(x, torch.tensor([0, 1, 7, 300]), base)
    assert torch.equal(turned[:, 0], x[:, 0])
    assert gap(turned.norm(dim=-1), x.norm(dim=-1)) < 1e-12
    assert gap(turned[:, 1:], x[:, 1:]) > 1e-3


@given(widths, bases, seeds)
def test_gradient_equals_the_reference(width, base, seed):
    x, direction = randn(5, width, seed=seed).requires_grad_(), randn(5, width, seed=seed + 1)
    positions = torch.tensor([4, 0, 9, 9, 2])
    ours, = torch.autograd.grad((apply_rope(x, positions, base) * direction).sum(), x)
    theirs, = torch.autograd.grad((complex_rope(x, positions, base) * direction).sum(), x)
    assert gap(ours, theirs) < 1e-12


def test_input_is_left_as_it_was():
    x = randn(3, 4)
    before = x.clone()
    apply_rope(x, torch.arange(3))
    assert torch.equal(x, before)


@given(widths, bases)
def test_frequencies(width, base):
    frequencies = rope_frequencies(width, base)
    expected = torch.tensor([base ** (-2 * i / width) for i in range(width // 2)], dtype=torch.float64)
    assert frequencies.dtype == torch.float64
    assert gap(frequencies, expected) < 1e-15


@pytest.mark.parametrize("call, kind, fragments", [
    (lambda: apply_rope(randn(3, 5), torch.arange(3)), ValueError, ["even", "5"]),
    (lambda: rope_frequencies(7), ValueError, ["head_dim", "even", "7"]),
    (lambda: rope_frequencies(4, 0.0), ValueError, ["base", "0.0"]),
    (lambda: apply_rope(randn(3, 4), torch.arange(2)), ValueError, ["positions", "(3,)", "(2,)"]),
    (lambda: apply_rope(randn(3, 4), [0, 1, 2]), TypeError, ["positions", "list"]),
    (lambda: apply_rope(torch.ones(3, 4, dtype=torch.int64), torch.arange(3)), TypeError, ["x", "int64"]),
    (lambda: apply_rope(randn(4), torch.arange(1)), ValueError, ["x", "(4,)"]),
    (lambda: apply_rope(randn(3, 4) * float("nan"), torch.arange(3)), ValueError, ["x", "NaN"]),
    (lambda: apply_rope(randn(3, 4), torch.arange(3) / 0), ValueError, ["positions", "NaN", "finite"]),
])
def test_bad_input(call, kind, fragments):
    with pytest.raises(kind) as error:
        call()
    assert_one_line(str(error.value), *fragments)
