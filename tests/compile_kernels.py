"""Launch the Triton kernels up to the launch, for a GPU that need not be there; run as a program, uninterpreted.

The interpreter accepts what the compiler does not, a variable that changes its type for instance.
"""

from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from rmat_tutorial.kernels import triton_launch


class Hopper:
    """What Triton asks its driver for before it compiles."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


class Compiling:
    """A tuned kernel that compiles one small choice of tile sizes in place of a launch, and prints its name."""

    def __init__(self, tuner: Any) -> None:
        self.kernel = tuner.fn

    def __getitem__(self, grid: Any) -> Any:
        def compile_it(**arguments: Any) -> None:
            choice = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 1, "num_stages": 1}
            print(self.kernel.warmup(**arguments, **choice, grid=grid).metadata.name)

        return compile_it


def main() -> None:
    triton.runtime.driver.set_active(Hopper())
    for name in ("FORWARD", "DQ", "DKV"):
        tuners = getattr(triton_launch, name)
        setattr(triton_launch, name, {size: Compiling(tuner) for size, tuner in tuners.items()})
    q, k, bank = (torch.zeros(1, 2, rows, 16, dtype=torch.bfloat16) for rows in (5, 9, 3))
    table = torch.zeros(9, 8, dtype=torch.bfloat16)
    call = triton_launch.Call(q, k, k, q, bank, bank, torch.zeros(3), table, table, 4, True, True)
    out, log_sums = triton_launch.run_forward(call)
    triton_launch.run_backward(call, out, log_sums, out)


main()
