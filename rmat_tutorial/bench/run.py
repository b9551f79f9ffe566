"""Measuring case after case into one json, which can be stopped and goes on."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..folders import write_whole
from ..jobs import reason_of
from .plan import Case
from .verdict import claims

SAME = ("device", "kind", "threads", "versions", "quick")  # what two results must share to be one
PART = "benchmark"


def result_name(device: torch.device) -> str:
    """The name of the json of what was measured on ``device``: ``cpu.json``, or that of the CUDA device."""
    called = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{re.sub('[^a-z0-9]+', '-', called.lower()).strip('-')}.json"


def run_cases(
    cases: Sequence[Case], out: Path, unfinished: Path, machine: dict[str, Any], progress: bool = True
) -> dict[str, Any]:
    """Measure every case, and write ``out``. What has been measured is kept in ``unfinished`` until all is.

    Args:
        machine: what the result says of the machine: at least ``SAME``. What ``unfinished`` has of another machine or
            of other versions is measured anew.

    Returns:
        What was written: ``part``, ``machine``, ``cases`` in their order, each with its ``part`` and ``name``;
        ``claims``; and ``failures``, the cases that failed, each with the reason.

    Raises:
        OSError: a file cannot be written.
        KeyboardInterrupt: it was stopped, and goes on when it is called again.
    """
    result = {"part": PART, **machine, "cases": begun(unfinished, machine), "claims": [], "failures": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    done = {(case["part"], case["name"]) for case in result["cases"]}
    for number, case in enumerate(cases, 1):
        if case[:2] in done:
            continue
        doing = f"{number} of {len(cases)}: {case.part}, {case.name}"
        with tqdm(desc=doing, unit="timing", disable=not progress) as bar:
            try:
                result["cases"].append({"part": case.part, "name": case.name, **case.measure(bar)})
            except Exception as error:
                result["failures"].append({"job": f"{case.part}, {case.name}", "reason": reason_of(error)})
        give_back()
        result["claims"] = [claim._asdict() for claim in claims(result)]
        write(unfinished, result)
    write(out, result)
    unfinished.unlink()
    return json.loads(out.read_text())


def begun(unfinished: Path, machine: dict[str, Any]) -> list[dict[str, Any]]:
    """The cases that an interrupted run has measured on the same machine."""
    if not unfinished.is_file():
        return []
    before = json.loads(unfinished.read_text())
    return before["cases"] if all(before[name] == machine[name] for name in SAME) else []


def write(file: Path, result: dict[str, Any]) -> None:
    write_whole(file, (json.dumps(result, indent=1) + "\n").encode())


def give_back() -> None:
    """Let the device have what a case no longer holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
