"""Recall of what was said last: keys are written again and again, and the latest value counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .keys import KeyValueTask
from .placed import Episode, distinct, each_at_least_once, last_columns, permutations


@dataclass(frozen=True)
class RewriteTask(KeyValueTask):
    """Facts that supersede each other: the latest value of a key is its value.

    ``writes`` facts "key = value", one token each, lie at random places among noise tokens. They are about
    ``keys_used`` of the keys, each of which is written at least once. The values are drawn one by one, so what a key
    was before says nothing about what it is now. The last ``keys_used`` tokens of a stream ask each written key once,
    in random order. An answer token never appears in the input.

    Attributes:
        keys, values: how many of each there are. Guessing scores ``1 / values``.
        keys_used: keys that a stream writes and asks.
        writes: facts in a stream.
        noise_tokens: different tokens that noise is drawn from.
        fact_span: the part of the stream before the queries in which facts may lie, as two fractions.
    """

    keys: int = 8
    values: int = 8
    keys_used: int = 4
    writes: int = 8
    noise_tokens: int = 16
    fact_span: tuple[float, float] = (0.0, 1.0)

    kind = "rewrite"
    load = "writes"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keys_used > self.keys:
            raise ValueError(f"keys_used must be at most keys = {self.keys}, got {self.keys_used}")
        if self.writes < self.keys_used:
            raise ValueError(
                f"writes must be at least keys_used = {self.keys_used}, since each of these keys is written, "
                f"got {self.writes}"
            )

    @property
    def least_load(self) -> int:
        return self.keys_used

    @property
    def question_tokens(self) -> int:
        return self.keys_used

    def _needs(self) -> tuple[int, str]:
        return self.writes, f"{self.writes} writes"

    def _draw(self, batch_size: int, first: int, cells: int, generator: torch.Generator) -> Episode:
        places = first + distinct(batch_size, self.writes, cells, generator).sort(dim=1).values
        keys = permutations(batch_size, self.keys, generator)[:, : self.keys_used]
        which = each_at_least_once(batch_size, self.keys_used, self.writes, generator)
        values = torch.randint(self.values, (batch_size, self.writes), generator=generator)
        asked = permutations(batch_size, self.keys_used, generator)
        latest = last_columns(which, self.keys_used).gather(1, asked)
        return Episode(
            places=places,
            facts=self.first_fact + keys.gather(1, which) * self.values + values,
            questions=self.first_query + keys.gather(1, asked),
            targets=self.first_answer + values.gather(1, latest),
            sources=places.gather(1, latest),
        )
