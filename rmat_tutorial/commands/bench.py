"""``bench``: how fast attention and whole models are, beside other ways, and what the bars say."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import folders
from .machine import add_machine, prepare_machine
from .options import UsageError
from .resumable import make_result

PARTS = ("attention", "recurrence", "training", "generation", "tiles")


def add_options(parser: argparse.ArgumentParser) -> None:
    add_machine(parser)
    parser.add_argument("--quick", action="store_true", help="a trial of seconds, whose numbers mean nothing")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", default=(),
                        help=f"measure no more than these of {', '.join(PARTS)}; the file keeps what it has of others")
    parser.add_argument("--out", type=Path, metavar="FILE.json",
                        help="what is written (default: data/benchmarks/DEVICE.json in a clone of the course; of a "
                             "trial, and elsewhere, benchmarks/DEVICE.json in the course's own folder); after each "
                             "case an unfinished-FILE.json beside it, by default in the course's own folder")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    from .. import bench  # it imports much of torch that no other command needs

    device = prepare_machine(options)
    if device.type == "mps":
        raise UsageError("--device must be cpu or cuda for bench, got mps")
    if options.threads != 1:
        raise UsageError(f"--threads must be 1 for bench, which counts processor time, got {options.threads}")
    name = bench.result_name(device)
    out = options.out or default_folder(options.quick) / name
    if out.is_dir():
        raise UsageError(f"--out {out} must be a file, and is a folder")
    folder = folders.home() / "benchmarks" if options.out is None else out.parent
    unfinished = folder / f"unfinished-{'quick-' * options.quick}{out.name}"

    def make(machine: dict[str, Any]) -> dict[str, Any]:
        versions = machine["versions"] | versions_of(("triton", bench.PACKAGE))
        said = {**machine, "versions": versions, "kind": device.type, "quick": options.quick}
        return bench.run_cases(bench.cases(device, options.quick), out, unfinished, said, options.only)

    return make_result(make, bench.describe, out, arguments, device)


def default_folder(quick: bool) -> Path:
    """``data/benchmarks`` of the clone; the course's own folder where there is none, and for trials."""
    if not quick:
        try:
            return folders.data() / "benchmarks"
        except FileNotFoundError:
            pass
    return folders.home() / "benchmarks"


def versions_of(packages: tuple[str, ...]) -> dict[str, str | None]:
    """The versions of packages that the benchmark can do without; ``None`` where one is not installed."""
    found: dict[str, str | None] = dict.fromkeys(packages)
    for name in found:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
