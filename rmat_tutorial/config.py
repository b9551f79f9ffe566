"""The configuration of a model: every size and choice that the mathematics names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from .validate import require_choice, require_int, require_number

PATHS = ("full", "chunk", "memory")
GATES = ("sigmoid", "hard")
CARRIES = ("newest", "oldest")
POOLS = ("attention", "mean")
BACKENDS = ("eager", "sdpa", "flex", "triton", "auto")


class ModelConfig:
    """What the configurations of all kinds of language model share: frozen dataclasses that check themselves.

    Attributes:
        kind: which kind of model it describes; the others as in ``RMATConfig``.
    """

    kind: str
    vocab_size: int
    d_model: int
    n_heads: int
    n_layers: int
    segment_len: int
    rope_base: float
    dropout: float

    def require_common_fields(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` unless the fields that every kind has are in range."""
        for name in ("vocab_size", "d_model", "n_heads", "n_layers", "segment_len"):
            require_int(name, getattr(self, name), 1)
        require_head_width(self.d_model, self.n_heads)
        require_number("rope_base", self.rope_base, 1.0, above=True)
        require_number("dropout", self.dropout, 0.0)
        if self.dropout >= 1.0:
            raise ValueError(f"dropout must be below 1, got {self.dropout}")

    @property
    def head_dim(self) -> int:
        """Width of one head, ``d_h = d / H``."""
        return self.d_model // self.n_heads

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values for json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The configuration that ``to_dict`` wrote.

        Raises:
            ValueError: a field is unknown or missing.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - names):
            raise ValueError(f"config has unknown fields {', '.join(unknown)}; known are {', '.join(sorted(names))}")
        if missing := sorted(names - set(fields)):
            raise ValueError(f"config lacks the fields {', '.join(missing)}")
        return cls(**fields)


@dataclass(frozen=True)
class RMATConfig(ModelConfig):
    """Sizes and choices of a Recurrent Memory-Augmented Transformer (arXiv 2507.00453).

    Attributes:
        vocab_size: number of tokens ``V``.
        d_model: width ``d`` of the residual stream.
        n_heads: number of heads ``H``; the head width is ``d_h = d / H`` and must be even for RoPE.
        n_layers: number of hybrid blocks ``N``.
        segment_len: tokens per segment, ``L``.
        chunk_size: tokens per chunk, ``C``, the window inside the segment.
        memory_slots: vectors in each layer's memory bank, ``m``.
        write_slots: slots written after each segment, ``w``.
        paths: which of the three attention paths run, in the order ``full``, ``chunk``, ``memory``.
        gate: ``"sigmoid"`` as in the paper, or ``"hard"``, whose zeros are exact.
        carry: which slots the gate carries over, the ``"newest"`` (paper) or the ``"oldest"``.
        pool: how a segment becomes ``w`` vectors, ``"attention"`` or ``"mean"``.
        gate_bias: initial bias of the write gate; negative means keep by default.
        rope_base: base of the rotary frequencies.
        dropout: probability with which an output of attention or of the FFN is dropped in training.
        backend: implementation of ``hybrid_attention``.

    Raises:
        TypeError, ValueError: a field is out of range; the message names it.
    """

    kind: ClassVar[str] = "rmat"

    vocab_size: int = 256
    d_model: int = 64
    n_heads: int = 4
    n_layers: int = 2
    segment_len: int = 32
    chunk_size: int = 8
    memory_slots: int = 16
    write_slots: int = 4
    paths: tuple[str, ...] = PATHS
    gate: str = "sigmoid"
    carry: str = "newest"
    pool: str = "attention"
    gate_bias: float = -2.0
    rope_base: float = 10000.0
    dropout: float = 0.0
    backend: str = "auto"

    def __post_init__(self) -> None:
        self.require_common_fields()
        for name in ("chunk_size", "memory_slots", "write_slots"):
            require_int(name, getattr(self, name), 1)
        if self.chunk_size > self.segment_len:
            raise ValueError(
                f"chunk_size must be at most segment_len ({self.segment_len}), got {self.chunk_size}"
            )
        if self.write_slots > self.memory_slots:
            raise ValueError(
                f"write_slots must be at most memory_slots ({self.memory_slots}), got {self.write_slots}"
            )
        object.__setattr__(self, "paths", require_paths(self.paths))
        require_choice("gate", self.gate, GATES)
        require_choice("carry", self.carry, CARRIES)
        require_choice("pool", self.pool, POOLS)
        require_choice("backend", self.backend, BACKENDS)
        require_number("gate_bias", self.gate_bias, float("-inf"), above=True)

    @property
    def has_memory(self) -> bool:
        """Whether the memory path runs, so that the layers own a bank."""
        return "memory" in self.paths

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values for json."""
        return {**super().to_dict(), "paths": list(self.paths)}


def require_head_width(d_model: int, n_heads: int) -> None:
    """Raise unless ``d_model`` splits into ``n_heads`` heads of even width."""
    if d_model % n_heads:
        raise ValueError(f"d_model must be divisible by n_heads ({n_heads}), got {d_model}")
    if (d_model // n_heads) % 2:
        raise ValueError(
            f"d_model / n_heads must be even, because RoPE rotates pairs; got {d_model} / {n_heads} "
            f"= {d_model // n_heads}"
        )


def require_paths(paths: Any) -> tuple[str, ...]:
    """``paths`` as a tuple, after the check that it names some of the three paths in their order."""
    if isinstance(paths, str) or not isinstance(paths, (tuple, list)):
        raise TypeError(f"paths must be a tuple of path names, got {paths!r}")
    for path in paths:
        require_choice("paths", path, PATHS)
    if not paths or tuple(paths) != tuple(path for path in PATHS if path in paths):
        raise ValueError(f"paths must name one to three of {PATHS}, each once and in this order, got {tuple(paths)}")
    return tuple(paths)
