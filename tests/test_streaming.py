"""Reading in pieces, state as a value, resetting rows, and rows that know nothing of each other."""

from dataclasses import fields, is_dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    SUBSETS,
    TOLERANCES,
    assert_near,
    assert_one_line,
    configs,
    gap,
    make_model,
    random_tokens,
    read_in_pieces,
    readings_that_differ_in_row_2,
    splits,
)

from rmat_tutorial import RMAT


@pytest.mark.parametrize("name", ("recall", "recall-no-memory", "text"))
def test_a_shipped_model_reads_token_by_token_as_it_reads_whole(name):
    model = RMAT.from_checkpoint(name)
    tokens = torch.randint(model.config.vocab_size, (2, 150), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(tokens).logits
        torch.testing.assert_close(read_in_pieces(model, tokens, [1] * 150)[0], whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_in_autocast_a_begun_segment_is_read_as_a_whole_one(training):
    """Queries, keys and values reach the attention in one dtype: autocast converts nothing for a custom operator."""
    model, tokens = make_model(dtype=torch.float32, n_layers=1), random_tokens(2, 13)
    attend, given = model.blocks[0].attend_paths, []

    def noting(*inputs):
        given.append({x.dtype for x in inputs[:6]})
        return attend(*inputs)

    model.blocks[0].attend_paths = noting
    results = []
    for sizes in ([13], [2, 3, 1, 7]):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(training):
            logits, state = read_in_pieces(model, tokens, sizes)
        assert {x.dtype for x in state.tensors()} == {torch.float32}  # as the model takes it back, in autocast or not
        gradients = torch.autograd.grad(logits.float().square().mean(), list(model.parameters())) if training else []
        results.append([logits.float(), *gradients])
    assert given == [{torch.bfloat16}] * len(given)
    for pieces, whole in zip(*results, strict=True):
        assert_near(pieces, whole, 0.05)


def assert_same_state(ours, theirs, tolerance=0.0):
    assert ours.position == theirs.position and ours.batch_size == theirs.batch_size
    assert len(ours.memory) == len(theirs.memory)
    for a, b in zip(tensors_of(ours), tensors_of(theirs), strict=True):
        assert_near(a, b, tolerance)


def tensors_of(value) -> list[torch.Tensor]:
    """Every tensor that a state holds, wherever it keeps it."""
    if isinstance(value, torch.Tensor):
        return [value]
    if is_dataclass(value):
        return [t for field in fields(value) for t in tensors_of(getattr(value, field.name))]
    if isinstance(value, dict):
        return tensors_of(list(value.values()))
    return [t for part in value for t in tensors_of(part)] if isinstance(value, (tuple, list)) else []


@pytest.mark.parametrize("dtype", TOLERANCES)
@given(configs(), st.integers(1, 2), st.integers(1, 20), st.integers(0, 1000), st.data())
@torch.no_grad()
def test_any_split_gives_the_same_logits(dtype, config, batch, length, seed, data):
    model, tokens = make_model(config, seed=seed, dtype=dtype), random_tokens(batch, length, seed=seed)
    whole, state = read_in_pieces(model, tokens, [length])
    pieces, state_of_pieces = read_in_pieces(model, tokens, data.draw(splits(length)))
    assert_near(pieces, whole, TOLERANCES[dtype])
    assert_same_state(state, state_of_pieces, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("backend", ("eager", "sdpa", "auto"))
@pytest.mark.parametrize("paths", SUBSETS)
@torch.no_grad()
def test_token_by_token_over_several_segment_boundaries(paths, backend, dtype):
    model, tokens = make_model(paths=paths, backend=backend, dtype=dtype), random_tokens(2, 23)
    whole, state = read_in_pieces(model, tokens, [23])
    for sizes in ([1] * 23, [5] * 4 + [3], [7, 7, 7, 2], [4, 2, 5, 1, 11], [22, 1]):
        pieces, state_of_pieces = read_in_pieces(model, tokens, sizes)
        assert_near(pieces, whole, TOLERANCES[dtype])
        assert_same_state(state, state_of_pieces, TOLERANCES[dtype])


@torch.no_grad()
def test_every_split_in_two():
    model, tokens = make_model(), random_tokens(1, 16)
    whole = model(tokens).logits
    for cut in range(1, 16):
        assert gap(whole, read_in_pieces(model, tokens, [cut, 16 - cut])[0]) < 1e-10, cut


@settings(max_examples=20)
@given(configs(), st.integers(2, 14), st.data())
def test_a_split_gives_the_same_gradients(config, length, data):
    """Back-propagation goes through the state: cutting a sequence changes no gradient until it is detached."""
    model, tokens = make_model(config), random_tokens(2, length)
    found = []
    for sizes in ([length], data.draw(splits(length))):
        logits, _ = read_in_pieces(model, tokens, sizes)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(-1, 1).flatten())
        found.append(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True))
    for (name, parameter), a, b in zip(model.named_parameters(), *found, strict=True):
        a, b = (torch.zeros_like(parameter) if g is None else g for g in (a, b))
        assert gap(a, b) < 1e-10, name


@settings(max_examples=25)
@given(configs(), st.integers(0, 8), st.integers(1, 12))
@torch.no_grad()
def test_a_state_is_a_value(config, before, after):
    """Used twice it gives the same twice, and nothing in it changes."""
    model = make_model(config)
    state = model.init_state(2) if before == 0 else model(random_tokens(2, before)).state
    kept, position = [t.clone() for t in tensors_of(state)], state.position
    tokens = random_tokens(2, after, seed=1)
    first, second = model(tokens, state), model(tokens, state)
    assert torch.equal(first.logits, second.logits)
    assert_same_state(first.state, second.state)
    assert state.position == position
    assert all(torch.equal(a, b) for a, b in zip(kept, tensors_of(state), strict=True))


@pytest.mark.parametrize("paths", SUBSETS)
@torch.no_grad()
def test_a_state_does_not_grow(paths):
    """`nbytes` is one number for the whole stream, and no tensor of the state hangs on to a larger one."""
    model = make_model(paths=paths)
    state = model.init_state(3)
    sizes, held = {state.nbytes}, []
    for n, piece in enumerate(random_tokens(3, 203).split([1] * 23 + [45] * 4, 1)):
        state = model(piece, state).state
        sizes.add(state.nbytes)
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors_of(state)}
        held.append(sum(storages.values()))
        assert state.position == (n + 1 if n < 23 else 23 + 45 * (n - 22)) % 5
    assert len(sizes) == 1
    bank = 2 * 3 * 4 * 8 * 8 if "memory" in paths else 0  # layers · B · m · d · bytes of a float64
    assert sizes.pop() >= bank
    learned_slots = 2 * 4 * 8 * 8 if bank else 0
    assert max(held) <= state.nbytes + learned_slots


def test_detach_cuts_the_gradient_and_nothing_else():
    model, tokens = make_model(), random_tokens(1, 14)
    state = model(tokens[:, :7]).state
    cut = state.detach()
    assert_same_state(state, cut)
    assert any(t.grad_fn is not None for t in tensors_of(state))
    assert not any(t.requires_grad for t in (*cut.memory, *tensors_of(cut.cache)))
    with_cut, without = model(tokens[:, 7:], cut).logits, model(tokens[:, 7:], state).logits
    assert torch.equal(with_cut, without)
    early = tokens[0, :7]
    late = tokens[0, 7:]
    only_early = [t for t in early.tolist() if t not in late.tolist()]
    gradient, = torch.autograd.grad(with_cut.square().sum(), model.embed.weight)
    assert only_early and (gradient[only_early] == 0).all()
    gradient, = torch.autograd.grad(without.square().sum(), model.embed.weight)
    assert (gradient[only_early] != 0).any(-1).all()


def test_to_converts_the_state():
    model, tokens = make_model(), random_tokens(1, 7)
    state = model(tokens).state
    single = state.to(torch.float32)
    assert {t.dtype for t in tensors_of(single)} == {torch.float32}
    assert single.position == state.position and single.nbytes == state.nbytes // 2
    logits = make_model(dtype=torch.float32)(tokens, single).logits
    assert gap(logits.double(), model(tokens, state).logits) < 1e-4


# Resetting rows.

ROW_CHOICES = ([0], [1], [0, 2], [2, 0], [0, 1, 2], [])


@pytest.mark.parametrize("rows", ROW_CHOICES)
@pytest.mark.parametrize("paths", SUBSETS)
@torch.no_grad()
def test_reset_rows_equal_fresh_ones_and_the_others_stay(paths, rows):
    model = make_model(paths=paths)
    state = model(random_tokens(3, 10)).state
    kept = [t.clone() for t in tensors_of(state)]
    reset, fresh = state.reset(rows), model.init_state(3)
    for before, after, start in zip(state.memory, reset.memory, fresh.memory, strict=True):
        assert gap(before, start) > 1e-3
        for row in range(3):
            assert torch.equal(after[row], (start if row in rows else before)[row])
    assert all(torch.equal(a, b) for a, b in zip(kept, tensors_of(state), strict=True)), "reset changed its state"
    assert reset.position == 0 and reset.nbytes == state.nbytes

    tokens = random_tokens(3, 12, seed=1)
    after_reset = model(tokens, reset).logits
    for row in range(3):
        assert torch.equal(after_reset[row], model(tokens, fresh if row in rows else state).logits[row])


@torch.no_grad()
def test_reset_takes_a_mask_or_a_tensor_of_rows():
    model = make_model()
    state = model(random_tokens(3, 5)).state
    expected = state.reset([0, 2])
    for rows in (torch.tensor([0, 2]), torch.tensor([True, False, True]), (2, 0)):
        assert_same_state(state.reset(rows), expected)


def test_a_reset_row_learns_its_slots_again():
    model = make_model()
    state = model(random_tokens(2, 5)).state.detach().reset([1])
    gradient, = torch.autograd.grad(model(random_tokens(2, 5), state).logits.square().sum(),
                                    model.blocks[0].memory.slots)
    assert gradient.any()


@pytest.mark.parametrize("length", (1, 4, 7, 13))
def test_reset_inside_a_segment_says_that_it_cannot(length):
    state = make_model()(random_tokens(2, length)).state
    with pytest.raises(ValueError) as error:
        state.reset([0])
    assert_one_line(str(error.value), "reset", "segment", str(state.position))


@pytest.mark.parametrize("rows, fragments", [
    ([2], ["rows", "0..1", "2"]), ([-1], ["rows", "0..1", "-1"]),
    (torch.tensor([True]), ["rows", "(2,)", "(1,)"]),
])
def test_reset_names_a_row_that_is_not_there(rows, fragments):
    state = make_model()(random_tokens(2, 5)).state
    with pytest.raises(ValueError) as error:
        state.reset(rows)
    assert_one_line(str(error.value), *fragments)


@pytest.mark.parametrize("rows", (None, "first", {0, 1}, [None], [0.5], torch.tensor([1j])))
def test_reset_wants_rows(rows):
    state = make_model()(random_tokens(2, 5)).state
    with pytest.raises(TypeError) as error:
        state.reset(rows)
    assert_one_line(str(error.value), "rows must be row numbers or a boolean mask")


# Rows.


@settings(max_examples=25)
@given(configs(), st.integers(2, 4), st.integers(1, 14), st.data())
@torch.no_grad()
def test_a_row_reads_the_same_alone_and_in_company(config, batch, length, data):
    model, tokens = make_model(config), random_tokens(batch, length)
    row = data.draw(st.integers(0, batch - 1))
    together, state = read_in_pieces(model, tokens, data.draw(splits(length)))
    alone = model(tokens[row : row + 1])
    assert gap(together[row : row + 1], alone.logits) < 1e-10
    for a, b in zip(state.memory, alone.state.memory, strict=True):
        assert gap(a[row : row + 1], b) < 1e-10


@torch.no_grad()
def test_changing_one_row_changes_no_bit_of_the_others():
    before, after, others = readings_that_differ_in_row_2(make_model(dtype=torch.float32))
    for a, b in zip(before.state.memory, after.state.memory, strict=True):
        assert torch.equal(a[others], b[others]) and gap(a[2], b[2]) > 1e-3
