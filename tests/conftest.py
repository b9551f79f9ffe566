"""What every run shares: one thread, a home of its own for each file, a browser, skips that must be expected,
and the time that each notebook took."""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

# Set before torch is imported, here or in a kernel: the same thread count gives the same bits.
os.environ["OMP_NUM_THREADS"] = "1"

CHROMIUMS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)

# What the first file that needs it makes in seconds, and hands on. The package checks it at each use.
HANDED_ON = "installed-text.*"

# How the reason of an expected skip begins. Any other skip fails a run with RMAT_NO_SKIPS=1.
EXPECTED_SKIPS = ("needs a CUDA device", "counted in Triton's interpreter")


# So that a failure in what several files share shows its values.
pytest.register_assert_rewrite("answers", "backend_cases", "strategies")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for one test: nothing was answered yet."""
    monkeypatch.setenv("RMAT_HOME", str(tmp_path))


@pytest.fixture(scope="session")
def chromium() -> str:
    """$RMAT_CHROMIUM or an installed Chromium or Chrome; with none a skip, a failure with RMAT_REQUIRE_BROWSER=1."""
    found = os.environ.get("RMAT_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        missing = f"no browser: none of {', '.join(CHROMIUMS)} is installed"
        if os.environ.get("RMAT_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest.fixture
def style() -> Iterator[None]:
    """The course's look for the figures of one test, which are closed after it."""
    import matplotlib.pyplot as plt

    from rmat_tutorial.plots import use_style

    with plt.rc_context():
        use_style()
        yield
        plt.close("all")


class CourseRun:
    """A plugin of its own, because the hooks of a conftest.py do not reach the notebooks outside its folder."""

    def __init__(self, homes: Path) -> None:
        self.homes = homes
        self.path: Path | None = None
        self.seconds: dict[str, float] = defaultdict(float)
        self.unexpected: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        # A file must not see the answers and the progress that another left behind, nor the user's own.
        if item.path != self.path:
            self.path = item.path
            before, home = os.environ["RMAT_HOME"], tempfile.mkdtemp(dir=self.homes)
            for file in Path(before).glob(HANDED_ON):
                shutil.copy(file, home)
            os.environ["RMAT_HOME"] = home

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        file = report.nodeid.split("::")[0]
        if file.endswith(".ipynb"):
            self.seconds[file] += report.duration
        self._note_skip(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note_skip(report)

    def _note_skip(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.outcome != "skipped":
            return
        skipped = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = getattr(report, "wasxfail", skipped.removeprefix("Skipped: "))
        if not reason.startswith(EXPECTED_SKIPS):
            self.unexpected.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unexpected and os.environ.get("RMAT_NO_SKIPS") == "1":
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.seconds:
            terminalreporter.section("time of each notebook")
            for file, seconds in self.seconds.items():
                terminalreporter.line(f"{seconds:7.1f} s  {file}")
        if self.unexpected and os.environ.get("RMAT_NO_SKIPS") == "1":
            terminalreporter.section("unexpected skips: the run fails")
            for skip in self.unexpected:
                terminalreporter.line(skip)


def pytest_configure(config: pytest.Config) -> None:
    import torch

    # Read by triton when it is imported: without a GPU its kernels run in an interpreter.
    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")
    homes = tempfile.TemporaryDirectory(prefix="rmat-test-homes-")
    config.add_cleanup(homes.cleanup)
    os.environ["RMAT_HOME"] = homes.name
    config.pluginmanager.register(CourseRun(Path(homes.name)), "course-run")
