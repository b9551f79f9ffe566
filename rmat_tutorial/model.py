"""The language model: embedding, hybrid blocks and head, with explicit state (arXiv 2507.00453)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .block import HybridBlock
from .checkpoints import CheckpointError, find_checkpoint, read_checkpoint, write_checkpoint
from .config import RMATConfig
from .sampling import Generation, require_sampling, sample
from .state import RMATState, SegmentCache
from .validate import require_int, require_seed

FREE_OF_THE_STATE = {"backend": None, "dropout": None}  # two models that differ in these may share a state
PROGRESS_FROM = 256  # new tokens from which generation, at some hundred tokens a second, is worth a progress bar


class RMATOutput(NamedTuple):
    """``logits`` for the next token at every position, ``(B, T, V)``, and the ``state`` after the last."""

    logits: Tensor
    state: RMATState


class RMAT(nn.Module):
    """Recurrent Memory-Augmented Transformer.

    Reading a stream whole, segment by segment, token by token or in any other split gives the same logits, to 1e-10 in
    float64 and to 1e-5 (of their size, or absolute when that is more) in float32.

    Args:
        config: sizes and choices.
    """

    def __init__(self, config: RMATConfig) -> None:
        super().__init__()
        if not isinstance(config, RMATConfig):
            raise TypeError(f"config must be an RMATConfig, got {type(config).__name__}")
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embed.weight, std=config.d_model**-0.5)
        self.blocks = nn.ModuleList(HybridBlock(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def init_state(self, batch_size: int) -> RMATState:
        """The state before the first token of ``batch_size`` streams.

        Raises:
            TypeError, ValueError: ``batch_size`` is not an int of at least 1.
        """
        require_int("batch_size", batch_size, 1)
        memories = [block.memory for block in self.blocks if block.memory is not None]
        return RMATState(
            config=self.config,
            memory=tuple(memory.initial(batch_size) for memory in memories),
            initial=tuple(memory.slots for memory in memories),
            cache=self._empty_cache(batch_size),
            position=0,
        )

    def forward(self, tokens: Tensor, state: RMATState | None = None) -> RMATOutput:
        """Read ``tokens`` after those that ``state`` has seen.

        Args:
            tokens: ``(B, T)`` int64 in ``0 .. vocab_size - 1``, of any length.
            state: from ``init_state`` or an earlier call; ``None`` starts afresh.

        Returns:
            ``RMATOutput(logits, state)``. Logits at a position depend on it and on earlier ones only.

        Raises:
            TypeError, ValueError: tokens or state do not fit this model; the message says which and why.
        """
        self._check_tokens("tokens", tokens)
        if state is None:
            state = self.init_state(tokens.shape[0])
        else:
            self._check_state(state, tokens.shape[0])
        hidden = []
        start = 0
        while start < tokens.shape[1]:
            end = min(start + self.config.segment_len - state.position, tokens.shape[1])
            x, state = self._read_piece(self.embed(tokens[:, start:end]), state)
            hidden.append(x)
            start = end
        return RMATOutput(self.head(self.norm(torch.cat(hidden, dim=1))), state)

    def _read_piece(self, x: Tensor, state: RMATState) -> tuple[Tensor, RMATState]:
        """Read embedded tokens ``(B, n, d)`` that lie in one segment; write the banks if they complete it."""
        end = state.position + x.shape[1]
        complete = end == self.config.segment_len
        in_one_piece = complete and state.position == 0
        memory, cache = list(state.memory), list(state.cache)
        for layer, block in enumerate(self.blocks):
            bank = memory[layer] if memory else None
            x, filled = block.attend(x, bank, None if in_one_piece else cache[layer], state.position)
            if not in_one_piece:
                cache[layer] = filled
            if complete and memory:
                memory[layer] = block.write(bank, x if in_one_piece else filled.hidden)
        if complete and not in_one_piece:
            cache = self._empty_cache(x.shape[0])
        return x, replace(
            state, memory=tuple(memory), cache=tuple(cache), position=0 if complete else end
        )

    def _empty_cache(self, batch_size: int) -> tuple[SegmentCache, ...]:
        """Room for one segment a layer. Expanded zeros take no memory until the first piece is inserted."""
        config = self.config
        zero = self.embed.weight.new_zeros(1)
        per_head = zero.expand(batch_size, config.n_heads, config.segment_len, config.head_dim)
        hidden = zero.expand(batch_size, config.segment_len, config.d_model)
        return tuple(SegmentCache(per_head, per_head, hidden) for _ in self.blocks)

    @torch.no_grad()
    def generate(
        self,
        prompt: Tensor,
        max_new_tokens: int,
        state: RMATState | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int | None = None,
        stop_token: int | None = None,
        progress: bool | None = None,
    ) -> Generation:
        """Continue ``prompt``, token by token, in constant memory.

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

    def _read_prompt(self, prompt: Tensor, state: RMATState | None) -> RMATOutput:
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
    def from_checkpoint(cls, name_or_path: str | Path, device: torch.device | str = "cpu") -> RMAT:
        """A saved model, ready to evaluate.

        Args:
            name_or_path: the name of a shipped checkpoint such as ``"recall"``, or a file.

        Raises:
            CheckpointError: there is no such file, it is damaged, or it is not a checkpoint of this package.
        """
        path = find_checkpoint(name_or_path)
        checkpoint = read_checkpoint(path)
        try:
            model = cls(RMATConfig.from_dict(checkpoint.config))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise CheckpointError(f"{path} has a configuration that this version cannot build: {error}") from error
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

    def _check_state(self, state: RMATState, batch_size: int) -> None:
        if not isinstance(state, RMATState):
            raise TypeError(f"state must be an RMATState, got {type(state).__name__}")
        if state.batch_size != batch_size:
            raise ValueError(f"state has {state.batch_size} rows, tokens have {batch_size}; they must be equal")
        if state.config != self.config:
            self._check_architecture(state.config)
        weight = self.embed.weight
        for tensor in (*state.memory, *(c.k for c in state.cache)):
            if tensor.dtype != weight.dtype or tensor.device != weight.device:
                raise ValueError(
                    f"state is {tensor.dtype} on {tensor.device}, the model {weight.dtype} on {weight.device}; "
                    "convert it with state.to(...)"
                )
        cached = [tensor for layer in state.cache for tensor in layer] if state.position else []
        if any(torch.isnan(tensor).any() for tensor in (*state.memory, *cached)):
            raise ValueError("state contains NaN; start again from init_state")

    def _check_architecture(self, other: RMATConfig) -> None:
        mine, its = ({**config.to_dict(), **FREE_OF_THE_STATE} for config in (self.config, other))
        if mine != its:
            fields = ", ".join(f"{name} = {its[name]} (here {mine[name]})" for name in mine if mine[name] != its[name])
            raise ValueError(f"state is of another model, with {fields}; start from this model's init_state")
