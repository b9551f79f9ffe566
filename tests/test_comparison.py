"""The comparison: what it runs, what it keeps, and that it goes on where it was. Most tests run a stand-in for the
course's command, which takes no time; one runs the command itself."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from strategies import assert_one_line

from rmat_tutorial import comparison, jobs
from rmat_tutorial.baselines import KINDS
from rmat_tutorial.cli import build_parser, main
from rmat_tutorial.commands.train import run_settings, training_sources
from rmat_tutorial.comparison import FULL, QUICK, Entry, Plan, best_rate, compare, describe
from rmat_tutorial.jobs import JobError
from rmat_tutorial.runs import RunFolder
from rmat_tutorial.training import Trainer

TINY = ("--d-model", "8", "--n-heads", "2", "--segment-len", "8", "--chunk-size", "4", "--memory-slots", "4",
        "--write-slots", "2", "--max-segments", "2")
PLAN = Plan(seeds=(0, 1), steps=4, batch_size=2, rates=(1e-3, 2e-3, 4e-3), tuning_up_to=64, up_to=128,
            generated=100, segment_len=8, max_segments=2)
MACHINE = {"device": "a processor"}
NAMES = ["rmat", *KINDS, "rmat, reading on", "rmt, reading on"]

# Appends each command to a journal; 2e-3 is the best rate, but 4e-3 for "window". BROKEN fails, SLOW takes its time.
STAND_IN = """
import json, os, pathlib, shlex, sys, time
words = sys.argv[1:]
name = words[-1] if words[0] == "train" and words[-1] != "--resume" else words[1]
with open("journal", "a") as journal:
    journal.write(" ".join(words) + "\\n")
if os.environ.get("BROKEN") and os.environ["BROKEN"] in " ".join(words):
    print("warning: nothing", file=sys.stderr)
    sys.exit("error: the disk is full")
if os.environ.get("SLOW") and os.environ["SLOW"] in " ".join(words):
    time.sleep(60)
if words[0] == "train":
    out = pathlib.Path([word for word in words if word != "--resume"][-1])
    out.mkdir(exist_ok=True)
    (out / "model.safetensors").touch()
    kept = shlex.join(["python", "-m", "rmat_tutorial", *[word for word in words if word != "--resume"]])
    (out / "run.json").write_text(json.dumps({"command": kept, "training_seconds": 1.5}))
elif "--generate" in words:
    print(json.dumps({"generation": [{"from": 0, "to": int(words[words.index("--generate") + 1])}], "device": "one"}))
elif "--costs" in words:
    part = {"tokens_per_second": 10.0 + len(name), "peak_bytes": None}
    read_tokens = (64, 4096, 32768)
    if "--read" in words:
        read_tokens = map(int, words[words.index("--read") + 1 : words.index("--json")])
    generation = [{"read": read, "state_bytes": 4, **part} for read in read_tokens]
    print(json.dumps({"costs": {"parameters": 5, "training": part, "generation": generation}}))
else:
    best = "0.004" if "window" in name else "0.002"
    bits = 3.0 if "validation" in words and best in name else 4.0 + len(name) / 100
    bins = [{"from": 0, "below": 64, "bytes": 30, "bits_per_byte": bits}]
    print("a table")
    print(json.dumps({"edges": [0, 64], "groups": [{"at_least": 1, "documents": 2, "bins": bins}],
                      "source": {"kind": "text"}, "model": name, "device": "a processor"}))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, "-S", str(script)))
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.005)


def run(folder: Path, plan: Plan = PLAN, jobs: int = 2) -> dict:
    return compare(plan, folder, jobs, MACHINE, progress=False)


def journal(folder: Path) -> list[str]:
    return (folder / "journal").read_text().splitlines()


# What is asked for.


def settings_of(words) -> tuple:
    options = build_parser().parse_args(list(words))
    return run_settings(options, 256)


@pytest.mark.parametrize("plan", [FULL, QUICK], ids=["full", "quick"])
def test_every_command_of_the_plan_parses_and_the_recipe_is_the_same_for_all(plan):
    found = [settings_of(plan.training(Entry(kind, kind, 1.0), 1e-3, 0).words) for kind in ("rmat", *KINDS)]
    assert [config.kind for config, _ in found] == ["rmat", *KINDS]
    assert len({settings for _, settings in found}) == 1
    config, settings = found[0]
    assert (config.segment_len, settings.max_segments) == (plan.segment_len, plan.max_segments)
    assert (settings.steps, settings.warmup, settings.restart) == (plan.steps, plan.steps // 10, 1.0)
    for kind in ("rmat", *KINDS):
        for options in plan.variants(kind, plan.seeds[0]).values():
            build_parser().parse_args(plan.score_words("x", "--documents", "--up-to", "9", *options))


@pytest.mark.parametrize("restart", [1.0, 0.125])
def test_every_model_reads_the_same_batches(restart, tmp_path):
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(range(256)) * 40)
    read = {}
    for kind in ("rmat", *KINDS):
        words = replace(PLAN, words=TINY, file=str(text)).training(Entry(kind, kind, restart), 1e-3, 3).words
        options = build_parser().parse_args(list(words))
        source, _ = training_sources(options, tmp_path / "out")
        config, settings = run_settings(options, 256)
        trainer = Trainer(config, source, settings)
        seen = read[kind] = []
        reading = trainer.model.read
        trainer.model.read = lambda tokens, state, seen=seen, reading=reading: (
            seen.append(tokens.clone()) or reading(tokens, state))
        for _ in range(4):
            trainer.advance()
    first = read.pop("rmat")
    assert len(first) == 4 and not torch.equal(first[0], first[1])
    assert all(torch.equal(one, two) for other in read.values() for one, two in zip(first, other, strict=True))


# What comes of it.


def test_the_result_has_every_entry(stand_in, tmp_path):
    folder = tmp_path / "out"
    result = run(folder)
    assert result == json.loads((folder / "comparison.json").read_text())
    assert result["device"] == "a processor" and result["failures"] == []
    assert list(result["models"]) == NAMES
    for name, model in result["models"].items():
        reads_on = name.endswith("reading on")
        assert model["restart"] == (0.125 if reads_on else 1.0)
        assert [one["lr"] for one in model["tuning"]] == [0.001, 0.002, 0.004]
        assert [one["seed"] for one in model["runs"]] == [0, 1]
        assert list(model["scores"]) == {"rmat": ["carried", "frozen", "zeroed", "shuffled"],
                                         "full": ["carried", "as in training"]}.get(model["kind"], ["carried"])
        for variant, scores in model["scores"].items():
            one = model["kind"] == "full" and variant == "carried"
            assert [score["seed"] for score in scores] == ([0] if one else [0, 1])
        assert model["costs"]["parameters"] == 5
        for one in (*model["runs"], *model["tuning"], *(one for scores in model["scores"].values() for one in scores)):
            assert shlex.split(one["command"])[:3] == ["python", "-m", "rmat_tutorial"]
            assert str(tmp_path) not in one["command"]
    # Each command was run once: the best of the first seed's trainings is the first seed's run.
    commands = [line.split()[0] for line in journal(folder)]
    assert (commands.count("train"), commands.count("evaluate")) == (6 * 3 + 6 + 2 * 2, 6 * 3 + 2 * 15 - 1 + 3 * 6 + 1)
    generation = result["long_generation"]
    assert generation["parts"] == [{"from": 0, "to": 100}]
    assert shlex.split(generation["command"])[3:] == ["evaluate", "rmat-0.002-0", "--generate", "100", "--json"]
    table = describe(result)
    assert all(f"\n{name} " in table for name in NAMES)
    assert [line for line in table.splitlines() if not line.startswith("  frozen")] == describe(
        result, without=["frozen"]).splitlines()
    assert "  frozen" in table
    ratio = result["models"]["full"]["costs"]["ratio"]
    assert ratio["training"]["tokens_per_second"] == pytest.approx(1.0)
    assert [one["read"] for one in ratio["generation"]] == [64, 4096, 32768]
    ratio = result["models"]["transformer-xl"]["costs"]["ratio"]
    assert ratio["training"]["tokens_per_second"] == pytest.approx(32 / 22)


def test_a_cost_is_the_median_of_its_rounds_and_a_ratio_that_of_the_ratios():
    assert comparison.medians([{"a": [1, {"b": 5.0}], "c": 1}, {"a": [9, {"b": 1.0}]}, {"a": [2, {"b": 3.0}]}]) == {
        "a": [2, {"b": 3.0}]}
    assert comparison.medians([None, 2.0, 3.0]) is None


def test_costs_are_measured_in_turn(stand_in, tmp_path):
    folder = tmp_path / "out"
    run(folder)
    kinds = [line.split()[1].split("-0.00")[0] for line in journal(folder) if "--costs" in line]
    assert kinds == ["rmat", *KINDS] * 3


def test_the_rate_that_is_best_on_validation_is_used(stand_in, tmp_path):
    result = run(tmp_path / "out")
    for name, model in result["models"].items():
        assert model["lr"] == (0.004 if name == "window" else 0.002)
        assert {shlex.split(one["command"])[shlex.split(one["command"]).index("--lr") + 1] for one in model["runs"]} \
            == {f"{model['lr']:g}"}
    validations = [line for line in journal(tmp_path / "out") if "validation" in line]
    assert len(validations) == 6 * 3 and all("-0 --documents" in line for line in validations)


def test_one_rate_is_not_tried():
    assert best_rate(QUICK, []) == QUICK.rates[0]
    assert best_rate(FULL, []) is None


def test_a_trial_says_so_and_tunes_nothing(stand_in, tmp_path, capsys):
    assert main(["compare", "--quick", "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert result["plan"]["quick"] is True
    assert list(result["models"]) == NAMES
    assert {len(model["tuning"]) for model in result["models"].values()} == {0}
    assert result["command"].startswith("python -m rmat_tutorial compare --quick")
    assert {"device", "threads", "versions"} <= set(result)
    reads = [part["read"] for part in result["models"]["full"]["costs"]["generation"]]
    assert reads == list(QUICK.read_tokens) and reads[-1] < 4096  # what is read takes the time of a trial
    assert "bits per byte" in capsys.readouterr().out


# Going on.


def test_what_is_done_is_not_done_again(stand_in, tmp_path):
    folder = tmp_path / "out"
    first = run(folder)
    before = journal(folder)
    assert run(folder) == first
    assert journal(folder) == before
    (folder / "rmt-0.002-1" / "run.json").unlink()
    (folder / "rmt-0.002-1" / "state.pt").touch()
    assert run(folder) == first
    (again,) = journal(folder)[len(before):]
    assert again.endswith("--out rmt-0.002-1 --resume")


def test_a_folder_of_another_plan_is_refused(stand_in, tmp_path):
    run(tmp_path / "out")
    with pytest.raises(JobError) as error:
        run(tmp_path / "out", replace(PLAN, steps=5))
    assert_one_line(str(error.value), "rmat-0.001-0", "--steps 4", "--out")


def test_a_failure_is_told_and_leaves_the_others(stand_in, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    monkeypatch.setenv("BROKEN", "--out rmt-0.002-1")
    result = run(tmp_path / "out")
    (failure,) = result["failures"]
    assert (failure["job"], failure["reason"]) == ("rmt-0.002-1", "error: the disk is full")
    assert "--out rmt-0.002-1" in failure["command"]
    assert [one["seed"] for one in result["models"]["rmt"]["runs"]] == [0]
    assert [one["seed"] for one in result["models"]["rmt"]["scores"]["carried"]] == [0]
    others = [name for name in NAMES if name != "rmt"]
    assert all(result["models"][name] == whole["models"][name] for name in others)
    assert "failed: rmt-0.002-1: error: the disk is full" in describe(result)
    monkeypatch.delenv("BROKEN")
    assert run(tmp_path / "out") == whole


def test_a_model_that_cannot_be_tuned_is_left_out(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN", "--baseline full")
    result = run(tmp_path / "out")
    assert {failure["job"] for failure in result["failures"]} == {f"full-{rate}-0" for rate in (0.001, 0.002, 0.004)}
    full = result["models"]["full"]
    assert (full["lr"], full["runs"], full["scores"], full["costs"]) == (None, [], {}, None)
    assert "full" not in describe(result).partition("failed")[0]


def test_without_the_rmat_there_are_no_ratios(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN", "rmat-0.002-0 --costs")
    result = run(tmp_path / "out")
    assert result["models"]["rmat"]["costs"] is None
    assert result["models"]["rmt"]["costs"]["ratio"] is None
    assert describe(result)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_ends_every_process_and_the_same_call_goes_on(number, stand_in, tmp_path):
    whole = run(tmp_path / "whole")
    folder = tmp_path / "out"
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from pathlib import Path\nimport test_comparison as t\nfrom rmat_tutorial import jobs as c\n"
            f"c.PROGRAM = {jobs.PROGRAM!r}\nc.POLL_SECONDS = 0.005\nt.run(Path({str(folder)!r}))\n")
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "SLOW": "--out rmt-0.002-0"},
                               stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "journal").exists() or "--out rmt-0.002-0" not in (folder / "journal").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(number)
    assert "KeyboardInterrupt" in process.communicate(timeout=30)[1]
    assert time.monotonic() - began < 30  # the slow one was not waited for
    assert not (folder / "comparison.json").exists()
    assert run(folder) == whole


# The commands themselves.


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"note {number}: the cat sat on the mat.\n" * (10 + number))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, texts) -> dict[str, Path]:
    """A run of the RMAT and one of a model without a bank."""
    folders = {kind: tmp_path_factory.mktemp("runs") / kind for kind in ("rmat", "segment")}
    for kind, folder in folders.items():
        plan = replace(PLAN, steps=2, words=TINY, file=str(texts))
        *words, _ = plan.training(Entry(kind, kind, 1.0), 1e-3, 0).words
        assert main([*words, str(folder)]) == 0
        report = json.loads(RunFolder(folder).report.read_text())
        assert (report["scores"], report["settings"]["warmup"]) == ([], 0)
    return folders


def evaluated(capsys, *words) -> tuple[int, dict | None, str]:
    capsys.readouterr()
    status = main(["evaluate", *map(str, words), "--json"])
    captured = capsys.readouterr()
    return status, json.loads(captured.out.splitlines()[-1]) if status == 0 else None, captured.err


def test_each_variant_and_split_is_a_score_of_its_own(capsys, trained, texts):
    plan = replace(PLAN, file=str(texts))
    seen = []
    for options in ((), ("--split", "validation"), *list(plan.variants("rmat", 0).values())[1:]):
        status, score, _ = evaluated(capsys, trained["rmat"], "--file", texts, "--documents", "--up-to", 100, *options)
        assert status == 0
        assert score["edges"] == [0, 64, 100]
        assert score["source"]["split"] == ("validation" if "validation" in options else "test")
        seen.append(comparison.bits_per_byte(score["groups"][0]))
    assert len({round(value, 12) for value in seen}) == 5


def test_costs_are_printed_as_json(capsys, trained, texts, monkeypatch):
    monkeypatch.setattr("rmat_tutorial.measuring.LEAST_SECONDS", 0.001)
    status, found, _ = evaluated(capsys, trained["segment"], "--file", texts, "--costs", "--read", "64", "100")
    assert status == 0
    assert set(found["costs"]) == {"parameters", "training", "generation"}
    assert [part["read"] for part in found["costs"]["generation"]] == [64, 100]
    status, found, _ = evaluated(capsys, trained["segment"], "--file", texts, "--generate", "60")
    assert status == 0
    assert [part["to"] for part in found["generation"]][-1] == 60


@pytest.mark.parametrize(("kind", "options", "said"), [
    ("segment", ["--documents", "--bank", "zeroed"], "memory path"),
    ("rmat", ["--bank", "zeroed"], "--bank needs --documents"),
    ("rmat", ["--up-to", "9"], "--up-to needs --documents"),
    ("rmat", ["--documents", "--costs"], "--documents and --costs"),
    ("rmat", ["--costs", "--generate", "60"], "--costs and --generate"),
    ("rmat", ["--generate", "0"], "tokens must be at least 50"),
    ("rmat", ["--read", "64"], "--read needs --costs"),
    ("rmat", ["--costs", "--read", "0"], "read_tokens must be at least 1"),
    ("rmat", ["--documents", "--bank", "zeroed", "--fresh-every", "8"], "give one"),
    ("rmat", ["--documents", "--fresh-every", "0"], "at least 1"),
    ("rmat", ["--documents", "--up-to", "0"], "edges"),
])
def test_what_cannot_be_evaluated_says_why(capsys, trained, texts, kind, options, said):
    status, _, error = evaluated(capsys, trained[kind], "--file", texts, *options)
    assert status == 2
    assert_one_line(error, said)


def test_another_text_has_no_splits(capsys, trained, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("something else " * 100)
    status, _, error = evaluated(capsys, trained["rmat"], "--file", other, "--documents", "--split", "validation")
    assert status == 2
    assert_one_line(error, "--split", "trained on")


def test_no_past_to_alter_and_no_costs_of_text_in_recall(capsys):
    status, _, error = evaluated(capsys, "recall", "--costs")
    assert status == 2
    assert_one_line(error, "--costs is for text models")
    status, _, error = evaluated(capsys, "recall", "--generate", "60")
    assert status == 2
    assert_one_line(error, "--generate is for text models")


def test_one_model_from_end_to_end(tmp_path, texts, monkeypatch):
    monkeypatch.setattr(comparison, "KINDS", ())
    monkeypatch.setattr(comparison, "READS_ON", ())
    monkeypatch.setattr(Plan, "variants", lambda plan, kind, seed: {"carried": ()})
    result = run(tmp_path / "out", replace(PLAN, seeds=(0,), rates=(1e-3,), words=TINY, file=str(texts)))
    assert result["failures"] == []
    model = result["models"]["rmat"]
    (score,) = model["scores"]["carried"]
    assert 2 < score["bits_per_byte"] < 12
    assert score["source"]["split"] == "test"
    assert model["costs"]["ratio"]["training"]["tokens_per_second"] == 1.0
    assert RunFolder(tmp_path / "out" / "rmat-0.001-0").model.is_file()
    assert "rmat" in describe(result)
