"""The picture that makes the fused kernel visible: which tiles of q kᵀ each path computes alone, and all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.transforms import IdentityTransform

from ..canvas import MovingCanvas
from ..config import PATHS
from ..plots import PATH_COLOURS

SLOTS = 16
LONGEST = 64
SIZES = (4, 8, 16)  # of a tile, queries and keys
_GAP = 4  # tokens between the bank's keys and the segment's
_WIDTH = SLOTS + _GAP + LONGEST
_FIRST_KEY = SLOTS + _GAP
_NOTHING, _WASTED, _MEMORY, _FULL, _CHUNK, _FRAME = range(6)
_SHADES = ("white", "0.8", PATH_COLOURS["memory"], PATH_COLOURS["full"], PATH_COLOURS["chunk"], "black")
_PIXELS = np.array([[round(255 * share) for share in to_rgba(shade)] for shade in _SHADES], dtype=np.uint8)


class Tiles(NamedTuple):
    """Which pairs something needs, and which are computed for it because tiles are whole, both ``(L, S)`` bool."""

    needed: np.ndarray
    computed: np.ndarray
    count: int

    @classmethod
    def of(cls, needed: np.ndarray, size: int) -> Tiles:
        """A tile is computed when one of its pairs is needed."""
        rows, columns = needed.shape
        padded = np.pad(needed, ((0, -rows % size), (0, -columns % size)))
        some = padded.reshape(len(padded) // size, size, -1, size).any(axis=(1, 3))
        return cls(needed, some.repeat(size, 0).repeat(size, 1)[:rows, :columns], int(some.sum()))


class TileMaps:
    """Tiles of q kᵀ for a segment of ``L`` tokens beside a bank of ``SLOTS``: by each path alone, and by the kernel.

    The fused kernel goes over the bank, over the keys of the chunk, and over those before it. A tile with keys of both
    kinds is computed for either.

    Attributes:
        figure: the figure.
        alone: the tiles that each path computes by itself, by its name.
        fused, twice: the tiles that the fused kernel computes, and how many of them come twice.
    """

    def __init__(self) -> None:
        self.alone: dict[str, int] = {}
        self.fused = self.twice = 0
        self.figure = Figure(figsize=(11, 6.4), layout="none")
        self._canvas = MovingCanvas(self.figure)
        # So large that a token is a whole number of pixels.
        self._small = [_Map(self.figure, (60, 440 - 176 * place), 2, f"tiles, {path} alone:")
                       for place, path in enumerate(PATHS)]
        self._large = _Map(self.figure, (380, 80), 8, "tiles, all at once:")
        self._canvas.moves(*(artist for shown in (*self._small, self._large) for artist in (shown.image, shown.number)))
        look = {"ha": "center", "va": "top", "fontsize": 14}
        self._large.axes.text(SLOTS / 2, LONGEST + 0.7, "bank", **look)
        self._large.axes.text(_FIRST_KEY + LONGEST / 2, LONGEST + 0.7, "keys of the segment", **look)
        self._large.axes.set_ylabel("queries", fontsize=14)
        self.figure.legend(handles=_legend(), loc="lower center", ncols=6, fontsize=13, handlelength=1.3,
                           columnspacing=1.2, borderaxespad=0.2)

    def draw(self, L: int, C: int, size: int) -> str:
        """Show tiles of ``size`` queries by as many keys, for ``L`` tokens in chunks of ``C``."""
        query, key = np.ogrid[:L, :L]
        start_of_chunk = query // C * C
        before = Tiles.of(key < start_of_chunk, size)
        tiles = {
            "full": Tiles.of(key <= query, size),
            "chunk": Tiles.of((key <= query) & (key >= start_of_chunk), size),
            "memory": Tiles.of(np.ones((L, SLOTS), dtype=bool), size),
        }
        twice = Tiles.of(tiles["chunk"].computed & before.computed, size)
        self.alone = {path: tiles[path].count for path in PATHS}
        self.fused, self.twice = tiles["memory"].count + tiles["chunk"].count + before.count, twice.count
        for shown, path in zip(self._small, PATHS, strict=True):
            shown.set({path: tiles[path]}, size, self.alone[path])
        self._large.set(tiles, size, self.fused, twice)
        return self._says(L, C, size)

    def _says(self, L: int, C: int, size: int) -> str:
        counts, together = " + ".join(map(str, self.alone.values())), sum(self.alone.values())
        come = "comes" if self.twice == 1 else "come"
        twice = (
            f"{_tiles(self.twice)}, framed, {come} twice: for the pairs inside a chunk, and for those before it."
            if self.twice else "No tile comes twice."
        )
        return (
            f"{L} tokens in chunks of {C}, a bank of {SLOTS}, tiles of {size} by {size}. Path by path: {counts} = "
            f"{_tiles(together)}. All at once: {self.fused}. {twice}"
        )


class _Map:
    """The queries by the keys of bank and segment, in tiles.

    Args:
        corner: where it stands in the figure, in pixels from the lower left.
        scale: pixels of a token.
    """

    def __init__(self, figure: Figure, corner: tuple[int, int], scale: int, title: str) -> None:
        width, height = figure.get_size_inches() * figure.get_dpi()
        place = (corner[0] / width, corner[1] / height, _WIDTH * scale / width, LONGEST * scale / height)
        self.scale = scale
        self.axes = figure.add_axes(place, xlim=(0, _WIDTH), ylim=(LONGEST, 0), xticks=[], yticks=[])
        self.axes.spines[:].set_visible(False)
        self.axes.grid(False)
        # Letters take most of the time of a drawing, so only the number moves.
        above = {"transform": self.axes.transAxes, "va": "bottom", "fontsize": 20 if scale > 2 else 15}
        end = self.axes.text(0, 1.02, title, **above).get_window_extent().x1
        self.number = self.axes.text(self.axes.transAxes.inverted().transform((end + 8, 0))[0], 1.02, "", **above)
        self.image = _Dots(self.axes)
        self.image.set_data(np.zeros((LONGEST * scale, _WIDTH * scale), dtype=np.uint8))
        self.axes.add_image(self.image)

    def set(self, tiles: Mapping[str, Tiles], size: int, count: int, twice: Tiles | None = None) -> None:
        """Show the tiles of some paths, and their count; where a pair feeds two, in stripes."""
        self.number.set_text(str(count))
        dots = np.full((LONGEST, _WIDTH), _NOTHING, dtype=np.uint8)
        for path, shade in zip(PATHS, (_FULL, _CHUNK, _MEMORY), strict=True):
            if path in tiles:
                _paint(dots, tiles[path], 0 if path == "memory" else _FIRST_KEY, shade)
        fine = dots.repeat(self.scale, 0).repeat(self.scale, 1)
        for block in (fine[:, : SLOTS * self.scale], fine[:, _FIRST_KEY * self.scale :]):
            block[:: size * self.scale] = block[:, :: size * self.scale] = _NOTHING
        if twice is not None:
            _frame(fine[:, _FIRST_KEY * self.scale :], twice, size, self.scale)
        self.image.set_data(fine)


class _Dots(AxesImage):
    """Shades by their numbers, drawn as they are: matplotlib would resample and colour every pixel anew."""

    def make_image(self, renderer, magnification=1.0, unsampled=False):
        left, bottom, right, top = (round(edge * magnification) for edge in self.axes.bbox.extents)
        shades = np.asarray(self.get_array())
        rows = np.arange(top - bottom) * len(shades) // (top - bottom)
        columns = np.arange(right - left) * shades.shape[1] // (right - left)
        return _PIXELS[shades[rows[::-1]][:, columns]], left, bottom, IdentityTransform()


def _paint(dots: np.ndarray, tiles: Tiles, first: int, shade: int) -> None:
    """Shade the pairs of a path, and in grey what is computed beside them."""
    rows, columns = tiles.needed.shape
    part = dots[:rows, first : first + columns]
    part[tiles.computed & (part == _NOTHING)] = _WASTED
    stripe = sum(np.ogrid[:rows, :columns]) // 2 % 2 == 0
    part[tiles.needed & ((part <= _WASTED) | stripe)] = shade


def _frame(fine: np.ndarray, tiles: Tiles, size: int, scale: int) -> None:
    """A frame around each of the tiles."""
    wide = size * scale
    for row, column in np.argwhere(tiles.needed[::size, ::size]) * wide:
        block = fine[row : row + wide, column : column + wide]
        for edge in (block[:3], block[-3:], block[:, :3], block[:, -3:]):
            edge[:] = _FRAME


def _tiles(count: int) -> str:
    return "1 tile" if count == 1 else f"{count} tiles"


def _legend() -> list[Patch]:
    blue, orange = PATH_COLOURS["full"], PATH_COLOURS["chunk"]
    return [
        Patch(facecolor=PATH_COLOURS["memory"], label="feeds memory"),
        Patch(facecolor=blue, label="feeds full"),
        Patch(facecolor=orange, label="feeds chunk"),
        Patch(facecolor=orange, edgecolor=blue, hatch="////", linewidth=0, label="feeds both"),
        Patch(facecolor=_SHADES[_WASTED], label="for nothing"),
        Patch(facecolor="white", edgecolor="black", linewidth=2, label="twice"),
    ]
