"""From a source to two stored editions: what is refused, what is kept; a second build changes nothing."""

import base64
import copy
import io
from pathlib import Path

import build
import numpy as np
import pytest
from editions import INSTRUCTOR, LEARNER, STUB, SourceError, disagreements, read_source, stubs_match_solutions
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from outputs import digest, same_outputs, sanitize_rules, settle, tidy
from PIL import Image

SOURCE = '''\
# %% [markdown]
# # A small notebook

# %%
import os
import sys
import time

import ipywidgets
from IPython.display import display
from tqdm import tqdm

# %% [markdown] tags=["instructor"]
# Ask the room first.

# %%
assert os.environ["OMP_NUM_THREADS"] == "1" and os.environ["PYTHONHASHSEED"] == "0"
assert not os.path.exists(os.environ["RMAT_HOME"])
folder = os.path.basename(os.getcwd())
folder

# %%
started = time.perf_counter()
for _ in tqdm(range(3), desc="wait", file=sys.stdout):
    time.sleep(0.01)
print(f"that took {1e3 * (time.perf_counter() - started):.3f} ms")

# %% tags=["nbval-ignore-output"]
time.perf_counter()


# %%
class Slider(ipywidgets.IntSlider):
    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs) | {"text/html": "<p>0</p>", "text/plain": "0"}


Slider()

# %% [markdown]
# ### Exercise 1 ●○○ · 5 minutes

# %% tags=["exercise"]
def double(x: int) -> int:
    """Twice x."""
    # BEGIN SOLUTION
    twice = x + x
    return twice
    # END SOLUTION


# %%
try:
    said = "OK" if double(2) == 4 else "not right yet"
except NotImplementedError:
    said = "not attempted yet"
display({"text/plain": f"09.double: {said}."}, raw=True)
'''
PRINTED, MEASURED_CELL, WIDGET_CELL = 4, 5, 6  # their places in the instructor's edition


def write(folder: Path, text: str, name: str = "09_small") -> Path:
    path = folder / "notebooks" / "source" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def stored(folder: Path) -> dict[str, bytes]:
    notebooks = folder / "notebooks"
    return {str(path.relative_to(notebooks)): path.read_bytes() for path in notebooks.rglob("*.ipynb")}


# Building


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one notebook, built once."""
    folder = tmp_path_factory.mktemp("course")
    write(folder, SOURCE)
    assert build.main([], folder / "notebooks") == 0
    return folder


def edition(folder: Path, kind: str) -> NotebookNode:
    notebook = build.read_edition(build.edition_path(folder / "notebooks", "09_small", kind))
    assert notebook is not None
    return notebook


def test_both_editions_are_made_and_run_where_they_lie(built: Path) -> None:
    learner, instructor = edition(built, LEARNER), edition(built, INSTRUCTOR)
    assert "Ask the room" not in str(learner.cells)
    assert "Ask the room" in instructor.cells[2].source
    assert STUB in learner.cells[-2].source and "twice" not in learner.cells[-2].source
    assert "return twice" in instructor.cells[-2].source and "SOLUTION" not in str(instructor.cells)
    assert learner.cells[-1].outputs[0].data["text/plain"] == "09.double: not attempted yet."
    assert instructor.cells[-1].outputs[0].data["text/plain"] == "09.double: OK."
    assert learner.cells[2].outputs[0].data["text/plain"] == "'notebooks'"
    assert instructor.cells[3].outputs[0].data["text/plain"] == "'instructor'"


def test_nothing_of_the_machine_or_the_moment_is_stored(built: Path) -> None:
    learner, instructor = edition(built, LEARNER), edition(built, INSTRUCTOR)
    assert set(learner.metadata) == {"kernelspec", "language_info", "rmat"}
    assert "version" not in learner.metadata.language_info
    assert all(set(cell.metadata) <= {"tags"} for cell in learner.cells)
    assert instructor.cells[PRINTED].outputs[0].text.count("wait: ") == 1
    for notebook, place in ((learner, 5), (instructor, WIDGET_CELL)):
        assert notebook.cells[place].outputs[0].data == {"text/html": "<p>0</p>", "text/plain": "0"}


def test_building_again_changes_no_byte(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stored(built)
    assert build.main(["09_small"], built / "notebooks") == 0
    assert stored(built) == before and len(before) == 2
    said = capsys.readouterr().out
    assert said.count("unchanged") == 2 and "although nothing changed" not in said


def test_an_error_in_a_cell_is_shown_and_leaves_the_old_editions(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stored(built)
    broken = SOURCE.replace("for _ in tqdm(", "limit = 0\n1 / limit\nfor _ in tqdm(")
    path = write(built, broken)
    try:
        assert build.main([], built / "notebooks") == 1
    finally:
        path.write_text(SOURCE, encoding="utf-8")
    said = capsys.readouterr().err
    assert "09_small (learner), cell 3 (line 22 of the source)" in said
    assert "1 / limit" in said and "ZeroDivisionError: division by zero" in said and "\x1b" not in said
    assert stored(built) == before


def test_a_broken_rule_leaves_the_old_editions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def runs_twice(notebook: NotebookNode, *_: object) -> None:
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.execution_count = 1

    monkeypatch.setattr(build, "execute", runs_twice)
    write(tmp_path, "# %% [markdown]\n# # Title\n\n# %%\nimport os\n\n# %%\nos.sep\n")
    assert build.main([], tmp_path / "notebooks") == 1
    assert "09_small (learner), cell 2: execution count 1 instead of 2" in capsys.readouterr().err
    assert stored(tmp_path) == {}


def test_an_unknown_name_and_an_empty_folder_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build.main([], tmp_path) == 1
    assert "no notebook source here" in capsys.readouterr().err
    write(tmp_path, SOURCE)
    assert build.main(["03_gone"], tmp_path / "notebooks") == 1
    assert "FAIL no notebook '03_gone'; there are 09_small" in capsys.readouterr().err


# Comparing editions with their source


def test_check_agrees_with_what_was_built(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--check"], built / "notebooks") == 0
    assert "1 notebooks agree" in capsys.readouterr().out


def test_check_finds_what_is_missing_damaged_and_left_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, SOURCE)
    notebooks = tmp_path / "notebooks"
    (notebooks / "09_small.ipynb").write_text("<<<<<<< HEAD")
    (notebooks / "08_old.ipynb").write_text("{}")
    assert build.main(["--check"], notebooks) == 1
    assert capsys.readouterr().out.splitlines() == [
        "09_small (learner), not built, or not readable",
        "09_small (instructor), not built, or not readable",
        "08_old.ipynb, no source makes it",
    ]


def _other_text(nb: NotebookNode) -> None:
    nb.cells[0].source += " edited by hand"


def _other_tag(nb: NotebookNode) -> None:
    nb.cells[4].metadata["tags"] = []


def _other_id(nb: NotebookNode) -> None:
    nb.cells[1].id = "3f0a"


def _cell_gone(nb: NotebookNode) -> None:
    del nb.cells[-1]


def _cell_added(nb: NotebookNode) -> None:
    nb.cells.append(new_code_cell("1 + 1"))


def _cells_swapped(nb: NotebookNode) -> None:
    nb.cells[3], nb.cells[4] = nb.cells[4], nb.cells[3]


def _patch_version(nb: NotebookNode) -> None:
    nb.metadata.language_info["version"] = "3.11.9"


def _other_kernel(nb: NotebookNode) -> None:
    nb.metadata.kernelspec["name"] = "my-env"


def _front_end_state(nb: NotebookNode) -> None:
    nb.metadata["toc"] = {}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (_other_text, "cell 0: source not as in the source, line 1"),
        (_other_tag, "cell 4: metadata not as"),
        (_other_id, "cell 1: id not as"),
        (_cell_gone, "8 cells, the source has 9"),
        (_cell_added, "10 cells, the source has 9"),
        (_cells_swapped, "cell 3: source and metadata and id not as"),
        (_patch_version, "metadata 'language_info' differs"),
        (_other_kernel, "metadata 'kernelspec' differs"),
        (_front_end_state, "foreign metadata 'toc'"),
    ],
)
def test_an_edition_that_was_edited_disagrees(built: Path, edit: object, says: str) -> None:
    source = read_source(built / "notebooks/source/09_small.py")
    notebook = edition(built, LEARNER)
    assert disagreements(source, LEARNER, notebook) == []
    edit(notebook)
    assert any(says in fault for fault in disagreements(source, LEARNER, notebook))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Twice x."""', '"""Double x."""'),
        ("def double(x: int)", "def double(y: int)"),
        (STUB, "twice = x + x\n    return twice"),
        (STUB, f"print(x)\n    {STUB}"),
    ],
)
def test_a_stub_is_the_solution_with_lines_removed(built: Path, old: str, new: str) -> None:
    learner, instructor = edition(built, LEARNER), edition(built, INSTRUCTOR)
    assert stubs_match_solutions(learner, instructor) == []
    learner.cells[-2].source = learner.cells[-2].source.replace(old, new)
    assert stubs_match_solutions(learner, instructor) == [
        "cell 7: the stub is not the solution with lines removed"
    ]


# Reading a source

EXERCISE = '# %% tags=["exercise"]\ndef f(x):\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no cell"),
        ("import os\n\n# %%\nos.sep\n", "text before the first '# %%'"),
        ("# %%\n\n# %%\n1\n", "cell 0 (line 1): the cell is empty"),
        ("# %% [raw]\n# text\n", "a raw cell"),
        ("# %%\n1\n\n# %% tags=['excercise']\n2\n", "cell 1 (line 4): unknown tag 'excercise'"),
        ("# %% tag=['exercise']\n1\n", "'tag' on the cell's first line"),
        ("# %% tags=['instructor']\n1\n", "only markdown can be left out"),
        ("# %% [markdown] tags=['exercise']\n# text\n", "it belongs on the code cell"),
        ("# %%\n# NBVAL_SKIP\n1\n", "write it as a tag"),
        (EXERCISE + "    return x\n", "has no solution"),
        (EXERCISE + "    # BEGIN SOLUTION\n    return x\n", "BEGIN SOLUTION without an END SOLUTION"),
        (EXERCISE + "    return x\n    # END SOLUTION\n", "END SOLUTION without a BEGIN SOLUTION"),
        (EXERCISE + "    # BEGIN SOLUTION\n    # END SOLUTION\n", "nothing between"),
        (EXERCISE + "    # BEGIN SOLUTION\n    # think\n    # END SOLUTION\n", "nothing between"),
        (EXERCISE + "    # BEGIN SOLUTION\n    return x\n# END SOLUTION\n", "indented differently"),
        (EXERCISE + "    # BEGIN SOLUTION\n    # BEGIN SOLUTION\n    return x\n", "a second BEGIN SOLUTION"),
        (EXERCISE + "    # BEGIN SOLUTIONS\n    return x\n    # END SOLUTION\n", "is not spelt"),
        (EXERCISE + "    #BEGIN SOLUTION\n    return x\n    #END SOLUTION\n", "is not spelt"),
        (EXERCISE + "    # begin solution\n    return x\n    # end solution\n", "is not spelt"),
        (EXERCISE + "    if x:\n    # BEGIN SOLUTION\n        return x\n    # END SOLUTION\n", "not Python"),
        ("# %%\n# BEGIN SOLUTION\n1\n# END SOLUTION\n", "not tagged 'exercise'"),
        ("# %%\n# end_solution\n1\n", "not tagged 'exercise'"),
        ("# %% [markdown]\n# text\n# # BEGIN SOLUTION\n", "not tagged 'exercise'"),
    ],
)
def test_a_wrong_source_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SourceError) as raised:
        read_source(path)
    message = str(raised.value)
    assert says in message and message.startswith("09_small.py") and "\n" not in message


@pytest.mark.parametrize("name", ["attention", "1_attention", "01-attention", "01_Attention"])
def test_a_source_is_called_by_number_and_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="two digits"):
        read_source(write(tmp_path, "# %%\n1\n", name))


def test_two_solutions_in_one_cell_become_two_stubs(tmp_path: Path) -> None:
    text = EXERCISE + "    # BEGIN SOLUTION\n    return x\n    # END SOLUTION\n\n\n"
    text += "def g(x):\n    if x:\n        # BEGIN SOLUTION\n        return 1\n        # END SOLUTION\n"
    text += "    return x\n"
    cells = read_source(write(tmp_path, text)).cells
    assert cells[0].text[LEARNER] == (
        f"def f(x):\n    {STUB}\n\n\ndef g(x):\n    if x:\n        {STUB}\n    return x"
    )
    assert (
        cells[0].text[INSTRUCTOR]
        == "def f(x):\n    return x\n\n\ndef g(x):\n    if x:\n        return 1\n    return x"
    )


def test_ids_belong_to_the_text_of_a_cell(tmp_path: Path) -> None:
    def ids(*cells: str) -> list[str]:
        text = "".join(f"# %%\n{cell}\n\n" for cell in cells)
        return [cell.id for cell in read_source(write(tmp_path, text)).cells]

    first = ids("a", "b", "a")
    assert len(set(first)) == 3
    assert ids("new", "a", "b", "a")[1:] == first
    assert ids("a", "b + 1", "a")[::2] == first[::2] and ids("a", "b + 1", "a")[1] != first[1]


# What is kept


def image(values: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(stream, "png")
    return base64.b64encode(stream.getvalue()).decode()


GREY = np.full((20, 30), 100)
RULES = sanitize_rules()


def printed(text: str) -> NotebookNode:
    return new_output("stream", name="stdout", text=text)


def picture(values: np.ndarray, alt: str = "a grey square") -> NotebookNode:
    return new_output("display_data", {"image/png": image(values)}, metadata={"image/png": {"alt": alt}})


def one_cell(output: NotebookNode, *tags: str, count: int = 1) -> NotebookNode:
    cell = new_code_cell(
        "measure()", id="a", outputs=[output], execution_count=count, metadata={"tags": [*tags]}
    )
    return new_notebook(cells=[cell])


def settled(old: NotebookNode, new: NotebookNode, inputs: str, *tags: str) -> tuple[NotebookNode, list[str]]:
    """What is stored of ``new`` when ``old`` was stored with the inputs "same"."""
    before, after = one_cell(old, *tags), one_cell(new, *tags)
    settle(before, None, "same", RULES)
    unsteady = settle(after, before, inputs, RULES)
    return after.cells[0].outputs[0], unsteady


def test_a_timing_is_kept_only_while_its_inputs_are_the_same() -> None:
    old, new = printed("4 steps in 3.1 ms\n"), printed("4 steps in 12.7 ms\n")
    assert settled(old, new, "same") == (old, [])
    assert settled(old, new, "other") == (new, [])


def test_a_measured_cell_is_kept_only_while_its_inputs_are_the_same() -> None:
    old, new = printed("exponent 1.93\n"), printed("exponent 2.01\n")
    assert settled(old, new, "same", "nbval-ignore-output") == (old, [])
    assert settled(old, new, "other", "nbval-ignore-output") == (new, [])


def test_a_number_is_never_kept_and_one_that_changes_by_itself_is_reported() -> None:
    old, new = printed("accuracy 0.97 in 1 ms\n"), printed("accuracy 0.12 in 1 ms\n")
    assert settled(old, new, "same") == (new, ["a"])
    assert settled(old, new, "other") == (new, [])


def test_a_picture_is_kept_when_no_eye_sees_the_difference() -> None:
    shade, spot = GREY + 3, GREY.copy()
    spot[4, 5] += 40
    assert settled(picture(GREY), picture(shade), "other")[0] == picture(GREY)
    assert settled(picture(GREY), picture(spot), "same")[0] == picture(spot)
    assert settled(picture(GREY), picture(GREY[:-1]), "same")[0] == picture(GREY[:-1])
    assert settled(picture(GREY), picture(GREY, "a red square"), "same")[0] == picture(GREY, "a red square")
    assert settled(picture(GREY), printed("none"), "same")[0] == printed("none")


def test_a_kept_result_takes_the_new_count() -> None:
    result = new_output("execute_result", {"text/plain": "3"}, execution_count=1)
    before, after = one_cell(result), one_cell(copy.deepcopy(result), count=7)
    settle(after, before, "same", RULES)
    assert after.cells[0].execution_count == after.cells[0].outputs[0].execution_count == 7


def test_the_digest_follows_everything_that_outputs_are_computed_from(tmp_path: Path) -> None:
    def now(code: str = "1", prose: str = "text") -> str:
        notebook = new_notebook(cells=[new_code_cell(code, id="a")])
        notebook.metadata["prose"] = prose
        return digest(notebook, tmp_path)

    paths = ["rmat_tutorial/kernels/sdpa.py", "data/text.safetensors", "requirements.txt", "constraints.txt"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"one\n")
    start = now()
    assert now(prose="other") == start and now(code="2") != start
    seen = {start}
    for path in paths:
        (tmp_path / path).write_bytes(b"two\n")
        seen.add(now())
    assert len(seen) == 1 + len(paths)
    (tmp_path / paths[0]).write_bytes(b"two\r\n")
    assert now() in seen


def test_streams_are_stored_as_a_reader_saw_them_last() -> None:
    streams = [("stderr", " 50%\r"), ("stdout", "a\n"), ("stderr", "100%\n"), ("stdout", "b\n")]
    cell = new_code_cell(outputs=[new_output("stream", name=name, text=text) for name, text in streams])
    cell.outputs += [picture(GREY), printed("c\n")]
    tidy(cell)
    assert [(out.get("name"), out.get("text")) for out in cell.outputs] == [
        ("stdout", "a\nb\n"),
        ("stderr", "100%\n"),
        (None, None),
        ("stdout", "c\n"),
    ]


# The sanitize rules


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("took 3.1 ms", "took  12.75 ms"),
        ("read 210 µs, write 1.2 s", "read 1.3 ms, write 900 ms"),
        ("8.1e-05 s", "0.2 s"),
        ("12,000 tokens/s", "9,876.5 tokens/s"),
        ("3.2 MB/s", "11.0 MB/s"),
        (" 40%|████      | 8/20 [00:00<00:00, 98.3it/s]", " 40%|████      | 8/20 [01:07<02:10, 1.20s/it]"),
        ("9/9 [00:00<00:00, 102.3it/s]\n", "9/9 [00:00<00:00, 98.3it/s] \n"),
        ("9 steps: 9it [00:00, 98.3it/s]", "9 steps: 9it [1:00:02, ?it/s]"),
        ("<function f at 0x7f2b8c0d5e40>", "<function f at 0x7fAA0c0d5e40>"),
        (
            '<img alt="a" src="data:image/png;base64,iVBORw0KGgo=">',
            '<img alt="a" src="data:image/png;base64,AAAA">',
        ),
    ],
)
def test_what_a_clock_decides_may_differ(one: str, other: str) -> None:
    assert not same_outputs([printed(one)], [printed(other)], [])
    assert same_outputs([printed(one)], [printed(other)], RULES)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("accuracy 0.97", "accuracy 0.12"),
        ("32 slots", "16 slots"),
        ("4 steps", "40 steps"),
        ("512 tokens", "256 tokens"),
        ("8 min", "9 min"),
        ("2.13 bits per byte", "3.13 bits per byte"),
        ("tensor([1, 2])", "tensor([2, 1])"),
        ("T = 512: 3.1 ms", "T = 256: 3.1 ms"),
        ("x4 s", "x5 s"),
        (" 40%|████      | 8/20 [00:00<00:00, 98.3it/s]", " 45%|████▌     | 9/20 [00:00<00:00, 98.3it/s]"),
        ("9/9 [00:00<00:00, 98.3it/s, loss=0.31]", "9/9 [00:00<00:00, 98.3it/s, loss=2.31]"),
        ("0x7f2b", "0x7f2c"),
        ("3.1 ms", "3.1 MB"),
        ('<img alt="a" src="data:image/png;base64,AAAA">', '<img alt="b" src="data:image/png;base64,AAAA">'),
    ],
)
def test_no_rule_hides_a_wrong_number(one: str, other: str) -> None:
    assert not same_outputs([printed(one)], [printed(other)], RULES)
