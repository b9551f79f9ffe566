"""The benchmark: what the rounds say, what the bars say of it, and a trial of all of it."""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from bench_results import ROUNDS, result
from hypothesis import given
from hypothesis import strategies as st
from interpreter import DEVICE, patch_once
from strategies import assert_one_line, gap, make_model, random_tokens
from tqdm.auto import tqdm

from rmat_tutorial import bench, hybrid_attention
from rmat_tutorial.attention import full_attention
from rmat_tutorial.baselines import count_parameters
from rmat_tutorial.bench import attention, models, plan, rounds, tiles
from rmat_tutorial.bench.attention import COMPILED, FLOOR, METHODS, NEEDS_CUDA, ROPE_BEFORE, ROPE_ON_LOAD
from rmat_tutorial.bench.models import NAIVE, PACKAGE, RMAT_NAME
from rmat_tutorial.bench.plan import LONG, ON_CPU, READING, SHORT, TRAINING, Case
from rmat_tutorial.bench.published import published
from rmat_tutorial.bench.recurrence import FASTEST
from rmat_tutorial.bench.rounds import Effort, calls_needed, measure, ratio, spread
from rmat_tutorial.cli import main
from rmat_tutorial.config import BACKENDS
from rmat_tutorial.kernels.counting import Shape
from rmat_tutorial.kernels.limits import TOLERANCES
from rmat_tutorial.measuring import number_of_parameters

CPU = torch.device("cpu")
SMALL = Shape(1, 2, 12, 16, 4, 3)
TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=9)


def quietly(**options) -> tqdm:
    return tqdm(disable=True, **options)


# What the rounds say.


@given(TIMES)
def test_a_spread_is_the_median_and_the_quartiles(values):
    found = spread(values)
    assert found.low <= found.median <= found.high
    assert tuple(found) == pytest.approx(tuple(np.percentile(values, (50, 25, 75))))


@given(st.lists(st.floats(0.5, 2.0), min_size=1, max_size=9), st.floats(0.1, 10.0))
def test_what_slows_all_alike_does_not_move_a_ratio(drift, times):
    found = ratio([times * slow for slow in drift], drift)
    assert tuple(found) == pytest.approx((times,) * 3)


def test_a_ratio_is_taken_within_a_round():
    assert ratio([1.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == (2.0, 1.5, 2.5)  # not 4 / 2 of the medians alone
    assert ratio([1.0, 6.0, 9.0], [3.0, 1.0, 3.0]).median == 3.0  # of the medians it would be 2
    with pytest.raises(ValueError):
        ratio([1.0, 2.0], [1.0])


def test_the_clock_of_a_cuda_device_is_its_own(monkeypatch):
    """With a stand-in for CUDA: another device is the current one."""
    noted = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream=None):
            noted.append(stream)

        def synchronize(self):
            noted.append("waited")

        def elapsed_time(self, end):
            return 6e3

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    assert rounds.timed(lambda: noted.append("ran"), 2, torch.device("cuda:1")) == 3.0
    assert noted == ["stream of cuda:1", "ran", "ran", "stream of cuda:1", "waited"]


class Machine:
    """A clock for methods that are names, and a note of what ran."""

    def __init__(self, monkeypatch, seconds, tick=0.0):
        self.ran: list[str] = []
        self.now, self.seconds, self.tick = 0.0, seconds, tick
        monkeypatch.setattr(rounds.time, "process_time", self.read)

    def read(self) -> float:
        return self.now // self.tick * self.tick if self.tick else self.now

    def method(self, name):
        def run():
            self.ran.append(name)
            self.now += self.seconds[name]
            if self.seconds[name] < 0:
                raise RuntimeError(f"{name} does not work\nand here is where")
        return run


def test_every_method_is_timed_in_every_round_in_changing_order(monkeypatch):
    seconds = {name: 1.0 + place for place, name in enumerate("abcde")}
    machine = Machine(monkeypatch, seconds)
    found = measure({name: machine.method(name) for name in seconds}, CPU, Effort(4, 0.0), quietly())
    assert found.seconds == {name: [pytest.approx(time)] * 4 for name, time in seconds.items()}
    turns = [tuple(machine.ran[start:start + 10:2]) for start in range(10, 50, 10)]  # each runs once, then is timed
    assert all(sorted(turn) == list("abcde") for turn in turns)
    assert len(set(turns)) > 1


def test_a_method_that_fails_leaves_the_others(monkeypatch):
    machine = Machine(monkeypatch, {"a": 1.0, "b": -1.0, "c": 2.0, "d": 1.0})
    methods = {name: machine.method(name) for name in "abcd"}
    late = iter(range(100))

    def fails_late():
        if next(late) > 3:
            raise MemoryError
        machine.method("d")()

    found = measure(methods | {"d": fails_late}, CPU, Effort(3, 0.0), quietly())
    assert set(found.seconds) == {"a", "c"} and all(len(times) == 3 for times in found.seconds.values())
    assert found.reasons == {"b": "b does not work", "d": "MemoryError"}
    assert machine.ran.count("b") == 1


@pytest.mark.parametrize("tick", [0.0, 0.016])
@pytest.mark.parametrize("seconds", [1e-5, 3e-3, 0.7])
def test_a_timing_takes_long_enough_and_not_much_longer(monkeypatch, seconds, tick):
    machine = Machine(monkeypatch, {"a": seconds}, tick)
    calls = calls_needed(machine.method("a"), CPU, 0.05)
    assert 0.05 - tick <= calls * seconds < max(0.7, 0.65) + 1e-9
    assert calls == 1 or calls * seconds < 0.65


# The bars.


def met(found) -> list[bool | None]:
    return [claim.met for claim in bench.claims(found)]


def test_every_bar_can_be_met():
    assert met(result("cuda")) == [True] * 9
    assert met(result("cpu")) == [True] * 3 + [None] * 9
    assert all("needs a CUDA device" in claim.found for claim in bench.claims(result("cpu"))[3:])


MISSED = [
    ("cuda", {(LONG, "triton"): 1.2, (LONG, "sdpa"): 9.0, (LONG, "flex"): 9.0}, [0]),
    ("cuda", {(LONG, "triton"): 1.4, (LONG, "sdpa"): 9.0, (LONG, "flex"): 9.0}, [0, 2]),
    ("cuda", {(LONG, "triton"): 1.6, (LONG, "sdpa"): 9.0, (LONG, "flex"): 9.0}, [0, 1, 2]),
    ("cuda", {(LONG, "sdpa"): 1.3}, [3]),
    ("cuda", {(SHORT, "sdpa"): 2.1}, [4]),
    ("cuda", {(LONG, "flex"): 1.3}, [5]),
    ("cuda", {(LONG, "peak"): 2 * 8 * 16 * 64 * 2 * (64 + 2048) + 1}, [6]),
    ("cuda", {(READING, FASTEST): 1.2}, [7]),
    ("cuda", {(TRAINING, FASTEST): 1.2}, [8]),
    ("cpu", {(ON_CPU, "eager"): 6.5}, [0]),
    ("cpu", {(ON_CPU, "sdpa"): 1.23}, [1]),
    ("cpu", {("T = 4096", RMAT_NAME): 2.6}, [2]),
]


@pytest.mark.parametrize("kind, changes, missed", MISSED, ids=str)
def test_every_bar_can_be_missed(kind, changes, missed):
    assert [place for place, is_met in enumerate(met(result(kind, changes))) if is_met is False] == missed


def test_the_peak_may_be_the_bank_and_two_outputs_more():
    assert met(result("cuda", {(LONG, "peak"): 2 * 8 * 16 * 64 * 2 * (64 + 2048)}))[6]


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_what_was_not_measured_is_not_judged(kind):
    empty = result(kind) | {"cases": []}
    assert met(empty) == [None] * len(met(empty))
    partly = result(kind)
    for method in ("triton", "sdpa"):
        for case in partly["cases"]:
            if case["part"] == "attention":
                case["methods"][method] = {"forward": {"reason": "no memory"}, "both": {"reason": "no memory"}}
    assert not any(met(partly)[: 2 if kind == "cpu" else 7])


def test_the_table_says_all_of_it():
    found = result("cuda", {(LONG, "sdpa"): 1.3})
    found["claims"] = [claim._asdict() for claim in bench.claims(found)]
    found["failures"] = [{"job": "tiles, trial", "reason": "no such kernel"}]
    said = bench.describe(found)
    assert "NOT MET" in said and "1.18 (1.18–1.18)" in said
    assert "failed: tiles, trial: no such kernel" in said
    assert said.count("/ eager loop") == said.count("/ rmat, auto") == 2
    assert "causal, cuDNN" in said and "needs a CUDA device" in said and "not installed: pip install it" in said
    assert "900.000 TFLOP/s in a product of matrices, 3000.0 GB/s in a copy" in said
    assert "NOT MET" not in bench.describe(found | {"quick": True})


# One case after the other, stopped and gone on with.


MACHINE = {"command": "c", "device": "d", "kind": "cpu", "threads": 1, "versions": {"torch": "2"}, "quick": True}


def case(name, journal, error=None, part="training") -> Case:
    def run(bar):
        journal.append(name)
        if error is not None:
            raise error
        return {"models": {name: {"reason": "a stand-in"}}}
    return Case(part, name, run)


def test_what_was_stopped_goes_on(tmp_path):
    files, journal = (tmp_path / "data" / "cpu.json", tmp_path / "home" / "unfinished.json"), []
    stopping = [case("a", journal), case("b", journal, KeyboardInterrupt()), case("c", journal)]
    going_on = [case("a", journal), case("b", journal), case("c", journal, RuntimeError("no room\nat all"))]
    with pytest.raises(KeyboardInterrupt):
        bench.run_cases(stopping, *files, MACHINE, progress=False)
    assert not files[0].exists()
    found = bench.run_cases(going_on, *files, MACHINE, progress=False)
    assert journal == ["a", "b", "b", "c"]
    assert json.loads(files[0].read_text()) == found and not files[1].exists()
    assert [one["name"] for one in found["cases"]] == ["a", "b"]
    assert found["failures"] == [{"job": "training, c", "reason": "no room"}]
    assert found["device"] == "d" and len(found["claims"]) == 12
    bench.run_cases(going_on[:1], *files, MACHINE, progress=False)  # a finished one begins anew
    assert journal[-1] == "a"


@pytest.mark.parametrize("change", [{"versions": {"torch": "3"}}, {"device": "e"}, {"quick": False}])
def test_what_another_machine_measured_is_measured_anew(tmp_path, change):
    files, journal = (tmp_path / "cpu.json", tmp_path / "unfinished.json"), []
    with pytest.raises(KeyboardInterrupt):
        bench.run_cases([case("a", journal), case("b", journal, KeyboardInterrupt())], *files, MACHINE, progress=False)
    bench.run_cases([case("a", journal)], *files, MACHINE | change, progress=False)
    assert journal == ["a", "b", "a"]


def test_parts_are_measured_one_by_one_into_one_file(tmp_path):
    files, journal = (tmp_path / "cpu.json", tmp_path / "unfinished.json"), []
    plan = [case("a", journal, part="attention"), case("b", journal), case("c", journal, ValueError("no"), "tiles"),
            case("d", journal, part="attention")]

    def measured(command, *only):
        found = bench.run_cases(plan, *files, MACHINE | {"command": command}, only, progress=False)
        assert json.loads(files[0].read_text()) == found and not files[1].exists()
        return "".join(one["name"] for one in found["cases"]), found["command"], len(found["failures"])

    assert measured("1", "training") == ("b", "1", 0)
    assert measured("2", "attention", "tiles") == ("abd", "1 && 2", 1)
    assert measured("3", "attention") == ("abd", "1 && 2 && 3", 1)
    assert journal == [*"bacd", *"ad"]
    assert measured("3", "tiles") == ("abd", "1 && 2 && 3", 1)
    assert measured("4") == ("abd", "4", 1)  # all of it, anew


def test_a_part_that_was_stopped_goes_on(tmp_path):
    files, journal = (tmp_path / "cpu.json", tmp_path / "unfinished.json"), []
    bench.run_cases([case("a", journal)], *files, MACHINE, progress=False)
    tiles = [case(name, journal, part="tiles") for name in "bc"]
    stopping = [case("a", journal), tiles[0], case("c", journal, KeyboardInterrupt(), "tiles")]
    with pytest.raises(KeyboardInterrupt):
        bench.run_cases(stopping, *files, MACHINE, ["tiles"], progress=False)
    assert [one["name"] for one in json.loads(files[1].read_text())["cases"]] == ["a", "b"]
    found = bench.run_cases([case("a", journal), *tiles], *files, MACHINE, ["tiles"], progress=False)
    assert journal == ["a", "b", "c", "c"] and [one["name"] for one in found["cases"]] == ["a", "b", "c"]


def test_no_part_is_added_to_what_another_machine_measured(tmp_path):
    files, journal = (tmp_path / "cpu.json", tmp_path / "unfinished.json"), []
    bench.run_cases([case("a", journal)], *files, MACHINE, progress=False)
    with pytest.raises(ValueError) as error:
        bench.run_cases([case("a", journal)], *files, MACHINE | {"device": "e"}, ["training"], progress=False)
    assert_one_line(str(error.value), "cpu.json", "another machine", "--out")
    assert journal == ["a"]


def test_a_result_is_named_after_its_device(monkeypatch):
    assert bench.result_name(CPU) == "cpu.json"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert bench.result_name(torch.device("cuda")) == "nvidia-h100-80gb-hbm3.json"


# What is measured.


def test_every_method_does_what_it_is_measured_for(monkeypatch):
    patch_once(monkeypatch)
    inputs = attention.random_inputs(SMALL, torch.float32, torch.device(DEVICE))
    expected = hybrid_attention(*inputs, chunk_size=SMALL.chunk_size, backend="eager")
    for name in BACKENDS:
        with torch.no_grad():
            assert gap(attention.attention(name, inputs, SMALL.chunk_size)(), expected) < TOLERANCES[torch.float32]
    of_torch = FLOOR if DEVICE == "cpu" else attention.EFFICIENT  # FlashAttention-2 takes no float32
    assert gap(attention.attention(of_torch, inputs, 4)(), full_attention(*inputs[:3])) < TOLERANCES[torch.float32]
    turned = [attention.attention(name, inputs, 4)() for name in (ROPE_BEFORE, ROPE_ON_LOAD)]
    assert gap(*turned) < TOLERANCES[torch.float32]
    assert gap(turned[0], attention.attention("triton", inputs, 4)()) > 1e-3


@pytest.mark.parametrize("name, allowed", [
    (FLOOR, "flash"), (attention.CUDNN, "cudnn"), (attention.EFFICIENT, "mem_efficient"),
])
def test_on_a_cuda_device_causal_attention_is_one_of_torchs_and_no_other(monkeypatch, name, allowed):
    switches = ("flash", "cudnn", "mem_efficient", "math")
    monkeypatch.setattr(attention, "causal", lambda q, k, v: [
        switch for switch in switches if getattr(torch.backends.cuda, f"{switch}_sdp_enabled")()
    ])
    on_cuda = [SimpleNamespace(is_cuda=True)] * 7
    assert attention.attention(name, on_cuda, 4)() == [allowed]
    assert attention.counted_as(name, SMALL, torch.bfloat16, torch.device("cuda")) == FLOOR


def test_forward_and_backward_reach_every_input():
    inputs = attention.random_inputs(SMALL, torch.float64, CPU)
    seen = []
    for x in inputs:
        x.register_hook(lambda gradient: seen.append(gradient.shape))
    attention.learn(attention.attention("sdpa", inputs, 4), inputs, torch.ones_like(inputs[0]))
    assert sorted(seen) == sorted(x.shape for x in inputs)
    assert not attention.no_gradient(attention.attention("sdpa", inputs, 4)).requires_grad


def test_with_cuda_replays_are_timed_and_calls_have_the_peak(monkeypatch):
    """With a stand-in for CUDA: its clock, its memory, and a capture that notes what it is asked for."""
    captured, replays = [], []

    def capture(function, device, pool):
        captured.append(function)
        return lambda: replays.append(function), function()

    def timed(run, calls, device):
        before = len(replays)
        run()
        return 2.0 if len(replays) > before else 1.0

    for module, name, stand_in in (
        (attention, "capture", capture), (attention, "Pool", object), (rounds, "timed", timed),
        (attention, "methods", lambda *arguments: ({name: {"forward": list, "both": dict} for name in names}, {})),
        (attention, "ceilings", lambda *arguments: {attention.PRODUCT: list, attention.COPY: list}),
        (attention, "peak_of", lambda run, device: (run not in (list, dict)) or 5),
    ):
        monkeypatch.setattr(module, name, stand_in)
    names = [*attention.WRITTEN_OUT, FLOOR]
    found = attention.measure_attention(SMALL, quietly(), names, torch.float32, attention.Ceiling(4, 4),
                                        torch.device("cuda"), Effort(3, 0.0))["methods"]
    assert captured == [list, dict]  # the floor's, once each
    assert {name: one["replayed"] for name, one in found.items()} == {**dict.fromkeys(attention.WRITTEN_OUT, False),
                                                                     FLOOR: True}
    for name in names:
        for direction in attention.DIRECTIONS:
            assert found[name][direction] == {"seconds": [2.0 if name == FLOOR else 1.0] * 3, "peak_bytes": 5}


def test_tile_sizes_are_swept_in_the_interpreter(monkeypatch):
    patch_once(monkeypatch)
    monkeypatch.setattr(tiles, "QUERIES", (4, 16))
    monkeypatch.setattr(tiles, "KEYS", (8,))
    monkeypatch.setattr(tiles, "WARPS", (4,))
    found = tiles.measure_tiles(SMALL, torch.float32, torch.device(DEVICE), Effort(1, 0.0), quietly())
    assert [(one["queries"], one["keys"], one["warps"]) for one in found["choices"]] == [(4, 8, 4), (16, 8, 4)]
    if DEVICE == "cpu":
        assert all(one["seconds"][0] > 0 for one in found["choices"])
        assert found["choices"][0]["bytes"] > found["choices"][1]["bytes"]


def test_the_naive_loop_draws_the_same_tokens():
    model, tokens = make_model(segment_len=8), random_tokens(1, 8 + 4)
    cached = models.continuing(model, tokens, 3)().tokens
    assert torch.equal(models.naively(model, tokens, 8, 3)(), cached)


def test_a_step_of_training_is_the_gradient_of_the_mean_loss():
    model, tokens = make_model(), random_tokens(2, 8)
    for _ in range(2):  # it replaces that of the step before
        models.learn(model, tokens, torch.float32)
    logits = model(tokens[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:])
    expected = torch.autograd.grad(loss, list(model.parameters()))
    assert all(gap(found.grad, wanted) < 1e-6 for found, wanted in zip(model.parameters(), expected, strict=True))


class StandIn(torch.nn.Module):
    """The parameters that the published model has of its FFNs, and as many as it needs besides."""

    def __init__(self, dim, *, num_tokens, depth, num_memory_tokens, seq_len, dim_head, heads, use_flash_attn, ff_mult):
        super().__init__()
        assert dim_head * heads == dim and use_flash_attn
        self.embed = torch.nn.Embedding(num_tokens + seq_len + num_memory_tokens, dim)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(3 * dim, int(dim * ff_mult * 2 / 3)) for _ in range(depth))


def test_the_published_model_is_of_equal_size(monkeypatch):
    package = ModuleType(PACKAGE.replace("-", "_"))
    package.RecurrentMemoryTransformer, package.RecurrentMemoryTransformerWrapper = StandIn, torch.nn.Sequential
    monkeypatch.setitem(sys.modules, package.__name__, package)
    for config in (plan.CPU.sizes.config, plan.SMALL):
        wanted = count_parameters(config)
        assert number_of_parameters(published(config)) == pytest.approx(wanted, rel=0.01)


def test_without_the_published_package_the_others_are_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGE.replace("-", "_"), None)
    found, reasons = models.contestants(plan.trial(plan.CPU).sizes, CPU, ("eager",))
    assert list(found) == ["rmat, auto", "rmat, eager", "full attention"]
    assert_one_line(reasons[PACKAGE], "not installed", "pip install recurrent-memory-transformer-pytorch==")


# The command.


def test_a_trial_from_end_to_end(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RMAT_HOME", str(tmp_path / "home"))
    out = tmp_path / "found.json"
    assert main(["bench", "--quick", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["kind"] == "cpu" and found["quick"] and found["failures"] == []
    assert found["versions"]["torch"] == torch.__version__ and found["threads"] == 1
    parts = [one["part"] for one in found["cases"]]
    assert parts == ["attention", "recurrence", "recurrence", "training", "generation"]
    methods = found["cases"][0]["methods"]
    assert list(methods) == [name for name in METHODS if name not in COMPILED]
    for name, method in methods.items():
        assert ("reason" in method["forward"]) == (name in NEEDS_CUDA)
        assert ("reason" in method["both"]) == (name in (*NEEDS_CUDA, "flex"))
    for spreads in found["cases"][0]["ratios"].values():
        assert spreads["eager"]["eager"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    generated = found["cases"][4]["models"]
    assert generated[NAIVE]["tokens_per_second"] > 0 and generated[RMAT_NAME]["ratio"]["median"] == 1.0
    for case in found["cases"][1:3]:
        assert case["models"]["wavefront"]["tokens_per_second"] > 0
        assert case["models"][FASTEST] == {"reason": "needs a CUDA device"}
    printed = capsys.readouterr().out
    assert f"saved {out}" in printed and "tokens/s" in printed
    assert list(tmp_path.glob("unfinished-*")) == []


def test_a_part_of_a_trial(tmp_path, monkeypatch):
    monkeypatch.setenv("RMAT_HOME", str(tmp_path / "home"))
    written, write = [], bench.run.write
    monkeypatch.setattr(bench.run, "write", lambda file, result: written.append(file) or write(file, result))
    out = tmp_path / "found.json"
    assert main(["bench", "--quick", "--only", "generation", "--out", str(out)]) == 0
    assert [one["part"] for one in json.loads(out.read_text())["cases"]] == ["generation"]
    assert written == [tmp_path / "unfinished-quick-found.json", out] and list(tmp_path.glob("*.json")) == [out]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_part_can_be_asked_for(device):
    from rmat_tutorial.commands.bench import PARTS


    found = {one.part for one in plan.cases(torch.device(device), quick=False)}
    assert found == set(PARTS) - ({"tiles"} if device == "cpu" else set())


def test_where_a_result_lies(tmp_path, monkeypatch):
    from rmat_tutorial.commands import bench as command

    monkeypatch.setenv("RMAT_HOME", str(tmp_path))
    assert command.default_folder(quick=False).parts[-2:] == ("data", "benchmarks")
    assert command.default_folder(quick=True) == tmp_path / "benchmarks"
    monkeypatch.setattr("rmat_tutorial.folders.__file__", str(tmp_path / "site-packages" / "rmat" / "folders.py"))
    assert command.default_folder(quick=False) == tmp_path / "benchmarks"


@pytest.mark.parametrize("words, said", [
    (["--device", "tpu"], ["unknown device", "'tpu'"]),
    (["--device", "cuda:99"], ["cuda:99", "--device cpu"]),
    (["--threads", "2"], ["--threads must be 1", "2"]),
    (["--out", "."], ["--out", "must be a file"]),
    (["--only", "training", "tiles"], ["only", "'tiles'", "'generation'"]),
])
def test_wrong_words(capsys, words, said):
    assert main(["bench", "--quick", *words]) == 2
    assert_one_line(capsys.readouterr().err, *said)


def test_the_drift_of_the_stand_ins_is_not_in_their_ratios():
    assert len(set(ROUNDS)) == 3
    one = result("cpu")["cases"][0]["ratios"]["forward"]["sdpa"]["causal"]
    assert one["low"] == pytest.approx(one["high"])
