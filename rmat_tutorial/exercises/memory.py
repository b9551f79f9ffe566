"""The exercises of notebook 04: attention pooling, the queue, the half-life of a fact, the gated write."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from random import Random

import torch
from torch import Tensor

from .exercise import Answer, Case, Exercise, Inputs, Mistake, random_tensor


def _at_most_the_bank(sizes: dict[str, int]) -> dict[str, int]:
    """No more slots enter than the bank has: the larger number is the bank's."""
    return sizes | {"w": min(sizes["w"], sizes["m"]), "m": max(sizes["w"], sizes["m"])}


# 1. Attention pooling --------------------------------------------------------------------------------------------


def _draw_segment(sizes: dict[str, int], random: Random) -> Inputs:
    queries = random_tensor(random, sizes["w"], sizes["d"])
    return queries, random_tensor(random, sizes["B"], sizes["L"], sizes["d"])


def _pool(queries: Tensor, hidden: Tensor) -> Tensor:
    pooled = torch.zeros(len(hidden), *queries.shape, dtype=torch.float64)
    for b, segment in enumerate(hidden.tolist()):
        for j, query in enumerate(queries.tolist()):
            dots = [sum(x * y for x, y in zip(query, token, strict=True)) for token in segment]
            powers = [math.exp((dot - max(dots)) / math.sqrt(len(query))) for dot in dots]
            for power, token in zip(powers, segment, strict=True):
                for i, number in enumerate(token):
                    pooled[b, j, i] += power / sum(powers) * number
    return pooled


def _scores(queries: Tensor, hidden: Tensor) -> Tensor:
    return queries @ hidden.mT / queries.shape[-1] ** 0.5


_POOL_MISTAKES = (
    Mistake("Your scores are not divided by √d.", lambda q, h: (q @ h.mT).softmax(-1) @ h),
    Mistake(
        "You divided the scores by d instead of √d.", lambda q, h: (q @ h.mT / q.shape[-1]).softmax(-1) @ h
    ),
    Mistake(
        "You divided the scores by √L, the number of tokens. Divide by √d: the width is the last axis.",
        lambda q, h: (q @ h.mT / h.shape[1] ** 0.5).softmax(-1) @ h,
    ),
    Mistake(
        "You divided the scores by √w, the number of queries. Divide by √d: queries.shape[-1].",
        lambda q, h: (q @ h.mT / len(q) ** 0.5).softmax(-1) @ h,
    ),
    Mistake(
        "You divided the scores by 2. That is √d in the example with d = 4; here d is queries.shape[-1].",
        lambda q, h: (q @ h.mT / 2).softmax(-1) @ h,
    ),
    Mistake("You multiplied the scores by √d. Divide.", lambda q, h: (q @ h.mT * q.shape[-1] ** 0.5).softmax(-1) @ h),
    Mistake(
        "You divided by √d after the softmax. Divide the scores, before it: the weights of a slot must sum to 1.",
        lambda q, h: (q @ h.mT).softmax(-1) @ h / q.shape[-1] ** 0.5,
    ),
    Mistake(
        "You divided the scores by their sum. The softmax takes exp first: a score may be negative, a weight may not.",
        lambda q, h: _scores(q, h) / _scores(q, h).sum(-1, keepdim=True) @ h,
    ),
    Mistake(
        "You hid the future: slot j sees the tokens 0 to j only. Pooling has no mask: a query sees the whole segment.",
        lambda q, h: _scores(q, h).masked_fill(
            torch.ones(len(q), h.shape[1], dtype=torch.bool).triu(1), -math.inf
        ).softmax(-1) @ h,
    ),
    Mistake(
        "Your softmax runs over the slots, so each token shares itself out. Each query shares out its weight over the "
        "L tokens: the last axis of the scores (B, w, L).",
        lambda q, h: _scores(q, h).softmax(-2) @ h,
    ),
    Mistake(
        "Your softmax runs over the batch. Each query shares out its weight over the L tokens: dim=-1.",
        lambda q, h: _scores(q, h).softmax(0) @ h,
    ),
    Mistake("The softmax is missing: the scores themselves weigh the tokens.", lambda q, h: _scores(q, h) @ h),
    Mistake(
        "You took the mean of the segment, and the queries play no part: every slot holds the same.",
        lambda q, h: h.mean(1, keepdim=True).expand(-1, len(q), -1),
    ),
    Mistake(
        "You took the one token that scores highest. The softmax takes the mean of all tokens, weighted: argmax lets "
        "no gradient reach the queries.",
        lambda q, h: h.gather(1, _scores(q, h).argmax(-1, keepdim=True).expand(-1, -1, h.shape[-1])),
    ),
    Mistake(
        "You divided by L once more. The weights sum to 1 already.",
        lambda q, h: _scores(q, h).softmax(-1) @ h / h.shape[1],
    ),
    Mistake("You returned the weights (B, w, L). They have yet to weigh the tokens: weights @ hidden.",
            lambda q, h: _scores(q, h).softmax(-1)),
    Mistake("The last two axes are swapped: the shape is (B, d, w). Slots come second: (B, w, d).",
            lambda q, h: (_scores(q, h).softmax(-1) @ h).mT),
    Mistake(
        "You changed the shape of hidden with view or reshape where a transpose is needed: the numbers of different "
        "tokens are mixed. hidden.transpose(-2, -1) moves the axes.",
        lambda q, h: (q @ h.reshape(len(h), h.shape[2], h.shape[1]) / q.shape[-1] ** 0.5).softmax(-1) @ h,
    ),
    Mistake(
        "Your scores are the cosine of the angle between query and token. Keep the lengths: the dot product over √d.",
        lambda q, h: (q / q.norm(dim=-1, keepdim=True) @ (h / h.norm(dim=-1, keepdim=True)).mT).softmax(-1) @ h,
    ),
)


def _mean_lies_between(output: Tensor, expected: Tensor, queries: Tensor, hidden: Tensor) -> str | None:
    low, high = hidden.double().amin(1, keepdim=True), hidden.double().amax(1, keepdim=True)
    outside = ((output < low - 1e-4) | (output > high + 1e-4)).nonzero()
    if not len(outside):
        return None
    b, j, i = outside[0].tolist()
    return (
        f"A weighted mean lies between the smallest and the largest number, but result[{b}, {j}, {i}] is "
        f"{output[b, j, i]:.4g}, and the tokens of row {b} have {low[b, 0, i]:.4g} to {high[b, 0, i]:.4g} there. The "
        "weights of each slot must sum to 1."
    )


POOL = Exercise(
    name="04.pool",
    contract="pool(queries (w, d), hidden (B, L, d)) -> (B, w, d): slot j is the mean of the segment's tokens, "
    "weighted by the softmax over the tokens of query j · token / √d.",
    inputs=("queries", "hidden"),
    output=("B", "w", "d"),
    # √d = 2: the first query scores 0, 4, 0; the second scores the three tokens alike.
    example=Case(
        {"B": 1, "w": 2, "L": 3, "d": 4},
        (
            torch.tensor([[0.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]),
            torch.tensor([[[2.0, 0.0, 1.0, 0.0], [2.0, 4.0, 0.0, 1.0], [2.0, 0.0, 3.0, -2.0]]]),
        ),
    ),
    draw=_draw_segment,
    reference=_pool,
    mistakes=_POOL_MISTAKES,
    laws=(_mean_lies_between,),
)

# 2. The queue ----------------------------------------------------------------------------------------------------


def _draw_bank_and_new(sizes: dict[str, int], random: Random) -> Inputs:
    batch, m, w, d = sizes["B"], sizes["m"], sizes["w"], sizes["d"]
    count = batch * (m + w) * d
    # All values differ, so that each number of a result tells where it came from.
    values = torch.tensor(random.sample(range(count), count), dtype=torch.float32)
    return values[: batch * m * d].reshape(batch, m, d), values[batch * m * d :].reshape(batch, w, d)


def _queue(bank: Tensor, new: Tensor) -> Tensor:
    after = []
    for slots, entering in zip(bank.tolist(), new.tolist(), strict=True):
        line = list(slots)
        for slot in entering:
            line.append(slot)
            line.pop(0)
        after.append(line)
    return torch.tensor(after, dtype=torch.float64)


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts, dim=1)


def _w(new: Tensor) -> int:
    return new.shape[1]


_QUEUE_MISTAKES = (
    Mistake(
        "The new slots stand at the wrong end, and the newest of the bank left. Oldest first: the new ones follow the "
        "others, and the first w leave.",
        lambda b, n: _cat(n, b[:, : b.shape[1] - _w(n)]),
    ),
    Mistake(
        "The right slots left, but the new ones stand in their place at the front. Oldest first: the others move up, "
        "and the new ones follow them.",
        lambda b, n: _cat(n, b[:, _w(n) :]),
    ),
    Mistake(
        "You overwrote the newest slots: what was oldest stays for ever. First in, first out: the w oldest, the first "
        "ones, leave.",
        lambda b, n: _cat(b[:, : b.shape[1] - _w(n)], n),
    ),
    Mistake(
        "Nothing leaves: the bank has grown to m + w slots. The w oldest, the first ones, leave.",
        lambda b, n: _cat(b, n),
    ),
    Mistake(
        "You took the w oldest, those that leave, and dropped the others. bank[:, w:] is the bank without them.",
        lambda b, n: _cat(b[:, : _w(n)], n),
    ),
    Mistake(
        "You kept only the w newest slots of the bank. All but the w oldest stay: bank[:, w:].",
        lambda b, n: _cat(b[:, b.shape[1] - _w(n) :], n),
    ),
    Mistake(
        "len(new) is B, the number of rows. The number of slots that enter is w = new.shape[1].",
        lambda b, n: _cat(b[:, len(n) :], n),
    ),
    Mistake(
        "One slot too many leaves: bank[:, w:] begins with slot w, the first that stays.",
        lambda b, n: _cat(b[:, _w(n) + 1 :], n),
    ),
    Mistake(
        "Only one slot leaves; as many leave as enter, w of them.", lambda b, n: _cat(b[:, 1:], n)
    ),
    Mistake(
        "Only the last of the new slots entered. All w enter, in their order.",
        lambda b, n: _cat(b[:, _w(n) :], n[:, -1:].expand_as(n)),
    ),
    Mistake("The new slots entered in reverse order.", lambda b, n: _cat(b[:, _w(n) :], n.flip(1))),
    Mistake(
        "The slots that stayed are in reverse order.", lambda b, n: _cat(b[:, _w(n) :].flip(1), n)
    ),
    Mistake(
        "You turned the bank round, and the new slots are missing: what left came back at the other end.",
        lambda b, n: b.roll(-_w(n), 1),
    ),
    Mistake(
        "You rolled the bank the wrong way: its newest slots came round to the front. Roll by −w, so that the oldest "
        "come to the end, where the new ones take their places.",
        lambda b, n: _cat(b.roll(_w(n), 1)[:, : b.shape[1] - _w(n)], n),
    ),
    Mistake(
        "Without dims, roll moves the numbers of the flattened tensor, so slots and rows are mixed. Roll along the "
        "slots: dims=1.",
        lambda b, n: _cat(b.roll(-_w(n))[:, : b.shape[1] - _w(n)], n),
    ),
    Mistake("You returned the slots that stay: the new ones are missing.", lambda b, n: b[:, _w(n) :]),
    Mistake("You returned the new slots: those that stay are missing.", lambda b, n: n.clone()),
    Mistake("You returned the bank as it was.", lambda b, n: b.clone()),
)


def _slot_comes_from(output: Tensor, expected: Tensor, bank: Tensor, new: Tensor) -> str | None:
    wrong = (output != expected).any(dim=-1).nonzero()
    if not len(wrong):
        return None
    b, i = wrong[0].tolist()
    stays = bank.shape[1] - new.shape[1]
    should = f"bank[{b}, {i + new.shape[1]}]" if i < stays else f"new[{b}, {i - stays}]"
    for name, tensor in (("bank", bank), ("new", new)):
        found = (tensor == output[b, i]).all(dim=-1).nonzero()
        if len(found):
            return f"result[{b}, {i}] is {name}[{', '.join(map(str, found[0].tolist()))}]; it must be {should}."
    return f"result[{b}, {i}] is no slot of the bank and no new one; it must be {should}."


QUEUE = Exercise(
    name="04.queue",
    contract="push(bank (B, m, d), new (B, w, d)) -> (B, m, d): the w oldest slots, the first ones, leave; the others "
    "move up; the new ones follow them in their order.",
    inputs=("bank", "new"),
    output=("B", "m", "d"),
    example=Case(
        {"B": 1, "m": 4, "w": 1, "d": 2},
        (
            torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]]),
            torch.tensor([[[9.0, 10.0]]]),
        ),
    ),
    draw=_draw_bank_and_new,
    reference=_queue,
    mistakes=_QUEUE_MISTAKES,
    laws=(_slot_comes_from,),
    fit=_at_most_the_bank,
)

# 3. The half-life ------------------------------------------------------------------------------------------------


def _draw_biases(sizes: dict[str, int], random: Random) -> Inputs:
    count = sizes["N"] * sizes["d"]
    quarters = random.sample(range(-96, 17), count)  # −24 to 4, none twice
    return (torch.tensor([quarter / 4 for quarter in quarters]).reshape(sizes["N"], sizes["d"]),)


def _half_life(bias: Tensor) -> Tensor:
    # (1 − z)ⁿ = ½ with 1 − z = 1 / (1 + exp b), so n = ln 2 / ln(1 + exp b).
    writes = [[math.log(2) / math.log1p(math.exp(b)) for b in layer] for layer in bias.tolist()]
    return torch.tensor(writes, dtype=torch.float64)


def _ln_kept(bias: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid(-bias)


_LN2 = math.log(2)

_HALF_LIFE_MISTAKES = (
    Mistake(
        "You took the logarithm of z. What a write leaves is 1 − z: (1 − z)ⁿ = ½.",
        lambda b: -_LN2 / torch.nn.functional.logsigmoid(b),
    ),
    Mistake(
        "Your gate is the other way round: you took 1 − z as the share that is overwritten, so a negative bias fades "
        "fast. z = sigmoid(b), and a write leaves 1 − z.",
        lambda b: -_LN2 / torch.log1p(-torch.sigmoid(-b)),
    ),
    Mistake("The sign is wrong: both logarithms are negative, so their quotient is not.",
            lambda b: _LN2 / _ln_kept(b)),
    Mistake("The quotient is upside down: n = ln ½ / ln(1 − z).", lambda b: -_ln_kept(b) / _LN2),
    Mistake("You took ln(1 + z). What a write leaves is 1 − z: torch.log1p(-z).",
            lambda b: -_LN2 / torch.log1p(torch.sigmoid(b))),
    Mistake(
        "torch.log1p(x) is ln(1 + x), so log1p(1 − z) is ln(2 − z). Give it −z.",
        lambda b: -_LN2 / torch.log1p(torch.sigmoid(-b)),
    ),
    Mistake("½ stands where its logarithm belongs: n = ln ½ / ln(1 − z).", lambda b: 0.5 / _ln_kept(b)),
    Mistake(
        "That is the number of writes until 1/e ≈ 0.37 is left: −1 / ln(1 − z). Half is asked for, ln ½ in the place "
        "of −1. (log2(½) is −1: take both logarithms to one base.)",
        lambda b: -1 / _ln_kept(b),
    ),
    Mistake(
        "ln 2 / z is close for a small z only: ln(1 − z) is not −z.", lambda b: _LN2 / torch.sigmoid(b)
    ),
    Mistake("1 / z is not the half-life: solve (1 − z)ⁿ = ½ for n.", lambda b: 1 / torch.sigmoid(b)),
    Mistake(
        "½ / z would be right if each write took the same amount. It takes the same share of what is left: (1 − z)ⁿ.",
        lambda b: 0.5 / torch.sigmoid(b),
    ),
    Mistake(
        "You used the bias as if it were z. The gate is z = sigmoid(b).",
        lambda b: math.log(0.5) / torch.log1p(-b),
    ),
    Mistake(
        "You used the hard gate. This half-life is that of the sigmoid: z = sigmoid(b).",
        lambda b: math.log(0.5) / torch.log1p(-(b / 6 + 0.5).clamp(0, 1)),
    ),
    Mistake("You rounded up to whole writes. Leave n as it is.", lambda b: torch.ceil(-_LN2 / _ln_kept(b))),
    Mistake("You rounded down to whole writes. Leave n as it is.", lambda b: torch.floor(-_LN2 / _ln_kept(b))),
    Mistake("You rounded to whole writes. Leave n as it is.", lambda b: torch.round(-_LN2 / _ln_kept(b))),
    Mistake("You returned z. Asked for is the n with (1 − z)ⁿ = ½.", torch.sigmoid),
    Mistake("You returned what one write leaves, 1 − z. Asked for is the n with (1 − z)ⁿ = ½.",
            lambda b: torch.sigmoid(-b)),
)


def _is_not_whole(output: Tensor, expected: Tensor, bias: Tensor) -> str | None:
    if not torch.equal(output, output.round()) or torch.equal(expected, expected.round()):
        return None
    return (
        "Your results are whole numbers. n is not rounded, and no loop can count to it: at b = −20 it is 336,000,000. "
        "Solve (1 − z)ⁿ = ½ for n."
    )


def _holds_for_a_shut_gate(output: Tensor, expected: Tensor, bias: Tensor) -> str | None:
    right = ((output - expected).abs() <= 1e-5 * expected.abs()) | (output == expected)
    moderate = bias >= -4  # down to here float32 gives n to six digits either way
    if right.all() or not right[moderate].all() or not moderate.any():
        return None
    worst = bias[~right].argmin()
    b, n, should = (tensor[~right][worst].item() for tensor in (bias, output, expected))
    return (
        f"Right for biases around 0, wrong for a gate that is nearly shut: at b = {b:g} you have n = {n:.4g}, where "
        f"{should:.4g} is right. There 1 − z is rounded, at last to 1, whose logarithm is 0. torch.log1p(-z) never "
        "forms 1 − z."
    )


HALF_LIFE = Exercise(
    name="04.half_life",
    contract="half_life(bias (N, d)) -> (N, d): the number of writes n, not rounded, after which a sigmoid gate with "
    "z = sigmoid(bias) has left half of what was carried, (1 − z)ⁿ = ½; right for biases down to −24.",
    inputs=("bias",),
    output=("N", "d"),
    example=Case({"N": 1, "d": 3}, (torch.tensor([[0.0, -2.0, -20.0]]),)),
    draw=_draw_biases,
    reference=_half_life,
    mistakes=_HALF_LIFE_MISTAKES,
    laws=(_is_not_whole, _holds_for_a_shut_gate),
)

# 4. The write ----------------------------------------------------------------------------------------------------


def _draw_write(sizes: dict[str, int], random: Random) -> Inputs:
    batch, m, w, d = sizes["B"], sizes["m"], sizes["w"], sizes["d"]
    # Many gates are shut or open for good; none stands on the edge, where the slope jumps.
    gate_score = random_tensor(random, batch, w, d) * 2 + 0.125
    return random_tensor(random, batch, m, d), gate_score, random_tensor(random, batch, w, d) / 2


def _write(bank: Tensor, gate_score: Tensor, candidate_score: Tensor) -> Tensor:
    old, gates, candidates = bank.tolist(), gate_score.tolist(), candidate_score.tolist()
    m, w = bank.shape[1], gate_score.shape[1]
    after = torch.empty(bank.shape, dtype=torch.float64)
    for b, i, j in product(*map(range, bank.shape)):
        if i < m - w:
            after[b, i, j] = old[b][i + w][j]
            continue
        slot = i - (m - w)
        score = gates[b][slot][j]
        z = 0.0 if score <= -3 else 1.0 if score >= 3 else (score + 3) / 6
        carried = old[b][i][j]  # the newest w slots are the last ones
        after[b, i, j] = carried + z * (math.tanh(candidates[b][slot][j]) - carried)
    return after


def _gate(score: Tensor) -> Tensor:
    return (score / 6 + 0.5).clamp(0, 1)


def _newest(bank: Tensor, score: Tensor) -> Tensor:
    return bank[:, bank.shape[1] - score.shape[1] :]


def _oldest(bank: Tensor, score: Tensor) -> Tensor:
    return bank[:, : score.shape[1]]


def _kept(bank: Tensor, score: Tensor) -> Tensor:
    return bank[:, score.shape[1] :]


def _with_gate(gate: Callable[[Tensor], Tensor]) -> Answer:
    """The right write but for its gate."""
    def write(bank: Tensor, score: Tensor, candidate: Tensor) -> Tensor:
        carried = _newest(bank, score)
        return _cat(_kept(bank, score), carried + gate(score) * (candidate.tanh() - carried))

    return write


def _with_new(new: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Answer:
    """The right queue with other slots entering: ``new(carried, z, candidate score)``."""
    return lambda bank, score, n: _cat(_kept(bank, score), new(_newest(bank, score), _gate(score), n))


def _right_slots(bank: Tensor, score: Tensor, candidate: Tensor) -> Tensor:
    return torch.lerp(_newest(bank, score), candidate.tanh(), _gate(score))


_WRITE_MISTAKES = (
    Mistake(
        "Your gate is a sigmoid, which is never 0: every write takes a little. The hard gate is clamp(a/6 + ½, 0, 1).",
        _with_gate(torch.sigmoid),
    ),
    Mistake(
        "Your gate works the other way round: at z = 0 it overwrites. A shut gate, z = 0, keeps what was carried.",
        _with_gate(lambda a: 1 - _gate(a)),
    ),
    Mistake("½ is missing in the gate: a score of 0 opens it half, clamp(a/6 + ½, 0, 1).",
            _with_gate(lambda a: (a / 6).clamp(0, 1))),
    Mistake("You divided by 6 + ½: a/6 + ½ is the quotient first, then the sum.",
            _with_gate(lambda a: (a / 6.5).clamp(0, 1))),
    Mistake("You added ½ after the clamp, so a shut gate is ½. Clamp last: clamp(a/6 + ½, 0, 1).",
            _with_gate(lambda a: (a / 6).clamp(0, 1) + 0.5)),
    Mistake("Your gate has no upper end: above a score of 3 it is more than 1. clamp(a/6 + ½, 0, 1).",
            _with_gate(lambda a: (a / 6 + 0.5).clamp(min=0))),
    Mistake("Your gate has no lower end: below a score of −3 it is negative. clamp(a/6 + ½, 0, 1).",
            _with_gate(lambda a: (a / 6 + 0.5).clamp(max=1))),
    Mistake("You took one gate for a whole slot, the mean of its gates. Each of the d numbers has a gate of its own.",
            _with_gate(lambda a: _gate(a).mean(-1, keepdim=True))),
    Mistake("The score of the gate is not divided by 6: clamp(a/6 + ½, 0, 1).",
            _with_gate(lambda a: (a + 0.5).clamp(0, 1))),
    Mistake("You clamped the score itself. The gate is clamp(a/6 + ½, 0, 1).", _with_gate(lambda a: a.clamp(0, 1))),
    Mistake(
        "The clamp is missing: your gate goes below 0 and above 1, and a shut gate is no longer exactly 0.",
        _with_gate(lambda a: a / 6 + 0.5),
    ),
    Mistake(
        "Your gate is clamp(0.2 a + ½, 0, 1), another library's hard sigmoid. Here the slope is 1/6, as in PyTorch.",
        _with_gate(lambda a: (0.2 * a + 0.5).clamp(0, 1)),
    ),
    Mistake("Your gate is a switch. Between −3 and 3 it rises evenly: clamp(a/6 + ½, 0, 1).",
            _with_gate(lambda a: (a > 0).to(a.dtype))),
    Mistake("The score is used as the gate. First clamp(a/6 + ½, 0, 1).", _with_gate(lambda a: a)),
    Mistake(
        "The candidate enters in full, as in a plain queue: either there is no gate, or what you carry was taken from "
        "the bank when the candidate stood in it already. Take c = bank[:, -w:] first, and push last.",
        _with_new(lambda c, z, n: n.tanh()),
    ),
    Mistake(
        "You mixed up the scores: the gate comes from gate_score, the candidate from candidate_score.",
        lambda bank, a, n: _cat(_kept(bank, a), torch.lerp(_newest(bank, a), a.tanh(), _gate(n))),
    ),
    Mistake(
        "You put what is carried through the tanh. Only the candidate goes through it: a shut gate must leave a slot "
        "as it is.",
        _with_new(lambda c, z, n: (1 - z) * c.tanh() + z * n.tanh()),
    ),
    Mistake(
        "All new slots carry the last slot of the bank. Carried are the w newest, each by the new slot in its place.",
        _with_new(lambda c, z, n: (1 - z) * c[:, -1:] + z * n.tanh()),
    ),
    Mistake("The tanh is missing: the candidate is tanh of its score.",
            _with_new(lambda c, z, n: (1 - z) * c + z * n)),
    Mistake("You put the whole mixture through the tanh. Only the candidate goes through it: what is carried stays "
            "as it is.", _with_new(lambda c, z, n: ((1 - z) * c + z * n).tanh())),
    Mistake("You squashed the candidate with a sigmoid. It is tanh of its score.",
            _with_new(lambda c, z, n: (1 - z) * c + z * n.sigmoid())),
    Mistake("What was carried does not make room: it counts (1 − z) times.",
            _with_new(lambda c, z, n: c + z * n.tanh())),
    Mistake("Nothing is carried: (1 − z) times the newest slots is missing.", _with_new(lambda c, z, n: z * n.tanh())),
    Mistake("The candidate always enters in full: it counts z times.",
            _with_new(lambda c, z, n: (1 - z) * c + n.tanh())),
    Mistake(
        "You carried the w oldest slots, the first ones. Asked for are the newest, the last ones.",
        lambda b, a, n: _cat(_kept(b, a), torch.lerp(_oldest(b, a), n.tanh(), _gate(a))),
    ),
    Mistake(
        "The new slots took the places of the newest, and nothing left the bank. A write is a queue: the w oldest "
        "leave, the others move up, the new ones follow.",
        lambda b, a, n: _cat(b[:, : b.shape[1] - a.shape[1]], _right_slots(b, a, n)),
    ),
    Mistake(
        "The new slots stand at the front, in the places of the oldest. Oldest first: the others move up, and the new "
        "ones follow them.",
        lambda b, a, n: _cat(_right_slots(b, a, n), _kept(b, a)),
    ),
    Mistake("Nothing leaves: the bank has grown to m + w slots. The w oldest, the first ones, leave.",
            lambda b, a, n: _cat(b, _right_slots(b, a, n))),
    Mistake(
        "len(gate_score) is B, the number of rows. The number of slots that are written is w = gate_score.shape[1].",
        lambda b, a, n: _cat(b[:, len(a) :], torch.lerp(b[:, -len(a) :], n.tanh(), _gate(a))),
    ),
    Mistake(
        "You kept the w oldest slots of the bank, those that leave, and dropped the others. bank[:, w:] stays.",
        lambda b, a, n: _cat(_oldest(b, a), _right_slots(b, a, n)),
    ),
    Mistake(
        "You wrote to the whole bank. Only the w newest slots are mixed with a candidate; the others move up as they "
        "are.",
        lambda b, a, n: torch.lerp(b, n.tanh(), _gate(a)),
    ),
    Mistake("You returned the new slots: those that stay in the bank are missing.", _right_slots),
)


def _shut_is_exact(output: Tensor, expected: Tensor, bank: Tensor, gate_score: Tensor, candidate: Tensor) -> str | None:
    shut = gate_score <= -3
    carried, new = (tensor[:, -gate_score.shape[1] :].double() for tensor in (bank, output))
    moved = (shut & (new != carried)).nonzero()
    if not len(moved) or not torch.allclose(new[shut], carried[shut], atol=0.05):
        return None
    b, i, j = moved[0].tolist()
    return (
        f"A shut gate must leave a number as it was, to the last bit. At gate_score[{b}, {i}, {j}] = "
        f"{gate_score[b, i, j]:g} it has to be exactly 0, but the slot moved from {carried[b, i, j]:.6g} to "
        f"{new[b, i, j]:.6g}."
    )


def _others_move_up(output: Tensor, expected: Tensor, bank: Tensor, gate_score: Tensor, _: Tensor) -> str | None:
    w = gate_score.shape[1]
    stays = bank.shape[1] - w
    if torch.equal(output[:, :stays], bank[:, w:].double()):
        return None
    return (
        f"The first m − w slots of the result must be the bank without its w oldest, bank[:, {w}:], unchanged: only "
        "the last w slots are written."
    )


WRITE = Exercise(
    name="04.write",
    contract="write(bank (B, m, d), gate_score (B, w, d), candidate_score (B, w, d)) -> (B, m, d): carry the w newest "
    "slots c; z = clamp(gate_score / 6 + 1/2, 0, 1); new = (1 − z) c + z tanh(candidate_score); the w oldest slots "
    "leave, the new ones enter as the last.",
    inputs=("bank", "gate_score", "candidate_score"),
    output=("B", "m", "d"),
    example=Case(
        {"B": 1, "m": 3, "w": 1, "d": 4},
        (
            torch.tensor([[[9.0, 9.0, 9.0, 9.0], [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]]),
            torch.tensor([[[-4.0, 4.0, 0.0, 1.5]]]),
            torch.tensor([[[1.0, 0.0, 0.0, -0.5]]]),
        ),
    ),
    draw=_draw_write,
    reference=_write,
    mistakes=_WRITE_MISTAKES,
    laws=(_shut_is_exact, _others_move_up),
    fit=_at_most_the_bank,
)

EXERCISES = (POOL, QUEUE, HALF_LIFE, WRITE)
