"""The rules of a test run: a skip that nobody expects fails it, and no file sees another's home or the user's."""

import re
from pathlib import Path

import pytest
from conftest import EXPECTED_SKIPS

pytest_plugins = ["pytester"]

PASSES = "def test_passes(): pass"
SKIPS = "import pytest\ndef test_skips(): pytest.skip({reason!r})"
SKIPS_ITS_MODULE = "import pytest\npytest.skip('not today', allow_module_level=True)"
EXPECTS_A_FAILURE = "import pytest\n@pytest.mark.xfail(reason='not today')\ndef test_fails(): assert False"
NEEDS_A_BROWSER = "def test_browser(chromium): assert chromium"
WRITES_HOME = """
import os, pathlib
def test_home():
    home = pathlib.Path(os.environ["RMAT_HOME"])
    assert not list(home.iterdir())
    (home / "mine").touch()
"""


MAKES_TEXT = """
import os, pathlib
def test_home():
    (pathlib.Path(os.environ["RMAT_HOME"]) / "installed-text.bin").write_text("long")
"""
HAS_TEXT = """
import os, pathlib
def test_home():
    (file,) = pathlib.Path(os.environ["RMAT_HOME"]).iterdir()
    assert file.read_text() == "long"
    file.write_text("long")
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run files as tests of the course are run, in this process: ``run(test_a=text, ...)``."""
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text())
    for name in ("RMAT_HOME", "RMAT_NO_SKIPS", "RMAT_REQUIRE_BROWSER"):
        monkeypatch.setenv(name, "")  # not what the outer run was given; and restored, whatever the inner one sets

    def run(environment, **files):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        pytester.makepyfile(**files)
        # Imported anew by every run, these two plugins would take a second each time.
        return pytester.runpytest_inprocess("-ra", "-p", "no:nbval", "-p", "no:hypothesispytest")

    return run


@pytest.mark.parametrize("skipping", [SKIPS.format(reason="not today"), SKIPS_ITS_MODULE, EXPECTS_A_FAILURE])
def test_an_unexpected_skip_fails_a_run_that_allows_none(run, skipping):
    result = run({"RMAT_NO_SKIPS": "1"}, test_a=PASSES, test_b=skipping)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*unexpected skips: the run fails*", "*test_b.py*: *not today"])


@pytest.mark.parametrize(("no_skips", "reason"), [
    ("0", "not today"), ("1", "needs a CUDA device: none here"), ("1", "counted in Triton's interpreter"),
])
def test_other_skips_are_counted_and_explained(run, no_skips, reason):
    result = run({"RMAT_NO_SKIPS": no_skips}, test_a=PASSES, test_b=SKIPS.format(reason=reason))
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"SKIPPED*{reason}", "*1 passed, 1 skipped in *"])
    result.stdout.no_fnmatch_line("*unexpected skips*")


def test_the_reasons_that_tests_give_are_expected():
    """Also those of the machine that this is not."""
    files = Path(__file__).parent.glob("test_*.py")
    found = [reason for file in files for reason in re.findall(r'skipif\(.*reason="(.*)"\)', file.read_text())]
    assert len(found) > 3 and [reason for reason in found if not reason.startswith(EXPECTED_SKIPS)] == []


@pytest.mark.parametrize(("required", "status", "closing"), [("0", 0, "1 skipped"), ("1", 1, "1 error")])
def test_a_browser_is_required_where_it_is_said(run, tmp_path, required, status, closing):
    result = run({"PATH": str(tmp_path), "RMAT_REQUIRE_BROWSER": required}, test_a=NEEDS_A_BROWSER)
    assert result.ret == status
    result.stdout.fnmatch_lines(["*no browser: *", f"*{closing} in *"])


def test_each_file_has_a_home_of_its_own(run, tmp_path):
    result = run({"RMAT_HOME": str(tmp_path)}, test_a=WRITES_HOME, test_b=WRITES_HOME)
    result.assert_outcomes(passed=2)
    assert not list(tmp_path.iterdir())


def test_what_takes_seconds_to_make_is_handed_on(run):
    run({}, test_a=MAKES_TEXT, test_b=HAS_TEXT, test_c=HAS_TEXT).assert_outcomes(passed=3)
