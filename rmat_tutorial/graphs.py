"""CUDA graphs: all that a reading or a window of training does on a GPU, in one launch.

A GPU that is given small segments is done with an operation before the next is launched. A graph is captured once, and
replayed by one launch. Each shape has its own: rows, tokens, and the position in the segment where they begin. In
training it holds forward and backward of a window, so that nothing comes between the two.

What torch's notes on CUDA graphs ask of a capture, and how it is met:

- Nothing in it waits for the GPU. Tokens and state are checked before; answers are counted after.
- It reads and writes at fixed addresses. Inputs are copied into buffers, results are copied out. When a parameter has
  moved every graph is captured anew. What the model makes once and keeps (``segment_tables``) it keeps for good.
- It ran before, on a stream of its own: kernels are compiled and tile sizes tried by then. Dropout draws as if that had
  not been, and anew at each replay.
- Autocast begins and ends inside, so that no converted weight is used again.
- Graphs that share memory are not replayed at one time, and the results of one are out before the next begins.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .backprop import PRECISIONS, StreamLoss, Window, random_state, read_in, set_random_state
from .language_model import LanguageModel, Output
from .model import RMAT
from .state import RMATState, SegmentCache
from .tasks import IGNORED
from .tracing import collect_gates
from .validate import require_choice

WARM_UPS = 3  # as torch's make_graphed_callables

Results = tuple[list[Tensor | None], ...]


class Pool:
    """Memory that graphs share which are never replayed at one time, in ``handle``."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take other memory for the graphs to come."""
        self.handle = torch.cuda.graph_pool_handle()


class Graph:
    """A function of tensors, captured with copies of ``inputs`` in the place of its arguments.

    Args:
        function: its results depend on its arguments and on the parameters alone.
        inputs: tensors like those of every later call, in shape and dtype.
        pool: shared with graphs that are not replayed meanwhile.
    """

    def __init__(self, function: Callable[..., Results], inputs: Sequence[Tensor], pool: Pool) -> None:
        self.inputs = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in inputs]
        self._fill(inputs)
        self.replay, self.results = capture(lambda: function(*self.inputs), inputs[0].device, pool)

    def __call__(self, inputs: Sequence[Tensor]) -> Results:
        """What the function returns for ``inputs``, in tensors that no later call changes."""
        self._fill(inputs)
        self.replay()
        return tuple([None if x is None else x.clone() for x in results] for results in self.results)

    def _fill(self, inputs: Sequence[Tensor]) -> None:
        for buffer, given in zip(self.inputs, inputs, strict=True):
            buffer.copy_(given)


def capture(function: Callable[[], Results], device: torch.device, pool: Pool) -> tuple[Callable[[], None], Results]:
    """A CUDA graph of what ``function`` does: the call that replays it, and the results that each replay fills.

    After one that failed the allocator may take its pool to be in use for good, so the next has another.
    """
    draws = random_state(device)
    with torch.cuda.device(device):
        aside, current = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                function()
        current.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            # The outer context leaves the stream of a capture that torch does not, where its end fails.
            with torch.cuda.stream(current), torch.cuda.graph(graph, pool=pool.handle):
                results = function()
        except Exception:
            pool.renew()
            raise
    set_random_state(device, draws)
    return graph.replay, results


class Graphs:
    """The graphs of one model, each captured when it is first needed.

    They stay as long as this does, with room for their inputs and results; the rest of their memory they share. A
    shape that is new is computed four times, so what comes in many shapes is better computed without graphs.

    Args:
        model: an ``RMAT`` on a CUDA device, in either ``order``.

    Raises:
        TypeError, ValueError: the model is of another kind, on another device, or of a backend that is not captured.
    """

    def __init__(self, model: LanguageModel) -> None:
        require_capturable(model)
        self.model = model
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._pool: Pool | None = None  # made before the first graph
        self._graphs: dict[Hashable, Graph] = {}
        self._addresses: list[int] = []

    def read(self, tokens: Tensor, state: RMATState, precision: str = "float32") -> Output:
        """As the model's ``read``, in a precision as of ``backpropagate``; no gradient flows through it."""

        def function(tokens: Tensor, *tensors: Tensor) -> Results:
            logits, after = read_in(precision, self.model, tokens, self._state(tensors, state.position, tokens))
            return [logits], carried(after)

        (logits,), after = self._run(("read", precision, state.position), function, [tokens, *carried(state)])
        return Output(logits, self._state(after, self._end(state, tokens), tokens))

    def learn(self, loss: StreamLoss, window: Window, state: RMATState) -> RMATState:
        """Read a window and back-propagate through it, see ``backprop.Learn``."""
        tokens, targets, right = window
        loss.check(tokens, state)

        def function(tokens: Tensor, targets: Tensor, answers: Tensor, *tensors: Tensor) -> Results:
            return self._gradients(loss, tokens, targets, answers, tensors, state.position)

        key = "learn", loss.precision, loss.gate_penalty, loss.gate_margin, loss.writes, state.position
        given = carried(state)
        answers = torch.tensor(loss.answers, device=tokens.device)
        scored, after, gradients = self._run(key, function, [tokens, targets, answers, *given])
        total, answered, mean_gate = scored
        right.copy_(answered)
        loss.score.count(total, answered[targets != IGNORED])
        if mean_gate is not None:
            loss.count_gates(mean_gate, loss.writes_in(tokens, state))
        pairs = zip([*self.parameters, *given], gradients, strict=True)
        # The gradient of learned slots goes on to them here: what was captured ends at the banks it was given.
        taught = [(x, gradient) for x, gradient in pairs if gradient is not None and x.requires_grad]
        torch.autograd.backward([x for x, _ in taught], [gradient for _, gradient in taught])
        return self._state(after, self._end(state, tokens), tokens)

    @torch.enable_grad()
    def _gradients(
        self, loss: StreamLoss, tokens: Tensor, targets: Tensor, answers: Tensor, tensors: Sequence[Tensor],
        position: int,
    ) -> Results:
        """A window's loss, right answers and mean gate; what it carries on; the gradient of weights and ``tensors``."""
        leaves = [x.detach().requires_grad_() for x in tensors]
        with collect_gates(self.model) as gates, collect_gates(self.model, loss.gate_margin) as raised_gates:
            logits, after = read_in(loss.precision, self.model, tokens, self._state(leaves, position, tokens))
        total = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        share, mean_gate = total / answers, None
        if gates:
            share, mean_gate = loss.penalised(share, raised_gates), torch.stack(gates).detach().mean()
        gradients = torch.autograd.grad(share, [*self.parameters, *leaves], allow_unused=True)
        scored = [total.detach(), logits.argmax(-1) == targets, mean_gate]
        return scored, [x.detach() for x in carried(after)], list(gradients)

    def _run(self, key: tuple[Hashable, ...], function: Callable[..., Results], inputs: Sequence[Tensor]) -> Results:
        """What ``function`` returns for ``inputs``, by a graph for ``key`` and their shapes."""
        self._require_quiet()
        addresses = [parameter.data_ptr() for parameter in self.model.parameters()]
        if addresses != self._addresses:
            self._graphs.clear()
            self._pool = Pool()  # one whose graphs are all gone cannot be captured into again
            self._addresses = addresses
        shapes = tuple((x.shape, x.dtype) for x in inputs)
        key = (*key, self.model.order, self.model.training, shapes)
        # A buffer that was made in inference mode could not be filled outside of it.
        with torch.inference_mode(False), torch.no_grad():
            if key not in self._graphs:
                self._graphs[key] = Graph(function, inputs, self._pool)
            return self._graphs[key](inputs)

    def _require_quiet(self) -> None:
        """Raise where a replay would not do what a call does."""
        if any(block.taps for block in self.model.blocks):
            raise ValueError("the model is recorded, and a replayed graph shows nothing of itself: read without graphs")
        if torch.is_autocast_enabled(self.model.embed.weight.device.type):
            raise ValueError("graphs are captured outside of autocast: leave it, and give precision='bfloat16'")

    def _state(self, tensors: Sequence[Tensor], position: int, tokens: Tensor) -> RMATState:
        """The state at ``position`` that carries ``tensors``, for as many rows as ``tokens``."""
        fresh = self.model.init_state(tokens.shape[0])
        banks = len(fresh.memory)
        cache = tuple(SegmentCache(*tensors[i : i + 3]) for i in range(banks, len(tensors), 3)) or fresh.cache
        return replace(fresh, memory=tuple(tensors[:banks]), cache=cache, position=position)

    def _end(self, state: RMATState, tokens: Tensor) -> int:
        return (state.position + tokens.shape[1]) % self.model.config.segment_len


def carried(state: RMATState) -> list[Tensor]:
    """The tensors of a state that will be read: between two segments the banks alone."""
    return state.tensors() if state.position else list(state.memory)


def require_capturable(model: LanguageModel) -> None:
    """Raise unless graphs can be captured of ``model``."""
    if not isinstance(model, RMAT):
        raise TypeError(f"model must be an RMAT, got a {type(model).__name__}: graphs are for it alone")
    if model.config.backend == "flex":
        raise ValueError("backend must be another than 'flex', whose masks are made anew now and then; use 'triton'")
    require_cuda(model.embed.weight.device)


def require_cuda(device: torch.device) -> None:
    """Raise unless ``device`` is a CUDA device."""
    if device.type != "cuda":
        raise ValueError(f"CUDA graphs need a model on a CUDA device, got one on {device}; read without graphs there")


class GraphedModel(nn.Module):
    """``model`` for reading, as ``evaluate`` does it: each piece is one launch. No gradient flows through it.

    Args:
        model: as of ``Graphs``, which says what is raised.
        precision: of products of matrices, ``"float32"`` or ``"bfloat16"``; logits and state keep the weights' dtype.
    """

    def __init__(self, model: LanguageModel, precision: str = "float32") -> None:
        super().__init__()
        require_choice("precision", precision, PRECISIONS)
        self.model, self.precision, self.graphs = model, precision, Graphs(model)
        self.config, self.embed = model.config, model.embed

    def forward(self, tokens: Tensor, state: RMATState | None = None) -> Output:
        """As the model's. Pieces of few different lengths are fastest, best of whole segments."""
        return self.graphs.read(tokens, self.model.begin(tokens, state), self.precision)
