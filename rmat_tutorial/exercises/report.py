"""How the outcome of a check is shown: one display with HTML and the same words as plain text."""

from __future__ import annotations

from html import escape
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .attempt import TOLERANCE
from .diagnosis import Finding
from .exercise import Exercise

# Colour is never the only sign: each state begins with its own words.
_COLOURS = {"OK": "#009E73", "not attempted yet": "#777777", "not right yet": "#D55E00"}
_MOST_NUMBERS = 24


def show(state: str, exercise: Exercise, message: str, numbers: str = "") -> None:
    """Display ``message`` (and ``numbers`` in fixed width) in a notebook; print it elsewhere."""
    text = "\n\n".join(part for part in (f"{exercise.name}: {state}. {message}", numbers) if part)
    shell = _shell()
    if shell is None:
        print(text)
        return
    from IPython.display import display

    lines = "<br>".join(escape(line) for line in message.splitlines())
    block = f'<pre style="margin: 0.6em 0 0 0">{escape(numbers)}</pre>' if numbers else ""
    html = (
        f'<div style="border-left: 4px solid {_COLOURS[state]}; padding: 0.3em 0.9em; line-height: 1.5">'
        f"<b>{escape(exercise.name)}: {escape(state)}.</b> {lines}{block}</div>"
    )
    display({"text/plain": text, "text/html": html}, raw=True)


def _shell() -> Any:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def numbers(exercise: Exercise, finding: Finding) -> str:
    """The smallest failing input, what was expected and what came; of large tensors the part that differs."""
    if finding.attempt is None or not exercise.inputs:
        return ""
    case, output = finding.attempt.case, finding.attempt.output
    part = None
    if isinstance(output, Tensor) and output.shape == finding.expected.shape:
        differs = ~torch.isclose(output.double(), finding.expected, rtol=TOLERANCE, atol=TOLERANCE)
        part = tuple(differs.nonzero()[0].tolist()[:-2]) if differs.any() else None
    lines = ["Smallest input that shows it: " + ", ".join(f"{axis} = {size}" for axis, size in case.sizes.items())]
    for name, value in zip(exercise.inputs, case.inputs, strict=True):
        lines.append(_tensor(name, value, part) if isinstance(value, Tensor) else f"{name} = {value}")
    lines.append(_tensor("expected", finding.expected, part))
    if isinstance(output, Tensor):
        lines.append(_tensor("got", output, part))
    return "\n".join(lines)


def _tensor(name: str, value: Tensor, part: tuple[int, ...] | None) -> str:
    """All matrices of ``value`` when it is small, else the one at ``part`` (of its leading axes), else the shape."""
    if not value.dim():
        return f"{name} = {_rows(value)}"
    shape = f"{name} {tuple(value.shape)}"
    leading = value.shape[:-2]
    indices = [*product(*map(range, leading))]
    if not 0 < value.numel() <= _MOST_NUMBERS:
        # An axis that the result lacks is shown whole: where in it the difference comes from is not known.
        rest = product(*map(range, leading[len(part or ()) :]))
        indices = [] if part is None else [part[: len(leading)] + index for index in rest]
    blocks = [shape]
    for index in indices:
        label = f"  {name}[{', '.join(map(str, index))}] = " if index else f"  {name} = "
        blocks.append(label + _rows(value[index]).replace("\n", "\n" + " " * len(label)))
    return "\n".join(blocks)


def _rows(matrix: Tensor) -> str:
    cells = [[f"{value:.4g}" for value in row] for row in torch.atleast_2d(matrix).tolist()]
    width = max((len(cell) for row in cells for cell in row), default=0)
    return "\n".join("  ".join(cell.rjust(width) for cell in row) for row in cells)
