"""The roofline: how fast a chip can do work of an intensity, and what that makes of the three attentions."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..kernels.counting import Cost
from ..kernels.occupancy import Chip, least_seconds
from ..plots import PATH_COLOURS, PATH_MARKERS

TERA, GIGA = 1e12, 1e9
_OTHER_LOOKS = (("D", "0.45"), ("*", "black"))


def roofline(pieces: Mapping[str, Cost], fused: Cost, chip: Chip) -> Figure:
    """Where the pieces of the work and the fused kernel lie under the roof of ``chip``, and their least times.

    Args:
        pieces: what is done one after the other, by its name; those of the paths have the paths' colours.
        fused: the same done at once.
    """
    figure, (roof, times) = plt.subplots(1, 2, figsize=(12.5, 5), width_ratios=[1.3, 1])
    looks = _looks([*pieces, "all at once"])
    draw_roof(roof, f"one {chip.name}", chip.flops, chip.bytes)
    for name, cost in (dict(pieces) | {"all at once": fused}).items():
        marker, colour = looks[name]
        # Work without a product of matrices is named, and has no place.
        place = ([cost.intensity], [cost.flops / least_seconds(cost, chip) / 1e12]) if cost.flops else ([], [])
        size = 24 if marker == "*" else 15
        roof.plot(*place, marker, color=colour, markersize=size, markeredgecolor="white", zorder=3,
                  label=name if cost.flops else f"{name} (right only)")
    roof.legend(fontsize=15, loc="lower right", markerscale=0.8)
    _draw_times(times, pieces, fused, chip, looks)
    return figure


def _looks(names: list[str]) -> dict[str, tuple[str, str]]:
    others = iter(_OTHER_LOOKS)
    return {name: (PATH_MARKERS[name], PATH_COLOURS[name]) if name in PATH_COLOURS else next(others) for name in names}


def draw_roof(ax: Axes, name: str, flops: float, bytes: float) -> float:
    """The most that ``name`` can do in a second, by the operations for each byte, and where the one limit meets the
    other.

    Args:
        flops, bytes: a second, at the most.

    Returns:
        What a 1 on the y axis stands for, in operations a second.
    """
    unit, unit_name = (TERA, "TFLOP") if flops >= TERA else (GIGA, "GFLOP")
    intensity = np.geomspace(1, 4096, 200)
    ridge = flops / bytes
    ax.plot(intensity, np.minimum(intensity * bytes, flops) / unit, color="0.2")
    ax.axvline(ridge, color="0.6", linewidth=2, linestyle="--")
    low, high = flops / 500 / unit, 2.5 * flops / unit
    ax.text(ridge * 1.15, 1.35 * flops / unit, f"{ridge:.0f}", color="0.3")
    ax.set(xscale="log", yscale="log", xlabel="operations for each byte", ylabel=f"{unit_name} a second",
           title=f"the roof of {name}", xlim=(1, 4096), ylim=(low, high))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:,g}")
    ax.minorticks_off()
    return unit


def _draw_times(ax: Axes, pieces: Mapping[str, Cost], fused: Cost, chip: Chip, looks: dict) -> None:
    left = 0.0
    for name, cost in pieces.items():
        width = least_seconds(cost, chip) * 1e3
        ax.barh(0, width, left=left, color=looks[name][1], edgecolor="white", height=0.5)
        left += width
    at_once = least_seconds(fused, chip) * 1e3
    ax.barh(1, at_once, color=looks["all at once"][1], height=0.5)
    for row, width in enumerate((left, at_once)):
        ax.text(width, row, f" {width:.2g}", va="center")
    ax.set_yticks([0, 1], ["one after\nthe other", "all at\nonce"])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlim=(0, left * 1.25), xlabel="least time (ms)", title="what the roof allows")
