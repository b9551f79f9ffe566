"""Tokens between fact and question: the picture shows what was read or stored, and says which of the two it is."""

import pytest
import torch

from rmat_tutorial import RMAT, RMATConfig
from rmat_tutorial.asking import asked_after
from rmat_tutorial.pictures import gap as gaps
from rmat_tutorial.pictures.gap import GAPS, Gap, GapView, usual_readers
from rmat_tutorial.tasks import RecallTask

TASK = RecallTask(keys=6, values=4, facts=3, noise_tokens=3)

pytestmark = pytest.mark.usefixtures("style")


def model(seed) -> RMAT:
    torch.manual_seed(seed)
    return RMAT(RMATConfig(vocab_size=TASK.vocab_size, d_model=8, n_heads=2, n_layers=1, segment_len=8, chunk_size=4,
                           memory_slots=4, write_slots=2, gate="hard", gate_bias=0.0)).eval()


@pytest.fixture
def readers(monkeypatch):
    monkeypatch.setattr(gaps, "LIVE_GAPS", GAPS[:2])
    return usual_readers(model(0), model(1))


def stored(readers):
    """Something of all readers but the last, with wrong answers that depend on the gap."""
    found = {}
    for number, reader in enumerate(list(readers)[:-1]):
        example = {"facts": ["A=1", "C=0", "B=3"], "questions": ["B?", "A?", "C?"], "answers": ["3", "1", "0"],
                   "said": [["3", "1", "0"] if gap < 5000 else ["3", "2", "1"] for gap in GAPS]}
        found[reader] = {"gaps": list(GAPS), "accuracy": [1 - (number + 1) * place / 64 for place in range(len(GAPS))],
                         "answers": 192, "sequences": 64, "example": example}
    return found


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def dot(picture):
    return [(*line.get_xdata(), *line.get_ydata()) for line in picture.figure.axes[1].lines
            if line.get_markersize() == 15 and len(line.get_xdata())]


def test_what_is_stored_is_shown(readers):
    picture = Gap(readers, TASK, stored(readers))
    caption = picture.draw("sigmoid gate", 65536)
    place = GAPS.index(65536)
    share = 1 - 2 * place / 64
    assert caption == (
        f"Stored, sigmoid gate: after 65,536 tokens of noise {192 * share:.0f} of 192 answers are right, {share:.1%}. "
        "The stream above is the first of 64: 1 of its 3 answers are right."
    )
    assert dot(picture) == [(65536, share)]
    assert picture.shown == {"facts": ["A=1", "C=0", "B=3"],
                             "said": {"B?": ("3", "3"), "A?": ("1", "2"), "C?": ("0", "1")}}
    facts, right, wrong, _, length, _ = texts(picture)
    assert facts.splitlines() == ["A=1", "C=0", "B=3"]
    # Each question stands beside its fact.
    assert right.splitlines() == [" ", " ", "B? 3 ✓"] and wrong.splitlines() == ["A? 2 ✗", "C? 1 ✗"]
    assert length == "65,536"
    for reader, line in zip(readers, picture.figure.axes[1].lines, strict=False):
        assert list(line.get_ydata()) == stored(readers).get(reader, {"accuracy": []})["accuracy"]
        assert (line.get_alpha() == 1) == (reader == "sigmoid gate")


def test_what_is_near_is_read_once_by_the_reader_itself(readers, monkeypatch):
    calls = []
    monkeypatch.setattr(gaps, "asked_after", lambda *words, **more: calls.append(words) or asked_after(*words, **more))
    picture = Gap(readers, TASK, stored(readers))
    for reader in readers:
        for gap in (128, 64, 128):
            caption = picture.draw(reader, gap)
            asked = asked_after(readers[reader], TASK, [64, 128], 16)
            place = asked.gaps.index(gap)
            right = f"{asked.right[place]} of 48 answers"
            assert caption.startswith(f"Read just now, {reader}: after {gap} tokens of noise {right}")
            assert dot(picture) == [(gap, asked.right[place] / 48)]
            example = asked.example()
            assert picture.shown["facts"] == example["facts"]
            said = {question: (answer, one) for question, answer, one in
                    zip(example["questions"], example["answers"], example["said"][place], strict=True)}
            assert picture.shown["said"] == said
    assert [words[0] for words in calls] == list(readers.values())


def test_what_is_not_stored_says_how_to_get_it(readers):
    picture = Gap(readers, TASK, {})
    picture.draw("hard gate", 64)
    caption = picture.draw("hard gate", 1048576)
    assert caption.startswith("Nothing is stored of hard gate at 1,048,576 tokens")
    assert "evaluate --gaps 1048576" in caption
    assert picture.shown is None and dot(picture) == [] and texts(picture)[:3] == [""] * 3


def test_the_stream_ends_above_the_dot(readers):
    picture = Gap(readers, TASK, stored(readers))
    ends = []
    for gap in GAPS[2:]:
        picture.draw("hard gate", gap)
        (stream,) = picture.figure.axes[0].patches
        ends.append(stream.get_x() + stream.get_width())
        curve = picture.figure.axes[1]
        ((x, y),) = dot(picture)
        place = picture.figure.transFigure.inverted().transform(curve.transData.transform((x, y)))
        assert place[0] == pytest.approx(ends[-1], abs=1e-6)
    assert ends == sorted(ends) and ends[-1] < 0.75  # room for the questions


def test_every_combination_has_an_answer_and_the_picture_is_that_of_the_values_alone(readers):
    view = GapView(readers, TASK, stored(readers))
    assert view.caption.startswith("Read just now, hard gate: after 128 tokens")
    seen = {}
    for reader in readers:
        for gap in (GAPS[0], GAPS[1], GAPS[2], GAPS[-1]):
            view.set(reader=reader, gap=gap)
            seen[reader, gap] = (view.png, view.caption)
            assert f"{gap:,} tokens" in view.caption and reader in view.caption
    assert len({picture for picture, _ in seen.values()}) == len(seen)
    for values, before in list(seen.items())[::5]:
        view.set(reader=values[0], gap=values[1])
        assert (view.png, view.caption) == before


def test_the_usual_readers_differ_in_one_thing_each():
    one, other = model(0), model(1)
    hard, sigmoid, zeroed, recall = usual_readers(one, other).values()
    tokens = torch.randint(TASK.noise_tokens, (2, 40), generator=torch.Generator().manual_seed(0))
    assert torch.equal(hard(tokens).logits, one(tokens).logits)
    assert sigmoid.config.gate == "sigmoid" and zeroed.model is one and recall is other


@pytest.mark.parametrize("wrong", [{"nobody": {}}, {"hard gate": {"gaps": [64]}}])
def test_what_is_stored_of_others_is_refused(readers, wrong):
    with pytest.raises(ValueError, match="stored must have gaps, accuracy, answers, sequences, example for some of"):
        Gap(readers, TASK, wrong)
