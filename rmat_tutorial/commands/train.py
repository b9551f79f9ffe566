"""``train``: a model of a task or of text, with checkpoints, and scores when it is trained."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch

from .. import folders
from ..backprop import BACKPROPS, PRECISIONS
from ..baselines import KINDS, matching
from ..config import CARRIES, GATES, PATHS, POOLS, ModelConfig
from ..evaluation import Evaluation, evaluate
from ..jobs import command_line
from ..model import ORDERS
from ..recipes import RECIPES
from ..runs import RunFolder
from ..tasks import TASKS, Source
from ..training import TrainSettings, train
from .evaluate import describe_score
from .machine import add_machine, describe_machine, prepare_machine
from .options import UsageError, given, lies_in, option_of, text_of
from .task_options import add_task_options, task_fields

SCORE_SEED = 1
SCORES = ((1, 512), (64, 64))  # length, in longest streams of training, and number of the streams that are scored
MODEL_FIELDS = ("d_model", "n_heads", "n_layers", "segment_len", "chunk_size", "memory_slots", "write_slots")
MEMORY_FIELDS = ("gate", "carry", "pool", "gate_bias")
SETTINGS_FIELDS = ("steps", "batch_size", "lr", "warmup", "max_segments", "grow_below", "restart", "ragged",
                   "vary_facts", "gate_penalty", "gate_penalty_from", "gate_margin", "backprop", "backprop_segments",
                   "precision", "seed")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=sorted(RECIPES))
    parser.add_argument("--file", type=Path, metavar="PATH",
                        help="text: train on the bytes of this file, or of the files in this folder")
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/TASK in the course's own folder)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument("--checkpoint-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--no-scores", action="store_true", help="do not score the model when it is trained")
    add_machine(parser)
    parser.add_argument("--compile", action="store_true", help="fuse the work on a segment with torch.compile")
    parser.add_argument("--order", choices=ORDERS, default="segments",
                        help="wavefront: all layers at once, each a segment behind the one below")
    parser.add_argument("--graphs", action="store_true", help="CUDA: replay each step as one graph")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, help="of weights, batches and dropout")
    seeds.add_argument("--seeds", type=int, nargs="+", metavar="SEED",
                       help="a training for each, in folders of --out; then the mean of their scores, and the lowest "
                            "and the highest")
    training = parser.add_argument_group("training (default: as the shipped checkpoint, where there is one)")
    training.add_argument("--steps", type=int)
    training.add_argument("--batch-size", type=int)
    training.add_argument("--lr", type=float, help="highest learning rate")
    training.add_argument("--warmup", type=int, metavar="STEPS", help="in which the learning rate rises")
    training.add_argument("--max-segments", type=int, help="longest streams, in segments")
    curriculum = training.add_mutually_exclusive_group()
    curriculum.add_argument("--grow-below", type=float, metavar="LOSS",
                            help="streams grow longer when the running mean of the loss is below")
    curriculum.add_argument("--no-curriculum", action="store_true",
                            help="streams have --max-segments segments from the start")
    training.add_argument("--ragged", action="store_true", default=None,
                          help="streams of more than one segment end anywhere in their last one")
    training.add_argument("--vary-facts", action="store_true", default=None,
                          help="recall, rewrite, stories: each step draws how many facts its streams have, up to "
                               "--facts, --writes or --moves")
    training.add_argument("--restart", type=float, metavar="PROBABILITY",
                          help="of a row (of tasks: of the batch) to begin anew in a step; otherwise it reads on with "
                               "the state it had")
    training.add_argument("--gate-penalty", type=float, help="weight of the mean write gate in the loss")
    training.add_argument("--gate-penalty-from", type=int, metavar="STEP", help="the penalty begins with this step")
    training.add_argument("--gate-margin", type=float, metavar="SCORE",
                          help="added to the scores of the gates in the penalty: a shut gate must be shut by so much")
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
    add_task_options(parser, "tasks: what their streams hold (text has none of these)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    device = prepare_machine(options)
    out = options.out or folders.home() / "runs" / options.task
    if options.seeds is None:
        train_once(options, arguments, device, RunFolder(out), options.resume)
    else:
        print_spread(train_each_seed(options, arguments, device, out))
    return 0


def train_each_seed(
    options: argparse.Namespace, arguments: list[str], device: torch.device, out: Path
) -> list[dict[str, Any]]:
    """A training for each of the seeds; with ``--resume`` only what is missing. What ``run.json`` says of each."""
    if len(set(options.seeds)) < len(options.seeds):
        raise UsageError(f"--seeds must differ from each other, got {' '.join(map(str, options.seeds))}")
    reports = []
    for seed in options.seeds:
        folder = RunFolder(out / f"seed-{seed}")
        if not (options.resume and folder.report.is_file()):
            of_the_seed = argparse.Namespace(**vars(options) | {"seed": seed})
            train_once(of_the_seed, arguments, device, folder, options.resume and folder.state.is_file())
        reports.append(json.loads(folder.report.read_text()))
    return reports


def print_spread(reports: list[dict[str, Any]]) -> None:
    """For each length that was scored, the scores of all seeds in a line."""
    for scores in zip(*(report["scores"] for report in reports), strict=True):
        metric = next(iter(scores[0]))
        values = [score[metric] for score in scores]
        print(f"{metric.replace('_', ' ')} at {scores[0]['tokens']} tokens, {len(values)} seeds: "
              f"mean {mean(values):.4f}, lowest {min(values):.4f}, highest {max(values):.4f}")


def train_once(
    options: argparse.Namespace, arguments: list[str], device: torch.device, folder: RunFolder, resume: bool
) -> None:
    """Train in ``folder``, and score."""
    source, held_out = training_sources(options, folder.path)
    config, settings = run_settings(options, source.vocab_size)

    model = train(config, source, settings, folder.path, resume=resume, device=device,
                  compiled=options.compile, order=options.order, graphs=options.graphs,
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


def run_settings(options: argparse.Namespace, vocab_size: int) -> tuple[ModelConfig, TrainSettings]:
    """The recipe of the task with what the options change; a baseline matches the RMAT of the same options."""
    recipe = RECIPES[options.task]
    config = replace(recipe.config, vocab_size=vocab_size, **given(options, (*MODEL_FIELDS, *MEMORY_FIELDS)))
    if options.paths is not None:
        config = replace(config, paths=tuple(options.paths.split(",")))
    if options.baseline is not None:
        config = matching(config, options.baseline)
    settings = replace(recipe.settings, **given(options, SETTINGS_FIELDS))
    return config, replace(settings, grow_below=None) if options.no_curriculum else settings


def training_sources(options: argparse.Namespace, out: Path) -> tuple[Source, Source]:
    """The task or the text that the options ask for, and what its model is scored on."""
    own = task_fields(options.task, options)
    if options.task in TASKS:
        if options.file is not None:
            raise UsageError(f"--file is for train text; {options.task} makes its own streams")
        task = TASKS[options.task](**own)
        return task, task
    text = text_of(options.file)
    if options.file is not None and lies_in(out, options.file):
        raise UsageError(f"--out {out} must lie outside of --file {options.file}, or the run changes its own text")
    held_out = text("test")
    if len(held_out) < 2:
        raise UsageError(f"{options.file} is too short: its test part, a twentieth, must have at least 2 bytes")
    return text("train"), held_out


def run_report(
    arguments: list[str], settings: TrainSettings, device: torch.device, folder: RunFolder, scores: list[Evaluation],
    file: Path | None,
) -> dict[str, Any]:
    """How a checkpoint was made and what it scores, for ``run.json``."""
    return {
        "command": command_line([word for word in arguments if word != "--resume"]),
        "seed": settings.seed,
        "settings": asdict(settings),
        **describe_machine(device, torch.get_num_threads()),
        "training_seconds": round(folder.seconds(), 3),
        "tokens_per_second": tokens_per_second(folder, settings.batch_size),
        "scores": [{**score.to_dict(), "command": evaluate_command(folder, score, file)} for score in scores],
    }


def tokens_per_second(folder: RunFolder, batch_size: int) -> float:
    """The median over the steps of the tokens that were read in a second."""
    return round(median(batch_size * line["tokens"] / line["seconds"] for line in folder.lines()), 1)


def evaluate_command(folder: RunFolder, score: Evaluation, file: Path | None) -> str:
    """The command that gives this score again."""
    on_file = [] if file is None else ["--file", file]
    return command_line(["evaluate", folder.path, *on_file, "--tokens", score.tokens, "--sequences", score.sequences,
                         "--seed", score.seed, "--json"])
