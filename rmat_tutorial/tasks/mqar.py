"""Multi-query associative recall: facts of two tokens, a key and then its value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .keys import key_name
from .placed import Episode, PlacedTask, distinct, permutations
from .source import IGNORED


@dataclass(frozen=True)
class MQARTask(PlacedTask):
    """Multi-query associative recall (Arora and others 2023, "Zoology", arXiv 2312.04927) over a distance.

    ``pairs`` pairs, a key token and then a value token, lie at random places among noise tokens. The last ``pairs``
    tokens of a stream are the same keys again, in random order; the target at each is its value. A key alone says
    nothing, so a reader has to bind two tokens. In the paper the pairs stand one after the other at the start and the
    questions among the noise; here it is as in the other tasks.

    Attributes:
        keys, values: how many of each there are. Guessing scores ``1 / values``.
        pairs: pairs in a stream, each with a key of its own.
        noise_tokens: different tokens that noise is drawn from.
        fact_span: the part of the stream before the questions in which pairs may lie, as two fractions.

    Token numbers, in order: noise, keys, values.
    """

    keys: int = 8
    values: int = 8
    pairs: int = 4
    noise_tokens: int = 16
    fact_span: tuple[float, float] = (0.0, 1.0)

    kind = "mqar"
    answer_field = "values"
    cell = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs > self.keys:
            raise ValueError(
                f"pairs must be at most keys = {self.keys}, since each has a key of its own, got {self.pairs}"
            )

    @property
    def first_value(self) -> int:
        return self.noise_tokens + self.keys

    @property
    def vocab_size(self) -> int:
        return self.first_value + self.values

    @property
    def question_tokens(self) -> int:
        return self.pairs

    def _label(self, token: int) -> str:
        """``"B"`` a key, ``"3"`` a value, ``"·"`` noise."""
        if token < self.noise_tokens:
            return "·"
        return key_name(token - self.noise_tokens) if token < self.first_value else str(token - self.first_value)

    def _needs(self) -> tuple[int, str]:
        return self.pairs, f"{self.pairs} pairs of two tokens"

    def _background(self) -> Tensor:
        return torch.arange(self.noise_tokens)[:, None]

    def _draw(self, batch_size: int, first: int, cells: int, generator: torch.Generator) -> Episode:
        places = first + self.cell * distinct(batch_size, self.pairs, cells, generator)
        keys = self.noise_tokens + permutations(batch_size, self.keys, generator)[:, : self.pairs]
        values = self.first_value + torch.randint(self.values, (batch_size, self.pairs), generator=generator)
        asked = permutations(batch_size, self.pairs, generator)
        return Episode(
            places=torch.cat([places, places + 1], dim=1),
            facts=torch.cat([keys, values], dim=1),
            questions=keys.gather(1, asked),
            targets=values.gather(1, asked),
            sources=places.gather(1, asked) + 1,
        )

    def _answers(self, tokens: Iterable[int]) -> Iterator[int]:
        values: dict[int, int] = {}
        before = None
        for token in tokens:
            if self.decode(token).isdecimal():
                values[before] = token
            yield values.get(token, IGNORED)
            before = token
