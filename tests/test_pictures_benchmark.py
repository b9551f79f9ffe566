"""The pictures of a benchmark show the numbers that are in it, and nothing of what did not run."""

from statistics import median

import numpy as np
import pytest
from bench_results import result
from strategies import assert_one_line

from rmat_tutorial.bench.attention import CUDNN, FLOOR
from rmat_tutorial.bench.models import FULL, NAIVE, PACKAGE, RMAT_NAME
from rmat_tutorial.bench.plan import LONG, ON_CPU
from rmat_tutorial.pictures.benchmark import (
    attention_times,
    measured_roof,
    model_speeds,
    roof_in_words,
    speeds_in_words,
    times_in_words,
)

pytestmark = pytest.mark.usefixtures("style")


def case_of(found, name):
    (case,) = [case for case in found["cases"] if case["name"] == name]
    return case


def points(ax):
    """``{(name, direction): (median, low, high)}`` of a picture of times."""
    names = [label.get_text() for label in ax.get_yticklabels()]
    found = {}
    for container in ax.containers:
        line, _, (bars,) = container.lines
        for x, y, bar in zip(*line.get_data(), bars.get_segments(), strict=True):
            found[names[round(y)], container.get_label()] = (x, bar[0][0], bar[1][0])
    return found


def test_a_point_is_the_median_and_its_line_the_quartiles():
    case = case_of(result("cuda", {(LONG, "triton"): 1.3}), LONG)
    case["methods"]["triton"]["forward"]["seconds"] = [1.0, 1.3, 2.0]
    case["ratios"]["forward"]["triton"][FLOOR] = {"median": 1.3, "low": 1.15, "high": 1.65}
    ax = attention_times(case, "a processor").axes[0]
    found = points(ax)
    assert found["triton", "forward"] == pytest.approx((1.3, 1.15, 1.65))
    assert found["eager", "forward and backward"][0] == pytest.approx(9.0)
    assert {name for name, _ in found} == {FLOOR, "triton", "sdpa", "flex", "eager"}
    assert {"1.30", "9.00"} <= {text.get_text() for text in ax.texts} and ax.get_title() == f"a processor: {LONG}"
    assert "flex 2 and 2, triton 1.3 and 1.3." in times_in_words(case)


def test_what_did_not_run_has_no_point():
    case = case_of(result("cpu"), ON_CPU)
    names = {name for name, _ in points(attention_times(case, "d").axes[0])}
    assert names == {FLOOR, "eager", "sdpa"} and CUDNN in case["methods"]
    del case["ratios"]["both"]["sdpa"]
    assert ("sdpa", "forward and backward") not in points(attention_times(case, "d").axes[0])
    assert "sdpa 1.1." in times_in_words(case) and CUDNN not in times_in_words(case)


def test_auto_is_one_of_the_others():
    case = case_of(result("cpu"), ON_CPU)
    for part in (case["methods"], *case["ratios"].values()):
        part["auto"] = part["sdpa"]
    case["methods"]["auto"]["cost"] = case["methods"][FLOOR]["cost"]
    assert "auto" not in {name for name, _ in points(attention_times(case, "d").axes[0])}
    assert "auto" not in {line.get_label() for line in measured_roof(case, "d").axes[0].lines}


def test_without_causal_attention_there_is_nothing_to_compare_with():
    case = case_of(result("cpu"), ON_CPU)
    for found in case["ratios"].values():
        for one in found.values():
            one.pop(FLOOR, None)
    for look in (times_in_words, lambda case: attention_times(case, "d")):
        with pytest.raises(ValueError) as error:
            look(case)
        assert_one_line(str(error.value), repr(ON_CPU), repr(FLOOR))


@pytest.mark.parametrize(("kind", "name", "unit"), [("cuda", LONG, 1e12), ("cpu", ON_CPU, 1e9)])
def test_a_method_stands_at_what_it_did_in_a_second(kind, name, unit):
    case = case_of(result(kind), name)
    if kind == "cpu":
        case["ceilings"] = {"flops_per_second": 8e10, "bytes_per_second": 2e10}
    cost, seconds = (case["methods"][FLOOR][part] for part in ("cost", "both"))
    cost = cost["both"]
    ax = measured_roof(case, "a processor", "both").axes[0]
    (point,) = [line for line in ax.lines if line.get_label() == FLOOR]
    (x,), (y,) = point.get_data()
    assert x == pytest.approx(cost["flops"] / cost["bytes"])
    assert y * unit == pytest.approx(cost["flops"] / median(seconds["seconds"]))
    roof = ax.lines[0]
    assert max(roof.get_ydata()) * unit == case["ceilings"]["flops_per_second"]
    assert min(roof.get_ydata()) * unit == pytest.approx(case["ceilings"]["bytes_per_second"])
    assert "a processor" in ax.get_title() and ("TFLOP" if unit == 1e12 else "GFLOP") in ax.get_ylabel()
    assert not [line for line in ax.lines if line.get_label() == "sdpa"]  # nothing is counted of it here
    words = roof_in_words(case, "both")
    assert f"{FLOOR} at {x:.3g}, at {y / np.interp(x, roof.get_xdata(), roof.get_ydata()):.2f} of the roof" in words
    assert "sdpa" not in words


def test_a_line_for_each_model_and_a_point_for_each_length():
    cases = result("cpu")["cases"]
    figure = model_speeds(cases, "a processor")
    training, generation = figure.axes
    assert figure.get_suptitle() == "a processor"
    assert f"{NAIVE}: from 0 to 0" in speeds_in_words(cases) and PACKAGE not in speeds_in_words(cases)
    lines = {line.get_label(): dict(zip(*line.get_data(), strict=True)) for line in generation.lines}
    assert lines == {RMAT_NAME: {1024: 1.0, 4096: 1.0}, NAIVE: {1024: 0.2, 4096: 0.2}, FULL: {1024: 0.5, 4096: 0.5}}
    assert not training.lines and PACKAGE not in lines
    assert [tick.get_text() for tick in generation.get_xticklabels()] == ["1,024", "4,096"]


def test_no_models_no_picture():
    cases = [case for case in result("cpu")["cases"] if case["part"] == "attention"]
    for look in (speeds_in_words, lambda cases: model_speeds(cases, "d")):
        with pytest.raises(ValueError) as error:
            look(cases)
        assert_one_line(str(error.value), "training or generation")
