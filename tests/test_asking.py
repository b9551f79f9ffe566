"""Asked after so many tokens: one reading gives what a stream put together by hand for each gap gives."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import assert_one_line
from task_strategies import tasks
from test_evaluation import growth
from torch import nn
from torch.nn.functional import one_hot

from rmat_tutorial import RMAT, RMATConfig, asking
from rmat_tutorial.asking import asked_after
from rmat_tutorial.language_model import Output
from rmat_tutorial.tasks import IGNORED, TASKS, RecallTask

TASK = RecallTask(keys=3, values=2, facts=2, noise_tokens=2)
CONFIG = RMATConfig(vocab_size=TASK.vocab_size, d_model=8, n_heads=2, n_layers=2, segment_len=6, chunk_size=3,
                    memory_slots=4, write_slots=2, gate="sigmoid", gate_bias=0.0)


class Transcript(nn.Module):
    """A perfect reader, whose state is all that it has read; ``calls`` has each state with the tokens read on it."""

    def __init__(self, task, segment_len=6):
        super().__init__()
        self.task, self.calls = task, []
        self.config = SimpleNamespace(vocab_size=task.vocab_size, segment_len=segment_len)
        self.embed = nn.Embedding(1, 1)

    def forward(self, tokens, state=None):
        before = tokens[:, :0] if state is None else state
        self.calls.append((before, tokens))
        heard = torch.cat([before, tokens], dim=1)
        answers = self.task.oracle(heard)[:, before.shape[1]:]
        return Output(one_hot(answers.clamp(min=0), self.task.vocab_size).float(), heard)


def model(seed=0) -> RMAT:
    torch.manual_seed(seed)
    return RMAT(CONFIG).double().eval()


def whole(asked, rows, seed):
    """The openings, and one stream of background behind them, that ``seed`` gives."""
    generator = torch.Generator().manual_seed(seed)
    tokens, _ = asked.task.batch(rows, asked.opening + asked.task.question_tokens, generator)
    (noise,) = asked.task.background(rows, asked.gaps[-1], asked.gaps[-1], generator)
    return tokens[:, : asked.opening], noise


@settings(max_examples=10)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True).filter(any), st.integers(1, 3),
       st.integers(1, 9), st.integers(0, 50))
def test_each_gap_is_a_stream_put_together_by_hand(gaps, rows, piece, seed):
    reader, before = model(seed), asking.PIECE
    try:
        asking.PIECE = piece
        asked = asked_after(reader, TASK, gaps, rows, seed)
    finally:
        asking.PIECE = before
    assert asked.gaps == tuple(sorted(gaps)) and asked.opening == 12
    stated, noise = whole(asked, rows, seed)
    for gap, said, right in zip(asked.gaps, asked.said, asked.right, strict=True):
        for row in range(rows):  # each alone: rows do not touch each other
            stream = torch.cat([stated[row], noise[row, :gap], asked.questions[row]])[None]
            logits = reader(stream).logits[0, -TASK.question_tokens:]
            assert torch.equal(said[row], logits.argmax(dim=-1))
        assert right == int((said == asked.targets).sum())


@settings(max_examples=25)
@given(tasks(), st.lists(st.integers(0, 20), min_size=1, max_size=3), st.integers(1, 3), st.integers(0, 50))
def test_every_task_can_be_answered_and_nothing_is_told_early(task, cells, rows, seed):
    gaps = [task.cell * count for count in cells]
    reader = Transcript(task)
    asked = asked_after(reader, task, gaps, rows, seed)
    assert asked.right == [asked.answers] * len(asked.gaps)
    # Before it is asked, a stream holds the opening and background, and nothing of an earlier question.
    before = [heard for heard, tokens in reader.calls if torch.equal(tokens, asked.questions)]
    background = set(task._background().flatten().tolist())
    for gap, heard in zip(asked.gaps, before, strict=True):
        assert heard.shape[1] == asked.opening + gap
        assert torch.equal(heard.gather(1, asked.places), asked.facts)
        assert set(heard.scatter(1, asked.places, -1).flatten().tolist()) <= background | {-1}


def test_the_answers_do_not_depend_on_the_other_gaps_or_on_their_order():
    reader = model()
    asked = asked_after(reader, TASK, [30, 0, 7, 30], 3, seed=4)
    assert asked.gaps == (0, 7, 30)
    for place, gap in enumerate(asked.gaps):
        alone = asked_after(reader, TASK, [gap], 3, seed=4)
        assert torch.equal(alone.said[0], asked.said[place])
        assert torch.equal(alone.questions, asked.questions)


def test_groups_of_rows_are_one_result(monkeypatch):
    monkeypatch.setattr(asking, "ROWS", 2)
    reader = Transcript(TASK)
    asked = asked_after(reader, TASK, [4], 5)
    assert asked.said.shape == (1, 5, 2) and asked.right == [asked.answers] == [10]
    assert len({tuple(row) for row in asked.facts.tolist()}) > 1


def test_the_opening_holds_many_facts_half_empty():
    task = RecallTask(keys=20, facts=20)
    assert asked_after(Transcript(task), task, [0], 1).opening == 42  # 7 segments of 6 hold twice 20
    late = replace(TASK, fact_span=(0.9, 1.0))  # which would leave no room in the opening
    assert asked_after(Transcript(TASK), late, [0], 50).places.min() == 0


def test_what_is_told_of_a_result():
    asked = asked_after(Transcript(TASK), TASK, [8, 2], 3, seed=1)
    found = asked.to_dict()
    example = found.pop("example")
    assert found == {"gaps": [2, 8], "accuracy": [1.0, 1.0], "answers": 6, "opening": 12, "sequences": 3, "seed": 1,
                     "source": TASK.describe()}
    told = dict(fact.split("=") for fact in example["facts"])
    assert [told[question[0]] for question in example["questions"]] == example["answers"]
    assert example["said"] == [example["answers"]] * 2


def test_sentences_are_told_whole():
    task = TASKS["stories"](people=1, moves=1, objects=1)
    example = asked_after(Transcript(task, 30), task, [6], 1).example()
    assert {len(fact.split()) for fact in example["facts"]} == {6}
    assert example["questions"] == [f"where is {example['facts'][0].split()[0]}"]


def test_a_reading_leaves_the_model_in_its_mode():
    reader = model().train()
    asked_after(reader, TASK, [3], 1)
    assert reader.training


class Deaf(nn.Module):
    """A model that is quick and says nothing: what grows beside it is the reading's own."""

    def __init__(self):
        super().__init__()
        self.config, self.embed = CONFIG, nn.Embedding(1, 1)

    def forward(self, tokens, state=None):
        return Output(torch.zeros(*tokens.shape, TASK.vocab_size), state)


def test_asking_in_constant_memory():
    assert growth("CONFIG", "from test_asking import *; asked_after(Deaf(), TASK, [3_000], 4, progress=False)",
                  "asked_after(Deaf(), TASK, [2_000_000, 9], 4, progress=False)") < 0.02


@pytest.mark.parametrize(("change", "fragments"), [
    ({"gaps": []}, ("gaps", "at least one")),
    ({"gaps": [3, -1]}, ("gaps", "got -1")),
    ({"gaps": [1.5]}, ("gaps", "1.5")),
    ({"sequences": 0}, ("sequences", "got 0")),
    ({"seed": -1}, ("seed", "got -1")),
    ({"task": RecallTask()}, ("source has 96 tokens", "vocab_size = 13")),
    ({"task": TASKS["stories"](), "gaps": [64]}, ("multiples of 6 for stories", "such as 60", "got 64")),
])
def test_what_cannot_be_asked_says_why(change, fragments):
    arguments = {"task": TASK, "gaps": [3], "sequences": 1, "seed": 0, **change}
    with pytest.raises((TypeError, ValueError)) as error:
        asked_after(model(), **arguments)
    assert_one_line(str(error.value), *fragments)


def test_weights_that_are_damaged_are_named():
    reader = model()
    reader.head.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="after 15 tokens"):
        asked_after(reader, TASK, [3], 1)


def test_answers_that_are_due_are_those_that_are_counted():
    asked = asked_after(Transcript(TASKS["stories"](), 96), TASKS["stories"](), [6], 2)
    assert asked.answers == 12 and int((asked.targets != IGNORED).sum(dim=1)[0]) == 6
