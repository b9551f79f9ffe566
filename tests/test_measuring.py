"""Costs and influences: what is measured is what theory counts, on cases where that is known to the number."""

import math
import time

import pytest
import torch
from strategies import make_model, randn

from rmat_tutorial import GatedFIFOMemory, RMATConfig, full_attention
from rmat_tutorial.measuring import (
    best_copy,
    bytes_kept,
    cache_bytes,
    effective_rank,
    fading,
    fitted_exponent,
    influence,
    leaks,
    peak_bytes_kept,
    processor_seconds,
)


def test_processor_time_does_not_count_waiting():
    assert processor_seconds(lambda: [time.sleep(0.002), sum(range(50_000))]) < 0.01


def test_processor_time_tells_twice_the_work():
    def work(count):
        return lambda: sum(range(count))

    assert 2 < processor_seconds(work(400_000)) / processor_seconds(work(100_000)) < 8


def test_every_tensor_is_counted_once_and_whole():
    x = torch.randn(1000, requires_grad=True)
    assert bytes_kept(lambda x: x * x, x) == 4000
    assert bytes_kept(lambda x: x[:10] * x[10:20], x) == 4000, "a view keeps all of its storage"
    assert bytes_kept(lambda x: x.exp().exp(), x) == 8000
    assert bytes_kept(lambda x: x + 1, x) == 0
    assert bytes_kept(lambda x: x * x, x.detach()) == 0


def test_tensors_that_are_freed_on_the_way_are_no_mistake():
    def many(x):
        return [(x * factor).exp().sum().detach() for factor in range(20)]

    assert bytes_kept(many, torch.randn(1000, requires_grad=True)) == 20 * 4000


def test_the_peak_is_of_what_is_kept_at_one_time():
    x = torch.randn(1000, requires_grad=True)

    def one_after_the_other(x):
        for _ in range(20):
            x.exp().exp().sum().backward()

    assert peak_bytes_kept(one_after_the_other, x) == 8000
    assert bytes_kept(one_after_the_other, x) == 20 * 8000
    assert peak_bytes_kept(lambda x: sum(x.exp() for _ in range(20)).sum().backward(), x) == 20 * 4000
    assert peak_bytes_kept(lambda x: [(x * factor).exp().sum().detach() for factor in range(20)], x) <= 2 * 4000 + 64
    assert peak_bytes_kept(lambda x: x * x + x * x, x) == 4000, "one storage, however often it is held"


@pytest.mark.parametrize("power", [0.5, 1, 2, 3])
def test_the_exponent_of_a_power_is_found(power):
    lengths = [16, 32, 128, 1024]
    assert fitted_exponent(lengths, [7e-6 * length**power for length in lengths]) == pytest.approx(power)


@pytest.mark.parametrize(("lengths", "costs"), [([1], [1]), ([1, 2], [1]), ([1, 2], [0, 1]), ([0, 2], [1, 1])])
def test_an_exponent_without_two_points_is_refused(lengths, costs):
    with pytest.raises(ValueError, match="lengths and costs must be"):
        fitted_exponent(lengths, costs)


def test_influence_is_the_length_of_the_jacobian():
    weight = randn(3, 5)
    moved = influence(lambda x: torch.stack([x[0] @ weight.T, 2 * x[1] @ weight.T]), randn(4, 5))
    assert moved.shape == (2, 4)
    assert torch.allclose(moved[0, 0], weight.norm()) and torch.allclose(moved[1, 1], 2 * weight.norm())
    moved[0, 0] = moved[1, 1] = 0
    assert moved.count_nonzero() == 0


def test_influence_sees_what_a_sum_hides():
    """The numbers of a normalised output always add up to the same."""
    moved = influence(lambda x: torch.nn.functional.layer_norm(x.flip(0), (6,)), randn(3, 6))
    assert (moved.fliplr().diagonal() > 0.1).all() and moved.count_nonzero() == 3


def test_influence_of_attention_is_a_triangle_and_leaves_its_input_alone():
    x = randn(7, 4)
    before = x.clone()
    moved = influence(lambda x: full_attention(*[x[None, None]] * 3)[0, 0], x)
    assert torch.equal(moved > 0, torch.ones(7, 7).tril() > 0)
    assert torch.equal(x, before) and not x.requires_grad


def test_an_output_that_depends_on_nothing_has_no_influence():
    assert influence(lambda x: torch.ones(3, 2), randn(4, 2)).tolist() == [[0] * 4] * 3


def test_leaks_are_later_inputs_that_move_an_output():
    mixed = torch.tensor([[1.0, 0.0, 1e-9], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = leaks(lambda x: mixed @ x, randn(3, 2))
    assert found.tolist() == [[False, False, True], [False] * 3, [False] * 3]


def test_influence_asks_for_matrices():
    with pytest.raises(ValueError, match=r"x must have shape \(T, d\), got \(2, 3, 4\)"):
        influence(lambda x: x, randn(2, 3, 4))
    with pytest.raises(ValueError, match=r"function must return shape \(S, e\), got \(3,\)"):
        influence(lambda x: x.sum(1), randn(3, 4))


def test_a_cache_is_the_keys_and_values_of_every_layer():
    config = RMATConfig()
    one_layer = torch.zeros(2, config.n_heads, 10, config.head_dim)
    assert cache_bytes(config, 10) == config.n_layers * one_layer.nbytes
    assert cache_bytes(config, 0) == 0
    model = make_model(dtype=torch.float32)
    assert cache_bytes(model.config, model.config.segment_len) == sum(
        cache.k.nbytes + cache.v.nbytes for cache in model.init_state(1).cache
    )
    with pytest.raises(ValueError, match="tokens must be"):
        cache_bytes(config, -1)


@pytest.mark.parametrize(
    ("vectors", "rank"),
    [(torch.eye(5), 5), (torch.ones(4, 3), 1), (torch.eye(4)[:2].repeat(3, 1), 2), (torch.zeros(3, 2), math.nan),
     (torch.tensor([[3.0, 0.0], [0.0, 1.0]]), math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))],
)
def test_the_effective_rank_counts_directions(vectors, rank):
    assert effective_rank(vectors) == pytest.approx(rank, abs=1e-5, nan_ok=True)


def test_the_best_copy_is_the_group_that_holds_most():
    fact = torch.tensor([[[2.0, 0.0]], [[0.0, 4.0]]])
    difference = torch.zeros(2, 4, 2)
    assert best_copy(difference, fact, 2) == 0
    difference[:, 2:] = 0.25 * fact
    difference[:, 0] = 0.4 * fact[:, 0]  # one of its group only: 0.2 on average
    assert best_copy(difference, fact, 2) == pytest.approx(0.25)
    at_right_angles = torch.tensor([[[0.0, 3.0]] * 4, [[5.0, 0.0]] * 4])
    assert best_copy(at_right_angles, fact, 2) == 0


def even_memory(bias, gate, carry) -> GatedFIFOMemory:
    """A memory whose gate is its bias everywhere and whose candidate is 0."""
    memory = GatedFIFOMemory(8, 12, 4, gate=gate, carry=carry, gate_bias=bias)
    for parameter in (memory.to_gate.weight, memory.to_candidate.weight, memory.to_candidate.bias):
        torch.nn.init.zeros_(parameter)
    return memory


@pytest.mark.parametrize("carry", ["newest", "oldest"])
def test_a_sigmoid_leaves_a_power(carry):
    """A slot meets the gate at each write, but the first copy is in the bank for three; or once in three writes."""
    kept = 1 - torch.sigmoid(torch.tensor(-1.0)).item()
    powers = [0, 0, 0, 1, 2, 3, 4, 5] if carry == "newest" else [0, 0, 0, 1, 1, 1, 2, 2]
    left = fading(even_memory(-1.0, "sigmoid", carry), torch.randn(7, 1, 3, 8).unbind(), facts=5)
    assert left == pytest.approx([kept**power for power in powers], abs=1e-6)


@pytest.mark.parametrize("carry", ["newest", "oldest"])
def test_an_exact_zero_leaves_everything_and_an_open_gate_a_queue(carry):
    noise = torch.randn(7, 1, 3, 8).unbind()
    assert fading(even_memory(-100.0, "hard", carry), noise, facts=3) == pytest.approx([1.0] * 8, abs=1e-6)
    left = fading(even_memory(100.0, "hard", carry), noise, facts=3)
    assert left == pytest.approx([1.0] * 3 + [0.0] * 5, abs=1e-6)
