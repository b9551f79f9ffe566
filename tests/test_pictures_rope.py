"""The pictures of notebook 02: what they show is what was computed, and each value of a control has an answer."""

import math

import numpy as np
import pytest
import torch

from rmat_tutorial import apply_rope, plots, rope_frequencies
from rmat_tutorial.pictures.rope import FURTHEST, BeyondLength, Dials, Stretch, TwoHeads, turned_arrows

pytestmark = pytest.mark.usefixtures("style")

LENGTH, REACH, PAIRS = 64, 256, 12


def different(picture, values) -> bool:
    """Whether each of the values gives a picture of its own."""
    pictures = []
    for arguments in values:
        picture.draw(*arguments)
        pictures.append(plots.png(picture.figure))
    return len(set(pictures)) == len(pictures)


def redrawn_alike(picture, first, *others) -> bool:
    """Whether the picture of ``first`` does not depend on what was shown before."""
    picture.draw(*first)
    before = plots.png(picture.figure)
    for arguments in others:
        picture.draw(*arguments)
    picture.draw(*first)
    return plots.png(picture.figure) == before


# The dials -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "width"), [(10_000.0, 24), (10.0, 8), (1e6, 32), (100.0, 2)])
def test_the_curve_is_the_score_of_a_vector_with_itself(base, width):
    dials = Dials()
    dials.draw(base, width, 40)
    vector = torch.ones(1, width, dtype=torch.float64)
    for distance in (0, 1, 40, FURTHEST):
        turned = apply_rope(vector, torch.tensor([distance]), base)
        assert dials.scores[distance].item() == pytest.approx((turned * vector).sum().item() / width, abs=1e-9)
    assert torch.allclose(dials.angles, 40 * rope_frequencies(width, base))
    curve, _, dot = dials.figure.axes[0].lines
    assert np.allclose(curve.get_ydata(), dials.scores) and np.allclose(dot.get_ydata(), dials.scores[40])


def test_a_hand_points_where_its_pair_has_turned():
    dials = Dials()
    dials.draw(10_000.0, 8, 3)
    fans, rims, hands = dials.figure.axes[1].collections
    assert len(rims.get_segments()) == len(fans.get_paths()) == 4
    for (centre, end), angle in zip(hands.get_segments(), (3, 0.3, 0.03, 0.003), strict=True):
        x, y = end - centre
        assert math.atan2(-y, x) == pytest.approx(angle)  # the axis points down
    shown = [text.get_text() for text in dials.figure.axes[1].texts]
    assert shown == ["6.3", "62.8", "628", "6,283", *[""] * 12]


@pytest.mark.parametrize("width", [2, 4, 8, 16, 24, 32])
def test_the_dials_are_apart_and_have_room(width):
    dials = Dials()
    dials.draw(10_000.0, width, 0)
    rims = np.array(dials.figure.axes[1].collections[1].get_segments())
    radius = (rims[0].max(axis=0) - rims[0].min(axis=0))[0] / 2
    centres = (rims.min(axis=1) + rims.max(axis=1)) / 2
    assert len(centres) == width // 2 and (rims >= 0).all() and (rims <= 1).all()
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)[~np.eye(width // 2, dtype=bool)]
    assert (distances > 2 * radius).all()
    for (x, y), label in zip(centres, dials.figure.axes[1].texts, strict=False):
        assert label.get_position() == pytest.approx((x, y + radius), abs=0.02)


def test_the_dials_say_what_can_be_seen():
    dials = Dials()
    assert dials.draw(10_000.0, 24, 40).startswith("At distance 40 the score is 0.43 of the greatest. It stops falling")
    assert "Gone full circle: 3 of 12 dials." in dials.draw(10_000.0, 24, 40)
    assert "the base has no say" in dials.draw(10.0, 2, 44) and "back at 1.00 at 44" in dials.draw(10.0, 2, 44)
    assert "Gone full circle: 0 of 12 dials. The slowest has turned by 0.000°" in dials.draw(10_000.0, 24, 0)


def test_each_combination_of_the_dials_has_an_answer():
    dials = Dials()
    for base in (10.0, 1e6):
        for width in (2, 4, 8, 16, 24, 32):
            for distance in (0, 1, FURTHEST):
                assert dials.draw(base, width, distance).startswith(f"At distance {distance} the score is ")


def test_every_control_moves_the_dials():
    values = [(10_000.0, 24, 40), (100_000.0, 24, 40), (1_000.0, 24, 40), (10_000.0, 16, 40), (10_000.0, 24, 41)]
    assert different(Dials(), values)
    assert redrawn_alike(Dials(), values[0], (10.0, 32, 256), (1e6, 2, 0))


# One head against another ----------------------------------------------------------------------------------------


@pytest.fixture
def heads():
    torch.manual_seed(0)
    curves = torch.randn(2, 3, REACH)
    return TwoHeads(curves[..., :LENGTH] + 0.1, torch.zeros(2, 3, LENGTH), curves, torch.rand(2, 3, PAIRS))


@pytest.mark.parametrize("reach", [64, 128, 256])
def test_two_heads_show_their_own_numbers_on_one_scale(heads, reach):
    chosen = ((0, 2), (1, 1))
    heads.draw(*chosen, reach)
    upper, lower = heads.figure.axes[:2], heads.figure.axes[2:]
    assert torch.equal(heads.shown, torch.stack([heads.curves[head][:reach] for head in chosen]))
    for top, bottom, head in zip(upper, lower, chosen, strict=True):
        flat, curve, dots = top.lines
        assert np.allclose(flat.get_ydata(), heads.unturned[head])
        assert np.allclose(dots.get_ydata(), heads.measured[head])
        assert np.allclose(curve.get_ydata(), heads.curves[head][:reach])
        for line in (flat, curve, dots):
            assert np.allclose(line.get_xdata() * reach, np.arange(len(line.get_xdata())))
        assert np.allclose([bar.get_height() for bar in bottom.patches], heads.waves[head])
        assert top.get_title() == f"layer {head[0]}, head {head[1]}"
        assert [text.get_text() for text in top.texts] == [str(reach * quarter // 4) for quarter in range(5)]
        assert top.patches[0].get_x() * reach == pytest.approx(LENGTH - 1)
    assert upper[0].get_ylim() == upper[1].get_ylim() and lower[0].get_ylim() == lower[1].get_ylim()


def test_two_heads_say_what_can_be_seen(heads):
    heads.measured[1, 0], heads.waves[1, 0] = torch.arange(LENGTH).float().neg(), torch.eye(PAIRS)[4]
    heads.curves[1, 0, 70], heads.curves[1, 0, 200] = 50.0, 60.0
    near, middle, far = (heads.draw((1, 0), (0, 0), reach) for reach in (64, 128, 256))
    said = "Layer 1, head 0: mean score 0.00 at distance 0, −63.00 at 63; largest wave: pair 4"
    assert near.startswith(f"{said}. Layer 0, head 0: ")
    assert middle.startswith(f"{said}; beyond the trained length up to 50.00, at 70.")
    assert far.startswith(f"{said}; beyond the trained length up to 60.00, at 200.")
    assert heads.draw((1, 0), (1, 0), 64) == f"The same head twice. {said}."


def test_every_control_moves_the_two_heads(heads):
    values = [((0, 0), (1, 1), 64), ((0, 1), (1, 1), 64), ((0, 0), (1, 2), 64), ((0, 0), (1, 1), 128)]
    assert different(heads, values)
    assert redrawn_alike(heads, values[0], ((1, 1), (1, 1), 256), ((0, 2), (1, 0), 192))


# Beyond the trained length ---------------------------------------------------------------------------------------


def stretch(level: float) -> Stretch:
    return Stretch(rope_frequencies(24), torch.linspace(level, 2 * level, REACH), torch.linspace(0, level, REACH))


@pytest.fixture
def beyond():
    remedies = {(name, strength): stretch(len(name) + strength) for name in ("all", "some") for strength in (1.5, 2)}
    return BeyondLength(LENGTH, stretch(1.0), torch.full((REACH,), 2.0), remedies, "layer 0, head 0")


def test_the_lines_are_the_losses_and_the_scores_of_the_remedy(beyond):
    beyond.draw("some", 2)
    remedy = beyond.remedies["some", 2]
    assert beyond.remedy is remedy and torch.allclose(beyond.bits, remedy.bits.view(-1, 16).mean(dim=1))
    loss, near, far = beyond.figure.axes
    nothing, segments, line = loss.lines
    assert np.allclose(nothing.get_ydata(), beyond.untouched.bits.view(-1, 16).mean(dim=1))
    assert np.allclose(segments.get_ydata(), 2) and np.allclose(line.get_ydata(), beyond.bits)
    assert np.allclose(line.get_xdata(), 8 + 16 * np.arange(16))
    for ax, length in ((near, 13), (far, REACH)):
        untouched, ours = ax.lines
        assert np.allclose(untouched.get_ydata(), beyond.untouched.scores[:length])
        assert np.allclose(ours.get_ydata(), remedy.scores[:length])
    assert near.get_ylim() == far.get_ylim()


def test_what_a_remedy_is_above_the_segments_is_shown_and_said(beyond):
    caption = beyond.draw("all", 1.5)
    above = [(beyond.remedies["all", 1.5].bits[first : first + 64] - 2).mean().item() for first in range(0, 256, 64)]
    assert np.allclose(beyond.above, above, atol=1e-5)
    numbers = [f"{number:.2f}" for number in above]
    written = [text.get_text() for text in beyond.figure.axes[0].texts]
    assert written[:2] == ["beyond the trained length", "remedy minus segments of 64"]
    assert written[2:] == [f"+{number}" for number in numbers]
    said = f"Bits per byte above segments of 64: {numbers[0]} at bytes 0 to 63, {numbers[1]} at bytes 64 to 127, "
    assert caption.startswith(f"All, 1.5 times. {said}")
    assert caption.endswith("With nothing done: −0.88, −0.63, −0.37, −0.12.")  # from 1 to 2 bits, and the segments 2


def test_every_control_moves_the_losses(beyond):
    values = [("all", 1.5), ("some", 1.5), ("all", 2)]
    assert different(beyond, values)
    assert redrawn_alike(beyond, values[0], ("some", 2), ("some", 1.5))


# The arrows ------------------------------------------------------------------------------------------------------


def test_arrows_show_the_angle_between_query_and_key_on_one_scale():
    up, flat = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    across = torch.tensor([-1.0, -1.0])
    figure = turned_arrows({"one": (up, flat), "other": (flat, -up), "across": (-flat, across)})
    written = [[text.get_text() for text in ax.texts if text.get_text()] for ax in figure.axes]
    assert written == [["q", "k", "90°"], ["q", "k", "90°"], ["q", "k", "45°"]]
    assert len({ax.get_xlim() for ax in figure.axes}) == 1
