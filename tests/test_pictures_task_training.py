"""The picture of a training on a task shows the answers by distance and what the model itself writes, unharmed."""

import math

import numpy as np
import pytest
import torch

from rmat_tutorial import RMAT, RMATConfig, record
from rmat_tutorial.baselines import matching
from rmat_tutorial.language_model import build
from rmat_tutorial.memory import hard_gate
from rmat_tutorial.pictures import training
from rmat_tutorial.pictures.task_training import COLUMNS, TaskTrainingPicture, TaskTrainingView, written
from rmat_tutorial.tasks import RecallTask
from rmat_tutorial.training import TrainSettings, train

pytestmark = pytest.mark.usefixtures("style")

TASK = RecallTask(keys=3, values=2, facts=2, noise_tokens=2)
L, W, M, N = 8, 2, 6, 2
CONFIG = RMATConfig(vocab_size=TASK.vocab_size, d_model=8, n_heads=2, n_layers=N, segment_len=L, chunk_size=4,
                    memory_slots=M, write_slots=W, gate="hard", gate_bias=-2.0)
SETTINGS = TrainSettings(steps=6, batch_size=2, max_segments=4, grow_below=None, seed=3, gate_penalty_from=2)


def model(**changes) -> RMAT:
    torch.manual_seed(0)
    return RMAT(RMATConfig(**{**CONFIG.to_dict(), "paths": CONFIG.paths, **changes})).eval()


def stream(segments=5):
    return torch.randint(TASK.vocab_size, (1, segments * L), generator=torch.Generator().manual_seed(1))


def line(step, back, **more):
    right, asked = (sum(column) for column in zip(*back, strict=True))
    return {"step": step, "loss": 1.0 + step, "accuracy": right / asked, "gate": 0.25, "max_segments": 4,
            "by_segments_back": back, **more}


def drawn(picture, image):
    return np.ma.filled(image.get_array(), np.nan)


# What is seen in the model -----------------------------------------------------------------------------------------


def test_the_gates_are_those_of_a_recording():
    reader, tokens = model(), stream()
    opened, _ = written(reader, tokens)
    with torch.no_grad(), record(reader) as trace:
        reader(tokens)
    assert opened.shape == (N * W, 5)
    for number, segment in enumerate(trace.segments):
        gates = torch.cat([layer.write.gate[0].amax(dim=-1) for layer in segment.layers])
        assert torch.equal(opened[:, number], gates)


@pytest.mark.parametrize("carry", ["newest", "oldest"])
def test_a_bank_whose_gates_are_shut_fills_nothing(carry):
    reader = model(carry=carry)
    for block in reader.blocks:
        block.memory.to_gate.weight.data.zero_()
        block.memory.to_gate.bias.data.fill_(-9.0)
        assert not hard_gate(block.memory.to_gate.bias).any()
    opened, filled = written(reader, stream())
    assert not opened.any() and not filled.any()  # though the slots have moved


@pytest.mark.parametrize("carry", ["newest", "oldest"])
def test_what_a_gate_let_in_is_seen_where_it_lies(carry):
    reader = model(carry=carry)
    memory = reader.blocks[1].memory
    memory.to_gate.weight.data.zero_()
    memory.to_gate.bias.data.fill_(9.0)  # the second layer is overwritten at each write
    opened, filled = written(reader, stream())
    assert torch.equal(opened[W:], torch.ones(W, 5))
    # Written slots enter at the end and move up; all others are as they would be without.
    for segment, column in enumerate(filled[M:].T):
        new = min(M, W * (segment + 1))
        assert (column[M - new :] > 0).all() and not column[: M - new].any()
    with torch.no_grad(), record(reader) as trace:
        reader(stream())
    last = trace.segments[0].layers[1].write
    kept = last.carried[0]
    assert torch.allclose(filled[-W:, 0], (last.memory[0, -W:] - kept).square().mean(dim=-1).sqrt())


def test_looking_leaves_the_model_as_it_is():
    reader = model(dropout=0.5).train()
    before = {name: value.clone() for name, value in reader.state_dict().items()}
    picture = TaskTrainingPicture(CONFIG, TASK, SETTINGS)
    random = torch.get_rng_state()
    picture.look(reader)
    first = picture.opened
    picture.look(reader)
    assert torch.equal(picture.opened, first)  # without dropout
    assert reader.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, reader.state_dict()[name]) for name, value in before.items())
    assert all(not block.taps for block in reader.blocks)


def test_the_stream_is_as_long_as_the_longest_and_its_facts_are_marked():
    picture = TaskTrainingPicture(CONFIG, TASK, SETTINGS, seed=5)
    picture.look(model())
    assert picture.opened.shape == (N * W, 4) and picture.filled.shape == (N * M, 4)
    places = TASK.episode(1, 4 * L, torch.Generator().manual_seed(5)).places
    for ax in picture.figure.axes[4:]:
        (marks,) = [one for one in ax.lines if one.get_marker() == "v"]
        assert set(marks.get_xdata()) == {int(place) // L for place in places[0]}


# What is drawn -----------------------------------------------------------------------------------------------------


def test_what_is_drawn_is_what_came():
    picture = TaskTrainingPicture(CONFIG, TASK, SETTINGS)
    assert picture.draw() == "Nothing is trained yet: step 0 of 6."
    assert np.isnan(picture.answered).all() and picture.answered.shape == (4, 6)
    for entry in (line(1, [[1, 4]]), line(2, [[3, 4], [0, 2], [0, 0], [2, 2]])):
        picture.add(entry)
    picture.look(model())
    assert picture.draw() == "Step 2 of 6, streams of up to 4 segments: 43.8% of the answers are right."
    wanted = np.full((4, 6), np.nan)
    wanted[0, 0] = 1 / 4
    wanted[:, 1] = 3 / 4, 0, np.nan, 1
    loss, accuracy, gate, back, opened, filled = picture.figure.axes
    assert np.array_equal(drawn(picture, back.images[0]), wanted, equal_nan=True)
    assert list(loss.lines[0].get_ydata()) == picture.losses == [2.0, 3.0]
    assert list(accuracy.lines[0].get_ydata()) == picture.accuracies == [0.25, 5 / 8]
    assert list(gate.lines[0].get_ydata()) == picture.gates == [0.25, 0.25]
    assert np.array_equal(drawn(picture, opened.images[0]), picture.opened.numpy())
    assert np.array_equal(drawn(picture, filled.images[0]), picture.filled.numpy())


def upright(ax):
    (lines,) = ax.collections
    return [[step for step, _ in segment] for segment in lines.get_segments()]


def test_a_line_stands_where_streams_grew():
    picture = TaskTrainingPicture(CONFIG, TASK, SETTINGS)
    for step, most in enumerate((1, 1, 2, 2, 4, 4), 1):
        picture.add(line(step, [[1, 2]], max_segments=most))
    picture.draw()
    assert picture.growths == [3, 5]
    assert [upright(ax) for ax in picture.figure.axes[:3]] == [[[3, 3], [5, 5]]] * 3
    picture.add(line(3, [[1, 2]], max_segments=1))  # a training that begins again
    assert picture.draw().startswith("Step 3 of 6, streams of 1 segment") and picture.growths == []


def test_a_long_training_shares_columns():
    steps = 3 * COLUMNS + 50
    picture = TaskTrainingPicture(CONFIG, TASK, TrainSettings(steps=steps, max_segments=4))
    for step in range(1, steps + 1):
        picture.add(line(step, [[step % 2, 1]]))
    assert picture.answered.shape == (4, COLUMNS)
    assert not np.isnan(picture.answered[0]).any() and np.isnan(picture.answered[1:]).all()
    assert picture.answered[0].min() >= 1 / 4 and picture.answered[0].max() <= 3 / 4
    ax = picture.figure.axes[3]
    assert (ax.images[0].get_extent()[0], ax.images[0].get_extent()[1]) == (0, steps)


def test_a_training_that_begins_again_begins_the_picture_again():
    picture = TaskTrainingPicture(CONFIG, TASK, SETTINGS)
    for entry in (line(1, [[1, 1]]), line(2, [[1, 1]]), line(3, [[1, 1], [1, 1]]), line(1, [[0, 1]])):
        picture.add(entry)
    assert picture.losses == [2.0] and picture.accuracies == [0.0]
    assert picture.answered[0, 0] == 0 and np.isnan(picture.answered[:, 1:]).all()


@pytest.mark.parametrize("config", [matching(CONFIG, "segment"),
                                    RMATConfig(**{**CONFIG.to_dict(), "paths": ("full", "chunk")})])
def test_a_model_without_a_bank_shows_none(config):
    view = TaskTrainingView(config, TASK, SETTINGS)
    view.follow(line(1, [[1, 4]], gate=None), build(config))
    assert view.picture.opened is None and view.picture.gates == []
    assert view.caption.startswith("Step 1 of 6") and view.png.startswith(b"\x89PNG")
    for ax in view.picture.figure.axes[4:]:
        assert "this model has no bank" in [text.get_text() for text in ax.texts] and not ax.images


# In a training -----------------------------------------------------------------------------------------------------


def test_a_view_follows_a_training_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "REDRAW_SECONDS", 0.0)
    monkeypatch.setattr(training, "PAUSE", 0)
    view = TaskTrainingView(CONFIG, TASK, SETTINGS)
    followed = train(CONFIG, TASK, SETTINGS, tmp_path / "one", progress=False, follow=view.follow)
    alone = train(CONFIG, TASK, SETTINGS, tmp_path / "two", progress=False)
    for name, weight in alone.state_dict().items():
        assert torch.equal(weight, followed.state_dict()[name])
    assert view.bar.value == 6 and view.caption.startswith("Step 6 of 6, streams of up to 4 segments: ")
    assert all(map(math.isfinite, view.picture.losses)) and len(view.picture.losses) == 6
    opened, _ = written(followed, view.picture._probe)
    assert torch.equal(view.picture.opened, opened)


def test_pictures_take_a_tenth_of_the_time(monkeypatch):
    clock = iter(range(0, 10_000, 1))
    monkeypatch.setattr(training.time, "monotonic", lambda: float(next(clock)))
    view = TaskTrainingView(CONFIG, TASK, TrainSettings(steps=1000, max_segments=4))
    looked = []
    view._look = lambda model: looked.append(view.picture.losses[-1])
    for step in range(1, 101):
        view.follow(line(step, [[1, 1]]), None)
    # A picture takes a tick of this clock, and each step another one: then ten go by without.
    assert 8 <= len(looked) <= 10
