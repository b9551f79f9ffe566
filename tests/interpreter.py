"""Triton's interpreter, made faster and made to count: which element of which tensor a kernel loads and stores."""

import inspect
from unittest import mock

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed; there are wheels for Linux only")

import triton.language as tl
from triton.runtime import interpreter

from rmat_tutorial.kernels import triton_launch

DEVICE = "cpu" if triton_launch.INTERPRETED else "cuda"
TUNED = {name: getattr(triton_launch, name) for name in ("FORWARD", "DQ", "DKV")}
# On a CUDA device: the smallest tiles that tensor cores take, without a trial of others for every shape of a test.
COMPILED_TILES = {2: ((16, 16, 4, 2),), 4: ((16, 16, 4, 1),)}
SMALL = {name: triton_launch.tuned(tuners[2] if triton_launch.INTERPRETED else tuners[2].fn, COMPILED_TILES)
         for name, tuners in TUNED.items()}


def use_tiles(monkeypatch: pytest.MonkeyPatch, queries: int, keys: int) -> None:
    """Let the interpreter's tiles have so many queries and keys; compiled ones are the smallest."""
    monkeypatch.setattr(triton_launch, "INTERPRETER_TILES", {"BLOCK_M": queries, "BLOCK_N": keys})
    for name, tuners in SMALL.items():
        monkeypatch.setattr(triton_launch, name, tuners)


def patch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch the language once a launch. Triton does it again at every call of a helper, a third of all its time."""
    patch_lang = interpreter._patch_lang

    def patch(function):
        languages = [m for m in vars(inspect.getmodule(function)).values() if m is tl or m is tl.core]
        already = not any(tl.core.is_builtin(language.load) for language in languages)
        return interpreter._LangPatchScope() if already else patch_lang(function)

    monkeypatch.setattr(interpreter, "_patch_lang", patch)


class Traffic:
    """Notes the address of every load and store of a kernel while it is entered."""

    def __init__(self) -> None:
        self.loaded: list[np.ndarray] = []
        self.stored: list[np.ndarray] = []

    def __enter__(self) -> "Traffic":
        builder = interpreter.interpreter_builder
        load, store = builder.create_masked_load, builder.create_masked_store

        def noting_load(pointers, mask, *others):
            self.loaded.append(addresses(pointers, mask))
            return load(pointers, mask, *others)

        def noting_store(pointers, value, mask, *others):
            self.stored.append(addresses(pointers, mask))
            return store(pointers, value, mask, *others)

        self.patch = mock.patch.multiple(builder, create_masked_load=noting_load, create_masked_store=noting_store)
        self.patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.patch.stop()

    def loads(self, tensor: torch.Tensor) -> torch.Tensor:
        """How often each element of `tensor` was loaded, in its shape."""
        return counted(self.loaded, tensor)

    def stores(self, tensor: torch.Tensor) -> torch.Tensor:
        """How often each element of `tensor` was stored, in its shape."""
        return counted(self.stored, tensor)


def addresses(pointers: interpreter.TensorHandle, mask: interpreter.TensorHandle) -> np.ndarray:
    """The addresses that a masked access touches."""
    return pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].astype(np.int64)


def counted(accesses: list[np.ndarray], tensor: torch.Tensor) -> torch.Tensor:
    """How often each element of a dense tensor is among the addresses, in its shape."""
    places = (np.concatenate(accesses) - tensor.data_ptr()) // tensor.element_size()
    places = places[(places >= 0) & (places < tensor.numel())]
    return torch.from_numpy(np.bincount(places, minlength=tensor.numel())).as_strided(tensor.shape, tensor.stride())
