"""The pictures of notebook 05: λ by hand, paths switched off, what moves what over segments, what a segment costs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..attention import fuse
from ..block import HybridBlock
from ..canvas import MovingCanvas
from ..config import PATHS
from ..model import RMAT
from ..plots import HIGHLIGHT, MOST_LABELS, PATH_COLOURS, PATH_MARKERS, attention_map, byte_label
from ..tracing import LayerTrace, record
from .influence import influence_maps

GUESSES = 5
LABEL_ROOM = 24  # points, for two hexadecimal digits of the largest size; the figure is laid out only once
_TRAINED = {"color": "black", "markersize": 8, "fillstyle": "none", "markeredgewidth": 2, "clip_on": False}

# What moves what, over segments --------------------------------------------------------------------------------------


def segment_maps(panels: Mapping[str, Tensor], segment_len: int) -> Figure:
    """``influence_maps`` of one to three matrices, with the segments' borders, and a frame around what leaks."""
    figure = influence_maps(panels)
    for ax, panel in zip(figure.axes, panels.values(), strict=True):
        for border in range(segment_len, len(panel), segment_len):
            ax.axhline(border - 0.5, color="0.2", linewidth=1.5)
            ax.axvline(border - 0.5, color="0.2", linewidth=1.5)
        for i, j in (panel.triu(1) > 0).nonzero().tolist():
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=HIGHLIGHT, linewidth=2.5))
    return figure


# λ by sliders ------------------------------------------------------------------------------------------------------


def set_mix(block: HybridBlock, shares: Sequence[float]) -> None:
    """Make λ of ``block`` these shares, divided by their sum. A share of 0 switches its path off."""
    with torch.no_grad():
        block.mix.copy_(torch.tensor(shares).log())


class FusedAttention:
    """What a layer of a model that reads bytes attends to in all, and what the model expects next, at any λ.

    Attributes: ``figure``; ``weights``, the fused map ``(P, P + m)`` of the ``P`` bytes of the last segment over
    these bytes and the ``m`` slots, ``None`` where there is nothing to show; ``mix``, λ as set, ``(3,)``;
    ``bits``, the mean loss on the text with this λ and ``trained_bits`` with the trained one; ``chances``,
    ``(256,)``, of the byte that comes next.

    Args:
        model: a model with all three paths.
        data: the text, of which the first ``end`` bytes are read.
    """

    def __init__(self, model: RMAT, data: bytes) -> None:
        self.data = data
        self.model = copy.deepcopy(model)
        self.trained = [block.mix.softmax(0).tolist() for block in model.blocks]
        self.weights: Tensor | None = None
        self.mix = torch.zeros(0)
        self.chances = torch.zeros(0)
        self.bits = self.trained_bits = math.nan
        self._drawn: int | None = None
        self._known: dict[int, tuple[float, Tensor]] = {}
        self.figure = Figure(figsize=(10, 5.4))
        self._canvas = MovingCanvas(self.figure)
        slots = model.config.memory_slots / model.config.segment_len
        grid = self.figure.add_gridspec(2, 3, width_ratios=[1, 0.12 + slots, 0.75], height_ratios=[1, 1.5])
        self._bytes, self._slots = self.figure.add_subplot(grid[:, 0]), self.figure.add_subplot(grid[:, 1])
        self._shares, self._next = self.figure.add_subplot(grid[0, 2]), self.figure.add_subplot(grid[1, 2])
        self._lay_out_maps(1)
        self._lay_out_shares()
        self._lay_out_next()
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")

    def draw(self, end: int, layer: int, head: int, full: float, chunk: float, memory: float) -> str:
        """Read ``end`` bytes with λ of one layer set to the three shares; the other layers keep theirs."""
        shares = [full, chunk, memory]
        if not any(shares):
            return self._nothing("All three shares are 0: there is nothing to divide by. Raise one of them.")
        if end not in self._known:
            self._known[end] = self._read(end)[:2]
        self.trained_bits, trained_chances = self._known[end]
        for number, block in enumerate(self.model.blocks):
            set_mix(block, shares if number == layer else self.trained[number])
        self.bits, self.chances, last = self._read(end)
        for number, block in enumerate(self.model.blocks):
            set_mix(block, self.trained[number])
        self.mix = torch.tensor(shares) / sum(shares)
        self.weights = fuse(_over_bytes_and_slots(last[layer], head), self.mix.log())
        self._show_maps(end, layer, head)
        self._show_shares(layer)
        self._show_next(end, trained_chances)
        return self._says(end, layer, trained_chances)

    def _read(self, end: int) -> tuple[float, Tensor, list[LayerTrace]]:
        tokens = torch.tensor([list(self.data[:end])], device=self.model.embed.weight.device)
        with torch.no_grad(), record(self.model) as trace:
            logits = self.model(tokens).logits[0].cpu()
        loss = cross_entropy(logits[:-1], tokens[0, 1:].cpu()).item() / math.log(2)
        return loss, logits[-1].softmax(dim=-1), trace.segments[-1].layers

    def _lay_out_maps(self, seen: int) -> None:
        end = self._drawn or seen
        shown = seen <= MOST_LABELS
        labels = [byte_label(byte) if shown else " " for byte in self.data[end - seen : end]]
        slots = self.model.config.memory_slots
        for ax, columns, title in ((self._bytes, labels, " "), (self._slots, [" "] * slots, "slots")):
            for artist in (*ax.images, *ax.collections, *ax.texts):
                artist.remove()
            rows = labels if ax is self._bytes else [" "] * seen
            image = attention_map(ax, torch.zeros(seen, len(columns)), rows, columns, title)
            self._canvas.moves(image, ax.title, *ax.collections, *ax.spines.values())
        self._bytes.set_xlabel("bytes looked at", labelpad=LABEL_ROOM)
        self._bytes.set_ylabel("bytes that look", labelpad=LABEL_ROOM)
        self._slots.set(xlabel="", ylabel="")

    def _show_maps(self, end: int, layer: int, head: int) -> None:
        seen = len(self.weights)
        if self._drawn != end:
            self._drawn = end
            self._lay_out_maps(seen)
        self._bytes.images[0].set_data(self.weights[:, :seen].numpy())
        self._slots.images[0].set_data(self.weights[:, seen:].numpy())
        self._bytes.set_title(f"layer {layer}, head {head}: all three fused")

    def _lay_out_shares(self) -> None:
        ax = self._shares
        ax.set(ylim=(0, 1.3), xlim=(-0.9, len(PATHS) - 0.4), yticks=[], xticks=range(len(PATHS)))
        ax.set_xticklabels(PATHS)
        ax.grid(False)
        ax.spines["left"].set_visible(False)
        self._bars = ax.bar(range(len(PATHS)), [0] * len(PATHS), color=[PATH_COLOURS[path] for path in PATHS])
        (self._marks,) = ax.plot(range(len(PATHS)), [0] * len(PATHS), "D", **_TRAINED)
        self._numbers = [ax.text(place, 0, "", ha="center", size=15) for place in range(len(PATHS))]
        ax.set_title("λ (◇ trained)")
        self._canvas.moves(*self._bars, self._marks, *self._numbers)

    def _show_shares(self, layer: int) -> None:
        for bar, number, share, trained in zip(
            self._bars, self._numbers, self.mix.tolist(), self.trained[layer], strict=True
        ):
            bar.set_height(share)
            number.set(text=f"{share:.2f}", y=max(share, trained) + 0.1)
        self._marks.set_ydata(self.trained[layer])

    def _lay_out_next(self) -> None:
        ax = self._next
        ax.set(xlim=(-0.34, 1.06), ylim=(GUESSES - 0.4, -0.6), xticks=[0, 0.5, 1], yticks=[], xlabel="chance")
        ax.grid(False)
        ax.spines["left"].set_visible(False)
        self._chances = ax.barh(range(GUESSES), [0] * GUESSES, color="0.55")
        (self._trained,) = ax.plot([0] * GUESSES, range(GUESSES), "D", **_TRAINED)
        self._labels = [ax.text(-0.06, row, "", ha="right", va="center", family="monospace") for row in range(GUESSES)]
        ax.set_title("next byte (▶ is right)")
        self._canvas.moves(*self._chances, self._trained, *self._labels)

    def _show_next(self, end: int, trained: Tensor) -> None:
        chances, likely = self.chances.topk(GUESSES)
        right = self.data[end] if end < len(self.data) else None
        for bar, label, chance, byte in zip(
            self._chances, self._labels, chances.tolist(), likely.tolist(), strict=True
        ):
            bar.set_width(chance)
            label.set_text(f"{'▶ ' if byte == right else ''}{byte_label(byte)}")
        self._trained.set_xdata(trained[likely].numpy())

    def _says(self, end: int, layer: int, trained: Tensor) -> str:
        shares = ", ".join(f"{path} {share:.2f}" for path, share in zip(PATHS, self.mix.tolist(), strict=True))
        sentence = (
            f"Layer {layer} with λ {shares}: {self.bits:.2f} bits a byte on these {end} bytes; "
            f"{self.trained_bits:.2f} with the trained λ."
        )
        if end < len(self.data):
            right = self.data[end]
            sentence += (
                f" The next byte is “{byte_label(right)}”: chance {self.chances[right]:.2f}, "
                f"trained {trained[right]:.2f}."
            )
        return sentence

    def _nothing(self, why: str) -> str:
        self.weights, self._drawn = None, None
        self.mix, self.chances, self.bits = torch.zeros(0), torch.zeros(0), math.nan
        for ax in (self._bytes, self._slots):
            for image in ax.images:
                image.set_data(torch.zeros(image.get_array().shape).numpy())
        self._bytes.set_title("no λ")
        for bar, number in zip(self._bars, self._numbers, strict=True):
            bar.set_height(0)
            number.set_text("")
        for bar, label in zip(self._chances, self._labels, strict=True):
            bar.set_width(0)
            label.set_text("")
        self._trained.set_xdata([math.nan] * GUESSES)
        self._marks.set_ydata([math.nan] * len(PATHS))
        return why


def _over_bytes_and_slots(layer: LayerTrace, head: int) -> Tensor:
    """The three maps of a head as rows over bytes and slots, ``(3, P, P + m)``: what a path does not see gets 0."""
    full, chunk, memory = (getattr(layer, path)[0, head].cpu() for path in PATHS)
    nowhere, no_slots = torch.zeros_like(full), torch.zeros_like(memory)
    return torch.stack([torch.cat(pair, 1) for pair in ((full, no_slots), (chunk, no_slots), (nowhere, memory))])


# Paths switched off ------------------------------------------------------------------------------------------------

LAYERS = ("both layers", "layer 0", "layer 1")


class Bench(NamedTuple):
    """A model of two layers, how it is scored, and what its score is to be compared with.

    Attributes:
        model: with all three paths.
        score: a number for a model of that kind.
        unit: what the number is.
        better: which scores are better, such as ``"less is better"``.
        form: how the number is written, such as ``"{:.2f}"``.
        beside: other scores, by what they are.
    """

    model: RMAT
    score: Callable[[RMAT], float]
    unit: str
    better: str
    form: str
    beside: Mapping[str, float]


def switched(model: RMAT, layers: str, on: Sequence[str]) -> RMAT:
    """A copy of ``model`` in which only the paths ``on`` run in the ``layers``; their λ share what the others leave."""
    quiet = copy.deepcopy(model)
    off = [number for number, path in enumerate(PATHS) if path not in on]
    with torch.no_grad():
        for number, block in enumerate(quiet.blocks):
            if layers in (LAYERS[0], f"layer {number}"):
                block.mix[off] = -math.inf
    return quiet


class PathSwitches:
    """The scores of two models with paths switched off, measured beforehand, side by side.

    Attributes: ``figure``; ``scores``, by name of the model, then by layers and paths that are on; ``shown``, the
    score that is shown of each model, empty where there is none.
    """

    def __init__(self, benches: Mapping[str, Bench]) -> None:
        self.benches = dict(benches)
        self.scores = {name: _all_switches(bench) for name, bench in benches.items()}
        self.shown: dict[str, float] = {}
        self.figure = Figure(figsize=(11, 5.6))
        self._canvas = MovingCanvas(self.figure)
        axes = self.figure.subplots(2, len(benches), height_ratios=[1, 1.5], squeeze=False)
        self._grids, self._bars = [], []
        for above, below, (name, bench) in zip(*axes, self.benches.items(), strict=True):
            self._grids.append(_Grid(above, bench.model, name, self._canvas))
            self._bars.append(_Bars(below, bench, self.scores[name], self._canvas))

    def draw(self, layers: str, full: bool, chunk: bool, memory: bool) -> str:
        """Show the scores with the ticked paths on in the ``layers``; in another layer all are on."""
        on = tuple(path for path, is_on in zip(PATHS, (full, chunk, memory), strict=True) if is_on)
        for grid in self._grids:
            grid.show(layers, on)
        self.shown = {name: scores[layers, on] for name, scores in self.scores.items() if (layers, on) in scores}
        for bars, name in zip(self._bars, self.benches, strict=True):
            bars.show(self.shown.get(name))
        if not on:
            return "With all three off there is nothing that λ could share out. Tick at least one path."
        off = [path for path in PATHS if path not in on]
        what = f"{' and '.join(off)} off in {layers}" if off else "All paths on"
        return f"{what[0].upper()}{what[1:]}. " + " ".join(
            f"{name.capitalize()}: {bench.form.format(self.shown[name])} {bench.unit}, "
            f"as trained {bench.form.format(self.scores[name][LAYERS[0], PATHS])}."
            for name, bench in self.benches.items()
        )


def _all_switches(bench: Bench) -> dict[tuple[str, tuple[str, ...]], float]:
    trained = bench.score(bench.model)
    scores = {(layers, PATHS): trained for layers in LAYERS}
    for layers in LAYERS:
        for count in (1, 2):
            for on in combinations(PATHS, count):
                scores[layers, on] = bench.score(switched(bench.model, layers, on))
    return scores


class _Grid:
    """λ of each path and layer, as the switches leave it, with a frame around the layers that they act on."""

    def __init__(self, ax: Axes, model: RMAT, name: str, canvas: MovingCanvas) -> None:
        self.trained = [block.mix.softmax(0).tolist() for block in model.blocks]
        rows = range(len(self.trained))
        ax.set(xlim=(-0.5, len(PATHS) - 0.5), xticks=range(len(PATHS)), xticklabels=PATHS)
        ax.set(ylim=(len(rows) - 0.4, -0.6), yticks=rows, yticklabels=[f"layer {row}" for row in rows])
        ax.set_title(f"{name}: λ", loc="left")
        ax.grid(False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        self.cells = [
            [ax.text(column, row, "", ha="center", va="center") for column in range(len(PATHS))] for row in rows
        ]
        frame = {"width": len(PATHS) - 0.04, "height": 0.84, "fill": False, "edgecolor": "0.2", "clip_on": False}
        self.frames = [ax.add_patch(Rectangle((-0.48, row - 0.42), **frame)) for row in rows]
        canvas.moves(*(cell for row in self.cells for cell in row), *self.frames)

    def show(self, layers: str, on: tuple[str, ...]) -> None:
        for number, (cells, trained, frame) in enumerate(zip(self.cells, self.trained, self.frames, strict=True)):
            is_switched = layers in (LAYERS[0], f"layer {number}")
            frame.set_visible(is_switched)
            running = on if is_switched else PATHS
            total = sum(share for path, share in zip(PATHS, trained, strict=True) if path in running)
            for cell, path, share in zip(cells, PATHS, trained, strict=True):
                is_on = path in running
                cell.set(text=f"{share / total:.2f}" if is_on else "off", color=PATH_COLOURS[path] if is_on else "0.5")
                cell.set_fontweight("bold" if is_on else "normal")


class _Bars:
    """The score as set above the score as trained and others."""

    def __init__(self, ax: Axes, bench: Bench, scores: Mapping[Any, float], canvas: MovingCanvas) -> None:
        self.form, self.widest = bench.form, max([*scores.values(), *bench.beside.values()])
        values = {"as set": 0.0, "as trained": scores[LAYERS[0], PATHS], **bench.beside}
        self.bars = ax.barh(range(len(values)), list(values.values()), color=["0.3", *["0.75"] * (len(values) - 1)])
        self.bars[0].set(hatch="//", edgecolor="white", linewidth=0)
        ax.set(xlim=(0, 1.3 * self.widest), yticks=range(len(values)))
        ax.set_yticklabels([fill(name, 15) for name in values])
        ax.set_xlabel(f"{bench.unit} ({bench.better})", fontsize=15)
        ax.invert_yaxis()
        for row, value in enumerate(values.values()):
            if row:
                ax.text(value + 0.02 * self.widest, row, self.form.format(value), va="center")
        self.number = ax.text(0, 0, "", va="center", fontweight="bold")
        canvas.moves(self.bars[0], self.number)

    def show(self, score: float | None) -> None:
        self.bars[0].set_width(score or 0)
        text = "" if score is None else self.form.format(score)
        self.number.set(text=text, x=(score or 0) + 0.02 * self.widest)


# What a segment costs ----------------------------------------------------------------------------------------------

_PARTS = {  # colour and hatch: the paths have theirs, what every transformer has is grey
    "FFN": ("0.75", ""),
    "projections": ("0.5", "///"),
    "full": (PATH_COLOURS["full"], ""),
    "chunk": (PATH_COLOURS["chunk"], ""),
    "memory": (PATH_COLOURS["memory"], ""),
    "write": (PATH_COLOURS["memory"], "xxx"),
}


def cost_figure(
    parts: Mapping[str, Sequence[float]],
    lengths: Sequence[int],
    tokens: Sequence[int],
    curves: Mapping[str, Sequence[float]],
) -> Figure:
    """Where the FLOPs of a token go in segments of several ``lengths``, and what a token costs after many tokens.

    Args:
        parts: thousands of FLOPs a token of each part of a block, one for each of ``lengths``; the parts are some of
            FFN, projections, full, chunk, memory and write.
        tokens: how many tokens were read.
        curves: thousands of FLOPs of the next token by then, by label; two of them.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5), width_ratios=[1.25, 1])
    bottom = [0.0] * len(lengths)
    for name, values in parts.items():
        colour, hatch = _PARTS[name]
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
        left.bar(range(len(lengths)), values, bottom=bottom, label=name, **look)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    left.set(xlabel="segment length L", ylabel="kFLOPs of a token", xticks=range(len(lengths)))
    left.set_xticklabels(lengths)
    handles, labels = left.get_legend_handles_labels()
    left.legend(handles[::-1], labels[::-1], fontsize=14, loc="upper left")
    for (name, values), path in zip(curves.items(), ("full", "memory"), strict=True):
        right.plot(tokens, values, marker=PATH_MARKERS[path], color=PATH_COLOURS[path], label=name)
    right.set(xscale="log", yscale="log", xlabel="tokens read", ylabel="kFLOPs of the next token")
    right.legend(fontsize=14)
    return figure
