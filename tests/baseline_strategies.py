"""What the tests of the baselines share: small random ones, and one of each kind with a segment of five tokens."""

import torch
from hypothesis import strategies as st
from strategies import scramble

from rmat_tutorial.baselines import KINDS, Baseline, BaselineConfig
from rmat_tutorial.language_model import build

BOUNDED = tuple(kind for kind in KINDS if kind != "full")
WITHOUT_SEGMENTS = ("full", "window")
SMALL = {"vocab_size": 60, "d_model": 8, "n_heads": 2, "n_layers": 2, "segment_len": 5, "ffn_width": 12}


def fields_of(kind: str, window: int = 4, memory_tokens: int = 3) -> dict:
    """The fields that only this kind has."""
    return {"window": {"window": window}, "rmt": {"memory_tokens": memory_tokens}}.get(kind, {})


@st.composite
def baseline_configs(draw, kind: str, **fixed) -> BaselineConfig:
    """A small random configuration of a kind; `fixed` fields are taken as they are given."""
    n_heads = draw(st.sampled_from((1, 2, 3)))
    fields = {
        "vocab_size": 60,
        "n_heads": n_heads,
        "d_model": n_heads * draw(st.sampled_from((2, 4))),
        "n_layers": draw(st.integers(1, 3)),
        "segment_len": draw(st.integers(1, 6)),
        "ffn_width": draw(st.integers(1, 9)),
        **fields_of(kind, draw(st.integers(1, 9)), draw(st.integers(1, 3))),
    }
    return BaselineConfig(kind, **(fields | fixed))


def make_baseline(
    kind_or_config: str | BaselineConfig, *, seed: int = 0, dtype: torch.dtype = torch.float64, **fields
) -> Baseline:
    """A scrambled model in eval mode; from a kind, SMALL with `fields` changed."""
    config = kind_or_config
    if isinstance(config, str):
        config = BaselineConfig(config, **(SMALL | fields_of(config) | fields))
    torch.manual_seed(seed)
    return scramble(build(config).to(dtype).eval(), seed)
