# %% [markdown]
# # 04 Gated first-in-first-out memory
#
# **Afterwards you can**
#
# - write one update of the memory on paper and in PyTorch: pooling, gate, queue;
# - compute from its bias how long a gate keeps a fact;
# - say why an exact zero keeps a fact and a small number does not, and prove it by changing one line of a trained
#   model;
# - see in numbers when a memory is broken: gates that are stuck, a bank that nobody reads, slots that are all alike.
#
# **Time:** 75 minutes, 23 of them for four exercises.
#
# **You need:** notebook 01. No GPU.
#
# **The course asks** why a transformer forgets, and what it costs not to. Full attention keeps everything, at a cost
# that grows. A window forgets everything outside. Between them stands a memory of m vectors that costs the same after a
# million tokens. What it forgets is decided in one place: when it is written.

# %% [markdown] tags=["instructor"]
# **Teaching plan.** 75 minutes alone, 90 with a room: 3 for the question, 9 for the pooling, 8 for the queue, 13 for
# the gate, 12 for the write, 5 for the retention curves, 6 for the bank step by step, 11 for the trained models, 8 for
# what breaks. An exercise is in the time of its section.
#
# With half an hour, teach sections 3, 4 and 8 and leave the rest as reading. The course stands on section 8: take its
# last prediction by show of hands, and let people argue before you run the cell.

# %%
import json
import math
from collections.abc import Callable
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from ipywidgets import Dropdown, FloatSlider, IntSlider, SelectionSlider, ToggleButtons
from torch import Tensor
from torch.nn.functional import cross_entropy, hardsigmoid

from rmat_tutorial import RMAT, GatedFIFOMemory, memory_attention, record
from rmat_tutorial import memory as package
from rmat_tutorial.exercises import check
from rmat_tutorial.facts import parse_facts
from rmat_tutorial.folders import data
from rmat_tutorial.measuring import effective_rank, fading
from rmat_tutorial.pictures.memory import BankSteps, gate_bars, likeness_maps, slots_of_keys
from rmat_tutorial.pictures.retention import Curves, Retention, Survival, score_lines
from rmat_tutorial.plots import PATH_COLOURS, show, use_style
from rmat_tutorial.predictions import predict, reveal
from rmat_tutorial.tasks import IGNORED, RecallTask, key_name
from rmat_tutorial.tracing import collect_gates, written_segments
from rmat_tutorial.widgets import Explorer

use_style()
torch.set_num_threads(1)
torch.set_printoptions(precision=4, sci_mode=False)

# %% [markdown]
# ## 1 What would you keep?
#
# A stream is read segment by segment. After each segment a memory may keep m vectors, whatever came before. Let m be 2,
# and let each segment bring one vector of two numbers. A plain **queue** keeps the newest.

# %%
bank = torch.zeros(2, 2)  # two slots of two numbers, the oldest first
for name, vector in (("the fact", [5.0, 5.0]), ("noise", [1.0, 0.0]), ("more noise", [0.0, 1.0])):
    bank = torch.cat((bank[1:], torch.tensor([vector])))
    print(f"after {name:10}", bank.tolist())
assert bank.tolist() == [[1, 0], [0, 1]]

# %% [markdown]
# After the third segment the fact is gone, and two vectors of noise are kept. You would have kept the fact. A memory of
# this course decides three things, and this notebook takes them one by one:
#
# - the **pooling**: which w vectors stand for a segment of L;
# - the **queue**: which of the m **slots** leave the **bank**, and which w enter;
# - the **gate**: how much of a slot that enters is new.

# %% [markdown]
# ## 2 Pooling: a needle in a segment
#
# One vector for three tokens. The second token is a needle: it alone has a number in the first place.

# %%
hidden = torch.tensor([[0.0, 1.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0]])  # (3, 4): L = 3, d = 4
mean = hidden.mean(dim=0)
print("mean:", mean)
assert torch.allclose(mean, torch.tensor([2 / 3, 0, 0, 0]))

# %% [markdown]
# The mean keeps a third of the needle. Of a needle among L tokens it keeps 1/L. **Attention pooling** asks instead: a
# learned query q scores each token by q · token / √d, and a softmax makes weights of the scores. Here √d = 2.

# %%
query = torch.tensor([2.0, 0.0, 0.0, 0.0])
scores = hidden @ query / math.sqrt(4)
weights = torch.softmax(scores, dim=0)
print("scores: ", scores)
print("weights:", weights)
print("pooled: ", weights @ hidden)
assert scores.tolist() == [0, 2, 0]
assert torch.allclose(weights, torch.tensor([1, math.exp(2), 1]) / (2 + math.exp(2)))

# %% [markdown]
# e² ≈ 7.3891, so the needle gets 7.3891 of 9.3891 parts: 0.7870. What counts is by how much its score leads. How does
# each pooling fare in longer segments?

# %%
lengths = [2**power for power in range(1, 11)]
fig, ax = plt.subplots(figsize=(11, 4.5))
ax.plot(lengths, [1 / length for length in lengths], "o-", color=PATH_COLOURS["full"], label="mean")
for lead, marker, line in ((2, "v", ":"), (4, "s", "--"), (8, "^", "-")):
    shares = [torch.softmax(torch.tensor([lead] + [0.0] * (length - 1)), dim=0)[0].item() for length in lengths]
    ax.plot(lengths, shares, marker + line, color=PATH_COLOURS["memory"], label=f"attention, lead {lead}")
ax.set(xscale="log", xlabel="tokens L in the segment", ylabel="share of the needle", ylim=(-0.03, 1.05))
ax.set_xticks(lengths, [f"{length:,}" for length in lengths])
ax.minorticks_off()
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=15)
show(fig, "Share of a needle that pooling keeps, by length. The mean falls as 1/L; a lead of 8 keeps most of it.")

# %%
print(f"1,024 tokens: the mean keeps {1 / 1024:.4f} of the needle, a lead of 8 keeps {shares[-1]:.4f}")
assert abs(shares[-1] - math.exp(8) / (math.exp(8) + 1023)) < 1e-4 and shares[-1] > 0.7

# %% [markdown]
# Attention dilutes the needle too, if the lead is small. A lead of 8 is enough for a thousand tokens. Training has to
# find queries with such a lead; section 7 shows that it does. With w queries a segment becomes w vectors, called **u**.
#
# **Exercise 1** ●○○ 5 minutes. Write the pooling of a batch of segments by w queries.
#
# <details><summary>Hint 1</summary>It is attention: the queries are given, and each token is both key and value.
# </details>
# <details><summary>Hint 2</summary><code>queries @ hidden.transpose(-2, -1)</code> is (B, w, L). Over which axis goes
# the softmax?</details>
# <details><summary>Hint 3</summary>Divide by √d, softmax over the last axis, then <code>@ hidden</code>.</details>

# %% tags=["exercise"]
def pool(queries: Tensor, hidden: Tensor) -> Tensor:
    """queries (w, d), hidden (B, L, d) -> (B, w, d): slot j is the mean of the tokens, weighted by query j."""
    # BEGIN SOLUTION
    scores = queries @ hidden.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    return torch.softmax(scores, dim=-1) @ hidden
    # END SOLUTION

# %%
pool = check("04.pool", pool, otherwise=package.pool)

# %% [markdown] tags=["instructor"]
# **Pooling.** Ask what the mean of a segment of 32 tokens does to a fact: 1/32 of it, plus 31/32 of noise. Nothing that
# comes later can undo that. The usual slip in exercise 1 is a softmax over the slots; the check says so.
#
# If somebody asks whether the mean is never good: for text, where every token matters a little, it can be. The package
# has both, `pool="mean"` and `pool="attention"`.

# %% [markdown]
# ## 3 The queue: first in, first out
#
# The bank has m slots, the oldest first. At each write w leave and w enter. Nothing else moves them about: a slot's
# place says how long it has been there.
#
# **Exercise 2** ●○○ 4 minutes. Let w new slots enter a bank.
#
# <details><summary>Hint 1</summary>The w oldest are the first: <code>bank[:, :w]</code>. What is left of the bank
# without them?</details>
# <details><summary>Hint 2</summary><code>torch.cat((…, …), dim=1)</code>.</details>

# %% tags=["exercise"]
def push(bank: Tensor, new: Tensor) -> Tensor:
    """bank (B, m, d), new (B, w, d) -> (B, m, d): the w oldest, which are the first, leave; the new ones come last."""
    # BEGIN SOLUTION
    return torch.cat((bank[:, new.shape[1] :], new), dim=1)
    # END SOLUTION

# %%
push = check("04.queue", push, otherwise=package.push)

# %%
predict(
    "04.cliff",
    "A bank of m = 16 slots, w = 4 enter after each segment. A fact enters. "
    "How many segments later has it left a plain queue?",
    ["1", "4", "12", "16"],
)

# %% [markdown]
# Each slot below holds one number, that of the segment that it came from. Follow segment 0.

# %%
bank = torch.full((1, 16, 1), -1.0)  # −1: the start
gone = None
for segment in range(6):
    bank = push(bank, torch.full((1, 4, 1), float(segment)))
    print(f"segment {segment}:", " ".join(f"{slot:2.0f}" for slot in bank[0, :, 0].tolist()))
    if gone is None and 0 not in bank:
        gone = segment

# %%
assert gone == 16 // 4
reveal("04.cliff", str(gone), f"Segment 0 is gone after segment {gone}: a plain queue keeps m / w = 16 / 4 segments.")

# %% [markdown]
# That is a **cliff**: all of a fact for m / w segments, then nothing. With segments of 32 tokens, 4 segments are 128
# tokens. A plain queue is a window under another name. It costs more slots to move the cliff, and it stays a cliff.

# %% [markdown] tags=["instructor"]
# **The queue.** Who answers 16 forgot that four enter at a time; who answers 12 counts the slots that stay. Ask for the
# bank that holds a fact for a million tokens in a plain queue: 31,250 segments of 32, times w.

# %% [markdown]
# ## 4 The gate
#
# A slot that enters need not be new. It starts as a copy of one in the bank, what is **carried**, c. (Of which one,
# section 5 says.) A **gate** z between 0 and 1 says how much of the copy is overwritten by a **candidate** from the
# segment:
#
# new = (1 − z) · c + z · candidate
#
# Let c = 8, the candidate 0 and z = ½, and write three times.

# %%
c = 8.0
for turn in (1, 2, 3):
    c = (1 - 0.5) * c + 0.5 * 0.0
    print(f"after write {turn}: {c:g}")
assert c == 8 * (1 - 0.5) ** 3 == 1

# %% [markdown]
# Each write leaves the share 1 − z of what was there. After n writes the share (1 − z)ⁿ is left. The gate of the paper
# is a **sigmoid**, z = 1 / (1 + e⁻ᵃ). Its score a is computed from the slot and the segment; before training it lies
# near the **gate bias** b. A negative bias keeps by default.

# %%
predict(
    "04.fade",
    "Gate bias −4: z = sigmoid(−4) = 0.018, so a write leaves 98.2 %. What share of a fact is left after 100 writes?",
    ["about 98 %", "about 82 %", "about 50 %", "about 16 %"],
)

# %%
print("bias        z   left after 10      100    1,000   10,000 writes")
for b in (-2.0, -4.0, -6.0, -8.0):
    z = torch.sigmoid(torch.tensor(b, dtype=torch.float64)).item()
    shares = [(1 - z) ** n for n in (10, 100, 1_000, 10_000)]
    print(f"{b:4g}   {z:.4f}          " + "   ".join(f"{share:.4f}" for share in shares))
    assert shares[-1] < 0.05

# %%
left_over = (1 - torch.sigmoid(torch.tensor(-4.0)).item()) ** 100
assert 0.15 < left_over < 0.17
reveal("04.fade", 3, f"(1 − 0.018)¹⁰⁰ = {left_over:.2f}. 100 writes are 3,200 tokens in segments of 32.")

# %% [markdown]
# Small losses multiply. The **half-life** is the number of writes after which half is left: (1 − z)ⁿ = ½. Take
# logarithms: n = ln ½ / ln(1 − z). With z = ½ that is 1 write, with z = 0.1 it is −0.6931 / −0.1054 ≈ 6.58.
#
# **Exercise 3** ●●○ 6 minutes. Compute the half-life of a sigmoid gate from its bias. It has to be right for a gate
# that is all but shut: at a bias of −20 z is 0.000000002, and in float32 1 − z is rounded to 1.
#
# <details><summary>Hint 1</summary>First z = sigmoid(bias), then the formula above.</details>
# <details><summary>Hint 2</summary><code>torch.log1p(x)</code> is ln(1 + x) for an x so small that 1 + x would be
# rounded.</details>
# <details><summary>Hint 3</summary><code>torch.log1p(-torch.sigmoid(bias))</code> is ln(1 − z).</details>

# %% tags=["exercise"]
def half_life(bias: Tensor) -> Tensor:
    """bias (N, d) -> (N, d): the number of writes n, not rounded, with (1 − z)ⁿ = ½ where z = sigmoid(bias)."""
    # BEGIN SOLUTION
    return math.log(0.5) / torch.log1p(-torch.sigmoid(bias))
    # END SOLUTION

# %%
half_life = check("04.half_life", half_life, otherwise=package.half_life)

# %%
print("bias   half-life, writes   in tokens, L = 32")
biases = [-2.0, -4.0, -6.0, -8.0, -10.75]
for b, writes in zip(biases, half_life(torch.tensor([biases], dtype=torch.float64))[0].tolist(), strict=True):
    print(f"{b:6g} {writes:17.1f}   {32 * writes:17,.0f}")
assert 32 * writes > 1_000_000
assert round(math.log(0.5) / math.log(1 - 0.1), 2) == 6.58
assert 1 - torch.sigmoid(torch.tensor(-20.0)) == 1

# %% [markdown]
# To have half of a fact left after a million tokens, a sigmoid must stand at about −10.75 in every segment of noise.
#
# The **hard gate** is a straight line with two ends, z = clamp(a/6 + ½, 0, 1). From a = −3 downwards it is 0, exactly.

# %%
a = torch.tensor([-8.0, -4.0, -3.5, -2.0, 0.0, 4.0], requires_grad=True)
print("score a        ", "   ".join(f"{x:6.1f}" for x in a.tolist()))
slopes = {}
for name, gate in (("sigmoid", torch.sigmoid), ("hard", hardsigmoid)):
    z = gate(a)
    (slopes[name],) = torch.autograd.grad(z.sum(), a)
    print(f"{name:8} z      ", "   ".join(f"{x:6.4f}" for x in z.tolist()))
    print(f"{name:8} slope  ", "   ".join(f"{x:6.4f}" for x in slopes[name].tolist()))
assert hardsigmoid(a)[:3].count_nonzero() == 0 and torch.sigmoid(a).min() > 0
assert slopes["hard"][[0, 1, 2, 5]].count_nonzero() == 0 and hardsigmoid(torch.tensor(-3.0)) == 0

# %% [markdown]
# With z = 0, (1 − 0)ⁿ = 1 for every n. The slot is copied to the last bit, a million times if need be.
#
# Where is each line after a hundred thousand writes? By the half-life, ½ to the power of n / half-life is left.

# %%
n = torch.logspace(0, 5, 400, dtype=torch.float64)
fig, ax = plt.subplots(figsize=(11, 4.5))
ax.plot(n, (n < 4).double(), ":", color="0.45", label="plain queue, m / w = 4")
for b, line in ((-2.0, (0, (1, 1))), (-4.0, "--"), (-8.0, "-.")):
    left_after = 0.5 ** (n / half_life(torch.tensor([[b]], dtype=torch.float64))[0])
    ax.plot(n, left_after, linestyle=line, color=PATH_COLOURS["full"], label=f"sigmoid at −{-b:g}")
ax.plot(n, torch.ones_like(n), "-", color=PATH_COLOURS["memory"], label="hard gate at −4")
for x, y, word in ((4.3, 0.75, "cliff"), (3_500, 0.4, "slope"), (15_000, 0.92, "flat line")):
    ax.text(x, y, word, size=18, weight="bold")
ax.set(xscale="log", xlabel="writes", ylabel="share of the fact left", ylim=(-0.03, 1.05))
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=15)
show(fig, "Share of a fact left, by writes. A plain queue: a cliff at 4. Sigmoids: slopes. The hard gate: a flat line.")

# %% [markdown]
# The **cliff** of a plain queue, the **slope** of a sigmoid, the **flat line** of an exact zero. A smaller z moves the
# slope to the right; it does not make it flat.
#
# The zero has a price. Where the hard gate is flat its slope is 0 too, and no gradient comes through. A gate that is
# shut for everything from the start never learns to open. Here are fresh memories, and the gradient that reaches their
# gate.

# %%
def gradient_of_the_gate(gate: str, bias: float) -> float:
    """Norm of the gradient of a bank's sum with respect to the gate's weights, after one write."""
    torch.manual_seed(1)
    memory = GatedFIFOMemory(16, 8, 4, gate=gate, gate_bias=bias)
    memory.write(memory.initial(2), torch.randn(2, 32, 16)).sum().backward()
    return memory.to_gate.weight.grad.norm().item()


print("gate bias      sigmoid         hard")
reaches = {(gate, b): gradient_of_the_gate(gate, b) for b in (-2.0, -6.0, -20.0) for gate in ("sigmoid", "hard")}
for b in (-2.0, -6.0, -20.0):
    print(f"{b:9g} {reaches['sigmoid', b]:12.2g} {reaches['hard', b]:12.2g}")
assert reaches["hard", -2.0] > 0.1 and reaches["hard", -6.0] == reaches["hard", -20.0] == 0
assert 0 < reaches["sigmoid", -20.0] < 1e-6

# %% [markdown]
# So a hard gate has to start ajar, at −2, and to shut in training. The trained models of this course do that: in the
# second half of training a penalty on z shuts what is open for nothing.

# %% [markdown] tags=["instructor"]
# **The gate.** 98 % is the answer of those who forget that writes repeat; 82 % that of those who lose a factor of ten.
# Write 0.982 · 0.982 · 0.982 … on the board until the room sees it fall.
#
# A good question: could a sigmoid not be pushed so far that it is 0 in float32? Nearly: from about a = −17.4 on, 1 − z
# is rounded to 1. But the slope there is 3e-8, so gradient descent does not get there. The trained sigmoid of section 7
# stands near −6 in noise.

# %% [markdown]
# ## 5 The whole write
#
# After a segment whose output is x, a layer writes its bank M:
#
#     u         = pool(LN_w(x))                 w vectors for the segment
#     c         = the w newest slots of M       what is carried
#     s         = [u ; LN_M(c)]                 both side by side, 2d numbers a slot
#     z         = gate(s W_z + b_z)             a gate for each of the d numbers
#     candidate = tanh(s W_c + b_c)
#     new       = (1 − z) · c + z · candidate
#     M         ← [M without its w oldest ; new]
#
# LN_w and LN_M are LayerNorms: of what is to be written, and of the bank. The gate sees the segment and the slot, so it
# can open for a fact and stay shut in noise.
#
# By hand: m = 3 slots of d = 2, w = 1, the hard gate. The scores are given, [−4, 0] for the gate and [5, 0] for the
# candidate. So z = [0, ½], and the candidate is [tanh 5, tanh 0] ≈ [1, 0]. The first number is kept; the second is
# halved.

# %%
bank = torch.tensor([[[9.0, 9.0], [1.0, 1.0], [3.0, 4.0]]])
c = bank[:, -1:]
z = (torch.tensor([[[-4.0, 0.0]]]) / 6 + 0.5).clamp(0, 1)
new = (1 - z) * c + z * torch.tanh(torch.tensor([[[5.0, 0.0]]]))
print("gate:", z.tolist(), " new:", new.tolist())
print("bank:", push(bank, new).tolist())
assert new.tolist() == [[[3, 2]]] and push(bank, new).tolist() == [[[1, 1], [3, 4], [3, 2]]]

# %% [markdown]
# **Exercise 4** ●●○ 8 minutes. Write the update of the bank from both scores, with the hard gate, carrying the newest.
#
# <details><summary>Hint 1</summary>Four lines: what is carried, the gate, the mixture, the queue.</details>
# <details><summary>Hint 2</summary>w is <code>gate_score.shape[1]</code>; the w newest slots are the last.</details>
# <details><summary>Hint 3</summary><code>(gate_score / 6 + 0.5).clamp(0, 1)</code>, and <code>push</code> from exercise
# 2.</details>

# %% tags=["exercise"]
def write(bank: Tensor, gate_score: Tensor, candidate_score: Tensor) -> Tensor:
    """bank (B, m, d), both scores (B, w, d) -> (B, m, d): the bank after a write that carries the w newest slots."""
    # BEGIN SOLUTION
    carried = bank[:, -gate_score.shape[1] :]
    z = (gate_score / 6 + 0.5).clamp(0, 1)
    new = (1 - z) * carried + z * torch.tanh(candidate_score)
    return push(bank, new)
    # END SOLUTION

# %%
write = check("04.write", write, otherwise=package.write)

# %% [markdown]
# Pooling, scores, write: with these three, ours is the package's.

# %%
torch.manual_seed(1)
memory = GatedFIFOMemory(d_model=8, memory_slots=6, write_slots=2, gate="hard", gate_bias=-2.0)
bank, hidden = torch.randn(3, 6, 8), torch.randn(3, 32, 8)
u = pool(memory.queries, memory.write_norm(hidden))
s = torch.cat((u, memory.read_norm(bank[:, -2:])), dim=-1)
ours = write(bank, memory.to_gate(s), memory.to_candidate(s))
print("same numbers:", torch.allclose(ours, memory.write(bank, hidden), atol=1e-6))
assert torch.allclose(ours, memory.write(bank, hidden), atol=1e-6)

# %% [markdown]
# ### Which slots are carried
#
# `carry="newest"`, as in the paper, carries the w newest slots. `carry="oldest"` carries the w that are about to leave.
# With the gate shut, what does each make of a bank whose six slots are numbered?

# %%
different = {}
for carry in ("newest", "oldest"):
    shut = GatedFIFOMemory(8, 6, 2, gate="hard", carry=carry, gate_bias=-100.0)
    bank = torch.arange(6.0).reshape(1, 6, 1).expand(1, 6, 8)  # slot i holds the number i, eight times
    for turn in (1, 2, 3):
        bank = shut.write(bank, hidden[:1])
        print(f"{carry}, write {turn}:", bank[0, :, 0].int().tolist())
    different[carry] = len(bank[0].unique(dim=0))
print("different slots after m / w = 3 writes:", different)
assert different == {"newest": 2, "oldest": 6}

# %% [markdown]
# With its gate shut the queue no longer forgets what is carried: a copy enters at the end before the slot leaves at the
# front.
#
# Carrying the oldest is a rotation: all m vectors are kept. Carrying the newest makes copies: after m / w shut writes
# the bank holds the same w vectors m / w times, and its capacity is w vectors, not m. Section 8 sees whether that costs
# anything.
#
# ### How the bank is read
#
# By attention, with keys and values of its own, made from LN_M(M). A slot has no position, so the queries are taken as
# they are, without the rotation by position that notebook 02 is about. The order of the slots makes no difference to a
# reader, and a copy in another place is as good.

# %%
q, k_mem, v_mem = torch.randn(1, 2, 5, 4), torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
order = torch.randperm(6)
read, shuffled = memory_attention(q, k_mem, v_mem), memory_attention(q, k_mem[:, :, order], v_mem[:, :, order])
print("the order of the slots is not seen:", torch.allclose(read, shuffled, atol=1e-6))
assert torch.allclose(read, shuffled, atol=1e-6)

# %% [markdown]
# A segment reads the bank as it was before, and writes after it. Otherwise a token would see what comes later in its
# own segment.

# %% [markdown] tags=["instructor"]
# **The write.** Draw it as a conveyor belt with six places, and let people stand on it. Exercise 4 diagnoses, among
# others: a sigmoid in place of the hard gate, the gate the other way round, a missing clamp, the oldest carried, new
# slots that overwrite the newest in place.
#
# Why LN_M(c) and not c: a slot's length is then no signal, and the scores keep their scale.

# %% [markdown]
# ## 6 Where each forgets
#
# Now with the package's memory and random weights. Two banks are written from the same noise. To one of them a fact was
# added, a random vector in its w = 4 newest slots; the difference of the banks is what is left of it. The triangles
# show that for the copy that is kept best, the mean over 24 facts: 1 is all of it, about 0 is none. The line is the
# formula, (1 − z)ⁿ with the z at which the gate starts.
#
# Move the bias, then the size of the bank. Then try the hard gate at −3, −4 and −6.

# %%
retention = Retention()
curves = Explorer(
    retention,
    title="What a memory keeps of a fact",
    bias=FloatSlider(-2, min=-8, max=2, step=0.5, description="gate bias"),
    slots=SelectionSlider(options=[4, 8, 16, 32], value=16, description="slots m"),
    gate=ToggleButtons(options=["sigmoid", "hard"], description="gate"),
    carry=ToggleButtons(options=["newest", "oldest"], description="carry"),
)
curves

# %% [markdown]
# A larger bank moves the start of the slope to the right: the first copy stays m / w writes in the bank, whatever the
# gate does. How steep the slope is, the bias decides. Carrying the oldest turns it into stairs: a slot meets the gate
# only once in m / w writes, so it lives m / w times as long.

# %%
gaps = []
for values in ({}, {"slots": 32}, {"bias": -4.0}, {"carry": "oldest"}):
    print(curves.set(**values))
    gaps.append(max(abs(a - b) for a, b in zip(retention.left, retention.formula, strict=True)))
    turns = values.get("slots", 16) // 4
    assert retention.queue[turns - 1 : turns + 1] == [1, 0]
print(f"largest distance of a triangle from the line: {max(gaps):.2f}")
assert max(gaps) < 0.15

# %% [markdown]
# The formula holds closely for the sigmoid. (At −8 its line looks flat: 60 writes are too few. Section 4 has 10,000.)
# Now the hard gate. At −3 it stands on its edge, and the segments move its score up and down. When it opens a little
# the fact fades, though the formula, which knows the bias only, says 1.

# %%
flat = {}
for bias in (-3.0, -4.0, -6.0):
    print(curves.set(gate="hard", bias=bias))
    flat[bias] = retention.left[-1]
assert flat[-3.0] < 0.7 < flat[-4.0] and flat[-6.0] == 1
print(curves.set())

# %% [markdown] tags=["instructor"]
# **The curves.** Set the hard gate and pull the bias from 2 down to −8 in one drag: the slope rises and snaps flat.
# Then the same drag with the sigmoid: it rises, and at −8 the caption still says 0.98 where the hard gate has 1.00.
#
# With random weights the score of a gate spreads by about half a unit around its bias, with tails of two; so the flat
# line begins below −5 and not at −3.

# %% [markdown]
# ## 7 A trained memory at work
#
# The recall models of notebook 00 read facts in noise. `recall` has the hard gate and carries the newest. Three more
# were trained for this notebook, with the same seed, steps and penalty, and one thing changed:
#
# - `recall-sigmoid` has the sigmoid gate;
# - `recall-oldest` carries the oldest;
# - `recall-open` started with a gate bias of 20. Its gates are exactly 1, where they get no gradient, and so stayed: a
#   queue in which every write overwrites.

# %%
NAMES = {
    "hard gate": "recall",
    "sigmoid gate": "recall-sigmoid",
    "carry oldest": "recall-oldest",
    "trained open": "recall-open",
}
task = RecallTask()
readers = {shown: RMAT.from_checkpoint(name) for shown, name in NAMES.items()}
config = readers["hard gate"].config
L, w = config.segment_len, config.write_slots
assert readers["sigmoid gate"].config == replace(config, gate="sigmoid")
assert readers["carry oldest"].config == replace(config, carry="oldest")
assert readers["trained open"].config == replace(config, gate_bias=20.0)
print(f"L = {L}, m = {config.memory_slots}, w = {w}, d = {config.d_model}, {config.n_layers} layers")
print(f"gate bias at the start of training: {config.gate_bias:g}, m / w = {config.memory_slots // w}")

# %%
predict(
    "04.noise",
    "recall has just read a segment of noise. Layer 0 writes 8 slots of 64 numbers, each number with its own gate. "
    "How many of the 512 gates are exactly 0?",
    ["none", "about half", "nearly all", "all"],
)

# %% [markdown]
# Step through twelve segments, four facts among noise. A row is a slot.
#
# - Above: the tokens of the segment, and how the pooling of each slot shares out its weight over them. Dark is much.
# - Below, from left to right: the pooled vectors u; the gates z; the bank after the write, with an arrow into each slot
#   where a gate is above 0; and what share of a slot came from which segment, by what the gates let in and let stay.
#
# Watch a fact: its token is found, a gate opens, the bank takes it. Then watch the noise after it.

# %%
tokens = torch.randint(task.noise_tokens, (12 * L,), generator=torch.Generator().manual_seed(0))
for place, fact in {40: "B=1", 110: "A=5", 115: "E=0", 230: "H=7"}.items():
    ((key, value),) = parse_facts(fact, task)
    tokens[place] = task.fact_token(key, value)

steps = BankSteps(readers, task, tokens)
stepper = Explorer(
    steps,
    title="A bank, segment by segment",
    segment=IntSlider(3, 0, 11, description="segment"),
    layer=IntSlider(0, 0, config.n_layers - 1, description="layer"),
    model=Dropdown(options=list(readers), description="model"),
)
stepper

# %%
print(stepper.set())
needle = 110 - 3 * L  # where A=5 stands in segment 3
print(f"weight of A=5 in the pooling of slot 15: {steps.step.looks[7, needle]:.4f}; a mean would give {1 / L:.4f}")
assert steps.step.looks[7, needle] > 0.9
print(stepper.set(segment=4))
shut = (steps.step.gate == 0).sum().item()
assert shut == 512 and steps.step.came_from[:, 5].sum() == 0  # column 0 is the start, so segment 4 is column 5

# %%
reveal("04.noise", "all", f"{shut} of 512. What was carried enters as it was, to the last bit.")
in_noise = [segment for segment in range(12) if segment not in (1, 3, 7)]
zeros = 0
for segment in in_noise:
    stepper.set(segment=segment)
    zeros += (steps.step.gate == 0).sum().item()
print(f"in all {len(in_noise)} segments of noise: {zeros:,} of {512 * len(in_noise):,} gates are exactly 0")
assert zeros == 512 * len(in_noise)

# %%
print(stepper.set(segment=11))
copies = torch.equal(steps.step.bank[:w], steps.step.bank[w:])
print("the last 8 slots are the first 8 again:", copies)
for name in list(readers)[1:]:
    print(f"{name}: {stepper.set(segment=11, model=name)}")
    copies_elsewhere = torch.equal(steps.step.bank[:w], steps.step.bank[w:])
    assert not copies_elsewhere
assert copies
print(stepper.set())

# %% [markdown]
# In noise the hard gates are shut, all of them: no arrow. The facts stay where they were, each of them twice, because
# the newest slots are copied. The sigmoid's gates are small and never 0: an arrow into every slot, at every write.
#
# Which slot does a fact go to? Here is every fact of the task in a segment of its own. For each key: how the opening of
# the gates in layer 0 is shared out over the 8 slots that are written, the mean over its 8 values.

# %%
every_fact = torch.randint(task.noise_tokens, (64, L), generator=torch.Generator().manual_seed(2))
every_fact[:, 10] = task.first_fact + torch.arange(64)
with torch.no_grad(), record(readers["hard gate"]) as trace:
    readers["hard gate"](every_fact)
opened = trace.segments[0].layers[0].write.gate.mean(dim=-1).reshape(8, 8, w).mean(dim=1)
shares = opened / opened.sum(dim=1, keepdim=True)
keys = [key_name(key) for key in range(task.keys)]
show(
    slots_of_keys(shares, keys, [str(8 + slot) for slot in range(w)]),
    "Share of the gate opening by key and slot. Six of eight keys have more than 70 % in one slot, each in another.",
)

# %%
own = {key: 8 + row.argmax().item() for key, row in zip(keys, shares, strict=True) if row.max() > 0.7}
print("keys with more than 70 % of their opening in one slot:", own)
assert len(set(own.values())) == len(own) and set(keys) - set(own) == {"B", "G"}

# %% [markdown]
# Nobody told the model to keep a place for each key. In this training most keys came to have one, no two the same; B
# and G spread out, over slots of others too.

# %% [markdown] tags=["instructor"]
# **Step through it with the room.** Ask before segment 3: how many rows of the gate will light up? Then go on to 4 and
# back, several times: the lower half of the bank jumps up, and nothing else changes. That is the point of the notebook.
#
# Then layer 1. Its gates hardly ever open. Leave that as a riddle; section 9 takes it up.
#
# Then the sigmoid at segment 11: nearly the same picture, but for a faint tint everywhere and an arrow into every slot.
# Those arrows are section 8.
#
# Which key has which slot is an accident: with other seeds some keys share that do not share here.

# %% [markdown]
# ## 8 Who remembers
#
# Two measurements of each model, at distances from 32 to 8,192 tokens.
#
# The first looks into the bank, as in section 6. The vector is a tenth as long as a slot, so that it opens no gate
# itself.

# %%
DISTANCES = [L * 2**power for power in range(9)]


@torch.no_grad()
def left(reader: RMAT) -> list[list[float]]:
    """For each layer: the share of a vector that is left in its bank after each of DISTANCES tokens of noise."""
    noise = torch.randint(task.noise_tokens, (1, DISTANCES[-1]), generator=torch.Generator().manual_seed(2))
    shares = []
    for block, segments in zip(reader.blocks, written_segments(reader, noise), strict=True):
        after = fading(block.memory, segments, facts=8, size=0.1)
        shares.append([after[distance // L] for distance in DISTANCES])
    return shares

# %% [markdown]
# The second asks. 12 streams state four facts each in their first segment; noise follows; after each distance all four
# are asked of a copy of the state. 48 answers, chance 1 in 8.

# %%
@torch.no_grad()
def answered(reader: RMAT, streams: int = 12) -> list[float]:
    """Share of right answers after each of DISTANCES tokens."""
    generator = torch.Generator().manual_seed(1)
    keys = torch.rand(streams, task.keys, generator=generator).argsort(dim=1)[:, : task.facts]
    values = torch.randint(task.values, keys.shape, generator=generator)
    segment = torch.randint(task.noise_tokens, (streams, L), generator=generator)
    segment[:, 4::8] = task.fact_token(0, 0) + keys * task.values + values
    asking = torch.randint(task.noise_tokens, (streams, L), generator=generator)
    asking[:, -task.facts :] = task.query_token(0) + keys
    state, right = reader.init_state(streams), []
    for tokens_read in range(L, DISTANCES[-1] + 1, L):
        state = reader(segment, state).state
        if tokens_read in DISTANCES:
            said = reader(asking, state).logits[:, -task.facts :, task.first_answer :].argmax(dim=-1)
            right.append((said == values).float().mean().item())
        segment = torch.randint(task.noise_tokens, (streams, L), generator=generator)
    return right

# %% [markdown]
# A fifth reader joins them: `recall` with its gates forced open. It was trained to keep, and is made a plain queue.

# %%
predict(
    "04.sigmoid",
    "The model with the sigmoid gate answers nearly everything at 512 tokens, the most that it met in training. "
    "At 8,192 tokens, what share does it answer?",
    ["nearly all", "about half", "less than a third; a guess is right 1 time in 8"],
)

# %%
def with_gate(name: str, change: Callable[[Tensor], Tensor]) -> RMAT:
    """A shipped model whose gates z are replaced by change(z) in every write; its weights stay as they are."""
    reader = RMAT.from_checkpoint(name)
    for block in reader.blocks:
        opening = block.memory.opening
        block.memory.opening = lambda score, opening=opening: change(opening(score))
    return reader


five = readers | {"gates forced open": with_gate("recall", torch.ones_like)}
measured = {name: Curves(left(reader), answered(reader)) for name, reader in five.items()}

# %% [markdown]
# On the left the vector, on the right the answers. Compare two or three at a time, and move the vertical line: the
# sentence below gives the numbers there.

# %%
survival = Survival(
    DISTANCES,
    measured,
    {
        "sigmoid or hard gate": ["hard gate", "sigmoid gate"],
        "carry newest or oldest": ["hard gate", "carry oldest"],
        "plain queue or gated": ["hard gate", "gates forced open", "trained open"],
        "all five": list(five),
    },
    task.chance,
)
comparison = Explorer(
    survival,
    title="Who remembers, and for how long",
    compare=Dropdown(options=list(survival.groups), description="compare"),
    layer=IntSlider(0, 0, config.n_layers - 1, description="layer"),
    tokens=SelectionSlider(options=[(f"{T:,} tokens", T) for T in DISTANCES], value=4096, description="distance"),
)
comparison

# %%
print(comparison.set(tokens=8192))
right = {name: dict(zip(DISTANCES, curve.right, strict=True)) for name, curve in measured.items()}
vector = {name: dict(zip(DISTANCES, curve.left[0], strict=True)) for name, curve in measured.items()}
assert right["hard gate"][8192] > 0.9 and right["sigmoid gate"][512] > 0.9 and right["sigmoid gate"][8192] < 1 / 3
assert abs(vector["hard gate"][8192] - 1) < 1e-3 and 0.3 < vector["sigmoid gate"][8192] < 0.6
assert vector["sigmoid gate"][4096] > 0.6 and right["sigmoid gate"][4096] < 0.7
early, late = (right["sigmoid gate"][T] for T in (512, 8192))
reveal("04.sigmoid", 2, f"{late:.0%} right at 8,192 tokens, {early:.0%} at 512.")

# %% [markdown]
# **The gate.** The flat line and the slope, in trained models. The sigmoid's answers fail before its vector is gone: at
# 4,096 tokens most of the vector is left, and many answers are wrong. A fact need not fade to nothing to be lost.

# %%
print(comparison.set(compare="carry newest or oldest", tokens=8192))
assert right["carry oldest"][8192] > 0.9 and abs(vector["carry oldest"][8192] - 1) < 1e-3
print(comparison.set(compare="plain queue or gated", tokens=128))
assert right["gates forced open"][64] > 0.8 and right["gates forced open"][128] < 0.4
assert max(vector["gates forced open"][64], vector["trained open"][64]) < 0.4
assert right["trained open"][128] > 0.9 and task.chance < right["trained open"][8192] < 0.6
print(comparison.set(compare="plain queue or gated", tokens=8192))
print(comparison.set())

# %% [markdown]
# **What is carried.** Carrying the oldest holds as well. The capacity that copies cost is not missed here: four facts
# fit in eight slots. We ship the newest because the paper has it, not because it did better.
#
# **The queue.** `recall` with its gates forced open answers over m / w = 2 segments and then guesses: the cliff.
#
# **Trained open** is the surprise. A vector in its bank is gone nearly as fast as from a plain queue. Yet it answers
# for facts far beyond 2 segments, if for fewer and fewer. With z = 1 there is one way left: its candidate sees the
# carried slots, and writes the facts anew each time. That holds facts, not vectors, and it wears out with distance. So
# memory without a gate is possible. The lesson here is about this gate.
#
# ### Three seeds
#
# So far each model is one training. Each was trained with two other seeds, and all twelve were asked 256 questions at
# each of six lengths. That takes too long for a cell, so the scores are stored. In these streams the facts stand
# anywhere: they are half as far away on average, and the curves fall later.

# %%
stored = json.loads((data() / "recall-gates.json").read_text(encoding="utf-8"))["runs"]
scores = {}
for shown, name in NAMES.items():
    of_seeds = [run["scores"] for run in stored if run["model"] == name]
    scores[shown] = {at[0]["tokens"]: [score["accuracy"] for score in at] for at in zip(*of_seeds, strict=True)}
print(f"{len(stored)} trainings: {sum(run['training_seconds'] for run in stored) / 60:.0f} minutes on one core")
assert {score["answers"] for run in stored for score in run["scores"]} == {256} and len(stored) == 12
show(
    score_lines(scores, task.chance),
    "Stored scores of three seeds, by length. Hard gate and carry oldest: flat at the top to 32,768 tokens. Trained "
    "open falls from the start, the sigmoid gate from 2,048 tokens on; at the end both are below a quarter.",
)

# %%
print("mean (lowest to highest)         512               4,096              32,768 tokens")
for shown, by_tokens in scores.items():
    cells = [f"{sum(at) / 3:.2f} ({min(at):.2f} to {max(at):.2f})" for at in map(by_tokens.get, (512, 4096, 32_768))]
    print(f"{shown:14}   " + "  ".join(cells))
exact = scores["hard gate"][32_768] + scores["carry oldest"][32_768]
others = scores["sigmoid gate"][32_768] + scores["trained open"][32_768]
print(f"32,768 tokens: lowest of six with exact zeros {min(exact):.1%}, highest of the six others {max(others):.1%}")
assert min(exact) > 0.9 and max(others) < 0.4
assert min(scores["sigmoid gate"][512]) > 0.95 > 0.9 > max(scores["sigmoid gate"][4096])
million = json.loads((data() / "recall.json").read_text(encoding="utf-8"))["scores"][-1]
print(f"recall at {million['tokens']:,} tokens: {million['accuracy']:.0%} of {million['positions']} answers, one seed")
assert million["tokens"] == 2**20 and million["accuracy"] > 0.9

# %% [markdown]
# In every seed the two with exact zeros stay at the top, and the other two fall. Where the sigmoid falls, seeds differ
# by a fifth of the answers; that it falls, they do not differ. Newest and oldest lie on one another. Trained open loses
# answers from the first length on; at the last, its range and the sigmoid's overlap.
#
# ### Proof by one line
#
# Is it the exact zero, or did the hard gate learn better features? Change the gate of trained models, and nothing else:
#
# - in the hard model raise every z to at least 0.0026, which is about what the sigmoid's gates have in noise;
# - in the sigmoid model put every z below 0.02 to exactly 0.

# %%
noise = torch.randint(task.noise_tokens, (1, 32 * L), generator=torch.Generator().manual_seed(5))
with torch.no_grad(), record(readers["sigmoid gate"]) as trace:
    readers["sigmoid gate"](noise)
gates = torch.stack([segment.layers[0].write.gate for segment in trace.segments])
half = half_life(torch.logit(gates.mean()).reshape(1, 1)).item()
print(f"sigmoid in noise, layer 0: mean z = {gates.mean():.4f}, largest {gates.max():.4f}, smallest {gates.min():.1e}")
print(f"a gate with that z has a half-life of {half:.0f} writes, {half * L:,.0f} tokens")
print(f"256 writes with z = 0.0026, which are 8,192 tokens, leave {(1 - 0.0026) ** 256:.2f}")
assert 0.001 < gates.mean() < 0.005 and gates.min() > 0

# %%
predict(
    "04.why",
    "Nothing is trained anew. Which of the two changed models still answers at 8,192 tokens?",
    [
        "the hard model: its features are better, and 0.0026 is next to nothing",
        "the sigmoid model: what matters is that a write leaves a slot exactly as it is",
        "both",
        "neither: a model works only with the gate that it was trained with",
    ],
)

# %%
changed = {
    "hard gate, z at least 0.0026": with_gate("recall", lambda z: z.clamp(min=0.0026)),
    "sigmoid, z below 0.02 put to 0": with_gate("recall-sigmoid", lambda z: torch.where(z < 0.02, 0, z)),
}
print("share of right answers after       512   4,096   8,192 tokens")
swapped = {name: dict(zip(DISTANCES, answered(reader), strict=True)) for name, reader in changed.items()}
for name, curve in {"hard gate": right["hard gate"], "sigmoid gate": right["sigmoid gate"], **swapped}.items():
    print(f"{name:31}" + "".join(f"{curve[T]:8.0%}" for T in (512, 4096, 8192)))
floored, snapped = swapped.values()
assert floored[512] > 0.9 and floored[8192] < 0.35 and snapped[8192] > 0.9

# %%
reveal(
    "04.why",
    1,
    f"At 8,192 tokens: hard gate with a floor {floored[8192]:.0%}, sigmoid with exact zeros {snapped[8192]:.0%}.",
)

# %% [markdown]
# The same weights forget or remember by the zeros alone. Now in your own words: why does the hard gate keep a fact? Say
# what a write does in noise with z = 0 and with z = 0.0026, and what 256 writes make of it.
#
# <details><summary>One answer to compare with yours</summary>In noise the hard gate is exactly 0. The write then copies
# each slot to the last bit, and a copy of a copy is still the same. With z = 0.0026 each write leaves 0.9974 and puts
# noise in the place of the rest; 0.9974 to the power of 256 is 0.51, so half of the slot is noise by then. The
# attention that reads it, the pooling and the features did not change.</details>

# %% [markdown] tags=["instructor"]
# **The closing question** is the exam of this notebook. Who can answer it in a sentence has understood: "In noise the
# gate is exactly 0, so the write copies the slot bit for bit, and copying can be repeated for ever; 0.9974 to the power
# of 256 is a half."
#
# Let nobody leave with "gates are needed": point at the trained open model. And let nobody leave with "hard gates are
# better": they can be stuck, which is section 9.

# %% [markdown]
# ## 9 When a memory is broken
#
# Three signatures. For each: a healthy model beside one that is broken on purpose.
#
# ### Stuck gates
#
# A gate is **saturated** where it is exactly 0 or 1. In noise a healthy hard gate is saturated nearly everywhere; that
# is what keeps. The sign of trouble is a gate that stays shut when a fact passes, or stays open when none does, and the
# gradient that it then lacks.

# %%
def gate_states(reader: RMAT, with_fact: bool) -> tuple[float, float, float]:
    """Shares of the gates of layer 0 that are exactly 0, between, exactly 1, in segments with a fact or without."""
    tokens, _ = task.batch(16, 16 * L, torch.Generator().manual_seed(3))
    with torch.no_grad(), collect_gates(reader) as gates:
        reader(tokens)
    z = torch.stack(gates[:: config.n_layers], dim=1)[:, :-1]  # the last segment asks
    has_fact = (task.fact_keys(tokens) >= 0).unflatten(1, (-1, L)).any(dim=-1)[:, :-1]
    some = z[has_fact == with_fact]
    shut, wide = (some == 0).float().mean().item(), (some == 1).float().mean().item()
    return shut, 1 - shut - wide, wide


torch.manual_seed(0)
stuck = RMAT(replace(config, gate_bias=-20.0))
fresh = RMAT(config)
states = {
    "recall, noise": gate_states(readers["hard gate"], with_fact=False),
    "recall, a fact": gate_states(readers["hard gate"], with_fact=True),
    "untrained at −2, a fact": gate_states(fresh, with_fact=True),
    "untrained at −20, a fact": gate_states(stuck, with_fact=True),
    "trained open, noise": gate_states(readers["trained open"], with_fact=False),
}
show(
    gate_bars(states),
    "Shares of gates that are exactly 0, between, or exactly 1. recall: all 0 in noise, some open at a fact. "
    "At −20 all are 0 at a fact too. Trained open: all are 1.",
)

# %%
def gate_gradient(reader: RMAT) -> float:
    """Norm of the loss's gradient with respect to the gate's weights in layer 0."""
    tokens, targets = task.batch(16, 8 * L, torch.Generator().manual_seed(4))
    loss = cross_entropy(reader(tokens).logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    return torch.autograd.grad(loss, reader.blocks[0].memory.to_gate.weight)[0].norm().item()


reaches = {"recall": readers["hard gate"], "untrained at −2": fresh, "untrained at −20": stuck,
           "trained open": readers["trained open"]}
reaches = {name: gate_gradient(reader) for name, reader in reaches.items()}
for name, norm in reaches.items():
    print(f"gradient that reaches the gate, {name:17} {'exactly 0' if norm == 0 else 'above 0'}")
assert reaches["untrained at −20"] == reaches["trained open"] == 0 < min(reaches["recall"], reaches["untrained at −2"])
assert states["recall, noise"][0] > 0.99 and states["recall, a fact"][1] > 0.01
assert states["untrained at −20, a fact"][0] == states["trained open, noise"][2] == 1

# %% [markdown]
# The bar of `recall` in noise and that of the stuck model look alike. The second bar tells them apart, and so does the
# gradient.
#
# ### A bank that nobody reads
#
# Three things to look at: λ, the weight of the memory path; how many slots the reader's attention spreads over, exp of
# the entropy of its weights, from 1 to m; and what happens to the answers when the bank is emptied before they are
# asked for. The broken model is `recall` with the memory's λ turned down to nothing.

# %%
@torch.no_grad()
def reading(reader: RMAT, layer: int) -> tuple[float, float, float, float]:
    """λ of the memory, slots that attention spreads over, right answers as it is and with the layer's bank emptied."""
    tokens, targets = task.batch(32, 512, torch.Generator().manual_seed(5))
    state, asking, wanted = reader(tokens[:, :-L]).state, tokens[:, -L:], targets[:, -L:]
    banks = list(state.memory)
    banks[layer] = torch.zeros_like(banks[layer])
    right = []
    for start in (state, replace(state, memory=tuple(banks))):
        said = reader(asking, start).logits.argmax(dim=-1)
        right.append((said == wanted)[wanted != IGNORED].float().mean().item())
    with record(reader) as trace:
        reader(asking, state)
    traced = trace.segments[0].layers[layer]
    spread = torch.special.entr(traced.memory).sum(dim=-1).mean().exp().item()
    return traced.mix["memory"], spread, *right

# %%
deaf = RMAT.from_checkpoint("recall")
for block in deaf.blocks:
    block.mix.data[-1] = -20.0
print("                      λ    slots    right   bank emptied")
table = {}
for name, reader in {"recall": readers["hard gate"], "memory's λ off": deaf}.items():
    for layer in range(config.n_layers):
        table[name, layer] = share, spread, as_is, emptied = reading(reader, layer)
        print(f"{name:14} layer {layer}: {share:.2f} {spread:6.1f} {as_is:9.0%} {emptied:12.0%}")
assert table["recall", 0][2] > 0.95 and table["recall", 0][3] < 0.4 and table["recall", 1][3] > 0.9
assert table["recall", 1][0] > table["recall", 0][0] and table["recall", 1][1] < table["recall", 0][1]
assert table["memory's λ off", 0][2] == table["memory's λ off", 0][3] < 0.4
stepper.set(segment=11, layer=1)
first = steps.step.came_from[:, 0]
print(f"layer 1 after the twelve segments of section 7: at least {first.min():.4f} of each slot is from the start")
assert first.min() > 0.99
stepper.set()

# %% [markdown]
# λ alone misleads. Layer 1 of the healthy model weighs its bank more than layer 0 does, and reads it from fewer slots.
# Empty it, and hardly an answer is lost: its gates nearly never open, so it holds what it held at the start. Only the
# last column shows that. One bank seems enough for this task.
#
# ### Slots that collapse
#
# Slots that are alike are wasted. The **effective rank** counts the directions that the slots fill: exp of the entropy
# of the singular values, taken as shares. It is 1 if all slots point the same way, m if they are at right angles and
# equally long. The maps below show the **likeness** of each pair: the cosine of the angle between them, without its
# sign.

# %%
for name, pair in {"alike": [[1.0, 0.0], [1.0, 0.0]], "at right angles": [[1.0, 0.0], [0.0, 1.0]]}.items():
    print(f"two slots {name}: effective rank {effective_rank(torch.tensor(pair)):.1f}")

# %%
@torch.no_grad()
def bank_of_a_fresh_memory(spread: float, seed: int = 0) -> Tensor:
    """The bank of an untrained memory after 100 writes; its pooling queries start with this spread."""
    torch.manual_seed(seed)
    memory = GatedFIFOMemory(64, 16, 8, gate="hard", gate_bias=0.0)
    memory.queries.mul_(spread / 3)  # the package starts them with 3
    bank = memory.initial(1)
    for _ in range(100):
        bank = memory.write(bank, torch.randn(1, 32, 64))
    return bank[0]


with torch.no_grad():
    trained = {name: readers[name](tokens[None]).state.memory[0][0] for name in ("hard gate", "carry oldest")}
banks = {
    "recall": trained["hard gate"],
    "carry oldest": trained["carry oldest"],
    "queries apart": bank_of_a_fresh_memory(3.0),
    "queries alike": bank_of_a_fresh_memory(0.01),
}

# %%
show(
    likeness_maps(banks),
    "How alike the 16 slots of four banks are. recall: two copies of 8 slots. Carry oldest: 16 different ones. "
    "Untrained with queries apart: different. With queries alike: all slots nearly the same.",
)
assert 7 < effective_rank(banks["recall"]) <= 8.5 and effective_rank(banks["carry oldest"]) > 14
apart, alike = ([effective_rank(bank_of_a_fresh_memory(spread, seed)) for seed in range(5)] for spread in (3.0, 0.01))
print(f"five seeds: queries apart, rank {min(apart):.0f} to {max(apart):.0f}; alike, {min(alike):.0f} to {max(alike):.0f}")
assert max(alike) < min(apart)

# %% [markdown]
# `recall` fills about 8 of 16: two copies of w = 8 slots, the stripes beside the diagonal. That is the carrying of the
# newest, seen from outside, and no fault. On the right is one: pooling queries that start nearly alike pool nearly the
# same, and the slots become one another, more or less by seed. The package starts them apart, with a spread of 3.
#
# | Sign | How to see it | What to do |
# |---|---|---|
# | gates exactly 0 at facts too, gradient 0 | share of zeros where something happens | start the bias at −2; let the penalty come late |
# | gates exactly 1, gradient 0 | share of ones | start the bias below 3 |
# | small gates, never 0 | smallest z in noise; answers against distance | the hard gate, or a threshold |
# | a bank that nobody needs | empty it and count answers; λ alone misleads | fewer layers with memory |
# | slots alike | effective rank below w | queries that start apart |

# %% [markdown] tags=["instructor"]
# **What breaks.** Give each of three groups one signature, and let them find a second way to see it.
#
# Layer 1 is a real finding about a shipped model, not a staged one. Ask what could have told us earlier: the stepper,
# whose layer 1 never changes. It is also why notebook 09 takes parts away one by one.

# %% [markdown]
# ## Recap
#
# 1. A memory of m vectors decides by pooling what stands for a segment, by a queue what leaves, by a gate what is
#    overwritten.
# 2. The mean leaves 1/L of a needle; attention pooling with a lead finds it.
# 3. A plain queue forgets at m / w segments: a cliff. A sigmoid leaves (1 − z)ⁿ: a slope.
# 4. An exact zero copies a slot to the last bit, any number of times, and the copy enters before the slot leaves: a
#    flat line, in all six trainings that had it. It is the zero that keeps, as one changed line showed.
# 5. A zero has no gradient. Look at gates where facts pass, empty banks to see who needs them, count the directions of
#    slots.
#
# ## Ledger
#
# The paper is arXiv 2507.00453; it came without code. What this notebook settles:
#
# | Paper | Our equation | Code | Test | Left open, and our choice |
# |---|---|---|---|---|
# | the segment's summary is written | u = softmax(Q LN_w(x)ᵀ / √d) LN_w(x), Q: w learned queries | `memory.py`: `pool` | `test_memory.py`: `test_write_equals_the_loop` | the pooling; attention, because a mean leaves 1/L of a fact. `pool="mean"` is there to compare |
# | gated update | new = (1 − z) c + z tanh(s W_c + b_c), s = [u ; LN_M(c)] | `memory.py`: `GatedFIFOMemory.step` | `test_memory.py`: `test_write_equals_the_loop`, `test_an_open_gate_overwrites` | what the gate sees, and one gate a slot or a number; it sees u and c, and has one a number |
# | sigmoid gate | z = sigmoid(a), or hard: clamp(a/6 + ½, 0, 1) | `memory.py`: `GatedFIFOMemory.opening`, `hard_gate` | `test_memory.py`: `test_a_sigmoid_gate_always_fades`, `test_a_hard_gate_of_zero_repeats_every_bit_of_the_newest` | nothing; the hard gate is ours, because a sigmoid fades |
# | first in, first out | M ← [M without its w oldest ; new] | `memory.py`: `push` | `test_memory.py`: `test_first_in_first_out`, `test_a_slot_leaves_after_m_over_w_writes` | how many enter at a time; w |
# | the gate mixes old and new | c = the w newest slots | `memory.py`: `GatedFIFOMemory.step` | `test_memory.py`: `test_a_hard_gate_of_zero_repeats_every_bit_of_the_newest`, `test_a_hard_gate_of_zero_keeps_every_bit_of_the_oldest` | which old slots; the newest as we read the paper, the oldest as an option that did as well here |
# | gate bias | b_z = −2 at the start | `memory.py`: `GatedFIFOMemory` | `test_memory.py`: `test_gate_bias_is_where_the_gate_starts` | the start of the gate; ajar, so that a hard gate gets a gradient |
# | initial memory | M_0 = learned slots | `memory.py`: `GatedFIFOMemory.initial` | `test_memory.py`: `test_the_bank_starts_from_the_learned_slots` | the bank before the first segment; learned, not zeros |
# | memory attention | softmax(q k_Mᵀ / √d_h) v_M, q not rotated | `attention.py`: `memory_attention` | `test_attention.py`: `test_memory_attention` | the position of memory; none |
# | causal model | read the bank, then write it | `block.py`: `HybridBlock.forward` | `test_causality.py`: `test_a_memory_that_is_written_before_it_is_read_is_found` | when it is written; after the segment that read it |
#
# ## What to tweak next
#
# The cells assert what the prose says. Where your change makes it untrue, the assertion stops the cell, as it should.
#
# - Section 8: in `with_gate` put the sigmoid's threshold at 0.005, then at 0.1. Which zeros matter?
# - Section 8: give the hard model a floor of 0.0005. Does the half-life predict where it forgets?
# - Section 7: state a key twice with different values. Which one survives, and what do the gates do?
# - Section 7: put eight facts into the stream. Who shares a slot with whom?
#
# Next: [05 The hybrid block](05_hybrid_block.ipynb), where the memory and two attentions become one layer.
