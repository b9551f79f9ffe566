"""The demonstrations of notebook 00: the streams they make, what they show, and an answer to whatever is typed."""

import io
from itertools import product

import ipywidgets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rmat_tutorial import RMAT, RMATConfig, record
from rmat_tutorial.facts import FactsError, make_stream, parse_facts, read_stream
from rmat_tutorial.playground import LENGTHS, TEXT_LIMIT, RecallPlayground, TextPlayground, _outlines
from rmat_tutorial.tasks import RecallTask

TASK = RecallTask()
READERS = ("with memory", "without memory", "with memory, wiped after each segment")
SMALL = {"d_model": 16, "n_heads": 2, "memory_slots": 6, "write_slots": 2}


def recall_model(**fields) -> RMAT:
    torch.manual_seed(1)
    return RMAT(RMATConfig(vocab_size=TASK.vocab_size, **(SMALL | fields))).eval()


def text_model(**fields) -> RMAT:
    torch.manual_seed(1)
    return RMAT(RMATConfig(**(SMALL | {"segment_len": 16} | fields))).eval()


@pytest.fixture(scope="module")
def recall() -> RecallPlayground:
    return RecallPlayground(TASK, recall_model(), recall_model(paths=("full", "chunk")))


@pytest.fixture(scope="module")
def text() -> TextPlayground:
    return TextPlayground(text_model())


def press_go(playground: RecallPlayground, **values) -> str:
    for name, value in values.items():
        playground.controls[name].value = value
    playground.controls["go"].click()
    return playground.caption


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


# Facts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["A=3 C=7", "A=3, C=7", "  a=3,c=7 ", "A=03\tC=7"])
def test_facts_are_read_as_they_are_typed(text):
    assert parse_facts(text, TASK) == [(0, 3), (2, 7)]


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("", ["no fact to remember", "from A to H", "from 0 to 7"]),
        (" ,, ", ["no fact to remember"]),
        ("A3", ["“A3” is no fact", "such as A=7"]),
        ("A=3 C = 7", ["“C” is no fact"]),
        ("I=1", ["“I=1” is no fact"]),
        ("A=8", ["“A=8” is no fact"]),
        ("A=-1", ["“A=-1” is no fact"]),
        ("A=³", ["“A=³” is no fact"]),
        ("A=" + "9" * 5000, ["is no fact"]),
        ("A=3 a=3", ["A is stated twice"]),
    ],
)
def test_what_is_no_fact_is_said(text, fragments):
    with pytest.raises(FactsError) as error:
        parse_facts(text, TASK)
    assert all(fragment in str(error.value) for fragment in fragments) and len(str(error.value)) < 200


@given(
    facts=st.dictionaries(st.integers(0, 7), st.integers(0, 7), min_size=1, max_size=8),
    length=st.integers(64, 700),
    start=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_a_stream_states_its_facts_once_and_asks_them_at_its_end(facts, length, start, seed):
    facts = list(facts.items())
    stream = make_stream(TASK, facts, length, start, seed)
    labels = [TASK.decode(token) for token in stream.tokens]
    names = [f"{'ABCDEFGH'[key]}={value}" for key, value in facts]
    assert len(labels) == length
    assert [label for label in labels[: -len(facts)] if label != "·"] == names
    assert [labels[place] for place in stream.places] == names
    assert labels[-len(facts) :] == [f"{'ABCDEFGH'[key]}?" for key, _ in facts]
    assert stream.noise_after == labels[stream.places[-1] + 1 :].index(labels[-len(facts)])


def test_the_seed_makes_the_noise_and_nothing_else():
    one, same, other = (make_stream(TASK, [(0, 3)], 256, 0.5, seed) for seed in (1, 1, 2))
    assert torch.equal(one.tokens, same.tokens)
    assert not torch.equal(one.tokens, other.tokens) and one.places == other.places


def test_facts_start_where_they_are_put():
    places = [make_stream(TASK, [(0, 3), (1, 1)], 1002, start, 0).places for start in (0.0, 0.5, 1.0)]
    assert places == [[0, 62], [500, 562], [875, 937]]


# Reading ---------------------------------------------------------------------------------------------------------


def read(model: RMAT, stream, wipe: bool = False, at_once: int = 100):
    readings = list(read_stream(model, TASK, stream, wipe, at_once))
    return torch.cat([r.opened for r in readings]), torch.cat([r.answers for r in readings])


def end_of(model: RMAT, tokens: torch.Tensor, questions: int) -> torch.Tensor:
    with torch.no_grad():
        chances = model(tokens[None]).logits[0, -questions:].softmax(-1)
    return chances[:, TASK.first_answer : TASK.first_answer + TASK.values]


@pytest.mark.parametrize("paths", [("full", "chunk", "memory"), ("full", "chunk")])
def test_the_last_answers_are_those_of_the_stream_itself(paths):
    model, stream = recall_model(paths=paths), make_stream(TASK, [(0, 3), (4, 1), (7, 7)], 256, 0.2, 1)
    answers = read(model, stream)[1]
    assert answers.shape == (8, 3, 8)
    assert torch.allclose(answers[-1], end_of(model, stream.tokens, 3), atol=1e-6)


def test_an_answer_on_the_way_is_that_of_the_stream_cut_there():
    model, stream = recall_model(), make_stream(TASK, [(0, 3), (4, 1)], 256, 0.4, 1)
    cut = torch.cat([stream.tokens[: 5 * 32 - 2], stream.tokens[-2:]])
    assert not torch.cat([stream.tokens[5 * 32 - 2 : 5 * 32]]).ge(TASK.first_fact).any(), "noise makes room"
    assert torch.allclose(read(model, stream)[1][4], end_of(model, cut, 2), atol=1e-6)


def test_questions_never_push_a_fact_out():
    """A fact in the last places of its segment is still there when the segment's questions are asked."""
    model = recall_model(paths=("full",))
    streams = [make_stream(TASK, [(0, value)], 64, 31 / 63, 1) for value in (3, 5)]
    assert [stream.places for stream in streams] == [[31], [31]]
    first, second = (read(model, stream)[1] for stream in streams)
    assert not torch.allclose(first[0], second[0], atol=1e-4)


@pytest.mark.parametrize("wipe", [False, True])
def test_how_many_segments_are_read_at_once_does_not_matter(wipe):
    model, stream = recall_model(), make_stream(TASK, [(0, 3), (4, 1)], 256, 0.2, 1)
    whole = read(model, stream, wipe)
    for at_once in (1, 3):
        parts = read(model, stream, wipe, at_once)
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(whole, parts, strict=True))


def test_a_wiped_memory_and_a_missing_one_know_the_last_segment_only():
    streams = [make_stream(TASK, [(0, value)], 256, 0.0, 1) for value in (3, 5)]
    for model, wipe in ((recall_model(), True), (recall_model(paths=("full", "chunk")), False)):
        first, second = (read(model, stream, wipe)[1] for stream in streams)
        assert not torch.allclose(first[0], second[0], atol=1e-4)
        assert torch.equal(first[1:], second[1:])
    first, second = (read(recall_model(), stream)[1] for stream in streams)
    assert not torch.equal(first[-1], second[-1]), "a memory that is not wiped carries the fact"


def test_the_gates_are_those_of_the_writes():
    model, stream = recall_model(), make_stream(TASK, [(0, 3)], 128, 0.2, 1)
    with torch.no_grad(), record(model) as trace:
        model(stream.tokens[None])
    expected = [[layer.write.gate[0].mean(-1) for layer in segment.layers] for segment in trace.segments]
    assert torch.allclose(read(model, stream)[0], torch.stack([torch.cat(layers) for layers in expected]), atol=1e-6)
    assert read(recall_model(paths=("full",)), stream)[0].shape == (4, 0)


def test_reading_leaves_no_tap_behind():
    model = recall_model()
    read(model, make_stream(TASK, [(0, 3)], 128, 0.2, 1))
    assert all(block.taps == [] for block in model.blocks)


# The first playground --------------------------------------------------------------------------------------------


def test_there_is_a_picture_before_go_is_pressed(recall):
    assert recall.caption.startswith("With memory: ") and "; chance is 0.5 of 4. " in recall.caption
    assert pixels(recall.png).std() > 10


@pytest.mark.parametrize("reader", READERS)
def test_the_caption_counts_what_the_model_answers(recall, reader):
    caption = press_go(recall, facts="A=3 C=7 F=0", length=512, start=0.25, seed=4, reader=reader)
    stream = make_stream(TASK, [(0, 3), (2, 7), (5, 0)], 512, 0.25, 4)
    model, wipe = recall.picture.readers[reader]
    right = (read(model, stream, wipe)[1][-1].argmax(-1) == torch.tensor([3, 7, 0])).tolist()
    assert recall.picture.right == right
    assert caption.startswith(
        f"{reader.capitalize()}: {sum(right)} of 3 answers right after {stream.noise_after} tokens of noise; "
        "chance is 0.375 of 3."
    )


def test_the_caption_counts_the_segments_after_which_a_gate_opened(recall):
    caption = press_go(recall, facts="A=3 C=7", length=256, start=0.5, reader=READERS[0])
    assert recall.picture.opened.shape == (8, 4) and recall.picture.opened.min() > 0.01
    # Facts at 127 and 142 lie in the segments 3 and 4.
    assert caption.endswith(" A gate opened after 8 of 8 segments, 2 of them with a fact.")
    recall.picture.opened = torch.zeros(8, 4)
    recall.picture.opened[[2, 4], 1] = 0.02
    stream = make_stream(TASK, [(0, 3), (2, 7)], 256, 0.5, 0)
    model = recall.picture.readers[READERS[0]][0]
    assert recall.picture._says_gates(stream, model) == " A gate opened after 2 of 8 segments, 1 of them with a fact."
    assert "gate" not in press_go(recall, reader=READERS[1])


def test_every_gate_that_opened_has_an_edge(recall):
    press_go(recall, facts="A=3 C=7", length=256, start=0.5, reader=READERS[0])
    opened = recall.picture.opened
    edges = [path.vertices for path in recall.picture._gates.collections[0].get_paths()]
    assert len(edges) == opened.numel() == 8 * 4
    for corners, (row, segment) in zip(edges, product(range(4), range(8)), strict=True):
        assert corners.min(axis=0).tolist() == [32 * segment, row]
        assert corners.max(axis=0).tolist() == [32 * (segment + 1), row + 1]
    assert _outlines(np.array([[0.0, np.nan], [0.005, 0.02]]), 64)[0].tolist() == [[32, 1], [64, 1], [64, 2], [32, 2]]
    assert len(_outlines(np.array([[0.0, np.nan], [0.005, 0.02]]), 64)) == 1


@pytest.mark.parametrize("reader", READERS)
def test_every_combination_of_controls_has_an_answer(recall, reader):
    for facts, length, start in product(["A=3", "A=0 B=1 C=2 D=3 E=4 F=5 G=6 H=7"], LENGTHS[:2], [0.0, 1.0]):
        assert "answers right" in press_go(recall, facts=facts, length=length, start=start, reader=reader)
    assert "after 1 token of noise" in press_go(recall, facts="A=3 B=1 C=7 D=2", length=64, start=1.0)
    assert "answers right" in press_go(recall, facts="A=3", length=LENGTHS[-1])


@pytest.mark.parametrize(
    ("name", "value"), [("facts", "H=1"), ("length", 256), ("start", 0.5), ("seed", 9), ("reader", READERS[1])]
)
def test_each_control_changes_the_picture_when_go_is_pressed(recall, name, value):
    press_go(recall, facts="A=3 C=7", length=512, start=0.0, seed=1, reader=READERS[0])
    before = recall.png
    recall.controls[name].value = value
    assert recall.png == before
    press_go(recall)
    assert recall.png != before


def test_the_picture_grows_while_the_stream_is_read(recall):
    press_go(recall, facts="A=3", length=64)
    seen = []
    recall.image.observe(lambda change: seen.append((change.new, recall._caption.value)), "value")
    press_go(recall, length=1024)
    recall.image.unobserve_all("value")
    # The last picture comes with the caption of the one before.
    assert len({png for png, _ in seen}) == len(seen) == 6
    unread = [int((pixels(png) == 224).all(-1).sum()) for png, _ in seen]
    assert unread == sorted(unread, reverse=True) and unread[0] > unread[-2] > unread[-1]
    assert "of 1,024 tokens" in seen[-1][1] and "answers right" in recall._caption.value


def test_text_that_states_no_facts_is_answered_by_a_sentence(recall):
    assert press_go(recall, facts="A3").startswith("“A3” is no fact.")
    assert recall.picture.right == [] and recall.image.layout.display != "none"
    assert "of 1 answers right" in press_go(recall, facts="A=3") and len(recall.picture.right) == 1


def test_models_whose_segments_do_not_fit_are_refused():
    for length in (12, 48, 128):
        model = recall_model(segment_len=length)
        with pytest.raises(ValueError, match="segment_len must divide 64 and be at least 16"):
            RecallPlayground(TASK, model, model)


# The second playground -------------------------------------------------------------------------------------------


def test_the_next_byte_is_the_one_of_the_model(text):
    text.controls["text"].value = "def f(x):\n    re"
    with torch.no_grad():
        expected = text.picture.model(torch.tensor([list(b"def f(x):\n    re")])).logits[0, -1].softmax(-1)
    assert torch.allclose(text.picture.chances, expected, atol=1e-6)
    first = chr(expected.argmax()) if 32 < expected.argmax() < 127 else f"{expected.argmax():02x}"
    assert text.caption.startswith(f"Next byte: “{first}” {expected.max():.0%}, then ")


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_maps_are_those_of_the_layer_and_head(text, layer, head):
    text.controls["text"].value = "x" * 20 + "abcdefg"
    text.controls["layer"].value, text.controls["head"].value = layer, head
    with torch.no_grad(), record(text.picture.model) as trace:
        text.picture.model(torch.tensor([list(b"x" * 20 + b"abcdefg")]))
    last = trace.segments[-1].layers[layer]
    for path, shown in text.picture.maps.items():
        assert torch.allclose(shown, getattr(last, path)[0, head], atol=1e-6)
    assert f"Layer {layer} weighs full {last.mix['full']:.2f}" in text.caption


@pytest.mark.parametrize(("name", "value"), [("text", "another text"), ("layer", 1), ("head", 1)])
def test_each_control_redraws_at_once(text, name, value):
    for control, default in (("text", "a text, longer than a segment"), ("layer", 0), ("head", 0)):
        text.controls[control].value = default
    before = text.png
    text.controls[name].value = value
    assert text.png != before
    assert "rmat-live" in text.controls[name]._dom_classes


def test_a_picture_does_not_depend_on_how_one_came_to_it(text):
    """Only what moves is drawn again; nothing of an earlier picture may stay."""
    for control, value in (("text", "one text, longer than a segment"), ("layer", 1), ("head", 1)):
        text.controls[control].value = value
    before = text.png
    for control, value in (("layer", 0), ("text", ""), ("text", "another"), ("head", 0), ("head", 1), ("layer", 1)):
        text.controls[control].value = value
    text.controls["text"].value = "one text, longer than a segment"
    assert text.png == before


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "There is no text."),
        ("a", "Nothing was written to the bank: a segment has 16 bytes."),
        ("a" * 15, "Nothing was written to the bank"),
        ("a" * 16, "The bank was written once;"),
        ("a" * 33, "The bank was written 2 times;"),
        ("Grüße, 日本語 ☃ \ud800", "The bank was written once;"),
        ("\x00\t\n\\ $x^2$ %d {0}", "The bank was written once;"),
        ("a" * (TEXT_LIMIT + 1), "Only the last 4,096 of 4,097 bytes were read."),
    ],
    ids=["empty", "one", "almost a segment", "a segment", "two", "not ASCII", "markup", "long"],
)
def test_whatever_is_typed_has_an_answer(text, typed, words):
    text.controls["text"].value = "b"
    text.controls["text"].value = typed
    assert words in text.caption
    assert pixels(text.png).std() > 3


def test_a_text_after_no_text_is_shown_again(text):
    text.controls["text"].value = "some text"
    before = text.png
    text.controls["text"].value = ""
    assert text.png != before and len(text.picture.chances) == 0
    text.controls["text"].value = "some text"
    assert text.png == before


def test_another_kind_of_model_is_refused():
    for fields in ({"vocab_size": 96}, {"paths": ("full", "chunk")}):
        with pytest.raises(ValueError, match="model must read bytes"):
            TextPlayground(text_model(**fields))


def test_no_playground_holds_an_output_widget(recall, text):
    for playground in (recall, text):
        assert not any(isinstance(child, ipywidgets.Output) for child in playground.children)
