"""Whole models in training and in generation: tokens per second of the RMAT and of others of its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from ..baselines import matching
from ..config import RMATConfig
from ..jobs import reason_of
from ..language_model import LanguageModel, build
from ..measuring import number_of_parameters
from ..sampling import sample
from .published import PACKAGE, published
from .rounds import Effort, Measured, Run, measure, per_second, ratio

RMAT_NAME = "rmat, auto"
NAIVE = "rmat, naive loop"
FULL = "full attention"


class Sizes(NamedTuple):
    """What models are measured with.

    Attributes:
        config: of the RMAT; the others match it.
        backends: of the RMAT in training, beside ``auto``.
        batch_tokens: of a step of training, so many tokens or one stream.
        new_tokens: that are generated.
        precision: what matrices are multiplied in, in training: ``torch.float32`` or, by autocast, ``torch.bfloat16``.
    """

    config: RMATConfig
    backends: tuple[str, ...]
    batch_tokens: int
    new_tokens: int
    precision: torch.dtype


def contestants(sizes: Sizes, device: torch.device, backends: Sequence[str]) -> tuple[dict[str, nn.Module], dict]:
    """The models by name, on the device, and why others are missing."""
    torch.manual_seed(0)
    models: dict[str, nn.Module] = {}
    for backend in ("auto", *backends):
        models[f"rmat, {backend}"] = build(replace(sizes.config, backend=backend))
    models[FULL] = build(matching(sizes.config, "full"))
    reasons = {}
    try:
        models[PACKAGE] = published(sizes.config)
    except ImportError as error:
        reasons[PACKAGE] = reason_of(error)
    return {name: model.to(device) for name, model in models.items()}, reasons


def measure_training(sizes: Sizes, length: int, device: torch.device, effort: Effort, bar: tqdm) -> dict[str, Any]:
    """Tokens per second of forward and backward through streams of ``length`` tokens, without the optimiser.

    Returns:
        For json: ``tokens`` of a stream, ``batch_size``, and ``models`` by name, each with ``parameters``, ``seconds``
        of each round, ``tokens_per_second`` and their ``ratio`` to those of the RMAT; or with the ``reason`` why not.
    """
    models, reasons = contestants(sizes, device, sizes.backends)
    batch = max(1, sizes.batch_tokens // length)
    tokens = random_tokens(batch, length + 1, sizes.config.vocab_size, device)
    runs = {name: partial(learn, model.train(), tokens, sizes.precision) for name, model in models.items()}
    measured = measure(runs, device, effort, bar)
    return {"tokens": length, "batch_size": batch,
            "models": speeds(sizes_of(models), measured, batch * length, RMAT_NAME, reasons)}


def random_tokens(batch: int, length: int, vocab_size: int, device: torch.device) -> Tensor:
    """What is read: no cost depends on which tokens these are."""
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(0)).to(device)


def learn(model: nn.Module, tokens: Tensor, precision: torch.dtype) -> None:
    """The gradient of the mean loss of predicting each token but the first; it replaces that of the call before."""
    model.zero_grad(set_to_none=True)
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        if isinstance(model, LanguageModel):
            loss = cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1).float(), tokens[:, 1:].flatten())
        else:
            loss, _ = model(tokens, return_loss=True)
    loss.backward()


def measure_generation(sizes: Sizes, length: int, device: torch.device, effort: Effort, bar: tqdm) -> dict[str, Any]:
    """Tokens per second of generation, one stream, in the middle of the segment after ``length`` tokens.

    Beside the RMAT, which reads each new token once and keeps the keys and values of its segment, a naive loop: the
    same model reads the begun segment anew for each token. Full attention keeps all keys and values. The published
    package generates as it does by itself: it reads the begun segment anew. Weights are float32.

    Args:
        length: of what is read before the segment, whole segments.

    Returns:
        As ``measure_training``, with ``new_tokens`` in place of ``batch_size``.
    """
    models, reasons = contestants(sizes, device, ())
    half = max(1, sizes.config.segment_len // 2)
    tokens = random_tokens(1, length + half, sizes.config.vocab_size, device)
    runs: dict[str, Run] = {}
    for name, model in models.items():
        model.eval()
        if isinstance(model, LanguageModel):
            runs[name] = continuing(model, tokens, sizes.new_tokens)
        else:
            runs[name] = as_published(model, tokens, length, sizes.new_tokens)
    models[NAIVE] = models[RMAT_NAME]
    runs[NAIVE] = naively(models[NAIVE], tokens, length, sizes.new_tokens)
    measured = measure(runs, device, effort, bar)
    return {"tokens": length, "new_tokens": sizes.new_tokens,
            "models": speeds(sizes_of(models), measured, sizes.new_tokens, RMAT_NAME, reasons)}


def sizes_of(models: dict[str, nn.Module]) -> dict[str, int]:
    """How many parameters each has."""
    return {name: number_of_parameters(model) for name, model in models.items()}


def speeds(
    parameters: dict[str, int], measured: Measured, tokens: int, reference: str, reasons: dict[str, str]
) -> dict[str, Any]:
    """Tokens per second of each model, and over those of ``reference``.

    Args:
        parameters: of each model, how many.
        tokens: of a call.
        reasons: why some are not among those measured.
    """
    found: dict[str, Any] = {name: {"reason": reason} for name, reason in {**reasons, **measured.reasons}.items()}
    for name, seconds in measured.seconds.items():
        found[name] = {"parameters": parameters[name], "seconds": seconds,
                       "tokens_per_second": per_second(tokens, seconds)}
        if reference in measured.seconds:
            found[name]["ratio"] = ratio(measured.seconds[reference], seconds)._asdict()
    return found


@torch.no_grad()
def continuing(model: LanguageModel, tokens: Tensor, new_tokens: int) -> Run:
    """Generation by ``model`` after ``tokens`` ``(1, n)``, of which all but the last are read here."""
    state = None
    for piece in tokens[:, :-1].split(model.config.segment_len, dim=1):
        state = model(piece, state).state
    return lambda: model.generate(tokens[:, -1:], new_tokens, state, seed=0, progress=False)


@torch.no_grad()
def naively(model: LanguageModel, tokens: Tensor, length: int, new_tokens: int) -> Callable[[], Tensor]:
    """Generation that reads the segment from its begin, at ``length``, for each of its new tokens, which it returns."""
    _, before = model(tokens[:, :length])

    @torch.no_grad()
    def generate() -> Tensor:
        generator = torch.Generator(tokens.device).manual_seed(0)
        segment = tokens[:, length:]
        for _ in range(new_tokens):
            drawn = sample(model(segment, before).logits[:, -1], 1.0, None, generator)
            segment = torch.cat((segment, drawn), dim=1)
        return segment[:, -new_tokens:]

    return generate


@torch.no_grad()
def as_published(model: Any, tokens: Tensor, length: int, new_tokens: int) -> Run:
    """The package's own generation after ``tokens``, of which those before ``length`` are read here."""
    memories, xl_memories = None, None
    for piece in tokens[:, :length].split(model.seq_len, dim=1):
        _, memories, xl_memories = model.transformer(piece, memories, xl_memories=xl_memories)
    begun = tokens[:, length:]
    return lambda: model.generate(begun, length=begun.shape[1] + new_tokens, memories=memories,
                                  xl_memories=xl_memories)
