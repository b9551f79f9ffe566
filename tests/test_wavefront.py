"""The diagonal wavefront: the numbers of the plain order, in fewer steps, whatever is asked of the model."""

import copy
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    SMALL,
    SUBSETS,
    TOLERANCES,
    assert_near,
    assert_one_line,
    configs,
    gap,
    make_model,
    random_tokens,
    read_in_pieces,
    splits,
)
from test_backprop import PENALTIES, WAYS, by, error, some_targets, untrained
from test_backprop import TOLERANCES as GRADIENT_TOLERANCES
from test_streaming import assert_same_state

from rmat_tutorial import RMAT, RMATConfig, record
from rmat_tutorial.tracing import collect_gates, written_segments
from rmat_tutorial.wavefront import SideBySide, stacked_weights

ORDERS = ("segments", "wavefront")


def in_both_orders(model, read):
    """What ``read`` returns in the plain order, and in the wavefront's."""
    found = []
    for order in ORDERS:
        model.order = order
        torch.manual_seed(0)
        found.append(read())
    return found


def deep_configs(**fixed):
    return st.integers(1, 4).flatmap(lambda layers: configs(n_layers=layers, **fixed))


@contextmanager
def counted_steps():
    """How many rows each step of the wavefront had."""
    rows, attend = [], SideBySide.attend

    def counting(layers, x, *others):
        rows.append(x.shape[0])
        return attend(layers, x, *others)

    with mock.patch.object(SideBySide, "attend", counting):
        yield rows


@pytest.mark.parametrize("dtype", TOLERANCES)
@settings(max_examples=25)
@given(deep_configs(), st.integers(1, 3), st.integers(1, 30), st.integers(0, 1000), st.data())
@torch.no_grad()
def test_the_same_logits_and_state_in_any_split(dtype, config, batch, length, seed, data):
    model, tokens = make_model(config, seed=seed, dtype=dtype), random_tokens(batch, length, seed=seed)
    sizes = data.draw(splits(length) | st.just([length]))
    (plain, state), (wave, state_of_wave) = in_both_orders(model, lambda: read_in_pieces(model, tokens, sizes))
    assert_near(wave, plain, TOLERANCES[dtype])
    assert_same_state(state_of_wave, state, TOLERANCES[dtype])


@pytest.mark.parametrize("backend", ("eager", "sdpa"))
@pytest.mark.parametrize("paths", SUBSETS)
def test_all_gradients_are_the_same(paths, backend):
    """Of the loss and of what is carried on, in a model whose layers differ in everything."""
    model, tokens = make_model(paths=paths, backend=backend, n_layers=3), random_tokens(2, 23)

    def gradients():
        logits, state = model(tokens)
        loss = logits.square().mean() + sum(tensor.square().mean() for tensor in state.tensors())
        return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)

    for (name, _), plain, wave in zip(model.named_parameters(), *in_both_orders(model, gradients), strict=True):
        assert (plain is None) == (wave is None), name
        if plain is not None:
            alone = name.endswith("mix") and len(paths) == 1  # the λ of one path is 1, whatever its number
            assert plain.any() or alone, f"{name} has no gradient, so that nothing is compared"
            assert_near(wave, plain, 1e-10)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=8)
@given(deep_configs(), st.integers(1, 3), st.integers(1, 25), st.integers(0, 12), PENALTIES)
def test_back_propagation_in_every_way(way, config, batch, length, before, penalty):
    model, tokens = make_model(config), random_tokens(batch, length)
    asked = tokens, some_targets(tokens), before, penalty
    plain, wave = in_both_orders(model, lambda: by(model, *asked, **WAYS[way]))
    assert error(wave, plain) <= GRADIENT_TOLERANCES[torch.float64]


@pytest.mark.parametrize("way", WAYS)
def test_back_propagation_in_float32(way):
    model, tokens = make_model(dtype=torch.float32, n_layers=3), random_tokens(2, 28)
    asked = tokens, some_targets(tokens), 3, 0.7
    plain, wave = in_both_orders(model, lambda: by(model, *asked, **WAYS[way], gate_margin=0.5))
    assert error(wave, plain) <= GRADIENT_TOLERANCES[torch.float32]


@pytest.mark.parametrize("way", WAYS)
def test_back_propagation_in_bfloat16(way):
    """As near to the plain order as that is to float32: sums of bfloat16 in another order."""
    model, tokens = untrained("rmat", n_layers=3), random_tokens(2, 28)
    asked = tokens, some_targets(tokens), 0, 0.7
    plain, wave = in_both_orders(model, lambda: by(model, *asked, **WAYS[way], precision="bfloat16"))
    assert error(wave, plain) < 0.03
    assert {gradient.dtype for gradient in wave.values() if gradient is not None} == {torch.float32}


@torch.no_grad()
def test_the_weights_of_a_bfloat16_reading_are_converted_once():
    model, tokens = untrained("rmat", n_layers=3).eval(), random_tokens(2, 30)
    with torch.autocast("cpu", torch.bfloat16):
        plain, wave = in_both_orders(model, lambda: model(tokens).logits)
        dtypes = {name: weight.dtype for name, weight in stacked_weights(model.blocks, 2).items()}
    assert plain.dtype == wave.dtype == torch.bfloat16 and gap(plain.float(), wave.float()) < 0.05
    assert dtypes["to_q.weight"] == dtypes["ffn.0.weight"] == dtypes["to_mem_k.weight"] == torch.bfloat16
    assert {dtypes[name] for name in ("memory.to_gate.weight", "memory.queries", "norm1.weight", "mix")} == {
        torch.float32}


# Steps.


@pytest.mark.parametrize("n_layers, segments", [(1, 4), (2, 2), (3, 2), (3, 7), (4, 1)])
@torch.no_grad()
def test_a_step_has_all_layers_that_can_run_and_no_row_is_read_in_vain(n_layers, segments):
    model = make_model(n_layers=n_layers)
    model.order = "wavefront"
    for extra in (0, 3):
        with counted_steps() as rows:
            model(random_tokens(2, 5 * segments + extra))
        if segments == 1:
            assert rows == [], "one segment has no diagonal"
        else:
            assert len(rows) == segments + n_layers - 1
            assert sum(rows) == 2 * segments * n_layers and max(rows) == 2 * min(n_layers, segments)


@torch.no_grad()
def test_whole_segments_go_by_wavefront_wherever_the_stream_begins():
    model = make_model(n_layers=3)
    model.order = "wavefront"
    state = model(random_tokens(2, 3)).state
    with counted_steps() as rows:
        model(random_tokens(2, 2 + 4 * 5 + 1), state)
    assert len(rows) == 4 + 3 - 1


# What looks in.


@pytest.mark.parametrize("length", (5, 10, 23))
def test_a_recording_is_the_same(length):
    model, tokens = make_model(n_layers=3), random_tokens(2, length)

    def recorded():
        with record(model) as trace, torch.no_grad():
            model(tokens)
        return trace

    plain, wave = in_both_orders(model, recorded)
    assert len(wave.segments) == len(plain.segments) == -(-length // 5)
    for ours, theirs in zip(wave.segments, plain.segments, strict=True):
        for layer, expected in zip(ours.layers, theirs.layers, strict=True):
            for name in ("full", "chunk", "memory", "bank"):
                assert_near(getattr(layer, name), getattr(expected, name), 1e-10)
            assert layer.mix == pytest.approx(expected.mix)
            assert (layer.write is None) == (expected.write is None)
            for a, b in zip(layer.write or (), expected.write or (), strict=True):
                assert_near(a, b, 1e-10)


def test_a_tap_on_one_layer_sees_that_layer():
    model, tokens = make_model(n_layers=3), random_tokens(2, 20)
    for ours, theirs in zip(*in_both_orders(model, lambda: written_segments(model, tokens)), strict=True):
        assert len(ours) == len(theirs) == 4
        assert all(gap(a, b) < 1e-10 for a, b in zip(ours, theirs, strict=True))


def test_gates_are_collected_once_each_and_nothing_is_left_behind():
    model, tokens = make_model(n_layers=3), random_tokens(2, 23)

    def gates():
        with collect_gates(model) as found:
            model(tokens)
        return torch.stack(sorted(found, key=lambda gate: gate.sum().item()))

    plain, wave = in_both_orders(model, gates)
    assert_near(wave, plain, 1e-10)
    model(tokens)
    assert model.wavefront.layers.taps == []


# What an order is: a way to read, not a model.


def test_an_order_is_no_part_of_the_model(tmp_path):
    torch.manual_seed(0)
    plain = RMAT(RMATConfig(**SMALL))
    drawn = torch.rand(1)
    torch.manual_seed(0)
    model = RMAT(RMATConfig(**SMALL))
    model.order = "wavefront"
    assert torch.equal(torch.rand(1), drawn), "weights were drawn for the wavefront"
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert copy.deepcopy(model).order == "wavefront"
    model.save(tmp_path / "model.safetensors")
    loaded = RMAT.from_checkpoint(tmp_path / "model.safetensors")
    assert (plain.order, loaded.order) == ("segments", "segments") and loaded.config == model.config


def test_an_order_can_be_changed_at_any_time():
    model, tokens = make_model(n_layers=3), random_tokens(2, 20)
    with torch.no_grad():
        expected = model(tokens).logits
        model.order = "wavefront"
        half = model(tokens[:, :10])
        model.order = "segments"
        assert gap(torch.cat((half.logits, model(tokens[:, 10:], half.state).logits), 1), expected) < 1e-10


def test_weights_are_read_at_each_call():
    model, tokens = make_model(n_layers=3), random_tokens(2, 20)
    model.order = "wavefront"
    with torch.no_grad():
        before = model(tokens).logits
        model.blocks[1].to_q.weight.mul_(2)
        after, expected = (wave for wave in reversed(in_both_orders(model, lambda: model(tokens).logits)))
    assert gap(after, before) > 1e-3 and gap(after, expected) < 1e-10


@pytest.mark.parametrize("order", ("diagonal", None, 1))
def test_an_unknown_order_is_named(order):
    with pytest.raises(ValueError) as refusal:
        make_model().order = order
    assert_one_line(str(refusal.value), "order", repr(order), "'segments'", "'wavefront'")


@torch.no_grad()
def test_dropout_drops_in_training_alone():
    model, tokens = make_model(dropout=0.5, n_layers=3), random_tokens(2, 20)
    model.order = "wavefront"
    still = model(tokens).logits
    assert gap(model.train()(tokens).logits, still) > 1e-3
    assert torch.equal(model.eval()(tokens).logits, still)


def test_dropout_drops_as_much():
    """No two rows share a mask, and one half is dropped: of a path of ones through a block that else does nothing."""
    layers = SideBySide(RMATConfig(**(SMALL | {"dropout": 0.5})))
    layers.follow([make_model(dropout=0.5).train().blocks[0]])
    dropped = layers.dropout(torch.ones(4, 5, 800))
    assert dropped.mean() == pytest.approx(1.0, abs=0.05)
    assert not any(torch.equal(dropped[0], row) for row in dropped[1:])
