"""Checks of arguments whose messages name the argument, the value it had, and what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def require_int(name: str, value: Any, minimum: int) -> None:
    """Raise unless ``value`` is an ``int`` (not a ``bool``) of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r} ({type(value).__name__})")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")


def require_index(name: str, value: Any, count: int) -> None:
    """Raise unless ``value`` is an ``int`` from 0 to ``count - 1``."""
    require_int(name, value, 0)
    if value >= count:
        raise ValueError(f"{name} must be below {count}, got {value}")


def require_seed(name: str, value: Any) -> None:
    """Raise unless ``value`` is an ``int`` that torch takes as a seed, ``0 <= value < 2**64``."""
    require_int(name, value, 0)
    if value >= 2**64:
        raise ValueError(f"{name} must be below 2**64, got {value}")


def require_number(name: str, value: Any, minimum: float, *, above: bool = False) -> None:
    """Raise unless ``value`` is a finite number ``>= minimum`` (``> minimum`` with ``above``)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    in_range = value > minimum if above else value >= minimum
    if not in_range or value == float("inf"):
        relation = "above" if above else "at least"
        raise ValueError(f"{name} must be finite and {relation} {minimum}, got {value}")


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def require_float_tensor(name: str, value: Any, axes: Sequence[str], sizes: dict[str, int] | None = None) -> None:
    """Raise unless ``value`` is a floating-point tensor without NaN whose axes are ``axes``.

    ``axes`` names each axis; a leading ``"..."`` stands for any number of axes. ``sizes`` holds the
    sizes that are already known, by axis name, and gains those of the axes seen here for the first time.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must have a floating-point dtype, got {value.dtype}")
    wanted = f"({', '.join(axes)})"
    open_ended = axes[0] == "..."
    named = axes[1:] if open_ended else axes
    if value.dim() < len(named) or (not open_ended and value.dim() != len(named)):
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(value.shape)}")
    known = {} if sizes is None else sizes
    for axis, size in zip(named, value.shape[value.dim() - len(named):], strict=True):
        if known.setdefault(axis, size) != size:
            raise ValueError(
                f"{name} must have shape {wanted} with {axis} = {known[axis]}, got {tuple(value.shape)}"
            )
    if torch.isnan(value).any():
        raise ValueError(f"{name} contains NaN; every element must be a number")


def require_like(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise unless both tensors have one dtype and one device."""
    if value.dtype != other.dtype:
        raise TypeError(f"{name} must have the dtype of {other_name}, {other.dtype}, got {value.dtype}")
    if value.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name}, {other.device}, got {value.device}")


def require_text(name: str, value: Any) -> None:
    """Raise unless ``value`` is a ``str`` with something in it to read."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {value!r} ({type(value).__name__})")
    if not value.strip():
        raise ValueError(f"{name} must say something, got {value!r}")
