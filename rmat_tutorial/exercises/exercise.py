"""What an exercise is: a contract, an independent reference, inputs to try, and the mistakes people make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any

import torch
from torch import Tensor

Inputs = tuple[Any, ...]  # tensors and numbers, functions, tuples of these, and stand-ins for what a function is given
Answer = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One input to try: the size of every axis by name, and the arguments of the call."""

    sizes: dict[str, int]
    inputs: Inputs

    @property
    def numel(self) -> int:
        """Numbers in the input tensors: the measure of "smallest"."""
        return sum(value.numel() for value in self.inputs if isinstance(value, Tensor))

    @property
    def is_double(self) -> bool:
        """Whether the floating-point input tensors are float64."""
        return any(isinstance(value, Tensor) and value.dtype == torch.float64 for value in self.inputs)

    def to_double(self) -> Case:
        """The same case with its floating-point tensors in float64."""
        return Case(self.sizes, tuple(v.double() if is_floating(v) else v for v in self.inputs))


def is_floating(value: object) -> bool:
    """Whether ``value`` is a tensor through which gradients pass."""
    return isinstance(value, Tensor) and value.is_floating_point()


@dataclass(frozen=True)
class Unfit:
    """What is wrong with the form of a result, in words."""

    words: str


@dataclass(frozen=True)
class Mistake:
    """A formulation known to be wrong, and what to say to a learner whose numbers agree with it."""

    diagnosis: str
    answer: Answer


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    name         "notebook.function", as given to ``check``
    contract     signature with shapes and what is asked, in one line; failures quote it
    inputs       names of the arguments, in order; none for a question, whose answer a failure must not give away
    output       names of the result's axes; each is a key of ``example.sizes``; none when the result is a number
    example      an input that can be followed by hand; always tried first
    draw         sizes, random -> arguments with random values
    reference    the right result in float64, by loops over plain numbers
    mistakes     in the order in which they are compared
    laws         (output, expected, *inputs) -> what is wrong, or None. They see outputs of the right shape, say
                 what ``mistakes`` can't foresee, and may be stricter than the comparison of values
    dtype        of the result, where it is not that of the input
    is_trained   whether a gradient should pass; a score is read and a token is drawn, and neither is trained through
    fit          sizes as drawn -> sizes as needed, where not all go together: an even width, w ≤ m
    outcome      (result, *inputs) -> what is set beside the reference: a tensor or a number, made of the result or of
                 what the call did to its inputs, or ``Unfit``
    """

    name: str
    contract: str
    inputs: tuple[str, ...]
    output: tuple[str, ...]
    example: Case
    draw: Callable[[dict[str, int], Random], Inputs]
    reference: Answer
    mistakes: tuple[Mistake, ...]
    laws: tuple[Callable[..., str | None], ...] = ()
    dtype: torch.dtype | None = None
    is_trained: bool = True
    fit: Callable[[dict[str, int]], dict[str, int]] = dict
    outcome: Callable[..., Any] = lambda result, *inputs: result

    @property
    def has_gradients(self) -> bool:
        """Whether a gradient should pass from an input to the result."""
        return self.is_trained and self.dtype is None and any(map(is_floating, self.example.inputs))

    def cases(self) -> list[Case]:
        """The example, then random cases from small to large, the same ones each time.

        Before ``fit``, sizes are all different, except that each axis has size 1 once and each pair of axes has
        equal sizes once: a mix-up of axes can't hide, and an answer that is right for one special size is told so.
        A question has its example only.
        """
        if not self.inputs:
            return [self.example]
        axes = list(self.example.sizes)
        random = Random(self.name)

        def draw(**fixed: int) -> Case:
            drawn = dict(zip(axes, random.sample(range(2, 3 + len(axes)), len(axes)), strict=True)) | fixed
            sizes = self.fit(drawn)
            return Case(sizes, self.draw(sizes, random))

        cases = [draw(), draw(), draw().to_double()]
        cases += [draw(**{axis: 1}) for axis in axes]
        for first, second in combinations(axes, 2):
            size = random.randint(2, 4)
            cases.append(draw(**{first: size, second: size}))
        return [self.example, *sorted(cases, key=lambda case: case.numel)]


def random_tensor(random: Random, *shape: int) -> Tensor:
    """Normal numbers rounded to quarters, never 0, float32: exact in binary, and readable on the board."""
    count = torch.Size(shape).numel()
    values = [(round(random.gauss(0, 8)) or 1) / 4 for _ in range(count)]
    return torch.tensor(values, dtype=torch.float32).reshape(shape)
