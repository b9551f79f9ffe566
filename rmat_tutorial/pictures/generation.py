"""The pictures of notebook 06 on generation: what the next byte is drawn from, and a model that goes on writing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from textwrap import TextWrapper

import ipywidgets
import torch
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from torch import Tensor

from ..attention import memory_weights
from ..canvas import MovingCanvas
from ..config import PATHS
from ..language_model import LanguageModel
from ..memory import MemoryWrite
from ..model import RMAT
from ..plots import FOURTH, PATH_COLOURS, byte_label
from ..sampling import chances
from ..widgets import Explorer
from .panels import TEXT_LIMIT, bare, lay_out_gates, lay_out_mix, require_text_model, says_cut, says_gates

FIRST_PROMPT = "Return the shortest path between two nodes of a directed graph."
NO_PROMPT = "There is no prompt. Type at least one character."
LIKELIEST = 16  # bytes with a bar of their own
PIECES = 8  # pictures while a text is written
COLUMNS, ROWS = 90, 12  # of the text in monospace
MOST_SHARE = 0.4  # of a slot, that the axis has room for at first
NO_GLYPH = "□"

# The draw ----------------------------------------------------------------------------------------------------------


class NextByte:
    """What the next byte is drawn from: the likeliest bytes, and all others in one bar.

    Attributes:
        figure: the figure.
        chances: what each byte is drawn with, ``(256,)``; empty when there is nothing to show.
        as_predicted: the same at temperature 1 without top-k.

    Args:
        model: a model that reads bytes.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.chances = self.as_predicted = torch.zeros(0)
        self._read: bytes | None = None
        self._logits = torch.zeros(0)
        self._show: Callable[[], None] = lambda: None
        self.figure = Figure(figsize=(11, 4.6))
        self._canvas = MovingCanvas(self.figure)
        self._ax = self.figure.subplots()

    def draw(self, prompt: str, temperature: float, top_k: int) -> str:
        """Show the draw after ``prompt``, of which the model is asked once, for these two settings."""
        typed = prompt.encode(errors="replace")
        if not typed:
            return self._nothing(NO_PROMPT)
        data = typed[-TEXT_LIMIT:]
        if data != self._read:
            self._ask(data)
            self._show = self._lay_out()
            self._canvas.forget()
        self.chances = chances(self._logits, temperature, top_k)
        self._show()
        return f"{says_cut(typed)}{self._says()}"

    def _ask(self, data: bytes) -> None:
        tokens = torch.tensor([list(data)], device=self.model.embed.weight.device)
        with torch.no_grad():
            self._logits = self.model(tokens).logits[0, -1].cpu()
        self._read, self.as_predicted = data, chances(self._logits, 1.0)

    def _lay_out(self) -> Callable[[], None]:
        ax = self._ax
        ax.clear()
        ax.set_axis_on()
        ax.grid(False)
        likeliest = self.as_predicted.topk(LIKELIEST).indices
        predicted = _with_the_rest(self.as_predicted, likeliest)
        places = [*range(LIKELIEST), LIKELIEST + 0.6]
        ax.set(xlim=(-0.7, LIKELIEST + 1.3), ylim=(0, 1.12), ylabel="chance")
        ax.set_title("Chance of the next byte: bars in the draw, ◇ at temperature 1 without top-k", loc="left")
        others = f"other\n{len(self.as_predicted) - LIKELIEST}"
        ax.set_xticks(places, [*map(byte_label, likeliest.tolist()), others], family="monospace")
        ax.bar(places, predicted, facecolor="none", edgecolor="0.5", linewidth=1)
        bars = ax.bar(places, [0] * len(predicted), color=[FOURTH] * LIKELIEST + ["0.55"], linewidth=0)
        (diamonds,) = ax.plot(
            places, predicted, "D", color="black", markersize=8, fillstyle="none", markeredgewidth=2, clip_on=False
        )
        numbers = [ax.text(place, 0, "", ha="center", size=14) for place in places]
        self._canvas.moves(*bars, diamonds, *numbers)

        def show() -> None:
            drawn = _with_the_rest(self.chances, likeliest)
            for bar, number, chance, before in zip(bars, numbers, drawn, predicted, strict=True):
                bar.set_height(chance)
                number.set(text=f"{chance:.0%}" if chance >= 0.005 else "", y=max(chance, before) + 0.04)

        return show

    def _says(self) -> str:
        left, known = int((self.chances > 0).sum()), len(self.chances)
        first = self.chances.argmax().item()
        return (
            f"{left} of {known} bytes {'is' if left == 1 else 'are'} left in the draw. The first is "
            f"“{byte_label(first)}” with {self.chances[first]:.0%}. The entropy of the draw is "
            f"{_bits(self.chances):.2f} bits; at temperature 1 without top-k it is {_bits(self.as_predicted):.2f}."
        )

    def _nothing(self, why: str) -> str:
        bare(self._ax, "").text(0, 0.5, why, transform=self._ax.transAxes)
        self._canvas.forget()
        self.chances, self.as_predicted, self._read = torch.zeros(0), torch.zeros(0), None
        return why


def _with_the_rest(every: Tensor, likeliest: Tensor) -> list[float]:
    """The chances of the ``likeliest`` bytes, and after them that of all others together."""
    rest = every.clone()
    rest[likeliest] = 0
    return [*every[likeliest].tolist(), rest.sum().item()]


def _bits(distribution: Tensor) -> float:
    """The entropy of chances ``(V,)`` in bits."""
    return torch.special.entr(distribution).sum().item() / math.log(2)


# Writing -----------------------------------------------------------------------------------------------------------


class Writing:
    """A model that goes on with a text, piece by piece, with nothing but its state handed on.

    Attributes:
        figure: the figure.
        text: what was generated.
        gates: how far the write gates of the layer stood open, ``(writes, w)``.
        bank: the bank of the layer as it is now, ``(m, d)``, oldest slot first; empty when nothing is shown.
        shares: the share of the memory path's attention that each slot got, ``(m,)``: mean over the heads and over
            the bytes read since the picture before.
        state_bytes: size of the state before the first byte and after the last.
        on_frame: called with a sentence each time that a part of the text was written.

    Args:
        model: a model with all three paths and ``vocab_size = 256``.

    Raises:
        ValueError: the model is another one.
    """

    def __init__(self, model: RMAT) -> None:
        require_text_model(model)
        self.model = model
        self.on_frame: Callable[[str], None] = lambda sentence: None
        self.figure = Figure(figsize=(11, 6.5))
        self._canvas = MovingCanvas(self.figure)
        grid = self.figure.add_gridspec(2, 3, height_ratios=[1.35, 1], width_ratios=[1.1, 1.1, 1.6])
        self._written = self.figure.add_subplot(grid[0, :])
        self._mix, self._gates, self._slots = (self.figure.add_subplot(grid[1, column]) for column in range(3))
        self._forget()

    def draw(self, prompt: str, tokens: int, temperature: float, top_k: int, seed: int, layer: int) -> str:
        """Generate ``tokens`` bytes after ``prompt`` and show them beside the inside of a layer, from time to time."""
        typed = prompt.encode(errors="replace")
        if not typed:
            return self._nothing(NO_PROMPT)
        data = typed[-TEXT_LIMIT:]
        device = self.model.embed.weight.device
        unread, state = torch.tensor([list(data)], device=device), self.model.init_state(1)
        self._forget()
        self.state_bytes = (state.nbytes, state.nbytes)
        show = self._begin(data, tokens, layer)
        at_once = -(-tokens // PIECES)
        # A seed given to ``generate`` would start each piece with the same draws; torch's own generator goes on.
        with _listening(self.model, layer) as tap, torch.random.fork_rng():
            torch.manual_seed(seed)
            for start in range(0, tokens, at_once):
                count = min(at_once, tokens - start)
                piece, state = self.model.generate(
                    unread, count, state, temperature=temperature, top_k=top_k, progress=False
                )
                unread = piece[:, -1:]
                self.text += bytes(piece[0].tolist())
                self.gates, self.shares = tap.gates(), tap.shares_since()
                self.bank, self.state_bytes = state.memory[layer][0].cpu(), (self.state_bytes[0], state.nbytes)
                show()
                if len(self.text) < tokens:
                    self.on_frame(f"Generating: {len(self.text):,} of {tokens:,} bytes.")
        return f"{says_cut(typed)}{self._says(data, layer)}"

    def _begin(self, data: bytes, tokens: int, layer: int) -> Callable[[], None]:
        """Set the scene for a text of which nothing is written; returns what shows all that is known by now."""
        length = self.model.config.segment_len
        writes = (len(data) + tokens - 1) // length  # the last byte is not read
        show_text = self._lay_out_text(data)
        show_gates = lay_out_gates(self._gates, self._canvas, writes, self.model.config.write_slots)
        show_slots = self._lay_out_slots()
        mix = self.model.blocks[layer].mix.softmax(dim=0).tolist()
        lay_out_mix(self._mix, self._canvas)(layer, dict(zip(PATHS, mix, strict=True)))
        self._canvas.forget()

        def show() -> None:
            show_text()
            show_gates(layer, self.gates)
            show_slots()

        return show

    def _lay_out_text(self, data: bytes) -> Callable[[], None]:
        ax = bare(self._written, "")
        title = ax.set_title(" ", loc="left")
        look = {"family": "monospace", "size": 14, "va": "center", "parse_math": False, "in_layout": False}
        look["transform"] = ax.transAxes
        rows = [
            [ax.text(0, 1 - (row + 0.5) / ROWS, "", color=colour, **look) for colour in ("0.55", "black")]
            for row in range(ROWS)
        ]
        self._canvas.moves(title, *(part for row in rows for part in row))

        def show() -> None:
            lines = _wrapped(_readable(data), _readable(self.text))
            hidden = len(lines) - ROWS
            title.set_text(
                "Prompt (grey) and generated text" + (f": the last {ROWS} of {len(lines)} lines" if hidden > 0 else "")
            )
            lines = lines[max(0, hidden):]
            for row, (given, written) in zip(rows, lines + [("", "")] * (ROWS - len(lines)), strict=True):
                row[0].set_text(given)
                row[1].set_text(" " * len(given) + written)

        return show

    def _lay_out_slots(self) -> Callable[[], None]:
        m, w = self.model.config.memory_slots, self.model.config.write_slots
        ax = self._slots
        ax.clear()
        ax.set_axis_on()
        ax.grid(False)
        ax.set(xlim=(-0.6, m - 0.4), xticks=[], ylabel="share")
        ax.set_xlabel("slots, newest at the right", fontsize="small")
        ax.text(0.02, 0.97, "dotted: an even share\ngrey: learned, not written", va="top", size=13,
                transform=ax.transAxes)
        ax.set_title("attention to the slots", loc="left")
        ax.vlines([m - write * w - 0.5 for write in range(1, -(-m // w))], 0, 1, color="0.85", linewidth=1, zorder=0)
        ax.axhline(1 / m, color="0.4", linewidth=1.5, linestyle=":")
        bars = ax.bar(range(m), [0] * m)
        ax.set_ylim(0, MOST_SHARE)
        self._canvas.moves(*bars)

        def show() -> None:
            if self.shares.max() > ax.get_ylim()[1]:
                ax.set_ylim(0, 1)
                self._canvas.forget()
            learned = m - len(self.gates) * w
            for slot, (bar, share) in enumerate(zip(bars, self.shares.tolist(), strict=True)):
                bar.set(height=share, color="0.65" if slot < learned else PATH_COLOURS["memory"])

        return show

    def _says(self, data: bytes, layer: int) -> str:
        first, last = self.state_bytes
        unit = "byte" if len(self.text) == 1 else "bytes"
        unseen = "" if self.text.strip() else ", nothing but white space"
        return (
            f"{len(self.text):,} {unit} generated after {len(data):,}{unseen}. The state takes {first:,} bytes before "
            f"the first and {last:,} after the last. Shown is layer {layer}. "
            f"{says_gates(self.gates, self.model.config.segment_len)}"
        )

    def _forget(self) -> None:
        self.text, self.state_bytes = b"", (0, 0)
        self.gates = torch.zeros(0, self.model.config.write_slots)
        self.bank = self.shares = torch.zeros(0)

    def _nothing(self, why: str) -> str:
        for ax in self.figure.axes:
            bare(ax, "")
        self._written.text(0, 0.5, why, transform=self._written.transAxes)
        self._canvas.forget()
        self._forget()
        return why


class _LayerTap:
    """Hears one block, and keeps what is shown of it: a recording of every attention map would grow with the text."""

    def __init__(self, write_slots: int) -> None:
        self._opened = [torch.zeros(0, write_slots)]
        self._looked: list[Tensor] = []

    def attended(
        self, q: Tensor, k: Tensor, q_mem: Tensor, k_mem: Tensor, weights: Tensor, bank: Tensor
    ) -> None:
        self._looked.append(memory_weights(q_mem, k_mem)[0].mean(dim=0).cpu())

    def written(self, hidden: Tensor, write: MemoryWrite) -> None:
        self._opened.append(write.gate.mean(dim=-1).cpu())

    def gates(self) -> Tensor:
        """The gates of all writes so far, ``(writes, w)``."""
        return torch.cat(self._opened)

    def shares_since(self) -> Tensor:
        """The mean attention over the slots ``(m,)`` since this was asked the last time."""
        looked, self._looked = self._looked, []
        return torch.cat(looked).mean(dim=0)


@contextmanager
def _listening(model: RMAT, layer: int) -> Iterator[_LayerTap]:
    tap, taps = _LayerTap(model.config.write_slots), model.blocks[layer].taps
    taps.append(tap)
    try:
        yield tap
    finally:
        taps.remove(tap)


_WRAPPER = TextWrapper(
    COLUMNS, expand_tabs=False, replace_whitespace=False, drop_whitespace=False, break_on_hyphens=False
)


def _wrapped(given: str, written: str) -> list[tuple[str, str]]:
    """The lines of ``given + written``, each as what of it was given and what was written."""
    lines, left = [], len(given)
    for paragraph in (given + written).split("\n"):
        for line in _WRAPPER.wrap(paragraph) or [""]:
            lines.append((line[:left], line[left:]))
            left = max(0, left - len(line))
        left = max(0, left - 1)
    return lines


def _readable(data: bytes) -> str:
    """Bytes as text of which each character takes one column: "�" for what is no UTF-8, "□" for what has no glyph."""
    text = data.decode(errors="replace").replace("\t", "    ")
    return "".join(character if character == "\n" or _has_column(character) else NO_GLYPH for character in text)


@lru_cache(maxsize=4096)
def _has_column(character: str) -> bool:
    if not character.isprintable() or unicodedata.combining(character):
        return False
    return get_font(findfont("monospace")).get_char_index(ord(character)) > 0


class WritingPlayground(Explorer):
    """A prompt of the reader's own, and what a model writes after it when Generate is pressed.

    Args:
        model: a model with all three paths and ``vocab_size = 256``.

    Raises:
        ValueError: the model is another one.
    """

    def __init__(self, model: RMAT) -> None:
        picture = Writing(model)
        super().__init__(
            picture,
            title="The model goes on writing",
            prompt=ipywidgets.Textarea(FIRST_PROMPT, description="prompt", rows=2),
            tokens=ipywidgets.IntSlider(300, min=1, max=2000, description="bytes"),
            temperature=ipywidgets.FloatSlider(0.8, min=0.0, max=2.0, step=0.05, description="temperature"),
            top_k=ipywidgets.IntSlider(40, min=1, max=256, description="top-k"),
            seed=ipywidgets.IntSlider(0, min=0, max=99, description="seed"),
            layer=ipywidgets.IntSlider(0, min=0, max=model.config.n_layers - 1, description="layer"),
            go=ipywidgets.Button(description="Generate", button_style="primary", icon="play"),
        )
        picture.on_frame = self.show
