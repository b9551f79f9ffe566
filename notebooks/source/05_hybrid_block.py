# %% [markdown]
# # 05 The hybrid block
#
# **Afterwards you can**
#
# - fuse three attentions with λ, and say what λ tells you and what it does not;
# - write one layer of the model in about 30 lines, state in and out, and show that it equals the package's in values
#   and in gradients;
# - see in one picture whether a model looks ahead, and find a leak that shapes and losses hide;
# - say what a segment costs, to the FLOP and to the byte.
#
# **Time:** 75 minutes, 20 of them for three exercises. Sections 1 to 5 take an hour; 6 to 8 can wait
# for another day.
#
# **You need:** notebooks 00 to 04, above all the causal mask, the chunk and the write to the bank. No GPU.
#
# **The course asks** why a transformer forgets, and what it costs not to. This notebook puts the answer's parts into
# one layer: attention for what is near, a bank for what is not. What a token costs then no longer depends on how many
# came before it.

# %% [markdown] tags=["instructor"]
# **Teaching plan.** 75 minutes alone, 90 with a room: 9 for λ, 13 for the block and its state, 7 for the block by
# hand, 15 for λ in trained models, 15 for causality, 3 for splits, 8 for the cost, 3 for what breaks, 2 for the recap.
# An exercise is in the time of its section.
#
# With half an hour, teach sections 1, 4 and 5. Section 5 is the one that people take home: they can run it on their
# own model the next day.

# %%
import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise

import torch
from ipywidgets import Checkbox, FloatSlider, IntSlider, ToggleButtons
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import rmat_tutorial
from rmat_tutorial import (
    RMAT,
    HybridBlock,
    RMATConfig,
    apply_rope,
    chunked_attention,
    full_attention,
    hybrid_attention,
    memory_attention,
    record,
)
from rmat_tutorial.block import merge_heads, split_heads
from rmat_tutorial.config import PATHS
from rmat_tutorial.corpora import split_of
from rmat_tutorial.exercises import check
from rmat_tutorial.installed_text import installed_document
from rmat_tutorial.measuring import bytes_kept, influence
from rmat_tutorial.pictures.block import LAYERS, Bench, FusedAttention, PathSwitches, cost_figure, segment_maps
from rmat_tutorial.plots import show, use_style
from rmat_tutorial.predictions import nearest, predict, reveal
from rmat_tutorial.tasks import IGNORED, RecallTask
from rmat_tutorial.widgets import Explorer

use_style()
torch.set_num_threads(1)
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# ## 1 Three answers, one sum
#
# The notebooks so far built three attentions. Each answers the same question of a token in its own way: **full** looks
# at the segment so far, **chunk** at its own chunk, **memory** at the bank. A layer that has all three must make one
# answer of them. Let each hand over two numbers:

# %%
answers = torch.tensor([[4.0, 0.0], [0.0, 2.0], [2.0, 4.0]])  # full, chunk, memory

# %% [markdown]
# The layer owns one number for each path, its **mix**, which it learns. The softmax of mix is **λ**: three shares that
# sum to 1. The answer is the sum of the three, each times its share. Mix starts at zero, so at first each path counts
# for a third. The first number is then (4 + 0 + 2) / 3 = 2. Work out the second.

# %%
mix = torch.zeros(3)
lam = torch.softmax(mix, dim=0)
print("λ:", lam, " answer:", lam @ answers)
assert torch.allclose(lam @ answers, torch.tensor([2.0, 2.0]))

# %% [markdown]
# Raise the mix of the full path to 2. exp(2) is 7.3891, the others stay at 1, the sum is 9.3891: the shares are
# 0.7870, 0.1065 and 0.1065. The first number becomes 4 · 0.7870 + 2 · 0.1065 = 3.3610.

# %%
lam = torch.softmax(torch.tensor([2.0, 0.0, 0.0]), dim=0)
print("λ:", lam, " answer:", lam @ answers)
assert torch.allclose(lam, torch.tensor([0.7870, 0.1065, 0.1065]), atol=1e-4)
assert abs((lam @ answers)[0] - 3.3610) < 1e-4

# %% [markdown]
# λ knows no token, no head and no feature: a layer has three numbers, the same for everything it reads.
#
# **Exercise 1** ●○○ 5 minutes. Fuse the outputs of P paths. They come stacked along a new first axis; mix has one
# number for each.
#
# <details><summary>Hint 1</summary>First λ from mix, as above. It has P numbers.</details>
# <details><summary>Hint 2</summary>λ needs four more axes of size 1 before it can be multiplied with the outputs. Or
# <code>torch.einsum</code> pairs the axes.</details>
# <details><summary>Hint 3</summary><code>torch.einsum("p,pbhld->bhld", …)</code>.</details>

# %% tags=["exercise"]
def fuse(outputs: Tensor, mix: Tensor) -> Tensor:
    """outputs (P, B, H, L, d_h), mix (P,) -> (B, H, L, d_h): the sum of the outputs, path p counted λ_p times."""
    # BEGIN SOLUTION
    return torch.einsum("p,pbhld->bhld", torch.softmax(mix, dim=0), outputs)
    # END SOLUTION

# %%
fuse = check("05.fuse", fuse, otherwise=rmat_tutorial.attention.fuse)

# %% [markdown]
# Now three real attentions on one input: six tokens in chunks of two, a bank of three slots. The package fuses them in
# `hybrid_attention`. It takes λ itself, and the query of the memory path apart. Here that is q again.

# %%
torch.manual_seed(1)
q, k, v = torch.randn(3, 1, 2, 6, 4)  # (B, H, L, d_h) each
k_mem, v_mem = torch.randn(2, 1, 2, 3, 4)  # (B, H, m, d_h) each
mix = torch.tensor([1.0, 0.0, 0.5])
outputs = torch.stack(
    [full_attention(q, k, v), chunked_attention(q, k, v, chunk_size=2), memory_attention(q, k_mem, v_mem)]
)
fused = fuse(outputs, mix)
package = hybrid_attention(q, k, v, q, k_mem, v_mem, torch.softmax(mix, dim=0), chunk_size=2)
print("fused:", tuple(fused.shape), " the package's:", torch.allclose(fused, package, atol=1e-6))
assert torch.allclose(fused, package, atol=1e-6)

# %% [markdown]
# The fusion is linear, so the output projection W_o may come before it or after it. It comes after: once instead of
# three times. For the same reason the attention maps can be fused in place of the outputs. Section 4 draws them so.

# %%
project = nn.Linear(8, 8, bias=False)
with torch.no_grad():
    after = project(merge_heads(fused))
    before = torch.softmax(mix, dim=0) @ torch.stack([project(merge_heads(output)) for output in outputs]).flatten(1)
print("the same:", torch.allclose(after.flatten(), before, atol=1e-6))
assert torch.allclose(after.flatten(), before, atol=1e-6)

# %% [markdown] tags=["instructor"]
# **λ.** Ask: "What would you have to change to let each token choose its own λ?" (Three numbers from x by a linear
# map, and a softmax. It is not in the paper, and it is a good project.)
#
# **Exercise 1.** What comes most: `outputs.sum(0)` after a softmax over the wrong axis of `mix[:, None]`, which is 1
# everywhere. Everything runs, the shapes are right, and λ has no effect. The check names it.

# %% [markdown]
# ## 2 The block around the sum
#
# The block is two lines. LN is LayerNorm; the **FFN** is two linear maps with a nonlinearity between them, applied to
# each token alone.
#
#     x = x + attention(LN(x)) W_o
#     x = x + FFN(LN(x))
#
# What is added to is the **residual stream**: x itself passes through, and each part adds to it. **Pre-LayerNorm**
# means that the norm stands before each part, inside its branch, and not on the stream.
#
# LayerNorm subtracts a vector's mean and divides by its spread. For (1, 2, 6): the mean is 3, the mean square distance
# from it (4 + 1 + 9) / 3 = 4.6667, its root 2.1602. Ten times the vector gives the same.

# %%
norm = nn.LayerNorm(3)
vector = torch.tensor([1.0, 2.0, 6.0])
with torch.no_grad():
    print(norm(vector), norm(10 * vector))
    assert torch.allclose(norm(vector), torch.tensor([-0.9258, -0.4629, 1.3887]), atol=1e-4)
    assert torch.allclose(norm(vector), norm(10 * vector), atol=1e-4)

# %% [markdown]
# Why a branch needs this: the stream grows. Here is the mean length of the vectors that enter each layer of two
# trained models, before and after the norm. The `text` model reads bytes, the `recall` model facts in noise; you met
# both in notebook 00.

# %%
text, recall = RMAT.from_checkpoint("text"), RMAT.from_checkpoint("recall")


def held_out(name: str, size: int) -> bytes:
    """The first bytes of a module of networkx or sympy that the text model was not trained on."""
    assert split_of(name) == "test"
    return installed_document(name).encode()[:size]


passage = held_out("networkx/algorithms/bipartite/basic.py", 257)
task = RecallTask()
facts, targets = task.batch(32, 256, torch.Generator().manual_seed(3))

# %%
lengths = {}
for name, model, tokens in (("text", text, torch.tensor([list(passage)])), ("recall", recall, facts)):
    with torch.no_grad():
        x = model.embed(tokens[:, : model.config.segment_len])
        for number, block in enumerate(model.blocks):
            lengths[name, number] = [vectors.norm(dim=-1).mean().item() for vectors in (x, block.norm1(x))]
            on_stream, after_norm = lengths[name, number]
            print(f"{name:6} layer {number}: {on_stream:6.2f} on the stream, {after_norm:6.2f} after the norm")
            x, _ = block(x, block.memory.initial(len(x)))
grown, normed = (lengths["recall", 1][side] / lengths["recall", 0][side] for side in (0, 1))
assert grown > 10 and 0.8 < normed < 1.25

# %% [markdown]
# In the recall model the stream becomes more than ten times as long from layer 0 to layer 1. A score is a product of
# two such vectors: without a norm those of layer 1 would be more than a hundred times as large as those of layer 0, and
# each layer would need weights for a size of its own. With it, both see vectors of much the same length.
#
# And why not put the norm on the stream? Because then nothing passes through unchanged. As it is, a block whose
# branches say nothing hands on exactly what it got:

# %%
CONFIG = RMATConfig(
    vocab_size=16, d_model=8, n_heads=2, n_layers=2, segment_len=4, chunk_size=2, memory_slots=4, write_slots=2,
    gate_bias=0.0,
)
torch.manual_seed(1)
silent = HybridBlock(CONFIG).double()
x, bank = torch.randn(1, 4, 8).double(), torch.randn(1, 4, 8).double()
with torch.no_grad():
    silent.out.weight.zero_()
    silent.ffn[2].weight.zero_()
    silent.ffn[2].bias.zero_()
    out, _ = silent(x, bank)
print("output equals input:", torch.equal(out, x))
assert torch.equal(out, x)

# %% [markdown]
# ### State in, state out
#
# The block takes two things and returns two: the segment's vectors, and the **bank** as it was before the segment; the
# output, and the bank as it is after it. Between segments that is all the state a layer has. Nothing is kept inside:
# the same arguments give the same results, call after call, and the bank that went in is as it was.

# %%
torch.manual_seed(1)
block = HybridBlock(CONFIG).double()
kept = bank.clone()
out, next_bank = block(x, bank)
out_again, next_again = block(x, bank)
print("out:", tuple(out.shape), " bank:", tuple(next_bank.shape))
print("the same twice:", torch.equal(out, out_again) and torch.equal(next_bank, next_again))
print("the bank that went in is as it was:", torch.equal(bank, kept))
assert torch.equal(out, out_again) and torch.equal(next_bank, next_again) and torch.equal(bank, kept)
assert torch.equal(bank[:, 2:], next_bank[:, :2]) and not torch.equal(bank, next_bank)  # first in, first out

# %% [markdown]
# **Exercise 2** ●●○ 7 minutes. A block reads one segment. Write what reads a sequence of any length: cut x into
# segments of L tokens, read them in order, hand the state on, and return all outputs side by side. The last segment
# may be shorter. `read` is a block, or anything else that takes a segment and a state and returns outputs and the next
# state.
#
# <details><summary>Hint 1</summary><code>x.split(L, dim=1)</code> cuts as needed, with a shorter piece at the end.
# </details>
# <details><summary>Hint 2</summary>In the loop, give the name <code>state</code> to what comes back as the second
# result.</details>
# <details><summary>Hint 3</summary>Collect the outputs in a list; <code>torch.cat(outputs, dim=1)</code> at the end.
# </details>

# %% tags=["exercise"]
def stream(read: Callable, x: Tensor, state: Tensor, L: int) -> Tensor:
    """x (B, T, d), state (B, m, d) -> (B, T, d): read(segment (B, n, d), state) -> (outputs (B, n, d), next state)."""
    # BEGIN SOLUTION
    outputs = []
    for segment in x.split(L, dim=1):
        output, state = read(segment, state)
        outputs.append(output)
    return torch.cat(outputs, dim=1)
    # END SOLUTION

# %%
stream = check("05.stream", stream, otherwise=rmat_tutorial.block.stream)

# %% [markdown]
# Two layers are two streams, one after the other: layer 1 reads what layer 0 wrote, each with a bank of its own. The
# model goes segment by segment through both layers instead. The numbers are the same, because a layer needs of the
# others nothing but the output of the layer below.

# %%
torch.manual_seed(1)
tiny = RMAT(CONFIG).double().eval()
with torch.no_grad():
    for parameter in tiny.parameters():  # away from the zeros and ones at the start, which could hide a mistake
        parameter += 0.3 * torch.randn_like(parameter)
tokens = torch.randint(16, (1, 12))  # three segments of L = 4
with torch.no_grad():
    x = tiny.embed(tokens)
    for layer in tiny.blocks:
        x = stream(layer, x, layer.memory.initial(1), CONFIG.segment_len)
    difference = (tiny.head(tiny.norm(x)) - tiny(tokens).logits).abs().max().item()
assert difference < 1e-12
print("layer by layer against the model, largest difference: below 1e-12")

# %% [markdown] tags=["instructor"]
# **Pre-LayerNorm.** Somebody will say that the first transformer had the norm after the sum. It had, and at a depth of
# two either works. What one loses is the clean path: with the norm on the stream the silent block would return LN(x).
#
# **Exercise 2.** The two mistakes to wait for: `read(segment, state)[0]` in a list comprehension, which never hands
# the state on, and `x.chunk(L)`, which makes L pieces. Both return the right shape, and the first segment is right in
# the first of them.

# %% [markdown]
# ## 3 By hand
#
# Now one block from its weights, with nothing of the package but what you have built before: `apply_rope` (02) and the
# cut into heads (01). First the attention: one function for all three, since they differ in their keys and in what is
# hidden.

# %%
def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d_h) v, for each query over the keys that ``seen`` (L_q, L_k) allows."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if seen is not None:
        scores = scores.masked_fill(~seen, -math.inf)
    return torch.softmax(scores, dim=-1) @ v


def naive_attention(block: HybridBlock, x: Tensor, bank: Tensor | None) -> Tensor:
    """LayerNorm, the paths that the block has, their fusion and the output projection: (B, L, d) -> (B, L, d)."""
    config, h, position = block.config, block.norm1(x), torch.arange(x.shape[1])
    q, k, v = (split_heads(project(h), config.n_heads) for project in (block.to_q, block.to_k, block.to_v))
    q_r, k_r = (apply_rope(vectors, position, config.rope_base) for vectors in (q, k))
    past = position[:, None] >= position
    same_chunk = position[:, None] // config.chunk_size == position // config.chunk_size
    found = {"full": attend(q_r, k_r, v, past), "chunk": attend(q_r, k_r, v, past & same_chunk)}
    if bank is not None:
        slots = block.memory.read_norm(bank)
        k_mem, v_mem = (split_heads(project(slots), config.n_heads) for project in (block.to_mem_k, block.to_mem_v))
        found["memory"] = attend(q, k_mem, v_mem)  # q without RoPE: a slot has no position
    return block.out(merge_heads(fuse(torch.stack([found[path] for path in config.paths]), block.mix)))

# %% [markdown]
# Then the write to the bank, as in notebook 04 (sigmoid gate, carry newest, attention pooling), and the block itself:
# three lines.

# %%
def naive_write(memory: nn.Module, bank: Tensor, hidden: Tensor) -> Tensor:
    """The bank after a segment whose output is ``hidden``: the w oldest slots leave, w new ones enter."""
    hidden, w = memory.write_norm(hidden), memory.write_slots
    pooled = torch.softmax(memory.queries @ hidden.mT / math.sqrt(hidden.shape[-1]), dim=-1) @ hidden
    carried = bank[:, -w:]
    source = torch.cat([pooled, memory.read_norm(carried)], dim=-1)
    z = torch.sigmoid(memory.to_gate(source))
    new = (1 - z) * carried + z * torch.tanh(memory.to_candidate(source))
    return torch.cat([bank[:, w:], new], dim=1)


def naive_block(block: HybridBlock, x: Tensor, bank: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """One segment and the bank before it -> the output and the bank after it."""
    x = x + naive_attention(block, x, bank)
    x = x + block.ffn(block.norm2(x))
    return x, None if bank is None else naive_write(block.memory, bank, x)

# %% [markdown]
# Equal values are half of the proof. A model learns by gradients, and a `detach` too many leaves the values as they
# are. So the next cell compares both, in float64, for each of the seven sets of paths: with respect to the input, the
# bank and every weight.

# %%
def outcome(run, x: Tensor, bank: Tensor | None, weights: list[Tensor]) -> list[Tensor]:
    """Output, bank after it, and the gradients of a fixed mixture of all their numbers."""
    out, after = run(x, bank)
    results = [out] if after is None else [out, after]
    mixture = sum((result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum() for result in results)
    inputs = [x, *([] if bank is None else [bank]), *weights]
    gradients = torch.autograd.grad(mixture, inputs, allow_unused=True, materialize_grads=True)
    return results + list(gradients)

# %%
print("paths                 tensors compared   largest difference")
for count in (1, 2, 3):
    for paths in combinations(PATHS, count):
        torch.manual_seed(1)
        block = HybridBlock(replace(CONFIG, paths=paths)).double()
        weights = list(block.parameters())
        with torch.no_grad():
            for weight in weights:
                weight += 0.3 * torch.randn_like(weight)
        x = torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True)
        bank = torch.randn(2, 4, 8, dtype=torch.float64, requires_grad=True) if "memory" in paths else None
        ours = outcome(partial(naive_block, block), x, bank, weights)
        theirs = outcome(block, x, bank, weights)
        difference = max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))
        print(f"{' + '.join(paths):22} {len(ours):15}   {'below 1e-12' if difference < 1e-12 else difference:>18}")
        assert difference < 1e-12

# %% [markdown]
# The naive block and the package's are the same function. The package's does it with less: unless told otherwise, it
# folds the chunks instead of masking them, and keeps no matrix of scores. Section 7 counts what that saves.

# %% [markdown] tags=["instructor"]
# **By hand.** Let people read `naive_attention` aloud, a line each, and name the notebook that each line comes from.
# Where the room is quick: which single change makes the gradients differ and leaves the values alone? (`.detach()`
# anywhere.) Have them write `bank.detach()` in the last line of `naive_block`: the sets without memory still pass.

# %% [markdown]
# ## 4 λ in trained models
#
# What did training make of the thirds?

# %%
for name, model in (("text", text), ("recall", recall)):
    for number, block in enumerate(model.blocks):
        shares = dict(zip(PATHS, torch.softmax(block.mix, dim=0).tolist(), strict=True))
        print(f"{name:6} layer {number}: " + "  ".join(f"{path} {share:.2f}" for path, share in shares.items()))
        least, _, most = sorted(shares.values())
        assert shares["chunk"] < 0.1 < 0.6 < shares["full"] if name == "text" else 0.2 < least < most < 0.45

# %% [markdown]
# The text model leans on the full path and gives the chunk next to nothing. The recall model shares out more
# evenly. It is tempting to read λ as importance. Hold that thought until the second widget.
#
# The first widget is about what λ does. It reads the beginning of a module of networkx that the text model was not
# trained on:

# %%
print(passage[:149].decode())

# %% [markdown]
# - On the left, one head's fused map: λ_full times the full map plus λ_chunk times the chunk map, over the bytes of
#   the segment; beside it λ_memory times the memory map, over the slots, the newest at the right. A row of both
#   together sums to 1.
# - On the right, λ of the chosen layer as you set it; the diamonds are the trained λ. The other layer keeps its own.
# - Below, what the model expects next. Bars are with your λ, diamonds with the trained one.
#
# The sliders are shares of any size: λ is each divided by their sum.

# %%
fused_picture = FusedAttention(text, passage)
fused_explorer = Explorer(
    fused_picture,
    title="λ by hand",
    end=IntSlider(149, 65, 256, description="bytes read"),
    layer=IntSlider(0, 0, 1, description="layer"),
    head=IntSlider(0, 0, 3, description="head"),
    full=FloatSlider(0.65, min=0, max=1, step=0.05, description="full"),
    chunk=FloatSlider(0.05, min=0, max=1, step=0.05, description="chunk"),
    memory=FloatSlider(0.3, min=0, max=1, step=0.05, description="memory"),
)
fused_explorer

# %% [markdown]
# **Try.** Pull full and memory to 0: what is left are the chunk's triangles. Pull memory alone to 0: after “if the gr”
# the model is no longer sure how to go on. “graph” stood in the segments before. Then do the same in layer 1.

# %%
L = text.config.segment_len
assert b"graph" in passage[: 2 * L] and b"graph" not in passage[2 * L : 149]
next_byte = passage[149]
fused_explorer.set()
assert torch.allclose(fused_picture.weights.sum(dim=-1), torch.ones(149 - 2 * L), atol=1e-5)
trained_chance = fused_picture.chances[next_byte].item()
print(fused_explorer.set(memory=0.0))
no_memory_chance = fused_picture.chances[next_byte].item()
assert fused_picture.weights[:, -16:].count_nonzero() == 0 and no_memory_chance < 0.5 < trained_chance

# %%
print(fused_explorer.set(full=0.0, memory=0.0))
C = text.config.chunk_size
chunk_map = fused_picture.weights[:, : 149 - 2 * L]
assert chunk_map[C:, :C].count_nonzero() == 0 and chunk_map.triu(1).count_nonzero() == 0
print(fused_explorer.set(full=0.0, chunk=0.0, memory=0.0))
assert fused_picture.weights is None
print(fused_explorer.set(layer=1, memory=0.0))
print(fused_explorer.set())

# %% [markdown]
# Was it the bank that knew “graph”? Not so fast. With memory at 0, layer 0 hands on a sum that layer 1 never met in
# training. Two things are mixed here: what the bank said is missing, **and** the layers after it are upset. To tell
# them apart, leave λ alone and take away only what the bank carries: **wipe** it after each segment. A segment is then
# read as if it were the first.

# %%
with torch.no_grad():
    segment_alone = torch.tensor([list(passage[2 * L : 149])])
    wiped_chance = text(segment_alone).logits[0, -1].softmax(dim=-1)[next_byte].item()
print(f"chance of “{chr(next_byte)}” after “if the gr”:")
print(f"  as trained {trained_chance:.2f}, bank wiped {wiped_chance:.2f}, memory path off {no_memory_chance:.2f}")
assert no_memory_chance + 0.2 < wiped_chance < trained_chance - 0.1

# %% [markdown]
# From the first to the second: what the bank had to tell. From the second to the third: no news is missing there, only
# the path itself, on which the layers count. One byte is an anecdote. The second widget counts over many, and for both
# models.

# %%
predict(
    "05.importance",
    "In the recall model λ of memory is 0.32 in layer 0 and 0.36 in layer 1. The memory path is switched off in one of "
    "the two. Where does it cost more right answers?",
    ["in layer 0", "in layer 1", "about as many in both"],
)

# %%
predict(
    "05.wiped",
    "Switching memory off in both layers costs the text model some bits a byte. Wiping the bank instead costs how much "
    "of that?",
    ["all of it", "about half", "about a quarter", "nearly nothing"],
)

# %% [markdown]
# To switch a path off, set its mix to −∞: exp(−∞) is 0, and the others share what it leaves. The text model is scored
# in bits a byte on eight modules that it was not trained on, the recall model by its share of right answers. All
# combinations are measured beforehand, which takes some seconds.

# %%
MODULES = (
    "networkx/algorithms/bipartite/basic.py", "networkx/generators/trees.py", "networkx/algorithms/flow/dinitz_alg.py",
    "networkx/algorithms/centrality/katz.py", "sympy/sets/sets.py", "sympy/core/evalf.py", "sympy/solvers/pde.py",
    "sympy/polys/ring_series.py",
)
bytes_read = torch.tensor([list(held_out(module, 641)) for module in MODULES])


@torch.no_grad()
def bits(model: RMAT, wiped: bool = False) -> float:
    """Bits a byte on the eight modules; with ``wiped`` each segment is read as if it were the first."""
    read = bytes_read[:, :-1]
    logits = model(read.reshape(-1, L) if wiped else read).logits.reshape(*read.shape, -1)
    return cross_entropy(logits.flatten(0, 1), bytes_read[:, 1:].flatten()).item() / math.log(2)


@torch.no_grad()
def accuracy(model: RMAT, wiped: bool = False) -> float:
    """Share of right answers in 32 streams of 256 tokens, four questions each."""
    read = facts.reshape(-1, model.config.segment_len) if wiped else facts
    said = model(read).logits.argmax(dim=-1).reshape(targets.shape)
    return (said == targets)[targets != IGNORED].float().mean().item()

# %%
without = RMAT.from_checkpoint("recall-no-memory")
benches = {
    "text": Bench(text, bits, "bits a byte", "less is better", "{:.2f}", {"bank wiped": bits(text, wiped=True)}),
    "recall": Bench(
        recall, accuracy, "of answers right", "more is better", "{:.2f}",
        {"bank wiped": accuracy(recall, wiped=True), "trained without memory": accuracy(without)},
    ),
}
switches = PathSwitches(benches)

# %%
switch_explorer = Explorer(
    switches,
    title="Switch paths off",
    layers=ToggleButtons(options=LAYERS, description="in"),
    full=Checkbox(True, description="full"),
    chunk=Checkbox(True, description="chunk"),
    memory=Checkbox(True, description="memory"),
)
switch_explorer

# %% [markdown]
# Above, λ of each layer as the switches leave it; a frame marks the layers that are switched. Below, the score as set,
# and three to compare it with: as trained, with the bank wiped, and of a model that was trained without memory.
#
# **Try.** Chunk off, in both layers. Memory off in layer 0, then in layer 1. Chunk alone: a path that could be spared
# does a good deal when the others are gone.

# %%
print(switch_explorer.set(memory=False, layers="layer 0"))
in_layer_0 = switches.shown["recall"]
print(switch_explorer.set(memory=False, layers="layer 1"))
in_layer_1 = switches.shown["recall"]
print(switch_explorer.set())
assert in_layer_0 < 0.5 and in_layer_1 > 0.9 and max(benches["recall"].beside.values()) < 0.3
assert task.values == 8
reveal("05.importance", "in layer 0", f"{in_layer_0:.2f} right with memory off in layer 0, {in_layer_1:.2f} in 1.")

# %%
print(switch_explorer.set(memory=False))
as_trained, off = switches.scores["text"]["both layers", PATHS], switches.shown["text"]
wiped = benches["text"].beside["bank wiped"]
share = (wiped - as_trained) / (off - as_trained)
print(f"text: off costs {off - as_trained:.2f} bits a byte, wiped {wiped - as_trained:.2f}: {share:.2f} of it")
reveal("05.wiped", nearest([1, 0.5, 0.25, 0], share), "The rest is not news from earlier segments: the layers had come to rely on the path.")

# %%
print(switch_explorer.set(chunk=False))
chunk_cost = switches.shown["text"] - as_trained
print(f"text without chunk: {chunk_cost:+.4f} bits a byte")
print(switch_explorer.set(full=False, memory=False))
chunk_alone = switches.shown["text"]
print(switch_explorer.set(full=False, chunk=False))
assert abs(chunk_cost) < 0.01 and chunk_alone < switches.shown["text"] - 1
print(switch_explorer.set(full=False, chunk=False, memory=False))
assert switches.shown == {}
print(switch_explorer.set())

# %% [markdown]
# What λ says is how loud a path speaks in the sum. It does not say whether anybody would miss it:
#
# - The text model's chunk path has λ 0.06, and without it nothing is lost: the full path sees all that the chunk sees.
#   Alone, though, the chunk path still carries the text model far better than memory alone.
# - The recall model gives memory about the same λ in both layers. Layer 0 does the recalling; layer 1 can do without.
# - Most of what the text model loses with the memory path off is not information from earlier segments. The layers
#   have come to rely on the path, whatever it says.
#
# So to learn what a path **carries**, take away what it carries and leave the path. To learn whether a model **needs**
# one, train without it. The bar "trained without memory" is that second experiment for recall. It fails as the wiped
# bank does: a guess among 8 values is right 0.125 of the time, and neither is far above. For the text model this
# notebook cannot say; notebook 09 is for such questions.

# %% [markdown] tags=["instructor"]
# **λ is not importance.** Most of the room says layer 1, for its larger λ, or both. Ask what λ multiplies: an output
# of any length, that later layers may or may not use. The comparison to draw on the board: three people speak at once,
# and λ is the volume of each. The loudest need not say what matters, and two may say the same.
#
# **Off and wiped.** Give this a minute. The mistake is easily made: a part of a trained model is removed, the loss
# rises, and the rise is called what the part contributed.

# %% [markdown]
# ## 5 Strict causality, as a picture
#
# Causality is easy to lose in this block. Three paths, each with a mask of its own or none; heads that change places
# with tokens and back; and a bank, through which something of every segment goes on. **Strict** means: no output
# depends on a later token, in any way, also not through the bank.
#
# Notebook 01 measured it for one attention: `influence` gives, for every output i and input j, the length of the list
# of all partial derivatives. Here it is for two layers over three segments of four tokens. `reading(blocks)` is the
# function to be measured: x in, the outputs of the last block out. Its second argument says how a block reads one
# segment. That is where cuts and leaks will go in.

# %%
def honest(block: HybridBlock, x: Tensor, bank: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return block(x, bank)


def reading(blocks: nn.ModuleList, segment=honest):
    """A function from x (T, d) to the outputs of the last block (T, d)."""
    def read(x: Tensor) -> Tensor:
        x = x[None]
        for block in blocks:
            bank = None if block.memory is None else block.memory.initial(1)
            x = stream(partial(segment, block), x, bank, block.config.segment_len)
        return x[0]
    return read


torch.manual_seed(1)
blocks = nn.ModuleList(HybridBlock(CONFIG) for _ in range(2)).double()
without_memory = nn.ModuleList(HybridBlock(replace(CONFIG, paths=("full", "chunk"))) for _ in range(2)).double()
inputs = torch.randn(12, 8, dtype=torch.float64)
causal, blind = influence(reading(blocks), inputs), influence(reading(without_memory), inputs)

# %% [markdown]
# And a third picture. Training on long streams cuts the gradient now and then, by `detach`: else the graph grows with
# every segment. Let the bank be detached after each segment.

# %%
predict(
    "05.detach",
    "After each segment the bank is detached before the next segment reads it. What changes?",
    ["the outputs of later segments", "the gradients", "both", "nothing"],
)

# %%
def detached(block: HybridBlock, x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    x, bank = block(x, bank)
    return x, bank.detach()


def detached_in_vain(block: HybridBlock, x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    x, bank = block(x, bank)
    bank.detach()  # returns the detached bank, and nobody takes it
    return x, bank


cut = influence(reading(blocks, detached), inputs)
not_cut = influence(reading(blocks, detached_in_vain), inputs)
show(
    segment_maps({"three segments": causal, "without memory": blind, "bank detached": cut}, segment_len=4),
    "Which input moves which output. Three segments: a full lower triangle, dark inside a segment, pale to earlier "
    "ones. Without memory and with a detached bank: three small triangles, zero elsewhere.",
)

# %% [markdown]
# A 0 is an exact zero; lines are the borders of segments. On the left everything above the diagonal is 0, and
# everything below it is not. Inside a segment the influence is dense. To an earlier segment it is paler, and it came
# through the bank: in the middle, without one, it is gone.

# %%
same_values = torch.equal(reading(blocks)(inputs), reading(blocks, detached)(inputs))
print("nonzero of 144:", causal.count_nonzero().item(), blind.count_nonzero().item(), cut.count_nonzero().item())
print("outputs with the bank detached are the same:", same_values)
assert causal.triu(1).count_nonzero() == 0 and causal.count_nonzero() == 12 * 13 // 2
assert blind.count_nonzero() == cut.count_nonzero() == 3 * 4 * 5 // 2 and same_values
assert torch.equal(not_cut, causal)
inside = torch.block_diag(*[torch.ones(4, 4)] * 3).tril(-1).bool()
earlier = torch.ones(12, 12).tril(-1).bool() & ~inside
near, far = causal[inside].mean(), causal[earlier].mean()
print(f"mean influence: {near:.4f} inside a segment, {far:.4f} from an earlier one")
assert near > 2 * far
reveal("05.detach", "the gradients", "The outputs are the same to the last bit; no gradient crosses a border any more.")

# %% [markdown]
# The right picture is the signature of a `detach`: the model reads its bank, and cannot learn what to write into it.
# No output shows that. And a `detach` that stands on a line of its own, as in `detached_in_vain`, does nothing: its
# map equals the left one, to the last bit.
#
# ### Three leaks
#
# Now the opposite: too many nonzeros. Each of the next three is a slip of one line. All keep every shape.

# %%
def lost_transpose(*arguments) -> Tensor:
    """Heads and tokens change places by a view where a transpose is needed."""
    *tensors, chunk_size, paths = arguments
    attended = hybrid_attention(*tensors, chunk_size=chunk_size, paths=paths)
    return attended.transpose(1, 2).reshape(attended.shape)


def chunk_looks_ahead(q, k, v, q_mem, k_mem, v_mem, lam, chunk_size, paths) -> Tensor:
    """The chunk's mask keeps to the chunk and forgets the future."""
    chunk = torch.arange(q.shape[-2]) // chunk_size
    chunked = attend(q, k, v, chunk[:, None] == chunk)
    return lam[0] * full_attention(q, k, v) + lam[1] * chunked + lam[2] * memory_attention(q_mem, k_mem, v_mem)


def write_first(block: HybridBlock, x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """The bank is written before the segment reads it: the segment finds its own summary there."""
    return block(x, block.memory.write(bank, x))


def with_attention(blocks: nn.ModuleList, attention) -> nn.ModuleList:
    """A copy of the blocks, of which the last attends otherwise."""
    changed = copy.deepcopy(blocks)
    changed[-1].attend_paths = attention
    return changed

# %%
leaky = {
    "transpose lost": reading(with_attention(blocks, lost_transpose)),
    "chunk looks ahead": reading(with_attention(blocks, chunk_looks_ahead)),
    "written first": reading(blocks, write_first),
}
for name, read in leaky.items():
    out = read(inputs)
    print(f"{name:18} shape {tuple(out.shape)}, finite: {bool(out.isfinite().all())}, spread {out.std():.2f}")
    assert out.shape == inputs.shape and out.isfinite().all()

# %% [markdown]
# Shapes are right and nothing explodes. Would the loss tell? Tokens drawn at random cannot be predicted: the best
# possible loss over 16 tokens is ln 16 = 2.7726. Train a small model on nothing but chance, with the right chunk mask
# and with the one that looks ahead.

# %%
losses = {}
for name, attention in (("right mask", None), ("looks ahead", chunk_looks_ahead)):
    torch.manual_seed(1)
    model = RMAT(replace(CONFIG, n_layers=1))
    if attention is not None:
        model.blocks = with_attention(model.blocks, attention)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(80):
        noise = torch.randint(16, (64, 5))  # one segment, and the token after it
        loss = cross_entropy(model(noise[:, :-1]).logits.flatten(0, 1), noise[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    losses[name] = loss.item()
print(f"the best possible loss: ln 16 = {math.log(16):.4f}")
for name, loss in losses.items():
    print(f"{name:12} loss {'below' if loss < 2.5 else 'not below'} 2.5")
assert losses["looks ahead"] < 2.5 < 2.65 < losses["right mask"]

# %% [markdown]
# The leaking model beats chance on chance itself: it copies the answer where it sees it. On real text nobody knows the
# best possible loss, and a leak looks like a good idea that worked. Then the model is to write, the next token is not
# there yet, and there is nothing to copy.
#
# **Exercise 3** ●●○ 8 minutes. Find leaks. `read` takes x (T, d) and returns outputs (T, d). Say for each pair whether
# output i moves with input j, where j comes later. However little: there is no such thing as a small leak.
#
# <details><summary>Hint 1</summary>Two ways: gradients, with <code>influence</code>; or put random numbers in the place
# of one input, read again, and see which outputs are not the same.</details>
# <details><summary>Hint 2</summary>What is above the diagonal: <code>triu(1)</code>. What moves: whatever is not
# exactly 0.</details>
# <details><summary>Hint 3</summary><code>influence(read, x)</code> is (T, T), with outputs as rows. It needs two more
# steps.</details>

# %% tags=["exercise"]
def leaks(read: Callable, x: Tensor) -> Tensor:
    """x (T, d), read: (T, d) -> (T, d). Returns (T, T) of bool: whether j > i, and output i moves with input j."""
    # BEGIN SOLUTION
    return influence(read, x).triu(1) > 0
    # END SOLUTION

# %%
leaks = check("05.leak", leaks, otherwise=rmat_tutorial.measuring.leaks)

# %% [markdown]
# Now on four readers: the right one, and the three that leak, as A, B and C in another order. Read 0←1 as: output 0
# moves with input 1. The leaks of the first segment are printed; the other segments repeat them.

# %%
order = torch.randperm(3, generator=torch.Generator().manual_seed(3)).tolist()
suspects = dict(zip("ABC", (list(leaky)[place] for place in order), strict=True))
found = {"right": leaks(reading(blocks), inputs)}
found |= {letter: leaks(leaky[name], inputs) for letter, name in suspects.items()}
for letter, pairs in found.items():
    print(f"{letter:6} {pairs.sum().item():2} leaks", *(f" {i}←{j}" for i, j in pairs[:4].nonzero().tolist()))
    assert torch.equal(pairs, torch.block_diag(*[pairs[:4, :4]] * 3).bool())
assert sorted(pairs.sum().item() for pairs in found.values()) == [0, 6, 12, 18]

# %%
predict("05.slip", "Which of them writes its bank before it reads it?", list(suspects))

# %%
print("  ".join(f"{letter}: {name}" for letter, name in suspects.items()))
culprit = next(letter for letter, name in suspects.items() if name == "written first")
assert found[culprit].sum() == 3 * 6
reveal("05.slip", culprit, "The summary holds the whole segment, so every pair inside a segment leaks.")

# %%
show(
    segment_maps({name: influence(read, inputs) for name, read in leaky.items()}, segment_len=4),
    "The three leaks, framed above the diagonal. Transpose lost: four pairs in each segment. Chunk looks ahead: one "
    "pair in each chunk. Written first: all pairs inside a segment.",
)

# %% [markdown]
# Frames mark the leaks, and each slip has a face of its own. A chunk mask without its causal half leaks inside chunks
# and nowhere else. The bank that is written first leaks whole segments, corner to corner: it is the summary. A lost
# transpose leaks inside segments in a pattern that no mask would make.
#
# None crosses the border of a segment upwards: to leak into an earlier segment, the bank would have to run backwards.

# %% [markdown] tags=["instructor"]
# **Three leaks.** Let people guess A, B and C from the list before they see the maps.
#
# **Exercise 3.** Good for a discussion: a bound such as 1e-3, "because of rounding". There is no rounding in a zero
# that comes from a mask: where there is no way, the gradient is exactly 0, and the output is the same to the last bit.
# The check has weak leaks in it for this.
#
# The sum of an output's numbers is the subtle one: `read(x)[i].sum()` is constant after a LayerNorm, so its gradient
# is 0 although every number moves. It has a twin on the side of the input: `x[j] += 1` moves all its numbers alike, the
# LayerNorm in front of the paths subtracts that again, and no leak is found. The check has leaks for both.

# %% [markdown]
# ## 6 Any split gives the same logits
#
# Exercise 2 read whole segments. A model that writes text gets one token at a time, and a user's question has any
# length. So the model's state has a second part, the **cache** of the unfinished segment: its keys, its values and its
# outputs, which the write needs once the segment is complete.
#
# Nine tokens in segments of four can be cut in 2⁸ = 256 ways, from one piece to nine. All of them:

# %%
tokens = torch.randint(16, (1, 9))
largest = 0.0
with torch.no_grad():
    whole = tiny(tokens).logits
    for number in range(2**8):
        cuts = [place for place in range(1, 9) if number >> (place - 1) & 1]
        logits, state = [], None
        for piece in tokens.tensor_split(cuts, dim=1):
            output = tiny(piece, state)
            logits.append(output.logits)
            state = output.state
        largest = max(largest, (torch.cat(logits, dim=1) - whole).abs().max().item())
assert number == 255 and largest < 1e-12
print(f"{number + 1} splits, largest difference of any logit: below 1e-12")

# %% [markdown]
# What the state holds on the way, token by token. The bank changes when a segment is complete, and only then.

# %%
state = tiny.init_state(1)
print("token   in the cache   bank")
for number, token in enumerate(tokens.split(1, dim=1)):
    before = state.memory[0]
    with torch.no_grad():
        state = tiny(token, state).state
    filled = state.cache[0].k[0, 0].norm(dim=-1).count_nonzero().item()
    written = not torch.equal(before, state.memory[0])
    print(f"{number:5}   {filled:12}   {'written' if written else 'as it was'}")
    assert filled == state.position == (number + 1) % 4 and written == (number % 4 == 3)

# %% [markdown]
# And without the cache, if each piece is taken for a segment of its own? The shapes are right again, and the answer
# depends on where the stream was cut: the same tokens, read in pairs.

# %%
with torch.no_grad():
    x = tiny.embed(tokens)
    in_fours, in_pairs = (
        stream(tiny.blocks[0], x, tiny.blocks[0].memory.initial(1), length) for length in (4, 2)
    )
moved = (in_fours - in_pairs).abs().amax(dim=-1)[0] > 1e-6
print("tokens whose output moved:", moved.nonzero().flatten().tolist())
assert moved.nonzero().flatten().tolist() == [2, 3, 4, 5, 6, 7, 8]

# %% [markdown]
# ## 7 What a segment costs
#
# Count first. A product of a (a, b) with a (b, c) matrix takes a·b·c multiplications and as many additions: 2abc
# FLOPs. One block reads one segment of L tokens:

# %%
def flops(L: int, d: int, C: int, m: int, w: int) -> dict[str, int]:
    """FLOPs of the matrix products of one block for one segment, by part."""
    return {
        "FFN": 2 * 8 * L * d * d,  # d to 4d and back
        "projections": 2 * 4 * L * d * d,  # q, k, v, output
        "full": 2 * 2 * L * L * d,  # scores, weighted sum
        "chunk": 2 * 2 * L * C * d,
        "memory": 2 * 2 * L * m * d + 2 * 2 * m * d * d,  # the same over m slots; their keys and values
        "write": 2 * 2 * w * L * d + 2 * 2 * w * 2 * d * d,  # pooling; gate and candidate
    }

# %%
predict(
    "05.cost",
    "The text model has d = 96, L = 64, C = 16, m = 16. Which part of a block takes most of its FLOPs?",
    ["full attention", "the projections", "the FFN", "the memory with its write"],
)

# %%
config = text.config
d, C, m, w = config.d_model, config.chunk_size, config.memory_slots, config.write_slots
parts = flops(L, d, C, m, w)
by_hand = sum(parts.values())
for part, count in parts.items():
    print(f"{part:12} {count:11,}   {count / by_hand:5.1%}")
print(f"{'together':12} {by_hand:11,}")
memory_share = (parts["memory"] + parts["write"]) / by_hand
assert max(parts, key=parts.get) == "FFN" and memory_share < 0.1
ffn_share = parts["FFN"] / by_hand
reveal("05.cost", "the FFN", f"{ffn_share:.0%} of them. The memory with its write takes {memory_share:.0%}.")

# %% [markdown]
# Then measure. PyTorch can count the FLOPs of the products that it runs. The package has two versions of the
# attention: `eager`, with the softmax written out, and `sdpa`, which calls PyTorch's fused attention.

# %%
def counted(run, *inputs) -> int:
    with FlopCounterMode(display=False) as counter:
        run(*inputs)
    return counter.get_total_flops()


x, bank = torch.randn(1, L, d), torch.randn(1, m, d)
measured = {backend: counted(HybridBlock(replace(config, backend=backend)), x, bank) for backend in ("eager", "sdpa")}
for backend, count in measured.items():
    print(f"{backend:6} {count:11,}   by hand {count - by_hand:+11,}")

# %% [markdown]
# Neither agrees, and both differences are known to the FLOP.
#
# - `eager` masks the chunk path: it computes all L² pairs and hides most. So count L in place of C there.
# - PyTorch's counter does not see the fused attention of a processor. What `sdpa` lacks is all three attentions.

# %%
masked_chunk = flops(L, d, L, m, w)["chunk"] - parts["chunk"]
attentions = parts["full"] + parts["chunk"] + 2 * 2 * L * m * d
print(f"eager: {masked_chunk:+,}   sdpa: {-attentions:+,}")
assert measured == {"eager": by_hand + masked_chunk, "sdpa": by_hand - attentions}
print(f"sdpa seems to save {attentions / by_hand:.0%}")

# %% [markdown]
# A number from a tool is right for what the tool counts. Without the count by hand one would have taken these per cent
# for a gain in speed.
#
# Now bytes, of three kinds. **Weights** are there anyway. The **state** is what is carried on. What is **kept** waits
# for the backward pass. In float32 a number takes 4 bytes.

# %%
H, N = config.n_heads, config.n_layers
block = text.blocks[0]
weights = sum(parameter.numel() for parameter in block.parameters())
# Four projections, two for the bank, FFN, two maps of the write, four norms, pooling queries, first slots, mix.
weights_by_hand = 4 * d * d + 2 * d * d + (8 * d * d + 5 * d) + 2 * (2 * d * d + d) + 4 * 2 * d + w * d + m * d + 3
state_by_hand = 4 * N * (m * d + 3 * L * d)  # a bank; keys, values and outputs of the unfinished segment
print(f"weights of a block: {4 * weights:9,} bytes, by hand {4 * weights_by_hand:9,}")
print(f"state, {N} layers:    {text.init_state(1).nbytes:9,} bytes, by hand {state_by_hand:9,}")
assert weights == weights_by_hand and text.init_state(1).nbytes == state_by_hand

# %% [markdown]
# What is kept is counted by the token: weights, bank and tables are kept at any length, and drop out of the difference
# of two. For one more token, 23 vectors of width d stay:
#
# - 8 in the FFN: 4d before its nonlinearity, 4d after it;
# - 6 around three norms, their inputs and outputs;
# - 5 for q (with and without RoPE), k, v and v folded into chunks;
# - 4 after the attentions: the outputs of the three, and their sum.
#
# Add a row sum for each head and path, two numbers for each norm, and a pooling weight for each slot that is written.

# %%
token_by_hand = 4 * (23 * d + 3 * H + 2 * 3 + w)
print(f"by hand one more token keeps {token_by_hand:,} bytes")
more, tried = {}, (L // 2, 3 * L // 4, L)
for backend in ("sdpa", "eager"):
    block = HybridBlock(replace(config, backend=backend))
    kept = [bytes_kept(block, torch.randn(1, length, d, requires_grad=True), bank) for length in tried]
    more[backend] = [(longer - shorter) // (L // 4) for shorter, longer in pairwise(kept)]
    first, then = more[backend]
    print(f"{backend:6} at L = {L}: {kept[-1]:9,} bytes; one more token keeps {first:6,}, then {then:6,}")
assert more["sdpa"] == [token_by_hand] * 2 and token_by_hand < more["eager"][0] < more["eager"][1]

# %% [markdown]
# With `sdpa` one more token keeps the same at any length: there is no L² anywhere. `eager` keeps its matrices of
# scores, and there a token costs the more, the longer the segment.
#
# So much for one segment. What a stream costs follows, because each segment costs the same. Eight segments, counted:

# %%
eager_text = RMAT(replace(config, backend="eager"))
per_stream = {count: counted(eager_text, torch.randint(256, (1, count * L))) for count in (1, 2, 4, 8)}
for count, total in per_stream.items():
    print(f"{count} segments: {total:12,} FLOPs, {total // (count * L):,} a token")
assert all(total == count * per_stream[1] for count, total in per_stream.items())

# %%
LENGTHS = [16, 64, 256, 1024]
TOKENS = [10**power for power in range(2, 8)]
stacked = {part: [flops(length, d, C, m, w)[part] / length / 1e3 for length in LENGTHS] for part in parts}
flat = [by_hand / L / 1e3] * len(TOKENS)
growing = [(parts["FFN"] + parts["projections"]) / L / 1e3 + 2 * 2 * T * d / 1e3 for T in TOKENS]
show(
    cost_figure(stacked, LENGTHS, TOKENS, {"full attention over all tokens": growing, "hybrid block": flat}),
    "Left: FLOPs of a token by part, for segments of 16 to 1,024 tokens; only the full path grows. Right: FLOPs of the "
    "next token against tokens read; full attention over all rises, the hybrid block stays flat.",
)
print(f"after 10 million tokens full attention over all pays {growing[-1] / flat[-1]:,.0f} times as much for the next")
assert growing[0] < flat[0] and growing[-1] > 1_000 * flat[-1]

# %% [markdown]
# Both are for one layer; the hybrid block's tokens are counted as the mean of a segment. On the left, the longer the
# segment, the more of a token's cost is the full path. The bank's part shrinks: it is read and written once a segment.
# On the right, the hybrid block costs the same after ten million tokens as after a hundred. At a hundred it is the
# dearer of the two: chunk and memory come on top, and pay when there is something to remember.

# %% [markdown] tags=["instructor"]
# **The cost.** Most say full attention, having learnt in notebook 01 that it is quadratic. At L = 64 it is not yet
# what counts: 4 L d against 16 d² for the FFN, so they meet at L = 4 d. Let the room work that out.
#
# The counter's blind spot is worth a minute. Ask: "Your colleague reports a tenth fewer FLOPs with the fused kernel.
# What do you ask first?"

# %% [markdown]
# ## 8 What breaks, and how it shows
#
# The leak and the `detach` had their pictures. Three more ways in which a hybrid block fails while it runs. First, λ
# **collapsed** on one path. A share moves with its own mix at the rate λ(1 − λ), as in notebook 01, so a path with no
# share learns nothing and gets no share back.

# %%
torch.manual_seed(1)
outputs = torch.randn(3, 1, 2, 6, 4)
target = torch.randn(1, 2, 6, 4)
for start in ([0.0, 0.0, 0.0], [8.0, 0.0, 0.0]):
    mix = torch.tensor(start, requires_grad=True)
    (fuse(outputs, mix) - target).square().sum().backward()
    lam = torch.softmax(mix, dim=0).detach()
    print(f"mix {start}: smallest λ {lam.min():.4f}, largest gradient of mix {mix.grad.abs().max():.4f}")
assert lam.min() < 1e-3 and mix.grad.abs().max() < 0.1

# %% [markdown]
# Second, a path that says **nothing**: here the memory path of the recall model's layer 0 has values of zero. λ and
# attention maps look healthy. What shows it: give the block another bank, and nothing moves.

# %%
mute = copy.deepcopy(recall)
with torch.no_grad():
    mute.blocks[0].to_mem_v.weight.zero_()
x = torch.randn(1, 32, 64)
banks = torch.randn(2, 1, 16, 64)
for name, model in (("recall", recall), ("mute", mute)):
    with torch.no_grad(), record(model) as trace:
        model(facts[:1])
    first, second = (model.blocks[0](x, bank)[0] for bank in banks)
    layer = trace.segments[1].layers[0]
    moves = not torch.equal(first, second)
    print(f"{name:6} λ of memory {layer.mix['memory']:.2f}, largest weight on a slot {layer.memory.max():.2f}, "
          f"another bank moves the output: {moves}, right answers {accuracy(model):.2f}")
    assert moves == (model is recall)
assert accuracy(mute) < 0.5

# %% [markdown]
# Third, state **inside** the module. It is convenient, until the same call gives two answers: in a test, in a batch
# that was shuffled, in a second conversation.

# %%
class HiddenState(nn.Module):
    """A block that keeps its bank to itself."""
    def __init__(self, block: HybridBlock) -> None:
        super().__init__()
        self.block, self.bank = block, block.memory.initial(1)

    def forward(self, x: Tensor) -> Tensor:
        x, self.bank = self.block(x, self.bank)
        return x


hidden = HiddenState(blocks[0])
x = torch.randn(1, 4, 8, dtype=torch.float64)
print("the same input, the same output:", torch.equal(hidden(x), hidden(x)))
assert not torch.equal(hidden(x), hidden(x))

# %% [markdown]
# | What you see | Where to look | What it is |
# |---|---|---|
# | the loss is surprisingly good, generation is not | `influence`, above the diagonal | a leak |
# | outputs right, long range never learned | `influence`, below the borders of segments | a `detach` too many |
# | memory grows with every segment | `influence`, below the borders: not 0 after the cut | a `detach` that nobody took |
# | one λ near 1, the others stay near 0 | the gradient of mix | collapse |
# | λ and maps healthy, no recall | another bank: does the output move? | a path that says nothing |
# | the same call, another answer | call twice | state inside the module |
#
# ## Recap
#
# 1. λ = softmax(mix) are three shares a layer; the paths' outputs are added, each times its share.
# 2. The block adds to a stream that passes through; norms stand inside the branches. State goes in and comes out.
# 3. λ says how loud a path is. What it carries shows when you wipe the bank; what is needed, when you train without.
# 4. One picture of gradients shows whether a model looks ahead, and whether it can learn across segments.
# 5. Each segment costs the same and leaves a state of the same size, after ten million tokens as after a hundred.
#
# ## Ledger
#
# | Paper | Our equation | Code | Test | Left open, and our choice |
# |---|---|---|---|---|
# | three attentions fused by learned weights | λ = softmax(mix); λ_1 A_full + λ_2 A_chunk + λ_3 A_mem, then W_o | `kernels/__init__.py`: `hybrid_attention` | `test_block.py`: `test_mix_is_one_scalar_per_path_and_starts_even`; `test_backends.py`: `test_every_subset_of_paths` | what the weights depend on; on the layer only, three scalars that start even, and a model without a path is the same softmax over the others |
# | attention and FFN with residual connections | x + attention(LN(x)) W_o, then x + FFN(LN(x)) | `block.py`: `HybridBlock.attend` | `test_block.py`: `test_block_equals_the_loop` | where the norms stand; before each branch, so that the stream passes through |
# | paths over one input | q, k, v are shared by full and chunk, q by all; the bank has k_M, v_M of its own, read through LN_M | `block.py`: `HybridBlock.attend` | `test_block.py`: `test_block_with_each_subset_of_paths` | whether the paths share weights; they do, except for the bank's keys and values |
# | memory attention | q without RoPE against k_M | `attention.py`: `memory_attention` | `test_causality.py`: `test_the_past_arrives_through_the_memory` | the position of a slot; it has none |
# | autoregressive language model | ∂ output_i / ∂ input_j = 0 for j > i | `block.py`: `HybridBlock.forward` | `test_causality.py`: `test_every_output_depends_on_the_past_only`, `test_a_memory_that_is_written_before_it_is_read_is_found` | when the bank is written; after the segment has been read, never before |
# | recurrent memory | (x, M) ← block(x, M); (logits, state) ← model(tokens, state) | `state.py`: `RMATState` | `test_streaming.py`: `test_any_split_gives_the_same_logits`, `test_a_state_is_a_value` | where state lives; in arguments and results, nothing in modules |
#
# ## What to tweak next
#
# The cells assert what the prose says. Where your change makes it untrue, the assertion stops the cell, as it should.
#
# - Section 4: give memory all of λ in the first widget. Which head of layer 0 looks at which slots?
# - Section 5: plant a leak of your own, one of the batch or of the norms, and see whether the picture shows it.
# - Section 5: give the blocks of `without_memory` the chunk path alone, and make them three. How far does an input
#   reach, and why no further?
# - Section 7: set d to 512. At which L does the full path overtake the FFN?
#
# Next: [06 The language model](06_language_model.ipynb): embedding, blocks, head, and a state that streams.
