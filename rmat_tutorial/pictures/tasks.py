"""One stream of a task as one reads it: its facts, the background between them, the questions and their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch
from torch import Tensor

from ..tasks import IGNORED, PlacedTask

LONGEST_GAP = 12  # tokens of background in a row that are written out
_WIDTH, _MARGIN, _BETWEEN = 11.0, 0.15, 0.14  # inches, as all lengths below
_SIZE = 18  # points
_LETTER = 0.602 * _SIZE / 72  # every letter of a monospaced font is so wide
_BOX, _LINE, _ANSWER = 0.4, 0.54, 0.5
_BACKGROUND, _PLAIN = "0.93", "white"
_COLOURS = [colour for place, colour in enumerate(sns.color_palette("colorblind").as_hex()) if place != 7]  # no grey


class Box(NamedTuple):
    """Tokens that are shown in one frame.

    Attributes:
        text: their labels.
        colour: of a question and of the fact that its answer rests on; ``None`` for everything else.
        background: whether it is no fact and no question.
        answer: of a question.
    """

    text: str
    colour: str | None = None
    background: bool = False
    answer: str = ""

    @property
    def width(self) -> float:
        return max(len(self.text), len(self.answer)) * _LETTER + _BETWEEN


def example(task: PlacedTask, tokens: int, seed: int = 0) -> Figure:
    """A stream of ``tokens`` tokens; a question has the colour of the fact that it rests on, and its answer below.

    More than ``LONGEST_GAP`` tokens of background in a row are told by their number.

    Raises:
        ValueError: when the stream is too short for the task.
    """
    body, questions = (_wrapped(boxes) for boxes in boxes_of(task, tokens, seed))
    height = len(body) * _LINE + len(questions) * (_LINE + _ANSWER) + 1.25
    figure = Figure(figsize=(_WIDTH, height), layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, _WIDTH), ylim=(height, 0))
    ax.set_axis_off()
    ax.text(_MARGIN, 0.3, f"{task.kind}: {tokens:,} tokens", size=_SIZE, weight="bold", va="center")
    top = 0.6
    for line in body:
        _write(ax, line, top)
        top += _LINE
    top += 0.15
    for line in questions:
        _write(ax, line, top)
        top += _LINE + _ANSWER
    _explain(figure, any(box.colour is None and not box.background for line in body for box in line))
    return figure


def boxes_of(task: PlacedTask, tokens: int, seed: int) -> tuple[list[Box], list[Box]]:
    """The stream up to the questions, and the questions."""
    episode = task.episode(1, tokens, torch.Generator().manual_seed(seed))
    stream, _ = task.batch(1, tokens, torch.Generator().manual_seed(seed))
    ends = (episode.targets[0] != IGNORED).nonzero().flatten().tolist()
    sources = dict.fromkeys(episode.sources[0, ends].tolist())
    colours = {place: _COLOURS[number % len(_COLOURS)] for number, place in enumerate(sources)}
    body, asked = stream[0].split([tokens - task.question_tokens, task.question_tokens])
    questions = [
        Box(_text(task, asked[begin + 1 : end + 1]), colours[int(episode.sources[0, end])],
            answer=task.decode(episode.targets[0, end]))
        for begin, end in pairwise([-1, *ends])
    ]
    return list(_body(task, body, episode.places[0].sort().values.tolist(), colours)), questions


def _body(task: PlacedTask, tokens: Tensor, places: Sequence[int], colours: dict[int, str]) -> Iterator[Box]:
    """A box for each fact, with the background before and behind it."""
    read = 0
    for begin in places[:: task.cell]:
        yield from _gap(task, tokens[read:begin])
        read = begin + task.cell
        colour = next((colours[place] for place in range(begin, read) if place in colours), None)
        yield Box(_text(task, tokens[begin:read]), colour)
    yield from _gap(task, tokens[read:])


def _gap(task: PlacedTask, tokens: Tensor) -> Iterator[Box]:
    """Background, cell by cell; of much of it the beginning and a number."""
    cut_off = len(tokens) % task.cell  # of a cell, at the start of the stream
    shown = tokens if len(tokens) <= LONGEST_GAP else tokens[: cut_off + max(task.cell, 2)]
    for cell in (shown[:cut_off], *shown[cut_off:].split(task.cell)):
        if len(cell):
            yield Box(_text(task, cell), background=True)
    if len(shown) < len(tokens):
        yield Box(f"… {len(tokens) - len(shown):,} tokens …", background=True)


def _text(task: PlacedTask, tokens: Tensor) -> str:
    return " ".join(task.decode(token) for token in tokens)


def _wrapped(boxes: Sequence[Box]) -> list[list[Box]]:
    """The boxes in lines, none of them wider than the figure unless it is a single box."""
    lines: list[list[Box]] = []
    room = 0.0
    for box in boxes:
        if box.width + _BETWEEN > room:
            lines.append([])
            room = _WIDTH - 2 * _MARGIN + _BETWEEN
        lines[-1].append(box)
        room -= box.width + _BETWEEN
    return lines


def _write(ax: Axes, boxes: Sequence[Box], top: float) -> None:
    """One line of boxes, each with its answer below."""
    left = _MARGIN
    for box in boxes:
        middle = left + box.width / 2
        face = _BACKGROUND if box.background else _PLAIN if box.colour is None else (box.colour, 0.3)
        edge = "none" if box.background else box.colour or "0.35"
        ax.add_patch(FancyBboxPatch(
            (left, top), box.width, _BOX, boxstyle="round,pad=0,rounding_size=0.06", facecolor=face, edgecolor=edge,
            linewidth=1.5 if box.colour is None else 3,
        ))
        ax.text(middle, top + _BOX / 2, box.text, family="monospace", size=_SIZE, ha="center", va="center_baseline",
                color="0.4" if box.background else "black")
        if box.answer:
            ax.text(middle, top + _BOX + 0.22, box.answer, family="monospace", size=_SIZE, weight="bold",
                    ha="center", va="center_baseline", color="black")
        left += box.width + _BETWEEN


def _explain(figure: Figure, has_others: bool) -> None:
    """What the frames mean."""
    handles = [
        Patch(facecolor=_BACKGROUND, label="background"),
        Patch(facecolor=(_COLOURS[0], 0.3), edgecolor=_COLOURS[0], linewidth=3,
              label="question and the last fact that it rests on"),
    ]
    if has_others:
        handles.append(Patch(facecolor=_PLAIN, edgecolor="0.35", linewidth=1.5, label="other fact"))
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 0), ncols=3, fontsize=15, handlelength=1.3)
