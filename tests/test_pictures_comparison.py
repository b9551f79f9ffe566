"""The pictures of the stored comparison show the numbers that are stored, and differences of what belongs together."""

import copy

import pytest
from matplotlib import pyplot as plt

from rmat_tutorial.baselines import KINDS
from rmat_tutorial.comparison import RMAT_KIND, ratios
from rmat_tutorial.pictures.comparison import (
    Reading,
    by_position,
    cost_bars,
    difference_lines,
    differences,
    generation_lines,
)

pytestmark = pytest.mark.usefixtures("style")

EDGES = ((0, 64), (64, 128), (128, 256))


def bins(bits):
    return [{"from": low, "below": high, "bytes": 10, "bits_per_byte": value}
            for (low, high), value in zip(EDGES, bits, strict=True)]


def score(seed, *bits):
    """``bits`` are those of the documents that reach the last bin; all documents together take others."""
    everything = bins([value + 1 + seed for value in bits])
    return {"seed": seed, "groups": [{"at_least": 1, "bins": everything}, {"at_least": 256, "bins": bins(bits)}]}


def cost(factor):
    part = {"tokens_per_second": 100 / factor, "peak_bytes": 10**6}
    generation = [{"read": read, "state_bytes": int(1000 * factor), **part} for read in (64, 4096, 32768)]
    return {"training": part, "generation": generation}


@pytest.fixture
def result():
    kinds = (RMAT_KIND, *KINDS)
    models = {}
    for number, kind in enumerate(kinds):
        scores = {"carried": [score(seed, 3 + number + seed / 10, 2.5, 2.0 - seed / 10) for seed in (0, 1, 2)]}
        costs = cost(1 + number)
        models[kind] = {"kind": kind, "scores": scores, "costs": {**costs, "ratio": ratios(costs, cost(1))}}
    models["rmat"]["scores"]["zeroed"] = [score(seed, 5, 6, 7 + seed) for seed in (0, 1, 2)]
    parts = [{"from": 10 * part, "to": 10 * part + 10, "tokens_per_second": 500 - part, "state_bytes": 4000,
              "resident_bytes": 10**8} for part in range(5)]
    return {"models": models, "long_generation": {"parts": parts}}


def test_scores_by_position_are_those_of_the_documents_that_reach_the_last_one(result):
    found = by_position(result, Reading("rmat"))
    assert found == {(0, 64): [3, 3.1, 3.2], (64, 128): [2.5] * 3, (128, 256): [2.0, 1.9, 1.8]}


def test_differences_are_taken_seed_by_seed(result):
    found = differences(result, Reading("rmat", "zeroed"), Reading("rmat"))
    assert found[0, 64] == pytest.approx([2.0, 1.9, 1.8])
    assert found[128, 256] == pytest.approx([5.0, 6.1, 7.2])
    other = differences(result, Reading(KINDS[0]), Reading("rmat"))
    assert other[0, 64] == pytest.approx([1, 1, 1]) and other[64, 128] == pytest.approx([0, 0, 0])


def test_the_lines_are_the_means_of_the_differences(result):
    readings = {"zeroed": Reading("rmat", "zeroed"), "its own": Reading("rmat"), "peer": Reading(KINDS[0])}
    figure = difference_lines(result, readings, Reading("rmat"), "a title")
    (ax,) = figure.axes
    _, *lines = ax.lines
    assert list(lines[0].get_ydata()) == pytest.approx([1.9, 3.5, 6.1])
    assert list(lines[1].get_ydata()) == pytest.approx([0, 0, 0])
    assert list(lines[2].get_ydata()) == pytest.approx([1, 0, 0])
    # Each point lies inside its bin, and lines of one kind differ in how they are drawn.
    assert all(low <= x < high for x, (low, high) in zip(lines[0].get_xdata(), EDGES, strict=True))
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((1.8, 7.2))
    assert ax.get_title() == "a title" and "bits per byte" in ax.get_ylabel()


def test_the_bars_are_costs_over_those_of_the_rmat(result):
    axes = cost_bars(result).axes
    said = [[text.get_text().strip() for text in ax.texts] for ax in axes]
    assert said[0] == ["1", "2", "3", "4", "5", "6"]  # time, and not its inverse
    assert said[1] == ["1"] * 6
    assert said[-1] == said[2] == ["1", "2", "3", "4", "5", "6"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == [RMAT_KIND, *KINDS]
    marks = [float(label.get_text()) for label in axes[0].get_xticklabels()]
    assert 1 in marks and len(marks) > 1 and marks == pytest.approx(axes[0].get_xticks())  # one alone gives no scale


def test_a_cost_that_is_missing_leaves_its_bar_out(result):
    broken = copy.deepcopy(result)
    broken["models"][KINDS[0]]["costs"] = None
    del broken["models"][KINDS[1]]["costs"]["ratio"]["training"]["peak_bytes"]
    axes = cost_bars(broken).axes
    assert [len(ax.texts) for ax in axes] == [5, 4, 5, 5, 5, 5]


def test_a_long_generation_is_shown_part_by_part(result):
    speed, memory = generation_lines(result).axes
    rmat, full = speed.lines
    assert list(rmat.get_xdata()) == [10, 20, 30, 40, 50]
    assert list(rmat.get_ydata()) == pytest.approx([1000 / (500 - part) for part in range(5)])
    assert list(full.get_xdata()) == [64, 4096, 32768]
    assert speed.get_xlim()[0] < 0 and full.get_label() == "full attention"
    state, process, other = memory.lines
    assert set(state.get_ydata()) == {0.004} and set(process.get_ydata()) == {100}
    assert list(other.get_ydata()) == pytest.approx([0.002] * 3)
    for part in result["long_generation"]["parts"]:
        part["resident_bytes"] = None
    assert len(generation_lines(result).axes[1].lines) == 2
    plt.close("all")
