"""The picture of a training shows the steps that were taken, also those of a run that was stopped and resumed."""

import signal

import pytest
import torch

from rmat_tutorial import RMATConfig
from rmat_tutorial.language_model import build
from rmat_tutorial.pictures.training import TrainingPicture, TrainingView
from rmat_tutorial.runs import RunFolder
from rmat_tutorial.tasks import RecallTask
from rmat_tutorial.training import TrainingStopped, TrainSettings, train

pytestmark = pytest.mark.usefixtures("style")

CONFIG = RMATConfig(d_model=8, n_heads=2, n_layers=1, segment_len=16, chunk_size=4, memory_slots=4, write_slots=2)
SETTINGS = TrainSettings(steps=6, batch_size=2, max_segments=2, grow_below=None, seed=3)


def lines(*bits, gate=0.25):
    return [{"step": step, "bits_per_byte": value, "gate": gate} for step, value in enumerate(bits, start=1)]


def test_what_is_drawn_is_what_came():
    picture = TrainingPicture(30, {"a guess": 8.0})
    assert picture.draw() == "Nothing is trained yet: step 0 of 30."
    for line in lines(*(8.0 - step / 10 for step in range(25))):
        picture.add(line)
    assert picture.draw() == "Step 25 of 30: 6.05 bits per byte."  # the mean of the last ten
    loss, gate = picture.figure.axes
    each, mean, level = loss.lines
    assert list(each.get_ydata()) == picture.bits and len(picture.bits) == 25
    assert mean.get_ydata()[0] == 8.0 and mean.get_ydata()[-1] == pytest.approx(6.05)
    assert set(level.get_ydata()) == {8.0}
    assert list(gate.lines[0].get_ydata()) == [0.25] * 25


def test_a_training_that_begins_again_begins_the_picture_again():
    picture = TrainingPicture(10, {})
    for line in (*lines(5.0, 4.0, 3.0), *lines(7.0, 6.0)):
        picture.add(line)
    assert picture.bits == [7.0, 6.0]
    assert picture.gates == [0.25, 0.25]


def test_a_model_without_gates_has_none_in_the_picture():
    picture = TrainingPicture(10, {})
    for line in lines(5.0, 4.0, gate=None):
        picture.add(line)
    assert picture.draw() == "Step 2 of 10: 4.50 bits per byte."
    assert picture.gates == []


def test_a_view_follows_and_ends_with_the_last_step(monkeypatch):
    view = TrainingView(3, {})
    first = view.png
    monkeypatch.setattr("rmat_tutorial.pictures.training.REDRAW_SECONDS", 1e9)
    for line in lines(5.0, 4.0, 3.0):
        view.follow(line, None)
    assert view.bar.value == view.bar.max == 3
    assert view.caption == "Step 3 of 3: 4.00 bits per byte."
    assert view.png != first
    assert view.bar in view.children


class Bytes(RecallTask):
    """Recall whose score goes by the name of a text's."""

    metric = "bits_per_byte"


def test_a_training_that_is_stopped_and_resumed_fills_one_picture(tmp_path):
    def until(stop):
        def follow(metrics, model):
            seen.append(metrics["step"])
            view.follow(metrics, model)
            if metrics["step"] == stop:
                signal.raise_signal(signal.SIGINT)

        return follow

    view, seen = TrainingView(SETTINGS.steps, {}), []
    config = RMATConfig(**{**CONFIG.to_dict(), "vocab_size": Bytes().vocab_size, "paths": CONFIG.paths})
    with pytest.raises(TrainingStopped, match="stopped after step 4 of 6") as stop:
        train(config, Bytes(), SETTINGS, tmp_path / "run", progress=False, follow=until(4))
    assert stop.value._render_traceback_() == [str(stop.value)]
    assert RunFolder(tmp_path / "run").holds_a_run() and len(view.picture.bits) == 4
    part = list(view.picture.bits)
    model = train(config, Bytes(), SETTINGS, tmp_path / "run", resume=True, progress=False, follow=until(None))
    assert seen == [1, 2, 3, 4, 1, 2, 3, 4, 5, 6]
    assert view.picture.bits[:4] == part and len(view.picture.bits) == 6
    seen.clear()
    again = train(config, Bytes(), SETTINGS, tmp_path / "run", resume=True, progress=False, follow=until(None))
    assert seen == [1, 2, 3, 4, 5, 6]
    whole = train(config, Bytes(), SETTINGS, tmp_path / "whole", progress=False)
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]) and torch.equal(weight, again.state_dict()[name])
    assert isinstance(model, type(build(config)))
