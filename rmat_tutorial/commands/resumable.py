"""What the commands share that make one result out of many jobs: they can be stopped, and go on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..jobs import command_line
from .machine import describe_machine

CPU = torch.device("cpu")


def make_result(
    make: Callable[[dict[str, Any]], dict[str, Any]], describe: Callable[[dict[str, Any]], str], file: Path,
    arguments: list[str], device: torch.device = CPU,
) -> int:
    """Let ``make`` write its result to ``file``, given what is said of the machine, and print it; the exit status."""
    machine = {"command": command_line(arguments), **describe_machine(device, threads=1)}
    try:
        result = make(machine)
    except KeyboardInterrupt:
        print(f"go on with: {command_line(arguments)}", file=sys.stderr)
        raise
    print(describe(result))
    print(f"saved {file}")
    return 2 if result["failures"] else 0
