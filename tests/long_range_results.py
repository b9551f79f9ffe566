"""Results of ``long-range`` as they would be written, without the trainings."""

from collections.abc import Callable
from typing import Any

from rmat_tutorial.long_range import PARTS, TASK_WORDS, Case
from rmat_tutorial.recipes import RECIPES
from rmat_tutorial.tasks import TASKS

Answers = Callable[[Case, int, Any], float]
"""The share of right answers of a case at a length, on streams of a task."""


def result(part: str, answers: Answers, quick: bool = False) -> dict[str, Any]:
    """The json of a part, whole."""
    return {"part": part, "quick": quick, "command": f"python -m rmat_tutorial long-range {part}", "device": "a CPU",
            "models": [model(case, answers) for case in PARTS[part](quick)], "failures": []}


def model(case: Case, answers: Answers) -> dict[str, Any]:
    scores = []
    for name, reading in case.readings.items():
        words = dict(zip(reading.words[::2], reading.words[1::2], strict=True))
        fields = {option[2:]: int(value) for option, value in words.items() if option in ("--facts", "--writes")}
        task = TASKS[case.task](**({"keys": 64} if fields.get("facts", 0) > 8 else {}), **fields)
        scores += [{"tokens": tokens, "accuracy": answers(case, tokens, task), "positions": 4 * reading.sequences,
                    "sequences": reading.sequences, "seed": 0, "source": task.describe(), "by_distance": [],
                    "most_resident_bytes": 2 * 10**8, "reading": name, "command": "…"} for tokens in reading.tokens]
    settings = RECIPES[case.task].settings
    return {**case.labels, "command": case.training().command, "training_seconds": 200.0, "threads": 1,
            "settings": {"max_segments": settings.max_segments, "steps": settings.steps}, "scores": scores}


def bar_answers(case: Case, tokens: int, task: Any) -> float:
    return 1 - 0.0004 * (1 + case.labels["seed"]) * tokens.bit_length() / 5


def capacity_answers(case: Case, tokens: int, task: Any) -> float:
    held = min(1.0, case.labels["memory_slots"] / task.facts) * (0.97 if tokens > 512 else 1.0)
    return held + (1 - held) * task.chance


def task_answers(case: Case, tokens: int, task: Any) -> float:
    kind = case.labels["kind"]
    reach = {"segment": 32, "window": 100, "transformer-xl": 120, "full": 600, "rmt": 20_000, "rmat": 10**6}[kind]
    kept = min(1.0, reach / tokens) * (1 - 0.03 * list(TASK_WORDS).index(case.task))
    return kept + (1 - kept) * task.chance


ANSWERS = {"bar": bar_answers, "capacity": capacity_answers, "tasks": task_answers}
