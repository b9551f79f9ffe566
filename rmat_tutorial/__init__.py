"""Recurrent Memory-Augmented Transformers (arXiv 2507.00453), built to be read."""

try:
    from . import baselines
    from .attention import chunked_attention, full_attention, memory_attention
    from .block import HybridBlock
    from .checkpoints import CheckpointError
    from .config import RMATConfig
    from .kernels import hybrid_attention
    from .language_model import LanguageModel
    from .memory import GatedFIFOMemory
    from .model import RMAT, RMATOutput
    from .rope import apply_rope, rope_frequencies
    from .state import RMATState
    from .tracing import record
except (ImportError, OSError) as error:  # OSError: a torch whose shared libraries do not load
    # Not raised here, so that the doctor runs and names the fix where torch is missing or broken.
    _cause = error

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        raise ImportError(f"{_cause}; what to do: python -m rmat_tutorial doctor") from _cause


__version__ = "0.1.0"

__all__ = [
    "RMAT",
    "CheckpointError",
    "GatedFIFOMemory",
    "HybridBlock",
    "LanguageModel",
    "RMATConfig",
    "RMATOutput",
    "RMATState",
    "apply_rope",
    "baselines",
    "chunked_attention",
    "full_attention",
    "hybrid_attention",
    "memory_attention",
    "record",
    "rope_frequencies",
]
