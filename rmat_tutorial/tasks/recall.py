"""Associative recall: facts scattered in noise, all of them asked at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .keys import KeyValueTask
from .placed import Episode, distinct, permutations


@dataclass(frozen=True)
class RecallTask(KeyValueTask):
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
    """

    keys: int = 8
    values: int = 8
    facts: int = 4
    noise_tokens: int = 16
    fact_span: tuple[float, float] = (0.0, 1.0)

    kind = "recall"
    load = "facts"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.facts > self.keys:
            raise ValueError(
                f"facts must be at most keys = {self.keys}, since each has a key of its own, got {self.facts}"
            )

    @property
    def question_tokens(self) -> int:
        return self.facts

    def _needs(self) -> tuple[int, str]:
        return self.facts, f"{self.facts} facts"

    def _draw(self, batch_size: int, first: int, cells: int, generator: torch.Generator) -> Episode:
        places = first + distinct(batch_size, self.facts, cells, generator)
        keys = permutations(batch_size, self.keys, generator)[:, : self.facts]
        values = torch.randint(self.values, (batch_size, self.facts), generator=generator)
        asked = permutations(batch_size, self.facts, generator)
        return Episode(
            places=places,
            facts=self.first_fact + keys * self.values + values,
            questions=self.first_query + keys.gather(1, asked),
            targets=self.first_answer + values.gather(1, asked),
            sources=places.gather(1, asked),
        )
