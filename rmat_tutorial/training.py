"""A plain trainer: AdamW, warm-up and cosine, clipping, a curriculum over segments, exact resumption.

Every random choice of a step follows from (seed, step) alone, and whatever else a step begins with is saved. So a run
that was killed and resumed takes the same steps as one that was not, and on a CPU with one thread ends with the same
weights, bit for bit.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .backprop import BACKPROPS, PRECISIONS, Reading, backpropagate
from .config import ModelConfig
from .graphs import Graphs
from .language_model import LanguageModel, build
from .model import RMAT
from .runs import RunFolder, TrainingError
from .state import SegmentCache, State
from .tasks import IGNORED, TASKS, PlacedTask, Source, VariedTask
from .validate import require_choice, require_int, require_number, require_seed

FRESH = 3.0  # nats
BAR_HIDES = ("step", "lr", "seconds", "tokens", "by_segments_back")
OF_THE_MODEL = ("config", "initial")  # what a state refers to and does not own
SMOOTHING = 0.95  # of the running mean: it looks back about twenty steps


class TrainingStopped(KeyboardInterrupt):
    """The run was asked to stop, has finished its step and saved; ``resume=True`` goes on from there."""

    def _render_traceback_(self) -> list[str]:
        # What a notebook shows of it: the person who stopped it knows where.
        return [str(self)]


@dataclass(frozen=True)
class TrainSettings:
    """What decides the outcome of a run, besides model and source.

    Attributes:
        steps: optimiser steps.
        batch_size: streams per step.
        lr: highest learning rate; it rises linearly for ``warmup`` steps and falls to 0 along a cosine.
        weight_decay: AdamW's, on the matrices of linear maps only.
        clip: the gradient's norm is cut to this.
        max_segments: a stream has at most so many segments.
        grow_below: with a loss threshold, streams have 1 to n segments, drawn anew each step so that short ones are
            not forgotten, and n doubles from 1 to ``max_segments`` whenever the running mean of the loss is below
            the threshold. ``None``: every stream has ``max_segments`` segments from the start.
        restart: probability with which a row of the batch begins anew in a step, at a random place and from a fresh
            state. Otherwise it reads on in the text from where it stopped in the step before, with the state that it
            had there, detached (truncated back-propagation through time). Streams of tasks end: there it is the
            probability with which a batch is read from a fresh state, and otherwise from the one that the last batch
            left, once streams have ``max_segments``. So a bank is met that has been written far more often than one
            stream writes it. 1: every row begins anew in every step.
        ragged: streams of more than one segment end anywhere in their last one, so that a model of tasks, whose
            questions come last, learns to answer at every place of a segment and not only at its end.
        vary_facts: of recall, rewrite and stories: each step draws how many facts its streams have, up to as many as
            the task says, see ``VariedTask``.
        gate_penalty: weight of the mean write gate in the loss, from step ``gate_penalty_from`` on.
        gate_margin: what is added to the scores of the gates in that mean. Above 0, a gate that is shut has to be shut
            with a margin, so that what was not met in training does not open it.
        backprop: through the ``"whole"`` stream at once; the same gradient by ``"replay"``, in the memory of one
            segment; or ``"truncated"``, cut every ``backprop_segments`` segments. See ``backprop.py``.
        backprop_segments: of ``"truncated"``, and ``None`` otherwise.
        precision: ``"float32"``, or ``"bfloat16"`` for the products of matrices in the forward pass. Weights,
            optimiser, writes to the bank, state, loss and checkpoints are float32 in both.
        seed: of weights, batches and dropout.
    """

    steps: int = 1000
    batch_size: int = 64
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.01
    clip: float = 1.0
    max_segments: int = 16
    grow_below: float | None = 0.3
    restart: float = 1.0
    ragged: bool = False
    vary_facts: bool = False
    gate_penalty: float = 3.0
    gate_penalty_from: int = 500
    gate_margin: float = 0.0
    backprop: str = "whole"
    backprop_segments: int | None = None
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "max_segments"):
            require_int(name, getattr(self, name), 1)
        for name in ("warmup", "gate_penalty_from"):
            require_int(name, getattr(self, name), 0)
        require_seed("seed", self.seed)
        for name in ("lr", "clip"):
            require_number(name, getattr(self, name), 0.0, above=True)
        for name in ("weight_decay", "gate_penalty", "gate_margin", "restart"):
            require_number(name, getattr(self, name), 0.0)
        if self.restart > 1.0:
            raise ValueError(f"restart must be a probability, from 0 to 1, got {self.restart}")
        if self.grow_below is not None:
            require_number("grow_below", self.grow_below, 0.0, above=True)
        require_choice("backprop", self.backprop, BACKPROPS)
        if self.backprop == "truncated":
            require_int("backprop_segments", self.backprop_segments, 1)
        elif self.backprop_segments is not None:
            raise ValueError(
                f"backprop_segments must be None with backprop {self.backprop!r}, it belongs to 'truncated'; "
                f"got {self.backprop_segments!r}"
            )
        require_choice("precision", self.precision, PRECISIONS)

    def learning_rate(self, step: int) -> float:
        """The learning rate of ``step``, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))


class Curriculum(NamedTuple):
    """How long streams may be by now, and the running mean of the loss since they grew to that.

    The mean begins at ``FRESH`` nats, above a guess, so that a few low losses are not yet a reason to grow.
    """

    segments: int
    loss: float = FRESH

    @classmethod
    def begin(cls, settings: TrainSettings) -> Curriculum:
        return cls(settings.max_segments if settings.grow_below is None else 1)

    def draw(self, settings: TrainSettings, generator: torch.Generator) -> int:
        """Segments of this step's streams."""
        if settings.grow_below is None:
            return self.segments
        return int(torch.randint(1, self.segments + 1, (), generator=generator))

    def after(self, loss: float, settings: TrainSettings) -> Curriculum:
        """The curriculum of the next step."""
        threshold = -math.inf if settings.grow_below is None else settings.grow_below
        return Curriculum(*next_longest(self.segments, self.loss, loss, threshold, settings.max_segments))


def next_longest(longest: int, mean: float, loss: float, threshold: float, most: int) -> tuple[int, float]:
    """One step of the curriculum: how many segments streams may have next, and the running mean of the loss.

    Streams grow, twice as long and up to ``most``, when the mean with this ``loss`` in it is below ``threshold``. The
    mean then begins anew.
    """
    mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
    if mean < threshold and longest < most:
        return min(2 * longest, most), FRESH
    return longest, mean


class Streams(NamedTuple):
    """Where the rows of a batch stopped: in text the next byte of each, ``(B,)``, and the detached state before it."""

    places: Tensor | None
    state: State

    def values(self) -> dict[str, Any]:
        """Tensors and numbers for a file, without what the model has anyway."""
        state = {field.name: getattr(self.state, field.name) for field in fields(self.state)
                 if field.name not in OF_THE_MODEL}
        return {"places": self.places, "state": {**state, "cache": [tuple(layer) for layer in self.state.cache]}}

    @classmethod
    def from_values(cls, values: dict[str, Any], fresh: State, device: torch.device) -> Streams:
        """What ``values`` gave, for the model whose state for as many rows is ``fresh``."""
        layers = zip(fresh.cache, values["state"]["cache"], strict=True)
        cache = tuple(type(layer)(*tensors) for layer, tensors in layers)
        return cls(values["places"], replace(fresh, **{**values["state"], "cache": cache}).to(device))


class Trainer:
    """A model in training: everything that a step changes, and the step."""

    def __init__(
        self, config: ModelConfig, source: Source, settings: TrainSettings, device: torch.device | str = "cpu",
        compiled: bool = False, order: str = "segments", graphs: bool = False,
    ) -> None:
        if source.vocab_size != config.vocab_size:
            raise TrainingError(f"vocab_size must be {source.vocab_size}, the source's, got {config.vocab_size}")
        if settings.vary_facts and not isinstance(source, VariedTask):
            varied = ", ".join(name for name, task in TASKS.items() if issubclass(task, VariedTask))
            raise TrainingError(f"vary_facts must be False for {source.describe()['kind']}, it is for {varied}")
        if settings.backprop == "replay" and config.kind == "full":
            raise TrainingError(
                "backprop must be 'whole' or 'truncated' for kind 'full', got 'replay', which keeps a state for each "
                "segment, and here a state has the keys and values of all tokens before"
            )
        self.source, self.settings, self.device = source, settings, torch.device(device)
        torch.manual_seed(settings.seed)
        self.model = build(config).to(self.device)
        if order != "segments":
            set_order(self.model, order)
        if compiled:
            compile_segments(self.model)
        self.graphs = captured_steps(self.model, settings) if graphs else None
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, settings.weight_decay), lr=settings.lr)
        self.curriculum = Curriculum.begin(settings)
        self.streams: Streams | None = None
        self.step = 0
        for segments in (self.curriculum.segments, settings.max_segments):
            # A stream that the source cannot make is found now and not when the curriculum gets there.
            length = segments * config.segment_len
            task = source.lighter(length, torch.Generator()) if settings.vary_facts else source
            task.stream(1, length, 1, torch.Generator())

    def advance(self) -> dict[str, Any]:
        """Take one step; returns its line of metrics.

        Raises:
            TrainingError: the loss, the gradient or a state is not finite. The weights are as before the step.
        """
        began = time.perf_counter()
        settings = self.settings
        generator = step_generator(settings.seed, self.step)
        segments = self.curriculum.draw(settings, generator)
        length = segments * self.model.config.segment_len
        if settings.ragged and segments > 1:
            length -= int(torch.randint(self.model.config.segment_len, (), generator=generator))
        places, state, distances = None, None, None
        if isinstance(self.source, PlacedTask):
            task = self.source.lighter(length, generator) if settings.vary_facts else self.source
            tokens, targets, distances = next(task.pieces(settings.batch_size, length, length, generator))
            state = self._left_by_the_last(generator)
        elif settings.restart == 1:
            tokens, targets = self.source.batch(settings.batch_size, length, generator)
        else:
            places, state = self._rows(length, generator)
            tokens, targets = self.source.read(places, length)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            reading = self._backpropagate(tokens.to(self.device), targets.to(self.device), state)
            score = reading.score
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
            if not (math.isfinite(score.loss) and torch.isfinite(norm)):
                raise FloatingPointError(f"the loss is {score.mean_loss:.4g} and its gradient's norm {norm:.4g}")
        except FloatingPointError as error:
            raise TrainingError(f"step {self.step + 1}: {error}; a lower lr or clip may help") from None
        lr = settings.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        if settings.restart < 1:
            self.streams = Streams(None if places is None else places + length, reading.state)
        self.step += 1
        metrics = {"step": self.step, "loss": score.mean_loss, self.source.metric: score.value(self.source.metric),
                   "segments": segments, "max_segments": self.curriculum.segments, "tokens": length,
                   "gate": reading.gate, "lr": lr, "seconds": round(time.perf_counter() - began, 4)}
        if distances is not None:
            metrics["by_segments_back"] = by_segments_back(
                reading.right.cpu(), targets, distances, self.model.config.segment_len
            )
        self.curriculum = self.curriculum.after(score.mean_loss, settings)
        return metrics

    def _rows(self, length: int, generator: torch.Generator) -> tuple[Tensor, State | None]:
        """Where each row reads ``length`` tokens in this step, ``(B,)``, and the state that it reads them with."""
        anew = self.source.places(self.settings.batch_size, length, generator)
        begins = torch.rand(self.settings.batch_size, generator=generator) < self.settings.restart
        if self.streams is None:
            return anew, None
        places, state = self.streams
        begins |= places + length >= len(self.source)  # the last target is one byte further
        return torch.where(begins, anew, places), state.reset(begins)

    def _left_by_the_last(self, generator: torch.Generator) -> State | None:
        """The state that streams of a task are read with in this step; ``None`` where they begin anew."""
        growing = self.curriculum.segments < self.settings.max_segments
        if self.settings.restart == 1 or self.streams is None or growing:
            return None
        begins = torch.rand((), generator=generator) < self.settings.restart
        return None if begins else self.streams.state

    def _backpropagate(self, tokens: Tensor, targets: Tensor, state: State | None) -> Reading:
        """Read a batch and leave its gradient in the parameters."""
        self.model.train()
        settings = self.settings
        return backpropagate(
            self.model, tokens, targets, state, backprop=settings.backprop,
            backprop_segments=settings.backprop_segments, precision=settings.precision,
            gate_penalty=settings.gate_penalty if self.step >= settings.gate_penalty_from else None,
            gate_margin=settings.gate_margin, learn=self.graphs and self.graphs.learn,
        )

    def state(self) -> dict[str, Any]:
        """All that ``restore`` needs."""
        return {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                "curriculum": tuple(self.curriculum), "streams": self.streams and self.streams.values()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to, or on from, what ``state`` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curriculum = Curriculum(*state["curriculum"])
        fresh = self.model.init_state(self.settings.batch_size)
        self.streams = state["streams"] and Streams.from_values(state["streams"], fresh, self.device)
        self.step = state["step"]


def set_order(model: LanguageModel, order: str) -> None:
    """Let an RMAT read its segments in ``order``.

    Raises:
        TrainingError: the model is of another kind.
    """
    if not isinstance(model, RMAT):
        raise TrainingError(f"order must be 'segments' for kind {model.config.kind!r}, {order!r} is for the RMAT")
    model.order = order


def captured_steps(model: LanguageModel, settings: TrainSettings) -> Graphs:
    """CUDA graphs of the windows that an RMAT is trained on.

    Raises:
        TrainingError: there can be none of this model or on this device, or there would be too many of them.
    """
    if settings.backprop == "replay":
        raise TrainingError("graphs must be False with backprop 'replay', which goes through each segment in two parts")
    if settings.ragged:
        raise TrainingError("graphs must be False with ragged: each length of a stream would be captured for itself")
    try:
        return Graphs(model)
    except (TypeError, ValueError) as error:
        raise TrainingError(f"graphs must be False here: {error}") from None


def compile_segments(model: LanguageModel) -> None:
    """Let torch.compile fuse what an RMAT's blocks do with a segment; values agree as far as roundings do.

    A piece of a segment is read as it is: each place and length would be compiled for itself.

    Raises:
        TrainingError: the model is of another kind.
    """
    if not isinstance(model, RMAT):
        raise TrainingError(f"compiled must be False for kind {model.config.kind!r}, it is for the RMAT")
    in_steps = [] if model.wavefront is None else [model.wavefront.layers]
    for block in (*model.blocks, *in_steps):
        block.attend = _of_segments(torch.compile(block.attend), block.attend)
        if block.memory is not None:
            block.memory.step = torch.compile(block.memory.step)


def _of_segments(compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """``compiled`` for a segment that is read in one go; ``plain`` where it is read in pieces, with a cache."""

    def attend(x: Tensor, memory: Tensor | None, cache: SegmentCache | None = None, position: int = 0) -> Any:
        return compiled(x, memory) if cache is None else plain(x, memory, cache, position)

    return attend


def by_segments_back(right: Tensor, targets: Tensor, distances: Tensor, segment_len: int) -> list[list[int]]:
    """Right answers and all answers, by how many whole segments the fact lies before its question; all ``(B, T)``."""
    asked = targets != IGNORED
    back = distances[asked] // segment_len
    return torch.stack([torch.bincount(back[right[asked]], minlength=int(back.max()) + 1), torch.bincount(back)],
                       dim=1).tolist()


def parameter_groups(model: LanguageModel, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: weight decay on the matrices of linear maps, none on biases, norms, λ, slots and embeddings."""
    linear = {id(layer.weight) for layer in model.modules() if isinstance(layer, torch.nn.Linear)}
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in model.parameters():
        groups[id(parameter) not in linear].append(parameter)
    return [{"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0}]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The randomness of one step, a function of (seed, step); dropout's global generator is set along with it."""
    batch_seed, dropout_seed = np.random.SeedSequence([seed, step]).generate_state(2).tolist()
    torch.manual_seed(dropout_seed)
    return torch.Generator().manual_seed(batch_seed)


def train(
    config: ModelConfig,
    source: Source,
    settings: TrainSettings,
    out: str | Path,
    *,
    resume: bool = False,
    device: torch.device | str = "cpu",
    compiled: bool = False,
    order: str = "segments",
    graphs: bool = False,
    checkpoint_every: int = 50,
    progress: bool = True,
    follow: Callable[[dict[str, Any], LanguageModel], object] | None = None,
) -> LanguageModel:
    """Train a model in the folder ``out``: ``state.pt``, ``metrics.jsonl``, and at the end ``model.safetensors``.

    Args:
        resume: go on with the run that ``out`` holds. Without it, ``out`` must not hold one.
        compiled: let torch.compile fuse what the blocks do with a segment. It takes half a minute and a C++ compiler
            before the first step, and again for segments of other lengths.
        order: in which an RMAT reads segments, ``"segments"`` or ``"wavefront"``; a replay takes one at a time in
            either. As with ``compiled`` and ``graphs``, a run is the same up to rounding and the masks of dropout, and
            may be resumed otherwise.
        graphs: replay each step as a CUDA graph. Streams of a new length are captured first.
        checkpoint_every: steps between two writes of the training state. A run is also saved when it is stopped.
        progress: show a progress bar.
        follow: called with each step's line of metrics and the model as it is, with those of a run that is resumed
            first.

    Raises:
        TrainingError: ``out`` holds a run already, or none to resume, or the loss is no longer finite.
        TrainingStopped: after Ctrl-C or SIGTERM, when the state is saved.
    """
    require_int("checkpoint_every", checkpoint_every, 1)
    folder = RunFolder(Path(out))
    # Through json, so that what is compared is what a file gives back: lists, not tuples.
    identity = json.loads(json.dumps(
        {"config": config.to_dict(), "source": source.describe(), "settings": asdict(settings)}
    ))
    if folder.path.exists() and not folder.path.is_dir():
        raise TrainingError(f"out must be a folder, and {folder.path} is a file; give another name")
    # From here on: the first optimiser of a process imports for seconds, and an import that is cut short may not be
    # possible again.
    with _stop_requests() as stop:
        trainer = Trainer(config, source, settings, device, compiled, order, graphs)
        if resume:
            trainer.restore(folder.read_for(identity, asdict(TrainSettings())))
        elif folder.holds_a_run():
            raise TrainingError(f"{folder.path} holds a run already; resume it, or give another folder")
        else:
            folder.path.mkdir(parents=True, exist_ok=True)
            folder.save(trainer.state(), identity)
        folder.cut_metrics(trainer.step)
        for metrics in folder.lines() if follow is not None else ():
            follow(metrics, trainer.model)
        _run(trainer, folder, identity, checkpoint_every, progress, follow or (lambda metrics, model: None), stop)
    trainer.model.eval().save(folder.model, extra={"task": source.describe()})
    return trainer.model


def _run(
    trainer: Trainer, folder: RunFolder, identity: dict[str, Any], checkpoint_every: int, progress: bool,
    follow: Callable[[dict[str, Any], LanguageModel], object], stop: threading.Event,
) -> None:
    """Take the steps that are left; save every so often, at the end, and when asked to stop."""
    steps = trainer.settings.steps
    bar = tqdm(total=steps, initial=trainer.step, desc="training", unit="step", disable=not progress)
    with bar, open(folder.metrics, "a", buffering=1) as metrics_file:
        while trainer.step < steps:
            try:
                metrics = trainer.advance()
            except TrainingError as error:
                raise TrainingError(f"{error}; the state of the last save is in {folder.state}") from None
            metrics_file.write(json.dumps(metrics) + "\n")
            bar.set_postfix({name: f"{value:.3g}" for name, value in metrics.items() if name not in BAR_HIDES
                             and value is not None}, refresh=False)
            bar.update()
            follow(metrics, trainer.model)
            if stop.is_set() or trainer.step % checkpoint_every == 0 or trainer.step == steps:
                folder.save(trainer.state(), identity)
            if stop.is_set() and trainer.step < steps:
                raise TrainingStopped(f"stopped after step {trainer.step} of {steps}, saved in {folder.path}")


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is never left half done; a second one ends at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may handle signals
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in watched}

    def restore() -> None:
        for number in watched:
            signal.signal(number, before[number])

    def request(number: int, frame: object) -> None:
        event.set()
        restore()

    for number in watched:
        signal.signal(number, request)
    try:
        yield event
    finally:
        restore()
