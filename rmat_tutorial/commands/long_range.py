"""``long-range``: what notebook 07 shows, trained and read: the bar of recall, the capacity of a bank, every task."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from .. import folders, long_range
from ..long_range_claims import describe
from .resumable import CPU, make_result

GAPS = "gaps"  # the part that trains nothing
ALONE = "large"  # the part that says how fast it was


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", choices=(*long_range.PARTS, GAPS))
    parser.add_argument("--quick", action="store_true", help="a trial: few models, few steps, short streams")
    parser.add_argument("--out", type=Path,
                        help="folder of all runs and scores; what it holds is not made again (default: "
                             "runs/PART, or runs/PART-quick, in the course's own folder)")
    parser.add_argument("--jobs", type=int, help=f"processes side by side (default: 1 for {ALONE}, else 2)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    out = options.out or folders.home() / "runs" / (options.part + ("-quick" if options.quick else ""))
    jobs = options.jobs
    if jobs is None:
        jobs = 1 if options.part == ALONE else 2

    def make(machine: dict[str, Any]) -> dict[str, Any]:
        if options.part == GAPS:
            return long_range.read_gaps(out, jobs, machine, options.quick)
        return long_range.run_part(options.part, out, jobs, machine, options.quick)

    on_a_gpu = options.part == ALONE and long_range.large_is_on_cuda(options.quick)
    return make_result(make, describe, out / f"{options.part}.json", arguments,
                       torch.device("cuda") if on_a_gpu else CPU)
