"""The second half of the fused backward: the gradients of keys and values, of the segment and of the bank.

A program owns a tile of keys and reads the queries that see it. Of the first half's work it needs a few numbers a row.
Every product is computed transposed, keys by queries, so that no tile of scores is turned over.

One pass over keys and one over queries compute the scores twice, where a single pass would add up the gradients of the
queries from many programs at once. Two passes write each gradient once, need no buffer of float32 and no atomic sums,
and give the same bits at every run.
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
    load_row,
    load_tile,
    rotate,
    row_weights,
    store_tile,
)


@triton.jit
def add_to_keys(
    d_k, d_v, k, v, key, source, low, high, tables, n_queries, n_keys, chunk_size, scale, cos, sin,
    BOTH: tl.constexpr, PLACE: tl.constexpr, VISIBLE: tl.constexpr, ROPE: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):
    """Add the gradients that reach a tile of keys and values from the queries in the rows ``low .. high``.

    ``PLACE`` is that of the path whose shares they are, and what is added lacks its λ, which is one number: the caller
    multiplies once. Not so where the paths are ``BOTH`` full and chunk and the shares the chunk's. Then each row has a
    gain and a pull of its own, with the λ of both in them, and with ``CAUSAL`` a key may besides be in one query's
    chunk and before another's, where the shares are the full path's.
    """
    q, q_strides, d_out, d_out_strides = source
    log_sums, means, weights = tables
    OF_TWO: tl.constexpr = BOTH and PLACE == 1
    end_of_chunk = (key // chunk_size + 1) * chunk_size
    if OF_TWO:
        full, chunk = tl.load(weights), tl.load(weights + 1)
    for start in tl.range(low, high, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        query = n_keys - n_queries + rows
        q_tile = load_tile(q, q_strides, rows, n_queries, D, BLOCK_D, LIMITED)
        d_out_tile = load_tile(d_out, d_out_strides, rows, n_queries, D, BLOCK_D, LIMITED)
        if ROPE:
            q_tile = rotate(q_tile, cos, sin, query, n_keys, 1.0, D, BLOCK_D, BLOCK_M)
        log_sum, mean = load_row(log_sums, PLACE, rows, n_queries), load_row(means, PLACE, rows, n_queries)
        if OF_TWO:
            log_full, mean_full = load_row(log_sums, 0, rows, n_queries), load_row(means, 0, rows, n_queries)
        powers = tl.dot(k, tl.trans(q_tile), input_precision="tf32x3") * scale
        # With the end of the key's chunk, and not with where the query's begins: this is divided once, before the loop.
        inside = query[None, :] < end_of_chunk[:, None]
        if VISIBLE == CAUSAL:
            powers -= tl.where(inside, log_sum[None, :], log_full[None, :])
        else:
            powers -= log_sum[None, :]
        if VISIBLE == INSIDE:
            powers = tl.where(inside & (key[:, None] <= query[None, :]), powers, float("-inf"))
        elif VISIBLE == CAUSAL:
            powers = tl.where(key[:, None] <= query[None, :], powers, float("-inf"))
        shares = tl.exp2(powers)
        if OF_TWO:
            part = full * tl.exp2(log_sum - log_full)
            gain, pull = (chunk + part)[None, :], (chunk * mean + part * mean_full)[None, :]
            if VISIBLE == CAUSAL:
                gain = tl.where(inside, gain, full)
                pull = tl.where(inside, pull, (full * mean_full)[None, :])
            weighted = shares * gain
        else:
            pull = mean[None, :]
            weighted = shares
        d_v = tl.dot(weighted.to(d_out_tile.dtype), d_out_tile, d_v, input_precision="tf32x3")
        d_shares = tl.dot(v, tl.trans(d_out_tile), input_precision="tf32x3")
        if OF_TWO:
            d_shares *= gain
        d_scores = shares * (d_shares - pull)
        d_k = tl.dot(d_scores.to(q_tile.dtype), q_tile, d_k, input_precision="tf32x3")
    return d_k, d_v


@triton.jit
def row_ranges(first_key, last_key, n_queries, n_keys, chunk_size, BLOCK_M: tl.constexpr):
    """Where the rows that see the keys ``first_key .. last_key`` change their kind, as four rows.

    Returns:
        first: below it no row sees any of the keys.
        all_seen: from it on every row sees all of them.
        inside: from ``all_seen`` to it all the keys are in the chunk of every row. Empty where they are of two chunks.
        outside: from it on all the keys are before the chunk of every row.
    """
    offset = n_keys - n_queries
    chunk = last_key // chunk_size
    end = tl.minimum(tl.maximum((chunk + 1) * chunk_size - offset, 0), n_queries)
    first = tl.maximum(first_key - offset, 0) // BLOCK_M * BLOCK_M
    all_seen = tl.minimum(tl.cdiv(tl.maximum(last_key - offset, 0), BLOCK_M) * BLOCK_M, n_queries)
    # The tile of rows that has the last query may be cut short: what does not exist is of no chunk.
    whole = tl.where(end == n_queries, n_queries, end // BLOCK_M * BLOCK_M)
    inside = tl.where(first_key // chunk_size == chunk, tl.maximum(all_seen, whole), all_seen)
    outside = tl.maximum(inside, tl.minimum(tl.cdiv(end, BLOCK_M) * BLOCK_M, n_queries))
    return first, all_seen, inside, outside


@triton.jit
def through_the_segment(
    d_k, d_v, k, v, key, source, ranges, tables, n_queries, n_keys, chunk_size, scale, cos, sin,
    FULL: tl.constexpr, CHUNK: tl.constexpr, ROPE: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):
    """Add what reaches a tile of the segment's keys and values."""
    BOTH: tl.constexpr = FULL and CHUNK
    SOME: tl.constexpr = CAUSAL if BOTH else INSIDE
    first, all_seen, inside, outside = ranges
    weight = tl.load(tables[2])  # of the full path, where there are both
    if BOTH:
        d_k, d_v = add_to_keys(
            d_k, d_v, k, v, key, source, outside, n_queries, tables, n_queries, n_keys, chunk_size, scale, cos, sin,
            BOTH, 0, ALL, ROPE, D, BLOCK_D, BLOCK_M,
        )
        d_k, d_v = d_k * weight, d_v * weight
    d_k, d_v = add_to_keys(
        d_k, d_v, k, v, key, source, first, all_seen, tables, n_queries, n_keys, chunk_size, scale, cos, sin,
        BOTH, BOTH, SOME, ROPE, D, BLOCK_D, BLOCK_M,
    )
    d_k, d_v = add_to_keys(
        d_k, d_v, k, v, key, source, all_seen, inside, tables, n_queries, n_keys, chunk_size, scale, cos, sin,
        BOTH, BOTH, ALL, ROPE, D, BLOCK_D, BLOCK_M,
    )
    d_k, d_v = add_to_keys(
        d_k, d_v, k, v, key, source, inside, outside, tables, n_queries, n_keys, chunk_size, scale, cos, sin,
        BOTH, BOTH, SOME, ROPE, D, BLOCK_D, BLOCK_M,
    )
    if not BOTH:
        d_k, d_v = d_k * weight, d_v * weight
    return d_k, d_v


@triton.jit(do_not_specialize=VARYING)
def dkv_kernel(
    q, k, v, q_mem, k_mem, v_mem, weights, cos, sin, d_out, log_sums, means, d_k, d_v, d_k_mem, d_v_mem,
    q_strides, k_strides, v_strides, q_mem_strides, k_mem_strides, v_mem_strides, d_out_strides,
    d_k_strides, d_v_strides, d_k_mem_strides, d_v_mem_strides,
    weights_stride, n_heads, n_queries, n_keys, n_slots, chunk_size, query_class, key_class, head_class, scale, d_scale,
    FULL: tl.constexpr, CHUNK: tl.constexpr, MEMORY: tl.constexpr, ROPE: tl.constexpr, SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):
    """Grid: the tiles of the bank, then those of the segment, by ``B H``. The first have the most queries."""
    tile = tl.program_id(0)
    d_out_head = head_of(d_out, d_out_strides, n_heads)
    tables = (log_sums, means, row_weights(weights, weights_stride, n_heads))
    d_k_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    d_v_tile = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    n_bank_tiles = tl.cdiv(n_slots, BLOCK_N)
    if tile < n_bank_tiles:
        if MEMORY:
            slot = tile * BLOCK_N + tl.arange(0, BLOCK_N)
            k_head, v_head = head_of(k_mem, k_mem_strides, n_heads), head_of(v_mem, v_mem_strides, n_heads)
            k_tile = load_tile(k_head, k_mem_strides, slot, n_slots, D, BLOCK_D, LIMITED)
            v_tile = load_tile(v_head, v_mem_strides, slot, n_slots, D, BLOCK_D, LIMITED)
            if SHARED:
                queries = (head_of(q, q_strides, n_heads), q_strides, d_out_head, d_out_strides)
            else:
                queries = (head_of(q_mem, q_mem_strides, n_heads), q_mem_strides, d_out_head, d_out_strides)
            d_k_tile, d_v_tile = add_to_keys(
                d_k_tile, d_v_tile, k_tile, v_tile, slot, queries, 0, n_queries, tables,
                n_queries, n_keys, chunk_size, scale, None, None,
                False, FULL + CHUNK, ALL, False, D, BLOCK_D, BLOCK_M,
            )
            d_k_head, d_v_head = head_of(d_k_mem, d_k_mem_strides, n_heads), head_of(d_v_mem, d_v_mem_strides, n_heads)
            weight = tl.load(tables[2] + FULL + CHUNK)
            store_tile(d_k_head, d_k_mem_strides, slot, n_slots, d_k_tile * weight * d_scale, D, BLOCK_D)
            store_tile(d_v_head, d_v_mem_strides, slot, n_slots, d_v_tile * weight, D, BLOCK_D)
            # Keeps the compiler from joining the ends of the two branches: their products would wait for each other.
            tl.debug_barrier()
    elif FULL or CHUNK:
        first_key = (tile - n_bank_tiles) * BLOCK_N
        key = first_key + tl.arange(0, BLOCK_N)
        k_head, v_head = head_of(k, k_strides, n_heads), head_of(v, v_strides, n_heads)
        k_tile = load_tile(k_head, k_strides, key, n_keys, D, BLOCK_D, LIMITED)
        v_tile = load_tile(v_head, v_strides, key, n_keys, D, BLOCK_D, LIMITED)
        if ROPE:
            k_tile = rotate(k_tile, cos, sin, key, n_keys, 1.0, D, BLOCK_D, BLOCK_N)
        last_key = tl.minimum(first_key + BLOCK_N, n_keys) - 1
        d_k_tile, d_v_tile = through_the_segment(
            d_k_tile, d_v_tile, k_tile, v_tile, key,
            (head_of(q, q_strides, n_heads), q_strides, d_out_head, d_out_strides),
            row_ranges(first_key, last_key, n_queries, n_keys, chunk_size, BLOCK_M),
            tables, n_queries, n_keys, chunk_size, scale, cos, sin, FULL, CHUNK, ROPE, D, BLOCK_D, BLOCK_M,
        )
        if ROPE:
            d_k_tile = rotate(d_k_tile, cos, sin, key, n_keys, -1.0, D, BLOCK_D, BLOCK_N)
        d_k_head, d_v_head = head_of(d_k, d_k_strides, n_heads), head_of(d_v, d_v_strides, n_heads)
        store_tile(d_k_head, d_k_strides, key, n_keys, d_k_tile * d_scale, D, BLOCK_D)
        store_tile(d_v_head, d_v_strides, key, n_keys, d_v_tile, D, BLOCK_D)
