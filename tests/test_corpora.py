"""Text as bytes: the installed text is the same everywhere, splits never mix, and a file of any kind works."""

import hashlib
import os

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_one_line

from rmat_tutorial import corpora, folders
from rmat_tutorial.corpora import (
    Corpus,
    CorpusError,
    dedent,
    document,
    file_corpus,
    installed_corpus,
    installed_document,
    installed_modules,
    split_of,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def counted(tmp_path):
    """A file of 1000 bytes that count up, so that a byte says where it stood."""
    path = tmp_path / "counted.bin"
    path.write_bytes(bytes(i % 251 for i in range(1000)))
    return path


def test_the_installed_text_is_the_courses():
    parts = [installed_corpus(split, progress=False) for split in corpora.SPLITS]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(bytes(part.data))
    assert digest.hexdigest() == corpora.FINGERPRINT
    assert {part.split: len(part) for part in parts} == corpora.SPLIT_BYTES
    assert isinstance(parts[0].data, np.memmap)
    assert parts[0].describe()["name"] == "sympy 1.14.0 and networkx 3.6.1"


def test_a_split_is_the_documents_whose_names_say_so():
    test = bytes(installed_corpus("test", progress=False).data)
    path = min(named for named in corpora._modules() if split_of(named[0]) == "test")[1]
    assert test.startswith(document(path.read_text(encoding="utf-8")).encode())
    other = next(path for name, path in sorted(corpora._modules()) if split_of(name) == "train")
    assert document(other.read_text(encoding="utf-8")).encode() not in test
    assert not any("tests" in name.split("/") for name, _ in corpora._modules())


def test_every_module_is_in_one_split_and_named_once():
    names = [name for split in corpora.SPLITS for name in installed_modules(split)]
    assert len(names) == len(set(names)) == len(list(corpora._modules()))
    assert all(split_of(name) == "test" for name in installed_modules("test"))


def test_one_document_is_the_one_in_the_corpus(monkeypatch):
    first, *_ = installed_modules("test")
    assert bytes(installed_corpus("test", progress=False).data).startswith(installed_document(first).encode())
    for name in ("networkx/no_such.py", "networkx", "numpy/version.py"):
        with pytest.raises(CorpusError) as error:
            installed_document(name)
        assert_one_line(str(error.value), name, "sympy or networkx")
    monkeypatch.setitem(corpora.PACKAGES, "sympy", "1.13.0")
    with pytest.raises(CorpusError, match=r"found 1\.14\.0"):
        installed_document(first)


@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: b"x" + text[1:], lambda text: b""])
def test_a_damaged_cache_is_built_again(damage, monkeypatch):
    monkeypatch.setattr(corpora, "_installed_text", lambda progress: b"the text, rebuilt")
    monkeypatch.setattr(corpora, "FINGERPRINT", hashlib.sha256(b"the text, rebuilt").hexdigest())
    cache = folders.home() / "installed-text.bin"
    kept = cache.read_bytes() if cache.exists() else None
    try:
        cache.write_bytes(damage(b"the text, rebuilt"))
        installed_corpus("train")
        assert cache.read_bytes() == b"the text, rebuilt"
    finally:
        cache.unlink() if kept is None else cache.write_bytes(kept)
    assert [path.name for path in folders.home().glob("*.tmp")] == []


def test_other_versions_are_refused(monkeypatch):
    monkeypatch.setitem(corpora.PACKAGES, "sympy", "1.13.0")
    with pytest.raises(CorpusError) as error:
        installed_corpus()
    assert_one_line(str(error.value), "sympy 1.13.0", "found 1.14.0", "pip install sympy==1.13.0")


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(corpora, "PACKAGES", {"no-such-package": "1.0"})
    with pytest.raises(CorpusError) as error:
        installed_corpus()
    assert_one_line(str(error.value), "no-such-package 1.0", "found none")


def test_changed_package_files_are_noticed(monkeypatch, tmp_path):
    (tmp_path / "module.py").write_text("x = 1\n")
    monkeypatch.setattr(corpora, "_modules", lambda: [("sympy/module.py", tmp_path / "module.py")])
    with pytest.raises(CorpusError) as error:
        corpora._installed_text(progress=False)
    assert_one_line(str(error.value), "SHA-256", "pip install --force-reinstall")


def test_a_document_has_docstrings_first_and_nothing_twice():
    source = '"""Top."""\nimport os\n\ndef f():\n    """Say.\n\n    This\n      more\n    """\n    return 1\n\nx = 0\n'
    assert document(source) == 'Top.\n\nSay.\n\nThis\n  more\n\nimport os\n\ndef f():\n    return 1\n\nx = 0\n\n\n'
    assert dedent("one line") == "one line"
    assert dedent("first\n\n    second\n      third\n    ") == "first\n\nsecond\n  third"


def test_splits_are_decided_by_the_name_and_have_their_shares():
    splits = [split_of(f"package/module_{i}.py") for i in range(4000)]
    for split, share in zip(corpora.SPLITS, corpora.SHARES, strict=True):
        assert abs(splits.count(split) / 4000 - share) < 0.02


def test_a_file_is_cut_into_three_parts_that_join(counted):
    whole = counted.read_bytes()
    parts = [file_corpus(counted, split) for split in corpora.SPLITS]
    assert b"".join(bytes(part.data) for part in parts) == whole
    assert [len(part) for part in parts] == [900, 50, 50]
    assert bytes(file_corpus(counted).data) == whole
    assert {part.fingerprint for part in parts} == {hashlib.sha256(whole).hexdigest()}


@given(st.integers(1, 200), st.integers(1, 220), st.integers(1, 4), st.integers(0, 100))
def test_a_stream_is_its_batch_for_every_piece_size(tokens, piece, rows, seed):
    corpus = Corpus(np.arange(256, dtype=np.uint8), "counting", "", "all")
    whole = corpus.batch(rows, tokens, generator(seed))
    pieces = list(corpus.stream(rows, tokens, piece, generator(seed)))
    assert [part.shape[1] for part, _ in pieces[:-1]] == [piece] * (len(pieces) - 1)
    for index in (0, 1):
        assert torch.equal(torch.cat([part[index] for part in pieces], dim=1), whole[index])
    tokens_read, targets = whole
    assert tokens_read.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, tokens_read + 1)
    assert torch.equal(tokens_read, tokens_read[:, :1] + torch.arange(tokens))


def test_stretches_reach_both_ends():
    corpus = Corpus(np.arange(20, dtype=np.uint8), "counting", "", "all")
    starts = corpus.batch(500, 15, generator())[0][:, 0]
    assert sorted(set(starts.tolist())) == [0, 1, 2, 3, 4]


def test_a_text_that_is_too_short_says_so(counted):
    with pytest.raises(CorpusError) as error:
        file_corpus(counted, "test").batch(1, 50, generator())
    assert_one_line(str(error.value), "tokens = 50", "51 bytes", "test split of counted.bin has 50")


def test_a_large_file_is_not_loaded(tmp_path):
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(1 << 28)
    before = psutil.Process().memory_info().rss
    corpus = file_corpus(path)
    tokens, _ = corpus.batch(4, 100, torch.Generator().manual_seed(0))
    assert len(corpus) == 1 << 28 and tokens.shape == (4, 100)
    assert psutil.Process().memory_info().rss - before < 1 << 26


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    for path, fragments in (
        (tmp_path / "missing", ("there is no file", "missing")),
        (tmp_path / "empty", ("empty is empty",)),
        (tmp_path, ("is not a file",)),
        ("/dev/null", ("is not a file",)),
    ):
        with pytest.raises(CorpusError) as error:
            file_corpus(path)
        assert_one_line(str(error.value), *fragments)
    with pytest.raises(ValueError, match="split must be one of"):
        file_corpus(tmp_path / "empty", "dev")


def test_a_file_without_permission_says_so(tmp_path, monkeypatch):
    path = tmp_path / "private"
    path.write_bytes(b"secret")

    def refuse(*_, **__):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(corpora.np, "memmap", refuse)
    with pytest.raises(CorpusError) as error:
        file_corpus(path)
    assert_one_line(str(error.value), "private cannot be read", "Permission denied")
