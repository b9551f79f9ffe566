"""Methods measured in turn, and what the rounds say: a median and quartiles."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple, TypeVar

import torch
from tqdm.auto import tqdm

from ..benchmark import peak_bytes
from ..jobs import reason_of

Run = Callable[[], object]
Number = TypeVar("Number", int, float)


class Effort(NamedTuple):
    """How thoroughly is measured.

    Attributes:
        rounds: in each of which every method is timed once.
        seconds: that a timing takes at least, in as many calls as that needs.
    """

    rounds: int
    seconds: float


class Spread(NamedTuple):
    """The median over rounds, and the quartiles below and above it."""

    median: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """The median, and in brackets the quartiles."""
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


class Measured(NamedTuple):
    """``seconds`` of a call by method, one number a round; and the ``reasons`` of those that failed."""

    seconds: dict[Any, list[float]]
    reasons: dict[Any, str]


def spread(values: Sequence[float]) -> Spread:
    """The median and the quartiles of one or more values."""
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (*values, *values, *values)
    return Spread(middle, low, high)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times ``theirs`` is ``ours``, round by round.

    Raises:
        ValueError: there are not as many rounds of either.
    """
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def measure(methods: Mapping[Hashable, Run], device: torch.device, effort: Effort, bar: tqdm) -> Measured:
    """Time every method in every round, in an order drawn anew. One that fails is left out, with its reason.

    Args:
        methods: functions without arguments. A call before each timing is not timed: it finds the caches as another
            method left them, and the first of all may compile and tune.
        bar: counts the timings.
    """
    found = Measured({}, {})
    calls: dict[Hashable, int] = {}
    bar.reset(len(methods) * (effort.rounds + 1))
    for name, run in methods.items():
        needed = _attempt(name, lambda run=run: calls_needed(run, device, effort.seconds), found)
        if needed is not None:
            calls[name] = needed
        bar.update()
    for turn in range(effort.rounds):
        for name in random.Random(turn).sample(list(calls), len(calls)):
            seconds = _attempt(name, lambda name=name: warm(methods[name], calls[name], device), found)
            if seconds is None:
                del calls[name]
            else:
                found.seconds.setdefault(name, []).append(seconds)
            bar.update()
    return Measured({name: found.seconds[name] for name in calls}, found.reasons)


def calls_needed(run: Run, device: torch.device, seconds: float) -> int:
    """How many calls take at least so many seconds."""
    calls = 1
    while (took := calls * warm(run, calls, device)) < seconds:
        # A coarse clock may say that nothing took any time.
        calls = math.ceil(calls * min(10.0, 1.2 * seconds / took if took else 10.0))
    return calls


def _attempt(name: Hashable, call: Callable[[], Number], found: Measured) -> Number | None:
    """What ``call`` returns; ``None`` when it fails, and then why, as a line of ``found``."""
    try:
        return call()
    except Exception as error:
        found.reasons[name] = reason_of(error)
    return None


def warm(run: Run, calls: int, device: torch.device) -> float:
    """``timed``, after a call that is not."""
    run()
    return timed(run, calls, device)


def timed(run: Run, calls: int, device: torch.device) -> float:
    """Seconds of one of ``calls`` calls: of the device's own clock with CUDA, else of processor time.

    Processor time counts what this program used, whatever else the machine is doing. It is right for one thread.
    """
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device)  # that of the current device might have nothing to do
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record(stream)
        for _ in range(calls):
            run()
        end.record(stream)
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / calls
    began = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - began) / calls


def peak_of(run: Run, device: torch.device) -> int | None:
    """Bytes that a call holds at most beyond what was held before it; ``None`` where the system does not say."""
    if device.type != "cuda":
        return peak_bytes(run)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def per_second(amount: float, seconds: Sequence[float]) -> float:
    """The median over rounds of how much of it was done in a second."""
    return median(amount / one for one in seconds)
