"""How well a model does on streams of any length, in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from .model import RMAT
from .tasks import IGNORED, RecallTask, Source
from .validate import require_int, require_seed

PIECE = 512  # tokens read at a time: more would hold more logits at once and not be faster
ROWS = 64  # sequences read side by side
PROGRESS_FROM = 500_000  # tokens in all from which a progress bar is worth it: some ten seconds
DISTANCE_BINS = 4


@dataclass
class Score:
    """Sums over scored positions: the loss in nats, right answers, and how many positions there were."""

    loss: float = 0.0
    correct: int = 0
    positions: int = 0

    def add(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Count scored positions ``(n, V)`` and ``(n,)``; returns which were right, ``(n,)``."""
        right = logits.argmax(dim=-1) == targets
        self.loss += cross_entropy(logits, targets, reduction="sum").item()
        self.correct += int(right.sum())
        self.positions += len(targets)
        return right

    @property
    def mean_loss(self) -> float:
        """Nats per scored position."""
        return self.loss / self.positions

    def value(self, metric: str) -> float:
        """``"accuracy"``: the share of right answers. ``"bits_per_byte"``: the mean loss in bits."""
        return self.correct / self.positions if metric == "accuracy" else self.mean_loss / math.log(2)


@dataclass(frozen=True)
class Evaluation:
    """A score and what it was measured on.

    Attributes:
        metric: ``"accuracy"`` or ``"bits_per_byte"``; ``value`` is its value.
        loss: nats per scored position.
        positions: how many positions were scored.
        tokens, sequences, seed: length and number of the streams, and what they were drawn from.
        source: the task or the text, as it describes itself.
        by_distance: for recall, accuracy by the distance from fact to query, in tokens.
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
    model: RMAT, source: Source, tokens: int, sequences: int, seed: int = 0, *, progress: bool | None = None
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
    if source.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"source has {source.vocab_size} tokens, the model has vocab_size = {model.config.vocab_size}; "
            "evaluate a model on the task that it was trained on"
        )
    source.stream(min(sequences, ROWS), tokens, PIECE, torch.Generator())  # raises before a progress bar is drawn
    generator = torch.Generator().manual_seed(seed)
    score, distances = Score(), _Distances(tokens)
    hidden = tokens * sequences < PROGRESS_FROM if progress is None else not progress
    training = model.training
    model.eval()
    try:
        with tqdm(total=tokens * sequences, desc="evaluating", unit="token", unit_scale=True, disable=hidden) as bar:
            for first in range(0, sequences, ROWS):
                rows = min(ROWS, sequences - first)
                _read(model, source, rows, tokens, generator, score, distances, bar)
    finally:
        model.train(training)
    return Evaluation(
        source.metric, score.value(source.metric), score.mean_loss, score.positions, tokens, sequences, seed,
        source.describe(), distances.summary(),
    )


def _read(
    model: RMAT, source: Source, rows: int, tokens: int, generator: torch.Generator, score: Score,
    distances: _Distances, bar: tqdm,
) -> None:
    """Read ``rows`` streams side by side and count what they score."""
    device = model.embed.weight.device
    state = None
    start = 0
    if isinstance(source, RecallTask):
        distances.begin(rows, source)
    for piece, targets in source.stream(rows, tokens, PIECE, generator):
        logits, state = model(piece.to(device), state)
        scored = targets != IGNORED
        right = score.add(logits[scored.to(device)], targets[scored].to(device))
        if not math.isfinite(score.loss):
            raise ValueError(
                f"the loss is {score.loss} after {start + piece.shape[1]} tokens: the weights are damaged or "
                "the training diverged"
            )
        if isinstance(source, RecallTask):
            distances.add(piece, start, right.cpu())
        start += piece.shape[1]
        bar.update(piece.numel())


class _Distances:
    """How far each answered fact lay back, and whether the answer was right."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.found: list[tuple[int, bool]] = []

    def begin(self, rows: int, task: RecallTask) -> None:
        self.task = task
        self.places = torch.zeros(rows, task.keys, dtype=torch.int64)

    def add(self, piece: Tensor, start: int, right: Tensor) -> None:
        """Note the facts of a piece that begins at ``start``, and its queries, answered ``right`` in order."""
        stated, asked = self.task.fact_keys(piece), self.task.query_keys(piece)
        rows, columns = (stated >= 0).nonzero(as_tuple=True)
        self.places[rows, stated[rows, columns]] = columns + start
        rows, columns = (asked >= 0).nonzero(as_tuple=True)
        distances = columns + start - self.places[rows, asked[rows, columns]]
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
