"""The configuration of a baseline checks itself, and `matching` finds one of the size of a given RMAT."""

import dataclasses

import pytest
import torch
from baseline_strategies import SMALL, baseline_configs, fields_of, make_baseline
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import assert_one_line, configs, random_tokens

from rmat_tutorial import RMATConfig
from rmat_tutorial.baselines import (
    KINDS,
    BaselineConfig,
    FullAttention,
    SlidingWindow,
    count_parameters,
    matching,
)
from rmat_tutorial.language_model import build

every_kind = pytest.mark.parametrize("kind", KINDS)
SIZES = ("vocab_size", "d_model", "n_heads", "n_layers", "segment_len", "ffn_width")


@pytest.mark.parametrize("fields, kind, fragments", [
    *(({"kind": "full", size: value}, error, [size, repr(value), right]) for size in SIZES
      for value, error, right in ((0, ValueError, "at least 1"), (2.0, TypeError, "int"), (True, TypeError, "int"))),
    ({"kind": "linear"}, ValueError, ["kind", "'linear'", *map(repr, KINDS)]),
    ({"kind": "full", "d_model": 50}, ValueError, ["d_model", "50", "n_heads", "4", "divisible"]),
    ({"kind": "full", "d_model": 12}, ValueError, ["d_model", "even", "3"]),
    ({"kind": "full", "rope_base": 1.0}, ValueError, ["rope_base", "1.0"]),
    ({"kind": "full", "dropout": 1.0}, ValueError, ["dropout", "1.0"]),
    ({"kind": "window"}, TypeError, ["window", "int", "None"]),
    ({"kind": "window", "window": 0}, ValueError, ["window", "at least 1", "0"]),
    ({"kind": "rmt"}, TypeError, ["memory_tokens", "int", "None"]),
    ({"kind": "rmt", "memory_tokens": 0}, ValueError, ["memory_tokens", "at least 1", "0"]),
    ({"kind": "rmt", "memory_tokens": 4, "window": 8}, ValueError, ["window", "None", "'rmt'", "'window'", "8"]),
    ({"kind": "segment", "memory_tokens": 4}, ValueError, ["memory_tokens", "None", "'segment'", "'rmt'", "4"]),
])
def test_a_configuration_checks_itself(fields, kind, fragments):
    with pytest.raises(kind) as error:
        BaselineConfig(**fields)
    assert_one_line(str(error.value), *fragments)


@every_kind
@given(st.data())
def test_a_configuration_is_a_frozen_value_that_survives_a_dict(kind, data):
    config = data.draw(baseline_configs(kind))
    assert BaselineConfig.from_dict(config.to_dict()) == config
    assert hash(config) == hash(BaselineConfig.from_dict(config.to_dict()))
    assert config.head_dim * config.n_heads == config.d_model
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.kind = "full"


@every_kind
@given(st.sampled_from((*SIZES, "window", "memory_tokens")), st.integers(-2, 20))
@torch.no_grad()
def test_every_configuration_is_either_refused_or_runs(kind, field, value):
    try:
        config = BaselineConfig(kind, **(SMALL | fields_of(kind) | {field: value}))
    except ValueError as error:
        assert_one_line(str(error), field)
    else:
        tokens = random_tokens(1, 2 * config.segment_len + 1, config.vocab_size)
        assert torch.isfinite(build(config)(tokens).logits).all()


@pytest.mark.parametrize("config, kind, fragments", [
    (RMATConfig(), TypeError, ["config", "BaselineConfig", "RMATConfig"]),
    (None, TypeError, ["config", "BaselineConfig", "NoneType"]),
    (BaselineConfig("segment"), ValueError, ["config", "'full'", "FullAttention", "'segment'"]),
])
def test_a_model_wants_a_configuration_of_its_kind(config, kind, fragments):
    with pytest.raises(kind) as error:
        FullAttention(config)
    assert_one_line(str(error.value), *fragments)


@every_kind
def test_dropout_acts_in_training_only(kind):
    model, tokens = make_baseline(kind, dropout=0.5), random_tokens(1, 8)
    assert torch.equal(model(tokens).logits, model(tokens).logits)
    model.train()
    assert not torch.equal(model(tokens).logits, model(tokens).logits)


@every_kind
def test_inference_mode_leaves_nothing_that_training_cannot_use(kind):
    model, tokens = make_baseline(kind), random_tokens(1, 8)
    with torch.inference_mode():
        model(tokens)
    model(tokens).logits.sum().backward()
    assert model.embed.weight.grad.any()


# Matching.


@every_kind
@settings(max_examples=30)
@given(st.data())
def test_a_match_has_the_sizes_and_the_parameters(kind, data):
    rmat = data.draw(configs(d_model=24, n_heads=data.draw(st.sampled_from((1, 2, 3))), dropout=0.25, rope_base=500.0))
    match = matching(rmat, kind)
    for name in ("vocab_size", "d_model", "n_heads", "n_layers", "segment_len", "rope_base", "dropout"):
        assert getattr(match, name) == getattr(rmat, name)
    assert match.window == (rmat.segment_len if kind == "window" else None)
    assert match.memory_tokens == (rmat.memory_slots if kind == "rmt" else None)
    wanted, has = (sum(p.numel() for p in build(config).parameters()) for config in (rmat, match))
    assert abs(has - wanted) <= 0.02 * wanted
    for other in (match.ffn_width - 1, match.ffn_width + 1):
        if other:
            assert abs(count_parameters(dataclasses.replace(match, ffn_width=other)) - wanted) >= abs(has - wanted)


@every_kind
def test_without_memory_in_the_rmat_the_ffn_is_as_wide_as_its(kind):
    match = matching(RMATConfig(paths=("full",)), kind)
    assert match.ffn_width == 256 - (4 if kind == "rmt" else 0)  # 16 · 64 numbers of memory cost 4 of 2 · 129 · width


def test_matching_draws_no_random_number():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    matching(RMATConfig(), "rmt")
    assert torch.equal(torch.rand(1), expected)


def test_counting_makes_no_model():
    assert count_parameters(RMATConfig(vocab_size=10**9)) > 2 * 64 * 10**9


def test_what_cannot_be_matched_says_so():
    tiny = RMATConfig(vocab_size=1, d_model=2, n_heads=1, n_layers=3, paths=("full", "chunk"), memory_slots=6)
    with pytest.raises(ValueError) as error:
        matching(tiny, "rmt")
    assert_one_line(str(error.value), "'rmt'", str(count_parameters(tiny)), "2%", "ffn_width")


@pytest.mark.parametrize("config, kind, error, fragments", [
    (BaselineConfig("full"), "full", TypeError, ["config", "RMATConfig", "BaselineConfig"]),
    (RMATConfig(), "rmat", ValueError, ["kind", "'rmat'", "'full'", "'rmt'"]),
])
def test_matching_refuses_what_it_cannot_use(config, kind, error, fragments):
    with pytest.raises(error) as raised:
        matching(config, kind)
    assert_one_line(str(raised.value), *fragments)


def test_a_window_is_changed_without_changing_the_size():
    """As a learner would to try another window: the number of parameters does not depend on it."""
    match = matching(RMATConfig(), "window")
    wider = dataclasses.replace(match, window=3 * match.window)
    assert isinstance(build(wider), SlidingWindow) and count_parameters(wider) == count_parameters(match)
