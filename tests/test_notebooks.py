"""The stored notebooks: each agrees with its source and satisfies every gate. They are run by nbval."""

from functools import cache
from pathlib import Path

import build
import pytest
from editions import KINDS, LEARNER, Source, disagreements, edition_path, read_source, stubs_match_solutions
from gates import GATES, Edition

NOTEBOOKS = Path(build.__file__).parent
NAMES = sorted(path.stem for path in (NOTEBOOKS / "source").glob("*.py"))


@cache
def source(name: str) -> Source:
    return read_source(NOTEBOOKS / "source" / f"{name}.py")


@cache
def stored(name: str, kind: str) -> Edition:
    path = edition_path(NOTEBOOKS, name, kind)
    notebook = build.read_edition(path)
    assert notebook is not None, f"{path.relative_to(NOTEBOOKS)} is missing or damaged: run make notebooks"
    return Edition(notebook, kind, path)


def test_there_are_notebooks_and_each_has_a_source() -> None:
    assert NAMES
    assert build.orphans(NOTEBOOKS) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_an_edition_agrees_with_its_source(name: str, kind: str) -> None:
    assert disagreements(source(name), kind, stored(name, kind).notebook) == []


@pytest.mark.parametrize("name", NAMES)
def test_stubs_are_solutions_with_lines_removed(name: str) -> None:
    assert stubs_match_solutions(*(stored(name, kind).notebook for kind in KINDS)) == []


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.__name__)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_an_edition_satisfies_the_gate(name: str, kind: str, gate: object) -> None:
    assert gate(stored(name, kind)) == []


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stored(name: str) -> None:
    """A notebook without outputs would pass nbval and most gates."""
    cells = [cell for cell in stored(name, LEARNER).notebook.cells if cell.cell_type == "code"]
    assert any("image/png" in output.get("data", ()) for cell in cells for output in cell.outputs)
