"""``evaluate``: the score of a model on streams or on documents, or what it costs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from ..asking import Asked, asked_after
from ..benchmark import (
    BANKS,
    READ_TOKENS,
    AlteredBank,
    FreshEvery,
    costs,
    long_generation,
    resident_bytes,
    with_gate,
)
from ..checkpoints import read_info, shipped_checkpoints
from ..config import GATES
from ..corpora import SPLITS
from ..evaluation import EDGES, DocumentEvaluation, Evaluation, evaluate, evaluate_documents
from ..graphs import GraphedModel
from ..language_model import LanguageModel
from ..model import ORDERS, RMAT
from ..recipes import RECIPES
from ..runs import RunFolder
from ..tasks import TASKS, Source
from .machine import add_machine, device_name, prepare_machine
from .options import UsageError, given, option_of, text_of
from .task_options import add_task_options, task_fields

Model = LanguageModel | FreshEvery | AlteredBank | GraphedModel
IN_PLACE = ("documents", "costs", "generate")  # of a score of streams
DOCUMENT_FIELDS = ("split", "up_to")
ALTERED_PAST = ("fresh_every", "bank")
ALTERATIONS = (*ALTERED_PAST, "gate")
WAYS = ("order", "graphs")
TOKENS = 4096  # of each stream, when nothing is said


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME_OR_PATH", help="a shipped model, a checkpoint file, or a run's folder")
    parser.add_argument("--file", type=Path, metavar="PATH",
                        help="text: score on this file or folder; on its test part, if it was trained on")
    parser.add_argument("--documents", action="store_true", default=None,
                        help="text: score by position in the document, in place of random streams")
    by_document = parser.add_argument_group("with --documents")
    by_document.add_argument("--split", choices=SPLITS,
                             help="of the text that the model was trained on (default: test)")
    by_document.add_argument("--up-to", type=int, metavar="POSITION", help=f"read no further (default: {EDGES[-1]})")
    parser.add_argument("--fresh-every", type=int, metavar="TOKENS", help="forget everything after so many tokens")
    parser.add_argument("--bank", choices=tuple(BANKS), help="read each segment with such a bank, not its own")
    parser.add_argument("--gate", choices=GATES, help="read with such gates, whatever the model was trained with")
    parser.add_argument("--costs", action="store_true", default=None,
                        help="text: measure speed and memory in training and in generation, in place of a score")
    parser.add_argument("--read", type=int, nargs="+", metavar="TOKENS",
                        help="with --costs: read so many before generating "
                             f"(default: {' '.join(map(str, READ_TOKENS))})")
    parser.add_argument("--generate", type=int, metavar="TOKENS",
                        help="text: measure speed and memory while so many are generated, in place of a score")
    parser.add_argument("--tokens", type=int, nargs="+", metavar="TOKENS",
                        help=f"length of each stream; several are scored one after the other (default: {TOKENS})")
    parser.add_argument("--gaps", type=int, nargs="+", metavar="TOKENS",
                        help="tasks: facts at the start of each stream, asked after so many tokens of background; "
                             "one reading serves them all")
    parser.add_argument("--sequences", type=int, default=64, help="number of streams (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the streams (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--order", choices=ORDERS, help="wavefront: all layers at once, each a segment behind the one "
                                                        "below")
    parser.add_argument("--graphs", action="store_true", default=None, help="CUDA: replay each piece as one graph")
    add_machine(parser)
    add_task_options(parser, "tasks: what their streams hold (default: as in training)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, arguments: list[str]) -> int:
    device = prepare_machine(options)
    if not options.documents and (foreign := given(options, DOCUMENT_FIELDS)):
        raise UsageError(f"{option_of(next(iter(foreign)))} needs --documents")
    if options.read is not None and not options.costs:
        raise UsageError("--read needs --costs")
    in_place = list(given(options, IN_PLACE))
    if len(in_place) > 1:
        raise UsageError(f"--{in_place[0]} and --{in_place[1]} are two things to measure: give one")
    if in_place and not options.documents and (altering := given(options, (*ALTERATIONS, *WAYS))):
        raise UsageError(f"{option_of(next(iter(altering)))} is for scores, and --{in_place[0]} is none")
    if options.gaps is not None and (other := given(options, ("tokens", "fact_span"))):
        raise UsageError(f"{option_of(next(iter(other)))} is for streams of a given length, and --gaps gives none")
    path = options.model
    if path not in shipped_checkpoints() and Path(path).is_dir():
        path = RunFolder(Path(path)).model
    source = evaluation_source(read_info(path)["extra"].get("task"), options)
    model = LanguageModel.from_checkpoint(path, device)
    if in_place and not options.documents:
        print(json.dumps({**measured(model, source, device, options), "model": options.model,
                          "device": device_name(device)}))
        return 0
    if options.documents:
        score = evaluate_documents(altered(model, options), source, edges_up_to(options.up_to))
        print(describe_documents(score))
        found = score.to_dict()
    elif options.gaps is not None:
        asked = asked_after(altered(model, options), source, options.gaps, options.sequences, options.seed)
        print(describe_asked(asked))
        found = asked.to_dict()
    else:
        found = stream_scores(altered(model, options), source, options)
    if options.json:
        print(json.dumps({**found, "model": options.model, "device": device_name(device)}))
    return 0


def stream_scores(model: Model, source: Source, options: argparse.Namespace) -> dict[str, Any]:
    """The score of streams, or ``scores`` of several lengths, each printed when it is there."""
    scores = []
    for tokens in options.tokens or (TOKENS,):
        score = evaluate(model, source, tokens, options.sequences, options.seed)
        print(describe_score(score), flush=True)
        scores.append({**score.to_dict(), "most_resident_bytes": resident_bytes("VmHWM")})
    return scores[0] if len(scores) == 1 else {"scores": scores}


def evaluation_source(trained_on: dict[str, Any] | None, options: argparse.Namespace) -> Source:
    """What to score a checkpoint on: its task, or text that it was not trained on."""
    match trained_on:
        case {"kind": kind, **task} if kind in TASKS:
            for name in given(options, ("file", *IN_PLACE)):
                raise UsageError(f"--{name} is for text models; {options.model} was trained on {kind}")
            return TASKS[kind](**{**task, **task_fields(kind, options)})
        case {"kind": "text", "fingerprint": fingerprint}:
            task_fields("text", options)
            if options.gaps is not None:
                raise UsageError(f"--gaps is for tasks; {options.model} was trained on text")
            if not options.documents and (altering := given(options, ALTERED_PAST)):
                raise UsageError(f"{option_of(next(iter(altering)))} needs --documents")
            text = text_of(options.file)
            if options.file is None or text("all").fingerprint == fingerprint:
                return text(options.split or "test")
            if options.split is not None:
                raise UsageError(f"--split is of the text that {options.model} was trained on; --file has another")
            return text("all")
    raise UsageError(f"{options.model} does not say what it was trained on; evaluate a model that train has saved")


def altered(model: LanguageModel, options: argparse.Namespace) -> Model:
    """The model, or it with the gates and the past that the options ask for."""
    if options.gate is not None:
        model = with_gate(model, options.gate)
    if options.order is not None:
        if not isinstance(model, RMAT):
            raise UsageError(f"--order is for the RMAT, and {options.model} is of kind {model.config.kind!r}")
        model.order = options.order
    if options.bank is not None and options.fresh_every is not None:
        raise UsageError("--bank and --fresh-every are two ways to alter the past: give one")
    if options.bank is not None:
        if options.graphs:
            raise UsageError("--bank reads each segment twice, and --graphs is for reading once: give one")
        return AlteredBank(model, options.bank)
    reader = GraphedModel(model) if options.graphs else model
    return reader if options.fresh_every is None else FreshEvery(reader, options.fresh_every)


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


def describe_asked(asked: Asked) -> str:
    lines = [f"{asked.task.kind}: right answers of {asked.answers} ({len(asked.targets)} streams, seed {asked.seed}) "
             f"when the facts of the first {asked.opening} tokens are asked"]
    lines += [f"  after {gap} tokens more: {right / asked.answers:.4f}"
              for gap, right in zip(asked.gaps, asked.right, strict=True)]
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
