"""The mask, the fold and the count of chunked attention are those of ``chunked_attention``, at every length."""

from itertools import product

import torch

from rmat_tutorial import chunked_attention
from rmat_tutorial.attention import causal_softmax, chunked_weights, scaled_scores
from rmat_tutorial.chunks import chunk_mask, fold, pairs, unfold

SIZES = [*product(range(1, 21), range(1, 11))]


def test_mask_and_pairs_are_those_of_the_chunked_attention():
    for T, C in SIZES:
        x = torch.ones(1, 1, T, 2)
        assert torch.equal(chunk_mask(T, C), chunked_weights(x, x, C)[0, 0] > 0)
        assert pairs(T, C) == chunk_mask(T, C).sum()


def test_folding_and_back_is_nothing_and_the_padding_is_zero():
    for T, C in SIZES:
        x = torch.arange(1.0, 6 * T + 1).reshape(1, 2, T, 3)
        folded = fold(x, C)
        assert folded.shape == (1, 2, -(-T // C), C, 3)
        assert torch.equal(unfold(folded, T), x) and folded.count_nonzero() == x.numel()


def test_attention_of_the_folded_is_chunked_attention():
    for T, C in SIZES:
        torch.manual_seed(T)
        q, k, v = torch.randn(3, 2, 2, T, 4, dtype=torch.float64)
        attended = causal_softmax(scaled_scores(fold(q, C), fold(k, C))) @ fold(v, C)
        assert torch.allclose(unfold(attended, T), chunked_attention(q, k, v, C), atol=1e-12)
