"""A training in a notebook that is interrupted says so in one line, and the same cell goes on with it."""

import time
from collections.abc import Iterator

import pytest
from jupyter_client import BlockingKernelClient, KernelManager

SET_UP = """
import time
from pathlib import Path
from rmat_tutorial import RMATConfig
from rmat_tutorial.own_text import own_text
from rmat_tutorial.runs import RunFolder
from rmat_tutorial.training import TrainSettings, train

config = RMATConfig(
    vocab_size=256, d_model=8, n_heads=2, n_layers=1, segment_len=16, chunk_size=4, memory_slots=4, write_slots=2
)
settings = TrainSettings(steps=40, batch_size=2, max_segments=2, grow_below=None)
corpus, run = own_text("text.txt").corpus(), Path("run")
seen = []

def follow(metrics, model):
    seen.append(metrics["step"])
    time.sleep(0.02)  # so that the interrupt never comes too late
"""
TRAIN = """
print("begins", flush=True)
model = train(
    config, corpus, settings, run, resume=RunFolder(run).holds_a_run(), progress=False, follow=follow
)
print("ends", seen[-1])
"""


@pytest.fixture
def kernel(tmp_path) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    (tmp_path / "text.txt").write_text("a text that is read again and again, " * 50)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def outputs(kernel, code: str, interrupt_after: float | None = None) -> list[dict]:
    """What a cell prints and raises; it is interrupted so many seconds after the first of it."""
    manager, client = kernel
    found: list[dict] = []

    def hear(message: dict) -> None:
        if message["msg_type"] in ("stream", "error"):
            found.append(message["content"])
            if interrupt_after is not None and len(found) == 1:
                time.sleep(interrupt_after)
                manager.interrupt_kernel()

    client.execute_interactive(code, output_hook=hear, allow_stdin=False, timeout=60)
    return found


def test_an_interrupt_is_one_line_and_the_cell_goes_on(kernel):
    assert outputs(kernel, SET_UP) == []
    # The first training of a kernel is still importing then: nothing of that may be cut short either.
    begins, stopped = outputs(kernel, TRAIN, interrupt_after=0.2)
    assert begins["text"] == "begins\n"
    assert stopped["ename"] == "TrainingStopped"
    (line,) = stopped["traceback"]
    assert line.startswith("stopped after step ") and line.endswith("saved in run")
    ended = "".join(output["text"] for output in outputs(kernel, TRAIN))
    assert ended == "begins\nends 40\n"
