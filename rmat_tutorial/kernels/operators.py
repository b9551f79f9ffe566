"""The bytes that a computation moves when it is done operator by operator, each of which goes through memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OperatorTraffic(TorchDispatchMode):
    """Counts while it is entered: every operator reads the tensors that it is given and writes those that it makes.

    An operator that only looks at a tensor in another shape moves nothing.

    Attributes:
        bytes: read and written so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, operator: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        given, made = _tensors((args, kwargs)), _tensors(result)
        if not {_memory_of(x) for x in given} & {_memory_of(x) for x in made}:
            self.bytes += sum(map(_distinct_bytes, [*given, *made]))
        return result


def _memory_of(x: Tensor) -> int:
    """What tells the memory of one tensor from that of another, also on the device "meta", which has none."""
    return x.untyped_storage()._cdata


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def _distinct_bytes(x: Tensor) -> int:
    """Bytes of the elements of ``x``; those that an axis only repeats are counted once."""
    sizes = [size for size, stride in zip(x.shape, x.stride(), strict=True) if stride]
    return x.element_size() * torch.Size(sizes).numel()


def moved(function: Callable[..., Tensor | tuple[Tensor, ...]], *inputs: Tensor) -> tuple[int, int]:
    """Bytes that the operators of ``function(*inputs)`` move forward, and those of its gradients backward.

    Args:
        inputs: on the device "meta" nothing is computed.
    """
    leaves = [x.detach().requires_grad_() for x in inputs]
    with OperatorTraffic() as forward:
        outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    directions = [torch.empty_like(x) for x in outputs]
    with OperatorTraffic() as backward:
        torch.autograd.grad(outputs, leaves, directions)
    return forward.bytes, backward.bytes
