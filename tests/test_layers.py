"""Imports inside the package run one way: a module knows those below it and none above."""

import ast
from pathlib import Path

import pytest

import rmat_tutorial

PACKAGE = Path(rmat_tutorial.__file__).parent

# From the bottom up. A module imports from lines above its own, or from its own line.
LAYERS = (
    "validate folders config claims",
    "rope attention chunks",
    "kernels memory tasks corpora own_text installed_text runs progress measuring",
    "state checkpoints",
    "block sampling",
    "language_model wavefront",
    "model",
    "baselines",
    "tracing",
    "backprop graphs training evaluation asking",
    "benchmark jobs recipes orders",
    "comparison long_range bench",
    "long_range_claims",
    "plots canvas exercises",
    "widgets predictions pictures facts",
    "playground",
    "commands",
    "cli doctor",
    "__init__ __main__",
)
HEIGHT = {module: height for height, line in enumerate(LAYERS) for module in line.split()}
# What knows nothing of models, however high it stands.
MODELS = ("block", "language_model", "wavefront", "model", "baselines", "tracing", "backprop", "graphs", "training")
FREE_OF_MODELS = ("kernels", "tasks", "corpora", "own_text", "installed_text", "runs", "exercises", "progress")


def imports() -> set[tuple[str, str]]:
    """``(importer, imported)`` for every import inside the package; a folder counts as one module."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        importer = inside.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == len(inside.parts):
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                found |= {(importer, name) for name in names}
    return found


def test_imports_run_one_way():
    pairs = imports()
    assert ("block", "memory") in pairs and ("kernels", "attention") in pairs
    assert {module for pair in pairs for module in pair} <= set(HEIGHT), "a module has no place in LAYERS"
    assert not {pair for pair in pairs if HEIGHT[pair[0]] < HEIGHT[pair[1]]}


@pytest.mark.parametrize("module", FREE_OF_MODELS)
def test_what_knows_nothing_of_models(module):
    assert not {below for above, below in imports() if above == module} & set(MODELS)
