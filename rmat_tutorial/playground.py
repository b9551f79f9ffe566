"""The two demonstrations of notebook 00: facts in a stream of noise, and the model that reads text."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from .canvas import MovingCanvas
from .config import PATHS
from .facts import FactsError, Reading, Stream, make_stream, parse_facts, read_stream
from .model import RMAT
from .pictures.panels import (
    GATE_COLOURS,
    TEXT_LIMIT,
    bare,
    lay_out_gates,
    lay_out_mix,
    require_text_model,
    says_cut,
    says_gates,
    shades,
)
from .plots import HIGHLIGHT, PATH_COLOURS, attention_map, byte_label
from .tasks import RecallTask, key_name
from .tracing import SegmentTrace, record
from .widgets import Explorer

LENGTHS = tuple(2**power for power in range(6, 15))  # 64 to 16384 tokens: the longest takes about a second
FRAMES = 6  # pictures while a stream is read
COLUMNS = 128  # most columns of a timeline: from the back row, one of them is still a stripe
OPEN = 0.01  # a slot of which less is overwritten counts as left alone
FIRST_TEXT = "Return the shortest path between two nodes of a directed graph. Return the length of a short"
NEXT_BYTES = 8
MAP_LABELS = 8  # most labels along a map: more would be too small to read on a wall
ANSWER_COLOURS = shades("#08306b", 1.0)


class RecallPicture:
    """A stream from left to right: what the gates let in, and what the model could answer at each place.

    Attributes:
        figure: the figure.
        right: which facts were answered right at the end of the stream, in the order in which they were stated.
        opened: how far the gates stood open in each segment, ``(S, N · w)``.
        on_frame: called with a sentence each time that a part of the stream was read.
    """

    def __init__(self, task: RecallTask, readers: dict[str, tuple[RMAT, bool]]) -> None:
        self.task, self.readers = task, readers
        self.right: list[bool] = []
        self.opened = torch.zeros(0)
        self.on_frame: Callable[[str], None] = lambda sentence: None
        self.figure = Figure(figsize=(11, 6.4))
        self._canvas = MovingCanvas(self.figure)
        axes = self.figure.subplots(2, 2, width_ratios=[3.2, 1])
        (self._gates, self._score), (self._timeline, self._answers) = axes

    def draw(self, facts: str, length: int, start: float, seed: int, reader: str) -> str:
        """Read the stream with one of the ``readers`` and show what came of it."""
        try:
            stated = parse_facts(facts, self.task)
        except FactsError as error:
            return self._nothing(str(error))
        stream = make_stream(self.task, stated, length, start, seed)
        model, wipe = self.readers[reader]
        segments = length // model.config.segment_len
        show = self._begin(stream, model)
        readings: list[Reading] = []
        for reading in read_stream(model, self.task, stream, wipe, -(-segments // FRAMES)):
            readings.append(reading)
            opened = torch.cat([reading.opened for reading in readings])
            answers = torch.cat([reading.answers for reading in readings])
            show(opened, answers)
            if len(opened) < segments:
                self.on_frame(f"Reading: {len(opened) * model.config.segment_len:,} of {length:,} tokens.")
        self.opened = opened
        return f"{reader.capitalize()}: {self._judge(stream, answers[-1])}{self._says_gates(stream, model)}"

    def _begin(self, stream: Stream, model: RMAT) -> Callable[[Tensor, Tensor], None]:
        """Set the scene for a stream of which nothing is read; returns what shows the segments read so far."""
        for ax in (self._gates, self._timeline):
            ax.clear()
            ax.set_axis_on()
            ax.grid(False)
        bare(self._score, "")
        bare(self._answers, "")
        length, facts = len(stream.tokens), len(stream.facts)
        opened = _empty_timeline(self._gates, model.config.n_layers * model.config.write_slots, length, GATE_COLOURS)
        known = _empty_timeline(self._timeline, facts, length, ANSWER_COLOURS)
        edges = self._gates.add_collection(
            PolyCollection([], facecolors="none", edgecolors=[GATE_COLOURS(1.0)], linewidths=1.2), autolim=False
        )
        self._label_gates(stream, model)
        self._label_facts(stream)
        segments = length // model.config.segment_len
        for ax in (self._gates, self._timeline):
            self._canvas.moves(*ax.images, *ax.lines, *ax.collections, *ax.texts, *ax.spines.values())
        self._canvas.forget()

        def show(gates: Tensor, answers: Tensor) -> None:
            if model.config.has_memory:
                shown = _columns(gates, segments, torch.amax)
                opened.set_data(shown)
                edges.set_verts(_outlines(shown, length))
            right = torch.stack([answers[:, row, value] for row, (_, value) in enumerate(stream.facts)], dim=1)
            known.set_data(_columns(right, segments, torch.mean))

        return show

    def _label_gates(self, stream: Stream, model: RMAT) -> None:
        ax = self._gates
        ax.set_title("How far the write gates open", loc="left")
        if not model.config.has_memory:
            ax.set(xticks=[], yticks=[])
            ax.text(0.5, 0.5, "no memory, no gates", ha="center", va="center", transform=ax.transAxes)
            return
        w, layers = model.config.write_slots, range(model.config.n_layers)
        ax.set(xticks=[], yticks=[(layer + 0.5) * w for layer in layers])
        ax.set_yticklabels([f"layer {layer}\n{w} slots" for layer in layers])
        ax.hlines([layer * w for layer in layers[1:]], 0, len(stream.tokens), color="0.5", linewidth=1)
        ax.vlines(stream.places, 0, len(layers) * w, color=HIGHLIGHT, linewidth=1, linestyle=":")

    def _label_facts(self, stream: Stream) -> None:
        ax, length = self._timeline, len(stream.tokens)
        rows = [row + 0.5 for row in range(len(stream.facts))]
        ax.set_title("If it were asked here: chance of the right answer", loc="left")
        ax.set(yticks=rows, xticks=[0, length // 2, length], xlabel="tokens read")
        ax.set_yticklabels([f"{key_name(key)}={value}" for key, value in stream.facts])
        ax.set_xticklabels(["0", f"{length // 2:,}", f"{length:,}"])
        ax.get_xticklabels()[-1].set_horizontalalignment("right")
        # Above the middle of its row, so that it does not hide what happened there; the light edge is for dark cells.
        heights = [row - 0.3 for row in rows]
        ax.plot(stream.places, heights, "v", markersize=12, color=HIGHLIGHT, markeredgecolor="white", clip_on=False)

    def _judge(self, stream: Stream, chances: Tensor) -> str:
        """Show the answers ``(F, values)`` at the end of the stream; returns the sentence that sums them up."""
        self._canvas.forget()
        facts = len(stream.facts)
        said = chances.argmax(dim=-1).tolist()
        self.right = [answer == value for answer, (_, value) in zip(said, stream.facts, strict=True)]
        ax = self._answers
        ax.set_axis_on()
        ax.grid(False)
        ax.imshow(chances.numpy(), vmin=0, vmax=1, cmap=ANSWER_COLOURS, aspect="auto", interpolation="nearest",
                  extent=(-0.5, self.task.values - 0.5, facts, 0))
        ax.set_title("Its answers", loc="left")
        ax.set(xticks=range(self.task.values), yticks=[], xlabel="value")
        for row, (answer, (_, value), is_right) in enumerate(zip(said, stream.facts, self.right, strict=True)):
            colour, sign = (PATH_COLOURS["memory"], "✓") if is_right else (HIGHLIGHT, "✗")
            ax.add_patch(Rectangle((value - 0.5, row), 1, 1, fill=False, edgecolor=colour, linewidth=3, clip_on=False))
            ax.text(self.task.values - 0.3, row + 0.5, f"{sign} {answer}", va="center", color=colour)
        result, chance = f"{sum(self.right)} of {facts}", f"{self.task.chance * facts:g} of {facts}"
        place = {"ha": "center", "va": "center", "transform": self._score.transAxes}
        self._score.text(0.5, 0.6, result, fontsize=38, fontweight="bold", **place)
        self._score.text(0.5, 0.25, f"answers right\nchance: {chance}", **place)
        unit = "token" if stream.noise_after == 1 else "tokens"
        return f"{result} answers right after {stream.noise_after:,} {unit} of noise; chance is {chance}."

    def _says_gates(self, stream: Stream, model: RMAT) -> str:
        if not model.config.has_memory:
            return ""
        open_after = set((self.opened > OPEN).any(dim=1).nonzero().flatten().tolist())
        with_fact = {place // model.config.segment_len for place in stream.places}
        return (
            f" A gate opened after {len(open_after)} of {len(self.opened)} segments, "
            f"{len(open_after & with_fact)} of them with a fact."
        )

    def _nothing(self, why: str) -> str:
        for ax in (self._gates, self._timeline, self._answers, self._score):
            bare(ax, "")
        self._gates.text(0, 0.5, why, transform=self._gates.transAxes)
        self._canvas.forget()
        self.right, self.opened = [], torch.zeros(0)
        return why


def _empty_timeline(ax: Axes, rows: int, length: int, colours: Colormap) -> AxesImage:
    """An image of ``rows`` lines over ``length`` tokens, of which nothing is read."""
    return ax.imshow(np.full((rows, 1), np.nan), vmin=0, vmax=1, cmap=colours, aspect="auto",
                     extent=(0, length, rows, 0), interpolation="nearest")


def _columns(values: Tensor, segments: int, reduce: Callable[..., Tensor]) -> np.ndarray:
    """``(S, rows)`` as an image of at most ``COLUMNS`` columns; of ``segments``, those not read yet are NaN."""
    whole = torch.full((segments, values.shape[1]), torch.nan)
    whole[:len(values)] = values
    return reduce(whole.unflatten(0, (-1, max(1, segments // COLUMNS))), dim=1).T.numpy()


def _outlines(opened: np.ndarray, length: int) -> list[np.ndarray]:
    """The corners of each cell of a timeline in which a gate opened; without an edge a crack is too pale to be seen."""
    width = length / opened.shape[1]
    cell = np.array([(0, 0), (width, 0), (width, 1), (0, 1)])
    return [cell + np.array([column * width, row]) for row, column in np.argwhere(opened > OPEN)]


class RecallPlayground(Explorer):
    """Facts, a stream of noise to put them in, and a model to read it, when Go is pressed.

    Args:
        task: the task that both models were trained on.
        model: a model with memory.
        without: one that was trained without.

    Raises:
        ValueError: their segments do not fit the streams.
    """

    def __init__(self, task: RecallTask, model: RMAT, without: RMAT) -> None:
        for reader in (model, without):
            if LENGTHS[0] % reader.config.segment_len or 2 * task.keys > reader.config.segment_len:
                raise ValueError(
                    f"segment_len must divide {LENGTHS[0]} and be at least {2 * task.keys}, a fact and a question for "
                    f"each key, got {reader.config.segment_len}"
                )
        readers = {
            "with memory": (model, False),
            "without memory": (without, False),
            "with memory, wiped after each segment": (model, True),
        }
        picture = RecallPicture(task, readers)
        super().__init__(
            picture,
            title="Facts in a stream of noise",
            facts=ipywidgets.Text("B=1 D=5 E=0 H=7", description="facts", continuous_update=False),
            length=ipywidgets.SelectionSlider(
                options=[(f"{length:,} tokens", length) for length in LENGTHS], value=4096, description="length"
            ),
            start=ipywidgets.FloatSlider(0.1, min=0.0, max=1.0, step=0.05, description="facts start at"),
            seed=ipywidgets.IntSlider(0, min=0, max=99, description="noise seed"),
            reader=ipywidgets.Dropdown(options=list(readers), description="model"),
            go=ipywidgets.Button(description="Go", button_style="primary", icon="play"),
        )
        picture.on_frame = self.show


class TextPicture:
    """What a model that reads bytes makes of a text: the next byte, and how one layer and head came to it.

    Attributes:
        figure: the figure.
        chances: the probability of each byte to come next, ``(256,)``; empty when there is nothing to show.
        maps: the attention maps that are shown, by path.
    """

    def __init__(self, model: RMAT) -> None:
        self.model = model
        self.chances = torch.zeros(0)
        self.maps: dict[str, Tensor] = {}
        self.figure = Figure(figsize=(11, 7.6))
        self._canvas = MovingCanvas(self.figure)
        axes = self.figure.subplots(2, 3, height_ratios=[1.3, 1], gridspec_kw={"hspace": 0.09})
        self._map_axes = dict(zip(PATHS, axes[0], strict=True))
        self._next, self._mix, self._gates = axes[1]
        self._read: bytes | None = None
        self._segments: list[SegmentTrace] = []
        self._fill: list[Callable[[int, int], None]] = []

    def draw(self, text: str, layer: int, head: int) -> str:
        """Show the byte after ``text`` and the inside of a layer; layers and heads count from 0, as in code."""
        typed = text.encode(errors="replace")
        if not typed:
            return self._nothing("There is no text. Type at least one character.")
        data = typed[-TEXT_LIMIT:]
        if data != self._read:
            self._listen(data)
            self._canvas.forget()
            self._show_next()
            self._fill = [self._lay_out_maps(), self._lay_out_mix(), self._lay_out_gates()]
        for fill in self._fill:
            fill(layer, head)
        said_gates = says_gates(self._opened(layer), self.model.config.segment_len)
        return f"{says_cut(typed)}{self._says_next()} {self._says_mix(layer)} {said_gates}"

    def _listen(self, data: bytes) -> None:
        tokens = torch.tensor([list(data)], device=self.model.embed.weight.device)
        with torch.no_grad(), record(self.model) as trace:
            self.chances = self.model(tokens).logits[0, -1].softmax(dim=-1).cpu()
        self._read, self._segments = data, trace.segments

    def _show_next(self) -> None:
        ax = bare(self._next, "chance of the next byte")
        chances, likely = self.chances.topk(NEXT_BYTES)
        ax.barh(range(NEXT_BYTES), chances.tolist(), color="0.35")
        ax.set(xlim=(-0.15, 1.15), ylim=(NEXT_BYTES - 0.5, -0.5))
        for row, (chance, byte) in enumerate(zip(chances.tolist(), likely.tolist(), strict=True)):
            ax.text(-0.03, row, byte_label(byte), ha="right", va="center", family="monospace")
            ax.text(chance + 0.02, row, f"{chance:.0%}", va="center", fontsize="small")

    def _says_next(self) -> str:
        likely = self.chances.topk(2)
        first, second = (
            f"“{byte_label(byte)}” {chance:.0%}"
            for chance, byte in zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
        )
        return f"Next byte: {first}, then {second}."

    def _lay_out_maps(self) -> Callable[[int, int], None]:
        last = self._segments[-1].layers
        images = {}
        for path, ax in self._map_axes.items():
            queries, keys = getattr(last[0], path).shape[2:]
            every = -(-queries // MAP_LABELS)
            names = [" " if row % every else byte_label(byte) for row, byte in enumerate(self._read[-queries:])]
            ax.clear()
            ax.set_axis_on()
            columns = [" "] * keys if path == "memory" else names
            images[path] = attention_map(ax, torch.zeros(queries, keys), names, columns, f"{path} path")
            # The layout of the first text stays, so leave room for the widest labels.
            ax.set_xlabel(f"{keys} slots of the bank" if path == "memory" else "bytes looked at", labelpad=26)
            ax.set_ylabel("bytes that look" if path == "full" else " ", labelpad=28)
            self._canvas.moves(images[path], *ax.spines.values())

        def fill(layer: int, head: int) -> None:
            self.maps = {path: getattr(last[layer], path)[0, head].cpu() for path in images}
            for path, image in images.items():
                image.set_data(self.maps[path].numpy())

        return fill

    def _lay_out_mix(self) -> Callable[[int, int], None]:
        show = lay_out_mix(self._mix, self._canvas)
        return lambda layer, head: show(layer, self._segments[-1].layers[layer].mix)

    def _says_mix(self, layer: int) -> str:
        mix = self._segments[-1].layers[layer].mix
        return f"Layer {layer} weighs " + ", ".join(f"{path} {share:.2f}" for path, share in mix.items()) + "."

    def _lay_out_gates(self) -> Callable[[int, int], None]:
        show = lay_out_gates(self._gates, self._canvas, *self._opened(0).shape)
        return lambda layer, head: show(layer, self._opened(layer))

    def _opened(self, layer: int) -> Tensor:
        """How far each written slot's gate stood open, ``(writes, w)``."""
        writes = [segment.layers[layer].write for segment in self._segments]
        opened = [write.gate[0].mean(dim=-1).cpu() for write in writes if write is not None]
        return torch.stack(opened) if opened else torch.zeros(0, self.model.config.write_slots)

    def _nothing(self, why: str) -> str:
        for ax in self.figure.axes:
            bare(ax, "")
        self._map_axes["full"].text(0, 0.5, why, transform=self._map_axes["full"].transAxes)
        self._canvas.forget()
        self.chances, self.maps, self._read = torch.zeros(0), {}, None
        return why


class TextPlayground(Explorer):
    """A text of the reader's own, and what a model that reads bytes makes of it.

    Args:
        model: a model with all three paths and ``vocab_size = 256``.

    Raises:
        ValueError: the model is another one.
    """

    def __init__(self, model: RMAT) -> None:
        require_text_model(model)
        super().__init__(
            TextPicture(model),
            title="What the text model makes of a text",
            text=ipywidgets.Text(FIRST_TEXT, description="text", continuous_update=False),
            layer=ipywidgets.IntSlider(0, min=0, max=model.config.n_layers - 1, description="layer"),
            head=ipywidgets.IntSlider(0, min=0, max=model.config.n_heads - 1, description="head"),
        )
