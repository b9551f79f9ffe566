"""Measuring case after case into one json, which can be stopped and goes on."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from ..folders import write_whole
from ..jobs import reason_of
from ..validate import require_choice
from .plan import Case
from .verdict import claims

SAME = ("device", "kind", "threads", "versions", "quick")  # what two results must share to be one
PART = "benchmark"
AND = " && "  # between the commands that made a result one after the other
NOTHING: Mapping[str, Any] = {"command": [], "cases": [], "failures": []}


def result_name(device: torch.device) -> str:
    """The name of the json of what was measured on ``device``: ``cpu.json``, or that of the CUDA device."""
    called = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{re.sub('[^a-z0-9]+', '-', called.lower()).strip('-')}.json"


def run_cases(
    cases: Sequence[Case], out: Path, unfinished: Path, machine: dict[str, Any], only: Collection[str] = (),
    progress: bool = True,
) -> dict[str, Any]:
    """Measure every case, and write ``out``. After each case all that has been measured is written to ``unfinished``.

    Args:
        machine: what the result says of the machine: at least ``SAME`` and ``command``. What ``unfinished`` has of
            another machine or of other versions is measured anew.
        only: of which parts; by default of all. What ``out`` has of the others stays as it is.

    Returns:
        What was written: ``part``, ``machine``, with every command that had a share in it; ``cases`` in their order,
        each with its ``part`` and ``name``; ``claims``; and ``failures``, the cases that failed, each with the reason.

    Raises:
        ValueError: ``only`` names a part without cases, or ``out`` is of another machine or of other versions, so that
            no part can be added to it.
        OSError: a file cannot be written.
        KeyboardInterrupt: it was stopped, and goes on when it is called again.
    """
    for part in only:
        require_choice("only", part, list(dict.fromkeys(case.part for case in cases)))
    asked = [case for case in cases if not only or case.part in only]
    names = {case[:2] for case in asked}
    kept = to_add_to(out, machine) if only else NOTHING
    begun = earlier(unfinished, machine)
    found = {key: case for key, case in by_name(kept).items() if key not in names} | by_name(begun)
    commands = dict.fromkeys([*kept["command"], *begun["command"], machine["command"]])
    result = {
        "part": PART, **machine, "command": AND.join(commands), "cases": [], "claims": [],
        "failures": [one for one in kept["failures"] if one["job"] not in map(", ".join, names)],
    }
    for folder in (out.parent, unfinished.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(asked, 1):
        if case[:2] not in found:
            doing = f"{number} of {len(asked)}: {case.part}, {case.name}"
            with tqdm(desc=doing, unit="timing", disable=not progress) as bar:
                try:
                    found[case[:2]] = {"part": case.part, "name": case.name, **case.measure(bar)}
                except Exception as error:
                    result["failures"].append({"job": ", ".join(case[:2]), "reason": reason_of(error)})
            give_back()
        result["cases"] = [found[one[:2]] for one in cases if one[:2] in found]
        result["claims"] = [claim._asdict() for claim in claims(result)]
        write(unfinished, result)
    write(out, result)
    unfinished.unlink()
    return json.loads(out.read_text())


def to_add_to(out: Path, machine: dict[str, Any]) -> Mapping[str, Any]:
    """What ``out`` holds, so that parts of it can be measured anew."""
    if out.is_file() and not is_same(json.loads(out.read_text()), machine):
        raise ValueError(f"{out} is of another machine or of other versions, and no part can be added to it: give "
                         "another file with --out")
    return earlier(out, machine)


def earlier(file: Path, machine: dict[str, Any]) -> Mapping[str, Any]:
    """What an earlier run on the same machine has left in ``file``; its commands one by one."""
    if file.is_file() and is_same(before := json.loads(file.read_text()), machine):
        return {**before, "command": before["command"].split(AND)}
    return NOTHING


def is_same(before: Mapping[str, Any], machine: Mapping[str, Any]) -> bool:
    """Whether a result may be one with what is measured now."""
    return all(before[name] == machine[name] for name in SAME)


def by_name(result: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The cases of a result, by part and name."""
    return {(case["part"], case["name"]): case for case in result["cases"]}


def write(file: Path, result: dict[str, Any]) -> None:
    write_whole(file, (json.dumps(result, indent=1) + "\n").encode())


def give_back() -> None:
    """Let the device have what a case no longer holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
