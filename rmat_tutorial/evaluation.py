"""How well a model does on streams of any length, and by position in documents, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from .corpora import Corpus
from .language_model import LanguageModel
from .tasks import IGNORED, PlacedTask, Source
from .validate import require_int, require_seed

PIECE = 512  # tokens read at a time: more would hold more logits at once and not be faster
ROWS = 64  # sequences read side by side
PROGRESS_FROM = 500_000  # tokens in all from which a progress bar is worth it: some ten seconds
DISTANCE_BINS = 4
DOCUMENT_ROWS = 16  # documents read side by side: with more, short ones would wait longer for the longest
EDGES = (0, *(64 * 2**i for i in range(10)))  # positions: 0, 64, 128, and so on to 32 768


@dataclass
class Score:
    """Sums over scored positions: the loss in nats, right answers, and how many positions there were."""

    loss: float = 0.0
    correct: int = 0
    positions: int = 0

    def add(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Count scored positions ``(n, V)`` and ``(n,)``; returns which were right, ``(n,)``."""
        right = logits.argmax(dim=-1) == targets
        self.count(cross_entropy(logits, targets, reduction="sum"), right)
        return right

    def count(self, loss: Tensor, right: Tensor) -> None:
        """Count scored positions by the sum of their losses, and by which were right, ``(n,)``."""
        self.loss += loss.item()
        self.correct += int(right.sum())
        self.positions += len(right)

    @property
    def mean_loss(self) -> float:
        """Nats per scored position."""
        return self.loss / self.positions

    def value(self, metric: str) -> float:
        """``"accuracy"``: the share of right answers. ``"bits_per_byte"``: the mean loss in bits."""
        return self.correct / self.positions if metric == "accuracy" else self.mean_loss / math.log(2)


def bits_per_byte(logits: Tensor, targets: Tensor) -> float:
    """The mean of −log2 of the chance that ``logits`` ``(T, V)`` give to the bytes that came, ``targets`` ``(T,)``."""
    score = Score()
    score.add(logits, targets)
    return score.value("bits_per_byte")


@dataclass(frozen=True)
class Evaluation:
    """A score and what it was measured on.

    Attributes:
        metric: ``"accuracy"`` or ``"bits_per_byte"``; ``value`` is its value.
        loss: nats per scored position.
        positions: how many positions were scored.
        tokens, sequences, seed: length and number of the streams, and what they were drawn from.
        source: the task or the text, as it describes itself.
        by_distance: for a task, accuracy by the distance from the fact to the question, in tokens.
    """

    metric: str
    value: float
    loss: float
    positions: int
    tokens: int
    sequences: int
    seed: int
    source: dict[str, Any]
    by_distance: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json, the score first and under the name of its metric."""
        rest = {name: value for name, value in vars(self).items() if name not in ("metric", "value")}
        return {self.metric: self.value, **rest}


@torch.inference_mode()
def evaluate(
    model: LanguageModel, source: Source, tokens: int, sequences: int, seed: int = 0, *, progress: bool | None = None
) -> Evaluation:
    """Read ``sequences`` streams of ``tokens`` tokens each, piece by piece with the state carried on.

    Memory does not grow with ``tokens``.

    Args:
        progress: show a progress bar; ``None`` shows one when it takes more than some ten seconds.

    Raises:
        TypeError, ValueError: an argument is out of range, the source does not fit the model, or a logit is NaN.
    """
    require_int("tokens", tokens, 1)
    require_int("sequences", sequences, 1)
    require_seed("seed", seed)
    require_fit(model, source)
    source.stream(min(sequences, ROWS), tokens, PIECE, torch.Generator())  # raises before a progress bar is drawn
    generator = torch.Generator().manual_seed(seed)
    score, distances = Score(), _Distances(tokens)
    hidden = tokens * sequences < PROGRESS_FROM if progress is None else not progress
    with reading(model, tokens * sequences, hidden) as bar:
        for first in range(0, sequences, ROWS):
            rows = min(ROWS, sequences - first)
            _read(model, source, rows, tokens, generator, score, distances, bar)
    return Evaluation(
        source.metric, score.value(source.metric), score.mean_loss, score.positions, tokens, sequences, seed,
        source.describe(), distances.summary(),
    )


def require_fit(model: LanguageModel, source: Source) -> None:
    if source.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"source has {source.vocab_size} tokens, the model has vocab_size = {model.config.vocab_size}; "
            "evaluate a model on the task that it was trained on"
        )


@contextmanager
def reading(model: LanguageModel, tokens: int, hidden: bool) -> Iterator[tqdm]:
    """A progress bar over ``tokens`` to read, with the model in eval mode until it is done."""
    training = model.training
    model.eval()
    try:
        with tqdm(total=tokens, desc="evaluating", unit="token", unit_scale=True, disable=hidden) as bar:
            yield bar
    finally:
        model.train(training)


def require_finite(loss: float, tokens: int) -> None:
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss is {loss} after {tokens} tokens: the weights are damaged or the training diverged"
        )


def _read(
    model: LanguageModel, source: Source, rows: int, tokens: int, generator: torch.Generator, score: Score,
    distances: _Distances, bar: tqdm,
) -> None:
    """Read ``rows`` streams side by side and count what they score."""
    device = model.embed.weight.device
    state = None
    start = 0
    for piece, targets, back in _pieces(source, rows, tokens, generator):
        logits, state = model(piece.to(device), state)
        scored = targets != IGNORED
        right = score.add(logits[scored.to(device)], targets[scored].to(device))
        require_finite(score.loss, start + piece.shape[1])
        if back is not None:
            distances.add(back[scored], right.cpu())
        start += piece.shape[1]
        bar.update(piece.numel())


def _pieces(
    source: Source, rows: int, tokens: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Tokens, targets and distances of a stream; text knows no distances."""
    if isinstance(source, PlacedTask):
        yield from source.pieces(rows, tokens, PIECE, generator)
    else:
        for piece, targets in source.stream(rows, tokens, PIECE, generator):
            yield piece, targets, None


class _Distances:
    """How far each answered fact lay back, and whether the answer was right."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.found: list[tuple[int, bool]] = []

    def add(self, distances: Tensor, right: Tensor) -> None:
        """Note questions whose facts lay ``distances`` ``(n,)`` tokens back, answered ``right`` ``(n,)``."""
        self.found += zip(distances.tolist(), right.tolist(), strict=True)

    def summary(self) -> list[dict[str, Any]]:
        """Accuracy in equal bins of distance, the empty ones left out."""
        bins = []
        edges = [i * self.tokens // DISTANCE_BINS for i in range(DISTANCE_BINS + 1)]
        for low, high in pairwise(edges):
            inside = [right for distance, right in self.found if low < distance <= high]
            if inside:
                bins.append({"above": low, "to": high, "answers": len(inside),
                             "accuracy": sum(inside) / len(inside)})
        return bins


# By position in the document.


@dataclass(frozen=True)
class DocumentEvaluation:
    """Bits per byte by position in the document. The position of a byte is the number of bytes before it.

    Few documents are long, and long ones may be easier or harder from their first byte on. So positions are to be
    compared for the same documents: each group is of the documents that have at least so many bytes, and gives their
    score in every bin that each of them fills. Within a group the text still differs from position to position (a
    module's docstrings come before its code). Whether a longer past helps is seen where two models, or one with its
    memory and without, are compared bin by bin: they read the same bytes.

    Attributes:
        edges: of the bins of position; bytes from the last edge on are not read.
        groups: ``at_least`` (bytes), ``documents`` (how many), and ``bins``, each with ``from`` and ``below``
            (``from <= position < below``), ``bytes`` (how many were scored) and ``bits_per_byte``. The first group
            is of all documents that reach the first edge, which fill the later bins partly or not at all. Empty bins
            and groups are left out. The first byte of a document has no past, and is not scored.
        source: the text, as it describes itself.
    """

    edges: tuple[int, ...]
    groups: list[dict[str, Any]]
    source: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        return {**vars(self), "edges": list(self.edges)}


@torch.inference_mode()
def evaluate_documents(
    model: LanguageModel, corpus: Corpus, edges: Sequence[int] = EDGES, *, progress: bool | None = None
) -> DocumentEvaluation:
    """Read every document from its start, each from a fresh state, up to the last edge.

    Memory does not grow with the length of the documents.

    Args:
        edges: of the bins of position, rising, at least two.
        progress: show a progress bar; ``None`` shows one when it takes more than some ten seconds.

    Raises:
        TypeError, ValueError: the edges do not rise, no document reaches them, the corpus does not fit the model, or a
            logit is NaN.
    """
    require_fit(model, corpus)
    bins = _PositionBins(edges)
    documents = corpus.documents
    lengths = documents[:, 1] - documents[:, 0]
    first, last = bins.edges[0], bins.edges[-1]
    reaching = lengths > max(first, 1)
    if not reaching.any():
        raise ValueError(
            f"edges begin at position {first}, which no document of the {corpus.split} split of {corpus.name} reaches "
            f"with a byte to score: the longest has {lengths.max()} bytes"
        )
    documents[:, 1] = np.minimum(documents[:, 1], documents[:, 0] + last)
    order = np.argsort(np.minimum(lengths, last), kind="stable")  # side by side lie documents of similar length
    documents = documents[order[reaching[order]]]
    total = int((documents[:, 1] - documents[:, 0]).sum())
    hidden = total < PROGRESS_FROM if progress is None else not progress
    with reading(model, total, hidden) as bar:
        for first in range(0, len(documents), DOCUMENT_ROWS):
            _read_documents(model, corpus, documents[first : first + DOCUMENT_ROWS], bins, bar)
    return DocumentEvaluation(bins.edges, bins.groups(), corpus.describe())


def _read_documents(
    model: LanguageModel, corpus: Corpus, documents: np.ndarray, bins: _PositionBins, bar: tqdm
) -> None:
    """Read a few documents side by side and count what they score; a short one is followed by zeros, which are not."""
    device = model.embed.weight.device
    lengths = torch.from_numpy(documents[:, 1] - documents[:, 0])
    bins.begin(lengths)
    state = None
    for begin in range(0, int(lengths.max()) - 1, PIECE):
        size = min(PIECE, int(lengths.max()) - 1 - begin)
        bytes_read = np.zeros((len(documents), size + 1), dtype=np.uint8)
        for row, (start, stop) in zip(bytes_read, documents, strict=True):
            part = corpus.data[min(start + begin, stop) : min(start + begin + size + 1, stop)]
            row[: len(part)] = part
        stretch = torch.from_numpy(bytes_read).long().to(device)
        logits, state = model(stretch[:, :-1], state)
        losses = cross_entropy(logits.transpose(1, 2), stretch[:, 1:], reduction="none")
        positions = torch.arange(begin + 1, begin + size + 1)
        scored = positions < lengths[:, None]
        bins.add(losses.double().cpu(), positions, scored)
        require_finite(float(bins.losses.sum()), begin + size)
        bar.update(int(scored.sum()))


class _PositionBins:
    """Sums of losses and numbers of bytes by bin of position, apart for documents that reach the same last edge."""

    def __init__(self, edges: Sequence[int]) -> None:
        for edge in edges:
            require_int("edges", edge, 0)
        if len(edges) < 2 or any(high <= low for low, high in pairwise(edges)):
            raise ValueError(f"edges must be two or more positions that rise, such as (0, 64, 128), got {tuple(edges)}")
        if edges[-1] < 2:
            raise ValueError(f"edges must end at 2 or later, because position 0 is not scored, got {tuple(edges)}")
        self.edges = tuple(edges)
        self.bounds = torch.tensor(self.edges)
        shape = (len(self.edges), len(self.edges) - 1)  # the last edge reached, the bin
        self.losses, self.bytes = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64)
        self.documents = torch.zeros(len(self.edges), dtype=torch.int64)

    def begin(self, lengths: Tensor) -> None:
        """Documents of ``lengths`` bytes ``(B,)`` come next."""
        self.reached = torch.bucketize(lengths, self.bounds, right=True) - 1
        self.documents += torch.bincount(self.reached, minlength=len(self.edges))

    def add(self, losses: Tensor, positions: Tensor, scored: Tensor) -> None:
        """Count ``losses`` in nats ``(B, T)`` at ``positions`` ``(T,)``, where ``scored`` ``(B, T)``."""
        scored = scored & (positions >= self.edges[0])
        where = torch.bucketize(positions, self.bounds, right=True) - 1
        cells = (self.reached[:, None] * self.bytes.shape[1] + where)[scored]
        count = self.bytes.numel()
        self.losses += torch.bincount(cells, losses[scored], count).view_as(self.losses)
        self.bytes += torch.bincount(cells, minlength=count).view_as(self.bytes)

    def groups(self) -> list[dict[str, Any]]:
        """As ``DocumentEvaluation.groups``."""
        found = []
        for group, edge in enumerate(self.edges):
            documents = int(self.documents[group:].sum())
            if not documents:
                break
            losses, counts = self.losses[group:].sum(0).tolist(), self.bytes[group:].sum(0).tolist()
            bins = [
                {"from": low, "below": high, "bytes": count, "bits_per_byte": loss / count / math.log(2)}
                for low, high, loss, count in zip(self.edges, self.edges[1:], losses, counts, strict=False)
                if count and (high <= edge or not group)
            ]
            if bins:
                found.append({"at_least": edge if group else max(edge, 1) + 1, "documents": documents, "bins": bins})
        return found
