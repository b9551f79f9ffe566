"""The ways to get through a stream of segments, side by side for a benchmark: in which order, and launched how."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from .backprop import PRECISIONS, backpropagate, read_in
from .config import RMATConfig
from .graphs import GraphedModel, Graphs
from .language_model import Output
from .model import RMAT
from .state import RMATState
from .validate import require_choice, require_int

GATE_PENALTY = 1.0


def ways(
    config: RMATConfig, batch: int, segments: int, *, training: bool, precision: str = "float32",
    device: torch.device | str = "cpu",
) -> dict[str, Callable[[], object]]:
    """Calls that each take ``batch * segments * segment_len`` tokens through models of the same weights.

    A call begins where the one before it ended. In training it goes forward and backward through all its segments at
    once, as a step of a trainer does up to the optimiser; otherwise it gives logits alone. All check their arguments.
    The first call of each tunes kernels and captures graphs, and is not to be timed.

    Args:
        batch, segments: rows, and segments of each.
        precision: of products of matrices, ``"float32"`` or ``"bfloat16"``.

    Returns:
        ``"eager loop"``, ``"wavefront"``, and on a CUDA device ``"graph"`` and ``"wavefront and graph"``.

    Raises:
        TypeError, ValueError: an argument is out of range, or the backend cannot be captured.
    """
    require_int("batch", batch, 1)
    require_int("segments", segments, 1)
    require_choice("precision", precision, PRECISIONS)
    plain = RMAT(config).to(device).train(training)
    diagonal = copy.deepcopy(plain)
    diagonal.order = "wavefront"
    tokens = torch.randint(config.vocab_size, (batch, segments * config.segment_len), device=device)
    way = learner if training else reader
    found = {name: way(model, tokens, precision, False) for name, model in
             (("eager loop", plain), ("wavefront", diagonal))}
    if tokens.is_cuda:
        found |= {"graph": way(plain, tokens, precision, True),
                  "wavefront and graph": way(diagonal, tokens, precision, True)}
    return found


def reader(model: RMAT, tokens: Tensor, precision: str, graphs: bool) -> Callable[[], Tensor]:
    """A call that reads on in a stream of ``tokens`` again and again, and returns logits."""
    graphed = GraphedModel(model, precision) if graphs else None
    state: RMATState | None = None

    @torch.no_grad()
    def read() -> Tensor:
        nonlocal state
        if graphed is None:
            output: Output = read_in(precision, model, tokens, model.begin(tokens, state))
        else:
            output = graphed(tokens, state)
        state = output.state
        return output.logits

    return read


def learner(model: RMAT, tokens: Tensor, precision: str, graphs: bool) -> Callable[[], None]:
    """A call that reads on likewise and leaves the gradient in the parameters; the answer is always the next token."""
    learn = Graphs(model).learn if graphs else None
    targets = tokens.roll(-1, 1)
    state: RMATState | None = None

    def read_and_learn() -> None:
        nonlocal state
        model.zero_grad(set_to_none=True)
        state = backpropagate(
            model, tokens, targets, state, gate_penalty=GATE_PENALTY, precision=precision, learn=learn
        ).state

    return read_and_learn
