"""What a chip has, the least time of work on it, and how many programs of the forward kernel run there side by side.

A program needs registers and shared memory for its tiles, and a multiprocessor has only so many. Programs side by side
fill each other's waiting. Needs no Triton.

The estimate was held against what Triton 3.7.1 makes of the kernel for an H100, at d_h = 64 and two bytes a number, for
21 choices of tiles (``tests/test_occupancy.py``). The number of programs is right for 20 of them. Shared memory is
exact from 64 queries and two stages on; below, the compiler needs less.
"""

from __future__ import annotations

from typing import NamedTuple

from .counting import Cost

WARP = 32  # threads
# Registers of a thread beside those of its tiles, for pointers, masks and what is on its way. Fitted to the 21 choices.
OTHER_REGISTERS = 64
REGISTERS_PER_KEY = 0.85


class Chip(NamedTuple):
    """What a GPU has. Shared memory in bytes; rates a second, of products of bfloat16 and of its memory."""

    name: str
    multiprocessors: int
    registers: int
    registers_per_thread: int
    warps: int
    programs: int
    shared: int
    shared_per_program: int
    shared_reserved: int  # in each program, for the system
    flops: float
    bytes: float


# NVIDIA, H100 datasheet (SXM, dense); CUDA C++ Programming Guide, compute capability 9.0, limits of a multiprocessor.
H100 = Chip("H100 SXM", 132, 65_536, 255, 64, 32, 228 * 1024, 227 * 1024, 1024, 989.4e12, 3.35e12)


def least_seconds(cost: Cost, chip: Chip = H100) -> float:
    """The time that ``chip`` takes at the least: for the operations or for the bytes, whichever is longer."""
    return max(cost.flops / chip.flops, cost.bytes / chip.bytes)


class Choice(NamedTuple):
    """Queries and keys of a tile, the warps that work on it, and the stages of the pipeline that loads it."""

    queries: int
    keys: int
    warps: int
    stages: int


class Occupancy(NamedTuple):
    """What one program needs, and how many fit.

    Attributes:
        registers: of a thread; more than a thread can have are kept in memory, which is slow (spilled).
        shared: bytes.
        fitting: programs that a multiprocessor has room for, by what limits them.
    """

    registers: int
    shared: int
    fitting: dict[str, int]

    @property
    def programs(self) -> int:
        """How many run on a multiprocessor at a time; 0 when not even one fits."""
        return min(self.fitting.values())

    @property
    def limit(self) -> str:
        """What there is too little of for one more."""
        return min(self.fitting, key=self.fitting.__getitem__)


def occupancy(registers: int, shared: int, warps: int, chip: Chip = H100) -> Occupancy:
    """How many programs ``chip`` holds that need so much."""
    per_program = min(registers, chip.registers_per_thread) * warps * WARP
    fits = shared <= chip.shared_per_program
    fitting = {
        "registers": chip.registers // per_program,
        "shared memory": chip.shared // (shared + chip.shared_reserved) if fits else 0,
        "warps": chip.warps // warps,
        "programs": chip.programs,
    }
    return Occupancy(registers, shared, fitting)


def estimate(choice: Choice, width: int, itemsize: int = 2, chip: Chip = H100) -> Occupancy:
    """What the forward kernel needs for a head of ``width``, and how many such programs ``chip`` holds at a time."""
    queries, keys, warps, stages = choice
    # In float32: the running sum of values, the output, the scores; and the exponentials as they are multiplied.
    numbers = 2 * queries * width + queries * keys + queries * keys * itemsize // 4
    registers = round(OTHER_REGISTERS + REGISTERS_PER_KEY * keys + numbers / (warps * WARP))
    # Queries before and after rotation, and for each stage a tile of keys and one of values.
    shared = (2 * queries + stages * 2 * keys) * width * itemsize
    return occupancy(registers, shared, warps, chip)
