"""The pictures of notebook 06 on generation: the draw is the one that is sampled, the text is that of ``generate``."""

import math

import matplotlib
import numpy as np
import pytest
import torch

from rmat_tutorial import RMAT, RMATConfig, plots, record
from rmat_tutorial.config import PATHS
from rmat_tutorial.pictures.generation import (
    COLUMNS,
    LIKELIEST,
    MOST_SHARE,
    PIECES,
    ROWS,
    NextByte,
    Writing,
    WritingPlayground,
    _readable,
    _wrapped,
)
from rmat_tutorial.pictures.panels import TEXT_LIMIT

SEGMENT, SLOTS, WRITTEN = 16, 6, 2
PROMPT = "the dog saw the cat"
SETTINGS = {"temperature": 1.0, "top_k": 256}
AT_FIRST = {"prompt": PROMPT, "tokens": 60, "temperature": 0.9, "top_k": 40, "seed": 3, "layer": 0}
ODD = [
    "\x00\r\n\n\t\x1b[31m $x_1$ \\alpha {0} %d",
    "日本語 ☃ e\u0301 \u202e\ud800 \U0001f600",
    "Γειά σου Κόσμε",
    "$",
    "\n",
]

pytestmark = [pytest.mark.usefixtures("style"), pytest.mark.filterwarnings("error")]


def model(**fields):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_heads": 2, "segment_len": SEGMENT, "memory_slots": SLOTS, "write_slots": WRITTEN}
    made = RMAT(RMATConfig(**(sizes | {"n_layers": 2, "chunk_size": 4, "gate_bias": 0.0} | fields))).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return made


def tokens_of(text):
    return torch.tensor([list(text.encode(errors="replace"))])


@pytest.fixture(scope="module")
def mine():
    return model()


# The draw ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def following(mine):
    return NextByte(mine)


def logits_of(mine, text):
    with torch.no_grad():
        return mine(tokens_of(text)).logits[0, -1].double()


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 256), (0.5, 256), (2.0, 7), (0.3, 1), (0.0, 256), (0.0, 9)])
def test_the_draw_is_the_softmax_of_what_top_k_leaves(mine, following, temperature, top_k):
    caption = following.draw(PROMPT, temperature, top_k)
    ranked = logits_of(mine, PROMPT).sort(descending=True)
    expected = torch.zeros(256).double()
    kept = 1 if temperature == 0 else top_k
    expected[ranked.indices[:kept]] = (ranked.values[:kept] / (temperature or 1)).softmax(0)
    assert torch.allclose(following.chances.double(), expected, atol=1e-5)
    left = (following.chances > 0).sum().item()
    assert left == kept
    assert caption.startswith(
        f"{left} of 256 bytes {'is' if left == 1 else 'are'} left in the draw. The first is "
        f"“{plots.byte_label(ranked.indices[0])}” with {expected.max():.0%}. "
    )
    bits = [
        sum(chance * math.log2(1 / chance) for chance in of.tolist() if chance)
        for of in (expected, ranked.values.softmax(0))
    ]
    assert caption.endswith(f"is {bits[0]:.2f} bits; at temperature 1 without top-k it is {bits[1]:.2f}.")


def test_the_bars_show_the_draw_and_the_diamonds_what_was_predicted(mine, following):
    following.draw(PROMPT, 1.0, 256)
    following.draw(PROMPT, 0.7, 5)
    predicted = logits_of(mine, PROMPT).softmax(0)
    likeliest = predicted.topk(LIKELIEST).indices
    (ax,) = following.figure.axes
    outlines, bars = (np.array([bar.get_height() for bar in bars]) for bars in ax.containers)
    diamonds = ax.lines[0].get_ydata()
    assert np.allclose(bars[:-1], following.chances[likeliest])
    assert (bars[:5] > 0).all() and not bars[5:].any()
    assert np.allclose(diamonds[:-1], predicted[likeliest], atol=1e-6) and np.allclose(diamonds, outlines)
    assert diamonds.sum() == pytest.approx(1) and bars.sum() == pytest.approx(1)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == [*map(plots.byte_label, likeliest.tolist()), "other\n240"]


def test_the_model_is_asked_once_for_each_prompt(mine, following, monkeypatch):
    asked = []
    monkeypatch.setattr(mine, "forward", lambda *a, forward=mine.forward: asked.append(1) or forward(*a))
    for prompt, temperature, top_k in (("a", 1.0, 3), ("a", 0.0, 3), ("a", 2.0, 256), ("b", 2.0, 256), ("b", 1.0, 9)):
        following.draw(prompt, temperature, top_k)
    assert len(asked) == 2


def test_a_picture_of_the_draw_does_not_depend_on_how_one_came_to_it(following):
    pictures = {}
    for values in ((PROMPT, 1.0, 256), (PROMPT, 0.6, 256), (PROMPT, 1.0, 4), ("another", 1.0, 256)):
        following.draw(*values)
        pictures[plots.png(following.figure)] = values
    assert len(pictures) == 4
    following.draw("", 1.0, 256)
    following.draw(PROMPT, 1.0, 256)
    assert pictures[plots.png(following.figure)] == (PROMPT, 1.0, 256)


def test_no_prompt_and_a_long_one_are_answered():
    mine = model(segment_len=512)
    following = NextByte(mine)
    assert following.draw("", **SETTINGS).startswith("There is no prompt.")
    assert not len(following.chances) and not following.figure.axes[0].containers
    long = "x" + PROMPT * 220
    caption = following.draw(long, **SETTINGS)
    assert caption.startswith(f"Only the last {TEXT_LIMIT:,} of {len(long):,} bytes were read. 256 of 256")
    expected = logits_of(mine, long[-TEXT_LIMIT:]).softmax(0).float()
    assert torch.allclose(following.chances, expected, atol=1e-5)
    assert "Only" not in following.draw("a" * TEXT_LIMIT, **SETTINGS)


@pytest.mark.parametrize("prompt", ODD)
def test_any_prompt_has_a_draw(following, prompt):
    assert "left in the draw" in following.draw(prompt, **SETTINGS)
    plots.png(following.figure)


# Writing -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def writing(mine):
    return Writing(mine)


@pytest.mark.parametrize(
    "changes",
    [{}, {"temperature": 0.0}, {"top_k": 1}, {"temperature": 2.0, "top_k": 256}, {"tokens": 1}, {"tokens": PIECES + 1}],
)
def test_the_text_is_that_of_one_call_with_the_same_seed(mine, writing, changes):
    values = AT_FIRST | changes
    writing.draw(**values)
    drawn = {name: values[name] for name in ("temperature", "top_k", "seed")}
    whole, state = mine.generate(tokens_of(PROMPT), values["tokens"], **drawn)
    assert writing.text == bytes(whole[0].tolist())
    assert torch.equal(writing.bank, state.memory[0][0])


def test_the_seed_decides_and_the_layer_and_the_chance_of_others_do_not(writing):
    writing.draw(**AT_FIRST)
    text, bank = writing.text, writing.bank
    before = torch.get_rng_state()
    torch.rand(3)
    writing.draw(**AT_FIRST | {"layer": 1})
    assert writing.text == text and not torch.equal(writing.bank, bank)
    torch.set_rng_state(before)
    writing.draw(**AT_FIRST | {"seed": 4})
    assert writing.text != text
    assert torch.equal(torch.get_rng_state(), before), "the draws of others go on as if nothing had been drawn"


@pytest.mark.parametrize("layer", [0, 1])
def test_gates_and_shares_are_those_of_the_layer(mine, writing, layer):
    caption = writing.draw(**AT_FIRST | {"layer": layer})
    read = tokens_of(PROMPT).tolist()[0] + list(writing.text[:-1])
    with torch.no_grad(), record(mine) as trace:
        mine(torch.tensor([read]))
    layers = [segment.layers[layer] for segment in trace.segments]
    gates = torch.stack([of.write.gate[0].mean(-1) for of in layers if of.write is not None])
    assert writing.gates.shape == (len(read) // SEGMENT, WRITTEN)
    assert torch.allclose(writing.gates, gates, atol=1e-5)
    assert f"The bank was written {len(gates)} times; its gates stood open {gates.mean():.2f} on" in caption
    # The last picture is of the last piece: 60 bytes in pieces of 8 leave 4.
    last = torch.cat([of.memory[0].mean(0) for of in layers])[-4:].mean(0)
    assert torch.allclose(writing.shares, last, atol=1e-5) and last.sum() == pytest.approx(1)
    _, mix, image, slots = writing.figure.axes
    assert [bar.get_height() for bar in mix.patches] == pytest.approx(mine.blocks[layer].mix.softmax(0).tolist())
    assert np.allclose(image.images[0].get_array(), gates.T, atol=1e-5)
    assert np.allclose([bar.get_height() for bar in slots.patches], last, atol=1e-5)
    assert f"Shown is layer {layer}." in caption and mix.get_title(loc="left") == f"λ of layer {layer}"


def test_the_state_is_as_large_after_the_text_as_before(mine, writing):
    for tokens in (1, 40):
        caption = writing.draw(**AT_FIRST | {"tokens": tokens})
        before, after = writing.state_bytes
        assert before == after == mine.init_state(1).nbytes
        unit = "byte" if tokens == 1 else "bytes"
        assert caption.startswith(
            f"{tokens} {unit} generated after {len(PROMPT)}. The state takes {before:,} bytes before the first and "
            f"{after:,} after the last."
        )


@pytest.mark.parametrize(("length", "tokens", "writes"), [(1, 1, 0), (1, 15, 0), (15, 2, 1), (16, 1, 1), (16, 17, 2)])
def test_slots_are_grey_until_they_are_written(writing, length, tokens, writes):
    caption = writing.draw(**AT_FIRST | {"prompt": "a" * length, "tokens": tokens})
    assert len(writing.gates) == writes and ("Nothing was written" in caption) == (writes == 0)
    green = matplotlib.colors.to_rgba(plots.PATH_COLOURS["memory"])
    is_written = [bar.get_facecolor() == green for bar in writing.figure.axes[3].patches]
    assert is_written == [False] * (SLOTS - writes * WRITTEN) + [True] * (writes * WRITTEN)


def test_the_picture_grows_piece_by_piece(writing):
    seen = []

    def note(sentence):
        columns = writing.figure.axes[2].images[0].get_array()[0]
        seen.append((sentence, len(writing.text), len(writing.gates), np.ma.getmaskarray(columns).tolist()))

    writing.on_frame = note
    writing.draw(**AT_FIRST)
    assert [length for _, length, _, _ in seen] == [8, 16, 24, 32, 40, 48, 56]
    assert seen[2][0] == "Generating: 24 of 60 bytes."
    for _, length, writes, unknown in seen:
        assert writes == (len(PROMPT) + length - 1) // SEGMENT
        assert unknown == [False] * writes + [True] * (4 - writes)


def test_a_slot_that_gets_nearly_all_attention_has_room():
    sharp = model()
    with torch.no_grad():
        for name in ("to_q", "to_mem_k"):
            getattr(sharp.blocks[0], name).weight.mul_(20)
    writing = Writing(sharp)
    writing.draw(**AT_FIRST | {"tokens": 1, "prompt": "a"})
    assert MOST_SHARE < writing.shares.max() <= writing.figure.axes[3].get_ylim()[1]


def test_what_was_drawn_before_does_not_show(writing):
    writing.draw(**AT_FIRST)
    before = plots.png(writing.figure)
    assert writing.draw(**AT_FIRST | {"prompt": ""}).startswith("There is no prompt.")
    assert plots.png(writing.figure) != before
    assert writing.text == b"" and not len(writing.gates) and not len(writing.bank) and not len(writing.shares)
    writing.draw(**AT_FIRST | {"prompt": "another prompt", "tokens": 90})
    writing.draw(**AT_FIRST)
    assert plots.png(writing.figure) == before


def test_only_the_end_of_a_long_prompt_is_read():
    mine = model(segment_len=512)
    writing = Writing(mine)
    long = "ü" + "a" * TEXT_LIMIT
    caption = writing.draw(**AT_FIRST | {"prompt": long, "tokens": 5, "top_k": 1})
    assert caption.startswith("Only the last 4,096 of 4,098 bytes were read. 5 bytes generated after 4,096.")
    assert writing.text == bytes(mine.generate(tokens_of("a" * TEXT_LIMIT), 5, top_k=1).tokens[0].tolist())


def test_a_text_that_cannot_be_seen_is_said_to_be_white_space():
    blank = model()
    with torch.no_grad():
        blank.norm.weight.zero_()
        blank.norm.bias.copy_(blank.head.weight[ord("\n")])
        blank.head.weight[ord("\n")] *= 9
    writing = Writing(blank)
    caption = writing.draw(**AT_FIRST | {"tokens": 7, "top_k": 1})
    assert caption.startswith("7 bytes generated after 19, nothing but white space. ")
    assert writing.text == b"\n" * 7


def test_no_tap_stays_behind_even_after_an_error(mine, writing):
    writing.draw(**AT_FIRST)
    writing.on_frame = lambda sentence: 1 / 0
    with pytest.raises(ZeroDivisionError):
        writing.draw(**AT_FIRST)
    assert all(block.taps == [] for block in mine.blocks)


# The text as it is shown -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ODD)
def test_any_prompt_can_be_shown(writing, prompt):
    writing.draw(**AT_FIRST | {"prompt": prompt, "temperature": 2.0, "top_k": 256})
    plots.png(writing.figure)
    for text in writing.figure.axes[0].texts:
        place = text.get_window_extent()
        assert not text.get_text().strip() or (place.x0 >= 0 and place.x1 <= writing.figure.bbox.x1)
        assert "\n" not in text.get_text()


def test_bytes_become_characters_of_one_column():
    assert _readable("a$x_1$\\ é λ\n".encode()) == "a$x_1$\\ é λ\n"
    assert _readable(b"a\xffb\xe2\x98") == "a�b�"
    assert _readable("\t\x00\r日e\u0301\u202e".encode()) == "    □□□e□□"


def test_lines_keep_every_character_and_know_who_wrote_it():
    given, written = "one two\n\nthree ", "four\n" + "x" * (COLUMNS + 5) + "\n\n  " + "word " * 40
    lines = _wrapped(given, written)
    assert lines[:4] == [("one two", ""), ("", ""), ("three ", "four"), ("", "x" * COLUMNS)]
    assert "".join(part for line in lines for part in line) == (given + written).replace("\n", "")
    assert "".join(line[0] for line in lines) == given.replace("\n", "")
    assert max(len(first) + len(second) for first, second in lines) == COLUMNS
    assert not any(second.endswith("wor") for _, second in lines), "a word that fits is not cut"
    assert _wrapped("a\n", "\nb") == [("a", ""), ("", ""), ("", "b")]


def test_the_prompt_is_grey_and_of_a_long_text_the_end_is_shown(writing):
    writing.draw(**AT_FIRST | {"prompt": "one\ntwo ", "tokens": 1, "top_k": 1})
    grey, black = writing.figure.axes[0].texts[2:4]
    assert grey.get_text() == "two " and grey.get_color() != black.get_color() == "black"
    assert black.get_text() == "    " + _readable(writing.text).split("\n")[0]
    writing.draw(**AT_FIRST | {"prompt": "".join(f"{number}\n" for number in range(40)) + "x", "tokens": 1})
    shown = [text.get_text() for text in writing.figure.axes[0].texts[::2]]
    lines = 41 + writing.text.count(b"\n")
    assert len(shown) == ROWS and shown[0] == str(lines - ROWS)
    assert writing.figure.axes[0].get_title(loc="left").endswith(f": the last {ROWS} of {lines} lines")


# The playground ----------------------------------------------------------------------------------------------------


def test_the_playground_writes_when_generate_is_pressed_and_shows_how_it_gets_there(mine):
    playground = WritingPlayground(mine)
    assert playground.caption.startswith("300 bytes generated after 63. ")
    before, frames = playground.png, []
    playground.controls["tokens"].value = 20
    assert playground.png == before
    playground.image.observe(lambda change: frames.append(change.new), "value")
    playground.controls["go"].click()
    assert playground.caption.startswith("20 bytes generated after 63. ") and len(set(frames)) == math.ceil(20 / 3)
    assert playground.controls["layer"].max == 1


@pytest.mark.parametrize("fields", [{"vocab_size": 96}, {"paths": PATHS[:2]}])
def test_another_kind_of_model_is_refused(fields):
    for kind in (Writing, WritingPlayground):
        with pytest.raises(ValueError, match="model must read bytes"):
            kind(model(**fields))
