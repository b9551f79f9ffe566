"""The installed text is the same everywhere, and what is kept of it is checked and built again when it is damaged."""

import hashlib
import re

import numpy as np
import pytest
from strategies import assert_one_line

from rmat_tutorial import folders, installed_text
from rmat_tutorial.corpora import SPLITS, CorpusError, split_of
from rmat_tutorial.installed_text import (
    dedent,
    document,
    installed_corpus,
    installed_document,
    installed_modules,
)

SPLIT_BYTES = {"train": 17_284_786, "validation": 752_160, "test": 1_018_832}
SPLIT_DOCUMENTS = {"train": 990, "validation": 62, "test": 61}


def test_the_installed_text_is_the_courses():
    parts = [installed_corpus(split, progress=False) for split in SPLITS]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(bytes(part.data))
    assert digest.hexdigest() == installed_text.FINGERPRINT
    assert {part.split: len(part) for part in parts} == SPLIT_BYTES
    assert {part.split: len(part.documents) for part in parts} == SPLIT_DOCUMENTS
    assert isinstance(parts[0].data, np.memmap)
    assert parts[0].describe() == {
        "kind": "text", "name": "sympy 1.14.0 and networkx 3.6.1", "fingerprint": installed_text.FINGERPRINT,
        "split": "train", "bytes": 17_284_786,
    }


def test_the_table_of_the_text_is_right():
    table = re.findall(r"^\| (\w+) \| (\d+) \| ([\d ]+) \|$", (folders.data() / "README.md").read_text(), re.MULTILINE)
    assert {split: int(documents) for split, documents, _ in table} == SPLIT_DOCUMENTS
    assert {split: int(size.replace(" ", "")) for split, _, size in table} == SPLIT_BYTES


def test_each_document_is_a_module_whose_name_chose_the_split():
    corpus = installed_corpus("test", progress=False)
    modules = sorted(named for named in installed_text._modules() if split_of(named[0]) == "test")
    assert len(modules) == len(corpus.documents)
    for (_, path), (start, stop) in list(zip(modules, corpus.documents, strict=True))[::10]:
        assert bytes(corpus.data[start:stop]).decode() == document(path.read_text(encoding="utf-8"))
    other = next(path for name, path in sorted(installed_text._modules()) if split_of(name) == "train")
    assert document(other.read_text(encoding="utf-8")).encode() not in bytes(corpus.data)
    assert not any("tests" in name.split("/") for name, _ in installed_text._modules())


@pytest.fixture
def rebuilt(monkeypatch):
    """A text of two documents in place of the installed one; the names of both are of the split train."""
    text, index = b"one\ntwo, rebuilt\n", b"4 b.py\n13 c.py\n"
    assert {split_of(name) for name in ("b.py", "c.py")} == {"train"}
    monkeypatch.setattr(installed_text, "_build", lambda progress: (text, index))
    monkeypatch.setattr(installed_text, "FINGERPRINT", hashlib.sha256(text).hexdigest())
    monkeypatch.setattr(installed_text, "INDEX_FINGERPRINT", hashlib.sha256(index).hexdigest())
    files = [folders.home() / "installed-text.bin", folders.home() / "installed-text.index"]
    kept = [file.read_bytes() if file.exists() else None for file in files]
    yield dict(zip(files, (text, index), strict=True))
    for file, content in zip(files, kept, strict=True):
        file.unlink() if content is None else file.write_bytes(content)
    assert [path.name for path in folders.home().glob("*.tmp")] == []


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("damage", [lambda text: text[:-1], lambda text: b"x" + text[1:], lambda text: b"", None])
def test_what_is_damaged_or_missing_is_built_again(damage, number, rebuilt):
    for file, content in rebuilt.items():
        file.write_bytes(content)
    damaged = list(rebuilt)[number]
    damaged.unlink() if damage is None else damaged.write_bytes(damage(rebuilt[damaged]))
    corpus = installed_corpus("train")
    assert {file: file.read_bytes() for file in rebuilt} == rebuilt
    assert corpus.documents.tolist() == [[0, 4], [4, 17]]
    assert bytes(corpus.data) == b"one\ntwo, rebuilt\n"


def test_what_is_whole_is_not_built_again(rebuilt, monkeypatch):
    for file, content in rebuilt.items():
        file.write_bytes(content)
    monkeypatch.setattr(installed_text, "_build", lambda progress: pytest.fail("built again"))
    assert len(installed_corpus("train")) == 17


def test_other_versions_are_refused(monkeypatch):
    monkeypatch.setitem(installed_text.PACKAGES, "sympy", "1.13.0")
    with pytest.raises(CorpusError) as error:
        installed_corpus()
    assert_one_line(str(error.value), "sympy 1.13.0", "found 1.14.0", "pip install sympy==1.13.0")


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(installed_text, "PACKAGES", {"no-such-package": "1.0"})
    with pytest.raises(CorpusError) as error:
        installed_corpus()
    assert_one_line(str(error.value), "no-such-package 1.0", "found none")


def test_changed_package_files_are_noticed(monkeypatch, tmp_path):
    (tmp_path / "module.py").write_text("x = 1\n")
    monkeypatch.setattr(installed_text, "_modules", lambda: [("sympy/module.py", tmp_path / "module.py")])
    with pytest.raises(CorpusError) as error:
        installed_text._build(progress=False)
    assert_one_line(str(error.value), "SHA-256", "pip install --force-reinstall")


def test_a_document_has_docstrings_first_and_nothing_twice():
    source = '"""Top."""\nimport os\n\ndef f():\n    """Say.\n\n    This\n      more\n    """\n    return 1\n\nx = 0\n'
    assert document(source) == 'Top.\n\nSay.\n\nThis\n  more\n\nimport os\n\ndef f():\n    return 1\n\nx = 0\n\n\n'
    assert dedent("one line") == "one line"
    assert dedent("first\n\n    second\n      third\n    ") == "first\n\nsecond\n  third"


def test_every_module_is_in_one_split_and_named_once():
    names = [name for split in SPLITS for name in installed_modules(split)]
    assert len(names) == len(set(names)) == len(installed_text._modules())
    assert all(split_of(name) == "test" for name in installed_modules("test"))


def test_one_document_is_the_one_in_the_corpus(monkeypatch):
    first, *_ = installed_modules("test")
    assert bytes(installed_corpus("test", progress=False).data).startswith(installed_document(first).encode())
    for name in ("networkx/no_such.py", "networkx", "numpy/version.py"):
        with pytest.raises(CorpusError) as error:
            installed_document(name)
        assert_one_line(str(error.value), name, "sympy or networkx")
    monkeypatch.setitem(installed_text.PACKAGES, "sympy", "1.13.0")
    with pytest.raises(CorpusError, match=r"found 1\.14\.0"):
        installed_document(first)
