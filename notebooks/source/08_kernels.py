# %% [markdown]
# # 08 The kernel-optimised version
#
# **Afterwards you can**
#
# - count what an attention costs in operations and in bytes, and say which of the two it waits for;
# - run a softmax over keys that come tile by tile, in any order, and merge softmaxes over disjoint keys;
# - read the fused kernel of the package line by line, because you have seen it come about in four stages;
# - derive its way back from one saved number a row, with the gradient of λ;
# - say what the size of a tile costs;
# - read segments in fewer steps than there are layers and segments;
# - say what torch.compile does by itself, and read a benchmark that was made to be checked.
#
# **Time:** 123 minutes, 25 of them for two exercises. Sections 1, 5 and 6 are the core.
#
# **You need:** the softmax of 01, RoPE of 02, the chunks of 03, the bank of 04, λ of 05. No GPU: kernels are written in
# Triton, and without a GPU its interpreter runs them in numpy. Triton exists for Linux. Without it the PyTorch loop of
# section 6 does the same.
#
# **The course asks** why a transformer forgets, and what it costs not to. The hybrid block pays for three attentions
# where others pay for one. Here one pass forward does all three. At 2,048 tokens its least time is 6 % above that of
# full attention alone.

# %% [markdown] tags=["instructor"]
# **Teaching plan.** 123 minutes alone, 138 with a room: 10 to count, 8 for the roofline, 10 for the running softmax, 14
# for the merge, 8 for the picture, 22 for the kernel, 25 for the way back, 6 for the backends, 6 for the tile sizes, 7
# for the wavefront, 9 for the compiler, 10 for what was measured, 3 for the recap. An exercise is in the time of its
# section.
#
# With half an hour, teach section 1 up to the first prediction, section 5, and section 6 from the PyTorch loop to the
# fourth kernel, side by side. The one sentence to leave in the room: the chunk's keys are a subset of the segment's.

# %%
from __future__ import annotations

import json
import logging
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import matplotlib.pyplot as plt
import torch
from ipywidgets import IntSlider, SelectionSlider
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.fx import GraphModule
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm.auto import tqdm

from rmat_tutorial import RMAT, RMATConfig, chunked_attention, full_attention, hybrid_attention
from rmat_tutorial.bench.attention import BANK, CHUNKS, Ceiling, learn, measure_attention, methods, random_inputs
from rmat_tutorial.bench.plan import LONG, ON_CPU
from rmat_tutorial.bench.rounds import Effort, measure, ratio
from rmat_tutorial.bench.table import spread_text
from rmat_tutorial.chunks import pairs
from rmat_tutorial.claims import Claim
from rmat_tutorial.config import PATHS
from rmat_tutorial.exercises import check
from rmat_tutorial.folders import data
from rmat_tutorial.kernels import HAS_TRITON, parts, resolve_backend, suited
from rmat_tutorial.kernels.counting import WAYS, Cost, Shape, Tiles, count
from rmat_tutorial.kernels.limits import TOLERANCES
from rmat_tutorial.kernels.occupancy import H100, Choice, estimate, least_seconds
from rmat_tutorial.pictures.benchmark import (
    attention_times,
    measured_roof,
    model_speeds,
    roof_in_words,
    speeds_in_words,
    times_in_words,
)
from rmat_tutorial.pictures.occupancy import LARGE, TileSizes
from rmat_tutorial.pictures.roofline import roofline
from rmat_tutorial.pictures.tiles import LONGEST, SIZES, TileMaps
from rmat_tutorial.plots import show, use_style
from rmat_tutorial.predictions import nearest, predict, reveal
from rmat_tutorial.widgets import Explorer

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # is read when Triton is imported
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler says that it begins, and that it ends
if HAS_TRITON:
    import triton
    import triton.language as tl

    from rmat_tutorial.kernels import triton_launch
    from rmat_tutorial.kernels.triton_dkv import row_ranges
    from rmat_tutorial.kernels.triton_tiles import key_ranges
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition  # imports Triton
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.joint_graph import joint_graph_passes

use_style()
torch.set_num_threads(1)
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# ## 1 The price, by hand
#
# The hybrid block asks three questions with the same queries: full attention over the segment, chunked attention over
# the own chunk, and attention over the bank. Take 8 tokens in chunks of 4, a bank of 2 slots, one head of width 2.
#
# **Operations.** A pair of a query and a key costs 2 · d_h for its score, a multiplication and a sum for each feature,
# and 2 · d_h again to add its share of the value. With d_h = 2 that is 8. How many pairs does each path have? Take the
# pencil first.

# %%
L, C, m, d_h = 8, 4, 2, 2
counted = {"full": pairs(L, L), "chunk": pairs(L, C), "memory": L * m}
for path, number in counted.items():
    print(f"{path:6} {number:2} pairs, {number * 4 * d_h:3} operations")
apart, together = sum(counted.values()), counted["full"] + counted["memory"]
print(f"one after the other: {apart} pairs; different ones: {together}")
assert list(counted.values()) == [36, 20, 16] and (apart, together) == (72, 52)

# %% [markdown]
# 72 pairs are computed, and 52 are different. The 20 of the chunk are among the 36 of the segment, with the same
# scores: the same q, the same k. Only the softmax that they go into is another one.
#
# **Bytes.** Let each attention be as good as it can be: it reads each row of q, k and v once, writes each row of its
# output once, and keeps no scores. A row is d_h numbers of 4 bytes, 8 bytes here. The bank is read with the queries
# before rotation (05), a tensor of its own.

# %%
rows = {
    "full": L + L + L + L,  # q, k, v, output
    "chunk": L + L + L + L,
    "memory": L + m + m + L,
    "adding up": 3 * L + L,  # three outputs, their sum with λ
}
at_once = (L + L + L) + (L + m + m) + L  # q, k, v; q before rotation, the bank; one output
for step, number in rows.items():
    print(f"{step:9} {number:3} rows, {number * 4 * d_h:3} bytes")
print(f"one after the other {sum(rows.values())} rows, {sum(rows.values()) * 8} bytes; at once {at_once}, {at_once * 8}")
assert sum(rows.values()) * 8 == 928 and at_once * 8 == 352

# %% [markdown]
# At once moves 352 of the 928 bytes. So read everything once, compute each score once, write one output.
#
# The package counts the same way for any size (`kernels/counting.py`). It counts one thing more: for the way back
# each attention keeps a number for each row, of 4 bytes. Section 7 says which.

# %%
tiny = Shape(batch=1, heads=1, length=8, width=2, chunk_size=4, slots=2)
for way in WAYS:
    cost = count(way, tiny, torch.float32).forward
    print(f"{way:6} {cost.flops:5,} operations, {cost.bytes:6,} bytes")
assert count("triton", tiny, torch.float32).forward == Cost(flops=52 * 8, bytes=352 + 3 * 8 * 4)
assert count("causal", tiny, torch.float32).forward == Cost(flops=36 * 8, bytes=rows["full"] * 8 + 8 * 4)
steps = 3 * 2 * L + (2 * L + 3 * L + 3 * L)  # λ times each output; then 0 + a, + b, + c
assert count("sdpa", tiny, torch.float32).forward.bytes == (32 + 32 + 20 + steps) * 8 + 3 * 8 * 4 + 3 * 4

# %% [markdown]
# Five ways. `eager` writes out every step, scores and all, and multiplies what the mask hides: 8 · (8 + 8 + 2) = 144
# pairs. `sdpa` is three fused attentions one after the other; it needs more than the 928 bytes, because torch adds up in
# six steps and not in one. `flex` has one launch, in which each path is a head of its own: scores of the chunk twice,
# three outputs. `triton` is the kernel of this notebook. `causal` is the floor: full attention alone, one of the three.
#
# Now a size that a GPU is made for: 8 streams, 16 heads of width 64, 2,048 tokens in chunks of 256, 64 slots, numbers
# of 2 bytes.

# %%
predict(
    "08.extra",
    "Full attention alone takes 69 GFLOP at this size. How many more do all three paths take, if no score is computed "
    "twice?",
    ["about 6 % more", "about 20 % more", "twice as many", "three times as many"],
)

# %%
costs = {way: count(way, LARGE).forward for way in WAYS}
for way, cost in costs.items():
    print(f"{way:6} {cost.flops / 1e9:6.1f} GFLOP, {cost.bytes / 1e9:6.2f} GB, {cost.intensity:5.0f} operations a byte")
extra = costs["triton"].flops / costs["causal"].flops - 1
reveal("08.extra", nearest([0.06, 0.2, 1, 2], extra, by_ratio=True),
       f"{extra:.1%}: the chunk adds no pair, the bank 64 to the 1,024 that a token sees on average.")
assert 0.06 < extra < 0.065 and costs["sdpa"].bytes > 4.5 * costs["triton"].bytes
assert 179.5 < costs["eager"].bytes / costs["triton"].bytes < 182

# %% [markdown] tags=["instructor"]
# **The count.** Let the room do the rows of the tiny case on the board, before the cell. The usual slip is to forget the
# fourth line, adding up, which moves as much as a whole attention.
#
# **Ask:** "Which of the five rows of the last table is slow for which reason?" (`eager`: bytes, about 180 times those of
# `triton`.) Without having said a word about hardware, the answers will be about operations. That is the next section.

# %% [markdown]
# ## 2 What a kernel waits for
#
# A chip multiplies at some rate and moves bytes at another. An H100 multiplies matrices of bfloat16 at 989 TFLOP a
# second, and its memory moves 3.35 TB a second (NVIDIA's datasheet, the SXM model). Work that has fewer operations for
# each byte than the quotient of the two waits for memory; work that has more waits for the multipliers. Operations for
# each byte are the **arithmetic intensity**.

# %%
ridge = H100.flops / H100.bytes
print(f"{ridge:.0f} operations for each byte")
assert 295 <= ridge < 296

# %% [markdown]
# How many has an attention? With L queries and keys: about L²/2 pairs of 4 · d_h operations, and 4 · L rows of 2 · d_h
# bytes. That leaves L/4. The chunk, by the same count: C/4. The bank: L · m pairs, 2 · L rows: m.

# %%
full, chunk = 2048 / 4, 256 / 4
print(f"full: {full:.0f}, chunk: {chunk:.0f}, bank: 64, adding up: less than 1")
predict(
    "08.once",
    "The least time that an H100 needs, each step at the best of its roof, and adding up in torch's six steps: how many "
    "times longer is one after the other than all at once?",
    ["about 1.2 times", "about 2 times", "about 4 times"],
)

# %% [markdown]
# Full attention lies beyond the ridge, where multipliers set the pace. The three other steps lie far before it: there
# the chip waits for memory, and reads again what it has just read.

# %%
def steps_of(shape: Shape) -> dict[str, Cost]:
    """What is done one after the other: the three attentions of ``sdpa``, and adding them up."""
    heads, in_chunks = shape.batch * shape.heads, shape.length // shape.chunk_size
    folded = shape._replace(batch=shape.batch * in_chunks, length=shape.chunk_size)
    bank_bytes = 2 * (shape.length + shape.slots) * shape.width * 2 + shape.length * 4
    found = {
        "full": count("causal", shape).forward,
        "chunk": count("causal", folded).forward,
        "memory": Cost(4 * shape.width * shape.length * shape.slots * heads, bank_bytes * heads),
    }
    whole = count("sdpa", shape).forward
    rest = [getattr(whole, name) - sum(getattr(cost, name) for cost in found.values()) for name in Cost._fields]
    return found | {"adding up": Cost(*rest)}


pieces = steps_of(LARGE)
show(
    roofline(pieces, costs["triton"], H100),
    "Left: the roof of an H100, rising to 295 operations a byte and flat beyond. Full attention and all at once lie on "
    "the flat part, chunk and memory far down the slope. Right: least times. One after the other is nearly four times "
    "as long, half of it adding up; all at once is hardly longer than full attention.",
)
apart = sum(least_seconds(cost) for cost in pieces.values())
once, floor = least_seconds(costs["triton"]), least_seconds(costs["causal"])
print(f"least times: one after the other {apart / once:.1f} times all at once; that is {once / floor:.2f} of full alone")
assert pieces["adding up"].flops == 0 and pieces["adding up"].bytes > costs["sdpa"].bytes / 2
assert least_seconds(pieces["adding up"]) > apart / 2
reveal("08.once", nearest([1.2, 2, 4], apart / once, by_ratio=True), f"{apart / once:.1f} times, by the roof alone.")
assert 3.5 < apart / once < 3.9 and 1.055 < once / floor < 1.065
one_step = Cost(0, 4 * LARGE.length * LARGE.width * 2 * LARGE.batch * LARGE.heads)
in_one = (apart - least_seconds(pieces["adding up"]) + least_seconds(one_step)) / once
print(f"with adding up in one step, as in section 1: {in_one:.1f} times")
assert 2.2 < in_one < 2.4

# %% [markdown]
# The roof is a bound and no forecast. No kernel reaches it: exponentials are not counted, multipliers wait for their
# tiles, a launch has a cost of its own. What it says is where to look. At this size full attention is bound by its
# products, and everything beside it by memory. At 512 tokens, in chunks of 64, all of it moves to the left, and the
# bank's queries, a tensor more to read, are paid in full:

# %%
short = LARGE._replace(length=512, chunk_size=64)
shorter = {way: count(way, short).forward for way in ("causal", "sdpa", "triton")}
for way, cost in shorter.items():
    waits_for = "memory" if cost.intensity < ridge else "products"
    print(f"{way:6} {cost.intensity:4.0f} operations a byte: waits for {waits_for}")
price = least_seconds(shorter["triton"]) / least_seconds(shorter["causal"])
print(f"all at once takes at least {price:.2f} of full alone")
assert all(cost.intensity < ridge for cost in shorter.values()) and 1.3 < price < 1.36

# %% [markdown]
# ## 3 A softmax that runs
#
# To compute each score once and keep none, the softmax has to be computed as the scores come. Its sum is no problem.
# But exp of a score of 100 is beyond float32, so every softmax takes the largest score off first, and the largest is
# known at the end only.
#
# The way out: keep the largest **so far**, the **peak**, and the sum of exp(score − peak), the **total**. When a larger
# score comes, the terms that were summed before were made with too small a peak. All are too large by one factor, and
# shrink by exp(old peak − new peak). Four numbers:

# %%
peak, total = -math.inf, 0.0
for score in (1.0, 3.0, 2.0, 6.0):
    new_peak = max(peak, score)
    total = total * math.exp(peak - new_peak) + math.exp(score - new_peak)
    peak = new_peak
    print(f"after {score:g}: peak {peak:g}, total {total:.4f}")
assert torch.exp(torch.tensor(100.0)) == math.inf and peak == 6
assert abs(total - (math.exp(-5) + math.exp(-3) + math.exp(-4) + 1)) < 1e-12

# %% [markdown]
# At 3 what was 1 shrinks to exp(1 − 3) = 0.1353, and the 1 of the new score comes on top. At 2 the peak stays, and
# nothing shrinks.
#
# Peak and total together are one number: peak + log(total), the **log-sum-exp**. The share of a score is exp(score −
# log-sum-exp). Whoever keeps the log-sum-exp of a row can have any of its shares again from the score alone.

# %%
log_sum = peak + math.log(total)
shares = [math.exp(score - log_sum) for score in (1.0, 3.0, 2.0, 6.0)]
print("shares:", [round(share, 4) for share in shares], " sum:", round(sum(shares), 4))
assert torch.allclose(torch.tensor(shares), torch.tensor([1.0, 3.0, 2.0, 6.0]).softmax(0))

# %% [markdown]
# The output runs along: the sum of exp(score − peak) · value shrinks with the total, and is divided by it in the end.
# Here is one step for M queries and a tile of N keys at once. `visible` says which query sees which key.

# %%
State = tuple[Tensor, Tensor, Tensor]  # acc (M, d_h), the sum of exp · value; total (M,); peak (M,)
LOWEST = -1e30  # a peak before the first key


def nothing(q: Tensor) -> State:
    """A running softmax of the queries q (M, d_h) that has seen no key."""
    return torch.zeros_like(q), q.new_zeros(len(q)), q.new_full((len(q),), LOWEST)


def attend(state: State, q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> State:
    """Continue it over a tile of keys: q (M, d_h), k and v (N, d_h), visible (M, N)."""
    acc, total, peak = state
    scores = (q @ k.T / math.sqrt(q.shape[1])).masked_fill(~visible, -math.inf)
    new_peak = torch.maximum(peak, scores.amax(dim=1))
    exps = torch.exp(scores - new_peak[:, None])
    shrink = torch.exp(peak - new_peak)
    return acc * shrink[:, None] + exps @ v, total * shrink + exps.sum(dim=1), new_peak


def finish(state: State) -> tuple[Tensor, Tensor]:
    """The output (M, d_h), zeros where no key was seen, and the log-sum-exp (M,)."""
    acc, total, peak = state
    total = total.where(total > 0, 1.0)
    return acc / total[:, None], peak + total.log()

# %% [markdown]
# Why does the peak begin at −10³⁰ and not at −∞? A tile may be hidden from a row altogether. Then the new peak is the
# old one, and the difference of two infinities is no number:

# %%
print(-math.inf - -math.inf, LOWEST - LOWEST)

# %% [markdown]
# Twelve keys in tiles of four. The tiles may come in any order: sums do not care, and whatever the peak is, it cancels.

# %%
torch.manual_seed(1)
q, k, v = torch.randn(5, 4), torch.randn(12, 4), torch.randn(12, 4)
all_visible = torch.ones(5, 4, dtype=torch.bool)
expected = torch.softmax(q @ k.T / 2, dim=1) @ v
for order in ((0, 4, 8), (8, 0, 4)):
    state = nothing(q)
    for start in order:
        state = attend(state, q, k[start : start + 4], v[start : start + 4], all_visible)
    difference = (finish(state)[0] - expected).abs().max().item()
    print(f"tiles from {order}: difference below 1e-6: {difference < 1e-6}")
    assert difference < 1e-6

# %% [markdown]
# Keep that in mind: **any order**. Attention of this kind, over tiles and without a matrix of scores, is
# FlashAttention (Dao and others 2022). There the tiles go from the first key to the last. We shall begin somewhere else.

# %% [markdown] tags=["instructor"]
# **The running softmax.** Do the four numbers by hand; the third line is where people want to shrink although the peak
# stays. **Ask:** "What if the scores come sorted, the largest first?" (Nothing ever shrinks.)

# %% [markdown]
# ## 4 Merging
#
# Say two colleagues have each attended to a part of the keys, with a softmax of their own over that part. What is the
# attention over all keys? Not the mean: a part with high scores would have taken most of the weight. How much a part
# weighs is the sum of its exp, and that is exp of its log-sum-exp.
#
# Two parts with sums 3 and 1: the first counts 3/4.

# %%
outputs = torch.tensor([[[4.0, 0.0]], [[0.0, 4.0]]])  # (P, L, d_h): two parts, one row
sums = torch.tensor([3.0, 1.0])
print(0.75 * outputs[0] + 0.25 * outputs[1])

# %% [markdown]
# **Exercise 1** ●●○ 12 minutes. Merge P parts. A part may have no key at all for some row: its log-sum-exp is then −∞
# (or −10³⁰, as `finish` says it) and its output zero; no row is without any key. Log-sum-exps can be large: exp of 100
# must not ruin the result.
#
# <details><summary>Hint 1</summary>The share of part p in a row is exp(log_sum<sub>p</sub>), divided by the sum of
# these over the parts. You know a function that is exactly that, and safe.</details>
# <details><summary>Hint 2</summary>A softmax over the axis of the parts gives the shares (P, L). An axis more,
# <code>[..., None]</code>, and they meet the outputs (P, L, d_h).</details>
# <details><summary>Hint 3</summary><code>torch.softmax(log_sums, dim=0)[..., None] * outputs</code>, summed over the
# parts.</details>

# %% tags=["exercise"]
def merge(outputs: Tensor, log_sums: Tensor) -> Tensor:
    """Attention over all keys: outputs (P, L, d_h) and natural log-sum-exps (P, L) of P parts -> (L, d_h)."""
    # BEGIN SOLUTION
    return (torch.softmax(log_sums, dim=0)[..., None] * outputs).sum(dim=0)
    # END SOLUTION

# %%
merge = check("08.merge", merge, otherwise=parts.merge)
assert torch.allclose(merge(outputs, sums.log()[:, None]), torch.tensor([[3.0, 1.0]]))

# %% [markdown]
# Merging is itself a softmax, over the parts. Now to the parts that matter here. Twelve tokens in chunks of four: for
# each query the keys **inside** its chunk, and the keys **before** it. The tokens of the first chunk have none before.

# %%
torch.manual_seed(2)
q, k, v = torch.randn(3, 12, 4).unbind()
query, key = torch.arange(12)[:, None], torch.arange(12)[None, :]
inside = (key <= query) & (key >= query // 4 * 4)
before = key < query // 4 * 4
found = [finish(attend(nothing(q), q, k, v, visible)) for visible in (inside, before)]
outputs, log_sums = (torch.stack(tensors) for tensors in zip(*found, strict=True))


def alone(path, *arguments) -> Tensor:
    """An attention of the package, which takes (B, H, L, d_h), for a single head (L, d_h)."""
    return path(*(x[None, None] if isinstance(x, Tensor) else x for x in arguments))[0, 0]


print("inside is chunked attention:", torch.allclose(outputs[0], alone(chunked_attention, q, k, v, 4), atol=1e-6))
print("inside and before, merged, is full:", torch.allclose(merge(outputs, log_sums), alone(full_attention, q, k, v), atol=1e-6))
assert torch.allclose(outputs[0], alone(chunked_attention, q, k, v, 4), atol=1e-6)
assert torch.allclose(merge(outputs, log_sums), alone(full_attention, q, k, v), atol=1e-6)

# %% [markdown]
# So chunked attention is a half-way house on the way to full attention. Whoever has walked over the keys inside the
# chunk has `chunk`; who walks on over the keys before it has `full`. No score is computed twice.
#
# The kernel does not even merge. It runs one softmax, begins with the chunk, notes the result, and goes on.

# %% [markdown] tags=["instructor"]
# **Merging.** The check's inputs have log-sum-exps of 100 and of −150, so that exp fails both ways. Those who subtract
# the maximum by hand get it right as well.
#
# **Ask:** "Could the kernel give the keys before the chunk to other programs, and merge?" (Yes. That is how one new
# token against a long cache is done, Flash-Decoding; here a tile of queries has work enough.)

# %% [markdown]
# ## 5 One pass, in a picture
#
# A fused attention kernel works in tiles: a block of queries by a block of keys. A tile is computed whole or not at all.
# Below are the tiles of q kᵀ, with the bank's keys to the left of the segment's. Left, what each path computes by itself.
# Right, the fused kernel, each pair in the colour of what it feeds. Striped pairs feed both softmaxes and are computed
# once.

# %%
tiles = TileMaps()
tile_explorer = Explorer(
    tiles,
    title="Which tiles of q kᵀ are computed, and what they feed",
    L=IntSlider(64, 4, LONGEST, 4, description="tokens L"),
    C=IntSlider(32, 4, LONGEST, 4, description="chunk C"),
    size=SelectionSlider(options=SIZES, value=8, description="tile"),
)
tile_explorer

# %% [markdown]
# **Try.** Move C to 64: one chunk, and the whole triangle is striped. Then to 4, half a tile: the tiles of the diagonal
# come twice, and nothing is saved. Then take 20, whose borders cut some tiles of queries and some of keys, and look at
# the frames.

# %%
print(tile_explorer.set())
assert tiles.twice == 0 and tiles.fused == 52 and sum(tiles.alone.values()) == 72
assert tiles.fused == tiles.alone["full"] + tiles.alone["memory"]
print(tile_explorer.set(C=64))
assert tiles.alone["full"] == tiles.alone["chunk"] == 36 and tiles.fused == 52
print(tile_explorer.set(C=4))
assert tiles.twice == 8 and tiles.fused == sum(tiles.alone.values()) == 60
print(tile_explorer.set(C=20))
assert tiles.twice == 8
print(tile_explorer.set())

# %% [markdown]
# Where chunks are whole tiles, the chunk is free: 52 tiles, the 36 of full attention and the 16 of the bank, in place of
# 72. You know these numbers: it is the tiny case of section 1, with tiles for tokens.
#
# Where the border of a chunk cuts through a tile of queries, some of its rows have a key in their chunk and others have
# it before theirs. Where it cuts through a tile of keys, some of the keys are in the chunk and others before. Either
# tile is computed twice. At L = 2,048 and tiles of 128 queries by 64 keys, chunks of 256 and of 128 have none of these,
# and chunks of 64 one for each tile of queries:

# %%
operations = {
    size: count("triton", LARGE._replace(chunk_size=size), tiles=Tiles(128, 64)).forward.flops for size in (256, 128, 64)
}
for size, flops in operations.items():
    print(f"chunks of {size:3}: {flops / 1e9:.1f} GFLOP in whole tiles")
assert operations[256] == operations[128] < operations[64] < 1.1 * operations[128]

# %% [markdown] tags=["instructor"]
# **The picture.** Project it, C = 32, and ask the room to count the striped tiles: 20, the same as in "chunk alone", and
# on the right they cost nothing, because they are tiles of full attention too. Then drag C.
#
# **Ask:** "Which C needs most work, path by path?" (The largest: chunk is then as dear as full. At once it costs the
# same as always.)

# %% [markdown]
# ## 6 The kernel in four stages
#
# ### First in PyTorch
#
# The whole algorithm fits into one loop over tiles of queries. 40 tokens in chunks of 12, a bank of 10 slots, tiles of
# 16: nothing divides anything, as in life. `take` counts the rows that are read.

# %%
TILE, L, C, m, D = 16, 40, 12, 10, 16
DEVICE = "cuda" if torch.cuda.is_available() and HAS_TRITON else "cpu"
torch.manual_seed(3)
q, k, v, q_mem = torch.randn(4, L, D).to(DEVICE).unbind()
k_mem, v_mem = torch.randn(2, m, D).to(DEVICE).unbind()
weights = torch.tensor([0.5, 0.2, 0.3], device=DEVICE)  # λ of full, chunk, memory
reads = Counter()


def take(name: str, x: Tensor, rows: Tensor) -> Tensor:
    """Rows of x, counted."""
    reads[name] += len(rows)
    return x[rows]


def tiles_of(low: int, high: int) -> list[Tensor]:
    """The positions from low, rounded down to a tile, up to high, tile by tile."""
    starts = range(low // TILE * TILE, high, TILE)
    return [torch.arange(start, min(start + TILE, high), device=DEVICE) for start in starts]

# %%
def fused_in_tiles(
    q: Tensor, k: Tensor, v: Tensor, q_mem: Tensor, k_mem: Tensor, v_mem: Tensor, weights: Tensor, C: int
) -> Tensor:
    """λ_1 full + λ_2 chunk + λ_3 memory of one head, (L, d_h), as the kernel computes it."""
    out = torch.empty_like(q)
    for rows in tiles_of(0, len(q)):
        q_tile, q_mem_tile = take("q", q, rows), take("q_mem", q_mem, rows)
        start_of_chunk = rows // C * C
        # The bank, normalised at once.
        state = nothing(q_mem_tile)
        for slots in tiles_of(0, len(k_mem)):
            visible = slots[None, :] < len(k_mem)
            state = attend(state, q_mem_tile, take("k_mem", k_mem, slots), take("v_mem", v_mem, slots), visible)
        mixed = weights[2] * finish(state)[0]
        # The keys inside the chunk: what has run so far is chunk.
        state = nothing(q_tile)
        for keys in tiles_of(int(start_of_chunk[0]), int(rows[-1]) + 1):
            inside = (keys[None, :] >= start_of_chunk[:, None]) & (keys[None, :] <= rows[:, None])
            state = attend(state, q_tile, take("k", k, keys), take("v", v, keys), inside)
        mixed = mixed + weights[1] * finish(state)[0]
        # The same softmax goes on over the keys before the chunk, and is full.
        for keys in tiles_of(0, int(start_of_chunk[-1])):
            before = keys[None, :] < start_of_chunk[:, None]
            state = attend(state, q_tile, take("k", k, keys), take("v", v, keys), before)
        out[rows] = mixed + weights[0] * finish(state)[0]
    return out

# %%
def by_definition(
    q: Tensor, k: Tensor, v: Tensor, q_mem: Tensor, k_mem: Tensor, v_mem: Tensor, weights: Tensor, C: int
) -> Tensor:
    """The same by the package's reference."""
    heads = (x[None, None] for x in (q, k, v, q_mem, k_mem, v_mem))
    return hybrid_attention(*heads, weights, chunk_size=C, backend="eager")[0, 0]


inputs = (q, k, v, q_mem, k_mem, v_mem, weights)
difference = (fused_in_tiles(*inputs, C) - by_definition(*inputs, C)).abs().max().item()
print(f"largest difference below 1e-5: {difference < 1e-5}")
assert difference < 1e-5

# %% [markdown]
# Three attentions in one loop. How often was each row read? With chunks of 16, which are tiles:

# %%
reads.clear()
difference = (fused_in_tiles(*inputs, 16) - by_definition(*inputs, 16)).abs().max().item()
print(", ".join(f"{name} {count_of_rows}" for name, count_of_rows in reads.items()))
assert difference < 1e-5 and reads["q"] == reads["q_mem"] == L and reads["k"] == reads["v"] == 16 + 32 + 40
assert reads["k_mem"] == reads["v_mem"] == 3 * m

# %% [markdown]
# The queries once. Keys and values once for each tile of queries that sees them, 16 + 32 + 40 rows. That is how often
# full attention alone reads them in tiles: the chunk was free. The bank once for each of three tiles of queries. A test
# counts the same in the package's kernel, address by address (`test_kernels_traffic.py`).
#
# ### Triton in one minute
#
# In Triton one writes the program of **one tile**. It is started for each tile of a grid, many side by side, and asks
# `tl.program_id` which one it is. What it gets of a tensor is the address of its first number. It adds offsets, loads
# a block of numbers, computes with blocks, and stores a block. What a mask leaves out is not touched. Without a mask a
# ragged end would read, or overwrite, whatever lies behind it.
#
# `kernel[grid](…)` starts it; a tensor arrives as a pointer. What is marked `tl.constexpr` is known when the kernel is
# compiled: the sizes of blocks, powers of two, and flags, whose `if` costs nothing. `tl.dot(a, b)` is the product of two
# blocks. On a GPU it rounds float32 to 10 bits of fraction, unless it is told otherwise: `"ieee"` is exact float32.
#
# With `TRITON_INTERPRET=1`, which the first cell sets where there is no GPU, the programs run one after the other in
# numpy. That is slow, but the algorithm is the same, and a `print` inside a program shows its blocks.

# %% tags=["nbval-ignore-output"]
if HAS_TRITON:
    how = "compiled, on the GPU" if DEVICE == "cuda" else "in the interpreter, on the CPU"
    print(f"Triton {triton.__version__}: the kernels below run {how}.")
else:
    print("Triton is not installed here. The kernels below are shown and not run; the loop above has their numbers.")
    print("On Linux: pip install triton==3.7.1, then restart the kernel of this notebook.")

# %%
jit = triton.jit if HAS_TRITON else lambda kernel: kernel
n_tiles = math.ceil(L / TILE)


def launch(kernel, grid: tuple[int, ...], *arguments: object) -> bool:
    """Run the programs of a kernel; says whether they ran."""
    if HAS_TRITON:
        kernel[grid](*arguments, D=D, BLOCK=TILE)
    else:
        print("not run: Triton is not installed")
    return HAS_TRITON


def report(name: str, ours: Tensor, expected: Tensor) -> None:
    """Say that two tensors are the same, or stop."""
    difference = (ours - expected).abs().max().item()
    print(f"{name}: largest difference below 1e-5: {difference < 1e-5}")
    assert difference < 1e-5

# %% [markdown]
# ### Stage 1: one tile of q kᵀ
#
# A program for each tile of queries and each tile of keys. Row i of a head begins at i · D. The mask leaves out the rows
# beyond the last one; zeros stand in for them.

# %%
@jit
def load_rows(x, rows, n, D: tl.constexpr):
    """Rows of x (n, D), zeros where there are none."""
    return tl.load(x + rows[:, None] * D + tl.arange(0, D)[None, :], mask=rows[:, None] < n, other=0.0)


@jit
def scores_kernel(q, k, scores, L, D: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keys = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    tile = tl.dot(load_rows(q, rows, L, D), tl.trans(load_rows(k, keys, L, D)), input_precision="ieee")
    exists = (rows[:, None] < L) & (keys[None, :] < L)
    tl.store(scores + rows[:, None] * L + keys[None, :], tile, mask=exists)

# %% tags=["nbval-ignore-output"]
scores = torch.empty(L, L, device=DEVICE)
if launch(scores_kernel, (n_tiles, n_tiles), q, k, scores, L):
    report("q kᵀ", scores, q @ k.T)

# %% [markdown]
# ### Stage 2: the running softmax
#
# A program for each tile of queries now. It walks over its tiles of keys. `attend_tile` is `attend` of section 3, line
# for line. Nothing of the size L × L is left.

# %%
@jit
def attend_tile(acc, total, peak, q_tile, k, v, keys, n, visible, scale, D: tl.constexpr):
    """Continue a running softmax over a tile of keys."""
    scores = tl.dot(q_tile, tl.trans(load_rows(k, keys, n, D)), input_precision="ieee") * scale
    scores = tl.where(visible, scores, float("-inf"))
    new_peak = tl.maximum(peak, tl.max(scores, 1))
    exps = tl.exp(scores - new_peak[:, None])
    shrink = tl.exp(peak - new_peak)
    acc = acc * shrink[:, None] + tl.dot(exps, load_rows(v, keys, n, D), input_precision="ieee")
    return acc, total * shrink + tl.sum(exps, 1), new_peak


@jit
def store_rows(out, rows, n, tile, D: tl.constexpr):
    """Write those of the rows that exist."""
    tl.store(out + rows[:, None] * D + tl.arange(0, D)[None, :], tile, mask=rows[:, None] < n)


@jit
def full_kernel(q, k, v, out, L, scale, D: tl.constexpr, BLOCK: tl.constexpr):
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    q_tile = load_rows(q, rows, L, D)
    acc = tl.zeros((BLOCK, D), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    peak = total - 1e30
    for start in range(0, first + BLOCK, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        visible = keys[None, :] <= rows[:, None]
        acc, total, peak = attend_tile(acc, total, peak, q_tile, k, v, keys, L, visible, scale, D)
    store_rows(out, rows, L, acc / total[:, None], D)

# %% tags=["nbval-ignore-output"]
scale, full = 1 / math.sqrt(D), torch.empty_like(q)
if launch(full_kernel, (n_tiles,), q, k, v, full, L, scale):
    report("full", full, alone(full_attention, q, k, v))

# %% [markdown]
# ### Stage 3: the chunk first
#
# The same walk in another order: first the tiles with keys of the chunk, then those with keys before it. In between the
# running softmax is `chunk`, at the end it is `full`. Two outputs from one pass.
#
# The last tile has rows that do not exist. They see what the last row sees, so that they never divide zero by zero,
# and are not stored.

# %%
@jit
def both_kernel(q, k, v, chunk, full, L, C, scale, D: tl.constexpr, BLOCK: tl.constexpr):
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    last = tl.minimum(first + BLOCK, L) - 1
    query = tl.minimum(rows, last)
    start_of_chunk = query // C * C
    q_tile = load_rows(q, rows, L, D)
    acc = tl.zeros((BLOCK, D), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    peak = total - 1e30
    for start in range(first // C * C // BLOCK * BLOCK, last + 1, BLOCK):  # from the tile where a chunk begins
        keys = start + tl.arange(0, BLOCK)
        inside = (keys[None, :] >= start_of_chunk[:, None]) & (keys[None, :] <= query[:, None])
        acc, total, peak = attend_tile(acc, total, peak, q_tile, k, v, keys, L, inside, scale, D)
    store_rows(chunk, rows, L, acc / total[:, None], D)
    for start in range(0, last // C * C, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        before = keys[None, :] < start_of_chunk[:, None]
        acc, total, peak = attend_tile(acc, total, peak, q_tile, k, v, keys, L, before, scale, D)
    store_rows(full, rows, L, acc / total[:, None], D)

# %% tags=["nbval-ignore-output"]
chunk, full = torch.empty_like(q), torch.empty_like(q)
if launch(both_kernel, (n_tiles,), q, k, v, chunk, full, L, C, scale):
    report("chunk", chunk, alone(chunked_attention, q, k, v, C))
    report("full ", full, alone(full_attention, q, k, v))

# %% [markdown]
# ### Stage 4: the bank, and λ
#
# The bank comes before the rest and is normalised at once, so that its accumulator can be used again. Each result is
# multiplied with its λ as soon as it is there, and added to `mixed`: the **epilogue**. One output is written, once.

# %%
@jit
def fused_kernel(q, k, v, q_mem, k_mem, v_mem, weights, out, L, C, m, scale, D: tl.constexpr, BLOCK: tl.constexpr):
    first = tl.program_id(0) * BLOCK
    rows = first + tl.arange(0, BLOCK)
    last = tl.minimum(first + BLOCK, L) - 1
    query = tl.minimum(rows, last)
    start_of_chunk = query // C * C

    q_tile = load_rows(q_mem, rows, L, D)
    acc = tl.zeros((BLOCK, D), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    peak = total - 1e30
    for start in range(0, m, BLOCK):
        slots = start + tl.arange(0, BLOCK)
        exists = slots[None, :] < m
        acc, total, peak = attend_tile(acc, total, peak, q_tile, k_mem, v_mem, slots, m, exists, scale, D)
    mixed = acc * (tl.load(weights + 2) / total)[:, None]

    q_tile = load_rows(q, rows, L, D)
    acc = tl.zeros((BLOCK, D), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    peak = total - 1e30
    for start in range(first // C * C // BLOCK * BLOCK, last + 1, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        inside = (keys[None, :] >= start_of_chunk[:, None]) & (keys[None, :] <= query[:, None])
        acc, total, peak = attend_tile(acc, total, peak, q_tile, k, v, keys, L, inside, scale, D)
    mixed += acc * (tl.load(weights + 1) / total)[:, None]

    for start in range(0, last // C * C, BLOCK):
        keys = start + tl.arange(0, BLOCK)
        before = keys[None, :] < start_of_chunk[:, None]
        acc, total, peak = attend_tile(acc, total, peak, q_tile, k, v, keys, L, before, scale, D)
    mixed += acc * (tl.load(weights) / total)[:, None]
    store_rows(out, rows, L, mixed, D)

# %% tags=["nbval-ignore-output"]
out = torch.empty_like(q)
if launch(fused_kernel, (n_tiles,), *inputs, out, L, C, m, scale):
    report("all at once, beside eager               ", out, by_definition(*inputs, C))
    heads = [x[None, None] for x in inputs[:-1]]
    package = hybrid_attention(*heads, weights, chunk_size=C, backend="triton")[0, 0]
    report("all at once, beside the package's kernel", out, package)

# %% [markdown]
# That is the kernel. Open `kernels/triton_forward.py` now: `attend`, `add_path`, `attend_bank`, `attend_segment` and
# `forward_kernel` are these stages, with these things more:
#
# - a second axis of the grid, for the heads of the batch; strides, and λ for each stream; the tiles with most keys begin
#   first;
# - fewer queries than keys, for a cache: `offset` is the position of the first query;
# - any of the paths may be missing. A path's place is the number of paths before it: that of chunk is `FULL`, 0 or 1,
#   and that of the bank `FULL + CHUNK`;
# - widths that are no power of two are filled up to `BLOCK_D`;
# - powers of two in place of powers of e: one instruction less for each score. Log-sum-exps are to base 2 too;
# - RoPE can be applied to queries and keys as they are loaded. Then q is read once for all three paths (`SHARED`);
# - numbers of half precision are multiplied as they are, and summed in float32. On a GPU **tensor cores** do products, and
#   round float32 to 10 bits of fraction (TF32). So a float32 is split, and multiplied as three such products (`tf32x3`);
# - a row that has seen nothing, as with an empty bank, adds zeros (`add_path`);
# - the log-sum-exp of each row and path is stored, for the way back. Its table is filled up to a multiple of 128 rows
#   (`TABLE_ROWS`) with 10³⁰, whose shares are zero, so that a tile of it is read without a mask;
# - tiles that no mask cuts are told apart, and not masked.
#
# The last one makes four loops of two. `key_ranges` in `triton_tiles.py` says where each begins. Two tiles of 16 queries,
# one in a chunk of 32, one cut by the border of chunks of 20:

# %%
@jit
def ranges_kernel(found, first, last, C, D: tl.constexpr, BLOCK: tl.constexpr):
    before, whole, start_of_last = key_ranges(first, last, C, BLOCK)
    tl.store(found, before)
    tl.store(found + 1, whole)
    tl.store(found + 2, start_of_last)

# %% tags=["nbval-ignore-output"]
found = torch.zeros(3, dtype=torch.int32, device=DEVICE)
for first, last, C_of_case, expected in ((48, 63, 32, [32, 48, 32]), (16, 31, 20, [0, 0, 20])):
    if launch(ranges_kernel, (1,), found, first, last, C_of_case):
        before, whole, start_of_last = found.tolist()
        print(f"queries [{first}, {last + 1}), C = {C_of_case}. In the chunk: keys [{before}, {whole}) without a mask, "
              f"[{whole}, {last + 1}) with one. Before it: [0, {before}) without, [{before}, {start_of_last}) with one.")
        assert found.tolist() == expected

# %% [markdown]
# The second number of a range is not in it, so [0, 0) is empty. With C = 20 the keys 0 to 19 are in the chunk of queries
# 16 to 19, and before that of the other twelve. So they are looked at for either, masked.

# %% [markdown] tags=["instructor"]
# **The kernel.** Put the PyTorch loop and the fourth kernel side by side and let the room match lines. Do not explain
# addresses; "row i begins at i · D" is enough.
#
# Let somebody put `print("keys", start, total)` into a loop and run two cells. It is the best argument for an
# interpreter. In a compiled kernel the same has to be `tl.device_print`.
#
# **Ask:** "Why bank, chunk, before, and not the other way round?" (Chunk has to come before full, or full would have to
# be taken apart again. And the bank, in whatever place, needs an accumulator of its own; done first and normalised at
# once, it leaves one that is alive, and `mixed`. Registers are what is short: section 9.)

# %% [markdown]
# ## 7 The way back
#
# A kernel that keeps no scores has none when the gradient comes. It computes them again, tile by tile.

# %%
predict(
    "08.kept",
    "The way back wants the shares of a path again, from the scores and without another running softmax. What has to be "
    "kept of the way forward, for each row and path?",
    ["all shares of the row", "the output of the path", "one number"],
)

# %% [markdown]
# A small case in float64: 8 tokens in chunks of 4, 3 slots. The way forward, and what is kept of it:

# %%
torch.manual_seed(4)
L, C, m, D = 8, 4, 3, 4
q, k, v, q_mem = torch.randn(4, L, D, dtype=torch.float64).unbind()
k_mem, v_mem = torch.randn(2, m, D, dtype=torch.float64).unbind()
weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
query, key = torch.arange(L)[:, None], torch.arange(L)[None, :]
visible = torch.stack([key <= query, (key <= query) & (key >= query // C * C)])  # of full and of chunk

scores, scores_mem = q @ k.T / math.sqrt(D), q_mem @ k_mem.T / math.sqrt(D)
log_sums = scores.masked_fill(~visible, -math.inf).logsumexp(dim=-1)  # (2, L)
log_sum_mem = scores_mem.logsumexp(dim=-1)
shares = torch.exp(scores - log_sums[..., None]) * visible  # (2, L, L)
shares_mem = torch.exp(scores_mem - log_sum_mem[:, None])
print("kept:", tuple(log_sums.shape), "for full and chunk")
print("each row of shares sums to 1:", torch.allclose(shares.sum(-1), torch.ones_like(log_sums)))
assert torch.allclose(shares.sum(-1), torch.ones_like(log_sums)) and log_sums.numel() == 2 * L
reveal("08.kept", "one number", "The log-sum-exp: a share is exp(score − log-sum-exp).")

# %% [markdown]
# P<sub>p</sub> are the shares of path p, and O = Σ λ<sub>p</sub> P<sub>p</sub> v is the output. dO is the gradient that
# arrives at O. One step back, at the shares of path p, it is λ<sub>p</sub> dP. **dP = dO vᵀ** says, for each pair, how
# much the loss would rise if the weighted share λ<sub>p</sub> P<sub>p</sub> grew. It is the same dP for full and for
# chunk.
#
# One step further, through the softmax: a share that grows takes from the others of its row. So what counts is not dP
# but how far it lies above the row's mean **D<sub>p</sub>**, the sum of P<sub>p</sub> ∘ dP over the keys (with its index;
# D alone stays the width of a head):
#
# **dS = Σ λ<sub>p</sub> P<sub>p</sub> ∘ (dP − D<sub>p</sub>)**
#
# dS is the gradient at the scores, and ∘ multiplies number by number. The sum is over the paths that share the scores. By hand, one row, two keys, one path, λ = 1: P = (¾, ¼), dP = (4, 0), so
# D<sub>p</sub> = 3 and dS = (¾ · 1, ¼ · −3) = (¾, −¾). What one score gains the other loses.
#
# **Exercise 2** ●●○ 13 minutes. The gradient of the scores that several paths share, for S keys.
#
# <details><summary>Hint 1</summary>First dP (L, S), which has no path in it. Then D<sub>p</sub>, a number for each
# path and row.</details>
# <details><summary>Hint 2</summary><code>shares * d_shares</code> is (P, L, S). Its sum over the keys, with
# <code>keepdim=True</code>, is D<sub>p</sub> (P, L, 1).</details>
# <details><summary>Hint 3</summary>λ meets the paths as <code>weights[:, None, None]</code>. Sum over the paths last,
# <code>dim=0</code>.</details>

# %% tags=["exercise"]
def score_gradient(shares: Tensor, weights: Tensor, d_out: Tensor, v: Tensor) -> Tensor:
    """dS (L, S) from shares (P, L, S), λ (P,), the gradient of the output d_out (L, d_h), and v (S, d_h)."""
    # BEGIN SOLUTION
    d_shares = d_out @ v.T
    means = (shares * d_shares).sum(dim=-1, keepdim=True)
    return (weights[:, None, None] * shares * (d_shares - means)).sum(dim=0)
    # END SOLUTION

# %%
score_gradient = check("08.score_gradient", score_gradient, otherwise=parts.score_gradient)
by_hand = score_gradient(
    torch.tensor([[[0.75, 0.25]]]), torch.ones(1), torch.tensor([[1.0]]), torch.tensor([[4.0], [0.0]])
)
assert by_hand.tolist() == [[0.75, -0.75]]

# %% [markdown]
# The rest is products of matrices. And λ? The output is a sum with the weights λ<sub>p</sub>, so dλ<sub>p</sub> is dO
# times the output of path p, summed over everything. For one row that is dO · (P<sub>p</sub> v), the sum of
# P<sub>p</sub> ∘ dP: it is D<sub>p</sub> once more. **dλ<sub>p</sub> = Σ D<sub>p</sub>**, over the rows. All seven
# gradients:

# %%
d_out = torch.randn(L, D, dtype=torch.float64)
d_scores = score_gradient(shares, weights[:2], d_out, v)
d_scores_mem = score_gradient(shares_mem[None], weights[2:], d_out, v_mem)
means = (shares * (d_out @ v.T)).sum(dim=-1)  # D_p of full and of chunk, (2, L)
mean_mem = (shares_mem * (d_out @ v_mem.T)).sum(dim=-1)
ours = {
    "q": d_scores @ k / math.sqrt(D),
    "k": d_scores.T @ q / math.sqrt(D),
    "v": (weights[:2, None, None] * shares).sum(dim=0).T @ d_out,
    "q_mem": d_scores_mem @ k_mem / math.sqrt(D),
    "k_mem": d_scores_mem.T @ q_mem / math.sqrt(D),
    "v_mem": weights[2] * shares_mem.T @ d_out,
    "λ": torch.stack([*means.sum(dim=1), mean_mem.sum()]),
}

# %%
leaves = [x.clone().requires_grad_() for x in (q, k, v, q_mem, k_mem, v_mem, weights)]
by_autograd = torch.autograd.grad((by_definition(*leaves, C) * d_out).sum(), leaves)
same = {name: torch.allclose(gradient, expected, rtol=0, atol=1e-12)
        for (name, gradient), expected in zip(ours.items(), by_autograd, strict=True)}
for name, is_same in same.items():
    print(f"gradient of {name:5} as autograd has it: {is_same}")
assert all(same.values())

# %% [markdown]
# Two more identities, and you can read `kernels/triton_dq.py`. First: inside the chunk the shares of full need no exp of
# their own. They are those of the chunk times ρ = exp(log-sum-exp of chunk − log-sum-exp of full), one number a row.

# %%
ρ = torch.exp(log_sums[1] - log_sums[0])
print("inside the chunk full is ρ times chunk:", torch.allclose(shares[0] * visible[1], ρ[:, None] * shares[1]))
print("ρ:", ρ)
assert torch.allclose(shares[0] * visible[1], ρ[:, None] * shares[1])
assert torch.allclose(ρ[:C], torch.ones_like(ρ[:C])) and ρ[C:].max() < 1

# %% [markdown]
# In the first chunk ρ is 1: nothing lies before it, and full is chunk.
#
# Then one exp and one product do for a tile inside the chunk: P ∘ (**gain** dP − **pull**), with P of the chunk, and a
# gain and a pull for each row that hold both paths. In `triton_dq.py` D<sub>p</sub> is `mean`, and ρ is `part`.

# %%
dP, outside = d_out @ v.T, visible[0] & ~visible[1]
gain = weights[1] + ρ * weights[0]
pull = weights[1] * means[1] + ρ * weights[0] * means[0]
in_the_chunk = shares[1] * (gain[:, None] * dP - pull[:, None])
before_it = outside * shares[0] * weights[0] * (dP - means[0][:, None])
print("one gain and one pull a row give dS:", torch.allclose(in_the_chunk + before_it, d_scores))
assert torch.allclose(in_the_chunk + before_it, d_scores)

# %% [markdown]
# Second: D<sub>p</sub> is needed before the first product, and no path's own output was kept. But Σ λ<sub>p</sub>
# D<sub>p</sub> is the sum of dO ∘ O over a row, and O is there. So λ<sub>full</sub> D<sub>full</sub>, which is all that dS
# wants, follows from the two others. The kernel looks twice at the keys of the bank and of the chunk, which are few, and
# once at all the others. D<sub>full</sub> itself, for the gradient of its λ, is summed along the way.

# %%
out = by_definition(q, k, v, q_mem, k_mem, v_mem, weights, C)
mixed_means = weights[0] * means[0] + weights[1] * means[1] + weights[2] * mean_mem
print("the sum of all λ_p D_p is the row's sum of dO ∘ O:", torch.allclose(mixed_means, (d_out * out).sum(dim=-1)))
assert torch.allclose(mixed_means, (d_out * out).sum(dim=-1))

# %% [markdown]
# This was one half: `triton_dq.py` owns a tile of queries. It has dq, and leaves D<sub>p</sub> of each row (`means`); their
# sum over the rows, which torch adds up (`run_backward`), is dλ<sub>p</sub>. dk and dv are sums over queries. Were they
# added up in the same kernel, many programs would write to one place. So there is a second kernel, in `triton_dkv.py`. It
# runs after the first, owns a tile of keys, and walks over the rows of queries that see it. Its `row_ranges` cuts these
# rows into four:
#
# 1. rows that see **some keys** of the tile: a mask;
# 2. rows that see **all** of them, **in their own chunk**: no mask, gain and pull;
# 3. rows of **either kind**: a key may be in the chunk of one row and before that of another;
# 4. rows of **later chunks**: the shares are those of full alone.
#
# Rows in tiles of 16, 64 tokens. First the keys 0 to 15 in chunks of 48, then the keys 16 to 31 in chunks of 20:

# %%
@jit
def rows_kernel(found, first_key, last_key, L, C, D: tl.constexpr, BLOCK: tl.constexpr):
    first, all_seen, inside, outside = row_ranges(first_key, last_key, L, L, C, BLOCK)
    tl.store(found, first)
    tl.store(found + 1, all_seen)
    tl.store(found + 2, inside)
    tl.store(found + 3, outside)

# %% tags=["nbval-ignore-output"]
found = torch.zeros(4, dtype=torch.int32, device=DEVICE)
kinds = ("some keys", "all, own chunk", "either kind", "later chunks")
for first_key, last_key, C_of_case, expected in ((0, 15, 48, [0, 16, 48, 48]), (16, 31, 20, [16, 32, 32, 48])):
    if launch(rows_kernel, (1,), found, first_key, last_key, 64, C_of_case):
        borders = [*found.tolist(), 64]
        print(f"keys [{first_key}, {last_key + 1}), C = {C_of_case}: rows",
              ", ".join(f"[{low}, {high}) {kind}" for kind, low, high in zip(kinds, borders, borders[1:], strict=False)))
        assert found.tolist() == expected

# %% [markdown]
# The keys 16 to 31 in chunks of 20 lie in two chunks, so no row has all of them in its own. The kernel begins with the
# fourth kind: λ<sub>full</sub>, one number, multiplies that sum once, after the loop. So it goes for the bank, whose keys
# every row sees, with λ<sub>memory</sub>. With the names of the code:
#
# | in `triton_dkv.py` | is |
# |---|---|
# | `powers`, `shares` | scores less the log-sum-exp, to base 2; P<sub>p</sub>. Keys by queries, as everything there |
# | `log_sum`, `mean` | the log-sum-exp of a row and its D<sub>p</sub>; of full: `log_full`, `mean_full` |
# | `d_shares` | dP, before gain |
# | `part` | λ<sub>full</sub> ρ |
# | `gain`, `pull` | those of above, a number a row; before the chunk λ<sub>full</sub> and λ<sub>full</sub> D<sub>full</sub> |
# | `weighted` | Σ λ<sub>p</sub> P<sub>p</sub>, which with dO makes dv |
# | `d_scores` | dS, which with q makes dk; without λ where one number multiplies the sum |
# | `scale`, `d_scale` | log₂ e / √d_h; 1 / √d_h |
# | `rotate(…, -1.0, …)` | RoPE on load: the gradient of turned keys is turned back |
#
# The price of the way back, at the large size:

# %%
back = {way: count(way, LARGE).backward for way in ("sdpa", "triton", "causal")}
for way, cost in back.items():
    print(f"{way:6} {cost.flops / 1e9:4.0f} GFLOP, {cost.bytes / 1e9:.2f} GB")
more_flops, of_bytes = (getattr(back["triton"], name) / getattr(back["sdpa"], name) for name in Cost._fields)
print(f"all at once beside three calls of torch: {more_flops:.2f} times the operations, {of_bytes:.2f} of the bytes")
price = least_seconds(back["triton"]) / least_seconds(back["causal"])
least = {way: least_seconds(costs[way]) + least_seconds(back[way]) for way in ("triton", "causal")}
price_of_both = least["triton"] / least["causal"]
print(f"least time beside full alone: {price:.2f} back, {price_of_both:.2f} forward and back")
assert 1.3 < more_flops < 1.36 and 0.23 < of_bytes < 0.26 and 1.5 < price < 1.6 and 1.4 < price_of_both < 1.44

# %% [markdown]
# Back, by the roof and at this size, the price is half as much again, at the least. Two kernels compute the scores, the
# first one those of the chunk and the bank twice. Against three calls of torch it is a third more operations, and a
# quarter of the bytes.
#
# Forward and back together have a bar, set before anything was measured: at most 1.5 times the time of full attention
# alone. The aim is 1.35. By the roof it is 1.42: there is room below the bar, and the aim asks of the kernel to come
# nearer to its roof than full attention alone comes to its own.

# %% [markdown] tags=["instructor"]
# **The way back.** The mistake worth waiting for is one D for all paths, the row's sum of dO ∘ O: everybody writes it who
# knows the backward of FlashAttention by heart. The check says so.
#
# **Ask:** "Why does each row of dS sum to zero?" (Adding a number to all scores of a row changes nothing.)

# %% [markdown]
# ## 8 The package's backends
#
# `hybrid_attention` has one signature and four implementations, its backends.
#
# | backend | how | where |
# |---|---|---|
# | `eager` | every softmax written out; the reference | anywhere, any dtype |
# | `sdpa` | three calls of torch's fused attention, chunks folded into the heads | anywhere, any dtype |
# | `flex` | one launch of FlexAttention, a head for each path | CUDA; on a CPU slowly, and without gradients |
# | `triton` | one kernel forward, two backward | CUDA; float32, float16, bfloat16; d_h up to 128 |
#
# What `auto` takes, by the first line that fits:
#
# | tensors | takes | because |
# |---|---|---|
# | on a CPU, or a Mac's GPU | `sdpa` | Triton has no compiler for them; FlexAttention has no backward there |
# | on CUDA, without Triton | `sdpa` | there is nothing to compile the kernels with |
# | on CUDA, float64, heads wider than 128, or more than 65,535 of them in a batch | `sdpa` | the kernels do not take them |
# | on CUDA, float32 | `sdpa` | right, but not fast: three products of tensor cores for one, in small tiles |
# | on CUDA, float16 and bfloat16 | `triton` | this notebook |

# %%
print("auto, on a CPU:", suited(torch.zeros(1, 1, 1, 16)))
assert suited(torch.zeros(1, 1, 1, 16)) == "sdpa"

# %% [markdown]
# They are one function, so they must give the same numbers: the output, and the gradients of q, k, v, of the bank's
# three and of λ. How close is published in `kernels/limits.py`: the largest difference of a tensor from float64 on the
# same, rounded inputs, relative to the tensor's largest number where that is above one. 45 tokens in chunks of 12, 10
# slots, two heads:

# %%
def results(tensors: list[Tensor], dtype: torch.dtype, backend: str) -> list[Tensor]:
    """The output, and where the backend has them the gradients of all seven inputs, in float64."""
    has_backward = backend != "flex" or DEVICE == "cuda"
    leaves = [x.to(dtype).requires_grad_(has_backward) for x in tensors]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a CPU torch warns that FlexAttention is not compiled
        output = hybrid_attention(*leaves, chunk_size=12, backend=backend)
    found = [output]
    if has_backward:
        rounded = torch.linspace(-1, 1, output.numel(), device=DEVICE).to(tensors[0].dtype)
        direction = rounded.to(dtype).view(output.shape)
        found += torch.autograd.grad((output * direction).sum(), leaves)
    return [x.detach().double() for x in found]


def furthest(backend: str, dtype: torch.dtype) -> tuple[float, int]:
    """The largest difference from float64 of any tensor, as the tolerance counts it; how many tensors there are."""
    torch.manual_seed(5)
    sizes = [(1, 2, rows, 16) for rows in (45, 45, 45, 45, 10, 10)] + [(3,)]
    rounded = [torch.randn(size).to(DEVICE, dtype) for size in sizes]
    expected = results(rounded, torch.float64, "eager")
    ours = results(rounded, dtype, backend)
    gaps = [(one - other).abs().max() / other.abs().max().clamp(min=1)
            for one, other in zip(ours, expected, strict=False)]
    return max(gaps).item(), len(ours)

# %% tags=["nbval-ignore-output"]
for backend in ("eager", "sdpa", "flex", *(["triton"] if HAS_TRITON else [])):
    for dtype in (torch.float32, torch.float16):
        gap, tensors = furthest(backend, dtype)
        print(f"{backend:6} {str(dtype)[6:]}: {tensors} tensors, furthest {gap:.0e}, allowed {TOLERANCES[dtype]:.0e}")
        assert gap < TOLERANCES[dtype] and tensors == (1 if backend == "flex" and DEVICE == "cpu" else 8)

# %% [markdown]
# One tensor of `flex` on a CPU is the output: who asks for its gradients there is told to take `sdpa`. In float32 the
# tests draw sizes at random: every choice of paths, ragged lengths, banks without a slot (`test_kernels_triton.py`). In
# float16 they take a few fixed sizes. With a GPU they run the kernels compiled, elsewhere in the interpreter.
# bfloat16 is tested on a GPU only. Triton's interpreter gets its arithmetic wrong, so the backend refuses it there.

# %% [markdown]
# ## 9 The size of a tile
#
# Large tiles read less. Every tile of queries reads the keys again, so half as many tiles read half as much. But a tile
# lives in registers and in **shared memory**, and of these a **multiprocessor** has only so many. An H100 has 132
# multiprocessors, each with 65,536 registers, at most 255 of them for a thread, and with 228 KB of shared memory
# (NVIDIA's data sheet of the H100, and its CUDA programming guide, compute capability 9.0; the H200's multiprocessors are
# the same). As many programs as fit run on it side by side; while one waits for memory, another computes. How many that
# is, is the **occupancy**.
#
# A **warp** is 32 threads that step together; a program's numbers are spread over the threads of its warps. **Stages**
# are the tiles of keys that are on their way, or worked on, at a time. Move the sliders: forward, bfloat16, the large
# size of section 1. **Compulsory** is what remains where each tensor is read and written once. What fits is an estimate,
# fitted to what Triton's compiler says of 21 choices, or what it said itself where a sweep of choices is stored. Orange is
# what there is too little of for one program more.

# %%
benchmarks = {file.stem: json.loads(file.read_text()) for file in sorted((data() / "benchmarks").glob("*.json"))}
sweeps = [(case, result["device"]) for result in benchmarks.values() for case in result["cases"]
          if (case["part"], case["name"]) == ("tiles", LONG)]
sizes = TileSizes(*(sweeps[0] if sweeps else ()))
size_explorer = Explorer(
    sizes,
    title="What a tile costs; the programs of an H100's multiprocessor",
    queries=SelectionSlider(options=(16, 32, 64, 128, 256), value=128, description="queries"),
    keys=SelectionSlider(options=(16, 32, 64, 128), value=64, description="keys"),
    warps=SelectionSlider(options=(4, 8), value=8, description="warps"),
    stages=IntSlider(3, 1, 4, description="stages"),
)
size_explorer

# %% [markdown]
# **Try.** Halve the queries, and see what becomes of the bytes. Then take 4 warps for 128 queries: half as many threads
# share the tile, and each would need more registers than it can have. What does not fit is **spilled**: kept in memory,
# which is slow. Two programs fit only because of that.

# %%
print(size_explorer.set())
asked, room = sizes.cost.bytes, sizes.occupancy
assert room.programs == 1 and room.limit == "registers" and 4 <= asked / sizes.compulsory.bytes < 4.2
print(size_explorer.set(queries=64))
assert 1.7 < sizes.cost.bytes / asked < 2
print(size_explorer.set(warps=4))
assert estimate(Choice(128, 64, 4, 3), width=64).registers > H100.registers_per_thread
assert sizes.spilled or sizes.seconds  # what was compiled may differ from the estimate
print(size_explorer.set(queries=16, keys=32, warps=4, stages=2))
assert sizes.occupancy.programs == 4 and 27 <= sizes.cost.bytes / sizes.compulsory.bytes < 28
assert sizes.occupancy == estimate(Choice(16, 32, 4, 2), width=64)
assert not HAS_TRITON or (len(triton_launch.FORWARD_TILES[2]) == 5 and (128, 64, 8, 3) in triton_launch.FORWARD_TILES[2])
print(size_explorer.set())

# %% [markdown]
# No formula knows the best one: it depends on what waits for what. For numbers of two bytes the package lets Triton try
# five choices for this kernel, and keeps the fastest: at the first call with a head width, a dtype and a length, lengths
# taken up to the next power of two. The sliders began with one of them. `python -m rmat_tutorial bench --device cuda`
# times many more; the widget then says each time.

# %%
for sweep, device in sweeps:
    ran = sorted((one for one in sweep["choices"] if "seconds" in one), key=lambda one: median(one["seconds"]))
    for one in ran[:3]:
        slower = median(one["seconds"]) / median(ran[0]["seconds"])
        print(f"{device}: {one['queries']} by {one['keys']}, {one['warps']} warps: {slower:.2f} times the fastest")
print("sweeps stored:", len(sweeps))

# %% [markdown] tags=["instructor"]
# **The widget.** Take 16 by 32 with 4 warps: four programs, and 27 times the bytes that are compulsory. Then 128 by 64
# with 8: one program, four times. **Ask:** "More programs are better, are they not?" (They hide waiting. Larger tiles
# wait less. Which is faster has to be measured.)

# %% [markdown]
# ## 10 Segments come one after the other
#
# However fast a kernel is, a segment waits for the bank that the segment before it has written. N layers read S segments
# in N · S steps, and a step has the work of one segment in one layer. With small segments a GPU is done with it before
# the next is launched.
#
# Must they wait so long? A layer needs of a segment what the layer below made of it, and its own bank after the segment
# before. Nothing else. Two layers, three segments, and the earliest step of each:

# %%
def earliest(layers: int, segments: int) -> Tensor:
    """The first step in which each layer can read each segment, (N, S)."""
    step = torch.zeros(layers, segments, dtype=torch.int64)
    for layer in range(layers):
        for segment in range(segments):
            below = step[layer - 1, segment] + 1 if layer else 0
            bank = step[layer, segment - 1] + 1 if segment else 0
            step[layer, segment] = max(below, bank)
    return step


print(earliest(2, 3))
assert earliest(2, 3).tolist() == [[0, 1, 2], [1, 2, 3]]

# %% [markdown]
# Six pairs in four steps. In step 1 layer 0 reads segment 1 while layer 1 reads segment 0: each knows all that it needs.
# What may run together lies on a diagonal, and the diagonal moves over the stream like a front. Look at how far the
# numbers go on the left, and on the right. Framed is what is done in step 5: one pair on the left, four on the right.

# %%
N, S = 4, 8
plain = torch.arange(S)[None, :] * N + torch.arange(N)[:, None]
figure, axes = plt.subplots(1, 2, figsize=(11, 3.4))
for ax, steps_taken, title in zip(axes, (plain, earliest(N, S)), ("one after the other", "as early as can be"), strict=True):
    ax.imshow(steps_taken, cmap="viridis", vmin=0, vmax=N * S - 1, aspect="auto")
    for layer in range(N):
        for segment in range(S):
            number = int(steps_taken[layer, segment])
            ax.text(segment, layer, number, ha="center", va="center", color="white" if number < 18 else "black")
            if number == 5:
                corner = (segment - 0.5, layer - 0.5)
                ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor="white", linewidth=3))
    ax.set(title=title, xlabel="segment", ylabel="layer", xticks=range(S), yticks=range(N), ylim=(-0.5, N - 0.5))
    ax.grid(False)
show(figure, "Two grids of four layers by eight segments, a number in each field: the step in which it is computed. Left 0 "
     "to 31, upwards through each segment. Right 0 to 10, equal along diagonals.")
print("steps:", int(plain.max()) + 1, "and", int(earliest(N, S).max()) + 1)
assert (int(plain.max()) + 1, int(earliest(N, S).max()) + 1) == (N * S, S + N - 1)

# %%
predict(
    "08.steps",
    "8 layers and 32 segments, 256 pairs. How many steps are there along the diagonals?",
    ["32", "39", "64", "128"],
)

# %%
most = int(earliest(8, 32).max()) + 1
reveal("08.steps", str(most), f"{most} = S + N − 1: one a segment, and the front has to climb 7 layers once.")
assert most == 39

# %% [markdown]
# This is the **wavefront** (`wavefront.py`). The layers of a diagonal stand side by side in the batch, and each row is
# multiplied with the matrices of its own layer. It is an order and no approximation: up to rounding the logits are
# the same, and so are the gradients. A model takes it when it is told to: `model.order = "wavefront"`.

# %%
torch.manual_seed(6)
model = RMAT(RMATConfig(vocab_size=50, d_model=32, n_heads=2, n_layers=8, segment_len=16, chunk_size=4, memory_slots=8,
                        write_slots=4, gate="hard")).double()
stream = torch.randint(50, (2, 32 * 16))


class Launches(TorchDispatchMode):
    """Counts what torch computes, views aside: on a GPU, about what is launched."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.number += not function.is_view and function is not torch.ops.aten._unsafe_view.default
        return function(*args, **(kwargs or {}))


logits, gradients, launches = {}, {}, {}
for order in ("segments", "wavefront"):
    model.order = order
    model.zero_grad()
    with Launches() as counter:
        logits[order] = model(stream).logits
    logits[order].square().mean().backward()
    gradients[order] = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    launches[order] = counter.number
same = torch.allclose(logits["segments"], logits["wavefront"], rtol=0, atol=1e-10)
same_gradients = all(torch.allclose(one, other, rtol=0, atol=1e-10) for one, other in zip(*gradients.values(), strict=True))
print(f"the same logits: {same}; the same gradients, of {len(gradients['segments'])} parameters: {same_gradients}")
print(f"{launches['segments'] / launches['wavefront']:.1f} times fewer operations are launched")
assert same and same_gradients and len(gradients["segments"]) > 100
assert 5.5 < launches["segments"] / launches["wavefront"] < 256 / 39

# %% [markdown]
# Not quite 256 / 39 = 6.6 times fewer: rows have to be put together and taken apart.
#
# What is left can be launched at once. A **CUDA graph** records all launches of a piece of a stream, or of a whole training
# window forward and backward, and replays them as one (`graphs.py`; `train --order wavefront --graphs`). What it may contain is limited: fixed addresses, fixed
# shapes, and nothing that waits for the GPU. So tokens and state are checked before, and copied into place.
#
# Does it pay? That has to be measured where launches are what one waits for. `python -m rmat_tutorial bench --device
# cuda` does: the loop, the wavefront, the graph, and both. On a CPU a launch costs little beside the work of a segment,
# and there are no graphs. Tokens a second over those of the loop, for each device with a file:

# %%
for result in benchmarks.values():
    for case in (case for case in result["cases"] if case["part"] == "recurrence"):
        found = {way: one["ratio"]["median"] if "ratio" in one else one["reason"] for way, one in case["models"].items()}
        said = ", ".join(f"{way} {gain if isinstance(gain, str) else f'{gain:.2f}'}" for way, gain in found.items())
        print(f"{result['device']}, {case['name']}: {said}")
gpus = [result["device"] for result in benchmarks.values() if result["kind"] == "cuda"]
print("GPUs with a file:", ", ".join(gpus) or "none yet")

# %% [markdown] tags=["instructor"]
# **The front.** Let the room fill the grid of 2 by 3 on the board before the cell. **Ask:** "Why does a recurrent network
# over tokens not gain as much?" (It does the same; but here a step is a segment, large enough to be worth a launch, and
# there are few of them.) "And full attention?" (It has nothing to wait for: all tokens at once. That is what the bank
# costs.)

# %% [markdown]
# ## 11 What torch.compile does by itself
#
# Could a compiler do all this? `torch.compile` writes down the operations of a function, as another kind of
# graph, and makes kernels of it. Give it `eager`, and look at the graph before kernels are made of it. A product of matrices is
# called `bmm` there. By hand there are six forward: q kᵀ and P v, for each path. (`aot_autograd` writes forward and backward
# into one graph, and `partition_fn` cuts it in two.)

# %%
predict(
    "08.products",
    "torch.compile reads `eager`, forward and backward. How many products of matrices does its forward graph have?",
    ["3", "5", "6", "7"],
)

# %%
graphs: dict[str, Counter[str]] = {}


def looking(direction: str) -> Callable[[GraphModule, Sequence[Tensor]], Callable]:
    """A compiler that makes nothing new of a graph, and counts its operations."""

    def compiler(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable:
        graphs[direction] = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph.forward)

    return compiler


look = aot_autograd(fw_compiler=looking("forward"), bw_compiler=looking("backward"),
                    partition_fn=min_cut_rematerialization_partition)
torch.compiler.reset()
torch.manual_seed(7)
tensors = [torch.randn(1, 2, rows, 16, requires_grad=True) for rows in (64, 64, 64, 64, 8, 8)]
shares = torch.full((3,), 1 / 3, requires_grad=True)
torch.compile(resolve_backend("eager"), backend=look)(*tensors, shares, 16, PATHS).sum().backward()
for direction, operations in graphs.items():
    print(f"{direction:8} {operations.total():3} operations, {operations['aten.bmm.default']:2} products of matrices")
products = graphs["forward"]["aten.bmm.default"]
reveal("08.products", str(products),
       f"{products}: the scores of the chunk are those of the segment, and it has noticed.")
assert (products, graphs["backward"]["aten.bmm.default"]) == (5, 12)

# %% [markdown]
# It has found what section 1 found: the same q, the same k, one product. On the way back there are twelve, two for each of
# six: the scores that were computed once go back as two. What stands between two products, masks and
# exponents and sums, it makes into a few loops. But a product is a wall. It is a call to a library that takes whole
# matrices from memory and puts whole matrices back, so the scores, L by L, still go out and come in again. To keep a
# tile of them where it is computed, the softmax has to run while the keys still come. No rule about whole matrices
# says that this gives the same. Section 3 did, with a rescaling. So the compiler has a list of patterns
# (`torch/_inductor/fx_passes/fuse_attention.py`), and counts the attentions that it replaces by SDPA. Four functions for
# it to look at: one attention, written with `torch.softmax`; one whose softmax is written out; two softmaxes over one set
# of scores; `eager`.

# %%
def one_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.transpose(-2, -1) / 4.0, dim=-1) @ v


def one_written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    raised = torch.exp(q @ k.transpose(-2, -1) / 4.0)
    return raised / raised.sum(dim=-1, keepdim=True) @ v


def two_softmaxes(q: Tensor, k: Tensor, v: Tensor, inside: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) / 4.0
    return torch.softmax(scores, dim=-1) @ v + torch.softmax(scores + inside, dim=-1) @ v


def replacing(joint: GraphModule, inputs: Sequence[Tensor], **options: object) -> tuple[GraphModule, GraphModule]:
    """What the compiler does to the graph of forward and backward together, before it is cut in two."""
    joint_graph_passes(joint)
    return min_cut_rematerialization_partition(joint, inputs, **options)


look = aot_autograd(fw_compiler=looking("forward"), bw_compiler=looking("backward"), partition_fn=replacing,
                    decompositions=select_decomp_table())
chunk_of = torch.arange(64) // 16
in_one_chunk = torch.zeros(64, 64).masked_fill(chunk_of[:, None] != chunk_of, -math.inf)
replaced = {}
for name, function, arguments in (
    ("one attention", one_attention, tensors[:3]),
    ("one, written out", one_written_out, tensors[:3]),
    ("two softmaxes", two_softmaxes, [*tensors[:3], in_one_chunk]),
    ("eager", resolve_backend("eager"), [*tensors, shares, 16, PATHS]),
):
    torch.compiler.reset()
    counters.clear()
    torch.compile(function, backend=look)(*arguments).sum().backward()
    replaced[name] = counters["inductor"]["fuse_attention"] > 0
    print(f"{name}: {'replaced' if replaced[name] else 'left as it is'}")
assert replaced == {"one attention": True, "one, written out": False, "two softmaxes": False, "eager": False}

# %% [markdown]
# A list has what somebody wrote into it. The same attention with its softmax written out is not on it, nor are two
# softmaxes over one set of scores. `eager` has both. That is why this notebook has a kernel. What the compiler gains with `eager` and with `sdpa`, section 12 has measured.
#
# And the segments? Look at how the graph grows.

# %%
torch._logging.set_logs(dynamo=logging.ERROR)
small = RMAT(RMATConfig(vocab_size=50, d_model=16, n_heads=2, n_layers=1, segment_len=16, chunk_size=4, memory_slots=4,
                        write_slots=2))
sizes_of_graphs = {}
for segments in (1, 2, 4):
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = torch._dynamo.explain(small)(torch.zeros(1, 16 * segments, dtype=torch.int64))
    sizes_of_graphs[segments] = seen.op_count
    print(f"{segments} segments: operations of each graph", [len(graph) for graph in seen.ops_per_graph])
assert sizes_of_graphs[4] - sizes_of_graphs[2] == 2 * (sizes_of_graphs[2] - sizes_of_graphs[1]) > 0
assert seen.graph_count == 2 and not seen.ops_per_graph[0]

# %% [markdown]
# The loop over the segments is written out. Twice the segments, twice the graph; a stream of another length is compiled
# anew. So the package compiles what a block does with a whole segment, its attention and its write, and goes through the
# loop as ever (`train --compile`, `training.py`: `compile_segments`). A piece of a segment, as in generation, is read as
# it is.
#
# The last line lists two graphs. The first has no operation: it ends at the check of the tokens, which refuses those that
# the vocabulary does not have. That needs a number from a tensor, and Python has to decide. It is called a **graph
# break**.

# %% [markdown] tags=["instructor"]
# **The compiler.** **Ask:** "Six products have become five. Why not four?" (Segment and chunk have the same scores, and
# different shares: P v are two products.) "And in the fused kernel?" (There P v of the chunk is computed once too: the
# running sum, before it goes on to the keys before the chunk, is that of the chunk.)

# %% [markdown]
# ## 12 Measured
#
# `python -m rmat_tutorial bench` times every way to do it. It goes through them in rounds, in another order in each, and
# takes ratios within a round: a machine that slows down slows both. Results lie in `data/benchmarks/`, a file for each
# device; `--device cuda` measures a GPU. There replays of CUDA graphs are timed, `eager` aside: the time that Python
# needs to launch is left out. The tables and pictures of this section are made of each file that is there.

# %%
for name, result in benchmarks.items():
    print(f"{name}: {result['device']}, torch {result['versions']['torch']}: {result['command']}")


def cases_of(result: Mapping, part: str) -> list[Mapping]:
    """The cases of a part, what has bars first."""
    return [case for case in result["cases"] if case["part"] == part]


def of_causal(case: Mapping, direction: str) -> dict[str, float]:
    """How many times as long as causal attention alone each method took that ran."""
    return {name: one["causal"]["median"] for name, one in case["ratios"][direction].items() if "causal" in one}


def by_operations(case: Mapping) -> float:
    """Operations of `sdpa`, forward and backward, over those of causal attention alone."""
    three, one = (case["methods"][name]["cost"]["both"]["flops"] for name in ("sdpa", "causal"))
    return three / one


(on_cpu,) = (case for case in cases_of(benchmarks["cpu"], "attention") if case["name"] == ON_CPU)

# %%
predict(
    "08.measured",
    "One thread of a CPU, forward and backward, 1,024 tokens in chunks of 64, 64 slots. How many times as long as causal "
    "attention alone does `sdpa` take, three attentions one after the other?",
    ["about 1.2", "about 2", "about 3"],
)

# %% [markdown]
# Look at the distance between `eager` and `sdpa`, and between `sdpa` and the line at 1. Lines through the points reach
# from the lower quartile of the rounds to the upper.

# %%
for result in benchmarks.values():
    for case in cases_of(result, "attention")[:1]:
        show(attention_times(case, result["device"]), f"{result['device']}. {times_in_words(case)}")
times = of_causal(on_cpu, "both")
reveal("08.measured", nearest([1.2, 2, 3], times["sdpa"], by_ratio=True), f"{times['sdpa']:.2f} times.")
assert 1 < times["sdpa"] < 2 and times["eager"] > 1.5 * times["sdpa"]

# %% [markdown]
# At this size three cost not much more than one on the CPU, without a kernel of our own: the chunks and the bank have few
# pairs of query and key beside the segment. (Of 256 tokens they have more; the table below has that case.) By operations,
# and by the clock, of causal attention:

# %%
length, chunk_size, slots = (on_cpu["shape"][name] for name in ("length", "chunk_size", "slots"))
shares_of_pairs = {CHUNKS: pairs(length, chunk_size) / pairs(length, length), BANK: length * slots / pairs(length, length)}
print(f"{benchmarks['cpu']['device']}, of causal attention:")
for name, share in shares_of_pairs.items():
    print(f"{name:18} {share:.2f} by operations, {times[name]:.2f} measured")
print(f"{'mixing with λ':18} 0.00 by operations, {times['sdpa'] - 1 - times[CHUNKS] - times[BANK]:.2f} is what is left")
print(f"{'sdpa':18} {by_operations(on_cpu):.2f} by operations, {times['sdpa']:.2f} measured")
assert 1.18 < by_operations(on_cpu) < 1.2 and times[CHUNKS] > shares_of_pairs[CHUNKS]

# %% [markdown]
# The chunks cost more than their operations say; we have not measured why. Further below a profile has their share of the
# time. Everything that was measured, in times of causal attention alone:

# %%
for result in benchmarks.values():
    for case in cases_of(result, "attention"):
        print(f"{result['device']}, {case['name']}")
        print(f"  {'':20}{'forward':>22}{'forward and backward':>26}")
        for method in case["methods"]:
            found = [case["ratios"][direction].get(method, {}).get("causal") for direction in ("forward", "both")]
            if any(found):
                print(f"  {method:20}{spread_text(found[0]):>22}{spread_text(found[1]):>26}")
    for case in cases_of(result, "attention")[:1]:
        for name in ("eager", "sdpa"):
            gain = case["ratios"]["both"].get(f"{name}, compiled", {}).get(name)
            print(f"{name}, compiled: {spread_text(gain)} of the time without, forward and backward")

# %% [markdown]
# Where do the ways lie under the roof of the machine that was measured? Its two lines come from the same run: a product of
# matrices, and a copy. Look at how far the points are from the roof.

# %%
for result in benchmarks.values():
    for case in cases_of(result, "attention")[:1]:
        show(measured_roof(case, result["device"]), f"{result['device']}. {roof_in_words(case)}")
        most, moved = (case["ceilings"][f"{what}_per_second"] for what in ("flops", "bytes"))
        print(f"{result['device']}: the ridge is at {most / moved:.0f} operations a byte")
        for name in ("causal", "sdpa", "triton"):
            cost, forward = case["methods"][name]["cost"]["forward"], case["methods"][name]["forward"]
            if "seconds" in forward:
                intensity, rate = cost["flops"] / cost["bytes"], cost["flops"] / median(forward["seconds"])
                waits_for = "memory" if intensity < most / moved else "products"
                print(f"  {name:6} forward: {intensity:.0f} operations a byte, waits for {waits_for}; "
                      f"{rate / min(most, intensity * moved):.2f} of its roof")
on_roof = [on_cpu["methods"][name]["cost"]["forward"] for name in ("causal", "sdpa")]
limits = on_cpu["ceilings"]
assert all(cost["flops"] / cost["bytes"] > limits["flops_per_second"] / limits["bytes_per_second"] for cost in on_roof)

# %% [markdown]
# On the CPU the ridge lies at fewer operations for each byte than `sdpa` and `causal` have. So the extra bytes of `sdpa`
# (section 1) do not matter there. On a GPU, where the ridge lies at hundreds, they do: that is what the kernel is for.
#
# Now whole models with about as many parameters. Beside the RMAT: the same with `eager`; full attention over the whole
# stream; the published package `recurrent-memory-transformer-pytorch`, which carries memory tokens from segment to
# segment; and in generation a naive loop, the RMAT that reads its begun segment again for each new token. Look at which
# lines fall.

# %%
for result in benchmarks.values():
    cases = cases_of(result, "training") + cases_of(result, "generation")
    if not cases:
        continue
    show(model_speeds(cases, result["device"]), f"{result['device']}. {speeds_in_words(cases)}")
    sizes_of_models = {one["parameters"] for case in cases for one in case["models"].values() if "parameters" in one}
    print(f"{result['device']}, parameters: {min(sizes_of_models):,} to {max(sizes_of_models):,}")
    for case in cases:
        ratios = {model: one["ratio"]["median"] for model, one in case["models"].items() if "ratio" in one}
        said = ", ".join(f"{model} {ratio_to_rmat:.2f}" for model, ratio_to_rmat in ratios.items())
        print(f"  {case['part']}, {case['name']}, over the RMAT: {said}")
for part in ("training", "generation"):
    falling = [case["models"]["full attention"]["ratio"]["median"] for case in cases_of(benchmarks["cpu"], part)]
    assert falling[-1] < falling[0]

# %% [markdown]
# The RMAT costs as much for each token of a long stream as of a short one: that is what segments and a bank are for.
# Full attention costs more with every token before. (The ratios are taken within each round, the points are medians over
# all rounds; there they differ a little.) In generation the naive loop and the published package read the begun segment
# again for each new token. The RMAT keeps its keys and values.
#
# What was asked of all this, before it was measured, and what came. Behind a line that is missed, by how much:

# %%
def missed_by(claim: Claim) -> str:
    """How far the worst of a claim's medians lies from what was asked."""
    bound = re.search(r"at (least|most) ([\d.]+) ×", claim.asked)
    medians = [float(number) for number in re.findall(r"([\d.]+) \(", claim.found)]
    if claim.met is not False or not bound or not medians:
        return ""
    worst = min(medians) if bound[1] == "least" else max(medians)
    return f"  [{worst / float(bound[2]) - 1:+.0%}]"


for result in benchmarks.values():
    said = [Claim(**claim) for claim in result["claims"]]
    print(f"{result['device']}: {sum(claim.met is True for claim in said)} met, "
          f"{sum(claim.met is False for claim in said)} missed, {sum(claim.met is None for claim in said)} not measured")
    for claim in said:
        print(claim.text + missed_by(claim))
assert missed_by(Claim("at least 6 × faster", "5.12 (4.08–5.73)", False)) == "  [-15%]"
assert missed_by(Claim("at most 1.2 ×", "1.10 (1.0–1.1), 1.29 (1.28–1.46)", False)) == "  [+8%]"
asked = " ".join(claim.asked for claim in said)
bounds = re.findall(r"triton forward and backward takes at most ([\d.]+) ×", asked)
print(f"triton forward and backward, the bar and the aim: {' and '.join(bounds)}; by the roof of section 7: {price_of_both:.2f}")
assert bounds == ["1.5", "1.35"] and 1.35 < price_of_both < 1.5

# %% [markdown]
# On a CPU `sdpa` is asked to take at most 1.2 times causal attention. By operations it has 1.19, as counted above. That
# leaves hardly anything for mixing and for small pieces of work. A profile of `sdpa` and of `eager`, taken now on the CPU
# of your machine, says where the time goes:

# %% tags=["nbval-ignore-output"]
def profiled(run: Callable[[], object], calls: int, kind_of: Callable[[FunctionEvent], str]) -> dict[str, float]:
    """The share of the time that each kind of operation takes, the largest first."""
    run()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        for _ in range(calls):
            run()
    alike: dict[tuple, list[FunctionEvent]] = {}
    for event in seen.events():
        alike.setdefault((event.name, str(event.input_shapes)), []).append(event)
    found: Counter[str] = Counter()
    for events in alike.values():  # the median, since another program may have had the processor for a while
        found[kind_of(events[0])] += len(events) * median(event.self_cpu_time_total for event in events)
    return {kind: spent / found.total() for kind, spent in found.most_common()}


def kind_in_sdpa(event: FunctionEvent) -> str:
    """Which of the three attentions, by the rows of its tensors; or what is around them."""
    if "attention" in event.name and event.name.startswith("aten::_"):
        rows = {size[-2] for size in event.input_shapes[:3]}
        return {(length,): "causal", (chunk_size,): "chunks"}.get(tuple(rows), "bank")
    return "mixing, copies, zeros"


def kind_in_eager(event: FunctionEvent) -> str:
    return "products of matrices" if event.name == "aten::bmm" else "everything between them"


cpu, shape = torch.device("cpu"), Shape(**on_cpu["shape"])
runs = methods(shape, ("sdpa", "eager", "causal"), torch.float32, cpu)[0]
for name, calls, kind_of in (("sdpa", 9, kind_in_sdpa), ("eager", 2, kind_in_eager)):
    shares_of_time = profiled(runs[name]["both"], calls, kind_of)
    print(f"{name}:", ", ".join(f"{kind} {share:.0%}" for kind, share in shares_of_time.items()))
    assert set(shares_of_time) >= ({"causal", "chunks", "bank"} if name == "sdpa" else {"products of matrices"})

# %% [markdown]
# In `sdpa` most of the time is causal attention. The bank has to be computed by any kernel; what is left to gain is in the
# chunks, and in what mixes and copies. (Copies that fold the chunks count under mixing here, so the chunks look cheaper
# than above.) In `eager` the products are a part only. Between them stand masks, exponentials and quotients, over whole
# matrices of scores.
#
# What was tried against it: torch.compile, in the table above. And the chunks in other ways, here timed now, beside the
# causal attention of the same rounds:

# %% tags=["nbval-ignore-output"]
q, k, v, *_ = random_inputs(shape, torch.float32, cpu)
towards = torch.randn_like(q)
hidden = ~torch.ones(chunk_size, chunk_size, dtype=torch.bool).tril()


def in_the_batch() -> Tensor:
    """Chunks folded into the batch, in place of the heads."""
    folded = (x.unflatten(2, (-1, chunk_size)).transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    found = torch.nn.functional.scaled_dot_product_attention(*folded, is_causal=True)
    return found.unflatten(0, (shape.batch, -1)).transpose(1, 2).flatten(2, 3)


def with_products() -> Tensor:
    """Two products of matrices, and torch's softmax between them."""
    in_chunks = [x.unflatten(2, (-1, chunk_size)) for x in (q, k, v)]
    scores = (in_chunks[0] @ in_chunks[1].transpose(-2, -1) / math.sqrt(shape.width)).masked_fill(hidden, -math.inf)
    return (scores.softmax(dim=-1) @ in_chunks[2]).flatten(2, 3)


package = methods(shape, (CHUNKS,), torch.float32, cpu)[0][CHUNKS]["both"]
tried = {"in the heads, as it is": package}
for name, attend in (("in the batch", in_the_batch), ("products", with_products)):
    assert torch.allclose(attend(), chunked_attention(q, k, v, chunk_size), atol=1e-5)
    tried[name] = lambda attend=attend: learn(attend, (q, k, v), towards)
clock = measure({**tried, "causal": runs["causal"]["both"]}, cpu, Effort(5, 0.01), tqdm(disable=True)).seconds
spent = {name: ratio(clock[name], clock["causal"]) for name in tried}
for name, one in spent.items():
    print(f"chunks, {name}: {one.text} of causal attention")
gain = spent["in the heads, as it is"].median - min(one.median for one in spent.values())
print(f"the fastest of them would take {gain:.2f} off the {times['sdpa']:.2f} of sdpa; the bar is 1.2")

# %% [markdown]
# Is there a GPU in your machine? The next cell measures, on what there is, causal attention, `sdpa`, and with CUDA and
# compute capability 8.0 or more the fused kernel. Three rounds of a moment each: take it as a hint, and `bench` as the
# measurement. On a CPU it is a smaller case, 256 tokens, where the 64 slots weigh more.

# %% tags=["nbval-ignore-output"]
on_cuda = DEVICE == "cuda" and torch.cuda.get_device_properties(0).major >= 8  # FlashAttention-2 asks for it
live = measure_attention(
    LARGE if on_cuda else Shape(1, 4, 256, 64, 32, 64), tqdm(disable=True),
    ("causal", "sdpa", *(["triton"] if on_cuda and HAS_TRITON else [])), torch.bfloat16 if on_cuda else torch.float32,
    Ceiling(512, 2**22), torch.device(DEVICE if on_cuda else "cpu"), Effort(3, 0.01),
)
print(f"by operations: sdpa {by_operations(live):.2f} of causal attention")
for direction in live["ratios"]:
    found = of_causal(live, direction)
    print(direction, {name: f"{one:.2f}" for name, one in found.items()}, "of causal attention")
    assert set(found) >= {"causal", "sdpa"}

# %% [markdown] tags=["instructor"]
# **Measured.** **Ask:** "Why are lines that are missed still in the list?" (They were asked before. A list from which the
# misses are taken tells nothing.) And: "Would you write a kernel for this CPU?" (The profile says what there is to
# gain: what mixes and copies, and a part of the chunks.)

# %% [markdown]
# ## Recap
#
# 1. Done one after the other, three attentions and torch's six steps of adding up move nearly five times the bytes of
#    one pass.
# 2. The roof decides what that costs: products are paid once anyway, and everything beside them waits for memory.
# 3. A softmax can run over keys in any order. Begun with the chunk, it is `chunk` on its way to `full`.
# 4. One number a row brings all shares back: exp(score − log-sum-exp). dλ<sub>p</sub> is the sum of D<sub>p</sub>. The
#    way back costs, by the roof and at 2,048 tokens, at least half as much again as that of full attention.
# 5. Every backend keeps a published tolerance, values and gradients. Segments wait for banks; along the diagonals N
#    layers read S of them in S + N − 1 steps.
# 6. A compiler finds equal products and fuses what stands between them. Fused attention it takes from a list of known
#    patterns; ours is not on it.
#
# ## Ledger
#
# | Paper | Our equation | Code | Test | Left open, and our choice |
# |---|---|---|---|---|
# | fusion of full, chunked and memory attention | bank; then the running softmax over the chunk's keys, then over those before it; Σ λ A | `kernels/triton_forward.py`: `attend`, `attend_segment`, `forward_kernel` | `test_kernels_triton.py`: `test_float32`, `test_edges`; `test_kernels_traffic.py`: `test_the_forward_reads_what_full_attention_reads` | how the three are computed; in one pass, chunk first |
# | learned mixing weights | dS = Σ λ<sub>p</sub> P<sub>p</sub> ∘ (dP − D<sub>p</sub>), dλ<sub>p</sub> = Σ D<sub>p</sub> | `kernels/triton_dq.py`: `through_both_paths`; `kernels/triton_dkv.py`: `add_to_keys` | `test_kernels_triton.py`: `test_any_weights`, `test_every_subset_of_paths` | nothing is said of gradients; shares again from saved log-sum-exps |
# | efficiency | operations and bytes of each way | `kernels/counting.py`: `count` | `test_kernels_counting.py`: `test_the_kernels_move_what_is_counted` | what is compared; each way, beside causal attention alone |
# | recurrence over segments | layer l reads segment s in step l + s | `wavefront.py`: `Wavefront`; `graphs.py`: `Graphs` | `test_wavefront.py`: `test_the_same_logits_and_state_in_any_split`, `test_all_gradients_are_the_same`, `test_a_step_has_all_layers_that_can_run_and_no_row_is_read_in_vain` | the order; any that has what it needs, equal results |
# | no code | four backends, tolerances published | `kernels/limits.py`: `obstacle`; `kernels/__init__.py`: `hybrid_attention`, `suited` | `test_backends.py`: `test_float64`; `test_kernels_choice.py`: `test_auto_picks_by_device_dtype_and_shape` | which implementation is right; all, within a tolerance of float64 |
#
# ## What to tweak next
#
# The cells assert what the prose says. Where your change makes it untrue, the assertion stops the cell, as it should.
#
# Run section 6 from its beginning for each of the first three: section 7 has given its names to other tensors.
#
# - Section 6: put `print("keys", start, total)` into the loop of `full_kernel`.
# - Section 6: let `fused_kernel` go over the keys before the chunk first. What would have to be kept to have `chunk`?
# - Section 6: without a GPU, a tile of 8 in place of 16 (`TILE`). What becomes of `reads`?
# - Section 7: give both paths one D<sub>p</sub>. In place of `d_scores = …` write `one = (d_out * by_definition(q, k, v,
#   q_mem, k_mem, v_mem, weights, C)).sum(-1)` and `d_scores = (weights[:2, None, None] * shares * (d_out @ v.T - one[:, None])).sum(0)`.
#   Which gradients are still right?
# - Section 9: is there, by the estimate, a choice with two programs and less than 1 GB, and nothing spilled?
#
# 09 Ablations and scaling comes next in the plan, and is not written yet.
