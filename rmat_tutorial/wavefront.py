"""Segments read as a diagonal wavefront: layer ``l`` reads segment ``s`` while layer ``l + 1`` reads segment ``s - 1``.

A layer needs of a segment what the layer below made of it, and its own bank after the segment before. So all pairs of
layer and segment with one ``l + s`` wait for nothing but the diagonal before theirs: ``N`` layers read ``S`` segments
in ``S + N - 1`` steps in place of ``S N``, each of as many launches as one layer takes. The numbers are those of the
plain order, up to rounding; only dropout draws its masks in another order.

The layers of a diagonal stand side by side in the batch, the lowest first. What a layer does is the block's own code;
only its linear maps and norms are replaced, by some that know which rows are whose. At either end of the stream a
diagonal has fewer layers, and no row is read in vain.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import layer_norm

from .block import HybridBlock
from .config import RMATConfig
from .memory import MemoryWrite

OF_A_ROW = ("mix", "memory.queries")  # parameters that a block uses bare, where each row of the batch needs its own


class StackedLinear(nn.Linear):
    """Linear maps of ``G`` layers, weight ``(G, out, in)``: ``(G B, n, in)`` -> ``(G B, n, out)``."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.unflatten(0, (len(self.weight), -1))
        flat, matrices = rows.flatten(1, 2), self.weight.mT
        y = torch.bmm(flat, matrices) if self.bias is None else torch.baddbmm(self.bias[:, None], flat, matrices)
        return y.unflatten(1, rows.shape[1:3]).flatten(0, 1)


class StackedNorm(nn.LayerNorm):
    """LayerNorms of ``G`` layers, weight and bias ``(G, d)``: ``(G B, n, d)`` -> ``(G B, n, d)``."""

    def forward(self, x: Tensor) -> Tensor:
        rows = layer_norm(x, self.normalized_shape, eps=self.eps).unflatten(0, (len(self.weight), -1))
        return torch.addcmul(self.bias[:, None, None], rows, self.weight[:, None, None]).flatten(0, 1)


class SideBySide(HybridBlock):
    """The blocks of ``G`` layers at once, on rows of their own; it has no weights but those that it is called with."""

    def __init__(self, config: RMATConfig) -> None:
        with torch.device("meta"):
            super().__init__(config)
            for name, module in list(self.named_modules()):
                if isinstance(module, nn.Linear):
                    has_bias = module.bias is not None
                    self.set_submodule(name, StackedLinear(module.in_features, module.out_features, has_bias))
                elif isinstance(module, nn.LayerNorm):
                    self.set_submodule(name, StackedNorm(module.normalized_shape))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """As a block's, ``(G B, L, d)`` and ``(G B, m, d)``; arguments are unchecked."""
        x, _ = self.attend(x, memory)
        return x, self.write(memory, x)

    def follow(self, blocks: Sequence[HybridBlock]) -> None:
        """Stand for ``blocks`` in the next call: drop out if they do, and show each one's taps its rows."""
        if self.training != blocks[0].training:
            self.train(blocks[0].training)
        self.taps = [_TapsOfLayers(blocks)] if any(block.taps for block in blocks) else []


class _TapsOfLayers:
    """Hands to the taps of each block what its own rows did, the lowest layer first."""

    def __init__(self, blocks: Sequence[HybridBlock]) -> None:
        self.blocks = blocks

    def attended(
        self, q: Tensor, k: Tensor, q_mem: Tensor | None, k_mem: Tensor | None, weights: Tensor, bank: Tensor | None
    ) -> None:
        parts = map(self._parts, (q, k, q_mem, k_mem, weights, bank))
        for block, *bare, λ, own_bank in zip(self.blocks, *parts, strict=True):
            for tap in block.taps:
                tap.attended(*bare, λ[0], own_bank)

    def written(self, hidden: Tensor, write: MemoryWrite) -> None:
        writes = map(MemoryWrite._make, zip(*map(self._parts, write), strict=True))
        for block, own_hidden, own_write in zip(self.blocks, self._parts(hidden), writes, strict=True):
            for tap in block.taps:
                tap.written(own_hidden, own_write)

    def _parts(self, rows: Tensor | None) -> Sequence[Tensor | None]:
        return [None] * len(self.blocks) if rows is None else rows.chunk(len(self.blocks))


class Wavefront:
    """What an ``RMAT`` reads whole segments with in the order ``"wavefront"``."""

    def __init__(self, config: RMATConfig) -> None:
        self.length = config.segment_len
        self.layers = SideBySide(config)

    def read(
        self, blocks: Sequence[HybridBlock], x: Tensor, banks: Sequence[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Read ``S`` whole segments from their begin.

        Args:
            blocks: the layers, from the bottom up.
            x: ``(B, S L, d)``, embedded.
            banks: of each layer before the first segment, ``(B, m, d)``; none in a model without memory.

        Returns:
            The last block's output ``(B, S L, d)``, and the banks after the last segment.
        """
        segments, batch, n_layers = x.split(self.length, dim=1), x.shape[0], len(blocks)
        weights = stacked_weights(blocks, batch)
        outputs, after = [], []
        x, bank = segments[0][:0], banks[0][:0] if banks else None
        for step in range(len(segments) + n_layers - 1):
            low, high = max(0, step + 1 - len(segments)), min(step + 1, n_layers)
            if step < len(segments):
                x = torch.cat((segments[step], x))
            if banks and step < n_layers:
                bank = torch.cat((bank, banks[step]))
            self.layers.follow(blocks[low:high])
            x, bank = functional_call(self.layers, of_layers(weights, low, high, n_layers), (x, bank))
            if high == n_layers:
                x, output = x[:-batch], x[-batch:]
                outputs.append(output)
            if banks and step + 1 >= len(segments):
                bank, last = bank[batch:], bank[:batch]
                after.append(last)
        return torch.cat(outputs, dim=1), tuple(after)


def stacked_weights(blocks: Sequence[HybridBlock], batch: int) -> dict[str, Tensor]:
    """The parameters of ``N`` blocks by name, ``(N, ...)`` each; those ``OF_A_ROW`` for each row, ``(N B, ...)``."""
    found = {name: torch.stack([block.get_parameter(name) for block in blocks])
             for name, _ in blocks[0].named_parameters()}
    for name in OF_A_ROW:
        if name in found:
            found[name] = found[name].repeat_interleave(batch, dim=0)
    device = blocks[0].mix.device.type
    if torch.is_autocast_enabled(device):
        # Autocast would convert what is no parameter at every step anew. Banks are written without it.
        dtype = torch.get_autocast_dtype(device)
        found |= {name: weight.to(dtype) for name, weight in found.items()
                  if weight.dim() == 3 and not name.startswith("memory.")}
    return found


def of_layers(weights: dict[str, Tensor], low: int, high: int, n_layers: int) -> dict[str, Tensor]:
    """Those of the layers ``low .. high - 1`` among ``stacked_weights`` of ``n_layers``."""
    if (low, high) == (0, n_layers):
        return weights
    return {name: weight[low * len(weight) // n_layers : high * len(weight) // n_layers]
            for name, weight in weights.items()}
