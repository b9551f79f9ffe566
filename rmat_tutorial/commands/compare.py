"""``compare``: the RMAT and its peers, trained on text and scored side by side."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from .. import comparison, folders
from .options import UsageError, lies_in
from .resumable import make_result


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a trial: one seed, few steps, no tuning")
    parser.add_argument("--file", type=Path, metavar="PATH", help="the text (default: the installed one)")
    parser.add_argument("--out", type=Path,
                        help="folder of all runs and scores; what it holds is not made again (default: "
                             "runs/comparison, or runs/comparison-quick, in the course's own folder)")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    plan = comparison.QUICK if options.quick else comparison.FULL
    file = None if options.file is None else str(options.file.resolve())
    out = options.out or folders.home() / "runs" / ("comparison-quick" if options.quick else "comparison")
    if options.file is not None and lies_in(out, options.file):
        raise UsageError(f"--out {out} must lie outside of --file {options.file}, or the runs change their own text")
    plan = replace(plan, file=file)
    return make_result(lambda machine: comparison.compare(plan, out, options.jobs, machine), comparison.describe,
                       out / "comparison.json", arguments)
