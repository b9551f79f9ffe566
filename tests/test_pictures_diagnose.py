"""The plots of the runs that are to be told apart show what was recorded, pooled over steps without loss of answers."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmat_tutorial.folders import data
from rmat_tutorial.pictures.diagnose import MOST_LOSS, POOLED, pooled, record, shares, training_plots
from rmat_tutorial.runs import RunFolder

pytestmark = pytest.mark.usefixtures("style")

COUNTS = st.lists(st.integers(0, 4).flatmap(lambda asked: st.tuples(st.integers(0, asked), st.just(asked))),
                  min_size=1, max_size=4)
LINES = st.lists(
    st.fixed_dictionaries({"loss": st.floats(0, 9), "gate": st.none() | st.floats(0, 1), "by_segments_back": COUNTS}),
    min_size=1, max_size=3 * POOLED,
)


@pytest.fixture(scope="module")
def stored():
    return json.loads((data() / "diagnose-training.json").read_text(encoding="utf-8"))


@settings(deadline=None, max_examples=50)
@given(LINES)
def test_pools_lose_no_answer_and_no_step(lines):
    run = pooled(lines)
    assert len(run["loss"]) == len(run["gate"]) == len(run["by_segments_back"]) == math.ceil(len(lines) / POOLED)
    for back in range(4):
        wanted = [sum(line["by_segments_back"][back][i] for line in lines if back < len(line["by_segments_back"]))
                  for i in range(2)]
        assert wanted == [sum(of[back][i] for of in run["by_segments_back"] if back < len(of)) for i in range(2)]
    first = lines[:POOLED]
    assert run["loss"][0] == pytest.approx(sum(line["loss"] for line in first) / len(first), abs=1e-4)
    share = shares(run)
    assert ((share >= 0) & (share <= 1) | np.isnan(share)).all()
    asked = [[back < len(of) and of[back][1] > 0 for of in run["by_segments_back"]] for back in range(len(share))]
    assert (np.isnan(share) == ~np.array(asked)).all()


def test_each_run_has_its_row(stored):
    runs = stored["runs"]
    figure = training_plots(runs)
    axes = np.array(figure.axes[: 3 * len(runs)]).reshape(-1, 3)
    assert [loss.get_ylabel() for loss, *_ in axes] == list(runs)
    for run, (loss, gate, answers) in zip(runs.values(), axes, strict=True):
        guess, line = loss.lines
        assert set(guess.get_ydata()) == {math.log(8)}
        assert list(line.get_ydata()) == run["loss"] and line.get_xdata()[0] == POOLED / 2
        assert list(gate.lines[0].get_ydata()) == run["gate"]
        np.testing.assert_array_equal(answers.images[0].get_array().filled(np.nan), shares(run))
        assert answers.images[0].get_clim() == (0, 1)
        leaves = [text.get_text() for text in loss.texts if "up to" in text.get_text()]
        assert leaves == ([f"up to {max(run['loss']):.0f}"] if max(run["loss"]) > MOST_LOSS else [])


def test_a_run_without_gates_has_an_empty_plot_of_them():
    line = {"loss": 1.0, "gate": None, "by_segments_back": [[1, 2]]}
    figure = training_plots({"one": pooled([line] * POOLED)})
    assert np.isnan(figure.axes[1].lines[0].get_ydata()).all()


def test_runs_are_recorded_from_their_folders(tmp_path):
    line = {"loss": 1.0, "gate": 0.5, "by_segments_back": [[1, 2]]}
    folder = RunFolder(tmp_path)
    folder.metrics.write_text(f"{json.dumps(line)}\n" * (POOLED + 1))
    folder.report.write_text(json.dumps({"command": "train …", "seed": 3, "scores": [1]}))
    recorded = record({"X": tmp_path})
    assert recorded == {"pooled_steps": POOLED, "runs": {"X": {
        "command": "train …", "seed": 3, "loss": [1.0] * 2, "gate": [0.5] * 2,
        "by_segments_back": [[[POOLED, 2 * POOLED]], [[1, 2]]],
    }}}
