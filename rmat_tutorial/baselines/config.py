"""The configuration of a baseline: which kind it is, and its sizes."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import ModelConfig
from ..validate import require_choice, require_int

KINDS = ("full", "segment", "window", "transformer-xl", "rmt")
FIELDS_OF_ONE_KIND = {"window": "window", "memory_tokens": "rmt"}


@dataclass(frozen=True)
class BaselineConfig(ModelConfig):
    """Sizes of a plain transformer, and what it sees of the tokens before a segment.

    Attributes:
        kind: ``"full"`` (every token before), ``"segment"`` (its own segment only), ``"window"`` (the last tokens),
            ``"transformer-xl"`` (its segment and the one before) or ``"rmt"`` (its segment and memory tokens).
        vocab_size: number of tokens ``V``.
        d_model: width ``d`` of the residual stream.
        n_heads: number of heads ``H``; the head width is ``d_h = d / H`` and must be even for RoPE.
        n_layers: number of blocks ``N``.
        segment_len: tokens per segment, ``L``. With ``"full"`` and ``"window"`` no logit depends on it.
        ffn_width: width of the hidden layer of the FFN.
        window: of ``"window"``, and ``None`` in every other kind: tokens that a token sees, ``W``, itself among them.
        memory_tokens: of ``"rmt"``, and ``None`` in every other kind: vectors handed from segment to segment, ``m``.
        rope_base: base of the rotary frequencies.
        dropout: probability with which an output of attention or of the FFN is dropped in training.

    Raises:
        TypeError, ValueError: a field is out of range; the message names it.
    """

    kind: str
    vocab_size: int = 256
    d_model: int = 64
    n_heads: int = 4
    n_layers: int = 2
    segment_len: int = 32
    ffn_width: int = 256
    window: int | None = None
    memory_tokens: int | None = None
    rope_base: float = 10000.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, KINDS)
        self.require_common_fields()
        require_int("ffn_width", self.ffn_width, 1)
        for name, kind in FIELDS_OF_ONE_KIND.items():
            value = getattr(self, name)
            if self.kind == kind:
                require_int(name, value, 1)
            elif value is not None:
                raise ValueError(f"{name} must be None with kind {self.kind!r}, it belongs to {kind!r}; got {value!r}")
