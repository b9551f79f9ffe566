"""What was asked of a measurement, and what came of it."""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN = "not measured"
VERDICT = {True: "met", False: "NOT MET", None: UNKNOWN}


class Claim(NamedTuple):
    """A line of the bar: what was asked, what came, and whether that is enough; ``None`` where it was not measured."""

    asked: str
    found: str
    met: bool | None
