"""The picture of notebook 01: which byte of a text looks at which."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..canvas import MovingCanvas
from ..config import PATHS
from ..model import RMAT
from ..plots import attention_map, byte_label
from ..tracing import SegmentTrace, record
from ..validate import require_choice


class AttentionMap:
    """Which byte of a text looks at which, in one head of a model that reads bytes.

    A text longer than a segment is read whole; the map is that of its last segment, because no attention of the
    model sees further.

    Attributes: ``figure``; ``weights``, the map that is shown, ``(P, P)`` for the ``P`` bytes of the last segment or
    ``(P, m)`` for the memory path, ``None`` where there is nothing to show.
    """

    def __init__(self, model: RMAT) -> None:
        self.model = model
        self.weights: Tensor | None = None
        self.figure = Figure(figsize=(8, 7))
        self._canvas = MovingCanvas(self.figure)
        self._ax = self.figure.subplots()
        widest = attention_map(self._ax, torch.zeros(1, 1), ["00"], ["00"], "title")
        self.figure.colorbar(widest, ax=self._ax, label="weight", ticks=[0, 0.05, 0.2, 0.5, 1])
        # Laid out here, with the widest labels, so that the map stays in its place whatever is typed.
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        self._drawn: tuple[bytes, str] | None = None
        self._read: tuple[bytes, SegmentTrace] | None = None

    def draw(self, text: str, layer: int, head: int, path: str) -> str:
        """Show one head's map of one of the ``paths``; layers and heads count from 0, as in code."""
        require_choice("path", path, PATHS)
        data = text.encode(errors="replace")
        if not data:
            return self._nothing("Type at least one character: there is nothing to attend to.")
        if path not in self.model.config.paths:
            return self._nothing(f"This model has no {path} path.")
        self.weights = getattr(self._last_segment(data).layers[layer], path)[0, head]
        seen = data[-len(self.weights):]
        self._show(seen, path, f"layer {layer}, head {head}, {path} path")
        return f"{_strongest(self.weights[-1], seen, path)} {self._extent(len(data), len(seen), path)}"

    def _last_segment(self, data: bytes) -> SegmentTrace:
        if self._read is None or self._read[0] != data:
            with torch.no_grad(), record(self.model) as trace:
                self.model(torch.tensor([list(data)], device=self.model.embed.weight.device))
            self._read = data, trace.segments[-1]
        return self._read[1]

    def _show(self, seen: bytes, path: str, title: str) -> None:
        if self._drawn == (seen, path):
            self._ax.images[0].set_data(self.weights.numpy(force=True))
            self._ax.set_title(title)
            return
        rows = [byte_label(byte) for byte in seen]
        columns = [str(slot) for slot in range(self.weights.shape[1])] if path == "memory" else rows
        self._wipe()
        image = attention_map(self._ax, self.weights, rows, columns, title)
        self._canvas.moves(image, self._ax.title, *self._ax.spines.values())
        self._ax.set_xlabel("slot of the bank, the oldest is 0" if path == "memory" else "key: the byte looked at")
        self._ax.set_ylabel("query: the byte that looks")
        self._drawn = seen, path

    def _nothing(self, why: str) -> str:
        self._wipe()
        self._ax.set(title="", xlabel="", ylabel="")
        self._ax.text(0.5, 0.5, why.replace(": ", ":\n"), ha="center", va="center", transform=self._ax.transAxes)
        self.weights = self._drawn = None
        return why

    def _wipe(self) -> None:
        # Half the time of ax.clear(), which makes new axes only to have their ticks taken off again.
        for artist in (*self._ax.images, *self._ax.collections, *self._ax.texts):
            artist.remove()
        self._canvas.forget()

    def _extent(self, length: int, seen: int, path: str) -> str:
        segment = self.model.config.segment_len
        before = length - seen
        if path == "memory":
            if not before:
                return "Nothing was written yet: the bank holds the slots that the model starts from."
            return f"Writes to the bank so far: {before // segment}, one after each {segment} bytes."
        if not before:
            return f"{_bytes(length)}, of the {segment} that a segment holds."
        return f"The text has {_bytes(length)}, a segment {segment}: attention sees only the last {_bytes(seen)}."


def _strongest(row: Tensor, seen: bytes, path: str) -> str:
    """What the last byte looks at most, as a sentence."""
    column = int(row.argmax())
    back = len(seen) - 1 - column
    if path == "memory":
        target = f"slot {column}"
    elif back == 0:
        target = "itself"
    else:
        target = f"“{byte_label(seen[column])}”, {_bytes(back)} back"
    return f"The last byte, “{byte_label(seen[-1])}”, looks most at {target}: weight {row[column]:.2f}."


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"
