"""How many operations the three attentions take, and how many bytes they move between memory and chip, each way.

    ======  ==============================================================================================
    eager   every operator of the reference reads its tensors from memory and writes its result there
    sdpa    three calls of a fused attention, the chunks folded into the batch; then the outputs are mixed
    flex    one launch for three heads over keys of segment and bank side by side; then they are mixed
    triton  one launch forward, two backward, as the package's kernels do it
    causal  the floor: one fused causal attention over the segment, a third of the result
    ======  ==============================================================================================

Counted are all paths over one whole segment.

- Operations are those of the products of matrices, two for each multiplication with its sum. Exponentials are not
  counted, as is usual. ``eager`` multiplies what the mask hides, the others do not.
- Bytes are those of the operators of ``eager``, of copies and of mixing; and of every launch of a fused kernel.
  Without ``tiles`` a launch reads each of its tensors once and writes each once: what nothing can do without. With
  ``tiles`` what a kernel reads again counts each time: keys and values for each tile of queries that sees them, and in
  a backward over keys the queries for each tile of keys. Operations are then those of whole tiles. Some of what is read
  again comes from the chip's cache and not from memory, so the truth lies between.
- A fused attention goes backward as FlashAttention-2 does (arXiv 2307.08691): the means ``rowsum(dO ∘ O)``, one pass
  over tiles of keys, the gradient of the queries summed in float32 and then converted. FlexAttention makes one pass
  over queries and one over keys, as the kernels here do.
- λ, masks of blocks and whatever else has a few numbers a head is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import PATHS
from ..validate import require_choice, require_int
from .eager import eager
from .flex import mixed, side_by_side
from .operators import moved

WAYS = ("eager", "sdpa", "flex", "triton", "causal")
FLOAT32 = 4  # bytes, of log-sum-exps, means and sums


class Shape(NamedTuple):
    """Of a whole segment and its bank.

    Attributes:
        batch, heads, length, width: ``B``, ``H``, ``L``, ``d_h``.
        chunk_size: ``C``, which divides ``L``.
        slots: ``m``.
    """

    batch: int
    heads: int
    length: int
    width: int
    chunk_size: int
    slots: int

    def require(self) -> None:
        """Raise ``TypeError`` or ``ValueError`` unless the sizes are those of a segment in whole chunks."""
        for name, size in self._asdict().items():
            require_int(name, size, 0 if name == "slots" else 1)
        if self.length % self.chunk_size:
            raise ValueError(f"chunk_size must divide length ({self.length}), got {self.chunk_size}")

    def of_tensors(self) -> list[tuple[int, int, int, int]]:
        """The shapes of q, k, v, q_mem, k_mem and v_mem."""
        rows = (*(self.length,) * 4, self.slots, self.slots)
        return [(self.batch, self.heads, n, self.width) for n in rows]


class Tiles(NamedTuple):
    """Sizes of the tiles of a fused kernel: ``BLOCK_M`` queries by ``BLOCK_N`` keys."""

    queries: int
    keys: int


class Cost(NamedTuple):
    """Operations, and bytes moved."""

    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """Operations for each byte: where a way of doing it lies on the roofline."""
        return self.flops / self.bytes

    def plus(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


class Costs(NamedTuple):
    """What the forward costs, and the backward after it."""

    forward: Cost
    backward: Cost

    @property
    def both(self) -> Cost:
        return self.forward.plus(self.backward)


def count(way: str, shape: Shape, dtype: torch.dtype = torch.bfloat16, tiles: Tiles | None = None) -> Costs:
    """What ``way`` costs for all heads of a batch.

    Args:
        way: one of ``WAYS``.
        dtype: of queries, keys, values and output.
        tiles: those of every fused kernel; ``None``: what is compulsory.

    Raises:
        TypeError, ValueError: there is no such way, a size is out of range, or chunks do not divide the segment.
    """
    require_choice("way", way, WAYS)
    shape.require()
    for name, size in ({} if tiles is None else tiles._asdict()).items():
        require_int(f"tiles.{name}", size, 1)
    return {"eager": _eager, "sdpa": _sdpa, "flex": _flex, "triton": _triton, "causal": _causal}[way](
        shape, dtype, tiles
    )


class Work(NamedTuple):
    """What fused kernels do for one head.

    Attributes:
        products: scalar products of two vectors of ``d_h``.
        vectors: vectors of ``d_h`` that are read or written.
        numbers: float32 numbers that are read or written.
    """

    products: int = 0
    vectors: int = 0
    numbers: int = 0

    def times(self, count: int) -> Work:
        return Work(*(count * amount for amount in self))

    def cost(self, shape: Shape, dtype: torch.dtype, more_bytes: int = 0) -> Cost:
        """Of all heads; ``more_bytes``: what operators around the kernels move."""
        heads = shape.batch * shape.heads
        size = self.vectors * shape.width * dtype.itemsize + self.numbers * FLOAT32
        return Cost(heads * self.products * 2 * shape.width, heads * size + more_bytes)


def total(*works: Work) -> Work:
    return Work(*map(sum, zip(*works, strict=True)))


# Which keys a tile of queries reads, and which queries a tile of keys.


class Path(NamedTuple):
    """What sees what: ``keys_of`` the first and the last of some queries, ``queries_of`` those of some keys, as the
    first and the end of a range that holds them all."""

    n_queries: int
    n_keys: int
    keys_of: Callable[[int, int], tuple[int, int]]
    queries_of: Callable[[int, int], tuple[int, int]]


class Sweep(NamedTuple):
    """What tiles of one side read of the other: vectors, and pairs of a query and a key that they multiply."""

    read: int
    pairs: int


def segment_path(length: int) -> Path:
    return Path(length, length, lambda first, last: (0, last + 1), lambda first, last: (first, length))


def chunk_path(length: int, size: int) -> Path:
    return Path(length, length, lambda first, last: (first // size * size, last + 1),
                lambda first, last: (first, min(length, (last // size + 1) * size)))


def bank_path(length: int, slots: int) -> Path:
    return Path(length, slots, lambda first, last: (0, slots), lambda first, last: (0, length))


def by_queries(path: Path, tiles: Tiles | None) -> Sweep:
    """What the tiles of queries read of the keys; without ``tiles`` each key is read once."""
    if tiles is None:
        return once(path.n_keys, sweep(path.n_queries, 1, 1, path.keys_of).pairs)
    return sweep(path.n_queries, tiles.queries, tiles.keys, path.keys_of)


def by_keys(path: Path, tiles: Tiles | None) -> Sweep:
    """What the tiles of keys read of the queries; without ``tiles`` each query is read once."""
    if tiles is None:
        return once(path.n_queries, sweep(path.n_keys, 1, 1, path.queries_of).pairs)
    return sweep(path.n_keys, tiles.keys, tiles.queries, path.queries_of)


def once(count: int, pairs: int) -> Sweep:
    """A sweep that reads each vector once, or none where nothing sees them: an empty bank is not looked at."""
    return Sweep(count if pairs else 0, pairs)


def sweep(count: int, own: int, other: int, range_of: Callable[[int, int], tuple[int, int]]) -> Sweep:
    """Tiles of ``own`` rows, ``count`` rows in all, each of which goes over a range of the other side by ``other``."""
    read = pairs = 0
    for first in range(0, count, own):
        low, high = range_of(first, min(first + own, count) - 1)
        low -= low % other
        read += high - low
        pairs += own * other * math.ceil((high - low) / other)
    return Sweep(read, pairs)


# The ways.


def fused(path: Path, width: int, tiles: Tiles | None) -> tuple[Work, Work]:
    """One fused attention, for one head: forward, and backward."""
    n, s = path.n_queries, path.n_keys
    queries, keys = by_queries(path, tiles), by_keys(path, tiles)
    forward = Work(2 * queries.pairs, 2 * n + 2 * queries.read, n)
    means = Work(vectors=2 * n, numbers=n)
    # The sums of the gradient of the queries begin as zeros, and are read and written.
    sums = Work(numbers=(n + 2 * keys.read) * width)
    converted = Work(vectors=n, numbers=n * width)
    gradients = Work(5 * keys.pairs, 4 * s + 2 * keys.read, 2 * keys.read)
    return forward, total(means, sums, gradients, converted)


def _causal(shape: Shape, dtype: torch.dtype, tiles: Tiles | None) -> Costs:
    return Costs(*(work.cost(shape, dtype) for work in fused(segment_path(shape.length), shape.width, tiles)))


def _eager(shape: Shape, dtype: torch.dtype, tiles: Tiles | None) -> Costs:
    inputs = _inputs(shape, dtype)
    forward, backward = moved(lambda *x: eager(*x, shape.chunk_size, PATHS), *inputs)
    pairs = shape.length * (2 * shape.length + shape.slots)
    return Costs(Work(2 * pairs).cost(shape, dtype, forward), Work(4 * pairs).cost(shape, dtype, backward))


def _sdpa(shape: Shape, dtype: torch.dtype, tiles: Tiles | None) -> Costs:
    n, chunk = shape.length, shape.chunk_size
    calls = [fused(segment_path(n), shape.width, tiles), fused(bank_path(n, shape.slots), shape.width, tiles)]
    calls += [fused(segment_path(chunk), shape.width, tiles)] * (n // chunk)
    outputs = torch.empty(shape.batch, shape.heads, 3, n, shape.width, dtype=dtype, device="meta").unbind(2)
    mixing = moved(lambda weights, *paths: sum(w * x for w, x in zip(weights, paths, strict=True)),
                   _inputs(shape, dtype)[-1], *outputs)
    return Costs(*(total(*works).cost(shape, dtype, more)
                   for works, more in zip(zip(*calls, strict=True), mixing, strict=True)))


def _flex(shape: Shape, dtype: torch.dtype, tiles: Tiles | None) -> Costs:
    n, keys = shape.length, shape.length + shape.slots
    *inputs, weights = _inputs(shape, dtype)
    copying = moved(lambda *x: side_by_side(*x, PATHS), *inputs)
    attended = torch.empty(shape.batch, shape.heads, 3, n, shape.width, dtype=dtype, device="meta")
    mixing = moved(mixed, attended, weights)
    over_keys, over_queries = (_paths_together(shape, tiles, side) for side in (by_queries, by_keys))
    if tiles is None:
        over_keys = over_keys._replace(read=keys)  # which the paths share
    # Without tiles the backward, which is one launch, reads everything once.
    again = 0 if tiles is None else 6 * n + 2 * keys
    forward = Work(2 * over_keys.pairs, 6 * n + 2 * over_keys.read, 3 * n)
    means = Work(vectors=6 * n, numbers=3 * n)
    gradients = Work(3 * over_keys.pairs + 4 * over_queries.pairs,
                     3 * n + 2 * keys + again + 2 * over_keys.read + 2 * over_queries.read,
                     2 * over_queries.read + (0 if tiles is None else 6 * n))
    works = (forward, total(means, gradients))
    return Costs(*(work.cost(shape, dtype, copied + mixed_)
                   for work, copied, mixed_ in zip(works, copying, mixing, strict=True)))


def _paths_together(shape: Shape, tiles: Tiles | None, side: Callable[[Path, Tiles | None], Sweep]) -> Sweep:
    """The sweeps of the three paths, each a head of its own."""
    n = shape.length
    sweeps = (side(path, tiles) for path in (segment_path(n), chunk_path(n, shape.chunk_size),
                                             bank_path(n, shape.slots)))
    return Sweep(*map(sum, zip(*sweeps, strict=True)))


def _triton(shape: Shape, dtype: torch.dtype, tiles: Tiles | None) -> Costs:
    return Costs(*(work.cost(shape, dtype) for work in (_triton_forward(shape, tiles), _triton_backward(shape, tiles))))


def _triton_forward(shape: Shape, tiles: Tiles | None) -> Work:
    n, size = shape.length, shape.chunk_size
    segment, bank = by_queries(segment_path(n), tiles), by_queries(bank_path(n, shape.slots), tiles)
    # From the tile of keys in which the first query's chunk begins to the last query's chunk: for some of the queries
    # in the chunk, for others before it, so they are read for either.
    of_both = Sweep(0, 0) if tiles is None else sweep(
        n, tiles.queries, tiles.keys, lambda first, last: (first // size * size, last // size * size)
    )
    sweeps = (segment, bank, of_both)
    return Work(2 * sum(x.pairs for x in sweeps), 3 * n + 2 * sum(x.read for x in sweeps), 3 * n)


def _triton_backward(shape: Shape, tiles: Tiles | None) -> Work:
    n, slots = shape.length, shape.slots
    paths = (segment_path(n), chunk_path(n, shape.chunk_size), bank_path(n, slots))
    segment, near, bank = (by_queries(path, tiles) for path in paths)
    # The near keys and the bank are read for their means, and again for the gradient.
    read = n + slots if tiles is None else segment.read + near.read + 2 * bank.read
    of_queries = Work(3 * segment.pairs + 2 * near.pairs + 5 * bank.pairs, 6 * n + 2 * read, 6 * n)
    segment, near, bank = (by_keys(path, tiles) for path in paths)
    # Queries and, for either, the gradient of the output; which is one, read once at the least.
    read = 2 * segment.read + bank.read * (1 if tiles is None else 2)
    numbers = 6 * n if tiles is None else 2 * (segment.read + near.read + bank.read)
    of_keys = Work(4 * (segment.pairs + bank.pairs), 4 * (n + slots) + read, numbers)
    of_weights = Work(numbers=3 * n)
    return total(of_queries, of_keys, of_weights)


def _inputs(shape: Shape, dtype: torch.dtype) -> list[Tensor]:
    """What ``hybrid_attention`` takes, with shapes and without numbers: q, k, v, q_mem, k_mem, v_mem, weights."""
    heads = (torch.empty(sizes, dtype=dtype, device="meta") for sizes in shape.of_tensors())
    return [*heads, torch.empty(len(PATHS), dtype=dtype, device="meta")]
