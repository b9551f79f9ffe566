"""The bars that the benchmark is held to, and what came of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..claims import UNKNOWN, Claim
from .attention import DIRECTIONS, FLOOR
from .models import NAIVE, RMAT_NAME
from .plan import LONG, ON_CPU, READING, SHORT, TRAINING
from .recurrence import FASTEST, PLAIN
from .rounds import Spread, ratio

NEEDS_CUDA = f"{UNKNOWN}: needs a CUDA device"
FORWARD, BOTH = DIRECTIONS


def claims(result: Mapping[str, Any]) -> list[Claim]:
    """Every bar, held against a result as ``run_cases`` writes it. Ratios are medians over the rounds."""
    on_cuda = [*_of_the_kernels(result), *_of_the_recurrence(result)]
    if result["kind"] == "cuda":
        return on_cuda
    return [*_of_the_cpu(result), *(Claim(claim.asked, NEEDS_CUDA, None) for claim in on_cuda)]


def _of_the_kernels(result: Mapping[str, Any]) -> list[Claim]:
    long, short = (_case(result, "attention", name) for name in (LONG, SHORT))
    return [
        at_most(f"{LONG}: triton forward takes at most 1.15 × causal attention", 1.15,
                [_times(long, "triton", FLOOR, FORWARD)]),
        at_most(f"{LONG}: triton forward and backward takes at most 1.5 × causal attention", 1.5,
                [_times(long, "triton", FLOOR, BOTH)]),
        at_most(f"{LONG}: triton forward and backward takes at most 1.35 ×, the aim", 1.35,
                [_times(long, "triton", FLOOR, BOTH)]),
        at_least(f"{LONG}: triton is at least 1.25 × faster than sdpa, forward and with backward", 1.25,
                 [_times(long, "sdpa", "triton", direction) for direction in DIRECTIONS]),
        at_least(f"{SHORT}: triton is at least 2 × faster than sdpa, forward and with backward", 2.0,
                 [_times(short, "sdpa", "triton", direction) for direction in DIRECTIONS]),
        at_least(f"{LONG}: triton is at least 1.2 × faster than flex, forward and with backward", 1.2,
                 [_times(long, "flex", "triton", direction) for direction in DIRECTIONS]),
        _of_the_memory(long),
    ]


def _of_the_memory(case: Mapping[str, Any] | None) -> Claim:
    """Peak memory, beyond the inputs, against that of causal attention with the bank and two outputs."""
    asked = f"{LONG}: triton holds at most what causal attention does, the bank and two outputs"
    pairs = [(_found(case, "triton", direction, "peak_bytes"), _found(case, FLOOR, direction, "peak_bytes"))
             for direction in DIRECTIONS]
    if any(None in pair for pair in pairs):
        return Claim(asked, UNKNOWN, None)
    shape, size = case["shape"], 4 if case["dtype"] == "float32" else 2
    row = shape["batch"] * shape["heads"] * shape["width"] * size
    more = 2 * shape["slots"] * row + 2 * shape["length"] * row
    found = ", ".join(f"{ours / 2**20:.0f} of {(alone + more) / 2**20:.0f} MiB" for ours, alone in pairs)
    return Claim(asked, found, all(ours <= alone + more for ours, alone in pairs))


def _of_the_recurrence(result: Mapping[str, Any]) -> list[Claim]:
    found = []
    for name in (READING, TRAINING):
        case = _case(result, "recurrence", name)
        found.append(at_least(f"{name}, batch 8: wavefront and graph is at least 3 × faster than the eager loop", 3.0,
                              [None if case is None else _seconds_ratio(case["models"], PLAIN, FASTEST)]))
    return found


def _of_the_cpu(result: Mapping[str, Any]) -> list[Claim]:
    case = _case(result, "attention", ON_CPU)
    generation = [_seconds_ratio(one["models"], NAIVE, RMAT_NAME)
                  for one in result["cases"] if one["part"] == "generation"]
    return [
        at_least(f"{ON_CPU}: sdpa forward and backward is at least 6 × faster than eager", 6.0,
                 [_times(case, "eager", "sdpa", BOTH)]),
        at_most(f"{ON_CPU}: sdpa forward and backward takes at most 1.2 × causal attention", 1.2,
                [_times(case, "sdpa", FLOOR, BOTH)]),
        at_least("generation is at least 2 × faster than a naive loop, at every length", 2.0, generation),
    ]


def at_most(asked: str, bound: float, found: Sequence[Spread | None]) -> Claim:
    """Met where every median is at most ``bound``."""
    return _claim(asked, found, lambda one: one.median <= bound)


def at_least(asked: str, bound: float, found: Sequence[Spread | None]) -> Claim:
    """Met where every median is at least ``bound``."""
    return _claim(asked, found, lambda one: one.median >= bound)


def _claim(asked: str, found: Sequence[Spread | None], holds: Any) -> Claim:
    """A claim of spreads; one that is missing leaves it open, unless another fails it."""
    shown = ", ".join(UNKNOWN if one is None else one.text for one in found)
    if any(one is not None and not holds(one) for one in found):
        return Claim(asked, shown, False)
    return Claim(asked, shown or UNKNOWN, None if None in found or not found else True)


def _case(result: Mapping[str, Any], part: str, name: str) -> Mapping[str, Any] | None:
    return next((case for case in result["cases"] if (case["part"], case["name"]) == (part, name)), None)


def _found(case: Mapping[str, Any] | None, name: str, direction: str, what: str) -> Any:
    """What was measured of a method of attention; ``None`` where it was not."""
    return None if case is None else case["methods"][name][direction].get(what)


def _times(case: Mapping[str, Any] | None, name: str, other: str, direction: str) -> Spread | None:
    """How many times the time of ``other`` a method of attention took."""
    ours, theirs = (_found(case, one, direction, "seconds") for one in (name, other))
    return ratio(ours, theirs) if ours and theirs else None


def _seconds_ratio(models: Mapping[str, Any], name: str, other: str) -> Spread | None:
    """How many times the time of ``other`` a model took."""
    ours, theirs = (models.get(one, {}).get("seconds") for one in (name, other))
    return ratio(ours, theirs) if ours and theirs else None
