"""The long-range results: what is run for them, what is kept, how the bar is judged, and that no answer is seen."""

import copy
import json
import shlex
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from rmat_tutorial import LanguageModel, RMATConfig, jobs, long_range
from rmat_tutorial.baselines import count_parameters
from rmat_tutorial.cli import build_parser
from rmat_tutorial.commands.evaluate import evaluation_source
from rmat_tutorial.commands.train import run_settings, training_sources
from rmat_tutorial.evaluation import evaluate
from rmat_tutorial.language_model import Output
from rmat_tutorial.long_range import BAR_SEEDS, LONGEST, MANY_WRITES, MEMORY_FROM, MILLION, PARTS, SIXTEEN_TIMES
from rmat_tutorial.long_range_claims import accuracy, claims, describe
from rmat_tutorial.recipes import RECIPES
from rmat_tutorial.tasks import IGNORED, TASKS, PlacedTask, RecallTask
from rmat_tutorial.training import Trainer, TrainSettings

MACHINE = {"device": "a processor"}
every_part = pytest.mark.parametrize("part", PARTS)

# What is run.


@every_part
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("cuda", [False, True])
def test_every_command_of_a_part_parses_and_begins(part, quick, cuda, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    parser = build_parser()
    cases = PARTS[part](quick)
    jobs_of = [job for case in cases for job in (case.training(), *case.scorings().values())]
    assert len({job.name for job in jobs_of}) == len(jobs_of)
    assert all(job.weight > 0 for job in jobs_of)
    for case in cases:
        options = parser.parse_args(case.training().words)
        source, _ = training_sources(options, tmp_path)
        config, settings = run_settings(options, source.vocab_size)
        assert settings.steps == case.training().weight
        Trainer(config, source, replace(settings, batch_size=1))
        if part != "large":
            assert settings.max_segments * config.segment_len == 512
        streams = [(tokens, reading.words) for reading in case.readings.values() for tokens in reading.tokens]
        assert len(set(streams)) == len(streams)  # none are counted twice
        for scoring in case.scorings().values():
            read = parser.parse_args(scoring.words)
            task = evaluation_source(source.describe(), read)
            assert task.vocab_size == source.vocab_size
            for tokens in read.tokens:
                task.stream(1, tokens, 512, torch.Generator())  # long enough


def test_the_large_model_has_ten_million_parameters(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    case, *speeds = PARTS["large"](False)
    options = build_parser().parse_args(case.training().words)
    source, _ = training_sources(options, tmp_path)
    config, settings = run_settings(options, source.vocab_size)
    assert 9e6 < count_parameters(config) < 12e6
    assert (config.segment_len, settings.max_segments, settings.precision) == (256, 64, "bfloat16")
    assert options.device == "cuda" and options.compile
    assert [speed.labels["on"] for speed in speeds] == ["cpu", "cuda", "cuda-compiled", "cuda-graphs"]
    for speed in speeds:  # whole segments from the first step on, so that all do the same work
        _, settings = run_settings(build_parser().parse_args(speed.training().words), source.vocab_size)
        assert (settings.grow_below, settings.ragged, settings.max_segments) == (None, False, 4)


def test_a_bank_is_written_whole_and_trained_with_as_many_facts_as_it_has_slots(tmp_path):
    for case in PARTS["capacity"](False):
        options = build_parser().parse_args(case.training().words)
        source, _ = training_sources(options, tmp_path)
        config, _ = run_settings(options, source.vocab_size)
        assert config.memory_slots == config.write_slots == case.labels["memory_slots"]
        assert source.facts == min(config.memory_slots, config.segment_len // 2)


def test_all_kinds_of_a_task_are_trained_alike(tmp_path):
    found: dict[str, set] = {}
    for case in PARTS["tasks"](False):
        options = build_parser().parse_args(case.training().words)
        source, _ = training_sources(options, tmp_path)
        _, settings = run_settings(options, source.vocab_size)
        if case.labels["kind"] == "full":  # its state would grow from stream to stream
            assert settings.restart == 1
            settings = replace(settings, restart=RECIPES[case.task].settings.restart)
        found.setdefault(case.task, set()).add((settings, json.dumps(source.describe())))
    assert set(found) == set(TASKS)
    assert all(len(alike) == 1 for alike in found.values())


STAND_IN = """
import json, os, pathlib, shlex, sys
words = sys.argv[1:]
with open("journal", "a") as journal:
    journal.write(" ".join(words) + "\\n")
if os.environ.get("BROKEN") and os.environ["BROKEN"] in " ".join(words):
    sys.exit("error: the disk is full")
if words[0] == "train":
    out = pathlib.Path(words[words.index("--out") + 1])
    out.mkdir()
    kept = shlex.join(["python", "-m", "rmat_tutorial", *words])
    (out / "run.json").write_text(json.dumps({"command": kept, "training_seconds": 200.0, "settings": {},
                                                  "tokens_per_second": 9.0, "device": "d"}))
elif "--gaps" in words:
    gaps = [int(gap) for gap in words[words.index("--gaps") + 1 : words.index("--sequences")]]
    print(json.dumps({"gaps": gaps, "accuracy": [0.5] * len(gaps), "answers": 8, "sequences": 2, "example": {}}))
else:
    lengths = words[words.index("--tokens") + 1 : words.index("--sequences")]
    scores = [{"accuracy": 1.0, "loss": 0.0, "tokens": int(tokens), "positions": 256, "sequences": 64, "seed": 0,
               "source": {"kind": "recall"}, "by_distance": [], "most_resident_bytes": 1000} for tokens in lengths]
    print("accuracy 1")
    print(json.dumps({**(scores[0] if len(scores) == 1 else {"scores": scores}), "model": "m", "device": "d"}))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, "-S", str(script)))
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.005)


def journal(folder) -> list[str]:
    return (folder / "journal").read_text().splitlines()


def test_the_result_of_the_bar_has_every_seed_and_length_and_goes_on_where_it_was(stand_in, tmp_path):
    folder = tmp_path / "bar"
    result = long_range.run_part("bar", folder, 2, MACHINE, progress=False)
    assert json.loads((folder / "bar.json").read_text()) == result
    assert [model["seed"] for model in result["models"]] == list(BAR_SEEDS)
    for model in result["models"]:
        lengths = {score["tokens"] for score in model["scores"]}
        assert lengths >= {*long_range.SHORT_LENGTHS, *long_range.LONG_LENGTHS, LONGEST}
        assert model["command"].startswith("python -m rmat_tutorial train recall")
        assert all(score["command"].startswith("python -m rmat_tutorial evaluate seed-") for score in model["scores"])
    assert result["device"] == "a processor" and not result["failures"]
    assert all(claim.met for claim in claims(result))
    done = journal(folder)
    assert [line.split()[0] for line in done[:3]] == ["train"] * 3
    assert long_range.run_part("bar", folder, 2, MACHINE, progress=False) == result
    assert journal(folder) == done


def test_a_failure_is_told_and_leaves_the_others(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN", "out seed-1")
    result = long_range.run_part("bar", tmp_path / "bar", 2, MACHINE, progress=False)
    assert [failure["job"] for failure in result["failures"]] == ["seed-1"]
    assert [model["seed"] for model in result["models"]] == [0, 2]
    assert "failed: seed-1: error: the disk is full" in describe(result)


def test_a_trial_is_not_judged(stand_in, tmp_path):
    for part in PARTS:
        result = long_range.run_part(part, tmp_path / part, 1, MACHINE, quick=True, progress=False)
        said = describe(result)
        assert result["quick"] and not result["failures"]
        assert "met" not in said.lower()
        assert "100.00 %" in said


def test_each_reader_is_asked_after_every_gap(stand_in, tmp_path, monkeypatch):
    monkeypatch.setenv("BROKEN", "--bank")
    result = long_range.read_gaps(tmp_path / "gaps", 2, MACHINE, progress=False)
    assert json.loads((tmp_path / "gaps" / "gaps.json").read_text()) == result
    assert list(result["readers"]) == [name for name in long_range.READERS if name != "bank zeroed"]
    for reading in result["readers"].values():
        assert reading["gaps"] == list(long_range.GAPS) and reading["gaps"][0] == 64 and reading["gaps"][-1] == MILLION
        options = build_parser().parse_args(shlex.split(reading["command"])[3:])
        assert options.gaps == reading["gaps"] and options.model.startswith("recall")
    assert "failed: gaps-bank-zeroed" in describe(result)
    assert "sigmoid gate: 1,048,576 tokens of noise after the facts 50.00 % of 8" in describe(result)


# The bar.


def score(tokens: int, value: float, held: int = 1000, reading: str = "long", **source) -> dict:
    return {"tokens": tokens, "accuracy": value, "positions": 256, "most_resident_bytes": held, "reading": reading,
            "source": {"kind": "recall", "facts": 4, **source}}


def result_of_the_bar() -> dict:
    """One that just holds every line."""
    models = [{"seed": seed, "training_seconds": 300.0, "tokens_per_second": 9.0, "device": "d",
               "scores": [score(32, 0.99, reading="short"), score(MEMORY_FROM, 0.99), score(MILLION, value, 1049)]}
              for seed, value in zip(BAR_SEEDS, (1.0, 1.0, 0.985), strict=True)]
    models[2]["scores"] += [score(LONGEST, 1.0, reading="longest"), score(LONGEST, 0.98, reading="again")]
    return {"part": "bar", "quick": False, "models": models, "failures": []}


def test_a_result_that_just_holds_the_bar_holds_it():
    assert [claim.met for claim in claims(result_of_the_bar())] == [True] * 6


def scores_of(result: dict, seed: int) -> dict:
    return {(one["tokens"], one["reading"]): one for one in result["models"][seed]["scores"]}


def worse_mean(result):
    scores_of(result, 0)[MILLION, "long"]["accuracy"] = 0.999  # 99.47 %


def one_bad_seed(result):
    scores_of(result, 2)[MILLION, "long"]["accuracy"] = 0.9849


def forgets_in_the_end(result):
    scores_of(result, 2)[LONGEST, "again"]["accuracy"] = 0.979  # 98.95 % of both


def one_short_length(result):
    scores_of(result, 1)[32, "short"]["accuracy"] = 0.9899


def grows(result):
    scores_of(result, 1)[MILLION, "long"]["most_resident_bytes"] = 1051


def slow(result):
    result["models"][1]["training_seconds"] = 301.0


@pytest.mark.parametrize(("spoil", "lost"), [
    (worse_mean, {0}), (one_bad_seed, {0, 1}), (forgets_in_the_end, {2, 3}), (one_short_length, {3}), (grows, {4}),
    (slow, {5}),
])
def test_each_line_of_the_bar_can_be_missed(spoil, lost):
    result = copy.deepcopy(result_of_the_bar())
    spoil(result)
    assert {place for place, claim in enumerate(claims(result)) if not claim.met} == lost
    assert describe(result).count("NOT MET") == len(lost)


def result_of_the_tasks() -> dict:
    """One that just holds every line, beside a model of another kind that holds none."""
    def model(task: str, kind: str, value: float, **source: int) -> dict:
        return {"task": task, "kind": kind, "training_seconds": 300.0, "tokens_per_second": 9.0, "device": "d",
                "scores": [score(SIXTEEN_TIMES, value, **source), score(512, 0.1), score(32768, 0.1)]}

    rewrite = model("rewrite", "rmat", 0.99, writes=MANY_WRITES)
    rewrite["scores"].append(score(SIXTEEN_TIMES, 0.5, writes=64))
    ours = [rewrite, *(model(task, "rmat", 0.95) for task in ("mqar", "copy", "stories", "recall"))]
    return {"part": "tasks", "quick": False, "models": [*ours, model("copy", "full", 0.1)], "failures": []}


@pytest.mark.parametrize("lost", range(4))
def test_each_line_for_the_tasks_can_be_missed(lost):
    result = copy.deepcopy(result_of_the_tasks())
    assert [claim.met for claim in claims(result)] == [True] * 4
    result["models"][lost]["scores"][0]["accuracy"] -= 0.001
    assert [place for place, claim in enumerate(claims(result)) if not claim.met] == [lost]
    assert describe(result).count("NOT MET") == 1
    del result["models"][lost]
    assert [claim.met for claim in claims(result)].index(None) == lost
    assert [claim.met for claim in claims({**result, "models": []})] == [None] * 4
    assert claims({**result, "part": "capacity"}) == []


def test_at_sixteen_million_tokens_one_seed_is_enough():
    result = copy.deepcopy(result_of_the_bar())
    for seed, share in ((0, 0.984), (1, 1.0)):
        result["models"][seed]["scores"].append(score(LONGEST, share, reading="longest"))
    scores_of(result, 2)[LONGEST, "again"]["accuracy"] = 0.95
    (claim,) = [claim for claim in claims(result) if "16 777 216" in claim.asked]
    assert claim.met and claim.found == "100.00 %"


def test_what_was_not_measured_is_not_met():
    result = result_of_the_bar()
    for model in result["models"]:
        model["scores"] = [one for one in model["scores"] if one["tokens"] < MEMORY_FROM]
    found = [claim.met for claim in claims(result)]
    assert found == [None, None, None, True, None, True]
    assert [claim.met for claim in claims({**result, "models": []})] == [None] * 6


def test_accuracy_is_that_of_all_streams_of_such_a_source():
    model = {"scores": [score(512, 1.0, facts=2), {**score(512, 0.5, facts=8), "positions": 768}]}
    assert accuracy(model, 512) == (256 + 384) / 1024
    assert accuracy(model, 512, facts=8) == 0.5
    assert accuracy(model, 512, facts=3) is None and accuracy(model, 64) is None


# Neither the evaluation nor the training sees an answer early.


class WithoutFacts(nn.Module):
    """A model that is given noise in place of every fact, and everything else as it is."""

    def __init__(self, model: LanguageModel, task: RecallTask) -> None:
        super().__init__()
        self.model, self.task = model, task
        self.config, self.embed = model.config, model.embed

    def forward(self, tokens, state=None) -> Output:
        return self.model(tokens.masked_fill(self.task.fact_keys(tokens) >= 0, 0), state)


@pytest.mark.parametrize("tokens", [64, 2048])
def test_a_trained_model_that_is_not_shown_the_facts_guesses(tokens):
    task, model = RecallTask(), LanguageModel.from_checkpoint("recall")
    right = evaluate(model, task, tokens, 256, 3)
    guessed = evaluate(WithoutFacts(model, task), task, tokens, 256, 3)
    sd = (task.chance * (1 - task.chance) / guessed.positions) ** 0.5
    assert right.value > 0.97
    assert abs(guessed.value - task.chance) < 4 * sd


class Blind(RecallTask):
    """Recall whose streams have noise in place of every fact."""

    def pieces(self, batch_size, tokens, piece, generator):
        for part, targets, distances in super().pieces(batch_size, tokens, piece, generator):
            yield part.masked_fill(self.fact_keys(part) >= 0, 0), targets, distances


class Leaky(Blind):
    """The same with the answer itself at the end of each segment of 8 tokens but the last."""

    def pieces(self, batch_size, tokens, piece, generator):
        for part, targets, distances in super().pieces(batch_size, tokens, piece, generator):
            part[:, 7:-1:8] = targets[targets != IGNORED][:, None]
            yield part, targets, distances


@pytest.mark.parametrize("way", [
    {}, {"backprop": "replay"}, {"backprop": "truncated", "backprop_segments": 2}, {"restart": 0.5},
], ids=["whole", "replay", "truncated", "restart"])
def test_a_training_that_is_not_shown_the_facts_learns_nothing(way):
    """Over four segments, of which the last ends anywhere. What leaks over a border would be learnt."""
    config = RMATConfig(d_model=16, n_heads=2, n_layers=1, segment_len=8, chunk_size=4, memory_slots=4, write_slots=4)
    settings = TrainSettings(steps=360, batch_size=32, lr=5e-3, warmup=10, max_segments=4, grow_below=None, ragged=True,
                             gate_penalty=0.0, **way)

    def last_accuracies(task: PlacedTask) -> list[float]:
        trainer = Trainer(replace(config, vocab_size=task.vocab_size), task, settings)
        return [trainer.advance()["accuracy"] for _ in range(settings.steps)][-50:]

    fields = {"keys": 2, "values": 2, "facts": 1, "noise_tokens": 2}
    assert sum(last_accuracies(Leaky(**fields))) / 50 > 0.9
    assert abs(sum(last_accuracies(Blind(**fields))) / 50 - 0.5) < 4 * (0.25 / (50 * 32)) ** 0.5
