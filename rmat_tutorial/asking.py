"""The same facts, asked after so many tokens: one reading of a stream, asked on its way without its noticing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from .evaluation import PIECE, PROGRESS_FROM, ROWS, reading, require_finite, require_fit
from .language_model import LanguageModel
from .tasks import IGNORED, PlacedTask
from .validate import require_int, require_seed

LEAST_OPENING = 2  # segments


@dataclass(frozen=True)
class Asked:
    """What a model said when the questions of ``R`` streams came after each of some gaps.

    Attributes:
        task: of the streams; its facts lie anywhere in the opening.
        gaps: tokens between the opening and the questions, rising.
        opening: tokens at the start of each stream, in which all its facts lie.
        seed: of the streams.
        places, facts: where the tokens of facts lie in the opening, and which they are, ``(R, n)``.
        questions, targets: the tokens that ask, and the answers, ``IGNORED`` where none is due, ``(R, q)``.
        said: the likeliest token at each of the questions, for each gap, ``(len(gaps), R, q)``.
    """

    task: PlacedTask
    gaps: tuple[int, ...]
    opening: int
    seed: int
    places: Tensor
    facts: Tensor
    questions: Tensor
    targets: Tensor
    said: Tensor

    @property
    def answers(self) -> int:
        """Questions that were asked at each gap."""
        return int((self.targets != IGNORED).sum())

    @property
    def right(self) -> list[int]:
        """Right answers at each gap."""
        return (self.said == self.targets).sum(dim=(1, 2)).tolist()

    def example(self) -> dict[str, Any]:
        """The first stream in words: its ``facts`` in their order, its ``questions`` and their ``answers``, and what
        was ``said`` to each question, a list for each gap."""
        ends = (self.targets[0] != IGNORED).nonzero().flatten().tolist()
        decode = self.task.decode
        facts = self.facts[0][self.places[0].argsort()]
        return {
            "facts": [" ".join(map(decode, fact)) for fact in facts.split(self.task.cell)],
            "questions": [" ".join(map(decode, self.questions[0, begin + 1 : end + 1]))
                          for begin, end in pairwise([-1, *ends])],
            "answers": [decode(self.targets[0, end]) for end in ends],
            "said": [[decode(said[0, end]) for end in ends] for said in self.said],
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        answers = self.answers
        return {
            "gaps": list(self.gaps), "accuracy": [right / answers for right in self.right], "answers": answers,
            "opening": self.opening, "sequences": len(self.targets), "seed": self.seed,
            "source": self.task.describe(), "example": self.example(),
        }


@torch.inference_mode()
def asked_after(
    model: LanguageModel, task: PlacedTask, gaps: Sequence[int], sequences: int, seed: int = 0, *,
    progress: bool | None = None,
) -> Asked:
    """Read streams that begin with facts and go on with background, and ask for the facts after each of ``gaps``.

    The questions are asked of a copy of the state, and the stream is read on as if nothing had been asked. So one
    reading up to the longest gap serves all of them. Memory does not grow with the gaps.

    Args:
        task: its ``fact_span`` is not looked at. The facts lie in the opening, the first two segments or as many as
            they fill half of.
        gaps: tokens between the opening and the questions, in any order.
        sequences: streams; the same for each gap.
        progress: show a progress bar; ``None`` shows one when it takes more than some ten seconds.

    Raises:
        TypeError, ValueError: an argument is out of range, the task does not fit the model, or a logit is NaN.
    """
    gaps = _rising(gaps, task)
    require_int("sequences", sequences, 1)
    require_seed("seed", seed)
    require_fit(model, task)
    task = replace(task, fact_span=(0.0, 1.0))
    length = model.config.segment_len
    opening = length * max(LEAST_OPENING, -(-2 * task.fact_tokens // length))
    generator = torch.Generator().manual_seed(seed)
    episodes, said = [], []
    total = sequences * (opening + gaps[-1] + len(gaps) * task.question_tokens)
    hidden = total < PROGRESS_FROM if progress is None else not progress
    with reading(model, total, hidden) as bar:
        for first in range(0, sequences, ROWS):
            rows = min(ROWS, sequences - first)
            start = generator.get_state()
            episodes.append(task.episode(rows, opening + task.question_tokens, generator))
            generator.set_state(start)  # the episode of the batch is the same
            said.append(torch.stack(list(_answers(model, task, rows, opening, gaps, generator, bar))))
    places, facts, questions, targets, _ = (torch.cat(parts) for parts in zip(*episodes, strict=True))
    return Asked(task, gaps, opening, seed, places, facts, questions, targets, torch.cat(said, dim=1))


def _rising(gaps: Sequence[int], task: PlacedTask) -> tuple[int, ...]:
    """``gaps`` in order, each once, or an error that says what is wrong with them."""
    for gap in gaps:
        require_int("gaps", gap, 0)
        if gap % task.cell:
            raise ValueError(
                f"gaps must be multiples of {task.cell} for {task.kind}, such as {gap - gap % task.cell}, got {gap}"
            )
    if not gaps:
        raise ValueError("gaps must name at least one number of tokens, got none")
    return tuple(sorted(set(gaps)))


def _answers(
    model: LanguageModel, task: PlacedTask, rows: int, opening: int, gaps: Sequence[int], generator: torch.Generator,
    bar: tqdm,
) -> Iterator[Tensor]:
    """Read ``rows`` streams side by side; what is said to their questions after each of ``gaps``, ``(rows, q)``."""
    device = model.embed.weight.device
    tokens, targets = task.batch(rows, opening + task.question_tokens, generator)
    questions, answers = tokens[:, opening:].to(device), targets[:, opening:]
    scored = answers != IGNORED
    state = None
    for piece in tokens[:, :opening].split(PIECE, dim=1):
        state = model(piece.to(device), state).state
        bar.update(piece.numel())
    for before, gap in pairwise((0, *gaps)):
        for piece in task.background(rows, gap - before, PIECE, generator):
            state = model(piece.to(device), state).state
            bar.update(piece.numel())
        logits = model(questions, state).logits.cpu()  # the state after the questions is dropped
        require_finite(cross_entropy(logits[scored], answers[scored]).item(), opening + gap)
        bar.update(questions.numel())
        yield logits.argmax(dim=-1)
