"""Every backend of `hybrid_attention` against the float64 loop, in values and in all seven gradients."""

import pytest
import torch
from backend_cases import assert_equals, make_inputs, row_by_row
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import loop_hybrid
from strategies import PATHS, SUBSETS, assert_one_line, gap, randn
from torch.overrides import TorchFunctionMode

from rmat_tutorial import hybrid_attention
from rmat_tutorial.kernels import resolve_backend

BACKENDS = ("eager", "sdpa", "auto")


@st.composite
def calls(draw):
    """Sizes of a random call: more keys than queries, ragged last chunk, chunk shorter or longer than the keys."""
    n_queries = draw(st.integers(1, 7))
    n_keys = n_queries + draw(st.integers(0, 5))
    return {"batch": draw(st.integers(1, 3)), "heads": draw(st.integers(1, 2)), "n_queries": n_queries,
            "n_keys": n_keys, "slots": draw(st.integers(1, 4)), "width": draw(st.sampled_from((2, 4))),
            "paths": draw(st.sampled_from(SUBSETS)), "chunk_size": draw(st.integers(1, n_keys + 3)),
            "seed": draw(st.integers(0, 1000))}


SIZES = {"batch": 2, "heads": 2, "n_queries": 5, "n_keys": 5, "slots": 3, "width": 4, "paths": PATHS, "seed": 1}


@pytest.mark.parametrize("backend", BACKENDS)
@given(calls())
@example(SIZES | {"chunk_size": 2})                                   # ragged last chunk
@example(SIZES | {"chunk_size": 5})                                   # C = L
@example(SIZES | {"chunk_size": 9})                                   # C > L: the short last segment
@example(SIZES | {"chunk_size": 1})
@example(SIZES | {"chunk_size": 3, "n_queries": 1, "n_keys": 1})
@example(SIZES | {"chunk_size": 3, "n_queries": 1, "n_keys": 7})      # one new token beside a cache
@example(SIZES | {"chunk_size": 3, "n_queries": 4, "n_keys": 8})      # new tokens that start inside a chunk
@example(SIZES | {"chunk_size": 4, "n_queries": 4, "n_keys": 8})      # new tokens that start with a chunk
def test_float64(backend, call):
    assert_equals(loop_hybrid, backend, call, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=10)
@given(calls())
def test_float32(backend, call):
    assert_equals(loop_hybrid, backend, call, torch.float32)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(backend, dtype):
    assert_equals(loop_hybrid, backend, SIZES | {"chunk_size": 2, "n_keys": 8}, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("paths", SUBSETS)
def test_every_subset_of_paths(backend, paths):
    assert_equals(loop_hybrid, backend, SIZES | {"chunk_size": 2, "paths": paths, "n_keys": 7}, torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("paths", [PATHS, ("chunk", "memory")])
def test_each_row_may_have_its_own_weights(backend, dtype, paths):
    call = SIZES | {"chunk_size": 2, "batch": 3, "paths": paths}
    assert_equals(row_by_row(loop_hybrid), backend, call, dtype, weights=randn(3, len(paths)).softmax(-1))


@pytest.mark.parametrize("backend", (*BACKENDS, "flex"))
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_weights_in_float32_leave_the_output_in_half_precision(backend):
    """As autocast leaves them, whether each row has its own or not."""
    *tensors, weights = (x.bfloat16() for x in make_inputs(2, 2, 5, 5, 3, 16, PATHS).values())
    outputs = [resolve_backend(backend)(*tensors, λ, 2, PATHS) for λ in (weights.float(), weights.float().expand(2, 3))]
    assert {output.dtype for output in outputs} == {torch.bfloat16}
    assert gap(*outputs) < 1e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_bank_adds_nothing(backend):
    inputs = make_inputs(2, 2, 4, 4, 0, 4, PATHS)
    with_bank = hybrid_attention(*inputs.values(), chunk_size=2, backend=backend)
    local = [inputs[name] for name in ("q", "k", "v")]
    without = hybrid_attention(*local, None, None, None, inputs["weights"][:2], chunk_size=2,
                               paths=("full", "chunk"), backend=backend)
    assert gap(with_bank, without) < 1e-14


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_flow_through_an_empty_bank(backend):
    inputs = make_inputs(1, 2, 3, 3, 0, 4, ("memory",))
    inputs["q_mem"].requires_grad_()
    output = hybrid_attention(*inputs.values(), chunk_size=2, paths=("memory",), backend=backend)
    gradient, = torch.autograd.grad(output.sum(), inputs["q_mem"])
    assert not gradient.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_contiguous_inputs(backend):
    inputs = make_inputs(2, 2, 5, 5, 3, 4, PATHS)
    strided = {name: t if t.dim() == 1 else t.transpose(1, 2).contiguous().transpose(1, 2)
               for name, t in inputs.items()}
    assert not strided["q"].is_contiguous()
    outputs = [hybrid_attention(*given_inputs.values(), chunk_size=2, backend=backend)
               for given_inputs in (inputs, strided)]
    assert gap(*outputs) < 1e-14


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_paths_are_the_default(backend):
    inputs = make_inputs(1, 1, 3, 3, 2, 4, PATHS)
    assert torch.equal(hybrid_attention(*inputs.values(), chunk_size=2, backend=backend),
                       hybrid_attention(*inputs.values(), chunk_size=2, paths=PATHS, backend=backend))


class Watch(TorchFunctionMode):
    """Notes the sizes and the mask of each call of torch's fused attention."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            self.calls.append((args[0].shape[-2], args[1].shape[-2], (kwargs or {}).get("attn_mask")))
        return function(*args, **(kwargs or {}))


def test_sdpa_folds_chunks_into_the_batch_and_builds_no_mask():
    inputs = make_inputs(1, 2, 8, 8, 3, 4, PATHS)
    with Watch() as watch:
        hybrid_attention(*inputs.values(), chunk_size=2, backend="sdpa")
    assert {(queries, keys) for queries, keys, _ in watch.calls} == {(8, 8), (2, 2), (8, 3)}
    assert len(watch.calls) == 3 and all(mask is None for *_, mask in watch.calls)


INPUTS = make_inputs(1, 2, 4, 4, 3, 6, PATHS)
NAN = float("nan")


def attend(paths=PATHS, chunk_size=2, backend="eager", **changes):
    return hybrid_attention(*(INPUTS | changes).values(), chunk_size=chunk_size, paths=paths, backend=backend)


@pytest.mark.parametrize("backend", ("eager", "sdpa"))
@pytest.mark.parametrize("changes, kind, fragments", [
    ({"paths": ("full", "local", "memory")}, ValueError, ["paths", "'local'", "'chunk'"]),
    ({"paths": ()}, ValueError, ["paths", "()"]),
    ({"paths": ("full", "full", "memory")}, ValueError, ["paths", "once"]),
    ({"paths": "full"}, TypeError, ["paths", "'full'", "tuple"]),
    ({"weights": INPUTS["weights"][:2]}, ValueError, ["weights", "3", "(2,)"]),
    ({"weights": INPUTS["weights"].expand(2, 3)}, ValueError, ["weights", "B = 1", "(2, 3)"]),
    ({"weights": INPUTS["weights"].float()}, TypeError, ["weights", "float32", "float64"]),
    ({"chunk_size": 0}, ValueError, ["chunk_size", "0", "at least 1"]),
    ({"q_mem": None}, (ValueError, TypeError), ["q_mem"]),
    ({"k_mem": None, "v_mem": None}, (ValueError, TypeError), ["k_mem"]),
    ({"k_mem": INPUTS["k_mem"][:, :1]}, ValueError, ["k_mem", "2", "(1, 1, 3, 6)"]),
    ({"q_mem": INPUTS["q_mem"][:, :, :2]}, ValueError, ["q_mem", "4", "(1, 2, 2, 6)"]),
    ({"q": INPUTS["q"] * NAN}, ValueError, ["q", "NaN"]),
    ({"v_mem": INPUTS["v_mem"] * NAN}, ValueError, ["v_mem", "NaN"]),
    ({"weights": INPUTS["weights"] * NAN}, ValueError, ["weights", "NaN"]),
    ({"k": INPUTS["k"][:, :, :2], "v": INPUTS["v"][:, :, :2]}, ValueError, ["k", "4", "2"]),
    ({"q": INPUTS["q"][:, :, :0], "q_mem": INPUTS["q"][:, :, :0]}, ValueError, ["q", "empty"]),
    ({"v": INPUTS["v"].float()}, TypeError, ["v", "float32", "float64"]),
    ({"k": INPUTS["k"].long()}, TypeError, ["k", "int64"]),
])
def test_bad_input(backend, changes, kind, fragments):
    with pytest.raises(kind) as error:
        attend(**{"backend": backend} | changes)
    assert_one_line(str(error.value), *fragments)


def test_unknown_backend():
    with pytest.raises(ValueError) as error:
        attend(backend="cudnn")
    assert_one_line(str(error.value), "backend", "'cudnn'", "'eager'", "'sdpa'", "'auto'")
