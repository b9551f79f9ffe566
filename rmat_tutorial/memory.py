"""The gated first-in-first-out memory (arXiv 2507.00453, section on the memory module)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from .config import CARRIES, GATES, POOLS
from .validate import require_choice, require_float_tensor, require_int, require_like, require_number

# The pieces of a write -----------------------------------------------------------------------------------------------


def pool(queries: Tensor, hidden: Tensor) -> Tensor:
    """Attention pooling of a segment ``(B, L, d)`` by queries ``(w, d)``: a weighted mean for each, ``(B, w, d)``."""
    scores = queries @ hidden.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    return torch.softmax(scores, dim=-1) @ hidden


def hard_gate(score: Tensor) -> Tensor:
    """``clamp(score / 6 + 1/2, 0, 1)``: a sigmoid's piecewise linear form, exactly 0 up to −3 and 1 from 3 on."""
    return torch.clamp(score / 6 + 0.5, 0.0, 1.0)


def half_life(bias: Tensor) -> Tensor:
    """Writes after which a sigmoid gate ``z`` at this bias has left half, ``(1 − z)ⁿ = 1/2``; shape of ``bias``."""
    return math.log(0.5) / logsigmoid(-bias)  # 1 − sigmoid(b) = sigmoid(−b), which is not rounded to 1


def overwrite(carried: Tensor, gate: Tensor, candidate: Tensor) -> Tensor:
    """What enters the bank: of ``carried`` the gate keeps the share ``1 − gate``; all shapes alike."""
    return (1 - gate) * carried + gate * candidate


def push(bank: Tensor, new: Tensor) -> Tensor:
    """The bank ``(B, m, d)`` after its oldest slots, the first ones, left and ``new`` ``(B, w, d)`` entered behind."""
    return torch.cat((bank[:, new.shape[1]:], new), dim=1)


def write(bank: Tensor, gate_score: Tensor, candidate_score: Tensor) -> Tensor:
    """The bank ``(B, m, d)`` after a write by the hard gate that carries the newest; both scores ``(B, w, d)``."""
    carried = bank[:, -gate_score.shape[1]:]
    return push(bank, overwrite(carried, hard_gate(gate_score), torch.tanh(candidate_score)))


# The memory of a layer -----------------------------------------------------------------------------------------------


class MemoryWrite(NamedTuple):
    """One write to the bank and the quantities it was made of.

    Attributes:
        memory: the bank after the write, ``(B, m, d)``.
        gate: write gate ``z``, ``(B, w, d)`` in [0, 1]; 0 keeps what was carried, 1 overwrites it.
        pooled: the segment as ``w`` vectors ``u``, ``(B, w, d)``.
        carried: the slots ``c`` that the gate mixes with the candidate, ``(B, w, d)``.
        evicted: the ``w`` oldest slots, which leave the bank, ``(B, w, d)``.
        candidate: ``tanh(s W_c + b_c)``, ``(B, w, d)``.
        gate_score: what the gate is the opening of, ``s W_z + b_z``, ``(B, w, d)``.
    """

    memory: Tensor
    gate: Tensor
    pooled: Tensor
    carried: Tensor
    evicted: Tensor
    candidate: Tensor
    gate_score: Tensor


class GatedFIFOMemory(nn.Module):
    """A queue of ``m`` vectors, of which ``w`` leave and ``w`` enter after each segment.

    The bank itself, ``(B, m, d)`` with the oldest slot first, is state that the caller carries: nothing is kept in
    the module but its weights.

    Args:
        d_model: width ``d`` of a slot.
        memory_slots: slots in the bank, ``m``.
        write_slots: slots written at a time, ``w <= m``.
        gate: ``"sigmoid"`` (paper) or ``"hard"``, ``clamp(a / 6 + 1/2, 0, 1)``, whose zeros are exact.
        carry: the gate carries the ``"newest"`` slots (paper) or the ``"oldest"``, those that leave.
        pool: ``"attention"`` by ``w`` learned queries, or the ``"mean"`` of ``w`` contiguous parts.
        gate_bias: initial ``b_z``; negative keeps by default.

    Raises:
        TypeError, ValueError: an argument is out of range.
    """

    def __init__(
        self,
        d_model: int,
        memory_slots: int,
        write_slots: int,
        gate: str = "sigmoid",
        carry: str = "newest",
        pool: str = "attention",
        gate_bias: float = -2.0,
    ) -> None:
        super().__init__()
        require_int("d_model", d_model, 1)
        require_int("memory_slots", memory_slots, 1)
        require_int("write_slots", write_slots, 1)
        if write_slots > memory_slots:
            raise ValueError(f"write_slots must be at most memory_slots ({memory_slots}), got {write_slots}")
        require_choice("gate", gate, GATES)
        require_choice("carry", carry, CARRIES)
        require_choice("pool", pool, POOLS)
        require_number("gate_bias", gate_bias, float("-inf"), above=True)
        self.d_model, self.memory_slots, self.write_slots = d_model, memory_slots, write_slots
        self.gate, self.carry, self.pool = gate, carry, pool
        self.slots = nn.Parameter(torch.randn(memory_slots, d_model) / math.sqrt(d_model))
        self.read_norm = nn.LayerNorm(d_model)
        self.write_norm = nn.LayerNorm(d_model)
        if pool == "attention":
            # Scores with a spread of 3 pick a few positions each. With an even pooling the w slots would begin as
            # one and the same vector, and training would be slow to part them.
            self.queries = nn.Parameter(3 * torch.randn(write_slots, d_model))
        self.to_gate = nn.Linear(2 * d_model, d_model)
        self.to_candidate = nn.Linear(2 * d_model, d_model)
        nn.init.constant_(self.to_gate.bias, gate_bias)

    def initial(self, batch_size: int) -> Tensor:
        """The bank before the first segment, ``(B, m, d)``: the learned slots for every row."""
        require_int("batch_size", batch_size, 1)
        return self.slots.expand(batch_size, -1, -1)

    def write(self, memory: Tensor, hidden: Tensor) -> Tensor:
        """The bank after a segment.

        Args:
            memory: the bank before it, ``(B, m, d)``, oldest slot first.
            hidden: the block's output for the segment, ``(B, L, d)``.

        Returns:
            ``(B, m, d)``.

        Raises:
            TypeError, ValueError: shapes or dtypes do not fit, or an input contains NaN.
        """
        require_float_tensor("memory", memory, ("B", "m", "d"), {"m": self.memory_slots, "d": self.d_model})
        require_float_tensor("hidden", hidden, ("B", "L", "d"), {"B": memory.shape[0], "d": self.d_model})
        require_like("memory", memory, "the module's weights", self.slots)
        require_like("hidden", hidden, "memory", memory)
        if hidden.shape[1] == 0:
            raise ValueError(f"hidden is an empty segment of shape {tuple(hidden.shape)}; give at least one position")
        return self.step(memory, hidden).memory

    def step(self, memory: Tensor, hidden: Tensor) -> MemoryWrite:
        """``write`` with everything it computed on the way, its arguments unchecked."""
        pooled = self.pool_segment(self.write_norm(hidden))
        evicted = memory[:, : self.write_slots]
        carried = evicted if self.carry == "oldest" else memory[:, -self.write_slots:]
        source = torch.cat((pooled, self.read_norm(carried)), dim=-1)
        gate_score = self.to_gate(source)
        gate = self.opening(gate_score)
        candidate = torch.tanh(self.to_candidate(source))
        after = push(memory, overwrite(carried, gate, candidate))
        return MemoryWrite(after, gate, pooled, carried, evicted, candidate, gate_score)

    def opening(self, score: Tensor) -> Tensor:
        """The gate of a score: the logistic function, or its piecewise linear form with exact zeros."""
        return torch.sigmoid(score) if self.gate == "sigmoid" else hard_gate(score)

    def pool_segment(self, hidden: Tensor) -> Tensor:
        """A segment ``(B, L, d)`` as ``w`` vectors ``(B, w, d)``."""
        if self.pool == "attention":
            return pool(self.queries, hidden)
        return torch.stack([hidden[:, part].mean(dim=1) for part in self.parts(hidden.shape[1])], dim=1)

    def parts(self, length: int) -> list[slice]:
        """``w`` contiguous parts of ``length`` positions, as even as whole positions allow, none empty."""
        bounds = [i * length // self.write_slots for i in range(self.write_slots + 1)]
        return [slice(low, max(high, low + 1)) for low, high in pairwise(bounds)]
