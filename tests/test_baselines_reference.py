"""Every baseline equals the loops, in values and in every gradient, and reads with its present weights."""

import pytest
import torch
from baseline_reference import loop_baseline
from baseline_strategies import baseline_configs, make_baseline
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import gap, random_tokens, read_in_pieces, splits

from rmat_tutorial.baselines import KINDS


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12)
@given(st.data(), st.integers(1, 2), st.integers(1, 13), st.integers(0, 1000))
@torch.no_grad()
def test_logits_equal_the_loops(kind, data, batch, length, seed):
    model, tokens = make_baseline(data.draw(baseline_configs(kind)), seed=seed), random_tokens(batch, length, seed=seed)
    logits, _ = read_in_pieces(model, tokens, data.draw(splits(length)))
    assert gap(logits, loop_baseline(model, tokens)) < 1e-10


@pytest.mark.parametrize("sizes", ([13], [5, 5, 3], [2, 1, 1, 4, 3, 2]), ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_equal_the_loops(kind, sizes):
    model, tokens = make_baseline(kind), random_tokens(2, 13)
    gradients = []
    for logits in (read_in_pieces(model, tokens, sizes)[0], loop_baseline(model, tokens)):
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(-1, 1).flatten())
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for (name, _), ours, theirs in zip(model.named_parameters(), *gradients, strict=True):
        assert theirs.any(), f"{name} has no gradient, so that nothing is compared"
        assert gap(ours, theirs) < 1e-10, name


@pytest.mark.parametrize("kind, parts", [
    ("full", 0), ("segment", 0), ("window", 0), ("transformer-xl", 0), ("rmt", 1),
])
def test_the_parts_are_those_of_a_plain_transformer(kind, parts):
    """All kinds have one set of weights, but for the memory tokens."""
    names = {name for name, _ in make_baseline(kind).named_parameters()}
    plain = {name for name, _ in make_baseline("full").named_parameters()}
    assert names - plain == ({"memory"} if parts else set()) and plain <= names


@torch.no_grad()
def test_transformer_xl_makes_keys_and_values_of_the_cache_with_its_present_weights():
    """In one layer the cached inputs are embeddings, so that new projections read them as if they had always been."""
    model, tokens = make_baseline("transformer-xl", n_layers=1), random_tokens(2, 9)
    state = model(tokens[:, :5]).state
    before = model(tokens[:, 5:], state).logits
    model.blocks[0].to_k.weight.mul_(-2)
    model.blocks[0].to_v.weight.add_(1)
    after = model(tokens[:, 5:], state).logits
    assert gap(after, model(tokens).logits[:, 5:]) < 1e-12
    assert gap(after, before) > 1e-3
