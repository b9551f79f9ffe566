"""Each baseline sees exactly as far back as its kind says: by gradients, and by what a changed token changes."""

import pytest
import torch
from baseline_strategies import baseline_configs, make_baseline
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_tokens, read_in_pieces, splits
from test_causality import influence, leaks

from rmat_tutorial.baselines import KINDS, BaselineConfig

LENGTH = 23
every_kind = pytest.mark.parametrize("kind", KINDS)


def moves(config: BaselineConfig, length: int, *, by_gradient: bool) -> torch.Tensor:
    """(T, T): whether token s moves output t, through all layers; as a value, or also by a gradient."""
    t, s = torch.meshgrid(torch.arange(length), torch.arange(length), indexing="ij")
    segments_back = t // config.segment_len - s // config.segment_len
    reach = {
        "full": torch.ones(length, length, dtype=torch.bool),
        "segment": segments_back == 0,
        "window": t - s <= config.n_layers * (config.window - 1) if config.kind == "window" else None,
        "transformer-xl": segments_back <= (0 if by_gradient else config.n_layers),
        "rmt": torch.ones(length, length, dtype=torch.bool),
    }
    return (s <= t) & reach[config.kind]


def changed_outputs(model, tokens: torch.Tensor) -> torch.Tensor:
    """(T, T): whether the logits at t are others when token s is."""
    before = model(tokens).logits
    columns = []
    for s in range(tokens.shape[1]):
        other = tokens.clone()
        other[:, s] = (other[:, s] + 1) % model.config.vocab_size
        columns.append((model(other).logits != before).any(-1)[0])
    return torch.stack(columns, 1)


@every_kind
@settings(max_examples=12)
@given(st.data(), st.integers(0, 1000))
def test_gradients_reach_as_far_as_the_kind_says(kind, data, seed):
    config = data.draw(baseline_configs(kind, vocab_size=64))
    length = min(2 * config.segment_len + data.draw(st.integers(1, config.segment_len)), 16)
    found = influence(make_baseline(config, seed=seed), 2, length, data.draw(splits(length)))
    assert leaks(found) == []
    expected = moves(config, length, by_gradient=True)
    for row in range(2):
        assert torch.equal(found[row, :, row] != 0, expected)


@every_kind
@pytest.mark.parametrize("n_layers", (1, 2, 3))
@torch.no_grad()
def test_values_reach_as_far_as_the_kind_says(kind, n_layers):
    model = make_baseline(kind, n_layers=n_layers)
    expected = moves(model.config, LENGTH, by_gradient=False)
    assert kind in ("full", "rmt") or not expected[LENGTH - 1].all(), "too short a stream to see where the reach ends"
    assert torch.equal(changed_outputs(model, random_tokens(1, LENGTH)), expected)


@pytest.mark.parametrize("window", (1, 2, 4, 9))
@torch.no_grad()
def test_a_window_does_not_know_of_segments(window):
    """Whatever the segment length, the same logits; a window as long as the stream is full attention."""
    tokens = random_tokens(2, LENGTH)
    logits = [make_baseline("window", window=window, segment_len=length)(tokens).logits for length in (1, 3, 5, 40)]
    assert all(torch.allclose(other, logits[0], rtol=0, atol=1e-10) for other in logits[1:])
    full = make_baseline("full")(tokens).logits
    assert not torch.allclose(full, logits[0])
    assert torch.allclose(make_baseline("window", window=LENGTH)(tokens).logits, full, rtol=0, atol=1e-10)


@torch.no_grad()
def test_kinds_agree_where_they_see_the_same():
    """In the first segment segment-only, Transformer-XL and full attention see the same; in the second the last two."""
    tokens = random_tokens(2, 15)
    full, segment, xl = (make_baseline(kind)(tokens).logits for kind in ("full", "segment", "transformer-xl"))
    for logits, until in ((segment, 5), (xl, 10)):
        assert torch.allclose(logits[:, :until], full[:, :until], rtol=0, atol=1e-10)
        assert not torch.allclose(logits[:, until:], full[:, until:], rtol=0, atol=1e-3)


@torch.no_grad()
def test_the_memory_is_written_as_soon_as_a_segment_is_complete():
    model, tokens = make_baseline("rmt"), random_tokens(1, 5)
    start = model.init_state(1)
    unfinished = model(tokens[:, :4], start).state
    finished = model(tokens[:, 4:], unfinished).state
    assert torch.equal(start.memory[0], unfinished.memory[0])
    assert (start.memory[0] - finished.memory[0]).abs().max() > 1e-3
    assert (unfinished.position, finished.position) == (4, 0)


def test_gradients_flow_through_the_memory_for_many_segments():
    model, tokens = make_baseline("rmt"), torch.arange(50)[None]
    logits, _ = read_in_pieces(model, tokens, [7] * 7 + [1])
    gradient, = torch.autograd.grad(logits[0, -1].square().sum(), model.embed.weight)
    assert (gradient[:50] != 0).any(-1).all()
