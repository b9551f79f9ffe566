"""The memory of the fused kernels: nothing outside a tensor is touched, and each tensor is read as often as planned."""

import math

import pytest
import torch
from backend_cases import make_inputs
from interpreter import DEVICE, Traffic, patch_once, use_tiles
from strategies import PATHS, gap, randn

from rmat_tutorial.kernels import triton_launch
from rmat_tutorial.kernels.limits import TOLERANCES
from rmat_tutorial.rope import rope_frequencies, rope_tables


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    patch_once(monkeypatch)
    use_tiles(monkeypatch, 4, 4)


def in_a_frame(x, fill):
    """`x` inside a larger tensor, with `fill` before and after every row, feature and head; and the larger one."""
    framed = torch.full([n + 4 for n in x.shape], fill, dtype=x.dtype, device=x.device)
    inside = framed[tuple(slice(2, 2 + n) for n in x.shape)]
    inside.copy_(x)
    return inside, framed


@pytest.mark.parametrize("paths, rope", [(PATHS, False), (PATHS, True), (("chunk",), False)])
def test_nothing_outside_a_tensor_is_read_or_written(monkeypatch, paths, rope):
    """NaN around each input would show in the result, and a change around each output in its frame."""
    frames = []

    def new_like(x):
        inside, framed = in_a_frame(torch.zeros_like(x), 7.0)
        frames.append((inside, framed))
        return inside

    monkeypatch.setattr(triton_launch, "new_like", new_like)
    inputs = [None if x is None else x.float().to(DEVICE) for x in make_inputs(1, 2, 7, 9, 3, 24, paths).values()]
    tables = [t.to(DEVICE) for t in rope_tables(torch.arange(9), rope_frequencies(24), torch.float32)] * rope
    tables = tables or [None, None]
    direction = randn(1, 2, 7, 24, seed=9, dtype=torch.float32).to(DEVICE)
    results = []
    for frame in (lambda x: x, lambda x: x if x is None or x.dim() < 4 else in_a_frame(x, math.nan)[0]):
        call = triton_launch.Call(*map(frame, inputs), *tables, 3, "full" in paths, "chunk" in paths)
        out, log_sums = triton_launch.run_forward(call)
        results.append([out, log_sums, *triton_launch.run_backward(call, frame(out), log_sums, frame(direction))])
    for plain, framed in zip(*results, strict=True):
        assert gap(plain, framed) < TOLERANCES[torch.float32]
    for inside, framed in frames:
        inside.fill_(7.0)
        assert (framed == 7.0).all()


@pytest.mark.parametrize("paths", [PATHS, ("full",)])
def test_nothing_is_read_that_was_not_written(paths):
    """Memory that is handed out full of NaN would show in the result, where a row does not exist too."""
    call = triton_launch.Call(
        *[None if x is None else x.float().to(DEVICE) for x in make_inputs(1, 2, 7, 9, 3, 24, paths).values()],
        None, None, 3, True, "chunk" in paths,
    )
    torch.use_deterministic_algorithms(True)  # fills what is handed out with NaN
    try:
        assert call.q.new_empty(1).isnan().all()
        out, log_sums = triton_launch.run_forward(call)
        gradients = triton_launch.run_backward(call, out, log_sums, torch.ones_like(out))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(x.isfinite().all() for x in (out, log_sums, *gradients))


def run_counted(paths, chunk_size):
    """The forward for one head of 12 positions in tiles of 4 by 4, a bank of two tiles: the call, traffic, tensors."""
    inputs = {name: None if x is None else x.float() for name, x in make_inputs(1, 1, 12, 12, 6, 16, paths).items()}
    call = triton_launch.Call(*inputs.values(), None, None, chunk_size, "full" in paths, "chunk" in paths)
    with Traffic() as traffic:
        out, log_sums = triton_launch.run_forward(call)
    return call, traffic, inputs | {"out": out, "log_sums": log_sums}


def per_row(counts):
    """The count of each row of one head, which all its elements share."""
    assert (counts == counts[..., :1]).all()
    return counts[0, 0, :, 0].tolist()


interpreted = pytest.mark.skipif(DEVICE == "cuda", reason="counted in Triton's interpreter")


@interpreted
@pytest.mark.parametrize("chunk_size", [4, 8, 12])
def test_the_forward_reads_what_full_attention_reads(chunk_size):
    """Three paths for the traffic of one: a tile of queries reads each key that one of them sees once."""
    _, forward, tensors = run_counted(PATHS, chunk_size)
    assert per_row(forward.loads(tensors["q"])) == per_row(forward.loads(tensors["q_mem"])) == [1] * 12
    for name in ("k", "v"):
        assert per_row(forward.loads(tensors[name])) == [3] * 4 + [2] * 4 + [1] * 4
    for name in ("k_mem", "v_mem"):
        assert per_row(forward.loads(tensors[name])) == [3] * 6
    assert (forward.stores(tensors["out"]) == 1).all() and (forward.stores(tensors["log_sums"])[..., :12] == 1).all()
    _, alone, theirs = run_counted(("full",), chunk_size)
    assert torch.equal(alone.loads(theirs["k"]), forward.loads(tensors["k"]))


@interpreted
def test_only_keys_between_two_chunk_starts_are_read_twice():
    _, forward, tensors = run_counted(PATHS, 3)
    # The rows 0 .. 3 are of chunks that begin at 0 and 3, the rows 4 .. 7 at 3 and 6, the rows 8 .. 11 at 6 and 9. So
    # they read twice: 0 .. 2; 3 .. 5, from the tile's first on, which is 0; 6 .. 8, from the tile's first on, 4.
    once, twice = [3] * 4 + [2] * 4 + [1] * 4, [2, 2, 2, 1, 2, 2, 1, 1, 1, 0, 0, 0]
    assert per_row(forward.loads(tensors["k"])) == [a + b for a, b in zip(once, twice, strict=True)]


@interpreted
def test_the_chunk_path_alone_reads_its_chunk():
    _, forward, tensors = run_counted(("chunk",), 8)
    assert per_row(forward.loads(tensors["k"])) == [2] * 4 + [1] * 8


@interpreted
def test_the_backward_reads_twice_only_what_is_near():
    call, _, tensors = run_counted(PATHS, 8)
    tensors["d_out"] = randn(1, 1, 12, 16, seed=9, dtype=torch.float32)
    with Traffic() as backward:
        *gradients, _ = triton_launch.run_backward(call, tensors["out"], tensors["log_sums"], tensors["d_out"])
    tile = [row // 4 for row in range(12)]
    # Once with its queries, and once with every tile of keys that it sees.
    assert per_row(backward.loads(tensors["q"])) == [1 + t + 1 for t in tile]
    assert per_row(backward.loads(tensors["q_mem"])) == [1 + 2] * 12
    assert per_row(backward.loads(tensors["d_out"])) == [1 + t + 1 + 2 for t in tile]
    assert per_row(backward.loads(tensors["out"])) == [1] * 12
    # Once with its keys, once with every tile of queries that sees it, and once more with those of its own chunk.
    for name in ("k", "v"):
        assert per_row(backward.loads(tensors[name])) == [1 + 3 + 2] * 4 + [1 + 2 + 1] * 4 + [1 + 1 + 1] * 4
    for name in ("k_mem", "v_mem"):
        assert per_row(backward.loads(tensors[name])) == [1 + 2 * 3] * 6
    assert all((backward.stores(gradient) == 1).all() for gradient in gradients)
