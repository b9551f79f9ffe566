"""What the Triton kernels share: how tiles are loaded, turned and stored, and which keys a tile of queries sees.

Names in the kernels: ``D`` is the head width d_h and ``BLOCK_D`` the power of two that holds it, ``BLOCK_M`` the
queries and ``BLOCK_N`` the keys of a tile. The rows of the queries are ``0 .. L - 1``, their positions the last ``L``
of ``0 .. S - 1``, the positions of the keys. Paths have places, 0 to ``P - 1``, in the order of ``paths``.
The ``..._class`` arguments only tell sizes apart for the trial of tile sizes.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Which of a tile's keys a query sees. A tile that needs no mask is ALL; the others are compared key by key.
ALL = tl.constexpr(0)
LIMITED = tl.constexpr(1)  # keys that exist: the last tile of a bank
INSIDE = tl.constexpr(2)   # in the query's chunk and not later
OUTSIDE = tl.constexpr(3)  # before the query's chunk
CAUSAL = tl.constexpr(4)   # not later than the query, in its chunk or before

# Finite, so that the difference of two is a number: the running maximum of a row that has seen no key, and the
# log-sum-exp of a row that does not exist, whose shares are then zero.
LOWEST = tl.constexpr(-1e30)
HIGHEST = tl.constexpr(1e30)

# Arguments of the kernels whose value is not compiled in: pieces of a stream have many lengths, and a kernel for each
# number of heads would not be faster.
VARYING = ["weights_stride", "n_heads", "n_queries", "n_keys", "query_class", "key_class", "head_class"]

# A table of numbers, one for each row, has room for whole tiles of queries, whatever their size: it is a multiple of
# this, the largest. So a tile is read without a mask.
TABLE_ROWS = tl.constexpr(128)


@triton.jit
def head_of(pointer, strides, n_heads):
    """Where the head of this program begins in a tensor ``(B, H, rows, D)``; 64-bit, for a batch may be large."""
    index = tl.program_id(1).to(tl.int64)
    return pointer + index // n_heads * strides[0] + index % n_heads * strides[1]


@triton.jit
def row_weights(weights, stride, n_heads):
    """Where λ of this program's row begins, in ``(B, P)``, or in ``(P,)`` with a ``stride`` of 0."""
    return weights + tl.program_id(1) // n_heads * stride


@triton.jit
def tile_mask(rows, n_rows, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Which elements of a tile exist."""
    mask = rows[:, None] < n_rows
    if D != BLOCK_D:
        mask = mask & (tl.arange(0, BLOCK_D)[None, :] < D)
    return mask


@triton.jit
def load_tile(head, strides, rows, n_rows, D: tl.constexpr, BLOCK_D: tl.constexpr, VISIBLE: tl.constexpr):
    """Rows of one head, ``(len(rows), BLOCK_D)``; zeros where there are none. With ``ALL`` every row exists."""
    pointers = head + rows[:, None] * strides[2] + tl.arange(0, BLOCK_D)[None, :]
    if VISIBLE != ALL:
        return tl.load(pointers, mask=tile_mask(rows, n_rows, D, BLOCK_D), other=0.0)
    elif D != BLOCK_D:
        return tl.load(pointers, mask=tl.arange(0, BLOCK_D)[None, :] < D, other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def store_tile(head, strides, rows, n_rows, tile, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write those rows of a tile that exist, in the dtype of the tensor."""
    pointers = head + rows[:, None] * strides[2] + tl.arange(0, BLOCK_D)[None, :]
    tl.store(pointers, tile.to(head.dtype.element_ty), mask=tile_mask(rows, n_rows, D, BLOCK_D))


@triton.jit
def table_of(tables, path, n_queries):
    """Where the numbers of this program's head and of ``path`` begin in ``(P, B H, rows)``."""
    index = (path * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    return tables + index * (tl.cdiv(n_queries, TABLE_ROWS) * TABLE_ROWS)


@triton.jit
def load_row(tables, path, rows, n_queries):
    """One number for each row of a tile, float32; what the table was filled with for rows that do not exist."""
    return tl.load(table_of(tables, path, n_queries) + rows)


@triton.jit
def store_row(tables, path, values, rows, n_queries):
    """Write one number for each row that exists, float32."""
    tl.store(table_of(tables, path, n_queries) + rows, values, mask=rows < n_queries)


@triton.jit
def rotate(tile, cos, sin, positions, n_positions, sign, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr):
    """RoPE: turn pair ``(2i, 2i+1)`` of each row by the angle of its position; ``sign`` is 1, or -1 to turn back."""
    pairs = tl.arange(0, BLOCK_D // 2)
    mask = (positions[:, None] < n_positions) & (pairs[None, :] < D // 2)
    where = positions[:, None] * (D // 2) + pairs[None, :]
    c = tl.load(cos + where, mask=mask, other=1.0).to(tl.float32)
    s = tl.load(sin + where, mask=mask, other=0.0).to(tl.float32) * sign
    even, odd = tl.split(tl.reshape(tile.to(tl.float32), (ROWS, BLOCK_D // 2, 2)))
    turned = tl.reshape(tl.join(even * c - odd * s, even * s + odd * c), (ROWS, BLOCK_D))
    return turned.to(tile.dtype)


@triton.jit
def is_visible(query, start_of_chunk, key, n_keys, VISIBLE: tl.constexpr):
    """Which query sees which key; the first three are positions, and broadcast against each other."""
    if VISIBLE == LIMITED:
        return key < n_keys
    elif VISIBLE == INSIDE:
        return (key >= start_of_chunk) & (key <= query)
    elif VISIBLE == OUTSIDE:
        return key < start_of_chunk
    else:
        return key <= query


@triton.jit
def key_ranges(first, last, chunk_size, BLOCK_N: tl.constexpr):
    """Where the keys of the queries at positions ``first .. last`` change their kind, as three keys.

    Returns:
        before: below it every tile of keys is visible to all of them and in the chunk of none.
        whole: from ``before`` to it every tile is in the chunk of all of them and later than none. Empty where the
            queries are of several chunks, or where their chunk does not begin with a tile.
        start_of_last: where the last query's chunk begins; no key before a chunk is at it or after.
    """
    start_of_first = first // chunk_size * chunk_size
    start_of_last = last // chunk_size * chunk_size
    before = start_of_first // BLOCK_N * BLOCK_N
    aligned = (start_of_first == start_of_last) & (start_of_first == before)
    whole = tl.where(aligned, (first + 1) // BLOCK_N * BLOCK_N, before)
    return before, whole, start_of_last
