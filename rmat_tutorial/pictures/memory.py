"""A bank that is written segment by segment: what the pooling sees, what the gate lets in, where slots come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import normalize

from ..canvas import MovingCanvas
from ..measuring import effective_rank
from ..model import RMAT
from ..plots import HIGHLIGHT, PATH_COLOURS, attention_map
from ..tasks import RecallTask
from ..tracing import record, written_segments

VALUES = "PuOr"  # orange below 0, white at 0, purple above
POOLED, SLOT = 3.0, 0.6  # from this size on the numbers of a pooled vector, of a slot, have the darkest colour


# A bank, segment by segment -------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One write to one bank, without the batch axis.

    Attributes:
        looks: weights of the attention pooling over the segment, ``(w, L)``.
        pooled, gate: ``(w, d)``.
        bank: after the write, ``(m, d)``.
        came_from: what share of each slot the gates let in when, ``(m, 1 + S)``: at the start, then in each segment.
    """

    looks: Tensor
    pooled: Tensor
    gate: Tensor
    bank: Tensor
    came_from: Tensor


@torch.no_grad()
def written_steps(model: RMAT, tokens: Tensor) -> list[list[Step]]:
    """Every write while ``model``, which pools by attention, reads ``tokens`` ``(T,)``.

    Returns:
        For each whole segment a ``Step`` for each layer.
    """
    with record(model) as trace:
        heard = written_segments(model, tokens[None])
    segments = len(heard[0])
    steps: list[list[Step]] = [[] for _ in range(segments)]
    for layer, memory in enumerate(block.memory for block in model.blocks):
        # Number by number: the gate of one number of a slot may open while that of another stays shut.
        origin = torch.zeros(memory.memory_slots, memory.d_model, 1 + segments)
        origin[..., 0] = 1
        for segment, hidden in enumerate(heard[layer]):
            write = trace.segments[segment].layers[layer].write
            scores = memory.queries @ memory.write_norm(hidden[0]).T / math.sqrt(memory.d_model)
            origin = _moved(origin, write.gate[0], segment, memory.carry)
            steps[segment].append(
                Step(scores.softmax(dim=-1), write.pooled[0], write.gate[0], write.memory[0], origin.mean(dim=1))
            )
    return steps


def _moved(origin: Tensor, gate: Tensor, segment: int, carry: str) -> Tensor:
    """Where the numbers of a bank come from ``(m, d, 1 + S)`` after a write in ``segment`` with ``gate`` ``(w, d)``."""
    w = len(gate)
    carried = origin[:w] if carry == "oldest" else origin[-w:]
    new = (1 - gate[..., None]) * carried
    new[..., 1 + segment] += gate
    return torch.cat((origin[w:], new))


class BankSteps:
    """One segment of a stream after another: its tokens, the pooling, the gates, the bank and where it came from.

    Args:
        readers: models of one size that pool by attention, by the names to show.
        task: the task of the stream.
        tokens: ``(T,)``, whole segments.

    Attributes: ``figure``; ``step``, the write that is shown.
    """

    def __init__(self, readers: Mapping[str, RMAT], task: RecallTask, tokens: Tensor) -> None:
        self.task = task
        self._steps = {name: written_steps(model, tokens) for name, model in readers.items()}
        self.config = next(iter(readers.values())).config
        self._segments = tokens.split(self.config.segment_len)
        self.step: Step = next(iter(self._steps.values()))[0][0]
        self.figure = Figure(figsize=(11, 6.4), layout="none")
        self._canvas = MovingCanvas(self.figure)
        m, w, d = self.config.memory_slots, self.config.write_slots, self.config.d_model
        slots = [str(slot) for slot in range(m)]
        times = [" ", *(str(t) if t % 3 == 0 else " " for t in range(len(self._segments)))]
        # Places in shares of the figure. The bank's rows and those of the w slots that enter are at one height.
        low, high, blanks = 0.105, 0.47, [" "] * d
        written, entered, bare = slots[m - w :], high * w / m, [" "] * m
        self._looks = self._image((0.075, 0.71, 0.905, 0.22), written, [" "] * self.config.segment_len, "")
        self._pooled = self._image((0.075, low, 0.18, entered), written, blanks, "pooled u", POOLED)
        self._gate = self._image((0.275, low, 0.18, entered), bare[:w], blanks, "gate z")
        self._bank = self._image((0.535, low, 0.18, high), slots, blanks, "bank after it", SLOT)
        self._came_from = self._image((0.735, low, 0.245, high), bare, times, "came from")
        self._facts = [
            self._looks.axes.text(0, -0.7, "", ha="center", va="bottom", color=HIGHLIGHT, weight="bold", size=17)
            for _ in range(task.keys)
        ]
        self._enters = [
            self._gate.axes.text(d + 1, row, "➜", ha="left", va="center_baseline", color=HIGHLIGHT, size=26)
            for row in range(w)
        ]
        self._now = Rectangle((0, -0.5), 1, m, fill=False, edgecolor=HIGHLIGHT, linewidth=2.5, linestyle="--")
        self._came_from.axes.add_patch(self._now)
        self._label(w, d)
        images = (self._looks, self._pooled, self._gate, self._bank, self._came_from)
        spines = (spine for image in images for spine in image.axes.spines.values())
        self._canvas.moves(*images, *self._facts, *self._enters, self._now, *spines)

    def _image(
        self, place: tuple[float, ...], rows: Sequence[str], columns: Sequence[str], title: str, scale: float = 0.0
    ) -> AxesImage:
        """An image of weights from 0 to 1, or with ``scale`` of numbers around 0."""
        ax = self.figure.add_axes(place)
        image = attention_map(ax, torch.zeros(len(rows), len(columns)), rows, columns, title)
        if scale:
            image.set(cmap=VALUES, norm=Normalize(-scale, scale))
        ax.set(xlabel="", ylabel="")
        return image

    def _label(self, w: int, d: int) -> None:
        m = self.config.memory_slots
        self._looks.axes.set_ylabel("slot", labelpad=28)
        self._pooled.axes.set_ylabel("slot", labelpad=28)
        for image, text, below in (
            (self._looks, "the tokens of the segment: dark is where the pooling of a slot looks", 6),
            (self._pooled, f"{d} numbers", 6),
            (self._gate, "dark overwrites", 6),
            (self._bank, f"{d} numbers", 6),
            (self._came_from, "segment", 24),
        ):
            image.axes.set_xlabel(text, labelpad=below, size=16)
        # Under the others: it is wider than its column.
        self._came_from.axes.annotate("start", (0, 0), xycoords=("data", "axes fraction"), xytext=(-8, -26),
                                      textcoords="offset points", va="top", size=16)
        if m > w:
            moved = f"slots 0 to {m - w - 1}: what slots {w} to {m - 1}\nheld before, moved up by {w}"
            self.figure.text(0.075, 0.51, moved, size=16, va="center")
            self.figure.text(0.49, 0.51, "➜", size=26, va="center", ha="center")

    def draw(self, model: str, segment: int, layer: int) -> str:
        """Show the write after ``segment``; segments and layers count from 0."""
        self.step = step = self._steps[model][segment][layer]
        for image, values in (
            (self._looks, step.looks), (self._pooled, step.pooled), (self._gate, step.gate), (self._bank, step.bank),
            (self._came_from, step.came_from),
        ):
            image.set_data(values.numpy())
        for arrow, opened in zip(self._enters, (step.gate > 0).any(dim=1).tolist(), strict=True):
            arrow.set_visible(opened)
        self._now.set_x(segment + 0.5)
        tokens = self._segments[segment]
        places = (tokens >= self.task.first_fact).nonzero().flatten().tolist()
        stated = [self.task.decode(tokens[place]) for place in places]
        for place, label, text in zip(places + [0] * len(self._facts), stated + [""] * len(self._facts), self._facts,
                                      strict=False):
            text.set(x=place, text=label)
        says = f"states {' and '.join(stated)}" if stated else "is noise"
        return f"Segment {segment} {says}. {self._says_gates()}"

    def _says_gates(self) -> str:
        gate = self.step.gate
        w = len(gate)
        opened = (gate > 0).any(dim=1).nonzero().flatten().tolist()
        if not opened:
            return f"All {gate.numel()} gates are exactly 0: the {w} carried slots enter as they were, to the last bit."
        if len(opened) == w:
            shut = "no gate is exactly 0" if (gate > 0).all() else "gates open in every slot"
            return f"All {w} slots are overwritten: {shut}, z = {gate.mean():.4f} on average."
        names = [str(self.config.memory_slots - w + slot) for slot in opened]
        slots = f"slot {names[0]}" if len(names) == 1 else f"slots {', '.join(names[:-1])} and {names[-1]}"
        others = "one enters as it was" if w - len(opened) == 1 else f"{w - len(opened)} enter as they were"
        return f"Gates open in {slots}, up to z = {gate.max():.2f}; the other {others}."


def slots_of_keys(shares: Tensor, keys: Sequence[str], slots: Sequence[str]) -> Figure:
    """How the opening of the gates for a fact of each key is shared out over the slots that are written.

    Args:
        shares: ``(len(keys), len(slots))``; each row sums to 1. The rows are sorted by the slot with the largest.
    """
    figure, ax = plt.subplots(figsize=(9, 6))
    order = sorted(range(len(keys)), key=lambda row: (shares[row].argmax().item(), -shares[row].max().item()))
    attention_map(ax, shares[order], [keys[row] for row in order], slots, "who is written where")
    ax.set(xlabel="slot", ylabel="key of the fact")
    for place, row in enumerate(order):
        for slot, share in enumerate(shares[row].tolist()):
            if share >= 0.05:
                ax.text(slot, place, f"{share:.0%}", ha="center", va="center", size=15, weight="bold",
                        color="white" if share > 0.2 else "black")
    return figure


# What goes wrong ------------------------------------------------------------------------------------------------------


def gate_bars(states: Mapping[str, tuple[float, float, float]]) -> Figure:
    """A bar for each name: which share of the gates is exactly 0, between, exactly 1; the three add up to 1."""
    figure, ax = plt.subplots(figsize=(11, 1.5 + 0.55 * len(states)))
    looks = (("exactly 0", "0.85", ""), ("between", PATH_COLOURS["memory"], "//"), ("exactly 1", HIGHLIGHT, "xx"))
    start = [0.0] * len(states)
    for part, (label, colour, hatch) in enumerate(looks):
        widths = [shares[part] for shares in states.values()]
        ax.barh(list(states), widths, left=start, color=colour, hatch=hatch, edgecolor="0.2", label=label)
        start = [sum(pair) for pair in zip(start, widths, strict=True)]
    ax.set(xlim=(0, 1), xlabel="share of the gates")
    ax.invert_yaxis()
    ax.grid(False)
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def likeness_maps(banks: Mapping[str, Tensor]) -> Figure:
    """How alike the slots of each bank ``(m, d)`` are: the absolute cosine of every pair, with the effective rank."""
    figure, axes = plt.subplots(1, len(banks), figsize=(11, 11 / len(banks) + 0.9), squeeze=False)
    for ax, (name, bank) in zip(axes[0], banks.items(), strict=True):
        directions = normalize(bank, dim=-1)
        blanks, numbered = [" "] * len(bank), range(0, len(bank), 5)
        image = attention_map(ax, (directions @ directions.T).abs().clamp(max=1), blanks, blanks, "")
        ax.set(xticks=numbered, xlabel="slot", yticks=numbered if ax is axes[0, 0] else [])
        ax.set_ylabel("slot" if ax is axes[0, 0] else "")
        ax.xaxis.labelpad = ax.yaxis.labelpad = 4
        ax.set_title(f"{name}\neffective rank {effective_rank(bank):.1f}", size=15)
    figure.colorbar(image, ax=axes[0].tolist(), label="likeness", shrink=0.7, ticks=[0, 0.25, 0.5, 1])
    return figure
