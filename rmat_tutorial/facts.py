"""Facts in a stream of noise, read segment by segment: what the first demonstration of notebook 00 shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .model import RMAT
from .tasks import RecallTask, key_name
from .tracing import collect_gates

SPAN = 8  # the facts lie in one eighth of the stream


class FactsError(ValueError):
    """A text that states no facts, or none that the task has; the message is for the one who typed it."""


def parse_facts(text: str, task: RecallTask) -> list[tuple[int, int]]:
    """``"A=3 C=7"`` as ``[(0, 3), (2, 7)]``, key and value of each fact; blanks or commas stand between facts.

    Raises:
        FactsError: the text is empty, a fact is malformed or unknown to the task, or a key is stated twice.
    """
    form = (
        f"A fact is a key from A to {key_name(task.keys - 1)}, an equals sign and a value from 0 to "
        f"{task.values - 1}, such as A={task.values - 1}."
    )
    keys = {key_name(key): key for key in range(task.keys)}
    facts: dict[int, int] = {}
    for word in text.replace(",", " ").split():
        match = re.fullmatch(r"([A-Z]\d*)=([0-9]{1,6})", word.upper())
        if not match or match[1] not in keys or int(match[2]) >= task.values:
            raise FactsError(f"“{word[:20]}” is no fact. {form}")
        if keys[match[1]] in facts:
            raise FactsError(f"{match[1]} is stated twice. Each key has one value.")
        facts[keys[match[1]]] = int(match[2])
    if not facts:
        raise FactsError(f"There is no fact to remember. {form}")
    return list(facts.items())


@dataclass(frozen=True)
class Stream:
    """A stream of the recall task that states ``facts`` and asks for them, in the same order, at its end.

    Attributes:
        tokens: ``(T,)`` int64.
        facts: key and value of each.
        places: the position of each fact.
    """

    tokens: Tensor
    facts: list[tuple[int, int]]
    places: list[int]

    @property
    def noise_after(self) -> int:
        """Tokens between the last fact and the first question."""
        return len(self.tokens) - len(self.facts) - 1 - self.places[-1]


def make_stream(task: RecallTask, facts: list[tuple[int, int]], length: int, start: float, seed: int) -> Stream:
    """``length`` tokens, noise but for the facts, which are spread over an eighth of it from the fraction ``start``."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(task.noise_tokens, (length,), generator=generator)
    body = length - len(facts)
    span = max(body // SPAN, len(facts))
    first = min(round(start * body), body - span)
    places = [first + index * span // len(facts) for index in range(len(facts))]
    for place, question, (key, value) in zip(places, range(body, length), facts, strict=True):
        tokens[place] = task.fact_token(key, value)
        tokens[question] = task.query_token(key)
    return Stream(tokens, facts, places)


@dataclass(frozen=True)
class Reading:
    """What a model did with ``S`` segments of a stream with ``F`` facts.

    Attributes:
        opened: how far the gate of each written slot stood open, the mean of ``z``, ``(S, N · w)``; zeros where
            nothing was written, and no columns without the memory path.
        answers: the probability of each value if the facts were asked at the end of the segment, ``(S, F, values)``.
    """

    opened: Tensor
    answers: Tensor


@torch.no_grad()
def read_stream(model: RMAT, task: RecallTask, stream: Stream, wipe: bool, at_once: int) -> Iterator[Reading]:
    """Read a stream, ``at_once`` segments between two readings.

    At the end of each segment all facts are asked of a copy of the state, which leaves no trace in the stream.

    Args:
        wipe: put the bank back to its learned slots after every segment.
    """
    state = model.init_state(1)
    segments = stream.tokens.split(model.config.segment_len)
    for first in range(0, len(segments), at_once):
        some = segments[first:first + at_once]
        before, opened = [], []
        for segment in some:
            before.append(state.memory)
            with collect_gates(model) as gates:
                state = model(segment[None], state).state
            opened.append(_opening(model, gates))
            if wipe:
                state = state.reset([0])
        yield Reading(torch.stack(opened), _ask(model, task, stream, some, before))


def _opening(model: RMAT, gates: list[Tensor]) -> Tensor:
    """The mean of ``z`` over the width of each written slot, layer after layer."""
    if gates:
        return torch.cat([gate[0].mean(dim=-1) for gate in gates])
    return torch.zeros(model.config.n_layers * model.config.write_slots if model.config.has_memory else 0)


def _ask(
    model: RMAT, task: RecallTask, stream: Stream, segments: tuple[Tensor, ...], banks: list[tuple[Tensor, ...]]
) -> Tensor:
    """Read each segment again from the bank before it, all side by side, with the questions at its end."""
    questions = stream.tokens[-len(stream.facts):]
    asking = torch.stack([_with_questions(task, segment, questions) for segment in segments])
    memory = tuple(torch.cat(layer) for layer in zip(*banks, strict=True))
    state = replace(model.init_state(len(segments)), memory=memory)
    chances = model(asking, state).logits[:, -len(questions):].softmax(dim=-1)
    return chances[..., task.first_answer:task.first_answer + task.values]


def _with_questions(task: RecallTask, segment: Tensor, questions: Tensor) -> Tensor:
    """The segment, as long as it was, with questions at its end; its last noise tokens make room for them."""
    is_fact = task.fact_keys(segment) >= 0
    others = (~is_fact).nonzero().flatten()
    kept = torch.cat([is_fact.nonzero().flatten(), others[:len(others) - len(questions)]]).sort().values
    return torch.cat([segment[kept], questions])
