"""Copying: a passage, a long pause, and the passage again, symbol by symbol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .keys import key_name
from .placed import Episode, PlacedTask
from .source import IGNORED


@dataclass(frozen=True)
class CopyTask(PlacedTask):
    """A passage to be copied after a pause (Hochreiter and Schmidhuber 1997; Arjovsky and others 2016).

    A marker and then ``passage`` symbols in a row begin at a random place among noise tokens. The last ``passage``
    tokens of a stream ask for the first symbol, the second and so on. The questions are numbered and no answer is
    given back, so a symbol that was missed does not show in the input.

    Attributes:
        symbols: how many there are. Guessing scores ``1 / symbols``.
        passage: symbols to copy.
        noise_tokens: different tokens that noise is drawn from.
        fact_span: the part of the stream before the questions in which the passage lies, as two fractions.

    Token numbers, in order: noise, symbols, the marker, questions.
    """

    symbols: int = 8
    passage: int = 8
    noise_tokens: int = 16
    fact_span: tuple[float, float] = (0.0, 1.0)

    kind = "copy"
    answer_field = "symbols"

    @property
    def marker(self) -> int:
        """The token that begins the passage."""
        return self.noise_tokens + self.symbols

    @property
    def vocab_size(self) -> int:
        return self.marker + 1 + self.passage

    @property
    def question_tokens(self) -> int:
        return self.passage

    def _label(self, token: int) -> str:
        """``"B"`` a symbol, ``"▸"`` the marker, ``"2?"`` a question, ``"·"`` noise."""
        if token < self.noise_tokens:
            return "·"
        if token < self.marker:
            return key_name(token - self.noise_tokens)
        return "▸" if token == self.marker else f"{token - self.marker}?"

    def _needs(self) -> tuple[int, str]:
        return 1 + self.passage, f"the marker and the {self.passage} symbols of the passage"

    def _background(self) -> Tensor:
        return torch.arange(self.noise_tokens)[:, None]

    def _draw(self, batch_size: int, first: int, cells: int, generator: torch.Generator) -> Episode:
        begin = first + torch.randint(cells - self.passage, (batch_size, 1), generator=generator)
        symbols = self.noise_tokens + torch.randint(self.symbols, (batch_size, self.passage), generator=generator)
        places = begin + torch.arange(1 + self.passage)
        return Episode(
            places=places,
            facts=torch.cat([torch.full((batch_size, 1), self.marker), symbols], dim=1),
            questions=(self.marker + 1 + torch.arange(self.passage)).expand(batch_size, -1),
            targets=symbols,
            sources=places[:, 1:],
        )

    def _answers(self, tokens: Iterable[int]) -> Iterator[int]:
        passage: dict[str, int] = {}
        begun = False
        for token in tokens:
            label = self.decode(token)
            begun = begun or label == "▸"
            if begun and label.isalnum() and len(passage) < self.passage:
                passage[f"{len(passage) + 1}?"] = token
            yield passage.get(label, IGNORED)
