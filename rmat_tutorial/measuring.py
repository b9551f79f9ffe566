"""What a computation costs, which of its inputs move which of its outputs, and how long a bank keeps a vector."""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .config import RMATConfig
from .memory import GatedFIFOMemory
from .validate import require_int

LEAST_SECONDS = 0.2  # a clock that ticks in milliseconds is then right to a percent


def number_of_parameters(model: nn.Module) -> int:
    """How many numbers are trained in ``model``."""
    return sum(parameter.numel() for parameter in model.parameters())


def processor_seconds(function: Callable[..., object], *inputs: Tensor) -> float:
    """Processor time of one call: the mean over as many as take ``LEAST_SECONDS``, after one to warm up.

    Processor time counts what this program used, whatever else the machine is doing.
    """
    function(*inputs)
    calls, start = 0, time.process_time()
    while time.process_time() - start < LEAST_SECONDS:
        function(*inputs)
        calls += 1
    return (time.process_time() - start) / calls


def bytes_kept(function: Callable[..., object], *inputs: Tensor) -> int:
    """Bytes of the tensors that autograd keeps from a call for the backward pass, each counted once.

    Nothing is kept unless an input or a weight requires a gradient.
    """
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        # The tensor itself is held: the address of one that was freed could come again.
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        function(*inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def peak_bytes_kept(function: Callable[..., object], *inputs: Tensor) -> int:
    """The most bytes that autograd keeps at one time during a call, which may take backward passes; as ``bytes_kept``.

    What a backward pass has used, and a graph that nothing refers to any more, is no longer kept.
    """
    holders: Counter[int] = Counter()  # of the storage at an address
    kept = peak = 0

    def change(address: int, nbytes: int, by: int) -> None:
        nonlocal kept, peak
        before, holders[address] = holders[address], holders[address] + by
        kept += nbytes * (bool(holders[address]) - bool(before))
        peak = max(peak, kept)

    def note(tensor: Tensor) -> _Kept:
        storage, holder = tensor.untyped_storage(), _Kept(tensor.detach())  # the tensor itself would hold its graph
        place = storage.data_ptr(), storage.nbytes()
        change(*place, 1)
        weakref.finalize(holder, change, *place, -1)
        return holder

    with torch.autograd.graph.saved_tensors_hooks(note, lambda holder: holder.tensor):
        function(*inputs)
    return peak


class _Kept:
    """What a graph holds in place of a tensor, so that it is seen when the graph lets go."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def fitted_exponent(lengths: Sequence[float], costs: Sequence[float]) -> float:
    """The power ``p`` of the best fit ``cost ∝ length^p``: the slope of a line through the logarithms.

    Raises:
        ValueError: fewer than two lengths, another number of costs, or a number that is not above 0.
    """
    if len(lengths) < 2 or len(lengths) != len(costs):
        raise ValueError(f"lengths and costs must be two or more each, got {len(lengths)} and {len(costs)}")
    if min(lengths) <= 0 or min(costs) <= 0:
        raise ValueError(f"lengths and costs must be above 0, got {list(lengths)} and {list(costs)}")
    return float(np.polyfit(np.log(lengths), np.log(costs), 1)[0])


def influence(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """How far each input moves each output: the length of ``∂ output_i / ∂ input_j``, every partial derivative in it.

    Args:
        function: from ``(T, d)`` to ``(S, e)``, one row for each output.
        x: ``(T, d)``, where the derivatives are taken.

    Returns:
        ``(S, T)``; exactly 0 where input ``j`` has no way to output ``i``.

    Raises:
        ValueError: ``x`` or the result is not a matrix.
    """
    if x.dim() != 2:
        raise ValueError(f"x must have shape (T, d), got {tuple(x.shape)}")
    x = x.detach().clone().requires_grad_()
    outputs = function(x)
    if outputs.dim() != 2:
        raise ValueError(f"function must return shape (S, e), got {tuple(outputs.shape)}")
    if not outputs.requires_grad:
        return torch.zeros(len(outputs), len(x), dtype=x.dtype)
    # One number at a time: the sum of an output's numbers could stay the same while each of them moves.
    gradients = [
        torch.autograd.grad(number, x, retain_graph=True, materialize_grads=True)[0] for number in outputs.flatten()
    ]
    return torch.stack(gradients).unflatten(0, outputs.shape).square().sum(dim=(1, 3)).sqrt()


def leaks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Where output ``i`` moves with a later input ``j > i``: ``(T, T)`` of bool. Arguments as in ``influence``."""
    return influence(function, x).triu(1) > 0


def cache_bytes(config: RMATConfig, tokens: int) -> int:
    """Bytes of the keys and values of ``tokens`` tokens in every layer, in float32.

    It is what full attention over all tokens would have to keep, in a model of this size.
    """
    require_int("tokens", tokens, 0)
    return 2 * config.n_layers * config.d_model * tokens * 4


def effective_rank(vectors: Tensor) -> float:
    """How many directions ``vectors`` ``(n, d)`` fill: exp of the entropy of their singular values' shares."""
    values = torch.linalg.svdvals(vectors)
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp().item()


def best_copy(difference: Tensor, fact: Tensor, write_slots: int) -> float:
    """What is left of a fact that was added to the newest ``write_slots`` slots of a bank.

    Args:
        difference: the bank with the fact less the same bank without it, ``(B, m, d)``; ``write_slots`` divides ``m``.
        fact: what was added to each of the slots, ``(B, 1, d)``.

    Returns:
        The share of the fact in the group of ``write_slots`` neighbours that holds most of it, on average: 1 where it
        is whole, 0 where nothing points its way.
    """
    shares = (difference * fact).sum(dim=-1) / fact.square().sum(dim=-1)
    return shares.unflatten(1, (-1, write_slots)).mean(dim=(0, 2)).max().item()


@torch.no_grad()
def fading(memory: GatedFIFOMemory, segments: Sequence[Tensor], facts: int, size: float = 1.0) -> list[float]:
    """What is left of a fact after 0, 1, … writes, by ``best_copy``.

    Two banks that differ in the fact alone are written from the same segments.

    Args:
        memory: starts from its learned slots.
        segments: what it is written from, each ``(1, L, d)`` or ``(facts, L, d)``.
        facts: how many are tried: random vectors, the same at each call, each added to the newest slots of a bank.
        size: their length; that of a slot is about 1 before training.
    """
    w, d = memory.write_slots, memory.d_model
    fact = size * torch.randn(facts, 1, d, generator=torch.Generator().manual_seed(0)) / d**0.5
    bank = memory.initial(2 * facts).clone()
    bank[facts:, -w:] += fact
    left = [1.0]
    for segment in segments:
        bank = memory.step(bank, segment.expand(facts, -1, -1).repeat(2, 1, 1)).memory
        left.append(best_copy(bank[facts:] - bank[:facts], fact, w))
    return left
