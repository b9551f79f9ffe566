"""The options that say what the streams of a task hold: one for each field of each task."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from ..tasks import TASKS
from .options import UsageError, given, option_of

TASK_FIELDS = {name: tuple(field.name for field in fields(task)) for name, task in TASKS.items()}
TASK_OPTIONS = tuple(dict.fromkeys(name for names in TASK_FIELDS.values() for name in names))


def add_task_options(parser: argparse.ArgumentParser, title: str) -> None:
    task = parser.add_argument_group(title)
    for name in TASK_OPTIONS:
        if name != "fact_span":
            task.add_argument(option_of(name), type=int, help=tasks_with(name))
    task.add_argument("--fact-span", type=float, nargs=2, metavar=("START", "STOP"),
                      help="all tasks: the part of the stream in which facts lie, as fractions, such as 0 0.5")


def task_fields(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """The fields of the task ``kind`` that the options give; ``"text"`` has none.

    Raises:
        UsageError: an option is of another task.
    """
    own = TASK_FIELDS.get(kind, ())
    for name in given(options, [name for name in TASK_OPTIONS if name not in own]):
        raise UsageError(f"{option_of(name)} is for {tasks_with(name)}, got {kind}")
    return given(options, own)


def tasks_with(name: str) -> str:
    """The tasks that have a field of this name."""
    return ", ".join(task for task, names in TASK_FIELDS.items() if name in names)
