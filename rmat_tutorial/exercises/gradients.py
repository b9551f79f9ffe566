"""Whether gradients pass through an answer whose values are right."""

from __future__ import annotations

import math
import warnings
from random import Random

import torch
from torch import Tensor

from .exercise import Answer, Case, Exercise, Inputs, is_floating, random_tensor
from .symptoms import describe_error

_CUT = (
    "The values are right, but no gradient reaches {}: a model could not learn through it. Stay in torch operations: "
    "no detach, item, tolist, numpy, no_grad or torch.tensor(…) on the way."
)
_STEP = 1e-4


def gradient_problem(exercise: Exercise, answer: Answer, case: Case) -> str | None:
    """What is wrong with the gradients of ``answer`` on ``case`` (float64), or ``None``.

    A random weighting of the result makes it one number. Its slope along a random direction of each input, by
    autograd, is compared with that of the reference, by differences.
    """
    random = Random(exercise.name)
    weighting = random_tensor(random, *exercise.reference(*case.inputs).shape).double()
    inputs = tuple(v.clone().requires_grad_() if is_floating(v) else v for v in case.inputs)
    places = [place for place, value in enumerate(inputs) if is_floating(value)]
    try:
        # A notebook may have switched gradients off for everything.
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # PyTorch warns of what is diagnosed here.
            loss = (answer(*inputs) * weighting).sum()
            if not loss.requires_grad:
                return _CUT.format("the inputs")
            # Here PyTorch finds out that a step has overwritten what it needs on the way back.
            gradients = torch.autograd.grad(loss, [inputs[place] for place in places], allow_unused=True)
    except Exception as error:
        return f"With inputs that require gradients: {describe_error(error)}"
    for place, gradient in zip(places, gradients, strict=True):
        if gradient is None:
            return _CUT.format(exercise.inputs[place])
        direction = random_tensor(random, *gradient.shape).double()
        slope = _slope(exercise, case.inputs, place, direction, weighting)
        if not math.isclose((gradient * direction).sum(), slope, rel_tol=1e-4, abs_tol=1e-4):
            return (
                f"The values are right, but the gradient that reaches {exercise.inputs[place]} is not: some step on "
                "the way is detached from the graph, or gives NaN on the way back."
            )
    return None


def _slope(exercise: Exercise, inputs: Inputs, place: int, direction: Tensor, weighting: Tensor) -> float:
    ends = []
    for step in (-_STEP, _STEP):
        moved = [*inputs[:place], inputs[place] + step * direction, *inputs[place + 1 :]]
        ends.append((exercise.reference(*moved) * weighting).sum().item())
    return (ends[1] - ends[0]) / (2 * _STEP)
