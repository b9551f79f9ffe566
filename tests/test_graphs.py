"""Graphs: what is captured once and replayed gives the numbers of a call, whatever was replayed before.

Without a CUDA device a stand-in takes the place of capture and replay. It runs the function on the buffers again and
spoils, at each replay, all that the other graphs have written: they may share memory.
"""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import SMALL, assert_near, assert_one_line, configs, gap, make_model, random_tokens, splits
from test_backprop import PENALTIES, error, some_targets
from test_streaming import assert_same_state

from rmat_tutorial import RMAT, RMATConfig, graphs, record
from rmat_tutorial.backprop import backpropagate
from rmat_tutorial.baselines import matching
from rmat_tutorial.evaluation import evaluate
from rmat_tutorial.graphs import GraphedModel, Graphs
from rmat_tutorial.language_model import build
from rmat_tutorial.orders import ways
from rmat_tutorial.tasks import IGNORED, RecallTask
from rmat_tutorial.training import Trainer, TrainingError, TrainSettings

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
TOLERANCE = 1e-10
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs a CUDA device")


class StandIn:
    """``graphs.capture`` without a GPU. ``captured`` holds the results of every graph so far."""

    def __init__(self) -> None:
        self.captured: list[tuple] = []

    def capture(self, function, device, pool):
        results = tuple([x if x is None else x.clone() for x in part] for part in function())
        self.captured.append(results)

        def replay():
            for others in self.captured:
                for x in (x for part in others for x in part if x is not None):
                    x.fill_(True if x.dtype == torch.bool else -7)
            for part, values in zip(results, function(), strict=True):
                for x, value in zip(part, values, strict=True):
                    assert (x is None) == (value is None)
                    if x is not None:
                        x.copy_(value)

        return replay, results


@pytest.fixture(autouse=True)
def captures(monkeypatch):
    """How many graphs were captured, as the length of a list."""
    if not CUDA:
        stand_in = StandIn()
        monkeypatch.setattr(graphs, "capture", stand_in.capture)
        monkeypatch.setattr(graphs, "Pool", lambda: None)
        monkeypatch.setattr(graphs, "require_cuda", lambda device: None)
        return stand_in.captured
    counted, capture = [], graphs.capture
    monkeypatch.setattr(graphs, "capture", lambda *given: counted.append(given) or capture(*given))
    return counted


def on_device(model):
    return model.to(DEVICE)


def tokens_of(batch, length, seed=0):
    return random_tokens(batch, length, seed=seed).to(DEVICE)


# Reading.


@pytest.mark.parametrize("order", ("segments", "wavefront"))
@settings(max_examples=12)
@given(configs(), st.integers(1, 3), st.integers(1, 25), st.data())
@torch.no_grad()
def test_a_reading_is_the_same_in_any_split(order, config, batch, length, data):
    model = on_device(make_model(config))
    model.order = order
    tokens, sizes = tokens_of(batch, length), data.draw(splits(length))
    graphed, state, ours = GraphedModel(model), None, None
    for piece in tokens.split(sizes, 1):
        output, theirs = graphed(piece, ours), model(piece, state)
        ours, state = output.state, theirs.state
        assert_near(output.logits, theirs.logits, TOLERANCE)
        assert_same_state(ours, state, TOLERANCE)


@torch.no_grad()
def test_one_graph_a_shape(captures):
    model = on_device(make_model())
    graphed = GraphedModel(model)
    state = None
    for size in (10, 10, 10, 7, 8, 10):  # after 7 tokens a piece begins inside a segment
        state = graphed(tokens_of(2, size), state).state
    assert len(captures) == 3
    graphed(tokens_of(3, 10))
    assert len(captures) == 4
    model.order = "wavefront"
    graphed(tokens_of(3, 10))
    assert len(captures) == 5
    graphed.train()(tokens_of(3, 10))
    assert len(captures) == 6


@torch.no_grad()
def test_what_was_read_stays_as_it_was():
    """Results are copies: neither the next replay nor that of another graph changes them."""
    model = on_device(make_model())
    graphed = GraphedModel(model)
    first = graphed(tokens_of(2, 7))
    kept = [x.clone() for x in (first.logits, *first.state.tensors())]
    graphed(tokens_of(2, 7, seed=1))
    graphed(tokens_of(2, 3, seed=2), first.state)
    assert all(torch.equal(a, b) for a, b in zip(kept, (first.logits, *first.state.tensors()), strict=True))


@torch.no_grad()
def test_weights_are_read_where_they_are(captures):
    model, tokens = on_device(make_model(dtype=torch.float32)), tokens_of(2, 10)
    graphed = GraphedModel(model)
    graphed(tokens)
    model.blocks[1].to_q.weight.mul_(2)  # as an optimiser changes them
    assert_near(graphed(tokens).logits, model(tokens).logits, 1e-6)
    assert len(captures) == 1
    model.head.weight.data = model.head.weight * 2  # elsewhere: a graph would go on reading where it was
    assert_near(graphed(tokens).logits, model(tokens).logits, 1e-6)
    assert len(captures) == 2
    model.double()
    assert_near(graphed(tokens).logits, model(tokens).logits, TOLERANCE)
    assert len(captures) == 3


def test_evaluate_takes_it():
    task = RecallTask(keys=3, values=2, facts=2, noise_tokens=2)
    model = on_device(RMAT(RMATConfig(**(SMALL | {"vocab_size": task.vocab_size}))))
    graphed = GraphedModel(model)
    ours, theirs = (evaluate(reader, task, 530, 2) for reader in (graphed, model))
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5) and ours.value == theirs.value
    assert graphed.training and model.training
    graphed(tokens_of(1, 12, seed=1) % task.vocab_size)  # outside of inference mode, in buffers made inside of it


# Training.


def gradient(model, batch, length, before=0, share=0.4, **options):
    """What ``backpropagate`` leaves in the parameters, and what it returns, for streams that begin after ``before``
    tokens and ask for a ``share`` of the next ones."""
    tokens = random_tokens(batch, length)
    with torch.no_grad():
        state = model(tokens_of(batch, before, seed=7)).state.detach() if before else None
    if before and state.resettable:
        state = state.reset([0])  # a row that learns its slots
    model.zero_grad(set_to_none=True)
    torch.manual_seed(5)
    reading = backpropagate(model, tokens.to(DEVICE), some_targets(tokens, share).to(DEVICE), state, **options)
    return {name: parameter.grad for name, parameter in model.named_parameters()}, reading


WAYS = ({}, {"backprop": "truncated", "backprop_segments": 2})


@settings(max_examples=20)
@given(configs(), st.integers(1, 3), st.integers(1, 20), st.integers(0, 12), PENALTIES, st.booleans(),
       st.sampled_from(WAYS), st.sampled_from((0.0, 0.5)))
def test_the_gradient_and_all_that_is_counted_are_the_same(
    config, batch, length, before, penalty, wavefront, way, margin
):
    model = on_device(make_model(config)).train()
    asked = {"gate_penalty": penalty, "gate_margin": margin, **way}
    wanted, expected = gradient(model, batch, length, before, **asked)
    model.order = "wavefront" if wavefront else "segments"
    found, reading = gradient(model, batch, length, before, learn=Graphs(model).learn, **asked)
    assert error(found, wanted) <= TOLERANCE
    assert reading.score.loss == pytest.approx(expected.score.loss, rel=1e-10)
    assert (reading.score.correct, reading.score.positions) == (expected.score.correct, expected.score.positions)
    assert torch.equal(reading.right, expected.right)
    assert reading.gate == (None if expected.gate is None else pytest.approx(expected.gate, rel=1e-10))
    assert_same_state(reading.state, expected.state, TOLERANCE)
    assert not any(tensor.requires_grad for tensor in reading.state.tensors())


def test_a_graph_is_captured_once_and_knows_what_changes_it(captures):
    model = on_device(make_model()).train()
    learn = Graphs(model).learn
    for _ in range(3):
        found, _ = gradient(model, 2, 20, learn=learn, gate_penalty=0.7)
    assert len(captures) == 1
    wanted, _ = gradient(model, 2, 20, gate_penalty=0.7)
    assert error(found, wanted) <= TOLERANCE
    found, _ = gradient(model, 2, 20, learn=learn, gate_penalty=0.7, share=0.9)
    assert error(found, gradient(model, 2, 20, gate_penalty=0.7, share=0.9)[0]) <= TOLERANCE
    assert len(captures) == 1, "how many answers there are is an input"
    others = ({"gate_penalty": None}, {"gate_penalty": 0.7, "gate_margin": 0.5}, {"gate_penalty": 0.7, "before": 5},
              {"gate_penalty": 0.7, "before": 3}, {"gate_penalty": 0.7, "before": 4})
    for number, asked in enumerate(others, 1):
        found, _ = gradient(model, 2, 20, learn=learn, **asked)
        wanted, _ = gradient(model, 2, 20, **asked)
        assert error(found, wanted) <= TOLERANCE, asked
        assert len(captures) <= 1 + number
    found, _ = gradient(model, 2, 20, learn=learn, gate_penalty=0.7)
    assert len(captures) == 5, "the stream that begins after whole segments needs no graph of its own"


def test_right_answers_are_found_and_no_others():
    model, tokens = on_device(make_model()).train(), tokens_of(2, 20)
    with torch.no_grad():
        said = model(tokens).logits.argmax(-1)
    targets = said.clone()
    targets[:, ::3] = IGNORED
    targets[:, 1] = (said[:, 1] + 1) % 60
    reading = backpropagate(model, tokens, targets, learn=Graphs(model).learn)
    assert torch.equal(reading.right, targets == said)
    assert (reading.score.correct, reading.score.positions) == (2 * 12, 2 * 13)


def test_windows_add_up_what_they_teach(captures):
    """Two windows of one shape: one graph, replayed twice before anything is done with the gradient."""
    model = on_device(make_model()).train()
    learn, way = Graphs(model).learn, {"backprop": "truncated", "backprop_segments": 2, "gate_penalty": 0.7}
    found, _ = gradient(model, 2, 20, learn=learn, **way)
    assert len(captures) == 1
    assert error(found, gradient(model, 2, 20, **way)[0]) <= TOLERANCE
    found, _ = gradient(model, 2, 30, learn=learn, **way)  # of more windows, each has a smaller part of the penalty
    assert error(found, gradient(model, 2, 30, **way)[0]) <= TOLERANCE


def test_bfloat16_is_that_of_the_plain_way():
    model = on_device(build(RMATConfig(**SMALL))).train()
    found, reading = gradient(model, 2, 23, learn=Graphs(model).learn, precision="bfloat16")
    wanted, _ = gradient(model, 2, 23, precision="bfloat16")
    assert error(found, wanted) < 0.02
    assert {tensor.dtype for tensor in (*found.values(), *reading.state.tensors())} == {torch.float32}


def test_a_state_that_is_nan_is_seen_before_a_replay():
    model = on_device(make_model()).train()
    learn = Graphs(model).learn
    _, reading = gradient(model, 2, 10, learn=learn)
    spoiled = replace(reading.state, memory=tuple(bank * float("nan") for bank in reading.state.memory))
    with pytest.raises(FloatingPointError, match="NaN"):
        backpropagate(model, tokens_of(2, 10), tokens_of(2, 10), spoiled, learn=learn)
    with pytest.raises(ValueError, match="vocab_size"):
        GraphedModel(model)(tokens_of(2, 10) + 60)


@pytest.mark.parametrize("order", ("segments", "wavefront"))
def test_a_trainer_takes_the_same_steps(order):
    task = RecallTask(keys=3, values=2, facts=2, noise_tokens=2)
    config = RMATConfig(**(SMALL | {"vocab_size": task.vocab_size}))
    settings = TrainSettings(steps=6, batch_size=3, warmup=2, max_segments=4, grow_below=5.0, gate_penalty_from=3)
    plain = Trainer(config, task, settings, DEVICE)
    graphed = Trainer(config, task, settings, DEVICE, order=order, graphs=True)
    for _ in range(settings.steps):
        theirs, ours = plain.advance(), graphed.advance()
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gate"] == pytest.approx(theirs["gate"], rel=1e-4)
    for a, b in zip(graphed.model.parameters(), plain.model.parameters(), strict=True):
        assert gap(a, b) < 1e-4


# What cannot be captured is said.


def test_a_model_on_a_cpu_says_what_graphs_need(monkeypatch):
    monkeypatch.undo()
    for use in (Graphs, GraphedModel):
        with pytest.raises(ValueError) as refusal:
            use(make_model())
        assert_one_line(str(refusal.value), "CUDA graphs need", "CUDA device", "cpu")


@pytest.mark.parametrize("model, kind, fragments", [
    (build(matching(RMATConfig(**SMALL), "segment")), TypeError, ["RMAT", "SegmentOnly"]),
    (make_model(backend="flex"), ValueError, ["backend", "'flex'", "'triton'"]),
])
def test_what_graphs_are_not_for(model, kind, fragments):
    with pytest.raises(kind) as refusal:
        Graphs(model)
    assert_one_line(str(refusal.value), *fragments)


def test_a_replay_shows_nothing_of_itself_and_says_so():
    model = on_device(make_model())
    graphed = GraphedModel(model)
    with record(model), pytest.raises(ValueError) as refusal:
        graphed(tokens_of(1, 5))
    assert_one_line(str(refusal.value), "recorded", "without graphs")
    with torch.autocast(DEVICE, torch.bfloat16), pytest.raises(ValueError) as refusal:
        graphed(tokens_of(1, 5))
    assert_one_line(str(refusal.value), "autocast", "precision='bfloat16'")
    with pytest.raises(ValueError, match="precision must be one of"):
        GraphedModel(model, "float16")


@pytest.mark.parametrize("changes, fragment", [
    ({"backprop": "replay"}, "'replay'"), ({"ragged": True}, "ragged"),
])
def test_a_trainer_refuses_what_would_not_pay(changes, fragment):
    task = RecallTask(keys=3, values=2, facts=2, noise_tokens=2)
    config = RMATConfig(**(SMALL | {"vocab_size": task.vocab_size}))
    with pytest.raises(TrainingError) as refusal:
        Trainer(config, task, TrainSettings(max_segments=4, **changes), DEVICE, graphs=True)
    assert_one_line(str(refusal.value), "graphs must be False", fragment)
    with pytest.raises(ValueError, match="learn must be None"):
        model = on_device(make_model())
        backpropagate(model, tokens_of(1, 5), tokens_of(1, 5), backprop="replay", learn=Graphs(model).learn)


def test_after_a_capture_that_failed_graphs_have_another_pool(monkeypatch):
    """With a stand-in for CUDA."""
    monkeypatch.undo()
    pools, handles = [], iter("ab")

    def graph(_, pool):
        pools.append(pool)
        return nullcontext()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, stand_in in {
        "device": lambda device: nullcontext(), "Stream": lambda: stream, "current_stream": lambda: stream,
        "stream": lambda stream: nullcontext(), "CUDAGraph": lambda: SimpleNamespace(replay=None), "graph": graph,
        "graph_pool_handle": lambda: next(handles),
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(graphs, "WARM_UPS", 0)
    pool = graphs.Pool()
    for function in (list, float, "not a number".count, list):
        with nullcontext() if function in (list, float) else pytest.raises(TypeError):
            graphs.capture(function, torch.device("cpu"), pool)
    assert pools == ["a", "a", "a", "b"]


# For the benchmark.


@pytest.mark.parametrize("training", (False, True))
def test_all_ways_give_the_same(training):
    """Twice: the second call goes on where the first ended."""
    found = ways(RMATConfig(**SMALL), 2, 3, training=training, device=DEVICE)
    assert list(found) == ["eager loop", "wavefront", *["graph", "wavefront and graph"] * CUDA]
    for _ in range(2):
        logits = [way() for way in found.values()]
    if not training:
        assert all(gap(ours, logits[0]) < 1e-4 for ours in logits[1:])


@pytest.mark.parametrize("changes, fragments", [
    ({"batch": 0}, ["batch", "0"]),
    ({"segments": 0}, ["segments", "0"]),
    ({"precision": "int8"}, ["precision", "int8"]),
])
def test_a_wrong_size_of_a_benchmark_is_named(changes, fragments):
    with pytest.raises(ValueError) as refusal:
        ways(RMATConfig(**SMALL), **({"batch": 1, "segments": 2, "training": False} | changes))
    assert_one_line(str(refusal.value), *fragments)


# On a GPU.


@needs_cuda
@pytest.mark.parametrize("order", ("segments", "wavefront"))
def test_dropout_draws_anew_at_each_replay(order):
    model = on_device(make_model(dropout=0.3)).train()
    model.order = order
    plain, _ = gradient(model, 2, 20)
    learn = Graphs(model).learn
    drawn = [gradient(model, 2, 20, learn=learn)[0] for _ in range(2)]
    assert all(error(found, plain) <= TOLERANCE for found in drawn), "the seed decides, as without a graph"
    torch.manual_seed(6)
    tokens = tokens_of(2, 20)
    model.zero_grad(set_to_none=True)
    backpropagate(model, tokens, tokens, learn=learn)
    first = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    backpropagate(model, tokens, tokens, learn=learn)
    assert error({name: parameter.grad for name, parameter in model.named_parameters()}, first) > 1e-3


@needs_cuda
@pytest.mark.parametrize("order", ("segments", "wavefront"))
@pytest.mark.parametrize("backend", ("triton", "sdpa"))
def test_bfloat16_with_the_kernels(backend, order):
    config = RMATConfig(d_model=128, n_heads=2, n_layers=3, segment_len=64, chunk_size=16, backend=backend)
    torch.manual_seed(0)
    model = RMAT(config).cuda().train()
    wanted, _ = gradient(model, 4, 256, precision="bfloat16", gate_penalty=1.0)
    model.order = order
    found, _ = gradient(model, 4, 256, precision="bfloat16", gate_penalty=1.0, learn=Graphs(model).learn)
    assert error(found, wanted) < 0.02
