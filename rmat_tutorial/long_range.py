"""What is trained and read for notebook 07: the bar of ``recall``, how many facts a bank holds, and every task.

A part is a list of cases. Each is a training and some readings of what was trained, and all of them are commands of
the course's own, run as processes in the part's folder. What has been done is not done again, so the same command goes
on where an earlier one was stopped. ``read_gaps`` does the same with models that ship.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .baselines import KINDS
from .jobs import Scoring, Training, open_desk
from .recipes import RECIPES

MILLION = 2**20
LONGEST = 16 * MILLION
MEMORY_FROM = 16384  # tokens, from where on memory may not grow
MANY_WRITES = 504  # of four keys, so 500 rewrites
SIXTEEN_TIMES = 8192  # tokens, as many times what tasks are trained on
TOKENS_PER_STEP = 25_000  # read in about the time of a training step, for the progress bar

SHORT_LENGTHS = (32, 33, 36, 40, 45, 48, 56, 63, 64, 65, 77, 96, 100, 128, 200, 256, 300, 512, 523, 1024, 2048, 4096)
LONG_LENGTHS = (8192, MEMORY_FROM, 32768, 131072, MILLION)
BAR_SEEDS = (0, 1, 2)
FACTS = (1, 2, 4, 8, 16, 32, 64)
FACTS_AT_A_MILLION = (4, 16, 64)
BANKS = (4, 8, 16, 32, 64)

BAR_WORDS = ("--write-slots", "16", "--ragged", "--gate-margin", "0.6", "--steps", "700", "--gate-penalty-from", "350")
CAPACITY_WORDS = ("--keys", "64", "--ragged", "--gate-margin", "0.6", "--grow-below", "0.5", "--steps", "2000",
                  "--gate-penalty-from", "1400")
MOST_TRAINED_FACTS = 16  # half of what a segment can hold


class Reading(NamedTuple):
    """A score of so many streams of each length, with further words of the command."""

    tokens: tuple[int, ...]
    sequences: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A model that is trained and read.

    Attributes:
        labels: what tells it from the others, such as ``{"seed": 0}``.
        task: what it is trained on.
        words: what the command says besides.
        readings: of the trained model, by name.
    """

    labels: Mapping[str, Any]
    task: str
    words: tuple[str, ...]
    readings: Mapping[str, Reading]

    def training(self) -> Training:
        name = "-".join(f"{label}-{value}" for label, value in self.labels.items()).replace("_", "-")
        words = dict(zip(self.words, self.words[1:], strict=False))
        steps = int(words.get("--steps", RECIPES[self.task].settings.steps))
        return Training(name, ("train", self.task, *self.words, "--no-scores", "--out", name), steps)

    def scorings(self) -> dict[str, Scoring]:
        run = self.training().name
        return {
            name: Scoring(
                f"{run}-{name}",
                ("evaluate", run, "--tokens", *map(str, reading.tokens), "--sequences", str(reading.sequences),
                 *reading.words, "--json"),
                max(1, sum(reading.tokens) * reading.sequences // TOKENS_PER_STEP),
            )
            for name, reading in self.readings.items()
        }


def bar(quick: bool) -> list[Case]:
    """Recall of four facts: three seeds, each trained on at most 512 tokens and read at every length."""
    if quick:
        readings = {"short": Reading(SHORT_LENGTHS[:4], 16), "long": Reading((1024, 2048), 4)}
        return [Case({"seed": 0}, "recall", (*BAR_WORDS, "--steps", "30", "--seed", "0"), readings)]
    readings = {"long": Reading(LONG_LENGTHS, 64), "short": Reading(SHORT_LENGTHS, 1024),
                "longest": Reading((LONGEST,), 16)}
    return [Case({"seed": seed}, "recall", (*BAR_WORDS, "--seed", str(seed)), readings) for seed in BAR_SEEDS]


def capacity(quick: bool) -> list[Case]:
    """Recall of 1 to 64 facts by the size of the bank, all slots of which are written after each segment.

    Trained with as many facts as there are slots, but no more than ``MOST_TRAINED_FACTS``: a bank that cannot hold what
    it is asked for does not learn what it could hold.
    """
    cases = []
    for slots in BANKS[:1] if quick else BANKS:
        words = (*CAPACITY_WORDS, "--memory-slots", str(slots), "--write-slots", str(slots), "--facts",
                 str(min(slots, MOST_TRAINED_FACTS)))
        if quick:
            readings = {"512-facts-2": Reading((512,), 8, ("--facts", "2"))}
            words = (*words, "--steps", "30")
        else:
            readings = {f"million-facts-{facts}": Reading((MILLION,), max(2, 64 // facts), ("--facts", str(facts)))
                        for facts in FACTS_AT_A_MILLION}
            readings |= {f"512-facts-{facts}": Reading((512,), 256, ("--facts", str(facts))) for facts in FACTS}
        cases.append(Case({"memory_slots": slots}, "recall", words, readings))
    return cases


TASK_WORDS: dict[str, tuple[str, ...]] = {"recall": BAR_WORDS, "rewrite": ("--writes", "64"),
                                           "copy": (), "mqar": (), "stories": ()}


def tasks(quick: bool) -> list[Case]:
    """Every task with every kind of model of the same size, the same steps and the same batches, one seed.

    Full attention is read no further than 8192 tokens, since its cost grows with the square; and its streams do not
    follow each other, since its state would grow.
    """
    cases = []
    for kind in ("rmat", *KINDS)[: 2 if quick else None]:
        for task, words in list(TASK_WORDS.items())[: 1 if quick else None]:
            trained = words if kind == "rmat" else (*words, "--baseline", kind)
            if kind == "full":
                trained = (*trained, "--restart", "1")
            if quick:
                readings = {"512": Reading((512,), 8)}
                trained = (*trained, "--steps", "30")
            else:
                readings = {"512": Reading((512,), 256),
                            "long": Reading((2048, 8192) if kind == "full" else (2048, 8192, 32768), 64)}
                if kind == "rmat":  # there a bar is set, and 64 streams are few
                    readings["sixteen"] = Reading((SIXTEEN_TIMES,), 512, ("--seed", "1"))
                if task == "rewrite":
                    readings["rewrites"] = Reading((SIXTEEN_TIMES,), 64, ("--writes", str(MANY_WRITES)))
            cases.append(Case({"task": task, "kind": kind}, task, trained, readings))
    return cases


ON_A_GPU = ("--device", "cuda", "--precision", "bfloat16")
LARGE_MODEL = ("--d-model", "384", "--n-heads", "6", "--n-layers", "4", "--segment-len", "256", "--chunk-size", "64",
               "--memory-slots", "64", "--write-slots", "64", "--keys", "16", "--facts", "8")
LARGE_TRAINING = ("--lr", "1.5e-3", "--warmup", "150", "--grow-below", "0.5", "--ragged", "--gate-margin", "0.6",
                  "--gate-penalty-from", "3000", "--steps", "4000", "--max-segments", "64", "--backprop", "replay",
                  "--compile")
SMALL_MODEL = ("--d-model", "64", "--segment-len", "64", "--chunk-size", "16", "--write-slots", "16")
SMALL_TRAINING = ("--ragged", "--gate-margin", "0.6", "--gate-penalty-from", "600", "--steps", "1000")
SPEED = ("--no-curriculum", "--max-segments", "4")
SPEEDS = {"cuda": (), "cuda-compiled": ("--compile",), "cuda-graphs": ("--graphs",)}
"""Ways to train on a GPU, by name: as it comes, with segments compiled, with each step as one CUDA graph."""


def large_is_on_cuda(quick: bool) -> bool:
    """Whether ``large`` trains on a CUDA device: where there is one, but for a trial."""
    return torch.cuda.is_available() and not quick


def large(quick: bool) -> list[Case]:
    """Recall of 8 facts by a model of 10 million parameters over 64 segments of 256, where there is a CUDA device.

    Without one, recall of 4 by a small model over 16 segments of 64. Besides, some steps of each for the tokens per
    second: of 4 whole segments, on a CPU and by each way there is on the device.
    """
    cuda = large_is_on_cuda(quick)
    model, training, device = (LARGE_MODEL, LARGE_TRAINING, ON_A_GPU) if cuda else (SMALL_MODEL, SMALL_TRAINING, ())
    batch = ("--batch-size", "32" if cuda else "64")
    trained = (*model, *batch, *training, *(("--steps", "30") if quick else ()), *device)
    lengths = (16384, 262144) if cuda else (1024, 16384)
    readings = {"long": Reading(lengths[: 1 if quick else None], 8 if quick else 64, device[:2])}
    # The large model is slow on a CPU.
    on_a_cpu = ("--batch-size", "4", "--steps", "5") if cuda else (*batch, "--steps", "3" if quick else "20")
    cases = [Case({"run": "trained"}, "recall", trained, readings),
             Case({"run": "speed", "on": "cpu"}, "recall", (*model, *SPEED, *on_a_cpu), {})]
    for name, words in SPEEDS.items() if cuda else ():
        words = (*model, *SPEED, *batch, "--steps", "40", *device, *words)
        cases.append(Case({"run": "speed", "on": name}, "recall", words, {}))
    return cases


PARTS: dict[str, Callable[[bool], list[Case]]] = {"bar": bar, "capacity": capacity, "tasks": tasks, "large": large}


def run_part(
    part: str, folder: Path, jobs: int, machine: dict[str, Any], quick: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Train and read what ``part`` asks for and ``folder`` lacks, and write ``PART.json`` there.

    Args:
        part: one of ``PARTS``.
        jobs: processes side by side, each with one thread.
        machine: what the result says of the machine, such as ``device`` and ``versions``.
        quick: a trial, whose numbers mean nothing.

    Returns:
        What was written: ``part``, ``quick``, ``machine``, ``failures``, and ``models``: for each case its labels, the
        command and the seconds of its training, and its ``scores``.

    Raises:
        JobError, TypeError, ValueError: the folder holds another part, or an argument is out of range.
        OSError: the folder cannot be written.
        KeyboardInterrupt: it was stopped, and goes on when it is called again.
    """
    cases = PARTS[part](quick)
    weights = [job.weight for case in cases for job in (case.training(), *case.scorings().values())]
    with open_desk(folder, jobs, sum(weights), part, progress) as desk:
        reports = desk.do(case.training() for case in cases)
        scorings = [job for case in cases if case.training() in reports for job in case.scorings().values()]
        scores = desk.do(sorted(scorings, key=lambda job: job.weight))
        models = [_row(case, reports[case.training()], scores) for case in cases if case.training() in reports]
        return desk.write(f"{part}.json", {"part": part, "quick": quick, **machine, "models": models})


def _row(case: Case, report: Mapping[str, Any], scores: Mapping[Scoring, Mapping[str, Any]]) -> dict[str, Any]:
    """What is written of a model: each length of each reading is a score of its own."""
    training, found = case.training(), []
    for name, job in case.scorings().items():
        if job in scores:
            one = scores[job]
            found += [{"reading": name, **score, "command": job.command} for score in one.get("scores", [one])]
    kept = ("tokens", "accuracy", "positions", "sequences", "seed", "source", "by_distance", "most_resident_bytes",
            "reading", "command")
    of_the_run = ("training_seconds", "tokens_per_second", "device", "settings")
    return {**case.labels, "command": training.command, **{name: report[name] for name in of_the_run},
            "scores": [{name: score[name] for name in kept} for score in found]}


# Facts that are asked after so many tokens, by readers that need no training.

GAPS = tuple(64 * 2**power for power in range(15))  # to 1 048 576
GAP_ROWS = 16
READERS: dict[str, tuple[str, ...]] = {
    "hard gate": ("recall-long",), "sigmoid gate": ("recall-long", "--gate", "sigmoid"),
    "bank zeroed": ("recall-long", "--bank", "zeroed"), "recall": ("recall",),
}
"""What ``evaluate`` is told to read with, by the names that notebook 07 shows."""


def read_gaps(
    folder: Path, jobs: int, machine: dict[str, Any], quick: bool = False, progress: bool = True
) -> dict[str, Any]:
    """Ask what ``READERS`` names after each of ``GAPS``, where ``folder`` lacks it, and write ``gaps.json`` there.

    Args and raises as ``run_part``.

    Returns:
        What was written: ``part``, ``quick``, ``machine``, ``failures``, and ``readers``: by name what ``evaluate``
        gave, and its command.
    """
    gaps, rows = (GAPS[:2], 2) if quick else (GAPS, GAP_ROWS)
    weight = max(1, gaps[-1] * rows // TOKENS_PER_STEP)
    scorings = {
        name: Scoring(f"gaps-{name.replace(' ', '-')}", ("evaluate", *words, "--gaps", *map(str, gaps), "--sequences",
                                                         str(rows), "--json"), weight)
        for name, words in READERS.items()
    }
    with open_desk(folder, jobs, weight * len(scorings), "gaps", progress) as desk:
        found = desk.do(scorings.values())
        readers = {name: found[job] for name, job in scorings.items() if job in found}
        return desk.write("gaps.json", {"part": "gaps", "quick": quick, **machine, "readers": readers})
