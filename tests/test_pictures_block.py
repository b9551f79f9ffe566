"""The pictures of notebook 05: what they show is what was computed, and each value of a control has an answer."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from torch.nn.functional import cross_entropy

from rmat_tutorial import RMAT, HybridBlock, RMATConfig, plots, record
from rmat_tutorial.config import PATHS
from rmat_tutorial.pictures.block import (
    GUESSES,
    LAYERS,
    Bench,
    FusedAttention,
    PathSwitches,
    cost_figure,
    segment_maps,
    set_mix,
    switched,
)

SEGMENT, SLOTS = 16, 6
DATA = b"the dog saw the cat, and the cat ran away from it"
AT_FIRST = {"end": 40, "layer": 0, "head": 1, "full": 0.5, "chunk": 0.2, "memory": 0.3}

pytestmark = pytest.mark.usefixtures("style")


def model():
    torch.manual_seed(0)
    config = RMATConfig(
        d_model=16, n_heads=2, n_layers=2, segment_len=SEGMENT, chunk_size=4, memory_slots=SLOTS, gate_bias=0.0
    )
    made = RMAT(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return made


def texts_outside(figure):
    """What is written and does not lie whole within the figure."""
    plots.png(figure)
    left, bottom, right, top = figure.bbox.extents
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    ticks = {label: axis for axis in axes for label in axis.get_ticklabels()}
    outside = []
    for text in figure.findobj(Text):
        if text in ticks:
            place = text.get_position()[0 if ticks[text].axis_name == "x" else 1]
            low, high = sorted(ticks[text].get_view_interval())
            if not low <= place <= high:
                continue  # matplotlib keeps it and does not draw it
        x0, y0, x1, y1 = text.get_window_extent().extents
        if text.get_text().strip() and (x0 < left or y0 < bottom or x1 > right or y1 > top):
            outside.append(text.get_text())
    return outside


# What moves what, over segments ----------------------------------------------------------------------------------


def test_segment_maps_draw_borders_and_frame_what_leaks():
    clean = torch.ones(6, 6).tril()
    leaky = clean.clone()
    leaky[1, 4] = 0.5
    figure = segment_maps({"clean": clean, "leaky": leaky}, 2)
    for ax, frames in zip(figure.axes, ([], [(3.5, 0.5)]), strict=True):
        assert [patch.get_xy() for patch in ax.patches] == frames
        assert sorted({line.get_xdata()[0] for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[1]}) == [
            1.5, 3.5
        ]
        assert len(ax.lines) == 4


# λ by sliders ----------------------------------------------------------------------------------------------------


def test_set_mix_makes_shares_of_any_numbers_and_zero_switches_off():
    block = model().blocks[0]
    set_mix(block, [2.0, 0.0, 6.0])
    assert torch.allclose(block.mix.softmax(0), torch.tensor([0.25, 0.0, 0.75]))
    assert block.mix.softmax(0)[1] == 0 and block.mix.requires_grad


@pytest.fixture
def fused():
    return FusedAttention(model(), DATA)


def by_definition(values):
    """Fused map, loss and chances of a model whose λ of one layer is set, from scratch."""
    reader = model()
    shares = torch.tensor([values["full"], values["chunk"], values["memory"]])
    with torch.no_grad():
        reader.blocks[values["layer"]].mix.copy_((shares / shares.sum()).log())
    tokens = torch.tensor([list(DATA[: values["end"]])])
    with torch.no_grad(), record(reader) as trace:
        logits = reader(tokens).logits[0]
    layer = trace.segments[-1].layers[values["layer"]]
    full, chunk, memory = (getattr(layer, path)[0, values["head"]] for path in PATHS)
    lam = shares / shares.sum()
    weights = torch.cat([lam[0] * full + lam[1] * chunk, lam[2] * memory], 1)
    return weights, cross_entropy(logits[:-1], tokens[0, 1:]).item() / math.log(2), logits[-1].softmax(0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"layer": 1}, {"head": 0}, {"end": 49}, {"end": 48}, {"end": 33}, {"end": 2}, {"full": 0.0}, {"chunk": 0.0},
     {"memory": 0.0}, {"full": 0.0, "chunk": 0.0, "layer": 1}, {"full": 1.0, "chunk": 1.0, "memory": 1.0}],
)
def test_the_fused_map_and_the_loss_are_those_of_a_model_with_that_mix(fused, changes):
    values = AT_FIRST | changes
    caption = fused.draw(**values)
    weights, bits, chances = by_definition(values)
    assert torch.allclose(fused.weights, weights, atol=1e-5)
    assert torch.allclose(fused.weights.sum(1), torch.ones(len(weights)), atol=1e-5)
    assert fused.bits == pytest.approx(bits, abs=1e-4) and torch.allclose(fused.chances, chances, atol=1e-5)
    assert f"{bits:.2f} bits a byte on these {values['end']} bytes" in caption
    assert f"Layer {values['layer']}" in caption
    assert ("The next byte is" in caption) == (values["end"] < len(DATA))


def test_what_is_drawn_is_what_was_computed(fused):
    for changes in ({}, {"layer": 1, "memory": 1.0}, {"end": 36}, {"end": 48, "head": 0}):
        fused.draw(**AT_FIRST | changes)
        bytes_map, slots_map, shares, following = fused.figure.axes
        drawn = np.concatenate([np.asarray(ax.images[0].get_array()) for ax in (bytes_map, slots_map)], axis=1)
        assert np.allclose(drawn, fused.weights.numpy())
        assert slots_map.images[0].get_array().shape[1] == SLOTS
        heights = torch.tensor([bar.get_height() for bar in shares.patches])
        assert torch.allclose(heights.float(), fused.mix) and heights.sum() == pytest.approx(1)
        trained = model().blocks[{**AT_FIRST, **changes}["layer"]].mix.softmax(0)
        assert np.allclose(shares.lines[0].get_ydata(), trained.tolist())
        widths = torch.tensor([bar.get_width() for bar in following.patches]).float()
        assert torch.allclose(widths, fused.chances.topk(GUESSES).values)


def test_with_the_trained_shares_the_loss_is_the_trained_one(fused):
    for layer in (0, 1):
        shares = model().blocks[layer].mix.softmax(0).tolist()
        fused.draw(**AT_FIRST | {"layer": layer} | dict(zip(PATHS, shares, strict=True)))
        assert fused.bits == pytest.approx(fused.trained_bits, abs=1e-5)


def test_the_right_byte_is_marked_and_named(fused):
    caption = fused.draw(**AT_FIRST)
    right = DATA[40]
    assert f"The next byte is “{plots.byte_label(right)}”: chance {fused.chances[right]:.2f}" in caption
    labels = [text.get_text() for text in fused.figure.axes[3].texts]
    marked = [label for label in labels if label.startswith("▶")]
    assert marked == ([f"▶ {plots.byte_label(right)}"] if right in fused.chances.topk(GUESSES).indices else [])


def test_a_model_that_was_given_is_left_as_it_was():
    mine = model()
    before = [parameter.clone() for parameter in mine.parameters()]
    FusedAttention(mine, DATA).draw(**AT_FIRST)
    assert all(torch.equal(one, other) for one, other in zip(before, mine.parameters(), strict=True))
    assert not any(block.taps for block in mine.blocks)


def test_every_value_changes_the_picture_and_no_earlier_one_does(fused):
    pictures = {}
    for changes in ({}, {"end": 41}, {"layer": 1}, {"head": 0}, {"full": 0.55}, {"chunk": 0.25}, {"memory": 0.35}):
        fused.draw(**AT_FIRST | changes)
        pictures[plots.png(fused.figure)] = changes
    assert len(pictures) == 7
    nothing = {"full": 0.0, "chunk": 0.0, "memory": 0.0}
    fused.draw(**AT_FIRST | nothing)
    fused.draw(**AT_FIRST)
    assert pictures[plots.png(fused.figure)] == {}


def test_no_share_at_all_says_so(fused):
    fused.draw(**AT_FIRST)
    caption = fused.draw(**AT_FIRST | {"full": 0.0, "chunk": 0.0, "memory": 0.0})
    assert caption.startswith("All three shares are 0")
    assert fused.weights is None and math.isnan(fused.bits) and not len(fused.mix)
    assert not any(np.asarray(ax.images[0].get_array()).any() for ax in fused.figure.axes[:2])


@pytest.mark.parametrize("end", [1, 16, 33, 40, 48, 49])
def test_nothing_is_cut_off_at_the_edge_of_the_fused_map(fused, end):
    for shares in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.2, 0.3)):
        fused.draw(**AT_FIRST | {"end": end} | dict(zip(PATHS, shares, strict=True)))
        assert texts_outside(fused.figure) == []


# Paths switched off ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("on", [on for count in (1, 2, 3) for on in combinations(PATHS, count)])
def test_switching_off_shares_out_among_the_others_in_the_chosen_layers(layers, on):
    trained = model()
    quiet = switched(trained, layers, on)
    for number, (block, before) in enumerate(zip(quiet.blocks, trained.blocks, strict=True)):
        shares = before.mix.softmax(0)
        if layers in ("both layers", f"layer {number}"):
            shares = shares * torch.tensor([float(path in on) for path in PATHS])
            shares = shares / shares.sum()
        assert torch.allclose(block.mix.softmax(0), shares, atol=1e-6)
    with torch.no_grad():
        assert quiet(torch.randint(256, (1, 20))).logits.isfinite().all()


def test_a_path_that_is_off_is_as_good_as_gone():
    trained = model()
    config = RMATConfig(**{**trained.config.to_dict(), "paths": ("full", "chunk")})
    without = HybridBlock(config)
    block = switched(trained, "both layers", ("full", "chunk")).blocks[0]
    own = block.state_dict()
    without.load_state_dict({**{name: own[name] for name in without.state_dict()}, "mix": own["mix"][:2]})
    x, bank = torch.randn(1, 16, 16), torch.randn(1, SLOTS, 16)
    with torch.no_grad():
        assert torch.allclose(block(x, bank)[0], without(x)[0], atol=1e-5)


@pytest.fixture
def switches():
    def loss(reader):
        with torch.no_grad():
            return reader(torch.tensor([list(DATA)])).logits.logsumexp(-1).mean().item()

    def spread(reader):
        with torch.no_grad():
            return reader(torch.tensor([list(DATA)])).logits.std().item()

    return PathSwitches({
        "text": Bench(model(), loss, "bits a byte", "less is better", "{:.2f}", {"bank wiped": 3.0}),
        "recall": Bench(
            model(), spread, "of answers right", "more is better", "{:.3f}",
            {"bank wiped": 1.0, "trained without memory": 0.5},
        ),
    })


def test_every_setting_of_the_switches_has_its_score_or_a_sentence(switches):
    for layers in LAYERS:
        for on in [on for count in range(4) for on in combinations(PATHS, count)]:
            caption = switches.draw(layers, *(path in on for path in PATHS))
            if not on:
                assert caption.startswith("With all three off") and switches.shown == {}
                continue
            for name, bench in switches.benches.items():
                assert switches.shown[name] == pytest.approx(bench.score(switched(bench.model, layers, on)))
                assert f"{name.capitalize()}: {bench.form.format(switches.shown[name])} {bench.unit}" in caption
            off = [path for path in PATHS if path not in on]
            assert f"off in {layers}" in caption if off else caption.startswith("All paths on")


def test_the_switches_are_drawn_as_they_stand(switches):
    switches.draw("layer 1", True, False, True)
    grid, _, bars, others = switches.figure.axes
    cells = [text.get_text() for text in grid.texts]
    trained = [block.mix.softmax(0).tolist() for block in model().blocks]
    assert cells[:3] == [f"{share:.2f}" for share in trained[0]]
    rest = trained[1][0] + trained[1][2]
    assert cells[3:] == [f"{trained[1][0] / rest:.2f}", "off", f"{trained[1][2] / rest:.2f}"]
    assert [frame.get_visible() for frame in grid.patches] == [False, True]
    text = switches.scores["text"]
    assert [bar.get_width() for bar in bars.patches] == [
        pytest.approx(value) for value in (switches.shown["text"], text["both layers", PATHS], 3.0)
    ]
    assert len(others.patches) == 4 and "more is better" in others.get_xlabel()


def test_every_switch_changes_the_picture(switches):
    pictures = set()
    for values in (("both layers", True, True, True), ("layer 0", True, True, True), ("both layers", False, True, True),
                   ("both layers", True, False, True), ("both layers", True, True, False),
                   ("both layers", False, False, False)):
        switches.draw(*values)
        pictures.add(plots.png(switches.figure))
    assert len(pictures) == 6
    switches.draw("both layers", True, True, True)
    assert plots.png(switches.figure) in pictures


def test_nothing_is_cut_off_at_the_edge_of_the_switches(switches):
    for layers in LAYERS:
        for on in [on for count in range(4) for on in combinations(PATHS, count)]:
            switches.draw(layers, *(path in on for path in PATHS))
            assert texts_outside(switches.figure) == []


# Costs -----------------------------------------------------------------------------------------------------------


def test_the_cost_figure_stacks_the_parts_and_draws_both_curves():
    parts = {"FFN": [4.0, 4.0], "full": [1.0, 8.0], "write": [0.5, 0.25]}
    figure = cost_figure(parts, [16, 64], [10, 100, 1000], {"all": [1.0, 10.0, 100.0], "block": [2.0, 2.0, 2.0]})
    left, right = figure.axes
    tops = [bar.get_y() + bar.get_height() for bar in left.patches]
    assert tops == [4.0, 4.0, 5.0, 12.0, 5.5, 12.25]
    assert [list(line.get_ydata()) for line in right.lines] == [[1.0, 10.0, 100.0], [2.0, 2.0, 2.0]]
    assert len({line.get_marker() for line in right.lines}) == 2
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["write", "full", "FFN"]
