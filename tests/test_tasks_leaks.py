"""No task gives an answer away: nothing but the fact says what is asked, and what answers are is a matter of chance."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from task_strategies import blank, generator, long_enough, tasks, with_other_value, without_facts
from torch import Tensor
from torch.nn.functional import one_hot

from rmat_tutorial.tasks import IGNORED, TASKS, PlacedTask, StoriesTask

# Few answers, so that a small share of them more than chance would show.
SMALL = {
    "recall": {"keys": 4, "values": 4, "facts": 2, "noise_tokens": 3},
    "rewrite": {"keys": 4, "values": 4, "keys_used": 2, "writes": 4, "noise_tokens": 3},
    "copy": {"symbols": 4, "passage": 3, "noise_tokens": 3},
    "mqar": {"keys": 4, "values": 4, "pairs": 2, "noise_tokens": 3},
    "stories": {"people": 2, "places": 4, "objects": 2, "moves": 3},
}
each_task = pytest.mark.parametrize(
    "task", [*(TASKS[kind](**fields) for kind, fields in SMALL.items()), StoriesTask(**SMALL["stories"], hops=2)],
    ids=lambda task: f"{task.kind}{getattr(task, 'hops', '')}",
)
more_tokens, seeds = st.integers(0, 30), st.integers(0, 1000)


# Facts and answers.


@given(tasks(), more_tokens, seeds)
def test_with_another_value_in_the_fact_that_answer_changes_and_no_other(task, more, seed):
    """The stream with the other value is one that the task may draw too: what stands before a fact does not tell."""
    length = long_enough(task) + more
    tokens, targets, distances = next(task.pieces(2, length, length, generator(seed)))
    facts = torch.arange(length) - distances
    for row, column in (targets != IGNORED).nonzero().tolist():
        place = int(facts[row, column])
        changed, wanted = tokens[row].clone(), targets[row].clone()
        changed[place], answer = with_other_value(task, int(tokens[row, place]))
        rests_on_it = (targets[row] != IGNORED) & (facts[row] == place)
        wanted[rests_on_it] = answer
        assert torch.equal(task.oracle(changed[None])[0], wanted)
        assert torch.equal(task.oracle(tokens[row : row + 1])[0], targets[row])


@given(tasks(), more_tokens, seeds)
def test_the_questions_do_not_say_the_answers(task, more, seed):
    tokens, targets = task.batch(4, long_enough(task) + more, generator(seed))
    answers = set(targets[targets != IGNORED].tolist())
    assert not answers & set(tokens[:, -task.question_tokens :].flatten().tolist())


@each_task
def test_what_was_said_before_the_fact_is_right_by_chance_only(task):
    rows, length, seed = 1500, long_enough(task) + 12, 5
    tokens, targets, distances = next(task.pieces(rows, length, length, generator(seed)))
    first = (targets != IGNORED).float().argmax(1)
    fact = first - distances[torch.arange(rows), first]
    positions = torch.arange(length)
    hidden = (positions >= fact[:, None]) & (positions < length - task.question_tokens)
    said = task.oracle(tokens.masked_fill(hidden, blank(task)))[torch.arange(rows), first]
    known = said != IGNORED
    right = (said == targets[torch.arange(rows), first])[known]
    if task.kind in ("rewrite", "stories"):
        assert len(right) > 100  # an older value of the key, an earlier place of the person
    assert int(right.sum()) <= above(len(right), task.chance)


# Chance.


def above(count: int, chance: float) -> float:
    """More right answers of ``count`` guesses than this are four standard deviations too many."""
    return count * chance + 4 * (count * chance * (1 - chance)) ** 0.5


def drawn(task: PlacedTask, rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Tokens, distances, the number of the value that answers each question ``(rows, n)``, and the length."""
    length = long_enough(task) + 12
    tokens, targets, distances = next(task.pieces(rows, length, length, generator(seed)))
    asked = targets[0] != IGNORED
    answers = targets[:, asked]
    return tokens, distances[:, asked], answers - answers.min(), length


@each_task
def test_each_answer_is_as_likely_as_another_at_each_question(task):
    rows = 8000
    _, _, answers, _ = drawn(task, rows, 1)
    values = round(1 / task.chance)
    for question in answers.T:
        counts = torch.bincount(question, minlength=values)
        assert len(counts) == values
        assert (counts - rows * task.chance).abs().max() < above(rows, task.chance) - rows * task.chance
    guesses = torch.randint(values, answers.shape, generator=generator(2))
    wrong_by = abs((guesses == answers).double().mean().item() - task.chance)
    assert wrong_by < 4 * (task.chance * (1 - task.chance) / answers.numel()) ** 0.5


# A reader for whom the facts were taken out.


def linear_reader(features: Tensor, answers: Tensor, values: int) -> int:
    """Right answers on the second half of the rows of a ridge regression on the first half."""
    half = len(features) // 2
    features = torch.cat([features.double(), torch.ones(len(features), 1)], dim=1)
    known, wanted = features[:half], one_hot(answers[:half], values).double()
    weights = torch.linalg.solve(known.T @ known + torch.eye(known.shape[1]), known.T @ wanted)
    return int(((features[half:] @ weights).argmax(1) == answers[half:]).sum())


def look(task: PlacedTask, tokens: Tensor) -> Tensor:
    """What a reader may go by: where the blanks are, the background, the questions in their order."""
    body, questions = tokens[:, : -task.question_tokens], tokens[:, -task.question_tokens :]
    background = torch.stack([(body == token).sum(1) for token in range(task.vocab_size)], dim=1)
    asked = one_hot(questions, task.vocab_size).flatten(1)
    return torch.cat([body == blank(task), body, background, asked], dim=1).float()


@each_task
def test_without_the_facts_a_reader_does_no_better_than_a_guess(task):
    rows, seed = 6000, 3
    tokens, _, answers, _ = drawn(task, rows, seed)
    features = look(task, without_facts(task, tokens, seed))
    features = features[:, features.std(0) > 0]
    values = round(1 / task.chance)
    for question in answers.T:
        assert linear_reader(features, question, values) <= above(rows // 2, task.chance)
    # The same reader finds an answer that leaks in one stream of ten.
    leak = one_hot(answers[:, 0], values) * (torch.arange(rows) % 10 == 0)[:, None]
    assert linear_reader(torch.cat([features, leak], dim=1), answers[:, 0], values) > above(rows // 2, task.chance)


def association(one: Tensor, other: Tensor) -> float:
    """Chi-square of the table of two columns of small numbers, the larger the more one tells of the other."""
    table = torch.zeros(int(one.max()) + 1, int(other.max()) + 1, dtype=torch.float64)
    table.index_put_((one, other), torch.ones(len(one), dtype=torch.float64), accumulate=True)
    table = table[table.sum(1) > 0]
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    return float(((table - expected) ** 2 / expected)[:, table.sum(0) > 0].sum())


def rank_among_shuffled(feature: Tensor, answers: Tensor, shuffles: int = 300) -> float:
    """The share of random reorderings of ``answers`` that go with ``feature`` as well as they do themselves."""
    order, found = generator(9), association(feature, answers)
    shuffled = (answers[torch.randperm(len(answers), generator=order)] for _ in range(shuffles))
    return sum(association(feature, other) >= found for other in shuffled) / shuffles


def name_in_question(task: PlacedTask) -> int:
    """Where the first question has the token that says what it asks."""
    return {1: 2, 2: 3}[task.hops] if task.kind == "stories" else 0


def before_the_fact(task: PlacedTask, tokens: Tensor, distances: Tensor) -> Tensor:
    """The token before the fact of the first question; the stream's first where the fact begins it."""
    asked = tokens.shape[1] - task.question_tokens + (4 if task.kind == "stories" else 0)
    begun = asked - distances - {"mqar": 1, "stories": 4}.get(task.kind, 0)
    return tokens.gather(1, (begun - 1).clamp(min=0)[:, None])[:, 0]


FEATURES: dict[str, Callable[[PlacedTask, Tensor, Tensor], Tensor]] = {
    "distance": lambda task, tokens, distances: distances // 8,
    "what is asked": lambda task, tokens, distances: tokens[:, name_in_question(task) - task.question_tokens],
    "first token": lambda task, tokens, distances: tokens[:, 0],
    "token before the fact": before_the_fact,
    "token before the questions": lambda task, tokens, distances: tokens[:, -task.question_tokens - 1],
}


@each_task
@pytest.mark.parametrize("feature", FEATURES)
def test_places_order_and_noise_go_with_no_answer(task, feature):
    tokens, distances, answers, _ = drawn(task, 4000, 11)
    found = FEATURES[feature](task, without_facts(task, tokens, 11), distances[:, 0])
    assert rank_among_shuffled(found, answers[:, 0]) > 0.003


@each_task
def test_facts_are_asked_in_any_order(task):
    length = long_enough(task) + 12
    episode = task.episode(4000, length, generator(4))
    sources = episode.sources[episode.targets != IGNORED].view(4000, -1)
    if task.kind == "copy":
        assert (sources.diff(dim=1) == 1).all()
        return
    first, second = sources[:, 0], sources[:, 1]
    different = first != second  # two things may be with one person
    assert abs(int((first < second)[different].sum()) - int(different.sum()) / 2) < 2 * int(different.sum()) ** 0.5


def test_an_answer_that_goes_with_a_place_would_be_found():
    answers = torch.randint(4, (4000,), generator=generator(0))
    places = torch.randint(20, (4000,), generator=generator(1))
    places[::10] = answers[::10]
    assert rank_among_shuffled(places, answers) == 0
