"""The whole model against the loops, its state, and what its parameters are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import loop_model
from strategies import SUBSETS, configs, gap, make_model, random_tokens

from rmat_tutorial import RMAT, RMATConfig, RMATOutput, RMATState


@settings(max_examples=15)
@given(configs(), st.integers(1, 2), st.integers(1, 14), st.integers(0, 1000))
def test_logits_equal_the_loops(config, batch, length, seed):
    model, tokens = make_model(config, seed=seed), random_tokens(batch, length, seed=seed)
    assert gap(model(tokens).logits, loop_model(model, tokens)) < 1e-10


@pytest.mark.parametrize("backend", ("eager", "sdpa"))
def test_gradients_equal_the_loops(backend):
    model, tokens = make_model(backend=backend), random_tokens(2, 12)
    gradients = []
    for logits in (model(tokens).logits, loop_model(model, tokens)):
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(-1, 1).flatten())
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for (name, _), ours, theirs in zip(model.named_parameters(), *gradients, strict=True):
        assert theirs.any(), f"{name} has no gradient, so that nothing is compared"
        assert gap(ours, theirs) < 1e-10, name


def test_output_and_state_have_the_promised_shapes():
    model = make_model()
    output = model(random_tokens(3, 12))
    assert isinstance(output, RMATOutput) and isinstance(output.state, RMATState)
    assert output.logits.shape == (3, 12, 60)
    assert [tuple(bank.shape) for bank in output.state.memory] == [(3, 4, 8)] * 2
    assert (output.state.position, output.state.batch_size) == (2, 3)
    logits, state = output
    assert logits is output.logits and state is output.state


@pytest.mark.parametrize("paths", [paths for paths in SUBSETS if "memory" not in paths])
def test_a_model_without_memory_has_no_memory(paths):
    model = make_model(paths=paths)
    output = model(random_tokens(1, 7))
    assert output.state.memory == ()
    assert model.init_state(1).memory == ()
    assert not [name for name, _ in model.named_parameters() if "mem" in name or "slots" in name]


@pytest.mark.parametrize("paths", [paths for paths in SUBSETS if "memory" not in paths])
def test_a_model_without_memory_starts_anew_with_each_segment(paths):
    model, tokens = make_model(paths=paths), random_tokens(2, 10)
    assert gap(model(tokens).logits[:, 5:], model(tokens[:, 5:]).logits) < 1e-12


def test_a_model_with_memory_does_not():
    model, tokens = make_model(), random_tokens(2, 10)
    assert gap(model(tokens).logits[:, 5:], model(tokens[:, 5:]).logits) > 1e-4


def test_one_seed_makes_one_model():
    first, again = (make_model(seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.embed.weight, make_model(seed=4).embed.weight)


def test_a_segment_boundary_writes_at_once():
    """The write happens as soon as the segment's last token was read, not with the next token."""
    model, tokens = make_model(), random_tokens(1, 5)
    start = model.init_state(1)
    unfinished = model(tokens[:, :4], start).state
    finished = model(tokens[:, 4:], unfinished).state
    assert all(torch.equal(a, b) for a, b in zip(start.memory, unfinished.memory, strict=True))
    assert all(gap(a, b) > 1e-3 for a, b in zip(start.memory, finished.memory, strict=True))
    assert (unfinished.position, finished.position) == (4, 0)


def test_no_state_is_a_fresh_state():
    model, tokens = make_model(), random_tokens(2, 8)
    assert torch.equal(model(tokens).logits, model(tokens, model.init_state(2)).logits)


@pytest.mark.parametrize("backend", ("eager", "sdpa", "auto"))
def test_backends_agree(backend):
    tokens = random_tokens(2, 13)
    assert gap(make_model(backend=backend)(tokens).logits, make_model(backend="eager")(tokens).logits) < 1e-10


def test_dropout_acts_in_training_only():
    model, tokens = make_model(dropout=0.5), random_tokens(1, 8)
    assert torch.equal(model(tokens).logits, model(tokens).logits)
    model.train()
    assert not torch.equal(model(tokens).logits, model(tokens).logits)


def test_inference_mode_leaves_nothing_that_training_cannot_use():
    """A base of its own, so that no table of cosines was made before."""
    model, tokens = make_model(rope_base=1234.5), random_tokens(1, 8)
    with torch.inference_mode():
        expected = model(tokens).logits.clone()
    logits = model(tokens).logits
    logits.sum().backward()
    assert torch.equal(logits, expected) and model.embed.weight.grad.any()


def test_default_configuration_runs():
    torch.manual_seed(0)
    model = RMAT(RMATConfig())
    logits = model(random_tokens(1, 70, 256)).logits
    assert logits.shape == (1, 70, 256) and torch.isfinite(logits).all()
