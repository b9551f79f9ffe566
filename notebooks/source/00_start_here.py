# %% [markdown]
# # 00 Start here
#
# **Afterwards you can**
#
# - say why a transformer forgets, and show it;
# - say what it costs not to forget, in bytes;
# - read the picture of a memory that fills, keeps and answers;
# - find your way in the course: predictions, exercises, the environment check.
#
# **Time:** 25 minutes. **You need:** to have run a cell before. No GPU.
#
# **The question of the course:** why does a transformer forget, and what does it cost not to? In concrete terms: a
# fact is said once, 10,000 tokens of noise follow, then comes a question about the fact. This notebook shows who can
# answer. The others show why.

# %% [markdown] tags=["instructor"]
# **Teaching plan.** 25 minutes with a room: 5 for the stream, 8 for the first playground, 4 for the curve, 3 for the
# bytes, 5 for the second playground. The map at the end is reading.
#
# Run all cells before the lesson, and start at section 3 if time is short: its picture is the whole course on one
# page. Take the predictions by show of hands before you press Go.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from rmat_tutorial import RMAT, doctor, record
from rmat_tutorial.exercises import check
from rmat_tutorial.facts import make_stream, parse_facts
from rmat_tutorial.measuring import cache_bytes
from rmat_tutorial.playground import RecallPlayground, TextPlayground
from rmat_tutorial.plots import PATH_COLOURS, show, use_style
from rmat_tutorial.predictions import nearest, predict, reveal
from rmat_tutorial.recipes import RECIPES
from rmat_tutorial.tasks import RecallTask

use_style()
torch.set_num_threads(1)

# %% [markdown]
# ## 1 A fact, some noise, a question
#
# A model reads **tokens**: small units, each a whole number to the model. Here is a stream of 64 of them, 32 in a line,
# each printed as its label.

# %%
task = RecallTask()
stream = make_stream(task, parse_facts("B=3 F=0", task), length=64, start=0.1, seed=1)
for segment in stream.tokens.split(32):
    print(" ".join(task.decode(token) for token in segment))

# %% [markdown]
# `B=3` is one token, a fact: key B has the value 3. `·` is noise; the model sees 16 different kinds of it. `B?` asks for
# the value of B. There are 8 keys and 8 values, so guessing is right one time in 8.

# %%
print(f"{task.keys} keys, {task.values} values: chance is {task.chance}")
assert task.chance == 1 / 8 and task.noise_tokens == 16

# %% [markdown]
# Each line above is a **segment**: the tokens that attention sees together. When a segment is over, attention never sees
# it again.
#
# What outlives a segment is the **bank**: a fixed number of vectors in each layer. One of these vectors is a **slot**.
# After each segment the oldest slots leave the bank and as many enter. A slot that enters starts as a copy of one of the
# newest. A **gate** decides what share of the copy is overwritten with what the segment brought. A shut gate overwrites
# nothing.

# %%
model = RMAT.from_checkpoint("recall")
without = RMAT.from_checkpoint("recall-no-memory")
config = model.config
print(f"a segment is {config.segment_len} tokens")
print(f"each of {config.n_layers} banks has {config.memory_slots} slots of {config.d_model} numbers")
print(f"after a segment {config.write_slots} slots leave and {config.write_slots} enter")
assert config.segment_len == 32 and task.vocab_size == config.vocab_size
assert without.config == replace(config, paths=("full", "chunk"))

# %% [markdown]
# ## 2 Predict
#
# Two models were trained on such streams. They differ in one thing: the second lacks the memory. Each stream states four
# facts and asks for all four at its end.
#
# Commit yourself before you scroll on. Your answers are kept, and section 4 sets the measurement beside them.

# %%
OPTIONS = ["about 0.5, as by guessing", "about 2", "about 3", "nearly all 4"]
predict(
    "00.without",
    "1,024 tokens: four facts in noise, then four questions. How many answers of the model "
    "without memory are right, on average?",
    OPTIONS,
)

# %%
predict(
    "00.with",
    "The same streams, read by the model with memory. How many of four answers are right, on average?",
    OPTIONS,
)

# %% [markdown]
# ## 3 Playground: facts in noise
#
# State facts of your own, place them, choose a length and a model, and press **Go**. The stream runs from left to right.
#
# - Above: how far the gates open after each segment, a row for each slot that enters. Each one that opened has a dark
#   edge, and is the darker the further it did.
# - Below: what the model would answer if the stream ended there and the facts were asked. Dark is sure and right.
# - The triangles mark where the facts are.
# - On the right: the answers at the end. A frame marks the right value, dark is what the model says.

# %%
playground = RecallPlayground(task, model, without)
playground

# %% [markdown]
# **What you see.** A row is pale until the segment with its triangle and dark from there to the end: the fact was read
# once, and every later question about it would have been answered. When a fact passes, gates open. In noise they are
# shut, nearly always exactly: what the slots hold stays as it is, to the last bit. The mark at the far right is the
# segment with the questions.
#
# **Try.** Choose the model without memory and press Go: each row is dark for one segment, the one with the fact in it.
# Then wipe the memory after each segment. Then move the facts, make the stream longer, change the noise.
#
# The next two cells move the same controls, to check what is said here, and put them back as they were at first.

# %%
right = []
for reader in playground.controls["reader"].options:
    print(playground.set(reader=reader))
    right.append(sum(playground.picture.right))
assert right[0] == 4 and max(right[1:]) <= 2

# %% [markdown] tags=["instructor"]
# **What to point at.** One row of the lower picture: pale until its triangle, dark from there to the end. Then the same row
# for the model without memory: dark for the one segment with the fact in it, pale ever after. Ask where the fact is
# during the noise. (In the bank; nothing else crosses from segment to segment.)
#
# The third model is the first one with its bank put back to the start after each segment. It proves the point: same
# weights, and it knows nothing.

# %%
print(playground.set(facts="G=1", length=16384, start=0.25))  # the question of the course
assert playground.picture.right == [True] and "after 12,286 tokens of noise" in playground.caption
print(playground.set(facts="G1"))
assert "is no fact" in playground.caption
print(playground.set())
opened = playground.picture.opened
print(f"{opened.numel():,} times a slot could be overwritten; {opened.count_nonzero()} times it was, if only in part")
assert opened.count_nonzero() < 0.1 * opened.numel() and "4 of them with a fact" in playground.caption
assert "after 5 of 128 segments" in playground.caption and opened[-1].max() > 0.01  # the fifth has the questions

# %% [markdown]
# ## 4 At every length
#
# One stream proves little. The next cell reads 32 streams of each length, facts anywhere in them, and counts. It takes
# some seconds.

# %%
@torch.no_grad()
def accuracy(reader: RMAT, tokens: int, wipe: bool = False, streams: int = 32) -> float:
    """Share of right answers over ``streams`` streams of ``tokens`` tokens."""
    state, right = reader.init_state(streams), 0
    for piece, targets in task.stream(streams, tokens, 32, torch.Generator().manual_seed(3)):
        logits, state = reader(piece, state)
        right += (logits.argmax(dim=-1) == targets).sum().item()  # only a question has a target
        if wipe:
            state = state.reset(range(streams))
    return right / (streams * task.facts)


LENGTHS = [64, 128, 256, 512, 1024, 2048, 4096, 8192]
curves = {
    "with memory": [accuracy(model, tokens) for tokens in LENGTHS],
    "without memory": [accuracy(without, tokens) for tokens in LENGTHS],
    "memory wiped": [accuracy(model, tokens, wipe=True) for tokens in LENGTHS],
}

# %%
at = LENGTHS.index(1024)
for key, name in (("00.without", "without memory"), ("00.with", "with memory")):
    measured = 4 * curves[name][at]
    reveal(key, nearest([0.5, 2, 3, 4], measured), f"The model {name} gave {measured:.2f} right answers of 4, on average.")

# %%
fig, ax = plt.subplots(figsize=(9, 5))
marks = {"with memory": "^", "without memory": "o", "memory wiped": "s"}
colours = [PATH_COLOURS[path] for path in ("memory", "full", "chunk")]
for (name, curve), colour in zip(curves.items(), colours, strict=True):
    ax.plot(LENGTHS, curve, marker=marks[name], color=colour, label=name)
ax.axhline(task.chance, color="0.4", linestyle="--", label="chance")
ax.set(xscale="log", ylim=(-0.03, 1.05), xlabel="tokens in the stream", ylabel="share of right answers")
ax.set_xticks(LENGTHS, [f"{tokens:,}" for tokens in LENGTHS], rotation=45)
ax.minorticks_off()
ax.legend(loc="center right")
show(
    fig,
    "Share of right answers against length. With memory it stays near 1. Without, and with the "
    "memory wiped, it falls to chance.",
)

# %%
for name, curve in curves.items():
    print(f"{name:15}", "  ".join(f"{share:5.1%}" for share in curve))
assert min(curves["with memory"]) > 0.9
assert max(curves["without memory"][3:] + curves["memory wiped"][3:]) < 0.25
assert curves["without memory"][0] > 0.3
longest = RECIPES["recall"].settings.max_segments * config.segment_len
print(f"longest stream in training: {longest} tokens")
assert longest == 512

# %% [markdown]
# From 512 tokens on, the model without memory answers by guessing, or nearly so: a fact that has left the segment has left
# the model. In short streams it does better, since some facts share the last segment with the questions. The model with
# memory gives more than nine right answers in ten at each of these lengths. In training it met 512 tokens at most.

# %% [markdown]
# ## 5 What it costs not to forget
#
# There is another way not to forget: attend to all tokens, always. Attention reads two vectors of each token, named like
# the halves of a fact: its key and its value. Those of every token have to be kept then, in every layer: the **cache**.
# The model with memory carries its **state** instead: the banks, and room for one segment.

# %%
state_bytes = {}
for tokens in (1_000, 10_000):
    with torch.no_grad():
        state_bytes[tokens] = model(torch.zeros(1, tokens, dtype=torch.int64)).state.nbytes
    print(f"{tokens:9,} tokens: cache {cache_bytes(config, tokens):13,} bytes, state {state_bytes[tokens]:6,} bytes")
print(f"1,000,000 tokens: cache {cache_bytes(config, 1_000_000):13,} bytes, as computed")
assert state_bytes[1_000] == state_bytes[10_000] == model.init_state(1).nbytes

# %% [markdown]
# The cache grows with every token. The state has one size, before the first token and after 10,000: nothing in it grows.
# So the cost of not forgetting need not grow, if the model picks what it keeps. Time has the same problem, worse:
# notebook 01 measures it.

# %% [markdown]
# ## 6 Playground: a model that reads text
#
# The `text` model reads bytes: one token is one byte. Type anything and press Enter.
#
# In each layer a byte looks along three **paths**: at itself and the earlier bytes of its segment (full); at those of its
# **chunk**, a part of the segment (chunk); at the slots of the bank (memory). Each path has several **heads**,
# attentions side by side.
#
# - Above: the three maps of one head, for the last segment of the text. Each row is a byte, dark is what it looks at. At
#   most eight bytes have their label.
# - Below: what the model expects next; how a layer weighs the three paths, its **λ**; how far its gates opened.

# %%
text_model = RMAT.from_checkpoint("text")
text_playground = TextPlayground(text_model)
text_playground

# %% [markdown]
# **Try.** Look through the heads, counted from 0; on the full path, head 1 of layer 1 mostly looks one byte back. Then
# type the beginning of a Python function, of an English sentence, of a Greek one. Here `·` is a space. Two hexadecimal
# digits are a byte that is no printable ASCII character.
#
# Again the next two cells move the controls and put them back.

# %%
print(text_playground.set(layer=1, head=1))
assert text_playground.picture.maps["full"].diagonal(-1).mean() > 0.5  # the weight one byte back
print(text_playground.set(text="def forward(self, x):\n    retur"))
assert text_playground.picture.chances.argmax() == ord("n")
assert "Nothing was written" in text_playground.caption

# %%
print(text_playground.set(text="Γειά σου"))
print(text_playground.set(text="long " * 1000))
assert "last 4,096 of 5,000 bytes" in text_playground.caption
print(text_playground.set(text=""))
assert text_playground.caption == "There is no text. Type at least one character."
print(text_playground.set())

# %% [markdown] tags=["instructor"]
# **Questions that come.** Why does the chunk map consist of triangles? (Attention inside windows of fixed borders,
# notebook 03.) Why is its λ so small? (The full path sees all that the chunk sees; notebook 05 takes paths away.) Why do
# these gates never shut, as those of the first playground do? (In text every segment brings something new.) Is it a good
# language model? (No. It is small and was trained for minutes. It is here because you can look inside.)

# %% [markdown]
# ## 7 How the course works
#
# | | Notebook | Answers |
# |---|---|---|
# | **I** | **The pieces** | |
# | 00 | Start here | who forgets, and what the memory saves |
# | 01 | [Attention, and what it costs](01_attention.ipynb) | why not just attend to everything |
# | 02 | [Rotary positions](02_rotary_positions.ipynb) | how tokens that know no order get one |
# | 03 | [Chunked attention](03_chunked_attention.ipynb) | what a window saves, and what it misses |
# | 04 | [Gated memory](04_gated_memory.ipynb) | why a fact fades, and which gate keeps it |
# | 05 | [The hybrid block](05_hybrid_block.ipynb) | how three attentions become one layer |
# | **II** | **The whole** | |
# | 06 | [The language model](06_language_model.ipynb) | what a memory is worth on real text, beside five others |
# | 07 | [Training for long range](07_long_range.ipynb) | how a model learns what to keep, over a million tokens |
# | 08 | [The kernel-optimised version](08_kernels.ipynb) | how to make it fast, and prove it equal |
# | **III** | **Research** | |
# | 09 | Ablations and scaling (planned) | which part does the work |
# | 10 | Beyond perplexity (planned) | how to measure memory at all |

# %% [markdown]
# **Predictions.** Before a key result you choose an answer. It is kept in a file in your home folder,
# `~/.rmat_tutorial/progress.json`, and survives a restart. You can change it until the result is shown beside it.
# Nothing leaves your machine.

# %% [markdown]
# **Exercises.** You fill in a function; `check` tries it on many shapes and says what is likely wrong. Until you do, the
# notebook goes on with the course's own version, so every notebook runs untouched. ●○○ is easy, ●●● is hard. Hints fold
# out.
#
# **Exercise 1** ●○○ 2 minutes. Write what a gate z does. `carried` is the copy that a slot starts as, `candidate` is
# what the segment brought. Where z is 0 the slot keeps what it carried; where it is 1 the slot takes the candidate; in
# between it mixes. Shapes: B streams, w slots that enter, d numbers in each.
#
# <details><summary>Hint 1</summary>The two shares add up to 1.</details>
# <details><summary>Hint 2</summary>What was carried counts 1 − z times.</details>

# %% tags=["exercise"]
def gated_write(carried: Tensor, candidate: Tensor, gate: Tensor) -> Tensor:
    """carried, candidate, gate (B, w, d) -> (B, w, d): the slots after the write."""
    # BEGIN SOLUTION
    return (1 - gate) * carried + gate * candidate
    # END SOLUTION

# %%
gated_write = check("00.gated_write", gated_write, otherwise=torch.lerp)

# %% [markdown]
# That line is what happens in the model. `record` shows a write that the trained model made: what was carried is a copy
# of the newest slots, and the same three inputs give the same slots.

# %%
with torch.no_grad(), record(model) as trace:
    model(stream.tokens[None])
layer = trace.segments[0].layers[0]
write = layer.write
slots = gated_write(write.carried, write.candidate, write.gate)
print("slots written:", tuple(slots.shape), " largest gate:", f"{write.gate.max():.2f}")
assert torch.equal(write.carried, layer.bank[:, -config.write_slots :])
assert torch.allclose(slots, write.memory[:, -config.write_slots :], atol=1e-6)

# %% [markdown] tags=["instructor"]
# **Exercise 1.** The common slip is the gate the other way round. Ask the room which of z = 0 and z = 1 they would want
# by default, and what that does to a fact after a hundred segments: notebook 04 is about the answer.

# %% [markdown]
# **The environment check.** One line for each thing that can be wrong, with its fix. If something does not work, start
# here; paste the lines when you ask for help. In a terminal, in the course's folder:
# `.venv/bin/python -m rmat_tutorial doctor`.

# %% tags=["nbval-ignore-output"]
print(doctor.as_text(doctor.diagnose()))

# %% [markdown]
# ## Recap
#
# 1. Attention sees one segment. What is outside of it is gone, unless something carries it on.
# 2. The bank carries it on: a few slots in each layer, handed from segment to segment.
# 3. A gate decides what enters a slot. A fact survives because gates leave it alone.
# 4. With memory, facts were recalled over thousands of tokens; without it, or with it wiped, the answers were guesses.
# 5. A cache of all tokens grows without end. The state does not grow.

# %% [markdown]
# ## Ledger
#
# The paper is A. Kashyap, arXiv 2507.00453, July 2025. It came without code and leaves room. Each notebook has a table
# of what it settles: what the paper states, our equation for it, the function that computes it, the test that holds it,
# and what was left open with our choice. Here x are the vectors of a segment's L tokens, M is a bank of m slots of d
# numbers, N the number of layers, c what was carried, z the gate.
#
# | Paper | Our equation | Code | Test | Left open, and our choice |
# |---|---|---|---|---|
# | recurrence over segments | (x, M) ← block(x, M) for each segment of L tokens; M is read before it is written | `language_model.py`: `LanguageModel.forward` | `test_streaming.py`: `test_any_split_gives_the_same_logits` | whether state is hidden in modules; it is not, each call takes and returns it |
# | constant memory | state: N banks of m × d, and room for one segment | `state.py`: `State.nbytes` | `test_streaming.py`: `test_a_state_does_not_grow` | what counts as memory; we count all that is carried, the unfinished segment too |
# | gated update | new = (1 − z) ⊙ c + z ⊙ candidate | `memory.py`: `GatedFIFOMemory.step` | `test_memory.py`: `test_write_equals_the_loop` | which slots c are; the newest, and notebook 04 compares |

# %% [markdown]
# ## What to tweak next
#
# - State eight facts. The models were trained on four: how many come back?
# - Let the model without memory read 64 tokens, with the facts as late as they go. Why does it know them?
# - Wipe the memory and note its four answers. State just these facts, and all are right. Did it know? Look left of the
#   triangles.
# - Section 4: let `wipe` act only once, halfway. Which facts survive?
#
# Next: [01 Attention, and what it costs](01_attention.ipynb) takes attention apart, and measures what it costs to look at
# everything.
