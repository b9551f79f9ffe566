"""Which input moves which output, as a picture: how a leak of the future is seen."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from ..plots import attention_map


def influence_maps(panels: Mapping[str, Tensor]) -> Figure:
    """Matrices ``(L, L)`` of how far input j moves output i, side by side, by their titles.

    One colour scale serves all, from 0 to the largest value of any; an exact zero is marked with a 0.
    """
    largest = max(panel.max() for panel in panels.values())
    figure, axes = plt.subplots(1, len(panels), figsize=(10, 10 / len(panels) + 0.4), squeeze=False)
    for ax, (title, panel) in zip(axes[0], panels.items(), strict=True):
        labels = [str(i) for i in range(len(panel))]
        attention_map(ax, panel / largest, labels, labels, title)
        ax.set(xlabel="input j", ylabel="output i")
        for i, j in (panel == 0).nonzero().tolist():
            ax.text(j, i, "0", ha="center", va="center", size=12)
    return figure
