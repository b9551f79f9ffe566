"""The README says only what is there: its code runs, its commands parse, its map and versions are those of the tree."""

import re
import shlex
from pathlib import Path

import pytest

from rmat_tutorial.cli import build_parser
from rmat_tutorial.doctor import ROOT, pins

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    python -m rmat_tutorial (.*?)(?: {2,}#.*)?$", README, flags=re.MULTILINE)


def test_the_code_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_parse(command):
    known = ("train", "evaluate", "compare", "long-range", "figure", "bench")
    assert build_parser().parse_args(shlex.split(command)).command in known


def test_every_command_was_found():
    assert len(COMMANDS) == README.count("    python -m rmat_tutorial ") >= 2


def test_the_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("https://")]
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_notebooks_linked_are_those_that_exist():
    linked = set(re.findall(r"\]\(notebooks/([^)]+)\.ipynb\)", README))
    assert linked == {path.stem for path in Path(ROOT, "notebooks", "source").glob("*.py")}


def test_the_map_names_every_module():
    listed = README.partition("    rmat_tutorial/")[2].partition("    data/")[0].splitlines()[1:]
    named = {module for line in listed for module in re.split(r" {2,}", line.strip())[0].split()}
    package = ROOT / "rmat_tutorial"
    modules = {path.stem for path in package.glob("[!_]*.py")}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    assert named == modules | folders


def test_the_versions_are_the_pinned_ones():
    stated = re.findall(r"([a-z]+)==([\w.]+)", README)
    assert {package for package, _ in stated} == {"torch", "safetensors", "sympy", "networkx"}
    assert [(package, version) for package, version in stated if pins()[package] != version] == []
