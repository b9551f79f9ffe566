"""The fused forward kernel: three attentions for the price of one.

A program owns a tile of queries. The bank comes first: its attention is normalised at once into the output. Then the
keys of the chunk: their softmax is ``chunk``, added with its λ. The same running softmax goes on over the keys before
the chunk, and is then ``full``. Where chunks begin with a tile of keys, every score of a tile of queries inside one
chunk is computed once, and the output is written once. Where a tile of queries spans several chunks, the keys from the
first of these to the last are in the chunk of some rows and before that of others, and where a chunk begins within a
tile of keys, so are the keys of that tile. These scores are computed for either kind: a tile of queries squared at
most, and a tile of keys.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .triton_tiles import (
    ALL,
    INSIDE,
    LIMITED,
    LOWEST,
    OUTSIDE,
    VARYING,
    head_of,
    is_visible,
    key_ranges,
    load_tile,
    rotate,
    row_weights,
    store_row,
    store_tile,
)


@triton.jit
def attend(
    acc, total, peak, q, query, start_of_chunk, source, low, high, scale, cos, sin,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, ROPE: tl.constexpr, VISIBLE: tl.constexpr,
):
    """Continue a running softmax over the keys ``low .. high``: ``acc`` is Σ exp v, ``total`` Σ exp, ``peak`` the most.

    Scores and ``peak`` are in powers of two: ``scale`` is ``log2(e) / √d_h``, and ``exp2`` is the cheaper instruction.
    """
    k, k_strides, v, v_strides = source
    for start in tl.range(low, high, BLOCK_N):
        key = start + tl.arange(0, BLOCK_N)
        k_tile = load_tile(k, k_strides, key, high, D, BLOCK_D, VISIBLE)
        if ROPE:
            k_tile = rotate(k_tile, cos, sin, key, high, 1.0, D, BLOCK_D, BLOCK_N)
        scores = tl.dot(q, tl.trans(k_tile), input_precision="tf32x3")
        if VISIBLE != ALL:
            seen = is_visible(query[:, None], start_of_chunk[:, None], key[None, :], high, VISIBLE)
            scores = tl.where(seen, scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1) * scale)
        exps = tl.exp2(scores * scale - new_peak[:, None])
        shrink = tl.exp2(peak - new_peak)
        total = total * shrink + tl.sum(exps, 1)
        v_tile = load_tile(v, v_strides, key, high, D, BLOCK_D, VISIBLE)
        acc = tl.dot(exps.to(v_tile.dtype), v_tile, acc * shrink[:, None], input_precision="tf32x3")
        peak = new_peak
    return acc, total, peak


@triton.jit
def add_path(mixed, acc, total, peak, weights, log_sums, rows, n_queries, PLACE: tl.constexpr):
    """Add the softmax that has run so far as the path in place ``PLACE``, and keep its log-sum-exp, base 2.

    A row that has seen nothing adds zeros.
    """
    total = tl.where(total == 0.0, 1.0, total)
    store_row(log_sums, PLACE, peak + tl.log2(total), rows, n_queries)
    return mixed + acc * (tl.load(weights + PLACE) / total)[:, None]


@triton.jit
def attend_bank(
    mixed, q, query, source, n_slots, weights, log_sums, rows, n_queries, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr, PLACE: tl.constexpr,
):
    """Add the path over the bank, in place ``PLACE``."""
    nothing = tl.zeros_like(query).to(tl.float32)
    acc, total, peak = attend(
        tl.zeros_like(mixed), nothing, nothing + LOWEST, q, query, query, source, 0, n_slots, scale, None, None,
        D, BLOCK_D, BLOCK_N, False, LIMITED,
    )
    return add_path(mixed, acc, total, peak, weights, log_sums, rows, n_queries, PLACE)


@triton.jit
def attend_segment(
    mixed, q, query, start_of_chunk, source, before, whole, start_of_last, high,
    weights, log_sums, rows, n_queries, scale, cos, sin,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_N: tl.constexpr,
    ROPE: tl.constexpr, FULL: tl.constexpr, CHUNK: tl.constexpr,
):
    """Add the paths over the segment: first the keys of the chunk, then those before it."""
    nothing = tl.zeros_like(query).to(tl.float32)
    acc, total, peak = attend(
        tl.zeros_like(mixed), nothing, nothing + LOWEST, q, query, start_of_chunk, source, before, whole,
        scale, cos, sin, D, BLOCK_D, BLOCK_N, ROPE, ALL,
    )
    acc, total, peak = attend(
        acc, total, peak, q, query, start_of_chunk, source, whole, high,
        scale, cos, sin, D, BLOCK_D, BLOCK_N, ROPE, INSIDE,
    )
    if CHUNK:
        mixed = add_path(mixed, acc, total, peak, weights, log_sums, rows, n_queries, FULL)
    if FULL and CHUNK:
        acc, total, peak = attend(
            acc, total, peak, q, query, start_of_chunk, source, 0, before,
            scale, cos, sin, D, BLOCK_D, BLOCK_N, ROPE, ALL,
        )
        acc, total, peak = attend(
            acc, total, peak, q, query, start_of_chunk, source, before, start_of_last,
            scale, cos, sin, D, BLOCK_D, BLOCK_N, ROPE, OUTSIDE,
        )
    if FULL:
        mixed = add_path(mixed, acc, total, peak, weights, log_sums, rows, n_queries, 0)
    return mixed


@triton.jit(do_not_specialize=VARYING)
def forward_kernel(
    q, k, v, q_mem, k_mem, v_mem, weights, cos, sin, out, log_sums,
    q_strides, k_strides, v_strides, q_mem_strides, k_mem_strides, v_mem_strides, out_strides,
    weights_stride, n_heads, n_queries, n_keys, n_slots, chunk_size, query_class, key_class, head_class, scale,
    FULL: tl.constexpr, CHUNK: tl.constexpr, MEMORY: tl.constexpr, ROPE: tl.constexpr, SHARED: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):
    # The last tiles have the most keys: they begin first, and the short ones fill the end.
    first_row = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    rows = first_row + tl.arange(0, BLOCK_M)
    offset = n_keys - n_queries
    first = offset + first_row
    last = tl.minimum(first + BLOCK_M, n_keys) - 1
    query = tl.minimum(offset + rows, last)  # rows after the last read what the last does, and write nothing

    weights = row_weights(weights, weights_stride, n_heads)
    mixed = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
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
        mixed = attend_bank(
            mixed, q_mem_tile, query, bank, n_slots, weights, log_sums, rows, n_queries, scale,
            D, BLOCK_D, BLOCK_N, FULL + CHUNK,
        )
    if FULL or CHUNK:
        if ROPE:
            q_tile = rotate(q_tile, cos, sin, query, n_keys, 1.0, D, BLOCK_D, BLOCK_M)
        segment = (head_of(k, k_strides, n_heads), k_strides, head_of(v, v_strides, n_heads), v_strides)
        before, whole, start_of_last = key_ranges(first, last, chunk_size, BLOCK_N)
        mixed = attend_segment(
            mixed, q_tile, query, query // chunk_size * chunk_size, segment, before, whole, start_of_last, last + 1,
            weights, log_sums, rows, n_queries, scale, cos, sin, D, BLOCK_D, BLOCK_N, ROPE, FULL, CHUNK,
        )
    store_tile(head_of(out, out_strides, n_heads), out_strides, rows, n_queries, mixed, D, BLOCK_D)
