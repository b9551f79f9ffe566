"""The exercises of notebook 03: the mask of a chunk, folding tokens into chunks and back, the pairs that remain."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from random import Random

import torch
from torch import Tensor
from torch.nn.functional import pad

from .exercise import Case, Exercise, Inputs, Mistake


def _several_chunks(sizes: dict[str, int]) -> dict[str, int]:
    """A length of several chunks, ragged or not; lengths of 1 and of one whole chunk stay as they are."""
    T, C = sizes["T"], sizes["C"]
    return sizes if T in (1, C) else sizes | {"T": T * C - (T - 2) % C}


def _draw_sizes(sizes: dict[str, int], random: Random) -> Inputs:
    return sizes["T"], sizes["C"]


# 1. The mask -----------------------------------------------------------------------------------------------------


def _chunk_mask(T: int, C: int) -> Tensor:
    rows = [[j <= i and math.floor(i / C) == math.floor(j / C) for j in range(T)] for i in range(T)]
    return torch.tensor(rows, dtype=torch.float64)


def _grid(T: int) -> tuple[Tensor, Tensor]:
    """Positions of the tokens that look (T, 1) and of those looked at (1, T)."""
    return torch.arange(T)[:, None], torch.arange(T)[None, :]


def _by_chunk(chunk: Callable[[Tensor, int, int], Tensor]) -> Callable[[int, int], Tensor]:
    """The causal mask for another rule of which chunk a position belongs to."""

    def mask(T: int, C: int) -> Tensor:
        i, j = _grid(T)
        return (j <= i) & (chunk(i, T, C) == chunk(j, T, C))

    return mask


def _same_chunk(T: int, C: int) -> Tensor:
    i, j = _grid(T)
    return i // C == j // C


def _causal(T: int) -> Tensor:
    i, j = _grid(T)
    return j <= i


def _and_the_chunk_before(T: int, C: int) -> Tensor:
    i, j = _grid(T)
    return (j <= i) & (i // C - j // C <= 1)


def _window(T: int, C: int) -> Tensor:
    i, j = _grid(T)
    return (j <= i) & (i - j < C)


def _without_tail(T: int, C: int) -> Tensor:
    i, _ = _grid(T)
    return _same_chunk(T, C) & _causal(T) & (i < T // C * C)


def _whole_blocks(T: int, C: int) -> Tensor:
    """Raises where ``C`` does not divide ``T``."""
    return torch.kron(torch.eye(T // C), torch.ones(C, C).tril()).reshape(T, T) > 0


_MASK_MISTAKES = (
    Mistake(
        "Your mask is inverted: it is true where a pair is hidden. Here true means that token i may see token j.",
        lambda T, C: ~(_same_chunk(T, C) & _causal(T)),
    ),
    Mistake(
        "Your mask knows the chunks but no order: a token also sees the later tokens of its chunk. Keep j ≤ i only.",
        _same_chunk,
    ),
    Mistake(
        "Your mask is the causal one: a token sees the chunks before its own too. Keep only pairs in one chunk, "
        "i // C == j // C.",
        lambda T, C: _causal(T),
    ),
    Mistake(
        "A token sees its whole chunk and all that lies before it, as if one of the two conditions were enough. A pair "
        "has to lie in one chunk and has to look back: join them with &.",
        lambda T, C: _same_chunk(T, C) | _causal(T),
    ),
    Mistake(
        "A token does not see itself: keep j ≤ i, not j < i. Otherwise the first token of each chunk sees nothing.",
        lambda T, C: _same_chunk(T, C) & ~_causal(T).T,
    ),
    Mistake(
        "Your mask is transposed: it shows the future and hides the past. Row i is the token that looks: it sees "
        "columns j ≤ i.",
        lambda T, C: (_same_chunk(T, C) & _causal(T)).T,
    ),
    Mistake(
        "Your window slides: each token sees itself and the C − 1 tokens before it. A chunk has fixed borders, the "
        "multiples of C: what is behind one is hidden, however near it is.",
        _window,
    ),
    Mistake(
        "You used the remainder, position % C: it puts tokens 0, C, 2C, … together. The chunk of a position is the "
        "quotient, position // C.",
        _by_chunk(lambda p, T, C: p % C),
    ),
    Mistake(
        "Your borders are one token early: you counted positions from 1, or rounded to the nearest number. Positions "
        "count from 0, and chunk = position // C rounds down.",
        _by_chunk(lambda p, T, C: (p + 1) // C),
    ),
    Mistake(
        "You rounded up: token 0 is alone in its chunk, and every border is one token late. chunk = position // C "
        "rounds down.",
        _by_chunk(lambda p, T, C: (p + C - 1) // C),
    ),
    Mistake(
        "You divided without rounding down, so that no two tokens share a chunk. Write chunk = position // C.",
        _by_chunk(lambda p, T, C: p / C),
    ),
    Mistake(
        "Your mask is right where C divides T. Otherwise the last chunk is shorter than C, and a block of C × C does "
        "not fit there.",
        _whole_blocks,
    ),
    Mistake(
        "You counted the chunks from the end, so that the first chunk is the shorter one. They begin at token 0; the "
        "last one may be shorter.",
        _by_chunk(lambda p, T, C: (T - 1 - p) // C),
    ),
    Mistake(
        "You cut the tokens into C chunks. C is the number of tokens in a chunk.",
        _by_chunk(lambda p, T, C: p * C // T),
    ),
    Mistake(
        "You cut the tokens into equal parts. Every chunk but the last has exactly C tokens; what is left over is a "
        "shorter chunk of its own.",
        _by_chunk(lambda p, T, C: p * math.ceil(T / C) // T),
    ),
    Mistake(
        "You joined what is left over to the last whole chunk. It is a chunk of its own, only shorter.",
        _by_chunk(lambda p, T, C: (p // C).clamp(max=max(T // C - 1, 0))),
    ),
    Mistake(
        "The tokens after the last whole chunk see nothing, not even themselves. They are a chunk too, a shorter one.",
        _without_tail,
    ),
    Mistake(
        "A token also sees the chunk before its own. Chunks do not overlap: it sees its own chunk only.",
        _and_the_chunk_before,
    ),
    Mistake(
        "Your mask is as large as the chunks filled up to C, T rounded up to a multiple of C. Cut it to T × T.",
        lambda T, C: torch.kron(torch.eye(math.ceil(T / C)), torch.ones(C, C).tril()),
    ),
    Mistake(
        "You returned what is added to the scores, 0 and −inf. Asked for is whether token i may see token j: true or "
        "false.",
        lambda T, C: torch.zeros(T, T).masked_fill(~(_same_chunk(T, C) & _causal(T)), -math.inf),
    ),
)


def _first_wrong_pair(output: Tensor, expected: Tensor, T: int, C: int) -> str | None:
    wrong = (output != expected).nonzero()
    if not len(wrong):
        return None
    i, j = wrong[0].tolist()
    where = f"i // C is {i // C} and j // C is {j // C}"
    if expected[i, j]:
        return f"Token {i} may see token {j}, and your mask hides it: j ≤ i, {where}."
    why = "it comes later" if j > i else f"it is in another chunk: {where}"
    return f"Your mask lets token {i} see token {j}, but {why}."


CHUNK_MASK = Exercise(
    name="03.chunk_mask",
    contract="chunk_mask(T, C) -> (T, T) bool: true where token i (row) may see token j (column), that is where both "
    "are in one chunk of C tokens and j ≤ i.",
    inputs=("T", "C"),
    output=("T", "T"),
    example=Case({"T": 5, "C": 3}, (5, 3)),
    draw=_draw_sizes,
    reference=_chunk_mask,
    mistakes=_MASK_MISTAKES,
    laws=(_first_wrong_pair,),
    dtype=torch.bool,
    fit=_several_chunks,
)

# 2. The fold -----------------------------------------------------------------------------------------------------


def _distinct(random: Random, *shape: int) -> Tensor:
    """All values differ and none is 0, so that each number of a result tells where it came from, or that it is new."""
    count = math.prod(shape)
    return torch.tensor(random.sample(range(1, count + 1), count), dtype=torch.float32).reshape(shape)


def _draw_tokens(sizes: dict[str, int], random: Random) -> Inputs:
    B, H, n, C, width = (sizes[axis] for axis in ("B", "H", "n", "C", "d_h"))
    T = (n - 1) * C + random.randint(1, C)
    return _distinct(random, B, H, T, width), C


def _fold(x: Tensor, C: int) -> Tensor:
    n = len(range(0, x.shape[2], C))
    folded = torch.zeros(*x.shape[:2], n, C, x.shape[3], dtype=torch.float64)
    for b, head_rows in enumerate(x.tolist()):
        for h, tokens in enumerate(head_rows):
            for t, token in enumerate(tokens):
                folded[b, h, t // C, t % C] = torch.tensor(token, dtype=torch.float64)
    return folded


def _filled(x: Tensor, C: int) -> Tensor:
    return pad(x, (0, 0, 0, -x.shape[2] % C))


def _cut(x: Tensor, C: int) -> Tensor:
    return x.unflatten(2, (x.shape[2] // C, C))


def _equal_parts(x: Tensor, C: int) -> Tensor:
    n = math.ceil(x.shape[2] / C)
    return torch.stack([pad(part, (0, 0, 0, C - part.shape[2])) for part in x.tensor_split(n, dim=2)], dim=2)


def _overlapping(x: Tensor, C: int) -> Tensor:
    if x.shape[2] < C:
        return _cut(_filled(x, C), C)
    starts = [min(start, x.shape[2] - C) for start in range(0, x.shape[2], C)]
    return torch.stack([x[:, :, start : start + C] for start in starts], dim=2)


_NOT_FILLED = (
    "Your function works where C divides T. Otherwise the token axis is not a multiple of C when you cut it: add "
    "−T % C rows of zeros behind the last token first, x = pad(x, (0, 0, 0, missing)). The last two numbers count "
    "rows, the first two columns."
)

_FOLD_MISTAKES = (
    Mistake(
        "You added as many zeros as tokens are left over, T % C. Missing are the others of that chunk: −T % C.",
        lambda x, C: _cut(pad(x, (0, 0, 0, x.shape[2] % C)), C),
    ),
    Mistake(
        "You filled up by the number of heads. x is (B, H, T, d_h): T is x.shape[2] or x.shape[-2].",
        lambda x, C: _cut(pad(x, (0, 0, 0, -x.shape[1] % C)), C),
    ),
    Mistake(_NOT_FILLED, lambda x, C: x.unflatten(2, (-1, C))),
    Mistake(_NOT_FILLED, lambda x, C: torch.stack(x.split(C, dim=2), dim=2)),
    Mistake(
        "The tokens after the last whole chunk are gone. They are a chunk too: fill it up to C with zeros.",
        lambda x, C: _cut(x[:, :, : x.shape[2] // C * C], C),
    ),
    Mistake(
        "You filled up at the front. That moves every border, and a causal mask lets every token see what stands "
        "before it. The zeros belong behind the last token.",
        lambda x, C: _cut(pad(x, (0, 0, -x.shape[2] % C, 0)), C),
    ),
    Mistake(
        "Where C divides T you added a chunk of nothing but zeros. The number of tokens to add is −T % C, which is 0 "
        "then; C − T % C is C.",
        lambda x, C: _cut(pad(x, (0, 0, 0, C - x.shape[2] % C)), C),
    ),
    Mistake(
        "You dealt the tokens out like cards: your chunk c holds the tokens c, c + n, c + 2n, … It must hold C "
        "neighbours, c·C to (c + 1)·C − 1: unflatten the tokens as (n, C), not (C, n).",
        lambda x, C: _filled(x, C).unflatten(2, (C, -1)).transpose(2, 3),
    ),
    Mistake(
        "The tokens are cut into C chunks of n tokens: (B, H, C, n, d_h). It must be n chunks of C tokens.",
        lambda x, C: _filled(x, C).unflatten(2, (C, -1)),
    ),
    Mistake(
        "The tokens are in the right chunks, but the two axes have changed places: yours is (B, H, C, n, d_h).",
        lambda x, C: _cut(_filled(x, C), C).transpose(2, 3),
    ),
    Mistake(
        "The tokens are in the right chunks, but the chunk axis stands before the heads: (B, n, H, C, d_h).",
        lambda x, C: _cut(_filled(x, C), C).transpose(1, 2),
    ),
    Mistake(
        "The tokens are in the right chunks, but the last two axes have changed places: yours is (B, H, n, d_h, C).",
        lambda x, C: _cut(_filled(x, C), C).transpose(3, 4),
    ),
    Mistake(
        "The tokens are in the right chunks, but the chunks are joined with the heads: (B, H·n, C, d_h). Give them an "
        "axis of their own.",
        lambda x, C: _cut(_filled(x, C), C).flatten(1, 2),
    ),
    Mistake(
        "The tokens are in the right chunks, but the chunks are joined with the batch and the heads: (B·H·n, C, d_h). "
        "Give them an axis of their own.",
        lambda x, C: _cut(_filled(x, C), C).flatten(0, 2),
    ),
    Mistake(
        "The result is filled up but not cut: the chunks have no axis of their own yet.",
        _filled,
    ),
    Mistake(
        "You filled up with copies of the last token. Fill up with zeros.",
        lambda x, C: _cut(torch.cat([x, *[x[:, :, -1:]] * (-x.shape[2] % C)], dim=2), C),
    ),
    Mistake(
        "You filled up with −inf. That is what hides a score; in a key or a value it makes NaN. Fill up with zeros.",
        lambda x, C: _cut(pad(x, (0, 0, 0, -x.shape[2] % C), value=-math.inf), C),
    ),
    Mistake(
        "Your last chunk overlaps the one before, so some tokens are in two chunks. Fill the last chunk up with zeros.",
        _overlapping,
    ),
    Mistake(
        "You cut the tokens into parts of equal length. Every chunk but the last holds exactly C tokens.",
        _equal_parts,
    ),
    Mistake(
        "You moved the axes before you cut, and the view mixed heads with tokens: the shape is right, the numbers are "
        "not. Cut the token axis where it is.",
        lambda x, C: _filled(x, C).transpose(1, 2).reshape(x.shape[0], x.shape[1], -1, C, x.shape[3]),
    ),
)


def _comes_from_its_token(output: Tensor, expected: Tensor, x: Tensor, C: int) -> str | None:
    wrong = (output != expected).nonzero()
    if not len(wrong):
        return None
    b, h, chunk, position, feature = place = tuple(wrong[0].tolist())
    token = chunk * C + position
    should = "0, to fill up the last chunk" if token >= x.shape[2] else f"x[{b}, {h}, {token}, {feature}]"
    return f"result{list(place)} {_origin(output[place], 'x', x)}; it must be {should}."


def _origin(number: Tensor, name: str, source: Tensor) -> str:
    """Where a number of the result came from, as the end of a sentence that begins with its place."""
    found = (source == number).nonzero()
    if len(found):
        return f"is {name}{found[0].tolist()}"
    return f"is {number:.4g}" if number == 0 else f"is {number:.4g}, which is no number of {name}"


FOLD = Exercise(
    name="03.fold",
    contract="fold(x (B, H, T, d_h), C) -> (B, H, n, C, d_h) with n = T / C rounded up: chunk c holds the tokens c·C "
    "to (c + 1)·C − 1 of its head; zeros behind the last token fill the last chunk up.",
    inputs=("x", "C"),
    output=("B", "H", "n", "C", "d_h"),
    example=Case(
        {"B": 1, "H": 1, "n": 2, "C": 3, "d_h": 2},
        (torch.tensor([[[[1.0, 2.0], [11.0, 12.0], [21.0, 22.0], [31.0, 32.0], [41.0, 42.0]]]]), 3),
    ),
    draw=_draw_tokens,
    reference=_fold,
    mistakes=_FOLD_MISTAKES,
    laws=(_comes_from_its_token,),
)

# 3. Back again ---------------------------------------------------------------------------------------------------


def _draw_folded(sizes: dict[str, int], random: Random) -> Inputs:
    B, H, T, C, width = (sizes[axis] for axis in ("B", "H", "T", "C", "d_h"))
    # What fills the last chunk up is not 0 either: after attention it is some number.
    return _distinct(random, B, H, math.ceil(T / C), C, width), T


def _unfold(folded: Tensor, T: int) -> Tensor:
    B, H, _, C, width = folded.shape
    x = torch.empty(B, H, T, width, dtype=torch.float64)
    numbers = folded.tolist()
    for b, h, t in product(range(B), range(H), range(T)):
        x[b, h, t] = torch.tensor(numbers[b][h][t // C][t % C], dtype=torch.float64)
    return x


def _joined(folded: Tensor) -> Tensor:
    return folded.flatten(2, 3)


def _tail_from_its_end(folded: Tensor, T: int) -> Tensor:
    C = folded.shape[3]
    last = T - (T - 1) // C * C
    return torch.cat([_joined(folded[:, :, :-1]), folded[:, :, -1, C - last :]], dim=2)


_INTO_HEADS = "You joined the chunks with the heads: (B, H·n, C, d_h). Join n with C."

_UNFOLD_MISTAKES = (
    Mistake(
        "What filled up the last chunk is still there: cut the result to the first T tokens.",
        lambda f, T: _joined(f),
    ),
    Mistake(
        "You cut at the front and kept the last T rows. What fills up stands at the end: keep the first T.",
        lambda f, T: _joined(f)[:, :, -T:],
    ),
    Mistake(
        "Of the last chunk you kept its end. What fills up stands at the end: keep its beginning.",
        _tail_from_its_end,
    ),
    Mistake(
        "The tokens after the last whole chunk are gone. Only what lies behind token T − 1 is to be cut.",
        lambda f, T: _joined(f)[:, :, : T // f.shape[3] * f.shape[3]],
    ),
    Mistake(
        "You swapped chunks and positions before joining them: your result takes the first token of every chunk, then "
        "the second of every chunk. Join the axes n and C as they stand.",
        lambda f, T: _joined(f.transpose(2, 3))[:, :, :T],
    ),
    Mistake(_INTO_HEADS, lambda f, T: f.flatten(1, 2)),
    Mistake(_INTO_HEADS, lambda f, T: f.flatten(1, 2)[:, :, :T]),
    Mistake(
        "You joined the positions with the features: (B, H, n, C·d_h). Join n with C.",
        lambda f, T: f.flatten(3, 4),
    ),
    Mistake(
        "Your function works where C divides T. Otherwise the chunks hold more than T rows: join them first, then cut "
        "to T.",
        lambda f, T: f.reshape(f.shape[0], f.shape[1], T, f.shape[4]),
    ),
    Mistake(
        "You cut away as many rows as were filled up, and where there are none you keep nothing: a slice [:-0] is "
        "empty. Keep the first T rows, [:T].",
        lambda f, T: _joined(f)[:, :, : -(-T % f.shape[3])],
    ),
    Mistake(
        "The last token is gone. A slice ends before its second number: [:T] keeps the tokens 0 to T − 1.",
        lambda f, T: _joined(f)[:, :, : T - 1],
    ),
    Mistake(
        "You cut the batch instead of the tokens: [:T] cuts the first axis. After joining, the tokens are axis 2.",
        lambda f, T: _joined(f)[:T],
    ),
    Mistake(
        "You cut the features instead of the tokens: [..., :T] cuts the last axis. After joining, the tokens are "
        "axis 2.",
        lambda f, T: _joined(f)[..., :T],
    ),
    Mistake(
        "You cut each chunk to T positions instead of the result: cut after joining.",
        lambda f, T: _joined(f[:, :, :, :T]),
    ),
    Mistake(
        "A view has mixed heads with tokens: the shape is right, the numbers are not. Join the axes n and C and leave "
        "the heads in their place.",
        lambda f, T: f.reshape(f.shape[0], -1, f.shape[1], f.shape[4]).transpose(1, 2)[:, :, :T],
    ),
    Mistake(
        "The tokens stand before the heads: (B, T, H, d_h). Keep the heads second.",
        lambda f, T: _joined(f)[:, :, :T].transpose(1, 2),
    ),
    Mistake(
        "You merged the heads as well: (B, T, H·d_h). Keep the heads second, they are merged later.",
        lambda f, T: _joined(f)[:, :, :T].transpose(1, 2).flatten(2),
    ),
    Mistake(
        "Your tokens run backwards inside each chunk. They keep their order.",
        lambda f, T: _joined(f.flip(3))[:, :, :T],
    ),
)


def _comes_from_its_place(output: Tensor, expected: Tensor, folded: Tensor, T: int) -> str | None:
    wrong = (output != expected).nonzero()
    if not len(wrong):
        return None
    b, h, token, feature = place = tuple(wrong[0].tolist())
    chunk, position = divmod(token, folded.shape[3])
    should = f"folded[{b}, {h}, {chunk}, {position}, {feature}]"
    return f"result{list(place)} {_origin(output[place], 'folded', folded)}; it must be {should}."


UNFOLD = Exercise(
    name="03.unfold",
    contract="unfold(folded (B, H, n, C, d_h), T) -> (B, H, T, d_h): the chunks one behind the other again, without "
    "what fills up the last one.",
    inputs=("folded", "T"),
    output=("B", "H", "T", "d_h"),
    example=Case(
        {"B": 1, "H": 1, "T": 5, "C": 3, "d_h": 2},
        (
            torch.tensor(
                [[[[[1.0, 2.0], [11.0, 12.0], [21.0, 22.0]], [[31.0, 32.0], [41.0, 42.0], [-1.0, -2.0]]]]]
            ),
            5,
        ),
    ),
    draw=_draw_folded,
    reference=_unfold,
    mistakes=_UNFOLD_MISTAKES,
    laws=(_comes_from_its_place,),
)

# 4. The pairs that remain ----------------------------------------------------------------------------------------


def _pairs(T: int, C: int) -> Tensor:
    seen = sum(1 for i in range(T) for j in range(i + 1) if math.floor(i / C) == math.floor(j / C))
    return torch.tensor(seen, dtype=torch.float64)


def _triangle(n: int) -> int:
    return n * (n + 1) // 2


_PAIR_MISTAKES = (
    Mistake("You counted all T² pairs, as without a mask.", lambda T, C: T * T),
    Mistake(
        "You counted the pairs of full attention, T(T + 1)/2. A token sees its own chunk only.",
        lambda T, C: _triangle(T),
    ),
    Mistake(
        "You counted C for each token. A token sees its chunk up to itself: the first of a chunk sees 1, the last C.",
        lambda T, C: T * C,
    ),
    Mistake(
        "T(C + 1)/2 is right where C divides T. Otherwise the last chunk holds r = T % C tokens and r(r + 1)/2 pairs.",
        lambda T, C: T * (C + 1) / 2,
    ),
    Mistake(
        "T(C + 1)/2, rounded, is right where C divides T. Otherwise the last chunk holds r = T % C tokens and "
        "r(r + 1)/2 pairs.",
        lambda T, C: T * (C + 1) // 2,
    ),
    Mistake(
        "The last, shorter chunk is missing: its r = T % C tokens have r(r + 1)/2 pairs.",
        lambda T, C: T // C * _triangle(C),
    ),
    Mistake(
        "You counted the last chunk as a whole one. It holds r = T % C tokens, or none, and has r(r + 1)/2 pairs.",
        lambda T, C: math.ceil(T / C) * _triangle(C),
    ),
    Mistake(
        "You counted what is computed after folding, C² in each chunk with the last one filled up. Visible are fewer: "
        "C(C + 1)/2 in a whole chunk.",
        lambda T, C: math.ceil(T / C) * C * C,
    ),
    Mistake(
        "You counted every pair inside a chunk. Half of them look ahead: a chunk of C tokens has C(C + 1)/2.",
        lambda T, C: T // C * C * C + (T % C) ** 2,
    ),
    Mistake(
        "Your tokens do not see themselves: a chunk of C tokens has C(C + 1)/2 pairs, not C(C − 1)/2.",
        lambda T, C: T // C * _triangle(C - 1) + _triangle(T % C - 1),
    ),
    Mistake(
        "You took half of C². The diagonal belongs to it: 1 + 2 + … + C = C(C + 1)/2.",
        lambda T, C: T // C * C * C / 2 + (T % C) ** 2 / 2,
    ),
    Mistake(
        "You counted a window that slides, in which every token but the first few sees C. At a border a chunk starts "
        "again with a token that sees only itself.",
        lambda T, C: sum(min(i + 1, C) for i in range(T)),
    ),
    Mistake(
        "You counted the hidden pairs of the T² instead of the visible ones.",
        lambda T, C: T * T - T // C * _triangle(C) - _triangle(T % C),
    ),
    Mistake(
        "You counted the pairs that the chunks hide from full attention. Asked for are those that remain.",
        lambda T, C: _triangle(T) - T // C * _triangle(C) - _triangle(T % C),
    ),
    Mistake(
        "You took the pairs of what is left over once for each whole chunk. They come once: the chunks' pairs and "
        "those of the rest, each halved by itself.",
        lambda T, C: T // C * (C * (C + 1) + T % C * (T % C + 1)) // 2,
    ),
    Mistake(
        "You took the tokens left over for the number of chunks, and the other way round. divmod(T, C) gives the whole "
        "chunks first.",
        lambda T, C: T % C * _triangle(C) + _triangle(T // C),
    ),
    Mistake(
        "You counted one chunk. There are T // C whole ones, and one of T % C tokens.",
        lambda T, C: _triangle(min(C, T)),
    ),
)


def _within_bounds(output: Tensor, expected: Tensor, T: int, C: int) -> str | None:
    number = f"{output.item():g}"
    if output != output.round():
        return f"A number of pairs is whole; yours is {number} for T = {T}, C = {C}."
    if output < T:
        return f"Each of the T = {T} tokens sees itself, so there are at least {T} pairs; yours are {number}."
    if output > _triangle(T):
        return f"Full attention leaves T(T + 1)/2 = {_triangle(T)} pairs, chunks no more; yours are {number}."
    return None


def _of_all_chunks(output: Tensor, expected: Tensor, T: int, C: int) -> str | None:
    if output == expected:
        return None
    whole, left_over = divmod(T, C)
    return (
        f"T = {T} in chunks of {C}: {whole} whole with C(C + 1)/2 = {_triangle(C)} pairs each, and {left_over} left "
        f"over with {_triangle(left_over)}. That makes {expected.item():g}; yours are {output.item():g}."
    )


PAIRS = Exercise(
    name="03.pairs",
    contract="pairs(T, C) -> a number: the pairs (i, j) that causal attention leaves of T tokens in chunks of C; the "
    "last chunk may be shorter.",
    inputs=("T", "C"),
    output=(),
    example=Case({"T": 7, "C": 3}, (7, 3)),
    draw=_draw_sizes,
    reference=_pairs,
    mistakes=_PAIR_MISTAKES,
    laws=(_within_bounds, _of_all_chunks),
    fit=_several_chunks,
)

EXERCISES = (CHUNK_MASK, FOLD, UNFOLD, PAIRS)
