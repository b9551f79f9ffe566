"""The picture of a choice of tile sizes: what it reads and computes, and how many programs a multiprocessor holds."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..canvas import MovingCanvas
from ..kernels.counting import Cost, Shape, Tiles, count
from ..kernels.occupancy import H100, WARP, Choice, Occupancy, estimate, occupancy
from ..plots import HIGHLIGHT, PATH_COLOURS

LARGE = Shape(batch=8, heads=16, length=2048, width=64, chunk_size=256, slots=64)
_MOST_PROGRAMS = 8
_SAME_MULTIPROCESSORS = ("H100", "H200")  # of one design: what is compiled for one is compiled for the other
_LIMITS = ("registers", "shared memory", "warps")
# By turns, so that programs side by side can be counted; orange where there is too little for one more.
_SHADES = {False: ("0.35", "0.6"), True: (HIGHLIGHT, "#f0a878")}


def _by_choice(sweep: Mapping[str, Any]) -> dict[Choice, dict[str, Any]]:
    """The choices of a sweep that ran, with the median of their seconds."""
    if (sweep["shape"], sweep["dtype"]) != (LARGE._asdict(), "bfloat16"):
        raise ValueError(f"sweep must be of {LARGE} in bfloat16, got {sweep['shape']} in {sweep['dtype']}")
    return {
        Choice(*(row[name] for name in Choice._fields)): dict(row) | {"seconds": median(row["seconds"])}
        for row in sweep["choices"] if "seconds" in row
    }


class TileSizes:
    """What the fused forward kernel costs in tiles of a size, in bfloat16 on a multiprocessor of an H100.

    Args:
        sweep: the measured tiles of a benchmark at ``LARGE``, as ``bench`` stores them, if there is one. Of a choice
            that is not in it the occupancy is estimated, and no time is said.
        device: what ``sweep`` was measured on. What was compiled for another kind of multiprocessor is not shown.

    Attributes:
        figure: the figure.
        cost, occupancy: what is shown; ``compulsory``: what no tiles can do without.
        spilled: whether a thread needs more registers than it can have.
        seconds: measured, or ``None``.

    Raises:
        ValueError: ``sweep`` is of another size or dtype.
    """

    def __init__(self, sweep: Mapping[str, Any] | None = None, device: str = "") -> None:
        self.measured = _by_choice(sweep) if sweep else {}
        self.device = device
        self.spilled = False
        self.compulsory = count("triton", LARGE, torch.bfloat16).forward
        self.cost: Cost = self.compulsory
        self.occupancy: Occupancy | None = None
        self.seconds: float | None = None
        self.figure = Figure(figsize=(11, 5.4))
        self._canvas = MovingCanvas(self.figure)
        grid = self.figure.add_gridspec(2, 2, width_ratios=[1, 1.15])
        upper, lower = self.figure.add_subplot(grid[0, 0]), self.figure.add_subplot(grid[1, 0])
        self._bytes = self._amounts(upper, "bytes asked for (GB)", self.compulsory.bytes / 1e9, 6)
        self._flops = self._amounts(lower, "operations (GFLOP)", self.compulsory.flops / 1e9, 110)
        self._lay_out_multiprocessor(self.figure.add_subplot(grid[:, 1]))

    def draw(self, queries: int, keys: int, warps: int, stages: int) -> str:
        """Show tiles of ``queries`` by ``keys``."""
        choice = Choice(queries, keys, warps, stages)
        self.cost = count("triton", LARGE, torch.bfloat16, Tiles(queries, keys)).forward
        row = self.measured.get(choice)
        self.seconds = row["seconds"] if row else None
        compiled = row if any(name in self.device for name in _SAME_MULTIPROCESSORS) else None
        if compiled:
            self.occupancy = occupancy(compiled["registers"], compiled["shared"], warps)
            self.spilled = compiled["spills"] > 0
        else:
            self.occupancy = estimate(choice, LARGE.width)
            self.spilled = self.occupancy.registers > H100.registers_per_thread
        for (bar, number), amount in ((self._bytes, self.cost.bytes), (self._flops, self.cost.flops)):
            bar.set_width(amount / 1e9)
            number.set(x=amount / 1e9, text=f" {amount / 1e9:.3g}")
        self._fill(choice)
        return f"{self._says_work(choice)} {self._says_room(compiled)} {self._says_time()}"

    def _fill(self, choice: Choice) -> None:
        """Draw each program's part of the registers, the shared memory and the warps."""
        needs = (
            min(self.occupancy.registers, H100.registers_per_thread) * choice.warps * WARP / H100.registers,
            (self.occupancy.shared + H100.shared_reserved) / H100.shared,
            choice.warps / H100.warps,
        )
        for bars, part, name in zip(self._programs, needs, _LIMITS, strict=True):
            is_limit = name == self.occupancy.limit
            for place, bar in enumerate(bars):
                bar.set(x=place * part, width=part, facecolor=_SHADES[is_limit][place % 2])
                bar.set_visible(place < self.occupancy.programs)
            if is_limit:
                self._next.set_bounds(self.occupancy.programs * part, bars[0].get_y(), part, bars[0].get_height())

    def _says_work(self, choice: Choice) -> str:
        again, more = self.cost.bytes / self.compulsory.bytes, self.cost.flops / self.compulsory.flops - 1
        return (
            f"Tiles of {choice.queries} by {choice.keys}: {self.cost.bytes / 1e9:.2f} GB are asked for, of memory or "
            f"the cache, {again:.1f} times what is compulsory. Whole tiles add {more:.0%} to the operations."
        )

    def _says_room(self, compiled: Mapping[str, Any] | None) -> str:
        programs, limit = self.occupancy.programs, self.occupancy.limit
        fits = "1 program fits" if programs == 1 else f"{programs} programs fit"
        verb = "is" if limit == "shared memory" else "are"
        if not self.spilled:
            spill = ""
        elif compiled:
            spill = f"; a thread spills {compiled['spills']} registers"
        else:
            spill = f"; a thread would need some {self.occupancy.registers}, and has {H100.registers_per_thread}"
        how = "Compiled" if compiled else "Estimated"
        return f"{how}: {fits} on a multiprocessor, {limit} {verb} the limit{spill}."

    def _says_time(self) -> str:
        if self.seconds is None:
            return "Time: not measured yet."
        slower = self.seconds / min(row["seconds"] for row in self.measured.values())
        return f"Time on {self.device}: {self.seconds * 1e3:.3f} ms, {slower:.2f} × the fastest measured."

    def _amounts(self, ax: Axes, title: str, compulsory: float, most: float) -> tuple:
        """A bar for what is compulsory, and one that moves, with its number."""
        colours = ["0.6", PATH_COLOURS["full"]]
        bars = ax.barh(["each once", "these tiles"], [compulsory, 0], color=colours, edgecolor="black", height=0.6)
        ax.text(compulsory, 0, f" {compulsory:.3g}", va="center")
        number = ax.text(0, 1, "", va="center")
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
        ax.set(xlim=(0, most), title=title)
        ax.set_xticks([])
        self._canvas.moves(bars[1], number)
        return bars[1], number

    def _lay_out_multiprocessor(self, ax: Axes) -> None:
        ax.set(xlim=(0, 1.9), ylim=(len(_LIMITS) - 0.4, -0.6), title="the programs of a multiprocessor",
               xlabel="taken; dashed: one too many")
        ax.set_yticks(range(len(_LIMITS)), ["registers", "shared\nmemory", "warps"])
        ax.set_xticks([0, 0.5, 1], ["0", "½", "all"])
        ax.grid(axis="y", visible=False)
        self._programs = [[Rectangle((0, row - 0.3), 0, 0.6, edgecolor="white", linewidth=2)
                           for _ in range(_MOST_PROGRAMS)] for row in range(len(_LIMITS))]
        for bars in self._programs:
            for bar in bars:
                ax.add_patch(bar)
            self._canvas.moves(*bars)
        self._next = ax.add_patch(Rectangle((0, 0), 0, 0, fill=False, edgecolor=HIGHLIGHT, linewidth=2, linestyle="--"))
        ax.axvline(1, color="black", linewidth=2)
        self._canvas.moves(self._next)
