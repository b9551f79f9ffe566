# %% [markdown]
# # 01 Attention, and what it costs
#
# **Afterwards you can**
#
# - compute softmax attention on paper, and write it in PyTorch with heads and a causal mask;
# - read the attention map of a trained model on a sentence of your own;
# - say what attention costs in time and in memory at any length, and check it with a stopwatch;
# - say what a window saves, and what it can no longer see.
#
# **Time:** 65 minutes, 23 of them for three exercises.
#
# **You need:** tensors, matrix products and gradients in PyTorch. No GPU.
#
# **The course asks** why a transformer forgets, and what it costs not to. This notebook answers the second half.
# Not to forget costs time that grows with the square of the length, and a cache that grows with every token. So
# models cut the past off, and what is cut off is forgotten.

# %% [markdown] tags=["instructor"]
# **Teaching plan.** 65 minutes alone, 80 with a room: 10 for the three tokens, 10 for √d_h, 14 for heads, 16 for the
# mask, 8 for the map, 20 for the cost, 2 for the recap. An exercise is in the time of its section.
#
# With half an hour, teach sections 1, 4 and 6 and leave the rest as reading. Section 6 is the one that the course
# needs: from notebook 03 on, everything is an answer to it.

# %%
import math

import matplotlib.pyplot as plt
import torch
from ipywidgets import IntSlider, Text, ToggleButtons
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from rmat_tutorial import RMAT, attention, block, chunked_attention, full_attention, record
from rmat_tutorial.exercises import check
from rmat_tutorial.measuring import bytes_kept, cache_bytes, fitted_exponent, influence, processor_seconds
from rmat_tutorial.pictures.attention import AttentionMap
from rmat_tutorial.pictures.cost import Cost, cost_lines
from rmat_tutorial.pictures.influence import influence_maps
from rmat_tutorial.plots import PATH_COLOURS, attention_map, byte_label, show, use_style
from rmat_tutorial.predictions import nearest, predict, reveal
from rmat_tutorial.widgets import Explorer

use_style()
torch.set_num_threads(1)
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# ## 1 Three tokens by hand
#
# **Attention** lets each token gather from all tokens. For that a token has three vectors: a **query** q, what it looks
# for; a **key** k, what it is found by; a **value** v, what it hands over. Each holds d_h numbers, here two. A model
# computes them from the token. Here they are given, so that you can follow with a pencil.

# %%
tokens = ["the", "cat", "sat"]
q = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])  # (3, 2): three tokens, d_h = 2
k = torch.tensor([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0]])
v = torch.tensor([[10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])

score = q[2] @ k[0]
print(f"'sat' asks 'the': 1·1 + 1·1 = {score:.0f}")
assert score == 2

# %% [markdown]
# The **score** of a pair is the dot product of one token's query with the other's key. One matrix product gives all
# nine. Row i is the token that asks, column j the token that is asked. Work out "cat asks sat" before you look.

# %%
scores = q @ k.T
print(scores)
assert scores.tolist() == [[1, 0, 2], [2, 2, 0], [2, 1, 2]]

# %% [markdown]
# Next the scores are divided by √d_h, here √2 ≈ 1.4142. Section 2 shows why.

# %%
scaled = scores / math.sqrt(2)
print(scaled)
assert abs(scaled[0, 2] - 1.4142) < 1e-4

# %% [markdown]
# The **softmax** turns each row into shares: take exp, divide by the row's sum. For "the" the three exponentials are
# 2.0281, 1 and 4.1133, their sum is 7.1414, so the shares are 0.2840, 0.1400 and 0.5760.

# %%
exps = torch.exp(scaled)
weights = exps / exps.sum(dim=-1, keepdim=True)
print(weights)
assert torch.allclose(exps[0], torch.tensor([2.0281, 1.0, 4.1133]), atol=1e-4)
assert torch.allclose(weights[0], torch.tensor([0.2840, 0.1400, 0.5760]), atol=1e-4)
assert torch.allclose(weights.sum(dim=-1), torch.ones(3))

# %% [markdown]
# This matrix is an **attention map**. "cat" scored "the" and "cat" alike, so it gives both the same weight.

# %%
fig, ax = plt.subplots(figsize=(6, 5))
fig.colorbar(attention_map(ax, weights, tokens, tokens, "who looks at whom"), label="weight")
for i, row in enumerate(weights.tolist()):
    for j, weight in enumerate(row):
        ax.text(j, i, f"{weight:.2f}", ha="center", va="center", color="white" if weight > 0.2 else "black")
show(fig, "Attention map of three tokens. 'the' looks most at 'sat', 'cat' equally at 'the' and 'cat'.")

# %% [markdown]
# The output of a token is the mean of all values, weighted by its row. For "the" the first number is
# 10 · 0.2840 + 10 · 0.5760 ≈ 8.60: the values of "the" and "sat" hold a 10 there.

# %%
out = weights @ v
print(out)
assert torch.allclose(out[0], torch.tensor([8.60, 7.16]), atol=1e-3)

# %% [markdown]
# PyTorch has all of this in one call. For L tokens it wants `(B, H, L, d_h)`: a batch axis and a head axis in front.
# Section 3 says what heads are; here there is one.

# %%
with_axes = (tensor[None, None] for tensor in (q, k, v))
torch_out = scaled_dot_product_attention(*with_axes)
print("same numbers:", torch.allclose(torch_out[0, 0], out))
assert torch.allclose(torch_out[0, 0], out)

# %% [markdown]
# This attention knows no order. Shuffle the tokens, and the outputs are shuffled in the same way; nothing else
# changes. Notebook 02 gives the tokens positions.

# %%
order = [2, 0, 1]
shuffled = torch.softmax(q[order] @ k[order].T / math.sqrt(2), dim=-1) @ v[order]
print("the same outputs, in another order:", torch.allclose(shuffled, out[order]))
assert torch.allclose(shuffled, out[order])

# %% [markdown] tags=["instructor"]
# **What goes wrong here.** Some read the map by columns. Ask: "Point at the square that says how much sat
# looks at the." (Bottom left.) Then ask what the columns sum to. (Nothing in particular.)
#
# Let one person compute the row of "sat" on the board: scores 2, 1, 2, so two equal weights and a smaller one.

# %% [markdown]
# ## 2 Why divide by √d_h
#
# A score is a sum of d_h products. Suppose that the numbers in q and k are independent, with mean 0 and variance 1.

# %%
predict(
    "01.spread",
    "d_h grows from 16 to 256. By what factor does the spread (standard deviation) of the score q·k grow?",
    ["1: it stays as it is", "4", "16", "256"],
)

# %%
torch.manual_seed(1)
spread = {}
print("             q·k             q·k / √d_h")
print("  d_h   spread  variance       variance")
for width in (4, 16, 64, 256):
    a, b = torch.randn(2, 20_000, width)
    products = (a * b).sum(dim=-1)
    spread[width] = products.std().item()
    scaled_variance = (products / math.sqrt(width)).var().item()
    print(f"{width:5}   {spread[width]:6.2f}  {spread[width] ** 2:8.2f}   {scaled_variance:12.2f}")
    assert 0.95 < scaled_variance < 1.05

# %%
factor = spread[256] / spread[16]
assert 3.8 < factor < 4.2
reveal("01.spread", "4", f"The spread grew by a factor of {factor:.2f}; √(256 / 16) = 4.")

# %% [markdown]
# The variance of a score is d_h, the sum of d_h variances of 1; the spread is its root. Divided by √d_h, scores have
# variance 1 at any width. Without the division their spread at width 256 is √256 = 16. What does exp make of that?

# %%
torch.manual_seed(1)
query, keys = torch.randn(256), torch.randn(8, 256)
unscaled = torch.softmax(keys @ query, dim=-1)
scaled = torch.softmax(keys @ query / math.sqrt(256), dim=-1)

fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
for ax, bars, title in zip(axes, (unscaled, scaled), ("softmax(q·k)", "softmax(q·k / √d_h)"), strict=True):
    ax.bar(range(8), bars, color=PATH_COLOURS["full"])
    ax.set(title=title, xlabel="key", xticks=range(8), ylim=(0, 1.05))
axes[0].set_ylabel("weight")
show(fig, "Weights over eight keys at d_h = 256. Unscaled, one key takes nearly all. Scaled, the weight is shared out.")
print(f"largest weight: {unscaled.max():.4f} unscaled, {scaled.max():.4f} scaled")
assert unscaled.max() > 0.95 > 0.5 > scaled.max()

# %% [markdown]
# A softmax whose weights are all near 0 or 1 is **saturated**. It hardly learns: a weight w moves with its own score at
# the rate w(1 − w), which vanishes at both ends. Autograd agrees.

# %%
rates = {}
for name, divisor in (("unscaled", 1), ("scaled", math.sqrt(256))):
    slopes = torch.autograd.functional.jacobian(lambda s: torch.softmax(s, dim=-1), keys @ query / divisor)
    w = {"unscaled": unscaled, "scaled": scaled}[name]
    assert torch.allclose(slopes.diagonal(), w * (1 - w), atol=1e-6)
    rates[name] = slopes.diagonal().sum().item()
print(f"the eight rates together: {rates['unscaled']:.4f} unscaled, {rates['scaled']:.4f} scaled")
assert rates["unscaled"] < rates["scaled"] / 10

# %% [markdown]
# **Exercise 1** ●○○ 5 minutes. Write the scaled scores for real shapes: a batch of B, H heads, L queries, S keys.
# B and H are only carried along.
#
# <details><summary>Hint 1</summary><code>@</code> multiplies the last two axes and carries the others along.</details>
# <details><summary>Hint 2</summary>k has to become (B, H, d_h, S). Which axes change places?</details>
# <details><summary>Hint 3</summary><code>k.transpose(-2, -1)</code>. And d_h is <code>q.shape[-1]</code>.</details>

# %% tags=["exercise"]
def scaled_scores(q: Tensor, k: Tensor) -> Tensor:
    """q (B, H, L, d_h), k (B, H, S, d_h) -> (B, H, L, S): every query times every key of its head, over √d_h."""
    # BEGIN SOLUTION
    return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    # END SOLUTION

# %%
scaled_scores = check("01.scaled_scores", scaled_scores, otherwise=attention.scaled_scores)

# %% [markdown] tags=["instructor"]
# **√d_h.** The usual wrong prediction is 16: the variance grows by that factor, the spread by its root.
#
# **Exercise 1.** Wrong answers that the check diagnoses: no division; division by d_h; `k.view(B, H, d_h, S)`, whose
# shape is right and whose numbers are mixed. The last one is worth a minute in front of everybody: it returns in
# exercise 2. `k.T` reverses all four axes and stops with an error; PyTorch's warning names `k.mT`, which is right.

# %% [markdown]
# ## 3 Heads
#
# One softmax gives a token one set of weights. With it "sat" cannot look for its subject and for its tense apart.
# **Heads** let it ask several questions: a token's vector of width d is cut into H pieces of d_h = d / H numbers, and
# each piece attends alone.
#
# Here are three tokens of width 4. Each number says where it belongs. Tokens count from 0: token 1 holds 4, 5, 6, 7.

# %%
x = torch.arange(12.0).reshape(1, 3, 4)  # (B, L, d)
print(x)

# %% [markdown]
# **Exercise 2** ●●○ 8 minutes. Cut the width into heads and put the head axis second. With H = 2, head 0 gets
# [0, 1], [4, 5], [8, 9], one row for each token, and head 1 gets the rest.
#
# <details><summary>Hint 1</summary>Two steps: cut the last axis in two, then move an axis.</details>
# <details><summary>Hint 2</summary><code>x.reshape(B, L, H, d_h)</code> cuts the width and leaves the tokens
# alone.</details>
# <details><summary>Hint 3</summary>From (B, L, H, d_h) to (B, H, L, d_h): axes 1 and 2 change places.</details>

# %% tags=["exercise"]
def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """x (B, L, d) -> (B, H, L, d_h): head h takes the features h·d_h to (h + 1)·d_h of every token."""
    # BEGIN SOLUTION
    batch, length, width = x.shape
    return x.reshape(batch, length, n_heads, width // n_heads).transpose(1, 2)
    # END SOLUTION

# %%
split_heads = check("01.split_heads", split_heads, otherwise=block.split_heads)

# %% [markdown]
# The shape alone proves nothing. `x.view(1, 2, 3, 2)` has the right shape too, but the second row of its head 0 holds
# features 2 and 3 of token 0 where token 1 should be. A test that looks at shapes only lets this pass.

# %%
right, wrong = split_heads(x, 2), x.view(1, 2, 3, 2)
print("split_heads, head 0:", right[0, 0].tolist())
print("view alone,  head 0:", wrong[0, 0].tolist())
assert right.shape == wrong.shape and right[0, 0].tolist() == [[0, 1], [4, 5], [8, 9]]
assert not torch.equal(right, wrong)

# %% [markdown]
# Now a real layer. Three linear maps make q, k and v from the tokens; a loop attends head by head.

# %%
torch.manual_seed(1)
x = torch.randn(1, 6, 8)  # six tokens of width d = 8
to_q, to_k, to_v = (nn.Linear(8, 8, bias=False) for _ in range(3))
q, k, v = (split_heads(project(x), 2).detach() for project in (to_q, to_k, to_v))
one_by_one = []
for head in range(2):
    one_weights = torch.softmax(q[:, head] @ k[:, head].transpose(1, 2) / math.sqrt(4), dim=-1)
    one_by_one.append(one_weights @ v[:, head])
print("q:", tuple(q.shape), " output of one head:", tuple(one_by_one[0].shape))

# %% [markdown]
# The head axis carries along like the batch, so one product does all heads at once. Merging puts the heads side by
# side again; it undoes the split exactly.

# %%
at_once = torch.softmax(scaled_scores(q, k), dim=-1) @ v
merged = at_once.transpose(1, 2).flatten(-2)
print("merged:", tuple(merged.shape))
assert torch.allclose(at_once, torch.stack(one_by_one, dim=1), atol=1e-6)
assert torch.equal(split_heads(x, 2).transpose(1, 2).flatten(-2), x)

# %% [markdown]
# In a model a fourth linear map, the **output projection**, then mixes what the heads found.
#
# Is our attention the package's? Compare token by token.

# %%
difference = (at_once - full_attention(q, k, v)).abs().amax(dim=(0, 1, 3))
print("largest difference for each token:", difference)
assert difference[-1] < 1e-6 and difference[:-1].min() > 1e-3

# %% [markdown]
# Only the last token agrees. The package hides something from all the others.

# %% [markdown] tags=["instructor"]
# **Ask before the next section:** "What could the package hide that makes no difference to the last token?" (The
# future.) Give the room half a minute.
#
# Who is stuck in exercise 2 should draw x as a table, one line a token, and cut it with a vertical stroke.

# %% [markdown]
# ## 4 The causal mask
#
# A language model learns to name the next token, at every position at once. If token i may look at token i + 1, it can
# copy the answer. So token i may see tokens 0 to i only.
#
# A leak can be measured: move input j a little, and see which outputs move. `influence` does it with autograd: for each
# pair it takes all partial derivatives of output i by input j, and returns the length of that list. It is 0 exactly where
# input j has no way to output i.

# %%
def moves(attend, x: Tensor) -> Tensor:
    """Influence (L, L) of input j on output i, for x (L, d_h) as query, key and value."""
    return influence(lambda x: attend(*[x[None, None]] * 3)[0, 0], x)


torch.manual_seed(1)
x = torch.randn(8, 4)
unmasked = moves(lambda q, k, v: torch.softmax(scaled_scores(q, k), dim=-1) @ v, x)
print(f"output 0 moves with input 7, which comes later: {unmasked[0, 7]:.4f}")
assert (unmasked > 0).all()

# %%
predict(
    "01.mask",
    "8 tokens, 64 pairs (output i, input j). With the causal mask, how many of the 64 gradients are not zero?",
    ["28", "32", "36", "64"],
)

# %% [markdown]
# **Exercise 3** ●●○ 10 minutes. Write the softmax over the scores that token i may see. The weights of later tokens
# must be exactly 0, and every row must still sum to 1.
#
# <details><summary>Hint 1</summary>Hide the future before the softmax. Which score has an exponential of exactly
# 0?</details>
# <details><summary>Hint 2</summary><code>torch.ones(L, L, dtype=torch.bool).triu(1)</code> is true where j > i.
# </details>
# <details><summary>Hint 3</summary><code>scores.masked_fill(future, -math.inf)</code>, then the softmax over the last
# axis.</details>

# %% tags=["exercise"]
def causal_softmax(scores: Tensor) -> Tensor:
    """scores (B, H, L, L) -> (B, H, L, L): row i shares its weight among the columns j ≤ i, and gives the others 0."""
    # BEGIN SOLUTION
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
    # END SOLUTION

# %%
causal_softmax = check("01.causal_mask", causal_softmax, otherwise=attention.causal_softmax)

# %% [markdown]
# Back to the three tokens. "the" sees itself only. "cat" scored itself and "the" alike: a half each.

# %%
masked_weights = causal_softmax(scores[None, None] / math.sqrt(2))[0, 0]
print(masked_weights)
assert masked_weights[0].tolist() == [1, 0, 0]
assert torch.allclose(masked_weights[1], torch.tensor([0.5, 0.5, 0.0]))
assert torch.allclose(masked_weights[2], weights[2])

# %% [markdown]
# A tempting shortcut is to take the softmax first and to erase the upper triangle afterwards. Its map has zeros in all
# the right places. The gradient tells whether that is enough.

# %%
def masked_too_late(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(scaled_scores(q, k), dim=-1).tril() @ v


def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return causal_softmax(scaled_scores(q, k)) @ v


too_late, causal = moves(masked_too_late, x), moves(masked, x)
print(f"output 0 and input 7: {too_late[0, 7]:.4f} masked too late, {causal[0, 7]:.4f} masked in time")
rows = torch.softmax(scaled_scores(x, x), dim=-1).tril().sum(dim=-1)
print("sums of the rows, masked too late:", rows)
assert (too_late > 0).all() and causal.triu(1).count_nonzero() == 0
assert rows[:-1].max() < 1

# %%
show(
    influence_maps({"no mask": unmasked, "masked too late": too_late, "causal mask": causal}),
    "Which input moves which output. Without a mask and with a late mask every input moves every output; "
    "with the causal mask the upper triangle is exactly zero.",
)

# %% [markdown]
# Darker means more influence, on one scale; a 0 is an exact zero. Masking too late leaks, though its weights are zero in
# all the right places: the future still stands in the sum that each row was divided by. That is why no row but the last
# sums to 1 any more. A test for zeros in the map misses this leak. The gradient finds it.

# %%
seen = causal.count_nonzero().item()
assert seen == 8 * 9 // 2
reveal("01.mask", "36", f"{seen} = 1 + 2 + … + 8: token i sees itself and the i tokens before it.")

# %% [markdown]
# With the mask, our numbers are the package's, and PyTorch's.

# %%
ours = masked(q, k, v)
assert torch.allclose(ours, full_attention(q, k, v), atol=1e-6)
assert torch.allclose(ours, scaled_dot_product_attention(q, k, v, is_causal=True), atol=1e-6)
print("ours, rmat_tutorial.full_attention and PyTorch agree to a millionth")

# %% [markdown] tags=["instructor"]
# **The mask.** Who says 32 halved 64 and cut the diagonal in two; who says 28 forgot that a token sees itself.
#
# Stay with masking too late. Ask who would have found it with a test, and with which. Dividing each row by its new sum
# mends it, and exercise 3 accepts that; it fails when all the visible exponentials round to 0.
#
# The course's own tests do what this section does, in float64, over several segments (`tests/test_causality.py`).

# %% [markdown]
# ## 5 A trained model on your sentence
#
# The `text` model of this course reads bytes. It was trained on docstrings and source code. It reads a **segment** at a
# time, and each layer attends along three paths: **full**, over the whole segment; **chunk**, inside a small window;
# **memory**, over a bank of slots. This notebook is about the first. The second appears in section 6, the third in
# notebook 04.

# %%
model = RMAT.from_checkpoint("text")
config = model.config
print(f"{config.n_layers} layers, {config.n_heads} heads, d = {config.d_model}, d_h = {config.head_dim}")
print(f"segment L = {config.segment_len} bytes, chunk C = {config.chunk_size}, memory m = {config.memory_slots} slots")

# %% [markdown]
# Type a sentence of your own and go through the heads. Which one looks mostly at the byte just before? Which one looks
# furthest back, and at what? A blank shows as "·". What is not printable ASCII shows as two hexadecimal digits for each
# byte; "é" is two bytes.

# %%
sentence = "the dog saw the cat and the cat ran"
picture = AttentionMap(model)
explorer = Explorer(
    picture,
    title="Who looks at whom in your sentence",
    text=Text(sentence, description="text"),
    layer=IntSlider(0, 0, config.n_layers - 1, description="layer"),
    head=IntSlider(0, 0, config.n_heads - 1, description="head"),
    path=ToggleButtons(options=config.paths, description="path"),
)
explorer

# %% [markdown]
# On both paths every row sums to 1, and nothing lies above the diagonal. On the chunk path no byte sees beyond its own
# chunk.

# %%
L, C, size = config.segment_len, config.chunk_size, len(sentence.encode())
explorer.set(path="full")
full_map = picture.weights
explorer.set(path="chunk")
chunk_map = picture.weights
for weights in (full_map, chunk_map):
    assert weights.shape == (size, size) and weights.triu(1).count_nonzero() == 0
    assert torch.allclose(weights.sum(dim=-1), torch.ones(size), atol=1e-5)
on_full, on_chunk = (weights[C:, :C].sum(dim=-1).mean().item() for weights in (full_map, chunk_map))
print(f"share that later chunks give to the first: {on_full:.4f} on the full path, {on_chunk} on the chunk path")
assert on_full > 0 and on_chunk == 0

# %% [markdown]
# Of a text that is longer than a segment the map shows the last segment only, because full attention sees no further.
# One byte more than a segment, and the map shrinks to a single square. Without any text it says so.

# %%
print(explorer.set(text="x" * (L + 1)))
assert picture.weights.shape == (1, 1) and f"{L + 1} bytes" in explorer.caption

print(explorer.set(text=""))
assert picture.weights is None
print(explorer.set())

# %% [markdown]
# The widget is a thin cover over `record`, which keeps what each layer did with each segment. With it you can measure
# instead of looking: how many bytes back does each head look, on average?

# %%
predict(
    "01.reach",
    "A model that was never trained spreads its weight over the whole sentence. Where do the trained heads look?",
    ["further back than that", "about as far back", "nearer"],
)

# %%
def full_maps(model: RMAT, text: str) -> Tensor:
    """The maps of the full path for one segment of text: (N, H, P, P)."""
    with torch.no_grad(), record(model) as trace:
        model(torch.tensor([list(text.encode())]))
    return torch.cat([layer.full for layer in trace.segments[0].layers])


def reach(maps: Tensor) -> Tensor:
    """Mean distance from the byte that looks to the byte looked at: (N, H)."""
    position = torch.arange(maps.shape[-1])
    return (maps * (position[:, None] - position[None, :])).sum(dim=-1).mean(dim=-1)


torch.manual_seed(1)
maps = full_maps(model, sentence)
trained, untrained = reach(maps), reach(full_maps(RMAT(config), sentence))
for name, distances in (("trained", trained), ("untrained", untrained)):
    for layer, row in enumerate(distances.tolist()):
        print(f"{name:9}  layer {layer}: " + "  ".join(f"head {head} {back:5.2f}" for head, back in enumerate(row)))

# %%
assert trained.max() < untrained.min()
reveal("01.reach", "nearer", "On this sentence every trained head looks back less far than every untrained one.")
contrast = [(distances.max() / distances.min()).item() for distances in (trained, untrained)]
print("furthest head / nearest head: {:.2f} trained, {:.2f} untrained".format(*contrast))
assert contrast[0] > 2 > contrast[1]

# %% [markdown]
# Training drew the heads to the last few bytes. It also made them differ; nobody told them what to look for. Below are
# the two extremes on the widget's scale.

# %%
letters = [byte_label(byte) for byte in sentence.encode()]
fig, axes = plt.subplots(1, 2, figsize=(11, 5.5))
for ax, name, index in ((axes[0], "nearest", trained.argmin()), (axes[1], "furthest", trained.argmax())):
    layer, head = divmod(index.item(), config.n_heads)
    attention_map(ax, maps[layer, head], letters, letters, f"{name}: layer {layer}, head {head}")
show(
    fig,
    "Two maps of one sentence. The head that looks back least: dark along the diagonal. The one that looks back most: "
    "dark columns under the blanks as well.",
)
just_before = maps.flatten(0, 1)[trained.argmin()].diagonal(offset=-1).mean()
print(f"weight that the nearest head gives to the byte just before, on average: {just_before:.4f}")
assert just_before > 0.5

# %% [markdown]
# What do the dark columns on the right have in common? Take the weight that this head sends more than 5 bytes back, and
# count how much of it goes to blanks. One sentence proves little, so here are three more; the last is code.

# %%
furthest, shares = trained.argmax().item(), []
print("of the weight   of the bytes")
for text in (
    sentence,
    "we bought a red car and drove home to the village",
    "return the sum of all the values in the list",
    "def add(x, y): return x + y and more",
):
    position = torch.arange(len(text.encode()))
    blank = torch.tensor([byte == ord(" ") for byte in text.encode()])
    far = full_maps(model, text).flatten(0, 1)[furthest] * (position[:, None] - position[None, :] > 5)
    shares.append((far[:, blank].sum() / far.sum()).item())
    print(f"{shares[-1]:13.4f}   {blank.float().mean():12.4f}   {text}")
    assert shares[-1] > 1.5 * blank.float().mean()
assert shares[-1] == min(shares)

# %% [markdown]
# Far back, this head looks at the gaps between words, in code less so. Nobody told the model what a word is.

# %% [markdown] tags=["instructor"]
# **The map.** The figure answers the two questions above the widget, so let the room look first. Take its sentences.
# Good ones: a repeated word ("the cat and the cat"), code (`def add(x, y): return x + y`: the furthest head looks less
# at blanks there), a name with an accent.
#
# Warn against reading too much into a map: a large weight on a small value moves little. The gradient of section 4
# says what moves; the map says where a head looked.

# %% [markdown]
# ## 6 What it costs
#
# Count before measuring, for T tokens and one layer. The scores are T·T pairs of d_h multiply-adds in each of H heads,
# T²d together. The weighted sum costs the same again: **2 T² d**. The four projections (q, k, v, output) cost **4 T d²**.
# The scores of all heads in float32 take **4 H T²** bytes. A mask changes none of this: what it hides was computed
# first. At the `text` model's size, if it attended over all T:

# %%
d, H = config.d_model, config.n_heads
print("        T   multiply-adds: pairs   projections   scores, GB")
for T in (1_024, 32_768, 1_048_576):
    pairs, projections, scores_gb = 2 * T**2 * d, 4 * T * d**2, 4 * H * T**2 / 1e9
    print(f"{T:9,}   {pairs:20.3e}   {projections:11.3e}   {scores_gb:10,.3f}")
crossing = 2 * d
assert 2 * crossing**2 * d == 4 * crossing * d**2
print(f"from T = 2d = {crossing} on, the pairs cost more than the projections")
assert scores_gb > 10_000

# %% [markdown]
# At a million tokens one layer's scores would fill more than ten thousand gigabytes. Now the stopwatch.

# %%
predict("01.time", "T doubles. By what factor does the time of full attention grow?", ["about 2", "about 4", "about 8"])

# %% [markdown]
# `processor_seconds` takes the processor time of the forward pass: what this program used of one core, whatever else is
# running. `bytes_kept` adds up what the forward pass keeps for the backward pass: autograd hands out each tensor that it
# keeps.
#
# One head of width 32, from 128 to 2,048 tokens. On paper with two logarithmic axes a power T^p is a straight line of
# slope p, so the slope of a fitted line is the exponent: `fitted_exponent`.

# %%
LENGTHS = [128, 256, 512, 1024, 2048]


def measure(attend) -> Cost:
    """Seconds and bytes kept at each of LENGTHS."""
    torch.manual_seed(1)
    inputs = [torch.randn(3, 1, 1, T, 32).unbind() for T in LENGTHS]
    seconds = [processor_seconds(attend, *qkv) for qkv in inputs]
    kept = [bytes_kept(attend, *(tensor.requires_grad_() for tensor in qkv)) for qkv in inputs]
    return Cost(seconds, kept)


def exponent(costs: list[float]) -> float:
    """p of the best fit cost ∝ T^p."""
    return fitted_exponent(LENGTHS, costs)

# %%
full = measure(full_attention)
for T, kept in zip(LENGTHS, full.bytes, strict=True):
    print(f"T = {T:4}: {kept:10,} bytes kept, as many as {kept / (4 * T * T):.2f} score matrices")
print(f"exponent of the memory: {exponent(full.bytes):.4f}")
assert 1.9 < exponent(full.bytes) < 2
assert full.bytes == [13 * T * T + (3 * 32 + 2) * 4 * T for T in LENGTHS]

# %% [markdown]
# Why three score matrices and a bit? Kept are the masked scores, their exponentials and the weights, 4 bytes a pair
# each, and the mask, 1 byte a pair: 13 T² bytes. The rest is q, k, v and two numbers for each row, linear in T. The last
# assertion counts every byte.

# %% tags=["nbval-ignore-output"]
for T, seconds in zip(LENGTHS, full.seconds, strict=True):
    print(f"T = {T:4}: {seconds * 1e3:8.3f} ms")
print(f"exponent of the time: {exponent(full.seconds):.2f}")

# %% tags=["nbval-ignore-output"]
show(
    cost_lines(LENGTHS, {"full": full}, {"full": (2, 2)}),
    "Time and memory of full attention against T, both axes logarithmic. The points lie along lines of slope 2.",
)

# %% [markdown]
# The dashed lines have the slopes of theory. The machine bends the points: fixed costs lift the left end, and large
# matrices, for which each call asks the system for fresh memory, lift the right one.

# %%
assert 1.5 < exponent(full.seconds) < 2.5
reveal("01.time", nearest([2, 4, 8], 2 ** exponent(full.seconds), by_ratio=True), "Twice the tokens are four times the pairs.")

# %% [markdown]
# Is the matrix needed at all? A row of it can be worked off piece by piece: keep running sums of the exponentials and
# of the weighted values, and throw the scores away. PyTorch's fused attention does that.

# %%
predict(
    "01.fused",
    "Fused attention never stores the T × T scores. T doubles: by what factor does its time grow?",
    ["about 1: the scores were the cost", "about 2", "about 4"],
)

# %%
def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q, k, v, is_causal=True)


fused = measure(fused_attention)
per_token = [kept / T for T, kept in zip(LENGTHS, fused.bytes, strict=True)]
print("bytes kept for each token:", per_token)
assert per_token == [4 * (4 * 32 + 1)] * 5  # q, k, v, the output and one number for the row's sum, 4 bytes each
assert 1.5 < exponent(fused.seconds) < 2.5 and fused.seconds[-1] < full.seconds[-1]
reveal("01.fused", nearest([1, 2, 4], 2 ** exponent(fused.seconds), by_ratio=True), "The mask spares it half of the pairs at most: T(T + 1)/2 are left.")

# %% [markdown]
# Memory became linear. Time is shorter and still grows with the square. To make it linear one has to leave pairs out.
#
# The simplest way is the **chunk**, a window with fixed borders: cut the tokens into pieces of C, and attend inside each
# piece alone. Folding the pieces into the head axis does it without a second mask, if C divides T. It equals the
# package's `chunked_attention`.

# %%
CHUNK = 64


def chunks(q: Tensor, k: Tensor, v: Tensor, size: int = CHUNK) -> Tensor:
    folded = (tensor.reshape(1, -1, size, tensor.shape[-1]) for tensor in (q, k, v))
    return fused_attention(*folded).reshape(q.shape)


q, k, v = torch.randn(3, 1, 1, 256, 32)
assert torch.allclose(chunks(q, k, v), chunked_attention(q, k, v, CHUNK), atol=1e-5)
chunk = measure(chunks)
assert 0.5 < exponent(chunk.seconds) < 1.5
assert chunk.bytes == fused.bytes

# %% tags=["nbval-ignore-output"]
show(
    cost_lines(
        LENGTHS,
        {"full": full, "full, fused": fused, f"chunks of {CHUNK}": chunk},
        {"full": (2, 2), "full, fused": (2, 1), f"chunks of {CHUNK}": (1, 1)},
    ),
    "Time and memory against T. Full attention: slope 2 in both. Fused: slope 2 in time, 1 in memory. "
    "Chunks: slope 1 in both.",
)

# %% [markdown]
# In time, full and fused attention run along slope 2, chunks along slope 1. In memory the chunks lie on the fused points:
# both keep the same bytes.

# %% tags=["nbval-ignore-output"]
print("exponents    time   memory")
for name, cost in {"full": full, "fused": fused, "chunks": chunk}.items():
    print(f"{name:9} {exponent(cost.seconds):7.2f} {exponent(cost.bytes):8.2f}")
faster = [full.seconds[-1] / cost.seconds[-1] for cost in (fused, chunk)]
print(f"T = {LENGTHS[-1]}: fused takes 1/{faster[0]:.0f} of the time of full, chunks 1/{faster[1]:.0f}")

# %% [markdown]
# ### What the window cannot see
#
# Chunks leave pairs out. What is lost with them?

# %%
predict(
    "01.window",
    "12 tokens in chunks of 4. You change token 0 only. How many of the 12 outputs change?",
    ["1", "4", "9", "12"],
)

# %%
torch.manual_seed(1)
x = torch.randn(12, 4)
everything = moves(full_attention, x)
window = moves(lambda q, k, v: chunks(q, k, v, size=4), x)
show(
    influence_maps({"full attention": everything, "chunks of 4": window}),
    "Which input moves which output. Full attention: one triangle. Chunks: three small triangles, zero elsewhere.",
)

# %%
moved = window[:, 0].count_nonzero().item()
print(f"outputs that token 0 moves: {everything[:, 0].count_nonzero()} with full attention, {moved} with chunks")
before = chunks(*[x[None, None]] * 3, size=4)
x[0] += 1
assert torch.equal(before[:, :, 4:], chunks(*[x[None, None]] * 3, size=4)[:, :, 4:])
assert everything[:, 0].count_nonzero() == 12
reveal("01.window", str(moved), "Outputs 4 to 11 are the same to the last bit, whatever token 0 says.")

# %% [markdown]
# This is forgetting, in its plainest form. No training helps: a gradient of exactly zero carries nothing. A segment is
# a window too, only a larger one; that is why the widget's map shrank to one square.
#
# ### The cache
#
# A model that writes text keeps the keys and values of all tokens that it may look at, its **cache**: 2 · N · d numbers
# for each token, with N layers. The models of this course carry a **state** instead: the memory banks, and room for one
# segment.

# %%
predict(
    "01.cache",
    "After a million tokens: how much larger is the cache of full attention than the state of the text model?",
    ["about 10 times", "about 100 times", "about 1,000 times", "about 10,000 times"],
)

# %%
keys_and_values = torch.zeros(2, config.n_layers, config.n_heads, 1_000, config.head_dim)
assert keys_and_values.nbytes == cache_bytes(config, 1_000)
print("        T   cache, bytes    state, bytes")
for T in (100, 1_000, 10_000):
    with torch.no_grad():
        state = model(torch.randint(256, (1, T))).state
    print(f"{T:9,} {cache_bytes(config, T):14,} {state.nbytes:15,}")
    assert state.nbytes == model.init_state(1).nbytes
print(f"1,000,000 {cache_bytes(config, 1_000_000):14,} {state.nbytes:15,}   by the same formula")
print(f"the cache is the smaller one below {state.nbytes / cache_bytes(config, 1):.0f} tokens")

# %%
ratio = cache_bytes(config, 1_000_000) / state.nbytes
reveal("01.cache", nearest([10, 100, 1_000, 10_000], ratio, by_ratio=True), f"{ratio:,.0f} times. The state did not grow at all.")

# %% [markdown]
# And the time of a million tokens, segment by segment: on the full path each token meets at most L tokens instead of T.

# %%
T = 1_000_000
print(f"pairs: {T * T:.1e} with full attention, {T * L:.1e} in segments of {L}: {T // L:,} times fewer")

# %% [markdown]
# So the cost can be linear and the state constant. What must then be decided is what the state keeps. A window keeps
# what is newest and forgets everything else; full attention keeps everything. The rest of the course builds what lies
# between: a memory that chooses.

# %% [markdown] tags=["instructor"]
# **The cost.** "Flash" is easily heard as "not quadratic". Let the room say so before the reveal of fused attention.
# With the mask it skips most of the hidden half, so it is also about twice as fast as without: a factor, no exponent.
#
# Of the 12 outputs behind the window: who says 12 thinks of full attention, who says 1 forgot that token 0 stands in a
# chunk with three others.
#
# The cells assert wide bounds for the exponents of time (1.5 to 2.5), because machines differ. Have people read out
# theirs. The measurements stay on the CPU, also where there is a GPU, so that the numbers can be compared.
#
# If somebody asks about sliding windows: with a window that slides, N layers see N windows back. Chunks with fixed
# borders do not gain that way; whatever lies behind the border stays invisible at any depth.

# %% [markdown]
# ## Recap
#
# 1. Attention is a mean of values; the weights are a softmax of q·k / √d_h.
# 2. √d_h keeps the scores at variance 1, so that the softmax stays soft and learns.
# 3. Heads ask several questions at once. The causal mask goes in before the softmax; gradients show whether it holds.
# 4. Full attention costs T² in time. Fused kernels make its memory linear, and its time only shorter.
# 5. Chunks of C cost T·C and forget what is outside. The rest of the course looks for what lies between.
#
# ## Ledger
#
# The paper is arXiv 2507.00453; it came without code. What this notebook settles:
#
# | Paper | Our equation | Code | Test | Left open, and our choice |
# |---|---|---|---|---|
# | standard self-attention | softmax(q kᵀ / √d_h) v | `attention.py`: `full_attention` | `test_attention.py`: `test_full_attention`, `test_three_tokens_by_hand` | nothing; d_h is the width of one head, whose scores have variance d_h |
# | several heads | head h takes features h·d_h to (h + 1)·d_h | `block.py`: `split_heads`, `merge_heads` | `test_block.py`: `test_block_equals_the_loop` | which features form a head; neighbours, the usual choice |
# | a language model | weight 0 for j > i | `attention.py`: `causal_softmax` | `test_causality.py`: `test_every_output_depends_on_the_past_only` | causality of each path; strict everywhere, also through the memory |
# | global attention, without quadratic cost | full attention inside a segment of L tokens: cost T·L | `language_model.py`: `LanguageModel.forward` | `test_streaming.py`: `test_a_state_does_not_grow` | the extent of "global"; here the segment. Over all T tokens the cost of full attention is quadratic, as measured above, so "global" over the whole text and "not quadratic" cannot both hold |
#
# ## What to tweak next
#
# The cells assert what the prose says. Where your change makes it untrue, the assertion stops the cell, as it should.
#
# - Section 2: multiply `keys` by 10. Does the division by √d_h still save the softmax?
# - Section 5: type a word twice, far apart. Is there a head that finds the first one?
# - Section 6: set `CHUNK` to 16, then to 128. Do the points of the chunks move up, or does their slope change?
#
# Next: [02 Rotary positions, per head](02_rotary_positions.ipynb) gives an order to tokens that know none.
