"""What the pictures of a model that reads bytes share: its λ, its gates, and how much of a text they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from torch import Tensor

from ..canvas import MovingCanvas
from ..config import PATHS
from ..model import RMAT
from ..plots import PATH_COLOURS

TEXT_LIMIT = 4096  # bytes


def shades(darkest: str, power: float) -> Colormap:
    """White at 0 to ``darkest`` at 1, with the given power; grey where nothing is read yet."""
    colours = sns.blend_palette(["white", darkest], as_cmap=True)(np.linspace(0, 1, 256) ** power)
    return ListedColormap(colours).with_extremes(bad="0.88")


GATE_COLOURS = shades("#004d38", 0.5)  # the square root, so that a gate that is open by a crack is seen


def require_text_model(model: RMAT) -> None:
    """Raise ``ValueError`` unless ``model`` reads bytes and has all three paths."""
    if model.config.vocab_size != 256 or model.config.paths != PATHS:
        raise ValueError(
            f"model must read bytes (vocab_size 256) and have the paths {PATHS}, got vocab_size "
            f"{model.config.vocab_size} and paths {model.config.paths}"
        )


def says_cut(typed: bytes) -> str:
    """What a caption says first when more than ``TEXT_LIMIT`` bytes were typed; else nothing."""
    return f"Only the last {TEXT_LIMIT:,} of {len(typed):,} bytes were read. " if len(typed) > TEXT_LIMIT else ""


def bare(ax: Axes, title: str) -> Axes:
    """An empty axes without ticks: their labels take as long to draw as all the rest, and a slider waits for them."""
    ax.clear()
    ax.set_axis_off()
    ax.set_title(title, loc="left")
    return ax


def lay_out_mix(ax: Axes, canvas: MovingCanvas) -> Callable[[int, Mapping[str, float]], None]:
    """Three bars for λ; returns what shows the λ of a layer, ``show(layer, mix)``."""
    bare(ax, " ")
    ax.set(ylim=(-0.15, 1))
    bars = ax.bar(range(len(PATHS)), [0] * len(PATHS), color=[PATH_COLOURS[path] for path in PATHS])
    shares = [ax.text(place, 0, "", ha="center") for place in range(len(PATHS))]
    for place, path in enumerate(PATHS):
        ax.text(place, -0.12, path, ha="center", fontsize="small")
    title = ax.set_title(" ", loc="left")
    canvas.moves(*bars, *shares, title)

    def show(layer: int, mix: Mapping[str, float]) -> None:
        title.set_text(f"λ of layer {layer}")
        for bar, text, share in zip(bars, shares, mix.values(), strict=True):
            bar.set_height(share)
            text.set(text=f"{share:.2f}", y=share + 0.03)

    return show


def lay_out_gates(ax: Axes, canvas: MovingCanvas, writes: int, slots: int) -> Callable[[int, Tensor], None]:
    """An image for the gates of so many writes of ``slots`` slots, the first at the left.

    Returns what shows those of a layer, ``show(layer, opened)`` with ``opened`` ``(n, slots)``, ``n <= writes``: of
    the writes that are still to come nothing is known.
    """
    bare(ax, " ")
    title = ax.set_title(" ", loc="left")
    canvas.moves(title)
    if writes:
        image = ax.imshow(np.full((slots, writes), np.nan), vmin=0, vmax=1, cmap=GATE_COLOURS, aspect="auto",
                          interpolation="nearest")
        ax.set_ylim(slots * 1.26 - 0.5, -0.5)
        unit = "write" if writes == 1 else "writes"
        said = f"{writes} {unit} of {slots} slots\nroot scale, 1 is dark"
        ax.text(-0.5, slots - 0.4, said, va="top", fontsize="small")
        canvas.moves(image)
    else:
        ax.text(0.5, 0.5, "nothing written yet", ha="center", va="center", transform=ax.transAxes)

    def show(layer: int, opened: Tensor) -> None:
        title.set_text(f"write gates of layer {layer}")
        if writes:
            columns = torch.full((slots, writes), torch.nan)
            columns[:, :len(opened)] = opened.T
            image.set_data(columns.numpy())

    return show


def says_gates(opened: Tensor, segment_len: int) -> str:
    """The sentence on the gates ``(writes, w)`` of a layer."""
    if not len(opened):
        return f"Nothing was written to the bank: a segment has {segment_len} bytes."
    times = "once" if len(opened) == 1 else f"{len(opened)} times"
    return f"The bank was written {times}; its gates stood open {opened.mean():.2f} on average."
