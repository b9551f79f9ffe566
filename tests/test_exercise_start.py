"""The exercise of notebook 00: wrong answers get the right diagnosis, right ones pass, whatever they look like."""


import pytest
import torch
from answers import assert_diagnosed, assert_passes, named

from rmat_tutorial import GatedFIFOMemory
from rmat_tutorial.exercises import EXERCISES

NAME = "00.gated_write"


pytestmark = pytest.mark.usefixtures("own_home")


def plain(carried, candidate, gate):
    return (1 - gate) * carried + gate * candidate


def by_stacking(carried, candidate, gate):
    shares = torch.stack([1 - gate, gate])
    return torch.einsum("s...,s...->...", shares, torch.stack([carried, candidate]))


def by_loops(carried, candidate, gate):
    slots = torch.empty_like(carried)
    for row in range(carried.shape[0]):
        for slot in range(carried.shape[1]):
            slots[row, slot] = carried[row, slot] + (candidate[row, slot] - carried[row, slot]) * gate[row, slot]
    return slots


def swapped(carried, candidate, gate):
    return torch.lerp(candidate, carried, gate)


def adds(carried, candidate, gate):
    return torch.addcmul(carried, gate, candidate)


def candidate_in_full(carried, candidate, gate):
    return carried - gate * carried + candidate


def forgets(carried, candidate, gate):
    return candidate.mul(gate)


def never_writes(carried, candidate, gate):
    return carried - carried * gate


def averages(carried, candidate, gate):
    return torch.stack([carried, candidate]).mean(0)


def wrong_sign(carried, candidate, gate):
    return carried + gate * (carried - candidate)


def switches(carried, candidate, gate):
    return torch.where(gate.round() == 1, candidate, carried)


def sigmoid_again(carried, candidate, gate):
    return torch.lerp(carried, candidate, gate.sigmoid())


def one_gate_a_slot(carried, candidate, gate):
    return torch.lerp(carried, candidate, gate[..., :1])


def in_place(carried, candidate, gate):
    carried *= 1 - gate
    return carried + gate * candidate


def without_gradient(carried, candidate, gate):
    return torch.lerp(carried, candidate, gate.detach())


@pytest.mark.parametrize("answer", [plain, torch.lerp, by_stacking, by_loops], ids=named)
def test_right_answers_pass(answer, capsys):
    assert_passes(NAME, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (swapped, "the other way round"),
        (adds, "does not make room"),
        (candidate_in_full, "always enters in full"),
        (forgets, "Nothing is kept"),
        (never_writes, "Nothing new enters"),
        (averages, "The gate is not used: you took the mean"),
        (wrong_sign, "A sign is wrong"),
        (switches, "Your gate is a switch"),
        (sigmoid_again, "a sigmoid to the gate"),
        (one_gate_a_slot, "It is right only when d = 1."),
        (in_place, "changes its input carried in place"),
        (without_gradient, "no gradient reaches gate"),
    ],
    ids=named,
)
def test_wrong_answers_are_diagnosed(answer, words, capsys):
    assert_diagnosed(NAME, answer, words, capsys)


@pytest.mark.parametrize("carry", ["newest", "oldest"])
def test_the_reference_is_what_the_memory_does(carry):
    torch.manual_seed(1)
    memory = GatedFIFOMemory(8, 6, 2, carry=carry).double()
    write = memory.step(torch.randn(3, 6, 8).double(), torch.randn(3, 5, 8).double())
    expected = EXERCISES[NAME].reference(write.carried, write.candidate, write.gate)
    assert torch.allclose(write.memory[:, -2:], expected, atol=1e-12)
