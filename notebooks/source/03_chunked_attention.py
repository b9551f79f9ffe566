# %% [markdown]
# # 03 Chunked attention
#
# **Afterwards you can**
#
# - write the mask of chunked attention, and say which tokens a token sees;
# - fold tokens into chunks and back, at any length, so that only what is visible is worked on;
# - count and measure what that saves, in time and in memory;
# - find the positions at which a model with chunks is blind, and say why more layers do not help.
#
# **Time:** 70 minutes, 22 of them for four exercises.
#
# **You need:** notebook 01: scores, the causal mask, `influence`, bytes kept. No GPU.
#
# **The course asks** why a transformer forgets, and what it costs not to. Notebook 01 ended with a bargain: chunks of
# C tokens cost T·C instead of T². Here you build the bargain, at every length, and measure both sides of it. The price
# is a border. Behind it the model has forgotten everything, at once.

# %% [markdown] tags=["instructor"]
# **Teaching plan.** 70 minutes alone, 85 with a room: 10 for the mask, 6 for its price, 16 for the fold, 14 for the
# count and the widget, 8 for the measurement, 12 for the blind border, 8 for depth, 6 for what breaks, 5 for the
# model.
#
# With half an hour, teach sections 1, 3 and 6. Section 6 is the one that the course needs: notebook 04 starts where it
# ends.

# %%
import math
import sys

import torch
from ipywidgets import IntSlider
from torch import Tensor
from torch.nn.functional import cross_entropy, pad
from tqdm import tqdm

from rmat_tutorial import RMAT, RMATConfig, chunked_attention, chunks, full_attention, hybrid_attention
from rmat_tutorial.attention import causal_softmax, scaled_scores
from rmat_tutorial.exercises import check
from rmat_tutorial.measuring import bytes_kept, fitted_exponent, influence, processor_seconds
from rmat_tutorial.pictures.chunks import LARGEST_CHUNK, MOST_TOKENS, Accuracy, ChunkExplorer, accuracy_bars
from rmat_tutorial.pictures.cost import Cost, cost_lines
from rmat_tutorial.pictures.influence import influence_maps
from rmat_tutorial.plots import show, use_style
from rmat_tutorial.predictions import nearest, predict, reveal
from rmat_tutorial.widgets import Explorer

use_style()
torch.set_num_threads(1)
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# ## 1 Six tokens by hand
#
# A **chunk** is a piece of the text with fixed borders: C tokens, then the next C. The chunk of a token is its position
# divided by C, rounded down. Positions count from 0.

# %%
T, C = 6, 3
position = torch.arange(T)
chunk = position // C
print("position", position.tolist())
print("chunk   ", chunk.tolist())
assert chunk.tolist() == [0, 0, 0, 1, 1, 1]

# %% [markdown]
# A token sees another one when both are in one chunk and the other one is not later. So token 2 sees 0, 1 and 2. Token
# 3 begins a new chunk and sees nobody but itself. How many pairs is that in all? And how many with full attention?
# Take the pencil first.

# %%
full_sees, chunk_sees = position + 1, position % C + 1
print("full attention: ", full_sees.tolist(), "→", full_sees.sum().item(), "pairs")
print("in chunks of 3: ", chunk_sees.tolist(), "→", chunk_sees.sum().item(), "pairs")
assert full_sees.sum() == 21 and chunk_sees.sum() == 12

# %% [markdown]
# 21 pairs, 12 of them inside a chunk. The other 9 are what chunks save, and what they cannot see.
#
# **Exercise 1** ●○○ 5 minutes. Write the mask for any T and C: true where token i, the row, may see token j, the
# column.
#
# <details><summary>Hint 1</summary>Two conditions: one chunk, and not later. Both have to hold.</details>
# <details><summary>Hint 2</summary><code>chunk[:, None] == chunk[None, :]</code> compares every token with every
# other.</details>
# <details><summary>Hint 3</summary>Join it with <code>position[None, :] <= position[:, None]</code> by
# <code>&</code>.</details>

# %% tags=["exercise"]
def chunk_mask(T: int, C: int) -> Tensor:
    """(T, T) bool: true where token i (row) may see token j (column): one chunk of C tokens, and j ≤ i."""
    # BEGIN SOLUTION
    position = torch.arange(T)
    chunk = position // C
    return (chunk[:, None] == chunk[None, :]) & (position[None, :] <= position[:, None])
    # END SOLUTION

# %%
chunk_mask = check("03.chunk_mask", chunk_mask, otherwise=chunks.chunk_mask)

# %% [markdown]
# Seven tokens in chunks of three leave one over. It is a chunk too, a shorter one: the last row. Such a last chunk is
# called **ragged**.

# %%
print(chunk_mask(7, 3).int())
assert chunk_mask(6, 3).sum() == 12
assert chunk_mask(7, 3).sum() == 13 and chunk_mask(7, 3)[6].tolist() == [False] * 6 + [True]

# %% [markdown] tags=["instructor"]
# **What goes wrong here.** Two windows are confused: one that slides (the last C tokens, whatever the position) and one
# with fixed borders. Ask: "Token 3 and token 2 are neighbours. Does 3 see 2?" (No. There is a border between them.) The
# check tells the two apart. The sliding one returns in section 7.

# %% [markdown]
# ## 2 Right numbers, full price
#
# The mask goes where the causal mask of notebook 01 went: into the scores, before the softmax. The result is the
# package's `chunked_attention`.

# %%
def masked_attention(q: Tensor, k: Tensor, v: Tensor, C: int) -> Tensor:
    """q, k, v (B, H, T, d_h) -> (B, H, T, d_h)."""
    hidden = ~chunk_mask(q.shape[-2], C)
    return torch.softmax(scaled_scores(q, k).masked_fill(hidden, -math.inf), dim=-1) @ v


torch.manual_seed(1)
q, k, v = torch.randn(3, 1, 2, 7, 4)  # seven tokens, two heads of width 4
masked = masked_attention(q, k, v, C=3)
difference = (masked - chunked_attention(q, k, v, 3)).abs().max().item()
print(f"difference from the package's: below 1e-6: {difference < 1e-6}")
assert difference < 1e-6

# %% [markdown]
# The first token of each chunk sees only itself. All its weight lies on one value, so its output is that value.

# %%
firsts = torch.arange(0, 7, 3)
print("first tokens:", firsts.tolist(), " output equals value:", torch.equal(masked[:, :, firsts], v[:, :, firsts]))
assert torch.equal(masked[:, :, firsts], v[:, :, firsts])

# %% [markdown]
# The numbers are right. What did the mask save?

# %%
T, C = 1024, 64
causal, kept = T * (T + 1) // 2, int(chunk_mask(T, C).sum())
print(f"pairs: {causal:,} with full attention, {kept:,} in chunks of {C}: {causal / kept:.1f} times fewer")
assert 15.5 < causal / kept < 16.5
predict(
    "03.masked",
    "1,024 tokens. The mask leaves a sixteenth of the pairs. What share of the time of full attention does it take?",
    ["about a sixteenth", "about a quarter", "about all of it"],
)

# %% tags=["nbval-ignore-output"]
torch.manual_seed(1)
qkv = torch.randn(3, 1, 1, T, 32).unbind()
full_seconds = processor_seconds(full_attention, *qkv)
masked_seconds = processor_seconds(chunked_attention, *qkv, C)
share = masked_seconds / full_seconds
print(f"full {full_seconds * 1e3:.2f} ms, masked {masked_seconds * 1e3:.2f} ms")
assert 0.5 < share < 4
reveal("03.masked", nearest([1 / 16, 1 / 4, 1], share, by_ratio=True))

# %%
for tensor in qkv:
    tensor.requires_grad_()
full_bytes, masked_bytes = bytes_kept(full_attention, *qkv), bytes_kept(chunked_attention, *qkv, C)
print(f"bytes kept: {full_bytes:,} full, {masked_bytes:,} masked")
assert full_bytes == masked_bytes

# %% [markdown]
# Nothing, in time or in memory. All T × T scores are computed and stored, then most of them are overwritten with −∞. A
# mask hides. To save, do not compute.

# %% [markdown] tags=["instructor"]
# **Ask before the reveal:** "Where in these three lines would the computer save time?" (Nowhere: the product with all
# keys comes first.) The reveal's cell is one of two that a clock decides; its bounds are wide, and processor time does
# not count what other programs take.

# %% [markdown]
# ## 3 The fold
#
# A chunk that attends alone is a small full attention. So give the chunks an axis of their own, which is carried along
# like the batch. Six tokens, numbered, in chunks of three:

# %%
x = torch.arange(6.0).reshape(1, 1, 6, 1)  # (B, H, T, d_h)
print(x.reshape(1, 1, 2, 3, 1)[0, 0, :, :, 0])

# %% [markdown]
# Seven tokens do not fit such a shape. Two rows of padding behind the last token make nine, which do. **Padding** is
# what fills up and belongs to nobody.
#
# **Exercise 2** ●●○ 8 minutes. Fold (B, H, T, d_h) into (B, H, n, C, d_h), where n is T / C rounded up. Fill the last
# chunk up with zeros. Where C divides T there is nothing to fill up. Do without a loop over the tokens: the fold is to
# save time.
#
# <details><summary>Hint 1</summary>How many rows are missing to the next multiple of C? In Python <code>-T % C</code>
# is exactly that: <code>-7 % 3</code> is 2, <code>-6 % 3</code> is 0.</details>
# <details><summary>Hint 2</summary><code>pad(x, (0, 0, 0, missing))</code> adds rows of zeros. The pairs run from the
# last axis to the first: (before, after) of d_h, then of T.</details>
# <details><summary>Hint 3</summary><code>unflatten(2, (-1, C))</code> cuts the token axis into n times C.</details>

# %% tags=["exercise"]
def fold(x: Tensor, C: int) -> Tensor:
    """x (B, H, T, d_h) -> (B, H, n, C, d_h): chunk c holds the tokens c·C to (c + 1)·C − 1; zeros fill up the last."""
    # BEGIN SOLUTION
    missing = -x.shape[2] % C
    return pad(x, (0, 0, 0, missing)).unflatten(2, (-1, C))
    # END SOLUTION

# %%
fold = check("03.fold", fold, otherwise=chunks.fold)

# %%
seven = torch.arange(1.0, 8).reshape(1, 1, 7, 1)  # from 1, so that a 0 is padding
print(fold(seven, 3)[0, 0, :, :, 0])
assert fold(seven, 3)[0, 0, :, :, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]

# %% [markdown]
# **Exercise 3** ●○○ 3 minutes. The way back: the chunks one behind the other again, without the padding.
#
# <details><summary>Hint 1</summary>Join two axes, then cut.</details>
# <details><summary>Hint 2</summary><code>flatten(2, 3)</code> joins n and C. The first T rows are the tokens.</details>

# %% tags=["exercise"]
def unfold(folded: Tensor, T: int) -> Tensor:
    """folded (B, H, n, C, d_h) -> (B, H, T, d_h): the chunks in their order, without what fills up the last one."""
    # BEGIN SOLUTION
    return folded.flatten(2, 3)[:, :, :T]
    # END SOLUTION

# %%
unfold = check("03.unfold", unfold, otherwise=chunks.unfold)
assert torch.equal(unfold(fold(seven, 3), 7), seven)

# %% [markdown]
# Between `fold` and `unfold` stands the attention of notebook 01, unchanged. Its scores are C × C now, n times. The
# chunk mask is gone: only the causal one is left.

# %%
def folded_attention(q: Tensor, k: Tensor, v: Tensor, C: int) -> Tensor:
    """q, k, v (B, H, T, d_h) -> (B, H, T, d_h)."""
    T = q.shape[2]
    q, k, v = fold(q, C), fold(k, C), fold(v, C)
    return unfold(causal_softmax(scaled_scores(q, k)) @ v, T)


folded = folded_attention(q, k, v, C=3)
difference = (folded - chunked_attention(q, k, v, 3)).abs().amax(dim=(0, 1, 3))
print("difference at each of 7 tokens, below 1e-6:", (difference < 1e-6).tolist())
assert difference.max() < 1e-6

# %% [markdown]
# The same numbers, with a ragged last chunk. The gradients too, in float64, at every length from 1 to 12, with chunks
# of 4:

# %%
def largest_gap(attend, T: int, C: int) -> float:
    """Largest difference from the package's chunked attention: of the values, of the gradients of q, k and v."""
    torch.manual_seed(T)
    qkv = [torch.randn(2, 2, T, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weighting = torch.randn(2, 2, T, 4)  # makes one number of all outputs
    results = []
    for function in (attend, chunked_attention):
        output = function(*qkv, C)
        results.append([output, *torch.autograd.grad((output * weighting).sum(), qkv)])
    return max((ours - theirs).abs().max().item() for ours, theirs in zip(*results, strict=True))


gaps = [largest_gap(folded_attention, T, C=4) for T in range(1, 13)]
print("12 lengths, every difference below 1e-12:", max(gaps) < 1e-12)
assert max(gaps) < 1e-12

# %% [markdown]
# And the price? The tensors of section 2 once more, 1,024 tokens in chunks of 64:

# %%
folded_bytes, folded_seconds = bytes_kept(folded_attention, *qkv, 64), processor_seconds(folded_attention, *qkv, 64)
print(f"masked: {masked_bytes:10,} bytes kept, {masked_seconds * 1e3:.2f} ms")
print(f"folded: {folded_bytes:10,} bytes kept, {folded_seconds * 1e3:.2f} ms")
print(f"bytes: {masked_bytes / folded_bytes:.1f} times fewer")
assert 11 < masked_bytes / folded_bytes < 12.5, "your fold keeps more than its result; chunks.fold does not"
assert folded_seconds < masked_seconds / 2, "your fold takes longer than the attention; chunks.fold does not"

# %% [markdown]
# A twelfth of the bytes, and less time. Section 4 counts why, section 5 follows both as T grows.

# %% [markdown]
# ### Why the padding stands at the end
#
# The padding has keys and values too, all zero. A key of zeros gets the score 0, and exp(0) = 1 is a weight like any
# other. At the end that does no harm: padding is later than every token of its chunk, and the causal mask hides what is
# later. At the front it would be earlier than all of them.

# %%
def padded_in_front(q: Tensor, k: Tensor, v: Tensor, C: int) -> Tensor:
    T = q.shape[2]
    q, k, v = (pad(x, (0, 0, -T % C, 0)).unflatten(2, (-1, C)) for x in (q, k, v))
    return (causal_softmax(scaled_scores(q, k)) @ v).flatten(2, 3)[:, :, -T:]


in_front = padded_in_front(q, k, v, C=3)
right = (in_front - masked).abs().amax(dim=(0, 1, 3)) < 1e-6
print("right at each of 7 tokens, padded in front:", right.tolist())
print("token 0, head 0: output divided by its value:", in_front[0, 0, 0] / v[0, 0, 0])
assert not right.any() and not torch.allclose(in_front[:, :, 0], v[:, :, 0])

# %% [markdown]
# Token 0 should return its own value. In front of it stand two rows of padding, which take their share of the weight:
# all of its value shrinks by one factor. The other tokens are wrong for a second reason. The borders have moved by
# two.

# %% [markdown] tags=["instructor"]
# **The fold.** Exercise 2 goes wrong where C divides T: `C - T % C` adds a whole chunk of zeros. Numbers stay right,
# memory does not. The check says so. Who cuts to (C, n) and transposes deals the tokens out like cards; shapes agree
# when n = C, which is why the check tries both.
#
# **Ask:** "In an encoder, without a causal mask, is padding at the end safe?" (No. It must be hidden by a mask of its
# own. Section 8 plants that fault.)
#
# A row of padding attends to the chunk like any other and its result is thrown away. It never divides 0 by 0, because
# it sees itself.

# %% [markdown]
# ## 4 Count
#
# A whole chunk has 1 + 2 + … + C = C(C + 1)/2 visible pairs. For three tokens that is 6. Seven tokens in chunks of
# three have 6 + 6 + 1 = 13.
#
# **Exercise 4** ●●○ 6 minutes. The number of visible pairs of T tokens in chunks of C, by a formula; a ragged last
# chunk included.
#
# <details><summary>Hint 1</summary>How many whole chunks are there, and how many tokens are left over?
# <code>divmod(T, C)</code> says both.</details>
# <details><summary>Hint 2</summary>r tokens that are left over have r(r + 1)/2 pairs. For r = 0 that is 0.</details>

# %% tags=["exercise"]
def pairs(T: int, C: int) -> int:
    """The pairs (i, j) that causal attention in chunks of C leaves of T tokens."""
    # BEGIN SOLUTION
    whole, left_over = divmod(T, C)
    return whole * C * (C + 1) // 2 + left_over * (left_over + 1) // 2
    # END SOLUTION

# %%
pairs = check("03.pairs", pairs, otherwise=chunks.pairs)
assert all(pairs(T, C) == chunk_mask(T, C).sum() for T in range(1, 13) for C in range(1, 13))

# %% [markdown]
# More is computed than is visible. Folded, a chunk computes all its C² scores, also those that the causal mask hides,
# and a ragged chunk is filled up to a whole one: **n C²**, with n = T / C rounded up. Full attention computes **T²**.

# %%
T = 1000
print("   C    visible   computed   of full attention")
for C in (1, 10, 64, 100, 600, 1000):
    n = math.ceil(T / C)
    print(f"{C:4} {pairs(T, C):10,} {n * C**2:10,} {n * C**2 / T**2:19.1%}")
assert math.ceil(T / 100) * 100**2 == T * 100
assert math.ceil(T / 10) * 10**2 * 100 == T**2
assert math.ceil(T / 600) * 600**2 == 720_000

# %% [markdown]
# Where C divides T, n C² is T·C, and that is C / T of full attention. Filling up adds at most C − 1 rows. It weighs
# little while C is small beside T; at C = 600 the second chunk is a third padding.
#
# So the pairs grow like T at a fixed C, and like C at a fixed T. Section 5 asks whether time and memory follow.
#
# Move the sliders. The frame holds the T × T pairs; what sticks out of it is padding. The dark cells are what the
# chosen token sees. **Try:** let the token walk across a border. Then make a chunk longer than the text.

# %%
picture = ChunkExplorer()
explorer = Explorer(
    picture,
    title="What a chunk sees, and what it costs",
    T=IntSlider(14, 1, MOST_TOKENS, description="tokens T"),
    C=IntSlider(6, 1, LARGEST_CHUNK, description="chunk C"),
    token=IntSlider(9, 0, MOST_TOKENS - 1, description="token"),
)
explorer

# %% [markdown]
# One token further, and six tokens are gone: token 11 ends its chunk, token 12 begins the next.

# %%
for token in (11, 12):
    print(explorer.set(token=token))
    assert picture.seen == chunk_mask(14, 6)[token].nonzero().flatten().tolist()
assert picture.seen == [12] and picture.visible == pairs(14, 6) == 45 and picture.computed == 3 * 6**2
print(explorer.set())

# %% [markdown]
# Padding can cost more than chunks save. In chunks of ten, the second chunk is mostly padding, and more is computed
# than with full attention.

# %%
print(explorer.set(C=10))
assert picture.computed == 200 > picture.full == 196
print(explorer.set(T=5))
assert picture.seen == [] and "There is no token 9" in explorer.caption
print(explorer.set())

# %% [markdown] tags=["instructor"]
# **The widget.** Project it and move the token from 0 to 13, slowly. The dark bar grows, and falls back to one cell at
# each border. That saw-tooth is section 6. Then move C from 1 to 10: at 1 each token is alone; at 7 two whole chunks;
# at 8 the padding shows.
#
# **Ask:** "Which C makes the grey bar longest at T = 14?" (10: two chunks of 100 for 14 tokens, more than 14².)

# %% [markdown]
# ## 5 Measure
#
# One head of width 32, chunks of 16, 64 and 256, and full attention; all with the softmax written out. First the bytes
# that the forward pass keeps, which are exact.

# %%
predict(
    "03.bytes",
    "4,096 tokens. C grows from 16 to 256: 16 times as many pairs are computed. By what factor do the bytes kept grow?",
    ["about 2", "about 6", "about 16"],
)

# %%
LENGTHS = [512, 1024, 2048, 4096]


def measure(attend, *arguments) -> Cost:
    """Seconds and bytes kept at each of LENGTHS."""
    torch.manual_seed(1)
    inputs = [torch.randn(3, 1, 1, T, 32).unbind() for T in LENGTHS]
    seconds = [processor_seconds(attend, *qkv, *arguments) for qkv in inputs]
    kept = [bytes_kept(attend, *(tensor.requires_grad_() for tensor in qkv), *arguments) for qkv in inputs]
    return Cost(seconds, kept)


costs = {"full": measure(full_attention)}
for C in (256, 64, 16):
    costs[f"C = {C}"] = measure(folded_attention, C)

# %%
print("bytes kept   " + "".join(f"{f'T = {T:,}':>13}" for T in LENGTHS) + "   exponent")
for name, cost in costs.items():
    exponent = fitted_exponent(LENGTHS, cost.bytes)
    print(f"{name:13}" + "".join(f"{kept:13,}" for kept in cost.bytes) + f"{exponent:11.2f}")
    assert abs(exponent - (2 if name == "full" else 1)) < 0.05

# %% [markdown]
# The exponent is 2 for full attention, 1 for chunks. Each computed pair keeps three numbers of 4 bytes: the masked
# score, its exponential, the weight. That is 12·T·C bytes, and the one causal mask adds C². The rest belongs to the
# tokens: q, k, v of width 32 and two numbers for each row, 392 bytes a token whatever C is. That counts every byte.

# %%
per_token = 4 * (3 * 32 + 2)
for C in (16, 64, 256):
    expected = [12 * T * C + C**2 + per_token * T for T in LENGTHS]
    assert costs[f"C = {C}"].bytes == expected, "your fold keeps more than its result; chunks.fold does not"
growth = costs["C = 256"].bytes[-1] / costs["C = 16"].bytes[-1]
print(f"a token keeps {per_token} bytes of its own; its pairs 12·C: {12 * 16} at C = 16, {12 * 256:,} at C = 256")
assert 5.5 < growth < 6.5
reveal("03.bytes", "about 6", f"{growth:.2f} times. At C = 16 the scores already weigh less than q, k and v.")

# %% [markdown]
# Now the time. The dashed lines have the slopes of theory: T² for full attention, T for chunks.

# %% tags=["nbval-ignore-output"]
show(
    cost_lines(LENGTHS, costs, {name: (2, 2) if name == "full" else (1, 1) for name in costs}),
    "Time and memory against T, both axes logarithmic. In memory full attention lies on a line of slope 2, chunks of "
    "256, 64 and 16 one below the other on lines of slope 1. In time they follow such lines less exactly.",
)

# %% tags=["nbval-ignore-output"]
print(f"          exponent   full attention takes, at T = {LENGTHS[-1]:,}")
print("          of time    so many times the pairs   so many times the time")
for name, cost in costs.items():
    exponent = fitted_exponent(LENGTHS, cost.seconds)
    fewer = 1 if name == "full" else LENGTHS[-1] / int(name.split()[-1])
    print(f"{name:8} {exponent:9.2f} {fewer:24.0f} {costs['full'].seconds[-1] / cost.seconds[-1]:24.1f}")
    assert (1.5 < exponent < 3.2) if name == "full" else (0.4 < exponent < 1.5)
too_slow = "your fold takes longer than the attention"
assert costs["C = 16"].seconds[-1] < costs["C = 64"].seconds[-1] < costs["C = 256"].seconds[-1], too_slow
assert costs["full"].seconds[-1] > 8 * costs["C = 256"].seconds[-1], too_slow

# %% [markdown]
# Two things bend the points away from theory. Where an exponent is below 1, chunks are so cheap that the fixed cost of
# a call shows beside them. Where more time is gained than pairs, it is not arithmetic that is gained. Take one of the
# steps, exp of 4,096 × 4,096 scores: once into a new tensor, as in the softmax, once into one that is there already.

# %%
scores = torch.randn(4096, 4096)
room = torch.empty_like(scores)
anew = processor_seconds(torch.exp, scores)
reused = processor_seconds(lambda scores: torch.exp(scores, out=room), scores)
print(f"exp of {scores.nbytes / 1e6:.0f} MB: {anew * 1e3:.1f} ms into a new tensor, {reused * 1e3:.1f} ms without one")
assert reused < 1.5 * anew

# %% [markdown]
# Wherever the first takes longer, that is the system handing out memory for a tensor of this size. The scores of the
# chunks are small enough for memory that is used again and again.

# %% [markdown] tags=["instructor"]
# **The measurement.** Have people read out their exponents; they differ by machine, the bytes do not. Who expected 16
# in the prediction forgot that q, k and v are kept as well. It is the usual end of an optimisation: what was largest
# is now small, and something else is largest.

# %% [markdown]
# ## 6 The blind border
#
# That is what is saved. What is lost? Take a task that needs three steps back and no more: at each position, say the
# token that came **three tokens ago**. Tokens are drawn at random from eight, so a model that cannot look guesses
# right one time in eight.
#
# Two models, equal but for their path: one attends in chunks of 8, the other over the whole segment of 24. One layer,
# 150 steps each. RoPE, of notebook 02, lets a layer look for "three back".

# %%
predict(
    "03.blind",
    "Chunks of 8, answer three tokens back. At which positions inside a chunk will the trained model only guess?",
    ["0, 1 and 2", "5, 6 and 7", "0 only", "none: it learns to carry tokens over"],
)

# %%
SYMBOLS, DELAY, SEGMENT, CHUNK = 8, 3, 24, 8


def train(path: str) -> RMAT:
    """A model of one layer and one path that learns to say the token of DELAY positions ago."""
    torch.manual_seed(1)
    sizes = {"vocab_size": SYMBOLS, "d_model": 32, "n_heads": 2, "n_layers": 1}
    model = RMAT(RMATConfig(**sizes, segment_len=SEGMENT, chunk_size=CHUNK, paths=(path,)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for _ in tqdm(range(150), desc=f"{path:5}", file=sys.stdout):
        tokens = torch.randint(SYMBOLS, (64, SEGMENT), generator=generator)
        logits = model(tokens).logits[:, DELAY:]  # before that there is nothing to say
        loss = cross_entropy(logits.flatten(0, 1), tokens[:, :-DELAY].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


in_chunks, in_full = train("chunk"), train("full")

# %%
@torch.no_grad()
def accuracy(model: RMAT, T: int) -> Tensor:
    """Share of right answers at each position from DELAY on, over 512 new texts of T tokens: (T,), 0 before."""
    tokens = torch.randint(SYMBOLS, (512, T), generator=torch.Generator().manual_seed(2))
    right = model(tokens).logits.argmax(dim=-1)[:, DELAY:] == tokens[:, :-DELAY]
    return pad(right.float().mean(dim=0), (DELAY, 0))


panels = {
    f"chunks of {CHUNK}": Accuracy("chunk", CHUNK, accuracy(in_chunks, SEGMENT)),
    "full attention": Accuracy("full", SEGMENT, accuracy(in_full, SEGMENT)),
}
show(
    accuracy_bars(panels, DELAY, chance=1 / SYMBOLS),
    "Share of right answers by position. Chunks of 8: all right, but for the first three positions of the second and "
    "third chunk, which are at chance. Full attention: all right.",
)

# %%
places = list(range(DELAY, SEGMENT))
for title, (_, _, right) in panels.items():
    blind = [i for i in places if right[i] < 0.5]
    sighted = right[[i for i in places if i not in blind]].mean()
    print(f"{title:15} mostly wrong at {blind}; elsewhere right: {sighted:.1f}")
    assert blind == ([i for i in range(8, 24) if i % 8 < 3] if title != "full attention" else [])
    assert sighted > 0.9
guessing = panels["chunks of 8"].right[[8, 9, 10, 16, 17, 18]].mean().item()
print(f"right at the blind positions: {guessing:.1f}; chance is {1 / SYMBOLS}")
assert 0.05 < guessing < 0.25
reveal("03.blind", "0, 1 and 2", "There the token of three ago stands in the chunk before. At 3 to 7 it is in reach.")

# %% [markdown]
# This is no lack of training. Inside a chunk the model does its task perfectly. At the first three positions behind a
# border the answer is three tokens away, and no way leads there. Full attention has no such border in the segment.
#
# Has it none at all? The next cell gives the same model 48 tokens, two segments.

# %%
longer = accuracy(in_full, 2 * SEGMENT)
show(
    accuracy_bars({"full attention, two segments": Accuracy("full", SEGMENT, longer)}, DELAY, chance=1 / SYMBOLS),
    "Share of right answers over 48 tokens. Full attention is right everywhere but at positions 24, 25 and 26.",
)
blind = [i for i in range(DELAY, 48) if longer[i] < 0.5]
print("mostly wrong at", blind)
assert blind == [24, 25, 26]

# %% [markdown]
# A segment is a chunk of the whole text, with the same kind of border. "Full" attention is full inside it. Larger
# windows make borders rarer. They do not remove them.

# %% [markdown] tags=["instructor"]
# **The blind border.** Let the room say the blind positions before the figure; who says 5, 6 and 7 thinks of what the
# next chunk cannot see of this one, not of who looks.
#
# **Ask:** "What would C = 3 do?" (All positions blind.) "And C = 4?" (One position in four right.) For a delay k, C −
# k of C positions see their answer: a chunk has to be long beside what the task needs.

# %% [markdown]
# ## 7 Deeper does not help
#
# Many windows are saved by depth: what layer 1 gathered, layer 2 gathers again. Does that carry a token over the
# border?

# %%
predict(
    "03.depth",
    "12 tokens in chunks of 4. With one layer the last token sees 4 tokens. How many with two layers?",
    ["4", "7", "8", "12"],
)

# %% [markdown]
# For comparison, two other windows of the same size. In a **sliding window** every token sees itself and the C − 1
# before it. **Shifted** chunks have their borders moved by C/2 in every second layer. Each is a mask of T × T; each
# row keeps at most C pairs.

# %%
def attend(x: Tensor, mask: Tensor) -> Tensor:
    """One layer: x plus attention of x to itself where mask allows, (T, d) -> (T, d)."""
    return x + torch.softmax((x @ x.T / math.sqrt(x.shape[1])).masked_fill(~mask, -math.inf), dim=-1) @ x


T, C = 12, 4
back = torch.arange(T)[:, None] - torch.arange(T)[None, :]
sliding = (back >= 0) & (back < C)
shifted = chunk_mask(T + C // 2, C)[C // 2 :, C // 2 :]
windows = {  # the masks of layers 1, 2 and 3
    "chunks": [chunk_mask(T, C)] * 3,
    "shifted chunks": [chunk_mask(T, C), shifted, chunk_mask(T, C)],
    "sliding window": [sliding] * 3,
}

# %%
def reach(masks: list[Tensor]) -> Tensor:
    """Influence (T, T) of each input on each output through as many layers as there are masks."""

    def layers(x: Tensor) -> Tensor:
        for mask in masks:
            x = attend(x, mask)
        return x

    torch.manual_seed(1)
    return influence(layers, 0.3 * torch.randn(T, 4, dtype=torch.float64))  # small, so that no weight is near 0


print("most tokens that any token sees")
print("layers          1   2   3")
for name, masks in windows.items():
    seen = [int(reach(masks[:layers]).count_nonzero(dim=1).max()) for layers in (1, 2, 3)]
    print(f"{name:14}" + "".join(f"{count:4}" for count in seen))
    assert seen == {"chunks": [4, 4, 4], "shifted chunks": [4, 6, 8], "sliding window": [4, 7, 10]}[name]

# %%
maps = {name: reach(masks[:2]) for name, masks in windows.items()}
show(
    influence_maps(maps),
    "Influence of inputs on outputs through two layers. Chunks: three separate triangles of four. Shifted chunks: "
    "blocks that overlap. Sliding window: one band of seven along the diagonal.",
)
last = maps["chunks"][-1].count_nonzero().item()
assert maps["chunks"].count_nonzero() == pairs(12, 4)
reveal("03.depth", str(last), "Both layers have their borders at the same places.")

# %% [markdown]
# As in notebook 01, darker is more influence, and a 0 is an exact zero.
#
# With fixed borders layer 2 gathers from tokens that know their own chunk only. The zeros are exact, and no training
# moves them. A window that slides, or borders that shift, carry tokens on: some steps further with each layer.
#
# The model of the course has fixed borders. On its chunk path, four layers see what one layer saw:

# %%
for layers in (1, 2, 4):
    torch.manual_seed(1)
    config = RMATConfig(d_model=8, n_heads=2, n_layers=layers, segment_len=12, chunk_size=4, paths=("chunk",))
    blocks = RMAT(config).double().blocks

    def through(x: Tensor, blocks=blocks) -> Tensor:
        for block in blocks:
            x = block(x[None])[0][0]
        return x

    connected = influence(through, torch.randn(12, 8, dtype=torch.float64)).count_nonzero().item()
    print(f"layers: {layers}, pairs connected: {connected} of 144")
    assert connected == pairs(12, 4) == 30

# %% [markdown]
# Then why not slide? A sliding window can be folded too, if each chunk also takes the keys of the chunk before: nearly
# twice the pairs. But its reach grows by C − 1 a layer, and each layer has to hand the token on.

# %%
T, C, layers = 1000, 64, 4
n = math.ceil(T / C)
print(f"pairs computed: {n * C**2:,} in chunks, {(2 * n - 1) * C**2:,} with the chunk before")  # the first has none
print(f"{layers} layers of windows of {C} see {1 + layers * (C - 1)} tokens")
assert 1.9 < (2 * n - 1) / n < 2 and 1 + layers * (C - 1) == 253

# %% [markdown]
# 253 tokens are a quarter of 1,000. To look far one needs the whole text, at T², or something that carries the past
# across borders. The model has both ideas, each where it is cheap: full attention inside a segment, and a memory from
# segment to segment.

# %% [markdown] tags=["instructor"]
# **Depth.** The usual prediction is 7 or 8, from convolutions or from sliding windows. Draw two rows of boxes with the
# same strokes between them and ask for a way across a stroke.
#
# Shifted borders gain C/2 a layer here, sliding windows C − 1. Shifted windows are best known from images; there they
# keep the fold of section 3 as it is, while a sliding window needs the chunk before as well.

# %% [markdown]
# ## 8 What breaks
#
# Here are three ways to get chunks wrong. A fourth is `padded_in_front` of section 3.

# %%
def tail_dropped(q: Tensor, k: Tensor, v: Tensor, C: int) -> Tensor:
    n = q.shape[2] // C  # what is left over is not even looked at
    q, k, v = (x[:, :, : n * C].unflatten(2, (n, C)) for x in (q, k, v))
    return (causal_softmax(scaled_scores(q, k)) @ v).flatten(2, 3)


def order_forgotten(q: Tensor, k: Tensor, v: Tensor, C: int) -> Tensor:
    T = q.shape[2]
    q, k, v = fold(q, C), fold(k, C), fold(v, C)
    return unfold(torch.softmax(scaled_scores(q, k), dim=-1) @ v, T)  # padding and future take their share


def rounded_up(q: Tensor, k: Tensor, v: Tensor, C: int) -> Tensor:
    chunk = torch.ceil(torch.arange(q.shape[2]) / C)
    hidden = (chunk[:, None] != chunk[None, :]) | ~chunk_mask(len(chunk), len(chunk))
    return torch.softmax(scaled_scores(q, k).masked_fill(hidden, -math.inf), dim=-1) @ v

# %% [markdown]
# How would one notice? Compare with the masked reference at every length from 1 to 3C, not only at multiples of C. And
# look for a future that leaks.

# %%
def is_right(attend, T: int, C: int) -> bool:
    torch.manual_seed(T)
    q, k, v = torch.randn(3, 1, 2, T, 4, dtype=torch.float64)
    ours, reference = attend(q, k, v, C), chunked_attention(q, k, v, C)
    return ours.shape == reference.shape and torch.allclose(ours, reference)


def sees_the_future(attend, T: int, C: int) -> bool:
    x = torch.randn(T, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return bool((influence(lambda x: attend(*[x[None, None]] * 3, C)[0, 0], x).triu(1) > 0).any())


C, wrong = 4, {}
print("                  wrong lengths of 12   of 3 multiples of C   future leaks")
for attend_in_chunks in (folded_attention, tail_dropped, padded_in_front, order_forgotten, rounded_up):
    lengths = [T for T in range(1, 3 * C + 1) if not is_right(attend_in_chunks, T, C)]
    multiples = [T for T in lengths if T % C == 0]
    leaks = sees_the_future(attend_in_chunks, 3 * C, C)
    wrong[attend_in_chunks.__name__] = (len(lengths), len(multiples), leaks)
    print(f"{attend_in_chunks.__name__:17} {len(lengths):19} {len(multiples):21} {'yes' if leaks else 'no':>14}")

# %%
assert wrong["folded_attention"] == (0, 0, False)
assert wrong["tail_dropped"] == wrong["padded_in_front"] == (9, 0, False)
assert wrong["order_forgotten"] == (12, 3, True)
assert wrong["rounded_up"] == (11, 3, False)

# %% [markdown]
# The first two faults are right at every multiple of C, and wrong at all other lengths. A test at T = 12 alone lets
# both pass. They strike where C does not divide the length of a segment, and where a text ends inside a chunk.
#
# Rounding up moves each border by one: token 0 is alone. Nothing leaks, and the shapes agree. Only a comparison with a
# reference finds it.

# %% [markdown] tags=["instructor"]
# **What breaks.** Let the room guess the second column before the cell runs: "Which of the four passes a test at T =
# 12?" Ask then which lengths their own tests at work use. (Powers of two.)

# %% [markdown]
# ## 9 In the model
#
# The chunk is a window inside the segment. Positions count from the start of the segment, so every segment border is a
# chunk border too, and the last chunk of a segment is ragged where C does not divide L, the length of a segment.
#
# The reference in the package, backend `eager`, masks, as in section 2: easy to read, full price. The backend `sdpa`
# folds, as in section 3, but without padding: whole chunks go into the batch, and what is left over is a small
# attention of its own.

# %%
def chunk_path(q: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    """The model's attention with the chunk path alone, whose λ is 1, in chunks of 64."""
    return hybrid_attention(
        q, k, v, None, None, None, torch.ones(1), chunk_size=64, paths=("chunk",), backend=backend
    )


torch.manual_seed(1)
heads = [torch.randn(1, 4, 1000, 16, requires_grad=True) for _ in range(3)]
kept = {backend: bytes_kept(chunk_path, *heads, backend) for backend in ("eager", "sdpa")}
for backend, kept_bytes in kept.items():
    print(f"{backend:5} keeps {kept_bytes / 1e6:5.1f} MB")
    assert torch.allclose(chunk_path(*heads, backend), folded_attention(*heads, 64), atol=1e-5)
print(f"tokens left over: {1000 % 64}")
assert kept["eager"] > 20 * kept["sdpa"] and 1000 % 64 == 40

# %% [markdown]
# Both give the numbers of our fold, at 1,000 tokens in chunks of 64, with 40 left over.
#
# What is the chunk path for, if a full path runs beside it in every segment and sees all that a chunk sees? Not for
# saving: the full path has been paid. λ says how much weight a trained model gives to each path; notebook 05 builds it.

# %%
text = RMAT.from_checkpoint("text")
L, C = text.config.segment_len, text.config.chunk_size
print(f"a segment of {L}: {pairs(L, L):,} visible pairs on the full path, {pairs(L, C):,} in chunks of {C}")
for layer, block in enumerate(text.blocks):
    λ = dict(zip(text.config.paths, torch.softmax(block.mix, dim=0).tolist(), strict=True))
    print(f"layer {layer}: " + ", ".join(f"λ of {path} {share:.2f}" for path, share in λ.items()))
    assert λ["chunk"] < min(λ["full"], λ["memory"])

# %% [markdown]
# The `text` model gives its chunks less weight than either other path, in both layers. Whether it would miss them is
# another question; notebook 09 takes paths away and measures.
#
# And the border of the segment? Without memory nothing crosses it. With memory there is a way. Here are two segments of
# six tokens, through one layer that was never trained:

# %%
def over_the_border(paths: tuple[str, ...]) -> Tensor:
    """Influence (12, 12) of 12 inputs on 12 outputs of one block that reads two segments of 6."""
    torch.manual_seed(1)
    config = RMATConfig(d_model=8, n_heads=2, segment_len=6, chunk_size=3, memory_slots=4, write_slots=2, paths=paths)
    block = RMAT(config).double().blocks[0]

    def read(x: Tensor) -> Tensor:
        bank = block.memory.initial(1) if config.has_memory else None
        first, bank = block(x[None, :6], bank)
        second, _ = block(x[None, 6:], bank)
        return torch.cat([first, second], dim=1)[0]

    return influence(read, torch.randn(12, 8, dtype=torch.float64))


maps = {", ".join(paths): over_the_border(paths) for paths in (("full", "chunk"), ("full", "chunk", "memory"))}
crossing = [int(found[6:, :6].count_nonzero()) for found in maps.values()]
print(f"pairs across the border: {crossing[0]} of 36 without memory, {crossing[1]} of 36 with it")
assert crossing == [0, 36] and all(found.triu(1).count_nonzero() == 0 for found in maps.values())

# %%
show(
    influence_maps(maps),
    "Influence over two segments. Without memory two separate triangles. With memory the square between them is "
    "filled, faintly.",
)

# %% [markdown]
# The square below the border is filled, faintly; a blank cell in it is small, but not 0. So there is a way, and it is
# narrow. Making it carry what matters is the
# work of the gate.

# %% [markdown]
# ## Recap
#
# 1. The chunk of a token is position // C. It sees its own chunk, up to itself.
# 2. A mask gives the right numbers and saves nothing. Folding gives the same numbers at n C² pairs instead of T².
# 3. A ragged chunk is filled up at the end, where the causal mask hides the padding. Test every length, not multiples.
# 4. Behind a border a model is blind for as many positions as it needs to look back, and depth does not help.
# 5. A segment is a chunk of the text. What crosses its border must be carried, and that is the memory.
#
# ## Ledger
#
# The paper is arXiv 2507.00453; it came without code. What this notebook settles:
#
# | Paper | Our equation | Code | Test | Left open, and our choice |
# |---|---|---|---|---|
# | chunked local attention | softmax(q kᵀ / √d_h + causal mask + same-chunk mask) v, chunk = position // C | `attention.py`: `chunked_attention`, `chunked_weights` | `test_attention.py`: `test_chunked_attention` | whether windows overlap or slide; fixed borders, no overlap, the last chunk may be shorter |
# | cost that does not grow quadratically | whole chunks folded into the batch, the rest by itself: T·C pairs | `kernels/sdpa.py`: `chunked`, `fold` | `test_backends.py`: `test_sdpa_folds_chunks_into_the_batch_and_builds_no_mask`, `test_float64` | how the saving is had; a mask alone saves nothing, as measured above |
# | local and global attention in one block | position counted from the start of the segment; chunk inside full inside segment | `language_model.py`: `LanguageModel.forward` | `test_causality.py`: `test_three_segments_one_ragged` | the extent of each path; the chunk is a window inside the segment, and both see the past only |
# | long-range dependencies | what crosses a segment's border goes through the bank M | `block.py`: `HybridBlock.forward` | `test_causality.py`: `test_the_past_arrives_through_the_memory` | which part of the block is long-range; the memory alone, since neither attention crosses a border |
#
# ## What to tweak next
#
# The cells assert what the prose says. Where your change makes it untrue, the assertion stops the cell, as it should.
#
# - Section 4: find a T and a C at which folding computes more than full attention. When does that happen?
# - Section 6: set `DELAY` to 1, then to 7. How many positions go blind?
# - Section 6: train with `n_layers` 2. Section 7 says what will come out. Does it?
# - Section 7: with the borders of layer 2 shifted by 1 instead of C/2, how many tokens does any token see at most?
#
# Next: [04 Gated memory](04_gated_memory.ipynb) builds what crosses the border.
