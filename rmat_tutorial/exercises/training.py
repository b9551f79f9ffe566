"""Exercises of notebook 07 on training for long range: a curriculum, and truncated back-propagation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from .exercise import Answer, Case, Exercise, Inputs, Mistake, Unfit

# A curriculum

_FRESH, _OLD, _NEW = 3.0, 0.95, 0.05


def _short_of_the_longest(sizes: dict[str, int]) -> dict[str, int]:
    """Some that can double, some that cannot quite, and those of equal sizes that are at the most already."""
    one, other = sizes["longest"] + 2, sizes["most"] + 2
    low, high = sorted((one, other))
    if sizes["longest"] == 1 or sizes["most"] == 1:
        low = 1
    can_double = low < high and (low + high) % 2 == 0
    return {"longest": low, "most": low + high if can_double else high, "numbers": 2}


def _draw_step(sizes: dict[str, int], random: Random) -> Inputs:
    """A mean below the threshold where nothing can grow. Elsewhere, in turn, one below it with a loss above, the other
    way round, and two that this loss takes across; after the step the mean is never close to the threshold."""
    limit = random.choice((0.3, 0.4, 0.5, 0.75))
    turns = ((limit / 2, limit + 1), (limit + 1, 0.0), (limit * 1.03, 0.0), (limit * 0.98, 4.0))
    at_most = sizes["longest"] == sizes["most"]
    mean, loss = (limit / 2, 0.05) if at_most else turns[sizes["most"] % 4]
    return sizes["longest"], round(mean, 4), round(loss, 4), limit, sizes["most"]


def _step(longest: int, mean: float, loss: float, threshold: float, most: int) -> Tensor:
    mean -= (mean - loss) / 20
    if longest == most or mean >= threshold:
        return torch.tensor([longest, mean], dtype=torch.float64)
    return torch.tensor([sorted((longest + longest, most))[0], 3], dtype=torch.float64)


def _two_numbers(result: Any, *inputs: Any) -> Any:
    """The result as a tensor ``(2,)``."""
    if result is None:
        return None
    try:
        longest, mean = map(float, result)
    except (TypeError, ValueError, RuntimeError):
        got = result if isinstance(result, int | float) else f"a {type(result).__name__}"
        return Unfit(f"Your function returned {got}. It must return two numbers: return longest, mean.")
    return torch.tensor([longest, mean])


def _new_mean(mean: float, loss: float) -> float:
    return _OLD * mean + _NEW * loss


def _follow(
    mean_of: Callable[[float, float], float] = _new_mean,
    grown: Callable[[int, int], int] = lambda longest, most: min(2 * longest, most),
    grows: Callable[..., bool] = lambda longest, old, mean, loss, limit, most: mean < limit and longest < most,
    anew: Callable[[float, float, float], float] = lambda mean, loss, threshold: _FRESH,
) -> Answer:
    """The right step with another mean, another growth, another condition to grow, or another mean after growth."""
    def step(longest: int, mean: float, loss: float, threshold: float, most: int) -> tuple[int, float]:
        after = mean_of(mean, loss)
        if grows(longest, mean, after, loss, threshold, most):
            return grown(longest, most), anew(after, loss, threshold)
        return longest, after

    return step


_ANEW = f"When streams grow the mean begins anew, at {_FRESH:g} nats: return FRESH in its place."

_STEP_MISTAKES = (
    Mistake(
        "You do not begin the mean anew when streams grow. It is still below the threshold in the next step, and they "
        f"grow again before one longer stream was learned. {_ANEW}",
        _follow(anew=lambda mean, loss, threshold: mean),
    ),
    Mistake(f"After growth the mean begins at 0, and that is below every threshold. {_ANEW}",
            _follow(anew=lambda mean, loss, threshold: 0.0)),
    Mistake(f"After growth the mean begins at this step's loss, and that is low. {_ANEW}",
            _follow(anew=lambda mean, loss, threshold: loss)),
    Mistake(f"After growth the mean begins at the threshold: one low loss, and streams grow again. {_ANEW}",
            _follow(anew=lambda mean, loss, threshold: threshold)),
    Mistake("Streams grow by one segment. The longest doubles: 1, 2, 4, 8.",
            _follow(grown=lambda longest, most: min(longest + 1, most))),
    Mistake("Streams grow to the most at once. The longest doubles: 1, 2, 4, 8.",
            _follow(grown=lambda longest, most: most)),
    Mistake("The longest is squared, and 1 stays 1. It doubles: 2 · longest.",
            _follow(grown=lambda longest, most: min(longest**2, most))),
    Mistake(
        "Streams grow beyond the most: from 3 segments to 6, where 4 are allowed. Take min(2 · longest, most).",
        _follow(grown=lambda longest, most: 2 * longest),
    ),
    Mistake(
        "Nothing stops the growth: at the most, streams are doubled once more. They grow only while longest < most, "
        "and to min(2 · longest, most).",
        _follow(grown=lambda longest, most: 2 * longest, grows=lambda n, old, mean, loss, limit, most: mean < limit),
    ),
    Mistake(
        "Where doubling goes beyond the most, your streams do not grow at all, and the longest are never met. Take "
        "min(2 · longest, most).",
        _follow(grows=lambda longest, old, mean, loss, limit, most: mean < limit and 2 * longest <= most),
    ),
    Mistake(
        "Your mean begins anew at the most as well, where nothing grows. It begins anew only when streams grow.",
        _follow(grows=lambda longest, old, mean, loss, limit, most: mean < limit),
    ),
    Mistake("Your mean begins anew in each step, so that it never falls. It begins anew only when streams grow.",
            lambda n, mean, loss, limit, most: (_follow()(n, mean, loss, limit, most)[0], _FRESH)),
    Mistake(
        "You compare this step's loss with the threshold. One lucky batch is no reason to grow: compare the running "
        "mean.",
        _follow(grows=lambda longest, old, mean, loss, limit, most: loss < limit and longest < most),
    ),
    Mistake(
        "You grow only when both the mean and this step's loss are below the threshold. The mean alone decides.",
        _follow(grows=lambda longest, old, mean, loss, limit, most: max(mean, loss) < limit and longest < most),
    ),
    Mistake(
        "You compare the mean as it was before this step. First take this step's loss in, then compare.",
        _follow(grows=lambda longest, old, mean, loss, limit, most: old < limit and longest < most),
    ),
    Mistake("Your comparison goes the other way: streams grow when the mean is below the threshold.",
            _follow(grows=lambda longest, old, mean, loss, limit, most: mean > limit and longest < most)),
    Mistake("Streams grow in every step. They grow when the mean is below the threshold.",
            _follow(grows=lambda longest, old, mean, loss, limit, most: longest < most)),
    Mistake("Streams never grow. When the mean is below the threshold and longest < most, the longest doubles.",
            _follow(grows=lambda *_: False)),
    Mistake(
        "The weights of the mean are swapped: it is nearly the last loss. The old mean counts 0.95, the new loss 0.05.",
        _follow(lambda mean, loss: _NEW * mean + _OLD * loss),
    ),
    Mistake(
        "You took the plain mean of the old mean and the new loss. The old mean counts 0.95, the new loss 0.05.",
        _follow(lambda mean, loss: (mean + loss) / 2),
    ),
    Mistake("The new loss is added in full. It counts 0.05: 0.95 · mean + 0.05 · loss.",
            _follow(lambda mean, loss: _OLD * mean + loss)),
    Mistake("Nothing is taken from the old mean, so it can only rise. It counts 0.95: 0.95 · mean + 0.05 · loss.",
            _follow(lambda mean, loss: mean + _NEW * loss)),
    Mistake("This step's loss does not enter the mean: 0.95 · mean + 0.05 · loss.", _follow(lambda mean, loss: mean)),
    Mistake("This step's loss does not enter the mean: 0.95 · mean + 0.05 · loss.",
            _follow(lambda mean, loss: _OLD * mean)),
    Mistake("You return this step's loss as the mean. The mean is 0.95 · mean + 0.05 · loss.",
            _follow(lambda mean, loss: loss)),
    Mistake("The two results are in the wrong order: return longest, mean.",
            lambda *inputs: _follow()(*inputs)[::-1]),
    Mistake(
        "Streams grow shorter when the mean is above the threshold. They only grow: short ones are drawn anyway.",
        lambda n, mean, loss, limit, most: (
            _follow()(n, mean, loss, limit, most)
            if _new_mean(mean, loss) < limit
            else (max(n // 2, 1), _new_mean(mean, loss))
        ),
    ),
)


def _what_a_step_does(
    output: Tensor, expected: Tensor, longest: int, mean: float, loss: float, threshold: float, most: int
) -> str | None:
    if torch.allclose(output, expected, rtol=1e-5, atol=1e-5):
        return None
    new, (right, _) = _new_mean(mean, loss), expected.tolist()
    if right != longest:
        means = f"below {threshold:g}, so streams of {longest} grow to {right:g}, and the mean begins anew at 3"
    elif new < threshold:
        means = f"below {threshold:g}, but {longest} segments are the most: nothing grows, and the mean goes on"
    else:
        means = f"not below {threshold:g}, so streams stay at {longest}, and the mean goes on"
    return (
        f"The mean becomes 0.95 · {mean:g} + 0.05 · {loss:g} = {new:.4g}. That is {means}. Your function returned "
        f"{output[0]:g} and {output[1]:.4g}."
    )


NEXT_LONGEST = Exercise(
    name="07.curriculum",
    contract="next_longest(longest, mean, loss, threshold, most) -> (longest, mean) of the next step. First the mean "
    "takes in the loss: 0.95 · mean + 0.05 · loss. If it is then below the threshold, and longest < most, streams "
    "grow: longest doubles, up to most, and the mean begins anew at 3. Otherwise longest stays, and the mean goes on.",
    inputs=("longest", "mean", "loss", "threshold", "most"),
    output=("numbers",),
    example=Case({"longest": 3, "most": 4, "numbers": 2}, (3, 0.5, 0.1, 0.5, 4)),
    draw=_draw_step,
    reference=_step,
    mistakes=_STEP_MISTAKES,
    laws=(_what_a_step_does,),
    is_trained=False,
    fit=_short_of_the_longest,
    outcome=_two_numbers,
)

# Truncated back-propagation


class _State:
    """A stand-in for a model's state: two numbers, one in each of two banks."""

    def __init__(self, fast: Tensor, slow: Tensor) -> None:
        self.fast, self.slow = fast, slow

    def __repr__(self) -> str:
        return f"fast {self.fast:g}, slow {self.slow:g}"

    def detach(self) -> _State:
        """The same numbers, with nothing behind them."""
        return _State(self.fast.detach(), self.slow.detach())


class _Saved:
    """What a graph holds in place of a tensor, so that it is seen when the graph lets go."""

    def __init__(self, tensor: Tensor, piece: int) -> None:
        self.tensor, self.piece = tensor, piece


class _Reader:
    """A stand-in for a model: reads a number, and writes both banks. The loss is the square of the slow one.

    Attributes:
        weights: of both banks, with their gradient.
        most_kept: of how many pieces the graphs were kept at one time.
    """

    def __init__(self, *weights: float) -> None:
        self.weights = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
        self.saved: WeakSet[_Saved] = WeakSet()
        self.pieces_read = self.most_kept = 0

    def __deepcopy__(self, memo: dict) -> _Reader:
        return _Reader(*self.weights.tolist())

    def __repr__(self) -> str:
        fast, slow = self.weights.tolist()
        return f"fast = {fast:g} fast + piece, slow = {slow:g} slow + fast, loss = slow²"

    def __call__(self, piece: float, state: _State) -> tuple[Tensor, _State]:
        if not isinstance(state, _State):
            raise TypeError(f"read takes a piece and a state, got {type(state).__name__} as the state")
        with torch.autograd.graph.saved_tensors_hooks(self._save, lambda saved: saved.tensor):
            fast = self.weights[0] * state.fast + piece
            slow = self.weights[1] * state.slow + fast
            loss = slow * slow
        self.pieces_read += 1
        self.most_kept = max(self.most_kept, len({saved.piece for saved in self.saved}))
        return loss, _State(fast, slow)

    def _save(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor.detach(), self.pieces_read)  # the tensor itself would hold its graph
        self.saved.add(saved)
        return saved


def _some_groups(sizes: dict[str, int]) -> dict[str, int]:
    """Two groups or more, the last of them often not full; one full group where sizes are equal; no 5, which is how
    many numbers are compared."""
    n, k = sizes["n"], min(sizes["k"], 4)
    return {"n": n if n in (1, sizes["k"]) else n + 4, "k": k, "numbers": 5}


def _leaf(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64, requires_grad=True)


def _draw_stream(sizes: dict[str, int], random: Random) -> Inputs:
    numbers = [number / 4 for number in range(-8, 9) if number]
    return (
        _Reader(*random.sample((-1.0, -0.75, -0.5, 0.5, 0.75, 1.25), 2)),
        tuple(random.choice(numbers) for _ in range(sizes["n"])),
        _State(*map(_leaf, random.sample(numbers, 2))),
        sizes["k"],
    )


def _gradient(result: Any, read: _Reader, pieces: Sequence[float], state: _State, k: int) -> Tensor:
    """What the call has left: the gradients of the weights and of the state before the first piece, and whether the
    graphs of more than ``k`` pieces were kept at one time."""
    gradients = [torch.zeros(()) if leaf.grad is None else leaf.grad for leaf in (state.fast, state.slow)]
    weights = torch.zeros(2) if read.weights.grad is None else read.weights.grad
    return torch.stack([*weights, *gradients, torch.tensor(read.most_kept > k)]).float()


def _by_sensitivities(read: _Reader, pieces: Sequence[float], state: _State, k: int) -> Tensor:
    """How both banks change with each of the four numbers, carried forward and forgotten after every ``k`` pieces."""
    a, b = read.weights.tolist()
    fast, slow = state.fast.item(), state.slow.item()
    of_fast, of_slow = [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]
    gradient = [0.0] * 4
    for i, piece in enumerate(pieces):
        if i and i % k == 0:
            of_fast, of_slow = [0.0] * 4, [0.0] * 4
        of_fast = [a * change + (fast if number == 0 else 0) for number, change in enumerate(of_fast)]
        fast = a * fast + piece
        of_slow = [b * of_slow[j] + of_fast[j] + (slow if j == 1 else 0) for j in range(4)]
        slow = b * slow + fast
        gradient = [sum_ + 2 * slow * change for sum_, change in zip(gradient, of_slow, strict=True)]
    return torch.tensor([*gradient, 0.0], dtype=torch.float64)


_Pieces = Sequence[float]


def _groups(pieces: _Pieces, k: int) -> list[_Pieces]:
    return [pieces[start : start + k] for start in range(0, len(pieces), k)]


def _first_alone(pieces: _Pieces, k: int) -> list[_Pieces]:
    """What comes of a cut after the pieces 0, k, 2 k and so on."""
    return [pieces[:1], *_groups(pieces[1:], k)]


def _full(pieces: _Pieces, k: int) -> list[_Pieces]:
    return [group for group in _groups(pieces, k) if len(group) == k]


def _k_groups(pieces: _Pieces, k: int) -> list[_Pieces]:
    return _groups(pieces, -(-len(pieces) // k))


def _in_groups(
    groups: Callable[[_Pieces, int], list[_Pieces]] = _groups,
    total: Callable[[list[Tensor], int, int], Tensor] = lambda losses, k, n: torch.stack(losses).sum(),
    start: Callable[[_State, _State], _State] = lambda state, first: state,
    within: Callable[[_State], _State] = lambda state: state,
) -> Answer:
    """The right loop with other groups, another total of the losses of a group, ``(losses, k, n) -> number``, another
    state that a group starts from, or something done to the state after each piece."""
    def truncated(read: _Reader, pieces: _Pieces, state: _State, k: int) -> None:
        first = state
        for group in groups(pieces, k):
            losses, state = [], start(state, first)
            for piece in group:
                loss, state = read(piece, state)
                losses.append(loss)
                state = within(state)
            total(losses, k, len(pieces)).backward()
            state = state.detach()

    return truncated


def _backward_at_the_end(
    cut: Callable[[int, int], bool] = lambda i, k: i % k == 0,
    counted: Callable[[list[Tensor], int], list[Tensor]] = lambda losses, k: losses,
) -> Answer:
    """Reads all pieces, cuts before those where ``cut(i, k)``, and calls backward on the sum of those ``counted``."""
    def truncated(read: _Reader, pieces: _Pieces, state: _State, k: int) -> None:
        losses = []
        for i, piece in enumerate(pieces):
            if i and cut(i, k):
                state = state.detach()
            loss, state = read(piece, state)
            losses.append(loss)
        if chosen := counted(losses, k):
            torch.stack(chosen).sum().backward()

    return truncated


def _every_group_again(read: _Reader, pieces: _Pieces, state: _State, k: int) -> None:
    losses = []
    for group in _groups(pieces, k):
        for piece in group:
            loss, state = read(piece, state)
            losses.append(loss)
        torch.stack(losses).sum().backward(retain_graph=True)
        state = state.detach()


def _last_group_start(losses: list[Tensor], k: int) -> int:
    return (len(losses) - 1) // k * k


_IN_WHOLE = "The loss of the stream is the sum of all losses that read returns, so add up those of a group and no more."
_ONE_LATE = (
    "Your first group has one piece only: the cut comes when i % k == 0, and 0 % k is 0. Cut before piece i where "
    "i % k == 0 and i > 0, or after piece i where (i + 1) % k == 0."
)
_CUT_ALL = (
    "You detach the state after every piece, so no loss teaches the piece before. Detach it after every k pieces: "
    "within a group the gradient passes."
)
_NEVER = "Within a group the gradient passes; behind the group state = state.detach() cuts it."

_TRUNCATED_MISTAKES = (
    Mistake(
        "The state is never cut: the gradient runs through the whole stream, and so do the graphs that are kept. "
        "state.detach() returns a new state and changes none: write state = state.detach() after every k pieces.",
        _backward_at_the_end(lambda i, k: False),
    ),
    Mistake(
        "The gradient is right, but backward comes at the end only, so the graphs of all pieces are kept until then. "
        "Call it after every k pieces: it adds to the gradients that are there, and frees the graphs.",
        _backward_at_the_end(),
    ),
    Mistake(_CUT_ALL, _in_groups(within=_State.detach)),
    Mistake(_CUT_ALL, _in_groups(lambda pieces, k: _groups(pieces, 1))),
    Mistake(f"{_CUT_ALL} And call backward there: all graphs are kept until the end.",
            _backward_at_the_end(lambda i, k: True)),
    Mistake(
        "The last group is missing where k does not divide the number of pieces: it is read, or left out, without a "
        "backward. The last group may be shorter.",
        _in_groups(_full),
    ),
    Mistake("Your cut comes one piece late: the first group has k + 1 pieces, and so on.",
            _in_groups(lambda pieces, k: _groups(pieces, k + 1))),
    Mistake(_ONE_LATE, _in_groups(lambda pieces, k: [group for group in _first_alone(pieces, k) if group])),
    Mistake(f"{_ONE_LATE} And what comes after the last cut has no backward.",
            _in_groups(lambda pieces, k: [pieces[:1], *_full(pieces[1:], k)])),
    Mistake("You made k groups. Asked for are groups of k pieces.", _in_groups(_k_groups)),
    Mistake("You read every k-th piece only. A group is k pieces, one after the other.",
            _in_groups(lambda pieces, k: [[piece] for piece in pieces[::k]])),
    Mistake("You read the first group only. Go on with the next, from the detached state.",
            _in_groups(lambda pieces, k: [pieces[:k]])),
    Mistake("You read the pieces from the last to the first. The state runs forward.",
            _in_groups(lambda pieces, k: _groups(pieces[::-1], k))),
    Mistake(
        "Only the last group's gradient is there. Call backward for each group, and let gradients add up: they are set "
        "to zero by the trainer, before the stream.",
        _backward_at_the_end(counted=lambda losses, k: losses[_last_group_start(losses, k) :]),
    ),
    Mistake("Only the last loss is back-propagated. Add up the losses of all pieces.",
            _backward_at_the_end(counted=lambda losses, k: losses[-1:])),
    Mistake("backward is never called, or on nothing that leads to the weights: no gradient has arrived.",
            _backward_at_the_end(counted=lambda losses, k: [])),
    Mistake(
        "Of each group only the last loss is back-propagated. Add up the losses of its k pieces.",
        _in_groups(total=lambda losses, k, n: losses[-1]),
    ),
    Mistake(
        "Of each group only the first loss is back-propagated. Add up the losses of its k pieces.",
        _in_groups(total=lambda losses, k, n: losses[0]),
    ),
    Mistake(f"You take the mean of each group's losses. {_IN_WHOLE}",
            _in_groups(total=lambda losses, k, n: torch.stack(losses).mean())),
    Mistake(f"You divide each group's losses by k. {_IN_WHOLE}",
            _in_groups(total=lambda losses, k, n: torch.stack(losses).sum() / k)),
    Mistake(f"You divide by the number of pieces. {_IN_WHOLE}",
            _in_groups(total=lambda losses, k, n: torch.stack(losses).sum() / n)),
    Mistake(f"You divide by the number of groups. {_IN_WHOLE}",
            _in_groups(total=lambda losses, k, n: torch.stack(losses).sum() / -(-n // k))),
    Mistake(
        "The losses of earlier groups are counted again in each later one: begin a new sum after each backward. "
        "retain_graph=True hides that, and keeps the graphs that backward would free.",
        _every_group_again,
    ),
    Mistake(
        "Every group starts from the state before the first piece, so nothing is carried from group to group. Hand the "
        "state on, detached: its numbers go on, the gradient does not.",
        _in_groups(start=lambda state, first: first),
    ),
    Mistake(
        "Every group starts from the state before the first piece, detached. Hand on the state that read returned.",
        _in_groups(start=lambda state, first: first.detach()),
    ),
    Mistake(
        "You detach the state before the first piece. What a stream begins with is learned: cut between groups only.",
        _in_groups(start=lambda state, first: state.detach()),
    ),
)


def _what_arrived(
    output: Tensor, expected: Tensor, read: _Reader, pieces: Sequence[float], state: _State, k: int
) -> str | None:
    wrong = ((output - expected).abs() > 1e-4 * (1 + expected.abs())).tolist()
    if wrong[4] and not any(wrong[:4]):
        return (
            f"The gradients are right, but the graphs of more than k = {k} pieces were kept at one time. Call backward "
            "after every k pieces, without retain_graph: it frees the graphs."
        )
    if any(wrong[2:4]) and not any(wrong[:2]):
        return "The gradient of the weights is right, that of the state before the first piece is not."
    if any(wrong[:4]):
        return (
            f"The gradients are wrong. In turn: read k = {k} pieces, each from the state that the one before returned; "
            f"call backward on the sum of their losses; detach the state. {_NEVER}"
        )
    return None


TRUNCATED = Exercise(
    name="07.truncated",
    contract="truncated(read, pieces, state, k) -> None: read(piece, state) -> (loss, state) for each piece in order, "
    "the first from state, each later one from the state that the one before returned. The gradient of the sum of all "
    "losses is added up by backward, cut between groups of k pieces (the last group may be shorter), and the "
    "graphs of at most k pieces are kept at one time. Compared: four gradients (of two weights, of two numbers of the "
    "state before the first piece), and whether the graphs of more than k pieces were kept (0: no).",
    inputs=("read", "pieces", "state", "k"),
    output=("numbers",),
    example=Case(
        {"n": 3, "k": 2, "numbers": 5}, (_Reader(0.5, -0.5), (1.0, 0.5, 2.0), _State(_leaf(2.0), _leaf(1.0)), 2)
    ),
    draw=_draw_stream,
    reference=_by_sensitivities,
    mistakes=_TRUNCATED_MISTAKES,
    laws=(_what_arrived,),
    is_trained=False,
    fit=_some_groups,
    outcome=_gradient,
)

EXERCISES = (NEXT_LONGEST, TRUNCATED)
