"""The recall task: every query has one fact that answers it. What all tasks promise is in test_tasks_placed."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_one_line
from task_strategies import generator, tasks

from rmat_tutorial.tasks import IGNORED, RecallTask, key_name


@given(tasks(("recall",)), st.integers(25, 60), st.integers(1, 5), st.integers(0, 1000))
def test_every_query_is_answered_by_exactly_one_fact(task, tokens, rows, seed):
    stream, targets = task.batch(rows, tokens, generator(seed))
    assert stream.shape == targets.shape == (rows, tokens)
    for row, wanted in zip(stream.tolist(), targets.tolist(), strict=True):
        body, queries = row[: -task.facts], row[-task.facts:]
        labels = [task.decode(token) for token in body]
        facts = dict(label.split("=") for label in labels if label != "·")
        assert sum(label != "·" for label in labels) == len(facts) == task.facts
        assert sorted(task.decode(query) for query in queries) == sorted(f"{key}?" for key in facts)
        answers = [task.decode(target) for target in wanted[-task.facts:]]
        assert answers == [facts[task.decode(query).rstrip("?")] for query in queries]
        assert wanted[: -task.facts] == [IGNORED] * len(body)


@given(tasks(("recall",)), st.integers(25, 60), st.integers(0, 1000))
def test_answers_never_appear_in_the_input(task, tokens, seed):
    stream, _ = task.batch(4, tokens, generator(seed))
    assert int(stream.max()) < task.answer_token(0)
    assert task.answer_token(task.values - 1) == task.vocab_size - 1


def test_places_keys_values_and_queries_are_evenly_spread():
    # 20 000 facts over 40 places, 4 keys and 4 values: three standard deviations of the rarest are 3 % and less.
    task = RecallTask(keys=4, values=4, facts=2, noise_tokens=3)
    stream, targets = task.batch(10_000, 42, generator(0))
    keys = task.fact_keys(stream)
    places = (keys >= 0).float().sum(0)[:40] / 20_000
    assert places.sub(1 / 40).abs().max() < 0.004
    assert torch.bincount(keys[keys >= 0]).div(20_000).sub(1 / 4).abs().max() < 0.01
    answers = targets[targets != IGNORED] - task.answer_token(0)
    assert torch.bincount(answers).div(20_000).sub(task.chance).abs().max() < 0.01
    # The first query asks for the earlier fact as often as for the later one.
    first_asked = task.query_keys(stream)[:, -2:-1]
    earlier = keys.gather(1, (keys >= 0).float().argmax(1, keepdim=True))
    assert abs((first_asked == earlier).float().mean().item() - 0.5) < 0.02


def test_the_oracle_is_right_and_a_guess_is_at_chance():
    task = RecallTask()
    stream, targets = task.batch(500, 64, generator(3))
    places = torch.zeros(500, task.keys, dtype=torch.int64)
    rows, columns = (task.fact_keys(stream) >= 0).nonzero(as_tuple=True)
    stated = stream[rows, columns] - task.fact_token(0, 0)
    places[rows, stated // task.values] = stated % task.values
    asked = task.query_keys(stream)[:, -task.facts:]
    answers = targets[:, -task.facts:] - task.answer_token(0)
    assert torch.equal(places.gather(1, asked), answers)
    guess = torch.randint(task.values, answers.shape, generator=generator(4))
    assert abs((guess == answers).float().mean().item() - task.chance) < 0.03


def test_the_vocabulary_has_a_label_for_every_token():
    task = RecallTask(keys=3, values=2, facts=2, noise_tokens=2)
    assert [task.decode(token) for token in range(task.vocab_size)] == [
        "·", "·", "A=0", "A=1", "B=0", "B=1", "C=0", "C=1", "A?", "B?", "C?", "0", "1",
    ]
    assert task.decode(task.fact_token(1, 0)) == "B=0"
    assert task.decode(task.query_token(2)) == "C?"
    assert task.decode(task.answer_token(1)) == "1"
    assert [key_name(key) for key in (0, 25, 26, 52)] == ["A", "Z", "A1", "A2"]


def test_a_task_describes_itself_in_full():
    task = RecallTask(keys=5, fact_span=(0.1, 0.6))
    described = task.describe()
    assert described.pop("kind") == "recall"
    assert RecallTask(**described) == task


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"facts": 9}, ("facts", "at most keys = 8", "got 9")),
        ({"keys": 0}, ("keys", "at least 1", "got 0")),
        ({"values": 1}, ("values", "at least 2", "got 1")),
        ({"facts": 0}, ("facts", "got 0")),
        ({"noise_tokens": 0}, ("noise_tokens", "got 0")),
        ({"keys": 4.0}, ("keys", "int", "4.0")),
        ({"fact_span": (0.5, 0.5)}, ("fact_span", "(0.5, 0.5)")),
        ({"fact_span": (0.0, 1.5)}, ("fact_span", "1.5")),
        ({"fact_span": (-0.5, 1.0)}, ("fact_span", "-0.5")),
        ({"fact_span": (float("nan"), 1.0)}, ("fact_span", "nan")),
        ({"fact_span": 0.5}, ("fact_span", "two fractions", "0.5")),
        ({"fact_span": ("a", "b")}, ("fact_span", "'a'")),
    ],
)
def test_a_task_checks_itself(fields, fragments):
    with pytest.raises((TypeError, ValueError)) as error:
        RecallTask(**fields)
    assert_one_line(str(error.value), *fragments)


@pytest.mark.parametrize(
    ("call", "fragments"),
    [
        (lambda task: task.batch(1, 7, generator(0)), ("tokens = 7", "too short", "4 facts")),
        (lambda task: task.batch(0, 64, generator(0)), ("batch_size", "got 0")),
        (lambda task: task.stream(1, 64, 0, generator(0)), ("piece", "got 0")),
        (lambda task: task.fact_token(8, 0), ("key", "below 8", "got 8")),
        (lambda task: task.query_token(-1), ("key", "got -1")),
        (lambda task: task.answer_token(8), ("value", "below 8", "got 8")),
        (lambda task: task.decode(task.vocab_size), ("token", "got 96")),
    ],
)
def test_a_call_that_cannot_be_says_why(call, fragments):
    with pytest.raises(ValueError, match=r".") as error:
        call(RecallTask())
    assert_one_line(str(error.value), *fragments)


def test_the_shortest_stream_is_facts_then_queries():
    task = RecallTask()
    stream, _ = task.batch(3, 8, generator(0))
    assert bool((task.fact_keys(stream)[:, :4] >= 0).all())


def test_shipped_results_keep_their_streams():
    """The models in data/ were trained and scored on these tokens: a generator must go on giving them."""
    task = RecallTask(keys=3, values=2, facts=2, noise_tokens=2, fact_span=(0.0, 0.5))
    tokens, targets = task.batch(2, 12, generator(0))
    assert tokens.tolist() == [[3, 0, 1, 6, 1, 1, 1, 1, 1, 0, 8, 10], [7, 1, 0, 4, 1, 0, 0, 0, 1, 1, 9, 10]]
    assert targets[:, -2:].tolist() == [[12, 11], [11, 12]]
    digest = hashlib.sha256()
    for part in RecallTask().stream(5, 1000, 77, generator(1)):
        for tensor in part:
            digest.update(tensor.numpy().astype("<i8").tobytes())
    assert digest.hexdigest() == "babb60a8cd03eb2404548c3243ddc9aee8b8a8ed47bc235a7d3f45a8a012097d"
