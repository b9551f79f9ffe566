"""One hybrid block against a block written in loops, in values and in the gradient of every parameter."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from reference import loop_block
from strategies import SMALL, SUBSETS, assert_one_line, configs, gap, randn, scramble

from rmat_tutorial import HybridBlock, RMATConfig
from rmat_tutorial.block import stream


def make_block(config: RMATConfig, seed: int = 0) -> HybridBlock:
    torch.manual_seed(seed)
    return scramble(HybridBlock(config).double().eval(), seed)


def assert_equals_loop(config, length, batch, seed):
    block = make_block(config, seed)
    x = randn(batch, length, config.d_model, seed=seed).requires_grad_()
    memory = None
    if "memory" in config.paths:
        memory = randn(batch, config.memory_slots, config.d_model, seed=seed + 1).requires_grad_()
    ours, theirs = block(x, memory), loop_block(block, config, x, memory)
    leaves = {"x": x} | ({} if memory is None else {"memory": memory}) | dict(block.named_parameters())
    gradients = []
    for output, written in (ours, theirs):
        loss = (output * randn(*output.shape, seed=97)).sum()
        if written is not None:
            loss = loss + (written * randn(*written.shape, seed=98)).sum()
        gradients.append(torch.autograd.grad(loss, list(leaves.values()), allow_unused=True))
    assert gap(ours[0], theirs[0]) < 1e-10
    assert (ours[1] is None) == (memory is None)
    assert memory is None or gap(ours[1], theirs[1]) < 1e-10
    for name, a, b in zip(leaves, *gradients, strict=True):
        a, b = (torch.zeros_like(leaves[name]) if g is None else g for g in (a, b))
        assert gap(a, b) < 1e-9, name


@given(configs(), st.data(), st.integers(1, 2), st.integers(0, 1000))
def test_block_equals_the_loop(config, data, batch, seed):
    assert_equals_loop(config, data.draw(st.integers(1, config.segment_len)), batch, seed)


@pytest.mark.parametrize("backend", ("eager", "sdpa"))
@pytest.mark.parametrize("paths", SUBSETS)
def test_block_with_each_subset_of_paths(paths, backend):
    assert_equals_loop(RMATConfig(**SMALL | {"paths": paths, "backend": backend}), 5, 2, 5)


@given(st.sampled_from(SUBSETS))
@example(("full", "chunk", "memory"))
def test_mix_is_one_scalar_per_path_and_starts_even(paths):
    block = HybridBlock(RMATConfig(**SMALL | {"paths": paths}))
    assert block.mix.shape == (len(paths),)
    assert torch.equal(block.mix.softmax(0), torch.full((len(paths),), 1 / len(paths)).softmax(0))


def test_without_the_memory_path_nothing_of_memory_is_left():
    names = {name for name, _ in make_block(RMATConfig(**SMALL | {"paths": ("full", "chunk")})).named_parameters()}
    assert not [name for name in names if "mem" in name]
    with_memory = {name for name, _ in make_block(RMATConfig(**SMALL)).named_parameters()}
    assert names < with_memory


def test_the_bank_is_read_as_it_was_before_the_segment():
    """The output depends on the bank that came in and on no parameter of the write."""
    block = make_block(RMATConfig(**SMALL))
    output, _ = block(randn(1, 5, 8), randn(1, 4, 8, seed=1))
    write = [block.memory.to_gate.weight, block.memory.to_candidate.weight, block.memory.write_norm.weight,
             block.memory.queries]
    read = [block.to_mem_k.weight, block.to_mem_v.weight, block.memory.read_norm.weight]
    gradients = torch.autograd.grad(output.square().sum(), write + read, allow_unused=True)
    assert all(g is None or not g.any() for g in gradients[: len(write)])
    assert all(g is not None and g.any() for g in gradients[len(write):])


@pytest.mark.parametrize("silent", ("out.weight", "ffn"))
def test_dropout_acts_in_training_only(silent):
    """On the output of attention as on that of the FFN: with either of them at zero the other still drops."""
    torch.manual_seed(0)
    block = HybridBlock(RMATConfig(**SMALL | {"dropout": 0.5})).double()
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if name.startswith(silent):
                parameter.zero_()
    x, memory = randn(1, 5, 8), randn(1, 4, 8, seed=1)
    assert gap(block.train()(x, memory)[0], block(x, memory)[0]) > 1e-3
    assert torch.equal(block.eval()(x, memory)[0], block(x, memory)[0])


def test_a_stream_is_read_segment_by_segment():
    block = make_block(RMATConfig(**SMALL))
    L = block.config.segment_len
    x, bank, parts = randn(2, 2 * L + 1, 8), block.memory.initial(2), []
    for piece in (x[:, :L], x[:, L : 2 * L], x[:, 2 * L :]):
        out, bank = block(piece, bank)
        parts.append(out)
    assert torch.equal(stream(block, x, block.memory.initial(2), L), torch.cat(parts, 1))
    local = make_block(RMATConfig(**SMALL | {"paths": ("full",)}))
    assert gap(stream(local, x, None, L)[:, L:], stream(local, x[:, L:], None, L)) < 1e-12


BLOCK = make_block(RMATConfig(**SMALL))
LOCAL = make_block(RMATConfig(**SMALL | {"paths": ("full",)}))
X, MEMORY = randn(2, 5, 8), randn(2, 4, 8)
NAN = float("nan")


@pytest.mark.parametrize("call, kind, fragments", [
    (lambda: BLOCK(X[0], MEMORY), ValueError, ["x", "(B, L, d)", "(5, 8)"]),
    (lambda: BLOCK(X[..., :6], MEMORY), ValueError, ["x", "8", "(2, 5, 6)"]),
    (lambda: BLOCK(torch.cat([X, X], 1), MEMORY), ValueError, ["x", "segment_len", "5", "10"]),
    (lambda: BLOCK(X[:, :0], MEMORY), ValueError, ["x", "1 to", "got 0"]),
    (lambda: BLOCK(X.long(), MEMORY), TypeError, ["x", "int64"]),
    (lambda: BLOCK(X * NAN, MEMORY), ValueError, ["x", "NaN"]),
    (lambda: BLOCK(X, MEMORY * NAN), ValueError, ["memory", "NaN"]),
    (lambda: BLOCK(X, MEMORY[:1]), ValueError, ["memory", "2", "(1, 4, 8)"]),
    (lambda: BLOCK(X, MEMORY[:, :3]), ValueError, ["memory", "4", "(2, 3, 8)"]),
    (lambda: BLOCK(X, MEMORY.float()), TypeError, ["memory", "float32", "float64"]),
    (lambda: BLOCK(X.float(), MEMORY.float()), TypeError, ["x", "float32", "float64"]),
    (lambda: BLOCK(X, None), ValueError, ["memory", "paths", "initial"]),
    (lambda: LOCAL(X, MEMORY), ValueError, ["memory", "None", "('full',)"]),
    (lambda: HybridBlock({"d_model": 8}), TypeError, ["config", "RMATConfig", "dict"]),
])
def test_bad_input(call, kind, fragments):
    with pytest.raises(kind) as error:
        call()
    assert_one_line(str(error.value), *fragments)
