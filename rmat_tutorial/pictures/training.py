"""A training while it runs: its loss, its gates, and a progress bar."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from ..canvas import MovingCanvas
from ..language_model import LanguageModel
from ..plots import PATH_COLOURS
from ..validate import require_int
from ..widgets import Explorer

REDRAW_SECONDS = 0.5  # between two pictures of a training: a picture takes the time of a fifth of a step
WINDOW = 10  # steps of the running mean


class TrainingPicture:
    """Bits per byte and mean write gate of each step so far.

    Args:
        steps: of the whole training.
        levels: bits per byte to compare with, by name; drawn as lines across.

    Attributes:
        figure: the figure.
        bits: bits per byte of each step so far.
        gates: mean write gate of each step so far; empty for a model without gates.
    """

    def __init__(self, steps: int, levels: Mapping[str, float]) -> None:
        require_int("steps", steps, 1)
        self.steps, self.levels = steps, dict(levels)
        self.bits: list[float] = []
        self.gates: list[float] = []
        self.figure = Figure(figsize=(11, 4.6), layout="constrained")
        self._canvas = MovingCanvas(self.figure)
        loss, gate = self.figure.subplots(1, 2, width_ratios=[2.2, 1])
        (self._each,) = loss.plot([], [], color=PATH_COLOURS["full"], linewidth=1, alpha=0.4)
        (self._mean,) = loss.plot([], [], color=PATH_COLOURS["full"])
        for name, level in self.levels.items():
            loss.axhline(level, color="0.35", linewidth=1.5, linestyle="--", zorder=1)
            loss.text(steps, level, name, ha="right", va="bottom", fontsize="small", color="0.25")
        loss.set(xlim=(0, steps), ylim=(0, 8.6), xlabel="step", ylabel="bits per byte", title="loss")
        (self._gate,) = gate.plot([], [], color=PATH_COLOURS["memory"])
        gate.set(xlim=(0, steps), ylim=(-0.03, 1.03), xlabel="step", title="mean write gate")
        self._canvas.moves(self._each, self._mean, self._gate)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Take in a step's line of metrics; those of steps from it on, of an earlier training, are dropped."""
        before = metrics["step"] - 1
        self.bits[before:] = [metrics["bits_per_byte"]]
        self.gates[before:] = [] if metrics["gate"] is None else [metrics["gate"]]

    def draw(self) -> str:
        """Show the steps so far."""
        steps = range(1, len(self.bits) + 1)
        self._each.set_data(steps, self.bits)
        self._mean.set_data(steps, [self._recent(step) for step in steps])
        self._gate.set_data(range(1, len(self.gates) + 1), self.gates)
        if not self.bits:
            return f"Nothing is trained yet: step 0 of {self.steps}."
        return f"Step {len(self.bits)} of {self.steps}: {self._recent(len(self.bits)):.2f} bits per byte."

    def _recent(self, step: int) -> float:
        recent = self.bits[max(0, step - WINDOW) : step]
        return sum(recent) / len(recent)


class TrainingView(Explorer):
    """The picture of a training, and a progress bar: give ``follow`` to ``train``.

    Args: as of ``TrainingPicture``.
    """

    def __init__(self, steps: int, levels: Mapping[str, float]) -> None:
        super().__init__(TrainingPicture(steps, levels), title="Training")
        self.bar = ipywidgets.IntProgress(0, 0, steps, layout=ipywidgets.Layout(width="min(100%, 40em)"))
        heading, *rest = self.children
        self.children = [heading, self.bar, *rest]
        self._drawn = 0.0

    def follow(self, metrics: Mapping[str, Any], model: LanguageModel) -> None:
        """Take in a step's line of metrics, and show it when the last picture is old enough."""
        self.picture.add(metrics)
        self.bar.value = metrics["step"]
        now = time.monotonic()
        if now - self._drawn >= REDRAW_SECONDS or metrics["step"] == self.picture.steps:
            self._drawn = now
            self.redraw()
