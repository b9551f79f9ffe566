"""The machine that a command runs on: how it is chosen, and what is said of it beside a result."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .options import UsageError


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; results are exact for one number of them")


def prepare_machine(options: argparse.Namespace) -> torch.device:
    """The device that the options name, after a check that it is there; sets the number of threads."""
    if options.threads < 1:
        raise UsageError(f"--threads must be at least 1, got {options.threads}")
    torch.set_num_threads(options.threads)
    try:
        device = torch.device(options.device)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device {options.device!r}; use cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {options.device} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps is not there; use --device cpu")
    return device


def describe_machine(device: torch.device, threads: int) -> dict[str, Any]:
    """What a result was computed on, and with."""
    versions = {"python": platform.python_version(), "torch": version("torch"), "numpy": version("numpy")}
    return {"device": device_name(device), "threads": threads, "versions": versions}


def device_name(device: torch.device) -> str:
    """What the machine calls its processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
