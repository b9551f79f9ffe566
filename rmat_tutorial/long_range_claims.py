"""What was asked of long range, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from .claims import UNKNOWN, Claim
from .long_range import LONGEST, MANY_WRITES, MEMORY_FROM, MILLION, SIXTEEN_TIMES

LABELS = ("task", "kind", "memory_slots", "seed", "run", "on")


def claims(result: Mapping[str, Any]) -> list[Claim]:
    """The lines of the bar that is set for this part, and what came of each; none where no bar is set."""
    judge = {"bar": _of_recall, "tasks": _of_tasks}.get(result["part"])
    return judge(result["models"]) if judge else []


def _of_recall(models: Sequence[Mapping[str, Any]]) -> list[Claim]:
    lengths = {score["tokens"] for model in models for score in model["scores"]}
    by_seed = {tokens: [found for model in models if (found := accuracy(model, tokens)) is not None]
               for tokens in sorted(lengths)}
    million, longest = by_seed.get(MILLION, []), by_seed.get(LONGEST, [])
    growth = [found for model in models if (found := memory_growth(model)) is not None]
    seconds = [model["training_seconds"] for model in models]
    return [
        _at_least("at 1 048 576 tokens, the mean over seeds is at least 99.5 %", million and [mean(million)], 0.995),
        _at_least("at 1 048 576 tokens, no seed is below 98.5 %", million, 0.985),
        _at_least("at 16 777 216 tokens, one seed has at least 99 %", longest and [max(longest)], 0.99),
        _at_least("at no length from 32 tokens up is the mean over seeds below 99 %",
                  [mean(found) for found in by_seed.values()], 0.99),
        _at_most("from 16 384 to 1 048 576 tokens, peak memory grows by less than 5 %", growth, 0.05,
                 lambda value: f"{100 * value:.2f} %"),
        _at_most("training takes at most five minutes", seconds, 300.0, lambda value: f"{value:.0f} s"),
    ]


def _of_tasks(models: Sequence[Mapping[str, Any]]) -> list[Claim]:
    ours = {model["task"]: model for model in models if model["kind"] == "rmat"}

    def shares(task: str, tokens: int, **source: Any) -> list[float]:
        found = accuracy(ours[task], tokens, **source) if task in ours else None
        return [] if found is None else [found]

    return [
        _at_least("rewrite: after 500 rewrites at least 99 %",
                  shares("rewrite", SIXTEEN_TIMES, writes=MANY_WRITES), 0.99),
        *(_at_least(f"{task}: at 16 times the trained length at least 95 %", shares(task, SIXTEEN_TIMES), 0.95)
          for task in ("mqar", "copy", "stories")),
    ]


def _at_least(asked: str, shares: Sequence[float], bound: float) -> Claim:
    return Claim(asked, f"{100 * min(shares):.2f} %", min(shares) >= bound) if shares else Claim(asked, UNKNOWN, None)


def _at_most(asked: str, values: Sequence[float], bound: float, show: Callable[[float], str]) -> Claim:
    return Claim(asked, show(max(values)), max(values) <= bound) if values else Claim(asked, UNKNOWN, None)


def accuracy(model: Mapping[str, Any], tokens: int, **source: Any) -> float | None:
    """The share of right answers at ``tokens``, over all readings of streams with such a ``source``; ``None``: none."""
    scores = [score for score in model["scores"] if score["tokens"] == tokens
              and all(score["source"][name] == value for name, value in source.items())]
    answers = sum(score["positions"] for score in scores)
    return sum(score["accuracy"] * score["positions"] for score in scores) / answers if answers else None


def by_length(model: Mapping[str, Any], rewrites: bool = False) -> dict[int, float]:
    """The share of right answers at each length, rising; with ``rewrites``, of the streams with many of them only."""
    scores = [score for score in model["scores"] if (score.get("reading") == "rewrites") == rewrites]
    return {tokens: accuracy({"scores": scores}, tokens) for tokens in sorted({score["tokens"] for score in scores})}


def memory_growth(model: Mapping[str, Any]) -> float | None:
    """How much more memory the process of one reading had held after 1 048 576 tokens than after 16 384, as a share."""
    held = {score["tokens"]: score["most_resident_bytes"] for score in model["scores"] if score["reading"] == "long"}
    if not (before := held.get(MEMORY_FROM)) or not (after := held.get(MILLION)):
        return None
    return after / before - 1


def describe(result: Mapping[str, Any]) -> str:
    """A line for each model or reader and each length, and where a bar is set what was asked and what came."""
    lines = [f"{name}: {gap:,} tokens of noise after the facts {100 * share:.2f} % of {reading['answers']}"
             for name, reading in result.get("readers", {}).items()
             for gap, share in zip(reading["gaps"], reading["accuracy"], strict=True)]
    for model in result.get("models", []):
        name = " ".join(f"{label} {model[label]}" for label in LABELS if label in model)
        lines.append(f"{name}: trained in {model['training_seconds']:.0f} s, {model['tokens_per_second']:,.0f} tokens "
                     f"a second on {model['device']}")
        lines += [f"  {score['reading']:>20} {score['tokens']:>12,} tokens: {100 * score['accuracy']:.2f} % "
                  f"of {score['positions']}" for score in model["scores"]]
    if not result["quick"]:
        lines += [claim.text for claim in claims(result)]
    return "\n".join([*lines, *(f"failed: {failure['job']}: {failure['reason']}" for failure in result["failures"])])
