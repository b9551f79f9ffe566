"""What every language model of the course is: embedding, blocks and head, read piece by piece with explicit state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .checkpoints import CheckpointError, find_checkpoint, read_checkpoint, write_checkpoint
from .config import ModelConfig
from .sampling import Generation, require_sampling, sample
from .state import State
from .validate import require_choice, require_int, require_seed

FREE_OF_THE_STATE = ("backend", "dropout")  # two models that differ in these may share a state
PROGRESS_FROM = 256  # new tokens from which generation, at some hundred tokens a second, is worth a progress bar
FIRST_KIND = "rmat"  # of a checkpoint that names no kind: when it was written there was one only


class Output(NamedTuple):
    """``logits`` for the next token at every position, ``(B, T, V)``, and the ``state`` after the last."""

    logits: Tensor
    state: State


class LanguageModel(nn.Module, ABC):
    """A model that reads a stream of tokens and predicts the next one at every position.

    Reading a stream whole, token by token or in any other split gives the same logits, to 1e-10 in float64 and to 1e-5
    (of their size, or absolute when that is more) in float32.

    A kind of model is a subclass, ``class Kind(LanguageModel, kind="name")``. It says what it carries (``init_state``),
    how much it reads at once (``_room``) and how (``_read``).

    Args:
        config: sizes and choices.
        block: makes a block from ``config``.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type[ModelConfig]]
    state_class: ClassVar[type[State]]
    _kinds: ClassVar[dict[str, type[LanguageModel]]] = {}

    def __init_subclass__(cls, kind: str | None = None) -> None:
        super().__init_subclass__()
        if kind is not None:
            cls.kind = kind
            LanguageModel._kinds[kind] = cls

    def __init__(self, config: ModelConfig, block: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embed.weight, std=config.d_model**-0.5)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    @abstractmethod
    def init_state(self, batch_size: int) -> State:
        """The state before the first token of ``batch_size`` streams.

        Raises:
            TypeError, ValueError: ``batch_size`` is not an int of at least 1.
        """

    @abstractmethod
    def _read(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The last block's output for embedded tokens ``(B, n, d)``, ``n`` from ``_room``, and the next state."""

    def _room(self, state: State, left: int) -> int:
        """How many of the next ``left`` tokens may be read at once: those in the rest of the segment."""
        return min(left, self.config.segment_len - state.position)

    def forward(self, tokens: Tensor, state: State | None = None) -> Output:
        """Read ``tokens`` after those that ``state`` has seen.

        Args:
            tokens: ``(B, T)`` int64 in ``0 .. vocab_size - 1``, of any length.
            state: from ``init_state`` or an earlier call; ``None`` starts afresh.

        Returns:
            ``Output(logits, state)``. Logits at a position depend on it and on earlier ones only.

        Raises:
            TypeError, ValueError: tokens or state do not fit this model; the message says which and why.
        """
        return self.read(tokens, self.begin(tokens, state))

    def begin(self, tokens: Tensor, state: State | None) -> State:
        """The state to read ``tokens`` with, after the checks of ``forward``, for which a GPU has to be waited for."""
        self._check_tokens("tokens", tokens)
        if state is None:
            return self.init_state(tokens.shape[0])
        self._check_state(state, tokens.shape[0])
        return state

    def read(self, tokens: Tensor, state: State) -> Output:
        """``forward``, its arguments unchecked."""
        hidden = []
        start = 0
        while start < tokens.shape[1]:
            end = start + self._room(state, tokens.shape[1] - start)
            x, state = self._read(self.embed(tokens[:, start:end]), state)
            hidden.append(x)
            start = end
        return Output(self.head(self.norm(torch.cat(hidden, dim=1))), state)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        max_new_tokens: int,
        state: State | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
        stop_token: int | None = None,
        progress: bool | None = None,
    ) -> Generation:
        """Continue ``prompt``, token by token, holding no more than the state.

        Args:
            prompt: ``(B, T)`` int64, ``T >= 1``, read after the tokens that ``state`` has seen.
            max_new_tokens: at most so many new tokens.
            state: where to go on; ``None`` starts afresh.
            temperature: divides the logits; 0 always takes the most likely token.
            top_k: draw among the ``top_k`` most likely tokens only.
            seed: makes the draw repeatable; ``None`` draws from torch's global generator.
            stop_token: a row that draws it repeats it from then on; when every row has, generation ends.
            progress: show a progress bar; ``None`` shows one from 256 new tokens on.

        Returns:
            ``Generation(tokens, state)``: the new tokens ``(B, n)``, and the state before the last of them.

        Raises:
            TypeError, ValueError: an argument is out of range or does not fit this model.
        """
        self._check_tokens("prompt", prompt)
        require_int("max_new_tokens", max_new_tokens, 1)
        require_sampling(temperature, top_k, self.config.vocab_size)
        if stop_token is not None:
            require_int("stop_token", stop_token, 0)
            if stop_token >= self.config.vocab_size:
                raise ValueError(f"stop_token must be below vocab_size ({self.config.vocab_size}), got {stop_token}")
        generator = None
        if seed is not None:
            require_seed("seed", seed)
            generator = torch.Generator(device=prompt.device).manual_seed(seed)
        training = self.training
        self.eval()
        try:
            logits, state = self._read_prompt(prompt, state)
            drawn: list[Tensor] = []
            stopped = torch.zeros_like(prompt[:, :1], dtype=torch.bool)
            hidden_bar = max_new_tokens < PROGRESS_FROM if progress is None else not progress
            for step in tqdm(range(max_new_tokens), desc="generating", unit="token", disable=hidden_bar):
                if step:
                    logits, state = self(drawn[-1], state)
                token = sample(logits[:, -1], temperature, top_k, generator)
                if stop_token is not None:
                    token = token.masked_fill(stopped, stop_token)
                    stopped |= token == stop_token
                drawn.append(token)
                if stop_token is not None and stopped.all():
                    break
        finally:
            self.train(training)
        return Generation(torch.cat(drawn, dim=1), state)

    def _read_prompt(self, prompt: Tensor, state: State | None) -> Output:
        """Read a prompt of any length without holding the logits of more than a few segments."""
        for piece in prompt.split(8 * self.config.segment_len, dim=1):
            output = self(piece, state)
            state = output.state
        return output

    def save(self, path: str | Path, extra: dict[str, Any] | None = None) -> None:
        """Write weights, configuration and ``extra`` (json values) to a safetensors file, whole or not at all.

        Raises:
            CheckpointError: the file cannot be written.
        """
        write_checkpoint(path, self.state_dict(), self.config.to_dict(), extra or {})

    @classmethod
    def from_checkpoint(cls, name_or_path: str | Path, device: torch.device | str = "cpu") -> Self:
        """A saved model, ready to evaluate. On ``LanguageModel`` of whichever kind the file holds.

        Args:
            name_or_path: the name of a shipped checkpoint such as ``"recall"``, or a file.

        Raises:
            CheckpointError: there is no such file, it is damaged, it is not a checkpoint of this package, or it holds
                a model of another kind than this class.
        """
        path = find_checkpoint(name_or_path)
        checkpoint = read_checkpoint(path)
        try:
            model = build(config_from_dict(checkpoint.config))
        except (TypeError, ValueError, ImportError) as error:
            raise CheckpointError(f"{path} has a configuration that this version cannot build: {error}") from error
        if not isinstance(model, cls):
            raise CheckpointError(
                f"{path} holds a {type(model).__name__} (kind {model.kind!r}), which {cls.__name__}.from_checkpoint "
                "does not load; LanguageModel.from_checkpoint does"
            )
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in checkpoint.tensors.items()}
        if expected != found:
            name = sorted(set(expected.items()) ^ set(found.items()))[0][0]
            raise CheckpointError(
                f"{path} does not match its configuration: tensor {name!r} should have shape "
                f"{expected.get(name, 'none')}, the file has {found.get(name, 'none')}"
            )
        dtype = checkpoint.tensors["embed.weight"].dtype
        for name, tensor in checkpoint.tensors.items():
            if tensor.dtype != dtype or not dtype.is_floating_point:
                raise CheckpointError(
                    f"{path} is damaged: its tensors must share one floating-point dtype, "
                    f"embed.weight is {dtype}, {name} is {tensor.dtype}"
                )
        model.to(dtype).load_state_dict(checkpoint.tensors)
        return model.to(device).eval()

    def _check_tokens(self, name: str, tokens: Tensor) -> None:
        if not isinstance(tokens, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tokens).__name__}")
        if tokens.dtype != torch.int64:
            raise TypeError(f"{name} must have dtype torch.int64, got {tokens.dtype}")
        if tokens.dim() != 2:
            raise ValueError(f"{name} must have shape (B, T), got {tuple(tokens.shape)}")
        if tokens.numel() == 0:
            raise ValueError(f"{name} is empty, shape {tuple(tokens.shape)}; give at least one row and one token")
        if tokens.device != self.embed.weight.device:
            raise ValueError(f"{name} must be on the model's device, {self.embed.weight.device}, got {tokens.device}")
        low, high = (bound.item() for bound in torch.aminmax(tokens))
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(
                f"{name} must lie in 0..{self.config.vocab_size - 1} (vocab_size = {self.config.vocab_size}), "
                f"got {low if low < 0 else high}"
            )

    def _check_state(self, state: State, batch_size: int) -> None:
        if not isinstance(state, self.state_class):
            raise TypeError(f"state must be an instance of {self.state_class.__name__}, got {type(state).__name__}")
        if state.batch_size != batch_size:
            raise ValueError(f"state has {state.batch_size} rows, tokens have {batch_size}; they must be equal")
        if state.config != self.config:
            self._check_architecture(state.config)
        weight = self.embed.weight
        for tensor in state.tensors():
            if tensor.dtype != weight.dtype or tensor.device != weight.device:
                raise ValueError(
                    f"state is {tensor.dtype} on {tensor.device}, the model {weight.dtype} on {weight.device}; "
                    "convert it with state.to(...)"
                )
        if any(map(has_nan, state.tensors())):
            raise ValueError("state contains NaN; start again from init_state")

    def _check_architecture(self, other: ModelConfig) -> None:
        mine, its = (config.to_dict() for config in (self.config, other))
        differing = [name for name in mine if mine[name] != its[name] and name not in FREE_OF_THE_STATE]
        if differing:
            fields = ", ".join(f"{name} = {its[name]} (here {mine[name]})" for name in differing)
            raise ValueError(f"state is of another model, with {fields}; start from this model's init_state")


def build(config: ModelConfig) -> LanguageModel:
    """A new model of the kind that ``config`` describes, its weights drawn from torch's global generator.

    Raises:
        TypeError: ``config`` is no configuration of a model.
    """
    model_class = LanguageModel._kinds.get(getattr(config, "kind", None))
    if model_class is None or not isinstance(config, model_class.config_class):
        raise TypeError(f"config must be the configuration of a model, got {type(config).__name__}")
    return model_class(config)


def has_nan(tensor: Tensor) -> bool:
    """Whether an element is NaN."""
    # The sum comes first: it is NaN if one is (or with inf and -inf), and takes a twentieth of the time of isnan.
    return bool(torch.isnan(tensor.sum())) and bool(torch.isnan(tensor).any())


def config_from_dict(fields: dict[str, Any]) -> ModelConfig:
    """The configuration whose ``to_dict`` gave ``fields``, of whichever kind they name.

    Raises:
        TypeError, ValueError: the kind or another field is unknown, missing or out of range.
    """
    kind = fields.get("kind", FIRST_KIND)
    require_choice("kind", kind, tuple(LanguageModel._kinds))
    return LanguageModel._kinds[kind].config_class.from_dict(fields)
