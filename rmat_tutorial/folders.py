"""Where things lie: what ships with the course, and what belongs to the learner."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The learner's own folder, ``$RMAT_HOME`` or ``~/.rmat_tutorial``, made when it is not there."""
    folder = Path(os.environ.get("RMAT_HOME") or Path.home() / ".rmat_tutorial")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def data() -> Path:
    """The folder ``data/`` of the repository: checkpoints and recorded measurements."""
    return Path(__file__).resolve().parent.parent / "data"
