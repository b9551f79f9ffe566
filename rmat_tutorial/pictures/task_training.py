"""A training on a task while it runs: how far back it answers, when its gates open, and how its bank fills."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from ..canvas import MovingCanvas
from ..config import ModelConfig, RMATConfig
from ..memory import GatedFIFOMemory, push
from ..model import RMAT
from ..plots import HIGHLIGHT, PATH_COLOURS
from ..tasks import PlacedTask
from ..tracing import collect_gates
from ..training import TrainSettings
from .panels import GATE_COLOURS, shades
from .retention import mark_chance
from .training import FollowedTraining, StepCurve

FILLED = 0.5  # from this distance on a slot of the bank has the darkest colour
COLUMNS = 100  # of the map of steps: more would be narrower than can be seen
ANSWER_COLOURS = shades(PATH_COLOURS["full"], 1.0)
BANK_COLOURS = shades("#4b2c6f", 0.5)


@torch.no_grad()
def written(model: RMAT, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """What ``model`` writes while it reads a stream ``(1, T)`` of ``S`` whole segments, layer below layer.

    Returns:
        The write gates, ``(N · w, S)``, of each slot the one that is open furthest; and how far each slot of the bank,
        ``(N · m, S)``, is from what it would be had no gate opened: the root of the mean square over its numbers.
    """
    memories = [block.memory for block in model.blocks]
    shut = [memory.initial(1) for memory in memories]
    state, filled = None, []
    with collect_gates(model) as gates:
        for segment in tokens.split(model.config.segment_len, dim=1):
            state = model(segment, state).state
            shut = [_kept(memory, bank) for memory, bank in zip(memories, shut, strict=True)]
            filled.append(torch.cat([(bank - other)[0].square().mean(dim=-1).sqrt()
                                     for bank, other in zip(state.memory, shut, strict=True)]))
    opened = torch.cat([gate[0].amax(dim=-1) for gate in gates]).view(len(filled), -1)
    return opened.T.cpu(), torch.stack(filled, dim=1).cpu()


def _kept(memory: GatedFIFOMemory, bank: Tensor) -> Tensor:
    """The bank ``(1, m, d)`` after a write whose gates are all shut."""
    w = memory.write_slots
    return push(bank, bank[:, :w] if memory.carry == "oldest" else bank[:, -w:])


def _lines_across(ax: Axes) -> LineCollection:
    """Upright lines from edge to edge, so far none; their ends are ``(step, 0)`` and ``(step, 1)``."""
    lines = LineCollection([], colors="0.35", linewidths=1.5, linestyles="--", zorder=1,
                           transform=ax.get_xaxis_transform())
    ax.add_collection(lines, autolim=False)
    return lines


class TaskTrainingPicture:
    """Above, loss, accuracy and mean write gate of each step so far, and where streams grew. Below, accuracy by the
    number of segments between fact and question, and what the model writes now while it reads one stream, always the
    same.

    Args:
        config, task, settings: of the training.
        seed: of that stream, as long as the longest of the training.

    Attributes:
        figure: the figure.
        losses, accuracies, gates: of each step so far, the last empty for a model without gates.
        longest: how many segments a stream could have in each step so far.
        answered: share of right answers by segments back and step, ``(max_segments, columns)``; NaN where none is due.
        opened, filled: as ``written`` returned them last; ``None`` before, and for a model without a bank.
    """

    def __init__(self, config: ModelConfig, task: PlacedTask, settings: TrainSettings, seed: int = 0) -> None:
        self.steps, self.segments = settings.steps, settings.max_segments
        self._has_bank = isinstance(config, RMATConfig) and "memory" in config.paths
        length = self.segments * config.segment_len
        self._probe, _ = task.batch(1, length, torch.Generator().manual_seed(seed))
        places = task.episode(1, length, torch.Generator().manual_seed(seed)).places
        stated = (places.unique() // config.segment_len).unique().tolist()
        self._counts = np.zeros((2, self.steps, self.segments))  # right, asked
        columns = min(COLUMNS, self.steps)
        self._starts = np.arange(columns) * self.steps // columns  # the first step of each
        self.longest: list[int] = []
        self.opened: Tensor | None = None
        self.filled: Tensor | None = None
        self.figure = Figure(figsize=(12, 7.6), layout="constrained")
        self._canvas = MovingCanvas(self.figure)
        (loss, accuracy, gate), (back, opened, filled) = self.figure.subplots(2, 3)
        self._lay_out_curves(loss, accuracy, gate, task)
        self._lay_out_back(back)
        self._opened = self._image(opened, GATE_COLOURS, "write gates, one stream", config, "write_slots", 1.0)
        self._filled = self._image(filled, BANK_COLOURS, "bank, the same stream", config, "memory_slots", FILLED)
        for ax in (opened, filled):
            ax.plot(stated, [1.02] * len(stated), "v", color=HIGHLIGHT, clip_on=False,
                    transform=ax.get_xaxis_transform())

    def _lay_out_curves(self, loss: Axes, accuracy: Axes, gate: Axes, task: PlacedTask) -> None:
        curves = self._loss, self._accuracy, self._gate = (
            StepCurve(loss, PATH_COLOURS["full"]), StepCurve(accuracy, PATH_COLOURS["full"]),
            StepCurve(gate, PATH_COLOURS["memory"], window=1),
        )
        self.losses, self.accuracies, self.gates = (curve.values for curve in curves)
        loss.set(ylim=(0, 1.1 * math.log(task.vocab_size)), title="loss, nats")
        accuracy.set(ylim=(-0.04, 1.04), title="right answers")
        accuracy.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        mark_chance(accuracy, task.chance)
        # A gate that is open by a crack is seen.
        gate.set_yscale("function", functions=(lambda share: np.sqrt(np.maximum(share, 0)), np.square))
        gate.set(ylim=(0, 1), yticks=(0, 0.01, 0.1, 0.3, 1), title="mean write gate",
                 ylabel="root scale")
        for ax in (loss, accuracy, gate):
            ax.set(xlim=(0, self.steps), xlabel="step")
        self._growths = [_lines_across(ax) for ax in (loss, accuracy, gate)]
        self._canvas.moves(*self._growths, *(line for curve in curves for line in curve.lines))

    def _lay_out_back(self, ax: Axes) -> None:
        self._back = ax.imshow(np.full((self.segments, len(self._starts)), np.nan), vmin=0, vmax=1,
                               cmap=ANSWER_COLOURS, aspect="auto", interpolation="nearest", origin="lower",
                               extent=(0, self.steps, -0.5, self.segments - 0.5))
        ax.grid(False)
        ax.set(xlabel="step", ylabel="segments back", title="right answers: dark")
        self._canvas.moves(self._back)

    def _image(
        self, ax: Axes, colours: Colormap, title: str, config: ModelConfig, slots: str, darkest: float
    ) -> AxesImage | None:
        """An image for each of the ``slots`` of each layer by segment; without a bank, a sentence."""
        ax.set_title(title, pad=18)  # with room for the marks of the facts
        ax.set(xlabel="segment")
        ax.grid(False)
        if not self._has_bank:
            ax.set(xlim=(-0.5, self.segments - 0.5), yticks=[])
            ax.text(0.5, 0.5, "this model has no bank", ha="center", transform=ax.transAxes)
            return None
        rows, layers = getattr(config, slots), config.n_layers
        image = ax.imshow(np.full((rows * layers, self.segments), np.nan), vmin=0, vmax=darkest,
                          cmap=colours, aspect="auto", interpolation="nearest")
        middles = [rows * (layer + 0.5) - 0.5 for layer in range(layers)]
        ax.set_yticks(middles, [f"layer {layer}" for layer in range(layers)], rotation=90, va="center")
        borders = [ax.axhline(rows * layer - 0.5, color="0.6", linewidth=1.5) for layer in range(1, layers)]
        self._canvas.moves(image, *borders)
        return image

    @property
    def growths(self) -> list[int]:
        """The steps so far in which streams could be longer than in the step before."""
        return [step for step, (before, now) in enumerate(pairwise(self.longest), 2) if now > before]

    @property
    def answered(self) -> np.ndarray:
        right, asked = np.add.reduceat(self._counts, self._starts, axis=1)
        return np.divide(right, asked, out=np.full_like(right, np.nan), where=asked > 0).T

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Take in a step's line of metrics; those of steps from it on, of an earlier training, are dropped."""
        step = metrics["step"]
        for curve, name in ((self._loss, "loss"), (self._accuracy, "accuracy"), (self._gate, "gate")):
            curve.put(step, metrics[name])
        self.longest[step - 1 :] = [metrics["max_segments"]]
        found: Sequence[Sequence[int]] = metrics["by_segments_back"]
        self._counts[:, step - 1 :] = 0
        self._counts[:, step - 1, : len(found)] = np.transpose(found)

    def look(self, model: RMAT) -> None:
        """See what ``model`` writes now while it reads the stream; it stays as it is."""
        if not self._has_bank:
            return
        training = model.training
        model.eval()
        try:
            self.opened, self.filled = written(model, self._probe.to(model.embed.weight.device))
        finally:
            model.train(training)

    def draw(self) -> str:
        """Show the steps so far, and what was seen last."""
        for curve in (self._loss, self._accuracy, self._gate):
            curve.draw()
        for lines in self._growths:
            lines.set_segments([((step, 0), (step, 1)) for step in self.growths])
        self._back.set_data(self.answered)
        if self.opened is not None:
            self._opened.set_data(self.opened.numpy())
            self._filled.set_data(self.filled.numpy())
        done = len(self.losses)
        if not done:
            return f"Nothing is trained yet: step 0 of {self.steps}."
        now = self.longest[-1]
        grown = "1 segment" if now == 1 else f"up to {now} segments"
        return (f"Step {done} of {self.steps}, streams of {grown}: {self._accuracy.mean(done):.1%} of the answers are "
                f"right.")


class TaskTrainingView(FollowedTraining):
    """The picture of a training on a task, and a progress bar: give ``follow`` to ``train``.

    Args: as of ``TaskTrainingPicture``.
    """

    def __init__(self, config: ModelConfig, task: PlacedTask, settings: TrainSettings, seed: int = 0) -> None:
        picture = TaskTrainingPicture(config, task, settings, seed)
        super().__init__(picture, picture.look)
