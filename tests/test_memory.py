"""The gated FIFO memory against a float64 loop, and what its gate and its order promise."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from reference import loop_write
from strategies import assert_one_line, gap, randn, scramble

from rmat_tutorial import GatedFIFOMemory
from rmat_tutorial.memory import half_life, pool, push, write

CHOICES = {"gate": st.sampled_from(("sigmoid", "hard")), "carry": st.sampled_from(("newest", "oldest")),
           "pool": st.sampled_from(("attention", "mean"))}
PLAIN = {"gate": "sigmoid", "carry": "newest", "pool": "attention"}


def make_memory(d_model=6, slots=5, write_slots=2, *, seed=0, **options) -> GatedFIFOMemory:
    torch.manual_seed(seed)
    return scramble(GatedFIFOMemory(d_model, slots, write_slots, **options).double(), seed)


def keeping(slots, write_slots, **options) -> GatedFIFOMemory:
    """A memory whose hard gate is exactly zero everywhere."""
    memory = GatedFIFOMemory(6, slots, write_slots, gate="hard", gate_bias=-100.0, **options)
    assert (memory.step(memory.initial(2), torch.randn(2, 4, 6)).gate == 0).all()
    return memory


@given(st.integers(1, 3), st.integers(1, 7), st.sampled_from((2, 6)), st.integers(1, 5), st.data(),
       st.fixed_dictionaries(CHOICES), st.integers(0, 1000))
def test_write_equals_the_loop(batch, length, d_model, slots, data, options, seed):
    write_slots = data.draw(st.integers(1, slots))
    assert_equals_loop(batch, length, d_model, slots, write_slots, options, seed)


@pytest.mark.parametrize("pool", ("attention", "mean"))
@pytest.mark.parametrize("carry", ("newest", "oldest"))
@pytest.mark.parametrize("gate", ("sigmoid", "hard"))
@pytest.mark.parametrize("length, slots, write_slots", [(6, 4, 4), (6, 5, 1), (2, 6, 5), (7, 6, 4), (1, 3, 2)])
def test_write_equals_the_loop_at_the_edges(length, slots, write_slots, gate, carry, pool):
    """w = m, w = 1, fewer positions than written slots, parts of unequal length, one position."""
    assert_equals_loop(2, length, 6, slots, write_slots, {"gate": gate, "carry": carry, "pool": pool}, 3)


def assert_equals_loop(batch, length, d_model, slots, write_slots, options, seed):
    module = make_memory(d_model, slots, write_slots, seed=seed, **options)
    bank = randn(batch, slots, d_model, seed=seed + 1).requires_grad_()
    hidden = randn(batch, length, d_model, seed=seed + 2).requires_grad_()
    step = module.step(bank, hidden)
    expected = loop_write(module, bank, hidden, write_slots=write_slots, **options)
    for name, value in expected.items():
        assert gap(getattr(step, name), value) < 1e-11, name
    assert torch.equal(module.write(bank, hidden), step.memory)

    leaves = {"bank": bank, "hidden": hidden} | dict(module.named_parameters())
    direction = randn(batch, slots, d_model, seed=seed + 3)
    ours, theirs = (torch.autograd.grad((memory * direction).sum(), list(leaves.values()), allow_unused=True)
                    for memory in (step.memory, expected["memory"]))
    for name, a, b in zip(leaves, ours, theirs, strict=True):
        assert (a is None) == (b is None), name
        assert a is None or gap(a, b) < 1e-10, name


@given(st.fixed_dictionaries(CHOICES), st.integers(1, 6), st.data())
def test_first_in_first_out(options, slots, data):
    write_slots = data.draw(st.integers(1, slots))
    module = make_memory(6, slots, write_slots, **options)
    bank = randn(2, slots, 6, seed=1)
    step = module.step(bank, randn(2, 3, 6, seed=2))
    assert torch.equal(step.memory[:, : slots - write_slots], bank[:, write_slots:])
    assert torch.equal(step.evicted, bank[:, :write_slots])
    blend = (1 - step.gate) * step.carried + step.gate * step.candidate
    assert gap(step.memory[:, slots - write_slots:], blend) < 1e-14
    assert ((step.gate >= 0) & (step.gate <= 1)).all()
    assert step.candidate.abs().max() < 1


def test_a_slot_leaves_after_m_over_w_writes():
    module = make_memory(6, 6, 2)
    bank = first = module.initial(1)
    kept = []
    for n in range(3):
        bank = module.write(bank, randn(1, 4, 6, seed=n))
        kept.append(sum(torch.equal(slot, old) for slot in bank[0] for old in first[0]))
    assert kept == [4, 2, 0]


@given(st.sampled_from(("attention", "mean")), st.integers(1, 5), st.integers(1, 3), st.integers(0, 1000))
def test_a_hard_gate_of_zero_keeps_every_bit_of_the_oldest(pool, rounds, write_slots, seed):
    """carry="oldest" with z = 0 only turns the bank round: after m / w writes it is what it was."""
    module = keeping(4 * write_slots, write_slots, carry="oldest", pool=pool)
    start = randn(2, 4 * write_slots, 6, seed=seed, dtype=torch.float32)
    bank = start
    for n in range(4 * rounds):
        bank = module.write(bank, randn(2, 5, 6, seed=n, dtype=torch.float32) * 10)
        assert torch.equal(bank, start.roll(-write_slots * (n + 1), 1))
    assert torch.equal(bank, start)


def test_a_hard_gate_of_zero_repeats_every_bit_of_the_newest():
    module = keeping(6, 2, carry="newest")
    start = randn(2, 6, 6, dtype=torch.float32)
    bank = start
    for n in range(50):
        bank = module.write(bank, randn(2, 5, 6, seed=n, dtype=torch.float32))
    assert torch.equal(bank, start[:, -2:].repeat(1, 3, 1))


def test_a_sigmoid_gate_always_fades():
    module = GatedFIFOMemory(6, 2, 2, gate="sigmoid", gate_bias=-8.0).double()
    bank = start = randn(1, 2, 6) * 5
    distances = []
    for n in range(5):
        bank = module.write(bank, randn(1, 4, 6, seed=n))
        distances.append((bank - start).norm().item())
    assert all(a < b for a, b in pairwise([0.0, *distances]))


@pytest.mark.parametrize("gate", ("sigmoid", "hard"))
def test_an_open_gate_overwrites(gate):
    module = GatedFIFOMemory(6, 4, 2, gate=gate, gate_bias=100.0).double()
    step = module.step(randn(1, 4, 6), randn(1, 5, 6, seed=1))
    assert torch.equal(step.memory[:, 2:], step.candidate)


@pytest.mark.parametrize("gate_bias", (-2.0, -5.0, 1.5))
def test_gate_bias_is_where_the_gate_starts(gate_bias):
    module = GatedFIFOMemory(64, 4, 2, gate_bias=gate_bias)
    assert torch.equal(module.to_gate.bias.detach(), torch.full((64,), gate_bias))
    step = module.step(module.initial(8), randn(8, 16, 64, dtype=torch.float32))
    at_the_start = torch.sigmoid(torch.tensor(gate_bias)).item()
    assert step.gate.mean().item() == pytest.approx(at_the_start, abs=0.1)


def test_the_bank_starts_from_the_learned_slots():
    module = make_memory(6, 5, 2)
    bank = module.initial(3)
    assert torch.equal(bank, module.slots.expand(3, 5, 6))
    gradient, = torch.autograd.grad(bank.sum(), module.slots)
    assert torch.equal(gradient, torch.full((5, 6), 3.0, dtype=torch.float64))


@pytest.mark.parametrize("name", ("slots", "queries"))
def test_slots_and_queries_start_apart(name):
    """Equal ones would get equal gradients, and stay equal."""
    start = getattr(GatedFIFOMemory(16, 5, 4), name).detach()
    assert torch.cdist(start, start).fill_diagonal_(1.0).min() > 0.1


def test_write_changes_neither_input():
    module, bank, hidden = make_memory(), randn(2, 5, 6), randn(2, 3, 6, seed=1)
    before = bank.clone(), hidden.clone()
    module.write(bank, hidden)
    assert torch.equal(bank, before[0]) and torch.equal(hidden, before[1])


@given(st.fixed_dictionaries(CHOICES))
@example(PLAIN)
def test_rows_do_not_influence_each_other(options):
    module = make_memory(**options)
    bank, hidden = randn(3, 5, 6).requires_grad_(), randn(3, 4, 6, seed=1).requires_grad_()
    written = module.write(bank, hidden)
    for row in range(3):
        direction = randn(5, 6, seed=row)
        for gradient in torch.autograd.grad((written[row] * direction).sum(), (bank, hidden), retain_graph=True):
            others = [r for r in range(3) if r != row]
            assert (gradient[others] == 0).all() and gradient[row].any()


MODULE = make_memory()
BANK, HIDDEN = randn(2, 5, 6), randn(2, 3, 6)
NAN = float("nan")


@pytest.mark.parametrize("call, kind, fragments", [
    (lambda: GatedFIFOMemory(6, 4, 5), ValueError, ["write_slots", "memory_slots", "4", "5"]),
    (lambda: GatedFIFOMemory(6, 0, 1), ValueError, ["memory_slots", "0", "at least 1"]),
    (lambda: GatedFIFOMemory(6, 4, 0), ValueError, ["write_slots", "0", "at least 1"]),
    (lambda: GatedFIFOMemory(6, 4, 2, gate="relu"), ValueError, ["gate", "'relu'", "'hard'"]),
    (lambda: GatedFIFOMemory(6, 4, 2, carry="middle"), ValueError, ["carry", "'middle'", "'oldest'"]),
    (lambda: GatedFIFOMemory(6, 4, 2, pool="max"), ValueError, ["pool", "'max'", "'mean'"]),
    (lambda: MODULE.initial(0), ValueError, ["batch_size", "0", "at least 1"]),
    (lambda: MODULE.write(BANK[:, :4], HIDDEN), ValueError, ["memory", "5", "(2, 4, 6)"]),
    (lambda: MODULE.write(BANK[:1], HIDDEN), ValueError, ["2", "1", "(2, 3, 6)"]),
    (lambda: MODULE.write(BANK, HIDDEN[..., :4]), ValueError, ["hidden", "6", "(2, 3, 4)"]),
    (lambda: MODULE.write(BANK, HIDDEN[:, :0]), ValueError, ["hidden", "empty"]),
    (lambda: MODULE.write(BANK, HIDDEN.float()), TypeError, ["hidden", "float32", "float64"]),
    (lambda: MODULE.write(BANK.float(), HIDDEN.float()), TypeError, ["memory", "float32", "float64"]),
    (lambda: MODULE.write(BANK * NAN, HIDDEN), ValueError, ["memory", "NaN"]),
    (lambda: MODULE.write(BANK, HIDDEN * NAN), ValueError, ["hidden", "NaN"]),
    (lambda: MODULE.write(BANK.long(), HIDDEN), TypeError, ["memory", "int64"]),
    (lambda: MODULE.write(None, HIDDEN), TypeError, ["memory", "NoneType"]),
])
def test_bad_input(call, kind, fragments):
    with pytest.raises(kind) as error:
        call()
    assert_one_line(str(error.value), *fragments)


# The pieces of a write ------------------------------------------------------------------------------------------------


def test_the_pieces_of_a_write_are_those_of_the_memory():
    memory = make_memory(gate="hard")
    bank, hidden = randn(3, 5, 6), randn(3, 4, 6, seed=1)
    step = memory.step(bank, hidden)
    assert torch.allclose(pool(memory.queries, memory.write_norm(hidden)), step.pooled)
    assert torch.equal(push(bank, step.memory[:, -2:]), step.memory)
    source = torch.cat((step.pooled, memory.read_norm(step.carried)), dim=-1)
    assert torch.allclose(write(bank, memory.to_gate(source), memory.to_candidate(source)), step.memory)


@pytest.mark.parametrize("bias", [-20.0, -4.0, 0.0, 2.0])
def test_after_its_half_life_half_is_left(bias):
    z = 1 / (1 + math.exp(-bias))
    writes = half_life(torch.tensor([bias], dtype=torch.float64)).item()
    assert math.exp(writes * math.log1p(-z)) == pytest.approx(0.5)
