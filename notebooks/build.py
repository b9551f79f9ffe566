"""Build the notebooks from their sources: ``python notebooks/build.py [NAME ...] [--check]``.

Each source in ``notebooks/source`` becomes a learner's and an instructor's edition. Both are executed, tidied
and held against the gates; only when both are right do they replace the old ones. Building twice changes
nothing: what a run may change (``outputs.settle``) stays as stored while what it depends on is the same.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from editions import (
    KINDS,
    METADATA,
    Source,
    SourceError,
    disagreements,
    edition_path,
    read_source,
    stubs_match_solutions,
)
from gates import Edition, faults
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.reader import NotJSONError
from outputs import MEASURED, digest, sanitize_rules, settle, tidy
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
CELL_SECONDS = 600

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class BuildError(RuntimeError):
    """A notebook that cannot be built; says which, which cell and why."""


def sources(notebooks: Path, names: list[str] | None = None) -> list[Source]:
    """The sources of a folder in order, all or those named; ``SourceError`` where one is missing or wrong."""
    found = {path.stem: path for path in sorted((notebooks / "source").glob("*.py"))}
    if not found:
        raise SourceError(f"{notebooks.name}/source: no notebook source here")
    for name in names or ():
        if name not in found:
            raise SourceError(f"no notebook {name!r}; there are {', '.join(found)}")
    return [read_source(path) for name, path in found.items() if not names or name in names]


def build(source: Source, notebooks: Path) -> list[str]:
    """Build both editions of a notebook and say so; ``BuildError`` leaves the stored ones as they were."""
    texts: dict[Path, str] = {}
    report = []
    for kind in KINDS:
        path = edition_path(notebooks, source.name, kind)
        path.parent.mkdir(exist_ok=True)
        notebook = source.edition(kind)
        started = time.perf_counter()
        execute(notebook, path.parent, f"{source.name} ({kind})", source)
        seconds = time.perf_counter() - started
        inputs = digest(notebook, notebooks.parent)
        unsteady = settle(notebook, read_edition(path), inputs, sanitize_rules())
        found = faults(Edition(notebook, kind, path))
        if found:
            raise BuildError("\n".join(f"{source.name} ({kind}), {fault}" for fault in found))
        texts[path] = nbformat.writes(notebook) + "\n"
        written = not path.exists() or path.read_text(encoding="utf-8") != texts[path]
        outcome = "written" if written else "unchanged"
        report.append(f"{source.name:<24} {kind:<10} {seconds:6.1f} s  {outcome}")
        report += [
            f"    the cell at line {source.line_of(cell)} showed something else although nothing changed: "
            f"make it deterministic, or tag it {MEASURED}"
            for cell in unsteady
        ]
    for path, text in texts.items():
        _replace(path, text)
    return report


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(text, encoding="utf-8", newline="\n")
    os.replace(fresh, path)


def execute(notebook: NotebookNode, folder: Path, title: str, source: Source) -> None:
    """Run every cell in ``folder``, with an environment in which no earlier run has left anything."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    started: list[int] = []
    # disable=None: no bar where nobody watches.
    with (
        tempfile.TemporaryDirectory() as home,
        tqdm(total=len(code), desc=title, leave=False, disable=None) as bar,
    ):
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            timeout=CELL_SECONDS,
            iopub_timeout=30,
            raise_on_iopub_timeout=True,
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
            on_cell_execute=lambda cell, cell_index: started.append(cell_index),
            on_cell_executed=lambda cell, cell_index, execute_reply: bar.update(),
        )
        try:
            client.execute(env=_environment(home))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            cell = notebook.cells[started[-1]]
            where = f"{title}, cell {started[-1]} (line {source.line_of(cell.id)} of the source)"
            raise BuildError(f"{where}\n\n{cell.source}\n\n{_reason(error)}") from None
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in code:
        tidy(cell)


def _environment(home: str) -> dict[str, str]:
    fixed = {
        "RMAT_HOME": f"{home}/rmat",
        "IPYTHONDIR": f"{home}/ipython",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
    }
    # The kernel chooses its own backend only where none is set.
    return {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | fixed


def _reason(error: Exception) -> str:
    if isinstance(error, CellExecutionError):
        return _COLOURS.sub("", error.traceback)
    if isinstance(error, CellTimeoutError):
        return f"The cell ran for more than {CELL_SECONDS} seconds."
    return "The kernel died."


def read_edition(path: Path) -> NotebookNode | None:
    """A stored edition; None where there is none that can be read."""
    try:
        return nbformat.read(path, as_version=4)
    except (FileNotFoundError, NotJSONError):
        return None


def check(notebooks: Path, source: Source) -> list[str]:
    """What can be said against the stored editions of a notebook without running them, a fault a line."""
    found = []
    stored = {}
    for kind in KINDS:
        path = edition_path(notebooks, source.name, kind)
        notebook = read_edition(path)
        if notebook is None:
            found.append(f"{source.name} ({kind}), not built, or not readable")
            continue
        stored[kind] = notebook
        problems = disagreements(source, kind, notebook) + faults(Edition(notebook, kind, path))
        found += [f"{source.name} ({kind}), {problem}" for problem in problems]
    if len(stored) == len(KINDS):
        found += [
            f"{source.name}, {fault}" for fault in stubs_match_solutions(*(stored[kind] for kind in KINDS))
        ]
    return found


def orphans(notebooks: Path) -> list[str]:
    """Stored notebooks that no source makes."""
    names = {path.stem for path in (notebooks / "source").glob("*.py")}
    stored = sorted([*notebooks.glob("*.ipynb"), *notebooks.glob("instructor/*.ipynb")])
    return [f"{path.relative_to(notebooks)}, no source makes it" for path in stored if path.stem not in names]


def main(arguments: list[str] | None = None, notebooks: Path = HERE) -> int:
    """The command; returns 0 when everything was built, or with ``--check`` agrees."""
    parser = argparse.ArgumentParser(
        prog="build.py", description="Build the notebooks from notebooks/source."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 01_attention (default: all)")
    parser.add_argument(
        "--check", action="store_true", help="run nothing, report what is wrong with what is stored"
    )
    options = parser.parse_args(arguments)
    try:
        chosen = sources(notebooks, options.names)
        if options.check:
            found = [fault for source in chosen for fault in check(notebooks, source)] + orphans(notebooks)
            print("\n".join(found) or f"{len(chosen)} notebooks agree with their sources")
            return int(bool(found))
        for source in chosen:
            print("\n".join(build(source, notebooks)), flush=True)
    except (SourceError, BuildError) as error:
        print(f"FAIL {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
