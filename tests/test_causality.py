"""No output depends on a later token, or on another row: the gradients are exactly zero, and not by accident.

Every token of a batch is a different one, so that the gradient of an output with respect to a row of the embedding
is its gradient with respect to one token of one sequence. What must be zero is zero in float64, exactly; what the
paths connect is checked to be different from zero, so that a model which ignores its input cannot pass. The tests at
the end plant leaks and see that they are found.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import PATHS, SMALL, SUBSETS, configs, make_model, randn, read_in_pieces, splits

from rmat_tutorial import RMATConfig, hybrid_attention
from rmat_tutorial.block import HybridBlock


def influence(model, batch: int, length: int, sizes: list[int] | None = None) -> torch.Tensor:
    """(B, T, B, T): the largest |∂ output (b, t) / ∂ embedding of token (c, s)|."""
    order = torch.Generator().manual_seed(1)
    tokens = torch.randperm(model.config.vocab_size, generator=order)[: batch * length].view(batch, length)
    logits, _ = read_in_pieces(model, tokens, sizes or [length])
    probe = randn(*logits.shape, seed=2)
    rows = []
    for output in (logits * probe).sum(-1).flatten():
        gradient, = torch.autograd.grad(output, model.embed.weight, retain_graph=True)
        rows.append(gradient.abs().amax(-1)[tokens])
    return torch.stack(rows).view(batch, length, batch, length)


def connected(config: RMATConfig, length: int) -> torch.Tensor:
    """(T, T): whether the paths lead from token s to output t."""
    t, s = torch.meshgrid(torch.arange(length), torch.arange(length), indexing="ij")
    same_segment = t // config.segment_len == s // config.segment_len
    same_chunk = (t % config.segment_len) // config.chunk_size == (s % config.segment_len) // config.chunk_size
    local = t == s
    if "full" in config.paths:
        local = local | same_segment
    if "chunk" in config.paths:
        local = local | (same_segment & same_chunk)
    earlier_segment = s // config.segment_len < t // config.segment_len
    return (s <= t) & (local | (earlier_segment & ("memory" in config.paths)))


def leaks(found: torch.Tensor) -> list[tuple[int, ...]]:
    """Where an output depends on a later token or on another row: (b, t, c, s)."""
    b, t, c, s = torch.meshgrid(*map(torch.arange, found.shape), indexing="ij")
    forbidden = (b != c) | (s > t)
    return [tuple(place) for place in (forbidden & (found != 0)).nonzero().tolist()]


def with_room(config: RMATConfig) -> RMATConfig:
    return replace(config, vocab_size=64)


@settings(max_examples=40)
@given(configs(), st.integers(1, 2), st.integers(0, 1000), st.data())
def test_every_output_depends_on_the_past_only(config, batch, seed, data):
    length = 2 * config.segment_len + data.draw(st.integers(1, config.segment_len))
    sizes = data.draw(splits(length))
    found = influence(make_model(with_room(config), seed=seed), batch, length, sizes)
    assert torch.isfinite(found).all()
    assert leaks(found) == []
    reached = torch.stack([found[b, :, b] != 0 for b in range(batch)])
    allowed = connected(config, length).expand_as(reached)
    if config.gate == "hard":  # a closed hard gate may stop a token; it still may not reach further than the paths
        assert not (reached & ~allowed).any()
        assert reached.diagonal(dim1=1, dim2=2).all()
    else:
        assert torch.equal(reached, allowed)


@pytest.mark.parametrize("backend", ("eager", "sdpa"))
@pytest.mark.parametrize("paths", SUBSETS)
def test_three_segments_one_ragged(paths, backend):
    """Each subset of the paths reaches exactly as far as it should: 5 + 5 + 3 tokens in chunks of 2."""
    config = RMATConfig(**SMALL | {"paths": paths, "backend": backend})
    found = influence(make_model(config), 2, 13)
    assert leaks(found) == []
    for row in range(2):
        assert torch.equal(found[row, :, row] != 0, connected(config, 13))


@given(st.sampled_from(("newest", "oldest")), st.sampled_from(("attention", "mean")))
@example("newest", "attention")
def test_the_past_arrives_through_the_memory(carry, pool):
    """With a hard gate half open, each token of the first segment still moves the last output, two writes later."""
    model = make_model(gate="hard", carry=carry, pool=pool, paths=("memory",))
    with torch.no_grad():
        for block in model.blocks:
            block.memory.to_gate.weight.zero_()
            block.memory.to_gate.bias.zero_()
    assert (influence(model, 1, 13)[0, -1, 0, :5] > 0).all()


# The planted leaks. Each model below is wrong in one place; `leaks` must find it.


def attend_all_ways(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths):
    """A path without its causal mask."""
    right = hybrid_attention(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size=chunk_size, paths=paths)
    return right + (q @ k.transpose(-1, -2)).softmax(-1) @ v


def attend_one_ahead(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths):
    """A mask that is off by one: every position sees the next."""
    right = hybrid_attention(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size=chunk_size, paths=paths)
    scores = (q @ k.transpose(-1, -2)).masked_fill(torch.ones(q.shape[2], k.shape[2]).triu(2).bool(), -1e9)
    return right + scores.softmax(-1) @ v


def attend_across_rows(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths):
    """A view that mixes the batch: each row is given a little of the row before."""
    right = hybrid_attention(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size=chunk_size, paths=paths)
    return right + 1e-6 * right.roll(1, 0)


def attend_with_a_lost_transpose(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size, paths):
    """Heads and positions change places on the way back: a view where a transpose was needed, shapes unharmed."""
    right = hybrid_attention(q, k, v, q_mem, k_mem, v_mem, weights, chunk_size=chunk_size, paths=paths)
    return right.transpose(1, 2).reshape(right.shape)


@pytest.mark.parametrize("leak", (attend_all_ways, attend_one_ahead, attend_across_rows,
                                  attend_with_a_lost_transpose))
def test_a_planted_leak_of_attention_is_found(leak):
    model = make_model()
    assert leaks(influence(model, 2, 13)) == []
    for block in model.blocks:
        block.attend_paths = leak
    assert leaks(influence(model, 2, 13))


def test_a_memory_that_is_written_before_it_is_read_is_found(monkeypatch):
    model = make_model(paths=("memory",))
    assert leaks(influence(model, 1, 13)) == []
    honest = HybridBlock.attend

    def write_first(block, x, memory, *rest):
        return honest(block, x, block.memory.write(memory, x), *rest)

    monkeypatch.setattr(HybridBlock, "attend", write_first)
    assert leaks(influence(model, 1, 13))


def test_a_norm_over_the_segment_is_found(monkeypatch):
    """The quiet one: statistics taken over positions make every output depend on the whole segment."""
    model = make_model(paths=PATHS)
    monkeypatch.setattr(model.norm, "forward", lambda x: x - x.mean(1, keepdim=True))
    assert leaks(influence(model, 1, 13))
