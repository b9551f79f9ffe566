"""The course in a real browser: every notebook runs, every control moves its picture, an answer outlives its kernel.

Run with ``-s`` to see the times. Skipped where no Chromium is installed, unless RMAT_REQUIRE_BROWSER=1.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterator
from functools import partial
from inspect import cleandoc
from pathlib import Path

import nbformat
import pytest
from lab import Control, Explorer, Notebook, jupyterlab
from nbformat.sign import NotebookNotary
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Locator, expect, sync_playwright

COURSE = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in COURSE.glob("*.ipynb"))
DEMO_NAME = "demo.ipynb"
QUESTION = "Twice the tokens: how much more memory do the weights take?"

# A notebook with one of each kind of control, small enough to be run again after a restart.
DEMO = [
    """
    import ipywidgets
    import matplotlib.pyplot as plt
    import numpy as np
    from rmat_tutorial import plots
    from rmat_tutorial.predictions import predict, reveal
    from rmat_tutorial.widgets import Explorer
    plots.use_style()
    """,
    """
    class Map:
        def __init__(self):
            self.figure, ax = plt.subplots(figsize=(7, 6))
            letters = list("the quick brown fox jumps over a")
            self.image = plots.attention_map(ax, np.zeros((32, 32)), letters, letters, "weights")
            self.figure.colorbar(self.image, label="attention weight")

        def draw(self, layer, head, sharpness, causal, path, order, note):
            if not note:
                raise ValueError("note must say something")
            scores = np.random.default_rng([layer, head, len(path), len(order), len(note)]).random((32, 32))
            weights = np.exp(sharpness * (np.tril(scores) if causal else scores))
            self.image.set_data(weights / weights.sum(axis=1, keepdims=True))
            return f"Layer {layer}, head {head}, sharpness {sharpness:.1f}, {path}, {order}, note {note!r}."

    live = Explorer(
        Map(),
        title="Attention map",
        layer=ipywidgets.IntSlider(2, 0, 4, description="layer"),
        head=ipywidgets.BoundedIntText(0, 0, 7, description="head"),
        sharpness=ipywidgets.FloatSlider(4.0, min=0.0, max=8.0, step=0.5, description="sharpness"),
        causal=ipywidgets.Checkbox(True, description="causal mask"),
        path=ipywidgets.Dropdown(options=["full", "memory"], value="memory", description="path"),
        order=ipywidgets.ToggleButtons(options=["as read", "sorted"], description="order"),
        note=ipywidgets.Text("note", description="note", continuous_update=False),
    )
    live
    """,
    """
    live.controls["layer"].value = 1
    assert live.caption.startswith("Layer 1, head 0")
    live.controls["layer"].value = 2
    """,
    """
    class Line:
        def __init__(self):
            self.figure, ax = plt.subplots(figsize=(7, 3))
            (self.line,) = ax.plot([0, 1, 2], [0, 0, 0], marker="o")
            ax.set(ylim=(0, 12), xlabel="tokens T", ylabel="time (ms)")

        def draw(self, height, name):
            self.line.set_ydata([0, height, len(name)])
            return f"Height {height}, name {name}."

    waiting = Explorer(
        Line(),
        title="Height",
        height=ipywidgets.IntSlider(3, 0, 10, description="height"),
        name=ipywidgets.Text("line", description="name", continuous_update=False),
        go=ipywidgets.Button(description="Go"),
    )
    waiting
    """,
    f"predict('demo.cost', '{QUESTION}', ['the same', '2 times', '4 times'])",
    "reveal('demo.cost', 2, 'From 64 to 128 tokens: 16 KiB to 64 KiB.')",
    """
    fig, ax = plt.subplots()
    ax.plot([1, 2, 4], [1, 4, 16], marker="o")
    ax.set(xlabel="tokens T", ylabel="time (ms)")
    plots.show(fig, alt="A line that rises with the square of T.")
    """,
]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps what is the reader's: settings, signatures, answers. Screenshots go there too."""
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the notebooks, and the demo."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name in NOTEBOOKS:
        shutil.copy(COURSE / name, folder)
    write_demo(folder / DEMO_NAME)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path, private: Path, chromium: str) -> Iterator[str]:
    with jupyterlab(folder, private) as address:
        yield address


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator:
    """Opens notebooks, and closes them after the test."""
    notebooks = []

    def open_notebook(name: str) -> Notebook:
        notebooks.append(Notebook(browser, address, name))
        return notebooks[-1]

    yield open_notebook
    for notebook in notebooks:
        notebook.close()


def write_demo(path: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell(cleandoc(cell), id=f"cell{i}") for i, cell in enumerate(DEMO)])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


def use_live(explorer: Explorer) -> dict[Control, list[float]]:
    """Move each control to and fro; the times to its pictures in milliseconds. Fails where the picture stays."""
    times = {}
    for control in explorer.controls("live"):
        pictures = {explorer.pixels()}
        waits = []
        for keys in [control.there, control.back] * (4 if control.kind == "slider" else 1):
            waits.append(explorer.picture_after(partial(control.press, keys), seconds=5))
            assert explorer.error() is None, f"{explorer.title}, {control.label}: {explorer.error()}"
            pictures.add(explorer.pixels())
        # A control may have two places that look the same, but not only such.
        times[control] = [wait for wait in waits if wait is not None]
        assert len(pictures) > 1, f"{explorer.title}, {control.label}: the picture stays as it was"
    return times


def use_button(explorer: Explorer, button: Locator) -> float:
    """Move each control, see the picture wait, press the button; the time to the new picture in milliseconds."""
    before = explorer.pixels()
    for control in explorer.controls("waiting"):
        waited = explorer.picture_after(partial(control.press, control.there), seconds=0.3) is None
        assert waited, f"{explorer.title}, {control.label}: the picture did not wait for the button"
    assert "Changed. Press" in explorer.widget.text_content()
    time = explorer.picture_after(partial(button.press, "Space"), seconds=60)
    explorer.settle()
    assert explorer.error() is None, f"{explorer.title}: {explorer.error()}"
    assert explorer.pixels() != before, f"{explorer.title}: the button leaves the picture as it was"
    assert "Changed. Press" not in explorer.widget.text_content()
    return time


@pytest.mark.parametrize("name", [DEMO_NAME, *NOTEBOOKS])
def test_a_notebook_runs_and_every_control_moves_its_picture(name, opened, private, capsys):
    notebook = opened(name)
    notebook.run_all()
    assert not notebook.errors(), "\n".join(notebook.errors())
    assert notebook.not_run() == []
    explorers = notebook.explorers()
    if name == DEMO_NAME:
        assert len(explorers) == 2 and len(explorers[0].controls("live")) == 7
    report = []
    to_slider = []
    for explorer in explorers:
        for control, times in use_live(explorer).items():
            # Which of several keys brought the picture is not known.
            time = f"{statistics.median(times):6.0f} ms" if len(control.there) == 1 else "    moved"
            report.append(f"{time}  {explorer.title}: {control.label} ({control.kind})")
            to_slider += times if control.kind == "slider" else []
        if button := explorer.button():
            report.append(f"{use_button(explorer, button):6.0f} ms  {explorer.title}: {button.text_content()} (button)")
    for question in notebook.predictions():
        question.locator("input[type=radio]").first.press("Space")
        expect(question.locator(".rmat-kept")).to_contain_text("Kept: ")
    assert not notebook.errors(), "\n".join(notebook.errors())
    notebook.screenshot(private / f"{name}.png")
    with capsys.disabled():
        print(f"\n{name}: time from a key to the new picture, decoded (medians)")
        print("\n".join(report))
        if to_slider:
            print(f"{statistics.median(to_slider):6.0f} ms  all sliders, {len(to_slider)} moves")


def test_an_answer_outlives_its_kernel(opened, private):
    progress = private / "RMAT_HOME" / "progress.json"
    progress.unlink(missing_ok=True)
    notebook = opened(DEMO_NAME)
    notebook.run_all()
    (question,) = notebook.predictions()
    assert "No prediction kept. Measured: 4 times" in notebook.text()
    question.locator("input[type=radio]").nth(1).press("Space")
    expect(question.locator(".rmat-kept")).to_contain_text("Kept: 2 times.")
    assert json.loads(progress.read_text())["predictions"]["demo.cost"]["answer"] == "2 times"
    notebook.restart_kernel()
    notebook.run_all()
    (question,) = notebook.predictions()
    expect(question.locator("input[type=radio]").nth(1)).to_be_checked()
    expect(question.locator(".rmat-kept")).to_contain_text("Kept before the result was shown: 2 times")
    assert "You predicted: 2 times" in notebook.text()
    notebook.screenshot(private / "answer.png")


def test_an_error_is_shown_in_place_of_the_picture(opened, private):
    notebook = opened(DEMO_NAME)
    notebook.run_all()
    explorer = notebook.explorers()[0]
    note = explorer.widget.locator("input[type=text]")
    note.fill("")
    note.press("Enter")
    expect(explorer.picture).to_be_hidden()
    assert explorer.error() == "This could not be drawn. ValueError: note must say something"
    assert notebook.errors() == [explorer.error()], "and nothing is printed below a cell"
    notebook.screenshot(private / "error.png")
    note.fill("again")
    note.press("Enter")
    expect(explorer.picture).to_be_visible()
    assert "again" in explorer.caption() and notebook.errors() == []


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_that_was_not_run_shows_its_pictures(name, trusted, opened, folder, private):
    notebook = nbformat.read(COURSE / name, as_version=4)
    notebook.metadata["copy"] = f"trusted: {trusted}"
    nbformat.write(notebook, folder / f"{trusted}_{name}")
    if trusted:
        signatures = private / "JUPYTER_DATA_DIR"
        signatures.mkdir(exist_ok=True)
        NotebookNotary(data_dir=str(signatures)).sign(notebook)
    page = opened(f"{trusted}_{name}")
    stored = sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    pictures = page.stored_pictures()
    expect(pictures).to_have_count(stored, timeout=60_000)  # cells appear one after the other, on a busy machine slowly
    assert all(picture.evaluate("image => image.naturalWidth > 0") for picture in pictures.all())
    assert page.errors() == []
