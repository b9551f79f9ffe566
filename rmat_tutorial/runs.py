"""The folder of a run: its files, what is saved in them, and whether they belong to what is asked for."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from .folders import write_whole

DIGEST_BYTES = 32


class TrainingError(ValueError):
    """A run that cannot begin, go on, or be resumed; the message is one line for people."""


@dataclass(frozen=True)
class RunFolder:
    """The files of a run."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "state.pt"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "run.json"

    def holds_a_run(self) -> bool:
        return any(file.exists() for file in (self.state, self.metrics, self.model, self.report))

    def save(self, state: dict[str, Any], identity: dict[str, Any]) -> None:
        """Write the training state, and whose it is, behind its SHA-256, whole or not at all."""
        buffer = io.BytesIO()
        torch.save({"identity": identity, **state}, buffer)
        content = buffer.getvalue()
        write_whole(self.state, sha256(content).digest() + content)

    def read(self) -> dict[str, Any]:
        """What ``save`` wrote.

        Raises:
            TrainingError: there is nothing, or it is damaged.
        """
        if not self.state.is_file():
            raise TrainingError(f"nothing to resume: there is no {self.state}; start without resume")
        content = self.state.read_bytes()
        digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if sha256(content).digest() != digest:
            raise TrainingError(f"{self.state} is damaged and cannot be resumed; start again in another folder")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)

    def read_for(self, identity: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """What ``save`` wrote, after the check that it was written for this ``identity``.

        Args:
            settings: the default of each. A run that names no value was begun when there was no such setting, and has
                the default.

        Raises:
            TrainingError: there is no run, it is damaged, or it has other settings.
        """
        state = self.read()
        saved = state["identity"]
        if difference := first_difference({**saved, "settings": {**settings, **saved["settings"]}}, identity):
            raise TrainingError(
                f"{self.path} holds a run with other settings: {difference}; "
                "resume it with those it was begun with, or start another folder"
            )
        return state

    def seconds(self) -> float:
        """Time spent on the steps in the metrics file, over all resumptions."""
        return sum(line["seconds"] for line in self.lines())

    def lines(self) -> list[dict[str, Any]]:
        """The metrics of each step so far."""
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]

    def cut_metrics(self, step: int) -> None:
        """Drop the lines of steps after ``step``, and a last line that a kill cut short."""
        kept = []
        if self.metrics.exists():
            for line in self.metrics.read_text().splitlines():
                try:
                    if json.loads(line)["step"] > step:
                        break
                except (ValueError, KeyError, TypeError):
                    break
                kept.append(line + "\n")
        write_whole(self.metrics, "".join(kept).encode())


def first_difference(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    """The first entry in which two nested dictionaries differ, in words; empty when they do not."""
    for name in sorted({*saved, *wanted}):
        was, now = saved.get(name), wanted.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            if inner := first_difference(was, now, f"{prefix}{name}."):
                return inner
        elif was != now:
            return f"{prefix}{name} was {was!r}, is {now!r}"
    return ""
