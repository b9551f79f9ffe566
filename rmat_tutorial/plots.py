"""One look for every figure of the course, and the two ways it leaves the kernel: as bytes, as an output."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, IdentityTransform
from PIL import Image

from .validate import require_text

DPI = 100
"""Pixels per inch on the page: a figure seven inches wide takes 700 of its pixels."""

SHARPNESS = 2
"""A still figure has this many pixels for each pixel of the page, for screens that can show them."""

# Blue, orange and green of seaborn's "colorblind" palette; the markers tell them apart in grey.
PATH_COLOURS = {"full": "#0173b2", "chunk": "#de8f05", "memory": "#029e73"}
PATH_MARKERS = {"full": "o", "chunk": "s", "memory": "^"}

HIGHLIGHT = "#d55e00"
"""What the eye should find at once: where a fact lies, what leaks, what is wrong."""

FOURTH = "#cc78bc"
"""A line beside those of the three paths."""

MOST_LABELS = 32
"""More labels than this along a map would be too small to read, and take time in every redraw."""


def use_style() -> None:
    """Set the course's style for every figure made from now on."""
    sns.set_theme(
        context="talk",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.dpi": DPI,
            "figure.figsize": (8, 4.5),
            "figure.constrained_layout.use": True,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": "0.9",
            "lines.linewidth": 3,
            "lines.markersize": 9,
            "image.cmap": "mako_r",
            "legend.frameon": False,
        },
    )


def png(fig: Figure) -> bytes:
    """The figure as PNG, in the pixels that its size and dpi ask for.

    Equal figures give equal bytes: nothing but the pixels is stored. A widget waits for it, so compression is the
    fastest, and rows are stored as they are: Pillow tries five filters on each, which takes three times as long.
    """
    pixels = _pixels(fig)
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with the number of its filter, 0 for none
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, red green blue, nothing special
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, data) for name, data in parts)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG file: its length, name, content and checksum (PNG specification, 5.3)."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _pixels(fig: Figure) -> np.ndarray:
    """What is drawn, ``(height, width, 3)``, red, green and blue."""
    canvas = fig.canvas if isinstance(fig.canvas, FigureCanvasAgg) else FigureCanvasAgg(fig)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def show(fig: Figure, alt: str) -> None:
    """Publish the figure as one PNG with ``alt``, the sentence that says what it shows, and close it."""
    require_text("alt", alt)
    width = round(fig.get_figwidth() * DPI)
    before = fig.get_dpi()
    fig.set_dpi(DPI * SHARPNESS)
    # 256 colours are as good to the eye, and more than halve what every version of a notebook adds to the repository.
    stream = io.BytesIO()
    Image.fromarray(_pixels(fig)).quantize(256, dither=Image.Dither.NONE).save(stream, "png", compress_level=9)
    fig.set_dpi(before)  # a widget that shows it too goes on as it was
    display(
        {"image/png": stream.getvalue(), "text/plain": alt},
        metadata={"image/png": {"alt": alt, "width": width}},
        raw=True,
    )
    plt.close(fig)


def byte_label(byte: int) -> str:
    """A byte as one reads it: its ASCII character, "·" for a blank, else two hexadecimal digits."""
    if byte == ord(" "):
        return "·"
    return chr(byte) if 32 < byte < 127 else f"{byte:02x}"


def attention_map(
    ax: Axes,
    weights: torch.Tensor | np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
) -> AxesImage:
    """Draw ``weights`` (L_q, L_k), each in [0, 1], with a label for every query (row) and every key (column).

    The colour scale is fixed from 0 to 1, so two maps can be compared; it darkens with the square root, so small
    weights stay visible. Labels are as large as the blanks between them allow. The image is returned for ``set_data``
    and for a colour bar; to draw other labels, clear ``ax`` and call this again.
    """
    values = np.asarray(torch.as_tensor(weights).detach().cpu(), dtype=np.float32)  # Drawn a third faster than float64.
    if values.shape != (len(rows), len(columns)) or values.size == 0:
        raise ValueError(
            f"weights must have shape (len(rows), len(columns)) = ({len(rows)}, {len(columns)}), none of them 0, "
            f"got {values.shape}"
        )
    image = _Cells(ax, cmap=_weight_colours(), norm=Normalize(0, 1))
    image.set_data(values)
    ax.add_image(image)
    image.set_extent(image.get_extent())
    ax.grid(False)
    ax.set(xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(True)
    ax.set_xlabel("key", labelpad=_label(ax, columns, horizontal=True) + 8)
    ax.set_ylabel("query", labelpad=_label(ax, rows, horizontal=False) + 8)
    return image


class _Cells(AxesImage):
    """An image that fills its axes: its cells are coloured and repeated.

    ``AxesImage`` resamples the values and colours every pixel instead, at five times the cost of the whole redraw.
    """

    def make_image(self, renderer, magnification=1.0, unsampled=False):
        left, bottom, right, top = (round(edge * magnification) for edge in self.axes.bbox.extents)
        cells = self.to_rgba(self.get_array(), bytes=True)
        rows = np.arange(top - bottom) * len(cells) // (top - bottom)
        columns = np.arange(right - left) * cells.shape[1] // (right - left)
        return np.ascontiguousarray(cells[rows[::-1]][:, columns]), left, bottom, IdentityTransform()


def _weight_colours() -> ListedColormap:
    # A square root in the norm instead would cost ten times as much in each redraw of a colour bar.
    return ListedColormap(plt.get_cmap("mako_r")(np.sqrt(np.linspace(0, 1, 1024))))


def _label(ax: Axes, labels: Sequence[str], *, horizontal: bool) -> float:
    """Write one label for each cell along an axis; return the room they take beside it, in points.

    All labels are one collection of outlines: matplotlib's own tick labels take 0.4 ms each, in every redraw.
    """
    inches = ax.get_figure().get_size_inches() * ax.get_position(original=True).size
    apart = min(np.diff([place for place, text in enumerate(labels) if text.strip()]), default=1)
    room = apart * 72 * inches[0 if horizontal else 1] / len(labels)
    # A letter is taller than it is wide: below each other they need more room.
    size = float(np.clip((1.1 if horizontal else 0.9) * room, 5, 14))
    outlines, widths = zip(*(_outline(text) for text in labels), strict=True)
    widths = [size * width for width in widths]
    turned = horizontal and max(widths) > 1.1 * room
    placed = []
    for outline, width in zip(outlines, widths, strict=True):
        move = Affine2D().scale(size)
        if turned:
            move = move.rotate_deg(90).translate(size * 0.35, -width - 6)
        elif horizontal:
            move = move.translate(-width / 2, -size - 4)
        else:
            move = move.translate(-width - 6, -size * 0.35)
        placed.append(outline.transformed(move))
    along = np.arange(len(labels))
    across = np.zeros(len(labels))
    collection = PathCollection(
        placed,
        offsets=np.column_stack([along, across] if horizontal else [across, along]),
        offset_transform=ax.get_xaxis_transform() if horizontal else ax.get_yaxis_transform(),
        facecolors=plt.rcParams["text.color"],
        linewidths=0,
        clip_on=False,
        snap=False,  # Snapped to whole pixels, the stem of an "i" can lose all its width.
    )
    points = Affine2D().scale(1 / 72) + ax.get_figure().dpi_scale_trans
    collection.set_transform(points)
    ax.add_collection(collection, autolim=False)
    return size if horizontal and not turned else max(widths)


@lru_cache(maxsize=4096)
def _outline(text: str) -> tuple[Path, float]:
    """The outline of a label at one point, and its width; kept, because to make one takes longer than to draw it."""
    if not text.strip():
        return Path(np.empty((0, 2))), 0.0
    outline = TextPath((0, 0), text, size=1)
    return outline, outline.get_extents().xmax
