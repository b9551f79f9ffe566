"""What the benchmark found, in print."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from ..claims import Claim
from .attention import DIRECTIONS, YARDSTICKS
from .models import RMAT_NAME
from .recurrence import PLAIN
from .rounds import Spread

MEBIBYTE = 2**20
HEADINGS = {"forward": "forward", "both": "forward and backward"}


def describe(result: Mapping[str, Any]) -> str:
    """A table for each case, then what was asked and what came, then what failed."""
    show = {"attention": _attention, "tiles": _tiles, "training": _models, "generation": _models, "recurrence": _models}
    lines: list[str] = []
    for case in result["cases"]:
        lines += [f"{case['part']}, {case['name']}", *show[case["part"]](case), ""]
    if not result["quick"]:
        lines += [Claim(**claim).text for claim in result["claims"]]
    return "\n".join([*lines, *(f"failed: {failure['job']}: {failure['reason']}" for failure in result["failures"])])


def _attention(case: Mapping[str, Any]) -> list[str]:
    lines = []
    for direction in DIRECTIONS:
        heads = "".join(f"{f'/ {name}':>23}" for name in YARDSTICKS)
        lines.append(f"  {HEADINGS[direction]:22}{'ms':>10}{heads}{'MiB':>8}{'TFLOP/s':>9}{'FLOP/B':>8}")
        for name, method in case["methods"].items():
            found = method[direction]
            if "reason" in found:
                lines.append(f"  {name:22}  {found['reason']}")
                continue
            seconds, cost = median(found["seconds"]), method["cost"]
            row = f"  {name:22}{1e3 * seconds:10.3f}"
            row += "".join(f"{spread_text(case['ratios'][direction][name].get(other)):>23}" for other in YARDSTICKS)
            peak = found["peak_bytes"]
            row += f"{'–' if peak is None else f'{peak / MEBIBYTE:.0f}':>8}"
            if cost is not None:
                flops, moved = cost[direction]["flops"], cost[direction]["bytes"]
                row += f"{flops / seconds / 1e12:9.3f}{flops / moved:8.0f}"
            lines.append(row)
    limits = case["ceilings"]
    return [*lines, f"  ceilings: {limits['flops_per_second'] / 1e12:.3f} TFLOP/s in a product of matrices, "
                    f"{limits['bytes_per_second'] / 1e9:.1f} GB/s in a copy"]


def spread_text(spread: Mapping[str, float] | None) -> str:
    """The median, and in brackets the quartiles."""
    return "–" if spread is None else Spread(**spread).text


def _tiles(case: Mapping[str, Any]) -> list[str]:
    lines = [f"  {'queries':>8}{'keys':>6}{'warps':>6}{'ms':>9}{'MB':>8}{'registers':>10}{'shared':>8}"]
    for one in case["choices"]:
        row = f"  {one['queries']:8}{one['keys']:6}{one['warps']:6}"
        if "reason" in one:
            lines.append(f"{row}  {one['reason']}")
        else:
            lines.append(f"{row}{1e3 * median(one['seconds']):9.3f}{one['bytes'] / 1e6:8.0f}{one['registers']!s:>10}"
                         f"{one['shared']!s:>8}")
    return lines


def _models(case: Mapping[str, Any]) -> list[str]:
    reference = f"/ {PLAIN if case['part'] == 'recurrence' else RMAT_NAME}"
    lines = [f"  {'':40}{'parameters':>12}{'tokens/s':>12}{reference:>23}"]
    for name, model in case["models"].items():
        if "reason" in model:
            lines.append(f"  {name:40}  {model['reason']}")
        else:
            lines.append(f"  {name:40}{model['parameters']:12,}{model['tokens_per_second']:12,.0f}"
                         f"{spread_text(model.get('ratio')):>23}")
    return lines
