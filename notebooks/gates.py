"""What every stored notebook has to satisfy. A gate takes an edition and returns its faults, a line each."""

import ast
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import nbformat
from editions import INSTRUCTOR, LEARNER, STUB, tagged
from IPython.core.inputtransformer2 import TransformerManager
from markdown_it import MarkdownIt
from nbformat import NotebookNode
from outputs import WIDGET

NOTEBOOK_BYTES = 1_500_000
OUTPUT_BYTES = 300_000
FORMATS = frozenset({"text/plain", "text/html", "image/png", WIDGET})

# A bar as tqdm leaves it: description, percentage and bar or a bare count, times. Else, stderr is a warning.
_BAR = re.compile(r".*\d(%\|.*\| \S+|\w*) \[(\d+:)?\d\d:\d\d.*\]")
_DIFFICULTY = re.compile(r"(?<![●○])(●○○|●●○|●●●)(?![●○])")
_MINUTES = re.compile(r"\b\d+ ?min(ute)?s?\b")
# What rmat_tutorial.exercises.check shows.
_CHECKED = re.compile(r"\d\d\.\w+: (OK|not attempted yet|not right yet)")
_MACHINE_PATH = re.compile(
    r"(?<![\w.~])/(?:home|root|work|tmp|Users|private|var/folders)/"
    r"|\b[A-Za-z]:\\+Users\b|File ~/|ipykernel_\d+"
)
_REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
_REMOTE_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*(?:https?:)?//", re.IGNORECASE)
_LOADING = {"src", "srcset", "data", "poster", "background"}


@dataclass(frozen=True)
class Edition:
    """A notebook, of which kind it is, and where it lies (its links are relative to that)."""

    notebook: NotebookNode
    kind: str
    path: Path


def cells(edition: Edition, cell_type: str) -> Iterator[tuple[int, NotebookNode]]:
    """The cells of one type, with their places in the notebook."""
    for index, cell in enumerate(edition.notebook.cells):
        if cell.cell_type == cell_type:
            yield index, cell


def outputs(edition: Edition) -> Iterator[tuple[int, NotebookNode]]:
    """Every output, with the place of its cell."""
    for index, cell in cells(edition, "code"):
        for output in cell.outputs:
            yield index, output


def valid_notebook(edition: Edition) -> list[str]:
    """The format's own rules, version 4.5 (cells with ids)."""
    notebook = edition.notebook
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        return [f"format {notebook.nbformat}.{notebook.nbformat_minor} instead of 4.5"]
    ids = Counter(cell.get("id") for cell in notebook.cells)
    faults = [f"{count} cells have the id {cell_id}" for cell_id, count in ids.items() if count > 1]
    faults += ["a cell has no id"] if None in ids else []
    if not faults:
        # Only now: validating gives a new id to a cell whose id is missing or not its own.
        try:
            nbformat.validate(notebook)
        except nbformat.ValidationError as error:
            faults.append(f"not a valid notebook: {str(error).splitlines()[0]}")
    return faults


def executed_in_order(edition: Edition) -> list[str]:
    """Every code cell was run, once, from the top: counts 1 to n."""
    faults = []
    for expected, (index, cell) in enumerate(cells(edition, "code"), 1):
        if cell.execution_count != expected:
            faults.append(f"cell {index}: execution count {cell.execution_count} instead of {expected}")
        for output in cell.outputs:
            if output.output_type == "execute_result" and output.execution_count != cell.execution_count:
                faults.append(f"cell {index}: its output has count {output.execution_count}")
    return faults


def errors_are_tagged(edition: Edition) -> list[str]:
    """An error is stored exactly where the tag raises-exception announces one; nothing warns on stderr."""
    faults = []
    for index, cell in cells(edition, "code"):
        errors = [output.ename for output in cell.outputs if output.output_type == "error"]
        if errors and not tagged(cell, "raises-exception"):
            faults.append(f"cell {index}: stored {errors[0]} without the tag raises-exception")
        if tagged(cell, "raises-exception") and not errors:
            faults.append(f"cell {index}: tagged raises-exception but raised nothing")
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                lines = [
                    line
                    for line in output.text.splitlines()
                    if line.strip() and not _BAR.fullmatch(line.strip())
                ]
                faults.extend(f"cell {index}: stderr says {line.strip()[:80]!r}" for line in lines[:1])
    return faults


def formats_are_comparable(edition: Edition) -> list[str]:
    """Only formats that can be compared or need no comparison."""
    return [
        f"cell {index}: output in {mime}; allowed are {', '.join(sorted(FORMATS))}"
        for index, output in outputs(edition)
        for mime in output.get("data", ())
        if mime not in FORMATS
    ]


def small_enough(edition: Edition) -> list[str]:
    """The notebook and each of its outputs stay under the caps."""
    size = len(nbformat.writes(edition.notebook).encode())
    faults = [f"{size:,} bytes; the cap is {NOTEBOOK_BYTES:,}"] if size > NOTEBOOK_BYTES else []
    for index, output in outputs(edition):
        size = len(json.dumps(output, ensure_ascii=False).encode())
        if size > OUTPUT_BYTES:
            faults.append(f"cell {index}: an output of {size:,} bytes; the cap is {OUTPUT_BYTES:,}")
    return faults


def pictures_have_alt_text(edition: Edition) -> list[str]:
    """Every picture says in words what it shows."""
    faults = []
    for index, output in outputs(edition):
        if "image/png" in output.get("data", ()):
            alt = output.metadata.get("image/png", {}).get("alt") or output.metadata.get("alt") or ""
            if len(alt.split()) < 4 or alt.startswith("<Figure"):
                faults.append(f"cell {index}: image/png with alt text {alt!r}; say in words what it shows")
    for index, page in _pages(edition):
        for tag, attributes in page.tags:
            if tag == "img" and len((attributes.get("alt") or "").split()) < 4:
                faults.append(
                    f"cell {index}: <img> with alt text {attributes.get('alt')!r}; say what it shows"
                )
    return faults


def widgets_show_without_kernel(edition: Edition) -> list[str]:
    """A widget's view has a picture or HTML beside it, for a reader who has not run the notebook."""
    return [
        f"cell {index}: without a kernel this widget is the text {output.data.get('text/plain', '')[:40]!r}; "
        "put image/png or text/html beside its view"
        for index, output in outputs(edition)
        if WIDGET in output.get("data", ()) and not {"image/png", "text/html"} & set(output.data)
    ]


def no_widget_state(edition: Edition) -> list[str]:
    """No saved widget state, which does harm when it does not match the front end."""
    return ["metadata.widgets is stored"] if "widgets" in edition.notebook.metadata else []


def works_offline(edition: Edition) -> list[str]:
    """Nothing is loaded from the network when the notebook is opened."""
    faults = []
    for index, page in _pages(edition):
        for tag, attributes in page.tags:
            loads = [
                value
                for name, value in attributes.items()
                if name in _LOADING or (tag, name) == ("link", "href")
            ]
            faults.extend(
                f"cell {index}: <{tag}> loads {value[:60]}" for value in loads if _REMOTE.match(value or "")
            )
        if _REMOTE_STYLE.search(page.styles):
            faults.append(f"cell {index}: a style loads from the network")
    return faults


def no_data_in_markdown(edition: Edition) -> list[str]:
    """Prose carries no base64 and no attachments."""
    return [
        f"cell {index}: base64 data in markdown"
        for index, cell in cells(edition, "markdown")
        if ";base64," in cell.source or cell.get("attachments")
    ]


def links_resolve(edition: Edition) -> list[str]:
    """Relative links point to files that exist, or to notebooks that have a source."""
    faults = []
    for index, page in _pages(edition):
        for tag, attributes in page.tags:
            link = attributes.get({"a": "href", "img": "src"}.get(tag, ""), "") or ""
            target = link.split("#")[0]
            if target and not re.match(r"[a-z]+:|//", target) and not _exists(edition, target):
                faults.append(f"cell {index}: link to {target}, which does not exist")
    return faults


def no_machine_paths(edition: Edition) -> list[str]:
    """No path of the machine that built the notebook, in cells or outputs."""
    texts = [(index, cell.source) for index, cell in enumerate(edition.notebook.cells)]
    for index, output in outputs(edition):
        rest = dict(
            output, data={mime: text for mime, text in output.get("data", {}).items() if mime != "image/png"}
        )
        texts.append((index, json.dumps(rest, ensure_ascii=False)))
    found = [(index, _MACHINE_PATH.search(text)) for index, text in texts]
    return [f"cell {index}: path of a machine, {match[0]!r}" for index, match in found if match]


def opens_with_title_and_imports(edition: Edition) -> list[str]:
    """The first cell is the title; the first code cell imports, and no other does."""
    faults = []
    first = edition.notebook.cells[0] if edition.notebook.cells else None
    if first is None or first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        faults.append("the first cell is not a title ('# ...' in markdown)")
    importing = [index for index, cell in cells(edition, "code") if _imports(cell.source)]
    code = [index for index, _ in cells(edition, "code")]
    if importing[:1] != code[:1]:
        faults.append("the first code cell is not the import cell")
    faults.extend(f"cell {index}: a second import cell" for index in importing[1:])
    return faults


def exercises_are_announced(edition: Edition) -> list[str]:
    """Difficulty and minutes stand in the prose between the previous code cell and the exercise."""
    faults = []
    prose = ""
    for index, cell in enumerate(edition.notebook.cells):
        if cell.cell_type == "markdown":
            prose += "" if tagged(cell, "instructor") else cell.source + "\n"
            continue
        if tagged(cell, "exercise"):
            if not _DIFFICULTY.search(prose):
                faults.append(
                    f"cell {index}: no difficulty (●○○, ●●○ or ●●●) in the prose before the exercise"
                )
            if not _MINUTES.search(prose):
                faults.append(f"cell {index}: no minutes ('10 minutes') in the prose before the exercise")
        prose = ""
    return faults


def exercises_fit_the_edition(edition: Edition) -> list[str]:
    """An exercise is a function with type hints and a docstring, a stub for the learner, else solved."""
    faults = []
    for index, cell in cells(edition, "code"):
        if not tagged(cell, "exercise"):
            continue
        if edition.kind == INSTRUCTOR and STUB in cell.source:
            faults.append(f"cell {index}: the exercise is not solved")
        if edition.kind == LEARNER and not _has_stub(cell.source):
            faults.append(f"cell {index}: no function of the exercise has {STUB}")
        for function in _tree(cell.source).body:
            if isinstance(function, ast.FunctionDef) and not _is_described(function):
                faults.append(f"cell {index}: {function.name} lacks a type hint or its docstring")
    return faults


def exercises_are_checked(edition: Edition) -> list[str]:
    """The first check after an exercise says that the stub is untouched, or that the solution is right."""
    wanted = "OK" if edition.kind == INSTRUCTOR else "not attempted yet"
    faults = []
    places = [index for index, cell in cells(edition, "code") if tagged(cell, "exercise")]
    for place, end in itertools.pairwise([*places, len(edition.notebook.cells)]):
        texts = [
            out.data.get("text/plain", "")
            for index, out in outputs(edition)
            if place < index < end and "data" in out
        ]
        said = next(filter(None, map(_CHECKED.match, texts)), None)
        if said is None:
            faults.append(f"cell {place}: no check follows the exercise")
        elif said[1] != wanted:
            faults.append(f"cell {place}: its check says {said[0]!r} instead of {wanted!r}")
    return faults


def widgets_are_set_before_they_are_read(edition: Edition) -> list[str]:
    """A cell below a widget sets its controls before it reads what is shown: a reader may have moved them."""
    faults = []
    owners: dict[str, str] = {}  # a widget or its picture -> the widget
    for index, cell in cells(edition, "code"):
        tree = _tree(cell.source)
        set_at = {name: place for place, name in sorted(_calls_of_set(tree), reverse=True)}
        for place, name, attribute in sorted(_reads(tree)):
            widget = owners.get(name)
            is_shown = attribute in ("picture", "caption", "png", "image") if widget == name else attribute is not None
            if widget and is_shown and place < set_at.get(widget, (math.inf, 0)):
                faults.append(f"cell {index}: {name}.{attribute} is read before {widget}.set(...)")
        for widget, picture in _widgets_made(tree):
            owners |= dict.fromkeys(filter(None, (widget, picture)), widget)
    return faults


GATES: tuple[Callable[[Edition], list[str]], ...] = (
    valid_notebook,
    executed_in_order,
    errors_are_tagged,
    formats_are_comparable,
    small_enough,
    pictures_have_alt_text,
    widgets_show_without_kernel,
    no_widget_state,
    works_offline,
    no_data_in_markdown,
    links_resolve,
    no_machine_paths,
    opens_with_title_and_imports,
    exercises_are_announced,
    exercises_fit_the_edition,
    exercises_are_checked,
    widgets_are_set_before_they_are_read,
)


def faults(edition: Edition) -> list[str]:
    """The faults that all gates find; of what is no valid notebook, only that."""
    return valid_notebook(edition) or [fault for gate in GATES for fault in gate(edition)]


class _Page(HTMLParser):
    """The tags of a piece of HTML, each with its attributes, and all its styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.styles = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.styles += (dict(attrs).get("style") or "") + "\n"

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self.styles += data + "\n"


def _pages(edition: Edition) -> Iterator[tuple[int, _Page]]:
    """Prose and HTML outputs as a front end renders them: an <img> in a code fence is no picture."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    for index, cell in cells(edition, "markdown"):
        yield index, _Page(markdown.render(cell.source))
    for index, output in outputs(edition):
        if "text/html" in output.get("data", ()):
            yield index, _Page(output.data["text/html"])


def _exists(edition: Edition, target: str) -> bool:
    here = edition.path.parent
    notebooks = here if edition.kind == LEARNER else here.parent
    name = Path(target)
    built_later = name.parent == Path() and name.suffix == ".ipynb"
    return (here / name).exists() or (built_later and (notebooks / "source" / f"{name.stem}.py").exists())


def _imports(source: str) -> bool:
    return any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(_tree(source)))


def _tree(source: str) -> ast.Module:
    """The syntax tree; empty for what is not Python, which fails when it is run."""
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:
        return ast.Module([], [])


def _calls_of_set(tree: ast.Module) -> Iterator[tuple[tuple[int, int], str]]:
    """Place and name of each ``name.set(...)``."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="set")):
                yield (node.lineno, node.col_offset), name


def _reads(tree: ast.Module) -> Iterator[tuple[tuple[int, int], str, str]]:
    """Place, name and attribute of each ``name.attribute``."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                yield (node.lineno, node.col_offset), name, attribute


def _widgets_made(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """The name of each widget that is assigned, and of the picture that it was given, if that has one."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id=made), args=arguments)):
                if made.endswith(("Explorer", "Playground")):
                    picture = arguments[0].id if arguments and isinstance(arguments[0], ast.Name) else None
                    yield name, picture if made == "Explorer" else None


def _is_described(function: ast.FunctionDef) -> bool:
    arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    hints = [function.returns, *(argument.annotation for argument in arguments)]
    return None not in hints and bool(ast.get_docstring(function))


def _has_stub(source: str) -> bool:
    stub = ast.dump(ast.parse(STUB).body[0])
    functions = [node for node in ast.walk(_tree(source)) if isinstance(node, ast.FunctionDef)]
    return any(ast.dump(node) == stub for function in functions for node in ast.walk(function))
