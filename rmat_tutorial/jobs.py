"""Commands of the course as jobs in processes: some side by side, each done once, and what came of them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .folders import home, write_whole
from .runs import RunFolder

COMMAND = "python -m rmat_tutorial"  # as one types it
PROGRAM = (sys.executable, "-m", "rmat_tutorial")  # as it is run
SCORE_WEIGHT = 100  # what a score counts on the progress bar: about as long as so many steps
POLL_SECONDS = 0.5


class ComparisonError(ValueError):
    """A comparison that cannot begin or go on; the message is one line for people."""


def command_line(words: Iterable[object]) -> str:
    """A command of the course as one types it."""
    return f"{COMMAND} {shlex.join(map(str, words))}"


@dataclass(frozen=True)
class Job:
    """A command of the course that leaves a json behind.

    Attributes:
        name: of the job, and of what it makes.
        words: the command, as run in the comparison's folder.
    """

    name: str
    words: tuple[str, ...]

    @property
    def command(self) -> str:
        return command_line(self.words)


@dataclass(frozen=True)
class Training(Job):
    """A run folder of ``train``; one that was stopped is resumed."""

    weight: int

    def file(self, folder: Path) -> Path:
        return RunFolder(folder / self.name).report

    def to_run(self, folder: Path) -> tuple[str, ...]:
        return (*self.words, "--resume") if RunFolder(folder / self.name).state.is_file() else self.words

    def done(self, folder: Path) -> int:
        """Steps so far, for the progress bar."""
        try:
            with open(RunFolder(folder / self.name).metrics, "rb") as lines:
                return min(self.weight, sum(1 for _ in lines))
        except OSError:
            return 0


@dataclass(frozen=True)
class Scoring(Job):
    """An ``evaluate ... --json``, whose last line is kept."""

    weight = SCORE_WEIGHT

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}.json"

    def to_run(self, folder: Path) -> tuple[str, ...]:
        return self.words

    def done(self, folder: Path) -> int:
        return 0


class Desk:
    """Does jobs in processes, some side by side, and keeps what came of them.

    Args:
        folder: where the jobs run, and leave what they make.
        jobs: how many run side by side.
        bar: counts their weights.
    """

    def __init__(self, folder: Path, jobs: int, bar: tqdm) -> None:
        self.folder, self.jobs, self.bar = folder.resolve(), jobs, bar
        self.finished = 0
        self.failures: list[dict[str, str]] = []

    def has(self, job: Job) -> bool:
        """Whether the job is done.

        Raises:
            ComparisonError: a job of that name is, and was another.
        """
        file = job.file(self.folder)
        if not file.is_file():
            return False
        if (command := json.loads(file.read_text())["command"]) != job.command:
            raise ComparisonError(f"{file} was made by another command: {command}; give another folder with --out")
        return True

    def result(self, job: Job) -> dict[str, Any]:
        return json.loads(job.file(self.folder).read_text())

    def do(self, jobs: Iterable[Job], side_by_side: int | None = None) -> None:
        """Run those that are not done. One that fails is noted in ``failures``, and leaves the others.

        Raises:
            KeyboardInterrupt: after the processes have saved and ended.
        """
        jobs = list(jobs)
        waiting = [job for job in jobs if not self.has(job)]
        self.finished += sum(job.weight for job in jobs if job not in waiting)
        waiting.reverse()
        with _ending_with_us() as running:
            while waiting or running:
                while waiting and len(running) < (side_by_side or self.jobs):
                    job = waiting.pop()
                    running[job] = self._start(job)
                for job, process in list(running.items()):
                    if process.poll() is not None:
                        del running[job]
                        self._settle(job, process)
                self._show(running)
                time.sleep(POLL_SECONDS)

    def _start(self, job: Job) -> subprocess.Popen:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        root = str(Path(__file__).resolve().parent.parent)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RMAT_HOME": str(home().resolve()),
                       "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
        with open(logs / f"{job.name}.out", "wb") as out, open(logs / f"{job.name}.err", "wb") as err:
            return subprocess.Popen([*PROGRAM, *job.to_run(self.folder)], cwd=self.folder, env=environment,
                                    stdout=out, stderr=err, start_new_session=True)  # Ctrl-C is ours to pass on

    def _settle(self, job: Job, process: subprocess.Popen) -> None:
        """Keep what a process that has ended leaves, or note why it leaves nothing."""
        self.finished += job.weight
        out, err = ((self.folder / "logs" / f"{job.name}.{kind}").read_text(errors="replace").strip().splitlines()
                    for kind in ("out", "err"))
        if process.returncode:
            reason = err[-1] if err else f"it ended with status {process.returncode}"
            self.failures.append({"job": job.name, "command": job.command, "reason": reason})
        elif isinstance(job, Scoring):
            kept = {**json.loads(out[-1]), "command": job.command}
            write_whole(job.file(self.folder), (json.dumps(kept) + "\n").encode())

    def _show(self, running: dict[Job, subprocess.Popen]) -> None:
        self.bar.n = self.finished + sum(job.done(self.folder) for job in running)
        self.bar.set_postfix_str(", ".join(job.name for job in running), refresh=False)
        self.bar.refresh()


@contextmanager
def _ending_with_us() -> Iterator[dict[Job, subprocess.Popen]]:
    """Processes that are asked to stop, and waited for, when an exception or a signal ends the block."""
    running: dict[Job, subprocess.Popen] = {}

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()  # only there may signals be handled
    watched = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if in_main and hasattr(signal, name)]
    before = {number: signal.signal(number, stop) for number in watched}
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
