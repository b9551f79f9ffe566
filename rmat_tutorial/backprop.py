"""Back-propagation through the segments of a stream: through all at once, cut every few segments, or replayed.

What is minimised is the same in each: the mean loss over all answers of the stream and, weighted, the mean over all of
its write gates.

``"whole"`` keeps the graph of the whole stream, whose size grows with the number of segments. ``"truncated"`` detaches
the state every ``k`` segments, so that the graph is that of ``k``; nothing later then teaches what a segment wrote to
the bank before the cut, and with ``k = 1`` nothing but the penalty teaches any write. ``"replay"`` gives the gradient
of the whole graph and keeps that of one segment (memory replay back-propagation: Wu and others 2020, "Memformer",
arXiv 2010.06891). It reads nearly every segment twice and keeps the states between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .evaluation import Score
from .language_model import LanguageModel, Output, has_nan
from .state import State
from .tasks import IGNORED
from .tracing import collect_gates

BACKPROPS = ("whole", "replay", "truncated")
PRECISIONS = ("float32", "bfloat16")

Window = tuple[Tensor, ...]
"""Views of a part of the stream, ``(B, n)`` each: tokens, targets, and where the answers were right."""


class Reading(NamedTuple):
    """What a stream was read with.

    Attributes:
        score: of its answers.
        right: where the answer was right, ``(B, T)`` bool; false where nothing is scored.
        gate: mean write gate, or ``None`` when nothing was written through one.
        state: after the last token, detached.
    """

    score: Score
    right: Tensor
    gate: float | None
    state: State


class Learn(Protocol):
    """Adds the gradient of a window's share of ``loss`` to that of the parameters, and counts what was scored."""

    def __call__(self, loss: StreamLoss, window: Window, state: State) -> State:
        """The state after the window, detached; the gradient goes as far as the one before it."""


def backpropagate(
    model: LanguageModel,
    tokens: Tensor,
    targets: Tensor,
    state: State | None = None,
    *,
    backprop: str = "whole",
    backprop_segments: int | None = None,
    gate_penalty: float | None = None,
    gate_margin: float = 0.0,
    precision: str = "float32",
    learn: Learn | None = None,
) -> Reading:
    """Read a stream, and add the gradient of its loss to the ``grad`` of every parameter.

    Args:
        tokens, targets: ``(B, T)`` int64 of any length; a target of ``IGNORED`` is not scored.
        state: before the first token; ``None`` starts afresh.
        backprop: ``"whole"``, ``"replay"`` or ``"truncated"``.
        backprop_segments: segments between two cuts of ``"truncated"``, ``k``; otherwise ``None``.
        gate_penalty: weight of the mean write gate in the loss; ``None`` leaves the gates out of it.
        gate_margin: added to the scores of the gates in that mean, so that a shut gate costs nothing only where its
            score lies so far below the point of opening.
        precision: ``"bfloat16"`` multiplies matrices in it (torch's autocast). Weights, gradients, residual stream,
            writes to the bank, state and loss keep the dtype of the weights.
        learn: reads a window and back-propagates through it, in place of the plain way, which ``"replay"`` needs.

    Raises:
        FloatingPointError: the state contains NaN between two windows.
        TypeError, ValueError: tokens or state do not fit the model, or ``learn`` the way.
    """
    if learn is not None and backprop == "replay":
        raise ValueError("learn must be None with backprop 'replay', which goes through each window in two parts")
    if state is None:
        state = model.init_state(tokens.shape[0])
    loss = StreamLoss(model, targets, state, gate_penalty, gate_margin, precision)
    length = model.config.segment_len
    stream = tokens, targets, torch.zeros_like(targets, dtype=torch.bool)
    if backprop == "replay":
        state = _replay(loss, windows(stream, state.position % length, length), state)
    else:
        span = tokens.shape[1] + length if backprop == "whole" else backprop_segments * length
        parts = windows(stream, state.position % length, span)
        if learn is None:
            state = truncated(loss.share, parts, state, 1)
        else:
            for part in parts:
                state = learn(loss, part, state)
    return Reading(loss.score, stream[-1], loss.gate, state)


def truncated(
    read: Callable[[Any, State], tuple[Tensor, State]], pieces: Sequence[Any], state: State, k: int
) -> State:
    """Back-propagate through ``k`` pieces at a time; returns the state after the last, detached.

    Args:
        read: ``(piece, state)`` -> the piece's share of the loss, and the state after it. Shares add up.
        pieces: of a stream, in order; no more than ``k`` graphs of them are kept at one time.
        state: before the first piece; a gradient goes as far as it.
    """
    for start in range(0, len(pieces), k):
        shares = []
        for piece in pieces[start : start + k]:
            share, state = read(piece, state)
            shares.append(share)
        sum(shares).backward()
        state = state.detach()
    return state


def windows(stream: Window, position: int, span: int) -> list[Window]:
    """A stream cut every ``span`` tokens, counted from the begin of a segment that ``position`` tokens came from."""
    cuts = list(range(span - position, stream[0].shape[1], span))
    return list(zip(*(part.tensor_split(cuts, dim=1) for part in stream), strict=True))


class StreamLoss:
    """The loss of a stream as a sum of shares, one for each window, and what was scored in those read so far.

    Args:
        targets: of the whole stream, and ``state`` the one before it: they say how many answers and writes share.
        model, gate_penalty, gate_margin, precision: as in ``backpropagate``.
    """

    def __init__(
        self, model: LanguageModel, targets: Tensor, state: State, gate_penalty: float | None, gate_margin: float,
        precision: str,
    ) -> None:
        self.model, self.precision = model, precision
        self.gate_penalty, self.gate_margin = gate_penalty, gate_margin
        self.answers = int((targets != IGNORED).sum())
        self.writes = self.writes_in(targets, state)
        self.score = Score()
        self.gate: float | None = None

    def writes_in(self, tokens: Tensor, state: State) -> int:
        """How many writes there are while ``tokens`` ``(B, n)`` are read from ``state``."""
        return len(state.memory) * ((state.position + tokens.shape[1]) // self.model.config.segment_len)

    def check(self, tokens: Tensor, state: State) -> None:
        """Raise unless tokens and state fit the model."""
        try:
            self.model.begin(tokens, state)
        except ValueError:
            # A model refuses such a state, and to look for it before each window would cost a second time.
            if any(map(has_nan, state.tensors())):
                raise FloatingPointError("the state contains NaN") from None
            raise

    def read(self, tokens: Tensor, state: State) -> Output:
        """The model's output in the chosen precision, after a check of its arguments."""
        self.check(tokens, state)
        return read_in(self.precision, self.model, tokens, state)

    def share(self, window: Window, state: State) -> tuple[Tensor, State]:
        """The part of the loss that arises in ``window``, read from ``state``, and the state after it."""
        tokens, targets, right = window
        with collect_gates(self.model) as gates, collect_gates(self.model, self.gate_margin) as raised_gates:
            logits, state = self.read(tokens, state)
        scored = targets != IGNORED
        right[scored] = self.score.add(logits.detach()[scored], targets[scored])
        share = cross_entropy(logits[scored], targets[scored], reduction="sum") / self.answers
        if gates:
            self.count_gates(torch.stack(gates).detach().mean(), len(gates))
            share = self.penalised(share, raised_gates)
        return share, state

    def penalised(self, share: Tensor, raised_gates: list[Tensor]) -> Tensor:
        """A window's share of the loss with what its gates add to it."""
        if self.gate_penalty is None:
            return share
        return share + self.gate_penalty * (len(raised_gates) / self.writes * torch.stack(raised_gates).mean())

    def count_gates(self, mean: Tensor, gates: int) -> None:
        """Count the ``mean`` over so many gates as a part of that over the stream's."""
        self.gate = (self.gate or 0.0) + gates / self.writes * mean.item()


def read_in(precision: str, model: LanguageModel, tokens: Tensor, state: State) -> Output:
    """What ``model`` reads with matrices multiplied in ``precision``; logits and state in the dtype of the weights."""
    weight = model.embed.weight
    with torch.autocast(weight.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        logits, state = model.read(tokens, state)
    return Output(logits.to(weight.dtype), state.to(weight.dtype))


def _backward(loss: StreamLoss, window: Window, state: State, following: State | None = None) -> State:
    """Back-propagate the share of ``window`` as far as ``state``; returns the state after the window, detached.

    Args:
        following: the leaves that the next window began from, with the gradient that arrived there.
    """
    share, after = loss.share(window, state)
    sent = [] if following is None else [
        (tensor, leaf.grad) for tensor, leaf in zip(after.tensors(), following.tensors(), strict=True)
        if leaf.grad is not None and tensor.requires_grad
    ]
    torch.autograd.backward([share, *(tensor for tensor, _ in sent)], [None, *(gradient for _, gradient in sent)])
    return after.detach()


def _replay(loss: StreamLoss, parts: list[Window], state: State) -> State:
    """Read all ``parts``, then each again from the last to the first; returns the state after the last, detached.

    The first starts from ``state`` itself, so that learned vectors in it get their gradient; the others from leaves,
    which hold back the gradient until the part before is read again.
    """
    device = loss.model.embed.weight.device
    starts = []
    with torch.no_grad():
        for tokens, *_ in parts[:-1]:
            starts.append((state, random_state(device)))
            state = loss.read(tokens, state).state.leaves()
    end, draws_after = _backward(loss, parts[-1], state), random_state(device)
    for window in reversed(parts[:-1]):
        following = state
        state, draws = starts.pop()
        set_random_state(device, draws)
        _backward(loss, window, state, following)
    set_random_state(device, draws_after)
    return end


def random_state(device: torch.device) -> Tensor:
    """The state of the generator that dropout on ``device`` draws from."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def set_random_state(device: torch.device, state: Tensor) -> None:
    """Go back to what ``random_state`` returned: the same draws come again."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        (torch.mps if device.type == "mps" else torch).set_rng_state(state)
