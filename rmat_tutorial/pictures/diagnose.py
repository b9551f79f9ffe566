"""Runs that are to be told apart by their plots: loss, gates, and what is answered from how far back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from ..plots import PATH_COLOURS
from ..runs import RunFolder

POOLED = 10  # steps in a point of the plots
MOST_LOSS = 4.5  # nats; a loss above it leaves its plot, which says how far it gets


def record(folders: Mapping[str, str | Path]) -> dict[str, Any]:
    """What the plots need of finished runs: of each its ``run.json`` without scores, and its metrics, pooled.

    Args:
        folders: where each run lies, by name.
    """
    runs = {}
    for name, folder in folders.items():
        report = json.loads(RunFolder(Path(folder)).report.read_text(encoding="utf-8"))
        report.pop("scores")
        runs[name] = report | pooled(RunFolder(Path(folder)).lines())
    return {"pooled_steps": POOLED, "runs": runs}


def pooled(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics of all steps, ``POOLED`` at a time: loss and mean write gate as means, answers by segments back as sums.

    Returns:
        ``loss`` and ``gate``, a number for each pool, and ``by_segments_back``, for each pool ``[right, asked]`` by
        whole segments between fact and question.
    """
    pools = [lines[start : start + POOLED] for start in range(0, len(lines), POOLED)]
    return {
        "loss": [_mean(line["loss"] for line in pool) for pool in pools],
        "gate": [_mean(line["gate"] for line in pool if line["gate"] is not None) for pool in pools],
        "by_segments_back": [_sums([line["by_segments_back"] for line in pool]) for pool in pools],
    }


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return round(sum(known) / len(known), 4) if known else None


def _sums(counts: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    sums = np.zeros((max(map(len, counts)), 2), dtype=int)
    for of_a_step in counts:
        sums[: len(of_a_step)] += np.array(of_a_step)
    return sums.tolist()


def shares(run: Mapping[str, Any]) -> np.ndarray:
    """The share of right answers of a run, by whole segments back and by pool of steps; NaN where nothing was asked."""
    counts = run["by_segments_back"]
    share = np.full((max(map(len, counts)), len(counts)), np.nan)
    for pool, of_a_pool in enumerate(counts):
        for back, (right, asked) in enumerate(of_a_pool):
            share[back, pool] = right / asked if asked else np.nan
    return share


def training_plots(runs: Mapping[str, Mapping[str, Any]], values: int = 8) -> Figure:
    """For each run a row of three: loss by step, mean write gate by step, right answers by segments back and step.

    Args:
        runs: what ``record`` returned of each run, by the name that it is to have here.
        values: how many answers there are to guess among.
    """
    figure, rows = plt.subplots(len(runs), 3, figsize=(13, 2.1 * len(runs) + 1.2), sharex=True, squeeze=False)
    furthest = max(len(counts) for run in runs.values() for counts in run["by_segments_back"])
    for (name, run), (loss, gate, answers) in zip(runs.items(), rows, strict=True):
        steps = [POOLED * (pool + 0.5) for pool in range(len(run["loss"]))]
        _losses(loss, steps, run["loss"], log(values))
        loss.set_ylabel(name, rotation=0, fontsize="x-large", fontweight="bold", labelpad=24, va="center")
        gate.plot(steps, [np.nan if value is None else value for value in run["gate"]], color=PATH_COLOURS["memory"])
        gate.set_ylim(-0.04, 1.04)
        image = _answers(answers, run, furthest)
    for ax, title in zip(rows[0], ("loss, nats", "mean write gate", "right answers"), strict=True):
        ax.set_title(title)
    loss = rows[0][0]
    loss.text(0.98, log(values), "a guess", transform=loss.get_yaxis_transform(), ha="right", va="bottom",
              fontsize="small", color="0.25")
    for ax in rows[-1]:
        ax.set_xlabel("step")
    for ax in rows[:, 2]:
        ax.set_ylabel("segments\nback", fontsize="small")
    figure.colorbar(image, ax=rows[:, 2], aspect=30, label="share of right answers", ticks=(0, 1 / values, 0.5, 1),
                    format=lambda share, _: "a guess" if share == 1 / values else f"{share:g}")
    return figure


def _losses(ax: Axes, steps: Sequence[float], losses: Sequence[float], guess: float) -> None:
    ax.axhline(guess, color="0.35", linewidth=1.5, linestyle="--", zorder=1)
    ax.plot(steps, losses, color=PATH_COLOURS["full"])
    ax.set(ylim=(0, MOST_LOSS), yticks=range(int(MOST_LOSS) + 1), xlim=(0, POOLED * len(steps)))
    if outside := [step for step, loss in zip(steps, losses, strict=True) if loss > MOST_LOSS]:
        ax.text(np.mean(outside), 0.65 * MOST_LOSS, f"up to {max(losses):.0f}", ha="center", va="center",
                fontsize="small")


def _answers(ax: Axes, run: Mapping[str, Any], furthest: int) -> AxesImage:
    """A map of ``shares``; what was not asked is hatched."""
    share = shares(run)
    ax.patch.set(facecolor="white", hatch="///", edgecolor="0.75")
    image = ax.imshow(share, vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest",
                      extent=(0, POOLED * share.shape[1], -0.5, len(share) - 0.5))
    ax.set_ylim(-0.5, furthest - 0.5)
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.grid(False)
    return image
