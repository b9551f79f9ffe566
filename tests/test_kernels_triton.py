"""The fused kernels: values and every gradient against the float64 reference.

On a machine without a GPU they run in Triton's interpreter, in tiles so small that short inputs have several; on a CUDA
device they run compiled, in tiles of their own choice.
"""

import math

import pytest
import torch
from backend_cases import assert_agrees, assert_equals, make_inputs, rounded_to, row_by_row, value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreter import DEVICE, TUNED, patch_once, use_tiles
from strategies import PATHS, SUBSETS, gap, randn

from rmat_tutorial import apply_rope, hybrid_attention
from rmat_tutorial.attention import full_weights
from rmat_tutorial.kernels import triton_launch
from rmat_tutorial.kernels.eager import eager
from rmat_tutorial.kernels.limits import TOLERANCES
from rmat_tutorial.kernels.triton_ops import fused
from rmat_tutorial.rope import rope_frequencies, rope_tables


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    patch_once(monkeypatch)
    use_tiles(monkeypatch, 4, 4)


def tile_of(length, most):
    """The smallest tile that covers `length` with at most `most` tiles."""
    return 1 << max(0, math.ceil(math.log2(length / most)))


# On a GPU each is compiled for every other choice that a call draws, and wide heads take three times as long as others.
WIDTHS = (16, 24, 80, 128) if DEVICE == "cpu" else (16, 24)


@st.composite
def calls(draw):
    """Sizes of a random call, and of the interpreter's tiles: two or three of queries, up to six of keys."""
    n_queries = draw(st.integers(1, 200))
    n_keys = n_queries + draw(st.sampled_from((0, 0, 1, 7, 64, 100)))
    queries, keys = tile_of(n_queries, draw(st.integers(2, 3))), tile_of(n_keys, draw(st.integers(2, 6)))
    chunk_size = draw(st.sampled_from((1, keys, 2 * keys, queries, n_keys, n_keys + 5)) | st.integers(1, n_keys))
    return {"batch": 1, "heads": draw(st.integers(1, 2)), "n_queries": n_queries, "n_keys": n_keys,
            "slots": draw(st.sampled_from((0, 1, keys, keys + 3))), "width": draw(st.sampled_from(WIDTHS)),
            "paths": draw(st.sampled_from((*SUBSETS, PATHS, PATHS))), "chunk_size": chunk_size,
            "seed": draw(st.integers(0, 1000)), "tiles": (queries, keys)}


def eager_with_keywords(*inputs, chunk_size, paths):
    return eager(*inputs, chunk_size, paths)


def agree(call, dtype):
    call = dict(call)
    weights = {"weights": call.pop("weights")} if "weights" in call else {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_tiles(monkeypatch, *call.pop("tiles", (4, 4)))
        assert_equals(eager_with_keywords, "triton", call, dtype, DEVICE, **weights)


SIZES = {"batch": 1, "heads": 2, "n_queries": 10, "n_keys": 10, "slots": 6, "width": 16, "paths": PATHS, "seed": 1}


@settings(max_examples=6)
@given(calls())
def test_float32(call):
    agree(call, torch.float32)


@pytest.mark.parametrize("changes", [
    {"chunk_size": 3, "n_keys": 14},
    {"chunk_size": 20, "n_queries": 37, "n_keys": 37, "slots": 20, "width": 128, "tiles": (16, 16)},
    {"chunk_size": 3, "paths": ("memory",), "slots": 7},
    {"chunk_size": 4, "slots": 0},
    {"chunk_size": 3, "n_keys": 11, "width": 24},                             # no power of two
], ids=str)
def test_float16(changes):
    agree(SIZES | changes, torch.float16)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device: Triton's interpreter gets bfloat16 wrong")
@settings(max_examples=10)
@given(calls())
def test_bfloat16(call):
    agree(call, torch.bfloat16)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device: hours in the interpreter")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 128])
def test_the_size_that_the_kernels_are_made_for(monkeypatch, dtype, width):
    call = SIZES | {"n_queries": 2048, "n_keys": 2048, "chunk_size": 256, "slots": 64, "width": width}
    for name, tuners in TUNED.items():
        monkeypatch.setattr(triton_launch, name, tuners)
    assert_equals(eager_with_keywords, "triton", call, dtype, DEVICE)


@pytest.mark.parametrize("changes", [
    {"chunk_size": 4},                                                        # chunks that are tiles
    {"chunk_size": 3},                                                        # chunks that begin anywhere in a tile
    {"chunk_size": 1},
    {"chunk_size": 8, "n_queries": 1, "n_keys": 1, "slots": 1},
    {"chunk_size": 8, "n_queries": 1, "n_keys": 9},                           # one new token beside a cache
    {"chunk_size": 8, "n_queries": 6, "n_keys": 13},                          # tiles of queries that chunks cut
    {"chunk_size": 4, "n_queries": 4, "n_keys": 12},                          # keys whose chunk no query is in
    {"chunk_size": 4, "tiles": (8, 2)},
    {"chunk_size": 6, "tiles": (2, 8)},
    {"chunk_size": 3, "width": 4},                                            # narrower than the narrowest tile
    {"chunk_size": 4, "width": 80},                                           # far from a power of two
], ids=str)
def test_edges(changes):
    agree(SIZES | changes, torch.float32)


@pytest.mark.parametrize("paths", SUBSETS)
def test_every_subset_of_paths(paths):
    agree(SIZES | {"heads": 1, "n_queries": 9, "n_keys": 12, "chunk_size": 5, "paths": paths}, torch.float32)


@pytest.mark.parametrize("dtype, n_keys, paths", [
    *((torch.float32, n_keys, paths) for n_keys in (9, 11) for paths in (PATHS, ("full",), ("memory",))),
    (torch.float16, 11, PATHS),
])
def test_rope_on_load(dtype, n_keys, paths):
    """The kernels turn queries and keys themselves: values and gradients are those of keys that were turned before."""
    inputs = make_inputs(1, 1, 9, n_keys, 5, 24, paths)
    tables = rope_tables(torch.arange(n_keys), rope_frequencies(24), dtype)

    def rotated(q, k, v, q_mem, k_mem, v_mem, weights, **options):
        positions = torch.arange(n_keys)
        q_mem = None if q_mem is None else q
        q, k = apply_rope(q, positions[n_keys - 9:]), apply_rope(k, positions)
        return hybrid_attention(q, k, v, q_mem, k_mem, v_mem, weights, backend="eager", **options)

    def on_load(q, k, v, q_mem, k_mem, v_mem, weights, **options):
        rope = tuple(table.to(q.device) for table in tables)
        q_mem = None if q_mem is None else q
        return hybrid_attention(q, k, v, q_mem, k_mem, v_mem, weights, rope=rope, **options)

    options = {"chunk_size": 4, "paths": paths}
    expected = value_and_gradients(rotated, rounded_to(inputs, dtype), torch.float64, **options)
    for backend, device in (("triton", DEVICE), ("sdpa", "cpu")):
        ours = value_and_gradients(on_load, inputs, dtype, device, backend=backend, **options)
        assert_agrees(ours, expected, TOLERANCES[dtype])


def test_rope_with_other_queries_for_the_bank():
    inputs = [None if x is None else x.float().to(DEVICE) for x in make_inputs(1, 1, 5, 5, 3, 16, PATHS).values()]
    tables = tuple(t.to(DEVICE) for t in rope_tables(torch.arange(5), rope_frequencies(16), torch.float32))
    ours, expected = (hybrid_attention(*inputs, chunk_size=2, rope=tables, backend=b) for b in ("triton", "eager"))
    assert gap(ours, expected) < TOLERANCES[torch.float32]


def test_scores_far_apart():
    """A chunk whose share of the full softmax is below every float32: no NaN, and the reference's numbers."""
    inputs = make_inputs(1, 1, 12, 12, 3, 16, PATHS)
    inputs["k"][:, :, :4] *= 12
    inputs["q"] *= 8
    shares = full_weights(inputs["q"], inputs["k"])[0, 0, 4:, 4:].sum(-1)
    assert (shares < 1e-45).any()
    options = {"chunk_size": 4, "paths": PATHS}
    expected = value_and_gradients(eager_with_keywords, inputs, torch.float64, **options)
    ours = value_and_gradients(hybrid_attention, inputs, torch.float32, DEVICE, backend="triton", **options)
    assert_agrees(ours, expected, 1e-3)  # float32 knows a score of some hundreds to four digits after the point


@pytest.mark.parametrize("weights", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (-0.5, 2.0, -0.5)])
def test_any_weights(weights):
    agree(SIZES | {"heads": 1, "chunk_size": 3, "weights": torch.tensor(weights)}, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("paths", [PATHS, ("full",), ("chunk", "memory")])
def test_each_row_may_have_its_own_weights(dtype, paths):
    call = SIZES | {"batch": 3, "n_queries": 5, "n_keys": 6, "slots": 3, "chunk_size": 2, "paths": paths}
    weights = randn(3, len(paths)).softmax(-1) + torch.arange(3)[:, None]  # also where there is one path, 1 by itself
    assert_equals(row_by_row(eager_with_keywords), "triton", call, dtype, DEVICE, weights=weights)


def test_a_row_that_sees_nothing_is_zero():
    inputs = {name: None if x is None else x.float().to(DEVICE).requires_grad_()
              for name, x in make_inputs(1, 2, 5, 5, 0, 16, ("memory",)).items()}
    output = fused(*inputs.values(), 2, ("memory",))
    gradients = torch.autograd.grad(output.sum(), [inputs[name] for name in ("q_mem", "weights")])
    assert not output.any() and not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("arrange", [
    lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),                 # as a projection leaves its heads
    lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),                 # features that are not dense
    lambda x: x[:, :1].expand(-1, 2, -1, -1),                                 # heads that share their memory
], ids=["heads last", "features apart", "shared"])
def test_any_strides(monkeypatch, arrange):
    use_tiles(monkeypatch, 8, 8)
    inputs = [x.float().to(DEVICE) for x in make_inputs(2, 2, 5, 7, 3, 16, PATHS).values()]
    arranged = [arrange(x) if x.dim() == 4 else x for x in inputs]
    results = []
    for tensors in (arranged, [x.clone(memory_format=torch.contiguous_format) for x in arranged]):
        leaves = [x.detach().requires_grad_() for x in tensors]
        output = fused(*leaves, 3, PATHS)
        results.append([output, *torch.autograd.grad(output.sum(), leaves)])  # of a sum: a gradient without memory
    assert all(gap(*pair) < TOLERANCES[torch.float32] for pair in zip(*results, strict=True))


def test_the_heads_of_the_output_merge_without_a_copy():
    inputs = [x.float().to(DEVICE) for x in make_inputs(2, 2, 5, 5, 3, 16, PATHS).values()]
    output = fused(*inputs, 3, PATHS)
    assert output.transpose(1, 2).flatten(-2).data_ptr() == output.data_ptr()


def test_weights_in_float32_beside_half_precision():
    """As autocast leaves them."""
    call = {"batch": 1, "heads": 1, "n_queries": 5, "n_keys": 5, "slots": 3, "width": 16, "paths": PATHS}
    *tensors, weights = (x.to(DEVICE, torch.float16) for x in make_inputs(**call).values())
    weights = weights.float().requires_grad_()
    output = fused(*tensors, weights, 2, PATHS)
    (gradient,) = torch.autograd.grad(output.sum(), weights)
    assert output.dtype == torch.float16 and gradient.dtype == torch.float32
