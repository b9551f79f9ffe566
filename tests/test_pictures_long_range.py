"""The pictures of what ``long-range`` measured show the numbers that are there, and say what is not."""

import copy

import pytest
from long_range_results import ANSWERS, bar_answers, result
from strategies import assert_one_line

from rmat_tutorial.baselines import KINDS
from rmat_tutorial.long_range import BANKS, BAR_SEEDS, FACTS, LONG_LENGTHS, LONGEST, MILLION, SHORT_LENGTHS, TASK_WORDS
from rmat_tutorial.pictures.comparison import LOOKS
from rmat_tutorial.pictures.long_range import FIGURES
from rmat_tutorial.plots import png

pytestmark = pytest.mark.usefixtures("style")

each_part = pytest.mark.parametrize("part", FIGURES)


def drawn(part, found=None, **more):
    return FIGURES[part](result(part, ANSWERS[part]) if found is None else found, **more)


def line(ax, name):
    (found,) = [one for one in ax.lines if one.get_label() == name]
    return dict(zip(*found.get_data(), strict=True))


def test_the_bar_has_a_line_for_each_seed_twice():
    for ax in drawn("bar").axes:
        for seed in BAR_SEEDS:
            assert list(line(ax, f"seed {seed}")) == [*SHORT_LENGTHS, *LONG_LENGTHS, LONGEST]
        assert line(ax, "seed 1")[MILLION] == pytest.approx(1 - 0.0008 * 21 / 5)
        low, high = ax.get_xlim()
        assert low <= 32 and high >= LONGEST
        shaded = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        assert (shaded.x0, shaded.x1) == pytest.approx((low, 512))
    whole, enlarged = drawn("bar").axes
    assert whole.get_ylim()[0] < 0 and enlarged.get_ylim()[0] == pytest.approx(0.97, abs=0.002)
    assert [tick.get_text() for tick in enlarged.get_xticklabels()] == ["32", "512", "8k", "131k", "1M", "16M"]
    assert 0.125 in [one.get_ydata()[0] for one in whole.lines]  # chance
    assert all(0.99 in [one.get_ydata()[0] for one in ax.lines] for ax in (whole, enlarged))


def test_several_readings_of_one_length_are_one_point():
    found = result("bar", bar_answers)
    scores = found["models"][0]["scores"]
    (first,) = [score for score in scores if score["tokens"] == LONGEST]
    first.update(accuracy=1.0, positions=30)
    scores.append({**first, "accuracy": 0.5, "positions": 10})
    assert line(drawn("bar", found).axes[0], "seed 0")[LONGEST] == pytest.approx(0.875)


def test_the_bar_compares_with_others():
    scores = [{"tokens": tokens, "accuracy": share, "positions": 64} for tokens, share in ((32768, 0.12), (512, 0.9))]
    for ax in drawn("bar", others={"sigmoid": {"scores": scores}, "before": {"scores": scores[:1]}}).axes:
        assert line(ax, "sigmoid") == {512: 0.9, 32768: 0.12} and line(ax, "before") == {32768: 0.12}


def test_the_capacity_has_a_line_for_each_bank():
    short, long = drawn("capacity").axes
    for slots in BANKS:
        shares = line(short, f"{slots} slots")
        assert list(shares) == list(FACTS)
        assert shares[64] == pytest.approx(slots / 64 + (1 - slots / 64) / 8)
        assert list(line(long, f"{slots} slots")) == [4, 16, 64]
    assert (short.get_title(), long.get_title()) == ("512 tokens", "1,048,576 tokens")
    assert short.get_xscale() == "log" and short.lines[-1].get_ydata()[0] == 0.125


def test_each_task_has_a_line_for_each_kind():
    *axes, legend = drawn("tasks").axes
    assert [ax.get_title() for ax in axes] == list(TASK_WORDS)
    for ax in axes:
        by_colour = {one.get_color(): one for one in ax.lines if one.get_linestyle() == "-" and len(one.get_xdata())}
        for kind in ("rmat", *KINDS):
            lengths = [512, 2048, 8192] if kind == "full" else [512, 2048, 8192, 32768]
            assert list(by_colour[LOOKS[kind][1]].get_xdata()) == lengths
    hollow = [one for one in axes[1].lines if one.get_markerfacecolor() == "white" and len(one.get_xdata())]
    assert [list(one.get_xdata()) for one in hollow] == [[8192]] * 6
    assert [text.get_text() for text in legend.get_legend().get_texts()][:6] == list(LOOKS)


@each_part
def test_a_trial_is_drawn_and_says_so(part):
    figure = drawn(part, result(part, ANSWERS[part], quick=True))
    assert figure.get_suptitle() == "a trial, whose numbers mean nothing"
    assert drawn(part).get_suptitle() == ""


@each_part
def test_what_is_there_is_drawn_and_what_failed_is_named(part):
    found = result(part, ANSWERS[part])
    whole = drawn(part, copy.deepcopy(found))
    del found["models"][1:]
    found["models"][0]["scores"] = found["models"][0]["scores"][-1:]
    found["failures"] = [{"job": "seed-1", "command": "…", "reason": "out of memory"}]
    figure = drawn(part, found)
    assert figure.get_suptitle() == "failed: seed-1" and png(figure).startswith(b"\x89PNG")
    points = [sum(len(one.get_xdata()) for ax in picture.axes for one in ax.lines if one.get_marker() != "None")
              for picture in (figure, whole)]
    assert 1 <= points[0] < points[1]


def test_a_panel_without_numbers_says_so():
    _, million = drawn("capacity", result("capacity", ANSWERS["capacity"], quick=True)).axes
    assert "not measured" in [text.get_text() for text in million.texts]
    axes = drawn("tasks", result("tasks", ANSWERS["tasks"], quick=True)).axes
    assert ["not measured" in [text.get_text() for text in ax.texts] for ax in axes] == [False] + [True] * 4 + [False]


def changed(part, change):
    found = result(part, ANSWERS[part])
    change(found)
    return found


@pytest.mark.parametrize(("part", "change", "fragments"), [
    ("bar", lambda found: found.update(models=[]), ("nothing to draw", "no model of the bar has a score", "yet")),
    ("tasks", lambda found: found.update(models=[], failures=[{"job": "a"}, {"job": "b"}]), ("failed: a, b",)),
    ("bar", lambda found: [model.update(scores=[]) for model in found["models"]], ("nothing to draw",)),
    ("bar", lambda found: found.update(part="tasks"), ("long-range bar", "another kind")),
    ("bar", lambda found: found.pop("failures"), ("without a list of failures",)),
    ("capacity", lambda found: found["models"][1].pop("memory_slots"), ("models[1] has no 'memory_slots'",)),
    ("bar", lambda found: found["models"][2]["scores"][0].pop("accuracy"), ("models[2].scores[0]", "'accuracy'")),
    ("bar", lambda found: found["models"].insert(0, None), ("models[0] has no 'seed'",)),
    ("tasks", lambda found: found["models"][0].update(kind="lstm"), ("kind must be one of", "'lstm'")),
    ("tasks", lambda found: found["models"][0].update(task="sums"), ("task must be one of", "'sums'")),
])
def test_what_cannot_be_drawn_is_one_sentence(part, change, fragments):
    with pytest.raises(ValueError) as error:
        FIGURES[part](changed(part, change))
    assert_one_line(str(error.value), *fragments)


@each_part
def test_no_result_at_all_is_one_sentence(part):
    for found in ([], None, {}, {"part": part}):
        with pytest.raises(ValueError) as error:
            FIGURES[part](found)
        assert_one_line(str(error.value), f"long-range {part}")
