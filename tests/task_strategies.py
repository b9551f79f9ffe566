"""What the tests of the tasks share: random ones of every kind, and streams with other facts."""

import strategies  # noqa: F401  (its profile of hypothesis)
from hypothesis import strategies as st
from torch import Generator, Tensor

from rmat_tutorial.tasks import TASKS, CopyTask, MQARTask, PlacedTask, RecallTask, RewriteTask, StoriesTask
from rmat_tutorial.tasks.stories import PLACES, WORDS

KINDS = tuple(TASKS)


def generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@st.composite
def tasks(draw, kinds: tuple[str, ...] = KINDS) -> PlacedTask:
    """A small random task."""
    kind = draw(st.sampled_from(kinds))
    start = draw(st.floats(0, 0.5))
    fields = {"fact_span": (start, draw(st.floats(start + 0.4, 1)))}
    if kind == "stories":
        people = draw(st.integers(1, 6))
        return StoriesTask(people=people, places=draw(st.integers(2, 8)), objects=draw(st.integers(1, 6)),
                           moves=draw(st.integers(people, people + 4)), hops=draw(st.integers(1, 2)),
                           noise_sentences=draw(st.integers(1, 256)), **fields)
    fields["noise_tokens"] = draw(st.integers(1, 20))
    if kind == "copy":
        return CopyTask(symbols=draw(st.integers(2, 30)), passage=draw(st.integers(1, 9)), **fields)
    keys = draw(st.integers(1, 30))
    used = draw(st.integers(1, min(keys, 6)))
    fields |= {"keys": keys, "values": draw(st.integers(2, 9))}
    if kind == "rewrite":
        return RewriteTask(keys_used=used, writes=draw(st.integers(used, used + 6)), **fields)
    return RecallTask(facts=used, **fields) if kind == "recall" else MQARTask(pairs=used, **fields)


def long_enough(task: PlacedTask) -> int:
    """Tokens from which on every stream has room: the span is 0.4 of it or more, and its ends are rounded."""
    needed, _ = task._needs()
    return task.question_tokens + task.cell * (int((needed + 1) / 0.4) + 2)


def with_other_value(task: PlacedTask, token: int) -> tuple[int, int]:
    """The token that states another value in place of ``token``, and the answer that goes with it."""
    if isinstance(task, RecallTask | RewriteTask):
        key, value = divmod(token - task.first_fact, task.values)
        value = (value + 1) % task.values
        return task.fact_token(key, value), task.answer_token(value)
    first, count = {
        "copy": lambda: (task.noise_tokens, task.symbols),
        "mqar": lambda: (task.first_value, task.values),
        "stories": lambda: (WORDS.index(PLACES[0]), task.places),
    }[task.kind]()
    assert first <= token < first + count, "the distance must lead to the token that states the answer"
    other = first + (token - first + 1) % count
    return other, other


def blank(task: PlacedTask) -> int:
    """A token of background that says nothing wherever it stands; it ends the sentence before it."""
    return WORDS.index(".") if task.kind == "stories" else 0


def without_facts(task: PlacedTask, tokens: Tensor, seed: int) -> Tensor:
    """``tokens``, which ``generator(seed)`` gave, with blanks for the tokens of all facts."""
    return tokens.scatter(1, task.episode(*tokens.shape, generator(seed)).places, blank(task))
