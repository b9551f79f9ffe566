"""Stories: people go from place to place and pick things up, told in sentences among sentences about something else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from .placed import Episode, VariedTask, distinct, each_at_least_once, last_columns, permutations
from .source import IGNORED

PEOPLE = ("mary", "john", "sandra", "daniel", "julie", "fred")
PLACES = ("kitchen", "garden", "office", "bathroom", "bedroom", "hallway", "park", "school")
OBJECTS = ("apple", "football", "milk", "book", "key", "lamp")
ADJECTIVES = ("old", "young", "small", "grey")
ANIMALS = ("dog", "horse", "bird", "fish")
VERBS = ("slept", "waited", "turned", "rested")
ADVERBS = ("quietly", "again", "outside", "alone")

WORDS = (
    "the", ".", *ADJECTIVES, *ANIMALS, *VERBS, *ADVERBS, *PEOPLE, *PLACES, *OBJECTS,
    "went", "to", "picked", "up", "where", "is",
)
_NUMBER = {word: number for number, word in enumerate(WORDS)}


def _tokens(sentence: Iterable[str]) -> list[int]:
    return [_NUMBER[word] for word in sentence]


_BACKGROUND = torch.tensor([_tokens(("the", *words, ".")) for words in product(ADJECTIVES, ANIMALS, VERBS, ADVERBS)])


@dataclass(frozen=True)
class StoriesTask(VariedTask):
    """Who is where, and where things are, in the manner of bAbI and BABILong, a token each word.

    Two kinds of sentences lie at random places among sentences about animals: "mary went to the kitchen ." and "mary
    picked up the apple ." All have six words. The place where somebody went last is where they are, whatever was said
    before. Each object is picked up once, by someone who goes somewhere afterwards, and stays with them. Each person
    goes somewhere at least once. The places are drawn one by one, so a place says nothing about the next.

    At the end, with ``hops=1``, "where is mary" is asked for each person, which takes one sentence to answer. With
    ``hops=2``, "where is the apple" is asked for each object, which takes two: who has it, and where they went. The
    answer belongs to the last word of the question. The stories are the same for both.

    A reader who says the place that was mentioned last is right more often than one who guesses.

    Attributes:
        people, places, objects: how many of each there are. Guessing scores ``1 / places``. Who the people are, and
            which the objects, is drawn for each story.
        moves: sentences that say where somebody went.
        hops: sentences that an answer rests on, 1 or 2.
        noise_sentences: different sentences about animals that the others lie among.
        fact_span: the part of the stream before the questions in which the story lies, as two fractions.

    The vocabulary is ``WORDS`` for all of them, so a model can be scored on other stories than it was trained on.

    Sources: Weston and others 2015, arXiv 1502.05698, tasks 1 and 2; Kuratov and others 2024, arXiv 2406.10149.
    """

    people: int = 6
    places: int = 8
    objects: int = 1
    moves: int = 12
    hops: int = 1
    noise_sentences: int = len(_BACKGROUND)
    fact_span: tuple[float, float] = (0.0, 1.0)

    kind = "stories"
    load = "moves"
    answer_field = "places"
    cell = 6
    vocab_size = len(WORDS)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, names in (("people", PEOPLE), ("places", PLACES), ("objects", OBJECTS)):
            count = getattr(self, name)
            if count > len(names):
                raise ValueError(f"{name} must be at most {len(names)}, as many as have a name, got {count}")
        if self.moves < self.people:
            raise ValueError(
                f"moves must be at least people = {self.people}, since each of them goes somewhere, got {self.moves}"
            )
        if self.hops > 2:
            raise ValueError(f"hops must be 1 or 2, got {self.hops}")
        if self.noise_sentences > len(_BACKGROUND):
            raise ValueError(f"noise_sentences must be at most {len(_BACKGROUND)}, got {self.noise_sentences}")

    @property
    def question_tokens(self) -> int:
        return 3 * self.people if self.hops == 1 else 4 * self.objects

    @property
    def least_load(self) -> int:
        return self.people

    def _most_load(self, tokens: int) -> int:
        return (tokens - self.question_tokens) // self.cell - self.objects

    def _label(self, token: int) -> str:
        """The word."""
        return WORDS[token]

    def _needs(self) -> tuple[int, str]:
        return self.moves + self.objects, f"{self.moves + self.objects} sentences of six words"

    def _background(self) -> Tensor:
        return _BACKGROUND[: self.noise_sentences]

    def _draw(self, batch_size: int, first: int, cells: int, generator: torch.Generator) -> Episode:
        who = each_at_least_once(batch_size, self.people, self.moves, generator)
        where = _number(PLACES) + torch.randint(self.places, (batch_size, self.moves), generator=generator)
        holders = torch.randint(self.people, (batch_size, self.objects), generator=generator)
        last = last_columns(who, self.people)
        names = _number(PEOPLE) + permutations(batch_size, len(PEOPLE), generator)[:, : self.people]
        things = _number(OBJECTS) + permutations(batch_size, len(OBJECTS), generator)[:, : self.objects]
        taken_before = last.gather(1, holders)
        story = torch.cat([
            _sentences("mary went to the kitchen .", {0: names.gather(1, who), 4: where}),
            _sentences("mary picked up the apple .", {0: names.gather(1, holders), 4: things}),
        ], dim=1)
        begins = distinct(batch_size, self.moves + self.objects, cells, generator).sort(dim=1).values
        begins = first + self.cell * begins.gather(1, _order(self.moves, taken_before, generator))

        decisive = last if self.hops == 1 else taken_before
        turn = permutations(batch_size, decisive.shape[1], generator)
        decisive = decisive.gather(1, turn)
        questions = (
            _sentences("where is mary", {2: names.gather(1, turn)}) if self.hops == 1
            else _sentences("where is the apple", {3: things.gather(1, turn)})
        )
        targets, sources = torch.full_like(questions, IGNORED), torch.zeros_like(questions)
        targets[..., -1] = where.gather(1, decisive)
        sources[..., -1] = begins.gather(1, decisive) + 4
        return Episode(
            places=(begins[..., None] + torch.arange(self.cell)).flatten(1),
            facts=story.flatten(1),
            questions=questions.flatten(1),
            targets=targets.flatten(1),
            sources=sources.flatten(1),
        )

    def _answers(self, tokens: Iterable[int]) -> Iterator[int]:
        place: dict[str, str] = {}
        holder: dict[str, str] = {}
        sentence: list[str] = []
        for word in map(self.decode, tokens):
            if word == "where":
                sentence.clear()
            sentence.append(word)
            answer = None
            match sentence:
                case [person, "went", "to", "the", where, "."]:
                    place[person] = where
                case [person, "picked", "up", "the", thing, "."]:
                    holder[thing] = person
                case ["where", "is", "the", thing]:
                    answer = place.get(holder.get(thing, ""))
                case ["where", "is", person] if person in PEOPLE:
                    answer = place.get(person)
            if word == ".":
                sentence.clear()
            yield IGNORED if answer is None else _NUMBER[answer]


def _number(names: tuple[str, ...]) -> int:
    """The token of the first of ``names``; the others follow."""
    return _NUMBER[names[0]]


def _sentences(example: str, words: dict[int, Tensor]) -> Tensor:
    """``example`` with other ``words`` ``(B, n)`` in some of its positions, ``(B, n, length)``."""
    shape = next(iter(words.values())).shape
    sentences = torch.tensor(_tokens(example.split())).repeat(*shape, 1)
    for position, tokens in words.items():
        sentences[..., position] = tokens
    return sentences


def _order(moves: int, taken_before: Tensor, generator: torch.Generator) -> Tensor:
    """When each sentence is told, from 0, ``(B, moves + n)``: the moves in their order, and then what is picked up,
    each at some time before the move that ``taken_before`` ``(B, n)`` names."""
    rows = len(taken_before)
    moved = torch.rand(rows, moves, dtype=torch.float64, generator=generator).sort(dim=1).values
    share = torch.rand(taken_before.shape, dtype=torch.float64, generator=generator)
    taken = share * moved.gather(1, taken_before)
    return torch.cat([moved, taken], dim=1).argsort(dim=1).argsort(dim=1)
