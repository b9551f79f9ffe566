"""A canvas for pictures that follow a slider: what stays is drawn once, what moves is drawn over it."""

from __future__ import annotations

from typing import Any

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg


class MovingCanvas(FigureCanvasAgg):
    """Keeps a picture of everything that is not animated, and draws only the animated artists again.

    Most of the time of a drawing goes into text. Call ``moves`` with the artists that change, and ``forget`` when
    anything else was changed.
    """

    _still: Any = None
    _size: tuple[int, int] | None = None

    def moves(self, *artists: Artist) -> None:
        """From now on these artists change from one drawing to the next."""
        for artist in artists:
            artist.set_animated(True)

    def forget(self) -> None:
        """Draw everything the next time."""
        self._still = None

    def draw(self) -> None:
        """Draw the figure; the pixels are in ``buffer_rgba``."""
        size = self.get_width_height(physical=True)  # of what is kept, which a figure with more dots per inch is not
        if self._still is None or size != self._size:
            self._size = size
            super().draw()
            self._still = self.copy_from_bbox(self.figure.bbox)
        self.restore_region(self._still)
        for ax in self.figure.axes:
            moving = [artist for artist in ax.get_children() if artist.get_animated()]
            for artist in sorted(moving, key=Artist.get_zorder):
                ax.draw_artist(artist)
