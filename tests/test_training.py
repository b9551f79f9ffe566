"""Training: a resumed run is the same run, a stopped one is saved, and rows read on where they stopped."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from strategies import assert_one_line
from torch.nn.functional import cross_entropy

from rmat_tutorial import RMAT, LanguageModel, RMATConfig, training
from rmat_tutorial.baselines import KINDS, matching
from rmat_tutorial.checkpoints import read_info
from rmat_tutorial.corpora import Corpus
from rmat_tutorial.evaluation import evaluate
from rmat_tutorial.language_model import build
from rmat_tutorial.tasks import IGNORED, RecallTask, RewriteTask, StoriesTask
from rmat_tutorial.tracing import collect_gates
from rmat_tutorial.training import (
    Curriculum,
    RunFolder,
    Trainer,
    TrainingError,
    TrainingStopped,
    TrainSettings,
    by_segments_back,
    train,
)

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


def assert_same_weights(one: LanguageModel, other: LanguageModel) -> None:
    for (name, left), right in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> tuple[Path, RMAT]:
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    return out, run(out)


# Resumption.


@contextmanager
def failing_after(step, monkeypatch):
    """A block in which a run breaks, and has to, when it has taken so many steps."""
    advance = Trainer.advance

    def failing(trainer):
        if trainer.step == step:
            raise MemoryError("the machine went away")
        return advance(trainer)

    monkeypatch.setattr(Trainer, "advance", failing)
    with pytest.raises(MemoryError):
        yield
    monkeypatch.undo()


@pytest.mark.parametrize("killed_after", [0, 1, 5, 7, 11])
def test_a_run_that_failed_at_any_step_resumes_to_the_same_weights(tmp_path, unbroken, killed_after, monkeypatch):
    with failing_after(killed_after, monkeypatch):
        run(tmp_path / "run", checkpoint_every=3)
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
from dataclasses import asdict, fields, replace
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
        assert set(entry) == {"step", "loss", "accuracy", "segments", "max_segments", "gate", "lr", "seconds",
                              "tokens", "by_segments_back"}
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
        RunFolder(tmp_path).save(trainer.state(), {})
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


# The steps themselves.


@pytest.mark.filterwarnings("ignore:Dynamo detected a call")
def test_compiled_segments_take_the_same_steps(tmp_path, monkeypatch):
    compiled, called = [], []
    compile_for_real = torch.compile

    def fast_compile(function):
        compiled.append(function.__qualname__)
        fast = compile_for_real(function, backend="aot_eager")

        def call(*arguments):
            called.append(function.__qualname__)
            return fast(*arguments)

        return call

    monkeypatch.setattr(torch, "compile", fast_compile)
    config, settings = replace(CONFIG, dropout=0.0), replace(SETTINGS, steps=3, max_segments=2, grow_below=None)
    model = train(config, TASK, settings, tmp_path / "compiled", compiled=True, progress=False)
    assert compiled == ["HybridBlock.attend", "GatedFIFOMemory.step"] * config.n_layers
    diagonal = Trainer(config, TASK, settings, compiled=True, order="wavefront")
    assert diagonal.model.order == "wavefront"
    assert compiled == ["HybridBlock.attend", "GatedFIFOMemory.step"] * (2 * config.n_layers + 1)
    for _ in range(settings.steps):
        diagonal.advance()
    for ours, theirs in zip(diagonal.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    plain = train(config, TASK, settings, tmp_path / "plain", progress=False)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    called.clear()
    tokens = torch.randint(config.vocab_size, (1, config.segment_len))
    first, state = model(tokens[:, :3])
    torch.testing.assert_close(torch.cat((first, model(tokens[:, 3:], state).logits), dim=1), plain(tokens).logits)
    assert "HybridBlock.attend" not in called  # each place and length would be compiled for itself
    model(tokens)
    assert called.count("HybridBlock.attend") == config.n_layers
    with pytest.raises(TrainingError, match="compiled must be False for kind 'segment'"):
        Trainer(matching(config, "segment"), TASK, settings, compiled=True)
    with pytest.raises(TrainingError, match="order must be 'segments' for kind 'segment', 'wavefront' is for the RMAT"):
        Trainer(matching(config, "segment"), TASK, settings, order="wavefront")


def test_training_learns(tmp_path):
    settings = TrainSettings(steps=150, batch_size=32, lr=5e-3, warmup=10, max_segments=1, grow_below=None)
    task = RecallTask(keys=2, values=2, facts=1, noise_tokens=2)
    config = replace(CONFIG, vocab_size=task.vocab_size, d_model=16, dropout=0.0)
    model = train(config, task, settings, tmp_path, progress=False)
    score = evaluate(model, task, 6, 200, 1)
    assert score.value > 0.95
    assert read_info(tmp_path / "model.safetensors")["extra"] == {"task": task.describe()}


def test_the_loss_is_that_of_the_answers_alone_and_the_penalty_begins_on_time():
    trainer = Trainer(replace(CONFIG, dropout=0.0), TASK, replace(SETTINGS, gate_penalty=0.5, gate_margin=0.8))
    tokens, targets = TASK.batch(3, 12, torch.Generator().manual_seed(0))
    parameters = list(trainer.model.parameters())
    with collect_gates(trainer.model) as gates, collect_gates(trainer.model, 0.8) as raised:
        logits = trainer.model(tokens).logits
    answers = cross_entropy(logits[:, -2:].flatten(0, 1), targets[:, -2:].flatten())
    mean_gate = torch.stack(gates).mean()
    for step, loss in ((SETTINGS.gate_penalty_from - 1, answers),
                       (SETTINGS.gate_penalty_from, answers + 0.5 * torch.stack(raised).mean())):
        trainer.step = step
        trainer.optimizer.zero_grad()
        score, right, gate, _ = trainer._backpropagate(tokens, targets, None)
        assert score.positions == 6 and score.correct == right.sum()
        assert score.mean_loss == pytest.approx(answers.item())
        assert gate == pytest.approx(mean_gate.item()) and 0 < gate < 1
        wanted = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        torch.testing.assert_close([parameter.grad for parameter in parameters], list(wanted))


def test_a_shut_gate_is_penalised_within_the_margin_and_not_beyond_it():
    model = build(replace(CONFIG, gate="hard", dropout=0.0))
    tokens, _ = TASK.batch(3, 12, torch.Generator().manual_seed(0))
    scores = []
    for block in model.blocks:  # every score is the bias
        torch.nn.init.zeros_(block.memory.to_gate.weight)
        scores.append(block.memory.to_gate.bias)
    for score, opening in ((-3.0, 0.1), (-3.5, 0.1 - 0.5 / 6), (-3.7, 0.0), (2.9, 1.0)):
        for bias in scores:
            torch.nn.init.constant_(bias, score)
        with collect_gates(model, 0.6) as raised, collect_gates(model) as gates:
            model(tokens)
        assert torch.stack(raised).detach().mean().item() == pytest.approx(opening, abs=1e-6)
        assert torch.stack(gates).detach().mean().item() == pytest.approx(max(0.0, score / 6 + 0.5), abs=1e-6)


def test_ragged_streams_end_anywhere_in_their_last_segment_and_the_shortest_is_whole():
    length = CONFIG.segment_len
    seen = {}
    trainer = Trainer(CONFIG, TASK, replace(SETTINGS, ragged=True, max_segments=3, grow_below=9.0))
    pieces = TASK.pieces

    class Watched(RecallTask):
        def pieces(self, batch_size, tokens, piece, generator):
            seen.setdefault(-(-tokens // length), set()).add(tokens)
            return pieces(batch_size, tokens, piece, generator)

    trainer.source = Watched(**{field.name: getattr(TASK, field.name) for field in fields(TASK)})
    trainer.curriculum = Curriculum(3)
    for _ in range(300):
        metrics = trainer.advance()
        assert sum(asked for _, asked in metrics["by_segments_back"]) == SETTINGS.batch_size * TASK.facts
    assert seen[1] == {length}
    assert seen[2] == set(range(length + 1, 2 * length + 1))
    assert seen[3] == set(range(2 * length + 1, 3 * length + 1))


def test_recall_is_trained_with_as_many_facts_as_were_drawn_and_as_fit():
    task = RecallTask(keys=8, values=2, facts=8, noise_tokens=2)
    trainer = Trainer(replace(CONFIG, vocab_size=task.vocab_size), task,
                      replace(SETTINGS, vary_facts=True, max_segments=3, grow_below=9.0))
    trainer.curriculum = Curriculum(3)
    seen = set()
    for _ in range(150):
        metrics = trainer.advance()
        facts, rest = divmod(sum(asked for _, asked in metrics["by_segments_back"]), SETTINGS.batch_size)
        assert rest == 0
        seen.add((metrics["segments"], facts))
    assert {facts for segments, facts in seen if segments == 1} == {1, 2, 3}  # half of its 6 tokens
    assert {facts for segments, facts in seen if segments == 3} == set(range(1, 9))


def test_rewrite_is_trained_with_as_many_writes_as_were_drawn():
    task = RewriteTask(keys=3, values=2, keys_used=2, writes=9, noise_tokens=2)
    drawn = {(tokens, task.lighter(tokens, torch.Generator().manual_seed(seed)).writes)
             for tokens in (6, 60) for seed in range(200)}
    assert {writes for tokens, writes in drawn if tokens == 6} == {2, 3}
    assert {writes for tokens, writes in drawn if tokens == 60} == set(range(2, 10))


def test_stories_are_trained_with_as_many_moves_as_were_drawn_and_fit():
    task = StoriesTask(people=2, objects=2, moves=9)
    drawn = {tokens: [task.lighter(tokens, torch.Generator().manual_seed(seed)) for seed in range(200)]
             for tokens in (30, 42, 480)}
    for tokens, tasks in drawn.items():
        for one in tasks:
            one.batch(1, tokens, torch.Generator())  # fits
            assert replace(one, moves=task.moves) == task
    assert {tokens: {one.moves for one in tasks} for tokens, tasks in drawn.items()} == {
        30: {2}, 42: {2, 3, 4}, 480: set(range(2, 10))}


def test_answers_are_counted_by_the_segments_between_fact_and_question():
    right = torch.tensor([[True, False, True, False], [False, False, True, True]])
    targets = torch.tensor([[5, IGNORED, 6, 7], [IGNORED, 5, 6, 7]])
    distances = torch.tensor([[3, 0, 4, 11], [0, 8, 7, 1]])
    assert by_segments_back(right, targets, distances, 4) == [[2, 2], [2, 2], [0, 2]]


def test_the_line_of_a_step_says_how_far_back_the_facts_lay():
    trainer = Trainer(CONFIG, TASK, replace(SETTINGS, max_segments=3, grow_below=None))
    entry = trainer.advance()
    counted = entry["by_segments_back"]
    assert sum(asked for _, asked in counted) == SETTINGS.batch_size * TASK.facts
    assert sum(right for right, _ in counted) / sum(asked for _, asked in counted) == entry["accuracy"]
    assert 1 < len(counted) <= 3
    assert "by_segments_back" not in Trainer(replace(CONFIG, vocab_size=256), TEXT, SETTINGS).advance()


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
        ({"restart": 1.5}, ("restart", "from 0 to 1", "1.5")),
        ({"restart": -0.1}, ("restart", "-0.1")),
        ({"backprop": "replayed"}, ("backprop", "'whole', 'replay', 'truncated'", "'replayed'")),
        ({"backprop": "truncated"}, ("backprop_segments", "int", "None")),
        ({"backprop": "truncated", "backprop_segments": 0}, ("backprop_segments", "at least 1", "got 0")),
        ({"backprop": "replay", "backprop_segments": 2}, ("backprop_segments must be None", "'replay'", "got 2")),
        ({"backprop_segments": 2}, ("backprop_segments must be None", "'whole'", "'truncated'", "got 2")),
        ({"precision": "float16"}, ("precision", "'float32', 'bfloat16'", "'float16'")),
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


# Through many segments.


def test_a_run_that_replays_takes_the_steps_of_one_that_does_not(tmp_path, unbroken):
    model = run(tmp_path, replace(SETTINGS, backprop="replay"))
    for ours, theirs in zip(timeless(tmp_path), timeless(unbroken[0]), strict=True):
        assert ours.pop("by_segments_back") == theirs.pop("by_segments_back")
        assert ours == pytest.approx(theirs, rel=1e-4)
    for ours, theirs in zip(model.parameters(), unbroken[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-3)  # half the highest learning rate


@pytest.mark.parametrize(("segments", "taught"), [(1, False), (2, True)])
def test_with_a_cut_at_each_segment_nothing_teaches_a_write(segments, taught):
    cut = {"grow_below": None, "backprop": "truncated", "backprop_segments": segments}
    trainer = Trainer(CONFIG, TASK, replace(SETTINGS, **cut))
    trainer.advance()
    assert (trainer.model.blocks[0].memory.to_candidate.weight.grad is not None) == taught


@pytest.mark.parametrize("changed", [
    {"backprop": "replay"},
    {"backprop": "truncated", "backprop_segments": 2},
    {"precision": "bfloat16"},
    {"backprop": "replay", "precision": "bfloat16"},
])
@pytest.mark.parametrize("restart", [0.3, 1.0])
def test_every_way_back_resumes_to_the_same_weights(tmp_path, changed, restart, monkeypatch):
    settings = replace(SETTINGS, steps=8, grow_below=None, max_segments=3, restart=restart, **changed)

    def run_text(out: Path, **options) -> LanguageModel:
        return train(replace(CONFIG, vocab_size=256), TEXT, settings, out, progress=False, checkpoint_every=3,
                     **options)

    whole = run_text(tmp_path / "whole")
    with failing_after(5, monkeypatch):
        run_text(tmp_path / "run")
    torch.manual_seed(99)
    assert_same_weights(run_text(tmp_path / "run", resume=True), whole)
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


@pytest.mark.parametrize("changed", [{}, {"backprop": "replay"}, {"backprop": "truncated", "backprop_segments": 1}])
def test_a_state_that_is_not_finite_stops_the_run(changed):
    trainer = Trainer(CONFIG, TASK, replace(SETTINGS, grow_below=None, **changed))
    trainer.advance()
    trainer.model.blocks[0].memory.to_candidate.bias.data.fill_(float("nan"))
    with pytest.raises(TrainingError) as error:
        trainer.advance()
    assert_one_line(str(error.value), "step 2", "the state contains NaN" if changed else "the loss is nan", "lower lr")
    assert trainer.step == 1


def test_what_is_saved_of_a_run_in_bfloat16_is_float32(tmp_path):
    settings = replace(SETTINGS, restart=0.3, max_segments=2, grow_below=None, precision="bfloat16")
    train(replace(CONFIG, vocab_size=256), TEXT, settings, tmp_path, progress=False)
    assert timeless(tmp_path)[-1]["loss"] < timeless(tmp_path)[0]["loss"]
    state = RunFolder(tmp_path).read()
    moments = [tensor for entry in state["optimizer"]["state"].values() for tensor in entry.values()]
    weights = LanguageModel.from_checkpoint(tmp_path / "model.safetensors").state_dict()
    for tensor in (*state["model"].values(), *moments, *state["streams"]["state"]["memory"], *weights.values()):
        assert tensor.dtype == torch.float32


def test_only_full_attention_is_not_replayed():
    settings = replace(READING, backprop="replay")
    for kind in set(KINDS) - {"full"}:
        Trainer(matching(TEXT_CONFIG, kind), TEXT, settings)
    with pytest.raises(TrainingError) as error:
        Trainer(matching(TEXT_CONFIG, "full"), TEXT, settings)
    assert_one_line(str(error.value), "backprop must be 'whole' or 'truncated'", "'full'", "got 'replay'")


def test_a_run_that_was_begun_before_a_setting_existed_has_its_default(tmp_path, unbroken):
    folder = RunFolder(tmp_path)
    trainer = Trainer(CONFIG, TASK, SETTINGS)
    identity = {"config": CONFIG.to_dict(), "source": json.loads(json.dumps(TASK.describe())),
                "settings": asdict(SETTINGS)}
    for name in ("backprop", "backprop_segments", "precision"):
        del identity["settings"][name]
    folder.save(trainer.state(), json.loads(json.dumps(identity)))
    with pytest.raises(TrainingError, match=r"precision was 'float32', is 'bfloat16'"):
        run(tmp_path, replace(SETTINGS, precision="bfloat16"), resume=True)
    assert_same_weights(run(tmp_path, resume=True), unbroken[1])


# Rows that read on.

READING = replace(SETTINGS, max_segments=2, restart=0.3)
TEXT_CONFIG = replace(CONFIG, vocab_size=256)


def read_on(restart: float, steps: int, config: RMATConfig = TEXT_CONFIG, corpus: Corpus = TEXT, **settings) -> list:
    """The trainer after each step: its places, how long they were read, and the state."""
    trainer = Trainer(config, corpus, replace(READING, restart=restart, **settings))
    seen = []
    for _ in range(steps):
        length = trainer.advance()["segments"] * config.segment_len
        seen.append((trainer.streams.places.clone(), length, trainer.streams.state))
    return seen


def test_rows_that_never_restart_read_on_to_the_end_of_the_text():
    seen = read_on(0.0, 60, batch_size=4, grow_below=9.0)
    assert {length for _, length, _ in seen} == {6, 12}  # the curriculum draws lengths as ever
    anew = 0
    for (before, *_), (after, length, _) in pairwise(seen):
        at_the_end = before + length >= len(TEXT)
        assert torch.equal(after[~at_the_end], before[~at_the_end] + length)
        assert (after <= len(TEXT) - 1).all()
        anew += int(at_the_end.sum())
    assert anew > 0


def test_rows_restart_as_often_as_asked():
    seen = read_on(0.25, 40, batch_size=32, max_segments=1)
    went_on = [float((after == before + length).float().mean()) for (before, *_), (after, length, _) in pairwise(seen)]
    assert 0.65 < sum(went_on) / len(went_on) < 0.8


@pytest.mark.parametrize("kind", ["rmat", *KINDS])
def test_a_row_that_reads_on_scores_as_if_it_were_read_whole(monkeypatch, kind):
    config = replace(TEXT_CONFIG, dropout=0.0)
    config = config if kind == "rmat" else matching(config, kind)
    trainer = Trainer(config, TEXT, replace(READING, restart=0.0, batch_size=3, grow_below=None))
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    losses = [trainer.advance()["loss"] for _ in range(4)]
    begun = trainer.streams.places - 4 * 12
    tokens, targets = TEXT.read(begun, 4 * 12)
    nats = cross_entropy(trainer.model(tokens).logits.transpose(1, 2), targets, reduction="none")
    torch.testing.assert_close(torch.tensor(losses), nats.detach().unflatten(1, (4, 12)).mean((0, 2)))


def test_a_row_that_restarts_begins_from_the_learned_slots_and_teaches_them(monkeypatch):
    trainer = Trainer(TEXT_CONFIG, TEXT, replace(READING, restart=0.0, grow_below=None))
    trainer.advance()
    assert not any(tensor.requires_grad for tensor in trainer.streams.state.tensors())
    for restart, taught in ((0.0, False), (0.5, True)):
        trainer.settings = replace(trainer.settings, restart=restart, weight_decay=0.0)
        trainer.advance()
        slots = trainer.model.blocks[0].memory.slots
        assert (slots.grad is not None and bool(slots.grad.any())) == taught


@pytest.mark.parametrize(("kind", "killed_after"), [("rmat", 1), ("rmat", 4), *((kind, 8) for kind in KINDS)])
def test_rows_read_on_where_they_stopped_when_a_run_is_resumed(tmp_path, kind, killed_after, monkeypatch):
    config = TEXT_CONFIG if kind == "rmat" else matching(TEXT_CONFIG, kind)

    def run_text(out: Path, **options) -> LanguageModel:
        return train(config, TEXT, READING, out, progress=False, checkpoint_every=3, **options)

    whole = run_text(tmp_path / "whole")
    with failing_after(killed_after, monkeypatch):
        run_text(tmp_path / "run")
    torch.manual_seed(99)
    assert_same_weights(run_text(tmp_path / "run", resume=True), whole)
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def states_that_batches_begin_with(monkeypatch, steps: int, **settings) -> list[tuple]:
    """For each step of a task: the state that its streams were read with, and the one that the last left."""
    trainer, seen = Trainer(CONFIG, TASK, replace(SETTINGS, **settings)), []
    inner = trainer._backpropagate
    monkeypatch.setattr(trainer, "_backpropagate", lambda tokens, targets, state: seen.append(
        (state, trainer.streams and trainer.streams.state)) or inner(tokens, targets, state))
    for _ in range(steps):
        trainer.advance()
    return seen


def test_streams_of_a_task_follow_those_of_the_last_step_as_often_as_asked(monkeypatch):
    seen = states_that_batches_begin_with(monkeypatch, 80, restart=0.25, grow_below=None, max_segments=2, ragged=True)
    assert seen[0] == (None, None)
    went_on = [state for state, left in seen if state is not None and state is left]
    assert all(state is None or state is left for state, left in seen)
    assert 48 <= len(went_on) <= 70  # of 79, three quarters
    assert len({state.position for state in went_on}) > 3, "ragged streams end anywhere, and the next begin there"
    assert not any(tensor.requires_grad for state in went_on for tensor in state.tensors())


def test_streams_of_a_task_begin_anew_while_they_grow(monkeypatch):
    growing = states_that_batches_begin_with(monkeypatch, 5, restart=0.0, grow_below=1e-6, max_segments=2)
    assert all(state is None for state, _ in growing) and growing[-1][1] is not None


def test_a_task_that_reads_on_is_resumed_to_the_same_weights(tmp_path, monkeypatch):
    settings = replace(SETTINGS, steps=9, restart=0.3, grow_below=None, max_segments=2, ragged=True)
    whole = run(tmp_path / "whole", settings)
    with failing_after(5, monkeypatch):
        run(tmp_path / "run", settings, checkpoint_every=3)
    assert_same_weights(run(tmp_path / "run", settings, resume=True), whole)
    assert timeless(tmp_path / "run") == timeless(tmp_path / "whole")


def test_a_step_that_fails_leaves_the_rows_where_they_were():
    trainer = Trainer(TEXT_CONFIG, TEXT, READING)
    trainer.advance()
    streams = trainer.streams
    trainer.model.head.weight.data.fill_(float("inf"))
    with pytest.raises(TrainingError, match="step 2"):
        trainer.advance()
    assert trainer.streams is streams and trainer.step == 1


def test_rows_that_always_restart_carry_nothing_and_take_the_source_as_it_comes():
    trainer = Trainer(TEXT_CONFIG, TEXT, replace(READING, restart=1.0))
    trainer.advance()
    assert trainer.streams is None and trainer.state()["streams"] is None


def test_reading_on_learns(tmp_path):
    settings = replace(READING, steps=60, lr=1e-2, grow_below=None)
    model = train(TEXT_CONFIG, TEXT, settings, tmp_path, progress=False)
    assert evaluate(model, TEXT, 100, 4).value < 4.5
