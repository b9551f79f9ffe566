"""The stored comparison of the RMAT with its peers: what a longer past is worth to each, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..comparison import RMAT_KIND
from ..plots import FOURTH, HIGHLIGHT, PATH_COLOURS

LOOKS = {  # of each kind: marker and colour
    RMAT_KIND: ("^", PATH_COLOURS["memory"]),
    "full": ("o", PATH_COLOURS["full"]),
    "segment": ("s", "0.35"),
    "window": ("D", PATH_COLOURS["chunk"]),
    "transformer-xl": ("v", FOURTH),
    "rmt": ("P", HIGHLIGHT),
}
IN_FULL = {"full": "full attention"}  # kinds whose name says too little beside that of another
MEGABYTE = 1e6


class Reading(NamedTuple):
    """An entry of the comparison, and how it is read: ``"carried"``, or with an altered past."""

    entry: str
    variant: str = "carried"


def by_position(result: Mapping[str, Any], reading: Reading) -> dict[tuple[int, int], list[float]]:
    """Bits per byte by bin of position ``(from, below)``, one number for each seed.

    Every bin is of the same documents, those that reach the last one, and every reading has read the same bytes in it.
    """
    found: dict[tuple[int, int], list[float]] = {}
    for score in result["models"][reading.entry]["scores"][reading.variant]:
        for part in score["groups"][-1]["bins"]:
            found.setdefault((part["from"], part["below"]), []).append(part["bits_per_byte"])
    return found


def differences(
    result: Mapping[str, Any], reading: Reading, against: Reading
) -> dict[tuple[int, int], list[float]]:
    """How many bits per byte more ``reading`` takes than ``against``, by bin of position, one number for each seed."""
    ours, theirs = by_position(result, reading), by_position(result, against)
    return {place: [a - b for a, b in zip(ours[place], theirs[place], strict=True)] for place in ours}


def difference_lines(
    result: Mapping[str, Any], readings: Mapping[str, Reading], against: Reading, title: str
) -> Figure:
    """By position in the document, how many bits per byte each reading takes more than ``against``.

    A line is the mean over seeds, its band their range.

    Args:
        readings: what is compared, by label. Those of one kind share a colour; the second of them is dashed, and so on.
    """
    figure, ax = plt.subplots(figsize=(11, 5.8))
    drawn: dict[str, int] = {}
    ax.axhline(0, color="0.35", linewidth=1.5, zorder=1)
    for label, reading in readings.items():
        kind = result["models"][reading.entry]["kind"]
        places = differences(result, reading, against)
        middles = [sqrt(max(low, high / 4) * high) for low, high in places]
        marker, colour = LOOKS[kind]
        line = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))[drawn.setdefault(kind, 0)]
        drawn[kind] += 1
        means = [sum(values) / len(values) for values in places.values()]
        ax.plot(middles, means, marker=marker, color=colour, linestyle=line, label=label)
        ax.fill_between(middles, [min(values) for values in places.values()],
                        [max(values) for values in places.values()], color=colour, alpha=0.2, linewidth=0)
    seeds = len(next(iter(places.values())))
    edges = [high for _, high in places]
    ax.set(xscale="log", xlabel="position in the document, bytes", ylabel="bits per byte above (+) or below (−)",
           title=title)
    ax.set_xticks(edges, [f"{edge:,}" for edge in edges], rotation=30)
    ax.minorticks_off()
    figure.legend(loc="outside right center", title=f"mean and range\nof {seeds} seeds" if seeds > 1 else "one seed")
    return figure


def cost_bars(result: Mapping[str, Any]) -> Figure:
    """What each kind costs in training and in generation, over the cost of the RMAT.

    Each panel has a logarithmic axis of its own: a state may be 300 times as large, a time hardly twice as long.
    """
    costs = {model["kind"]: model["costs"] for name, model in result["models"].items() if name == model["kind"]}
    costs = {kind: cost["ratio"] for kind, cost in costs.items() if cost is not None and cost["ratio"]}
    early, *_, late = costs[RMAT_KIND]["generation"]
    panels = (
        ("time of a training step", lambda cost: 1 / cost["training"]["tokens_per_second"]),
        ("memory of a training step", lambda cost: cost["training"].get("peak_bytes")),
        (f"time of a token, {early['read']:,} read", lambda cost: 1 / cost["generation"][0]["tokens_per_second"]),
        (f"time of a token, {late['read']:,} read", lambda cost: 1 / cost["generation"][-1]["tokens_per_second"]),
        (f"state, {early['read']:,} read", lambda cost: cost["generation"][0]["state_bytes"]),
        (f"state, {late['read']:,} read", lambda cost: cost["generation"][-1]["state_bytes"]),
    )
    figure, axes = plt.subplots(3, 2, figsize=(12, 9.5), sharey=True)
    for ax, (title, cost_of) in zip(axes.flat, panels, strict=True):
        _ratio_bars(ax, {kind: cost_of(cost) for kind, cost in costs.items()}, title)
    figure.supxlabel("times that of the RMAT; each panel has a logarithmic scale of its own", fontsize="medium")
    return figure


def _ratio_bars(ax: Axes, values: Mapping[str, float | None], title: str) -> None:
    known = {kind: value for kind, value in values.items() if value is not None}
    most = max(1.0, *known.values())
    least = min(1.0, *known.values())
    ax.set(xscale="log", xlim=(least / 1.15, most * (most / least) ** 0.25 * 1.2), title=title)
    ax.axvline(1, color="0.35", linewidth=1.5, zorder=3)
    for row, kind in enumerate(values):
        if kind in known:
            ax.barh(row, known[kind] - 1, left=1, color=LOOKS[kind][1])
            ax.text(max(known[kind], 1) * 1.03, row, f" {known[kind]:.3g}", va="center", fontsize="small")
    ax.set_yticks(range(len(values)), list(values))
    ax.set_ylim(len(values) - 0.4, -0.6)
    left, right = ax.get_xlim()
    marks = [mark for mark in ((0.5, 0.7, 1, 1.5, 2, 3) if right < 10 * left else (1, 10, 100)) if left < mark < right]
    ax.set_xticks(marks, [f"{mark:g}" for mark in marks], fontsize="small")
    ax.minorticks_off()
    ax.grid(False)


def generation_lines(result: Mapping[str, Any], beside: Sequence[str] = ("full",)) -> Figure:
    """Time of a token, and bytes held, of the RMAT from its first generated token on; other kinds where measured.

    Args:
        beside: kinds whose costs are drawn as points, for the numbers of tokens that they had read.
    """
    parts = result["long_generation"]["parts"]
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(12, 5))
    ends = [part["to"] for part in parts]
    marker, colour = LOOKS[RMAT_KIND]
    speed.plot(ends, [1e3 / part["tokens_per_second"] for part in parts], color=colour, label="RMAT, one stream")
    memory.plot(ends, [part["state_bytes"] / MEGABYTE for part in parts], color=colour, label="RMAT, state")
    if parts[0]["resident_bytes"] is not None:
        memory.plot(ends, [part["resident_bytes"] / MEGABYTE for part in parts], color=colour, linestyle=":",
                    label="RMAT, whole process")
    for kind in beside:
        marker, colour = LOOKS[kind]
        name = IN_FULL.get(kind, kind)
        points = result["models"][kind]["costs"]["generation"]
        read = [point["read"] for point in points]
        speed.plot(read, [1e3 / point["tokens_per_second"] for point in points], marker, color=colour, label=name)
        memory.plot(read, [point["state_bytes"] / MEGABYTE for point in points], marker, color=colour,
                    label=f"{name}, state")
    for ax, label in ((speed, "milliseconds a token"), (memory, "megabytes")):
        ax.set(xlabel="tokens so far", ylabel=label, xlim=(-0.02 * ends[-1], 1.02 * ends[-1]))
        ax.set_xticks([0, ends[-1] // 2, ends[-1]], ["0", f"{ends[-1] // 2:,}", f"{ends[-1]:,}"])
        ax.legend(fontsize=15)
    speed.set_ylim(bottom=0)
    memory.set_yscale("log")
    return figure
