"""The course's figures: one style, colours that can be told apart, deterministic bytes, alt text."""

import io
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from rmat_tutorial import plots

# Viénot, Brettel and Mollon 1999, "Digital video colourmaps for checking the legibility of displays by dichromats",
# as matrices on linear RGB.
COLOUR_BLINDNESS = {
    "protanopia": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deuteranopia": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


pytestmark = pytest.mark.usefixtures("style")


@pytest.fixture
def published(monkeypatch):
    outputs = []
    monkeypatch.setattr(plots, "display", lambda data, metadata, raw: outputs.append((data, metadata)))
    return outputs


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def line_figure():
    fig, ax = plt.subplots(figsize=(6, 4))
    ax.plot([1, 2, 3], [1, 4, 9], color=plots.PATH_COLOURS["full"], marker=plots.PATH_MARKERS["full"])
    ax.set(xlabel="tokens T", ylabel="time (ms)")
    return fig


def test_equal_figures_give_equal_bytes_that_hold_pixels_only():
    first, second = plots.png(line_figure()), plots.png(line_figure())
    assert first == second
    assert Image.open(io.BytesIO(first)).info == {}
    assert pixels(first).shape == (4 * plots.DPI, 6 * plots.DPI, 3)


@pytest.mark.parametrize("size", [(6, 4), (0.01, 0.01), (3.33, 0.07)])
def test_the_file_is_sound_and_holds_what_was_drawn(size):
    fig = line_figure()
    fig.set_layout_engine("none")
    fig.set_size_inches(size)
    file = plots.png(fig)
    Image.open(io.BytesIO(file)).verify()  # every part and its checksum
    assert np.array_equal(pixels(file), np.asarray(fig.canvas.buffer_rgba())[..., :3])


def test_a_changed_figure_gives_other_bytes():
    fig = line_figure()
    before = plots.png(fig)
    fig.axes[0].lines[0].set_ydata([9, 4, 1])
    assert plots.png(fig) != before


@pytest.mark.parametrize("sight", COLOUR_BLINDNESS)
def test_the_paths_are_told_apart_without_full_colour_vision(sight):
    def seen(colour: str) -> np.ndarray:
        linear = np.array(COLOUR_BLINDNESS[sight]) @ np.array(to_rgb(colour)) ** 2.2
        return linear.clip(0, 1) ** (1 / 2.2)

    for one, other in itertools.combinations(plots.PATH_COLOURS.values(), 2):
        assert np.linalg.norm(seen(one) - seen(other)) > 0.2


def test_every_path_has_a_colour_and_a_marker_of_its_own():
    assert list(plots.PATH_COLOURS) == list(plots.PATH_MARKERS) == ["full", "chunk", "memory"]
    assert len(set(plots.PATH_COLOURS.values())) == len(set(plots.PATH_MARKERS.values())) == 3


def test_the_style_is_readable_from_the_back_of_a_room():
    assert min(plt.rcParams[name] for name in ("axes.labelsize", "axes.titlesize", "xtick.labelsize")) >= 14
    assert plt.rcParams["lines.linewidth"] >= 2.5


def test_show_publishes_one_picture_with_its_alt_text_and_closes_the_figure(published):
    fig = line_figure()
    dpi = fig.get_dpi()
    plots.show(fig, alt="Time grows with the square of T.")
    assert fig.get_dpi() == dpi
    ((data, metadata),) = published
    assert data["text/plain"] == "Time grows with the square of T."
    assert metadata == {"image/png": {"alt": "Time grows with the square of T.", "width": 6 * plots.DPI}}
    assert pixels(data["image/png"]).shape[1] == 6 * plots.DPI * plots.SHARPNESS
    assert not plt.fignum_exists(fig.number)


@pytest.mark.parametrize(("alt", "error"), [("", ValueError), ("  ", ValueError), (None, TypeError)])
def test_show_refuses_a_figure_without_alt_text(alt, error, published):
    with pytest.raises(error, match="alt must"):
        plots.show(line_figure(), alt=alt)
    assert published == []


def test_attention_map_shows_each_weight_in_its_cell():
    fig, ax = plt.subplots()
    weights = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0]])
    image = plots.attention_map(ax, weights, ["the", "cat", "sat"], ["a", "b", "c", "d"], "three tokens")
    dark = pixels(plots.png(fig)).mean(axis=-1)
    # Near both edges of each cell, one row and column after the other.
    for row, column, nudge in itertools.product(range(3), range(4), (-0.45, 0.45)):
        x, y = ax.transData.transform((column + nudge, row + nudge)).round().astype(int)
        assert (dark[dark.shape[0] - y, x] < 100) == bool(weights[row, column]), (row, column)
    assert ax.get_title() == "three tokens"
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("query", "key")
    np.testing.assert_array_equal(image.get_array(), weights.numpy())


def test_attention_map_writes_every_label_beside_its_cell():
    fig, ax = plt.subplots()
    plots.attention_map(ax, torch.zeros(2, 3), ["a", "b"], ["c", " ", "d"], "labels")
    page = pixels(plots.png(fig)).mean(axis=-1)
    box = ax.get_window_extent()
    left, bottom = page[:, : round(box.x0) - 4], page[page.shape[0] - round(box.y0) + 4 :]

    def ink(strip: np.ndarray) -> int:
        return int((strip < 128).sum())

    for row in range(2):
        y = page.shape[0] - round(ax.transData.transform((0, row))[1])
        assert ink(left[y - 12 : y + 12, -20:]) > 5
    columns = [round(ax.transData.transform((column, 0))[0]) for column in range(3)]
    inked = [ink(bottom[:24, x - 12 : x + 12]) > 5 for x in columns]
    assert inked == [True, False, True], "the label in the middle is a space"


@pytest.mark.parametrize("every", [2, 4])
def test_labels_with_blanks_between_them_are_larger(every):
    def height(names: list[str]) -> float:
        fig, ax = plt.subplots(figsize=(5, 5))
        plots.attention_map(ax, torch.zeros(40, 40), names, names, "labels")
        ax.set_xlabel(" ")
        page = pixels(plots.png(fig)).mean(axis=-1)
        box = ax.get_window_extent()
        inked = (page[page.shape[0] - round(box.y0) + 4 :][:24, round(box.x0) : round(box.x1)] < 160).any(axis=1)
        return float(inked.sum())

    thinned = ["H" if place % every == 0 else " " for place in range(40)]
    assert height(thinned) > 1.3 * height(["H"] * 40)
    # Where two stand side by side there is room for no more than before.
    assert height([*thinned[:-2], "H", "H"]) == height(["H"] * 40)


def test_long_labels_turn_and_stay_on_the_page():
    fig, ax = plt.subplots(figsize=(5, 5))
    names = [f"slot number {slot}" for slot in range(12)]
    plots.attention_map(ax, torch.zeros(12, 12), names, names, "slots")
    page = pixels(plots.png(fig)).mean(axis=-1)
    assert page[:, :2].min() > 200 and page[-2:].min() > 200, "a label is cut off at the edge"


@pytest.mark.parametrize("shape", [(3, 2), (2,), (0, 2)])
def test_attention_map_names_the_shape_it_wants(shape):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"weights must have shape .*\(2, 2\).*got"):
        plots.attention_map(ax, torch.zeros(shape), ["a", "b"], ["a", "b"], "wrong")
