"""When two runs of a cell show the same, and which of their outputs is stored."""

import base64
import copy
import hashlib
import io
import itertools
import re
from pathlib import Path

import numpy as np
from editions import tagged
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams, get_sanitize_patterns
from PIL import Image

WIDGET = "application/vnd.jupyter.widget-view+json"
STILLS = frozenset({"image/png", "text/html"})
MEASURED = "nbval-ignore-output"
# Of 255. Another processor rounds by less, and no eye sees it; a line that moves a tenth of a pixel is more.
GREY_LEVELS = 8

Rules = list[tuple[str, str]]


def sanitize_rules() -> Rules:
    """The pairs of pattern and replacement of sanitize.cfg, as nbval reads them."""
    return get_sanitize_patterns(Path(__file__).with_name("sanitize.cfg").read_text(encoding="utf-8"))


def digest(notebook: NotebookNode, root: Path) -> str:
    """What outputs are computed from: the notebook's code, the package, its data and the pinned versions."""
    total = hashlib.sha256()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            total.update(cell.source.encode() + b"\0")
    pins = [root / "requirements.txt", root / "constraints.txt"]
    for path in sorted([*root.glob("rmat_tutorial/**/*.py"), *root.glob("data/*"), *pins]):
        if path.is_file():
            total.update(path.relative_to(root).as_posix().encode() + b"\0")
            # Git on Windows may have changed the ends of lines.
            total.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return total.hexdigest()[:16]


def tidy(cell: NotebookNode) -> None:
    """Take out of a cell's outputs what is chance, how streams were cut and interleaved, and what is dead: views.

    A trusted notebook shows a stored view of a widget as "model not found", in place of the picture beside it.
    """
    tidied: list[NotebookNode] = []
    for is_stream, group in itertools.groupby(
        cell.outputs, key=lambda output: output.output_type == "stream"
    ):
        run = list(group)
        # stdout before stderr: they reach the notebook in either order.
        tidied += sorted(coalesce_streams(run), key=lambda out: out.name, reverse=True) if is_stream else run
    for output in tidied:
        if STILLS & set(output.get("data", ())):
            output.data.pop(WIDGET, None)
    cell.outputs = tidied


def settle(notebook: NotebookNode, stored: NotebookNode | None, inputs: str, rules: Rules) -> list[str]:
    """Keep the stored outputs of cells that show the same again.

    Equal under the sanitize rules is the same only while ``inputs``, the digest of what outputs are computed
    from, is what it was: a measurement of code that has since changed is not kept. The digest is stored where
    there is something to keep. Returns the ids of cells whose output changed although their inputs did not.
    """
    unchanged = stored is not None and stored.metadata.get("rmat", {}).get("measured_with") == inputs
    before = {cell.id: cell for cell in stored.cells if cell.cell_type == "code"} if stored else {}
    unsteady = []
    varies = False
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        measured = tagged(cell, MEASURED)
        old = before.get(cell.id)
        if old is not None:
            kept = unchanged and measured
            if kept or same_outputs(cell.outputs, old.outputs, rules if unchanged else []):
                cell.outputs = copy.deepcopy(old.outputs)
            elif unchanged:
                unsteady.append(cell.id)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
        varies = varies or measured or _texts(cell.outputs, rules) != _texts(cell.outputs, [])
    if varies:
        notebook.metadata["rmat"] = {"measured_with": inputs}
    return unsteady


def same_outputs(new: list[NotebookNode], old: list[NotebookNode], rules: Rules) -> bool:
    """Whether two lists of outputs agree: texts after the rules, pictures as the eye sees them."""
    return _texts(new, rules) == _texts(old, rules) and all(
        map(_same_picture, _pictures(new), _pictures(old))
    )


def _texts(outputs: list[NotebookNode], rules: Rules) -> list[object]:
    """Everything but the pixels, with the rules applied; that there is a picture stays."""
    outputs = copy.deepcopy(outputs)
    for output in outputs:
        output.pop("execution_count", None)
        if "image/png" in output.get("data", ()):
            output.data["image/png"] = ""
    return [_sanitized(output, rules) for output in outputs]


def _pictures(outputs: list[NotebookNode]) -> list[str]:
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", ())]


def _sanitized(value: object, rules: Rules) -> object:
    if isinstance(value, dict):
        return {key: _sanitized(inner, rules) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sanitized(inner, rules) for inner in value]
    if isinstance(value, str):
        for pattern, replacement in rules:
            value = re.sub(pattern, replacement, value)
    return value


def _same_picture(one: str, other: str) -> bool:
    if one == other:
        return True
    first, second = _pixels(one), _pixels(other)
    return first.shape == second.shape and int(np.abs(first - second).max()) <= GREY_LEVELS


def _pixels(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"), dtype=np.int16)
