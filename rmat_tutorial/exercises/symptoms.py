"""What can be seen of a wrong result from outside, when no known mistake gives the same numbers."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from .attempt import Attempt, broken_law, has_wanted_dtype, is_close, wanted_dtype
from .exercise import Case, Exercise, Unfit

_TORCH = Path(torch.__file__).parent
# What PyTorch says of common mistakes, and what it does not say.
_IN_WORDS = {
    re.compile(r"batch2 tensor to be: \[\d+, (\d+)\] but got: \[\d+, (\d+)\]"): (
        "in a product a @ b the last axis of a has {} numbers, the second to last axis of b has {}, and the two must "
        "be equal."
    ),
    re.compile(r"unflatten: Provided sizes \[([\d, -]+)\] don't multiply up to the size of dim (\d+) \((\d+)\)"): (
        "axis {1} has {2} entries here, and these do not divide into ({0})."
    ),
    re.compile(r"Boolean value of Tensor with more than one value"): (
        "if, and, or, not need one true or false, and in a == b & c <= d an and is hidden. For each element of a "
        "tensor write & and |, each comparison in parentheses."
    ),
    re.compile(r"Trying to backward through the graph a second time"): (
        "an earlier backward has used up a part of this graph. Add losses up and call backward once for each graph; "
        "what is handed on behind it has to be detached, or it leads back into the graph that is gone."
    ),
    re.compile(r"element 0 of tensors does not require grad"): (
        "what backward is called on does not lead to the weights: it was detached, or made of numbers."
    ),
}


def describe(exercise: Exercise, attempts: Sequence[Attempt], expected: Sequence[Tensor], first: int) -> str:
    """What is wrong with the attempt number ``first``, the smallest that fails."""
    tried, wanted = attempts[first], expected[first]
    if tried.error is not None:
        return describe_error(tried.error)
    if tried.output is None:
        return "Your function returned None. Is the return line missing?"
    if isinstance(tried.output, Unfit):
        return tried.output.words
    if not isinstance(tried.output, Tensor):
        wanted_type = "torch tensor" if exercise.output else "number"
        return f"Your function returned a {type(tried.output).__name__}; it must return a {wanted_type}."
    if tried.output.shape != wanted.shape:
        return _describe_shape(exercise, attempts, tried, wanted)
    if is_close(tried.output, wanted) and not has_wanted_dtype(exercise, tried):
        needed = wanted_dtype(exercise, tried.case)
        if exercise.dtype is not None:
            return f"The values are right, but their dtype is {tried.output.dtype}; it must be {needed}."
        return (
            f"The values are right, but their dtype is {tried.output.dtype} where the input has "
            f"{needed}. The result keeps the dtype of the input."
        )
    if tried.output.isnan().any():
        return (
            "Your result contains NaN. It comes from 0/0, ∞ − ∞, 0 × ∞ or the root of a negative number: a softmax "
            "over a row in which everything is hidden, for example."
        )
    factor = _factor(attempts, expected)
    if factor is not None:
        return f"Your result is {factor} times the right one, everywhere."
    law = broken_law(exercise, tried, wanted)
    if law is not None:
        return law
    if is_close(tried.output.flatten().sort().values, wanted.flatten().sort().values):
        return "The numbers are right, but they are in the wrong places."
    return "The shape is right, the numbers are not."


def describe_error(error: Exception) -> str:
    """The error and the learner's own line that raised it, without addresses or paths."""
    message = (str(error).strip().splitlines() or [""])[0]
    text = f"Your function raised {type(error).__name__}: {re.sub(r'0x[0-9a-fA-F]+', '0x…', message)}"
    for said, meaning in _IN_WORDS.items():
        if found := said.search(message):
            text += f"\nIn words: {meaning.format(*found.groups())}"
    # The first frame is ours. The learner's follow, perhaps below or above frames of PyTorch.
    frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if _TORCH not in Path(f.filename).parents]
    own = [frame.line for frame in frames if frame.filename == frames[0].filename and frame.line]
    return f"{text}\nIn your line: {own[-1]}" if own else text


def _describe_shape(exercise: Exercise, attempts: Sequence[Attempt], tried: Attempt, wanted: Tensor) -> str:
    if not exercise.output:
        return f"Your function returned a tensor of shape {tuple(tried.output.shape)}; it must return one number."
    text = (
        f"The shape is wrong: expected ({', '.join(exercise.output)}) = {tuple(wanted.shape)}, "
        f"got {tuple(tried.output.shape)}."
    )
    outputs = [other for other in attempts if isinstance(other.output, Tensor)]
    if len({other.output.dim() for other in outputs}) > 1:
        return f"{text} The number of axes changes with the sizes; squeeze(), for example, drops every axis of size 1."
    names = [_axis_name(outputs, axis) for axis in range(tried.output.dim())]
    readable = any(name != "?" for name in names) and tuple(names) != exercise.output
    return f"{text} Yours reads ({', '.join(names)})." if readable else text


def _axis_name(outputs: Sequence[Attempt], axis: int) -> str:
    """The size, or the product of two sizes, that this axis of the results has in every case."""
    axes = list(outputs[0].case.sizes)
    for names in [("1",), *combinations(axes, 1), *combinations(axes, 2)]:
        if all(
            math.prod(tried.case.sizes.get(name, 1) for name in names) == tried.output.shape[axis]
            for tried in outputs
        ):
            return "·".join(names)
    return "?"


def _factor(attempts: Sequence[Attempt], expected: Sequence[Tensor]) -> str | None:
    """The factor between result and expectation, such as "0.5·√d_h/H"; None when there is none."""
    ratios = []
    for tried, wanted in zip(attempts, expected, strict=True):
        if not isinstance(tried.output, Tensor) or tried.output.shape != wanted.shape:
            return None
        largest = wanted.abs().argmax()
        if wanted.flatten()[largest] == 0:
            return None  # any factor would do
        ratios.append((tried.output.flatten()[largest] / wanted.flatten()[largest]).item())
        if ratios[-1] == 0 or not is_close(tried.output / ratios[-1], wanted):
            return None
    # log |ratio| = log constant + sum of power · log size: linear in the unknowns, whose powers are halves.
    axes = list(attempts[0].case.sizes)
    sizes = torch.tensor([[tried.case.sizes[axis] for axis in axes] for tried in attempts]).double()
    factors = torch.tensor(ratios).double()
    columns = torch.cat([sizes.log(), torch.ones_like(sizes[:, :1])], 1)
    *powers, constant = torch.linalg.lstsq(columns, factors.abs().log()[:, None]).solution.flatten().tolist()
    powers = [round(2 * power) / 2 for power in powers]
    number = math.copysign(math.exp(constant), ratios[0])
    fitted = number * (sizes ** torch.tensor(powers)).prod(1)
    fits = torch.allclose(fitted, factors, rtol=1e-4)
    is_one = torch.allclose(factors, torch.ones_like(factors), rtol=1e-4)
    return _product(f"{number:.4g}", dict(zip(axes, powers, strict=True))) if fits and not is_one else None


def _product(number: str, powers: dict[str, float]) -> str:
    shown = {0.5: "√{}", 1.0: "{}"}
    parts = {name: shown.get(abs(power), f"{{}}^{abs(power):g}").format(name) for name, power in powers.items()}
    above = [parts[name] for name, power in powers.items() if power > 0]
    below = [f"/{parts[name]}" for name, power in powers.items() if power < 0]
    return "·".join([number, *above] if number != "1" or not above else above) + "".join(below)


def pattern(attempts: Sequence[Attempt], failed: Sequence[bool]) -> str:
    """A sentence when the failures are exactly the cases with, or without, one special size; else nothing."""
    axes = list(attempts[0].case.sizes)
    conditions: dict[str, Callable[[Case], bool]] = {"the input is float64": lambda case: case.is_double}
    for axis in axes:
        conditions[f"{axis} = 1"] = lambda case, axis=axis: case.sizes[axis] == 1
    for one, two in combinations(axes, 2):
        conditions[f"{one} = {two}"] = lambda case, one=one, two=two: case.sizes[one] == case.sizes[two]
    conditions["an axis has size 1"] = lambda case: 1 in case.sizes.values()
    for name, holds in conditions.items():
        special = [holds(tried.case) for tried in attempts]
        if special == list(failed):
            return f"\nIt is wrong only when {name}."
        if any(special) and special == [not fails for fails in failed]:
            return f"\nIt is right only when {name}."
    return ""
