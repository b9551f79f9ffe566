"""The pictures of notebook 04: what they show is what the memory did, and each value of a control has an answer."""

import math
import time

import pytest
import torch
from matplotlib.figure import Figure

from rmat_tutorial import RMAT, GatedFIFOMemory, RMATConfig, plots, record
from rmat_tutorial.measuring import effective_rank, fading
from rmat_tutorial.pictures.memory import BankSteps, gate_bars, likeness_maps, slots_of_keys, written_steps
from rmat_tutorial.pictures.retention import WRITES, Curves, Retention, Survival, score_lines, times_gated
from rmat_tutorial.tasks import RecallTask

L, M, W, D = 16, 6, 2, 8
TASK = RecallTask()

pytestmark = pytest.mark.usefixtures("style")


def model(gate="hard", carry="newest", bias=-2.0, seed=0) -> RMAT:
    torch.manual_seed(seed)
    config = RMATConfig(
        vocab_size=TASK.vocab_size, d_model=D, n_heads=2, n_layers=2, segment_len=L, chunk_size=4, memory_slots=M,
        write_slots=W, gate=gate, carry=carry, gate_bias=bias,
    )
    return RMAT(config).eval()


def stream(segments=4) -> torch.Tensor:
    tokens = torch.randint(TASK.noise_tokens, (segments * L,), generator=torch.Generator().manual_seed(0))
    tokens[L + 3], tokens[L + 9] = TASK.fact_token(1, 5), TASK.fact_token(0, 2)
    return tokens


# A bank, segment by segment --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["hard", "sigmoid"])
@pytest.mark.parametrize("carry", ["newest", "oldest"])
def test_the_steps_are_what_the_model_did(gate, carry):
    reader, tokens = model(gate, carry), stream()
    with torch.no_grad(), record(reader) as trace:
        reader(tokens[None])
    steps = written_steps(reader, tokens)
    assert len(steps) == 4 and all(len(step) == 2 for step in steps)
    for traced, layers in zip(trace.segments, steps, strict=True):
        for layer, step in zip(traced.layers, layers, strict=True):
            assert torch.equal(step.gate, layer.write.gate[0])
            assert torch.equal(step.pooled, layer.write.pooled[0])
            assert torch.equal(step.bank, layer.write.memory[0])
            assert step.looks.shape == (W, L) and torch.allclose(step.looks.sum(dim=1), torch.ones(W))
            assert torch.allclose(step.came_from.sum(dim=1), torch.ones(M), atol=1e-6)


@pytest.mark.parametrize("carry", ["newest", "oldest"])
def test_where_a_slot_comes_from_is_its_gates_multiplied_out(carry):
    reader, tokens = model(carry=carry), stream()
    steps = written_steps(reader, tokens)
    # By hand for one number of a slot: a list of (segment, share), the start first.
    slots = [[[1.0, 0.0, 0.0, 0.0, 0.0] for _ in range(D)] for _ in range(M)]
    for segment, layers in enumerate(steps):
        carried = slots[:W] if carry == "oldest" else slots[-W:]
        new = []
        for row, gates in zip(carried, layers[0].gate.tolist(), strict=True):
            new.append([[share * (1 - z) for share in number] for number, z in zip(row, gates, strict=True)])
            for number, z in zip(new[-1], gates, strict=True):
                number[1 + segment] += z
        slots = slots[W:] + new
        assert torch.allclose(layers[0].came_from, torch.tensor(slots).mean(dim=1), atol=1e-6)


def test_shut_gates_bring_nothing_and_open_ones_everything():
    tokens = stream()
    shut, wide = written_steps(model(bias=-100.0), tokens), written_steps(model(bias=100.0), tokens)
    for layer in (0, 1):
        assert torch.equal(shut[-1][layer].came_from[:, 0], torch.ones(M))
        assert wide[-1][layer].came_from[:, 2:].sum(dim=0).tolist() == [2, 2, 2]  # three segments fill six slots


@pytest.fixture
def steps() -> BankSteps:
    return BankSteps({"hard": model(), "shut": model(bias=-100.0), "sigmoid": model("sigmoid")}, TASK, stream())


def images(picture: BankSteps) -> list[torch.Tensor]:
    return [torch.as_tensor(ax.images[0].get_array()).float() for ax in picture.figure.axes]


def test_the_images_are_the_step(steps):
    for name, segment, layer in (("hard", 1, 0), ("sigmoid", 3, 1), ("shut", 0, 0)):
        steps.draw(name, segment, layer)
        step = steps.step
        for image, values in zip(images(steps), (step.looks, step.pooled, step.gate, step.bank, step.came_from),
                                 strict=True):
            assert torch.equal(image, values)


def test_the_facts_stand_above_their_tokens(steps):
    steps.draw("hard", 1, 0)
    texts = {text.get_text(): text.get_position()[0] for text in steps._facts if text.get_text()}
    assert texts == {"B=5": 3, "A=2": 9}
    steps.draw("hard", 2, 0)
    assert not any(text.get_text() for text in steps._facts)


def test_the_caption_says_what_the_gates_did(steps):
    caption = steps.draw("shut", 1, 0)
    assert caption.startswith("Segment 1 states B=5 and A=2.") and f"All {W * D} gates are exactly 0" in caption
    assert "Segment 0 is noise. All 2 slots are overwritten: no gate is exactly 0" in steps.draw("sigmoid", 0, 0)
    step = steps.draw("hard", 1, 0) and steps.step
    for gate, words in (
        ([[0.0] * D, [0.25, *[0.0] * (D - 1)]], "Gates open in slot 5, up to z = 0.25; the other one enters"),
        ([[0.5, *[0.0] * (D - 1)]] * 2, "All 2 slots are overwritten: gates open in every slot, z = 0.0625 on"),
    ):
        steps._steps["hard"][1][0] = step._replace(gate=torch.tensor(gate))
        assert words in steps.draw("hard", 1, 0)


def test_an_arrow_for_each_slot_that_is_overwritten(steps):
    for name, segment, layer in (("hard", 1, 0), ("sigmoid", 0, 0), ("shut", 1, 1)):
        steps.draw(name, segment, layer)
        shown = [arrow.get_visible() for arrow in steps._enters]
        assert shown == (steps.step.gate > 0).any(dim=1).tolist()
        assert [arrow.get_position()[1] for arrow in steps._enters] == [*range(W)], "beside its row"
    assert not any(shown)


def test_the_frame_stands_around_the_segment(steps):
    steps.draw("hard", 2, 0)
    start = 1  # the first column is the bank before the first segment
    assert (steps._now.get_x(), steps._now.get_width()) == (start + 2 - 0.5, 1)


def test_every_control_changes_the_steps(steps):
    pictures = []
    for values in (("hard", 1, 0), ("hard", 2, 0), ("hard", 1, 1), ("sigmoid", 1, 0)):
        steps.draw(*values)
        pictures.append(plots.png(steps.figure))
    assert len(set(pictures)) == 4
    steps.draw("hard", 1, 0)
    assert plots.png(steps.figure) == pictures[0]


def test_a_bank_that_is_written_whole_has_a_picture():
    torch.manual_seed(0)
    config = RMATConfig(vocab_size=TASK.vocab_size, d_model=D, n_heads=2, segment_len=L, memory_slots=W, write_slots=W)
    picture = BankSteps({"whole": RMAT(config)}, TASK, stream())
    assert picture.draw("whole", 3, 1).startswith("Segment 3 is noise.")
    assert picture.step.bank.shape == (W, config.d_model)


def test_each_key_has_a_row_and_the_rows_are_sorted_by_slot():
    shares = torch.tensor([[0.0, 0.1, 0.9], [0.6, 0.0, 0.4], [0.7, 0.26, 0.04]])
    ax = slots_of_keys(shares, ["A", "B", "C"], ["8", "9", "10"]).axes[0]
    assert torch.equal(torch.as_tensor(ax.images[0].get_array()), shares[[2, 1, 0]])
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in ax.texts}
    assert written == {(0, 0): "70%", (0, 1): "26%", (1, 0): "60%", (1, 2): "40%", (2, 1): "10%", (2, 2): "90%"}


# What goes wrong -------------------------------------------------------------------------------------------------


def test_likeness_is_the_cosine_of_each_pair_and_a_copy_is_wholly_alike():
    bank = torch.randn(3, D, generator=torch.Generator().manual_seed(0))
    figure = likeness_maps({"twice": torch.cat((bank, -bank)), "apart": torch.eye(6)})
    twice, apart = (torch.as_tensor(ax.images[0].get_array()) for ax in figure.axes[:2])
    assert torch.allclose(twice[:3, 3:].diagonal(), torch.ones(3)) and torch.allclose(apart, torch.eye(6))
    cosine = torch.cosine_similarity(bank[0], bank[1], dim=0).abs()
    assert torch.isclose(twice[0, 1], cosine)
    assert f"effective rank {effective_rank(bank):.1f}" in figure.axes[0].get_title()


def test_gate_bars_add_up():
    figure = gate_bars({"one": (0.5, 0.25, 0.25), "other": (1.0, 0.0, 0.0)})
    bars = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    assert bars == [(0, 0.5), (0, 1), (0.5, 0.25), (1, 0), (0.75, 0.25), (1, 0)]
    assert len({bar.get_hatch() for bar in figure.axes[0].patches}) == 3, "told apart without colour"


# How long a fact is kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("carry", ["newest", "oldest"])
@pytest.mark.parametrize(("slots", "write_slots"), [(12, 4), (4, 4), (6, 1), (8, 2)])
def test_with_even_gates_the_formula_is_what_is_left(carry, slots, write_slots):
    """With a gate that is its bias everywhere and a candidate of 0."""
    memory = GatedFIFOMemory(D, slots, write_slots, carry=carry, gate_bias=-1.0)
    for parameter in (memory.to_gate.weight, memory.to_candidate.weight, memory.to_candidate.bias):
        torch.nn.init.zeros_(parameter)
    z = torch.sigmoid(torch.tensor(-1.0)).item()
    left = fading(memory, torch.randn(10, 1, 3, D).unbind(), facts=5)
    turns = slots // write_slots
    assert left == pytest.approx([(1 - z) ** times_gated(carry, n, turns) for n in range(11)], abs=1e-5)


@pytest.fixture
def retention() -> Retention:
    return Retention()


def test_the_curves_are_what_is_drawn(retention):
    retention.draw(-2.0, 16, "sigmoid", "newest")
    queue, formula, left = retention.figure.axes[0].lines
    for line, values in ((queue, retention.queue), (formula, retention.formula), (left, retention.left)):
        assert list(line.get_ydata()) == values and list(line.get_xdata()) == list(range(WRITES + 1))
    assert retention.z == pytest.approx(1 / (1 + math.exp(2)))


@pytest.mark.parametrize("slots", [4, 8, 16, 32])
def test_a_plain_queue_ends_at_m_over_w(retention, slots):
    retention.draw(0.0, slots, "sigmoid", "newest")
    assert retention.queue == [1.0] * (slots // 4) + [0.0] * (WRITES + 1 - slots // 4)


@pytest.mark.parametrize("carry", ["newest", "oldest"])
@pytest.mark.parametrize("bias", [-6.0, -4.0, -2.0])
def test_random_weights_stay_near_the_formula(retention, bias, carry):
    retention.draw(bias, 16, "sigmoid", carry)
    assert max(abs(a - b) for a, b in zip(retention.left, retention.formula, strict=True)) < 0.15


def test_a_hard_gate_well_below_its_edge_keeps_everything(retention):
    caption = retention.draw(-7.0, 16, "hard", "newest")
    assert retention.left == [1.0] * (WRITES + 1)
    assert "z = 0.0000" in caption and "More than half is left." in caption


def test_the_captions_number_their_writes(retention):
    assert retention.draw(2.0, 4, "sigmoid", "newest").endswith("A plain queue of 4 slots has lost it after 1 write.")
    assert "Less than half is left from 1 write on." in retention.draw(2.0, 4, "sigmoid", "newest")
    assert "-0.00" not in retention.draw(1.0, 4, "sigmoid", "newest")


@pytest.mark.parametrize("bias", [-8.0, 2.0])
@pytest.mark.parametrize("slots", [4, 32])
@pytest.mark.parametrize("gate", ["sigmoid", "hard"])
@pytest.mark.parametrize("carry", ["newest", "oldest"])
def test_every_end_of_every_control_has_an_answer(retention, bias, slots, gate, carry):
    assert retention.draw(bias, slots, gate, carry).startswith("The gate starts at z = ")
    assert all(math.isfinite(share) and -0.3 < share < 1.3 for share in retention.left)


def test_every_control_changes_the_curves(retention):
    first = {"bias": -2.0, "slots": 16, "gate": "sigmoid", "carry": "newest"}
    pictures = []
    for change in ({}, {"bias": -1.5}, {"slots": 8}, {"gate": "hard"}, {"carry": "oldest"}):
        retention.draw(**first | change)
        pictures.append(plots.png(retention.figure))
    assert len(set(pictures)) == 5


def test_torch_keeps_its_random_state(retention):
    before = torch.random.get_rng_state()
    retention.draw(-2.0, 16, "sigmoid", "newest")
    assert torch.equal(before, torch.random.get_rng_state())


# Models side by side ---------------------------------------------------------------------------------------------

CURVES = {
    "first": Curves([[1.0, 0.9, 0.8], [1.0, 1.0, 1.0]], [1.0, 0.5, 0.25]),
    "second": Curves([[0.5, 0.4, 0.0], [0.0, -0.001, 0.0]], [0.75, 0.125, 0.125]),
    "third": Curves([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]], [0.1, 0.1, 0.1]),
}


@pytest.fixture
def survival() -> Survival:
    return Survival([32, 64, 128], CURVES, {"two": ["first", "second"], "all": list(CURVES)}, chance=0.125)


def visible(survival: Survival, side: int) -> dict[str, list[float]]:
    return {name: list(lines[side].get_ydata()) for name, lines in survival._lines.items() if lines[side].get_visible()}


def test_the_lines_of_a_group_are_shown_and_no_others(survival):
    survival.draw("two", 1, 64)
    assert survival.shown == ["first", "second"]
    assert visible(survival, 0) == {name: CURVES[name].left[1] for name in ("first", "second")}
    assert visible(survival, 1) == {name: CURVES[name].right for name in ("first", "second")}
    survival.draw("all", 0, 32)
    assert visible(survival, 0) == {name: curve.left[0] for name, curve in CURVES.items()}


def test_the_caption_gives_the_numbers_at_the_line(survival):
    assert survival.draw("two", 1, 64) == (
        "After 64 tokens: first, 1.00 of the vector left, 50% of the answers right; "
        "second, 0.00 of the vector left, 12% of the answers right."
    )
    assert [list(line.get_xdata()) for line in survival._here] == [[64, 64]] * 2


def test_the_legend_names_the_lines_that_are_shown(survival):
    survival.draw("two", 0, 32)
    shown = {name for name, entry in survival._entries.items() if all(artist.get_visible() for artist in entry)}
    assert shown == {"first", "second"}
    assert [entry[1].get_text() for entry in survival._entries.values()] == list(CURVES)


def test_every_control_changes_the_comparison(survival):
    pictures = []
    for values in (("two", 0, 32), ("all", 0, 32), ("two", 1, 32), ("two", 0, 64)):
        survival.draw(*values)
        pictures.append(plots.png(survival.figure))
    assert len(set(pictures)) == 4


def test_lines_are_told_apart_without_colour(survival):
    looks = {(line.get_marker(), line.get_linestyle()) for line in (lines[0] for lines in survival._lines.values())}
    assert len(looks) == 3


def test_scores_have_a_mean_a_range_and_chance():
    scores = {"one": {10: [0.5, 1.0, 0.9], 100: [0.2, 0.2, 0.5]}, "two": {10: [1.0] * 3, 100: [0.5] * 3}}
    ax = score_lines(scores, chance=0.125).axes[0]
    lines = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(lines["one"].get_ydata()) == pytest.approx([0.8, 0.3]) and list(lines["two"].get_ydata()) == [1, 0.5]
    assert list(lines["one"].get_xdata()) == [10, 100]
    band = ax.collections[0].get_paths()[0].vertices
    assert {(x, round(y, 6)) for x, y in band} >= {(10, 0.5), (10, 1.0), (100, 0.2), (100, 0.5)}
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines.values()}) == 2, "told apart without colour"
    assert "3 seeds" in ax.get_title() and any(set(line.get_ydata()) == {0.125} for line in ax.lines)


@pytest.mark.parametrize("kind", ["steps", "retention", "survival"])
def test_a_redraw_is_quick(kind, steps, retention, survival):
    draws = {
        "steps": (steps, [("hard", 1, 0), ("hard", 2, 0)]),
        "retention": (retention, [(-2.0, 16, "sigmoid", "newest"), (-2.5, 16, "sigmoid", "newest")]),
        "survival": (survival, [("two", 0, 32), ("two", 0, 64)]),
    }
    picture, values = draws[kind]
    assert isinstance(picture.figure, Figure)
    for value in values:
        picture.draw(*value)
        plots.png(picture.figure)
    picture.figure.set_layout_engine("none")
    start = time.process_time()
    for value in values * 5:
        picture.draw(*value)
        plots.png(picture.figure)
    assert (time.process_time() - start) / 10 < 0.1, "a drag must feel immediate"
