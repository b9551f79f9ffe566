"""How long a bank keeps a fact: the cliff of a plain queue, the slope of a sigmoid, the flat line of an exact zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..canvas import MovingCanvas
from ..measuring import fading
from ..memory import GatedFIFOMemory
from ..plots import FOURTH, PATH_COLOURS

QUEUE = "0.45"  # a plain queue is grey: the others are compared with it
WIDTH, FACTS, LENGTH = 32, 24, 4  # of the memories of ``Retention``, and of what they read
WRITES = 60
LOOKS = (  # of up to five models: marker, line, colour, size, so that of two lines on one another both are seen
    ("^", "-", PATH_COLOURS["memory"], 17),
    ("o", "-", PATH_COLOURS["full"], 10),
    ("s", "--", PATH_COLOURS["chunk"], 9),
    ("D", "-.", FOURTH, 10),
    ("v", ":", QUEUE, 10),
)


def times_gated(carry: str, writes: int, turns: int) -> int:
    """How often the gate has touched the best copy of a fact after ``writes``; a bank is through in ``turns`` = m / w.

    With ``carry="newest"`` a copy is made at each write, and the bank still holds the one of ``turns`` − 1 writes ago.
    With ``carry="oldest"`` a slot meets the gate only when it would leave, once in ``turns`` writes.
    """
    return max(0, writes - turns + 1) if carry == "newest" else writes // turns


class Retention:
    """What a memory with random weights keeps of a fact, measured beside (1 − z)ⁿ and beside a plain queue.

    Attributes: ``figure``; ``left``, the share measured after 0 to ``WRITES`` writes; ``formula`` and ``queue``, the
    shares that the formula and a plain queue would leave; ``z``, where the gate starts.
    """

    def __init__(self, write_slots: int = 4) -> None:
        self.write_slots = write_slots
        self.left: list[float] = []
        self.formula: list[float] = []
        self.queue: list[float] = []
        self.z = 0.0
        self._noise = torch.randn(WRITES, FACTS, LENGTH, WIDTH, generator=torch.Generator().manual_seed(1)).unbind()
        self.figure = Figure(figsize=(11, 5.4), layout="constrained")
        self._canvas = MovingCanvas(self.figure)
        ax = self.figure.subplots()
        writes = range(WRITES + 1)
        (self._queue,) = ax.plot(
            writes, writes, color=QUEUE, linestyle=":", drawstyle="steps-post", label="plain queue, no gate"
        )
        (self._formula,) = ax.plot(writes, writes, color=PATH_COLOURS["full"], label="formula, (1 − z)ⁿ")
        (self._left,) = ax.plot(writes, writes, "^", color=PATH_COLOURS["chunk"], markersize=8, label="measured")
        ax.set(xlim=(-1, WRITES + 1), ylim=(-0.1, 1.08), xlabel="writes since the fact went in",
               ylabel="share of the fact left")
        self.figure.legend(loc="outside upper center", ncols=3)  # inside, a slow slope would run through it
        self._canvas.moves(self._queue, self._formula, self._left)

    def draw(self, bias: float, slots: int, gate: str, carry: str) -> str:
        """Show a memory of ``slots`` slots whose gate starts at ``bias``; ``gate`` and ``carry`` as in the package."""
        turns = slots // self.write_slots
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            memory = GatedFIFOMemory(WIDTH, slots, self.write_slots, gate=gate, carry=carry, gate_bias=bias)
        self.z = memory.opening(torch.tensor(bias, dtype=torch.float64)).item()
        self.left = fading(memory, self._noise, FACTS)
        self.formula = [(1 - self.z) ** times_gated(carry, n, turns) for n in range(WRITES + 1)]
        self.queue = [float(n < turns) for n in range(WRITES + 1)]
        for line, shares in ((self._left, self.left), (self._formula, self.formula), (self._queue, self.queue)):
            line.set_ydata(shares)
        self._formula.set_drawstyle("default" if carry == "newest" else "steps-post")
        return (
            f"The gate starts at z = {self.z:.4f}. After {WRITES} writes {self.left[-1]:z.2f} of the fact is left, "
            f"{self.formula[-1]:.2f} by the formula. {self._half()} A plain queue of {slots} slots has lost it after "
            f"{_writes(turns)}."
        )

    def _half(self) -> str:
        below = next((n for n, share in enumerate(self.left) if share < 0.5), None)
        return "More than half is left." if below is None else f"Less than half is left from {_writes(below)} on."


def _writes(count: int) -> str:
    return "1 write" if count == 1 else f"{count} writes"


class Curves(NamedTuple):
    """What a model keeps, at each of some distances in tokens.

    Attributes:
        left: for each layer the share that is left of a vector put into its bank.
        right: the share of right answers.
    """

    left: list[list[float]]
    right: list[float]


class Survival:
    """Models side by side: what is left of a vector in the bank, and how many answers are right, by distance.

    Args:
        tokens: the distances, rising.
        curves: what each model keeps, by its name; no more than five.
        groups: which of the names to compare, by what the comparison is called.
        chance: the share of right answers of a guess.

    Attributes: ``figure``; ``shown``, the names compared now.
    """

    def __init__(
        self, tokens: Sequence[int], curves: Mapping[str, Curves], groups: Mapping[str, Sequence[str]], chance: float
    ) -> None:
        self.tokens, self.curves, self.groups = list(tokens), dict(curves), dict(groups)
        self.shown: list[str] = []
        self.figure = Figure(figsize=(11, 6))
        self._canvas = MovingCanvas(self.figure)
        self._axes = self.figure.subplots(1, 2, sharey=True)
        titles = ("a vector in the bank: share left", "facts: share of right answers")
        self._lines: dict[str, list] = {name: [] for name in self.curves}
        for ax, title in zip(self._axes, titles, strict=True):
            for name, (marker, line, colour, size) in zip(self.curves, LOOKS, strict=False):
                self._lines[name] += ax.plot(
                    self.tokens, [0] * len(self.tokens), marker=marker, linestyle=line, color=colour, markersize=size,
                    label=name,
                )
            ax.set(ylim=(-0.06, 1.08), xlabel="tokens since", title=title)
            _number(ax, self.tokens)
        mark_chance(self._axes[1], chance)
        self._here = [ax.axvline(self.tokens[0], color="0.2", linewidth=1.5, zorder=1) for ax in self._axes]
        # Names of lines that are not shown leave the legend, so it moves too, and belongs to an axes.
        legend = self._axes[0].legend(loc="center", bbox_to_anchor=(0.52, 0.45), fontsize=15)
        self._entries = dict(zip(self.curves, zip(legend.legend_handles, legend.get_texts(), strict=True), strict=True))
        self._canvas.moves(*self._here, *(line for lines in self._lines.values() for line in lines), legend)

    def draw(self, compare: str, layer: int, tokens: int) -> str:
        """Show a group of models, a vector in the bank of one layer, and what there is at one distance."""
        self.shown, at = list(self.groups[compare]), self.tokens.index(tokens)
        for name, (left, right) in self._lines.items():
            left.set_ydata(self.curves[name].left[layer])
            right.set_ydata(self.curves[name].right)
            for artist in (left, right, *self._entries[name]):
                artist.set_visible(name in self.shown)
        for line in self._here:
            line.set_xdata([tokens, tokens])
        parts = [
            f"{name}, {curves.left[layer][at]:z.2f} of the vector left, {curves.right[at]:.0%} of the answers right"
            for name, curves in self.curves.items()
            if name in self.shown
        ]
        return f"After {tokens:,} tokens: {'; '.join(parts)}."


def score_lines(scores: Mapping[str, Mapping[int, Sequence[float]]], chance: float) -> Figure:
    """Share of right answers by length: for each model the mean over its seeds as a line, their range as a band.

    Args:
        scores: for each model, by its name, and for each number of tokens: the scores of its seeds. Up to five models.
        chance: the share of right answers of a guess.
    """
    figure, ax = plt.subplots(figsize=(11, 5.5))
    for (name, by_tokens), (marker, line, colour, size) in zip(scores.items(), LOOKS, strict=False):
        points = [(tokens, score) for tokens, seeds in by_tokens.items() for score in seeds]
        lengths, shares = zip(*points, strict=True)
        sns.lineplot(
            x=lengths, y=shares, errorbar=("pi", 100), marker=marker, linestyle=line, color=colour, markersize=size,
            markeredgewidth=0, err_kws={"alpha": 0.3}, label=name, ax=ax,
        )
    ax.set(ylim=(-0.06, 1.08), xlabel="tokens in the stream", ylabel="share of right answers",
           title=f"stored scores: mean and range of {len(shares) // len(by_tokens)} seeds")
    _number(ax, sorted(by_tokens))
    mark_chance(ax, chance)
    ax.legend(loc="lower left", bbox_to_anchor=(0.01, 0.2))
    return figure


def _number(ax: Axes, tokens: Sequence[int]) -> None:
    ax.set_xscale("log")
    ax.set_xticks(tokens, [f"{length:,}" for length in tokens], rotation=45 if len(tokens) > 6 else 0)
    ax.minorticks_off()


def mark_chance(ax: Axes, chance: float) -> None:
    """A line across at the share of right answers of a guess."""
    ax.axhline(chance, color="0.4", linestyle=(0, (1, 3)), linewidth=2)
    ax.text(0.01, chance - 0.015, "chance", va="top", size=14, transform=ax.get_yaxis_transform())
