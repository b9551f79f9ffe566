"""The pictures of notebook 03: what they show is what was computed, and each value of a control has an answer."""

from itertools import product

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from rmat_tutorial import plots
from rmat_tutorial.chunks import chunk_mask, pairs
from rmat_tutorial.pictures.chunks import LARGEST_CHUNK, MOST_TOKENS, Accuracy, ChunkExplorer, accuracy_bars
from rmat_tutorial.pictures.cost import Cost, cost_lines
from rmat_tutorial.plots import PATH_COLOURS

pytestmark = pytest.mark.usefixtures("style")

SIZES = [*product(range(1, MOST_TOKENS + 1), range(1, LARGEST_CHUNK + 1))]


@pytest.fixture
def picture():
    return ChunkExplorer()


def kinds(picture) -> np.ndarray:
    """What each cell of the left panel is: 0 nothing, 1 not computed, 2 hidden, 3 visible, 4 seen by the token."""
    return np.asarray(picture.figure.axes[0].images[0].get_array())


def test_the_cells_are_the_pairs_that_are_counted(picture):
    for T, C in SIZES:
        token = (3 * T + C) % MOST_TOKENS
        picture.draw(T, C, token)
        shown = kinds(picture)
        seen = chunk_mask(T, C)[token].nonzero().flatten().tolist() if token < T else []
        assert picture.seen == seen and np.argwhere(shown == 4).tolist() == [[token, j] for j in seen]
        assert np.array_equal(shown[:T, :T] >= 3, chunk_mask(T, C).numpy()) and (shown >= 3).sum() == picture.visible
        assert (shown >= 2).sum() == picture.computed == -(-T // C) * C * C and picture.visible == pairs(T, C)
        assert (shown[:T, :T] >= 1).all() and picture.full == T * T
        assert not (shown == 1)[T:].any() and not (shown == 1)[:, T:].any()


def test_the_bars_are_the_counts(picture):
    for T, C in ((14, 6), (5, 10), (20, 1)):
        picture.draw(T, C, 0)
        cost = picture.figure.axes[1]
        counts = [picture.full, picture.computed, picture.visible]
        assert [bar.get_width() for bar in cost.patches] == counts
        assert [text.get_text() for text in cost.texts] == [str(count) for count in counts]
        assert max(counts) < cost.get_xlim()[1]


def test_every_value_changes_the_picture(picture):
    pictures = []
    for values in ((14, 6, 9), (15, 6, 9), (14, 7, 9), (14, 6, 10), (14, 6, 14), (1, 1, 0)):
        picture.draw(*values)
        pictures.append(plots.png(picture.figure))
    assert len(set(pictures)) == len(pictures)


def test_the_picture_does_not_depend_on_what_was_shown_before(picture):
    picture.draw(14, 6, 9)
    first = plots.png(picture.figure)
    for values in ((20, 10, 19), (1, 10, 5), (14, 6, 8)):
        picture.draw(*values)
    picture.draw(14, 6, 9)
    assert plots.png(picture.figure) == first


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            (14, 6, 9),
            "Token 9 stands in chunk 1 and sees 4 tokens, 6 to 9. Pairs: 45 visible, 3 · 6² = 108 computed after "
            "folding, 14² = 196 with full attention. The last chunk holds 2 tokens and 4 rows of padding.",
        ),
        ((12, 6, 6), "Token 6 stands in chunk 1 and sees itself only. "),
        ((12, 6, 6), "The last chunk is whole."),
        ((12, 6, 7), "Token 7 stands in chunk 1 and sees 2 tokens, 6 and 7. "),
        ((7, 3, 1), "The last chunk holds 1 token and 2 rows of padding."),
        ((5, 3, 1), "The last chunk holds 2 tokens and 1 row of padding."),
        ((5, 3, 5), "There is no token 5: the text ends with token 4. Pairs: 9 visible"),
        ((1, 1, 0), "Token 0 stands in chunk 0 and sees itself only. Pairs: 1 visible, 1 · 1² = 1 computed"),
    ],
)
def test_the_caption_says_what_is_seen(picture, values, words):
    assert words in picture.draw(*values)


def test_accuracy_bars_show_the_shares_where_there_is_an_answer_and_the_borders():
    one, other = torch.linspace(0, 1, 10), torch.linspace(1, 0, 10)
    figure = accuracy_bars({"a": Accuracy("chunk", 4, one), "b": Accuracy("full", 10, other)}, delay=2, chance=0.125)
    for ax, right, path, borders in zip(figure.axes, (one, other), ("chunk", "full"), ([3.5, 7.5], []), strict=True):
        bars = {round(bar.get_x() + bar.get_width() / 2): bar for bar in ax.containers[0]}
        assert sorted(bars) == list(range(2, 10))
        assert np.allclose([bars[i].get_height() for i in range(2, 10)], right[2:])
        assert to_hex(bars[2].get_facecolor()) == PATH_COLOURS[path]
        assert [segment[0][0] for segment in ax.collections[0].get_segments()] == borders
        assert ax.lines[0].get_ydata()[0] == 0.125
    assert len({ax.get_ylim() for ax in figure.axes}) == 1


def test_four_costs_have_four_looks():
    cost = Cost([1e-3, 2e-3], [100, 200])
    figure = cost_lines([1, 2], dict.fromkeys("abcd", cost), dict.fromkeys("abcd", (1, 1)))
    for ax in figure.axes:
        points = [line for line in ax.lines if line.get_marker() != "None"]
        assert len({line.get_marker() for line in points}) == len({line.get_color() for line in points}) == 4
