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
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .folders import home, write_whole
from .runs import RunFolder
from .validate import require_int

COMMAND = "python -m rmat_tutorial"  # as one types it
PROGRAM = (sys.executable, "-m", "rmat_tutorial")  # as it is run
SCORE_WEIGHT = 100  # what a score counts on the progress bar: about as long as so many steps
POLL_SECONDS = 0.5


class JobError(ValueError):
    """A job that cannot be done in the folder it is meant for; the message is one line for people."""


def command_line(words: Iterable[object]) -> str:
    """A command of the course as one types it."""
    return f"{COMMAND} {shlex.join(map(str, words))}"


def reason_of(error: BaseException) -> str:
    """Why something failed, in one line. Torch says on its first line what it lacks, and then where in its own code."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Job(ABC):
    """A command of the course that leaves a json behind.

    Attributes:
        name: of the job, and of what it makes.
        words: the command, as run in the folder of all jobs.
        weight: what it counts on the progress bar: the steps of a training, or about as long.
    """

    name: str
    words: tuple[str, ...]
    weight: int = SCORE_WEIGHT

    @property
    def command(self) -> str:
        return command_line(self.words)

    @abstractmethod
    def file(self, folder: Path) -> Path:
        """The json, which is there when the job is done."""

    def to_run(self, folder: Path) -> tuple[str, ...]:
        """The command, given what the folder holds already."""
        return self.words

    def done(self, folder: Path) -> int:
        """How much of the weight so far."""
        return 0


@dataclass(frozen=True)
class Training(Job):
    """A run folder of ``train``; one that was stopped is resumed."""

    def file(self, folder: Path) -> Path:
        return RunFolder(folder / self.name).report

    def to_run(self, folder: Path) -> tuple[str, ...]:
        return (*self.words, "--resume") if RunFolder(folder / self.name).state.is_file() else self.words

    def done(self, folder: Path) -> int:
        try:
            with open(RunFolder(folder / self.name).metrics, "rb") as lines:
                return min(self.weight, sum(1 for _ in lines))
        except OSError:
            return 0


@dataclass(frozen=True)
class Scoring(Job):
    """An ``evaluate ... --json``, whose last line is kept."""

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}.json"


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

    def result(self, job: Job) -> dict[str, Any] | None:
        """The json that the job left; ``None`` when it is not done.

        Raises:
            JobError: a job of that name is done, and was another.
        """
        file = job.file(self.folder)
        if not file.is_file():
            return None
        result = json.loads(file.read_text())
        if result["command"] != job.command:
            raise JobError(f"{file} was made by another command: {result['command']}; give another folder with --out")
        return result

    def do(self, jobs: Iterable[Job], side_by_side: int | None = None) -> dict[Job, dict[str, Any]]:
        """Run those that are not done. One that fails is noted in ``failures``, and leaves the others.

        Returns:
            The json of each, in the order of ``jobs``, without those that failed.

        Raises:
            JobError: as ``result``; nothing was run.
            KeyboardInterrupt: after the processes have saved and ended.
        """
        found = {job: self.result(job) for job in jobs}
        self.finished += sum(job.weight for job, result in found.items() if result is not None)
        missing = [job for job, result in found.items() if result is None]
        self._run(missing, side_by_side or self.jobs)
        found |= {job: self.result(job) for job in missing}
        return {job: result for job, result in found.items() if result is not None}

    def write(self, name: str, result: dict[str, Any]) -> dict[str, Any]:
        """Write ``result``, and what failed, as a json of that name; returns what was written."""
        content = json.dumps({**result, "failures": self.failures}, indent=2) + "\n"
        write_whole(self.folder / name, content.encode())
        return json.loads(content)

    def _run(self, jobs: Sequence[Job], side_by_side: int) -> None:
        waiting = list(reversed(jobs))
        with _ending_with_us() as running:
            while waiting or running:
                while waiting and len(running) < side_by_side:
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
def open_desk(folder: Path, jobs: int, total: int, doing: str, progress: bool = True) -> Iterator[Desk]:
    """A desk in ``folder``, which is made, and its progress bar: ``doing`` so many of ``total``.

    Raises:
        TypeError, ValueError: ``jobs`` is not an int of at least 1.
        OSError: the folder cannot be made.
    """
    require_int("jobs", jobs, 1)
    folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=total, desc=doing, unit="step", disable=not progress) as bar:
        yield Desk(folder, jobs, bar)


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
