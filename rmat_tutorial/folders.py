"""Where things lie: what ships with the course, and what belongs to the learner."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The learner's own folder, ``$RMAT_HOME`` or ``~/.rmat_tutorial``, made when it is not there.

    Raises ``OSError`` when the folder cannot be made or written.
    """
    folder = Path(os.environ.get("RMAT_HOME") or Path.home() / ".rmat_tutorial").expanduser()
    remedy = "set the environment variable RMAT_HOME to a folder that you can write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder for your answers, {folder}, cannot be made ({error.strerror}): {remedy}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"the folder for your answers, {folder}, cannot be written: {remedy}")
    return folder


def data() -> Path:
    """The folder ``data/`` of the repository: checkpoints and recorded measurements.

    Raises ``FileNotFoundError`` when the package was installed without its repository around it.
    """
    folder = Path(__file__).resolve().parent.parent / "data"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}: the course must be installed from its repository with pip install -e ."
        )
    return folder


def write_whole(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it, so that no reader and no kill ever sees half of it.

    Raises ``OSError`` when it cannot be written, or when ``path`` is there and is not a file.
    """
    if path.exists() and not path.is_file():  # os.replace would put a file in the place of a device
        raise OSError(f"{path} is there and is not a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
