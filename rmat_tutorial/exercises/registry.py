"""All exercises of the course by name. A new notebook's file is imported here and added to the tuple below."""

from __future__ import annotations

from difflib import get_close_matches

from . import attention, block, causes, chunks, kernels, language_model, memory, prediction, rope, start, training
from .exercise import Exercise

_FILES = (start, attention, rope, chunks, memory, block, prediction, language_model, training, causes, kernels)
EXERCISES: dict[str, Exercise] = {exercise.name: exercise for file in _FILES for exercise in file.EXERCISES}


def find(name: str) -> Exercise:
    """The exercise called ``name``; raises ``ValueError`` that suggests the nearest name."""
    if not isinstance(name, str):
        raise TypeError(f"exercise must be a name such as '01.scaled_scores', got {type(name).__name__}")
    if name not in EXERCISES:
        nearest = get_close_matches(name, EXERCISES, n=1, cutoff=0.4)
        advice = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(map(repr, EXERCISES))}"
        raise ValueError(f"exercise {name!r} is unknown; {advice}")
    return EXERCISES[name]
