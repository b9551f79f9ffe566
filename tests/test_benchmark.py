"""What a comparison measures besides scores: an altered past is altered as it says and in nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from strategies import assert_one_line

from rmat_tutorial import RMATConfig
from rmat_tutorial.baselines import KINDS, matching
from rmat_tutorial.benchmark import (
    PARTS,
    READ_TOKENS,
    AlteredBank,
    FreshEvery,
    costs,
    long_generation,
    peak_bytes,
    resident_bytes,
    with_gate,
)
from rmat_tutorial.corpora import Corpus
from rmat_tutorial.evaluation import evaluate_documents
from rmat_tutorial.language_model import build
from rmat_tutorial.memory import hard_gate
from rmat_tutorial.training import TrainSettings

CONFIG = RMATConfig(d_model=8, n_heads=2, segment_len=6, chunk_size=3, memory_slots=4, write_slots=2, gate="hard")
TEXT = Corpus(np.frombuffer(b"the cat sat on the mat. " * 250, dtype=np.uint8), "cats", "", "all", [20, 80, 5900])
SPLITS = ([20], [6, 6, 6, 2], [1] * 20, [4, 9, 7], [13, 7])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build(CONFIG).double().eval()


@pytest.fixture
def tokens():
    return torch.randint(256, (3, 20), generator=torch.Generator().manual_seed(1))


def read(model, tokens, pieces):
    state, logits = None, []
    for piece in tokens.split(pieces, dim=1):
        output = model(piece, state)
        logits.append(output.logits)
        state = output.state
    return torch.cat(logits, dim=1)


def with_banks(model, tokens, bank):
    """The logits of each segment read alone with ``bank(what was carried to it)``: by hand, segment by segment."""
    own, logits = model.init_state(len(tokens)), []
    for segment in tokens.split(CONFIG.segment_len, dim=1):
        logits.append(model(segment, replace(own, memory=tuple(map(bank, own.memory)))).logits)
        own = model(segment, own).state
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("pieces", SPLITS, ids=str)
def test_fresh_every_segment_is_a_bank_frozen_at_its_start(model, tokens, pieces):
    found = read(FreshEvery(model, CONFIG.segment_len), tokens, pieces)
    slots = iter([block.memory.slots for block in model.blocks] * 4)
    frozen = with_banks(model, tokens, lambda bank: next(slots).expand_as(bank))
    alone = torch.cat([model(segment).logits for segment in tokens.split(CONFIG.segment_len, dim=1)], dim=1)
    assert torch.allclose(found, frozen, atol=1e-10)
    assert torch.allclose(found, alone, atol=1e-10)
    assert not torch.allclose(found, model(tokens).logits, atol=1e-4)


@pytest.mark.parametrize("pieces", SPLITS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_any_model_forgets_after_so_many_tokens(kind, pieces, tokens):
    torch.manual_seed(0)
    peer = build(matching(CONFIG, kind)).double().eval()
    found = read(FreshEvery(peer, 8), tokens, pieces)
    alone = torch.cat([peer(stretch).logits for stretch in tokens.split(8, dim=1)], dim=1)
    assert torch.allclose(found, alone, atol=1e-10)


@pytest.mark.parametrize("pieces", SPLITS, ids=str)
def test_zeroed_and_shuffled_banks_are_what_is_read_and_nothing_else(model, tokens, pieces):
    whole = model(tokens).logits
    first = slice(None, CONFIG.segment_len)
    zeroed = read(AlteredBank(model, "zeroed"), tokens, pieces)
    assert torch.allclose(zeroed, with_banks(model, tokens, torch.zeros_like), atol=1e-10)
    shuffled = read(AlteredBank(model, "shuffled"), tokens, pieces)
    assert torch.allclose(shuffled, with_banks(model, tokens, lambda bank: bank[[1, 2, 1]]), atol=1e-10)
    # Before anything was written the banks of all rows are alike; later each row reads another's.
    assert torch.allclose(shuffled[:, first], whole[:, first], atol=1e-10)
    assert ((shuffled - whole)[:, CONFIG.segment_len:].abs().amax(dim=(1, 2)) > 1e-4).all()
    twins = tokens[:1].expand(3, -1)
    assert torch.allclose(AlteredBank(model, "shuffled")(twins).logits, model(twins).logits, atol=1e-10)


def test_documents_are_scored_with_an_altered_past(model):
    text = replace(TEXT, lengths=[2000, 1900, 2100])
    plain, *others = (
        evaluate_documents(one, text, (0, 6, 2000), progress=False).groups[0]["bins"]
        for one in (model, AlteredBank(model, "shuffled"), AlteredBank(model, "zeroed"), FreshEvery(model, 6))
    )
    assert others[0][0] == pytest.approx(plain[0])  # the first segment
    assert others[2][0] == pytest.approx(plain[0])
    assert all(other[1]["bytes"] == plain[1]["bytes"] for other in others)
    assert len({round(bins[1]["bits_per_byte"], 9) for bins in (plain, *others)}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_a_bank_has_none_to_alter(kind):
    with pytest.raises(ValueError) as error:
        AlteredBank(build(matching(CONFIG, kind)), "zeroed")
    assert_one_line(str(error.value), "zeroed", "memory path")


def test_another_gate_has_the_same_weights(model, tokens):
    other = {"hard": "sigmoid", "sigmoid": "hard"}[model.config.gate]
    turned = with_gate(model, other)
    assert turned.config == replace(model.config, gate=other) and not turned.training
    for mine, its in zip(model.blocks, turned.blocks, strict=True):
        score = torch.linspace(-5, 5, 9).to(model.embed.weight)
        assert torch.equal(its.memory.opening(score), torch.sigmoid(score) if other == "sigmoid" else hard_gate(score))
        assert its.memory.opening(score)[0] != mine.memory.opening(score)[0]
    assert not torch.equal(turned(tokens).logits, model(tokens).logits)
    again = with_gate(turned, model.config.gate)
    assert torch.equal(again(tokens).logits, model(tokens).logits)


def test_what_cannot_be_altered_says_why(model):
    with pytest.raises(ValueError, match="gate must be one of 'sigmoid', 'hard', got 'soft'"):
        with_gate(model, "soft")
    with pytest.raises(ValueError, match="gate = 'hard' needs an RMAT with the memory path, got a RMAT without"):
        with_gate(build(replace(CONFIG, paths=("full", "chunk"))), "hard")
    with pytest.raises(ValueError, match="memory path"):
        AlteredBank(build(replace(CONFIG, paths=("full", "chunk"))), "zeroed")
    with pytest.raises(ValueError, match="bank must be one of"):
        AlteredBank(model, "frozen")
    with pytest.raises(ValueError, match="two or more rows"):
        AlteredBank(model, "shuffled")(torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="tokens must be at least 1"):
        FreshEvery(model, 0)


@pytest.mark.parametrize("kind", ["rmat", "full"])
def test_costs(kind, monkeypatch):
    monkeypatch.setattr("rmat_tutorial.measuring.LEAST_SECONDS", 0.001)
    model = build(CONFIG if kind == "rmat" else matching(CONFIG, kind)).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = costs(model, TEXT, TrainSettings(batch_size=2, max_segments=2, grow_below=None))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert found["parameters"] == sum(weight.numel() for weight in before.values())
    for part in (found["training"], *found["generation"]):
        assert part["tokens_per_second"] > 0
        assert part["peak_bytes"] is None or part["peak_bytes"] >= 0
    sizes = []
    for part, tokens in zip(found["generation"], READ_TOKENS, strict=True):
        assert part["read"] == tokens
        with torch.no_grad():
            assert part["state_bytes"] == model(torch.zeros(1, tokens, dtype=torch.int64)).state.nbytes
        sizes.append(part["state_bytes"])
    assert (sizes[0] == sizes[-1]) is (kind == "rmat")


@pytest.mark.parametrize("kind", ["rmat", "full"])
def test_a_long_generation_is_one_stream(kind, monkeypatch):
    model = build(CONFIG if kind == "rmat" else matching(CONFIG, kind)).eval()
    pieces = []
    model.register_forward_pre_hook(lambda _, inputs: pieces.append(inputs))
    found = long_generation(model, 2 * PARTS + 1, progress=False)
    assert [part["from"] for part in found] == [0, *(part["to"] for part in found[:-1])]
    assert found[-1]["to"] == 2 * PARTS + 1
    assert all(part["tokens_per_second"] > 0 for part in found)
    assert all(part["resident_bytes"] is None or part["resident_bytes"] > 0 for part in found)
    # Every token is read once, after all those before it.
    assert all(tokens.shape == (1, 1) for tokens, _ in pieces)
    assert len(pieces) == 2 * PARTS + 1
    assert pieces[0][1] is None and all(state is not None for _, state in pieces[1:])
    sizes = {part["state_bytes"] for part in found}
    assert (len(sizes) == 1) is (kind == "rmat")
    with pytest.raises(ValueError, match="tokens must be at least 50"):
        long_generation(model, PARTS - 1)


def test_resident_memory_counts_what_is_held():
    before = resident_bytes()
    held = torch.ones(64 * 2**20, dtype=torch.uint8)
    assert before is None or resident_bytes() - before > 0.9 * held.nbytes


def test_a_peak_is_of_what_a_call_holds_at_once():
    size = 64 * 2**20
    found = peak_bytes(lambda: torch.ones(size, dtype=torch.uint8).max())
    assert found is None or 0.9 * size < found < 2 * size


def test_a_peak_is_seen_where_as_much_was_freed_before():
    def hold() -> list[torch.Tensor]:
        return [torch.ones(2**14, dtype=torch.uint8) for _ in range(2**12)]  # too small to be mapped one by one

    hold()
    found = peak_bytes(hold)
    assert found is None or found > 0.9 * 2**26


def test_a_system_that_does_not_tell_its_memory_is_no_error(monkeypatch):
    calls = []

    def refuse(path, *text):
        raise FileNotFoundError(path)

    monkeypatch.setattr("pathlib.Path.write_text", refuse)
    assert peak_bytes(lambda: calls.append(1)) is None
    assert calls == [1]
    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    assert resident_bytes() is None
