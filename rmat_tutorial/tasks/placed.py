"""What all tasks share: background, facts put at random places of it, and questions at the end of the stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..validate import require_index, require_int, require_number
from .source import IGNORED


class Episode(NamedTuple):
    """What a batch of streams holds besides background. All rows have the same number of tokens of it.

    Attributes:
        places, facts: where the tokens of facts lie, and which they are, ``(B, n)``.
        questions: the last tokens of the streams, ``(B, q)``.
        targets: the answer at the last token of each question, ``IGNORED`` at the others, ``(B, q)``.
        sources: where the token lies that states the answer, ``(B, q)``; without meaning where nothing is asked.
    """

    places: Tensor
    facts: Tensor
    questions: Tensor
    targets: Tensor
    sources: Tensor


class PlacedTask(ABC):
    """A task whose streams are background, with facts in cells of it, and questions at the end.

    A stream is, in order: the end of a cell of background, where the cells do not fill the stream; cells of ``cell``
    tokens each, some with a fact; ``question_tokens`` tokens of questions.

    Each task is a frozen dataclass. Its fields are ``fact_span`` and numbers of what there is, none of them 0.

    Attributes:
        kind: the name of the task.
        answer_field: the field that says how many answers there are, at least 2.
    """

    metric = "accuracy"
    kind: ClassVar[str]
    answer_field: ClassVar[str]
    cell: ClassVar[int] = 1
    fact_span: tuple[float, float]

    # What each task says.

    @property
    @abstractmethod
    def vocab_size(self) -> int: ...

    @property
    @abstractmethod
    def question_tokens(self) -> int:
        """Tokens that the questions take at the end of a stream."""

    @abstractmethod
    def _label(self, token: int) -> str:
        """A label for people, of a token of the vocabulary."""

    @abstractmethod
    def _needs(self) -> tuple[int, str]:
        """How many cells the facts take, and what they are called."""

    @abstractmethod
    def _background(self) -> Tensor:
        """The cells that background is drawn from, each as likely as another, ``(n, c)``; ``c`` divides ``cell``."""

    @abstractmethod
    def _draw(self, batch_size: int, first: int, cells: int, generator: torch.Generator) -> Episode:
        """An episode whose facts lie in the ``cells`` cells from position ``first`` on.

        The places of the questions are not known to it: they are the last positions of the stream.
        """

    @abstractmethod
    def _answers(self, tokens: Iterable[int]) -> Iterator[int]:
        """After each token, from those so far, the answer to what was asked with it, else ``IGNORED``."""

    # What follows from it.

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name != "fact_span":
                require_int(field.name, getattr(self, field.name), 2 if field.name == self.answer_field else 1)
        object.__setattr__(self, "fact_span", _checked_span(self.fact_span))

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1.0 / getattr(self, self.answer_field)

    @property
    def fact_tokens(self) -> int:
        """Tokens that the facts take."""
        return self.cell * self._needs()[0]

    def decode(self, token: int) -> str:
        """A label for people."""
        token = int(token)
        require_index("token", token, self.vocab_size)
        return self._label(token)

    def describe(self) -> dict[str, Any]:
        """What identifies the task, as JSON values."""
        return {"kind": self.kind, **asdict(self), "fact_span": list(self.fact_span)}

    def oracle(self, tokens: Tensor) -> Tensor:
        """What a perfect reader answers, from the input ``(B, T)`` alone, read from left to right.

        Returns:
            ``(B, T)`` int64, ``IGNORED`` where nothing is asked, and where the facts for an answer are missing.
        """
        return torch.tensor([list(self._answers(row)) for row in tokens.tolist()]).view(tokens.shape)

    def batch(self, batch_size: int, tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``(tokens, targets)``, both ``(B, T)`` int64."""
        return next(self.stream(batch_size, tokens, tokens, generator))

    def stream(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """``batch(batch_size, tokens, generator)`` in pieces of ``piece`` tokens. Raises as ``pieces`` does."""
        return ((part, targets) for part, targets, _ in self.pieces(batch_size, tokens, piece, generator))

    def pieces(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Pieces of ``piece`` tokens of ``(tokens, targets, distances)``, each ``(B, T)`` int64.

        A distance is the number of tokens from the one that states the answer to the one that asks for it, 0 where
        nothing is asked. What is kept between pieces is the episode, so memory does not grow with ``tokens``.

        Raises:
            ValueError: when the stream is too short for its facts and questions.
        """
        require_int("batch_size", batch_size, 1)
        require_int("tokens", tokens, 1)
        require_int("piece", piece, 1)
        self._room(tokens)
        return self._pieces(batch_size, tokens, piece, generator)

    def episode(self, batch_size: int, tokens: int, generator: torch.Generator) -> Episode:
        """What ``batch(batch_size, tokens, generator)`` puts into the background. Raises as ``pieces`` does."""
        return self._draw(batch_size, *self._room(tokens), generator)

    def background(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator, cut_off: int = 0
    ) -> Iterator[Tensor]:
        """Pieces ``(B, piece)`` of a stream of ``tokens`` tokens of background, without ``cut_off`` tokens at the start
        of its first cell.

        Where a cell ends, another call with the same generator goes on as if it were one stream.
        """
        cells = self._background()
        held = torch.empty(batch_size, 0, dtype=torch.int64)
        for start in range(0, tokens, piece):
            length = min(piece, tokens - start)
            missing = -(-(cut_off + length - held.shape[1]) // cells.shape[1])
            # Drawn cell by cell, all rows of one cell together: the background then does not depend on where the
            # stream is cut.
            drawn = torch.randint(len(cells), (missing, batch_size), generator=generator)
            held = torch.cat([held, cells[drawn.T].flatten(1)], dim=1)[:, cut_off:]
            yield held[:, :length].contiguous()
            held, cut_off = held[:, length:], 0

    def _room(self, tokens: int) -> tuple[int, int]:
        """The first position where a fact may lie, and how many cells there are from there on."""
        body = max(tokens - self.question_tokens, 0)
        first, stop = (round(bound * (body // self.cell)) for bound in self.fact_span)
        needed, name = self._needs()
        if stop - first < needed:
            places = "1 place" if stop - first == 1 else f"{stop - first} places"
            raise ValueError(
                f"tokens = {tokens} is too short: {name} have {places} within fact_span {self.fact_span} before the "
                f"questions, and take {needed}; use a longer stream or fewer facts"
            )
        return body % self.cell + first * self.cell, stop - first

    def _pieces(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        places, facts, questions, targets, sources = self.episode(batch_size, tokens, generator)
        asked = torch.arange(tokens - self.question_tokens, tokens).expand(batch_size, -1)
        distances = torch.where(targets == IGNORED, 0, asked - sources)
        cut_off = (self.question_tokens - tokens) % self._background().shape[1]  # so that the questions are in step
        start = 0
        for part in self.background(batch_size, tokens, piece, generator, cut_off):
            _put(part, places - start, facts)
            _put(part, asked - start, questions)
            wanted, back = torch.full_like(part, IGNORED), torch.zeros_like(part)
            _put(wanted, asked - start, targets)
            _put(back, asked - start, distances)
            yield part, wanted, back
            start += part.shape[1]


class VariedTask(PlacedTask):
    """A task that is learned by way of streams with fewer facts.

    Attributes:
        load: the field that says how many facts a stream has.
    """

    load: ClassVar[str]

    @property
    @abstractmethod
    def least_load(self) -> int:
        """The fewest facts that a stream can have."""

    @abstractmethod
    def _most_load(self, tokens: int) -> int:
        """The most facts that streams of ``tokens`` tokens should have."""

    def lighter(self, tokens: int, generator: torch.Generator) -> Self:
        """This task with some number of facts, drawn on a logarithmic scale from the fewest to as many as it has, or to
        as many as streams of ``tokens`` tokens should have."""
        most = max(self.least_load, min(getattr(self, self.load), self._most_load(tokens)))
        share = float(torch.rand((), generator=generator))
        count = min(most, int(self.least_load * ((most + 1) / self.least_load) ** share))
        return replace(self, **{self.load: count})


def _checked_span(span: Any) -> tuple[float, float]:
    """``fact_span`` as two floats, or an error that says what is wrong with it."""
    if not isinstance(span, (tuple, list)) or len(span) != 2:
        raise TypeError(f"fact_span must be two fractions such as (0.0, 1.0), got {span!r}")
    for bound in span:
        require_number("fact_span", bound, 0.0)
    start, stop = span
    if not start < stop <= 1.0:
        raise ValueError(f"fact_span must rise within 0 and 1, such as (0, 1), got {span!r}")
    return float(start), float(stop)


def _put(piece: Tensor, places: Tensor, what: Tensor) -> None:
    """Write ``what`` into ``piece`` (B, n) at ``places`` (B, count), skipping those outside of it."""
    rows, columns = ((places >= 0) & (places < piece.shape[1])).nonzero(as_tuple=True)
    piece[rows, places[rows, columns]] = what[rows, columns]


# What the tasks draw.


def distinct(rows: int, count: int, room: int, generator: torch.Generator) -> Tensor:
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


def permutations(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """``(rows, count)``: the numbers below ``count``, each row in a random order."""
    return torch.rand(rows, count, generator=generator).argsort(dim=1)


def each_at_least_once(rows: int, kinds: int, count: int, generator: torch.Generator) -> Tensor:
    """``(rows, count)`` numbers below ``kinds``, each of which a row has once or more, in a random order."""
    more = torch.randint(kinds, (rows, count - kinds), generator=generator)
    drawn = torch.cat([torch.arange(kinds).expand(rows, -1), more], dim=1)
    return drawn.gather(1, permutations(rows, count, generator))


def last_columns(kinds: Tensor, count: int) -> Tensor:
    """In which column of ``kinds`` ``(B, n)`` each of the numbers below ``count`` stands last, ``(B, count)``."""
    columns = torch.arange(kinds.shape[1])
    return torch.where(kinds[:, None] == torch.arange(count)[:, None], columns, -1).amax(dim=2)
