"""Bad input to the configuration and to the model: one line that names the argument, its value and what is right.

The functions below the model have their own tables in test_rope, test_attention, test_backends, test_memory,
test_block and test_generation; damaged files are in test_checkpoints.
"""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SMALL, assert_one_line, configs, make_model, random_tokens

from rmat_tutorial import RMAT, RMATConfig

SIZES = ("vocab_size", "d_model", "n_heads", "n_layers", "segment_len", "chunk_size", "memory_slots", "write_slots")


def config_error(kind, **fields) -> str:
    with pytest.raises(kind) as error:
        RMATConfig(**fields)
    return str(error.value)


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value, kind, right", [
    (0, ValueError, "at least 1"), (-3, ValueError, "at least 1"), (2.0, TypeError, "int"), ("8", TypeError, "int"),
    (None, TypeError, "int"), (True, TypeError, "int"),
])
def test_a_size_is_a_positive_int(field, value, kind, right):
    assert_one_line(config_error(kind, **{field: value}), field, repr(value), right)


@pytest.mark.parametrize("fields, kind, fragments", [
    ({"d_model": 50, "n_heads": 4}, ValueError, ["d_model", "50", "n_heads", "4", "divisible"]),
    ({"d_model": 12, "n_heads": 4}, ValueError, ["d_model", "n_heads", "even", "3"]),
    ({"write_slots": 17}, ValueError, ["write_slots", "17", "memory_slots", "16"]),
    ({"chunk_size": 33}, ValueError, ["chunk_size", "33", "segment_len", "32"]),
    ({"paths": ("full", "window")}, ValueError, ["paths", "'window'", "'full'", "'chunk'", "'memory'"]),
    ({"paths": ()}, ValueError, ["paths", "()"]),
    ({"paths": ("full", "full")}, ValueError, ["paths", "once", "('full', 'full')"]),
    ({"paths": "memory"}, TypeError, ["paths", "'memory'", "tuple"]),
    ({"paths": (1,)}, ValueError, ["paths", "1", "'chunk'"]),
    ({"gate": "soft"}, ValueError, ["gate", "'soft'", "'sigmoid'", "'hard'"]),
    ({"carry": "both"}, ValueError, ["carry", "'both'", "'newest'", "'oldest'"]),
    ({"pool": "max"}, ValueError, ["pool", "'max'", "'attention'", "'mean'"]),
    ({"backend": "cuda"}, ValueError, ["backend", "'cuda'", "'eager'", "'sdpa'", "'auto'"]),
    ({"backend": None}, ValueError, ["backend", "None", "'auto'"]),
    ({"gate_bias": math.nan}, ValueError, ["gate_bias", "nan"]),
    ({"gate_bias": -math.inf}, ValueError, ["gate_bias", "-inf"]),
    ({"gate_bias": "low"}, TypeError, ["gate_bias", "'low'", "number"]),
    ({"rope_base": 0.0}, ValueError, ["rope_base", "0.0"]),
    ({"rope_base": math.inf}, ValueError, ["rope_base", "inf"]),
    ({"dropout": 1.0}, ValueError, ["dropout", "1.0"]),
    ({"dropout": -0.1}, ValueError, ["dropout", "-0.1"]),
    ({"dropout": "none"}, TypeError, ["dropout", "'none'", "number"]),
])
def test_a_configuration_checks_itself(fields, kind, fragments):
    assert_one_line(config_error(kind, **fields), *fragments)


@given(configs())
def test_a_configuration_is_a_frozen_value_that_survives_a_dict(config):
    assert RMATConfig.from_dict(config.to_dict()) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.d_model = 8
    assert config.head_dim * config.n_heads == config.d_model
    assert hash(config) == hash(RMATConfig.from_dict(config.to_dict()))


@pytest.mark.parametrize("change, fragments", [
    (lambda d: d | {"colour": 1}, ["colour", "d_model"]),
    (lambda d: {k: v for k, v in d.items() if k != "gate"}, ["gate"]),
    (lambda d: d | {"gate": "relu"}, ["gate", "'relu'"]),
])
def test_from_dict_names_the_field(change, fragments):
    with pytest.raises(ValueError) as error:
        RMATConfig.from_dict(change(RMATConfig().to_dict()))
    assert_one_line(str(error.value), *fragments)


@given(st.sampled_from(SIZES), st.integers(-2, 40))
def test_every_configuration_is_either_refused_or_runs(field, value):
    """No size between -2 and 40 slips through the checks and fails later with somebody else's error."""
    fields = SMALL | {field: value}
    try:
        config = RMATConfig(**fields)
    except ValueError as error:
        assert_one_line(str(error), field)
    else:
        tokens = random_tokens(1, 2 * config.segment_len + 1, config.vocab_size)
        assert torch.isfinite(RMAT(config)(tokens).logits).all()


MODEL = make_model()
TOKENS = random_tokens(2, 7)
STATE = MODEL(TOKENS).state


def model_error(kind, tokens=TOKENS, state=None) -> str:
    with pytest.raises(kind) as error:
        MODEL(tokens, state)
    return str(error.value)


@pytest.mark.parametrize("tokens, kind, fragments", [
    (TOKENS.float(), TypeError, ["tokens", "int64", "float32"]),
    (TOKENS.int(), TypeError, ["tokens", "int64", "int32"]),
    (TOKENS > 5, TypeError, ["tokens", "int64", "bool"]),
    (TOKENS * float("nan"), TypeError, ["tokens", "int64"]),
    ([[1, 2]], TypeError, ["tokens", "Tensor", "list"]),
    ("text", TypeError, ["tokens", "Tensor", "str"]),
    (None, TypeError, ["tokens", "Tensor", "NoneType"]),
    (TOKENS[0], ValueError, ["tokens", "(B, T)", "(7,)"]),
    (TOKENS[None], ValueError, ["tokens", "(B, T)", "(1, 2, 7)"]),
    (TOKENS[:, :0], ValueError, ["tokens", "empty", "(2, 0)"]),
    (TOKENS[:0], ValueError, ["tokens", "empty", "(0, 7)"]),
    (torch.tensor([[3, 60, 1]]), ValueError, ["tokens", "0..59", "vocab_size", "got 60"]),
    (torch.tensor([[3, -1, 1]]), ValueError, ["tokens", "0..59", "vocab_size", "got -1"]),
    (torch.tensor([[2**62]]), ValueError, ["tokens", "0..59", str(2**62)]),
    (TOKENS.to("meta"), ValueError, ["tokens", "device", "meta", "cpu"]),
])
def test_tokens(tokens, kind, fragments):
    assert_one_line(model_error(kind, tokens), *fragments)


@pytest.mark.parametrize("changes", [
    {"d_model": 12}, {"n_heads": 1}, {"n_layers": 1}, {"n_layers": 3}, {"segment_len": 6}, {"memory_slots": 5},
    {"paths": ("full", "chunk")}, {"d_model": 4, "n_heads": 1}, {"chunk_size": 3},
    {"gate": "hard"}, {"carry": "oldest"},
])
@pytest.mark.parametrize("length", (5, 7))
def test_a_state_of_another_model(changes, length):
    """At a segment boundary of the other model, or inside its segment."""
    state = make_model(**changes)(random_tokens(2, length)).state
    message = model_error(ValueError, state=state)
    assert_one_line(message, "state", "another model", *(f"{name} = " for name in changes))


def test_a_state_of_another_backend_is_taken():
    other = make_model(backend="eager", dropout=0.5)
    assert torch.isfinite(MODEL(TOKENS, other(TOKENS).state).logits).all()


def test_a_state_with_memory_for_a_model_without():
    model = make_model(paths=("full", "chunk"))
    with pytest.raises(ValueError) as error:
        model(TOKENS, STATE)
    assert_one_line(str(error.value), "state", "another model")


@pytest.mark.parametrize("state, kind, fragments", [
    (MODEL.init_state(3), ValueError, ["state", "3", "2", "rows"]),
    (MODEL(TOKENS[:1]).state, ValueError, ["state", "1", "2", "rows"]),
    (STATE.to(torch.float32), (TypeError, ValueError), ["state", "float32", "float64", "state.to"]),
    (STATE.memory, TypeError, ["state", "RMATState", "tuple"]),
    ("fresh", TypeError, ["state", "RMATState", "str"]),
    (dataclasses.replace(STATE, memory=tuple(bank * float("nan") for bank in STATE.memory)), ValueError,
     ["state", "NaN"]),
    (dataclasses.replace(STATE, cache=tuple(type(layer)(*(t * float("nan") for t in layer)) for layer in STATE.cache)),
     ValueError, ["state", "NaN"]),
])
def test_a_state_that_does_not_fit(state, kind, fragments):
    assert_one_line(model_error(kind, state=state), *fragments)


@pytest.mark.parametrize("batch_size, kind, right", [
    (0, ValueError, "at least 1"), (-1, ValueError, "at least 1"), (1.0, TypeError, "int"), (None, TypeError, "int"),
])
def test_a_batch_size_is_a_positive_int(batch_size, kind, right):
    with pytest.raises(kind) as error:
        MODEL.init_state(batch_size)
    assert_one_line(str(error.value), "batch_size", repr(batch_size), right)


@pytest.mark.parametrize("config", ({"d_model": 8}, None, "recall"))
def test_a_model_wants_a_configuration(config):
    with pytest.raises(TypeError) as error:
        RMAT(config)
    assert_one_line(str(error.value), "config", "RMATConfig", type(config).__name__)


def test_an_error_leaves_the_model_usable():
    model = make_model()
    before = model(TOKENS).logits
    for bad in (TOKENS + 60, TOKENS[:, :0]):
        with pytest.raises(ValueError):
            model(bad)
    assert torch.equal(model(TOKENS).logits, before)
