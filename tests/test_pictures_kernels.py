"""The pictures of notebook 08: what they show is what was computed, and each value of a control has an answer."""

from itertools import product

import numpy as np
import pytest
import torch

from rmat_tutorial import plots
from rmat_tutorial.chunks import chunk_mask
from rmat_tutorial.kernels.counting import Cost, Shape, Tiles, count
from rmat_tutorial.kernels.occupancy import H100, Choice, estimate, least_seconds, occupancy
from rmat_tutorial.pictures.occupancy import LARGE, TileSizes
from rmat_tutorial.pictures.roofline import roofline
from rmat_tutorial.pictures.tiles import LONGEST, SIZES, SLOTS, TileMaps

pytestmark = pytest.mark.usefixtures("style")

# Of the sliders; three stages are left to what is measured.
CHOICES = [Choice(*choice) for choice in product((16, 32, 64, 128, 256), (16, 32, 64, 128), (4, 8), (1, 4))]


# Tiles of q kᵀ ---------------------------------------------------------------------------------------------------


@pytest.fixture
def maps():
    return TileMaps()


def dots(picture, place, scale):
    """A map as numbers of shades, one for each pair: the middle of each token's square."""
    fine = np.asarray(picture.figure.axes[place].images[0].get_array())
    return fine[scale // 2 :: scale, scale // 2 :: scale]


def test_the_counts_are_those_of_the_kernels(maps):
    """As kernels/counting counts them, in whole tiles, where chunks divide the segment."""
    for L, C, size in product((16, 48, 64), (4, 8, 16), SIZES):
        maps.draw(L, C, size)
        flops = count("triton", Shape(1, 1, L, 1, C, SLOTS), tiles=Tiles(size, size)).forward.flops
        assert flops == maps.fused * size * size * 4
        alone = count("causal", Shape(1, 1, L, 1, C, SLOTS), tiles=Tiles(size, size)).forward.flops
        assert alone == maps.alone["full"] * size * size * 4


def test_the_chunk_is_free_where_chunks_are_tiles(maps):
    for L, C, size in product((4, 36, 64), range(4, LONGEST + 1, 4), SIZES):
        maps.draw(L, C, size)
        extra = maps.fused - maps.alone["full"] - maps.alone["memory"]
        assert extra == maps.twice and (extra == 0 if C % size == 0 or C >= L else extra >= 0)


def test_the_colours_are_what_a_pair_feeds(maps):
    """White 0, grey 1, memory 2, full 3, chunk 4."""
    for L, C, size in ((64, 32, 8), (60, 20, 16), (4, 64, 16)):
        maps.draw(L, C, size)
        causal, inside = np.tril(np.ones((L, L), dtype=bool)), chunk_mask(L, C).numpy()
        large = dots(maps, 3, 8)
        segment = large[:L, SLOTS + 4 : SLOTS + 4 + L]
        border = np.asarray(maps.figure.axes[3].images[0].get_array()) == 5
        assert (large[:L, :SLOTS] == 2).all() and border.any() == bool(maps.twice)
        assert (segment[causal & ~inside] == 3).all()
        assert set(segment[inside].tolist()) == {3, 4} and (segment[~causal] <= 1).all()
        assert not large[L:].any()


def test_small_maps_show_one_path_each(maps):
    maps.draw(64, 32, 16)
    shades = [set(np.asarray(maps.figure.axes[place].images[0].get_array()).flatten().tolist()) for place in range(3)]
    assert shades == [{0, 1, 3}, {0, 1, 4}, {0, 2}]
    assert [ax.texts[1].get_text() for ax in maps.figure.axes] == ["10", "6", "4", "14"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((64, 32, 8), "Path by path: 36 + 20 + 16 = 72 tiles. All at once: 52. No tile comes twice."),
        ((60, 20, 8), "All at once: 57. 5 tiles, framed, come twice: for the pairs inside a chunk, and for"),
        ((4, 64, 16), "Path by path: 1 + 1 + 1 = 3 tiles. All at once: 2."),
        ((16, 12, 16), "All at once: 3. 1 tile, framed, comes twice"),
    ],
)
def test_the_caption_of_the_tiles(maps, values, words):
    assert words in maps.draw(*values)


# Tile sizes ------------------------------------------------------------------------------------------------------


def sweep(**changes):
    """As `bench` stores it: a choice that ran, one that was faster, one that did not fit."""
    rows = [{"registers": 225, "shared": 81920, "spills": 0, "seconds": [0.002, 0.003, 0.001]},
            {"registers": 254, "shared": 65536, "spills": 0, "seconds": [0.001]}, {"reason": "out of shared memory"},
            {"registers": 255, "shared": 81920, "spills": 177, "seconds": [0.004]}]
    choices = (Choice(128, 64, 8, 3), Choice(64, 64, 4, 3), Choice(128, 128, 4, 3), Choice(128, 64, 4, 3))
    found = [choice._asdict() | row for choice, row in zip(choices, rows, strict=True)]
    return {"shape": LARGE._asdict(), "dtype": "bfloat16", "choices": found} | changes


@pytest.fixture
def sizes():
    return TileSizes(sweep(), "NVIDIA H200")


def test_every_choice_has_a_picture(sizes):
    for choice in CHOICES:
        caption = sizes.draw(*choice)
        assert sizes.cost == count("triton", LARGE, torch.bfloat16, Tiles(*choice[:2])).forward
        upper, lower, room = sizes.figure.axes
        for ax, shown, once in zip((upper, lower), sizes.cost[::-1], sizes.compulsory[::-1], strict=True):
            assert [bar.get_width() for bar in ax.patches] == [once / 1e9, shown / 1e9]
            assert ax.patches[1].get_width() < ax.get_xlim()[1]
        shown = [patch for patch in room.patches if patch.get_visible() and patch.get_fill()]
        assert len(shown) == 3 * sizes.occupancy.programs
        ends = [patch.get_x() + patch.get_width() for patch in shown]
        dashed = room.patches[-1]
        assert max(ends) <= 1 < dashed.get_x() + dashed.get_width()
        assert "not measured yet" in caption and "Estimated" in caption
        assert sizes.occupancy == estimate(choice, LARGE.width)


def test_what_was_measured_is_said(sizes):
    caption = sizes.draw(128, 64, 8, 3)
    assert "Compiled: 1 program fits" in caption
    assert "Time on NVIDIA H200: 2.000 ms, 2.00 × the fastest measured." in caption
    assert sizes.seconds == 0.002 and sizes.occupancy == occupancy(225, 81920, 8) and not sizes.spilled
    caption = sizes.draw(128, 64, 4, 3)
    assert "2 programs fit on a multiprocessor, registers are the limit; a thread spills 177 registers." in caption
    assert sizes.spilled and sizes.occupancy == occupancy(255, 81920, 4)
    for choice in ((128, 64, 8, 2), (128, 128, 4, 3)):
        assert "Time: not measured yet." in sizes.draw(*choice) and sizes.seconds is None


def test_what_another_chip_compiled_is_not_said_of_an_h100():
    sizes = TileSizes(sweep(), "NVIDIA A100")
    caption = sizes.draw(128, 64, 8, 3)
    assert "Estimated: " in caption and "Time on NVIDIA A100: 2.000 ms" in caption
    assert sizes.occupancy == estimate(Choice(128, 64, 8, 3), LARGE.width) and not sizes.spilled


def test_a_sweep_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"sweep must be of Shape\(batch=8, .*\) in bfloat16, got .* in float16"):
        TileSizes(sweep(dtype="float16"))
    with pytest.raises(ValueError, match="'length': 512"):
        TileSizes(sweep(shape=LARGE._replace(length=512)._asdict()))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ((128, 64, 8, 2), "Estimated: 1 program fits on a multiprocessor, registers are the limit. Time"),
        ((128, 64, 4, 2), "registers are the limit; a thread would need some 342, and has 255."),
        ((16, 128, 4, 4), "Estimated: 1 program fits on a multiprocessor, shared memory is the limit."),
        ((16, 32, 4, 2), "4.70 GB are asked for, of memory or the cache, 27.2 times what is compulsory."),
    ],
)
def test_the_caption_of_the_sizes(sizes, choice, words):
    assert words in sizes.draw(*choice)


@pytest.mark.parametrize("picture, values", [
    (TileMaps, ((64, 32, 8), (60, 32, 8), (64, 20, 8), (64, 32, 16))),
    (TileSizes, ((128, 64, 8, 3), (64, 64, 8, 3), (128, 32, 8, 3), (128, 64, 4, 3), (128, 64, 8, 2))),
])
def test_every_value_changes_the_picture_and_nothing_is_left_of_what_was_shown(picture, values):
    picture, pictures = picture(), []
    for value in (*values, values[0]):
        picture.draw(*value)
        pictures.append(plots.png(picture.figure))
    assert len(set(pictures)) == len(values) and pictures[0] == pictures[-1]


# The roofline ----------------------------------------------------------------------------------------------------


def test_points_lie_on_the_roof_and_times_add_up():
    pieces = {"full": Cost(4 * 10**12, 10**9), "chunk": Cost(10**11, 10**9), "adding up": Cost(0, 2 * 10**9)}
    fused = Cost(5 * 10**12, 10**10)
    figure = roofline(pieces, fused, H100)
    roof, times = figure.axes
    points = {line.get_label(): line for line in roof.lines if not line.get_label().startswith("_")}
    assert list(points) == ["full", "chunk", "adding up (right only)", "all at once"]
    assert len(points["adding up (right only)"].get_xdata()) == 0
    for name, cost in {"full": pieces["full"], "chunk": pieces["chunk"], "all at once": fused}.items():
        (x,), (y,) = points[name].get_data()
        assert x == cost.intensity and np.isclose(y, min(H100.flops, x * H100.bytes) / 1e12)
    widths = [bar.get_width() for bar in times.patches]
    assert np.allclose(widths, [1e3 * least_seconds(cost) for cost in (*pieces.values(), fused)])
    assert times.texts[0].get_position()[0] == pytest.approx(sum(widths[:-1]))


def test_the_least_time_is_that_of_what_takes_longer():
    assert least_seconds(Cost(989.4e12, 1), H100) == 1 == least_seconds(Cost(1, 3.35e12), H100)
