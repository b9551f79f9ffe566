"""A file or a folder of the reader's own: every kind works, or one line says why it does not."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_one_line

from rmat_tutorial.corpora import SPLITS, CorpusError, split_of
from rmat_tutorial.own_text import Document, MappedFiles, own_text


@pytest.fixture
def counted(tmp_path):
    """A file of 1000 bytes that count up, so that a byte says where it stood."""
    path = tmp_path / "counted.bin"
    path.write_bytes(bytes(1 + i % 251 for i in range(1000)))
    return path


def write(folder: Path, **files: bytes) -> Path:
    """A folder with these files; ``__`` in a name stands for a folder's end, ``_`` for a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def contents(corpus) -> list[bytes]:
    return [bytes(corpus.data[start:stop]) for start, stop in corpus.documents]


# Files.


def test_a_file_is_cut_into_three_parts_that_join(counted):
    whole, text = counted.read_bytes(), own_text(counted)
    parts = [text.corpus(split) for split in SPLITS]
    assert b"".join(bytes(part.data[:]) for part in parts) == whole
    assert [part.documents.tolist() for part in parts] == [[[0, 900]], [[0, 50]], [[0, 50]]]
    assert contents(text.corpus()) == [whole]
    assert {part.fingerprint for part in parts} == {hashlib.sha256(whole).hexdigest()}
    assert text.corpus("test").describe()["name"] == "counted.bin"
    assert text.notes == ()


def test_a_large_file_is_not_loaded(tmp_path):
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(1 << 28)
    before = psutil.Process().memory_info().rss
    corpus = own_text(path).corpus()
    tokens, _ = corpus.batch(4, 100, torch.Generator().manual_seed(0))
    assert len(corpus) == 1 << 28 and tokens.shape == (4, 100)
    assert psutil.Process().memory_info().rss - before < 1 << 26


def test_a_binary_file_works_and_is_said_to_be_binary(tmp_path):
    content = os.urandom(100) + b"\0" + os.urandom(100)
    (tmp_path / "photo.jpg").write_bytes(content)
    text = own_text(tmp_path / "photo.jpg")
    assert contents(text.corpus()) == [content]
    assert_one_line(*text.notes, "photo.jpg is binary")


def test_what_cannot_be_a_text(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nothing").mkdir()
    for path, fragments in (
        (tmp_path / "missing", ("there is no file or folder", "missing")),
        (tmp_path / "empty", ("empty is empty",)),
        (tmp_path / "loop", ("loop cannot be read", "symbolic links")),
        (tmp_path / "empty" / "inside", ("inside cannot be read", "Not a directory")),
        (tmp_path / ("long" * 100), ("cannot be read", "name too long")),
        (tmp_path / "nothing", ("nothing holds no file to read",)),
        ("/dev/null", ("/dev/null is neither a file nor a folder",)),
    ):
        with pytest.raises(CorpusError) as error:
            own_text(path)
        assert_one_line(str(error.value), *fragments)
    with pytest.raises(ValueError, match="split must be one of"):
        own_text(write(tmp_path / "full", a=b"text")).corpus("dev")


def refuse(name: str, monkeypatch) -> None:
    """Let no file or folder of this name be opened: to root, permissions would be no obstacle."""
    open_, scandir = Path.open, os.scandir

    def refusing(function, path, *arguments):
        if Path(path).name == name:
            raise PermissionError(13, os.strerror(13), str(path))
        return function(path, *arguments)

    monkeypatch.setattr(Path, "open", lambda path, *arguments: refusing(open_, path, *arguments))
    monkeypatch.setattr(os, "scandir", lambda path: refusing(scandir, path))


def test_a_file_or_folder_without_permission_says_so(tmp_path, monkeypatch):
    write(tmp_path, private=b"secret", closed__file=b"secret")
    refuse("private", monkeypatch)
    refuse("closed", monkeypatch)
    for name in ("private", "closed"):
        with pytest.raises(CorpusError) as error:
            own_text(tmp_path / name)
        assert_one_line(str(error.value), f"{name} cannot be read", "Permission denied")


# Folders.


names = st.text("abcdefgh", min_size=1, max_size=3)


@given(st.dictionaries(st.lists(names, min_size=1, max_size=3).map(".x/".join), st.binary(min_size=1, max_size=9),
                       min_size=3, max_size=12))
def test_a_folder_has_a_document_for_each_file_and_a_split_for_each_document(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("folder")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    text = own_text(folder)
    assert contents(text.corpus()) == [files[name] for name in sorted(files)]
    parts = {split: [document.name for document in text._by_name()[split]] for split in SPLITS}
    assert sorted(name for part in parts.values() for name in part) == sorted(files)
    by_name = {split: sorted(name for name in files if split_of(name) == split) for split in SPLITS}
    assert all(parts.values())
    assert parts == by_name or not all(by_name.values())
    for split in SPLITS:
        assert contents(text.corpus(split)) == [files[name] for name in sorted(parts[split])]
        assert text.corpus(split).fingerprint == text.fingerprint


def test_a_large_folder_is_split_by_the_names_alone(tmp_path):
    texts = write(tmp_path, **{f"n{i}": b"%d" % i for i in range(300)})
    before = own_text(texts)._by_name()
    write(tmp_path, another=b"text")
    after = own_text(texts)._by_name()
    assert all(set(before[split]) <= set(after[split]) for split in SPLITS)
    assert all(split_of(document.name) == split for split in SPLITS for document in after[split])


def test_the_fingerprint_of_a_folder_is_of_names_and_contents(tmp_path):
    first = own_text(write(tmp_path / "first", a=b"one", b=b"two", c__d=b"three"))
    same = own_text(write(tmp_path / "same", c__d=b"three", b=b"two", a=b"one", _hidden=b"x", e=b""))
    assert same.fingerprint == first.fingerprint
    for other in (
        {"a": b"one", "b": b"two", "c__e": b"three"},
        {"a": b"one", "b": b"tw", "c__d": b"othree"},
        {"a": b"one", "b": b"two", "c__d": b"threE"},
        {"a": b"one", "b": b"two"},
    ):
        folder = tmp_path / hashlib.sha256(repr(other).encode()).hexdigest()
        assert own_text(write(folder, **other)).fingerprint != first.fingerprint


def test_a_folder_says_what_it_left_out(tmp_path, monkeypatch):
    write(tmp_path / "texts", a=b"one", b=b"\0binary", c__d=b"three", empty=b"", private=b"secret", closed__x=b"secret",
          _hidden=b"x", _git__config=b"y")
    (tmp_path / "outside").write_bytes(b"outside")
    (tmp_path / "texts" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "texts" / "c" / "loop").symlink_to(tmp_path / "texts")
    os.mkfifo(tmp_path / "texts" / "pipe")
    refuse("private", monkeypatch)
    refuse("closed", monkeypatch)
    text = own_text(tmp_path / "texts")
    assert [document.name for document in text.documents] == ["a", "b", "c/d"]
    left_out, binary = text.notes
    assert_one_line(left_out, "1 empty", "2 hidden", "2 links", "1 devices", "2 unreadable (Permission denied)")
    assert_one_line(binary, "1 of 3 files", "such as b", "binary")
    for name in ("a", "b", "c/d"):
        (tmp_path / "texts" / name).unlink()
    with pytest.raises(CorpusError) as error:
        own_text(tmp_path / "texts")
    assert_one_line(str(error.value), "texts holds no file to read", left_out)


def test_a_folder_that_nobody_may_enter_is_left_out(tmp_path, monkeypatch):
    write(tmp_path, a=b"one", listed__b=b"two")
    lstat = Path.lstat

    def refusing(path):
        if path.parent.name == "listed":
            raise PermissionError(13, os.strerror(13), str(path))
        return lstat(path)

    monkeypatch.setattr(Path, "lstat", refusing)
    text = own_text(tmp_path)
    assert [document.name for document in text.documents] == ["a"]
    assert_one_line(*text.notes, "1 unreadable (Permission denied)")


@pytest.mark.parametrize("files", [1, 2])
def test_a_folder_of_few_files_has_no_splits(tmp_path, files):
    text = own_text(write(tmp_path / "few", **{f"n{i}": b"text" for i in range(files)}))
    assert len(text.corpus().documents) == files
    with pytest.raises(CorpusError) as error:
        text.corpus("train")
    assert_one_line(str(error.value), f"few holds too few documents for three splits, {files}", "at least 3")


def test_the_folder_one_stands_in_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path / "texts", a=b"one"))
    assert own_text(".").name == "texts"


def test_a_name_that_is_no_text_is_read_and_shown_in_one_line(tmp_path):
    name = os.fsdecode(b"caf\xe9\n.txt")
    (tmp_path / name).write_bytes(b"\0")
    for text in (own_text(tmp_path), own_text(tmp_path / name)):
        assert contents(text.corpus()) == [b"\0"]
        assert_one_line(*text.notes, "caf\\udce9\\n.txt")
        text.notes[0].encode("utf-8")


# Mapped files.


@given(st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_mapped_files_slice_as_their_joined_bytes(tmp_path_factory, parts, data):
    folder = write(tmp_path_factory.mktemp("mapped"), **{f"n{i}": b"ab" + part for i, part in enumerate(parts)})
    mapped = MappedFiles(folder, [Document(f"n{i}", 2, len(part)) for i, part in enumerate(parts)])
    joined = b"".join(parts)
    assert len(mapped) == len(joined)
    start, stop = (data.draw(st.none() | st.integers(-50, 50)) for _ in range(2))
    assert bytes(mapped[start:stop]) == joined[start:stop]


def test_a_file_that_changes_while_it_is_used_is_named(tmp_path):
    corpus = own_text(write(tmp_path, a=b"a" * 9000, b=b"b")).corpus()
    (tmp_path / "a").write_bytes(b"a" * 100)
    assert bytes(corpus.data[:100]) == b"a" * 100
    with pytest.raises(CorpusError) as error:
        corpus.data[50:200]
    assert_one_line(str(error.value), "a changed while it was in use", "shorter")
    (tmp_path / "b").unlink()
    with pytest.raises(CorpusError) as error:
        corpus.data[9000:]
    assert_one_line(str(error.value), "b changed while it was in use", "No such file")


def test_reading_a_large_folder_takes_no_memory(tmp_path):
    for name in "abc":
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 26)
    code = """
import resource, sys, torch
from rmat_tutorial.own_text import own_text
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
corpus = own_text(sys.argv[1]).corpus()
for start in range(0, len(corpus) - 5000, 1 << 20):
    corpus.read(torch.tensor([start]), 4096)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent.parent,
                          capture_output=True, text=True, check=True)
    assert int(done.stdout) * (1 if sys.platform == "darwin" else 1024) < 1 << 25
