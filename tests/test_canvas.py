"""The canvas that draws only what moves: its pixels are those of a canvas that draws everything."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rmat_tutorial.canvas import MovingCanvas


def picture(canvas_class: type[FigureCanvasAgg]):
    figure = Figure(figsize=(3, 2))
    canvas = canvas_class(figure)
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1), title="still")
    (bar,) = ax.bar([0.5], [0.2], width=0.2, zorder=10)
    return canvas, ax, bar


def pixels(canvas: FigureCanvasAgg) -> np.ndarray:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def test_what_moves_is_drawn_over_the_rest():
    plain, _, plain_bar = picture(FigureCanvasAgg)
    moving, _, bar = picture(MovingCanvas)
    moving.moves(bar)
    for height in (0.2, 0.9, 0.1):
        plain_bar.set_height(height)
        bar.set_height(height)
        assert np.array_equal(pixels(moving), pixels(plain))


def test_the_rest_is_drawn_again_when_forgotten():
    moving, ax, bar = picture(MovingCanvas)
    moving.moves(bar)
    before = pixels(moving)
    ax.set_title("changed")
    assert np.array_equal(pixels(moving), before)
    moving.forget()
    assert not np.array_equal(pixels(moving), before)


def test_moving_artists_are_drawn_in_their_order():
    moving, ax, bar = picture(MovingCanvas)
    (cover,) = ax.bar([0.5], [1.0], width=0.4, color="black", zorder=11)
    moving.moves(cover, bar)
    covered = pixels(moving)
    bar.set_height(0.9)
    assert np.array_equal(pixels(moving), covered)


def test_another_size_is_drawn_whole():
    plain, _, _ = picture(FigureCanvasAgg)
    moving, _, bar = picture(MovingCanvas)
    moving.moves(bar)
    pixels(moving)
    for dpi in (200, 50, 100):
        for canvas in (plain, moving):
            canvas.figure.set_dpi(dpi)
        assert np.array_equal(pixels(moving), pixels(plain))
