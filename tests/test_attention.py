"""The three readable attentions and their weight matrices against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import loop_attention
from strategies import assert_one_line, gap, randn

from rmat_tutorial import attention, chunked_attention, full_attention, memory_attention


@st.composite
def segments(draw):
    """Random q, k, v and a chunk size; the keys may be more than the queries, the chunk longer than the segment."""
    batch, heads, n_queries, width = (draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 6)),
                                      draw(st.sampled_from((1, 2, 4))))
    n_keys = n_queries + draw(st.integers(0, 4))
    seed = draw(st.integers(0, 1000))
    q, k, v = (randn(batch, heads, n, width, seed=seed + i) * 2 for i, n in enumerate((n_queries, n_keys, n_keys)))
    return q, k, v, draw(st.integers(1, n_keys + 2))


def gradients(output, inputs):
    return torch.autograd.grad((output * randn(*output.shape, seed=99)).sum(), inputs)


def assert_same(ours, theirs, inputs, tolerance=1e-11):
    assert gap(ours, theirs) < tolerance
    for a, b in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        assert gap(a, b) < tolerance


@given(segments())
def test_full_attention(drawn):
    inputs = [t.requires_grad_() for t in drawn[:3]]
    expected, weights = loop_attention(*inputs, "full")
    assert_same(full_attention(*inputs), expected, inputs)
    assert gap(attention.full_weights(*inputs[:2]), weights) < 1e-12


@given(segments())
def test_chunked_attention(drawn):
    inputs, chunk_size = [t.requires_grad_() for t in drawn[:3]], drawn[3]
    expected, weights = loop_attention(*inputs, "chunk", chunk_size)
    assert_same(chunked_attention(*inputs, chunk_size), expected, inputs)
    assert gap(attention.chunked_weights(*inputs[:2], chunk_size), weights) < 1e-12


@given(segments(), st.integers(1, 5))
def test_memory_attention(drawn, slots):
    q = drawn[0].requires_grad_()
    k_mem, v_mem = (randn(*q.shape[:2], slots, q.shape[3], seed=s).requires_grad_() for s in (7, 8))
    expected, weights = loop_attention(q, k_mem, v_mem, "memory")
    assert_same(memory_attention(q, k_mem, v_mem), expected, [q, k_mem, v_mem])
    assert gap(attention.memory_weights(q, k_mem), weights) < 1e-12


def test_three_tokens_by_hand():
    q = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64).view(1, 1, 3, 1)
    k = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64).view(1, 1, 3, 1).log1p()  # e^k = 1, 2, 2
    v = torch.tensor([3.0, 6.0, 9.0], dtype=torch.float64).view(1, 1, 3, 1)
    by_hand = [3.0, (3 + 6) / 2, (3 * 1 + 6 * 4 + 9 * 4) / 9]
    assert full_attention(q, k, v).flatten().tolist() == pytest.approx(by_hand)
    assert chunked_attention(q, k, v, 2).flatten().tolist() == pytest.approx([*by_hand[:2], 9.0])
    assert memory_attention(q, k, v).flatten().tolist() == pytest.approx([(3 + 12 + 18) / 5, 6.0, 7.0])


@given(segments())
def test_a_chunk_as_long_as_the_segment_is_full_attention_and_one_of_one_is_the_value(drawn):
    q, k, v, _ = drawn
    assert torch.equal(chunked_attention(q, k, v, k.shape[2]), full_attention(q, k, v))
    assert gap(chunked_attention(q, k, v, 1), v[:, :, -q.shape[2]:]) < 1e-14


def test_large_scores_stay_finite():
    q, k, v = (randn(1, 1, 6, 4, seed=s, dtype=torch.float32) for s in range(3))
    for output in (full_attention(q * 1e4, k * 1e4, v), chunked_attention(q * 1e4, k * 1e4, v, 2),
                   memory_attention(q * 1e4, k * 1e4, v)):
        assert torch.isfinite(output).all()
        assert output.abs().max() <= v.abs().max() * 1.00001


def test_fuse_weighs_with_the_softmax_of_mix():
    outputs, mix = randn(3, 2, 5), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    shares = mix.exp() / mix.exp().sum()
    assert gap(attention.fuse(outputs, mix), sum(s * o for s, o in zip(shares, outputs, strict=True))) < 1e-12
    alone = torch.tensor([0.0, -torch.inf, -torch.inf], dtype=torch.float64)
    assert torch.equal(attention.fuse(outputs, alone), outputs[0])


def test_an_empty_bank_adds_nothing():
    q, empty = randn(1, 2, 3, 4), randn(1, 2, 0, 4)
    assert torch.equal(memory_attention(q, empty, empty), torch.zeros_like(q))


SHAPE = (1, 2, 4, 6)
GOOD = randn(*SHAPE)
NAN = GOOD.clone()
NAN[0, 1, 2, 3] = float("nan")


@pytest.mark.parametrize("call, kind, fragments", [
    (lambda: full_attention(GOOD[0], GOOD, GOOD), ValueError, ["q", "(B, H, L, d_h)", "(2, 4, 6)"]),
    (lambda: full_attention(GOOD, GOOD[..., :4], GOOD), ValueError, ["k", "6", "(1, 2, 4, 4)"]),
    (lambda: full_attention(GOOD, GOOD, GOOD[:, :1]), ValueError, ["v", "2", "(1, 1, 4, 6)"]),
    (lambda: full_attention(GOOD, GOOD, GOOD[:, :, :3]), ValueError, ["v", "4", "(1, 2, 3, 6)"]),
    (lambda: full_attention(GOOD, GOOD[:, :, :3], GOOD[:, :, :3]), ValueError, ["k", "4", "3"]),
    (lambda: full_attention(GOOD.long(), GOOD, GOOD), TypeError, ["q", "int64", "floating"]),
    (lambda: full_attention(GOOD, GOOD.float(), GOOD), TypeError, ["k", "float32", "float64"]),
    (lambda: full_attention(GOOD.tolist(), GOOD, GOOD), TypeError, ["q", "list", "Tensor"]),
    (lambda: full_attention(GOOD, GOOD, NAN), ValueError, ["v", "NaN"]),
    (lambda: full_attention(GOOD[:, :, :0], GOOD, GOOD), ValueError, ["q", "empty"]),
    (lambda: chunked_attention(NAN, GOOD, GOOD, 2), ValueError, ["q", "NaN"]),
    (lambda: chunked_attention(GOOD, GOOD, GOOD, 0), ValueError, ["chunk_size", "at least 1", "0"]),
    (lambda: chunked_attention(GOOD, GOOD, GOOD, 2.0), TypeError, ["chunk_size", "2.0", "int"]),
    (lambda: memory_attention(GOOD, GOOD[:, :, :2], GOOD[:, :, :3]), ValueError, ["v_mem", "2", "(1, 2, 3, 6)"]),
    (lambda: memory_attention(GOOD, NAN, GOOD), ValueError, ["k_mem", "NaN"]),
    (lambda: memory_attention(GOOD[:, :, :0], GOOD, GOOD), ValueError, ["q is empty", "(1, 2, 0, 6)"]),
    (lambda: memory_attention(GOOD.tolist(), GOOD, GOOD), TypeError, ["q must", "list"]),
    (lambda: full_attention(*[GOOD[:0]] * 3), ValueError, ["q is empty", "(0, 2, 4, 6)"]),
    (lambda: full_attention(*[GOOD[..., :0]] * 3), ValueError, ["q is empty", "(1, 2, 4, 0)"]),
])
def test_bad_input(call, kind, fragments):
    with pytest.raises(kind) as error:
        call()
    assert_one_line(str(error.value), *fragments)
