"""``figure``: the picture of what ``long-range`` measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..folders import write_whole
from ..long_range import PARTS
from .options import UsageError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE.json", help="what long-range has written")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="the picture (default: beside the json)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    from .. import plots  # matplotlib takes a second to import, and no other command needs it
    from ..pictures.long_range import FIGURES

    result = part_of(options.file)
    out = options.out or options.file.with_suffix(".png")
    if (draw := FIGURES.get(result["part"])) is None:
        raise UsageError(f"{options.file} is of the part {result['part']!r}, of which there is no figure")
    plots.use_style()
    try:
        figure = draw(result)
    except ValueError as error:
        raise UsageError(f"{options.file}: {error}") from None
    figure.set_dpi(plots.DPI * plots.SHARPNESS)
    write_whole(out, plots.png(figure))
    print(f"saved {out}")
    return 0


def part_of(file: Path) -> dict[str, Any]:
    """The result in ``file``, of one of the parts of ``long-range``."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no json, or no text
        raise UsageError(f"{file} is no json: {error}") from None
    part = result.get("part") if isinstance(result, dict) else None
    if part not in PARTS:
        raise UsageError(f"{file} must hold a part of long-range, {', '.join(map(repr, PARTS))}, got {part!r}")
    return result
