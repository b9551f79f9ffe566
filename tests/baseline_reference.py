"""An independent reference of the baselines: each token is given the list of what it sees, and all of it is recomputed.

Nothing here imports `rmat_tutorial`. No cache and no mask: keys and values of every token that is seen are made anew.
Positions count from the begin of the stream.
"""

import math

import torch
from reference import affine, complex_rope, feed_forward, layer_norm, split_heads
from torch import Tensor

Seen = list[tuple[int, bool]]
"""Places in a list of tokens, and whether a gradient flows back from there."""


def seen_by(config, t: int) -> Seen:
    """What token t of a stream sees in each layer; for all kinds but rmt."""
    segment = t - t % config.segment_len
    first = {"full": 0, "segment": segment, "transformer-xl": max(0, segment - config.segment_len)}
    if config.kind == "window":
        return [(j, True) for j in range(t + 1) if t - j < config.window]
    return [(j, config.kind != "transformer-xl" or j >= segment) for j in range(first[config.kind], t + 1)]


def seen_in_segment(tokens: int, memory: int) -> list[Seen]:
    """rmt, place by place in [memory ; tokens ; memory]: readers see readers, tokens the past, writers everything."""
    length = memory + tokens + memory
    stops = [memory] * memory + list(range(memory + 1, memory + tokens + 1)) + [length] * memory
    return [[(j, True) for j in range(stop)] for stop in stops]


def heads_of(x: Tensor, to: torch.nn.Linear, block, place: int | None, config) -> Tensor:
    """x (B, d), normalised, projected and turned to its place -> (B, H, d_h)."""
    heads = split_heads(affine(layer_norm(x, block.norm1), to)[:, None], config.n_heads)
    if place is not None:
        heads = complex_rope(heads, torch.tensor([place]), config.rope_base)
    return heads[:, :, 0]


def loop_layer(block, config, inputs: list[Tensor], seen: list[Seen]) -> list[Tensor]:
    """The block's outputs (B, d) for its inputs (B, d), one for each token."""
    outputs = []
    for i, x in enumerate(inputs):
        if i >= len(seen):
            break
        q = heads_of(x, block.to_q, block, i, config)
        sources = [(j, inputs[j] if flows else inputs[j].detach()) for j, flows in seen[i]]
        scores = torch.stack(
            [(q * heads_of(s, block.to_k, block, j, config)).sum(-1) / math.sqrt(config.head_dim) for j, s in sources]
        )
        shares = torch.exp(scores - scores.amax(0).detach())
        shares = shares / shares.sum(0)
        values = torch.stack([heads_of(s, block.to_v, block, None, config) for _, s in sources])
        mixed = (shares[..., None] * values).sum(0)
        x = x + affine(torch.cat(mixed.unbind(1), -1), block.out)
        outputs.append(x + feed_forward(layer_norm(x, block.norm2), block.ffn))
    return outputs


def loop_blocks(model, inputs: list[Tensor], seen: list[Seen]) -> list[Tensor]:
    for block in model.blocks:
        inputs = loop_layer(block, model.config, inputs, seen)
    return inputs


def loop_rmt(model, embedded: list[Tensor]) -> list[Tensor]:
    """The last layer's output for each token, segment after segment; only whole segments write."""
    config, outputs = model.config, []
    memory = [vector.expand(len(embedded[0]), -1) for vector in model.memory]
    for start in range(0, len(embedded), config.segment_len):
        segment = embedded[start : start + config.segment_len]
        found = loop_blocks(model, [*memory, *segment, *memory], seen_in_segment(len(segment), len(memory)))
        outputs += found[len(memory) : len(memory) + len(segment)]
        memory = [layer_norm(x, model.norm) for x in found[len(memory) + len(segment) :]]
    return outputs


def loop_baseline(model, tokens: Tensor) -> Tensor:
    """tokens (B, T) -> logits (B, T, V)."""
    embedded = list(model.embed.weight[tokens].unbind(1))
    if model.config.kind == "rmt":
        outputs = loop_rmt(model, embedded)
    else:
        outputs = loop_blocks(model, embedded, [seen_by(model.config, t) for t in range(len(embedded))])
    return affine(layer_norm(torch.stack(outputs, 1), model.norm), model.head)
