"""The exercises of notebook 04: wrong answers get the right diagnosis, right ones pass, whatever they look like."""

import math

import pytest
import torch
from answers import assert_diagnosed, assert_passes, named
from torch.nn import functional

from rmat_tutorial import GatedFIFOMemory
from rmat_tutorial.exercises import EXERCISES

POOL, QUEUE, HALF_LIFE, WRITE = "04.pool", "04.queue", "04.half_life", "04.write"


pytestmark = pytest.mark.usefixtures("own_home")


# Attention pooling -----------------------------------------------------------------------------------------------


def pool_plain(queries, hidden):
    scores = torch.matmul(queries, hidden.transpose(1, 2)) / math.sqrt(queries.shape[1])
    return torch.softmax(scores, dim=-1) @ hidden


def pool_by_einsum(queries, hidden):
    powers = torch.exp(torch.einsum("wd,bld->blw", queries, hidden) / queries.size(1) ** 0.5)
    return torch.einsum("blw,bld->bwd", powers / powers.sum(1, keepdim=True), hidden)


def pool_by_loops(queries, hidden):
    rows = []
    for segment in hidden:
        slots = []
        for query in queries:
            weights = torch.stack([(query * token).sum() / math.sqrt(len(query)) for token in segment]).softmax(0)
            slots.append(sum(weight * token for weight, token in zip(weights, segment, strict=True)))
        rows.append(torch.stack(slots))
    return torch.stack(rows)


def pool_fused(queries, hidden):
    return functional.scaled_dot_product_attention(queries.expand(len(hidden), -1, -1), hidden, hidden)


def pool_unscaled(queries, hidden):
    powers = torch.exp(torch.einsum("wd,bld->bwl", queries, hidden))
    return powers / powers.sum(-1, keepdim=True) @ hidden


def pool_over_slots(queries, hidden):
    weights = torch.einsum("wd,bld->bwl", queries / queries.shape[1] ** 0.5, hidden).softmax(1)
    return torch.bmm(weights, hidden)


def pool_mean(queries, hidden):
    return torch.stack([hidden.sum(1) / hidden.shape[1]] * len(queries), dim=1)


def pool_best_token(queries, hidden):
    best = torch.einsum("wd,bld->bwl", queries, hidden).max(-1).indices
    return torch.stack([segment[index] for segment, index in zip(hidden, best, strict=True)])


def pool_scores(queries, hidden):
    scores = torch.einsum("wd,bld->bwl", queries, hidden) / math.sqrt(queries.size(-1))
    return torch.bmm(scores, hidden)


def pool_weights_only(queries, hidden):
    return torch.einsum("wd,bld->bwl", queries, hidden).div(math.sqrt(queries.size(-1))).softmax(2)


def pool_transposed(queries, hidden):
    weights = torch.einsum("wd,bld->bwl", queries, hidden).div(math.sqrt(queries.size(-1))).softmax(2)
    return torch.einsum("bwl,bld->bdw", weights, hidden)


def pool_viewed(queries, hidden):
    B, L, d = hidden.shape
    return (queries @ hidden.view(B, d, L) / math.sqrt(d)).softmax(-1) @ hidden


def pool_doubled(queries, hidden):
    return pool_plain(queries, hidden) + hidden.mean(1, keepdim=True)


def pool_without_gradient(queries, hidden):
    return pool_plain(queries.detach(), hidden)


def pool_over_root_w(queries, hidden):
    return pool_plain(queries * (queries.shape[1] / queries.shape[0]) ** 0.5, hidden)


def pool_over_two(queries, hidden):
    return pool_plain(queries * queries.shape[1] ** 0.5 / 2, hidden)


def pool_times_root_d(queries, hidden):
    return functional.scaled_dot_product_attention(
        queries.expand(len(hidden), -1, -1), hidden, hidden, scale=queries.shape[1] ** 0.5
    )


def pool_divided_late(queries, hidden):
    return torch.einsum("bws,bsd->bwd", torch.softmax(queries @ hidden.mT, -1), hidden / hidden.shape[-1] ** 0.5)


def pool_without_exp(queries, hidden):
    scores = torch.einsum("wd,bld->bwl", queries, hidden)
    return torch.einsum("bwl,bld->bwd", scores / scores.sum(2)[..., None], hidden)


def pool_causal(queries, hidden):
    return functional.scaled_dot_product_attention(
        queries.expand(len(hidden), -1, -1), hidden, hidden, is_causal=True
    )


# The queue -------------------------------------------------------------------------------------------------------


def push_plain(bank, new):
    return torch.cat((bank[:, new.shape[1] :], new), dim=1)


def push_by_roll(bank, new):
    after = bank.roll(-new.shape[1], dims=1)
    after[:, bank.shape[1] - new.shape[1] :] = new
    return after


def push_one_by_one(bank, new):
    for slot in new.unbind(1):
        bank = torch.cat((bank[:, 1:], slot[:, None]), dim=1)
    return bank


def push_by_index(bank, new):
    m, w = bank.shape[1], new.shape[1]
    return torch.cat((bank, new), dim=1).index_select(1, torch.arange(w, m + w))


def push_newest_first(bank, new):
    return torch.cat((new, bank[:, : bank.shape[1] - new.shape[1]]), dim=1)


def push_overwrites_the_first(bank, new):
    after = bank.clone()
    after[:, : new.shape[1]] = new
    return after


def push_overwrites_the_last(bank, new):
    after = bank.clone()
    after[:, bank.shape[1] - new.shape[1] :] = new
    return after


def push_grows(bank, new):
    return torch.hstack((bank, new))


def push_one_leaves(bank, new):
    return torch.hstack((bank[:, 1:], new))


def push_reversed(bank, new):
    order = torch.arange(new.shape[1] - 1, -1, -1)
    return torch.cat((bank[:, new.shape[1] :], new[:, order]), dim=1)


def push_only_turns(bank, new):
    w = new.shape[1]
    return torch.cat((bank[:, w:], bank[:, :w]), dim=1)


def push_rolls_back(bank, new):
    after = torch.roll(bank, new.shape[1], dims=1)
    after[:, bank.shape[1] - new.shape[1] :] = new
    return after


def push_rolls_everything(bank, new):
    after = torch.roll(bank, -new.shape[1])
    after[:, bank.shape[1] - new.shape[1] :] = new
    return after


def push_keeps_only(bank, new):
    return bank.narrow(1, new.shape[1], bank.shape[1] - new.shape[1])


def push_in_place(bank, new):
    w = new.shape[1]
    bank[:, : bank.shape[1] - w] = bank[:, w:].clone()
    bank[:, bank.shape[1] - w :] = new
    return bank


def push_adds(bank, new):
    after = bank.roll(-new.shape[1], dims=1)
    after[:, bank.shape[1] - new.shape[1] :] += new
    return after


def push_rows_swapped(bank, new):
    return push_plain(bank, new.flip(0))


def push_keeps_the_oldest(bank, new):
    return torch.cat((bank.narrow(1, 0, new.shape[1]), new), dim=1)


def push_keeps_the_newest_only(bank, new):
    return torch.cat((bank.flip(1)[:, : new.shape[1]].flip(1), new), dim=1)


def push_counts_rows(bank, new):
    return torch.hstack((bank[:, new.shape[0] :], new))


def push_one_too_many(bank, new):
    m, w = bank.shape[1], new.shape[1]
    return torch.hstack((bank.roll(-1, dims=1)[:, w : max(w, m - 1)], new))


# The half-life ---------------------------------------------------------------------------------------------------


def half_life_plain(bias):
    return math.log(0.5) / torch.log1p(-torch.sigmoid(bias))


def half_life_logsigmoid(bias):
    return -math.log(2) / functional.logsigmoid(-bias)


def half_life_softplus(bias):
    return math.log(2) / functional.softplus(bias)


def half_life_by_loops(bias):
    writes = [[math.log(0.5) / functional.logsigmoid(-b) for b in layer] for layer in bias]
    return torch.stack([torch.stack(layer) for layer in writes])


def half_life_in_bits(bias):
    return 1 / (torch.log1p(bias.exp()) / math.log(2))


def half_life_of_z(bias):
    return math.log(0.5) / torch.sigmoid(bias).log()


def half_life_flipped(bias):
    return math.log(0.5) / torch.log1p(-1 / (1 + torch.exp(bias)))


def half_life_negative(bias):
    return math.log(2) / torch.log1p(-torch.sigmoid(bias))


def half_life_e(bias):
    return -1 / torch.log1p(-torch.sigmoid(bias))


def half_life_small_z(bias):
    return math.log(2) * (1 + torch.exp(-bias))


def half_life_inverse(bias):
    return 1 + torch.exp(-bias)


def half_life_straight_line(bias):
    return 1 / (2 * torch.sigmoid(bias))


def half_life_rounded_up(bias):
    return half_life_plain(bias).ceil()


def half_life_is_z(bias):
    return 1 / (1 + torch.exp(-bias))


def half_life_hard(bias):
    return math.log(0.5) / torch.log1p(-functional.hardsigmoid(bias))


def half_life_naive(bias):
    return math.log(0.5) / torch.log(1 - torch.sigmoid(bias))


def half_life_naive_sum(bias):
    return math.log(2) / torch.log(1 + torch.exp(bias))


def half_life_of_the_mean(bias):
    return half_life_plain(bias.mean(-1, keepdim=True)).expand_as(bias)


def half_life_upside_down(bias):
    return functional.softplus(bias) / math.log(2)


def half_life_plus(bias):
    return (math.log(0.5) / torch.log(1 + torch.sigmoid(bias.double()))).to(bias.dtype)


def half_life_log1p_twice(bias):
    return math.log(0.5) / torch.log1p(1 - torch.sigmoid(bias))


def half_life_without_logarithm(bias):
    return -0.5 / functional.softplus(bias)


def half_life_mixed_bases(bias):
    return math.log2(0.5) / torch.log1p(-torch.sigmoid(bias))


def half_life_as_integers(bias):
    return half_life_plain(bias).int()


def half_life_by_counting(bias):
    counted = torch.zeros_like(bias)
    for place, z in zip(range(bias.numel()), torch.sigmoid(bias).flatten().tolist(), strict=True):
        left, n = 1.0, 0
        while left > 0.5 and n < 1000:
            left, n = left * (1 - z), n + 1
        counted.view(-1)[place] = n
    return counted


# The write -------------------------------------------------------------------------------------------------------


def written(bank, score, candidate_score, gate=functional.hardsigmoid):
    w = score.shape[1]
    carried = bank[:, bank.shape[1] - w :]
    z = gate(score)
    return torch.cat((bank[:, w:], (1 - z) * carried + z * torch.tanh(candidate_score)), dim=1)


def write_plain(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: torch.clamp(a / 6 + 0.5, 0, 1))


def write_by_relu6(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: functional.relu6(a + 3) / 6)


def write_by_lerp(bank, score, candidate_score):
    after = bank.roll(-score.shape[1], dims=1)
    places = slice(bank.shape[1] - score.shape[1], None)
    after[:, places] = torch.lerp(bank[:, places], candidate_score.tanh(), functional.hardsigmoid(score))
    return after


def write_by_where(bank, score, candidate_score):
    ramp = torch.where(score > 3, torch.ones_like(score), (score + 3) / 6)
    return written(bank, score, candidate_score, lambda a: torch.where(a < -3, torch.zeros_like(a), ramp))


def write_sigmoid(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: 1 / (1 + torch.exp(-a)))


def write_flipped(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: functional.hardsigmoid(-a))


def write_unclamped(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: (a + 3) / 6)


def write_without_half(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: functional.relu6(a) / 6)


def write_clamped_score(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: a.clip(0, 1))


def write_other_slope(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: (0.2 * a + 0.5).clip(0, 1))


def write_switch(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: torch.sign(a).clip(0, 1))


def write_linear_candidate(bank, score, candidate_score):
    z, w = functional.hardsigmoid(score), score.shape[1]
    return torch.hstack((bank[:, w:], torch.lerp(bank[:, bank.shape[1] - w :], candidate_score, z)))


def write_ungated(bank, score, candidate_score):
    return torch.hstack((bank[:, score.shape[1] :], candidate_score.tanh()))


def write_carries_the_oldest(bank, score, candidate_score):
    z, w = functional.hardsigmoid(score), score.shape[1]
    return torch.hstack((bank[:, w:], bank[:, :w] * (1 - z) + z * candidate_score.tanh()))


def write_in_the_place_of_the_newest(bank, score, candidate_score):
    after, places = bank.clone(), slice(bank.shape[1] - score.shape[1], None)
    after[:, places] = torch.lerp(bank[:, places], candidate_score.tanh(), functional.hardsigmoid(score))
    return after


def write_in_the_place_of_the_oldest(bank, score, candidate_score):
    w, after = score.shape[1], bank.clone()
    carried = bank[:, bank.shape[1] - w :]
    after[:, :w] = torch.lerp(carried, candidate_score.tanh(), functional.hardsigmoid(score))
    return after


def write_new_only(bank, score, candidate_score):
    return written(bank, score, candidate_score)[:, bank.shape[1] - score.shape[1] :]


def write_nearly_shut(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: functional.hardsigmoid(a).clamp(min=0.001))


def write_stretches_everything(bank, score, candidate_score):
    return 1.5 * written(bank, score, candidate_score) - 0.1


def write_divides_by_the_sum(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: functional.hardtanh(a / (6 + 0.5), 0, 1))


def write_adds_a_half_late(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: 0.5 + functional.relu6(a) / 6)


def write_without_upper_end(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: functional.relu(a / 6 + 0.5))


def write_without_lower_end(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: 1 - functional.relu(0.5 - a / 6))


def write_one_gate_a_slot(bank, score, candidate_score):
    return written(bank, score, candidate_score, lambda a: functional.hardsigmoid(a).mean(2)[..., None])


def write_pushes_first(bank, score, candidate_score):
    w, z = score.shape[1], functional.hardsigmoid(score)
    bank = push_plain(bank, candidate_score.tanh())
    return torch.hstack((bank[:, :-w], torch.lerp(bank[:, -w:], candidate_score.tanh(), z)))


def write_swaps_the_scores(bank, score, candidate_score):
    return written(bank, candidate_score, score)


def write_squashes_the_carried(bank, score, candidate_score):
    w, z = score.shape[1], functional.hardsigmoid(score)
    carried = torch.tanh(bank[:, bank.shape[1] - w :])
    return torch.hstack((bank[:, w:], carried - z * carried + z * candidate_score.tanh()))


def write_carries_the_last(bank, score, candidate_score):
    z = functional.hardsigmoid(score)
    return torch.hstack((bank[:, score.shape[1] :], torch.lerp(bank[:, [-1]], candidate_score.tanh(), z)))


def write_counts_rows(bank, score, candidate_score):
    w, z = score.shape[0], functional.hardsigmoid(score)
    return torch.hstack((bank[:, w:], bank[:, -w:] * (1 - z) + z * candidate_score.tanh()))


def write_keeps_the_oldest(bank, score, candidate_score):
    w = score.shape[1]
    return torch.hstack((bank[:, :w], written(bank, score, candidate_score)[:, bank.shape[1] - w :]))


def write_to_the_whole_bank(bank, score, candidate_score):
    z = functional.hardsigmoid(score)
    return bank - z * (bank - candidate_score.tanh())


def write_detached_gate(bank, score, candidate_score):
    return written(bank, score.detach(), candidate_score)


RIGHT = {
    POOL: (pool_plain, pool_by_einsum, pool_by_loops, pool_fused),
    QUEUE: (push_plain, push_by_roll, push_one_by_one, push_by_index),
    HALF_LIFE: (half_life_plain, half_life_logsigmoid, half_life_softplus, half_life_by_loops, half_life_in_bits),
    WRITE: (written, write_plain, write_by_relu6, write_by_lerp, write_by_where),
}

WRONG = {
    POOL: {
        pool_unscaled: "not divided by √d",
        pool_over_slots: "runs over the slots",
        pool_mean: "the queries play no part",
        pool_best_token: "argmax lets no gradient",
        pool_scores: "The softmax is missing",
        pool_weights_only: "You returned the weights (B, w, L)",
        pool_transposed: "The last two axes are swapped",
        pool_viewed: "the numbers of different tokens are mixed",
        pool_over_root_w: "by √w, the number of queries",
        pool_over_two: "You divided the scores by 2",
        pool_times_root_d: "You multiplied the scores by √d",
        pool_divided_late: "by √d after the softmax",
        pool_without_exp: "The softmax takes exp first",
        pool_causal: "Pooling has no mask",
        pool_doubled: "A weighted mean lies between",
        pool_without_gradient: "no gradient reaches queries",
    },
    QUEUE: {
        push_newest_first: "at the wrong end, and the newest of the bank left",
        push_overwrites_the_first: "in their place at the front",
        push_overwrites_the_last: "what was oldest stays for ever",
        push_grows: "grown to m + w slots",
        push_one_leaves: "Only one slot leaves",
        push_reversed: "in reverse order",
        push_keeps_the_oldest: "You took the w oldest, those that leave",
        push_keeps_the_newest_only: "You kept only the w newest slots",
        push_counts_rows: "len(new) is B",
        push_one_too_many: "One slot too many leaves",
        push_only_turns: "You turned the bank round",
        push_rolls_back: "rolled the bank the wrong way",
        push_rolls_everything: "Without dims",
        push_keeps_only: "the new ones are missing",
        push_in_place: "changes its input bank in place",
        push_adds: "is no slot of the bank and no new one; it must be new[",
        push_rows_swapped: "it must be new[0, 0]",
    },
    HALF_LIFE: {
        half_life_of_z: "You took the logarithm of z",
        half_life_flipped: "the other way round",
        half_life_negative: "The sign is wrong",
        half_life_e: "until 1/e",
        half_life_small_z: "ln 2 / z is close for a small z only",
        half_life_inverse: "1 / z is not the half-life",
        half_life_straight_line: "the same share of what is left",
        half_life_rounded_up: "rounded up to whole writes",
        half_life_is_z: "You returned z",
        half_life_upside_down: "upside down",
        half_life_plus: "You took ln(1 + z)",
        half_life_log1p_twice: "log1p(1 − z) is ln(2 − z)",
        half_life_without_logarithm: "½ stands where its logarithm belongs",
        half_life_mixed_bases: "take both logarithms to one base",
        half_life_as_integers: "Your results are whole numbers",
        half_life_by_counting: "no loop can count to it",
        half_life_hard: "You used the hard gate",
        half_life_naive: "wrong for a gate that is nearly shut: at b = -20",
        half_life_naive_sum: "torch.log1p(-z) never forms 1 − z",
        half_life_of_the_mean: "It is right only when d = 1",
    },
    WRITE: {
        write_sigmoid: "Your gate is a sigmoid, which is never 0",
        write_flipped: "the other way round",
        write_unclamped: "The clamp is missing",
        write_without_half: "½ is missing",
        write_clamped_score: "You clamped the score itself",
        write_other_slope: "another library's hard sigmoid",
        write_switch: "Your gate is a switch",
        write_linear_candidate: "The tanh is missing",
        write_ungated: "either there is no gate",
        write_carries_the_oldest: "You carried the w oldest slots",
        write_in_the_place_of_the_newest: "nothing left the bank",
        write_in_the_place_of_the_oldest: "stand at the front",
        write_new_only: "You returned the new slots",
        write_nearly_shut: "A shut gate must leave a number as it was, to the last bit",
        write_stretches_everything: "only the last w slots are written",
        write_divides_by_the_sum: "You divided by 6 + ½",
        write_adds_a_half_late: "You added ½ after the clamp",
        write_without_upper_end: "no upper end",
        write_without_lower_end: "no lower end",
        write_one_gate_a_slot: "one gate for a whole slot",
        write_pushes_first: "when the candidate stood in it already",
        write_swaps_the_scores: "You mixed up the scores",
        write_squashes_the_carried: "You put what is carried through the tanh",
        write_carries_the_last: "All new slots carry the last slot",
        write_counts_rows: "len(gate_score) is B",
        write_keeps_the_oldest: "You kept the w oldest slots",
        write_to_the_whole_bank: "You wrote to the whole bank",
        write_detached_gate: "no gradient reaches gate_score",
    },
}


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers],
    ids=named,
)
def test_right_answers_pass(name, answer, capsys):
    assert_passes(name, answer, capsys)


@pytest.mark.parametrize(
    ("name", "answer", "words"), [(name, answer, words) for name in WRONG for answer, words in WRONG[name].items()],
    ids=named,
)
def test_wrong_answers_are_diagnosed(name, answer, words, capsys):
    assert_diagnosed(name, answer, words, capsys)


def test_the_edges_are_tried():
    for name in (QUEUE, WRITE):
        sizes = [case.sizes for case in EXERCISES[name].cases()]
        assert all(size["w"] <= size["m"] for size in sizes)
        assert any(size["w"] == size["m"] for size in sizes) and any(size["w"] == 1 < size["m"] for size in sizes)
    scores = torch.cat([case.inputs[1].flatten() for case in EXERCISES[WRITE].cases()])
    for some in (scores < -3, scores > 3, scores.abs() < 3):
        assert some.float().mean() > 0.15
    biases = torch.cat([case.inputs[0].flatten() for case in EXERCISES[HALF_LIFE].cases()])
    assert biases.min() < -15 and biases.max() > 0


# The references are what the package does ------------------------------------------------------------------------


def step_of(**options):
    torch.manual_seed(1)
    memory = GatedFIFOMemory(8, 6, 2, gate="hard", **options).double()
    bank, hidden = torch.randn(3, 6, 8).double(), torch.randn(3, 5, 8).double()
    return memory, bank, hidden, memory.step(bank, hidden)


def test_the_pooling_is_what_the_memory_does():
    memory, _, hidden, step = step_of()
    assert torch.allclose(EXERCISES[POOL].reference(memory.queries, memory.write_norm(hidden)), step.pooled, atol=1e-12)


def test_the_queue_is_what_the_memory_does():
    _, bank, _, step = step_of()
    assert torch.allclose(EXERCISES[QUEUE].reference(bank, step.memory[:, -2:]), step.memory, atol=1e-12)


def test_the_write_is_what_the_memory_does():
    memory, bank, _, step = step_of(gate_bias=-3.0)
    source = torch.cat((step.pooled, memory.read_norm(step.carried)), dim=-1)
    expected = EXERCISES[WRITE].reference(bank, memory.to_gate(source), memory.to_candidate(source))
    assert torch.allclose(expected, step.memory, atol=1e-12)
    assert 0 < (step.gate == 0).sum() < step.gate.numel()


def test_the_half_life_is_that_of_the_memory():
    """With its weights at 0 the gate is its bias everywhere: after n writes (1 − z)ⁿ of a slot is left."""
    bias = -3.0
    memory = GatedFIFOMemory(4, 1, 1, gate_bias=bias).double()
    torch.nn.init.zeros_(memory.to_gate.weight)
    torch.nn.init.zeros_(memory.to_candidate.weight)
    torch.nn.init.zeros_(memory.to_candidate.bias)
    bank = torch.ones(1, 1, 4).double()
    for _ in range(20):
        bank = memory.write(bank, torch.randn(1, 3, 4).double())
    half = EXERCISES[HALF_LIFE].reference(torch.full((1, 4), bias))
    assert torch.allclose(bank[0], 0.5 ** (20 / half))
