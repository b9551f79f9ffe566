"""``long-range``: what notebook 07 shows, trained and read: the bar of recall, the capacity of a bank, every task."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from .. import folders, long_range
from ..jobs import command_line
from .machine import describe_machine

GAPS = "gaps"  # the part that trains nothing


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", choices=(*long_range.PARTS, GAPS))
    parser.add_argument("--quick", action="store_true", help="a trial: few models, few steps, short streams")
    parser.add_argument("--out", type=Path,
                        help="folder of all runs and scores; what it holds is not made again (default: "
                             "runs/PART, or runs/PART-quick, in the course's own folder)")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    out = options.out or folders.home() / "runs" / (options.part + ("-quick" if options.quick else ""))
    machine = {"command": command_line(arguments), **describe_machine(torch.device("cpu"), threads=1)}
    try:
        if options.part == GAPS:
            result = long_range.read_gaps(out, options.jobs, machine, options.quick)
        else:
            result = long_range.run_part(options.part, out, options.jobs, machine, options.quick)
    except KeyboardInterrupt:
        print(f"go on with: {command_line(arguments)}", file=sys.stderr)
        raise
    print(long_range.describe(result))
    print(f"saved {out / options.part}.json")
    return 2 if result["failures"] else 0
