"""The vocabulary of tasks whose facts are one token, "key = value"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..validate import require_index
from .placed import VariedTask
from .source import IGNORED


def key_name(key: int) -> str:
    """``A`` to ``Z`` for the first 26 keys, then ``A1`` to ``Z1``, and so on."""
    turn, letter = divmod(key, 26)
    return chr(ord("A") + letter) + (str(turn) if turn else "")


class KeyValueTask(VariedTask):
    """Facts, queries and answers of one token each.

    Token numbers, in order: noise, facts (``key * values + value``), queries, answers.
    """

    keys: int
    values: int
    noise_tokens: int

    answer_field = "values"

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
    def least_load(self) -> int:
        return 1

    def _most_load(self, tokens: int) -> int:
        return tokens // 2  # the rest is noise

    def fact_token(self, key: int, value: int) -> int:
        """The token that states "key = value"."""
        require_index("key", key, self.keys)
        require_index("value", value, self.values)
        return self.first_fact + key * self.values + value

    def query_token(self, key: int) -> int:
        """The token that asks for the value of ``key``."""
        require_index("key", key, self.keys)
        return self.first_query + key

    def answer_token(self, value: int) -> int:
        """The target where a key with this value is asked."""
        require_index("value", value, self.values)
        return self.first_answer + value

    def _label(self, token: int) -> str:
        """``"B=3"`` a fact, ``"B?"`` a query, ``"3"`` an answer, ``"·"`` noise."""
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

    def _background(self) -> Tensor:
        return torch.arange(self.noise_tokens)[:, None]

    def _answers(self, tokens: Iterable[int]) -> Iterator[int]:
        known: dict[str, int] = {}
        for label in map(self.decode, tokens):
            key, states, value = label.partition("=")
            if states:
                known[key] = self.answer_token(int(value))
            yield known.get(key.removesuffix("?"), IGNORED) if key.endswith("?") else IGNORED
