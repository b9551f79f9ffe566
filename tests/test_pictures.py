"""The pictures of notebook 01: what they show is what was computed, and each value of a control has an answer."""

import numpy as np
import pytest
import torch

from rmat_tutorial import RMAT, RMATConfig, plots, record
from rmat_tutorial.pictures.attention import AttentionMap
from rmat_tutorial.pictures.cost import Cost, cost_lines
from rmat_tutorial.pictures.influence import influence_maps
from rmat_tutorial.plots import byte_label

SEGMENT, CHUNK, SLOTS = 16, 4, 6


pytestmark = pytest.mark.usefixtures("style")


def model(paths=("full", "chunk", "memory")):
    torch.manual_seed(0)
    config = RMATConfig(
        d_model=16, n_heads=2, n_layers=2, segment_len=SEGMENT, chunk_size=CHUNK, memory_slots=SLOTS, paths=paths
    )
    return RMAT(config).eval()


@pytest.fixture
def picture():
    return AttentionMap(model())


def recorded(picture, text, layer, head, path):
    with torch.no_grad(), record(picture.model) as trace:
        picture.model(torch.tensor([list(text.encode())]))
    return getattr(trace.segments[-1].layers[layer], path)[0, head]


@pytest.mark.parametrize("path", ["full", "chunk", "memory"])
@pytest.mark.parametrize("text", ["a", "hello", "naïve", "x" * SEGMENT, "abc" * SEGMENT])
def test_the_map_is_what_the_model_recorded(picture, text, path):
    for layer, head in ((0, 0), (0, 1), (1, 0), (1, 1)):
        picture.draw(text, layer, head, path)
        assert torch.equal(picture.weights, recorded(picture, text, layer, head, path))


def test_the_image_is_the_map(picture):
    for text, head, path in (("hello", 0, "full"), ("hello", 1, "full"), ("hello", 1, "memory"), ("help", 1, "chunk")):
        picture.draw(text, 0, head, path)
        (image,) = picture.figure.axes[0].images
        assert torch.equal(torch.as_tensor(image.get_array()).float(), picture.weights)
        assert f"head {head}" in picture.figure.axes[0].get_title() and path in picture.figure.axes[0].get_title()


def test_every_value_changes_the_picture(picture):
    pictures = []
    for values in (("hello", 0, 0, "full"), ("hullo", 0, 0, "full"), ("hello", 1, 0, "full"), ("hello", 0, 1, "full"),
                   ("hello", 0, 0, "chunk"), ("hello", 0, 0, "memory"), ("", 0, 0, "full")):
        picture.draw(*values)
        pictures.append(plots.png(picture.figure))
    assert len(set(pictures)) == len(pictures)


def test_the_picture_does_not_depend_on_what_was_shown_before(picture):
    picture.draw("hello", 0, 1, "full")
    first = plots.png(picture.figure)
    for values in (("", 0, 0, "full"), ("é" * 40, 1, 0, "memory"), ("hello", 0, 0, "full")):
        picture.draw(*values)
    picture.draw("hello", 0, 1, "full")
    assert plots.png(picture.figure) == first


def test_the_caption_names_the_byte_that_the_last_one_looks_at_most(picture):
    caption = picture.draw("hello", 1, 0, "full")
    row = picture.weights[-1]
    column = int(row.argmax())
    assert caption.startswith("The last byte, “o”") and f"weight {row[column]:.2f}" in caption
    assert ("itself" if column == 4 else f"“{'hello'[column]}”, {4 - column} byte") in caption
    caption = picture.draw("hello", 1, 0, "memory")
    assert f"looks most at slot {int(picture.weights[-1].argmax())}: weight" in caption


def test_a_text_longer_than_a_segment_shows_its_last_segment_and_says_so(picture):
    caption = picture.draw("x" * (SEGMENT + 3), 0, 0, "full")
    assert picture.weights.shape == (3, 3)
    assert f"{SEGMENT + 3} bytes" in caption and "only the last 3 bytes" in caption
    assert "only the last 1 byte." in picture.draw("x" * (SEGMENT + 1), 0, 0, "chunk")
    assert "only" not in picture.draw("x" * SEGMENT, 0, 0, "full")


def test_the_memory_path_says_whether_anything_was_written(picture):
    assert "Nothing was written yet" in picture.draw("x" * SEGMENT, 0, 0, "memory")
    assert picture.weights.shape == (SEGMENT, SLOTS)
    assert "Writes to the bank so far: 2" in picture.draw("x" * (2 * SEGMENT + 1), 0, 0, "memory")


def test_where_there_is_nothing_to_show_a_sentence_says_why(picture):
    assert picture.draw("", 0, 0, "full").startswith("Type at least one character")
    assert picture.weights is None and not picture.figure.axes[0].images
    without_memory = AttentionMap(model(("full", "chunk")))
    assert without_memory.draw("hello", 0, 0, "memory") == "This model has no memory path."
    with pytest.raises(ValueError, match="path must be one of 'full', 'chunk', 'memory', got 'ful'"):
        picture.draw("hello", 0, 0, "ful")


def test_an_unpaired_surrogate_is_no_error(picture):
    picture.draw("a\ud800b", 0, 0, "full")
    assert picture.weights.shape == (3, 3)


@pytest.mark.parametrize(("text", "labels"), [("a b", "a · b"), ("é~", "c3 a9 ~"), ("\n\t\x7f", "0a 09 7f")])
def test_every_byte_has_a_label(text, labels):
    assert [byte_label(byte) for byte in text.encode()] == labels.split()


def test_influence_maps_share_one_scale_and_mark_exact_zeros_only():
    one, other = torch.tensor([[4.0, 0.0], [1.0, 2.0]]), torch.tensor([[8.0, 1e-30], [0.0, 0.0]])
    figure = influence_maps({"one": one, "other": other})
    shown = [torch.as_tensor(np.asarray(ax.images[0].get_array())) for ax in figure.axes]
    assert torch.allclose(shown[0], one / 8) and torch.allclose(shown[1], other / 8)
    assert len({ax.images[0].get_clim() for ax in figure.axes}) == 1
    zeros = [{(text.get_position()[1], text.get_position()[0]) for text in ax.texts} for ax in figure.axes]
    assert zeros == [{(0, 1)}, {(1, 0), (1, 1)}]


def test_cost_lines_show_the_values_in_their_units_beside_lines_of_the_slope_of_theory():
    lengths = [10, 100]
    figure = cost_lines(lengths, {"a": Cost([0.002, 0.3], [4_000_000, 40_000_000])}, {"a": (2, 1)})
    for ax, values, power, label in zip(figure.axes, ([2, 300], [4, 40]), (2, 1), ("(ms)", "(MB)"), strict=True):
        line, points = ax.lines
        assert np.allclose(points.get_ydata(), values) and label in ax.get_ylabel()
        assert np.allclose(np.diff(np.log10(line.get_ydata())), power)
        # Through the middle of the points, as far above one as below the other.
        assert np.isclose(np.log(line.get_ydata() / values).sum(), 0)
