"""What the commands share in reading their options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..corpora import Corpus
from ..installed_text import installed_corpus
from ..own_text import own_text


class UsageError(ValueError):
    """A command line that asks for something impossible; the message is one line for people."""


def option_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options among ``names`` that were given."""
    found = {name: getattr(options, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value
            for name, value in found.items() if value is not None}


def text_of(path: Path | None) -> Callable[[str], Corpus]:
    """What gives a split of the installed text, or of a file or folder of the user's."""
    if path is None:
        return installed_corpus
    text = own_text(path)
    for note in text.notes:
        print(f"note: {text.name}: {note}", file=sys.stderr)
    return text.corpus


def lies_in(out: Path, folder: Path) -> bool:
    """Whether ``out`` would be read as a part of ``folder``; what is hidden would not."""
    out, folder = out.resolve(), folder.resolve()
    return out.is_relative_to(folder) and not any(part.startswith(".") for part in out.relative_to(folder).parts)
