"""Each gate lets a right notebook pass and finds the fault that was planted in it."""

import base64
from collections.abc import Callable
from pathlib import Path

import gates
import nbformat
import pytest
from editions import INSTRUCTOR, LEARNER, METADATA, STUB
from gates import GATES, Edition
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from outputs import WIDGET

PNG = base64.b64encode(b"\x89PNG" + bytes(60)).decode()
ALT = "Time against T, a straight line."
STUB_CELL = f'def scores(q: int, k: int) -> int:\n    """Scores."""\n    {STUB}'
SOLVED_CELL = STUB_CELL.replace(STUB, "return q * k")
SET_FIRST = gates.widgets_are_set_before_they_are_read
TITLE, IMPORTS, PROSE, PLOT, WIDGET_CELL, ANNOUNCED, EXERCISE, CHECK = range(8)


def shown(mime: str, text: object, **metadata: object) -> NotebookNode:
    return new_output(
        "display_data", {mime: text, "text/plain": ALT}, metadata={mime: metadata} if metadata else {}
    )


def right(folder: Path, kind: str = LEARNER) -> Edition:
    """A notebook that no gate objects to."""
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / "02_rope.py").touch()
    said = "01.scores: " + ("not attempted yet" if kind == LEARNER else "OK") + ". Go on."
    view = {WIDGET: {"model_id": "a", "version_major": 2, "version_minor": 0}, "image/png": PNG}
    bar = "train: 100%|██████████| 20/20 [00:00<00:00, 98.3it/s, loss=0.3]\n"
    cells = [
        new_markdown_cell("# A title\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        new_code_cell("%matplotlib inline\nimport torch\n\nfrom rmat_tutorial import RMAT"),
        new_markdown_cell(
            "See [the paper](https://arxiv.org/abs/2507.00453), [RoPE](02_rope.ipynb#pairs), `<img>`."
        ),
        new_code_cell("plot()", outputs=[shown("image/png", PNG, alt=ALT)]),
        new_code_cell(
            "Explorer()",
            outputs=[
                new_output("stream", name="stderr", text=bar),
                new_output("execute_result", view, metadata={"alt": ALT}, execution_count=3),
            ],
        ),
        new_markdown_cell("### Exercise 1 · Scores ●●○ · 10 minutes"),
        new_code_cell(STUB_CELL if kind == LEARNER else SOLVED_CELL, metadata={"tags": ["exercise"]}),
        new_code_cell(
            "check()", outputs=[new_output("display_data", {"text/plain": said, "text/html": "<b>x</b>"})]
        ),
    ]
    counts = iter(range(1, 6))
    for index, cell in enumerate(cells):
        cell.id = f"cell{index}"
        if cell.cell_type == "code":
            cell.execution_count = next(counts)
    path = folder / "01_attention.ipynb" if kind == LEARNER else folder / "instructor" / "01_attention.ipynb"
    notebook = nbformat.from_dict(new_notebook(cells=cells, metadata=METADATA, nbformat_minor=5))
    return Edition(notebook, kind, path)


@pytest.mark.parametrize("kind", [LEARNER, INSTRUCTOR])
def test_a_right_notebook_passes_every_gate(tmp_path: Path, kind: str) -> None:
    edition = right(tmp_path, kind)
    if kind == INSTRUCTOR:
        edition.notebook.cells[PROSE].source = "The next: [RoPE](02_rope.ipynb)"
    assert gates.faults(edition) == []


Gate = Callable[[Edition], list[str]]
Plant = Callable[[list[NotebookNode]], object]


def prose(text: str) -> Plant:
    return lambda cells: cells[PROSE].update(source=text)


def output(mime: str, text: object, **metadata: object) -> Plant:
    return lambda cells: cells[PLOT].update(outputs=[shown(mime, text, **metadata)])


def stream(text: str, name: str = "stdout") -> Plant:
    return lambda cells: cells[PLOT].update(outputs=[new_output("stream", name=name, text=text)])


def code(place: int, text: str) -> Plant:
    return lambda cells: cells[place].update(source=text)


def error(cells: list[NotebookNode]) -> None:
    cells[PLOT].outputs = [new_output("error", ename="KeyError", evalue="'k'", traceback=[])]


def checked(said: str) -> Plant:
    return lambda cells: cells[CHECK].update(outputs=[new_output("display_data", {"text/plain": said})])


def no_exercise_tag_value(cells: list[NotebookNode]) -> None:
    cells[PLOT].metadata["tags"] = "exercise"


def same_id(cells: list[NotebookNode]) -> None:
    cells[PLOT].id = cells[PROSE].id


def without_alt(cells: list[NotebookNode]) -> None:
    cells[WIDGET_CELL].outputs[1].metadata = {"image/png": {"width": 700}}


def bare_widget(cells: list[NotebookNode]) -> None:
    del cells[WIDGET_CELL].outputs[1].data["image/png"]


def attached(cells: list[NotebookNode]) -> None:
    cells[PROSE].attachments = {"a.png": {"image/png": PNG}}


def raises_tag(cells: list[NotebookNode]) -> None:
    cells[PLOT].metadata["tags"] = ["raises-exception"]


def rerun_result(cells: list[NotebookNode]) -> None:
    cells[WIDGET_CELL].outputs[1].execution_count = 9


def code_between(cells: list[NotebookNode]) -> None:
    cells.insert(EXERCISE, new_code_cell("1", execution_count=4))


def instructors_note(cells: list[NotebookNode]) -> None:
    cells[ANNOUNCED].metadata["tags"] = ["instructor"]


def large_notebook(cells: list[NotebookNode]) -> None:
    cells[PLOT].outputs = [shown("image/png", PNG * 3000, alt=ALT) for _ in range(6)]


def read_below_a_widget(source: str, made: str = "shown = Explorer(map_, title='A map')\nshown") -> Plant:
    def plant(cells: list[NotebookNode]) -> None:
        cells[PLOT].source = made
        cells[CHECK].source = source

    return plant


FAULTS: list[tuple[Gate, str, Plant]] = [
    (gates.valid_notebook, "2 cells have the id cell2", same_id),
    (gates.valid_notebook, "a cell has no id", lambda cells: cells[PLOT].pop("id")),
    (gates.valid_notebook, "not a valid notebook", no_exercise_tag_value),
    (gates.valid_notebook, "not a valid notebook", lambda cells: cells[PLOT].update(outputs=[{"text": "a"}])),
    (
        gates.executed_in_order,
        "cell 3: execution count None",
        lambda cells: cells[PLOT].update(execution_count=None),
    ),
    (
        gates.executed_in_order,
        "cell 3: execution count 7",
        lambda cells: cells[PLOT].update(execution_count=7),
    ),
    (
        gates.executed_in_order,
        "cell 3: execution count 1",
        lambda cells: cells[PLOT].update(execution_count=1),
    ),
    (
        gates.executed_in_order,
        "cell 0: execution count 5 instead",
        lambda cells: cells.insert(0, cells.pop()),
    ),
    (gates.executed_in_order, "its output has count 9", rerun_result),
    (gates.errors_are_tagged, "stored KeyError without the tag", error),
    (gates.errors_are_tagged, "raised nothing", raises_tag),
    (gates.errors_are_tagged, "stderr says 'UserWarning: slow'", stream("UserWarning: slow\n", "stderr")),
    (gates.formats_are_comparable, "image/svg+xml", output("image/svg+xml", "<svg></svg>")),
    (gates.formats_are_comparable, "application/pdf", output("application/pdf", "JVBERi0=")),
    (gates.formats_are_comparable, "image/jpeg", output("image/jpeg", PNG)),
    (gates.formats_are_comparable, "application/javascript", output("application/javascript", "alert(1)")),
    (gates.small_enough, "an output of", output("image/png", PNG * 4000, alt=ALT)),
    (gates.small_enough, "an output of", stream("x" * 300_001)),
    (gates.small_enough, "the cap is 1,500,000", large_notebook),
    (gates.pictures_have_alt_text, "cell 3: image/png with alt text ''", output("image/png", PNG)),
    (gates.pictures_have_alt_text, "cell 4: image/png with alt text ''", without_alt),
    (gates.pictures_have_alt_text, "'A figure'", output("image/png", PNG, alt="A figure")),
    (
        gates.pictures_have_alt_text,
        "<Figure",
        output("image/png", PNG, alt="<Figure size 640x480 with 1 Axes>"),
    ),
    (gates.pictures_have_alt_text, "<img> with alt text None", output("text/html", "<img src='a.png'>")),
    (gates.pictures_have_alt_text, "<img> with alt text ''", prose("![](plot.png)")),
    (gates.widgets_show_without_kernel, "cell 4: without a kernel", bare_widget),
    (
        gates.works_offline,
        "<img> loads https://a.org/x.png",
        prose("![what it shows here](https://a.org/x.png)"),
    ),
    (gates.works_offline, "<img> loads https://a.org/x.png", prose("![a b][x]\n\n[x]: https://a.org/x.png")),
    (gates.works_offline, "<img> loads //a.org/x.png", prose("<img alt='a' src='//a.org/x.png'>")),
    (
        gates.works_offline,
        "<script> loads",
        output("text/html", "<script src='https://cdn.org/d3.js'></script>"),
    ),
    (gates.works_offline, "<iframe> loads", output("text/html", "<IFRAME SRC=HTTPS://v.org/1></IFRAME>")),
    (
        gates.works_offline,
        "<link> loads",
        output("text/html", "<link rel=stylesheet href='http://a.org/s.css'>"),
    ),
    (
        gates.works_offline,
        "a style loads",
        output("text/html", "<style>@import 'https://a.org/s.css'</style>"),
    ),
    (gates.works_offline, "a style loads", prose("<p style=\"background: url('http://a.org/x.png')\">a</p>")),
    (gates.no_data_in_markdown, "base64", prose(f"![a b c d](data:image/png;base64,{PNG})")),
    (gates.no_data_in_markdown, "base64", attached),
    (gates.links_resolve, "03_chunks.ipynb", prose("[Next](03_chunks.ipynb)")),
    (gates.links_resolve, "../datas/README.md", prose("[Data](../datas/README.md)")),
    (gates.links_resolve, "plot.png", prose("![what it shows here](plot.png)")),
    (gates.no_machine_paths, "'/home/'", stream("/home/ann/rmat/data\n")),
    (gates.no_machine_paths, "'/work/'", prose("Saved in `/work/rmat`.")),
    (gates.no_machine_paths, "'/tmp/'", code(PLOT, "plot('/tmp/a.png')")),
    (gates.no_machine_paths, "'/Users/'", output("text/html", "<code>/Users/ann</code>")),
    (gates.no_machine_paths, "Users", stream("C:\\Users\\ann\n")),
    (gates.no_machine_paths, "'/root/'", output("image/png", PNG, alt="from /root/data to the end")),
    (gates.opens_with_title_and_imports, "not a title", code(TITLE, "## A title")),
    (gates.opens_with_title_and_imports, "not a title", code(TITLE, "A title")),
    (gates.opens_with_title_and_imports, "not a title", lambda cells: cells.pop(TITLE)),
    (gates.opens_with_title_and_imports, "cell 3: a second import", code(PLOT, "from math import pi")),
    (
        gates.opens_with_title_and_imports,
        "cell 6: a second import",
        code(EXERCISE, "def f():\n    import math"),
    ),
    (gates.opens_with_title_and_imports, "is not the import cell", code(IMPORTS, "plot = print")),
    (gates.exercises_are_announced, "cell 6: no difficulty", code(ANNOUNCED, "### Exercise 1 · 10 minutes")),
    (gates.exercises_are_announced, "cell 6: no difficulty", code(ANNOUNCED, "### Exercise ●●●● 10 minutes")),
    (gates.exercises_are_announced, "cell 6: no minutes", code(ANNOUNCED, "### Exercise 1 ●○○")),
    (gates.exercises_are_announced, "cell 7: no minutes", code_between),
    (gates.exercises_are_announced, "cell 6: no difficulty", instructors_note),
    (gates.exercises_fit_the_edition, "no function of the exercise has", code(EXERCISE, SOLVED_CELL)),
    (gates.exercises_fit_the_edition, "no function of the exercise has", code(EXERCISE, f"x = 1\n{STUB}")),
    (gates.exercises_fit_the_edition, "no function", code(EXERCISE, STUB_CELL.replace("not att", "Not att"))),
    (gates.exercises_fit_the_edition, "type hint", code(EXERCISE, STUB_CELL.replace("q: int", "q"))),
    (gates.exercises_fit_the_edition, "type hint", code(EXERCISE, STUB_CELL.replace(" -> int", ""))),
    (
        gates.exercises_fit_the_edition,
        "docstring",
        code(EXERCISE, STUB_CELL.replace('"""Scores."""', "pass")),
    ),
    (gates.exercises_are_checked, "no check follows", lambda cells: cells.pop(CHECK)),
    (gates.exercises_are_checked, "says '01.scores: OK'", checked("01.scores: OK. Right.")),
    (SET_FIRST, "cell 7: shown.caption is read before shown.set(...)", read_below_a_widget("print(shown.caption)")),
    (SET_FIRST, "shown.picture is read", read_below_a_widget("assert shown.picture.weights is None\nshown.set()")),
    (SET_FIRST, "map_.weights is read before shown.set(...)", read_below_a_widget("print(map_.weights)")),
    (SET_FIRST, "go.png is read", read_below_a_widget("go.png", "go = RecallPlayground(map_, a, b)")),
]


@pytest.mark.parametrize(("gate", "says", "plant"), FAULTS)
def test_a_gate_finds_the_planted_fault(tmp_path: Path, gate: Gate, says: str, plant: Plant) -> None:
    edition = right(tmp_path)
    assert gate(edition) == []
    plant(edition.notebook.cells)
    found = gate(edition)
    assert any(says in fault for fault in found), found
    assert all("\n" not in fault for fault in found)


@pytest.mark.parametrize(
    ("gate", "says", "plant"),
    [
        (gates.exercises_fit_the_edition, "is not solved", code(EXERCISE, STUB_CELL)),
        (
            gates.exercises_are_checked,
            "'01.scores: not attempted yet'",
            checked("01.scores: not attempted yet."),
        ),
        (
            gates.exercises_are_checked,
            "'01.scores: not right yet'",
            checked("01.scores: not right yet. Why."),
        ),
    ],
)
def test_an_instructors_edition_is_solved(tmp_path: Path, gate: Gate, says: str, plant: Plant) -> None:
    edition = right(tmp_path, INSTRUCTOR)
    assert gate(edition) == []
    plant(edition.notebook.cells)
    assert any(says in fault for fault in gate(edition))


def test_saved_widget_state_is_found(tmp_path: Path) -> None:
    edition = right(tmp_path)
    assert gates.no_widget_state(edition) == []
    edition.notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    assert gates.no_widget_state(edition) == ["metadata.widgets is stored"]


def test_an_older_format_is_found(tmp_path: Path) -> None:
    edition = right(tmp_path)
    edition.notebook.nbformat_minor = 4
    assert gates.valid_notebook(edition) == ["format 4.4 instead of 4.5"]


def test_an_error_may_be_the_point_and_a_broken_cell_breaks_no_gate(tmp_path: Path) -> None:
    edition = right(tmp_path)
    error(edition.notebook.cells)
    raises_tag(edition.notebook.cells)
    edition.notebook.cells[PLOT].source = "def ("
    assert gates.faults(edition) == []


@pytest.mark.parametrize(
    "source",
    ["print(shown.set(size=3))\nassert map_.weights is None and shown.caption",
     "for x in shown.controls: shown.set(x=1)", "other.caption", "map_ = 3"],
)
def test_what_was_set_may_be_read(tmp_path: Path, source: str) -> None:
    edition = right(tmp_path)
    read_below_a_widget(source)(edition.notebook.cells)
    assert gates.faults(edition) == []


def test_every_gate_has_a_planted_fault() -> None:
    assert {gate for gate, _, _ in FAULTS} | {gates.no_widget_state} == set(GATES)
