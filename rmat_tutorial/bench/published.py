"""The published package recurrent-memory-transformer-pytorch, at the size of an RMAT. Nothing else imports it."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..baselines import count_parameters
from ..config import RMATConfig
from ..measuring import number_of_parameters

PACKAGE = "recurrent-memory-transformer-pytorch"
VERSION = "0.7.0"
MISSING = f"not installed: pip install {PACKAGE}=={VERSION}"


def published(config: RMATConfig) -> nn.Module:
    """The package's model within its wrapper, which reads segments one after the other, with random weights.

    As many layers, heads, features, positions in a segment and memory tokens as the RMAT has of each; the width of its
    FFN is chosen so that the parameters are as many, as near as it goes. Attention is torch's fused one. Everything
    else is as the package has it by default.

    Raises:
        ImportError: the package is not installed.
    """
    try:
        from recurrent_memory_transformer_pytorch import RecurrentMemoryTransformer, RecurrentMemoryTransformerWrapper
    except ImportError as error:
        raise ImportError(MISSING) from error

    def of_width(width: int) -> Any:
        # The package makes its FFN int(dim · mult · 2 / 3) wide.
        return RecurrentMemoryTransformer(
            config.d_model, num_tokens=config.vocab_size, depth=config.n_layers,
            num_memory_tokens=config.memory_slots, seq_len=config.segment_len, dim_head=config.head_dim,
            heads=config.n_heads, use_flash_attn=True, ff_mult=(width + 0.5) * 3 / (2 * config.d_model),
        )

    narrowest, next_width = (number_of_parameters(of_width(width)) for width in (1, 2))
    per_width = next_width - narrowest
    width = max(1, 1 + round((count_parameters(config) - narrowest) / per_width))
    return RecurrentMemoryTransformerWrapper(of_width(width))
