"""What an attention costs against the length, beside the lines of theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ..plots import FOURTH, PATH_COLOURS, PATH_MARKERS


class Cost(NamedTuple):
    """What an attention costs at each of some lengths: time in seconds, memory in bytes."""

    seconds: list[float]
    bytes: list[int]


def cost_lines(lengths: Sequence[int], costs: Mapping[str, Cost], theory: Mapping[str, tuple[int, int]]) -> Figure:
    """Time and memory against the length, each beside a line of the slope that theory gives.

    Args:
        lengths: numbers of tokens ``T``.
        costs: up to four costs, by their labels.
        theory: for each label the power of ``T`` in time and in memory, 1 or 2.
    """
    figure, axes = plt.subplots(1, 2, figsize=(12, 5))
    looks = (
        (PATH_MARKERS["full"], PATH_COLOURS["full"], 9),
        ("D", "0.4", 15),  # So large that it is seen behind another of the same height.
        (PATH_MARKERS["chunk"], PATH_COLOURS["chunk"], 9),
        ("v", FOURTH, 9),
    )
    T = np.array(lengths, dtype=float)
    for ax, side, unit, label in ((axes[0], 0, 1e-3, "time (ms)"), (axes[1], 1, 1e6, "memory kept (MB)")):
        for (name, cost), (marker, colour, size) in zip(costs.items(), looks, strict=False):
            values, power = np.array(cost[side]) / unit, theory[name][side]
            line = T**power * np.exp(np.log(values / T**power).mean())
            ax.plot(T, line, "--", color=colour, linewidth=2, zorder=1)
            ax.plot(T, values, marker, color=colour, markersize=size, label=f"{name} (line: {('T', 'T²')[power - 1]})")
        ax.set(xscale="log", yscale="log", xlabel="tokens T", ylabel=label, xticks=T, xticklabels=lengths)
        ax.minorticks_off()
        ax.yaxis.set_major_formatter("{x:g}")
        ax.legend(fontsize=15)
    return figure
