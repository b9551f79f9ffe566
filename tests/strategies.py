"""What the property tests share: the hypothesis profile, random configurations, small models, random splits."""

from itertools import combinations, pairwise

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

from rmat_tutorial import RMAT, RMATConfig, RMATState

torch.set_num_threads(1)

settings.register_profile("course", derandomize=True, deadline=None, max_examples=100, database=None,
                          suppress_health_check=list(HealthCheck))
settings.load_profile("course")

PATHS = ("full", "chunk", "memory")
# For assert_near. In float32 the worst of 4000 random models and splits was 1.3e-5: a LayerNorm of a few nearly equal
# numbers magnifies what rounding did, and processors round differently. Exactness is checked in float64.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 3e-5}
SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(PATHS, size)]
SMALL = {"vocab_size": 60, "d_model": 8, "n_heads": 2, "n_layers": 2, "segment_len": 5, "chunk_size": 2,
         "memory_slots": 4, "write_slots": 2}


@st.composite
def configs(draw, **fixed) -> RMATConfig:
    """A small random configuration; `fixed` fields are taken as they are given."""
    n_heads = draw(st.sampled_from((1, 2, 3)))
    segment_len = draw(st.integers(1, 6))
    memory_slots = draw(st.integers(1, 5))
    fields = {
        "vocab_size": 60,
        "n_heads": n_heads,
        "d_model": n_heads * draw(st.sampled_from((4, 6))),
        "n_layers": draw(st.integers(1, 2)),
        "segment_len": segment_len,
        "chunk_size": draw(st.integers(1, segment_len)),
        "memory_slots": memory_slots,
        "write_slots": draw(st.integers(1, memory_slots)),
        "paths": draw(st.sampled_from(SUBSETS)),
        "gate": draw(st.sampled_from(("sigmoid", "hard"))),
        "carry": draw(st.sampled_from(("newest", "oldest"))),
        "pool": draw(st.sampled_from(("attention", "mean"))),
        "backend": draw(st.sampled_from(("eager", "sdpa", "auto"))),
    }
    return RMATConfig(**(fields | fixed))


def scramble(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Move every parameter away from its initial value: a zero or a one there could hide a mistake."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise, dtype=torch.float64).to(parameter) * 0.4)
    return module


def make_model(
    config: RMATConfig | None = None, *, seed: int = 0, dtype: torch.dtype = torch.float64, **fields
) -> RMAT:
    """A scrambled model in eval mode; without a configuration, SMALL with `fields` changed."""
    torch.manual_seed(seed)
    model = RMAT(config or RMATConfig(**(SMALL | fields))).to(dtype).eval()
    return scramble(model, seed)


def random_tokens(batch: int, length: int, vocab_size: int = 60, seed: int = 0) -> Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(seed))


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@st.composite
def splits(draw, length: int) -> list[int]:
    """A random way to cut `length` tokens into pieces of at least one."""
    cuts = draw(st.sets(st.integers(1, length - 1), max_size=length)) if length > 1 else set()
    edges = [0, *sorted(cuts), length]
    return [stop - start for start, stop in pairwise(edges)]


def read_in_pieces(model: RMAT, tokens: Tensor, sizes: list[int], state: RMATState | None = None):
    """Logits (B, T, V) and the last state of a reading in pieces."""
    logits = []
    for piece in tokens.split(sizes, 1):
        output = model(piece, state)
        logits.append(output.logits)
        state = output.state
    return torch.cat(logits, 1), state


def readings_that_differ_in_row_2(model):
    """Outputs for four rows before and after the tokens of row 2 were changed, and the other rows.

    Its logits move, and no bit of those of the others.
    """
    tokens = random_tokens(4, 17)
    changed = tokens.clone()
    changed[2] = (changed[2] + 1) % 60
    before, after = model(tokens), model(changed)
    others = [0, 1, 3]
    assert torch.equal(before.logits[others], after.logits[others])
    assert gap(before.logits[2], after.logits[2]) > 1e-3
    return before, after, others


def gap(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors of one shape."""
    assert a.shape == b.shape, f"{tuple(a.shape)} is not {tuple(b.shape)}"
    return (a - b).abs().max().item() if a.numel() else 0.0


def assert_near(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Equal within `tolerance` of the largest number, or absolutely when that is more.

    A float32 near 10, and there are such keys and logits, is itself only known to 1e-6.
    """
    largest = max(1.0, theirs.abs().max().item()) if theirs.numel() else 1.0
    assert gap(ours, theirs) <= tolerance * largest


def assert_one_line(message: str, *fragments: str) -> None:
    """An error for people: one line that contains every fragment."""
    assert "\n" not in message.strip(), f"more than one line: {message!r}"
    missing = [fragment for fragment in fragments if fragment not in message]
    assert not missing, f"{missing} not in {message!r}"
