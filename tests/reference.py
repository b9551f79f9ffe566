"""Independent references: the equations of the design, written a second time in loops and without masks.

Nothing here imports `rmat_tutorial`. Attention gives each query a list of the keys it may see instead of a mask, RoPE
is a multiplication by a complex number, the memory is written slot by slot. Everything stays in torch so that
autograd gives the reference gradients too; the tests call these in float64.
"""

import math

import torch
from torch import Tensor


def complex_rope(x: Tensor, positions: Tensor, base: float = 10000.0) -> Tensor:
    """x (..., L, d_h): pair (2i, 2i+1) as one complex number, times exp(i · p · base^(-2i/d_h))."""
    width = x.shape[-1]
    columns = []
    for i in range(width // 2):
        angle = positions.double() * base ** (-2 * i / width)
        turned = torch.complex(x[..., 2 * i].double(), x[..., 2 * i + 1].double()) * torch.exp(1j * angle)
        columns += [turned.real, turned.imag]
    return torch.stack(columns, -1)


def visible(path: str, position: int, n_keys: int, chunk_size: int) -> list[int]:
    """The keys that a query at `position` may see on one of the three paths."""
    if path == "memory":
        return list(range(n_keys))
    past = range(position + 1)
    return [j for j in past if path == "full" or j // chunk_size == position // chunk_size]


def loop_attention(q: Tensor, k: Tensor, v: Tensor, path: str, chunk_size: int = 1) -> tuple[Tensor, Tensor]:
    """q (B, H, L_q, d_h), k and v (B, H, L_k, d_h) -> output like q and weights (B, H, L_q, L_k).

    With more keys than queries the queries are the last positions.
    """
    batch, heads, n_queries, width = q.shape
    n_keys = k.shape[2]
    outputs, weights = [], []
    for b in range(batch):
        for h in range(heads):
            for i in range(n_queries):
                seen = visible(path, n_keys - n_queries + i, n_keys, chunk_size)
                scores = torch.stack([(q[b, h, i] * k[b, h, j]).sum() / math.sqrt(width) for j in seen])
                shares = torch.exp(scores - scores.max().detach())
                shares = shares / shares.sum()
                outputs.append(sum(share * v[b, h, j] for share, j in zip(shares, seen, strict=True)))
                row = q.new_zeros(n_keys)
                weights.append(row.index_put((torch.tensor(seen),), shares))
    return (torch.stack(outputs).view(batch, heads, n_queries, width),
            torch.stack(weights).view(batch, heads, n_queries, n_keys))


def loop_hybrid(q, k, v, q_mem, k_mem, v_mem, weights, *, chunk_size, paths) -> Tensor:
    """The λ-weighted sum of the named paths."""
    total = torch.zeros_like(q)
    for share, path in zip(weights, paths, strict=True):
        if path == "memory":
            total = total + share * loop_attention(q_mem, k_mem, v_mem, path)[0]
        else:
            total = total + share * loop_attention(q, k, v, path, chunk_size)[0]
    return total


def layer_norm(x: Tensor, norm: torch.nn.LayerNorm) -> Tensor:
    """(x - mean) / sqrt(variance + eps), scaled and shifted, over the last dimension."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def affine(x: Tensor, linear: torch.nn.Linear) -> Tensor:
    """x W (+ b)."""
    product = x @ linear.weight.T
    return product if linear.bias is None else product + linear.bias


def pooled_slots(hidden: Tensor, write_slots: int, queries: Tensor | None) -> list[Tensor]:
    """hidden (L, d), one row of the batch -> the `write_slots` pooled vectors (d,); mean per part without queries."""
    length, width = hidden.shape
    slots = []
    for j in range(write_slots):
        if queries is None:
            start, stop = j * length // write_slots, (j + 1) * length // write_slots
            members = hidden[start:stop] if stop > start else hidden[start : start + 1]
            slots.append(sum(members) / len(members))
        else:
            shares = torch.stack([torch.exp((queries[j] * row).sum() / math.sqrt(width)) for row in hidden])
            slots.append(sum(share * row for share, row in zip(shares / shares.sum(), hidden, strict=True)))
    return slots


def squash(gate: str, score: Tensor) -> Tensor:
    """The write gate: sigmoid, or clamp(s/6 + 1/2, 0, 1)."""
    return 1 / (1 + torch.exp(-score)) if gate == "sigmoid" else (score / 6 + 0.5).clamp(0, 1)


def loop_write(module, memory: Tensor, hidden: Tensor, *, write_slots: int, gate: str, carry: str, pool: str) -> dict:
    """One write of the gated FIFO memory, slot by slot; the parameters are read from `module`, nothing else is.

    memory (B, m, d), hidden (B, L, d) -> dict of memory (B, m, d), gate, pooled, carried, evicted (B, w, d).
    """
    slots = memory.shape[1]
    parts: dict[str, list] = {name: [] for name in ("memory", "gate", "pooled", "carried", "evicted")}
    for bank, rows in zip(memory, hidden, strict=True):
        queries = module.queries if pool == "attention" else None
        pooled = pooled_slots(layer_norm(rows, module.write_norm), write_slots, queries)
        carried = [bank[slots - write_slots + j] if carry == "newest" else bank[j] for j in range(write_slots)]
        gates, new = [], []
        for u, c in zip(pooled, carried, strict=True):
            s = torch.cat([u, layer_norm(c, module.read_norm)])
            z = squash(gate, affine(s, module.to_gate))
            gates.append(z)
            new.append((1 - z) * c + z * torch.tanh(affine(s, module.to_candidate)))
        survivors = [bank[j] for j in range(write_slots, slots)]
        rows_of = {"memory": survivors + new, "gate": gates, "pooled": pooled, "carried": carried,
                   "evicted": [bank[j] for j in range(write_slots)]}
        for name, value in rows_of.items():
            parts[name].append(torch.stack(value))
    return {name: torch.stack(value) for name, value in parts.items()}


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, L, d) -> (B, H, L, d_h); head h owns the features h·d_h to (h+1)·d_h."""
    width = x.shape[-1] // n_heads
    return torch.stack([x[..., h * width : (h + 1) * width] for h in range(n_heads)], 1)


def feed_forward(x: Tensor, ffn: torch.nn.Module) -> Tensor:
    """Linear, GELU (exact), Linear, with the two Linears found in `ffn`."""
    first, second = [layer for layer in ffn.modules() if isinstance(layer, torch.nn.Linear)]
    inner = affine(x, first)
    return affine(inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))), second)


def loop_block(block, config, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """One hybrid block over one segment, then the memory write. x (B, L, d), memory (B, m, d) or None."""
    heads = config.n_heads
    h = layer_norm(x, block.norm1)
    q, k, v = (split_heads(affine(h, to), heads) for to in (block.to_q, block.to_k, block.to_v))
    positions = torch.arange(x.shape[1])
    q_r, k_r = (complex_rope(t, positions, config.rope_base) for t in (q, k))
    k_mem = v_mem = None
    if memory is not None:
        read = layer_norm(memory, block.memory.read_norm)
        k_mem, v_mem = (split_heads(affine(read, to), heads) for to in (block.to_mem_k, block.to_mem_v))
    shares = torch.exp(block.mix) / torch.exp(block.mix).sum()
    mixed = loop_hybrid(q_r, k_r, v, q, k_mem, v_mem, shares, chunk_size=config.chunk_size, paths=config.paths)
    x = x + affine(torch.cat(mixed.unbind(1), -1), block.out)
    x = x + feed_forward(layer_norm(x, block.norm2), block.ffn)
    if memory is not None:
        memory = loop_write(block.memory, memory, x, write_slots=config.write_slots, gate=config.gate,
                            carry=config.carry, pool=config.pool)["memory"]
    return x, memory


def loop_model(model, tokens: Tensor) -> Tensor:
    """tokens (B, T) -> logits (B, T, V): segment after segment, from the learned slots. Only whole segments write."""
    config = model.config
    banks = [block.memory.slots.expand(len(tokens), -1, -1) if "memory" in config.paths else None
             for block in model.blocks]
    logits = []
    for start in range(0, tokens.shape[1], config.segment_len):
        x = model.embed.weight[tokens[:, start : start + config.segment_len]]
        for n, block in enumerate(model.blocks):
            x, banks[n] = loop_block(block, config, x, banks[n])
        logits.append(affine(layer_norm(x, model.norm), model.head))
    return torch.cat(logits, 1)
