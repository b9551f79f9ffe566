"""Reading in pieces, state as a value and its size, resetting rows, rows alone and in company; for every baseline."""

import pytest
import torch
from baseline_strategies import BOUNDED, WITHOUT_SEGMENTS, baseline_configs, make_baseline
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    TOLERANCES,
    assert_near,
    assert_one_line,
    gap,
    random_tokens,
    read_in_pieces,
    readings_that_differ_in_row_2,
    splits,
)

from rmat_tutorial.baselines import KINDS
from rmat_tutorial.measuring import cache_bytes

every_kind = pytest.mark.parametrize("kind", KINDS)


def assert_same_state(ours, theirs, tolerance=0.0):
    assert (ours.position, ours.start, ours.batch_size) == (theirs.position, theirs.start, theirs.batch_size)
    for a, b in zip(ours.tensors(), theirs.tensors(), strict=True):
        assert_near(a, b, tolerance)


def held_bytes(state) -> int:
    """Bytes of the memory behind a state's tensors, which may be larger than they are."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in state.tensors()}
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize("dtype", TOLERANCES)
@every_kind
@settings(max_examples=40)
@given(st.data(), st.integers(1, 2), st.integers(1, 25), st.integers(0, 1000))
@torch.no_grad()
def test_any_split_gives_the_same_logits(kind, dtype, data, batch, length, seed):
    model = make_baseline(data.draw(baseline_configs(kind)), seed=seed, dtype=dtype)
    tokens = random_tokens(batch, length, seed=seed)
    whole, state = read_in_pieces(model, tokens, [length])
    pieces, state_of_pieces = read_in_pieces(model, tokens, data.draw(splits(length)))
    assert_near(pieces, whole, TOLERANCES[dtype])
    assert_same_state(state, state_of_pieces, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@every_kind
@torch.no_grad()
def test_token_by_token_over_several_segment_boundaries(kind, dtype):
    model, tokens = make_baseline(kind, dtype=dtype), random_tokens(2, 23)
    whole, state = read_in_pieces(model, tokens, [23])
    for sizes in ([1] * 23, [5] * 4 + [3], [7, 7, 7, 2], [4, 2, 5, 1, 11], [22, 1]):
        pieces, state_of_pieces = read_in_pieces(model, tokens, sizes)
        assert_near(pieces, whole, TOLERANCES[dtype])
        assert_same_state(state, state_of_pieces, TOLERANCES[dtype])


@every_kind
@settings(max_examples=10)
@given(st.data(), st.integers(2, 14))
def test_a_split_gives_the_same_gradients(kind, data, length):
    model, tokens = make_baseline(data.draw(baseline_configs(kind))), random_tokens(2, length)
    found = []
    for sizes in ([length], data.draw(splits(length))):
        logits, _ = read_in_pieces(model, tokens, sizes)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(-1, 1).flatten())
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    for (name, _), a, b in zip(model.named_parameters(), *found, strict=True):
        assert gap(a, b) < 1e-10, name


@every_kind
@settings(max_examples=15)
@given(st.data(), st.integers(0, 12), st.integers(1, 12))
@torch.no_grad()
def test_a_state_is_a_value(kind, data, before, after):
    """Used twice it gives the same twice, and nothing in it changes."""
    model = make_baseline(data.draw(baseline_configs(kind)))
    state = model.init_state(2) if before == 0 else model(random_tokens(2, before)).state
    kept, position = [tensor.clone() for tensor in state.tensors()], state.position
    tokens = random_tokens(2, after, seed=1)
    first, second = model(tokens, state), model(tokens, state)
    assert torch.equal(first.logits, second.logits)
    assert_same_state(first.state, second.state)
    assert state.position == position
    assert all(torch.equal(a, b) for a, b in zip(kept, state.tensors(), strict=True))


@pytest.mark.parametrize("kind, numbers", [  # a row, a layer: d = 8, L = 5, W = 4; rmt: 3 memory tokens, in one place
    ("segment", 2 * 2 * 5 * 8), ("window", 2 * 2 * 3 * 8), ("transformer-xl", 2 * 5 * 5 * 8),
    ("rmt", 2 * 2 * (3 + 5) * 8 + 3 * 8),
])
@torch.no_grad()
def test_a_state_does_not_grow(kind, numbers):
    """`nbytes` is one number for the whole stream, and no tensor of the state hangs on to a larger one."""
    model = make_baseline(kind)
    state, sizes, held = model.init_state(3), [], []
    for piece in random_tokens(3, 203).split([1] * 23 + [45] * 4, 1):
        sizes.append(state.nbytes)
        state = model(piece, state).state
        held.append(held_bytes(state))
        assert 0 <= state.position < 5 and all(-5 <= first <= 0 for first in state.start)
    assert set(sizes) == {state.nbytes} == {3 * numbers * 8}
    assert max(held) <= state.nbytes


@torch.no_grad()
def test_the_state_of_full_attention_grows_with_every_token():
    model = make_baseline("full", dtype=torch.float32)
    state, read = model.init_state(3), 0
    assert state.nbytes == 0
    for piece in random_tokens(3, 50).split([1, 1, 5, 20, 1, 22], 1):
        state, read = model(piece, state).state, read + piece.shape[1]
        assert (state.position, state.nbytes) == (read, 3 * cache_bytes(model.config, read))
        assert held_bytes(state) == state.nbytes


@every_kind
def test_a_state_that_is_detached_is_cut_off_and_equal(kind):
    model, tokens = make_baseline(kind), random_tokens(1, 14)
    state = model(tokens[:, :7]).state
    cut = state.detach()
    assert_same_state(state, cut)
    assert any(tensor.requires_grad for tensor in state.tensors())
    assert not any(tensor.requires_grad for tensor in cut.tensors())
    logits = model(tokens[:, 7:], cut).logits
    assert torch.equal(logits, model(tokens[:, 7:], state).logits)
    only_early = [token for token in tokens[0, :7].tolist() if token not in tokens[0, 7:].tolist()]
    gradient, = torch.autograd.grad(logits.square().sum(), model.embed.weight)
    assert only_early and (gradient[only_early] == 0).all() and gradient.any()


@every_kind
@torch.no_grad()
def test_to_converts_the_state(kind):
    model, tokens = make_baseline(kind), random_tokens(2, 7)
    state = model(tokens).state
    single = state.to(torch.float32)
    assert {tensor.dtype for tensor in single.tensors()} == {torch.float32}
    assert (single.position, single.start, 2 * single.nbytes) == (state.position, state.start, state.nbytes)
    logits = make_baseline(kind, dtype=torch.float32)(tokens, single).logits
    assert gap(logits.double(), model(tokens, state).logits) < 1e-4


@pytest.mark.parametrize("kind", BOUNDED)
@torch.no_grad()
def test_single_precision_is_as_good_after_many_tokens_as_at_first(kind):
    """As 32 000 tokens went by, so a million could: positions stay inside two segments and the window."""
    errors = []
    for before in (64, 32_000):
        tokens = random_tokens(1, before + 64)
        logits = []
        for dtype in (torch.float64, torch.float32):
            model = make_baseline(kind, dtype=dtype, segment_len=64, **({"window": 50} if kind == "window" else {}))
            logits.append(read_in_pieces(model, tokens, [before, 64])[0][:, -64:].double())
        errors.append(gap(*logits))
    assert max(errors) < 1e-5


# Resetting rows.


@pytest.mark.parametrize("rows", ([0], [1], [0, 2], [2, 0], [0, 1, 2], []), ids=str)
@every_kind
@torch.no_grad()
def test_reset_rows_equal_fresh_ones_and_the_others_stay(kind, rows):
    model = make_baseline(kind)
    state = model(random_tokens(3, 10)).state
    kept = [tensor.clone() for tensor in state.tensors()]
    reset, fresh = state.reset(rows), model.init_state(3)
    assert all(torch.equal(a, b) for a, b in zip(kept, state.tensors(), strict=True)), "reset changed its state"
    assert reset.position == state.position
    tokens = random_tokens(3, 17, seed=1)
    for sizes in ([17], [1, 3, 6, 7]):
        logits, _ = read_in_pieces(model, tokens, sizes, reset)
        for row in range(3):
            expected = model(tokens, fresh if row in rows else state).logits[row]
            assert gap(logits[row], expected) < 1e-10, (row, sizes)


@every_kind
@settings(max_examples=15)
@given(st.data())
@torch.no_grad()
def test_rows_reset_at_different_times_are_streams_of_their_own(kind, data):
    """Streams that begin in different calls, read side by side, are read as they are read alone."""
    model = make_baseline(data.draw(baseline_configs(kind)))
    length = model.config.segment_len
    pieces, state, streams, logits = [], model.init_state(3), [[], [], []], [[], [], []]
    for step in range(data.draw(st.integers(1, 5))):
        rows = data.draw(st.sets(st.integers(0, 2))) if step else ()
        state = state.reset(sorted(rows))
        for row in rows:
            streams[row], logits[row] = [], []
        tokens = random_tokens(3, length * data.draw(st.integers(1, 3)), seed=step)
        pieces, state = read_in_pieces(model, tokens, data.draw(splits(tokens.shape[1])), state)
        for row in range(3):
            streams[row].append(tokens[row])
            logits[row].append(pieces[row])
    for row in range(3):
        alone = model(torch.cat(streams[row])[None]).logits[0]
        assert gap(torch.cat(logits[row]), alone) < 1e-10


@pytest.mark.parametrize("kind", WITHOUT_SEGMENTS)
@torch.no_grad()
def test_without_segments_a_row_is_reset_anywhere(kind):
    model, tokens = make_baseline(kind), random_tokens(2, 12, seed=1)
    state = model(random_tokens(2, 7)).state.reset([1])
    logits = model(tokens, state).logits
    assert gap(logits[1], model(tokens).logits[1]) < 1e-10
    assert gap(logits[0], model(torch.cat([random_tokens(2, 7), tokens], 1)).logits[0, 7:]) < 1e-10


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in WITHOUT_SEGMENTS])
@torch.no_grad()
def test_reset_inside_a_segment_says_that_it_cannot(kind):
    state = make_baseline(kind)(random_tokens(2, 7)).state
    with pytest.raises(ValueError) as error:
        state.reset([0])
    assert_one_line(str(error.value), "reset", "segment", "2 tokens")


@every_kind
@pytest.mark.parametrize("rows, kind_of_error", [([2], ValueError), ("first", TypeError), ([0.5], TypeError)])
def test_reset_wants_rows_that_are_there(kind, rows, kind_of_error):
    with pytest.raises(kind_of_error, match=r"^rows must"):
        make_baseline(kind).init_state(2).reset(rows)


@torch.no_grad()
def test_full_attention_drops_what_no_row_sees():
    model = make_baseline("full")
    state = model(random_tokens(2, 30)).state.reset([1])
    state = model(random_tokens(2, 5), state).state
    assert state.nbytes == 2 * 2 * 2 * 35 * 8 * 8
    state = model(random_tokens(2, 5), state.reset([0])).state
    assert state.nbytes == 2 * 2 * 2 * 10 * 8 * 8


def test_a_reset_row_learns_its_memory_again():
    model = make_baseline("rmt")
    state = model(random_tokens(2, 5)).state.detach().reset([1])
    gradient, = torch.autograd.grad(model(random_tokens(2, 5), state).logits.square().sum(), model.memory)
    assert gradient.any()


# Rows.


@every_kind
@settings(max_examples=15)
@given(st.data(), st.integers(2, 4), st.integers(1, 14))
@torch.no_grad()
def test_a_row_reads_the_same_alone_and_in_company(kind, data, batch, length):
    model, tokens = make_baseline(data.draw(baseline_configs(kind))), random_tokens(batch, length)
    row = data.draw(st.integers(0, batch - 1))
    together, state = read_in_pieces(model, tokens, data.draw(splits(length)))
    alone = model(tokens[row : row + 1])
    assert gap(together[row : row + 1], alone.logits) < 1e-10
    assert all(gap(a[row : row + 1], b) < 1e-10 for a, b in zip(state.tensors(), alone.state.tensors(), strict=True))


@every_kind
@torch.no_grad()
def test_changing_one_row_changes_no_bit_of_the_others(kind):
    before, after, others = readings_that_differ_in_row_2(make_baseline(kind, dtype=torch.float32))
    assert all(torch.equal(a[others], b[others])
               for a, b in zip(before.state.tensors(), after.state.tensors(), strict=True))
