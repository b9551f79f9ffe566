"""From a learner's function to what is wrong with it.

The function runs on every case. If something is off, its results are first set beside those of the known mistakes;
only when none agrees everywhere are the symptoms of the smallest failing case described.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .attempt import Attempt, attempt, is_close, is_right
from .exercise import Answer, Exercise
from .gradients import gradient_problem
from .symptoms import describe, pattern


@dataclass(frozen=True)
class Finding:
    """What is wrong and, when it shows in numbers, the smallest attempt that fails, with the right result."""

    diagnosis: str
    attempt: Attempt | None = None
    expected: Tensor | None = None


def diagnose(exercise: Exercise, answer: Answer) -> Finding | None:
    """What is wrong with ``answer``, or ``None`` when it is right."""
    cases = exercise.cases()
    attempts = [attempt(exercise, answer, case) for case in cases]
    expected = [exercise.reference(*case.inputs) for case in cases]
    failed = [not is_right(exercise, *pair) for pair in zip(attempts, expected, strict=True)]
    if any(failed):
        first = failed.index(True)
        diagnosis = _known_mistake(exercise, attempts)
        if diagnosis is None:
            diagnosis = describe(exercise, attempts, expected, first) + pattern(attempts, failed)
        return Finding(diagnosis, attempts[first], expected[first])
    changed = next((tried.changed for tried in attempts if tried.changed), ())
    if changed:
        return Finding(
            f"The result is right, but your function changes its input {' and '.join(changed)} in place, and the "
            "caller still needs it. Avoid +=, methods that end in _ and assignments into the input."
        )
    if not exercise.has_gradients:
        return None
    problem = gradient_problem(exercise, answer, next(case for case in cases if case.is_double))
    return Finding(problem) if problem else None


def _known_mistake(exercise: Exercise, attempts: Sequence[Attempt]) -> str | None:
    """The diagnosis of the first known mistake that agrees with the learner on every float32 case.

    float64 is left out: there, constants that stand for infinity, such as −1e9, keep digits that float32 drops.
    """
    singles = [tried for tried in attempts if not tried.case.is_double]
    if all(tried.error is not None for tried in singles):
        return None
    for mistake in exercise.mistakes:
        if all(_agree(tried, attempt(exercise, mistake.answer, tried.case)) for tried in singles):
            return mistake.diagnosis
    return None


def _agree(one: Attempt, other: Attempt) -> bool:
    if isinstance(one.output, Tensor) and isinstance(other.output, Tensor):
        return is_close(one.output, other.output)
    return one.error is not None and other.error is not None
