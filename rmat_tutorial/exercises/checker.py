"""``check``: the one function that the notebooks call."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

from ..progress import record_exercise
from .diagnosis import attempt, diagnose
from .exercise import Answer, Exercise
from .registry import find
from .report import numbers, show


def check(exercise: str, answer: Answer, otherwise: Answer) -> Answer:
    """Try ``answer`` on many shapes, show what came out, and return the function to go on with.

    exercise   name of the exercise, such as ``"01.scaled_scores"``
    answer     the learner's function
    otherwise  what the notebook goes on with while ``answer`` is missing or wrong

    Returns ``answer`` when it is right, else ``otherwise``. The outcome is kept in the progress file, unless the
    stub is untouched. Raises ``ValueError`` for an unknown exercise, ``TypeError`` for something not callable.
    """
    task = find(exercise)
    for name, value in (("answer", answer), ("otherwise", otherwise)):
        if not callable(value):
            raise TypeError(f"{name} must be a function, got {type(value).__name__}: pass it without calling it")
    if answer is otherwise:
        show("not attempted yet", task, "This is the course's own function. Run the cell with yours first.")
        return otherwise
    if _is_stub(task, answer):
        show("not attempted yet", task, "The notebook goes on with the course's own function.")
        return otherwise
    # What the function prints was seen once, for the example above; here it would come for every input.
    with redirect_stdout(io.StringIO()):
        finding = diagnose(task, answer)
    if finding is None:
        show("OK", task, f"Right on all {_extent(task)}.")
    else:
        show("not right yet", task, f"{finding.diagnosis}\nAsked for: {task.contract}", numbers(task, finding))
    record_exercise(task.name, finding is None)
    return answer if finding is None else otherwise


def _extent(task: Exercise) -> str:
    if not task.inputs:
        axis = task.output[0]
        return f"{task.example.sizes[axis]} {axis}"
    return f"{len(task.cases())} inputs{', gradients included' if task.has_gradients else ''}"


def _is_stub(task: Exercise, answer: Answer) -> bool:
    error = attempt(task, answer, task.example).error
    # PyTorch raises the same type when an operation lacks a dtype: "… not implemented for 'Bool'".
    return isinstance(error, NotImplementedError) and "not implemented for '" not in str(error)
