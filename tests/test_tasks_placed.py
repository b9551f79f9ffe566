"""What every task promises: an answer rests on its fact, a stream is the same however it is cut, errors say why."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_one_line
from task_strategies import KINDS, blank, generator, long_enough, tasks

from rmat_tutorial.tasks import IGNORED, TASKS, CopyTask, MQARTask, PlacedTask, RewriteTask, StoriesTask
from rmat_tutorial.tasks.stories import OBJECTS, PEOPLE, WORDS

USUAL = (*(task() for task in TASKS.values()), StoriesTask(hops=2))
each_task = pytest.mark.parametrize("task", USUAL, ids=lambda task: f"{task.kind}{getattr(task, 'hops', '')}")
more_tokens, seeds = st.integers(0, 40), st.integers(0, 1000)


def whole(task: PlacedTask, rows: int, tokens: int, seed: int, piece: int | None = None) -> list[torch.Tensor]:
    """Tokens, targets and distances of whole streams that were drawn in pieces."""
    parts = list(task.pieces(rows, tokens, piece or tokens, generator(seed)))
    return [torch.cat(column, dim=1) for column in zip(*parts, strict=True)]


# What a stream holds.


@given(tasks(), more_tokens, seeds)
def test_a_perfect_reader_is_always_right_and_answers_only_what_is_asked(task, more, seed):
    tokens, targets, _ = whole(task, 3, long_enough(task) + more, seed)
    assert torch.equal(task.oracle(tokens), targets)


@given(tasks(), more_tokens, seeds)
def test_questions_come_last_and_each_has_a_distance(task, more, seed):
    length = long_enough(task) + more
    tokens, targets, distances = whole(task, 3, length, seed)
    assert tokens.dtype == targets.dtype == distances.dtype == torch.int64
    assert tokens.shape == targets.shape == distances.shape == (3, length)
    assert int(tokens.min()) >= 0 and int(tokens.max()) < task.vocab_size
    asked = targets != IGNORED
    assert torch.equal(asked, distances > 0)
    assert not asked[:, : -task.question_tokens].any()
    assert asked[:, -1].all()
    assert ((targets[asked] >= 0) & (targets[asked] < task.vocab_size)).all()


@given(tasks(), more_tokens, seeds)
def test_a_distance_leads_to_the_last_fact_that_the_answer_rests_on(task, more, seed):
    """Nothing is missing without what stands between fact and questions; the answer is, without all up to the fact."""
    tokens, targets, distances = whole(task, 2, long_enough(task) + more, seed)
    for row, column in (targets != IGNORED).nonzero().tolist():
        place = column - int(distances[row, column])
        after = place + (2 if task.kind == "stories" else 1)  # a sentence ends with its period
        body = tokens.shape[1] - task.question_tokens
        assert place < body
        kept, gone = tokens[row].clone(), tokens[row].clone()
        kept[after:body] = blank(task)
        gone[:after] = blank(task)
        wanted = int(targets[row, column])
        assert int(task.oracle(kept[None])[0, column]) == wanted
        assert int(task.oracle(gone[None])[0, column]) == IGNORED


@given(tasks(), more_tokens, seeds)
def test_facts_lie_in_cells_within_their_span(task, more, seed):
    length = long_enough(task) + more
    places = task.episode(4, length, generator(seed)).places
    cells, lead = divmod(length - task.question_tokens, task.cell)
    start, stop = (lead + task.cell * round(bound * cells) for bound in task.fact_span)
    assert start <= int(places.min()) and int(places.max()) < stop
    for row in places.tolist():
        assert len(set(row)) == len(row)
        taken = {(place - lead) // task.cell for place in row}
        assert len(taken) * task.cell == len(row)  # whole cells


@each_task
def test_facts_are_evenly_spread(task):
    # 30 cells; a share of 8 000 rows that is off by four standard deviations would be one in 16 000.
    task, rows = replace(task, fact_span=(0.2, 0.8)), 8000
    lead = 1 % task.cell
    length = lead + 50 * task.cell + task.question_tokens
    cells = (task.episode(rows, length, generator(0)).places - lead) // task.cell
    if task.kind == "copy":
        begins, room = cells[:, 0] - 10, 30 - task.passage
        counts, chance = torch.bincount(begins, minlength=room), 1 / room
        assert len(counts) == room
    else:
        taken = torch.zeros(rows, 50, dtype=torch.bool).scatter(1, cells, True)
        counts, chance = taken.sum(0)[10:40], task._needs()[0] / 30
    expected = rows * chance
    assert (counts - expected).abs().max() < 4 * (expected * (1 - chance)) ** 0.5


@each_task
def test_rows_and_seeds_differ_and_a_seed_repeats(task):
    tokens, _ = task.batch(8, 100, generator(7))
    assert len({tuple(row) for row in tokens.tolist()}) == 8
    assert torch.equal(tokens, task.batch(8, 100, generator(7))[0])
    assert not torch.equal(tokens, task.batch(8, 100, generator(8))[0])


@given(tasks(), more_tokens, st.integers(1, 70), seeds)
def test_a_stream_is_the_same_however_it_is_cut(task, more, piece, seed):
    length = long_enough(task) + more
    pieces = list(task.pieces(3, length, piece, generator(seed)))
    assert [part.shape[1] for part, *_ in pieces[:-1]] == [piece] * (len(pieces) - 1)
    for part, cut in zip(whole(task, 3, length, seed), zip(*pieces, strict=True), strict=True):
        assert torch.equal(torch.cat(cut, dim=1), part)
    for (tokens, targets, _), pair in zip(pieces, task.stream(3, length, piece, generator(seed)), strict=True):
        assert torch.equal(pair[0], tokens) and torch.equal(pair[1], targets)


def test_long_streams_take_no_more_memory_than_short_ones():
    # In a process of its own: the peak of this one may be higher than what is looked for.
    code = """
import resource, torch
from rmat_tutorial.tasks import IGNORED, TASKS
def read(length):
    return [sum(int((targets != IGNORED).sum()) for _, targets in
                task().stream(2, length, 4096, torch.Generator().manual_seed(0))) for task in TASKS.values()]
read(100_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answers = read(2_000_000)
print(*answers, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *answers, growth = done.stdout.split()
    assert answers == ["8", "8", "16", "8", "12"]
    # Whole, one stream and its targets would take 64 MB, a fifth of what torch alone takes.
    assert float(growth) < 0.05


# The tasks, one by one.


def labels(task: PlacedTask, tokens: torch.Tensor) -> list[str]:
    return [task.decode(token) for token in tokens.tolist()]


@given(tasks(("rewrite",)), more_tokens, seeds)
def test_the_latest_value_of_a_key_counts(task, more, seed):
    tokens, targets = task.batch(3, long_enough(task) + more, generator(seed))
    for row, wanted in zip(tokens, targets, strict=True):
        said = [label.split("=") for label in labels(task, row) if "=" in label]
        assert len(said) == task.writes
        latest = dict(said)
        assert len(latest) == task.keys_used
        asked = [label.rstrip("?") for label in labels(task, row[-task.keys_used:])]
        assert sorted(asked) == sorted(latest)
        assert labels(task, wanted[-task.keys_used:]) == [latest[key] for key in asked]


def test_a_key_is_written_late_and_early_alike():
    """The number of writes of a key, and which one is the last, follow from nothing but the draw."""
    task = RewriteTask(keys=2, keys_used=2, writes=3)
    tokens, _ = task.batch(6000, 40, generator(0))
    keys = task.fact_keys(tokens)
    stated = keys[keys >= 0].view(6000, 3)
    orders, counts = stated.unique(dim=0, return_counts=True)
    assert orders.shape == (6, 3)  # all orders of two keys but those that leave one out
    assert (counts / 6000 - 1 / 6).abs().max() < 4 * (5 / 36 / 6000) ** 0.5


@given(tasks(("copy",)), more_tokens, seeds)
def test_the_passage_follows_its_marker_and_is_asked_in_order(task, more, seed):
    tokens, targets = task.batch(3, long_enough(task) + more, generator(seed))
    for row, wanted in zip(tokens, targets, strict=True):
        text = labels(task, row)
        begin = text.index("▸") + 1
        assert text.count("▸") == 1
        assert text[-task.passage:] == [f"{number}?" for number in range(1, task.passage + 1)]
        assert labels(task, wanted[-task.passage:]) == text[begin:begin + task.passage]
        assert set(text[:begin - 1] + text[begin + task.passage:-task.passage]) <= {"·"}


@given(tasks(("mqar",)), more_tokens, seeds)
def test_each_key_stands_before_its_value_and_once_more_at_the_end(task, more, seed):
    tokens, targets = task.batch(3, long_enough(task) + more, generator(seed))
    for row, wanted in zip(tokens, targets, strict=True):
        text = labels(task, row)
        values = {key: value for key, value in pairwise(text) if value.isdecimal()}
        assert sum(label.isdecimal() for label in text) == len(values) == task.pairs
        asked = text[-task.pairs:]
        assert sorted(asked) == sorted(values)
        assert labels(task, wanted[-task.pairs:]) == [values[key] for key in asked]
        assert sum(label[0].isalpha() for label in text) == 2 * task.pairs


@given(tasks(("stories",)), more_tokens, seeds)
def test_a_story_makes_sense(task, more, seed):
    """People who have picked something up go somewhere afterwards, and what is asked was told."""
    tokens, targets = task.batch(3, long_enough(task) + more, generator(seed))
    for row, wanted in zip(tokens, targets, strict=True):
        text = re.split(r"\.|(?=where)", " ".join(labels(task, row)))
        places: dict[str, list[str]] = {}
        carried: dict[str, str] = {}
        idle = set()
        for words in map(str.split, text):
            if words[1:4] == ["went", "to", "the"]:
                places.setdefault(words[0], []).append(words[4])
                idle.discard(words[0])
            elif words[1:3] == ["picked", "up"]:
                assert words[4] not in carried
                carried[words[4]] = words[0]
                idle.add(words[0])
        assert not idle
        assert (len(places), len(carried)) == (task.people, task.objects)
        assert sum(map(len, places.values())) == task.moves
        asked = [words.split() for words in text if words.startswith("where")]
        who = [words[2] if task.hops == 1 else carried[words[3]] for words in asked]
        assert sorted(who) == sorted(places) if task.hops == 1 else sorted(who) == sorted(carried.values())
        assert labels(task, wanted[wanted != IGNORED]) == [places[person][-1] for person in who]


def test_stories_are_told_among_as_many_different_sentences_as_were_asked_for():
    for count in (1, 3):
        noise = next(StoriesTask(noise_sentences=count).background(4, 600, 600, generator(0)))
        assert len(noise.view(-1, 6).unique(dim=0)) == count


def test_both_questions_are_about_the_same_stories():
    one, two = (StoriesTask(hops=hops).episode(5, 300, generator(0)) for hops in (1, 2))
    assert torch.equal(one.facts, two.facts)
    assert len(WORDS) == len(set(WORDS)) <= 64
    task = StoriesTask()
    tokens, _ = task.batch(1, 6 * 20 + 18, generator(1))
    assert all(label == "." for label in labels(task, tokens[0, 5:120:6]))
    tokens, _ = task.batch(1, 6 * 20 + 18 + 4, generator(1))
    assert all(label == "." for label in labels(task, tokens[0, 3:124:6]))  # the end of a sentence, then whole ones


def test_who_the_people_and_which_the_objects_are_is_drawn():
    task = StoriesTask(people=2, objects=2, moves=2, hops=2)
    tokens, _ = task.batch(64, 60, generator(0))
    told = [frozenset(labels(task, row)) for row in tokens]
    for names, count in ((PEOPLE, 2), (OBJECTS, 2)):
        drawn = [words & set(names) for words in told]
        assert {len(some) for some in drawn} == {count} and set().union(*drawn) == set(names)


# What they say of themselves.


@given(tasks())
def test_a_task_describes_itself_in_full(task):
    described = json.loads(json.dumps(task.describe()))
    assert TASKS[described.pop("kind")](**described) == task


def test_every_token_has_a_label():
    for task in USUAL:
        found = [task.decode(token) for token in range(task.vocab_size)]
        named = [label for label in found if label != "·"]
        assert len(set(named)) == len(named)
        assert found.count("·") == getattr(task, "noise_tokens", 0)
        with pytest.raises(ValueError, match=f"token must be below {task.vocab_size}, got {task.vocab_size}"):
            task.decode(task.vocab_size)
    assert [CopyTask(symbols=2, passage=2, noise_tokens=1).decode(token) for token in range(6)] == [
        "·", "A", "B", "▸", "1?", "2?"]
    assert [MQARTask(keys=2, values=2, pairs=1, noise_tokens=1).decode(token) for token in range(5)] == [
        "·", "A", "B", "0", "1"]


def test_tasks_are_known_by_their_kind():
    assert {kind: task().describe()["kind"] for kind, task in TASKS.items()} == {kind: kind for kind in KINDS}
    assert KINDS == ("recall", "rewrite", "copy", "mqar", "stories")


@given(tasks(), st.integers(1, 120))
def test_a_stream_has_room_for_its_facts_or_says_what_is_missing(task, tokens):
    body = max(tokens - task.question_tokens, 0) // task.cell
    room = round(task.fact_span[1] * body) - round(task.fact_span[0] * body)
    needed, name = task._needs()
    if room >= needed:
        assert len(next(task.pieces(1, tokens, tokens, generator(0)))[0]) == 1
        return
    with pytest.raises(ValueError, match=r".") as error:
        task.pieces(1, tokens, tokens, generator(0))
    assert_one_line(str(error.value), f"tokens = {tokens} is too short", name, f"{room} place", f"take {needed}",
                    str(task.fact_span))


@pytest.mark.parametrize(
    ("kind", "fields", "fragments"),
    [
        (RewriteTask, {"keys_used": 9}, ("keys_used", "at most keys = 8", "got 9")),
        (RewriteTask, {"writes": 3}, ("writes", "at least keys_used = 4", "got 3")),
        (RewriteTask, {"keys_used": 0}, ("keys_used", "at least 1", "got 0")),
        (RewriteTask, {"writes": 8.0}, ("writes", "int", "8.0")),
        (CopyTask, {"symbols": 1}, ("symbols", "at least 2", "got 1")),
        (CopyTask, {"passage": 0}, ("passage", "at least 1", "got 0")),
        (CopyTask, {"noise_tokens": 0}, ("noise_tokens", "got 0")),
        (MQARTask, {"pairs": 9}, ("pairs", "at most keys = 8", "got 9")),
        (MQARTask, {"values": 1}, ("values", "at least 2", "got 1")),
        (MQARTask, {"pairs": True}, ("pairs", "int", "True")),
        (StoriesTask, {"people": 7, "moves": 9}, ("people", "at most 6", "name", "got 7")),
        (StoriesTask, {"places": 1}, ("places", "at least 2", "got 1")),
        (StoriesTask, {"objects": 0}, ("objects", "at least 1", "got 0")),
        (StoriesTask, {"moves": 2}, ("moves", "at least people = 6", "got 2")),
        (StoriesTask, {"hops": 3}, ("hops", "1 or 2", "got 3")),
        (StoriesTask, {"noise_sentences": 257}, ("noise_sentences", "at most 256", "got 257")),
        *((kind, {"fact_span": (0.6, 0.5)}, ("fact_span", "rise", "(0.6, 0.5)")) for kind in TASKS.values()),
        *((kind, {"fact_span": 0.5}, ("fact_span", "two fractions", "0.5")) for kind in TASKS.values()),
    ],
)
def test_a_task_checks_itself(kind, fields, fragments):
    with pytest.raises((TypeError, ValueError)) as error:
        kind(**fields)
    assert_one_line(str(error.value), *fragments)


@each_task
def test_a_call_that_cannot_be_says_why(task):
    for arguments, fragments in (((0, 99, 9), ("batch_size", "got 0")), ((1, 99, 0), ("piece", "got 0")),
                                 ((1, 0, 9), ("tokens", "got 0"))):
        with pytest.raises(ValueError, match=r".") as error:
            task.stream(*arguments, generator(0))
        assert_one_line(str(error.value), *fragments)


@given(tasks(), st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(1, 7))
def test_background_in_stretches_of_whole_cells_is_one_stream(task, cells, piece):
    one, other = generator(0), generator(0)
    whole = list(task.background(2, sum(cells) * task.cell, piece, one))
    stretches = [part for count in cells for part in task.background(2, count * task.cell, piece, other)]
    assert all(part.shape[1] <= piece for part in stretches)
    empty = torch.empty(2, 0, dtype=torch.int64)
    assert torch.equal(torch.cat([empty, *whole], dim=1), torch.cat([empty, *stretches], dim=1))
    cell = task._background().shape[1]
    assert all(any(torch.equal(row, kind) for kind in task._background())
               for row in torch.cat([empty, *whole], dim=1).reshape(-1, cell))
