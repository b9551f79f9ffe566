"""The backend on FlexAttention: the numbers of the reference with one launch, and gradients where torch has them."""

from unittest import mock

import pytest
import torch
from backend_cases import assert_agrees, assert_equals, make_inputs, rounded_to, row_by_row
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import PATHS, SUBSETS, assert_one_line, make_model, randn, random_tokens

from rmat_tutorial import hybrid_attention
from rmat_tutorial.kernels import flex as flex_module
from rmat_tutorial.kernels.eager import eager
from rmat_tutorial.kernels.limits import TOLERANCES

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.fixture(autouse=True, scope="module")
def one_compiler_cache():
    """What FlexAttention has compiled for other shapes counts against a limit."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@st.composite
def calls(draw):
    n_queries = draw(st.integers(1, 150))
    n_keys = n_queries + draw(st.sampled_from((0, 0, 3, 130)))
    return {"batch": draw(st.integers(1, 2)), "heads": draw(st.integers(1, 2)), "n_queries": n_queries,
            "n_keys": n_keys, "slots": draw(st.sampled_from((0, 1, 5))), "width": draw(st.sampled_from((2, 16, 24))),
            "paths": draw(st.sampled_from(SUBSETS)), "chunk_size": draw(st.integers(1, n_keys + 3)),
            "seed": draw(st.integers(0, 1000))}


def assert_values_equal(call, dtype):
    call = dict(call)
    chunk_size = call.pop("chunk_size")
    inputs = make_inputs(**call)
    ours = hybrid_attention(*(x if x is None else x.to(dtype) for x in inputs.values()), chunk_size=chunk_size,
                            paths=call["paths"], backend="flex")
    assert ours.dtype == dtype
    expected = eager(*rounded_to(inputs, dtype).values(), chunk_size, call["paths"])
    assert_agrees({"output": ours}, {"output": expected}, TOLERANCES[dtype])


@settings(max_examples=8)
@given(calls())
def test_float64(call):
    assert_values_equal(call, torch.float64)


SIZES = {"batch": 2, "heads": 2, "n_queries": 9, "n_keys": 13, "slots": 3, "width": 16, "paths": PATHS, "seed": 1,
         "chunk_size": 4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_dtypes(dtype):
    assert_values_equal(SIZES, dtype)


def test_each_row_may_have_its_own_weights():
    inputs = make_inputs(3, 2, 9, 13, 3, 16, PATHS) | {"weights": randn(3, 3).softmax(-1)}
    ours, theirs = (attend(*inputs.values(), chunk_size=4, paths=PATHS, backend=backend) for attend, backend in (
        (hybrid_attention, "flex"), (row_by_row(hybrid_attention), "eager")))
    assert_agrees({"output": ours}, {"output": theirs}, TOLERANCES[torch.float64])


@pytest.mark.parametrize("paths", [PATHS, ("memory",)])
def test_an_empty_bank_adds_nothing(paths):
    assert_values_equal(SIZES | {"slots": 0, "paths": paths}, torch.float64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: torch has no backward for it elsewhere")
@pytest.mark.parametrize("paths", SUBSETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_gradients(paths, dtype):
    def reference(*inputs, chunk_size, paths):
        return eager(*inputs, chunk_size, paths)

    assert_equals(reference, "flex", SIZES | {"paths": paths}, dtype, "cuda")


def test_one_launch():
    inputs = make_inputs(1, 2, 9, 9, 3, 16, PATHS)
    with mock.patch.object(flex_module, "attention") as attention:
        attention.return_value.side_effect = lambda q, *others, **options: torch.zeros_like(q)
        hybrid_attention(*inputs.values(), chunk_size=4, backend="flex")
    assert attention.return_value.call_count == 1


def test_no_gradient_without_a_word():
    """Where there is no backward a call that wants one says so; the same call without gradients runs."""
    inputs = make_inputs(1, 1, 3, 3, 2, 16, PATHS)
    inputs["k"].requires_grad_()
    with pytest.raises(NotImplementedError) as error:
        hybrid_attention(*inputs.values(), chunk_size=2, backend="flex")
    assert_one_line(str(error.value), "'flex'", "no backward", "cpu", "'sdpa'", "no_grad")
    with torch.no_grad():
        hybrid_attention(*inputs.values(), chunk_size=2, backend="flex")


def test_a_model_reads_the_same():
    tokens = random_tokens(2, 12)
    with torch.no_grad():
        ours, expected = (make_model(backend=backend)(tokens).logits for backend in ("flex", "eager"))
    assert_agrees({"logits": ours}, {"logits": expected}, 1e-9)
