"""The Explorer: its picture follows its controls, and an error is never hidden behind an old picture."""

import html
import io
import statistics
import time

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from rmat_tutorial import plots
from rmat_tutorial.widgets import Explorer


class Bar:
    """One bar as high as ``height``; a negative height is an error."""

    def __init__(self):
        self.figure, ax = plt.subplots(figsize=(4, 3))
        (self.bar,) = ax.bar(["height"], [0], color="black")
        ax.set(ylim=(0, 10))
        self.draws = 0

    def draw(self, height, **others):
        self.draws += 1
        if height < 0:
            raise ValueError("height must be at least 0, got <-1>")
        self.bar.set_height(height)
        return f"The bar is {height} high."


def explorer(**others):
    return Explorer(Bar(), title="A bar", height=ipywidgets.IntSlider(3, -1, 10, description="height"), **others)


def ink(widget: Explorer) -> int:
    return int((np.asarray(Image.open(io.BytesIO(widget.png))) < 50).sum())


def shown(widget: Explorer) -> str:
    """The text of the widget on the page, in order; the picture counts only while it is displayed."""
    parts = []
    for child in widget.children:
        if isinstance(child, ipywidgets.HTML):
            parts.append(html.unescape(child.value))
        if isinstance(child, ipywidgets.Image) and child.layout.display != "none":
            parts.append("[picture]")
    return "\n".join(parts)


def test_the_default_picture_and_its_caption_are_there_at_once():
    widget = explorer()
    assert widget.caption == "The bar is 3 high."
    assert "A bar" in shown(widget) and "[picture]" in shown(widget) and widget.caption in shown(widget)
    assert isinstance(widget.png, bytes) and widget.png.startswith(b"\x89PNG") and widget.png == widget.image.value


def test_a_control_moves_the_picture_and_the_caption():
    widget = explorer()
    low = ink(widget)
    widget.controls["height"].value = 9
    assert ink(widget) > 2 * low
    assert widget.caption == "The bar is 9 high." and widget.caption in shown(widget)


def test_the_same_values_give_the_same_bytes():
    widget, other = explorer(), explorer()
    before = widget.png
    assert other.png == before
    widget.controls["height"].value = 9
    assert widget.png != before
    widget.controls["height"].value = 3
    assert widget.png == before


def test_the_picture_keeps_its_size_on_the_page():
    widget = explorer()
    assert (int(widget.image.width), int(widget.image.height)) == Image.open(io.BytesIO(widget.png)).size == (400, 300)


def test_the_figure_is_not_left_for_pyplot_to_show_again():
    widget = explorer()
    assert not plt.fignum_exists(widget.picture.figure.number)


def test_an_error_replaces_the_picture_and_reaches_the_cell_that_set_the_control():
    widget = explorer()
    with pytest.raises(ValueError, match="height must be at least 0"):
        widget.controls["height"].value = -1
    assert "This could not be drawn." in shown(widget)
    assert "ValueError: height must be at least 0, got <-1>" in shown(widget)
    assert "[picture]" not in shown(widget) and "3 high" not in shown(widget)
    assert widget.caption == ""
    assert "<-1>" not in widget._notice.value, "the message is text, not markup"


def test_after_an_error_the_next_good_value_shows_the_picture_again():
    widget = explorer()
    with pytest.raises(ValueError):
        widget.controls["height"].value = -1
    widget.controls["height"].value = 5
    assert "[picture]" in shown(widget) and "The bar is 5 high." in shown(widget)
    assert "could not be drawn" not in shown(widget)


def test_an_error_in_the_first_picture_is_raised():
    with pytest.raises(ValueError, match="height must be at least 0"):
        Explorer(Bar(), title="A bar", height=ipywidgets.IntSlider(-1, -1, 10))


def test_with_a_button_the_picture_waits_and_says_so():
    widget = explorer(go=ipywidgets.Button(description="Go"))
    before, draws = widget.png, widget.picture.draws
    widget.controls["height"].value = 9
    assert (widget.png, widget.picture.draws) == (before, draws)
    assert "Changed. Press “Go” to see it." in shown(widget)
    widget.controls["go"].click()
    assert widget.png != before and widget.caption == "The bar is 9 high."
    assert "Changed" not in shown(widget)


def test_live_controls_are_marked_and_those_of_a_button_are_not():
    live, waiting = explorer(), explorer(go=ipywidgets.Button(description="Go"))
    assert "rmat-live" in live.controls["height"]._dom_classes
    assert "rmat-waiting" in waiting.controls["height"]._dom_classes
    assert "rmat-live" not in waiting.controls["height"]._dom_classes
    assert "rmat-go" in waiting.controls["go"]._dom_classes
    assert all("rmat-explorer" in widget._dom_classes for widget in (live, waiting))


@pytest.mark.parametrize(
    "control",
    [
        ipywidgets.FloatSlider(description="temperature"),
        ipywidgets.Dropdown(options=["a", "b"], description="layer"),
        ipywidgets.ToggleButtons(options=["a", "b"], description="path"),
        ipywidgets.RadioButtons(options=["a", "b"], description="path"),
        ipywidgets.Checkbox(description="causal"),
        ipywidgets.Text(description="sentence"),
        ipywidgets.IntText(description="seed"),
        ipywidgets.SelectMultiple(options=["a", "b"], description="paths"),
    ],
    ids=lambda control: type(control).__name__,
)
def test_any_kind_of_control_can_be_used(control):
    widget = explorer(other=control)
    assert widget.controls["other"] is control and control in widget.children


@pytest.mark.parametrize("control", [3, ipywidgets.VBox()], ids=["int", "VBox"])
def test_a_control_without_a_value_is_named(control):
    with pytest.raises(TypeError, match="chunk_size must be a widget with a value"):
        explorer(chunk_size=control)


def test_a_title_is_required():
    with pytest.raises(ValueError, match="title must say something"):
        Explorer(Bar(), title=" ", height=ipywidgets.IntSlider(3))


def test_a_viewer_without_a_kernel_gets_the_picture_and_the_caption():
    widget = explorer()
    data, metadata = widget._repr_mimebundle_()
    assert data["image/png"] == widget.png and data["text/plain"] == widget.caption
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert metadata == {"image/png": {"alt": widget.caption, "width": 400}}


def test_it_is_made_of_no_output_widget():
    assert not any(isinstance(child, ipywidgets.Output) for child in explorer().children)


class Map:
    """The picture of a typical widget: 32 by 32 weights, with labels and a colour bar."""

    def __init__(self):
        plots.use_style()
        self.figure, ax = plt.subplots(figsize=(7, 6))
        letters = list("the quick brown fox jumps over a")
        self.image = plots.attention_map(ax, np.zeros((32, 32)), letters, letters, "weights")
        self.figure.colorbar(self.image, label="attention weight")

    def draw(self, head):
        self.image.set_data(np.random.default_rng(head).random((32, 32)))
        return f"Head {head}."


def test_a_redraw_takes_the_kernel_milliseconds(capsys):
    """Printed, in processor time: a busy machine does not make it longer. The limit is one that a drag can follow."""
    with plt.rc_context():
        widget = Explorer(Map(), title="Map", head=ipywidgets.IntSlider(0, 0, 30))
    times = []
    for head in range(1, 31):
        start = time.process_time()
        widget.controls["head"].value = head
        times.append(1000 * (time.process_time() - start))
    with capsys.disabled():
        print(f"\nkernel time of a redraw, 32 by 32 weights with labels: median {statistics.median(times):.1f} ms")
    assert statistics.median(times) < 100


def test_set_names_some_controls_and_puts_the_others_back():
    widget = explorer(width=ipywidgets.IntSlider(1, 0, 5, description="width"))
    first = widget.png
    widget.controls["width"].value = 4
    draws = widget.picture.draws
    assert widget.set(height=9) == widget.caption == "The bar is 9 high."
    assert (widget.controls["height"].value, widget.controls["width"].value) == (9, 1)
    assert widget.picture.draws == draws + 1, "drawn once, not for each control"
    assert widget.set() == "The bar is 3 high." and widget.png == first
    widget.controls["height"].value = 5
    assert widget.caption == "The bar is 5 high.", "the controls are connected again"


def test_set_does_not_wait_for_the_button():
    widget = explorer(go=ipywidgets.Button(description="Go"))
    assert widget.set(height=9) == "The bar is 9 high." and "Changed" not in shown(widget)
    widget.controls["height"].value = 4
    assert widget.caption == "The bar is 9 high." and "Changed. Press “Go”" in shown(widget)


def test_set_refuses_what_no_control_can_show():
    widget = explorer(go=ipywidgets.Button(description="Go"))
    for name in ("hight", "go"):
        with pytest.raises(ValueError, match=f"'{name}' is no control; known: 'height'"):
            widget.set(**{name: 3})
    with pytest.raises(ValueError, match="height cannot be 11: its control made 10 of it"):
        widget.set(height=11)
    with pytest.raises(ValueError, match="height must be at least 0"):
        widget.set(height=-1)
    assert widget.set() == "The bar is 3 high."
