"""The estimate of occupancy, held against what Triton makes of the forward kernel for an H100."""

import pytest

from rmat_tutorial.kernels.occupancy import H100, WARP, Choice, estimate

# Queries, keys, warps, stages: bytes of shared memory, registers of a thread, bytes spilled. Triton 3.7.1 and its ptxas
# for sm_90a; d_h = 64, bfloat16, all three paths, L = 2048, C = 256, m = 64.
COMPILED = {
    (16, 32, 4, 2): (13312, 128, 0), (16, 64, 4, 3): (38912, 168, 0), (32, 32, 4, 2): (18432, 148, 0),
    (32, 64, 4, 3): (45056, 218, 0), (64, 16, 4, 3): (28672, 154, 0), (64, 32, 4, 2): (32768, 162, 0),
    (64, 64, 4, 1): (24576, 216, 0), (64, 64, 4, 2): (49152, 242, 0), (64, 64, 4, 3): (65536, 254, 0),
    (64, 64, 4, 4): (81920, 255, 16), (64, 64, 8, 3): (65536, 194, 0), (64, 128, 4, 2): (81920, 255, 0),
    (64, 128, 8, 3): (114688, 242, 0), (128, 32, 4, 2): (49152, 255, 180), (128, 32, 8, 3): (57344, 188, 0),
    (128, 64, 4, 3): (81920, 255, 708), (128, 64, 8, 2): (65536, 213, 0), (128, 64, 8, 3): (81920, 225, 0),
    (128, 128, 8, 2): (98304, 255, 0), (128, 128, 8, 3): (131072, 255, 0), (256, 64, 8, 2): (98304, 255, 680),
}


def programs(shared: int, registers: int, warps: int) -> int:
    """How many fit, from what was compiled."""
    return min(H100.registers // (registers * warps * WARP), H100.shared // (shared + H100.shared_reserved))


@pytest.mark.parametrize("choice", COMPILED, ids=str)
def test_shared_memory(choice):
    queries, _, _, stages = choice
    needed, estimated = COMPILED[choice][0], estimate(Choice(*choice), width=64).shared
    assert estimated == needed if queries >= 64 and stages >= 2 else estimated >= needed


def test_the_number_of_programs_is_right_but_for_one_choice():
    wrong = [choice for choice, (shared, registers, _) in COMPILED.items()
             if estimate(Choice(*choice), width=64).programs != programs(shared, registers, choice[2])]
    assert wrong == [(64, 32, 4, 2)]


def test_what_spills_much_is_said_to_need_more_registers_than_there_are():
    for choice, (_, registers, spilled) in COMPILED.items():
        estimated = estimate(Choice(*choice), width=64).registers
        assert estimated > H100.registers_per_thread if spilled > 16 else abs(estimated - registers) < 80


def test_what_limits():
    assert estimate(Choice(128, 64, 8, 3), width=64).limit == "registers"
    assert estimate(Choice(16, 16, 4, 4), width=64, chip=H100._replace(warps=4)).limit == "warps"
    large = estimate(Choice(256, 128, 8, 4), width=128)
    assert large.shared > H100.shared_per_program and large.programs == 0 and large.limit == "shared memory"
    assert estimate(Choice(64, 64, 4, 2), width=64, itemsize=4).shared == 2 * estimate(Choice(64, 64, 4, 2), 64).shared
