"""The pictures of notebook 02: a row of dials, one head against another, and what lies beyond the trained length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import zip_longest
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from ..canvas import MovingCanvas
from ..plots import PATH_COLOURS, PATH_MARKERS
from ..rope import rope_frequencies

FURTHEST = 256  # the largest distance of the dials
MOST_DIALS = 16
_RADIUS = 0.38  # of a dial, in the room that it has
_RIM = np.linspace(0, 2 * np.pi, 49)
_GREY = "0.92"  # behind everything that training never showed
_BLUE, _ORANGE, _GREEN = (PATH_COLOURS[path] for path in ("full", "chunk", "memory"))


def turned_arrows(panels: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Queries and keys of two numbers as arrows, a panel for each pair, with the angle between them."""
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 5.6), sharey=True)
    reach = 1.25 * max(arrow.norm().item() for pair in panels.values() for arrow in pair)
    for ax, (title, pair) in zip(axes, panels.items(), strict=True):
        ends = []
        for arrow, name, colour, style in zip(pair, "qk", (_BLUE, _ORANGE), ("-", "--"), strict=True):
            x, y = arrow.tolist()
            look = {"arrowstyle": "-|>,head_width=0.5,head_length=1", "color": colour, "linewidth": 4}
            ax.annotate("", (x, y), (0, 0), arrowprops=look | {"linestyle": style, "shrinkA": 0, "shrinkB": 0})
            ax.text(1.14 * x, 1.14 * y, name, color=colour, ha="center", va="center", size=22)
            ends.append(math.atan2(y, x))
        between = (ends[0] - ends[1] + math.pi) % (2 * math.pi) - math.pi
        arc = 0.7 * np.array([[math.cos(a), math.sin(a)] for a in ends[1] + np.linspace(0, between, 30)])
        ax.plot(*arc.T, color="0.3", linewidth=2)
        ax.text(*(1.6 * arc[15]), f"{abs(math.degrees(between)):.0f}°", ha="center", va="center")
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title=title, xlabel="first number")
    axes[0].set_ylabel("second number")
    return figure


class Dials:
    """What a distance does to the pairs of a head, for a query and a key that are the same vector.

    There is room for 16 dials, so for heads up to a width of 32.

    Attributes: ``figure``; ``scores``, the score at each distance as a share of the one at distance 0, ``(257,)``;
    ``angles`` of the pairs at the chosen distance in radians, ``(d_h / 2,)``.
    """

    def __init__(self) -> None:
        self.scores = torch.zeros(0)
        self.angles = torch.zeros(0)
        self.figure = Figure(figsize=(11, 5.4))
        self._canvas = MovingCanvas(self.figure)
        left, right = self.figure.subplots(1, 2, width_ratios=[1.15, 1])
        left.set(xlim=(0, FURTHEST), ylim=(-1.05, 1.08), xticks=range(0, FURTHEST + 1, 64))
        left.set(xlabel="distance between query and key (tokens)", ylabel="score, as a share of distance 0")
        left.set_yticks(np.linspace(-1, 1, 5))
        (self._curve,) = left.plot([], [], color=_BLUE, linewidth=2.5)
        (self._line,) = left.plot([], [], ":", color=_ORANGE, linewidth=2)
        (self._dot,) = left.plot([], [], "s", color=_ORANGE, markersize=12, clip_on=False)
        right.set(xlim=(0, 1), ylim=(1.02, 0), aspect="equal")
        right.set_title("dials, and tokens for a full turn", size=18)
        right.set_axis_off()
        self._fans = right.add_collection(PolyCollection([], facecolors="#b9d6ea", linewidths=0))
        self._rims = right.add_collection(LineCollection([], colors="0.4", linewidths=1.5))
        self._hands = right.add_collection(LineCollection([], colors=_ORANGE, linewidths=4))
        self._labels = [right.text(0, 0, "", ha="center", va="top", size=14) for _ in range(MOST_DIALS)]
        self._canvas.moves(self._curve, self._line, self._dot, self._fans, self._rims, self._hands, *self._labels)

    def draw(self, base: float, head_dim: int, distance: int) -> str:
        """Show the score at every distance up to 256, and the dials at ``distance``."""
        frequencies = rope_frequencies(head_dim, base)
        self.scores = (torch.arange(FURTHEST + 1)[:, None] * frequencies).cos().mean(dim=-1)
        self.angles = distance * frequencies
        self._curve.set_data(range(FURTHEST + 1), self.scores)
        self._line.set_data([distance, distance], [-1.05, 1.05])
        self._dot.set_data([distance], [self.scores[distance]])
        self._turn(self.angles.tolist(), [_tokens(2 * math.pi / frequency) for frequency in frequencies.tolist()])
        return f"{self._says_score(distance)} {self._says_dials(frequencies)}"

    def _turn(self, angles: list[float], periods: list[str]) -> None:
        columns = max(math.ceil(math.sqrt(len(angles))), 2)
        room, radius = 1 / columns, _RADIUS / columns
        places = [divmod(pair, columns) for pair in range(len(angles))]
        centres = [room * np.array([column + 0.5, row + 0.42]) for row, column in places]
        turned = list(zip(centres, angles, strict=True))
        self._rims.set_segments([centre + radius * _circle(_RIM) for centre in centres])
        self._hands.set_segments([[centre, centre + radius * _circle(angle)] for centre, angle in turned])
        self._fans.set_verts(
            [
                np.vstack([centre, centre + radius * _circle(_RIM * min(angle / (2 * np.pi), 1))])
                for centre, angle in turned
            ]
        )
        for label, period, centre in zip_longest(self._labels, periods, centres, fillvalue=""):
            label.set_text(period)
            if period:
                label.set_position((centre[0], centre[1] + radius + 0.01))

    def _says_score(self, distance: int) -> str:
        score = f"At distance {distance} the score is {_signed(self.scores[distance])} of the greatest."
        first = int((self.scores.diff() > 0).nonzero()[0])  # there is one: pair 0 turns once in 6.3 tokens
        best = first + int(self.scores[first:].argmax())
        return f"{score} It stops falling at {first} and is back at {_signed(self.scores[best])} at {best}."

    def _says_dials(self, frequencies: Tensor) -> str:
        if len(self.angles) == 1:
            return "There is one dial, and the base has no say in it: base^0 = 1."
        full = int((self.angles >= 2 * math.pi).sum())
        slowest = math.degrees(self.angles[-1])
        return (
            f"Gone full circle: {full} of {len(frequencies)} dials. "
            f"The slowest has turned by {slowest:.{1 if slowest >= 1 else 3}f}°."
        )


class TwoHeads:
    """Mean score against distance in two heads of a model, and how much of it each pair makes.

    Args:
        measured: mean score at each distance in real text, ``(N, H, L)``.
        unturned: the same without the rotation.
        curves: the score of the mean query and the mean key at each distance, ``(N, H, R)`` with ``R >= L``.
        waves: height of the wave that each pair adds to that curve, ``(N, H, d_h / 2)``.

    Attributes: ``figure``; ``shown``, the two curves as far as they are shown, ``(2, reach)``.
    """

    def __init__(self, measured: Tensor, unturned: Tensor, curves: Tensor, waves: Tensor) -> None:
        self.measured, self.unturned, self.curves, self.waves = measured, unturned, curves, waves
        self.shown = torch.zeros(0)
        self.figure = Figure(figsize=(11, 6))
        self._canvas = MovingCanvas(self.figure)
        axes = self.figure.subplots(2, 2, sharey="row", height_ratios=[2, 1])
        self._panels = [_Head(top, bottom, waves.shape[-1]) for top, bottom in axes.T]
        values = torch.cat((measured, unturned, curves), dim=-1)
        axes[0, 0].set(ylim=(values.min().item() - 1, values.max().item() + 1), ylabel="mean score")
        axes[1, 0].set(ylim=(0, 1.08 * waves.max().item()), ylabel="height")
        first = self._panels[0]
        handles = {"measured": first.dots, "mean q and k": first.curve, "not turned": first.flat}
        axes[1, 0].legend(
            handles=handles.values(), labels=handles.keys(), fontsize=13, loc="upper right", labelspacing=0.2
        )
        self._canvas.moves(*(artist for panel in self._panels for artist in panel.moving))

    def draw(self, first: tuple[int, int], second: tuple[int, int], reach: int) -> str:
        """Show two heads, each a layer and a head, at the distances below ``reach``."""
        self.shown = torch.stack([self.curves[head][:reach] for head in (first, second)])
        for panel, head in zip(self._panels, (first, second), strict=True):
            panel.show(head, reach, self.measured[head], self.unturned[head], self.curves[head], self.waves[head])
        if first == second:
            return f"The same head twice. {self._says(first, reach)}"
        return f"{self._says(first, reach)} {self._says(second, reach)}"

    def _says(self, head: tuple[int, int], reach: int) -> str:
        measured, length = self.measured[head], self.measured.shape[-1]
        lowest = int(measured.argmin())
        said = (
            f"Layer {head[0]}, head {head[1]}: mean score {_signed(measured[0])} at distance 0, "
            f"{_signed(measured[lowest])} at {lowest}; largest wave: pair {int(self.waves[head].argmax())}"
        )
        if reach <= length:
            return f"{said}."
        highest = length + int(self.curves[head][length:reach].argmax())
        return f"{said}; beyond the trained length up to {_signed(self.curves[head][highest])}, at {highest}."


class _Head:
    """The two panels of one head. The distances share a fixed axis from 0 to 1: only its numbers change."""

    QUARTERS = (0, 0.25, 0.5, 0.75, 1)

    def __init__(self, top: Axes, bottom: Axes, pairs: int) -> None:
        top.set(xlim=(0, 1), xticks=self.QUARTERS, xticklabels=[])
        top.set_xlabel("distance (bytes)", labelpad=22)
        self.numbers = [
            top.text(x, -0.05, "", ha="center", va="top", transform=top.get_xaxis_transform()) for x in self.QUARTERS
        ]
        self.numbers[-1].set_horizontalalignment("right")
        self.beyond = top.axvspan(1, 1, color="0.5", alpha=0.16, linewidth=0)
        (self.flat,) = top.plot([], [], "--", color="0.35", linewidth=2)
        (self.curve,) = top.plot([], [], color=_BLUE, linewidth=2)
        (self.dots,) = top.plot([], [], PATH_MARKERS["chunk"], color=_ORANGE, markersize=5)
        self.title = top.set_title("layer 0, head 0")
        bottom.set(xticks=range(pairs), xlabel="wave of each pair, the fastest is 0")
        self.bars = bottom.bar(range(pairs), [0] * pairs, color=_BLUE)
        self.moving = (self.beyond, self.flat, self.curve, self.dots, self.title, *self.numbers, *self.bars)

    def show(
        self, head: tuple[int, int], reach: int, measured: Tensor, unturned: Tensor, curve: Tensor, waves: Tensor
    ) -> None:
        self.title.set_text(f"layer {head[0]}, head {head[1]}")
        for line, values in ((self.dots, measured), (self.flat, unturned), (self.curve, curve)):
            line.set_data(np.arange(len(values[:reach])) / reach, values[:reach])
        trained = min((len(measured) - 1) / reach, 1)
        self.beyond.set(x=trained, width=1 - trained)
        for number, quarter in zip(self.numbers, self.QUARTERS, strict=True):
            number.set_text(f"{quarter * reach:g}")
        for bar, height in zip(self.bars, waves.tolist(), strict=True):
            bar.set_height(height)


class Stretch(NamedTuple):
    """A way to turn the pairs, and what came of it: bits per byte at each position, and the score at each distance."""

    frequencies: Tensor
    bits: Tensor
    scores: Tensor


class BeyondLength:
    """Bits per byte by position, within and beyond the trained length, with a remedy beside none.

    Args:
        trained: positions in training, ``L``.
        untouched: what the model does as it is.
        segments: bits per byte of the model as it is meant to be used, segment by segment, by position.
        remedies: by name and strength, by how many times the slowest pair turns slower.
        head: the name of the head whose scores are shown.
        bin_size: positions whose bits are averaged for a point of the lines.

    Attributes: ``figure``; ``remedy``, the ``Stretch`` that is shown; ``bits`` of it, a value for each bin; ``above``,
    by how many bits it is above the segments in each stretch of ``trained`` positions.
    """

    def __init__(
        self,
        trained: int,
        untouched: Stretch,
        segments: Tensor,
        remedies: Mapping[tuple[str, float], Stretch],
        head: str,
        bin_size: int = 16,
    ) -> None:
        self.trained, self.untouched, self.segments = trained, untouched, segments
        self.remedies, self.bin_size = remedies, bin_size
        self.remedy = untouched
        self.bits, self.above = self._binned(untouched.bits), self._above(untouched)
        self.figure = Figure(figsize=(11, 6))
        self._canvas = MovingCanvas(self.figure)
        grid = self.figure.add_gridspec(2, 2, width_ratios=[1.5, 1])
        self._loss = self.figure.add_subplot(grid[:, 0])
        length = len(untouched.bits)
        middles = np.arange(len(self.bits)) * bin_size + bin_size / 2
        self._loss.axvspan(trained, length, color=_GREY, zorder=0)
        thin = {"markersize": 7, "linewidth": 2}
        self._loss.plot(middles, self.bits, "o--", color=_ORANGE, label="nothing done", **thin)
        self._loss.plot(middles, self._binned(segments), "s:", color="0.35", label=f"segments of {trained}", **thin)
        (self._line,) = self._loss.plot(middles, self.bits, "^-", color=_GREEN, markersize=9, label="remedy")
        top = max(self._binned(stretch.bits).max().item() for stretch in (untouched, *remedies.values()))
        self._loss.set(
            xlim=(0, length), ylim=(0, 1.15 * top), xticks=range(0, length + 1, trained),
            xlabel="position (bytes)", ylabel="bits per byte, fewer is better",
        )
        self._loss.legend(fontsize=13, ncols=3, loc="upper left", columnspacing=1, handletextpad=0.4)
        place = {"ha": "center", "transform": self._loss.get_xaxis_transform()}
        self._loss.text((trained + length) / 2, 0.18, "beyond the trained length", size=14, **place)
        self._loss.text(length / 2, 0.02, f"remedy minus segments of {trained}", size=14, **place)
        self._numbers = [
            self._loss.text(first + trained / 2, 0.08, "", size=18, **place) for first in range(0, length, trained)
        ]
        self._near = self._scores(self.figure.add_subplot(grid[0, 1]), 13, f"score in {head}, near")
        self._far = self._scores(self.figure.add_subplot(grid[1, 1]), length, "and far")
        self._canvas.moves(self._line, self._near, self._far, *self._numbers)

    def draw(self, remedy: str, strength: float) -> str:
        """Show one of the remedies, and say by how much it is above the segments."""
        self.remedy = self.remedies[remedy, strength]
        self.bits, self.above = self._binned(self.remedy.bits), self._above(self.remedy)
        self._line.set_ydata(self.bits)
        for number, above in zip(self._numbers, self.above, strict=True):
            number.set_text(f"{'+' if above >= 0 else ''}{_signed(above)}")
        for line in (self._near, self._far):
            line.set_ydata(self.remedy.scores[: len(line.get_xdata())])
        parts = ", ".join(
            f"{_signed(above)} at bytes {number * self.trained} to {(number + 1) * self.trained - 1}"
            for number, above in enumerate(self.above)
        )
        nothing = ", ".join(_signed(above) for above in self._above(self.untouched))
        return (
            f"{remedy.capitalize()}, {strength:g} times. Bits per byte above segments of {self.trained}: {parts}. "
            f"With nothing done: {nothing}."
        )

    def _above(self, stretch: Stretch) -> Tensor:
        return (stretch.bits - self.segments).unflatten(0, (-1, self.trained)).mean(dim=-1)

    def _binned(self, bits: Tensor) -> Tensor:
        return bits.unflatten(0, (-1, self.bin_size)).mean(dim=-1)

    def _scores(self, ax: Axes, length: int, title: str) -> Line2D:
        distances = range(length)
        ax.axvspan(min(self.trained, length) - 1, length - 1, color=_GREY, zorder=0)
        ax.plot(distances, self.untouched.scores[:length], "--", color=_ORANGE, linewidth=2)
        (line,) = ax.plot(distances, self.untouched.scores[:length], color=_GREEN, linewidth=2)
        every = torch.stack([stretch.scores for stretch in (self.untouched, *self.remedies.values())])
        ax.set(xlim=(0, length - 1), ylim=(every.min().item() - 1, every.max().item() + 1), xlabel="distance (bytes)")
        ax.set_xticks(range(0, length, 4 if length < 64 else 64))
        ax.set_title(title, size=15)
        return line


def _circle(angles: np.ndarray | float) -> np.ndarray:
    """Points of the unit circle; the axis of the dials points down, and a turn goes counter-clockwise."""
    return np.stack([np.cos(angles), -np.sin(angles)], axis=-1)


def _tokens(number: float) -> str:
    if number < 100:
        return f"{number:.1f}"
    return f"{number:,.0f}" if number < 1e6 else f"{number / 1e6:.1f} M"


def _signed(number: Tensor | float) -> str:
    return f"{round(float(number), 2) + 0.0:.2f}".replace("-", "−")  # + 0.0: there is no −0.00
