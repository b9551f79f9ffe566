"""The exercises of notebook 05: fuse the paths, stream through a block, find the leak."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from random import Random

import torch
from torch import Tensor

from .exercise import Case, Exercise, Inputs, Mistake, random_tensor

# 1. Fuse ---------------------------------------------------------------------------------------------------------


def _draw_paths(sizes: dict[str, int], random: Random) -> Inputs:
    paths = sizes["P"]
    outputs = random_tensor(random, paths, sizes["B"], sizes["H"], sizes["L"], sizes["d_h"])
    return outputs, random_tensor(random, paths) / 2


def _fuse(outputs: Tensor, mix: Tensor) -> Tensor:
    powers = [math.exp(number) for number in mix.tolist()]
    numbers = outputs.tolist()
    fused = torch.zeros(outputs.shape[1:], dtype=torch.float64)
    for b, h, i, j in product(*map(range, fused.shape)):
        fused[b, h, i, j] = sum(power * path[b][h][i][j] for power, path in zip(powers, numbers, strict=True))
    return fused / sum(powers)


def _weigh(outputs: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("p,p...->...", weights, outputs)


_AGAINST_THE_WRONG_AXIS = (
    "λ met the axis {} of outputs: shapes are lined up from the right, and sizes that happen to be equal, or 1, pass. "
    "Give λ four more axes behind its own, λ[:, None, None, None, None], so that it meets the paths."
)

_FUSE_MISTAKES = (
    Mistake(
        "You weighed the paths with mix itself. λ is its softmax: shares that are positive and sum to 1.",
        _weigh,
    ),
    Mistake(
        "Every path counts once: you added them up. Either mix is not used, or its softmax ran over an axis of size "
        "1, where it is always 1. Each path counts λ times.",
        lambda outputs, mix: outputs.sum(0),
    ),
    Mistake("You took the mean of the paths: mix is not used.", lambda outputs, mix: outputs.mean(0)),
    Mistake(
        "You divided by the number of paths as well. λ sums to 1 already: add the weighted paths up.",
        lambda outputs, mix: _weigh(outputs, mix.softmax(0)) / len(mix),
    ),
    Mistake(
        "You weighed with exp(mix) and did not divide by the sum: the shares must sum to 1.",
        lambda outputs, mix: _weigh(outputs, mix.exp()),
    ),
    Mistake(
        "You used a sigmoid on each number of mix. The shares then do not sum to 1: λ is the softmax over the paths.",
        lambda outputs, mix: _weigh(outputs, mix.sigmoid()),
    ),
    Mistake(
        "You divided mix by its sum, without exp. Numbers below 0 then make negative shares: λ is the softmax.",
        lambda outputs, mix: _weigh(outputs, mix / mix.sum()),
    ),
    Mistake(
        "You applied the softmax twice. mix is not λ yet: one softmax makes λ of it.",
        lambda outputs, mix: _weigh(outputs, mix.softmax(0).softmax(0)),
    ),
    Mistake(
        "You weighed with the logarithms of λ: use softmax, not log_softmax.",
        lambda outputs, mix: _weigh(outputs, mix.log_softmax(0)),
    ),
    Mistake(
        "The sign of mix is flipped: the path with the largest number must get the largest share.",
        lambda outputs, mix: _weigh(outputs, (-mix).softmax(0)),
    ),
    Mistake(
        "The paths are in the reverse order: λ number p belongs to outputs[p].",
        lambda outputs, mix: _weigh(outputs, mix.softmax(0).flip(0)),
    ),
    Mistake(
        "You took the path with the largest mix alone. λ shares out: every path counts, each with its share.",
        lambda outputs, mix: outputs[mix.argmax()],
    ),
    Mistake(
        "Your softmax runs over the outputs of the paths, number by number. It belongs over mix: one share a path, "
        "the same for every number.",
        lambda outputs, mix: (outputs * (outputs * mix[:, None, None, None, None]).softmax(0)).sum(0),
    ),
    Mistake(
        "You applied a softmax to the weighted paths. The softmax belongs over mix; then multiply and add.",
        lambda outputs, mix: (outputs * mix[:, None, None, None, None]).softmax(0).sum(0),
    ),
    Mistake(
        "The weighted paths are not added up: the axis of the paths is still there. Sum over it (dim=0).",
        lambda outputs, mix: outputs * mix.softmax(0)[:, None, None, None, None],
    ),
    Mistake(
        "You return the last path alone, times its λ: the loop overwrites what it found before. Add each path on.",
        lambda outputs, mix: outputs[-1] * mix.softmax(0)[-1],
    ),
    Mistake(
        _AGAINST_THE_WRONG_AXIS.format("d_h"),
        lambda outputs, mix: (outputs * mix.softmax(0)).sum(0),
    ),
    Mistake(
        _AGAINST_THE_WRONG_AXIS.format("L"),
        lambda outputs, mix: (outputs * mix.softmax(0)[:, None]).sum(0),
    ),
    Mistake(
        _AGAINST_THE_WRONG_AXIS.format("H"),
        lambda outputs, mix: (outputs * mix.softmax(0)[:, None, None]).sum(0),
    ),
    Mistake(
        _AGAINST_THE_WRONG_AXIS.format("B"),
        lambda outputs, mix: (outputs * mix.softmax(0)[:, None, None, None]).sum(0),
    ),
)


def _lies_between_the_paths(output: Tensor, expected: Tensor, outputs: Tensor, mix: Tensor) -> str | None:
    low, high = outputs.amin(0) - 1e-4, outputs.amax(0) + 1e-4
    outside = ((output < low) | (output > high)).nonzero()
    if not len(outside):
        return None
    place = tuple(outside[0].tolist())
    return (
        f"λ are shares: none is negative, and they sum to 1. So each number lies between the smallest and the largest "
        f"of the paths. result[{', '.join(map(str, place))}] is {output[place]:.3g}, the paths have "
        f"{', '.join(f'{path[place]:.3g}' for path in outputs)}."
    )


FUSE = Exercise(
    name="05.fuse",
    contract="fuse(outputs (P, B, H, L, d_h), mix (P,)) -> (B, H, L, d_h): the sum of the outputs of the P paths, "
    "path p weighted with λ_p, where λ = softmax(mix).",
    inputs=("outputs", "mix"),
    output=("B", "H", "L", "d_h"),
    example=Case(
        {"P": 3, "B": 1, "H": 1, "L": 2, "d_h": 2},
        (
            torch.tensor([[[[[4.0, 0.0], [2.0, 6.0]]]], [[[[0.0, 2.0], [4.0, 1.0]]]], [[[[2.0, 4.0], [8.0, 5.0]]]]]),
            torch.tensor([2.0, 0.0, 0.5]),
        ),
    ),
    draw=_draw_paths,
    reference=_fuse,
    mistakes=_FUSE_MISTAKES,
    laws=(_lies_between_the_paths,),
)

# 2. Stream -------------------------------------------------------------------------------------------------------

_Read = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class _Segment:
    """A stand-in for a block: reads one segment with the state before it, and then writes the state.

    To each token it adds the mean of the segment's tokens up to it and the mean of the slots. Then the oldest slot
    leaves, and the mean of the segment's outputs enters.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def __repr__(self) -> str:
        return f"a block that reads 1 to {self.limit} tokens"

    def __call__(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if x.dim() != 3 or not 1 <= x.shape[1] <= self.limit:
            raise ValueError(f"read takes one segment (B, 1 to L = {self.limit}, d), got {tuple(x.shape)}")
        if state.dim() != 3 or (state.shape[0], state.shape[2]) != (x.shape[0], x.shape[2]):
            raise ValueError(f"state must be (B, m, d), B and d as in x {tuple(x.shape)}, got {tuple(state.shape)}")
        counts = torch.arange(1, x.shape[1] + 1).to(x)[:, None]
        y = x + x.cumsum(1) / counts + state.mean(1, keepdim=True)
        return y, torch.cat([state[:, 1:], y.mean(1, keepdim=True)], dim=1)


def _draw_stream(sizes: dict[str, int], random: Random) -> Inputs:
    batch, width, limit = sizes["B"], sizes["d"], sizes["L"]
    x = random_tensor(random, batch, sizes["T"], width)
    return _Segment(limit), x, random_tensor(random, batch, sizes["m"], width), limit


def _stream(read: _Read, x: Tensor, state: Tensor, length: int) -> Tensor:
    out = torch.empty(x.shape, dtype=torch.float64)
    for b, f in product(range(x.shape[0]), range(x.shape[2])):
        numbers, slots = x[b, :, f].tolist(), state[b, :, f].tolist()
        seen: list[float] = []
        written: list[float] = []
        for t, number in enumerate(numbers):
            seen.append(number)
            written.append(number + sum(seen) / len(seen) + sum(slots) / len(slots))
            out[b, t, f] = written[-1]
            if len(seen) == length:
                slots = [*slots[1:], sum(written) / length]
                seen, written = [], []
    return out


def _pieces(x: Tensor, length: int) -> list[Tensor]:
    return [x[:, start : start + length] for start in range(0, x.shape[1], length)]


def _read_all(read: _Read, pieces: list[Tensor], state: Tensor) -> Iterator[Tensor]:
    for piece in pieces:
        y, state = read(piece, state)
        yield y


def _joined(read: _Read, pieces: list[Tensor], state: Tensor) -> Tensor:
    return torch.cat([*_read_all(read, pieces, state)], dim=1)


def _even(x: Tensor, parts: int) -> list[Tensor]:
    return [piece for piece in x.tensor_split(parts, dim=1) if piece.shape[1]]


def _short_first(x: Tensor, length: int) -> list[Tensor]:
    rest = x.shape[1] % length
    return ([x[:, :rest]] if rest else []) + _pieces(x[:, rest:], length)


def _second_state_for_all(read: _Read, x: Tensor, state: Tensor, length: int) -> Tensor:
    first, *later = _pieces(x, length)
    y, after = read(first, state)
    return torch.cat([y, *(read(piece, after)[0] for piece in later)], dim=1)


def _results_swapped(read: _Read, x: Tensor, state: Tensor, length: int) -> Tensor:
    states = []
    for piece in _pieces(x, length):
        state, after = read(piece, state)
        states.append(after)
    return torch.cat(states, dim=1)


_STREAM_MISTAKES = (
    Mistake(
        "The state is not handed on: every segment is read with the state from before the first. Use the state that "
        "read returns for the next segment.",
        lambda read, x, state, n: torch.cat([read(piece, state)[0] for piece in _pieces(x, n)], dim=1),
    ),
    Mistake(
        "The state is handed on once only: from the third segment on you still use the state after the first. Take "
        "the new state from every call.",
        _second_state_for_all,
    ),
    Mistake(
        "The last tokens are missing where L does not divide T: the last segment may be shorter.",
        lambda read, x, state, n: _joined(read, _pieces(x[:, : x.shape[1] // n * n], n), state),
    ),
    Mistake(
        "The last segment is never read, not even where L divides T: the loop ends too early. Segments begin at "
        "range(0, T, L).",
        lambda read, x, state, n: _joined(read, _pieces(x, n)[:-1], state),
    ),
    Mistake(
        "You took the two results of read in the wrong order: first come the outputs, then the next state.",
        _results_swapped,
    ),
    Mistake(
        "You do not use the state that you are given: your stream begins with zeros.",
        lambda read, x, state, n: _joined(read, _pieces(x, n), torch.zeros_like(state)),
    ),
    Mistake(
        "Every segment is read with a state of zeros. The first is read with the state that you are given, each later "
        "one with the state that read returned.",
        lambda read, x, state, n: torch.cat([read(y, torch.zeros_like(state))[0] for y in _pieces(x, n)], dim=1),
    ),
    Mistake(
        "Your short segment comes first. Segments are filled from the beginning; the last one may be shorter.",
        lambda read, x, state, n: _joined(read, _short_first(x, n), state),
    ),
    Mistake(
        "You cut x into L pieces. L is the number of tokens in a piece: x.split(L, dim=1), not chunk(L).",
        lambda read, x, state, n: _joined(read, _even(x, n), state),
    ),
    Mistake(
        "You cut x into L pieces. L is the number of tokens in a piece: x.split(L, dim=1), not chunk(L).",
        lambda read, x, state, n: _joined(read, list(x.chunk(n, dim=1)), state),
    ),
    Mistake(
        "Your pieces are of about equal length. A segment has L tokens, and only the last may be shorter: "
        "x.split(L, dim=1).",
        lambda read, x, state, n: _joined(read, _even(x, math.ceil(x.shape[1] / n)), state),
    ),
    Mistake(
        "Your pieces are of about equal length. A segment has L tokens, and only the last may be shorter: "
        "x.split(L, dim=1).",
        lambda read, x, state, n: _joined(read, list(x.chunk(math.ceil(x.shape[1] / n), dim=1)), state),
    ),
    Mistake(
        "You read token by token, and read writes the state each time. Give it L tokens at once: it writes after a "
        "segment.",
        lambda read, x, state, n: _joined(read, _pieces(x, 1), state),
    ),
    Mistake(
        "You return the outputs of the last segment only. Collect those of all segments.",
        lambda read, x, state, n: [*_read_all(read, _pieces(x, n), state)][-1],
    ),
    Mistake(
        "You return the outputs of the first segment only. The loop returns too early: collect those of all segments.",
        lambda read, x, state, n: read(x[:, :n], state)[0],
    ),
    Mistake(
        "The outputs are joined along the batch (dim=0), which is torch.cat's default. Tokens are axis 1.",
        lambda read, x, state, n: torch.cat([*_read_all(read, _pieces(x, n), state)]),
    ),
    Mistake(
        "The outputs are joined along the width (dim=-1). Tokens are axis 1.",
        lambda read, x, state, n: torch.cat([*_read_all(read, _pieces(x, n), state)], dim=-1),
    ),
    Mistake(
        "The outputs are stacked, so that there is one axis too many. Join them along the tokens: torch.cat(…, dim=1).",
        lambda read, x, state, n: torch.stack([*_read_all(read, _pieces(x, n), state)], dim=1),
    ),
    Mistake(
        "The outputs are joined in the reverse order: the first segment's come first.",
        lambda read, x, state, n: torch.cat([*_read_all(read, _pieces(x, n), state)][::-1], dim=1),
    ),
    Mistake(
        "You read the segments from the last to the first. The state runs forward: begin with the first tokens.",
        lambda read, x, state, n: torch.cat([*_read_all(read, _pieces(x, n)[::-1], state)][::-1], dim=1),
    ),
    Mistake(
        "You return the states. Return the outputs y of all segments, joined along the tokens.",
        lambda read, x, state, n: _last_state(read, x, state, n),
    ),
)


def _last_state(read: _Read, x: Tensor, state: Tensor, length: int) -> Tensor:
    for piece in _pieces(x, length):
        _, state = read(piece, state)
    return state


def _where_it_begins(output: Tensor, expected: Tensor, read: _Read, x: Tensor, state: Tensor, n: int) -> str | None:
    wrong = (output - expected).abs().amax(dim=(0, 2)) > 1e-4
    if not wrong.any():
        return None
    token = int(wrong.nonzero()[0])
    if token < n:
        return f"Already token {token}, in the first segment, is wrong: it is read with the state that you are given."
    return (
        f"The first segment is right. From token {token} on, in segment {token // n}, the numbers are wrong: what "
        "that segment was given, its tokens or its state, is not right."
    )


STREAM = Exercise(
    name="05.stream",
    contract="stream(read, x (B, T, d), state (B, m, d), L) -> (B, T, d): the outputs of all segments of L tokens (the "
    "last may be shorter), read in order, where read(segment (B, n, d), state) -> (outputs (B, n, d), next state).",
    inputs=("read", "x", "state", "L"),
    output=("B", "T", "d"),
    example=Case(
        {"B": 1, "T": 5, "L": 2, "m": 2, "d": 2},
        (
            _Segment(2),
            torch.tensor([[[1.0, 2.0], [3.0, 0.0], [2.0, 4.0], [0.0, 1.0], [5.0, 2.0]]]),
            torch.tensor([[[0.0, 1.0], [2.0, 3.0]]]),
            2,
        ),
    ),
    draw=_draw_stream,
    reference=_stream,
    mistakes=_STREAM_MISTAKES,
    laws=(_where_it_begins,),
    # Most streams of more than two segments, the last of them short.
    fit=lambda sizes: sizes | ({"T": sizes["T"] + 2 * sizes["L"]} if sizes["T"] > 1 else {}),
)

# 3. Find the leak ------------------------------------------------------------------------------------------------


class _Leaky:
    """A reader in which output i moves with every input up to i, and with the later inputs that leak into it.

    A leak moves two numbers of an output by as much, one up and one down. It feels one number of the input, or, like
    everything behind a LayerNorm, the difference of two: the same added to all numbers does not show it.
    """

    def __init__(self, tokens: int, width: int, leaks: list[tuple[int, int, float]], random: Random) -> None:
        self.shape = tokens, width
        self.past = random_tensor(random, tokens, tokens).tril() / 8
        self.leaks = [
            (i, j, strength, _two(width, random), _two(width, random), number % 2 == 0 and width > 1)
            for number, (i, j, strength) in enumerate(leaks)
        ]

    def __repr__(self) -> str:
        found = ", ".join(f"{j} into {i}" for i, j, *_ in self.leaks)
        return f"a reader of {self.shape[0]} tokens that leaks {found or 'nowhere'}"

    def __call__(self, x: Tensor) -> Tensor:
        if tuple(x.shape) != self.shape:
            raise ValueError(f"read takes (T, d) = {self.shape}, got {tuple(x.shape)}")
        rows = list((x + self.past.to(x) @ torch.tanh(x)).unbind())
        for i, j, strength, (source, other), (up, down), is_difference in self.leaks:
            direction = torch.zeros_like(x[0])
            direction[up] = strength
            if down != up:
                direction[down] = -strength
            rows[i] = rows[i] + (x[j, source] - x[j, other] if is_difference else x[j, source]) * direction
        return torch.stack(rows)


def _two(width: int, random: Random) -> tuple[int, int]:
    """Two different numbers of a vector, or the only one."""
    return tuple(random.sample(range(width), 2)) if width > 1 else (0, 0)


_WEAK = 0.001


def _draw_reader(sizes: dict[str, int], random: Random) -> Inputs:
    tokens, width = sizes["T"], sizes["d"]
    later = [(i, j) for i in range(tokens) for j in range(i + 1, tokens)]
    # A weak leak, a leak to the next token, one across several, and pairs in between that do not leak.
    chosen = random.sample(later, min(len(later), 4))
    leaks = [(i, j, _WEAK if number == 0 else 1.0) for number, (i, j) in enumerate(chosen)]
    return _Leaky(tokens, width, leaks, random), random_tensor(random, tokens, width) / 2


def _wired(read: _Leaky, x: Tensor) -> Tensor:
    found = torch.zeros(len(x), len(x), dtype=torch.float64)
    for i, j, *_ in read.leaks:
        found[i, j] = 1
    return found


_Reader = Callable[[Tensor], Tensor]


def _slopes(read: _Reader, x: Tensor) -> Tensor:
    """``∂ output[i, f] / ∂ input[j, g]`` as ``(T, d, T, d)``."""
    return torch.autograd.functional.jacobian(read, x.detach())


def _lengths(read: _Reader, x: Tensor) -> Tensor:
    return _slopes(read, x).square().sum(dim=(1, 3)).sqrt()


_LEAK_MISTAKES = (
    Mistake(
        "You found no leak anywhere. A look at shapes or at the finiteness of the outputs finds none: a leak changes "
        "numbers. Move one input, and see which outputs move.",
        lambda read, x: torch.zeros(len(x), len(x), dtype=torch.bool),
    ),
    Mistake(
        "You mark every pair of an output and a later input. Three ways lead there. An input that was moved stays "
        "moved while the next ones are: start from the same x each time. Or NaN was put into an input to see where it "
        "comes out: 0 × NaN is NaN, so it comes out everywhere, also where the weight is 0. Or the gradient is that of "
        "all outputs together, and each input moves its own.",
        lambda read, x: torch.ones(len(x), len(x), dtype=torch.bool).triu(1),
    ),
    Mistake(
        "You added up an output's numbers, or their gradients. A leak that moves one number up and another down "
        "cancels there. Take each number on its own, as influence does.",
        lambda read, x: (_slopes(read, x).sum(1).abs().amax(-1) > 0).triu(1),
    ),
    Mistake(
        "You looked at the first number of each output only. A leak may move another one: look at all d of them.",
        lambda read, x: (_slopes(read, x)[:, 0].abs().amax(-1) > 0).triu(1),
    ),
    Mistake(
        "You moved the first number of each input only. A leak may come from another one: move all d of them.",
        lambda read, x: (_slopes(read, x)[..., 0].abs().amax(1) > 0).triu(1),
    ),
    Mistake(
        "You add the same to all numbers of an input. What stands behind a LayerNorm does not see that: the mean is "
        "subtracted. Move each number on its own, or put random numbers in the place of the input.",
        lambda read, x: (_slopes(read, x).sum(-1).abs().amax(1) > 0).triu(1),
    ),
    Mistake(
        "You ask whether all d numbers of an output move. One is enough: any, not all.",
        lambda read, x: ((_slopes(read, x) != 0).any(-1).all(1)).triu(1),
    ),
    Mistake(
        "You left out weak leaks. Some bound is too high, or an input is moved so little that the effect is rounded "
        "away. Without a way from input to output the gradient is exactly 0, and an output is the same to the last "
        "bit. So move an input by about 1, and compare with 0.",
        lambda read, x: (_lengths(read, x) > 0.02).triu(1),
    ),
    Mistake(
        "Your matrix is transposed: entry (i, j) must say whether output i moves with input j. Yours has the inputs as "
        "rows.",
        lambda read, x: (_lengths(read, x) > 0).triu(1).T,
    ),
    Mistake(
        "You mark the past, j < i. That output i moves with earlier inputs is how it should be; a leak is an input "
        "j > i, above the diagonal.",
        lambda read, x: (_lengths(read, x) > 0).tril(-1),
    ),
    Mistake(
        "You mark all inputs that move an output, the past and its own among them. A leak is an input j > i only: "
        "triu(1).",
        lambda read, x: _lengths(read, x) > 0,
    ),
    Mistake(
        "You mark the diagonal as well. An output may move with its own input: a leak begins one above, triu(1).",
        lambda read, x: (_lengths(read, x) > 0).triu(),
    ),
    Mistake(
        "You looked at the next input only, j = i + 1. A leak may come from any later one.",
        lambda read, x: (_lengths(read, x) > 0).triu(1).tril(1),
    ),
    Mistake(
        "You left out the next input, j = i + 1, which is later too: triu(1), not triu(2).",
        lambda read, x: (_lengths(read, x) > 0).triu(2),
    ),
    Mistake(
        "You moved the last input only. A leak may come from any input: move each of them in turn.",
        lambda read, x: (_lengths(read, x) > 0).triu(1) & (torch.arange(len(x)) == len(x) - 1),
    ),
    Mistake(
        "You looked at the first output only. Every output may leak.",
        lambda read, x: (_lengths(read, x) > 0).triu(1) & (torch.arange(len(x)) == 0)[:, None],
    ),
    Mistake(
        "You looked at the last output only, and that one has no later input. Every output before it may leak.",
        lambda read, x: (_lengths(read, x) > 0) & (torch.arange(len(x)) == len(x) - 1)[:, None],
    ),
    Mistake(
        "You moved all later inputs of an output at once. That finds which output leaks, and not from which input: "
        "move one input at a time.",
        lambda read, x: (_lengths(read, x) > 0).triu(1).any(1, keepdim=True).expand(len(x), len(x)).triu(1),
    ),
    Mistake(
        "True and false are swapped: you mark the later inputs that do not leak.",
        lambda read, x: (_lengths(read, x) == 0).triu(1),
    ),
    Mistake(
        "You return how far each later input moves an output. Asked is whether: compare with 0.",
        lambda read, x: _lengths(read, x).triu(1),
    ),
    Mistake(
        "You return how far every input moves each output. Asked is whether a later one does: compare with 0, and keep "
        "what is above the diagonal.",
        _lengths,
    ),
)


def _is_wired_so(output: Tensor, expected: Tensor, read: _Leaky, x: Tensor) -> str | None:
    wrong = (output != expected).nonzero()
    if not len(wrong):
        return None
    i, j = wrong[0].tolist()
    if expected[i, j]:
        feels = next(is_difference for to, of, *_, is_difference in read.leaks if (to, of) == (i, j))
        hidden = " It feels the difference of two numbers of the input; the same added to both does not show it."
        return f"You miss a leak: output {i} moves with input {j}, which comes later.{hidden if feels else ''}"
    if j <= i:
        return f"You mark ({i}, {j}), but input {j} does not come after output {i}: that is no leak."
    return f"You mark ({i}, {j}), but output {i} does not move with input {j}: it stays the same to the last bit."


FIND_THE_LEAK = Exercise(
    name="05.leak",
    contract="leaks(read, x (T, d)) -> (T, T) of bool: true at (i, j) where j > i and output i of read(x) (T, d) moves "
    "with input j, however little.",
    inputs=("read", "x"),
    output=("T", "T"),
    example=Case(
        {"T": 4, "d": 2},
        (
            _Leaky(4, 2, [(0, 2, 1.0), (1, 2, _WEAK), (2, 3, 1.0)], Random(1)),
            torch.tensor([[1.0, 2.0], [0.5, -1.0], [-2.0, 1.5], [1.0, 0.0]]),
        ),
    ),
    draw=_draw_reader,
    reference=_wired,
    mistakes=_LEAK_MISTAKES,
    laws=(_is_wired_so,),
    dtype=torch.bool,
    fit=lambda sizes: sizes | ({"T": sizes["T"] + 2} if sizes["T"] > 1 else {}),
)

EXERCISES = (FUSE, STREAM, FIND_THE_LEAK)
