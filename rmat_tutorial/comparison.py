"""The comparison of the RMAT with its peers on real text: what is trained and scored, and the table of it.

All models have the same parameters within 2 % (``baselines.matching``), and are tuned with the same effort: the first
seed is trained at each of the same learning rates, and the one that is best on the validation split is used for all
seeds. A shorter training would be cheaper to tune and would prefer higher rates. Every row of
a batch begins anew in each step, at a random place and from a fresh state, because that is the one way of reading in
which all models see the same bytes in the same order: full attention cannot read on for ever, its cache would grow with
each step. Of this the models that hand on what they have written pay the price: they learn to carry it for 512 tokens
and are scored on far longer documents. So each of them is trained a second time, as an entry of its own (``READS_ON``):
its rows read on with the state that they have, and begin anew with the same probability in each step. The learning rate
is that of the first.

Every training and every score is a command of the course's own, run as a process with one thread in the comparison's
folder. What has been done is not done again, so the same command goes on where an earlier one was stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from .baselines import KINDS
from .benchmark import READ_TOKENS
from .jobs import SCORE_WEIGHT, Desk, Scoring, Training, open_desk

RMAT_KIND = "rmat"
READS_ON = (RMAT_KIND, "rmt")  # those that hand on what they have written
RANGES = (("0–512", 0, 512), ("512–4096", 512, 4096), ("4096 on", 4096, None))  # positions, for the printed table


class Entry(NamedTuple):
    """A line of the comparison: a kind of model, and how it is trained."""

    name: str
    kind: str
    restart: float


@dataclass(frozen=True)
class Plan:
    """What is trained and scored.

    Attributes:
        seeds: each gives a run of every entry.
        steps: of each training; a tenth of them warm up.
        batch_size: rows of a batch; each has ``max_segments`` segments.
        rates: learning rates that are tried, with the first seed; a single one is taken untried.
        tuning_up_to: how far documents are read in the tuning; not beyond what a model has seen at once in training,
            where full attention fails at any learning rate.
        up_to: how far documents are read in the scores.
        restart: probability with which a row begins anew, in the entries that read on.
        read_tokens: how many bytes are read before the costs of generation are measured.
        cost_rounds: how often costs are measured.
        generated: bytes of a long generation of the RMAT.
        segment_len, max_segments: of the recipe; full attention is also scored with no more past than in training.
        words: further words of each ``train text`` command.
        file: the text, in place of the installed one.
        quick: whether this is a trial, whose numbers mean little.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 800
    batch_size: int = 8
    rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3)
    tuning_up_to: int = 512
    up_to: int = 32768
    read_tokens: tuple[int, ...] = READ_TOKENS
    cost_rounds: int = 3
    generated: int = 100_000
    restart: float = 0.125
    segment_len: int = 64
    max_segments: int = 8
    words: tuple[str, ...] = ()
    file: str | None = None
    quick: bool = False

    def entries(self) -> list[Entry]:
        return [*(Entry(kind, kind, 1.0) for kind in (RMAT_KIND, *KINDS)),
                *(Entry(f"{kind}, reading on", kind, self.restart) for kind in READS_ON)]

    def training(self, entry: Entry, rate: float, seed: int) -> Training:
        """A training. Two that differ in kind and rate alone see the same batches."""
        name = f"{entry.name.replace(', ', '-').replace(' ', '-')}-{rate:g}-{seed}"
        baseline = () if entry.kind == RMAT_KIND else ("--baseline", entry.kind)
        words = ("train", "text", *baseline, "--lr", f"{rate:g}", "--steps", str(self.steps),
                 "--warmup", str(self.steps // 10), "--batch-size", str(self.batch_size),
                 "--restart", f"{entry.restart:g}", "--seed", str(seed), *self.words, *self._text(), "--no-scores",
                 "--out", name)
        return Training(name, words, self.steps)

    def score_words(self, run: str, *options: str) -> tuple[str, ...]:
        return ("evaluate", run, *options, *self._text(), "--json")

    def variants(self, kind: str, seed: int) -> dict[str, tuple[str, ...]]:
        """How a trained model is read, by name, each with what it adds to the command.

        Full attention with all it has read takes a quarter of an hour for each seed, and fails beyond the length of
        training whatever the seed: the first has to do.
        """
        plain: dict[str, tuple[str, ...]] = {"carried": ()}
        if kind == RMAT_KIND:
            # A bank that is never written is the same as one that every segment finds at its start: "frozen" is both.
            return plain | {"frozen": ("--fresh-every", str(self.segment_len)), "zeroed": ("--bank", "zeroed"),
                            "shuffled": ("--bank", "shuffled")}
        if kind == "full":
            as_in_training = {"as in training": ("--fresh-every", str(self.segment_len * self.max_segments))}
            return plain | as_in_training if seed == self.seeds[0] else as_in_training
        return plain

    def _text(self) -> tuple[str, ...]:
        return () if self.file is None else ("--file", self.file)


FULL = Plan()
QUICK = Plan(
    seeds=(0,), steps=30, rates=(2e-3,), up_to=1024, read_tokens=(READ_TOKENS[0], 1024), cost_rounds=1,
    generated=2000, quick=True,
)


def compare(plan: Plan, folder: Path, jobs: int, machine: dict[str, Any], progress: bool = True) -> dict[str, Any]:
    """Train and score everything that ``plan`` asks for and ``folder`` lacks, and write ``comparison.json`` there.

    Args:
        jobs: processes side by side; costs are measured one at a time.
        machine: what the result says of the machine, such as ``device`` and ``versions``.

    Returns:
        What was written: ``machine``, the plan, for each entry its rate, runs, scores by seed and costs, a long
        generation of the RMAT, and ``failures``: the jobs that failed, each with the reason. What they would have given
        is left out.

    Raises:
        JobError, TypeError, ValueError: the folder holds another comparison, or an argument is out of range.
        OSError: the folder cannot be written.
        KeyboardInterrupt: it was stopped, and goes on when it is called again.
    """
    entries = plan.entries()
    kinds = {entry.kind: entry for entry in entries if entry.name == entry.kind}
    tried = len(kinds) * len(plan.rates) if len(plan.rates) > 1 else 0
    scores = sum(len(plan.variants(entry.kind, seed)) for entry in entries for seed in plan.seeds)
    alone = len(kinds) * plan.cost_rounds + 1  # costs, and the long generation
    total = (tried * (plan.steps + SCORE_WEIGHT) + alone * SCORE_WEIGHT
             + len(plan.seeds) * len(entries) * plan.steps + scores * SCORE_WEIGHT)
    with open_desk(folder, jobs, total, "comparing", progress) as desk:
        tuning = tune(plan, list(kinds.values()), desk)
        rates = {kind: best_rate(plan, tuning[kind]) for kind in kinds}
        found = _runs(plan, entries, rates, desk)
        first = {kind: plan.training(entry, rates[kind], plan.seeds[0]) for kind, entry in kinds.items() if rates[kind]}
        first = {kind: training for kind, training in first.items() if desk.result(training)}
        costs = _costs(plan, first, desk)
        generation = _long_generation(plan, first.get(RMAT_KIND), desk)
        models = {
            entry.name: {"kind": entry.kind, "restart": entry.restart, "lr": rates[entry.kind],
                         "tuning": tuning[entry.kind], **found[entry.name], "costs": costs.get(entry.kind)}
            for entry in entries
        }
        result = {**machine, "plan": asdict(plan), "models": models, "long_generation": generation}
        return desk.write("comparison.json", result)


def tune(plan: Plan, entries: Sequence[Entry], desk: Desk) -> dict[str, list[dict[str, Any]]]:
    """For each kind the score on the validation split at each learning rate; empty where there is nothing to try."""
    tried = [(entry.kind, rate, plan.training(entry, rate, plan.seeds[0])) for entry in entries for rate in plan.rates]
    if len(plan.rates) == 1:
        tried = []
    trained = desk.do(training for _, _, training in tried)
    options = ("--documents", "--split", "validation", "--up-to", str(plan.tuning_up_to))
    scorings = {
        training: Scoring(f"{training.name}-validation", plan.score_words(training.name, *options))
        for training in trained
    }
    scores = desk.do(scorings.values())
    found: dict[str, list[dict[str, Any]]] = {entry.kind: [] for entry in entries}
    for kind, rate, training in tried:
        if (scoring := scorings.get(training)) in scores:
            value = bits_per_byte(scores[scoring]["groups"][0])
            found[kind].append({"lr": rate, "bits_per_byte": value, "command": training.command,
                                "score_command": scoring.command})
    return found


def best_rate(plan: Plan, tried: Sequence[dict[str, Any]]) -> float | None:
    """The learning rate with the least bits per byte; ``None`` when every one that was to be tried failed."""
    if len(plan.rates) == 1:
        return plan.rates[0]
    return min(tried, key=lambda one: one["bits_per_byte"])["lr"] if tried else None


def _runs(
    plan: Plan, entries: Sequence[Entry], rates: dict[str, float | None], desk: Desk
) -> dict[str, dict[str, Any]]:
    """For each entry its ``runs``, one a seed, and its ``scores``, by variant and seed."""
    trainings = {
        (entry, seed): plan.training(entry, rate, seed)
        for seed in plan.seeds for entry in entries if (rate := rates[entry.kind]) is not None
    }
    reports = desk.do(trainings.values())
    scorings = {
        (entry, variant, seed): Scoring(
            f"{training.name}-{variant.replace(' ', '-')}",
            plan.score_words(training.name, "--documents", "--up-to", str(plan.up_to), *options),
        )
        for (entry, seed), training in trainings.items() if training in reports
        for variant, options in plan.variants(entry.kind, seed).items()
    }
    scores = desk.do(scorings.values())
    found: dict[str, dict[str, Any]] = {entry.name: {"runs": [], "scores": {}} for entry in entries}
    for (entry, seed), training in trainings.items():
        if training in reports:
            found[entry.name]["runs"].append({"seed": seed, "command": training.command,
                                              "training_seconds": reports[training]["training_seconds"]})
    for (entry, variant, seed), scoring in scorings.items():
        if scoring in scores:
            score = {name: value for name, value in scores[scoring].items() if name not in ("model", "device")}
            found[entry.name]["scores"].setdefault(variant, []).append(
                {"seed": seed, "bits_per_byte": bits_per_byte(score["groups"][0]), **score, "command": scoring.command}
            )
    return found


def _costs(plan: Plan, first: dict[str, Training], desk: Desk) -> dict[str, dict[str, Any]]:
    """What each kind costs, alone on the machine, and ``ratio``: each cost over that of the RMAT, where it is known.

    All kinds are measured in turn, ``cost_rounds`` times, because a machine is not always as fast. A cost is the median
    over the rounds, a ratio the median of the ratios within a round.
    """
    read = () if plan.read_tokens == READ_TOKENS else ("--read", *map(str, plan.read_tokens))
    jobs = {
        kind: [Scoring(f"costs-{kind}-{turn}", plan.score_words(run.name, "--costs", *read))
               for turn in range(plan.cost_rounds)]
        for kind, run in first.items()
    }
    done = desk.do((job for turn in zip(*jobs.values(), strict=True) for job in turn), side_by_side=1)
    rounds = {kind: [done[job]["costs"] for job in some] for kind, some in jobs.items()
              if all(job in done for job in some)}
    found = {}
    for kind, measured in rounds.items():
        over = [ratios(cost, reference) for cost, reference in zip(measured, rounds.get(RMAT_KIND, ()), strict=False)]
        found[kind] = {**medians(measured), "rounds": plan.cost_rounds, "command": jobs[kind][0].command,
                       "ratio": medians(over) if over else None}
    return found


def medians(rounds: Sequence[Any]) -> Any:
    """The median of each number in dicts and lists that are alike, of those that all have; ``None`` where one is."""
    if isinstance(rounds[0], dict):
        return {name: medians([one[name] for one in rounds]) for name in rounds[0]
                if all(name in one for one in rounds)}
    if isinstance(rounds[0], list):
        return [medians(some) for some in zip(*rounds, strict=True)]
    return None if None in rounds else median(rounds)


def _long_generation(plan: Plan, run: Training | None, desk: Desk) -> dict[str, Any] | None:
    """The parts of a long generation of an RMAT, alone on the machine; ``None`` when there is none."""
    if run is None:
        return None
    job = Scoring("long-generation", plan.score_words(run.name, "--generate", str(plan.generated)))
    done = desk.do([job], side_by_side=1)
    return {"parts": done[job]["generation"], "command": job.command} if job in done else None


def ratios(cost: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """Every number of ``cost`` over the same of ``reference``, for those that both have; what was read is no cost."""
    found: dict[str, Any] = {}
    for name, value in cost.items():
        other = reference.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            found[name] = ratios(value, other)
        elif isinstance(value, list) and isinstance(other, list):
            found[name] = [{"read": one["read"], **ratios(one, two)} for one, two in zip(value, other, strict=True)]
        elif name != "read" and isinstance(value, (int, float)) and other:
            found[name] = value / other
    return found


def bits_per_byte(group: dict[str, Any], low: int = 0, high: int | None = None) -> float | None:
    """The mean over the bytes of a group's bins that lie in ``low <= position < high``; ``None`` without any."""
    bins = [part for part in group["bins"] if part["from"] >= low and (high is None or part["below"] <= high)]
    count = sum(part["bytes"] for part in bins)
    return sum(part["bytes"] * part["bits_per_byte"] for part in bins) / count if count else None


# The table.


def describe(result: dict[str, Any], without: Collection[str] = ()) -> str:
    """Two tables: bits per byte, mean and range over seeds; and costs over those of the RMAT.

    The first column of scores is of all documents; those by position are of the longest ones, the same in each.

    Args:
        without: variants whose rows are left out.
    """
    lines = []
    rows = [["bits per byte", "all", *(name for name, _, _ in RANGES)]]
    for name, model in result["models"].items():
        for variant, scores in model["scores"].items():
            if variant in without:
                continue
            label = name if variant == "carried" else f"  {variant}"
            rows.append([label, _spread([score["bits_per_byte"] for score in scores]),
                         *(_spread([bits_per_byte(score["groups"][-1], low, high) for score in scores])
                           for _, low, high in RANGES)])
    lines += [f"{row[0]:24}" + "".join(f"{cell:>20}" for cell in row[1:]) for row in rows]
    lines.append("")
    lines += [f"{row[0]:24}" + "".join(f"{cell:>16}" for cell in row[1:]) for row in _cost_rows(result)]
    lines += [f"failed: {failure['job']}: {failure['reason']}" for failure in result["failures"]]
    return "\n".join(lines)


def _cost_rows(result: dict[str, Any]) -> list[list[str]]:
    """A row for each kind whose costs are known, below a heading; none without any."""
    rows: list[list[str]] = []
    for model in {model["kind"]: model for model in result["models"].values()}.values():
        if (costs := model["costs"]) and (ratio := costs["ratio"]):
            early, *_, late = ratio["generation"]
            if not rows:
                rows = [["over those of the RMAT", "training speed", "training peak", f"speed at {early['read']:,}",
                         f"speed at {late['read']:,}", f"state at {early['read']:,}",
                         f"state at {late['read']:,}"]]
            rows.append([model["kind"], *(_ratio(value) for value in (
                ratio["training"].get("tokens_per_second"), ratio["training"].get("peak_bytes"),
                early.get("tokens_per_second"), late.get("tokens_per_second"),
                early.get("state_bytes"), late.get("state_bytes")))])
    return rows


def _spread(values: Sequence[float | None]) -> str:
    """The mean, and in brackets the least and the most."""
    found = [value for value in values if value is not None]
    if not found:
        return "–"
    return f"{mean(found):.3f} ({min(found):.3f}–{max(found):.3f})" if len(found) > 1 else f"{found[0]:.3f}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
