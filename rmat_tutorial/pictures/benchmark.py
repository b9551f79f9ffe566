"""What ``bench`` measured: the ways to do three attentions, under the roof of the same run, and whole models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from ..bench.attention import DIRECTIONS, FLOOR
from ..bench.models import FULL, NAIVE, RMAT_NAME
from ..bench.published import PACKAGE
from ..bench.table import HEADINGS
from ..plots import FOURTH, HIGHLIGHT, PATH_COLOURS
from .roofline import draw_roof

_LOOKS_OF_DIRECTIONS = dict(zip(DIRECTIONS, (("o", PATH_COLOURS["full"], -0.16), ("s", HIGHLIGHT, 0.16)), strict=True))
AUTO = "auto"
_MARKERS = "os^vDPX*"
_LOOKS = {
    RMAT_NAME: ("^", PATH_COLOURS["memory"]), FULL: ("o", PATH_COLOURS["full"]), PACKAGE: ("P", HIGHLIGHT),
    NAIVE: ("v", FOURTH),
}
_OTHER_LOOKS = (("s", "0.35"), ("D", PATH_COLOURS["chunk"]), ("X", "0.6"))


def _of_the_floor(case: Mapping[str, Any]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The methods that ran, and by direction how many times as long as causal attention alone each took."""
    ratios = {direction: {name: one[FLOOR] for name, one in found.items() if FLOOR in one and name != AUTO}
              for direction, found in case["ratios"].items()}
    names = [name for name in case["methods"] if any(name in found for found in ratios.values())]
    if not names:
        raise ValueError(f"case {case['name']!r} must have a time of {FLOOR!r}")
    return names, ratios


def times_in_words(case: Mapping[str, Any]) -> str:
    """What ``attention_times`` shows, for those who do not see it."""
    names, ratios = _of_the_floor(case)
    medians = {name: [f"{found[name]['median']:.3g}" for found in ratios.values() if name in found] for name in names}
    said = (f"{name} {' and '.join(numbers)}" for name, numbers in medians.items())
    return ("Points for each method, forward and with backward, by how many times as long as causal attention alone "
            f"they take, on a logarithmic axis: {', '.join(said)}.")


def attention_times(case: Mapping[str, Any], device: str) -> Figure:
    """How many times as long as causal attention alone each method took: the median of the rounds and the quartiles.

    Args:
        case: a case of the part ``attention``. A method that did not run has no point, and ``auto`` is one of the
            others.
        device: what it was measured on, for the title.

    Raises:
        ValueError: causal attention alone was not measured.
    """
    names, ratios = _of_the_floor(case)
    figure, ax = plt.subplots(figsize=(11, 1.8 + 0.7 * len(names)))
    for direction, (marker, colour, shift) in _LOOKS_OF_DIRECTIONS.items():
        found = [(place + shift, ratios[direction][name]) for place, name in enumerate(names)
                 if name in ratios[direction]]
        places, medians = [place for place, _ in found], [one["median"] for _, one in found]
        beyond = [[one["median"] - one["low"] for _, one in found], [one["high"] - one["median"] for _, one in found]]
        ax.errorbar(medians, places, xerr=beyond, fmt=marker, color=colour, label=HEADINGS[direction])
        for place, one in found:
            ax.annotate(f"{one['median']:.2f}", (one["high"], place), (9, 0), textcoords="offset points", va="center",
                        fontsize=14, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    ax.axvline(1, color="black", linewidth=2, zorder=1)
    ax.set(xscale="log", xlabel="times as long as causal attention alone", title=f"{device}: {case['name']}")
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    _few_ticks(ax.xaxis)
    ax.margins(x=0.12)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=15)
    return figure


def _counted(case: Mapping[str, Any], direction: str) -> dict[str, tuple[float, float]]:
    """For each method that ran and of which something is counted, operations for each byte and a second."""
    found = {}
    for name, method in case["methods"].items():
        if name != AUTO and method["cost"] and "seconds" in method[direction]:
            cost = method["cost"][direction]
            found[name] = (cost["flops"] / cost["bytes"], cost["flops"] / median(method[direction]["seconds"]))
    return found


def roof_in_words(case: Mapping[str, Any], direction: str = DIRECTIONS[0]) -> str:
    """What ``measured_roof`` shows, for those who do not see it."""
    most, moved = case["ceilings"]["flops_per_second"], case["ceilings"]["bytes_per_second"]
    said = (f"{name} at {intensity:.3g}, at {rate / min(most, intensity * moved):.2f} of the roof"
            for name, (intensity, rate) in _counted(case, direction).items())
    return ("Operations a second by operations for each byte, on logarithmic axes, under a roof that rises to "
            f"{most / moved:.3g} operations a byte and is flat beyond: {'; '.join(said)}.")


def measured_roof(case: Mapping[str, Any], device: str, direction: str = DIRECTIONS[0]) -> Figure:
    """Each method under the roof that the same run measured: what it did in a second, by its operations for each byte.

    Args:
        case: a case of the part ``attention``. Methods of which nothing is counted or that did not run are left out.
    """
    figure, ax = plt.subplots(figsize=(11, 5.5))
    limits = case["ceilings"]
    unit = draw_roof(ax, device, limits["flops_per_second"], limits["bytes_per_second"])
    for number, (name, (intensity, rate)) in enumerate(_counted(case, direction).items()):
        ax.plot([intensity], [rate / unit], _MARKERS[number % len(_MARKERS)], color=f"C{number}",
                markersize=15, markeredgecolor="white", zorder=3, label=name)
    ax.legend(fontsize=15, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=0.8)
    return figure


def _of_models(cases: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    parts = {part: [case for case in cases if case["part"] == part] for part in ("training", "generation")}
    if not any(parts.values()):
        raise ValueError("cases must have one of training or generation, got none")
    return parts


def speeds_in_words(cases: Sequence[Mapping[str, Any]]) -> str:
    """What ``model_speeds`` shows, for those who do not see it: each line from its first point to its last."""
    said = []
    for part, found in _of_models(cases).items():
        for name in dict.fromkeys(name for case in found for name in case["models"]):
            speeds = [case["models"][name]["tokens_per_second"] for case in found
                      if "tokens_per_second" in case["models"].get(name, {})]
            if speeds:
                said.append(f"{part}, {name}: from {speeds[0]:,.0f} to {speeds[-1]:,.0f}")
    return ("Tokens per second by length, on logarithmic axes, in training and in generation, from the shortest stream "
            f"to the longest. {'; '.join(said)}.")


def model_speeds(cases: Sequence[Mapping[str, Any]], device: str) -> Figure:
    """Tokens per second by the length of the stream, a line for each model: in training, and in generation.

    Args:
        cases: of a benchmark; those of other parts are left out.
        device: what they were measured on, for the title.

    Raises:
        ValueError: no case is of training or generation.
    """
    parts = _of_models(cases)
    figure, axes = plt.subplots(1, 2, figsize=(12.5, 6))
    looks = _looks([name for found in parts.values() for case in found for name in case["models"]])
    for ax, (part, found) in zip(axes, parts.items(), strict=True):
        _draw_speeds(ax, found, looks)
        ax.set(title=part, xlabel="tokens read" if part == "generation" else "tokens of a stream",
               ylabel="tokens per second")
    figure.suptitle(device)
    named = {line.get_label(): line for ax in axes for line in ax.lines}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=2, fontsize=15)
    return figure


def _looks(names: list[str]) -> dict[str, tuple[str, str]]:
    others = iter(_OTHER_LOOKS)
    return {name: _LOOKS[name] if name in _LOOKS else next(others) for name in dict.fromkeys(names)}


def _draw_speeds(ax: Axes, cases: Sequence[Mapping[str, Any]], looks: Mapping[str, tuple[str, str]]) -> None:
    for name, (marker, colour) in looks.items():
        found = [(case["tokens"], case["models"][name]["tokens_per_second"]) for case in cases
                 if "tokens_per_second" in case["models"].get(name, {})]
        if found:
            ax.plot(*zip(*found, strict=True), marker=marker, color=colour, label=name)
    lengths = [case["tokens"] for case in cases]
    ax.set(xscale="log", yscale="log")
    _few_ticks(ax.yaxis)
    ax.set_xticks(lengths, [f"{length:,}" for length in lengths])
    ax.xaxis.set_minor_locator(NullLocator())


def _few_ticks(axis: Axis) -> None:
    """1, 2 and 5 times the powers of ten, in figures, on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_locator(NullLocator())
