"""The command line: ``python -m rmat_tutorial train | evaluate | compare | doctor``."""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch

from . import comparison, folders
from .backprop import BACKPROPS, PRECISIONS
from .baselines import KINDS, matching
from .benchmark import BANKS, READ_TOKENS, AlteredBank, FreshEvery, costs, long_generation
from .checkpoints import read_info, shipped_checkpoints
from .config import CARRIES, GATES, PATHS, POOLS, ModelConfig, RMATConfig
from .corpora import SPLITS, Corpus
from .evaluation import EDGES, DocumentEvaluation, Evaluation, evaluate, evaluate_documents
from .installed_text import installed_corpus
from .language_model import LanguageModel
from .own_text import own_text
from .runs import RunFolder
from .tasks import TASKS, Source
from .training import TrainingStopped, TrainSettings, train

PROGRAM = "python -m rmat_tutorial"
SCORE_SEED = 1
SCORES = ((1, 512), (64, 64))  # length, in longest streams of training, and number of the streams that are scored
MODEL_FIELDS = ("d_model", "n_heads", "n_layers", "segment_len", "chunk_size", "memory_slots", "write_slots")
MEMORY_FIELDS = ("gate", "carry", "pool", "gate_bias")
TASK_FIELDS = {name: tuple(field.name for field in fields(task)) for name, task in TASKS.items()}
TASK_OPTIONS = tuple(dict.fromkeys(name for names in TASK_FIELDS.values() for name in names))
SETTINGS_FIELDS = ("steps", "batch_size", "lr", "warmup", "max_segments", "restart", "gate_penalty", "backprop",
                   "backprop_segments", "precision", "seed")
IN_PLACE = ("documents", "costs", "generate")  # of a score of streams
DOCUMENT_FIELDS = ("split", "up_to", "fresh_every", "bank")


@dataclass(frozen=True)
class Recipe:
    """What ``train`` does when no option says otherwise: how the shipped checkpoint of that name was made,
    where there is one."""

    config: RMATConfig
    settings: TrainSettings


_TASK_RECIPE = Recipe(RMATConfig(write_slots=8, gate="hard"), TrainSettings())
RECIPES = {
    **dict.fromkeys(TASKS, _TASK_RECIPE),
    # A segment must hold the shortest story and its questions.
    "stories": Recipe(
        replace(_TASK_RECIPE.config, segment_len=64, chunk_size=16), replace(_TASK_RECIPE.settings, max_segments=8)
    ),
    "text": Recipe(
        RMATConfig(d_model=96, segment_len=64, chunk_size=16, gate="hard"),
        TrainSettings(steps=3000, batch_size=16, max_segments=8, grow_below=None, gate_penalty=0.0, warmup=200),
    ),
}


class UsageError(ValueError):
    """A command line that asks for something impossible; the message is one line for people."""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which takes no option for another that begins alike."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for a user's error, 130 when stopped."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options, arguments)
    except TrainingStopped as stop:
        again = [word for word in arguments if word != "--resume"]
        print(f"{stop}\nresume with: {command_line([*again, '--resume'])}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:
        # Torch says on its first line what it lacks (memory, for the most part), and then where in its own code.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"{PROGRAM} {options.command}: error: {reason}", file=sys.stderr)
        return 2
    return 130


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog=PROGRAM, description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train a model, with checkpoints and exact resumption"))
    _add_evaluate(commands.add_parser("evaluate", help="score a model on streams of any length"))
    _add_compare(commands.add_parser("compare", help="train the RMAT and its peers on text, and score them"))
    doctor = commands.add_parser("doctor", help="check that this machine is ready for the course")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(run=run_doctor)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=sorted(RECIPES))
    parser.add_argument("--file", type=Path, metavar="PATH",
                        help="text: train on the bytes of this file, or of the files in this folder")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/TASK in the course's own folder)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--checkpoint-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--no-scores", action="store_true", help="do not score the model when it is trained")
    _add_machine(parser)
    parser.add_argument("--seed", type=int, help="of weights, batches and dropout")
    training = parser.add_argument_group("training (default: as the shipped checkpoint, where there is one)")
    training.add_argument("--steps", type=int)
    training.add_argument("--batch-size", type=int)
    training.add_argument("--lr", type=float, help="highest learning rate")
    training.add_argument("--warmup", type=int, metavar="STEPS", help="in which the learning rate rises")
    training.add_argument("--max-segments", type=int, help="longest streams, in segments")
    training.add_argument("--restart", type=float, metavar="PROBABILITY",
                          help="text: of a row to begin anew in a step; otherwise it reads on with the state it had")
    training.add_argument("--gate-penalty", type=float, help="weight of the mean write gate in the loss")
    training.add_argument("--backprop", choices=BACKPROPS,
                          help="through the whole stream at once, the same by replay in the memory of one segment, "
                               "or truncated")
    training.add_argument("--backprop-segments", type=int, metavar="SEGMENTS",
                          help="with --backprop truncated: the gradient is cut every so many")
    training.add_argument("--precision", choices=PRECISIONS, help="of the products of matrices in the forward pass")
    model = parser.add_argument_group("model (default: as the shipped checkpoint, where there is one)")
    for name in MODEL_FIELDS:
        model.add_argument(option_of(name), type=int)
    model.add_argument("--baseline", choices=KINDS, help="train a model of this kind, of the size of the RMAT")
    model.add_argument("--paths", help=f"some of {','.join(PATHS)}, with commas between")
    model.add_argument("--gate", choices=GATES)
    model.add_argument("--carry", choices=CARRIES)
    model.add_argument("--pool", choices=POOLS)
    model.add_argument("--gate-bias", type=float, help="initial bias of the write gate; far above 0 it stays open")
    task = parser.add_argument_group("tasks: what their streams hold (text has none of these)")
    for name in TASK_OPTIONS:
        if name != "fact_span":
            task.add_argument(option_of(name), type=int, help=tasks_with(name))
    task.add_argument("--fact-span", type=float, nargs=2, metavar=("START", "STOP"),
                      help="all tasks: the part of the stream in which facts lie, as fractions, such as 0 0.5")
    parser.set_defaults(run=run_train)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME_OR_PATH", help="a shipped model, a checkpoint file, or a run's folder")
    parser.add_argument("--file", type=Path, metavar="PATH",
                        help="text: score on this file or folder; on its test part, if it was trained on")
    parser.add_argument("--documents", action="store_true", default=None,
                        help="text: score by position in the document, in place of random streams")
    by_document = parser.add_argument_group("with --documents")
    by_document.add_argument("--split", choices=SPLITS,
                             help="of the text that the model was trained on (default: test)")
    by_document.add_argument("--up-to", type=int, metavar="POSITION", help=f"read no further (default: {EDGES[-1]})")
    by_document.add_argument("--fresh-every", type=int, metavar="TOKENS", help="forget everything after so many tokens")
    by_document.add_argument("--bank", choices=tuple(BANKS), help="read each segment with such a bank, not its own")
    parser.add_argument("--costs", action="store_true", default=None,
                        help="text: measure speed and memory in training and in generation, in place of a score")
    parser.add_argument("--read", type=int, nargs="+", metavar="TOKENS",
                        help="with --costs: read so many before generating "
                             f"(default: {' '.join(map(str, READ_TOKENS))})")
    parser.add_argument("--generate", type=int, metavar="TOKENS",
                        help="text: measure speed and memory while so many are generated, in place of a score")
    parser.add_argument("--tokens", type=int, default=4096, help="length of each stream (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=64, help="number of streams (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the streams (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    _add_machine(parser)
    parser.set_defaults(run=run_evaluate)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="a trial: one seed, few steps, no tuning")
    parser.add_argument("--file", type=Path, metavar="PATH", help="the text (default: the installed one)")
    parser.add_argument("--out", type=Path,
                        help="folder of all runs and scores; what it holds is not made again (default: "
                             "runs/comparison, or runs/comparison-quick, in the course's own folder)")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default: %(default)s)")
    parser.set_defaults(run=run_compare)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; results are exact for one number of them")


# train


def run_train(options: argparse.Namespace, arguments: list[str]) -> int:
    device = prepare_machine(options)
    folder = RunFolder(options.out or folders.home() / "runs" / options.task)
    source, held_out = training_sources(options, folder.path)
    config, settings = run_settings(options, source.vocab_size)

    model = train(config, source, settings, folder.path, resume=options.resume, device=device,
                  checkpoint_every=options.checkpoint_every)
    scores = []
    for times, sequences in () if options.no_scores else SCORES:
        tokens = times * settings.max_segments * config.segment_len
        if options.task == "text":
            tokens = min(tokens, len(held_out) - 1)
        scores.append(evaluate(model, held_out, tokens, sequences, SCORE_SEED))
        print(describe_score(scores[-1]))
    report = run_report(arguments, settings, device, folder, scores, options.file)
    folders.write_whole(folder.report, (json.dumps(report, indent=2) + "\n").encode())
    print(f"saved {folder.model} and {folder.report.name}")
    return 0


def run_settings(options: argparse.Namespace, vocab_size: int) -> tuple[ModelConfig, TrainSettings]:
    """The recipe of the task with what the options change; a baseline matches the RMAT of the same options."""
    recipe = RECIPES[options.task]
    config = replace(recipe.config, vocab_size=vocab_size, **given(options, (*MODEL_FIELDS, *MEMORY_FIELDS)))
    if options.paths is not None:
        config = replace(config, paths=tuple(options.paths.split(",")))
    if options.baseline is not None:
        config = matching(config, options.baseline)
    return config, replace(recipe.settings, **given(options, SETTINGS_FIELDS))


def training_sources(options: argparse.Namespace, out: Path) -> tuple[Source, Source]:
    """The task or the text that the options ask for, and what its model is scored on."""
    own = TASK_FIELDS.get(options.task, ())
    for name in given(options, [name for name in TASK_OPTIONS if name not in own]):
        raise UsageError(f"{option_of(name)} is for train {tasks_with(name)}")
    if options.task in TASKS:
        if options.file is not None:
            raise UsageError(f"--file is for train text; {options.task} makes its own streams")
        task = TASKS[options.task](**given(options, own))
        return task, task
    text = text_of(options.file)
    if options.file is not None and lies_in(out, options.file):
        raise UsageError(f"--out {out} must lie outside of --file {options.file}, or the run changes its own text")
    held_out = text("test")
    if len(held_out) < 2:
        raise UsageError(f"{options.file} is too short: its test part, a twentieth, must have at least 2 bytes")
    return text("train"), held_out


def lies_in(out: Path, folder: Path) -> bool:
    """Whether ``out`` would be read as a part of ``folder``; what is hidden would not."""
    out, folder = out.resolve(), folder.resolve()
    return out.is_relative_to(folder) and not any(part.startswith(".") for part in out.relative_to(folder).parts)


def text_of(path: Path | None) -> Callable[[str], Corpus]:
    """What gives a split of the installed text, or of a file or folder of the user's."""
    if path is None:
        return installed_corpus
    text = own_text(path)
    for note in text.notes:
        print(f"note: {text.name}: {note}", file=sys.stderr)
    return text.corpus


def option_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def tasks_with(name: str) -> str:
    """The tasks that have a field of this name."""
    return ", ".join(task for task, names in TASK_FIELDS.items() if name in names)


def given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """The options among ``names`` that were given."""
    found = {name: getattr(options, name) for name in names}
    return {name: tuple(value) if isinstance(value, list) else value
            for name, value in found.items() if value is not None}


def run_report(
    arguments: list[str], settings: TrainSettings, device: torch.device, folder: RunFolder, scores: list[Evaluation],
    file: Path | None,
) -> dict[str, Any]:
    """How a checkpoint was made and what it scores, for ``run.json``."""
    return {
        "command": command_line([word for word in arguments if word != "--resume"]),
        "seed": settings.seed,
        "settings": asdict(settings),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "training_seconds": round(folder.seconds(), 3),
        "scores": [{**score.to_dict(), "command": evaluate_command(folder, score, file)} for score in scores],
    }


def command_line(words: Sequence[object]) -> str:
    return f"{PROGRAM} {shlex.join(map(str, words))}"


def evaluate_command(folder: RunFolder, score: Evaluation, file: Path | None) -> str:
    """The command that gives this score again."""
    on_file = [] if file is None else ["--file", file]
    return command_line(["evaluate", folder.path, *on_file, "--tokens", score.tokens, "--sequences", score.sequences,
                         "--seed", score.seed, "--json"])


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": version("torch"), "numpy": version("numpy")}


def device_name(device: torch.device) -> str:
    """What the machine calls its processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# evaluate


def run_evaluate(options: argparse.Namespace, arguments: list[str]) -> int:
    device = prepare_machine(options)
    if not options.documents and (foreign := given(options, DOCUMENT_FIELDS)):
        raise UsageError(f"{option_of(next(iter(foreign)))} needs --documents")
    if options.read is not None and not options.costs:
        raise UsageError("--read needs --costs")
    asked = list(given(options, IN_PLACE))
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]} are two things to measure: give one")
    path = options.model
    if path not in shipped_checkpoints() and Path(path).is_dir():
        path = RunFolder(Path(path)).model
    source = evaluation_source(read_info(path)["extra"].get("task"), options)
    model = LanguageModel.from_checkpoint(path, device)
    if asked and not options.documents:
        print(json.dumps({**measured(model, source, device, options), "model": options.model,
                          "device": device_name(device)}))
        return 0
    if options.documents:
        score = evaluate_documents(altered(model, options), source, edges_up_to(options.up_to))
        print(describe_documents(score))
    else:
        score = evaluate(model, source, options.tokens, options.sequences, options.seed)
        print(describe_score(score))
    if options.json:
        print(json.dumps({**score.to_dict(), "model": options.model, "device": device_name(device)}))
    return 0


def evaluation_source(trained_on: dict[str, Any] | None, options: argparse.Namespace) -> Source:
    """What to score a checkpoint on: its task, or text that it was not trained on."""
    match trained_on:
        case {"kind": kind, **task} if kind in TASKS:
            for name in given(options, ("file", *IN_PLACE)):
                raise UsageError(f"--{name} is for text models; {options.model} was trained on {kind}")
            return TASKS[kind](**task)
        case {"kind": "text", "fingerprint": fingerprint}:
            text = text_of(options.file)
            if options.file is None or text("all").fingerprint == fingerprint:
                return text(options.split or "test")
            if options.split is not None:
                raise UsageError(f"--split is of the text that {options.model} was trained on; --file has another")
            return text("all")
    raise UsageError(f"{options.model} does not say what it was trained on; evaluate a model that train has saved")


def altered(model: LanguageModel, options: argparse.Namespace) -> LanguageModel | FreshEvery | AlteredBank:
    """The model, or it with the past that the options ask for."""
    if options.bank is not None and options.fresh_every is not None:
        raise UsageError("--bank and --fresh-every are two ways to alter the past: give one")
    if options.bank is not None:
        return AlteredBank(model, options.bank)
    return model if options.fresh_every is None else FreshEvery(model, options.fresh_every)


def edges_up_to(position: int | None) -> tuple[int, ...]:
    """``EDGES``, or those before ``position`` and itself."""
    return EDGES if position is None else (*(edge for edge in EDGES if edge < position), position)


def measured(
    model: LanguageModel, source: Source, device: torch.device, options: argparse.Namespace
) -> dict[str, Any]:
    """Costs, or those of a long generation."""
    if device.type != "cpu":
        name = "costs" if options.costs else "generate"
        raise UsageError(f"--{name} measures processor time: use --device cpu, got {device}")
    if options.costs:
        return {"costs": costs(model, source, RECIPES["text"].settings, options.read or READ_TOKENS)}
    return {"generation": long_generation(model, options.generate)}


def describe_score(score: Evaluation) -> str:
    name = score.metric.replace("_", " ")
    lines = [f"{describe_source(score.source)}: {name} {score.value:.4f} over {score.positions} positions "
             f"({score.sequences} streams of {score.tokens} tokens, seed {score.seed})"]
    lines += [f"  fact {part['above']} to {part['to']} tokens back: {part['accuracy']:.4f} of {part['answers']}"
              for part in score.by_distance]
    return "\n".join(lines)


def describe_documents(score: DocumentEvaluation) -> str:
    """A table: a row for each group of documents, a column for each bin of position."""
    rows: list[list[object]] = [["", "documents", *(f"{low}–" for low in score.edges[:-1])]]
    for group in score.groups:
        found = {part["from"]: f"{part['bits_per_byte']:.4f}" for part in group["bins"]}
        rows.append([f"at least {group['at_least']} bytes", group["documents"],
                     *(found.get(low, "") for low in score.edges[:-1])])
    lines = [f"{row[0]:>22}{row[1]:>12}{''.join(f'{cell:>8}' for cell in row[2:])}".rstrip() for row in rows]
    return "\n".join([f"{describe_source(score.source)}: bits per byte by position in the document", *lines])


def describe_source(source: dict[str, Any]) -> str:
    return f"{source['name']}, {source['split']} split" if source["kind"] == "text" else source["kind"]


# compare


def run_compare(options: argparse.Namespace, arguments: list[str]) -> int:
    plan = comparison.QUICK if options.quick else comparison.FULL
    file = None if options.file is None else str(options.file.resolve())
    out = options.out or folders.home() / "runs" / ("comparison-quick" if options.quick else "comparison")
    if options.file is not None and lies_in(out, options.file):
        raise UsageError(f"--out {out} must lie outside of --file {options.file}, or the runs change their own text")
    machine = {"command": command_line(arguments), "device": device_name(torch.device("cpu")), "threads": 1,
               "versions": versions()}
    try:
        result = comparison.compare(replace(plan, file=file), out, options.jobs, machine)
    except KeyboardInterrupt:
        print(f"go on with: {command_line(arguments)}", file=sys.stderr)
        raise
    print(comparison.describe(result))
    print(f"saved {out / 'comparison.json'}")
    return 2 if result["failures"] else 0


# doctor


def run_doctor(options: argparse.Namespace, arguments: list[str]) -> int:
    from . import doctor  # it must run where the rest of the package cannot be imported

    return doctor.main(options.json)


def prepare_machine(options: argparse.Namespace) -> torch.device:
    """The device that the options name, after a check that it is there; sets the number of threads."""
    if options.threads < 1:
        raise UsageError(f"--threads must be at least 1, got {options.threads}")
    torch.set_num_threads(options.threads)
    try:
        device = torch.device(options.device)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"unknown device {options.device!r}; use cpu, cuda, cuda:1 or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"device {options.device} is not there: torch {torch.__version__} sees {torch.cuda.device_count()} "
            "CUDA devices; use --device cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device mps is not there; use --device cpu")
    return device
