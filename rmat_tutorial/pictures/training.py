"""A training while it runs: its loss, its gates, and a progress bar."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..canvas import MovingCanvas
from ..language_model import LanguageModel
from ..plots import PATH_COLOURS
from ..validate import require_int
from ..widgets import Explorer, Picture

REDRAW_SECONDS = 0.5  # between two pictures of a training, or more:
PAUSE = 10  # times as long as a picture took, so that pictures never take more than a tenth of the time
WINDOW = 10  # steps of the running mean


class StepCurve:
    """A number of each step so far: a thin line, and the mean of the last ``window`` as a thick one.

    Attributes: ``values``; ``lines``, the artists.
    """

    def __init__(self, ax: Axes, colour: str, window: int = WINDOW) -> None:
        self.values: list[float] = []
        self._window = window
        (self._each,) = ax.plot([], [], color=colour, linewidth=1, alpha=0.4)
        (self._mean,) = ax.plot([], [], color=colour)
        self.lines = (self._each, self._mean)

    def put(self, step: int, value: float | None) -> None:
        """Take in the number of ``step``, if there is one; those of steps from it on are dropped."""
        self.values[step - 1 :] = [] if value is None else [value]

    def draw(self) -> None:
        """Show the steps so far."""
        steps = range(1, len(self.values) + 1)
        self._each.set_data(steps, self.values)
        self._mean.set_data(steps, [self.mean(step) for step in steps])

    def mean(self, step: int) -> float:
        """The mean of the steps up to ``step``, counted from 1, as far as the window reaches."""
        recent = self.values[max(0, step - self._window) : step]
        return sum(recent) / len(recent)


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
        self.figure = Figure(figsize=(11, 4.6), layout="constrained")
        self._canvas = MovingCanvas(self.figure)
        loss, gate = self.figure.subplots(1, 2, width_ratios=[2.2, 1])
        self._bits = StepCurve(loss, PATH_COLOURS["full"])
        for name, level in self.levels.items():
            loss.axhline(level, color="0.35", linewidth=1.5, linestyle="--", zorder=1)
            loss.text(steps, level, name, ha="right", va="bottom", fontsize="small", color="0.25")
        loss.set(xlim=(0, steps), ylim=(0, 8.6), xlabel="step", ylabel="bits per byte", title="loss")
        self._gate = StepCurve(gate, PATH_COLOURS["memory"], window=1)
        gate.set(xlim=(0, steps), ylim=(-0.03, 1.03), xlabel="step", title="mean write gate")
        self.bits, self.gates = self._bits.values, self._gate.values
        self._canvas.moves(*self._bits.lines, *self._gate.lines)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Take in a step's line of metrics; those of steps from it on, of an earlier training, are dropped."""
        self._bits.put(metrics["step"], metrics["bits_per_byte"])
        self._gate.put(metrics["step"], metrics["gate"])

    def draw(self) -> str:
        """Show the steps so far."""
        self._bits.draw()
        self._gate.draw()
        if not self.bits:
            return f"Nothing is trained yet: step 0 of {self.steps}."
        return f"Step {len(self.bits)} of {self.steps}: {self._bits.mean(len(self.bits)):.2f} bits per byte."


class Growing(Picture, Protocol):
    """The picture of a training of ``steps`` steps, which takes in a line of metrics after each."""

    steps: int

    def add(self, metrics: Mapping[str, Any]) -> None: ...


class FollowedTraining(Explorer):
    """A picture that grows with a training, and a progress bar: give ``follow`` to ``train``.

    Args:
        picture: of the steps so far.
        look: what looks into the model before each drawing.
    """

    def __init__(self, picture: Growing, look: Callable[[LanguageModel], object] | None = None) -> None:
        super().__init__(picture, title="Training")
        self.bar = ipywidgets.IntProgress(0, 0, picture.steps, layout=ipywidgets.Layout(width="min(100%, 40em)"))
        heading, *rest = self.children
        self.children = [heading, self.bar, *rest]
        self._look = look
        self._next = time.monotonic()

    def follow(self, metrics: Mapping[str, Any], model: LanguageModel) -> None:
        """Take in a step's line of metrics, and show it and the model when the last picture is old enough."""
        self.picture.add(metrics)
        self.bar.value = metrics["step"]
        began = time.monotonic()
        if began >= self._next or metrics["step"] == self.picture.steps:
            if self._look is not None:
                self._look(model)
            self.redraw()
            now = time.monotonic()
            self._next = now + max(REDRAW_SECONDS, PAUSE * (now - began))


class TrainingView(FollowedTraining):
    """The picture of a training on text, and a progress bar: give ``follow`` to ``train``.

    Args: as of ``TrainingPicture``.
    """

    def __init__(self, steps: int, levels: Mapping[str, float]) -> None:
        super().__init__(TrainingPicture(steps, levels))
