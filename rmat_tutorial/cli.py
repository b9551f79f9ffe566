"""The command line: ``python -m rmat_tutorial train | evaluate | compare | long-range | bench | figure | doctor``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .commands import bench, compare, evaluate, figure, long_range, train
from .jobs import COMMAND, command_line, reason_of
from .training import TrainingStopped


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which takes no option for another that begins alike."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for a user's error, 130 when stopped."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options, arguments)
    except TrainingStopped as stop:
        again = [word for word in arguments if word != "--resume"]
        print(f"{stop}\nresume with: {command_line([*again, '--resume'])}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:
        print(f"{COMMAND} {options.command}: error: {reason_of(error)}", file=sys.stderr)
        return 2
    return 130


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog=COMMAND, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    train.add_options(commands.add_parser("train", help="train a model, with checkpoints and exact resumption"))
    evaluate.add_options(commands.add_parser("evaluate", help="score a model on streams of any length"))
    compare.add_options(commands.add_parser("compare", help="train the RMAT and its peers on text, and score them"))
    long_range.add_options(commands.add_parser("long-range", help="train and read what notebook 07 shows"))
    bench.add_options(commands.add_parser("bench", help="time attention and whole models beside other ways"))
    figure.add_options(commands.add_parser("figure", help="draw what long-range has measured"))
    doctor = commands.add_parser("doctor", help="check that this machine is ready for the course")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=run_doctor)
    return parser


def run_doctor(options: argparse.Namespace, arguments: list[str]) -> int:
    from . import doctor  # it must run where the rest of the package cannot be imported

    return doctor.main(options.json)
