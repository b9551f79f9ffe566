"""JupyterLab on a folder, and a notebook in it as a reader has it: open in a real browser, used with the keyboard."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Browser, Locator, TimeoutError, expect

VIEW = "application/vnd.jupyter.widget-view+json"

FLAGS = (
    "--no-browser",
    "--allow-root",
    "--ServerApp.ip=127.0.0.1",
    "--ServerApp.port_retries=0",
    "--IdentityProvider.token=",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.news_url=None",
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)

# Chromium's clock of the key event and of performance.now() is the same.
WATCH = """
window.rmat = {
    watch(image) {
        image.rmatFrames = [];
        new MutationObserver(async () => {
            const source = image.src;
            try { await image.decode(); } catch { return; }  // a newer picture came first
            if (image.src === source) image.rmatFrames.push({milliseconds: performance.now() - rmat.pressed});
        }).observe(image, {attributes: true, attributeFilter: ['src']});
    },
    pixels(image) {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
        canvas.getContext('2d').drawImage(image, 0, 0);
        return canvas.toDataURL();
    },
};
document.addEventListener('keydown', event => { rmat.pressed = event.timeStamp; }, true);
"""

# How each kind of control is found inside the element that holds it, and the keys that move it there and back.
# JupyterLab takes the arrows up and down and Enter for itself, except in a field.
KINDS = {
    "slider": (".noUi-handle", ["ArrowRight"], ["ArrowLeft"]),
    "dropdown": ("select", ["End"], ["Home"]),
    "checkbox": ("input[type=checkbox]", ["Space"], ["Space"]),
    "radio buttons": ("input[type=radio]:not(:checked)", ["Space"], ["Space"]),
    "toggle buttons": ("button:not(.mod-active)", ["Space"], ["Space"]),
    "number": ("input[type=number]", ["ArrowUp"], ["ArrowDown"]),
    "text": ("input[type=text]", ["Shift+Z", "Enter"], ["Backspace", "Enter"]),
    "text of lines": ("textarea", ["Shift+Z", "Tab"], ["Backspace", "Tab"]),  # where Enter begins a line
}


@contextmanager
def jupyterlab(folder: Path, private: Path) -> Iterator[str]:
    """Serve ``folder``; yields the address. Settings, signatures and answers are kept in ``private``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = private / "jupyterlab.log"
    command = [sys.executable, "-m", "jupyterlab", *FLAGS, f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}"]
    with open(log, "w") as output:
        server = subprocess.Popen(command, env=environment(private), stdout=output, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api", server, log)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


def environment(private: Path) -> dict[str, str]:
    """The environment of a reader who starts with nothing: no settings, no signatures, no answers."""
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
    folders += ("JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR", "RMAT_HOME")
    # A kernel chooses its own backend only where none is set.
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return inherited | {name: str(private / name) for name in folders}


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


class Notebook:
    """A notebook, open in JupyterLab."""

    def __init__(self, browser: Browser, address: str, name: str) -> None:
        self.page = browser.new_page(viewport={"width": 1280, "height": 1400})
        self.page.set_default_timeout(30_000)
        self.page.add_init_script(WATCH)
        self.page.goto(f"{address}/lab/workspaces/test/tree/{quote(name)}?reset")
        self.page.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.isReady")
        self.page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.ready }")

    def run_all(self) -> None:
        """Run every cell, and wait until the last is done."""
        self.page.evaluate("async () => { await jupyterapp.commands.execute('notebook:run-all-cells') }")

    def restart_kernel(self) -> None:
        self.page.evaluate(
            "async () => { await jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart() }"
        )

    def not_run(self) -> list[str]:
        """The code cells that were not run to their end."""
        return self.page.evaluate(
            """() => [...jupyterapp.shell.currentWidget.content.model.cells]
                .filter(cell => cell.type === 'code' && cell.sharedModel.source.trim() && !cell.executionCount)
                .map(cell => cell.sharedModel.source)"""
        )

    def errors(self) -> list[str]:
        """What a reader sees go wrong: errors of cells that are not meant to raise, and of widgets."""
        raised = [
            f"{output['ename']}: {output['evalue']}, in the cell\n{source}\n"
            for source, output in self._outputs()
            if output["output_type"] == "error"
        ]
        broken = ".rmat-error, .jupyter-widgets:text('Error displaying widget'), .jupyter-widgets-error-widget"
        return raised + self.page.locator(broken).all_text_contents()

    def text(self) -> str:
        return self.page.locator(".jp-Notebook").text_content()

    def stored_pictures(self) -> Locator:
        """The pictures that stand in the notebook itself and not in a widget."""
        return self.page.locator(".jp-Notebook .jp-RenderedImage img")

    def explorers(self) -> list[Explorer]:
        return [Explorer(widget) for widget in self._widgets("rmat-explorer", still="image/png")]

    def predictions(self) -> list[Locator]:
        return self._widgets("rmat-prediction", still="text/html")

    def _widgets(self, name: str, still: str) -> list[Locator]:
        """The widgets of a class, once all are there that cells returned with that still beside them."""
        wanted = sum({VIEW, still} <= set(output.get("data", ())) for _, output in self._outputs())
        found = self.page.locator(f".jp-Notebook .{name}")
        expect(found).to_have_count(wanted)
        # Until its view is made, a child of a widget is an element with no class but Lumino's.
        expect(self.page.locator(f".{name} > :not([class*=widget]):not([class*=jupyter])")).to_have_count(0)
        return found.all()

    def _outputs(self) -> list[tuple[str, dict[str, Any]]]:
        """Every output with the source of its cell, but for cells that are meant to raise."""
        return self.page.evaluate(
            """() => [...jupyterapp.shell.currentWidget.content.model.cells]
                .filter(cell => cell.type === 'code' && !(cell.getMetadata('tags') || []).includes('raises-exception'))
                .flatMap(cell => cell.outputs.toJSON().map(output => [cell.sharedModel.source, output]))"""
        )

    def screenshot(self, path: Path) -> None:
        self.page.locator(".jp-Notebook").screenshot(path=path)

    def close(self) -> None:
        """End the kernel and close the page."""
        self.page.evaluate("async () => { await jupyterapp.shell.currentWidget.sessionContext.shutdown() }")
        self.page.close()


class Explorer:
    """A widget on the page: its controls, moved with the keyboard, and its picture."""

    def __init__(self, widget: Locator) -> None:
        self.widget = widget
        self.picture = widget.locator("img")
        self.title = widget.locator("b").first.text_content()
        self.picture.evaluate("image => rmat.watch(image)")

    def controls(self, kind: str) -> list[Control]:
        """The controls that change the picture at once, "live", or those "waiting" for the button."""
        return [Control(control) for control in self.widget.locator(f".rmat-{kind}").all()]

    def button(self) -> Locator | None:
        """The button that the picture waits for, None where it follows its controls."""
        found = self.widget.locator(".rmat-go")
        return found if found.count() else None

    def caption(self) -> str:
        return self.widget.locator(".rmat-caption").text_content()

    def pixels(self) -> str:
        """A digest of what the picture shows."""
        return hashlib.sha256(self.picture.evaluate("image => rmat.pixels(image)").encode()).hexdigest()[:12]

    def picture_after(self, use: Callable[[], None], seconds: float) -> float | None:
        """Press keys; the milliseconds from the last to the next picture, decoded, or None if none comes in time."""
        frames = self.picture.evaluate("image => image.rmatFrames.length")
        use()
        try:
            frame = self.widget.page.wait_for_function(
                "([image, frames]) => image.rmatFrames[frames]",
                arg=[self.picture.element_handle(), frames],
                timeout=1000 * seconds,
            )
        except TimeoutError:
            return None
        return frame.json_value()["milliseconds"]

    def error(self) -> str | None:
        """The sentence that stands in place of a picture that could not be drawn."""
        found = self.widget.locator(".rmat-error")
        return found.text_content() if found.count() else None

    def settle(self) -> None:
        """Wait until the kernel has nothing left to do."""
        self.widget.page.wait_for_function(
            "jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'", timeout=60_000
        )


class Control:
    """One control of a widget, of a kind of ``KINDS``; ``there`` and ``back`` are the keys that move it."""

    def __init__(self, control: Locator) -> None:
        self.control = control
        found = [kind for kind, (where, *_) in KINDS.items() if control.locator(where).count()]
        if not found:
            raise AssertionError(f"no key is known that moves {control.evaluate('node => node.outerHTML')[:300]}")
        self.kind = found[0]
        # A checkbox has an empty label before its own.
        labels = control.locator(".widget-label, .widget-label-basic").all_text_contents()
        self.label = "".join(labels).replace("\u200b", "")
        self._where, self.there, self.back = KINDS[self.kind]
        if self._is_at_its_end():
            self.there, self.back = self.back, self.there

    def press(self, keys: list[str]) -> None:
        for key in keys:
            self.control.locator(self._where).first.press(key)

    def _is_at_its_end(self) -> bool:
        moved = self.control.locator(self._where).first
        if self.kind == "slider":
            return moved.get_attribute("aria-valuenow") == moved.get_attribute("aria-valuemax")
        if self.kind == "dropdown":
            return moved.evaluate("menu => menu.selectedIndex === menu.options.length - 1")
        if self.kind == "number":
            return moved.evaluate("field => field.max !== '' && field.value === field.max")
        return False
