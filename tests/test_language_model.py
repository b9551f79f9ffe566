"""What every kind of language model has in common: one way to build, save, load, refuse, generate and train it."""

import json

import numpy as np
import pytest
import torch
from baseline_strategies import KINDS, make_baseline
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from strategies import SMALL, assert_one_line, make_model, random_tokens
from test_generation import greedy_by_hand

from rmat_tutorial import RMAT, CheckpointError, LanguageModel, baselines
from rmat_tutorial.corpora import Corpus
from rmat_tutorial.evaluation import evaluate
from rmat_tutorial.language_model import build
from rmat_tutorial.tracing import collect_gates
from rmat_tutorial.training import Trainer, TrainSettings

CLASSES = {
    "rmat": RMAT, "full": baselines.FullAttention, "segment": baselines.SegmentOnly, "window": baselines.SlidingWindow,
    "transformer-xl": baselines.TransformerXL, "rmt": baselines.RecurrentMemoryTransformer,
}
ALL_KINDS = ("rmat", *KINDS)
every_kind = pytest.mark.parametrize("kind", ALL_KINDS)


def make(kind: str, **fields) -> LanguageModel:
    return make_model(**fields) if kind == "rmat" else make_baseline(kind, **fields)


@every_kind
def test_build_makes_the_class_of_the_kind(kind):
    config = make(kind).config
    model = build(config)
    assert type(model) is CLASSES[kind] and model.kind == config.kind == kind and model.config is config


@every_kind
def test_one_seed_makes_one_model(kind):
    config, models = make(kind).config, []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models.append(build(config).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not torch.equal(models[0]["embed.weight"], models[2]["embed.weight"])


def test_all_kinds_begin_with_the_same_embedding_and_attention():
    """The same initialisation: parts of one name are drawn from one distribution."""
    drawn = {}
    for kind, config in {kind: make(kind).config for kind in ALL_KINDS}.items():
        torch.manual_seed(0)
        drawn[kind] = build(config).state_dict()
    assert all(torch.equal(state["embed.weight"], drawn["rmat"]["embed.weight"]) for state in drawn.values())
    for name in ("blocks.0.to_q.weight", "blocks.0.to_k.weight", "blocks.0.to_v.weight", "blocks.0.out.weight"):
        assert all(torch.equal(state[name], drawn["rmat"][name]) for state in drawn.values()), name


@pytest.mark.parametrize("config", (None, {"kind": "full"}, "full", SMALL))
def test_build_wants_a_configuration(config):
    with pytest.raises(TypeError) as error:
        build(config)
    assert_one_line(str(error.value), "config", type(config).__name__)


# Checkpoints.


@every_kind
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16))
def test_what_is_saved_comes_back_as_what_it_was(kind, dtype, tmp_path):
    path, model, tokens = tmp_path / "model.safetensors", make(kind, dtype=dtype), random_tokens(2, 9)
    model.save(path, extra={"note": kind})
    for loaded in (LanguageModel.from_checkpoint(path), CLASSES[kind].from_checkpoint(str(path))):
        assert type(loaded) is CLASSES[kind] and loaded.config == model.config and not loaded.training
        ours, theirs = model.state_dict(), loaded.state_dict()
        assert list(ours) == list(theirs)
        assert all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours)
        assert torch.equal(model(tokens).logits, loaded(tokens).logits)


@pytest.mark.parametrize("loader, kind", [
    (RMAT, "window"), (RMAT, "rmt"), (baselines.Baseline, "rmat"), (baselines.TransformerXL, "segment"),
])
def test_a_class_refuses_a_file_of_another_kind_and_says_what_it_is(loader, kind, tmp_path):
    path = tmp_path / "model.safetensors"
    make(kind).save(path)
    with pytest.raises(CheckpointError) as error:
        loader.from_checkpoint(path)
    assert_one_line(str(error.value), path.name, CLASSES[kind].__name__, repr(kind), loader.__name__,
                    "LanguageModel.from_checkpoint")


def test_baseline_loads_any_baseline(tmp_path):
    make_baseline("window").save(tmp_path / "model.safetensors")
    assert isinstance(baselines.Baseline.from_checkpoint(tmp_path / "model.safetensors"), baselines.SlidingWindow)


def test_a_checkpoint_without_a_kind_is_an_rmat(tmp_path):
    assert isinstance(LanguageModel.from_checkpoint("recall"), RMAT)
    make_model().save(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert "kind" not in json.loads(file.metadata()["rmat_tutorial"])["config"]


@pytest.mark.parametrize("changes, fragments", [
    ({"kind": "mamba"}, ["kind", "'mamba'", "'rmat'", "'window'"]),
    ({"kind": ["full"]}, ["kind", "['full']"]),
    ({"kind": "segment"}, ["window", "None", "'segment'"]),
    ({"window": None}, ["window", "int", "None"]),
    ({"ffn_width": 13}, ["ffn", "(13,", "(12,"]),
])
def test_a_baselines_file_whose_contents_do_not_fit_is_refused(changes, fragments, tmp_path):
    path = tmp_path / "model.safetensors"
    model = make_baseline("window")
    model.save(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["rmat_tutorial"])
    header["config"] |= changes
    save_file(model.state_dict(), path, metadata={"rmat_tutorial": json.dumps(header)})
    with pytest.raises(CheckpointError) as error:
        LanguageModel.from_checkpoint(path)
    assert_one_line(str(error.value), path.name, *fragments)


# States.


@every_kind
@pytest.mark.parametrize("other", ALL_KINDS)
def test_a_state_of_another_kind_is_refused(kind, other):
    tokens = random_tokens(2, 7)
    state = make(other)(tokens).state
    if kind == other:
        assert torch.isfinite(make(kind)(tokens, state).logits).all()
        return
    with pytest.raises((TypeError, ValueError)) as error:
        make(kind)(tokens, state)
    expected = ["State"] if "rmat" in (kind, other) else ["another model", f"kind = {other} (here {kind})"]
    assert_one_line(str(error.value), "state", *expected)


@every_kind
def test_a_state_with_nan_is_refused_and_one_with_infinities_is_not(kind):
    model, tokens = make(kind), random_tokens(1, 7)
    state = model(tokens).state
    for bad, refused in ((float("nan"), True), (float("inf"), False)):
        broken = state.to(torch.float64, copy=True)
        flat = broken.cache[0].k.view(-1)
        flat[0], flat[-1] = bad, -bad
        if refused:
            with pytest.raises(ValueError, match="state contains NaN; start again"):
                model(tokens, broken)
        else:
            model(tokens, broken)


# Generation.


@every_kind
@settings(max_examples=8)
@given(st.integers(1, 2), st.integers(1, 12), st.integers(1, 15), st.integers(0, 1000))
def test_greedy_equals_repeated_full_reading(kind, batch, prompt_length, count, seed):
    model, prompt = make(kind, seed=seed), random_tokens(batch, prompt_length, seed=seed)
    assert torch.equal(model.generate(prompt, count, temperature=0.0).tokens, greedy_by_hand(model, prompt, count))


@every_kind
def test_a_prompt_of_many_segments_and_a_second_part(kind):
    model, prompt = make(kind), random_tokens(1, 103)
    long = model.generate(prompt, 12, temperature=0.0).tokens
    start = model.generate(prompt, 5, temperature=0.0)
    rest = model.generate(start.tokens[:, -1:], 7, start.state, temperature=0.0).tokens
    assert torch.equal(torch.cat([start.tokens, rest], 1), long)


# Training.


@every_kind
def test_only_an_rmat_has_gates_to_collect(kind):
    model = make(kind)
    with collect_gates(model) as gates:
        model(random_tokens(1, 10))
    assert len(gates) == (4 if kind == "rmat" else 0)


@every_kind
@pytest.mark.parametrize("restart", (0.3, 1.0))
def test_training_that_is_resumed_takes_the_same_steps(kind, restart, tmp_path):
    """Also where rows read on in the text with the state that they had: all of it is saved."""
    corpus = Corpus(np.arange(400, dtype=np.uint8) % 251, "counting", "", "all")
    settings = TrainSettings(steps=6, batch_size=3, max_segments=2, grow_below=None, restart=restart)
    trainer = Trainer(make(kind, vocab_size=256).config, corpus, settings)
    for _ in range(3):
        trainer.advance()
    torch.save(trainer.state(), tmp_path / "state.pt")
    resumed = Trainer(trainer.model.config, corpus, settings)
    resumed.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):
        ours, theirs = trainer.advance(), resumed.advance()
        assert ours["loss"] == theirs["loss"]
    assert (ours["gate"] is None) == (kind != "rmat")
    ours, theirs = trainer.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@every_kind
def test_a_model_is_evaluated(kind):
    corpus = Corpus(np.arange(400, dtype=np.uint8) % 251, "counting", "", "all")
    model = make(kind, vocab_size=256, dtype=torch.float32)
    score = evaluate(model, corpus, tokens=23, sequences=5)
    tokens, targets = corpus.batch(5, 23, torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(model(tokens).logits.transpose(1, 2), targets)
    assert score.loss == pytest.approx(loss.item(), rel=1e-5)


@every_kind
def test_a_model_learns(kind):
    """A stream that counts up, within a segment: a loss near 0 after some steps."""
    torch.manual_seed(0)
    model = build(make(kind, d_model=16).config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    tokens = (torch.arange(12) + torch.arange(0, 48, 4)[:, None]) % 60
    for _ in range(120):
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
