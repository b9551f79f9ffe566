"""The learner's progress file: the answers kept before a result was shown, and the exercises solved.

One json file in the learner's folder, ``{"predictions": {...}, "exercises": {...}}``. Every change is read, made and
written under a lock, so several notebooks can be open at once; a file is replaced whole, never left half written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .folders import home, write_whole
from .validate import require_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


@dataclass(frozen=True)
class KeptAnswer:
    """The answer to one question. Once its result was shown beside it (``revealed``) it does not change."""

    question: str
    answer: str
    revealed: bool = False


def path() -> Path:
    """Where the progress file lies: ``progress.json`` in the learner's folder."""
    return home() / "progress.json"


def predictions() -> dict[str, KeptAnswer]:
    """Every answer kept, by the key of its question."""
    with _lock():
        return _read()[0]


def exercises() -> dict[str, bool]:
    """Every exercise tried, by name: whether it was ever solved."""
    with _lock():
        return _read()[1]


def keep_prediction(key: str, question: str, answer: str) -> KeptAnswer:
    """Keep ``answer`` and return what is kept now: an earlier answer to this question if its result was shown."""
    for name, value in (("key", key), ("question", question), ("answer", answer)):
        require_text(name, value)
    with _lock():
        answers, solved = _read()
        kept = answers.get(key)
        if kept is None or kept.question != question or not kept.revealed:
            answers[key] = KeptAnswer(question, answer)
            _write(answers, solved)
        return answers[key]


def reveal_prediction(key: str) -> KeptAnswer:
    """Note that the result is shown beside the answer kept under ``key``; return that answer, now final."""
    with _lock():
        answers, solved = _read()
        if key not in answers:
            raise ValueError(f"key must be that of an answer kept, got {key!r}")
        if not answers[key].revealed:
            answers[key] = replace(answers[key], revealed=True)
            _write(answers, solved)
        return answers[key]


def record_exercise(name: str, passed: bool) -> None:
    """Record that an exercise was tried. Once solved it stays solved."""
    require_text("name", name)
    if not isinstance(passed, bool):
        raise TypeError(f"passed must be a bool, got {passed!r} ({type(passed).__name__})")
    with _lock():
        answers, solved = _read()
        if name not in solved or (passed and not solved[name]):
            solved[name] = passed
            _write(answers, solved)


@contextmanager
def _lock() -> Iterator[None]:
    with open(home() / "progress.lock", "a+b") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
            return
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        try:
            yield
        finally:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)


def _read() -> tuple[dict[str, KeptAnswer], dict[str, bool]]:
    file = path()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        answers = {key: _kept_answer(entry) for key, entry in content["predictions"].items()}
        solved = dict(content["exercises"])
        if not all(isinstance(passed, bool) for passed in solved.values()):
            raise ValueError("an exercise is neither true nor false")
    except FileNotFoundError:
        return {}, {}
    except (ValueError, TypeError, KeyError, AttributeError):
        aside = _set_aside(file)
        print(f"{file} could not be read. It was renamed to {aside.name}, and a new one begins.", file=sys.stderr)
        return {}, {}
    return answers, solved


def _kept_answer(entry: dict) -> KeptAnswer:
    kept = KeptAnswer(**entry)
    if not (isinstance(kept.question, str) and isinstance(kept.answer, str) and isinstance(kept.revealed, bool)):
        raise TypeError("an answer holds a value of another type")
    return kept


def _set_aside(file: Path) -> Path:
    number = 1
    while (aside := file.with_name(f"progress-damaged-{number}.json")).exists():
        number += 1
    file.rename(aside)
    return aside


def _write(answers: dict[str, KeptAnswer], solved: dict[str, bool]) -> None:
    content = {"predictions": {key: asdict(kept) for key, kept in answers.items()}, "exercises": solved}
    write_whole(path(), json.dumps(content, indent=2, ensure_ascii=False).encode())
