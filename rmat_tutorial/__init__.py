"""Recurrent Memory-Augmented Transformers (arXiv 2507.00453), built to be read."""

from .attention import chunked_attention, full_attention, memory_attention
from .block import HybridBlock
from .checkpoints import CheckpointError
from .config import RMATConfig
from .kernels import hybrid_attention
from .memory import GatedFIFOMemory
from .model import RMAT, RMATOutput
from .rope import apply_rope, rope_frequencies
from .state import RMATState
from .tracing import record

__version__ = "0.1.0"

__all__ = [
    "RMAT",
    "CheckpointError",
    "GatedFIFOMemory",
    "HybridBlock",
    "RMATConfig",
    "RMATOutput",
    "RMATState",
    "apply_rope",
    "chunked_attention",
    "full_attention",
    "hybrid_attention",
    "memory_attention",
    "record",
    "rope_frequencies",
]
