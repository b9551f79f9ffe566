"""Generation against repeated forward calls, its settings, and its state."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import assert_one_line, configs, gap, make_model, random_tokens

from rmat_tutorial import language_model


def greedy_by_hand(model, prompt, count):
    """The most likely next token `count` times, each from a full reading of everything so far."""
    tokens = prompt
    for _ in range(count):
        with torch.no_grad():
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], 1)
    return tokens[:, prompt.shape[1] :]


@settings(max_examples=25)
@given(configs(), st.integers(1, 3), st.integers(1, 12), st.integers(1, 15), st.integers(0, 1000))
def test_greedy_equals_repeated_full_reading(config, batch, prompt_length, count, seed):
    model, prompt = make_model(config, seed=seed), random_tokens(batch, prompt_length, seed=seed)
    assert torch.equal(model.generate(prompt, count, temperature=0.0).tokens, greedy_by_hand(model, prompt, count))


def test_greedy_over_several_segment_boundaries():
    model, prompt = make_model(), random_tokens(2, 3)
    tokens = model.generate(prompt, 29, temperature=0.0).tokens
    assert torch.equal(tokens, greedy_by_hand(model, prompt, 29))
    assert tokens.unique().numel() > 2, "a model that repeats one token tests nothing"


@pytest.mark.parametrize("sampling", ({"temperature": 0.0}, {"temperature": 0.7, "top_k": 1}))
def test_top_k_of_one_is_greedy(sampling):
    model, prompt = make_model(), random_tokens(2, 3)
    assert torch.equal(model.generate(prompt, 12, **sampling).tokens, greedy_by_hand(model, prompt, 12))


def test_a_seed_makes_the_draw_repeatable():
    model, prompt = make_model(), random_tokens(2, 4)
    draws = [model.generate(prompt, 20, seed=seed).tokens for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_seed_leaves_the_global_generator_alone_and_without_one_it_is_used():
    model, prompt = make_model(), random_tokens(2, 4)
    torch.manual_seed(5)
    model.generate(prompt, 5, seed=1)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    draws = []
    for _ in range(2):
        torch.manual_seed(6)
        draws.append(model.generate(prompt, 15).tokens)
    assert torch.equal(*draws)


def test_draws_follow_the_distribution():
    """4000 rows of one prompt: the frequency of each token is its probability, at two temperatures and with top-k."""
    model, prompt = make_model(vocab_size=6, dtype=torch.float32), torch.tensor([[2, 3]])
    logits = model(prompt).logits[0, -1].detach()
    for temperature, top_k in ((1.0, None), (0.5, None), (3.0, None), (1.0, 3)):
        scores = logits / temperature
        if top_k is not None:
            scores = scores.masked_fill(scores < scores.sort(descending=True).values[top_k - 1], -torch.inf)
        tokens = model.generate(prompt.expand(4000, 2), 1, temperature=temperature, top_k=top_k, seed=0).tokens
        frequencies = torch.bincount(tokens.flatten(), minlength=6) / 4000
        assert gap(frequencies, scores.softmax(0)) < 0.03  # four standard deviations of a frequency of one half
        assert top_k is None or (frequencies > 0).sum() <= top_k


@pytest.mark.parametrize("temperature", (1e-6, 1e-300, 1e6))
def test_extreme_temperatures_are_numbers(temperature):
    model, prompt = make_model(dtype=torch.float32), random_tokens(2, 3)
    tokens = model.generate(prompt, 10, temperature=temperature, seed=0).tokens
    assert ((tokens >= 0) & (tokens < 60)).all()
    if temperature < 1e-3:
        assert torch.equal(tokens, greedy_by_hand(model, prompt, 10))


@given(st.integers(1, 9), st.integers(1, 14), st.integers(1, 14))
@settings(max_examples=25)
def test_the_state_continues_where_the_tokens_ended(prompt_length, first, second):
    """Two generations, the second from the first's last token and state, are one long generation."""
    model, prompt = make_model(), random_tokens(2, prompt_length)
    long = model.generate(prompt, first + second, temperature=0.0)
    start = model.generate(prompt, first, temperature=0.0)
    rest = model.generate(start.tokens[:, -1:], second, state=start.state, temperature=0.0)
    assert torch.equal(torch.cat([start.tokens, rest.tokens], 1), long.tokens)
    read = prompt_length + first - 1
    assert start.state.position == read % 5
    replayed = model(torch.cat([prompt, start.tokens[:, :-1]], 1)).state
    for a, b in zip(start.state.memory, replayed.memory, strict=True):
        assert gap(a, b) < 1e-10


def test_a_state_that_goes_in_is_used_and_not_changed():
    model, tokens = make_model(), random_tokens(2, 9)
    state = model(tokens[:, :7]).state
    banks = [bank.clone() for bank in state.memory]
    from_state = model.generate(tokens[:, 7:], 10, state, temperature=0.0).tokens
    assert torch.equal(from_state, model.generate(tokens, 10, temperature=0.0).tokens)
    assert not torch.equal(from_state, model.generate(tokens[:, 7:], 10, temperature=0.0).tokens)
    assert state.position == 2 and all(torch.equal(a, b) for a, b in zip(banks, state.memory, strict=True))


def test_a_prompt_of_many_segments_reads_like_a_forward():
    model, prompt = make_model(), random_tokens(1, 203)
    generation = model.generate(prompt, 3, temperature=0.0)
    assert torch.equal(generation.tokens, greedy_by_hand(model, prompt, 3))


def stopping(wanted):
    """A model, two prompts, their free greedy continuation of 20 tokens, and a token on which `wanted` agrees.

    `wanted` sees the first places of a token in the two rows, or None where a row never draws it.
    """
    for seed in range(100):
        model, prompt = make_model(seed=seed), random_tokens(2, 3, seed=seed)
        free = model.generate(prompt, 20, temperature=0.0).tokens
        rows = free.tolist()
        for token in rows[0]:
            places = [row.index(token) if token in row else None for row in rows]
            if wanted(*places):
                return model, prompt, free, token, places
    raise AssertionError("no seed below 100 makes such a case")


def test_a_row_that_stopped_repeats_the_stop_token_while_the_others_go_on():
    model, prompt, free, token, (at, _) = stopping(lambda first, second: first and second is None)
    tokens = model.generate(prompt, 20, temperature=0.0, stop_token=token).tokens
    assert tokens.shape == (2, 20)
    assert torch.equal(tokens[1], free[1])
    assert torch.equal(tokens[0, : at + 1], free[0, : at + 1])
    assert (tokens[0, at:] == token).all()


def test_generation_ends_when_every_row_has_stopped():
    model, prompt, free, token, (first, second) = stopping(lambda a, b: a and b and a < b < 15)
    generation = model.generate(prompt, 20, temperature=0.0, stop_token=token)
    assert generation.tokens.shape == (2, second + 1)
    assert torch.equal(generation.tokens[1], free[1, : second + 1])
    assert generation.state.position == (3 + second) % 5
    alone = model.generate(prompt[:1], 20, temperature=0.0, stop_token=token)
    assert torch.equal(alone.tokens, free[:1, : first + 1])


def test_generation_needs_no_gradient_and_leaves_the_mode_as_it_was():
    model, prompt = make_model(dropout=0.5), random_tokens(1, 3)
    expected = model.generate(prompt, 8, temperature=0.0)
    assert not expected.state.memory[0].requires_grad
    model.train()
    assert torch.equal(model.generate(prompt, 8, temperature=0.0).tokens, expected.tokens)
    assert all(module.training for module in model.modules())
    with pytest.raises(ValueError):
        model.generate(prompt, 8, state=model.init_state(2))
    assert all(module.training for module in model.modules()), "an error left the model in eval mode"


@pytest.mark.parametrize("count, progress, shown", [
    (5, None, False), (300, None, True), (300, False, False), (5, True, True),
])
def test_a_long_generation_shows_a_bar(monkeypatch, count, progress, shown):
    bars = []

    def bar(iterable, *, disable, **_):
        bars.append(not disable)
        return iterable

    monkeypatch.setattr(language_model, "tqdm", bar)
    tokens = make_model(n_layers=1).generate(random_tokens(1, 2), count, progress=progress, seed=0).tokens
    assert tokens.shape == (1, count) and bars == [shown]


MODEL = make_model()
PROMPT = random_tokens(2, 3)


@pytest.mark.parametrize("arguments, kind, fragments", [
    ({"max_new_tokens": 0}, ValueError, ["max_new_tokens", "at least 1", "0"]),
    ({"max_new_tokens": 2.5}, TypeError, ["max_new_tokens", "int", "2.5"]),
    ({"temperature": -0.1}, ValueError, ["temperature", "at least 0", "-0.1"]),
    ({"temperature": float("nan")}, ValueError, ["temperature", "nan"]),
    ({"temperature": float("inf")}, ValueError, ["temperature", "finite", "inf"]),
    ({"temperature": "hot"}, TypeError, ["temperature", "'hot'"]),
    ({"top_k": 0}, ValueError, ["top_k", "at least 1", "0"]),
    ({"top_k": 61}, ValueError, ["top_k", "60", "61"]),
    ({"top_k": 1.5}, TypeError, ["top_k", "int", "1.5"]),
    ({"seed": "x"}, TypeError, ["seed", "int", "'x'"]),
    ({"seed": 2**64}, ValueError, ["seed", "below 2**64", str(2**64)]),
    ({"stop_token": 60}, ValueError, ["stop_token", "60"]),
    ({"stop_token": -1}, ValueError, ["stop_token", "at least 0", "-1"]),
    ({"prompt": PROMPT[:, :0]}, ValueError, ["prompt", "empty", "(2, 0)"]),
    ({"prompt": PROMPT.float()}, TypeError, ["prompt", "int64", "float32"]),
    ({"prompt": PROMPT[0]}, ValueError, ["prompt", "(B, T)", "(3,)"]),
    ({"prompt": PROMPT + 60}, ValueError, ["prompt", "0..59"]),
    ({"prompt": [[1, 2]]}, TypeError, ["prompt", "list"]),
    ({"state": MODEL.init_state(3)}, ValueError, ["state", "3", "2"]),
    ({"state": "recall"}, TypeError, ["state", "RMATState", "str"]),
])
def test_bad_input(arguments, kind, fragments):
    with pytest.raises(kind) as error:
        MODEL.generate(**{"prompt": PROMPT, "max_new_tokens": 4} | arguments)
    assert_one_line(str(error.value), *fragments)
