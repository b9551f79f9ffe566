"""The last exercise of notebook 06: the whole model by hand, segment by segment through all blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .exercise import Answer, Case, Exercise, Inputs, Mistake, random_tensor

_SLOTS, _WIDTH = 2, 3
_Block = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
_Banks = Sequence[Tensor]
_Step = Callable[[Tensor, _Banks, Sequence[_Block]], tuple[Tensor, _Banks]]


class _Embed:
    """A stand-in for the embedding: token ``v`` is row ``v`` of a table."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __repr__(self) -> str:
        return f"the rows of {self.table.tolist()}"

    def __call__(self, tokens: Tensor) -> Tensor:
        if tokens.is_floating_point():
            raise ValueError(f"embed takes tokens (B, n) of whole numbers, got {tokens.dtype}")
        return self.table[tokens]


class _Layer:
    """A stand-in for a block: reads one segment with its bank as it was before, and then writes the bank.

    A token is multiplied by a number of the block's own, and the mean of the slots is added. Then the oldest slot
    leaves, and the mean of the segment's outputs enters.
    """

    def __init__(self, limit: int, factor: float) -> None:
        self.limit, self.factor = limit, factor

    def __repr__(self) -> str:
        return f"({self.factor:g} x + mean of the bank)"

    def __call__(self, x: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(x, tuple):
            raise TypeError("x is both results of the block below, a tuple: take them apart, x, bank = block(x, bank)")
        if not x.is_floating_point():
            raise ValueError(f"a block takes vectors x (B, n, d), got tokens {tuple(x.shape)}: embed comes first")
        if x.dim() != 3 or not 1 <= x.shape[1] <= self.limit:
            raise ValueError(
                f"a block takes one segment (B, 1 to L = {self.limit}, d), got {tuple(x.shape)}: cut the tokens into "
                "segments along axis 1"
            )
        if bank.dim() != 3 or (bank.shape[0], bank.shape[2]) != (x.shape[0], x.shape[2]):
            raise ValueError(
                f"a block takes the bank (B, m, d) of its own layer, B and d as in x {tuple(x.shape)}, got "
                f"{tuple(bank.shape)}"
            )
        y = self.factor * x + bank.mean(1, keepdim=True)
        return y, torch.cat([bank[:, 1:], y.mean(1, keepdim=True)], dim=1)


class _Norm:
    """A stand-in for a LayerNorm: divides each vector by the mean size of its numbers, and adds 1."""

    def __repr__(self) -> str:
        return "x / mean |x| + 1"

    def __call__(self, x: Tensor) -> Tensor:
        return x / x.abs().mean(-1, keepdim=True) + 1


class _Head:
    """A stand-in for the head: a product with a matrix ``(d, V)``."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights

    def __repr__(self) -> str:
        return f"x @ {self.weights.tolist()}"

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] != len(self.weights):
            raise ValueError(f"head takes (…, d = {len(self.weights)}), got {tuple(x.shape)}")
        return x @ self.weights.to(x)


def _a_few_segments(sizes: dict[str, int]) -> dict[str, int]:
    """At most three layers, and most streams of two or more short segments, the last of them not full."""
    length = min(sizes["L"], 4)
    tokens = sizes["T"] + length if sizes["T"] > 1 else 1
    return sizes | {"N": min(sizes["N"], 3), "L": length, "T": tokens}


def _draw_model(sizes: dict[str, int], random: Random) -> Inputs:
    batch, vocabulary, layers, limit = (sizes[axis] for axis in ("B", "V", "N", "L"))
    tokens = [[random.randrange(vocabulary) for _ in range(sizes["T"])] for _ in range(batch)]
    factors = random.sample((-1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0), layers)
    return (
        torch.tensor(tokens),
        random_tensor(random, layers, batch, _SLOTS, _WIDTH),
        _Embed(random_tensor(random, vocabulary, _WIDTH)),
        tuple(_Layer(limit, factor) for factor in factors),
        _Norm(),
        _Head(random_tensor(random, _WIDTH, vocabulary)),
        limit,
    )


def _logits(
    tokens: Tensor, banks: Tensor, embed: _Embed, blocks: Sequence[_Layer], norm: _Norm, head: _Head, length: int
) -> Tensor:
    weights = head.weights.T.tolist()
    logits = []
    for row, slots in zip(tokens.tolist(), banks.unbind(1), strict=True):
        vectors = embed.table[row].tolist()
        for layer, bank in zip(blocks, slots.tolist(), strict=True):
            vectors = _layer_by_numbers(vectors, bank, layer.factor, length)
        normed = [[f / (sum(map(abs, vector)) / len(vector)) + 1 for f in vector] for vector in vectors]
        logits.append([[sum(w * f for w, f in zip(ws, vector, strict=True)) for ws in weights] for vector in normed])
    return torch.tensor(logits, dtype=torch.float64)


def _layer_by_numbers(
    vectors: list[list[float]], bank: list[list[float]], factor: float, length: int
) -> list[list[float]]:
    """What one layer makes of all tokens of a row; its bank is written after every ``length`` of them."""
    out: list[list[float]] = []
    for t, vector in enumerate(vectors):
        if t and t % length == 0:
            bank = [*bank[1:], [sum(numbers) / length for numbers in zip(*out[-length:], strict=True)]]
        means = [sum(numbers) / len(bank) for numbers in zip(*bank, strict=True)]
        out.append([factor * f + mean for f, mean in zip(vector, means, strict=True)])
    return out


def _pieces(tokens: Tensor, length: int) -> list[Tensor]:
    return [tokens[:, start : start + length] for start in range(0, tokens.shape[1], length)]


def _even(tokens: Tensor, parts: int) -> list[Tensor]:
    return [piece for piece in tokens.tensor_split(parts, dim=1) if piece.shape[1]]


def _short_first(tokens: Tensor, length: int) -> list[Tensor]:
    rest = tokens.shape[1] % length
    return [piece for piece in (tokens[:, :rest], *_pieces(tokens[:, rest:], length)) if piece.shape[1]]


class _Model(NamedTuple):
    """The arguments of an answer."""

    tokens: Tensor
    banks: Tensor
    embed: Callable[[Tensor], Tensor]
    blocks: Sequence[_Block]
    norm: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor]
    length: int


def _through_all(x: Tensor, banks: _Banks, blocks: Sequence[_Block]) -> tuple[Tensor, _Banks]:
    """One segment through all blocks, each with its own bank: the output, and the banks for the next segment."""
    after = []
    for block, bank in zip(blocks, banks, strict=True):
        x, written = block(x, bank)
        after.append(written)
    return x, after


def _outputs(model: _Model, step: _Step, cut: Callable[[Tensor, int], list[Tensor]]) -> Iterator[Tensor]:
    banks: _Banks = model.banks
    for piece in cut(model.tokens, model.length):
        x, banks = step(model.embed(piece), banks, model.blocks)
        yield model.head(model.norm(x))


def _reader(
    change: Callable[[_Model], dict[str, Any]] = lambda model: {},
    step: _Step = _through_all,
    cut: Callable[[Tensor, int], list[Tensor]] = _pieces,
    join: Callable[[list[Tensor]], Tensor] = lambda outputs: torch.cat(outputs, dim=1),
) -> Answer:
    """The right reading with some arguments changed, or another way to read a segment, to cut, or to join."""
    def read(*inputs: Any) -> Tensor:
        model = _Model(*inputs)
        return join([*_outputs(model._replace(**change(model)), step, cut)])

    return read


def _with_blocks(around: Callable[[_Block, Callable, Tensor, Tensor], tuple[Tensor, Tensor]], **other: Any) -> Answer:
    """The right reading with something around each block: ``around(block, norm, x, bank)``."""
    return _reader(lambda m: {"blocks": [partial(around, block, m.norm) for block in m.blocks], **other})


def _same(x: Tensor) -> Tensor:
    return x


def _one_bank(x: Tensor, banks: _Banks, blocks: Sequence[_Block]) -> tuple[Tensor, _Banks]:
    """One bank goes from layer to layer and from segment to segment."""
    bank = banks[0]
    for block in blocks:
        x, bank = block(x, bank)
    return x, [bank]


def _from_layer_to_layer(x: Tensor, banks: _Banks, blocks: Sequence[_Block]) -> tuple[Tensor, _Banks]:
    """As ``_one_bank``, but the next segment begins with the bank that layer 0 has written."""
    after = [banks[0]]
    for block in blocks:
        x, written = block(x, after[-1])
        after.append(written)
    return x, after[1:]


def _first_bank_for_all(keep: int) -> _Step:
    """Every layer reads the bank of layer 0; in the next segment it is what the layer ``keep`` has written."""
    def step(x: Tensor, banks: _Banks, blocks: Sequence[_Block]) -> tuple[Tensor, _Banks]:
        x, after = _through_all(x, [banks[0]] * len(blocks), blocks)
        return x, [after[keep]]

    return step


def _backwards(x: Tensor, banks: _Banks, blocks: Sequence[_Block]) -> tuple[Tensor, _Banks]:
    x, after = _through_all(x, list(banks)[::-1], blocks[::-1])
    return x, after[::-1]


def _one_layer_on(x: Tensor, banks: _Banks, blocks: Sequence[_Block]) -> tuple[Tensor, _Banks]:
    x, after = _through_all(x, banks, blocks)
    return x, [after[-1], *after[:-1]]


def _hands_on_the_last(x: Tensor, banks: _Banks, blocks: Sequence[_Block]) -> tuple[Tensor, _Banks]:
    x, after = _through_all(x, banks, blocks)
    return x, [*banks[:-1], after[-1]]


def _side_by_side(combine: Callable[[list[Tensor]], Tensor]) -> _Step:
    """Every layer reads the embedding; ``combine`` makes one output of theirs."""
    def step(x: Tensor, banks: _Banks, blocks: Sequence[_Block]) -> tuple[Tensor, _Banks]:
        outputs, after = zip(*(block(x, bank) for block, bank in zip(blocks, banks, strict=True)), strict=True)
        return combine(list(outputs)), after

    return step


def _hands_on_once(*inputs: Any) -> Tensor:
    model = _Model(*inputs)
    first, *later = _pieces(model.tokens, model.length)
    x, banks = _through_all(model.embed(first), model.banks, model.blocks)
    outputs = [x, *(_through_all(model.embed(piece), banks, model.blocks)[0] for piece in later)]
    return model.head(model.norm(torch.cat(outputs, dim=1)))


def _after_every_block(*inputs: Any) -> Tensor:
    model, outputs = _Model(*inputs), []
    banks = list(model.banks)
    for piece in _pieces(model.tokens, model.length):
        x = model.embed(piece)
        for i, block in enumerate(model.blocks):
            x, banks[i] = block(x, banks[i])
            outputs.append(model.head(model.norm(x)))
    return torch.cat(outputs, dim=1)


_OWN_BANK = "Each layer has its own: block i reads bank i, and what it returns is bank i of the next segment."
_CUT_BY_L = "You cut the tokens into L pieces. L is the number of tokens in a piece: split(L, dim=1), not chunk(L)."
_EVEN = "Your pieces are about equally long. A segment has L tokens, and only the last may be shorter: split(L, dim=1)."
_NORM_ONCE = "The norm belongs after the last block only, before the head: each block has its own inside."

_READ_MISTAKES = (
    Mistake(
        "The banks are not handed on: every segment is read with the banks from before the first. A block returns the "
        "bank that it reads in the next segment.",
        _with_blocks(lambda block, norm, x, bank: (block(x, bank)[0], bank)),
    ),
    Mistake(
        "The banks are handed on once only: from the third segment on you still use those after the first.",
        _hands_on_once,
    ),
    Mistake("Only the last layer's bank is handed on. " + _OWN_BANK, _reader(step=_hands_on_the_last)),
    Mistake(
        "One bank goes from layer to layer, and on to the next segment: what a block returns overwrites the bank that "
        "the next one reads. " + _OWN_BANK,
        _reader(step=_one_bank),
    ),
    Mistake("The bank that a layer returns goes to the layer above, in the same segment. " + _OWN_BANK,
            _reader(step=_from_layer_to_layer)),
    Mistake("All layers read the bank of layer 0. " + _OWN_BANK, _reader(step=_first_bank_for_all(0))),
    Mistake("All layers read one bank, which the last layer writes. " + _OWN_BANK,
            _reader(step=_first_bank_for_all(-1))),
    Mistake("The bank that a layer returns goes to the layer above, in the next segment. " + _OWN_BANK,
            _reader(step=_one_layer_on)),
    Mistake("In the first segment all layers read the bank of layer 0. " + _OWN_BANK,
            _reader(lambda m: {"banks": m.banks[:1].expand_as(m.banks)})),
    Mistake("The banks are in the reverse order. " + _OWN_BANK, _reader(lambda m: {"banks": m.banks.flip(0)})),
    Mistake(
        "The banks are not used: the first segment is read with zeros. It is read with the banks that you are given.",
        _reader(lambda m: {"banks": torch.zeros_like(m.banks)}),
    ),
    Mistake(
        "Every segment is read with banks of zeros. The first is read with those that you are given, a later one with "
        "those that the blocks returned.",
        _with_blocks(lambda block, norm, x, bank: block(x, torch.zeros_like(bank))),
    ),
    Mistake(
        "You call each block twice, and the second time it reads its own output. One call gives both, the output and "
        "the bank: x, bank = block(x, bank).",
        _with_blocks(lambda block, norm, x, bank: (block(x, bank)[0], block(block(x, bank)[0], bank)[1])),
    ),
    Mistake(
        "You took the two results of a block in the wrong order: first comes x, then the bank.",
        _with_blocks(lambda block, norm, x, bank: block(x, bank)[::-1]),
    ),
    Mistake("You add x to what a block returns. The residual is inside the block already.",
            _with_blocks(lambda block, norm, x, bank: (x + block(x, bank)[0], block(x, bank)[1]))),
    Mistake("The norm is missing: after the last block comes norm, then head.", _reader(lambda m: {"norm": _same})),
    Mistake(
        "Head and norm are in the wrong order: first norm, then head.",
        _reader(lambda m: {"norm": m.head, "head": m.norm}),
    ),
    Mistake("You applied the norm twice before the head. Once is enough.",
            _reader(lambda m: {"norm": lambda x: m.norm(m.norm(x))})),
    Mistake(f"You applied the norm after every block. {_NORM_ONCE}",
            _with_blocks(lambda block, norm, x, bank: (norm(block(x, bank)[0]), block(x, bank)[1]), norm=_same)),
    Mistake(f"You applied the norm after every block, and once more at the end. {_NORM_ONCE}",
            _with_blocks(lambda block, norm, x, bank: (norm(block(x, bank)[0]), block(x, bank)[1]))),
    Mistake(f"You applied the norm before every block. {_NORM_ONCE}",
            _with_blocks(lambda block, norm, x, bank: block(norm(x), bank), norm=_same)),
    Mistake(f"You applied the norm before every block as well. {_NORM_ONCE}",
            _with_blocks(lambda block, norm, x, bank: block(norm(x), bank))),
    Mistake(f"You applied the norm to the embedding. {_NORM_ONCE}",
            _reader(lambda m: {"embed": lambda tokens: m.norm(m.embed(tokens)), "norm": _same})),
    Mistake(f"You applied the norm to the embedding as well. {_NORM_ONCE}",
            _reader(lambda m: {"embed": lambda tokens: m.norm(m.embed(tokens))})),
    Mistake("The head is missing: you return vectors (B, T, d). head makes V logits of each.",
            _reader(lambda m: {"head": _same})),
    Mistake("Norm and head are missing: you return what the last block gives, (B, T, d).",
            _reader(lambda m: {"head": _same, "norm": _same})),
    Mistake("You return chances. Asked for are the logits, as they come out of the head, without a softmax.",
            _reader(lambda m: {"head": lambda x: m.head(x).softmax(-1)})),
    Mistake("You return logarithms of chances. Asked for are the logits, as they come out of the head.",
            _reader(lambda m: {"head": lambda x: m.head(x).log_softmax(-1)})),
    Mistake("You use the output of the first block only. Each further block reads the output of the one below.",
            _reader(lambda m: {"blocks": m.blocks[:1], "banks": m.banks[:1]})),
    Mistake("The last block is never called: the loop over the blocks ends too early.",
            _reader(lambda m: {"blocks": m.blocks[:-1], "banks": m.banks[:-1]})),
    Mistake(
        "Every layer reads the embedding, and the last one's output is all that counts. A block reads the output of "
        "the one below: x, bank = block(x, bank).",
        _reader(step=_side_by_side(lambda outputs: outputs[-1])),
    ),
    Mistake(
        "Every layer reads the embedding, and you add up what they return. A block reads the output of the one below.",
        _reader(step=_side_by_side(lambda outputs: torch.stack(outputs).sum(0))),
    ),
    Mistake("You run through the blocks from the last to the first. The embedding goes into block 0.",
            _reader(step=_backwards)),
    Mistake(
        "You run through the blocks from the last to the first, and through the banks from the first to the last. "
        "The embedding goes into block 0, which reads bank 0.",
        _reader(lambda m: {"blocks": m.blocks[::-1]}),
    ),
    Mistake("The last tokens are missing where L does not divide T: the last segment may be shorter.",
            _reader(lambda m: {"tokens": m.tokens[:, : m.tokens.shape[1] // m.length * m.length]})),
    Mistake(
        "The last segment is never read, not even where L divides T: the loop ends too early. Segments begin at "
        "range(0, T, L).",
        _reader(cut=lambda tokens, length: _pieces(tokens, length)[:-1]),
    ),
    Mistake("Your short segment comes first. Segments are filled from the beginning; the last one may be shorter.",
            _reader(cut=_short_first)),
    Mistake(_CUT_BY_L, _reader(cut=lambda tokens, length: list(tokens.chunk(length, dim=1)))),
    Mistake(_CUT_BY_L, _reader(cut=lambda tokens, length: _even(tokens, length))),
    Mistake(_EVEN, _reader(cut=lambda tokens, length: _even(tokens, math.ceil(tokens.shape[1] / length)))),
    Mistake(_EVEN, _reader(cut=lambda tokens, n: list(tokens.chunk(math.ceil(tokens.shape[1] / n), dim=1)))),
    Mistake(
        "You read token by token, and the blocks write their banks each time. Give them L tokens at once.",
        _reader(cut=lambda tokens, length: _pieces(tokens, 1)),
    ),
    Mistake("You return the logits of the last segment only. Collect those of all segments.",
            _reader(join=lambda outputs: outputs[-1])),
    Mistake(
        "You return the logits of the first segment only. The loop returns too early: collect those of all segments.",
        _reader(join=lambda outputs: outputs[0]),
    ),
    Mistake("You return the logits of the last position only. Asked for are those of all T.",
            _reader(join=lambda outputs: outputs[-1][:, -1])),
    Mistake("You return the logits of the last position only. Asked for are those of all T.",
            _reader(join=lambda outputs: outputs[-1][:, -1:])),
    Mistake("You collect logits after every block. They are made of the last block's output only.", _after_every_block),
    Mistake("The logits are joined along the batch (dim=0), which is torch.cat's default. Tokens are axis 1.",
            _reader(join=torch.cat)),
    Mistake("The logits are joined along the vocabulary (dim=-1). Tokens are axis 1.",
            _reader(join=lambda outputs: torch.cat(outputs, dim=-1))),
    Mistake(
        "The logits are stacked, so that there is one axis too many. Join them along the tokens: torch.cat(…, dim=1).",
        _reader(join=lambda outputs: torch.stack(outputs, dim=1)),
    ),
    Mistake("The logits are joined in the reverse order: the first segment's come first.",
            _reader(join=lambda outputs: torch.cat(outputs[::-1], dim=1))),
    Mistake(
        "You read the segments from the last to the first. The banks run forward: begin with the first tokens.",
        _reader(cut=lambda tokens, n: _pieces(tokens, n)[::-1], join=lambda outputs: torch.cat(outputs[::-1], dim=1)),
    ),
)


def _where_it_begins(output: Tensor, expected: Tensor, *inputs: Any) -> str | None:
    wrong = ((output - expected).abs() > 1e-4 * (1 + expected.abs())).any(-1).any(0)
    if not wrong.any():
        return None
    token, length = int(wrong.nonzero()[0]), inputs[-1]
    if not token:
        return (
            "Already position 0 is wrong: the way through the model is not right. embed comes first; each block reads "
            "the output of the one below and its own bank; then norm, then head."
        )
    if token < length:
        return (
            f"Position 0 is right, and position {token} of the same segment is not. A block is given all {length} "
            "tokens of a segment at once, and with them the bank as it was before the segment."
        )
    return (
        f"The first segment is right. From position {token} on, in segment {token // length}, the logits are wrong: "
        "what that segment was given, its tokens or its banks, is not right. Each block reads the bank that it "
        "returned in the segment before."
    )


READ = Exercise(
    name="06.read",
    contract="read(tokens (B, T), banks (N, B, m, d), embed, blocks, norm, head, L) -> logits (B, T, V): in order, "
    "segments of L tokens (the last may be shorter). embed makes x (B, n, d) of a segment; each block, (x, bank) -> "
    "(x, bank), reads the output of the one below and its own bank: block i at first banks[i], then what it returned "
    "in the segment before. norm and head make logits of the last x.",
    inputs=(*_Model._fields[:-1], "L"),
    output=("B", "T", "V"),
    example=Case(
        {"B": 1, "T": 5, "V": 4, "N": 2, "L": 2},
        (
            torch.tensor([[0, 2, 1, 3, 0]]),
            torch.tensor([[[[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]]], [[[0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]]]),
            _Embed(torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0], [2.0, 1.0, 0.0], [4.0, 1.0, 1.0]])),
            (_Layer(2, 1.0), _Layer(2, 2.0)),
            _Norm(),
            _Head(torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 1.0, -1.0]])),
            2,
        ),
    ),
    draw=_draw_model,
    reference=_logits,
    mistakes=_READ_MISTAKES,
    laws=(_where_it_begins,),
    fit=_a_few_segments,
)

EXERCISES = (READ,)
