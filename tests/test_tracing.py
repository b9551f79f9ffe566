"""What `record` collects, that it changes nothing, and that it leaves nothing behind."""

import gc
import weakref
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import loop_write
from strategies import SMALL, SUBSETS, assert_one_line, configs, gap, make_model, random_tokens, read_in_pieces, splits

from rmat_tutorial import record
from rmat_tutorial.memory import GatedFIFOMemory
from rmat_tutorial.tracing import collect_gates, written_segments

WRITE_FIELDS = ("memory", "gate", "pooled", "carried", "evicted", "candidate")


def traced(model, tokens, sizes=None):
    with record(model) as trace, torch.no_grad():
        logits, state = read_in_pieces(model, tokens, sizes or [tokens.shape[1]])
    return trace, logits, state


@settings(max_examples=40)
@given(configs(), st.integers(1, 2), st.integers(1, 15), st.data())
def test_recording_changes_no_bit_of_the_output(config, batch, length, data):
    model, tokens, sizes = make_model(config), random_tokens(batch, length), data.draw(splits(length))
    with torch.no_grad():
        before, state_before = read_in_pieces(model, tokens, sizes)
        _, during, state_during = traced(model, tokens, sizes)
        after, _ = read_in_pieces(model, tokens, sizes)
    assert torch.equal(before, during) and torch.equal(before, after)
    assert all(torch.equal(a, b) for a, b in zip(state_before.memory, state_during.memory, strict=True))


def test_recording_changes_no_gradient():
    model, tokens = make_model(), random_tokens(2, 12)

    def gradients():
        return torch.autograd.grad(model(tokens).logits.square().sum(), list(model.parameters()))

    before = gradients()
    with record(model):
        during = gradients()
    assert all(torch.equal(a, b) for a, b in zip(before, during, strict=True))


@settings(max_examples=40)
@given(configs(), st.integers(1, 2), st.integers(1, 15))
def test_what_is_collected(config, batch, length):
    model, tokens = make_model(config), random_tokens(batch, length)
    trace, *_ = traced(model, tokens)
    lengths = [len(segment) for segment in torch.arange(length).split(config.segment_len)]
    assert len(trace.segments) == len(lengths)
    for segment, size in zip(trace.segments, lengths, strict=True):
        assert len(segment.layers) == config.n_layers
        for block, layer in zip(model.blocks, segment.layers, strict=True):
            shapes = {"full": (size, size), "chunk": (size, size), "memory": (size, config.memory_slots)}
            for path, shape in shapes.items():
                weights = getattr(layer, path)
                if path not in config.paths:
                    assert weights is None
                    continue
                assert weights.shape == (batch, config.n_heads, *shape) and not weights.requires_grad
                assert (weights >= 0).all() and gap(weights.sum(-1), torch.ones(weights.shape[:3])) < 1e-12
            i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
            if layer.full is not None:
                assert (layer.full[..., j > i] == 0).all()
            if layer.chunk is not None:
                outside = (j > i) | (i // config.chunk_size != j // config.chunk_size)
                assert (layer.chunk[..., outside] == 0).all()
            assert list(layer.mix) == list(config.paths)
            assert list(layer.mix.values()) == pytest.approx(block.mix.softmax(0).tolist(), abs=1e-12)
            assert_write(layer, config, batch, finished=size == config.segment_len)


def assert_write(layer, config, batch, finished):
    if "memory" not in config.paths:
        assert layer.write is None and layer.bank is None
        return
    assert layer.bank.shape == (batch, config.memory_slots, config.d_model)
    assert (layer.write is not None) == finished
    if finished:
        w = config.write_slots
        assert layer.write.gate.shape == (batch, w, config.d_model)
        assert ((layer.write.gate >= 0) & (layer.write.gate <= 1)).all()
        assert torch.equal(layer.write.evicted, layer.bank[:, :w])
        assert torch.equal(layer.write.memory[:, : config.memory_slots - w], layer.bank[:, w:])
        assert not any(getattr(layer.write, name).requires_grad for name in WRITE_FIELDS)


def test_banks_form_a_chain_from_the_learned_slots_to_the_state():
    model, tokens = make_model(), random_tokens(2, 17)
    trace, _, state = traced(model, tokens)
    for n, block in enumerate(model.blocks):
        layers = [segment.layers[n] for segment in trace.segments]
        assert torch.equal(layers[0].bank, block.memory.initial(2))
        for before, after in pairwise(layers):
            assert torch.equal(before.write.memory, after.bank)
        assert torch.equal(layers[2].write.memory, state.memory[n])
        assert layers[3].write is None and torch.equal(layers[3].bank, state.memory[n])


def test_the_write_is_the_one_that_the_loop_makes_of_the_layers_output():
    """The trace's numbers are those of the segment's output, not of something else of the right shape."""
    model, tokens = make_model(n_layers=1), random_tokens(2, 5)
    hidden = []
    handle = model.norm.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    trace, *_ = traced(model, tokens)
    handle.remove()
    layer = trace.segments[0].layers[0]
    expected = loop_write(model.blocks[0].memory, layer.bank, hidden[0], write_slots=2, gate="sigmoid",
                          carry="newest", pool="attention")
    for name, value in expected.items():
        assert gap(getattr(layer.write, name), value) < 1e-11, name


@settings(max_examples=40)
@given(configs(), st.integers(1, 15), st.data())
def test_a_split_reading_leaves_the_same_trace(config, length, data):
    model, tokens = make_model(config), random_tokens(2, length)
    whole, *_ = traced(model, tokens)
    pieces, *_ = traced(model, tokens, data.draw(splits(length)))
    assert_same_trace(whole, pieces)


def assert_same_trace(whole, pieces):
    assert len(whole.segments) == len(pieces.segments)
    for ours, theirs in zip(whole.segments, pieces.segments, strict=True):
        for a, b in zip(ours.layers, theirs.layers, strict=True):
            assert a.mix == b.mix
            assert (a.write is None) == (b.write is None)
            pairs = [(getattr(a, name), getattr(b, name)) for name in ("full", "chunk", "memory", "bank")]
            if a.write is not None:
                pairs += [(getattr(a.write, name), getattr(b.write, name)) for name in WRITE_FIELDS]
            for x, y in pairs:
                assert (x is None) == (y is None)
                assert x is None or gap(x, y) < 1e-10


def test_generation_is_recorded_like_a_reading():
    model, prompt = make_model(), random_tokens(1, 3)
    with record(model) as trace:
        generation = model.generate(prompt, 9, temperature=0.0)
    read = torch.cat([prompt, generation.tokens[:, :-1]], 1)
    assert_same_trace(traced(model, read)[0], trace)


def test_two_readings_in_one_recording_follow_each_other():
    model, tokens = make_model(), random_tokens(2, 12)
    with record(model) as trace, torch.no_grad():
        model(tokens)
        model(tokens[:, :7])
    assert [layer.layers[0].full.shape[-1] for layer in trace.segments] == [5, 5, 2, 5, 2]


@pytest.mark.parametrize("paths", SUBSETS)
def test_a_state_read_on_twice_makes_two_segments(paths):
    """Continuations that do not follow what was read last are segments of their own, with the rows that were read."""
    model, tokens = make_model(paths=paths), random_tokens(1, 10)
    state = model(tokens[:, :7]).state
    with record(model) as trace, torch.no_grad():
        model(tokens[:, 7:9], state)
        model(tokens[:, 7:8], state)
        model(tokens[:, 7:], state)
        model(tokens[:, 7:8], state)
    widths = {"full": (4, 3, 5, 3), "chunk": (4, 3, 5, 3), "memory": (4, 4, 4, 4)}
    for path in paths:
        shapes = [tuple(getattr(segment.layers[0], path).shape[-2:]) for segment in trace.segments]
        assert shapes == list(zip((2, 1, 3, 1), widths[path], strict=True))


def test_a_batch_of_another_size_in_between_is_no_obstacle():
    model, tokens = make_model(), random_tokens(2, 5)
    with torch.no_grad(), record(model):
        first = model(tokens[:, :3])
        model(tokens[:1, :2])
        rest = model(tokens[:, 3:], first.state)
    with torch.no_grad():
        assert torch.equal(rest.logits, model(tokens[:, 3:], model(tokens[:, :3]).state).logits)


@pytest.mark.parametrize("paths", SUBSETS)
def test_recording_that_begins_inside_a_segment(paths):
    model, tokens = make_model(paths=paths), random_tokens(1, 12)
    state = model(tokens[:, :3]).state
    trace = record(model)
    with trace as found, torch.no_grad():
        model(tokens[:, 3:], state)
    whole, *_ = traced(model, tokens)
    assert len(found.segments) == 3
    for ours, theirs in zip(found.segments, whole.segments, strict=True):
        for path in paths:
            rows = getattr(ours.layers[0], path)
            assert gap(rows, getattr(theirs.layers[0], path)[..., -rows.shape[-2] :, :]) < 1e-10


# Nothing is left behind.


def fingerprint(model):
    """Everything about a model that a recording could leave changed, except for the lists of observers' contents."""
    hooks = [len(value) for module in model.modules() for name, value in sorted(vars(module).items())
             if name.endswith("_hooks")]
    attributes = [sorted(vars(module)) for module in model.modules()]
    methods = [[name for name in vars(module) if callable(vars(module)[name])] for module in model.modules()]
    observers = [len(value) for module in model.modules() for value in vars(module).values() if type(value) is list]
    return hooks, attributes, methods, observers, sorted(model.state_dict())


def test_nothing_is_left_when_the_recording_is_over():
    model, tokens = make_model(), random_tokens(1, 12)
    before = fingerprint(model)
    with record(model) as trace, torch.no_grad():
        model(tokens)
    assert fingerprint(model) == before
    segments = len(trace.segments)
    model(tokens)
    assert len(trace.segments) == segments == 3


def test_nothing_keeps_a_trace_alive():
    model = make_model()
    trace, *_ = traced(model, random_tokens(1, 12))
    gone = weakref.ref(trace)
    del trace
    gc.collect()
    assert gone() is None


def test_off_it_computes_no_attention_map(monkeypatch):
    """With sdpa no map exists unless somebody records: the functions that make one are not called."""
    calls = []
    model, tokens = make_model(backend="sdpa"), random_tokens(1, 12)
    from rmat_tutorial import tracing

    for name in ("full_weights", "chunked_weights", "memory_weights"):
        original = getattr(tracing, name)
        monkeypatch.setattr(tracing, name, lambda *a, f=original, n=name: (calls.append(n), f(*a))[1])
    model(tokens)
    assert calls == []
    traced(model, tokens)
    assert len(calls) == 3 * 3 * SMALL["n_layers"]


@pytest.mark.parametrize("error", (ValueError, KeyboardInterrupt))
def test_an_error_inside_the_recording_cleans_up(error):
    model, tokens = make_model(), random_tokens(1, 7)
    before = fingerprint(model)
    with pytest.raises(error), record(model) as trace:
        model(tokens)
        raise error
    assert fingerprint(model) == before and len(trace.segments) == 2


def test_an_error_of_the_model_itself_cleans_up():
    model = make_model()
    before = fingerprint(model)
    with pytest.raises(ValueError), record(model):
        model(random_tokens(1, 7) + 60)
    assert fingerprint(model) == before


def test_recordings_inside_each_other():
    model, tokens = make_model(), random_tokens(1, 7)
    before = fingerprint(model)
    with torch.no_grad(), record(model) as outer:
        model(tokens)
        with record(model) as inner:
            model(tokens)
        model(tokens)
    assert (len(outer.segments), len(inner.segments)) == (6, 2)
    assert fingerprint(model) == before


def test_without_a_margin_the_gates_themselves_are_collected(monkeypatch):
    """And not made a second time: a gradient through twins is rounded otherwise, and weights come out otherwise."""
    model, tokens = make_model(), random_tokens(2, 15)
    made, opening = [], GatedFIFOMemory.opening
    monkeypatch.setattr(GatedFIFOMemory, "opening",
                        lambda memory, score: made.append(opening(memory, score)) or made[-1])
    with collect_gates(model) as gates:
        model(tokens)
    assert len(gates) == len(made) == 3 * model.config.n_layers
    assert all(one is other for one, other in zip(gates, made, strict=True))
    with collect_gates(model, 0.5) as raised:
        model(tokens)
    assert all((other > one).any() and (other >= one).all() for one, other in zip(gates, raised, strict=True))


def test_recording_one_model_does_not_record_another():
    model, other = make_model(), make_model(seed=1)
    with record(model) as trace, torch.no_grad():
        other(random_tokens(1, 7))
    assert trace.segments == []


def test_a_recording_is_a_copy():
    """Training on after a recording must not change what was recorded."""
    model, tokens = make_model(), random_tokens(1, 5)
    trace, *_ = traced(model, tokens)
    bank, keys = trace.segments[0].layers[0].bank.clone(), trace.segments[0].layers[0].write.memory.clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(trace.segments[0].layers[0].bank, bank)
    assert torch.equal(trace.segments[0].layers[0].write.memory, keys)


def test_bad_input():
    with pytest.raises(TypeError) as error, record("recall"):
        pass
    assert_one_line(str(error.value), "model", "RMAT", "str")


def test_a_memory_is_written_from_the_output_of_its_block():
    model, tokens = make_model(n_layers=2), random_tokens(2, 3 * make_model().config.segment_len)
    heard = written_segments(model, tokens)
    outputs, state = [[], []], model.init_state(2)
    with torch.no_grad():
        for segment in tokens.split(model.config.segment_len, dim=1):
            x = model.embed(segment)
            for layer, block in enumerate(model.blocks):
                x, _ = block.attend(x, state.memory[layer])
                outputs[layer].append(x)
            state = model(segment, state).state
    for layer in (0, 1):
        assert torch.allclose(torch.stack(heard[layer]), torch.stack(outputs[layer]))
    assert not any(block.memory.write_norm._forward_pre_hooks for block in model.blocks), "no hook stays behind"
