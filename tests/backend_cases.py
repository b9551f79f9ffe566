"""What the tests of the backends share: random calls of `hybrid_attention`, and the comparison with a reference."""

import torch
from strategies import gap, randn

from rmat_tutorial import hybrid_attention
from rmat_tutorial.kernels.limits import TOLERANCES

NAMES = ("q", "k", "v", "q_mem", "k_mem", "v_mem", "weights")


def make_inputs(batch, heads, n_queries, n_keys, slots, width, paths, seed=0) -> dict[str, torch.Tensor | None]:
    lengths = {"q": n_queries, "k": n_keys, "v": n_keys, "q_mem": n_queries, "k_mem": slots, "v_mem": slots}
    inputs = {name: randn(batch, heads, n, width, seed=seed + i) for i, (name, n) in enumerate(lengths.items())}
    if "memory" not in paths:
        inputs |= dict.fromkeys(("q_mem", "k_mem", "v_mem"))
    return inputs | {"weights": randn(len(paths), seed=seed + 6).softmax(0)}


def row_by_row(reference):
    """A reference that sees one row of the batch at a time, each with its own λ: ``weights`` are ``(B, P)``."""

    def attend(*inputs, **options):
        *tensors, weights = inputs
        rows = [[x if x is None else x[row : row + 1] for x in tensors] for row in range(len(weights))]
        return torch.cat([reference(*row, λ, **options) for row, λ in zip(rows, weights, strict=True)])

    return attend


def value_and_gradients(attend, inputs, dtype, device="cpu", **options):
    """The output and the gradient of every input, by name."""
    leaves = {name: t if t is None else t.detach().to(device, dtype).requires_grad_() for name, t in inputs.items()}
    output = attend(*leaves.values(), **options)
    assert output.dtype == dtype
    given_leaves = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    direction = randn(*output.shape, seed=99, dtype=dtype).to(device)
    found = torch.autograd.grad((output * direction).sum(), list(given_leaves.values()), allow_unused=True)
    return {"output": output.detach()} | dict(zip(given_leaves, found, strict=True))


def rounded_to(inputs, dtype):
    """The inputs in float64, as `dtype` knows them."""
    return {name: t if t is None else t.to(dtype).double() for name, t in inputs.items()}


def assert_agrees(ours, expected, tolerance):
    """Every tensor of `expected` is found in `ours`, within the tolerance."""
    for name, value in expected.items():
        if value is None:  # q, k, v of a call with the memory path alone: no gradient, or one of zeros
            assert ours[name] is None or not ours[name].any(), f"{name} has a gradient without a path that uses it"
        else:
            scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
            difference = gap(ours[name].double().cpu(), value)
            assert difference < tolerance * scale, f"{name} differs by {difference / scale:.1e} of the largest"


def assert_equals(reference, backend, call, dtype, device="cpu", **inputs):
    """Values and all gradients of a backend are those of `reference` in float64."""
    call = dict(call)
    options = {"chunk_size": call.pop("chunk_size"), "paths": call["paths"]}
    inputs = make_inputs(**call) | inputs
    expected = value_and_gradients(reference, rounded_to(inputs, dtype), torch.float64, **options)
    ours = value_and_gradients(hybrid_attention, inputs, dtype, device, backend=backend, **options)
    assert_agrees(ours, expected, TOLERANCES[dtype])
