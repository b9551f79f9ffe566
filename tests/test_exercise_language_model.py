"""The exercises of notebook 06: wrong answers get the right diagnosis, right ones pass, whatever they look like."""

import math

import pytest
import torch
from answers import assert_diagnosed, assert_passes, named
from strategies import gap, make_model, random_tokens
from torch.nn.functional import cross_entropy, log_softmax, nll_loss, one_hot, softmax

from rmat_tutorial.block import stream_logits
from rmat_tutorial.evaluation import Score, bits_per_byte
from rmat_tutorial.exercises import EXERCISES
from rmat_tutorial.sampling import chances, sample

BITS, CHANCES, READ = "06.bits_per_byte", "06.chances", "06.read"

pytestmark = pytest.mark.usefixtures("own_home")


# Bits per byte ---------------------------------------------------------------------------------------------------


def bits_by_cross_entropy(logits, targets):
    return cross_entropy(logits, targets) / math.log(2)


def bits_by_gather(logits, targets):
    return -log_softmax(logits, dim=-1).gather(1, targets[:, None]).mean() / math.log(2)


def bits_by_loop(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        total -= math.log2(row.softmax(0)[target])
    return total / len(targets)


def bits_by_one_hot(logits, targets):
    p = (logits.softmax(1) * one_hot(targets, logits.shape[1])).sum(1)
    return -p.log2().mean()


def bits_by_hand(logits, targets):
    powers = torch.exp(logits - logits.max())
    return torch.log2(powers.sum(1) / powers[range(len(targets)), targets]).sum().item() / len(targets)


def bits_in_nats(logits, targets):
    return nll_loss(logits.log_softmax(1), targets)


def bits_to_base_ten(logits, targets):
    return -sum(math.log10(row.softmax(0)[y]) for row, y in zip(logits, targets, strict=True)) / len(targets)


def bits_multiplied(logits, targets):
    return cross_entropy(logits, targets) * math.log(2)


def bits_as_perplexity(logits, targets):
    return 2 ** bits_by_cross_entropy(logits, targets)


def bits_two_to_the_nats(logits, targets):
    return torch.exp2(cross_entropy(logits, targets))


def bits_summed(logits, targets):
    return cross_entropy(logits, targets, reduction="sum").item() / math.log(2)


def bits_of_each(logits, targets):
    return cross_entropy(logits, targets, reduction="none") / math.log(2)


def bits_over_the_vocabulary_size(logits, targets):
    return cross_entropy(logits, targets, reduction="sum") / math.log(2) / logits.size(1)


def bits_mean_of_zeros(logits, targets):
    return -(one_hot(targets, logits.shape[1]) * logits.log_softmax(1)).mean() / math.log(2)


def bits_without_softmax(logits, targets):
    return nll_loss(logits, targets) / math.log(2)


def bits_log_of_logits(logits, targets):
    return -logits.gather(1, targets[:, None]).log2().mean()


def bits_over_the_positions(logits, targets):
    return -torch.log2(softmax(logits, 0)[range(len(targets)), targets]).mean()


def bits_softmax_twice(logits, targets):
    return cross_entropy(softmax(logits, 1), targets) / math.log(2)


def bits_shifted(logits, targets):
    return cross_entropy(logits[:-1], targets[1:]) / math.log(2)


def bits_rolled(logits, targets):
    return cross_entropy(logits.roll(1, 0), targets) / math.log(2)


def bits_positive_log(logits, targets):
    return torch.log2(logits.softmax(1)[range(len(targets)), targets]).mean()


def bits_of_the_mean(logits, targets):
    return -math.log2(logits.softmax(1)[range(len(targets)), targets].mean())


def bits_of_the_likeliest(logits, targets):
    return -torch.log2(logits.softmax(1).max(1).values).mean()


def bits_entropy(logits, targets):
    return torch.distributions.Categorical(logits=logits).entropy().mean() / math.log(2)


def bits_every_pair(logits, targets):
    return -torch.log2(softmax(logits, 1)[:, targets]).mean()


def bits_mean_chance(logits, targets):
    return softmax(logits, 1).gather(1, targets.view(-1, 1)).mean()


def bits_accuracy(logits, targets):
    return sum(int(row.argmax() == y) for row, y in zip(logits, targets, strict=True)) / len(targets)


def bits_of_bits(logits, targets):
    return -log_softmax(logits, 1)[range(len(targets)), targets].log2().mean()


def bits_over_ln_2_twice(logits, targets):
    return bits_by_hand(logits, targets) / math.log(2)


def bits_over_log10(logits, targets):
    return nll_loss(logits.log_softmax(1), targets).item() / math.log10(2)


def bits_log_of_the_loss(logits, targets):
    return math.log2(cross_entropy(logits, targets))


def bits_power_of_e(logits, targets):
    return math.exp(bits_by_loop(logits, targets))


def bits_over_ln_256(logits, targets):
    return cross_entropy(logits, targets) / math.log(256)


def bits_of_powers_of_two(logits, targets):
    powers = 2**logits
    return -(powers / powers.sum(1, keepdim=True))[range(len(targets)), targets].log2().mean()


def bits_without_the_last(logits, targets):
    return bits_by_gather(logits[:-1], targets[:-1])


def bits_without_the_first(logits, targets):
    return bits_by_loop(logits[1:], targets[1:])


def bits_of_the_first_column(logits, targets):
    return -softmax(logits, 1)[:, 0].log2().mean()


def bits_median(logits, targets):
    return bits_of_each(logits, targets).median()


def bits_negative(logits, targets):
    return -1 - bits_by_cross_entropy(logits, targets)


def bits_halved(logits, targets):
    return bits_by_cross_entropy(logits, targets) / 2


def bits_doubled_axis(logits, targets):
    return cross_entropy(logits.T, targets) / math.log(2)


# What the next token is drawn from -------------------------------------------------------------------------------


def chances_by_sort(logits, temperature, top_k):
    scaled, order = (logits / temperature).sort(descending=True)
    scaled[torch.arange(len(logits)) >= top_k] = -torch.inf
    return torch.zeros_like(logits).scatter(0, order, scaled.softmax(0))


def chances_by_topk(logits, temperature, top_k):
    values, tokens = torch.topk(logits, top_k)
    result = torch.zeros_like(logits)
    result[tokens] = softmax(values / temperature, -1)
    return result


def chances_by_kthvalue(logits, temperature, top_k):
    edge = logits.kthvalue(len(logits) - top_k + 1).values
    return (logits / temperature).masked_fill(logits < edge, -1e9).softmax(-1)


def chances_by_dividing(logits, temperature, top_k):
    p = (logits / temperature).softmax(0)
    p[logits < logits.topk(top_k).values.min()] = 0
    return p / p.sum()


def chances_by_ranks(logits, temperature, top_k):
    ranks = logits.argsort(descending=True).argsort()
    powers = torch.exp((logits - logits.max()) / temperature) * (ranks < top_k)
    return powers / powers.sum()


def chances_by_loop(logits, temperature, top_k):
    p = torch.zeros_like(logits)
    left = logits.clone()
    for _ in range(top_k):
        token = int(left.argmax())
        p[token] = math.exp(logits[token] / temperature)
        left[token] = -math.inf
    return p / p.sum()


def kept(logits, top_k):
    return logits >= logits.sort(descending=True).values[top_k - 1]


def chances_not_renormalised(logits, temperature, top_k):
    return softmax(logits / temperature, 0) * kept(logits, top_k)


def chances_temperature_last(logits, temperature, top_k):
    return logits.masked_fill(~kept(logits, top_k), -torch.inf).softmax(0).div(temperature)


def chances_temperature_lost(logits, temperature, top_k):
    p = softmax(logits, 0) / temperature * kept(logits, top_k)
    return p / p.sum()


def chances_multiplied(logits, temperature, top_k):
    return chances_by_topk(logits, 1 / temperature, top_k)


def chances_of_the_smallest(logits, temperature, top_k):
    return chances_by_ranks_below(logits / temperature, logits.argsort().argsort() < top_k)


def chances_by_ranks_below(scaled, chosen):
    return scaled.masked_fill(~chosen, -torch.inf).softmax(0)


def chances_inverted(logits, temperature, top_k):
    return chances_by_ranks_below(logits / temperature, ~kept(logits, top_k))


def chances_zeros_for_logits(logits, temperature, top_k):
    return softmax(logits / temperature * kept(logits, top_k), 0)


def chances_one_more(logits, temperature, top_k):
    edge = logits.sort(descending=True).values[top_k]
    return chances_by_ranks_below(logits / temperature, logits >= edge)


def chances_one_more_where_there_is_one(logits, temperature, top_k):
    return chances_by_topk(logits, temperature, min(top_k + 1, len(logits)))


def chances_above_the_edge(logits, temperature, top_k):
    edge = logits.topk(top_k).values[-1]
    return torch.where(logits > edge, logits / temperature, -torch.inf).softmax(0)


def chances_above_the_edge_as_zeros(logits, temperature, top_k):
    p = torch.exp(logits / temperature) * (logits > logits.topk(top_k).values[-1])
    return p / p.sum()


def chances_of_all(logits, temperature, top_k):
    return softmax(logits / temperature, 0)


def chances_without_temperature(logits, temperature, top_k):
    return chances_by_kthvalue(logits, 1, top_k)


def chances_kth_smallest(logits, temperature, top_k):
    edge = logits.sort().values[top_k - 1]
    return chances_by_ranks_below(logits / temperature, logits >= edge)


def chances_first_of_the_vocabulary(logits, temperature, top_k):
    scaled = logits / temperature
    return torch.cat([scaled[:top_k], torch.full_like(scaled[top_k:], -torch.inf)]).softmax(0)


def chances_order_as_ranks(logits, temperature, top_k):
    return chances_by_ranks_below(logits / temperature, torch.sort(logits, descending=True).indices < top_k)


def chances_sorted(logits, temperature, top_k):
    p = logits.sort(descending=True).values[:top_k].div(temperature).softmax(0)
    return torch.nn.functional.pad(p, (0, len(logits) - top_k))


def chances_k_of_them(logits, temperature, top_k):
    return softmax(torch.topk(logits, top_k)[0] / temperature, 0)


def chances_as_logits(logits, temperature, top_k):
    return (logits / temperature).masked_fill(~kept(logits, top_k), -torch.inf)


def chances_alike(logits, temperature, top_k):
    return kept(logits, top_k) / torch.tensor(top_k).to(logits)


def chances_greedy(logits, temperature, top_k):
    return one_hot(logits.argmax(), len(logits)).to(logits)


def chances_softmax_twice(logits, temperature, top_k):
    return chances_by_topk(softmax(logits / temperature, 0), 1, top_k)


def chances_nearly_shut(logits, temperature, top_k):
    return chances_by_ranks_below(logits / temperature, kept(logits, top_k)) + 1e-7 * ~kept(logits, top_k)


def chances_at_most_the_edge(logits, temperature, top_k):
    return chances_by_ranks_below(logits / temperature, logits <= logits.topk(top_k).values.min())


def chances_scaled_beside_an_edge(logits, temperature, top_k):
    scaled = logits / temperature
    return scaled.masked_fill(scaled < logits.topk(top_k).values[-1], -torch.inf).softmax(0)


def chances_beside_a_scaled_edge(logits, temperature, top_k):
    edge = (logits / temperature).sort(descending=True).values[top_k - 1]
    return chances_by_ranks_below(logits / temperature, ~(logits < edge))


def chances_at_the_front(logits, temperature, top_k):
    p = chances_by_topk(logits, temperature, top_k)
    return torch.cat([p[p > 0], p[p == 0]])


def chances_missing_one(logits, temperature, top_k):
    p = chances_by_topk(logits, temperature, top_k)
    if 1 < top_k < len(logits):
        p[logits.topk(top_k).indices[1]] = 0
    return p


def chances_too_much(logits, temperature, top_k):
    return chances_by_topk(logits, temperature, top_k) * 1.5 ** (top_k + len(logits))


def chances_by_squares(logits, temperature, top_k):
    p = (logits / temperature + 100).square() * kept(logits, top_k)
    return p / p.sum()


def chances_in_place(logits, temperature, top_k):
    logits[~kept(logits, top_k)] = -torch.inf
    return (logits / temperature).softmax(0)


# The whole model -------------------------------------------------------------------------------------------------


def read_by_segments(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for segment in tokens.split(L, dim=1):
        x = embed(segment)
        for i, block in enumerate(blocks):
            x, banks[i] = block(x, banks[i])
        logits.append(head(norm(x)))
    return torch.cat(logits, dim=1)


def read_by_layers(tokens, banks, embed, blocks, norm, head, L):
    x = embed(tokens)
    for block, bank in zip(blocks, banks, strict=True):
        parts = []
        for start in range(0, x.shape[1], L):
            part, bank = block(x[:, start : start + L], bank)
            parts.append(part)
        x = torch.hstack(parts)
    return head(norm(x))


def read_by_recursion(tokens, banks, embed, blocks, norm, head, L):
    x, after = embed(tokens[:, :L]), []
    for number in range(len(blocks)):
        x, bank = blocks[number](x, banks[number])
        after.append(bank)
    logits = head(norm(x))
    if tokens.shape[1] <= L:
        return logits
    return torch.cat([logits, read_by_recursion(tokens[:, L:], after, embed, blocks, norm, head, L)], 1)


def read_with_stacked_banks(tokens, banks, embed, blocks, norm, head, L):
    hidden, start = [], 0
    while start < tokens.size(1):
        x, written = embed(tokens[:, start : start + L]), []
        for bank, block in zip(banks.unbind(), blocks, strict=True):
            x, new = block(x, bank)
            written += [new]
        banks = torch.stack(written)
        hidden.append(x)
        start += L
    return head(norm(torch.cat(hidden, 1)))


def pass_on(x, banks, blocks):
    for i, block in enumerate(blocks):
        x, banks[i] = block(x, banks[i])
    return x


def read_forgets(tokens, banks, embed, blocks, norm, head, L):
    return head(norm(torch.cat([pass_on(embed(part), list(banks), blocks) for part in tokens.split(L, 1)], 1)))


def read_one_bank(tokens, banks, embed, blocks, norm, head, L):
    bank, logits = banks[0], []
    for part in tokens.split(L, 1):
        x = embed(part)
        for block in blocks:
            x, bank = block(x, bank)
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_first_bank_for_all(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x, before = embed(part), banks[0]
        for i, block in enumerate(blocks):
            x, banks[i] = block(x, before)
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_from_layer_to_layer(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x, bank = embed(part), banks[0]
        for i, block in enumerate(blocks):
            x, bank = block(x, bank)
            banks[i] = bank
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_last_bank_only(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x = embed(part)
        for block, before in zip(blocks, banks, strict=True):
            x, bank = block(x, before)
        banks[-1] = bank
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_with_zeros(tokens, banks, embed, blocks, norm, head, L):
    return read_by_segments(tokens, 0 * banks, embed, blocks, norm, head, L)


def read_calls_twice(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x = embed(part)
        for i, block in enumerate(blocks):
            x = block(x, banks[i])[0]
            banks[i] = block(x, banks[i])[1]
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_without_norm(tokens, banks, embed, blocks, norm, head, L):
    return read_by_layers(tokens, banks, embed, blocks, torch.clone, head, L)


def read_head_first(tokens, banks, embed, blocks, norm, head, L):
    return norm(head(read_by_layers(tokens, banks, embed, blocks, torch.clone, torch.clone, L)))


def read_norm_everywhere(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x = embed(part)
        for i, block in enumerate(blocks):
            x, banks[i] = block(x, banks[i])
            x = norm(x)
        logits.append(head(x))
    return torch.cat(logits, 1)


def read_norm_before_each(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x = embed(part)
        for i, block in enumerate(blocks):
            x, banks[i] = block(norm(x), banks[i])
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_without_head(tokens, banks, embed, blocks, norm, head, L):
    return read_by_recursion(tokens, banks, embed, blocks, norm, torch.clone, L)


def read_chances(tokens, banks, embed, blocks, norm, head, L):
    return read_by_segments(tokens, banks, embed, blocks, norm, head, L).softmax(-1)


def read_last_segment(tokens, banks, embed, blocks, norm, head, L):
    banks = list(banks)
    for part in tokens.split(L, 1):
        x = pass_on(embed(part), banks, blocks)
    return head(norm(x))


def read_last_position(tokens, banks, embed, blocks, norm, head, L):
    return read_last_segment(tokens, banks, embed, blocks, norm, head, L)[:, -1]


def read_first_block(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x, banks[0] = blocks[0](embed(part), banks[0])
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_embedding_everywhere(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x = embed(part)
        for i, block in enumerate(blocks):
            y, banks[i] = block(x, banks[i])
        logits.append(head(norm(y)))
    return torch.cat(logits, 1)


def read_in_reverse(tokens, banks, embed, blocks, norm, head, L):
    return read_by_recursion(tokens, banks.flip(0), embed, blocks[::-1], norm, head, L)


def read_blocks_in_reverse(tokens, banks, embed, blocks, norm, head, L):
    return read_by_recursion(tokens, banks, embed, tuple(reversed(blocks)), norm, head, L)


def read_pieces(tokens, pieces, banks, embed, blocks, norm, head):
    banks = list(banks)
    return head(norm(torch.cat([pass_on(embed(part), banks, blocks) for part in pieces], 1)))


def read_at_once(tokens, banks, embed, blocks, norm, head, L):
    return read_pieces(tokens, [tokens], banks, embed, blocks, norm, head)


def read_rows(tokens, banks, embed, blocks, norm, head, L):
    return read_pieces(tokens, tokens.split(L), banks, embed, blocks, norm, head)


def read_chunks(tokens, banks, embed, blocks, norm, head, L):
    return read_pieces(tokens, tokens.chunk(L, 1), banks, embed, blocks, norm, head)


def read_token_by_token(tokens, banks, embed, blocks, norm, head, L):
    return read_pieces(tokens, tokens.split(1, 1), banks, embed, blocks, norm, head)


def read_drops_the_rest(tokens, banks, embed, blocks, norm, head, L):
    pieces = [tokens[:, i * L : i * L + L] for i in range(tokens.shape[1] // L)]
    return read_pieces(tokens, pieces, banks, embed, blocks, norm, head)


def read_joins_batch(tokens, banks, embed, blocks, norm, head, L):
    banks = list(banks)
    return head(norm(torch.cat([pass_on(embed(part), banks, blocks) for part in tokens.split(L, 1)])))


def read_adds_the_residual(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), []
    for part in tokens.split(L, 1):
        x = embed(part)
        for i, block in enumerate(blocks):
            y, banks[i] = block(x, banks[i])
            x = x + y
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_begins_with_one_bank(tokens, banks, embed, blocks, norm, head, L):
    return read_by_layers(tokens, [banks[0]] * len(banks), embed, blocks, norm, head, L)


def read_skips_a_block(tokens, banks, embed, blocks, norm, head, L):
    return read_by_layers(tokens, banks[1:], embed, blocks[1:], norm, head, L)


def read_skips_the_last_block(tokens, banks, embed, blocks, norm, head, L):
    return read_by_recursion(tokens, banks[:-1], embed, blocks[:-1], norm, head, L)


def read_after_every_block(tokens, banks, embed, blocks, norm, head, L):
    banks, logits = list(banks), torch.empty(len(tokens), 0, 0)
    for part in tokens.split(L, 1):
        x = embed(part)
        for i in range(len(blocks)):
            x, banks[i] = blocks[i](x, banks[i])
            y = head(norm(x))
            logits = torch.hstack([logits, y]) if logits.numel() else y
    return logits


def read_without_embedding(tokens, banks, embed, blocks, norm, head, L):
    return read_by_segments(tokens, banks, torch.clone, blocks, norm, head, L)


def read_keeps_both_results(tokens, banks, embed, blocks, norm, head, L):
    logits = []
    for part in tokens.split(L, 1):
        x = embed(part)
        for block, bank in zip(blocks, banks, strict=True):
            x = block(x, bank)
        logits.append(head(norm(x)))
    return torch.cat(logits, 1)


def read_adds_positions(tokens, banks, embed, blocks, norm, head, L):
    def with_positions(part):
        return embed(part) + torch.arange(part.shape[1])[:, None]

    return read_by_segments(tokens, banks, with_positions, blocks, norm, head, L)


def read_resets_often(tokens, banks, embed, blocks, norm, head, L):
    first, logits = list(banks), []
    banks = list(banks)
    for number, part in enumerate(tokens.split(L, 1)):
        banks = list(first) if number == 2 else banks
        logits.append(head(norm(pass_on(embed(part), banks, blocks))))
    return torch.cat(logits, 1)


def read_detached(tokens, banks, embed, blocks, norm, head, L):
    def cut(block):
        def read(x, bank):
            x, bank = block(x, bank)
            return x, bank.detach()

        return read

    return read_by_segments(tokens, banks, embed, list(map(cut, blocks)), norm, head, L)


def read_in_place(tokens, banks, embed, blocks, norm, head, L):
    return head(norm(torch.cat([pass_on(embed(part), banks, blocks) for part in tokens.split(L, 1)], 1)))


def read_list(tokens, banks, embed, blocks, norm, head, L):
    return [head(norm(x)) for x in embed(tokens).split(L, 1)]


RIGHT = {
    BITS: (bits_by_cross_entropy, bits_by_gather, bits_by_loop, bits_by_one_hot, bits_by_hand, bits_per_byte),
    CHANCES: (chances_by_sort, chances_by_topk, chances_by_kthvalue, chances_by_dividing, chances_by_ranks,
              chances_by_loop, chances),
    READ: (read_by_segments, read_by_layers, read_by_recursion, read_with_stacked_banks, stream_logits),
}

# In each group, those that no known mistake covers come last: the symptoms must tell.
WRONG = {
    BITS: {
        bits_in_nats: "these are nats",
        bits_to_base_ten: "to base 10",
        bits_multiplied: "You multiplied the nats by ln 2",
        bits_as_perplexity: "You return the perplexity",
        bits_two_to_the_nats: "2 to the power of the nats",
        bits_summed: "You return the sum over the positions. Divide by their number T",
        bits_of_each: "You return the bits of each position",
        bits_over_the_vocabulary_size: "You divided the sum by V",
        bits_mean_of_zeros: "the mean is over T · V numbers",
        bits_without_softmax: "The softmax is missing: you used the logits as if",
        bits_log_of_logits: "you took the logarithm of the logits",
        bits_over_the_positions: "Your softmax runs over the positions",
        bits_softmax_twice: "You applied the softmax twice. cross_entropy",
        bits_shifted: "You shifted the targets",
        bits_rolled: "You shifted the targets",
        bits_positive_log: "The sign is wrong: log2 of a chance is negative",
        bits_of_the_mean: "You took the mean of the chances first",
        bits_of_the_likeliest: "You took the largest chance",
        bits_entropy: "You took the entropy",
        bits_every_pair: "Every position is set beside every target",
        bits_mean_chance: "the logarithm is missing",
        bits_accuracy: "the share of right guesses",
        bits_of_bits: "You took a logarithm twice",
        bits_over_ln_2_twice: "You divided by ln 2 twice",
        bits_over_log10: "You divided the nats by log10(2)",
        bits_log_of_the_loss: "You took log2 of the nats",
        bits_power_of_e: "You return e to the power of the bits",
        bits_over_ln_256: "You divided by 8, or by ln 256",
        bits_of_powers_of_two: "Your chances are powers of 2",
        bits_without_the_last: "You left out the last position",
        bits_without_the_first: "You left out the first position",
        bits_of_the_first_column: "The bytes that came cost 3, 2 bits, one after the other. Asked for is the mean of "
        "these.\nAsked for",
        bits_median: "The bytes that came cost 3, 2 bits, one after the other",
        bits_negative: "No chance is above 1, so no byte costs less than 0 bits",
        bits_halved: "Your result is 0.5 times the right one",
        bits_doubled_axis: "raised ValueError",
    },
    CHANCES: {
        chances_not_renormalised: "do not sum to 1: what was taken from the others is missing",
        chances_temperature_last: "You divided the chances by the temperature, after the softmax",
        chances_temperature_lost: "The temperature has no effect",
        chances_multiplied: "You multiplied the logits by the temperature",
        chances_of_the_smallest: "You kept the k smallest logits",
        chances_inverted: "Kept and shut out are swapped",
        chances_zeros_for_logits: "You put 0 on the logits of the others",
        chances_one_more: "You kept k + 1 tokens",
        chances_one_more_where_there_is_one: "You kept k + 1 tokens",
        chances_above_the_edge: "compare with >=, not with >",
        chances_above_the_edge_as_zeros: "compare with >=, not with >",
        chances_of_all: "top_k is not used",
        chances_without_temperature: "The temperature has no effect",
        chances_kth_smallest: "kthvalue and sort count from the smallest",
        chances_first_of_the_vocabulary: "the first k tokens of the vocabulary",
        chances_order_as_ranks: "argsort says which token stands at each rank",
        chances_sorted: "The chances are sorted",
        chances_k_of_them: "You return the k chances alone",
        chances_as_logits: "The softmax is missing: you return logits",
        chances_alike: "all have the same chance",
        chances_greedy: "You put all on the largest logit",
        chances_softmax_twice: "You applied the softmax twice",
        chances_at_most_the_edge: "Your comparison goes the other way",
        chances_scaled_beside_an_edge: "Take both from the same numbers",
        chances_beside_a_scaled_edge: "Take both from the same numbers",
        chances_at_the_front: "The chances are right, but in the wrong places",
        chances_nearly_shut: "Its chance must be exactly 0",
        chances_missing_one: "Token 3 is among the 2 with the largest logits, but its chance is 0",
        chances_too_much: "their chances sum to 11.39, and not to 1",
        chances_by_squares: "So at temperature 0.5 the first comes exp(0.6931 / 0.5) = 4 times as often",
        chances_in_place: "changes its input logits in place",
    },
    READ: {
        read_forgets: "The banks are not handed on",
        read_one_bank: "One bank goes from layer to layer",
        read_first_bank_for_all: "All layers read the bank of layer 0",
        read_from_layer_to_layer: "goes to the layer above, in the same segment",
        read_last_bank_only: "Only the last layer's bank is handed on",
        read_begins_with_one_bank: "In the first segment all layers read the bank of layer 0",
        read_with_zeros: "the first segment is read with zeros",
        read_calls_twice: "You call each block twice",
        read_without_norm: "The norm is missing",
        read_head_first: "Head and norm are in the wrong order",
        read_norm_everywhere: "You applied the norm after every block",
        read_norm_before_each: "You applied the norm before every block as well",
        read_without_head: "The head is missing",
        read_chances: "You return chances",
        read_last_segment: "the last segment only",
        read_last_position: "the last position only",
        read_first_block: "the output of the first block only",
        read_skips_the_last_block: "The last block is never called",
        read_after_every_block: "You collect logits after every block",
        read_without_embedding: "a block takes vectors x (B, n, d), got tokens (1, 2): embed comes first",
        read_keeps_both_results: "take them apart, x, bank = block(x, bank)",
        read_embedding_everywhere: "Every layer reads the embedding, and the last one's output is all that counts",
        read_in_reverse: "You run through the blocks from the last to the first",
        read_blocks_in_reverse: "and through the banks from the first to the last",
        read_chunks: "You cut the tokens into L pieces",
        read_token_by_token: "You read token by token",
        read_drops_the_rest: "The last tokens are missing where L does not divide T",
        read_joins_batch: "joined along the batch",
        read_adds_the_residual: "The residual is inside the block already",
        read_at_once: "takes one segment (B, 1 to L = 2, d), got (1, 5, 3): cut the tokens into segments along axis 1",
        read_rows: "cut the tokens into segments along axis 1",
        read_skips_a_block: "Already position 0 is wrong: the way through the model is not right",
        read_adds_positions: "Position 0 is right, and position 1 of the same segment is not",
        read_resets_often: "From position 4 on, in segment 2",
        read_detached: "the gradient that reaches banks is not",
        read_in_place: "changes its input banks in place",
        read_list: "returned a list; it must return a torch tensor",
    },
}


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers], ids=named
)
def test_right_answers_pass(name, answer, capsys):
    assert_passes(name, answer, capsys)


@pytest.mark.parametrize(
    ("name", "answer", "words"), [(name, answer, words) for name in WRONG for answer, words in WRONG[name].items()],
    ids=named,
)
def test_wrong_answers_are_diagnosed(name, answer, words, capsys):
    assert_diagnosed(name, answer, words, capsys)


# The cases -------------------------------------------------------------------------------------------------------


def test_which_logits_are_the_largest_is_never_open():
    cases = EXERCISES[CHANCES].cases()
    assert all(case.inputs[0].unique().numel() == case.sizes["V"] >= case.inputs[2] for case in cases)
    assert any(case.inputs[2] == case.sizes["V"] > 1 for case in cases)
    assert any(case.inputs[2] == 1 < case.sizes["V"] for case in cases)


def test_most_streams_have_a_short_last_segment_and_layers_of_their_own():
    cases = EXERCISES[READ].cases()
    assert sum(case.sizes["T"] > case.sizes["L"] and case.sizes["T"] % case.sizes["L"] > 0 for case in cases) >= 6
    for case in cases:
        _, banks, _, blocks, *_ = case.inputs
        assert len(banks) == len(blocks) == len({block.factor for block in blocks})


def test_the_stand_ins_refuse_what_they_cannot_read():
    tokens, banks, embed, (block, *_), norm, head, _ = EXERCISES[READ].example.inputs
    x = embed(tokens)
    for wrong in (x, x[:, :0], x[0]):
        with pytest.raises(ValueError, match=r"a block takes one segment \(B, 1 to L = 2, d\), got"):
            block(wrong, banks[0])
    with pytest.raises(ValueError, match=r"a block takes vectors x \(B, n, d\), got tokens"):
        block(tokens, banks[0])
    with pytest.raises(TypeError, match="take them apart"):
        block(block(x[:, :2], banks[0]), banks[0])
    with pytest.raises(ValueError, match=r"a block takes the bank \(B, m, d\)"):
        block(x[:, :2], banks)
    with pytest.raises(ValueError, match="embed takes tokens"):
        embed(x)
    with pytest.raises(ValueError, match="head takes"):
        head(head(norm(x)))


# The references are what the package does ------------------------------------------------------------------------


def test_bits_per_byte_are_those_of_a_score():
    model, tokens = make_model(), random_tokens(1, 12)
    logits = model(tokens[:, :-1]).logits[0].detach()
    score = Score()
    for part in range(2):  # a score adds up, whatever the parts
        score.add(logits[part::2], tokens[0, 1:][part::2])
    expected = EXERCISES[BITS].reference(logits, tokens[0, 1:]).item()
    assert score.value("bits_per_byte") == pytest.approx(expected, abs=1e-10)
    assert bits_per_byte(logits, tokens[0, 1:]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("temperature", (0.3, 1.0, 4.0))
@pytest.mark.parametrize("top_k", (1, 3, 9))
def test_the_package_draws_from_the_chances_of_the_reference(temperature, top_k):
    logits = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = chances(logits, temperature, top_k)
    for row, column in ((0, 0), (1, 3)):
        expected = EXERCISES[CHANCES].reference(logits[row, column], temperature, top_k)
        assert torch.equal(found[row, column] == 0, expected == 0)
        assert gap(found[row, column], expected) < 1e-12


def test_without_top_k_all_are_in_the_draw():
    logits = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))
    assert torch.equal(chances(logits, 0.7), chances(logits, 0.7, 7))
    assert gap(chances(logits, 0.7), (logits / 0.7).softmax(-1)) < 1e-6


@pytest.mark.parametrize("temperature", (0, 1e-300, 1e-6))
def test_no_temperature_puts_all_on_the_largest(temperature):
    logits = torch.tensor([[100.0, -3.0, 99.0], [-1e4, 0.0, 1e4]])
    for top_k in (None, 1, 2, 3):
        assert torch.equal(chances(logits, temperature, top_k), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))


def test_equal_logits_never_leave_more_than_top_k_in_the_draw():
    logits = torch.tensor([1.0, 2.0, 2.0, 2.0])
    assert (chances(logits, 1.0, 2) > 0).sum() == 2 and (chances(logits, 0.0) > 0).sum() == 1


def test_draws_come_from_the_chances():
    logits = torch.tensor([0.5, 2.0, 1.0, -1.0, 1.5])
    drawn = sample(logits.expand(4000, 5), 0.8, 3, torch.Generator().manual_seed(0))
    frequencies = torch.bincount(drawn.flatten(), minlength=5) / 4000
    expected = chances(logits, 0.8, 3)
    assert torch.equal(frequencies == 0, expected == 0)
    assert gap(frequencies, expected) < 0.03  # four standard deviations of a frequency of one half


@pytest.mark.parametrize("answer", RIGHT[READ], ids=named)
def test_a_model_is_read_by_right_answers_as_by_the_package(answer):
    model, tokens = make_model(n_layers=3), random_tokens(2, 13)
    banks = torch.stack(model.init_state(2).memory)
    expected = model(tokens).logits
    found = answer(tokens, banks, model.embed, model.blocks, model.norm, model.head, model.config.segment_len)
    assert gap(found, expected) < 1e-12


def test_the_stand_ins_are_read_as_the_reference_says():
    for case in EXERCISES[READ].cases():
        assert gap(stream_logits(*case.to_double().inputs), EXERCISES[READ].reference(*case.inputs)) < 1e-10
