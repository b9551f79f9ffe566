"""Training and evaluation: a resumed run is the same run, a stopped one is saved, and streams are read exactly."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from strategies import assert_one_line
from torch.nn.functional import cross_entropy

from rmat_tutorial import RMAT, RMATConfig, evaluation, training
from rmat_tutorial.checkpoints import read_info
from rmat_tutorial.corpora import Corpus
from rmat_tutorial.evaluation import evaluate
from rmat_tutorial.tasks import IGNORED, RecallTask
from rmat_tutorial.training import Curriculum, RunFolder, Trainer, TrainingError, TrainingStopped, TrainSettings, train

TASK = RecallTask(keys=3, values=2, facts=2, noise_tokens=2)
CONFIG = RMATConfig(vocab_size=TASK.vocab_size, d_model=8, n_heads=2, n_layers=2, segment_len=6, chunk_size=3,
                    memory_slots=4, write_slots=2, gate="hard", dropout=0.1)
SETTINGS = TrainSettings(steps=12, batch_size=3, warmup=3, max_segments=4, grow_below=2.9, gate_penalty_from=4)
TEXT = Corpus(np.frombuffer(b"the cat sat on the mat. " * 40, dtype=np.uint8), "cats", "", "all")


def run(out: Path, settings: TrainSettings = SETTINGS, **options) -> RMAT:
    return train(CONFIG, TASK, settings, out, progress=False, **options)


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def timeless(out: Path) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines(out)]


def assert_same_weights(one: RMAT, other: RMAT) -> None:
    for (name, left), right in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[Path, RMAT]:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    return out, run(out)


# Resumption.


@pytest.mark.parametrize("killed_after", [0, 1, 5, 7, 11])
def test_a_run_that_failed_at_any_step_resumes_to_the_same_weights(tmp_path, unbroken, killed_after, monkeypatch):
    advance = Trainer.advance

    def failing(trainer):
        if trainer.step == killed_after:
            raise MemoryError("the machine went away")
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", failing)
    with pytest.raises(MemoryError):
        run(tmp_path / "run", checkpoint_every=3)
    monkeypatch.undo()
    torch.manual_seed(99)  # whatever else used the global generator in between
    model = run(tmp_path / "run", resume=True, checkpoint_every=3)
    assert_same_weights(model, unbroken[1])
    assert timeless(tmp_path / "run") == timeless(unbroken[0])


def test_a_run_killed_by_sigkill_resumes_to_the_same_weights(tmp_path):
    settings = replace(SETTINGS, steps=120)
    out = tmp_path / "run"
    code = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
import test_training as t
from dataclasses import replace
t.run(t.Path(sys.argv[1]), replace(t.SETTINGS, steps=120), checkpoint_every=7)
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], cwd=Path(__file__).parent.parent)
    # Not before a checkpoint has been replaced, and then at no step in particular.
    wait_for(lambda: (out / "metrics.jsonl").exists() and len((out / "metrics.jsonl").read_text().splitlines()) > 20)
    time.sleep(random.uniform(0, 0.2))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    reached = RunFolder(out).read()["step"]
    assert 0 < reached < 120
    assert reached % 7 == 0
    resumed = run(out, settings, resume=True)
    assert_same_weights(resumed, run(tmp_path / "unbroken", settings))
    assert timeless(out) == timeless(tmp_path / "unbroken")


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_has_saved_its_last_step(tmp_path, unbroken, number, monkeypatch):
    advance = Trainer.advance

    def interrupted(trainer):
        if trainer.step == 4:
            os.kill(os.getpid(), number)
        return advance(trainer)

    handlers = [signal.getsignal(watched) for watched in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(Trainer, "advance", interrupted)
    with pytest.raises(TrainingStopped) as stop:
        run(tmp_path / "run")
    assert_one_line(str(stop.value), "stopped after step 5 of 12", str(tmp_path / "run"))
    assert [signal.getsignal(watched) for watched in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert RunFolder(tmp_path / "run").read()["step"] == 5
    monkeypatch.undo()
    assert_same_weights(run(tmp_path / "run", resume=True), unbroken[1])


def test_training_works_outside_the_main_thread(tmp_path, unbroken):
    models = []
    thread = threading.Thread(target=lambda: models.append(run(tmp_path / "run")))
    thread.start()
    thread.join()
    assert_same_weights(models[0], unbroken[1])


def test_resuming_a_finished_run_changes_nothing(unbroken):
    out, model = unbroken
    assert_same_weights(run(out, resume=True), model)
    assert len(lines(out)) == SETTINGS.steps


def test_a_cut_last_line_of_metrics_is_written_again(tmp_path, unbroken):
    out = tmp_path / "run"
    run(out, replace(SETTINGS))
    (out / "model.safetensors").unlink()
    whole = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(whole + '{"step": 13, "lo')
    run(out, resume=True)
    assert (out / "metrics.jsonl").read_text() == whole


def test_metrics_have_one_line_a_step(unbroken):
    entries = lines(unbroken[0])
    assert [entry["step"] for entry in entries] == list(range(1, 13))
    for entry in entries:
        assert set(entry) == {"step", "loss", "accuracy", "segments", "max_segments", "gate", "lr", "seconds"}
        assert 1 <= entry["segments"] <= entry["max_segments"] <= 4
        assert 0 <= entry["gate"] <= 1
    assert [entry["lr"] for entry in entries] == [SETTINGS.learning_rate(step) for step in range(12)]


@pytest.mark.parametrize("damage", [
    lambda content: content[: len(content) // 2],
    lambda content: b"",
    lambda content: b"not a training state",
    lambda content: content[:-100] + bytes(100),
    lambda content: content.replace(b"settings", b"sittings"),
])
def test_a_damaged_training_state_is_named(tmp_path, damage):
    run(tmp_path, replace(SETTINGS, steps=1))
    state = tmp_path / "state.pt"
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(TrainingError) as error:
        run(tmp_path, replace(SETTINGS, steps=1), resume=True)
    assert_one_line(str(error.value), str(state), "damaged", "another folder")


def test_a_run_is_neither_overwritten_nor_mixed_with_another(tmp_path):
    run(tmp_path, replace(SETTINGS, steps=1))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(TrainingError) as error:
        run(tmp_path)
    assert_one_line(str(error.value), "holds a run already", "resume")
    for changed, fragment in (
        ({"settings": replace(SETTINGS, steps=1, seed=5)}, "settings.seed was 0, is 5"),
        ({"config": replace(CONFIG, gate="sigmoid")}, "config.gate was 'hard', is 'sigmoid'"),
        ({"source": replace(TASK, fact_span=(0.0, 0.5))}, "source.fact_span was [0.0, 1.0], is [0.0, 0.5]"),
    ):
        wanted = {"config": CONFIG, "source": TASK, "settings": replace(SETTINGS, steps=1)} | changed
        with pytest.raises(TrainingError) as error:
            train(out=tmp_path, resume=True, progress=False, **wanted)
        assert_one_line(str(error.value), "other settings", fragment)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_nothing_to_resume(tmp_path):
    with pytest.raises(TrainingError) as error:
        run(tmp_path / "none", resume=True)
    assert_one_line(str(error.value), "nothing to resume", "state.pt")
    assert not (tmp_path / "none").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(tmp_path, monkeypatch):
    advance = Trainer.advance

    def poisoned(trainer):
        if trainer.step == 7:
            trainer.model.head.weight.data.fill_(float("inf"))
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", poisoned)
    with pytest.raises(TrainingError) as error:
        run(tmp_path, checkpoint_every=3)
    assert_one_line(str(error.value), "step 8", "the loss is nan", "lower lr", "state.pt")
    state = RunFolder(tmp_path).read()
    assert state["step"] == 6
    assert all(tensor.isfinite().all() for tensor in state["model"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_save_that_fails_leaves_the_last_state(tmp_path, monkeypatch):
    run(tmp_path, replace(SETTINGS, steps=2))
    before = (tmp_path / "state.pt").read_bytes()

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    trainer = Trainer(CONFIG, TASK, SETTINGS)
    with pytest.raises(OSError, match="No space left"):
        RunFolder(tmp_path).save(trainer, {})
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


# The steps themselves.


def test_training_learns(tmp_path):
    settings = TrainSettings(steps=150, batch_size=32, lr=5e-3, warmup=10, max_segments=1, grow_below=None)
    task = RecallTask(keys=2, values=2, facts=1, noise_tokens=2)
    config = replace(CONFIG, vocab_size=task.vocab_size, d_model=16, dropout=0.0)
    model = train(config, task, settings, tmp_path, progress=False)
    score = evaluate(model, task, 6, 200, 1)
    assert score.value > 0.95
    assert read_info(tmp_path / "model.safetensors")["extra"] == {"task": task.describe()}


def test_the_loss_is_that_of_the_answers_alone_and_the_penalty_begins_on_time():
    trainer = Trainer(replace(CONFIG, dropout=0.0), TASK, replace(SETTINGS, gate_penalty=0.5))
    tokens, targets = TASK.batch(3, 12, torch.Generator().manual_seed(0))
    logits = trainer.model(tokens).logits
    answers = cross_entropy(logits[:, -2:].flatten(0, 1), targets[:, -2:].flatten())
    score, loss, gate = trainer._loss(tokens, targets)
    assert score.positions == 6
    torch.testing.assert_close(loss, answers)
    assert score.mean_loss == pytest.approx(answers.item())
    trainer.step = SETTINGS.gate_penalty_from
    _, penalised, _ = trainer._loss(tokens, targets)
    assert penalised.item() == pytest.approx(loss.item() + 0.5 * gate)
    assert 0 < gate < 1


def test_a_model_without_memory_has_no_gate(tmp_path):
    config = replace(CONFIG, paths=("full", "chunk"))
    train(config, TASK, replace(SETTINGS, steps=5), tmp_path, progress=False)
    assert [entry["gate"] for entry in lines(tmp_path)] == [None] * 5


def test_text_trains_on_bits_per_byte(tmp_path):
    settings = replace(SETTINGS, steps=60, lr=1e-2, max_segments=2, grow_below=None)
    model = train(replace(CONFIG, vocab_size=256), TEXT, settings, tmp_path, progress=False)
    entries = lines(tmp_path)
    assert {entry["segments"] for entry in entries} == {2}
    assert all(entry["bits_per_byte"] == pytest.approx(entry["loss"] / math.log(2)) for entry in entries)
    assert entries[0]["bits_per_byte"] > 7
    assert evaluate(model, TEXT, 100, 4).value < 4.5


def test_weight_decay_is_for_the_matrices_of_linear_maps():
    model = RMAT(CONFIG)
    decayed, free = training.parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decayed["params"]) + len(free["params"]) == len(names)
    assert {names[id(p)].rsplit(".", 1)[-1] for p in decayed["params"]} == {"weight"}
    assert all(p.dim() == 2 for p in decayed["params"])
    kept = {names[id(p)] for p in free["params"]}
    assert {"embed.weight", "norm.weight", "blocks.0.mix", "blocks.0.memory.slots", "blocks.0.memory.queries"} <= kept
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.1, 0.0)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine():
    settings = TrainSettings(steps=100, warmup=20, lr=1.0)
    rates = [settings.learning_rate(step) for step in range(100)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[60] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert all(later <= earlier for earlier, later in pairwise(rates[20:]))


def test_the_curriculum_grows_when_the_loss_stays_low_and_draws_all_lengths():
    settings = TrainSettings(max_segments=6, grow_below=0.3)
    curriculum = Curriculum.begin(settings)
    seen, steps = [], 0
    while curriculum.segments < 6:
        curriculum = curriculum.after(0.1, settings)
        seen.append(curriculum.segments)
        steps += 1
    assert sorted(set(seen)) == [1, 2, 4, 6]
    assert steps > 100  # a few low losses are not enough
    generator = torch.Generator().manual_seed(0)
    assert {curriculum.draw(settings, generator) for _ in range(200)} == {1, 2, 3, 4, 5, 6}
    for _ in range(1000):
        curriculum = curriculum.after(0.5, settings)
    assert curriculum.segments == 6
    stuck = Curriculum.begin(settings)
    for _ in range(1000):
        stuck = stuck.after(0.31, settings)
    assert stuck.segments == 1


def test_without_a_threshold_streams_have_full_length():
    settings = TrainSettings(max_segments=6, grow_below=None)
    curriculum = Curriculum.begin(settings).after(0.0, settings)
    assert curriculum.draw(settings, torch.Generator()) == curriculum.segments == 6


def test_steps_and_seeds_do_not_share_their_randomness():
    draws = {tuple(torch.rand(3, generator=training.step_generator(seed, step)).tolist())
             for seed in range(20) for step in range(20)}
    assert len(draws) == 400


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"steps": 0}, ("steps", "got 0")),
        ({"batch_size": 2.5}, ("batch_size", "2.5")),
        ({"lr": 0.0}, ("lr", "above 0")),
        ({"lr": float("nan")}, ("lr", "nan")),
        ({"clip": -1.0}, ("clip", "-1.0")),
        ({"max_segments": 0}, ("max_segments", "got 0")),
        ({"grow_below": 0.0}, ("grow_below", "above 0")),
        ({"gate_penalty": -0.1}, ("gate_penalty", "-0.1")),
        ({"seed": -1}, ("seed", "-1")),
        ({"warmup": True}, ("warmup", "True")),
    ],
)
def test_settings_check_themselves(fields, fragments):
    with pytest.raises((TypeError, ValueError)) as error:
        TrainSettings(**fields)
    assert_one_line(str(error.value), *fragments)


def test_a_source_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    for wanted, fragments in (
        ({"config": replace(CONFIG, vocab_size=9)}, ("vocab_size", f"must be {TASK.vocab_size}", "got 9")),
        ({"config": replace(CONFIG, segment_len=3)}, ("tokens = 3 is too short",)),
        ({"config": replace(CONFIG, vocab_size=256), "source": TEXT,
          "settings": replace(SETTINGS, max_segments=999)}, ("tokens = 5994", "all split of cats has 960")),
    ):
        arguments = {"config": CONFIG, "source": TASK, "settings": SETTINGS} | wanted
        with pytest.raises(ValueError, match=r".") as error:
            train(out=tmp_path / "run", progress=False, **arguments)
        assert_one_line(str(error.value), *fragments)
    assert not (tmp_path / "run").exists()


# Evaluation.


@hypothesis_settings(max_examples=15)
@given(st.integers(5, 40), st.integers(1, 9), st.integers(1, 5), st.integers(0, 50))
def test_a_streamed_score_is_that_of_the_whole(tokens, piece, rows, seed):
    torch.manual_seed(seed)
    model = RMAT(replace(CONFIG, dropout=0.0)).double().eval()
    sequences = 6
    before = evaluation.PIECE, evaluation.ROWS
    try:
        evaluation.PIECE, evaluation.ROWS = piece, rows
        score = evaluate(model, TASK, tokens, sequences, seed)
    finally:
        evaluation.PIECE, evaluation.ROWS = before
    generator = torch.Generator().manual_seed(seed)
    batches = [TASK.batch(min(rows, sequences - first), tokens, generator) for first in range(0, sequences, rows)]
    whole, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    logits = model(whole).logits
    scored = targets != IGNORED
    assert score.loss == pytest.approx(cross_entropy(logits[scored], targets[scored]).item(), abs=1e-9)
    assert score.value == (logits.argmax(-1) == targets)[scored].double().mean().item()
    assert score.positions == sequences * TASK.facts


def test_bits_per_byte_of_a_text():
    torch.manual_seed(0)
    model = RMAT(replace(CONFIG, vocab_size=256)).eval()
    score = evaluate(model, TEXT, 700, 3, seed=2)
    tokens, targets = TEXT.batch(3, 700, torch.Generator().manual_seed(2))
    nats = cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten()).item()
    assert score.value == pytest.approx(nats / math.log(2), rel=1e-5)
    assert score.to_dict() == {
        "bits_per_byte": score.value, "loss": score.loss, "positions": 2100, "tokens": 700, "sequences": 3, "seed": 2,
        "source": TEXT.describe(), "by_distance": [],
    }


def test_accuracy_by_distance_counts_every_answer_where_its_fact_lay():
    torch.manual_seed(0)
    model = RMAT(CONFIG)
    task = replace(TASK, fact_span=(0.0, 0.2))
    early = evaluate(model, task, 1200, 20, 0)
    assert [(part["above"], part["to"]) for part in early.by_distance] == [(900, 1200)]
    everywhere = evaluate(model, TASK, 1200, 40, 0)
    assert [part["above"] for part in everywhere.by_distance] == [0, 300, 600, 900]
    assert sum(part["answers"] for part in everywhere.by_distance) == everywhere.positions == 80
    right = sum(part["answers"] * part["accuracy"] for part in everywhere.by_distance)
    assert right == pytest.approx(80 * everywhere.value)


def test_an_evaluation_leaves_the_model_in_its_mode():
    model = RMAT(CONFIG).train()
    evaluate(model, TASK, 20, 2)
    assert model.training


def test_evaluation_in_constant_memory():
    code = """
import resource, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
from test_training import *
model = RMAT(CONFIG)
evaluate(model, TASK, 3_000, 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(model, TASK, 40_000, 2)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True,
                          text=True, check=True)
    assert float(done.stdout) < 0.02


@pytest.mark.parametrize(
    ("call", "fragments"),
    [
        (lambda model: evaluate(model, TASK, 0, 1), ("tokens", "got 0")),
        (lambda model: evaluate(model, TASK, 20, 0), ("sequences", "got 0")),
        (lambda model: evaluate(model, TASK, 20, 1, -1), ("seed", "got -1")),
        (lambda model: evaluate(model, TASK, 3, 1), ("tokens = 3 is too short",)),
        (lambda model: evaluate(model, RecallTask(), 20, 1), ("source has 96 tokens", "vocab_size = 13")),
    ],
)
def test_an_evaluation_that_cannot_be_says_why(call, fragments):
    with pytest.raises(ValueError, match=r".") as error:
        call(RMAT(CONFIG))
    assert_one_line(str(error.value), *fragments)


def test_damaged_weights_are_not_scored():
    model = RMAT(CONFIG)
    model.head.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="the loss is nan after 20 tokens"):
        evaluate(model, TASK, 20, 2)
