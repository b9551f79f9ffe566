"""Operations and bytes, counted: as torch counts them, as the interpreter sees them, and by hand."""

import math

import pytest
import torch
from backend_cases import make_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import DEVICE, Traffic, patch_once, use_tiles
from strategies import PATHS, assert_one_line, randn
from torch.utils import flop_counter

from rmat_tutorial.attention import chunk_mask
from rmat_tutorial.kernels import triton_launch
from rmat_tutorial.kernels.counting import (
    WAYS,
    Cost,
    Costs,
    Shape,
    Tiles,
    bank_path,
    by_keys,
    by_queries,
    chunk_path,
    count,
    fused,
    segment_path,
)
from rmat_tutorial.kernels.eager import eager
from rmat_tutorial.kernels.operators import moved

SHAPE = Shape(batch=2, heads=3, length=24, width=8, chunk_size=6, slots=5)
SINGLE = 4  # bytes


@st.composite
def shapes(draw) -> Shape:
    chunk = draw(st.integers(1, 9))
    return Shape(draw(st.integers(1, 2)), draw(st.integers(1, 2)), chunk * draw(st.integers(1, 5)),
                 draw(st.sampled_from((2, 8))), chunk, draw(st.integers(0, 7)))


TILES = st.builds(Tiles, st.integers(1, 12), st.integers(1, 12))


def counted_by_torch(function, *inputs) -> tuple[int, int]:
    """Operations of the products of matrices, forward and backward."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    with flop_counter.FlopCounterMode(display=False) as forward:
        out = function(*leaves)
    with flop_counter.FlopCounterMode(display=False) as backward:
        torch.autograd.grad(out, leaves, torch.empty_like(out))
    return forward.get_total_flops(), backward.get_total_flops()


@given(shapes())
@settings(max_examples=8)
def test_the_operations_of_eager_are_what_torch_counts(shape):
    inputs = make_inputs(shape.batch, shape.heads, shape.length, shape.length, shape.slots, shape.width, PATHS)
    found = counted_by_torch(lambda *x: eager(*x, shape.chunk_size, PATHS), *inputs.values())
    assert found == tuple(cost.flops for cost in count("eager", shape, torch.float64))


def test_the_operations_of_a_fused_attention_are_what_torch_counts():
    """Without a mask: torch counts what a causal mask hides too."""
    B, H, L, d, _, m = SHAPE
    q, k = (B, H, L, d), (B, H, m, d)
    found = (flop_counter.sdpa_flop_count(q, k, k), flop_counter.sdpa_backward_flop_count(q, q, k, k))
    assert found == tuple(work.cost(SHAPE, torch.float32).flops for work in fused(bank_path(L, m), d, None))


def test_what_sees_what_is_what_the_masks_say():
    n, size = 12, 4
    for path, seen in ((segment_path(n), chunk_mask(n, n, n)), (chunk_path(n, size), chunk_mask(n, n, size)),
                       (bank_path(n, 5), torch.ones(n, 5))):
        assert by_queries(path, None).pairs == by_keys(path, None).pairs == int(seen.sum())
        for index in range(n):
            low, high = path.keys_of(index, index)
            assert seen[index].nonzero().flatten().tolist() == list(range(low, high))
        for index in range(seen.shape[1]):
            low, high = path.queries_of(index, index)
            assert seen[:, index].nonzero().flatten().tolist() == list(range(low, high))


def test_the_bytes_of_eager_by_hand():
    """Forward, in float32: a matrix of scores is read or written 14 times with a mask, 12 without one."""
    B, H, L, d, _, m = SHAPE
    masked, bank, outputs = B * H * L * L, B * H * L * m, B * H * L * d
    floats = 2 * 14 * masked + 12 * bank
    floats += 3 * 4 * B * H * L  # the largest score and the sum of each row
    floats += 2 * (outputs + B * H * L * d) + (outputs + B * H * m * d)  # q and k, twice; q_mem and k_mem
    floats += 2 * B * H * L * d + B * H * m * d  # v, twice; v_mem
    floats += (3 + 3 * 2 + 2 + 3 + 3) * outputs  # made; times λ; 0 + the first, + the second, + the third
    floats += 3  # λ
    # Positions, 8 bytes each, and masks, a byte an element: laid out, compared, put together, turned over, read.
    masks = (8 * L + 16 * L + L * L + L * L) + (8 * L + (16 * L + L * L) + 2 * 16 * L + (16 * L + L * L) + 6 * L * L)
    assert count("eager", SHAPE, torch.float32).forward.bytes == 4 * floats + masks


def test_half_the_bytes_and_the_same_operations_in_half_precision():
    for way in WAYS:
        half, single = (count(way, SHAPE, dtype).both for dtype in (torch.bfloat16, torch.float32))
        assert half.flops == single.flops
        assert 0.49 < half.bytes / single.bytes < 0.9


def compulsory(way: str, shape: Shape) -> int:
    """Bytes of the forward in bfloat16: queries, keys, values, output, log-sum-exps, each once a launch."""
    B, H, L, d, _, m = shape
    launches = {"causal": (4 * L, L), "triton": (2 * L + 2 * L + 2 * m + L, 3 * L)}
    vectors, numbers = launches[way]
    return B * H * (2 * d * vectors + 4 * numbers)


@pytest.mark.parametrize("way", ["causal", "triton"])
@given(shape=shapes())
@settings(max_examples=8)
def test_what_is_compulsory(way, shape):
    assert count(way, shape).forward.bytes == compulsory(way, shape)


@given(shapes())
@settings(max_examples=8)
def test_three_for_the_price_of_one(shape):
    """The fused kernel multiplies what causal attention does, and the bank; never the chunk's scores again."""
    fused_, alone, three = (count(way, shape) for way in ("triton", "causal", "sdpa"))
    per_slot = shape.batch * shape.heads * shape.length * shape.slots * 2 * shape.width
    chunk = shape._replace(batch=shape.batch * shape.length // shape.chunk_size, length=shape.chunk_size)
    assert fused_.forward.flops == alone.forward.flops + 2 * per_slot
    assert three.forward.flops == fused_.forward.flops + count("causal", chunk).forward.flops
    assert three.forward.flops == count("flex", shape).forward.flops
    assert fused_.forward.bytes < three.forward.bytes < count("eager", shape).forward.bytes


@pytest.mark.parametrize("way", WAYS)
@given(shape=shapes(), tiles=TILES)
@settings(max_examples=8)
def test_tiles_read_again_and_never_less(way, shape, tiles):
    for once, tiled in zip(count(way, shape), count(way, shape, tiles=tiles), strict=True):
        assert tiled.flops >= once.flops and tiled.bytes >= once.bytes
    for larger in (Tiles(2 * tiles.queries, tiles.keys), Tiles(shape.length, tiles.keys)):
        if way == "causal":
            assert count(way, shape, tiles=larger).forward.bytes <= count(way, shape, tiles=tiles).forward.bytes


def test_a_tile_of_the_whole_segment_reads_once():
    whole = Tiles(SHAPE.length, SHAPE.length)
    assert count("causal", SHAPE, tiles=whole).forward.bytes == count("causal", SHAPE).forward.bytes


interpreted = pytest.mark.skipif(DEVICE == "cuda", reason="counted in Triton's interpreter")
CASES = [(Shape(1, 1, 12, 16, 4, 6), Tiles(4, 4)), (Shape(1, 2, 12, 16, 12, 3), Tiles(4, 8)),
         (Shape(1, 1, 15, 16, 3, 6), Tiles(4, 4)), (Shape(1, 1, 14, 16, 7, 5), Tiles(8, 2))]


@interpreted
@pytest.mark.parametrize("shape, tiles", CASES)
def test_the_kernels_move_what_is_counted(monkeypatch, shape, tiles):
    """Every load and store of tensors of vectors, and of the log-sum-exps and means of the rows."""
    patch_once(monkeypatch)
    use_tiles(monkeypatch, *tiles)
    inputs = {name: x.float() for name, x in make_inputs(
        shape.batch, shape.heads, shape.length, shape.length, shape.slots, shape.width, PATHS).items()}
    call = triton_launch.Call(*inputs.values(), None, None, shape.chunk_size, True, True)
    inputs.pop("weights")
    with Traffic() as forward:
        out, log_sums = triton_launch.run_forward(call)
    inputs |= {"out": out, "log_sums": log_sums}
    expected = count("triton", shape, torch.float32, tiles)
    assert SINGLE * accesses(forward, inputs.values()) == expected.forward.bytes

    means = torch.zeros_like(log_sums)
    monkeypatch.setattr(triton_launch, "new_rows", lambda *arguments: means)
    inputs["d_out"] = randn(*out.shape, dtype=torch.float32)
    with Traffic() as backward:
        *gradients, _ = triton_launch.run_backward(call, out, log_sums, inputs["d_out"])
    vectors = accesses(backward, [x for x in (*inputs.values(), *gradients) if x is not log_sums])
    summed = means[..., :shape.length].numel()  # by torch, for the gradient of λ
    numbers = accesses(backward, [log_sums, means]) + summed
    counted = expected.backward.bytes // SINGLE
    rows_twice = counted - vectors  # log-sum-exps and means, as counted
    assert 0.7 * numbers < rows_twice <= 1.3 * numbers
    assert counted == pytest.approx(vectors + numbers, rel=0.03)


def accesses(traffic: Traffic, tensors) -> int:
    """Elements of the tensors that were loaded or stored."""
    return int(sum((traffic.loads(x) + traffic.stores(x)).sum() for x in tensors))


# Operators.


def test_an_operator_reads_what_it_is_given_and_writes_what_it_makes():
    x, y = torch.empty(6, 4, device="meta"), torch.empty(4, device="meta")
    assert moved(lambda x: x.exp(), x)[0] == SINGLE * (24 + 24)
    assert moved(lambda x: x.T.unflatten(1, (2, 3)).exp(), x)[0] == SINGLE * (24 + 24)  # a view moves nothing
    assert moved(lambda x, y: x * y, x, y)[0] == SINGLE * (24 + 4 + 24)
    assert moved(lambda y: y.expand(6, 4).exp(), y)[0] == SINGLE * (4 + 24)  # repeated, and read once
    assert moved(lambda x: x.exp(), x)[1] == SINGLE * (24 + 24 + 24)  # the gradient: times exp(x), which was kept


def test_costs_add_up():
    costs = Costs(Cost(10, 5), Cost(20, 10))
    assert costs.both == Cost(30, 15)
    assert math.isclose(costs.both.intensity, 2.0)


@pytest.mark.parametrize("arguments, fragments", [
    (("slow", SHAPE), ["way", "'slow'", "'eager'"]),
    (("triton", SHAPE._replace(chunk_size=5)), ["chunk_size", "divide", "24", "5"]),
    (("triton", SHAPE._replace(heads=0)), ["heads", "0"]),
    (("triton", SHAPE, torch.float32, Tiles(0, 4)), ["tiles.queries", "0"]),
])
def test_what_cannot_be_counted_says_why(arguments, fragments):
    with pytest.raises(ValueError) as error:
        count(*arguments)
    assert_one_line(str(error.value), *fragments)
