"""Results of the benchmark as it writes them, made up: what the tests of its claims and its tables read."""

from typing import Any

from rmat_tutorial.bench.attention import DIRECTIONS, FLOOR, METHODS, costs, ratios
from rmat_tutorial.bench.models import FULL, NAIVE, PACKAGE, RMAT_NAME
from rmat_tutorial.bench.plan import CPU, CUDA, READING, TRAINING, Plan
from rmat_tutorial.bench.recurrence import FASTEST, PLAIN

ROUNDS = (1.0, 1.1, 0.9)  # how the machine drifts


def attention_case(name: str, plan: Plan, seconds: dict[str, float], peaks: dict[str, int]) -> dict[str, Any]:
    """Methods that take so long forward, and three times as long with the backward; the others cannot run."""
    shape = plan.shapes[name]
    methods = {}
    for method in METHODS:
        methods[method] = {"cost": costs(FLOOR, shape, plan.dtype) if method == FLOOR else None}
        for times, direction in zip((1, 3), DIRECTIONS, strict=True):
            methods[method][direction] = {"reason": "needs a CUDA device"} if method not in seconds else {
                "seconds": [times * drift * seconds[method] for drift in ROUNDS], "peak_bytes": peaks.get(method, 0),
            }
    return {
        "part": "attention", "name": name, "shape": shape._asdict(), "dtype": str(plan.dtype).removeprefix("torch."),
        "methods": methods, "ceilings": {"flops_per_second": 9e14, "bytes_per_second": 3e12},
        "ratios": {way: ratios({method: one[way] for method, one in methods.items()}) for way in DIRECTIONS},
    }


def models_case(part: str, name: str, tokens: int, seconds: dict[str, float]) -> dict[str, Any]:
    models: dict[str, Any] = {
        model: {"parameters": 1000, "seconds": [drift * time for drift in ROUNDS], "tokens_per_second": 1 / time}
        for model, time in seconds.items()
    }
    models[PACKAGE] = {"reason": "not installed: pip install it"}
    return {"part": part, "name": name, "tokens": tokens, "models": models}


def result(kind: str, changes: dict[tuple[str, str], float] | None = None) -> dict[str, Any]:
    """A result in which every bar is met, but for times that ``changes`` says: by case and method."""
    changes = changes or {}
    cases = []
    of_cuda = {"triton": 1.1, FLOOR: 1.0, "sdpa": 2.5, "flex": 2.0, "eager": 9.0}
    of_cpu = {"eager": 7.5, "sdpa": 1.1, FLOOR: 1.0}
    plan, times = (CUDA, of_cuda) if kind == "cuda" else (CPU, of_cpu)
    for name in plan.shapes:
        own = {method: changes.get((name, method), time) for method, time in times.items()}
        cases.append(attention_case(name, plan, own, {"triton": changes.get((name, "peak"), 0)}))
    for name in (READING, TRAINING):
        own = {PLAIN: 3.5, FASTEST: changes.get((name, FASTEST), 1.0)}
        cases.append(models_case("recurrence", name, 4096, own))
    for tokens in (1024, 4096):
        own = {RMAT_NAME: changes.get((f"T = {tokens}", RMAT_NAME), 1.0), NAIVE: 5.0, FULL: 2.0}
        cases.append(models_case("generation", f"T = {tokens}", tokens, own))
    return {"part": "benchmark", "kind": kind, "device": "a processor", "quick": False, "cases": cases, "claims": [],
            "failures": []}
