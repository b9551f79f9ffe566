"""Compile the Triton kernels for a GPU that need not be there; run as a program, because nothing may be interpreted.

The interpreter accepts what the compiler does not, a variable that changes its type for instance.
"""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from rmat_tutorial.kernels.triton_launch import dkv_kernel, dq_kernel, forward_kernel

CONSTANTS = {"FULL": True, "CHUNK": True, "MEMORY": True, "ROPE": True, "SHARED": False, "D": 24, "BLOCK_D": 32,
             "BLOCK_M": 16, "BLOCK_N": 16, "LENGTH": 64}
FLOAT32 = ("weights", "log_sums", "means")
SIZES = ("n_heads", "n_queries", "n_keys", "n_slots", "chunk_size")


def type_of(name: str) -> str | tuple[str, ...]:
    """The type of a kernel's argument; tensors without another type are of bfloat16."""
    if name in CONSTANTS:
        return "constexpr"
    if name.endswith("_strides"):
        return ("i32",) * 3
    if name in SIZES:
        return "i32"
    if name in ("scale", "d_scale"):
        return "fp32"
    return "*fp32" if name in FLOAT32 else "*bf16"


for kernel in (forward_kernel, dq_kernel, dkv_kernel):
    names = kernel.arg_names
    constants = {(place,): CONSTANTS[name] for place, name in enumerate(names) if name in CONSTANTS}
    source = ASTSource(kernel, {name: type_of(name) for name in names}, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1, "num_stages": 1})
    print(compiled.metadata.name)
