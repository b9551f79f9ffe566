"""The first half of the fused backward: the gradient of the queries, and what the second half needs of each row.

With ``P_p`` the softmax of path ``p``, ``dP = dO vᵀ`` and ``D_p`` the sum over the keys of ``P_p ∘ dP``, the gradient
of the scores is ``Σ_p λ_p P_p ∘ (dP − D_p)`` and that of λ_p is ``Σ_rows D_p``. Nothing is exponentiated twice: inside
the chunk ``P_full = ρ P_chunk``, where ``ρ = exp(lse_chunk − lse_full)`` is one number a row and at most 1. So a tile
costs what it costs a plain attention, ``P ∘ (gain dP − pull)`` with a gain and a pull for each row:

    inside the chunk    P = P_chunk    gain = λ_chunk + ρ λ_full    pull = λ_chunk D_chunk + ρ λ_full D_full
    before it           P = P_full     gain = λ_full                pull = λ_full D_full
    in the bank         P = P_memory   gain = λ_memory              pull = λ_memory D_memory

``D_p`` is needed before the first product, and no path's output was kept. ``Σ_p λ_p D_p = rowsum(dO ∘ O)`` gives one of
the three from the two others; those of the bank and of the chunk are summed by a first look at their keys, which are
few, and near when they are looked at again. Kept outputs would cost two tensors of the size of ``O``, written, read,
and held between forward and backward. The mean of the full path is summed along the way for the gradient of its λ,
which is then right for a λ of zero too.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import (
    ALL,
    CAUSAL,
    INSIDE,
    LIMITED,
    VARYING,
    head_of,
    is_visible,
    key_ranges,
    load_row,
    load_tile,
    rotate,
    row_weights,
    store_row,
    store_tile,
)


@triton.jit
def shares_of_keys(
    q, d_out, query, start_of_chunk, key, source, high, log_sum, scale, cos, sin,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, ROPE: tl.constexpr, VISIBLE: tl.constexpr,
):
    """``P`` and ``dP`` of a tile of queries by a tile of keys, and the keys; ``log_sum`` broadcasts over the tile."""
    k, k_strides, v, v_strides = source
    k_tile = load_tile(k, k_strides, key, high, D, BLOCK_D, VISIBLE)
    if ROPE:
        k_tile = rotate(k_tile, cos, sin, key, high, 1.0, D, BLOCK_D, BLOCK_N)
    v_tile = load_tile(v, v_strides, key, high, D, BLOCK_D, VISIBLE)
    powers = tl.dot(q, tl.trans(k_tile), input_precision="tf32x3") * scale - log_sum
    if VISIBLE != ALL:
        seen = is_visible(query[:, None], start_of_chunk[:, None], key[None, :], high, VISIBLE)
        powers = tl.where(seen, powers, float("-inf"))
    return tl.exp2(powers), tl.dot(d_out, tl.trans(v_tile), input_precision="tf32x3"), k_tile


@triton.jit
def add_mean(
    mean, q, d_out, query, start_of_chunk, source, low, high, log_sum, scale, cos, sin,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, ROPE: tl.constexpr, VISIBLE: tl.constexpr,
):
    """Add ``Σ P ∘ dP`` over the keys ``low .. high`` to ``mean``: the ``D_p`` of a path that has no other keys."""
    for start in tl.range(low, high, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        shares, d_shares, _ = shares_of_keys(
            q, d_out, query, start_of_chunk, key, source, high, log_sum[:, None], scale, cos, sin,
            D, BLOCK_D, BLOCK_N, ROPE, VISIBLE,
        )
        mean += tl.sum(shares * d_shares, 1)
    return mean


@triton.jit
def add_to_queries(
    d_q, mean, q, d_out, query, start_of_chunk, source, low, high, terms, scale, cos, sin,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, ROPE: tl.constexpr, VISIBLE: tl.constexpr,
):
    """Add the gradient that reaches a tile of queries through the keys ``low .. high``, all of one kind.

    ``terms`` are log-sum-exp, gain and pull of each row, and the part of these shares that is the full path's: so much
    of ``Σ P ∘ dP`` is added to ``mean``.
    """
    log_sum, gain, pull, part = terms
    for start in tl.range(low, high, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        shares, d_shares, k_tile = shares_of_keys(
            q, d_out, query, start_of_chunk, key, source, high, log_sum[:, None], scale, cos, sin,
            D, BLOCK_D, BLOCK_N, ROPE, VISIBLE,
        )
        mean += tl.sum(shares * d_shares, 1) * part
        d_scores = shares * (d_shares * gain[:, None] - pull[:, None])
        d_q = tl.dot(d_scores.to(k_tile.dtype), k_tile, d_q, input_precision="tf32x3")
    return d_q, mean


@triton.jit
def add_to_queries_of_both(
    d_q, mean, q, d_out, query, start_of_chunk, source, low, high, terms_inside, terms_before, scale, cos, sin,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, ROPE: tl.constexpr,
):
    """As ``add_to_queries``, over tiles where a key is in one query's chunk and before another's."""
    log_sum_in, gain_in, pull_in, part_in = terms_inside
    log_sum_out, gain_out, pull_out, part_out = terms_before
    for start in tl.range(low, high, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        inside = key[None, :] >= start_of_chunk[:, None]
        log_sum = tl.where(inside, log_sum_in[:, None], log_sum_out[:, None])
        shares, d_shares, k_tile = shares_of_keys(
            q, d_out, query, start_of_chunk, key, source, high, log_sum, scale, cos, sin,
            D, BLOCK_D, BLOCK_N, ROPE, CAUSAL,
        )
        product = shares * d_shares
        mean += tl.sum(product * tl.where(inside, part_in[:, None], part_out[:, None]), 1)
        gain = tl.where(inside, gain_in[:, None], gain_out[:, None])
        pull = tl.where(inside, pull_in[:, None], pull_out[:, None])
        d_q = tl.dot((shares * (d_shares * gain - pull)).to(k_tile.dtype), k_tile, d_q, input_precision="tf32x3")
    return d_q, mean


@triton.jit
def through_the_bank(
    d_q, q, d_out, query, source, n_slots, log_sums, means, weights, rows, n_queries, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, PLACE: tl.constexpr,
):
    """Add what reaches the queries through the bank, the path in place ``PLACE``; also its ``λ D``, a number a row."""
    log_sum = load_row(log_sums, PLACE, rows, n_queries)
    nothing = tl.zeros_like(log_sum)
    mean = add_mean(
        nothing, q, d_out, query, query, source, 0, n_slots, log_sum, scale, None, None,
        D, BLOCK_D, BLOCK_N, False, LIMITED,
    )
    store_row(means, PLACE, mean, rows, n_queries)
    gain = nothing + tl.load(weights + PLACE)
    pull = gain * mean
    d_q, _ = add_to_queries(
        d_q, mean, q, d_out, query, query, source, 0, n_slots, (log_sum, gain, pull, nothing), scale, None, None,
        D, BLOCK_D, BLOCK_N, False, LIMITED,
    )
    return d_q, pull


@triton.jit
def through_one_path(
    d_q, q, d_out, query, start_of_chunk, source, before, whole, high, pull,
    log_sums, means, weights, rows, n_queries, scale, cos, sin,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, ROPE: tl.constexpr,
):
    """Add what reaches the queries through the segment where only one of ``full`` and ``chunk`` runs."""
    log_sum = load_row(log_sums, 0, rows, n_queries)
    nothing = tl.zeros_like(log_sum)
    terms = (log_sum, nothing + tl.load(weights), pull, nothing + 1.0)
    d_q, mean = add_to_queries(
        d_q, nothing, q, d_out, query, start_of_chunk, source, before, whole, terms, scale, cos, sin,
        D, BLOCK_D, BLOCK_N, ROPE, ALL,
    )
    d_q, mean = add_to_queries(
        d_q, mean, q, d_out, query, start_of_chunk, source, whole, high, terms, scale, cos, sin,
        D, BLOCK_D, BLOCK_N, ROPE, INSIDE,
    )
    store_row(means, 0, mean, rows, n_queries)
    return d_q


@triton.jit
def through_both_paths(
    d_q, q, d_out, query, start_of_chunk, source, before, whole, high, pull,
    log_sums, means, weights, rows, n_queries, scale, cos, sin,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, ROPE: tl.constexpr,
):
    """Add what reaches the queries through the segment; ``pull`` is ``λ D`` of ``full`` and ``chunk`` together."""
    log_full = load_row(log_sums, 0, rows, n_queries)
    log_chunk = load_row(log_sums, 1, rows, n_queries)
    nothing = tl.zeros_like(log_full)
    mean = add_mean(
        nothing, q, d_out, query, start_of_chunk, source, before, whole, log_chunk, scale, cos, sin,
        D, BLOCK_D, BLOCK_N, ROPE, ALL,
    )
    mean = add_mean(
        mean, q, d_out, query, start_of_chunk, source, whole, high, log_chunk, scale, cos, sin,
        D, BLOCK_D, BLOCK_N, ROPE, INSIDE,
    )
    store_row(means, 1, mean, rows, n_queries)
    full, chunk = nothing + tl.load(weights), nothing + tl.load(weights + 1)
    part = tl.exp2(log_chunk - log_full)
    pull_full = pull - chunk * mean
    terms_before = (log_full, full, pull_full, nothing + 1.0)
    terms_inside = (log_chunk, chunk + part * full, chunk * mean + part * pull_full, part)
    d_q, mean = add_to_queries(
        d_q, nothing, q, d_out, query, start_of_chunk, source, 0, before, terms_before, scale, cos, sin,
        D, BLOCK_D, BLOCK_N, ROPE, ALL,
    )
    d_q, mean = add_to_queries(
        d_q, mean, q, d_out, query, start_of_chunk, source, before, whole, terms_inside, scale, cos, sin,
        D, BLOCK_D, BLOCK_N, ROPE, ALL,
    )
    d_q, mean = add_to_queries_of_both(
        d_q, mean, q, d_out, query, start_of_chunk, source, whole, high, terms_inside, terms_before, scale, cos, sin,
        D, BLOCK_D, BLOCK_N, ROPE,
    )
    store_row(means, 0, mean, rows, n_queries)
    return d_q


@triton.jit(do_not_specialize=VARYING)
def dq_kernel(
    q, k, v, q_mem, k_mem, v_mem, weights, cos, sin, out, d_out, log_sums, means, d_q, d_q_mem,
    q_strides, k_strides, v_strides, q_mem_strides, k_mem_strides, v_mem_strides, out_strides, d_out_strides,
    d_q_strides, d_q_mem_strides,
    weights_stride, n_heads, n_queries, n_keys, n_slots, chunk_size, query_class, key_class, head_class, scale, d_scale,
    FULL: tl.constexpr, CHUNK: tl.constexpr, MEMORY: tl.constexpr, ROPE: tl.constexpr, SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):
    first_row = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    offset = n_keys - n_queries
    first = offset + first_row
    last = tl.minimum(first + BLOCK_M, n_keys) - 1
    query = tl.minimum(offset + rows, last)
    start_of_chunk = query // chunk_size * chunk_size

    weights = row_weights(weights, weights_stride, n_heads)
    d_out_head = head_of(d_out, d_out_strides, n_heads)
    d_out_tile = load_tile(d_out_head, d_out_strides, rows, n_queries, D, BLOCK_D, LIMITED)
    d_q_tile = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    pull = tl.zeros((BLOCK_M,), tl.float32)
    if FULL or CHUNK or SHARED:
        q_tile = load_tile(head_of(q, q_strides, n_heads), q_strides, rows, n_queries, D, BLOCK_D, LIMITED)

    if MEMORY:
        if SHARED:
            q_mem_tile = q_tile
        else:
            q_mem_head = head_of(q_mem, q_mem_strides, n_heads)
            q_mem_tile = load_tile(q_mem_head, q_mem_strides, rows, n_queries, D, BLOCK_D, LIMITED)
        bank = (head_of(k_mem, k_mem_strides, n_heads), k_mem_strides,
                head_of(v_mem, v_mem_strides, n_heads), v_mem_strides)
        d_q_tile, pull = through_the_bank(
            d_q_tile, q_mem_tile, d_out_tile, query, bank, n_slots, log_sums, means, weights, rows, n_queries, scale,
            D, BLOCK_D, BLOCK_N, FULL + CHUNK,
        )
        if not SHARED:
            d_q_mem_head = head_of(d_q_mem, d_q_mem_strides, n_heads)
            store_tile(d_q_mem_head, d_q_mem_strides, rows, n_queries, d_q_tile * d_scale, D, BLOCK_D)
            d_q_tile = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)

    if FULL or CHUNK:
        out_head = head_of(out, out_strides, n_heads)
        out_tile = load_tile(out_head, out_strides, rows, n_queries, D, BLOCK_D, LIMITED)
        pull = tl.sum(d_out_tile.to(tl.float32) * out_tile.to(tl.float32), 1) - pull
        if ROPE:
            q_tile = rotate(q_tile, cos, sin, query, n_keys, 1.0, D, BLOCK_D, BLOCK_M)
            # What came from the bank is turned with the rest, and turned back with it.
            d_q_tile = rotate(d_q_tile, cos, sin, query, n_keys, 1.0, D, BLOCK_D, BLOCK_M)
        segment = (head_of(k, k_strides, n_heads), k_strides, head_of(v, v_strides, n_heads), v_strides)
        before, whole, _ = key_ranges(first, last, chunk_size, BLOCK_N)
        if FULL and CHUNK:
            d_q_tile = through_both_paths(
                d_q_tile, q_tile, d_out_tile, query, start_of_chunk, segment, before, whole, last + 1,
                pull, log_sums, means, weights, rows, n_queries, scale, cos, sin, D, BLOCK_D, BLOCK_N, ROPE,
            )
        else:
            d_q_tile = through_one_path(
                d_q_tile, q_tile, d_out_tile, query, start_of_chunk, segment, before, whole, last + 1,
                pull, log_sums, means, weights, rows, n_queries, scale, cos, sin, D, BLOCK_D, BLOCK_N, ROPE,
            )
        if ROPE:
            d_q_tile = rotate(d_q_tile, cos, sin, query, n_keys, -1.0, D, BLOCK_D, BLOCK_M)

    if FULL or CHUNK or SHARED:
        store_tile(head_of(d_q, d_q_strides, n_heads), d_q_strides, rows, n_queries, d_q_tile * d_scale, D, BLOCK_D)
