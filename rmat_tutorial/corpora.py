"""Real text as bytes: what a corpus is, and how its documents are split.

Bytes need no tokenizer and no decoding, so every file works and the vocabulary is 256. The text is read where it
is used: a corpus larger than memory costs no more than a small one. Where the bytes come from:
``own_text`` (a file or a folder of the reader's) and ``installed_text`` (what the course's packages bring along).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .validate import require_int

SPLITS = ("train", "validation", "test")
SHARES = (0.90, 0.05, 0.05)


class CorpusError(ValueError):
    """A text that cannot be read or is not what it should be; the message is one line for people."""


class Bytes(Protocol):
    """Bytes of which any stretch can be had, as a uint8 array; an ``np.ndarray`` is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, stretch: slice) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents one after the other, from which batches are cut.

    Attributes:
        data: the bytes, ``n`` of them.
        name: what the text is, for people.
        fingerprint: SHA-256 of the whole text, of which ``data`` may be one split.
        split: ``"train"``, ``"validation"``, ``"test"``, or ``"all"``.
        lengths: bytes of each document, which add up to ``n``; ``None`` when all of it is one document.
    """

    data: Bytes
    name: str
    fingerprint: str
    split: str
    lengths: Sequence[int] | None = None

    metric = "bits_per_byte"
    vocab_size = 256

    def __len__(self) -> int:
        return len(self.data)

    @property
    def documents(self) -> np.ndarray:
        """Where each document begins and where it stops in ``data``, ``(documents, 2)`` int64."""
        lengths = [len(self)] if self.lengths is None else self.lengths
        edges = np.cumsum([0, *lengths], dtype=np.int64)
        return np.stack([edges[:-1], edges[1:]], axis=1)

    def describe(self) -> dict[str, Any]:
        return {"kind": "text", "name": self.name, "fingerprint": self.fingerprint, "split": self.split,
                "bytes": len(self)}

    def batch(self, batch_size: int, tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``(tokens, targets)``, both ``(B, T)`` int64: rows are random stretches, targets one byte later."""
        return next(self.stream(batch_size, tokens, tokens, generator))

    def stream(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``batch(batch_size, tokens, generator)`` in pieces of ``piece`` tokens.

        Raises:
            CorpusError: when the corpus has no stretch of that length.
        """
        require_int("piece", piece, 1)
        places = self.places(batch_size, tokens, generator)
        return (self.read(places + begin, min(piece, tokens - begin)) for begin in range(0, tokens, piece))

    def places(self, batch_size: int, tokens: int, generator: torch.Generator) -> Tensor:
        """Where ``batch_size`` random stretches of ``tokens`` tokens and one target more begin, ``(B,)`` int64.

        Raises:
            CorpusError: when the corpus has no stretch of that length.
        """
        require_int("batch_size", batch_size, 1)
        require_int("tokens", tokens, 1)
        if len(self) < tokens + 1:
            raise CorpusError(
                f"tokens = {tokens} needs {tokens + 1} bytes in a row, but the {self.split} split of "
                f"{self.name} has {len(self)}; use fewer tokens or a longer text"
            )
        return torch.randint(len(self) - tokens, (batch_size,), generator=generator)

    def read(self, places: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
        """``(tokens, targets)``, both ``(B, T)`` int64, of the stretches that begin at ``places`` ``(B,)``."""
        rows = np.stack([self.data[place : place + tokens + 1] for place in places.tolist()])
        stretch = torch.from_numpy(rows).long()
        return stretch[:, :-1], stretch[:, 1:]


def split_of(name: str) -> str:
    """The split of a document, from a hash of its name: the same whatever else is in the corpus."""
    place = place_of(name)
    train, validation, _ = SHARES
    return "train" if place < train else "validation" if place < train + validation else "test"


def place_of(name: str) -> float:
    """A number in [0, 1) that follows from ``name`` alone and is spread evenly over names."""
    # A file's name may hold bytes that are no text; Python keeps them as surrogates.
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
