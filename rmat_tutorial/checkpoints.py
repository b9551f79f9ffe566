"""Checkpoint files: safetensors, with the configuration in the header. Knows nothing of models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .folders import data, write_whole

HEADER = "rmat_tutorial"


class CheckpointError(ValueError):
    """A checkpoint that cannot be found, read or written; the message names the file and the reason."""


class Checkpoint(NamedTuple):
    """The contents of a checkpoint file: tensors by name, configuration, and what the writer added."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    extra: dict[str, Any]


def shipped_checkpoints() -> dict[str, Path]:
    """The checkpoints that come with the course, by name."""
    return {path.stem: path for path in sorted(data().glob("*.safetensors"))}


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The file that a shipped name or a path stands for.

    Raises:
        CheckpointError: it is neither.
        TypeError: it is no text and no path.
    """
    if not isinstance(name_or_path, (str, Path)):
        raise TypeError(f"name_or_path must be a shipped name or a path, got {name_or_path!r}")
    shipped = shipped_checkpoints()
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except OSError as error:  # such as a name that is too long for any file
        raise CheckpointError(f"no checkpoint {str(name_or_path)[:80]!r}: {error.strerror}") from error
    raise CheckpointError(
        f"no checkpoint {str(name_or_path)!r}: it is not a file, and the shipped ones are "
        f"{', '.join(map(repr, shipped)) or 'none'}"
    )


def write_checkpoint(
    path: str | Path, tensors: dict[str, Tensor], config: dict[str, Any], extra: dict[str, Any]
) -> None:
    """Write a checkpoint file through a temporary one beside it, so that an old file is replaced whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    # One entry: safetensors writes several in no fixed order, and equal models should give equal files.
    metadata = {HEADER: json.dumps({"config": config, "extra": extra})}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(contiguous, metadata))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}") from error


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a file that ``write_checkpoint`` wrote.

    Raises:
        CheckpointError: the file cannot be read, is damaged, or is not a checkpoint of this package.
    """
    with _opened(path) as (file, header):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return Checkpoint(tensors, **header)


def read_info(name_or_path: str | Path) -> dict[str, Any]:
    """The header of a checkpoint without its tensors: ``{"config": ..., "extra": ...}``.

    Raises:
        CheckpointError: as ``read_checkpoint``.
    """
    with _opened(find_checkpoint(name_or_path)) as (_, header):
        return header


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The open safetensors file and its header; what goes wrong inside becomes a ``CheckpointError``."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if HEADER not in metadata:
                raise CheckpointError(
                    f"{path} is a safetensors file, but not a checkpoint of this package: its header has no {HEADER!r}"
                )
            header = json.loads(metadata[HEADER])
            config, extra = header["config"], header["extra"]
            if not (isinstance(config, dict) and isinstance(extra, dict)):
                raise TypeError("config and extra must be JSON objects")
            yield file, {"config": config, "extra": extra}
    except (OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is no readable checkpoint (truncated, or of another kind): {reason}") from error
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} has a damaged header: {error}") from error
