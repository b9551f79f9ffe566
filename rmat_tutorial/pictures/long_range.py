"""What ``long-range`` measured: the bar of recall by length, how many facts a bank holds, every task by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter

from ..long_range import LONGEST, MILLION, TASK_WORDS
from ..long_range_claims import accuracy, by_length
from ..plots import FOURTH, PATH_COLOURS
from ..recipes import RECIPES
from ..tasks import TASKS
from ..validate import require_choice
from .comparison import LOOKS
from .retention import mark_chance

LABELS = {"bar": ("seed",), "capacity": ("memory_slots",), "tasks": ("task", "kind")}  # of the models of each part
SCORE_FIELDS = ("tokens", "accuracy", "positions", "source", "reading")
LENGTHS = (32, 512, 8192, 131072, MILLION, LONGEST)
TASK_LENGTHS = (128, 512, 2048, 8192, 32768)
ENLARGED = 0.97  # from here to 1
WANTED = 0.99
SEED_LOOKS = (("^", "#014d38"), ("s", PATH_COLOURS["memory"]), ("o", "#6fd6b5"))
OTHER_LOOKS = (("D", PATH_COLOURS["full"]), ("v", PATH_COLOURS["chunk"]), ("X", "0.45"), ("P", FOURTH))
MARKERS = "^sovD"


def bar(result: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]] | None = None) -> Figure:
    """Share of right answers by length, a line for each seed: once from 0 % on, once from 97 % on.

    Args:
        result: the json of ``long-range bar``, of all models or of some.
        others: up to four to compare with, by name: what the json of a shipped model holds, with its ``scores``.

    Raises:
        ValueError: there is nothing to draw, or ``result`` is another json.
    """
    models = _models(result, "bar")
    figure = Figure(figsize=(11, 8.5))
    whole, enlarged = axes = figure.subplots(2, 1, sharex=True)
    lines = [(f"seed {model['seed']}", model, *look, "-") for model, look in zip(models, SEED_LOOKS, strict=False)]
    lines += [(name, other, *look, "--") for (name, other), look in zip((others or {}).items(), OTHER_LOOKS,
                                                                        strict=False)]
    for ax in axes:
        for name, model, marker, colour, style in lines:
            shares = by_length(model)
            ax.plot(list(shares), list(shares.values()), marker=marker, color=colour, linestyle=style, linewidth=2,
                    markersize=7, label=name)
        ax.axhline(WANTED, color="0.35", linewidth=1.5, linestyle=(0, (4, 2)), zorder=1)
    _lengths(whole, LENGTHS, _trained(models[0], "recall"))
    _lengths(enlarged, LENGTHS, _trained(models[0], "recall"))
    _percent(whole)
    mark_chance(whole, _chance(models))
    _percent(enlarged, ENLARGED)
    whole.set(title="recall of four facts", ylabel="right answers", xlabel="")
    enlarged.set(title="the same, from 97 % on", ylabel="right answers", xlabel="tokens in the stream")
    figure.legend(*whole.get_legend_handles_labels(), loc="outside right center", fontsize=15)
    _note(figure, result)
    return figure


def capacity(result: Mapping[str, Any]) -> Figure:
    """Share of right answers by the number of facts, a line for each size of the bank: at 512 tokens, at a million.

    Raises:
        ValueError: there is nothing to draw, or ``result`` is another json.
    """
    models = _models(result, "capacity")
    figure = Figure(figsize=(11, 5.6))
    axes = figure.subplots(1, 2, sharey=True)
    colours = sns.color_palette("viridis", len(models) + 1).as_hex()
    facts = sorted({score["source"]["facts"] for model in models for score in model["scores"]})
    for ax, tokens in zip(axes, (512, MILLION), strict=True):
        for model, marker, colour in zip(models, MARKERS * len(models), colours, strict=False):
            shares = {count: accuracy(model, tokens, facts=count) for count in facts}
            points = [(count, share) for count, share in shares.items() if share is not None]
            ax.plot(*zip(*points, strict=True) if points else ((), ()), marker=marker, color=colour, linewidth=2,
                    label=f"{model['memory_slots']} slots")
        if not any(len(line.get_xdata()) for line in ax.lines):
            ax.text(0.5, 0.5, "not measured", ha="center", transform=ax.transAxes)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ticks := [2**power for power in range(7)], [str(tick) for tick in ticks])
        ax.set(xlim=(0.85, 75), xlabel="facts in the stream", title=f"{tokens:,} tokens")
        _percent(ax)
        mark_chance(ax, _chance(models))
    axes[0].set_ylabel("right answers")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", title="bank")
    _note(figure, result)
    return figure


def tasks(result: Mapping[str, Any]) -> Figure:
    """For each task the share of right answers by length, a line for each kind of model.

    Raises:
        ValueError: there is nothing to draw, or ``result`` is another json.
    """
    models = _models(result, "tasks")
    figure = Figure(figsize=(12, 8))
    *axes, corner = figure.subplots(2, 3, sharey=True).flat
    for ax, task in zip(axes, TASK_WORDS, strict=True):
        own = [model for model in models if model["task"] == task]
        for model in own:
            marker, colour = LOOKS[model["kind"]]
            shares, rewritten = by_length(model), by_length(model, rewrites=True)
            ax.plot(list(shares), list(shares.values()), marker=marker, color=colour, linewidth=2)
            ax.plot(list(rewritten), list(rewritten.values()), marker=marker, color=colour, markerfacecolor="white",
                    markeredgewidth=2, linestyle="none")
        _percent(ax)
        ax.set(title=task, xlabel="tokens in the stream")
        if own:
            _lengths(ax, TASK_LENGTHS, _trained(own[0], task))
            mark_chance(ax, _chance(own))
        else:
            ax.set(xticks=[])
            ax.text(0.5, 0.5, "not measured", ha="center", transform=ax.transAxes)
    for ax in (axes[0], axes[3]):
        ax.set_ylabel("right answers")
    corner.set_axis_off()
    for kind, (marker, colour) in LOOKS.items():
        corner.plot([], [], marker=marker, color=colour, linewidth=2, label=kind)
    corner.plot([], [], "o", color="0.35", markerfacecolor="white", markeredgewidth=2, label="hollow: many rewrites")
    corner.legend(loc="center")
    _note(figure, result)
    return figure


FIGURES = {"bar": bar, "capacity": capacity, "tasks": tasks}
"""By the part of ``long-range``."""


def _models(result: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    """The models of ``result`` that have scores."""
    if not isinstance(result, Mapping) or result.get("part") != part:
        raise ValueError(f"result must be the json of long-range {part}, got one of another kind")
    for name in ("models", "failures"):
        if not isinstance(result.get(name), list):
            raise ValueError(f"result must be the json of long-range {part}, got one without a list of {name}")
    for number, model in enumerate(result["models"]):
        _require(f"models[{number}]", model, (*LABELS[part], "settings", "scores"))
        _require_known(model, part)
        for place, score in enumerate(model["scores"]):
            _require(f"models[{number}].scores[{place}]", score, SCORE_FIELDS)
    models = [model for model in result["models"] if model["scores"]]
    if not models:
        raise ValueError(f"there is nothing to draw: no model of the {part} has a score ({_failed(result) or 'yet'})")
    return models


def _require(where: str, found: Any, names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(found, Mapping) or name not in found:
            raise ValueError(f"result is not whole: {where} has no {name!r}")


def _require_known(model: Mapping[str, Any], part: str) -> None:
    if part == "tasks":
        require_choice("task", model["task"], tuple(TASK_WORDS))
        require_choice("kind", model["kind"], tuple(LOOKS))


def _chance(models: Sequence[Mapping[str, Any]]) -> float:
    fields = dict(models[0]["scores"][0]["source"])
    return TASKS[fields.pop("kind")](**fields).chance


def _trained(model: Mapping[str, Any], task: str) -> int:
    """Tokens of the longest stream of its training."""
    return RECIPES[task].config.segment_len * model["settings"]["max_segments"]


def _lengths(ax: Axes, ticks: Sequence[int], trained: int) -> None:
    """A logarithmic axis of lengths, on which those up to ``trained`` are shaded."""
    ax.set_xscale("log")
    ax.set(xlim=(ticks[0] / 1.4, ticks[-1] * 1.4))
    ax.set_xticks(ticks, [short_number(tick) for tick in ticks])
    ax.minorticks_off()
    ax.axvspan(ax.get_xlim()[0], trained, color="0.93", zorder=0)
    ax.text(trained / 1.1, 0.03, "trained", ha="right", size=14, color="0.35", transform=ax.get_xaxis_transform())


def short_number(tokens: int) -> str:
    """``512``, ``8k``, ``1M``: rounded down."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if tokens >= size:
            return f"{tokens // size}{letter}"
    return str(tokens)


def _percent(ax: Axes, start: float = 0.0) -> None:
    """Shares from ``start`` to 1, in percent, with room for the marks at both ends."""
    room = 0.06 * (1 - start)
    ax.set_ylim(start - room, 1 + room)
    ax.yaxis.set_major_locator(MultipleLocator((1 - start) / (3 if start else 5)))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _failed(result: Mapping[str, Any]) -> str:
    names = [failure["job"] for failure in result["failures"]]
    return f"failed: {', '.join(names)}" if names else ""


def _note(figure: Figure, result: Mapping[str, Any]) -> None:
    """What one has to know of the whole: that it was a trial, and what failed."""
    notes = ["a trial, whose numbers mean nothing"] if result.get("quick") else []
    notes += [_failed(result)] if result["failures"] else []
    if notes:
        figure.suptitle("; ".join(notes), size=15, color="0.35")
