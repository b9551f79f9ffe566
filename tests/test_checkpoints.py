"""Checkpoints: what is saved comes back bit for bit, and what is damaged says so in one line."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from safetensors import safe_open
from safetensors.torch import save_file
from strategies import assert_one_line, configs, make_model, random_tokens

from rmat_tutorial import RMAT, CheckpointError, checkpoints, folders


@pytest.fixture
def saved(tmp_path) -> Path:
    path = tmp_path / "model.safetensors"
    make_model().save(path)
    return path


def rewrite(path: Path, change) -> None:
    """Apply `change(tensors, metadata)` to the contents of a checkpoint, and write them as a valid safetensors file."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


def change_config(**changes):
    """A change of `rewrite` that sets fields of the stored configuration; None removes one."""
    def change(tensors, metadata):
        header = json.loads(metadata["rmat_tutorial"])
        assert set(header["config"]) >= {"d_model", "paths"}, "the configuration is not where it should be"
        config = header["config"] | changes
        header["config"] = {name: value for name, value in config.items() if value is not None}
        metadata["rmat_tutorial"] = json.dumps(header)
    return change


def load_error(name_or_path) -> str:
    with pytest.raises(CheckpointError) as error:
        RMAT.from_checkpoint(name_or_path)
    assert isinstance(error.value, ValueError)
    assert_one_line(str(error.value))
    return str(error.value)


@settings(max_examples=20)
@given(configs())
def test_round_trip_bit_for_bit(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("round") / "model.safetensors"
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model = make_model(config, dtype=dtype)
        model.save(path)
        loaded = RMAT.from_checkpoint(path)
        assert loaded.config == config
        ours, theirs = model.state_dict(), loaded.state_dict()
        assert list(ours) == list(theirs)
        assert all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours)
    tokens = random_tokens(2, 9)
    assert torch.equal(model(tokens).logits, loaded(tokens).logits)


def test_a_loaded_model_is_ready_to_evaluate_and_to_train(saved):
    model = RMAT.from_checkpoint(str(saved))
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_saving_replaces_an_older_file_and_leaves_no_other(saved):
    make_model(seed=1).save(saved)
    assert torch.equal(RMAT.from_checkpoint(saved).embed.weight, make_model(seed=1).embed.weight)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("failing", ("fsync", "replace"))
@pytest.mark.parametrize("error", (OSError("disk full"), KeyboardInterrupt()))
def test_a_write_that_fails_midway_leaves_the_old_file(saved, monkeypatch, failing, error):
    before = saved.read_bytes()

    monkeypatch.setattr(os, failing, raising(error))
    with pytest.raises((CheckpointError, KeyboardInterrupt)):
        make_model(seed=1).save(saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def raising(error):
    def fail(*_, **__):
        raise error
    return fail


def test_a_file_truncated_at_any_place_is_refused(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        assert saved.name in load_error(saved)


def test_a_file_with_bytes_after_its_end_is_refused(saved):
    saved.write_bytes(saved.read_bytes() + b"more")
    assert saved.name in load_error(saved)


@pytest.mark.parametrize("contents", (b"", b"a letter, not a checkpoint\n", b"\x00" * 64, b"\xff" * 64,
                                      b"PK\x03\x04" + bytes(200), struct.pack("<Q", 2**62) + b"{}",
                                      struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 4) + b"null"))
def test_a_file_that_is_something_else_is_refused(tmp_path, contents):
    path = tmp_path / "something.safetensors"
    path.write_bytes(contents)
    assert path.name in load_error(path)


@pytest.mark.parametrize("metadata", (None, {"format": "pt"}))
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(2, 2)}, path, metadata=metadata)
    message = load_error(path)
    assert path.name in message and "not a checkpoint of this package" in message


def test_a_torch_pickle_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(make_model().state_dict(), path)
    assert path.name in load_error(path)


def test_a_missing_file_and_an_unknown_name_list_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "data", lambda: tmp_path)
    for name in ("recall", "text"):
        make_model().save(tmp_path / f"{name}.safetensors")
    for name_or_path in ("reczll", tmp_path / "nothing.safetensors", tmp_path):
        assert_one_line(load_error(name_or_path), str(name_or_path), "'recall'", "'text'")
    assert RMAT.from_checkpoint("recall").config == make_model().config


def test_a_name_too_long_for_a_file_is_refused():
    assert len(load_error("a" * 5000)) < 500


@pytest.mark.parametrize("value", (None, 3, ["recall"], b"recall"))
def test_what_is_no_name_and_no_path_is_refused(value):
    with pytest.raises(TypeError) as error:
        RMAT.from_checkpoint(value)
    assert_one_line(str(error.value), "name_or_path", repr(value))


def test_equal_models_give_equal_files(tmp_path):
    model = make_model()
    files = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for file in files:
        model.save(file, extra={"task": {"kind": "recall"}, "note": "the same"})
    assert len({file.read_bytes() for file in files}) == 1


def test_every_shipped_checkpoint_loads():
    shipped = {path.stem for path in folders.data().glob("*.safetensors")}
    assert shipped >= {"recall", "text"}
    for name in shipped:
        assert torch.isfinite(RMAT.from_checkpoint(name)(random_tokens(1, 5, 4)).logits).all()
        assert (folders.data() / f"{name}.safetensors").stat().st_size < 2_000_000


def drop_tensor(tensors, metadata):
    del tensors["head.weight"]


def add_tensor(tensors, metadata):
    tensors["surplus"] = torch.ones(2)


def wrong_shape(tensors, metadata):
    tensors["norm.weight"] = torch.ones(9, dtype=torch.float64)


def wrong_dtype(tensors, metadata):
    for name in tensors:
        tensors[name] = tensors[name].long()


def mixed_dtype(tensors, metadata):
    tensors["norm.weight"] = tensors["norm.weight"].float()


def not_json(tensors, metadata):
    key = next(key for key, value in metadata.items() if "d_model" in value)
    metadata[key] = metadata[key][:-5]


def not_an_object(tensors, metadata):
    key = next(key for key, value in metadata.items() if "d_model" in value)
    metadata[key] = '["d_model"]'


def extra_is_a_list(tensors, metadata):
    metadata["rmat_tutorial"] = json.dumps(json.loads(metadata["rmat_tutorial"]) | {"extra": ["task"]})


@pytest.mark.parametrize("change, fragments", [
    (extra_is_a_list, ["damaged header", "extra"]),
    (drop_tensor, ["head.weight"]),
    (add_tensor, ["surplus"]),
    (wrong_shape, ["norm.weight", "(8,)", "(9,)"]),
    (wrong_dtype, ["int64"]),
    (mixed_dtype, ["norm.weight", "float32", "float64"]),
    (not_json, []),
    (not_an_object, []),
    (change_config(d_model=12), ["shape"]),
    (change_config(d_model=9), ["d_model", "9"]),
    (change_config(colour="red"), ["colour"]),
    (change_config(d_model=None), ["d_model"]),
    (change_config(paths=["full"]), ["memory"]),
    (change_config(gate="relu"), ["gate", "'relu'"]),
    (change_config(n_heads="four"), ["n_heads", "'four'"]),
])
def test_a_file_whose_contents_do_not_fit_is_refused(saved, change, fragments):
    rewrite(saved, change)
    assert_one_line(load_error(saved), saved.name, *fragments)


def test_what_is_not_a_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(CheckpointError) as error:
        make_model().save(pipe)
    assert_one_line(str(error.value), "pipe", "not a file")
    assert pipe.is_fifo()


def test_a_place_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError) as error:
        make_model().save(tmp_path / "file" / "model.safetensors")
    assert_one_line(str(error.value), "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        make_model().save(tmp_path)
    assert_one_line(str(error.value), tmp_path.name)
