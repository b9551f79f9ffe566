"""Baselines of the size of a given RMAT, so that a comparison is between architectures."""

from __future__ import annotations

import torch

from ..config import ModelConfig, RMATConfig
from ..language_model import build
from ..measuring import number_of_parameters
from ..validate import require_choice
from .config import KINDS, BaselineConfig

TOLERANCE = 0.02  # of the number of parameters


def count_parameters(config: ModelConfig) -> int:
    """The number of parameters of a model of ``config``; none is made."""
    with torch.device("meta"):
        return number_of_parameters(build(config))


def matching(config: RMATConfig, kind: str) -> BaselineConfig:
    """The baseline of ``kind`` to set beside the RMAT of ``config``: its sizes and, within 2 %, its parameters.

    ``ffn_width`` makes up for what the RMAT has in its memory. A window is as long as a segment, and there are as many
    memory tokens as the RMAT has slots.

    Raises:
        TypeError, ValueError: ``config`` is not an ``RMATConfig``, there is no such kind, or no ``ffn_width`` brings
            the number of parameters within 2 %.
    """
    if not isinstance(config, RMATConfig):
        raise TypeError(f"config must be an RMATConfig, got {type(config).__name__}")
    require_choice("kind", kind, KINDS)
    wanted = count_parameters(config)

    def of_width(ffn_width: int) -> BaselineConfig:
        return BaselineConfig(
            kind, config.vocab_size, config.d_model, config.n_heads, config.n_layers, config.segment_len, ffn_width,
            window=config.segment_len if kind == "window" else None,
            memory_tokens=config.memory_slots if kind == "rmt" else None,
            rope_base=config.rope_base, dropout=config.dropout,
        )

    narrowest = count_parameters(of_width(1))
    per_width = count_parameters(of_width(2)) - narrowest
    found = of_width(max(1, 1 + round((wanted - narrowest) / per_width)))
    has = count_parameters(found)
    if abs(has - wanted) > TOLERANCE * wanted:
        raise ValueError(
            f"no {kind!r} baseline matches this config: it has {wanted} parameters, the nearest baseline "
            f"(ffn_width = {found.ffn_width}) {has}, which is not within {TOLERANCE:.0%}"
        )
    return found
