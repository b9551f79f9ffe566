"""One call of a learner's function on one case, and whether its result is right."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .exercise import Answer, Case, Exercise

TOLERANCE = 1e-5  # Relative and absolute: a hundred roundings of float32, far below any mistake.


@dataclass(frozen=True)
class Attempt:
    """One call of a function on a case: what came back (or was raised), and which inputs it changed."""

    case: Case
    output: Any = None
    error: Exception | None = None
    changed: tuple[str, ...] = ()


def attempt(exercise: Exercise, answer: Answer, case: Case) -> Attempt:
    """Call ``answer`` on copies of the inputs of ``case``."""
    copies = deepcopy(case.inputs)
    try:
        with torch.enable_grad():  # A notebook may have switched gradients off, and an answer may call backward.
            output = answer(*copies)
    except Exception as error:  # Whatever a learner's code raises is a result to report.
        return Attempt(case, error=error)
    changed = tuple(
        name
        for name, before, after in zip(exercise.inputs, case.inputs, copies, strict=True)
        if isinstance(before, Tensor) and not torch.equal(before, after)
    )
    output = exercise.outcome(output, *copies)
    if not exercise.output and isinstance(output, int | float) and not isinstance(output, bool):
        output = torch.tensor(output, dtype=torch.float64)
    # A result that shares memory with the inputs must not change under us, nor carry a graph along.
    return Attempt(case, output.detach().clone() if isinstance(output, Tensor) else output, changed=changed)


def is_close(got: Tensor, wanted: Tensor) -> bool:
    """Whether shapes and values agree; NaN agrees with NaN."""
    return got.shape == wanted.shape and torch.allclose(
        got.double(), wanted.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
    )


def has_wanted_dtype(exercise: Exercise, tried: Attempt) -> bool:
    """Whether the result has the dtype of the exercise or else of the input; of a number any will do."""
    return not exercise.output or tried.output.dtype == wanted_dtype(exercise, tried.case)


def wanted_dtype(exercise: Exercise, case: Case) -> torch.dtype:
    """The dtype of the exercise, or else of the input tensors, which the result must keep."""
    return exercise.dtype or (torch.float64 if case.is_double else torch.float32)


def is_right(exercise: Exercise, tried: Attempt, expected: Tensor) -> bool:
    """Whether type, dtype, shape and values are right and no law of the exercise is broken."""
    output = tried.output
    return (
        isinstance(output, Tensor)
        and has_wanted_dtype(exercise, tried)
        and is_close(output, expected)
        and broken_law(exercise, tried, expected) is None
    )


def broken_law(exercise: Exercise, tried: Attempt, expected: Tensor) -> str | None:
    """What the first broken law of the exercise says; the result must be a tensor of the right shape."""
    output = tried.output.double()
    messages = (law(output, expected, *tried.case.inputs) for law in exercise.laws)
    return next((message for message in messages if message), None)
