"""Noise between facts and questions: one stream as a bar, what a reader answers behind it, and its whole curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log2
from typing import Any

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from ..asking import asked_after
from ..benchmark import AlteredBank, with_gate
from ..canvas import MovingCanvas
from ..language_model import LanguageModel
from ..long_range import GAP_ROWS, GAPS, READERS
from ..model import RMAT
from ..plots import FOURTH, HIGHLIGHT, PATH_COLOURS
from ..tasks import RecallTask
from ..widgets import Explorer
from .long_range import short_number
from .retention import mark_chance

LIVE_GAPS = GAPS[:6]  # what is read at once when it is asked for
LOOKS: tuple[dict[str, Any], ...] = (  # of up to five readers; the fourth shows what lies under it
    {"marker": "^", "color": PATH_COLOURS["memory"]}, {"marker": "o", "color": PATH_COLOURS["chunk"]},
    {"marker": "s", "color": "0.45"},
    {"marker": "D", "color": PATH_COLOURS["full"], "markersize": 14, "fillstyle": "none", "markeredgewidth": 2,
     "linestyle": ":"},
    {"marker": "v", "color": FOURTH},
)
FIELDS = ("gaps", "accuracy", "answers", "sequences", "example")  # of what is stored
LEFT, WIDTH = 0.2, 0.5  # where the shortest gap ends, and how much further the longest: shares of the figure
FACTS, STREAM = 0.035, 0.13  # where the facts are written, and where the background begins
TOP = 0.66  # of the facts, and of the questions beside them: a share of the upper axes


def usual_readers(model: RMAT, other: RMAT) -> dict[str, LanguageModel | AlteredBank]:
    """``model`` with its own gates, with sigmoid gates, with a zeroed bank, and the ``other`` model, by their names."""
    models = (model, with_gate(model, "sigmoid"), AlteredBank(model, "zeroed"), other)
    return dict(zip(READERS, models, strict=True))


class Gap:
    """The facts of a stream, the background behind them, and the questions; below, right answers by that distance.

    Up to 2 048 tokens are read when they are first asked for, in as many streams as were stored of what is beyond.

    Args:
        readers: up to five models of ``task``, by the names to show.
        task: its facts and questions are those of each stream.
        stored: the ``readers`` of ``long-range gaps``; one that is not there has no curve.

    Attributes: ``figure``; ``shown``, what was said at the gap that is shown, ``None`` where nothing is known.

    Raises:
        ValueError: ``stored`` is of other readers, or lacks a part.
    """

    def __init__(
        self, readers: Mapping[str, LanguageModel | AlteredBank], task: RecallTask, stored: Mapping[str, Any]
    ) -> None:
        for name, reading in stored.items():
            if name not in readers or any(field not in reading for field in FIELDS):
                raise ValueError(
                    f"stored must have {', '.join(FIELDS)} for some of the readers {', '.join(map(repr, readers))}, "
                    f"got {sorted(reading)} for {name!r}"
                )
        self.readers, self.task, self.stored = dict(readers), task, dict(stored)
        self.shown: dict[str, Any] | None = None
        self._live: dict[str, dict[str, Any]] = {}
        self.figure = Figure(figsize=(11, 5.2), layout="none")
        self._canvas = MovingCanvas(self.figure)
        self._lay_out_stream()
        self._lay_out_curves()

    def _lay_out_stream(self) -> None:
        ax = self.figure.add_axes((0, 0.56, 1, 0.44), xlim=(0, 1), ylim=(0, 1))
        ax.set_axis_off()
        look = {"va": "top", "family": "monospace", "linespacing": 1.4}
        self._facts = ax.text(FACTS, TOP, "", **look)
        self._right = ax.text(0, TOP, "", **look)
        self._wrong = ax.text(0, TOP, "", color=HIGHLIGHT, weight="bold", **look)
        self._stream = Rectangle((STREAM, 0.2), 0, 0.32, color="0.88")
        ax.add_patch(self._stream)
        ax.text(FACTS, 0.84, "facts", va="center", weight="bold")
        self._length = ax.text(STREAM + 0.115, 0.84, "", va="center", ha="right")
        ax.text(STREAM + 0.123, 0.84, "tokens of noise", va="center")
        # All readers are asked for the same facts, so these hardly ever change.
        self._canvas.moves(self._right, self._wrong, self._stream, self._length)

    def _lay_out_curves(self) -> None:
        margin = 0.02
        ax = self.figure.add_axes((LEFT - margin, 0.15, WIDTH + 2 * margin, 0.39))
        self._lines = {}
        for name, look in zip(self.readers, LOOKS, strict=False):
            reading = self.stored.get(name, {"gaps": (), "accuracy": ()})
            (self._lines[name],) = ax.plot(reading["gaps"], reading["accuracy"], **{"markersize": 8, **look},
                                           label=name)
        dot = {"marker": "o", "color": HIGHLIGHT, "linestyle": "none", "markeredgewidth": 3}
        (self._dot,) = ax.plot([], [], **dot, markersize=15, zorder=5)
        ax.plot([], [], **dot, label="stored")
        ax.plot([], [], **dot, markerfacecolor="white", label="read just now")
        self._here = ax.axvline(GAPS[0], color=HIGHLIGHT, linewidth=1.5, zorder=1)
        _axes_of_gaps(ax, margin)
        mark_chance(ax, self.task.chance)
        ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=15)
        self._canvas.moves(*self._lines.values(), self._dot, self._here)

    def draw(self, reader: str, gap: int) -> str:
        """Show what ``reader`` says after ``gap`` tokens of noise."""
        live = gap in LIVE_GAPS
        reading = self._read(reader) if live else self.stored.get(reader, {"gaps": ()})
        self._stream.set_width(_place(gap) - STREAM)
        self._length.set_text(f"{gap:,}")
        self._here.set_xdata([gap, gap])
        for name, line in self._lines.items():
            line.set_alpha(1.0 if name == reader else 0.6)
        if gap not in reading["gaps"]:
            return self._nothing(reader, gap)
        place = list(reading["gaps"]).index(gap)
        share, answers = reading["accuracy"][place], reading["answers"]
        self._dot.set_data([gap], [share])
        self._dot.set_markerfacecolor("white" if live else HIGHLIGHT)
        self._show_example(reading["example"], place, gap)
        how = "Read just now" if live else "Stored"
        return (
            f"{how}, {reader}: after {gap:,} tokens of noise {round(share * answers)} of {answers} answers are right, "
            f"{share:.1%}. The stream above is the first of {reading['sequences']}: {self._says_example()}."
        )

    def _read(self, reader: str) -> dict[str, Any]:
        """What ``reader`` says at all of ``LIVE_GAPS``: one reading serves them all, and is kept."""
        if reader not in self._live:
            model = self.readers[reader]
            self._live[reader] = asked_after(model, self.task, LIVE_GAPS, GAP_ROWS, progress=False).to_dict()
        return self._live[reader]

    def _show_example(self, example: Mapping[str, Any], place: int, gap: int) -> None:
        """The questions, each beside its fact, with what was said."""
        said = dict(zip(example["questions"], zip(example["answers"], example["said"][place], strict=True),
                        strict=True))
        self.shown = {"facts": example["facts"], "said": said}
        lines: dict[bool, list[str]] = {True: [], False: []}  # a line for each fact in both: the other has a blank
        for fact in example["facts"]:
            question = f"{fact.partition('=')[0]}?"
            wanted, answer = said[question]
            for right, mark in ((True, "✓"), (False, "✗")):
                lines[right].append(f"{question} {answer} {mark}" if right == (answer == wanted) else " ")
        self._set_facts(example["facts"])
        for text, right in ((self._right, True), (self._wrong, False)):
            text.set(x=_place(gap) + 0.012, text="\n".join(lines[right]).rstrip())  # blank lines take time too

    def _set_facts(self, facts: Sequence[str]) -> None:
        words = "\n".join(facts)
        if words != self._facts.get_text():
            self._facts.set_text(words)
            self._canvas.forget()

    def _says_example(self) -> str:
        said = self.shown["said"].values()
        right = sum(answer == wanted for wanted, answer in said)
        return f"{right} of its {len(said)} answers are right"

    def _nothing(self, reader: str, gap: int) -> str:
        self.shown = None
        self._dot.set_data([], [])
        self._set_facts(())
        for text in (self._right, self._wrong):
            text.set_text("")
        return (
            f"Nothing is stored of {reader} at {gap:,} tokens, and they take too long to be read now: "
            f"“evaluate --gaps {gap}” does it."
        )


def _place(gap: int) -> float:
    """Where a gap ends, as a share of the figure's width."""
    return LEFT + WIDTH * log2(gap / GAPS[0]) / log2(GAPS[-1] / GAPS[0])


def _axes_of_gaps(ax: Axes, margin: float) -> None:
    """A logarithmic axis on which each gap lies below the end of its stream; ``margin`` as a share of the figure."""
    beyond = (GAPS[-1] / GAPS[0]) ** (margin / WIDTH)
    ax.set_xscale("log")
    ax.set(xlim=(GAPS[0] / beyond, GAPS[-1] * beyond), ylim=(-0.04, 1.08), ylabel="right answers",
           xlabel="tokens of noise between facts and questions")
    ticks = GAPS[::3] + GAPS[-1:]
    ax.set_xticks(ticks, [short_number(tick) for tick in ticks])
    ax.set_yticks([0, 0.5, 1])
    ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    ax.minorticks_off()


class GapView(Explorer):
    """The slider from 64 to 1 048 576 tokens, and the choice of a reader.

    Args: as of ``Gap``.
    """

    def __init__(
        self, readers: Mapping[str, LanguageModel | AlteredBank], task: RecallTask, stored: Mapping[str, Any]
    ) -> None:
        super().__init__(
            Gap(readers, task, stored),
            title="Noise between facts and questions",
            gap=ipywidgets.SelectionSlider(options=[(f"{gap:,}", gap) for gap in GAPS], value=LIVE_GAPS[-1],
                                           description="tokens"),
            reader=ipywidgets.Dropdown(options=list(readers), description="reader"),
        )
