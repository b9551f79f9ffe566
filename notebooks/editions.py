"""From the source of a notebook to its two editions, not yet executed."""

import ast
import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from nbval.plugin import find_comment_markers

LEARNER, INSTRUCTOR = "learner", "instructor"
KINDS = (LEARNER, INSTRUCTOR)
TAGS = ("exercise", "instructor", "nbval-ignore-output", "nbval-skip", "raises-exception")
STUB = 'raise NotImplementedError("not attempted yet")'

# No patch version of Python here: it would differ between machines.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}

_NAME = re.compile(r"\d\d_[a-z0-9]+(_[a-z0-9]+)*")
_MARKER = re.compile(r"(?P<indent> *)# (?P<word>BEGIN|END) SOLUTION")
# What jupytext notes for itself.
_OF_THE_FORMAT = ("cell_marker", "lines_to_next_cell", "lines_to_end_of_cell_marker")
_LIKE_A_MARKER = re.compile(r"#.*\b(begin|end)[\s_-]*solution", re.IGNORECASE)


class SourceError(ValueError):
    """A source that cannot become a notebook: one line that names the file, the cell and its line."""


@dataclass(frozen=True)
class SourceCell:
    """One cell: its text in each edition, None where that edition leaves it out."""

    id: str
    cell_type: str
    line: int
    tags: tuple[str, ...]
    text: dict[str, str | None]


@dataclass(frozen=True)
class Source:
    """A source file, read and checked."""

    path: Path
    cells: tuple[SourceCell, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    def edition(self, kind: str) -> NotebookNode:
        """The notebook of one edition (``"learner"`` or ``"instructor"``), without outputs."""
        cells = []
        for cell in self.cells:
            text = cell.text[kind]
            if text is None:
                continue
            make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
            cells.append(make(text, id=cell.id, metadata={"tags": list(cell.tags)} if cell.tags else {}))
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
        notebook.nbformat_minor = 5
        return nbformat.from_dict(notebook)

    def line_of(self, cell_id: str) -> int:
        """The line of the source on which a cell starts."""
        return next(cell.line for cell in self.cells if cell.id == cell_id)


def tagged(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell carries a tag."""
    return tag in cell.metadata.get("tags", ())


def edition_path(notebooks: Path, name: str, kind: str) -> Path:
    """Where an edition lies: learners' in ``notebooks``, instructors' one folder below."""
    return (notebooks if kind == LEARNER else notebooks / "instructor") / f"{name}.ipynb"


def read_source(path: Path) -> Source:
    """Read a source in jupytext's percent format; ``SourceError`` for whatever is wrong in it."""
    if not _NAME.fullmatch(path.stem):
        raise SourceError(f"{path.name}: a source is called like 01_attention.py: two digits, _, lower case")
    text = path.read_text(encoding="utf-8")
    cells = jupytext.reads(text, fmt="py:percent").cells
    lines = [number for number, line in enumerate(text.splitlines(), 1) if line.startswith("# %%")]
    if not cells:
        raise SourceError(f"{path.name}: no cell; a cell starts with '# %%' or '# %% [markdown]'")
    if len(lines) != len(cells):
        raise SourceError(f"{path.name}: text before the first '# %%'")
    seen: Counter[tuple[str, str]] = Counter()
    read = []
    for index, (cell, line) in enumerate(zip(cells, lines, strict=True)):
        where = f"{path.name}, cell {index} (line {line})"
        _check_cell(cell, where)
        seen[cell.cell_type, cell.source] += 1
        identity = f"{path.stem}\n{cell.cell_type}\n{cell.source}\n{seen[cell.cell_type, cell.source]}"
        read.append(
            SourceCell(
                id=hashlib.sha256(identity.encode()).hexdigest()[:12],
                cell_type=cell.cell_type,
                line=line,
                tags=tuple(cell.metadata.get("tags", ())),
                text=_texts(cell, where),
            )
        )
    return Source(path, tuple(read))


def _check_cell(cell: NotebookNode, where: str) -> None:
    for key in cell.metadata:
        if key not in ("tags", *_OF_THE_FORMAT):
            raise SourceError(f"{where}: {key!r} on the cell's first line; only tags=[...] is used")
    tags = cell.metadata.get("tags", [])
    for tag in tags:
        if tag not in TAGS:
            raise SourceError(f"{where}: unknown tag {tag!r}; known are {', '.join(TAGS)}")
    if cell.cell_type not in ("code", "markdown"):
        raise SourceError(f"{where}: a {cell.cell_type} cell; only code and markdown cells are used")
    if not cell.source.strip():
        raise SourceError(f"{where}: the cell is empty")
    if "exercise" in tags and cell.cell_type != "code":
        raise SourceError(f"{where}: tag 'exercise' on a {cell.cell_type} cell; it belongs on the code cell")
    if "instructor" in tags and cell.cell_type != "markdown":
        raise SourceError(
            f"{where}: tag 'instructor' on a {cell.cell_type} cell; only markdown can be left out"
        )
    if cell.cell_type == "code" and list(find_comment_markers(cell.source)):
        raise SourceError(
            f"{where}: a comment that steers nbval; write it as a tag, such as nbval-ignore-output"
        )


def _texts(cell: NotebookNode, where: str) -> dict[str, str | None]:
    tags = cell.metadata.get("tags", [])
    if "exercise" in tags:
        return _split_solution(cell.source, where)
    for line in cell.source.splitlines():
        if _LIKE_A_MARKER.search(line):
            raise SourceError(f"{where}: {line.strip()!r} in a cell that is not tagged 'exercise'")
    return {LEARNER: None if "instructor" in tags else cell.source, INSTRUCTOR: cell.source}


def _split_solution(text: str, where: str) -> dict[str, str | None]:
    """Both texts of an exercise: the learner's is the instructor's with lines removed, and the stub."""
    learner, instructor = [], []
    solution: list[str] | None = None
    indent = ""
    found = 0
    for line in text.splitlines():
        marker = _MARKER.fullmatch(line.rstrip())
        if not marker:
            if _LIKE_A_MARKER.search(line):
                raise SourceError(
                    f"{where}: {line.strip()!r} is not spelt '# BEGIN SOLUTION' or '# END SOLUTION'"
                )
            instructor.append(line)
            (learner if solution is None else solution).append(line)
        elif marker["word"] == "BEGIN":
            if solution is not None:
                raise SourceError(f"{where}: a second BEGIN SOLUTION before the END SOLUTION of the first")
            solution, indent = [], marker["indent"]
        else:
            if solution is None:
                raise SourceError(f"{where}: END SOLUTION without a BEGIN SOLUTION")
            if not any(_is_code(line) for line in solution):
                raise SourceError(f"{where}: nothing between BEGIN SOLUTION and END SOLUTION")
            if marker["indent"] != indent:
                raise SourceError(f"{where}: BEGIN SOLUTION and END SOLUTION are indented differently")
            learner.append(indent + STUB)
            solution = None
            found += 1
    if solution is not None:
        raise SourceError(f"{where}: BEGIN SOLUTION without an END SOLUTION")
    if not found:
        raise SourceError(
            f"{where}: tagged 'exercise' but has no solution (# BEGIN SOLUTION ... # END SOLUTION)"
        )
    for kind, lines in ((LEARNER, learner), (INSTRUCTOR, instructor)):
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            raise SourceError(
                f"{where}: the {kind}'s text is not Python: {error.msg}, its line {error.lineno}"
            ) from None
    return {LEARNER: "\n".join(learner), INSTRUCTOR: "\n".join(instructor)}


def _is_code(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith("#")


def disagreements(source: Source, kind: str, notebook: NotebookNode) -> list[str]:
    """Where a stored edition is not what its source says: cells, their order, ids and tags, metadata."""
    expected = source.edition(kind)
    found = [f"metadata {key!r} differs" for key in METADATA if notebook.metadata.get(key) != METADATA[key]]
    found += [f"foreign metadata {key!r}" for key in notebook.metadata if key not in (*METADATA, "rmat")]
    if len(notebook.cells) != len(expected.cells):
        found.append(f"{len(notebook.cells)} cells, the source has {len(expected.cells)}")
    for index, (cell, wanted) in enumerate(zip(notebook.cells, expected.cells, strict=False)):
        parts = [part for part in ("cell_type", "source", "metadata", "id") if cell.get(part) != wanted[part]]
        if parts:
            line = source.line_of(wanted.id)
            found.append(f"cell {index}: {' and '.join(parts)} not as in the source, line {line}")
    return found


def stubs_match_solutions(learner: NotebookNode, instructor: NotebookNode) -> list[str]:
    """The learner's code is the instructor's with lines removed and stubs in their place."""
    solved = {cell.id: cell for cell in instructor.cells}
    found = []
    for index, cell in enumerate(learner.cells):
        twin = solved.get(cell.id)
        if twin is None:
            found.append(f"cell {index}: not in the instructor's edition")
        elif tagged(cell, "exercise"):
            kept = [line for line in cell.source.splitlines() if line.strip() != STUB]
            solution = iter(twin.source.splitlines())
            if len(kept) >= len(twin.source.splitlines()) or not all(line in solution for line in kept):
                found.append(f"cell {index}: the stub is not the solution with lines removed")
        elif cell.source != twin.source:
            found.append(f"cell {index}: not as in the instructor's edition")
    return found
