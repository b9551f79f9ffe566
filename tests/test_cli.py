"""The command line, end to end: train, stop, resume, evaluate, and an error of one line for whatever is wrong."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from long_range_results import ANSWERS, bar_answers
from long_range_results import result as result_of
from PIL import Image
from strategies import assert_one_line

from rmat_tutorial import RMAT, LanguageModel, RMATConfig, folders
from rmat_tutorial.baselines import KINDS
from rmat_tutorial.checkpoints import shipped_checkpoints
from rmat_tutorial.cli import build_parser, main
from rmat_tutorial.commands import train
from rmat_tutorial.commands.options import lies_in
from rmat_tutorial.jobs import COMMAND
from rmat_tutorial.recipes import RECIPES
from rmat_tutorial.runs import RunFolder
from rmat_tutorial.tasks import TASKS, MQARTask, RecallTask
from rmat_tutorial.training import TrainSettings

TINY = ["--d-model", "8", "--n-heads", "2", "--segment-len", "8", "--chunk-size", "4", "--memory-slots", "4",
        "--write-slots", "2", "--max-segments", "2", "--batch-size", "2", "--steps", "4"]
RECALL = ["train", "recall", *TINY, "--keys", "2", "--values", "2", "--facts", "1", "--noise-tokens", "2"]


@pytest.fixture(autouse=True)
def short_scores(monkeypatch):
    monkeypatch.setattr(train, "SCORES", ((1, 2), (64, 2)))


@pytest.fixture
def text_file(tmp_path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"a line of notes, and another one.\n" * 200)
    return path


def call(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse
        status = exit_.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def last_line(text: str) -> dict:
    return json.loads(text.rstrip("\n").splitlines()[-1])


def test_recall_from_training_to_score(capsys, tmp_path):
    out = tmp_path / "run"
    status, printed, _ = call(capsys, *RECALL, "--seed", 3, "--out", out)
    assert status == 0
    assert f"saved {out / 'model.safetensors'}" in printed
    assert sorted(file.name for file in out.iterdir()) == [
        "metrics.jsonl", "model.safetensors", "run.json", "state.pt",
    ]
    assert RMAT.from_checkpoint(out / "model.safetensors").config.gate == "hard"
    report = json.loads((out / "run.json").read_text())
    assert shlex.split(report["command"]) == [*shlex.split(COMMAND), *RECALL, "--seed", "3", "--out", str(out)]
    assert (report["seed"], report["threads"]) == (3, 1)
    assert report["versions"]["torch"] == torch.__version__
    assert report["device"]
    assert report["training_seconds"] > 0 and report["tokens_per_second"] > 0
    assert [score["tokens"] for score in report["scores"]] == [16, 1024]

    wanted = report["scores"][1]
    command = shlex.split(wanted.pop("command"))[3:]
    for name in (out, out / "model.safetensors"):
        arguments = [name if word == str(out) else word for word in command]
        status, printed, _ = call(capsys, *arguments)
        assert status == 0
        result = last_line(printed)
        assert {key: result[key] for key in wanted} == wanted  # the score is reproduced, to the last digit
        assert result["model"] == str(name)
        assert result["source"] == {"kind": "recall", "keys": 2, "values": 2, "facts": 1, "noise_tokens": 2,
                                    "fact_span": [0.0, 1.0]}


@pytest.mark.parametrize(("kind", "fields"), [
    ("rewrite", {"keys": 2, "values": 3, "keys_used": 1, "writes": 3, "noise_tokens": 2}),
    ("copy", {"symbols": 3, "passage": 2, "noise_tokens": 2}),
    ("mqar", {"keys": 2, "values": 3, "pairs": 2, "noise_tokens": 2}),
    ("stories", {"people": 1, "places": 3, "objects": 1, "moves": 1, "hops": 2, "noise_sentences": 5}),
])
def test_every_task_is_trained_and_its_checkpoint_builds_it_again(capsys, tmp_path, kind, fields):
    words = [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", value)]
    arguments = [*TINY, "--segment-len", 24, *words, "--fact-span", 0, "0.9", "--out", tmp_path]
    status, printed, _ = call(capsys, "train", kind, *arguments)
    assert status == 0
    assert f"{kind}: accuracy" in printed
    wanted = json.loads((tmp_path / "run.json").read_text())["scores"][1]
    status, printed, _ = call(capsys, *shlex.split(wanted.pop("command"))[3:])
    assert status == 0
    result = last_line(printed)
    assert {key: result[key] for key in wanted} == wanted
    assert result["source"] == {"kind": kind, **fields, "fact_span": [0.0, 0.9]}


def test_a_recipe_has_room_for_its_task():
    for kind, make in TASKS.items():
        recipe, task = RECIPES[kind], make()
        length = recipe.config.segment_len
        if recipe.settings.vary_facts:
            task = task.lighter(length, torch.Generator())
        assert task.batch(1, length, torch.Generator())[0].shape == (1, length)
    assert set(RECIPES) == {*TASKS, "text"}


def test_the_command_in_the_report_gives_the_same_weights(capsys, tmp_path):
    out = tmp_path / "run"
    call(capsys, *RECALL, "--out", out)
    before = RMAT.from_checkpoint(out / "model.safetensors").state_dict()
    command = shlex.split(json.loads((out / "run.json").read_text())["command"])
    for file in out.iterdir():
        file.unlink()
    assert call(capsys, *command[3:])[0] == 0
    after = RMAT.from_checkpoint(out / "model.safetensors").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_text_of_a_file_is_scored_on_its_test_part_and_another_file_whole(capsys, tmp_path, text_file):
    out = tmp_path / "run"
    status, printed, _ = call(capsys, "train", "text", *TINY, "--file", text_file, "--out", out)
    assert status == 0
    assert "notes.txt, test split: bits per byte" in printed
    scores = json.loads((out / "run.json").read_text())["scores"]
    assert [score["tokens"] for score in scores] == [16, 339]  # no longer than the test part
    other = tmp_path / "other.txt"
    other.write_bytes(os.urandom(3000))
    for file, split, length in ((text_file, "test", 340), (other, "all", 3000)):
        status, printed, _ = call(capsys, "evaluate", out, "--file", file, "--tokens", 50, "--sequences", 3, "--json")
        assert status == 0
        result = last_line(printed)
        assert (result["source"]["split"], result["source"]["bytes"]) == (split, length)
        assert result["source"]["name"] == file.name
        assert 0 < result["bits_per_byte"] < 12
        assert str(tmp_path) not in json.dumps(result["source"])


def test_text_of_a_folder_is_split_by_file(capsys, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(5):
        (texts / f"{number}.txt").write_bytes(b"a line of notes, and another one.\n" * (3 + number))
    (texts / "empty").write_bytes(b"")
    (texts / "photo").write_bytes(bytes(100))
    command = ["train", "text", *TINY, "--file", texts, "--out", tmp_path / "run", "--restart", "0.5"]
    status, printed, errors = call(capsys, *command)
    assert status == 0
    assert "texts, test split: bits per byte" in printed
    assert "note: texts: left out: 1 empty\n" in errors
    assert "note: texts: 1 of 6 files, such as photo: each is binary" in errors
    report = json.loads((tmp_path / "run" / "run.json").read_text())
    assert report["settings"]["restart"] == 0.5
    command = shlex.split(report["scores"][0]["command"])[3:]
    status, printed, _ = call(capsys, *command)
    assert status == 0
    assert last_line(printed)["bits_per_byte"] == report["scores"][0]["bits_per_byte"]
    (texts / "6.txt").write_bytes(b"one more\n")
    status, printed, _ = call(capsys, *command)
    assert last_line(printed)["source"]["split"] == "all"


def test_a_run_may_lie_in_a_hidden_folder_of_its_text(tmp_path):
    for name, inside in (("runs/text", True), (".runs/text", False), ("runs/.text", False), ("../runs", False)):
        assert lies_in(tmp_path / name, tmp_path) == inside


def test_documents_are_scored_by_position(capsys, tmp_path, text_file):
    out = tmp_path / "run"
    call(capsys, "train", "text", *TINY, "--file", text_file, "--out", out)
    status, printed, _ = call(capsys, "evaluate", out, "--file", text_file, "--documents", "--json")
    assert status == 0
    title, header, *rows, _ = printed.splitlines()
    assert title == "notes.txt, test split: bits per byte by position in the document"
    assert header.split()[:4] == ["documents", "0–", "64–", "128–"]
    result = last_line(printed)
    assert [row.split()[:4] for row in rows] == [
        ["at", "least", str(at_least), "bytes"] for at_least in (2, 64, 128, 256)]
    for row, group in zip(rows, result["groups"], strict=True):
        assert row.split()[4:] == ["1", *(f"{part['bits_per_byte']:.4f}" for part in group["bins"])]
    assert sum(part["bytes"] for part in result["groups"][0]["bins"]) == 339
    assert result["model"] == str(out)


@pytest.mark.parametrize("kind", KINDS)
def test_a_baseline_is_trained_and_scored(capsys, tmp_path, text_file, kind):
    command = ["train", "text", *TINY, "--file", text_file, "--baseline", kind, "--out", tmp_path / "run"]
    assert call(capsys, *command)[0] == 0
    assert LanguageModel.from_checkpoint(tmp_path / "run" / "model.safetensors").config.kind == kind
    status, printed, _ = call(capsys, "evaluate", tmp_path / "run", "--file", text_file, "--documents", "--json")
    assert status == 0
    assert 0 < last_line(printed)["groups"][0]["bins"][0]["bits_per_byte"] < 12


def test_the_default_folder_is_the_courses_own(capsys):
    assert call(capsys, *RECALL)[0] == 0
    assert (folders.home() / "runs" / "recall" / "model.safetensors").is_file()


def test_options_reach_model_task_and_settings(capsys, tmp_path):
    out = tmp_path / "run"
    call(capsys, *RECALL, "--out", out, "--paths", "full,chunk", "--gate", "sigmoid", "--carry", "oldest",
         "--pool", "mean", "--gate-bias", "-1.5", "--fact-span", "0.25", "0.75", "--lr", "0.01",
         "--gate-penalty", "0.1", "--backprop", "truncated", "--backprop-segments", "1", "--precision", "bfloat16",
         "--ragged", "--vary-facts", "--gate-margin", "0.5", "--gate-penalty-from", "2", "--grow-below", "0.7")
    identity = RunFolder(out).read()["identity"]
    config, settings = identity["config"], identity["settings"]
    assert (config["paths"], config["gate"], config["carry"]) == (["full", "chunk"], "sigmoid", "oldest")
    assert (config["pool"], config["gate_bias"]) == ("mean", -1.5)
    assert (config["d_model"], config["n_heads"], config["segment_len"]) == (8, 2, 8)
    assert (settings["lr"], settings["gate_penalty"], settings["steps"]) == (0.01, 0.1, 4)
    assert (settings["backprop"], settings["backprop_segments"]) == ("truncated", 1)
    assert settings["precision"] == "bfloat16"
    assert (settings["ragged"], settings["vary_facts"], settings["grow_below"]) == (True, True, 0.7)
    assert (settings["gate_margin"], settings["gate_penalty_from"]) == (0.5, 2)
    assert identity["source"]["fact_span"] == [0.25, 0.75]


def test_without_a_curriculum_streams_are_long_from_the_start(capsys, tmp_path):
    out = tmp_path / "run"
    assert call(capsys, *RECALL, "--out", out, "--no-curriculum")[0] == 0
    longest = RunFolder(out).read()["identity"]["settings"]["max_segments"]
    assert longest > 1 and {line["segments"] for line in RunFolder(out).lines()} == {longest}
    status, _, errors = call(capsys, *RECALL, "--out", out, "--no-curriculum", "--grow-below", "0.3")
    assert status == 2 and "not allowed with argument --no-curriculum" in errors


def test_a_terminated_run_says_how_to_resume_and_does(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "rmat_tutorial", *RECALL, "--steps", "3000", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    deadline = time.monotonic() + 30
    while not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "stopped after step" in errors
    assert f"resume with: {shlex.join(['python', *command[1:], '--resume'])}" in errors
    assert "Traceback" not in errors
    stopped = RunFolder(out).read()["step"]
    assert 0 < stopped == len((out / "metrics.jsonl").read_text().splitlines())


def test_a_resumed_run_reports_the_command_that_began_it(capsys, tmp_path):
    out = tmp_path / "run"
    call(capsys, *RECALL, "--out", out)
    begun = json.loads((out / "run.json").read_text())
    assert call(capsys, *RECALL, "--out", out, "--resume")[0] == 0
    again = json.loads((out / "run.json").read_text())
    assert again == begun


def test_several_seeds_are_trained_each_as_alone_and_their_spread_is_printed(capsys, tmp_path):
    status, printed, _ = call(capsys, *RECALL, "--seeds", 3, 5, "--out", tmp_path / "both")
    assert status == 0
    call(capsys, *RECALL, "--seed", 5, "--out", tmp_path / "alone")
    twin, alone = (folder / "model.safetensors" for folder in (tmp_path / "both" / "seed-5", tmp_path / "alone"))
    assert twin.read_bytes() == alone.read_bytes()
    reports = [json.loads((tmp_path / "both" / f"seed-{seed}" / "run.json").read_text()) for seed in (3, 5)]
    assert [report["seed"] for report in reports] == [3, 5]
    longest = [report["scores"][-1] for report in reports]
    low, high = sorted(score["accuracy"] for score in longest)
    assert printed.endswith(
        f"accuracy at {longest[0]['tokens']} tokens, 2 seeds: mean {(low + high) / 2:.4f}, lowest {low:.4f}, "
        f"highest {high:.4f}\n"
    )


def test_of_several_seeds_only_what_is_missing_is_trained(capsys, tmp_path):
    words = [*RECALL, "--out", tmp_path, "--no-scores"]
    call(capsys, *words, "--seeds", 3)
    begun = (tmp_path / "seed-3" / "run.json").stat().st_mtime_ns
    status, _, error = call(capsys, *words, "--seeds", 3, 4)
    assert status == 2
    assert_one_line(error, "seed-3 holds a run already")
    assert call(capsys, *words, "--seeds", 3, 4, "--resume")[0] == 0
    assert (tmp_path / "seed-3" / "run.json").stat().st_mtime_ns == begun
    assert json.loads((tmp_path / "seed-4" / "run.json").read_text())["seed"] == 4


def test_the_order_changes_no_number_and_no_checkpoint(capsys, tmp_path):
    """Trained and evaluated as a wavefront: the score of the plain order, and a checkpoint that knows of none."""
    models = []
    for order in ("segments", "wavefront"):
        out = tmp_path / order
        assert call(capsys, *RECALL, "--out", out, "--order", order)[0] == 0
        models.append(RMAT.from_checkpoint(out / "model.safetensors"))
        assert models[-1].order == "segments"
    for plain, wave in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(wave, plain, rtol=1e-4, atol=1e-5)
    evaluated = ("evaluate", tmp_path / "wavefront", "--tokens", 100, "--sequences", 4, "--json")
    scores = [last_line(call(capsys, *evaluated, "--order", order)[1]) for order in ("segments", "wavefront")]
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-5)


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["evaluate", "no-such-model"], ("no checkpoint 'no-such-model'",)),
        (["evaluate", "{tmp}"], ("model.safetensors", "no checkpoint")),
        (["evaluate", "{tmp}/untold.safetensors"], ("does not say what it was trained on",)),
        (["evaluate", "{tmp}/notes.txt"], ("notes.txt", "readable checkpoint")),
        (["evaluate", "{tmp}/recall.safetensors", "--file", "{tmp}/notes.txt"], ("--file is for text models",)),
        (["evaluate", "{tmp}/recall.safetensors", "--tokens", "0"], ("tokens", "got 0")),
        (["evaluate", "{tmp}/recall.safetensors", "--tokens", "3"], ("tokens = 3 is too short",)),
        (["evaluate", "{tmp}/recall.safetensors", "--device", "gpu"], ("unknown device 'gpu'", "cuda")),
        (["evaluate", "{tmp}/recall.safetensors", "--device", "meta"], ("unknown device 'meta'",)),
        (["evaluate", "{tmp}/recall.safetensors", "--threads", "0"], ("--threads", "got 0")),
        (["evaluate", "{tmp}/nan.safetensors", "--tokens", "64"], ("the loss is nan",)),
        (["train", "recall", "--file", "{tmp}/notes.txt"], ("--file is for train text",)),
        (["train", "text", "--facts", "3"], ("--facts is for recall", "got text")),
        (["train", "text", "--fact-span", "0", "1"], ("--fact-span is for recall, rewrite, copy", "got text")),
        (["train", "stories", "--values", "3"], ("--values is for recall, rewrite, mqar", "got stories")),
        (["train", "copy", "--file", "{tmp}/notes.txt"], ("--file is for train text", "copy makes its own")),
        (["train", "rewrite", "--writes", "3"], ("writes", "at least keys_used = 4", "got 3")),
        (["train", "stories", "--segment-len", "40"], ("tokens = 40 is too short: 7 sentences", "use a longer stream")),
        (["evaluate", "{tmp}/mqar.safetensors", "--documents"], ("--documents is for text models", "on mqar")),
        (["train", "text", "--file", "{tmp}/missing.txt"], ("there is no file or folder", "missing.txt")),
        (["train", "text", "--file", "{tmp}/empty.txt"], ("empty.txt is empty",)),
        (["train", "text", "--file", "{tmp}/nothing"], ("nothing holds no file to read",)),
        (["train", "text", "--file", "{tmp}/pair"], ("pair holds too few documents for three splits, 2", "at least 3")),
        (["train", "text", "--file", "{tmp}/pair", "--out", "{tmp}/pair/run"], ("--out", "outside of --file")),
        (["train", "text", "--restart", "2"], ("restart", "from 0 to 1")),
        (["train", "recall", "--baseline", "lstm"], ("--baseline", "'lstm'")),
        (["evaluate", "{tmp}/recall.safetensors", "--documents"], ("--documents is for text models",)),
        (["evaluate", "{tmp}/recall.safetensors", "--gaps", "64", "-1"], ("gaps", "got -1")),
        (["evaluate", "{tmp}/recall.safetensors", "--gaps", "64", "--tokens", "9"], ("--tokens is for", "--gaps")),
        (["evaluate", "{tmp}/recall.safetensors", "--gaps", "64", "--fact-span", "0", "1"], ("--fact-span is for",)),
        (["evaluate", "text", "--gaps", "64"], ("--gaps is for tasks", "text was trained on text")),
        (["evaluate", "recall-no-memory", "--gate", "sigmoid"], ("gate = 'sigmoid' needs an RMAT with the memory",)),
        (["evaluate", "text", "--costs", "--gate", "hard"], ("--gate is for scores", "--costs")),
        (["evaluate", "{tmp}/recall.safetensors", "--pairs", "2"], ("--pairs is for mqar", "got recall")),
        (["evaluate", "{tmp}/recall.safetensors", "--keys", "9"], ("source has", "vocab_size")),
        (["evaluate", "{tmp}/recall.safetensors", "--up-to", "9"], ("--up-to needs --documents",)),
        (["evaluate", "text", "--facts", "2"], ("--facts is for recall", "got text")),
        (["evaluate", "text", "--costs", "--bank", "zeroed"], ("--bank is for scores", "--costs")),
        (["train", "recall", "--out", "{tmp}/new", "--baseline", "rmt", "--compile"],
         ("compiled must be False", "'rmt'")),
        (["train", "recall", "--out", "{tmp}/new", "--baseline", "rmt", "--order", "wavefront"],
         ("order must be", "'rmt'")),
        (["train", "recall", "--out", "{tmp}/new", "--graphs"], ("CUDA graphs need", "cpu")),
        (["evaluate", "{tmp}/recall.safetensors", "--graphs"], ("CUDA graphs need", "cpu")),
        (["evaluate", "recall", "--graphs", "--bank", "zeroed"], ("--bank", "--graphs")),
        (["evaluate", "text", "--costs", "--order", "wavefront"], ("--order is for scores", "--costs")),
        (["train", "mqar", "--out", "{tmp}/new", "--vary-facts"],
         ("vary_facts must be False for mqar, it is for recall, rewrite, stories",)),
        (["train", "recall", "--gate-margin", "-1"], ("gate_margin", "-1")),
        (["train", "text", "--file", "{tmp}/notes.txt"], ("tokens = 512", "train split of notes.txt has 90")),
        (["train", "text", "--file", "{tmp}/short.txt", "--segment-len", "1", "--chunk-size", "1"],
         ("short.txt is too short", "at least 2 bytes")),
        (["train", "recall", "--facts", "9"], ("facts must be at most keys = 8",)),
        (["train", "recall", "--paths", "full,memories"], ("paths must be one of", "'memories'")),
        (["train", "recall", "--n-heads", "5"], ("d_model must be divisible by n_heads (5)",)),
        (["train", "recall", "--steps", "0"], ("steps", "got 0")),
        (["train", "recall", "--lr", "nan"], ("lr", "nan")),
        (["train", "recall", "--seed", "-1"], ("seed", "-1")),
        (["train", "recall", "--seeds", "1", "2", "1"], ("--seeds must differ", "1 2 1")),
        (["train", "recall", "--seeds", "1", "--seed", "1"], ("--seed", "not allowed with", "--seeds")),
        (["train", "recall", "--backprop", "some"], ("--backprop", "'some'")),
        (["train", "recall", "--backprop", "truncated"], ("backprop_segments", "int", "None")),
        (["train", "recall", "--backprop-segments", "4"], ("backprop_segments must be None", "'whole'", "got 4")),
        (["train", "recall", "--out", "{tmp}/new", "--baseline", "full", "--backprop", "replay"],
         ("backprop must be", "'full'")),
        (["train", "recall", "--precision", "half"], ("--precision", "'half'")),
        (["train", "recall", "--checkpoint-every", "0"], ("checkpoint_every", "got 0")),
        (["train", "recall", "--out", "{tmp}/new", "--resume"], ("nothing to resume", "state.pt")),
        (["train", "recall", "--out", "{tmp}/notes.txt/run"], ("notes.txt",)),
        (["train", "recall", "--out", "{tmp}/occupied"], ("holds a run already",)),
        (["train", "nothing"], ("invalid choice", "'nothing'")),
        (["train", "recall", "--steps", "many"], ("--steps", "'many'")),
        (["train", "recall", "--gate", "soft"], ("--gate", "'soft'")),
        (["figure", "{tmp}/missing.json"], ("missing.json", "No such file")),
        (["figure", "{tmp}/notes.txt"], ("notes.txt is no json",)),
        (["figure", "{tmp}/recall.safetensors"], ("recall.safetensors is no json",)),
        (["figure", "{tmp}/other.json"], ("must hold a part of long-range, 'bar', 'capacity', 'tasks', 'large'",
                                           "got 'foo'")),
        (["figure", "{tmp}/part.json"], ("part.json: ", "without a list of models")),
        (["figure", "{tmp}/bar.json", "--out", "{tmp}/nothing/at/all.png"], ("No such file", "all.png")),
        (["figure", "{tmp}/bar.json", "--out", "{tmp}/nothing"], ("nothing is there and is not a file",)),
        (["frobnicate"], ("invalid choice", "'frobnicate'")),
        ([], ("required", "command")),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(capsys, tmp_path, arguments, fragments):
    (tmp_path / "notes.txt").write_bytes(b"ten bytes." * 10)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "short.txt").write_bytes(b"brief")
    for folder in ("occupied", "nothing", "pair"):
        (tmp_path / folder).mkdir()
    for name in ("one", "two"):
        (tmp_path / "pair" / name).write_bytes(b"ten bytes.")
    (tmp_path / "occupied" / "model.safetensors").write_bytes(b"precious")
    for name, result in (("other", {"part": "foo"}), ("part", {"part": "bar"}), ("bar", result_of("bar", bar_answers))):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    model = RMAT(RMATConfig(vocab_size=96, d_model=8, n_heads=2, n_layers=1))
    model.save(tmp_path / "untold.safetensors")
    model.save(tmp_path / "recall.safetensors", extra={"task": RecallTask().describe()})
    model.save(tmp_path / "mqar.safetensors", extra={"task": MQARTask().describe()})
    model.head.weight.data.fill_(float("nan"))
    model.save(tmp_path / "nan.safetensors", extra={"task": RecallTask().describe()})
    status, printed, errors = call(capsys, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert status == 2
    assert printed == ""
    assert_one_line(errors, "error: ", *fragments)
    assert (tmp_path / "occupied" / "model.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize("name", sorted(shipped_checkpoints()))
def test_a_shipped_checkpoint_is_what_its_json_says(capsys, name):
    report = json.loads((folders.data() / f"{name}.json").read_text())
    assert (folders.data() / f"{name}.safetensors").stat().st_size < 2_000_000
    # The command of the json still means the same model and the same training.
    options = build_parser().parse_args(shlex.split(report["command"])[3:])
    config = LanguageModel.from_checkpoint(name).config
    wanted, settings = train.run_settings(options, config.vocab_size)
    assert wanted == config
    assert settings == TrainSettings(**report["settings"])
    score = report["scores"][0]
    status, printed, _ = call(capsys, *shlex.split(score["command"])[3:])
    assert status == 0
    result = last_line(printed)
    # Other processors round differently: a few of a thousand answers may change.
    metric, tolerance = ("bits_per_byte", 0.001) if name == "text" else ("accuracy", 0.005)
    assert result[metric] == pytest.approx(score[metric], abs=tolerance)
    assert (result["source"], result["positions"]) == (score["source"], score["positions"])


def test_the_shipped_models_differ_in_what_they_remember():
    long, short = (json.loads((folders.data() / f"{name}.json").read_text())["scores"][1]
                   for name in ("recall", "recall-no-memory"))
    assert (long["tokens"], short["tokens"]) == (32768, 32768)
    assert long["accuracy"] >= 0.98
    assert short["accuracy"] < 0.2  # a guess scores 0.125


def test_streams_of_several_lengths_hold_what_the_options_say(capsys):
    arguments = ("evaluate", "recall", "--facts", "2", "--fact-span", "0", "0.5", "--sequences", "4")
    _, printed, _ = call(capsys, *arguments, "--tokens", "64", "128", "--json")
    short, long = last_line(printed)["scores"]
    assert (short["tokens"], long["tokens"]) == (64, 128)
    assert short["positions"] == long["positions"] == 8
    assert short["source"] == {**RecallTask().describe(), "facts": 2, "fact_span": [0.0, 0.5]}
    assert 0 < short["most_resident_bytes"] <= long["most_resident_bytes"]
    _, printed, _ = call(capsys, *arguments, "--tokens", "128", "--json")
    alone = last_line(printed)
    assert alone.pop("most_resident_bytes") > 0
    assert {name: long[name] for name in alone if name in long} == {name: alone[name] for name in alone if name in long}


@pytest.mark.parametrize("past", [("--bank", "zeroed"), ("--fresh-every", "32")])
def test_a_task_without_its_bank_is_a_guess(capsys, past):
    _, printed, _ = call(capsys, "evaluate", "recall", *past, "--tokens", "512", "--sequences", "64", "--json")
    assert last_line(printed)["accuracy"] < 0.3  # a guess scores 0.125; some facts lie in the last segment


def test_facts_are_asked_after_gaps(capsys):
    arguments = ("evaluate", "recall", "--gaps", "512", "64", "--facts", "2", "--sequences", "32", "--json")
    status, printed, _ = call(capsys, *arguments)
    assert status == 0
    found = last_line(printed)
    assert (found["gaps"], found["answers"], found["model"]) == ([64, 512], 64, "recall")
    assert min(found["accuracy"]) > 0.9
    assert printed.splitlines()[1] == f"  after 64 tokens more: {found['accuracy'][0]:.4f}"
    assert [len(found["example"][name]) for name in ("facts", "questions", "answers", "said")] == [2] * 4
    zeroed = last_line(call(capsys, *arguments, "--bank", "zeroed")[1])
    assert max(zeroed["accuracy"]) < 0.4  # a guess scores 0.125
    assert zeroed["example"]["facts"] == found["example"]["facts"]
    sigmoid = last_line(call(capsys, *arguments, "--gate", "sigmoid")[1])
    assert sigmoid["accuracy"][1] < found["accuracy"][1]


@pytest.mark.usefixtures("style")
@pytest.mark.parametrize("part", ANSWERS)
def test_a_part_of_long_range_is_drawn(capsys, tmp_path, part):
    file, other = tmp_path / f"{part}.json", tmp_path / "other.png"
    file.write_text(json.dumps(result_of(part, ANSWERS[part], quick=True)))
    status, printed, _ = call(capsys, "figure", file)
    assert (status, printed) == (0, f"saved {file.with_suffix('.png')}\n")
    assert call(capsys, "figure", file, "--out", other)[0] == 0
    assert other.read_bytes() == file.with_suffix(".png").read_bytes()
    assert Image.open(other).size[0] >= 2000


def test_a_shipped_name_comes_before_a_folder_of_that_name(capsys, tmp_path, monkeypatch):
    (tmp_path / "recall").mkdir()
    monkeypatch.chdir(tmp_path)
    status, printed, _ = call(capsys, "evaluate", "recall", "--tokens", "64", "--sequences", "8")
    assert status == 0
    assert "recall: accuracy 1.0000 over 32 positions" in printed


def test_cuda_that_is_not_there_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    status, _, errors = call(capsys, *RECALL, "--out", tmp_path, "--device", "cuda:1")
    assert status == 2
    assert_one_line(errors, "device cuda:1 is not there", "sees 1 CUDA devices", "--device cpu")


def test_doctor_hands_over_its_status_and_its_option(capsys, monkeypatch):
    from rmat_tutorial import doctor

    seen = []
    monkeypatch.setattr(doctor, "main", lambda as_json: seen.append(as_json) or 1)
    assert call(capsys, "doctor", "--json")[0] == 1
    assert call(capsys, "doctor")[0] == 1
    assert seen == [True, False]
