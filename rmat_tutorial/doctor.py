"""What can be wrong with an environment, one finding each: ``python -m rmat_tutorial doctor``.

A check imports what it looks at inside itself, so that a missing package is a finding and not a traceback. The detail
of a healthy finding names no folder: people paste these lines into issues.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
LEAST_MEMORY_GB = 1.0
SHIPPED_MODELS = ("recall", "recall-no-memory", "text")
# Widgets show in the page only if the three packages are of one generation, that is, of one row of major versions.
WIDGET_GENERATIONS = (
    {"ipywidgets": 8, "jupyterlab_widgets": 3, "widgetsnbextension": 4},
    {"ipywidgets": 7, "jupyterlab_widgets": 1, "widgetsnbextension": 3},
)
# Colab brings its own torch, Jupyter and widgets; only these have to be at the course's versions there.
COLAB_PACKAGES = ("safetensors", "sympy", "networkx")

PYTHON = f'"{sys.executable}"' if " " in sys.executable else sys.executable
PIP = f"{PYTHON} -m pip install"
INSTALL = f"in the course's folder: {PIP} -r requirements.txt -e ."


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``fix`` says what to do about it, and is empty when ``ok``."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class Trouble(Exception):
    """What a check found wrong, and the fix when it knows a better one than its usual one."""

    def __init__(self, detail: str, fix: str = "") -> None:
        super().__init__(detail)
        self.fix = fix


def diagnose() -> list[Finding]:
    """Look at everything; takes about as long as importing torch."""
    return [_examine(name, check, fix) for name, check, fix in _checks(colab="COLAB_RELEASE_TAG" in os.environ)]


def main(as_json: bool) -> int:
    """Print the findings, a line each, or one JSON object. Returns the exit status: 1 when something is wrong."""
    findings = diagnose()
    failed = sum(not finding.ok for finding in findings)
    if as_json:
        report = {"ok": not failed, "platform": platform.platform(), "findings": [asdict(f) for f in findings]}
        print(json.dumps(report, indent=2))
    else:
        print(as_text(findings))
        print(f"{failed} of {len(findings)} checks failed" if failed else f"all {len(findings)} checks passed")
    return 1 if failed else 0


def as_text(findings: list[Finding]) -> str:
    """The findings as aligned lines: ``OK`` or ``FAIL``, the name, what was found and, after an arrow, the fix."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        fix = "" if finding.ok else f" -> {finding.fix}"
        lines.append(f"{'OK' if finding.ok else 'FAIL':<4}  {finding.name:<{width}}  {finding.detail}{fix}")
    return "\n".join(lines)


def pins() -> dict[str, str]:
    """The version of each package that ``requirements.txt`` names.

    Raises:
        OSError: the file cannot be read, for instance because the package was installed without its repository.
    """
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE))


def _checks(colab: bool) -> list[tuple[str, Callable[[], str], str]]:
    """``(name, check, usual fix)``. A check returns its detail, and raises when something is wrong."""
    jupyter = [
        ("Jupyter", _jupyter, INSTALL),
        ("widget managers", _widget_managers, INSTALL),
        ("kernel", _kernel, f"{PIP} --force-reinstall --no-deps ipykernel"),
    ]
    checks = [
        ("Python", _python, "make a new environment with Python 3.11 or later"),
        ("torch", _torch, INSTALL),
        *([] if colab else jupyter),
        ("rmat_tutorial", _course, f"in the course's folder: {PIP} --no-deps -e ."),
        ("home folder", _home, "set RMAT_HOME, for example to a folder beside the course"),
        ("notebooks folder", partial(_writable, ROOT / "notebooks"), "move the course to a folder of your own"),
        ("free memory", _memory, "close other programs, or shut down kernels that you do not need"),
        ("pinned versions", _pinned, f"in a clone of the repository: {PIP} -r requirements.txt -e ."),
    ]
    try:
        pinned = pins()
    except OSError:
        pinned = {}
    for package in COLAB_PACKAGES if colab and pinned else pinned:
        version = pinned[package]
        checks.append((f"package {package}", partial(_package, package, version), f"{PIP} {package}=={version}"))
    for name in SHIPPED_MODELS:
        checks.append((f"model {name}", partial(_model, name), "take data/ from the repository: git checkout -- data"))
    return checks


def _examine(name: str, check: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(name, True, check())
    except Trouble as trouble:
        return Finding(name, False, str(trouble), trouble.fix or fix)
    except ImportError as error:
        return Finding(name, False, f"{error.name or error} is missing or does not load", INSTALL)
    except (OSError, ValueError) as error:
        return Finding(name, False, str(error), fix)
    except Exception as error:  # whatever a broken installation raises is a finding too
        return Finding(name, False, repr(error), fix)


def _python() -> str:
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise Trouble(f"{platform.python_version()} is too old")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch() -> str:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.arange(4.0, device=device).reshape(2, 2)
    product = (x @ x).tolist()
    if product != [[2.0, 3.0], [6.0, 11.0]]:
        raise Trouble(f"{torch.__version__} on {device} gets a product of 2 by 2 matrices wrong: {product}")
    if device == "cuda":
        return f"{torch.__version__} on cuda ({torch.cuda.get_device_name()}), a matrix product is right"
    unused = ", a CUDA build that finds no GPU" if torch.version.cuda else ""
    return f"{torch.__version__} on cpu{unused}, a matrix product is right"


def _jupyter() -> str:
    importlib.import_module("jupyterlab.labapp")
    return f"JupyterLab {metadata.version('jupyterlab')}"


def _widget_managers() -> str:
    from jupyter_core.paths import jupyter_path

    versions = {package: _version(package) for package in WIDGET_GENERATIONS[0]}
    listed = ", ".join(f"{package} {version}" for package, version in versions.items())
    majors = {package: int(version.split(".")[0]) for package, version in versions.items()}
    if majors not in WIDGET_GENERATIONS:
        raise Trouble(f"{listed} do not belong together")
    extension = Path("@jupyter-widgets", "jupyterlab-manager", "package.json")
    if not any((Path(folder) / extension).is_file() for folder in jupyter_path("labextensions")):
        raise Trouble(
            "JupyterLab does not find the widget manager", f"{PIP} --force-reinstall --no-deps jupyterlab_widgets"
        )
    return listed


def _kernel() -> str:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        interpreter = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except NoSuchKernel:
        raise Trouble("there is no kernel called python3") from None
    # Jupyter itself reads these bare names as the interpreter that it runs under.
    version = sys.version_info
    if interpreter in {"python", f"python{version[0]}", f"python{version[0]}.{version[1]}"}:
        return "python3 is this Python"
    # Not resolved: the interpreters of different environments are often links to one file.
    if Path(interpreter).absolute().parent != Path(sys.executable).absolute().parent:
        raise Trouble(
            f"python3 starts {interpreter}, not this Python", f"{PYTHON} -m jupyter kernelspec remove python3"
        )
    return "python3 is this Python"


def _course() -> str:
    # The egg-info folder in a clone looks like an installation when Python runs in that clone.
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
    installed = next(iter(metadata.distributions(name="rmat_tutorial", path=elsewhere)), None)
    if installed is None:
        raise Trouble("not installed: a notebook would not find it")
    source = json.loads(installed.read_text("direct_url.json") or "{}").get("url")
    if source != ROOT.as_uri():
        raise Trouble(f"a notebook would use the copy in {source}, not this one in {ROOT.as_uri()}")
    return f"{installed.version}, installed from this folder"


def _home() -> str:
    from .folders import home

    return _writable(home())


def _writable(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return "writable"
    except OSError as error:
        raise Trouble(f"{folder} is not writable ({error.strerror})") from None


def _memory() -> str:
    import psutil

    free = psutil.virtual_memory().available / 1e9
    if free < LEAST_MEMORY_GB:
        raise Trouble(f"{free:.1f} GB, and the notebooks need {LEAST_MEMORY_GB:.1f} GB")
    return f"{free:.1f} GB"


def _pinned() -> str:
    return f"{len(pins())} packages in requirements.txt"


def _package(package: str, pinned: str) -> str:
    installed = _version(package)
    # A local label such as +cpu or +cu130 says how torch was built, not which torch it is.
    if installed.split("+")[0] != pinned:
        raise Trouble(f"{installed}, and the course is tested with {pinned}")
    return installed


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        raise Trouble(f"{package} is not installed") from None


def _model(name: str) -> str:
    from .model import RMAT

    model = RMAT.from_checkpoint(name)
    return f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"
