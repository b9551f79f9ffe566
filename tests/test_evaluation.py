"""Evaluation: streams and documents are read exactly, in constant memory, and whatever cannot be says why."""

import math
import subprocess
import sys
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

from rmat_tutorial import RMAT, LanguageModel, RMATConfig, evaluation
from rmat_tutorial.baselines import KINDS, matching
from rmat_tutorial.corpora import Corpus
from rmat_tutorial.evaluation import evaluate, evaluate_documents
from rmat_tutorial.language_model import build
from rmat_tutorial.tasks import IGNORED, TASKS, RecallTask

TASK = RecallTask(keys=3, values=2, facts=2, noise_tokens=2)
CONFIG = RMATConfig(vocab_size=TASK.vocab_size, d_model=8, n_heads=2, n_layers=2, segment_len=6, chunk_size=3,
                    memory_slots=4, write_slots=2, gate="hard")
BYTES = replace(CONFIG, vocab_size=256)
TEXT = Corpus(np.frombuffer(b"the cat sat on the mat. " * 40, dtype=np.uint8), "cats", "", "all")


@hypothesis_settings(max_examples=15)
@given(st.integers(5, 40), st.integers(1, 9), st.integers(1, 5), st.integers(0, 50))
def test_a_streamed_score_is_that_of_the_whole(tokens, piece, rows, seed):
    torch.manual_seed(seed)
    model = RMAT(CONFIG).double().eval()
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
    model = RMAT(BYTES).eval()
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


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_is_scored_by_distance(kind, monkeypatch):
    monkeypatch.setattr(evaluation, "PIECE", 50)
    task = TASKS[kind](fact_span=(0.1, 0.9))
    torch.manual_seed(0)
    score = evaluate(RMAT(replace(CONFIG, vocab_size=task.vocab_size)), task, 200, 12, 3)
    distances = torch.cat([back for *_, back in task.pieces(12, 200, 50, torch.Generator().manual_seed(3))], dim=1)
    asked = distances[distances > 0]
    wanted = {low: int(((low < asked) & (asked <= low + 50)).sum()) for low in (0, 50, 100, 150)}
    assert {part["above"]: part["answers"] for part in score.by_distance} == {
        low: count for low, count in wanted.items() if count}
    right = sum(part["answers"] * part["accuracy"] for part in score.by_distance)
    assert right == pytest.approx(score.positions * score.value)
    assert score.positions == len(asked)


def test_an_evaluation_leaves_the_model_in_its_mode():
    model = RMAT(CONFIG).train()
    evaluate(model, TASK, 20, 2)
    assert model.training


def growth(config: str, short: str, long: str) -> float:
    """By what share the peak memory of a process rises in a long evaluation of a model, after a short one."""
    code = f"""
import resource, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
from test_evaluation import *
model = RMAT({config})
{short}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{long}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True,
                          text=True, check=True)
    return float(done.stdout)


def test_evaluation_in_constant_memory():
    assert growth("CONFIG", "evaluate(model, TASK, 3_000, 2)", "evaluate(model, TASK, 40_000, 2)") < 0.02


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


# Documents.


def texts(lengths: list[int], seed: int = 0) -> Corpus:
    """Documents of random bytes."""
    content = np.random.default_rng(seed).integers(256, size=sum(lengths), dtype=np.uint8)
    return Corpus(content, "noise", "", "test", lengths)


def bits_alone(model: LanguageModel, corpus: Corpus) -> list[list[float]]:
    """For each document, read whole and alone: the bits of its bytes but the first."""
    bits = []
    for start, stop in corpus.documents.tolist():
        tokens = torch.tensor([corpus.data[start:stop].tolist()])
        if stop - start < 2:
            bits.append([])
            continue
        nats = cross_entropy(model(tokens[:, :-1]).logits[0], tokens[0, 1:], reduction="none")
        bits.append((nats / math.log(2)).tolist())
    return bits


@hypothesis_settings(max_examples=40)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=7),
       st.sets(st.integers(0, 36), min_size=2, max_size=5).filter(lambda edges: max(edges) > 1),
       st.integers(1, 9), st.integers(1, 4), st.integers(0, 50), st.sampled_from(("rmat", *KINDS)))
def test_documents_score_as_when_each_is_read_alone(lengths, edges, piece, rows, seed, kind):
    edges = sorted(edges)
    lengths.append(edges[-1] + 2)  # one reaches the last edge
    corpus = texts(lengths, seed)
    torch.manual_seed(seed)
    model = build(BYTES if kind == "rmat" else matching(BYTES, kind)).double().eval()
    before = evaluation.PIECE, evaluation.DOCUMENT_ROWS
    try:
        evaluation.PIECE, evaluation.DOCUMENT_ROWS = piece, rows
        score = evaluate_documents(model, corpus, edges)
    finally:
        evaluation.PIECE, evaluation.DOCUMENT_ROWS = before
    alone = bits_alone(model, corpus)
    wanted = []
    for place, edge in enumerate(edges):
        at_least = edge if place else max(edge, 1) + 1
        members = [bits for bits in alone if len(bits) + 1 >= at_least]
        for low, high in pairwise(edges[: place + 1] if place else edges):
            found = [bit for bits in members for bit in bits[max(low, 1) - 1 : high - 1]]
            if found:
                wanted.append((at_least, len(members), low, high, len(found), sum(found) / len(found)))
    got = [(group["at_least"], group["documents"], part["from"], part["below"], part["bytes"], part["bits_per_byte"])
           for group in score.groups for part in group["bins"]]
    assert [line[:-1] for line in got] == [line[:-1] for line in wanted]
    assert [line[-1] for line in got] == pytest.approx([line[-1] for line in wanted], abs=1e-9)


def test_a_group_fills_its_bins_with_the_same_documents():
    score = evaluate_documents(RMAT(BYTES), texts([3, 20, 9, 8, 16]), (0, 4, 8, 16))
    assert [(group["at_least"], group["documents"]) for group in score.groups] == [(2, 5), (4, 4), (8, 4), (16, 2)]
    assert [part["bytes"] for part in score.groups[0]["bins"]] == [14, 16, 17]
    assert [[part["bytes"] for part in group["bins"]] for group in score.groups[1:]] == [[12], [12, 16], [6, 8, 16]]
    assert score.to_dict() == {"edges": [0, 4, 8, 16], "groups": score.groups,
                               "source": {"kind": "text", "name": "noise", "fingerprint": "", "split": "test",
                                          "bytes": 56}}


def test_the_usual_edges_double():
    assert evaluation.EDGES[:4] == (0, 64, 128, 256)
    assert evaluation.EDGES[-1] == 32768


def test_documents_are_not_read_beyond_the_last_edge(monkeypatch):
    read = []
    model = RMAT(BYTES)
    forward = RMAT.forward
    monkeypatch.setattr(RMAT, "forward", lambda self, tokens, state: read.append(tokens.shape) or
                        forward(self, tokens, state))
    evaluate_documents(model, texts([500, 30]), (0, 10, 20))
    assert read == [(2, 19)]


def test_reading_documents_leaves_the_model_in_its_mode():
    model = RMAT(BYTES).train()
    evaluate_documents(model, texts([20]), (0, 10))
    assert model.training


def test_documents_in_constant_memory():
    short = "evaluate_documents(model, texts([2_000] * 2), (0, 2_000))"
    long = "evaluate_documents(model, texts([20_000] * 2), (0, 1_000, 20_000))"
    assert growth("BYTES", short, long) < 0.02


@pytest.mark.parametrize(
    ("edges", "lengths", "fragments"),
    [
        ((0,), [9], ("edges", "(0,)")),
        ((0, 8, 8), [9], ("edges", "rise", "(0, 8, 8)")),
        ((8, 0), [9], ("edges", "rise", "(8, 0)")),
        ((0, 1), [9], ("edges", "position 0", "(0, 1)")),
        ((-1, 8), [9], ("edges", "got -1")),
        ((0, 2.5), [9], ("edges", "2.5")),
        ((0, 8), [1, 0, 1], ("begin at position 0", "test split of noise", "longest has 1 bytes")),
        ((12, 20), [12, 3], ("begin at position 12", "longest has 12 bytes")),
    ],
)
def test_documents_that_cannot_be_scored_say_why(edges, lengths, fragments):
    with pytest.raises((TypeError, ValueError)) as error:
        evaluate_documents(RMAT(BYTES), texts(lengths), edges)
    assert_one_line(str(error.value), *fragments)


def test_documents_and_model_must_fit_and_be_whole():
    with pytest.raises(ValueError, match="source has 256 tokens, the model has vocab_size = 13"):
        evaluate_documents(RMAT(CONFIG), texts([9]), (0, 8))
    model = RMAT(BYTES)
    model.head.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="the loss is nan after 8 tokens"):
        evaluate_documents(model, texts([9]), (0, 9))
