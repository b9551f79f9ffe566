"""Synthetic tasks: streams of tokens with questions at the end, in constant memory at any length.

A task knows nothing of models. It says which tokens it uses, what a perfect reader and a guessing one would
score, and hands out batches that a seed makes repeatable.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .validate import require_int, require_number

IGNORED = -100
"""Target of a position that no loss and no score looks at (``ignore_index`` of ``cross_entropy``)."""


class Source(Protocol):
    """Where a trainer and an evaluation get their tokens: a task, or a corpus."""

    metric: str
    """``"accuracy"`` or ``"bits_per_byte"``."""

    @property
    def vocab_size(self) -> int: ...

    def describe(self) -> dict[str, Any]:
        """What identifies the source, as JSON values; ``"kind"`` names its class."""
        ...

    def batch(self, batch_size: int, tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``(tokens, targets)``, both ``(B, T)`` int64; a target of ``IGNORED`` is not scored."""
        ...

    def stream(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The same as ``batch``, cut into pieces of ``piece`` tokens (the last may be shorter)."""
        ...


@dataclass(frozen=True)
class RecallTask:
    """Facts scattered in noise, all of them asked at the end: associative recall over a distance.

    A fact "key = value" is one token. ``facts`` facts with different keys lie at random places among noise
    tokens; the last ``facts`` tokens of a stream ask each stated key once, in random order. The target at a
    query is the answer token of its value, everywhere else ``IGNORED``. An answer token never appears in the
    input, so a reader has nothing but the fact to go by.

    Attributes:
        keys, values: how many of each there are. Guessing scores ``1 / values``.
        facts: facts in a stream, each with a key of its own.
        noise_tokens: different tokens that noise is drawn from.
        fact_span: the part of the stream before the queries in which facts may lie, as two fractions:
            ``(0, 1)`` is all of it, ``(0, 0.1)`` the first tenth.

    Token numbers, in order: noise, facts (``key * values + value``), queries, answers.
    """

    keys: int = 8
    values: int = 8
    facts: int = 4
    noise_tokens: int = 16
    fact_span: tuple[float, float] = (0.0, 1.0)

    metric = "accuracy"

    def __post_init__(self) -> None:
        require_int("keys", self.keys, 1)
        require_int("values", self.values, 2)
        require_int("facts", self.facts, 1)
        require_int("noise_tokens", self.noise_tokens, 1)
        if self.facts > self.keys:
            raise ValueError(
                f"facts must be at most keys = {self.keys}, since each has a key of its own, got {self.facts}"
            )
        self._check_span()

    def _check_span(self) -> None:
        if not isinstance(self.fact_span, (tuple, list)) or len(self.fact_span) != 2:
            raise TypeError(f"fact_span must be two fractions such as (0.0, 1.0), got {self.fact_span!r}")
        for bound in self.fact_span:
            require_number("fact_span", bound, 0.0)
        start, stop = self.fact_span
        if not start < stop <= 1.0:
            raise ValueError(f"fact_span must rise within 0 and 1, such as (0, 1), got {self.fact_span!r}")
        object.__setattr__(self, "fact_span", (float(start), float(stop)))

    # The vocabulary.

    @property
    def first_fact(self) -> int:
        return self.noise_tokens

    @property
    def first_query(self) -> int:
        return self.first_fact + self.keys * self.values

    @property
    def first_answer(self) -> int:
        return self.first_query + self.keys

    @property
    def vocab_size(self) -> int:
        return self.first_answer + self.values

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1.0 / self.values

    def fact_token(self, key: int, value: int) -> int:
        """The token that states "key = value"."""
        self._require_index("key", key, self.keys)
        self._require_index("value", value, self.values)
        return self.first_fact + key * self.values + value

    def query_token(self, key: int) -> int:
        """The token that asks for the value of ``key``."""
        self._require_index("key", key, self.keys)
        return self.first_query + key

    def answer_token(self, value: int) -> int:
        """The target where a key with this value is asked."""
        self._require_index("value", value, self.values)
        return self.first_answer + value

    @staticmethod
    def _require_index(name: str, index: int, count: int) -> None:
        require_int(name, index, 0)
        if index >= count:
            raise ValueError(f"{name} must be below {count}, got {index}")

    def decode(self, token: int) -> str:
        """A label for people: ``"B=3"`` a fact, ``"B?"`` a query, ``"3"`` an answer, ``"·"`` noise."""
        token = int(token)
        self._require_index("token", token, self.vocab_size)
        if token < self.first_fact:
            return "·"
        if token < self.first_query:
            key, value = divmod(token - self.first_fact, self.values)
            return f"{key_name(key)}={value}"
        if token < self.first_answer:
            return f"{key_name(token - self.first_query)}?"
        return str(token - self.first_answer)

    def fact_keys(self, tokens: Tensor) -> Tensor:
        """The key that each token states, -1 where it states none. Same shape as ``tokens``."""
        states = (tokens >= self.first_fact) & (tokens < self.first_query)
        return torch.where(states, (tokens - self.first_fact) // self.values, -1)

    def query_keys(self, tokens: Tensor) -> Tensor:
        """The key that each token asks, -1 where it asks none. Same shape as ``tokens``."""
        asks = (tokens >= self.first_query) & (tokens < self.first_answer)
        return torch.where(asks, tokens - self.first_query, -1)

    def describe(self) -> dict[str, Any]:
        return {"kind": "recall", **asdict(self), "fact_span": list(self.fact_span)}

    # The streams.

    def batch(self, batch_size: int, tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``(tokens, targets)``, both ``(B, T)`` int64."""
        return next(self.stream(batch_size, tokens, tokens, generator))

    def stream(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``batch(batch_size, tokens, generator)`` in pieces of ``piece`` tokens.

        What is kept between pieces are the places of the facts, so memory does not grow with ``tokens``.

        Raises:
            ValueError: when the stream is too short for its facts and queries.
        """
        require_int("batch_size", batch_size, 1)
        require_int("tokens", tokens, 1)
        require_int("piece", piece, 1)
        first, room = self._fact_room(tokens)
        return self._pieces(batch_size, tokens, piece, first, room, generator)

    def _fact_room(self, tokens: int) -> tuple[int, int]:
        """The first position where a fact may lie, and how many such positions there are."""
        body = tokens - self.facts
        first, stop = (round(bound * body) for bound in self.fact_span)
        if stop - first < self.facts:
            raise ValueError(
                f"tokens = {tokens} is too short: {self.facts} facts have {max(stop - first, 0)} places "
                f"within fact_span {self.fact_span} before the queries; use a longer stream or fewer facts"
            )
        return first, stop - first

    def _pieces(
        self, batch_size: int, tokens: int, piece: int, first: int, room: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        places = first + _distinct(batch_size, self.facts, room, generator)
        keys = torch.rand(batch_size, self.keys, generator=generator).argsort(dim=1)[:, : self.facts]
        values = torch.randint(self.values, (batch_size, self.facts), generator=generator)
        asked = torch.rand(batch_size, self.facts, generator=generator).argsort(dim=1)

        facts = self.first_fact + keys * self.values + values
        queries = self.first_query + keys.gather(1, asked)
        answers = self.first_answer + values.gather(1, asked)
        query_places = torch.arange(tokens - self.facts, tokens).expand(batch_size, -1)
        for start in range(0, tokens, piece):
            length = min(piece, tokens - start)
            # Drawn position by position, all rows of one position together: the noise then does not
            # depend on where the stream is cut.
            noise = torch.randint(self.noise_tokens, (length, batch_size), generator=generator)
            stream = noise.T.contiguous()
            _put(stream, places - start, facts)
            _put(stream, query_places - start, queries)
            targets = torch.full_like(stream, IGNORED)
            _put(targets, query_places - start, answers)
            yield stream, targets


def key_name(key: int) -> str:
    """``A`` to ``Z`` for the first 26 keys, then ``A1`` to ``Z1``, and so on."""
    turn, letter = divmod(key, 26)
    return chr(ord("A") + letter) + (str(turn) if turn else "")


def _distinct(rows: int, count: int, room: int, generator: torch.Generator) -> Tensor:
    """``(rows, count)`` numbers below ``room``, different within a row, every set of them equally likely.

    Floyd's algorithm (Bentley and Floyd, "A sample of brilliance", 1987): ``count`` draws at any ``room``,
    where a permutation of ``room`` numbers would not fit in memory.
    """
    chosen = torch.empty(rows, 0, dtype=torch.int64)
    for last in range(room - count, room):
        drawn = torch.randint(last + 1, (rows, 1), generator=generator)
        taken = (chosen == drawn).any(dim=1, keepdim=True)
        chosen = torch.cat([chosen, torch.where(taken, last, drawn)], dim=1)
    return chosen


def _put(piece: Tensor, places: Tensor, what: Tensor) -> None:
    """Write ``what`` into ``piece`` (B, n) at ``places`` (B, count), skipping those outside of it."""
    rows, columns = ((places >= 0) & (places < piece.shape[1])).nonzero(as_tuple=True)
    piece[rows, places[rows, columns]] = what[rows, columns]
