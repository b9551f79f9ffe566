"""The pictures of notebook 03: what a chunk sees and costs, and where a model with borders is blind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from ..canvas import MovingCanvas
from ..chunks import chunk_mask
from ..plots import PATH_COLOURS

MOST_TOKENS = 20
LARGEST_CHUNK = 10
_MOST_FILLED = 27  # 19 or 20 tokens in chunks of 9; no other choice is filled up so far
_OUTSIDE, _HIDDEN, _WASTED, _VISIBLE, _SEEN = range(5)
_SHADES = ("white", "#dcebf4", "0.65", "#f5b95c", "#6b3200")
_LEGEND = {
    _HIDDEN: "not computed",
    _WASTED: "computed for nothing",
    _VISIBLE: "visible",
    _SEEN: "seen by the token ▸",
}


class ChunkExplorer:
    """Which pairs are visible and which are computed when ``T`` tokens attend in chunks of ``C``.

    Attributes:
        figure: the figure.
        seen: the tokens that the chosen one sees; empty when there is no such token.
        visible, computed, full: pairs that the mask leaves, that folded chunks compute, that full attention computes.
    """

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.visible = self.computed = self.full = 0
        self.figure = Figure(figsize=(11, 5.8))
        self._canvas = MovingCanvas(self.figure)
        mask, cost = self.figure.subplots(1, 2, width_ratios=[1.25, 1])
        self._build_mask(mask)
        self._build_cost(cost)
        self.figure.legend(
            handles=[Patch(facecolor=_SHADES[kind], edgecolor="0.3", label=label) for kind, label in _LEGEND.items()],
            loc="outside lower center",
            ncols=4,
            fontsize=14,
            columnspacing=1.2,
            handlelength=1.3,
        )

    def draw(self, T: int, C: int, token: int) -> str:
        """Show the pairs of ``T`` tokens in chunks of ``C``, and what ``token``, counted from 0, sees of them."""
        n = -(-T // C)
        mask = chunk_mask(T, C)
        self.visible, self.computed, self.full = int(mask.sum()), n * C * C, T * T
        self.seen = mask[token].nonzero().flatten().tolist() if token < T else []
        self._image.set_data(self._kinds(mask, n, C, token))
        self._frame.set_data([-0.5, T - 0.5, T - 0.5, -0.5, -0.5], [-0.5, -0.5, T - 0.5, T - 0.5, -0.5])
        self._marker.set_data([-1.3] * len(self.seen[:1]), [token] * len(self.seen[:1]))
        for bar, number, count in zip(
            self._bars, self._numbers, (self.full, self.computed, self.visible), strict=True
        ):
            bar.set_width(count)
            number.set(x=count + 6, text=str(count))
        return f"{self._says_seen(T, C, token)} {self._says_cost(T, C, n)}"

    def _kinds(self, mask: Tensor, n: int, C: int, token: int) -> np.ndarray:
        """What each cell of the picture is, ``(_MOST_FILLED, _MOST_FILLED)``."""
        T = len(mask)
        kinds = torch.full((_MOST_FILLED, _MOST_FILLED), _OUTSIDE)
        kinds[:T, :T] = _HIDDEN
        for start in range(0, n * C, C):
            kinds[start : start + C, start : start + C] = _WASTED
        kinds[:T, :T][mask] = _VISIBLE
        kinds[token, self.seen] = _SEEN
        return kinds.numpy()

    def _says_seen(self, T: int, C: int, token: int) -> str:
        if not self.seen:
            return f"There is no token {token}: the text ends with token {T - 1}."
        first, chunk = self.seen[0], token // C
        join = "and" if first == token - 1 else "to"
        what = "itself only" if first == token else f"{_tokens(len(self.seen))}, {first} {join} {token}"
        return f"Token {token} stands in chunk {chunk} and sees {what}."

    def _says_cost(self, T: int, C: int, n: int) -> str:
        left_over = T - (n - 1) * C
        last = "The last chunk is whole." if left_over == C else (
            f"The last chunk holds {_tokens(left_over)} and {_rows(C - left_over)} of padding."
        )
        return (
            f"Pairs: {self.visible} visible, {n} · {C}² = {self.computed} computed after folding, "
            f"{T}² = {self.full} with full attention. {last}"
        )

    def _build_mask(self, ax: Axes) -> None:
        self._image = ax.imshow(
            np.zeros((_MOST_FILLED, _MOST_FILLED)), cmap=ListedColormap(_SHADES), vmin=-0.5, vmax=4.5
        )
        (self._frame,) = ax.plot([], [], color="black", linewidth=2)
        (self._marker,) = ax.plot([], [], ">", color=_SHADES[_SEEN], markersize=12)
        ax.grid(False)
        ax.spines[:].set_visible(False)  # The image, drawn over what stands still, would cut into them.
        ax.set(xlim=(-2, _MOST_FILLED - 0.5), ylim=(_MOST_FILLED - 0.5, -0.8))
        ax.set(xticks=range(0, _MOST_FILLED, 5), yticks=range(0, _MOST_FILLED, 5))
        ax.set(xlabel="token looked at", ylabel="token that looks", title="frame: the T tokens")
        self._canvas.moves(self._image, self._frame, self._marker)

    def _build_cost(self, ax: Axes) -> None:
        names = ["full", "chunks,\nfolded", "visible\nin chunks"]
        colours = [PATH_COLOURS["full"], _SHADES[_WASTED], _SHADES[_VISIBLE]]
        self._bars = ax.barh(names, [0, 0, 0], color=colours, edgecolor="black", height=0.6)
        self._numbers = [ax.text(0, row, "", va="center") for row in range(3)]
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.set(xlim=(0, 1.15 * MOST_TOKENS**2), xlabel="pairs of tokens", title="how many pairs")
        self._canvas.moves(*self._bars, *self._numbers)


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count} tokens"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


class Accuracy(NamedTuple):
    """Share of right answers at each position of a path with a border every so many tokens."""

    path: str
    border: int
    right: Tensor


def accuracy_bars(panels: Mapping[str, Accuracy], delay: int, chance: float) -> Figure:
    """Accuracy by position, one panel below the other on the same scale.

    Args:
        panels: by their titles. The lines are the borders that the path cannot look across.
        delay: how many tokens back the answer stands; the first ``delay`` positions have no answer.
        chance: what guessing reaches.
    """
    height = 2.7 * len(panels) + 0.7
    figure, axes = plt.subplots(len(panels), 1, figsize=(11, height), sharex=True, squeeze=False)
    for ax, (title, (path, border, right)) in zip(axes[:, 0], panels.items(), strict=True):
        T = len(right)
        ax.bar(range(delay, T), right[delay:].tolist(), color=PATH_COLOURS[path], width=0.8)
        ax.axvspan(-0.6, delay - 0.5, facecolor="0.95", edgecolor="0.6", hatch="//", linewidth=0, label="no answer")
        ax.vlines([place - 0.5 for place in range(border, T, border)], 0, 1.05, color="black", label="border")
        ax.axhline(chance, color="0.3", linestyle="--", linewidth=2, label="chance")
        ax.set(ylim=(0, 1.05), xlim=(-0.6, T - 0.4), xticks=range(0, T, 4 if T > 30 else 2), ylabel="right answers")
        ax.set_title(title, loc="left")
        ax.grid(axis="x", visible=False)
    axes[-1, 0].set_xlabel("position in the text")
    axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1.01, 0.99), ncols=3, fontsize=15)
    return figure
