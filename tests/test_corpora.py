"""Text as bytes: stretches of any length, targets one byte later, documents that join, splits decided by names."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_one_line

from rmat_tutorial import corpora
from rmat_tutorial.corpora import Corpus, CorpusError, split_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_splits_are_decided_by_the_name_and_have_their_shares():
    splits = [split_of(f"package/module_{i}.py") for i in range(4000)]
    for split, share in zip(corpora.SPLITS, corpora.SHARES, strict=True):
        assert abs(splits.count(split) / 4000 - share) < 0.02


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


def test_a_text_that_is_too_short_says_so():
    corpus = Corpus(np.zeros(50, dtype=np.uint8), "brief.txt", "", "test")
    assert corpus.batch(1, 49, generator())[0].shape == (1, 49)
    with pytest.raises(CorpusError) as error:
        corpus.batch(1, 50, generator())
    assert_one_line(str(error.value), "tokens = 50", "51 bytes", "test split of brief.txt has 50")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_documents_lie_end_to_end(lengths):
    corpus = Corpus(np.arange(sum(lengths), dtype=np.uint8), "counting", "", "all", lengths)
    documents = corpus.documents.tolist()
    assert [stop - start for start, stop in documents] == lengths
    assert [byte for start, stop in documents for byte in corpus.data[start:stop]] == list(range(sum(lengths)))


def test_a_text_is_one_document_unless_it_says_otherwise():
    assert Corpus(np.zeros(7, dtype=np.uint8), "zeros", "", "all").documents.tolist() == [[0, 7]]


def test_a_row_that_is_read_on_continues_where_it_was():
    corpus = Corpus(np.arange(200, dtype=np.uint8), "counting", "", "all")
    places = corpus.places(3, 20, generator())
    first, targets = corpus.read(places, 20)
    second, _ = corpus.read(places + 20, 5)
    assert torch.equal(first[:, 0], places)
    assert torch.equal(second[:, 0], targets[:, -1])
    assert second.shape == (3, 5)


def test_a_name_that_is_no_text_has_a_split_too():
    assert split_of(b"caf\xe9.txt".decode("utf-8", "surrogateescape")) in corpora.SPLITS
