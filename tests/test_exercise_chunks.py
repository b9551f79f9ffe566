"""The exercises of notebook 03: wrong answers get the right diagnosis, right ones pass, whatever they look like."""

import math

import pytest
import torch
from answers import assert_diagnosed, assert_passes, named

from rmat_tutorial import chunked_attention, chunks, full_attention
from rmat_tutorial.attention import chunked_weights
from rmat_tutorial.exercises import EXERCISES

MASK, FOLD, UNFOLD, PAIRS = "03.chunk_mask", "03.fold", "03.unfold", "03.pairs"


pytestmark = pytest.mark.usefixtures("own_home")


# The mask --------------------------------------------------------------------------------------------------------


def mask_by_loops(T, C):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        mask[i, i - i % C : i + 1] = True
    return mask


def mask_by_blocks(T, C):
    return torch.block_diag(*[torch.ones(C, C).tril()] * math.ceil(T / C))[:T, :T].bool()


def mask_by_pieces(T, C):
    return torch.block_diag(*[torch.ones(len(piece), len(piece)).tril() for piece in torch.arange(T).split(C)]) > 0


def mask_by_starts(T, C):
    j = torch.arange(T)
    start = (j - j % C).unsqueeze(1)
    return torch.logical_and(j >= start, j <= j.unsqueeze(1))


def mask_by_bucketize(T, C):
    chunk = torch.bucketize(torch.arange(T), torch.tensor([*range(C, T + 1, C)]), right=True)
    return chunk.eq(chunk[:, None]).tril()


def mask_inverted(T, C):
    return torch.logical_not(mask_by_blocks(T, C))


def mask_without_order(T, C):
    return torch.block_diag(*[torch.ones(C, C, dtype=torch.bool)] * math.ceil(T / C))[:T, :T]


def mask_causal(T, C):
    return torch.ones(T, T, dtype=torch.bool).tril()


def mask_either(T, C):
    return mask_causal(T, C) | mask_without_order(T, C)


def mask_hides_itself(T, C):
    return mask_by_blocks(T, C).tril(-1)


def mask_upside_down(T, C):
    return mask_without_order(T, C).triu()


def mask_sliding(T, C):
    ones = torch.ones(T, T, dtype=torch.bool)
    return ones.tril() & ones.triu(1 - C)


def mask_by_remainder(T, C):
    rest = torch.tensor([p % C for p in range(T)])
    return (rest[None] == rest[:, None]).tril()


def mask_from_one(T, C):
    chunk = torch.arange(1, T + 1).div(C, rounding_mode="floor")
    return (chunk[None] == chunk[:, None]).tril()


def mask_rounded_up(T, C):
    chunk = torch.tensor([math.ceil(p / C) for p in range(T)])
    return (chunk[None] == chunk[:, None]).tril()


def mask_short_first(T, C):
    return mask_without_order(T, C).flip(0, 1).tril()


def mask_tail_blind(T, C):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for start in range(0, T - C + 1, C):
        mask[start : start + C, start : start + C] = torch.ones(C, C, dtype=torch.bool).tril()
    return mask


def mask_overlapping(T, C):
    mask = mask_by_loops(T, C)
    for i in range(C, T):
        mask[i, i - i % C - C : i] = True
    return mask


def mask_untrimmed(T, C):
    return torch.block_diag(*[torch.ones(C, C).tril()] * math.ceil(T / C)).bool()


def mask_added(T, C):
    return torch.where(mask_by_loops(T, C), 0.0, float("-inf"))


def mask_of_numbers(T, C):
    return mask_by_loops(T, C).float()


def mask_of_threes(T, C):
    return mask_by_loops(T, 3)


def mask_one_ahead(T, C):
    return mask_without_order(T, C).tril(1)


def mask_by_fractions(T, C):
    chunk = torch.linspace(0, (T - 1) / C, T)
    return chunk.eq(chunk[:, None]).tril()


def mask_of_blocks_that_fit(T, C):
    mask = torch.zeros(T, T, dtype=torch.bool)
    for start in range(0, T, C):
        mask[start : start + C, start : start + C] = torch.ones(C, C, dtype=torch.bool).tril()
    return mask


def mask_with_and(T, C):
    p = torch.arange(T)
    return (p // C)[:, None] == p // C and p <= p[:, None]


def mask_without_parentheses(T, C):
    p = torch.arange(T)
    return (p // C)[:, None] == p // C & p <= p[:, None]


def mask_forgets_the_first(T, C):
    mask = mask_by_loops(T, C)
    mask[C - 1 :, 0] = False
    return mask


# The fold --------------------------------------------------------------------------------------------------------


def fold_by_chunks(x, C):
    missing = math.ceil(x.shape[2] / C) * C - x.shape[2]
    filled = torch.cat([x, x.new_zeros(*x.shape[:2], missing, x.shape[3])], dim=2)
    return torch.stack(filled.split(C, dim=2), dim=2)


def fold_by_loops(x, C):
    B, H, T, width = x.shape
    folded = x.new_zeros(B, H, -(-T // C), C, width)
    for t in range(T):
        folded[:, :, t // C, t % C] = x[:, :, t]
    return folded


def fold_by_index(x, C):
    n = (x.shape[2] + C - 1) // C
    place = torch.arange(n * C)
    return (x[:, :, place.clamp(max=x.shape[2] - 1)] * (place < x.shape[2])[:, None]).reshape(*x.shape[:2], n, C, -1)


def fold_by_product(x, C):
    n = math.ceil(x.shape[2] / C)
    select = torch.eye(n * C, dtype=x.dtype)[:, : x.shape[2]].reshape(n, C, -1)
    return torch.einsum("nct,bhtd->bhncd", select, x)


def fold_by_windows(x, C):
    filled = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[2] % C))
    return filled.unfold(2, C, C).transpose(-1, -2)


def fold_drops_the_tail(x, C):
    whole = x[:, :, : x.shape[2] - x.shape[2] % C]
    return whole.reshape(*x.shape[:2], x.shape[2] // C, C, x.shape[3])


def fold_padded_in_front(x, C):
    return fold_by_loops(x.flip(2), C).flip(2, 3)


def fold_one_too_many(x, C):
    n = x.shape[2] // C + 1
    folded = x.new_zeros(*x.shape[:2], n * C, x.shape[3])
    folded[:, :, : x.shape[2]] = x
    return folded.unflatten(2, (n, C))


def fold_dealt_out(x, C):
    filled = fold_by_loops(x, C).flatten(2, 3)
    n = filled.shape[2] // C
    return torch.stack([filled[:, :, first::n] for first in range(n)], dim=2)


def fold_into_c_chunks(x, C):
    filled = fold_by_loops(x, C).flatten(2, 3)
    return filled.reshape(*x.shape[:2], C, -1, x.shape[3])


def fold_axes_swapped(x, C):
    return fold_by_loops(x, C).permute(0, 1, 3, 2, 4)


def fold_chunks_first(x, C):
    return torch.stack(fold_by_loops(x, C).unbind(2), dim=1)


def fold_last_axes_swapped(x, C):
    return fold_by_loops(x, C).mT


def fold_into_heads(x, C):
    return fold_by_loops(x, C).reshape(x.shape[0], -1, C, x.shape[3])


def fold_not_cut(x, C):
    return fold_by_loops(x, C).flatten(2, 3)


def fold_repeats_the_last(x, C):
    n = math.ceil(x.shape[2] / C)
    return x[:, :, torch.arange(n * C).clamp(max=x.shape[2] - 1)].unflatten(2, (n, C))


def fold_filled_with_infinity(x, C):
    folded = fold_by_loops(x, C)
    last = x.shape[2] - (folded.shape[2] - 1) * C
    folded[:, :, -1, last:] = float("-inf")
    return folded


def fold_mixes_heads(x, C):
    filled = fold_by_loops(x, C).flatten(2, 3).transpose(1, 2).contiguous()
    return filled.view(x.shape[0], x.shape[1], -1, C, x.shape[3])


def fold_of_even_parts(x, C):
    parts = x.tensor_split(math.ceil(x.shape[2] / C), dim=2)
    return torch.stack([torch.nn.functional.pad(part, (0, 0, 0, C - part.shape[2])) for part in parts], dim=2)


def fold_filled_with_ones(x, C):
    return torch.nn.functional.pad(x, (0, 0, 0, -x.shape[2] % C), value=1000.0).unflatten(2, (-1, C))


def fold_backwards(x, C):
    return fold_by_loops(x, C).flip(2)


def fold_for_whole_chunks(x, C):
    return x.unflatten(2, (-1, C))


def fold_pads_columns(x, C):
    return torch.nn.functional.pad(x, (0, -x.shape[2] % C)).unflatten(2, (-1, C))


def fold_reshapes_only(x, C):
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] // C, C, x.shape[3])


def fold_forgets_to_keep_the_padding(x, C):
    torch.cat([x, x.new_zeros(x.shape[0], x.shape[1], -x.shape[2] % C, x.shape[3])], dim=2)
    return torch.stack([x[:, :, start : start + C] for start in range(0, x.shape[2], C)], dim=2)


def fold_adds_the_remainder(x, C):
    rest = x.shape[2] - x.shape[2] // C * C
    return torch.stack(torch.cat([x, 0 * x[:, :, :rest]], dim=2).split(C, dim=2), dim=2)


def fold_takes_heads_for_tokens(x, C):
    missing = math.ceil(x.shape[1] / C) * C - x.shape[1]
    return torch.cat([x, x.new_zeros(*x.shape[:2], missing, x.shape[3])], dim=2).unflatten(2, (-1, C))


def fold_cuts_the_features(x, C):
    return torch.nn.functional.pad(x, (0, 0, 0, -x.shape[2] % C)).unflatten(3, (-1, C))


def fold_detached(x, C):
    return fold_by_loops(x.detach(), C)


# Back again ------------------------------------------------------------------------------------------------------


def unfold_by_reshape(folded, T):
    B, H, n, C, width = folded.shape
    return folded.reshape(B, H, n * C, width).narrow(2, 0, T)


def unfold_by_loops(folded, T):
    return torch.stack([folded[:, :, t // folded.shape[3], t % folded.shape[3]] for t in range(T)], dim=2)


def unfold_by_cat(folded, T):
    return torch.cat(folded.unbind(2), dim=2)[:, :, :T]


def unfold_by_index(folded, T):
    t = torch.arange(T)
    return folded[:, :, t // folded.shape[3], t % folded.shape[3]]


def unfold_by_product(folded, T):
    n, C = folded.shape[2:4]
    return torch.einsum("tnc,bhncd->bhtd", torch.eye(n * C, dtype=folded.dtype)[:T].unflatten(1, (n, C)), folded)


def unfold_untrimmed(folded, T):
    return torch.cat(folded.unbind(2), dim=2)


def unfold_from_the_end(folded, T):
    joined = torch.cat(folded.unbind(2), dim=2)
    return joined.narrow(2, joined.shape[2] - T, T)


def unfold_end_of_the_last(folded, T):
    *whole, last = folded.unbind(2)
    return torch.cat([*whole, last.flip(2)[:, :, : T - len(whole) * folded.shape[3]].flip(2)], dim=2)


def unfold_whole_only(folded, T):
    n = T // folded.shape[3]
    return folded[:, :, :n].reshape(*folded.shape[:2], -1, folded.shape[4])


def unfold_swapped(folded, T):
    return torch.cat(folded.unbind(3), dim=2)[:, :, :T]


def unfold_into_heads(folded, T):
    return torch.cat(folded.unbind(1), dim=1)


def unfold_into_heads_and_cut(folded, T):
    return torch.cat(folded.unbind(1), dim=1).narrow(2, 0, min(T, folded.shape[3]))


def unfold_into_t_rows(folded, T):
    return folded.contiguous().view(*folded.shape[:2], T, folded.shape[4])


def unfold_drops_the_missing(folded, T):
    missing = folded.shape[2] * folded.shape[3] - T
    return torch.cat(folded.unbind(2), dim=2)[:, :, :-missing]


def unfold_one_short(folded, T):
    return torch.cat(folded.unbind(2), dim=2).narrow(2, 0, T - 1)


def unfold_cuts_the_batch(folded, T):
    return folded.reshape(*folded.shape[:2], -1, folded.shape[4])[:T]


def unfold_cuts_the_features(folded, T):
    joined = folded.reshape(*folded.shape[:2], -1, folded.shape[4])
    return joined.narrow(-1, 0, min(T, joined.shape[-1]))


def unfold_into_width(folded, T):
    return torch.cat(folded.unbind(3), dim=3)


def unfold_mixes_heads(folded, T):
    B, H, n, C, width = folded.shape
    return folded.contiguous().view(B, n * C, H, width).permute(0, 2, 1, 3)[:, :, :T]


def unfold_tokens_first(folded, T):
    return torch.stack(unfold_by_cat(folded, T).unbind(1), dim=2)


def unfold_merges_heads(folded, T):
    return torch.cat(unfold_by_cat(folded, T).unbind(1), dim=2)


def unfold_backwards(folded, T):
    return unfold_by_cat(folded[:, :, :, torch.arange(folded.shape[3] - 1, -1, -1)], T)


def unfold_chunks_backwards(folded, T):
    return unfold_by_cat(folded.flip(2), T)


def unfold_squared(folded, T):
    return unfold_by_cat(folded, T) ** 2


def unfold_as_numbers(folded, T):
    return torch.tensor(unfold_by_cat(folded, T).tolist(), dtype=folded.dtype)


# The pairs -------------------------------------------------------------------------------------------------------


def pairs_by_sum(T, C):
    return sum(t % C + 1 for t in range(T))


def pairs_by_mask(T, C):
    return mask_by_loops(T, C).sum()


def pairs_by_formula(T, C):
    n, r = T // C, T % C
    return (n * C * (C + 1) + r * (r + 1)) / 2


def pairs_by_comb(T, C):
    return T // C * math.comb(C + 1, 2) + math.comb(T % C + 1, 2)


def pairs_all(T, C):
    return T**2


def pairs_causal(T, C):
    return math.comb(T + 1, 2)


def pairs_full_window(T, C):
    return sum(C for _ in range(T))


def pairs_mean(T, C):
    return T * (1 + C) * 0.5


def pairs_mean_rounded(T, C):
    return int(T * (1 + C) / 2)


def pairs_without_tail(T, C):
    return pairs_by_sum(T - T % C, C)


def pairs_filled(T, C):
    return pairs_by_sum(T + -T % C, C)


def pairs_computed(T, C):
    return (T + -T % C) * C


def pairs_both_ways(T, C):
    return int(mask_without_order(T, C).sum())


def pairs_strict(T, C):
    return sum(t % C for t in range(T))


def pairs_half_squares(T, C):
    return 0.5 * (T // C * C**2 + (T % C) ** 2)


def pairs_sliding(T, C):
    return int(mask_sliding(T, C).sum())


def pairs_hidden(T, C):
    return T**2 - pairs_by_sum(T, C)


def pairs_saved(T, C):
    return math.comb(T + 1, 2) - pairs_by_sum(T, C)


def pairs_of_one_chunk(T, C):
    return pairs_by_sum(min(T, C), C)


def pairs_of_rest_in_every_chunk(T, C):
    return int((T // C) * (C * C + C + (T % C) ** 2 + T % C) / 2)


def pairs_divmod_swapped(T, C):
    rest, whole = T // C, T % C
    return whole * math.comb(C + 1, 2) + math.comb(rest + 1, 2)


def pairs_of_the_rest_as_tokens(T, C):
    return pairs_without_tail(T, C) + T % C


def pairs_of_the_rest_with_every_other(T, C):
    return pairs_without_tail(T, C) + (T % C) ** 2


def pairs_of_the_rest_in_whole_rows(T, C):
    return pairs_without_tail(T, C) + C * (T % C)


def pairs_of_each_token(T, C):
    return torch.tensor([t % C + 1 for t in range(T)])


def pairs_doubled(T, C):
    return 2 * pairs_by_sum(T, C)


def pairs_too_few(T, C):
    return -(-T // C)


def pairs_too_many(T, C):
    return T**3 + 5


def pairs_fraction(T, C):
    return pairs_by_sum(T, C) + 0.25


def pairs_as_text(T, C):
    return f"{pairs_by_sum(T, C)}"


RIGHT = [
    (MASK, mask_by_loops),
    (MASK, mask_by_blocks),
    (MASK, mask_by_pieces),
    (MASK, mask_by_starts),
    (MASK, mask_by_bucketize),
    (MASK, chunks.chunk_mask),
    (FOLD, fold_by_chunks),
    (FOLD, fold_by_loops),
    (FOLD, fold_by_index),
    (FOLD, fold_by_product),
    (FOLD, fold_by_windows),
    (FOLD, chunks.fold),
    (UNFOLD, unfold_by_reshape),
    (UNFOLD, unfold_by_loops),
    (UNFOLD, unfold_by_cat),
    (UNFOLD, unfold_by_index),
    (UNFOLD, unfold_by_product),
    (UNFOLD, chunks.unfold),
    (PAIRS, pairs_by_sum),
    (PAIRS, pairs_by_mask),
    (PAIRS, pairs_by_formula),
    (PAIRS, pairs_by_comb),
    (PAIRS, chunks.pairs),
]

# In each group, those that no known mistake covers come last: laws and symptoms must tell.
WRONG = [
    (MASK, mask_inverted, "Your mask is inverted"),
    (MASK, mask_without_order, "knows the chunks but no order"),
    (MASK, mask_causal, "Your mask is the causal one"),
    (MASK, mask_either, "as if one of the two conditions were enough"),
    (MASK, mask_hides_itself, "A token does not see itself"),
    (MASK, mask_upside_down, "Your mask is transposed"),
    (MASK, mask_sliding, "Your window slides"),
    (MASK, mask_by_remainder, "You used the remainder"),
    (MASK, mask_from_one, "Your borders are one token early"),
    (MASK, mask_rounded_up, "You rounded up"),
    (MASK, mask_short_first, "counted the chunks from the end"),
    (MASK, mask_tail_blind, "after the last whole chunk see nothing"),
    (MASK, mask_overlapping, "also sees the chunk before its own"),
    (MASK, mask_untrimmed, "Cut it to T × T"),
    (MASK, mask_added, "what is added to the scores"),
    (MASK, mask_by_fractions, "You divided without rounding down"),
    (MASK, mask_of_blocks_that_fit, "Your mask is right where C divides T"),
    (MASK, mask_with_and, "In words: if, and, or, not need one true or false"),
    (MASK, mask_without_parentheses, "each comparison in parentheses"),
    (MASK, mask_of_numbers, "it must be torch.bool"),
    (MASK, mask_of_threes, "but it is in another chunk: i // C is 1 and j // C is 0"),
    (MASK, mask_one_ahead, "Your mask lets token 0 see token 1, but it comes later."),
    (MASK, mask_forgets_the_first, "and your mask hides it: j ≤ i, i // C is 0 and j // C is 0"),
    (FOLD, fold_drops_the_tail, "The tokens after the last whole chunk are gone"),
    (FOLD, fold_padded_in_front, "You filled up at the front"),
    (FOLD, fold_one_too_many, "a chunk of nothing but zeros"),
    (FOLD, fold_dealt_out, "dealt the tokens out like cards"),
    (FOLD, fold_into_c_chunks, "cut into C chunks of n tokens"),
    (FOLD, fold_axes_swapped, "the two axes have changed places"),
    (FOLD, fold_chunks_first, "the chunk axis stands before the heads"),
    (FOLD, fold_last_axes_swapped, "the last two axes have changed places"),
    (FOLD, fold_into_heads, "joined with the heads: (B, H·n, C, d_h)"),
    (FOLD, fold_not_cut, "filled up but not cut"),
    (FOLD, fold_repeats_the_last, "copies of the last token"),
    (FOLD, fold_filled_with_infinity, "You filled up with −inf"),
    (FOLD, fold_mixes_heads, "the view mixed heads with tokens"),
    (FOLD, fold_of_even_parts, "parts of equal length"),
    (FOLD, fold_filled_with_ones, "is 1000, which is no number of x; it must be 0, to fill up the last chunk"),
    (FOLD, fold_backwards, "result[0, 0, 0, 0, 0] is x[0, 0, 3, 0]; it must be x[0, 0, 0, 0]"),
    (FOLD, fold_for_whole_chunks, "Your function works where C divides T"),
    (FOLD, fold_pads_columns, "The last two numbers count rows, the first two columns"),
    (FOLD, fold_reshapes_only, "Your function works where C divides T"),
    (FOLD, fold_forgets_to_keep_the_padding, "add −T % C rows of zeros behind the last token first"),
    (FOLD, fold_adds_the_remainder, "as many zeros as tokens are left over"),
    (FOLD, fold_takes_heads_for_tokens, "You filled up by the number of heads"),
    (FOLD, fold_cuts_the_features, "In words: axis 3 has 2 entries here, and these do not divide into (-1, 3)."),
    (FOLD, fold_cuts_the_features, "In your line: return torch.nn.functional.pad"),
    (FOLD, fold_detached, "no gradient reaches the inputs"),
    (UNFOLD, unfold_untrimmed, "What filled up the last chunk is still there"),
    (UNFOLD, unfold_from_the_end, "You cut at the front"),
    (UNFOLD, unfold_end_of_the_last, "Of the last chunk you kept its end"),
    (UNFOLD, unfold_whole_only, "The tokens after the last whole chunk are gone"),
    (UNFOLD, unfold_swapped, "You swapped chunks and positions"),
    (UNFOLD, unfold_into_heads, "You joined the chunks with the heads"),
    (UNFOLD, unfold_into_heads_and_cut, "You joined the chunks with the heads"),
    (UNFOLD, unfold_into_t_rows, "Your function works where C divides T"),
    (UNFOLD, unfold_drops_the_missing, "a slice [:-0] is empty"),
    (UNFOLD, unfold_one_short, "The last token is gone"),
    (UNFOLD, unfold_cuts_the_batch, "You cut the batch instead of the tokens"),
    (UNFOLD, unfold_cuts_the_features, "You cut the features instead of the tokens"),
    (UNFOLD, unfold_into_width, "You joined the positions with the features"),
    (UNFOLD, unfold_mixes_heads, "A view has mixed heads with tokens"),
    (UNFOLD, unfold_tokens_first, "The tokens stand before the heads"),
    (UNFOLD, unfold_merges_heads, "You merged the heads as well"),
    (UNFOLD, unfold_backwards, "run backwards inside each chunk"),
    (UNFOLD, unfold_chunks_backwards, "result[0, 0, 0, 0] is folded[0, 0, 1, 0, 0]; it must be folded[0, 0, 0, 0, 0]"),
    (UNFOLD, unfold_squared, "which is no number of folded; it must be folded[0, 0, 0, 0, 1]"),
    (UNFOLD, unfold_as_numbers, "no gradient reaches the inputs"),
    (PAIRS, pairs_all, "as without a mask"),
    (PAIRS, pairs_causal, "You counted the pairs of full attention"),
    (PAIRS, pairs_full_window, "You counted C for each token"),
    (PAIRS, pairs_mean, "T(C + 1)/2 is right where C divides T"),
    (PAIRS, pairs_mean_rounded, "T(C + 1)/2, rounded, is right where C divides T"),
    (PAIRS, pairs_without_tail, "The last, shorter chunk is missing"),
    (PAIRS, pairs_filled, "You counted the last chunk as a whole one"),
    (PAIRS, pairs_computed, "You counted what is computed after folding"),
    (PAIRS, pairs_both_ways, "You counted every pair inside a chunk"),
    (PAIRS, pairs_strict, "Your tokens do not see themselves"),
    (PAIRS, pairs_half_squares, "You took half of C²"),
    (PAIRS, pairs_sliding, "You counted a window that slides"),
    (PAIRS, pairs_hidden, "You counted the hidden pairs of the T²"),
    (PAIRS, pairs_saved, "the pairs that the chunks hide from full attention"),
    (PAIRS, pairs_of_one_chunk, "You counted one chunk"),
    (PAIRS, pairs_of_rest_in_every_chunk, "once for each whole chunk"),
    (PAIRS, pairs_divmod_swapped, "divmod(T, C) gives the whole chunks first"),
    (PAIRS, pairs_of_the_rest_as_tokens, "and 3 left over with 6. That makes 26; yours are 23."),
    (PAIRS, pairs_of_the_rest_with_every_other, "and 3 left over with 6. That makes 26; yours are 29."),
    (PAIRS, pairs_of_the_rest_in_whole_rows, "and 1 left over with 1. That makes 13; yours are 15."),
    (PAIRS, pairs_of_each_token, "returned a tensor of shape (7,); it must return one number"),
    (PAIRS, pairs_doubled, "Your result is 2 times the right one"),
    (PAIRS, pairs_too_few, "Each of the T = 7 tokens sees itself, so there are at least 7 pairs; yours are 3."),
    (PAIRS, pairs_too_many, "Full attention leaves T(T + 1)/2 = 28 pairs, chunks no more; yours are 348."),
    (PAIRS, pairs_fraction, "A number of pairs is whole; yours is 13.25 for T = 7, C = 3."),
    (PAIRS, pairs_as_text, "returned a str; it must return a number"),
]


@pytest.mark.parametrize(("exercise", "answer"), RIGHT, ids=named)
def test_right_answers_pass(exercise, answer, capsys):
    assert_passes(exercise, answer, capsys)


@pytest.mark.parametrize(("exercise", "answer", "words"), WRONG, ids=named)
def test_wrong_answers_are_diagnosed(exercise, answer, words, capsys):
    assert_diagnosed(exercise, answer, words, capsys)


def lengths(name: str) -> set[str]:
    """Which kinds of length the inputs of an exercise have."""
    kinds = set()
    for case in EXERCISES[name].cases():
        C = case.sizes["C"]
        T = case.inputs[0].shape[2] if name == FOLD else case.sizes["T"]
        kinds |= {"one chunk"} if T == C else set()
        kinds |= {"shorter than a chunk"} if T < C else set()
        kinds |= {"whole chunks"} if T > C > 1 and T % C == 0 else set()
        kinds |= {"ragged"} if T > C and T % C else set()
        kinds |= {"chunks of one"} if T > C == 1 else set()
    return kinds


@pytest.mark.parametrize("name", [MASK, FOLD, UNFOLD, PAIRS])
def test_the_inputs_cover_every_kind_of_length(name):
    wanted = {"shorter than a chunk", "whole chunks", "ragged", "chunks of one"}
    assert wanted - {"whole chunks"} <= lengths(name) and lengths(name) & {"whole chunks", "one chunk"}
    if name in (MASK, PAIRS):
        assert lengths(name) == wanted | {"one chunk"}


@pytest.mark.parametrize("C", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("T", range(1, 13))
def test_the_references_are_what_the_package_does(T, C):
    torch.manual_seed(T)
    q, k, v = torch.randn(3, 2, 3, T, 4, dtype=torch.float64)
    visible = chunked_weights(q, k, C)[0, 0] > 0
    assert torch.equal(EXERCISES[MASK].reference(T, C).bool(), visible)
    assert EXERCISES[PAIRS].reference(T, C) == visible.sum()
    folded = [EXERCISES[FOLD].reference(x, C) for x in (q, k, v)]
    attended = full_attention(*(x.flatten(0, 2)[:, None] for x in folded)).reshape(folded[0].shape)
    assert torch.allclose(EXERCISES[UNFOLD].reference(attended, T), chunked_attention(q, k, v, C), atol=1e-12)
