"""The exercise of notebook 00: what a write gate does to a slot."""

from __future__ import annotations

from itertools import product
from random import Random

import torch
from torch import Tensor

from .exercise import Case, Exercise, Inputs, Mistake, random_tensor


def _draw(sizes: dict[str, int], random: Random) -> Inputs:
    shape = (sizes["B"], sizes["w"], sizes["d"])
    gates = torch.tensor([round(random.random(), 1) for _ in range(torch.Size(shape).numel())])
    return random_tensor(random, *shape), random_tensor(random, *shape), gates.reshape(shape)


def _write(carried: Tensor, candidate: Tensor, gate: Tensor) -> Tensor:
    old, new, opening = carried.tolist(), candidate.tolist(), gate.tolist()
    slots = torch.empty(carried.shape, dtype=torch.float64)
    for b, i, j in product(*map(range, carried.shape)):
        slots[b, i, j] = old[b][i][j] + opening[b][i][j] * (new[b][i][j] - old[b][i][j])
    return slots


_MISTAKES = (
    Mistake(
        "Your gate works the other way round: at z = 0 it overwrites. A shut gate, z = 0, keeps what was carried.",
        lambda c, n, z: z * c + (1 - z) * n,
    ),
    Mistake(
        "What was carried does not make room: at z = 1 the slot holds the sum of old and new. It must hold the "
        "candidate alone, so what was carried counts (1 − z) times.",
        lambda c, n, z: c + z * n,
    ),
    Mistake(
        "The candidate always enters in full: at z = 0 nothing may enter. It counts z times.",
        lambda c, n, z: (1 - z) * c + n,
    ),
    Mistake("Nothing is kept: (1 − z) times what was carried is missing.", lambda c, n, z: z * n),
    Mistake("Nothing new enters: z times the candidate is missing.", lambda c, n, z: (1 - z) * c),
    Mistake("The gate is not used: you added old and new.", lambda c, n, z: c + n),
    Mistake("The gate is not used: you took the mean of old and new.", lambda c, n, z: (c + n) / 2),
    Mistake(
        "A sign is wrong: the gate moves the slot from what was carried towards the candidate, not away from it.",
        lambda c, n, z: c - z * (n - c),
    ),
    Mistake(
        "Your gate is a switch that is open or shut. Between 0 and 1 it mixes: z = 0.3 takes 0.3 of the candidate.",
        lambda c, n, z: torch.where(z > 0.5, n, c),
    ),
    Mistake(
        "You applied a sigmoid to the gate. It is given between 0 and 1: use it as it is.",
        lambda c, n, z: c + torch.sigmoid(z) * (n - c),
    ),
    Mistake(
        "You applied tanh to the candidate. It is given ready to be written: use it as it is.",
        lambda c, n, z: c + z * (torch.tanh(n) - c),
    ),
)

GATED_WRITE = Exercise(
    name="00.gated_write",
    contract="gated_write(carried (B, w, d), candidate (B, w, d), gate (B, w, d)) -> (B, w, d): the slots after the "
    "write; where the gate is 0 what was carried, where it is 1 the candidate, between them the mixture.",
    inputs=("carried", "candidate", "gate"),
    output=("B", "w", "d"),
    example=Case(
        {"B": 1, "w": 2, "d": 3},
        (
            torch.tensor([[[2.0, 4.0, -1.0], [1.0, 0.0, 3.0]]]),
            torch.tensor([[[6.0, 8.0, 1.0], [-1.0, 2.0, 5.0]]]),
            torch.tensor([[[0.0, 1.0, 0.5], [0.5, 0.0, 1.0]]]),
        ),
    ),
    draw=_draw,
    reference=_write,
    mistakes=_MISTAKES,
)

EXERCISES = (GATED_WRITE,)
