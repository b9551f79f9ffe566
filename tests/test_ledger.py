"""The ledgers at the end of the notebooks: what their rows name exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "notebooks" / "source").glob("*.py"))


def named(source: Path) -> list[tuple[str, list[str]]]:
    """The files of the ledger's rows, each with the names that follow it: `file.py`: `name`, `name`."""
    rows = [line for line in source.read_text(encoding="utf-8").splitlines() if line.startswith("# | ")]
    cells = re.findall(r"`([\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", "\n".join(rows))
    return [(file, re.findall(r"`([\w.]+)`", names)) for file, names in cells]


def defined(file: str) -> set[str]:
    """Functions and classes of a file of the package or of the tests; methods as Class.method."""
    found = [path for folder in ("rmat_tutorial", "tests") if (path := ROOT / folder / file).is_file()]
    assert len(found) == 1, f"{file} is found {len(found)} times"
    names = set()
    for node in ast.parse(found[0].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_code_and_tests_that_a_ledger_names_exist(source):
    for file, names in named(source):
        missing = set(names) - defined(file)
        assert not missing, f"{source.name} names {', '.join(sorted(missing))} of {file}, which has none"


def test_the_ledger_of_the_attention_notebook_is_read():
    rows = named(ROOT / "notebooks" / "source" / "01_attention.py")
    assert ("attention.py", ["full_attention"]) in rows and len(rows) == 8
