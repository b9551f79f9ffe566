"""A file or a folder of the reader's own as a corpus: looked through once, then memory-mapped where it is read."""

from __future__ import annotations

import hashlib
import os
import stat
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from .corpora import SHARES, SPLITS, Corpus, CorpusError, place_of, split_of
from .validate import require_choice

BAR_AFTER = 1.0  # seconds of reading after which a progress bar is shown
CHUNK = 1 << 20  # bytes read at a time to be hashed
BINARY_WITHIN = 8192  # bytes; a zero among the first so many marks a file that is no text
BINARY = "is binary, not text; its bytes are read as they are"


class Document(NamedTuple):
    """A stretch of a file: ``length`` bytes from ``offset`` on. ``name`` is relative to the folder it lies in."""

    name: str
    offset: int
    length: int


class MappedFiles:
    """The bytes of documents, one after the other. A file is mapped while a stretch of it is copied, and no longer."""

    def __init__(self, folder: Path, documents: Sequence[Document]) -> None:
        self.folder, self.documents = folder, documents
        self.edges = [0, *accumulate(document.length for document in documents)]

    def __len__(self) -> int:
        return self.edges[-1]

    def __getitem__(self, stretch: slice) -> np.ndarray:
        """Raises ``CorpusError`` when a file has changed or gone since it was looked through."""
        start, stop, _ = stretch.indices(len(self))
        parts = [np.empty(0, dtype=np.uint8)]
        while start < stop:
            index = bisect_right(self.edges, start) - 1
            end = min(stop, self.edges[index + 1])
            parts.append(self._mapped(self.documents[index], start - self.edges[index], end - start))
            start = end
        return np.concatenate(parts)

    def _mapped(self, document: Document, start: int, length: int) -> np.ndarray:
        path = self.folder / document.name
        try:
            return np.memmap(path, np.uint8, "r", offset=document.offset + start, shape=(length,))
        except (OSError, ValueError) as error:  # ValueError: nothing can be mapped beyond the end
            reason = error.strerror if isinstance(error, OSError) else "it is shorter than it was"
            raise CorpusError(f"{_printable(path)} changed while it was in use: {reason}") from error


@dataclass(frozen=True)
class OwnText:
    """A file or a folder that was looked through: each file in it is a document.

    Attributes:
        name: of the file or folder, for people.
        fingerprint: of a file the SHA-256 of its bytes; of a folder the SHA-256 of every document's name and SHA-256.
        folder: where the documents lie: the folder itself, or the one that the file is in.
        documents: whole files, sorted by name; at least one, and each of at least one byte.
        cuttable: a file, whose one document is cut into splits; the documents of a folder stay whole.
        notes: what the reader should know, such as files that were left out; sentences.
    """

    name: str
    fingerprint: str
    folder: Path
    documents: tuple[Document, ...]
    cuttable: bool
    notes: tuple[str, ...] = ()

    def corpus(self, split: str = "all") -> Corpus:
        """All of it, or one of three parts: 90 % train, 5 % validation, 5 % test.

        A file is cut twice, and its parts are contiguous. The documents of a folder stay whole: a hash of a name
        decides where the document goes (``split_of``), and a split that would have none gets one of another's.

        Raises:
            CorpusError: a folder of fewer than three documents has no splits.
        """
        require_choice("split", split, (*SPLITS, "all"))
        if split == "all":
            chosen = self.documents
        elif self.cuttable:
            chosen = (_cut(self.documents[0], split),)
        else:
            chosen = self._by_name()[split]
        lengths = [document.length for document in chosen]
        return Corpus(MappedFiles(self.folder, chosen), self.name, self.fingerprint, split, lengths)

    def _by_name(self) -> dict[str, list[Document]]:
        if len(self.documents) < len(SPLITS):
            raise CorpusError(
                f"{self.name} holds too few documents for three splits, {len(self.documents)}; "
                "use a folder of at least 3 files, or name one file, which is cut into three parts"
            )
        parts: dict[str, list[Document]] = {split: [] for split in SPLITS}
        for document in sorted(self.documents, key=lambda document: place_of(document.name)):
            parts[split_of(document.name)].append(document)
        for part in parts.values():
            if not part:
                part.append(max(parts.values(), key=len).pop())
        return {split: sorted(part) for split, part in parts.items()}


def _cut(document: Document, split: str) -> Document:
    """One of the three contiguous parts of a document."""
    index = SPLITS.index(split)
    start, stop = (round(document.length * sum(SHARES[:end])) for end in (index, index + 1))
    return document._replace(offset=start, length=stop - start)


def own_text(path: str | Path) -> OwnText:
    """Look through a file, or through a folder and the folders in it.

    Bytes are bytes: a file of any kind works. Of a folder, hidden files and folders (``.name``), empty files, and
    whatever cannot be read is left out. So are links: their target may lie in the folder too, in another split, or
    hold the link itself. Every byte is read once, for the fingerprint.

    Raises:
        CorpusError: there is nothing at ``path``, it cannot be read, or it holds no byte.
    """
    path = Path(path)
    try:
        kind = path.stat().st_mode
        if stat.S_ISREG(kind):
            return _file(path)
        if stat.S_ISDIR(kind):
            return _folder(path)
    except FileNotFoundError as error:
        raise CorpusError(f"there is no file or folder {_printable(path)}") from error
    except OSError as error:
        raise CorpusError(f"{_printable(path)} cannot be read: {error.strerror}") from error
    raise CorpusError(f"{_printable(path)} is neither a file nor a folder; name one of these")


def _file(path: Path) -> OwnText:
    with _bar(path.stat().st_size) as bar:
        looked = _look(path, bar)
    if not looked.length:
        raise CorpusError(f"{_printable(path)} is empty; a corpus needs at least a few thousand bytes")
    document = Document(path.name, 0, looked.length)
    notes = (f"{_printable(path.name)} {BINARY}",) if looked.binary else ()
    return OwnText(_printable(path.name), looked.digest.hex(), path.parent, (document,), cuttable=True, notes=notes)


def _folder(root: Path) -> OwnText:
    left_out: Counter[str] = Counter()
    documents, binary, fingerprint = [], [], hashlib.sha256()
    found = sorted(_walk(root, left_out))
    with _bar(sum(size for _, size in found)) as bar:
        for name, _ in found:
            try:
                looked = _look(root / name, bar)
            except OSError as error:
                left_out[_unreadable(error)] += 1
                continue
            if not looked.length:
                left_out["empty"] += 1
                continue
            documents.append(Document(name, 0, looked.length))
            # A name holds no zero byte and a digest has a fixed length: what is hashed can be read in one way only.
            fingerprint.update(name.encode("utf-8", "surrogateescape") + b"\0" + looked.digest)
            if looked.binary:
                binary.append(name)
    counts = ", ".join(f"{count} {what}" for what, count in sorted(left_out.items()))
    notes = [f"left out: {counts}"] if counts else []
    if not documents:
        raise CorpusError("; ".join([f"{_printable(root)} holds no file to read", *notes]))
    if binary:
        notes.append(f"{len(binary)} of {len(documents)} files, such as {_printable(binary[0])}: each {BINARY}")
    name = _printable(root.resolve().name or root)
    return OwnText(name, fingerprint.hexdigest(), root, tuple(documents), cuttable=False, notes=tuple(notes))


def _walk(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, int]]:
    """Names and bytes of the files under ``root``; what is hidden, a link or no file is counted instead."""

    def refused(error: OSError) -> None:
        if Path(error.filename) == root:
            raise error
        left_out[_unreadable(error)] += 1

    walk = os.walk(root, onerror=refused)
    for parent, folders, files in tqdm(walk, desc="looking through", unit=" folders", leave=False, delay=BAR_AFTER):
        within = list(folders)
        folders.clear()  # what is put back is walked through
        for name in [*within, *files]:
            path = Path(parent, name)
            try:
                status = path.lstat()
            except OSError as error:  # its folder can be listed and not entered
                left_out[_unreadable(error)] += 1
                continue
            if name.startswith("."):
                left_out["hidden"] += 1
            elif stat.S_ISLNK(status.st_mode):
                left_out["links"] += 1
            elif stat.S_ISDIR(status.st_mode):
                folders.append(name)
            elif stat.S_ISREG(status.st_mode):
                yield path.relative_to(root).as_posix(), status.st_size
            else:
                left_out["devices and the like"] += 1


class _Looked(NamedTuple):
    length: int
    digest: bytes
    binary: bool


def _look(path: Path, bar: tqdm) -> _Looked:
    """Read a file once: its length, its SHA-256, and whether it looks binary."""
    length, digest, binary = 0, hashlib.sha256(), False
    # Read, not mapped: a mapped page counts as the process's memory from when it was first looked at.
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            binary |= not length and b"\0" in chunk[:BINARY_WITHIN]
            length += len(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return _Looked(length, digest.digest(), binary)


def _bar(total: int) -> tqdm:
    return tqdm(total=total, desc="looking through", unit="B", unit_scale=True, leave=False, delay=BAR_AFTER)


def _unreadable(error: OSError) -> str:
    return f"unreadable ({error.strerror})"


def _printable(name: str | Path) -> str:
    """A name in one line that any terminal takes, whatever bytes it is made of."""
    return repr(str(name))[1:-1]
