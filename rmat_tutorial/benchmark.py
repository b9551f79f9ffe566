"""What a comparison measures besides scores: models that read with an altered past, and what a model costs."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .config import GATES
from .evaluation import PIECE
from .language_model import LanguageModel, Output
from .measuring import number_of_parameters, processor_seconds
from .model import RMAT
from .state import RMATState
from .tasks import Source
from .training import Trainer, TrainSettings
from .validate import require_choice, require_int

READ_TOKENS = (64, 4096, 32768)  # tokens read before the state is measured and generation begins
GENERATED = 32
REPEATS = 3
PARTS = 50  # of a long generation, each measured for itself

# An altered past, or another gate.


class FreshEvery(nn.Module):
    """``model`` that forgets everything after every ``tokens`` tokens, and reads on from a fresh state.

    An RMAT that is fresh every segment has its bank frozen at the learned slots: they are read and never written. Full
    attention that is fresh every so often sees no more at once than it saw in training.

    Raises:
        TypeError, ValueError: ``tokens`` is not an int of at least 1.
    """

    def __init__(self, model: LanguageModel, tokens: int) -> None:
        super().__init__()
        require_int("tokens", tokens, 1)
        self.model, self.tokens = model, tokens
        self.config, self.embed = model.config, model.embed

    def forward(self, tokens: Tensor, state: tuple[Any, int] | None = None) -> Output:
        """As the model's; the state is the model's, and how many tokens it has seen."""
        inner, seen = state or (None, 0)
        logits, start = [], 0
        while start < tokens.shape[1]:
            if seen == self.tokens:
                inner, seen = None, 0
            piece = tokens[:, start : start + self.tokens - seen]
            output = self.model(piece, inner)
            logits.append(output.logits)
            inner, seen, start = output.state, seen + piece.shape[1], start + piece.shape[1]
        return Output(torch.cat(logits, dim=1), (inner, seen))


def zeroed(bank: Tensor) -> Tensor:
    return torch.zeros_like(bank)


def shuffled(bank: Tensor) -> Tensor:
    """For each row the bank of the next one, for the last row that of the one before: never its own.

    Documents that are evaluated side by side are sorted by length, so the next one has not ended before this one.
    """
    rows = bank.shape[0]
    if rows < 2:
        raise ValueError("bank = 'shuffled' needs two or more rows side by side, got 1")
    return bank[[*range(1, rows), rows - 2]]


BANKS: dict[str, Callable[[Tensor], Tensor]] = {"zeroed": zeroed, "shuffled": shuffled}


class AlteredBank(nn.Module):
    """``model`` that reads each segment with another bank than its own, which is written as it would be otherwise.

    So what is read is all that changes: the bank of another document, for one, is as that document alone makes it.

    Args:
        bank: ``"zeroed"``, or ``"shuffled"``: that of the next row.

    Raises:
        ValueError: the model has no bank, or there is no such choice.
    """

    def __init__(self, model: LanguageModel, bank: str) -> None:
        super().__init__()
        require_choice("bank", bank, tuple(BANKS))
        _require_bank(f"bank = {bank!r}", model)
        self.model, self.alter = model, BANKS[bank]
        self.config, self.embed = model.config, model.embed

    def forward(self, tokens: Tensor, state: tuple[RMATState, RMATState] | None = None) -> Output:
        """As the model's; the state is the model's own, and the one that it reads the segment with."""
        own, read = state or (self.model.init_state(tokens.shape[0]), None)
        logits, start = [], 0
        while start < tokens.shape[1]:
            if own.position == 0:
                read = replace(own, memory=tuple(map(self.alter, own.memory)))
            piece = tokens[:, start : start + self.config.segment_len - own.position]
            output, own = self.model(piece, read), self.model(piece, own).state
            logits.append(output.logits)
            read, start = output.state, start + piece.shape[1]
        return Output(torch.cat(logits, dim=1), (own, read))


def with_gate(model: LanguageModel, gate: str) -> RMAT:
    """An RMAT with the weights of ``model`` whose gates open as ``gate`` says, whatever they were trained with.

    Raises:
        ValueError: the model has no gates, or there is no such choice.
    """
    require_choice("gate", gate, GATES)
    _require_bank(f"gate = {gate!r}", model)
    other = RMAT(replace(model.config, gate=gate)).to(model.embed.weight)
    other.load_state_dict(model.state_dict())
    return other.train(model.training)


def _require_bank(asked: str, model: LanguageModel) -> None:
    if not isinstance(model, RMAT) or "memory" not in model.config.paths:
        raise ValueError(f"{asked} needs an RMAT with the memory path, got a {type(model).__name__} without one")


# Costs.


def costs(
    model: LanguageModel, source: Source, settings: TrainSettings, read_tokens: Sequence[int] = READ_TOKENS
) -> dict[str, Any]:
    """What the model costs on this machine, for json.

    Args:
        source: what steps of training are taken on, by a new model of the same configuration.
        settings: of the training; they give the size of a batch.
        read_tokens: how many tokens are read before some are generated.

    Returns:
        ``parameters``; ``training`` and ``generation`` (of one row, a dict for each of ``read_tokens``), with
        ``tokens_per_second`` of processor time, and ``peak_bytes``, how far the process grew meanwhile
        (``None`` where the system does not say); and ``state_bytes`` of one row.
    """
    for read in read_tokens:
        require_int("read_tokens", read, 1)
    generation = [_generation_costs(model, read) for read in read_tokens]
    trainer = Trainer(model.config, source, settings)
    peak = peak_bytes(trainer.advance)
    seconds = median(processor_seconds(trainer.advance) for _ in range(REPEATS))
    tokens = settings.batch_size * settings.max_segments * model.config.segment_len
    return {
        "parameters": number_of_parameters(model),
        "training": {"tokens_per_second": tokens / seconds, "peak_bytes": peak},
        "generation": generation,
    }


def _generation_costs(model: LanguageModel, read: int) -> dict[str, Any]:
    # No cost depends on which tokens are read, and a text of the user's may be shorter.
    prompt = torch.randint(model.config.vocab_size, (1, read), generator=torch.Generator().manual_seed(0))
    state = None

    def generate() -> None:
        model.generate(prompt[:, -1:], GENERATED, state, seed=0)

    def read_and_generate() -> None:
        nonlocal state
        for piece in prompt[:, :-1].split(PIECE, dim=1):  # without the last, which generate reads
            state = model(piece, state).state
        generate()

    with torch.no_grad():
        peak = peak_bytes(read_and_generate)
        state_bytes = model(prompt[:, -1:], state).state.nbytes
    seconds = median(processor_seconds(generate) for _ in range(REPEATS))
    return {"read": read, "state_bytes": state_bytes, "tokens_per_second": GENERATED / seconds, "peak_bytes": peak}


def long_generation(model: LanguageModel, tokens: int, progress: bool = True) -> list[dict[str, Any]]:
    """Generate ``tokens`` in one stream, and measure each of ``PARTS`` parts of it.

    Returns:
        For each part, for json: ``from`` and ``to``, how many tokens were there before and after it;
        ``tokens_per_second`` of processor time; after it ``state_bytes``, and ``resident_bytes``, all that the process
        holds (``None`` where the system does not say).

    Raises:
        TypeError, ValueError: ``tokens`` is not an int of at least ``PARTS``.
    """
    require_int("tokens", tokens, PARTS)
    edges = [tokens * part // PARTS for part in range(PARTS + 1)]
    last, state, found = torch.zeros(1, 1, dtype=torch.int64), None, []
    with tqdm(total=tokens, desc="generating", unit="token", disable=not progress) as bar:
        for low, high in pairwise(edges):
            began = time.process_time()
            drawn, state = model.generate(last, high - low, state, seed=low, progress=False)
            seconds = time.process_time() - began
            last = drawn[:, -1:]
            found.append({"from": low, "to": high, "tokens_per_second": (high - low) / seconds,
                          "state_bytes": state.nbytes, "resident_bytes": resident_bytes()})
            bar.update(high - low)
    return found


def peak_bytes(function: Callable[[], object]) -> int | None:
    """How far the resident memory of this process rises above where it is, at most, during a call.

    ``None`` where the system does not say. With an allocator other than glibc's, what was freed before may be used
    again, unseen.
    """
    _give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (man 5 proc)
    except OSError:
        function()
        return None
    before = resident_bytes()
    function()
    return max(0, resident_bytes("VmHWM") - before)


def _give_back() -> None:
    """Let the system have what was freed, where the C library is glibc."""
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def resident_bytes(name: str = "VmRSS") -> int | None:
    """The resident memory of this process, or another line of its status; ``None`` where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
