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

    @property
    def text(self) -> str:
        """The verdict, what was asked and what came: a reason where nothing did, and no more where none is known."""
        said = self.found.removeprefix(UNKNOWN) if self.found.startswith(UNKNOWN) else f": {self.found}"
        return f"{VERDICT[self.met]:>12}  {self.asked}{said}"
