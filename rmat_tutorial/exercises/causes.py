"""The question of notebook 07: what is wrong with each of six runs, told from their plots."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .exercise import Case, Exercise, Unfit

CAUSES = {
    "healthy": "nothing: it learns",
    "rate": "the learning rate is far too high",
    "slow": "the learning rate is far too low",
    "lengths": "no curriculum: every stream is long from the first step on",
    "cut": "the gradient is cut after every segment, so nothing teaches what a segment writes",
    "open": "the write gates are open for good: every segment overwrites the whole bank",
    "shut": "the penalty on the gates is heavy, and from the first step on: nothing is written",
}

_SIGNS = {
    "healthy": "A run that learns ends with most answers right, from every distance",
    "rate": "With a learning rate far too high the loss jumps, and no question is ever learned",
    "slow": "With a learning rate far too low the loss goes down evenly, and late",
    "lengths": "Without a curriculum questions come from every distance in the first steps already",
    "cut": "Where the gradient is cut after every segment, facts of the same segment are learned and hardly any "
    "others, and nothing moves the gates until the penalty comes and shuts them",
    "open": "Gates that are open for good are a line at 1",
    "shut": "A penalty so heavy shuts the gates in the first few dozen steps",
}

# What is wrong with each run, and what its plots say against every other cause.
_RUNS: dict[str, tuple[str, dict[str, str]]] = {
    "A": ("shut", {
        "healthy": "facts one segment back are answered no better than by a guess, up to the last step",
        "rate": "the loss falls to nearly 0 within 100 steps, and facts of the same segment are answered from then on",
        "slow": "facts of the same segment are all answered after 100 steps, and then nothing goes on",
        "lengths": "at first only facts of the same segment were asked",
        "cut": "they are at 0 long before step 300, when the penalty comes in the others",
        "open": "they are at 0",
    }),
    "B": ("healthy", {
        "rate": "the loss falls to nearly 0 within 100 steps, and each later rise is a growth of the streams",
        "slow": "facts of the same segment are all answered after 100 steps",
        "lengths": "at first only facts of the same segment were asked",
        "cut": "they open as streams grow, before there is any penalty, and facts from every distance are answered",
        "open": "they are far below it",
        "shut": "they are open while the facts further back are learned",
    }),
    "C": ("rate", {
        "healthy": "not even facts of the same segment are answered",
        "slow": "the loss rises far above a guess",
        "lengths": "only facts of the same segment are ever asked, and not even these are answered",
        "cut": "they move from the first steps on, and not even facts of the same segment are answered, whose gradient "
        "passes no cut",
        "open": "they are far below it",
        "shut": "they are not at 0 before step 300",
    }),
    "D": ("slow", {
        "healthy": "only facts of the same segment were ever asked",
        "rate": "the loss falls all the way",
        "lengths": "only facts of the same segment were ever asked",
        "cut": "facts of the same segment come late as well, and their gradient passes no cut; no others are asked",
        "open": "they are far below it",
        "shut": "they are not at 0 before step 300",
    }),
    "E": ("lengths", {
        "healthy": "after the last step half of the facts from further back are still answered wrongly",
        "rate": "the loss comes down to a guess within 50 steps and stays there for 150, without a jump",
        "slow": "the loss comes down to a guess within 50 steps, as in others, and then it does not move for 150",
        "cut": "all distances are asked from the start, and in the end facts from further back are answered more often "
        "than by a guess",
        "open": "they are far below it",
        "shut": "they are not at 0 before step 300",
    }),
    "F": ("cut", {
        "healthy": "facts one segment back are never answered more than half the time, and after the last step hardly "
        "more often than by a guess",
        "rate": "the loss falls to nearly 0 within 100 steps, and facts of the same segment are answered from then on",
        "slow": "facts of the same segment are all answered after 100 steps",
        "lengths": "at first only facts of the same segment were asked",
        "open": "they are far below it",
        "shut": "they are not at 0 before step 300",
    }),
}
_NAMES = list(CAUSES)


def _as_rows(result: Any) -> Any:
    """A row for each run, with a 1 at the cause that it was given."""
    if result is None:
        return None
    if not isinstance(result, dict):
        return Unfit(f"Your function returned a {type(result).__name__}. It must return a dict: a cause for each run.")
    if unknown := [run for run in result if run not in _RUNS]:
        return Unfit(f"There is no run {unknown[0]!r}. The runs are {', '.join(_RUNS)}.")
    if missing := [run for run in _RUNS if run not in result]:
        return Unfit(f"{', '.join(missing)} {'has' if len(missing) == 1 else 'have'} no cause yet.")
    if unknown := [(run, cause) for run, cause in result.items() if cause not in _NAMES]:
        run, cause = unknown[0]
        return Unfit(f"{run}: {cause!r} is none of the causes. They are {', '.join(map(repr, CAUSES))}.")
    return torch.nn.functional.one_hot(torch.tensor([_NAMES.index(result[run]) for run in _RUNS]), len(CAUSES)).float()


def _right() -> Tensor:
    return _as_rows({run: cause for run, (cause, _) in _RUNS.items()}).double()


def _what_speaks_against_it(output: Tensor, expected: Tensor) -> str | None:
    chosen = {run: _NAMES[row.argmax()] for run, row in zip(_RUNS, output, strict=True)}
    lines = (f"{run}: not {cause!r}. {_SIGNS[cause]}; here {_RUNS[run][1][cause]}."
             for run, cause in chosen.items() if cause != _RUNS[run][0])
    return "\n".join(lines) or None


DIAGNOSE = Exercise(
    name="07.diagnose",
    contract=f"diagnose() -> dict: for each run, {', '.join(_RUNS)}, what is wrong with it, one of "
    f"{', '.join(map(repr, CAUSES))}. No cause fits two runs.",
    inputs=(),
    output=("runs", "causes"),
    example=Case({"runs": len(_RUNS), "causes": len(CAUSES)}, ()),
    draw=lambda sizes, random: (),
    reference=_right,
    mistakes=(),
    laws=(_what_speaks_against_it,),
    outcome=_as_rows,
)

EXERCISES = (DIAGNOSE,)
