"""The models that an RMAT is compared with: transformers of plain blocks that differ in what they see of the past."""

from .config import KINDS, BaselineConfig
from .matching import count_parameters, matching
from .model import Baseline
from .rmt import RecurrentMemoryTransformer
from .state import BaselineState
from .transformer_xl import TransformerXL
from .windows import FullAttention, SegmentOnly, SlidingWindow

__all__ = [
    "KINDS",
    "Baseline",
    "BaselineConfig",
    "BaselineState",
    "FullAttention",
    "RecurrentMemoryTransformer",
    "SegmentOnly",
    "SlidingWindow",
    "TransformerXL",
    "count_parameters",
    "matching",
]
