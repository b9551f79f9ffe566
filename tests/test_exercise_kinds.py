"""Exercises whose result is a number, a mask, what a call leaves behind, or no matter of gradients; questions; sizes
that have to fit together."""

import pytest
import torch

from rmat_tutorial.exercises import checker
from rmat_tutorial.exercises.diagnosis import diagnose
from rmat_tutorial.exercises.exercise import Case, Exercise, Mistake, Unfit, random_tensor

COUNT = Exercise(
    name="demo.count",
    contract="count(T, C) -> the number of chunks, the shorter last one included.",
    inputs=("T", "C"),
    output=(),
    example=Case({"T": 7, "C": 3}, (7, 3)),
    draw=lambda sizes, random: (sizes["T"], sizes["C"]),
    reference=lambda T, C: torch.tensor(float(len(range(0, T, C))), dtype=torch.float64),
    mistakes=(Mistake("The shorter last chunk is missing.", lambda T, C: torch.tensor(T // C)),),
)
EVEN = Exercise(
    name="demo.even",
    contract="even(n) -> (n,) bool: whether each number from 0 is even.",
    inputs=("n",),
    output=("n",),
    example=Case({"n": 4}, (4,)),
    draw=lambda sizes, random: (sizes["n"],),
    reference=lambda n: torch.tensor([i % 2 == 0 for i in range(n)]).double(),
    mistakes=(Mistake("These are the odd ones.", lambda n: torch.arange(n) % 2 == 1),),
    dtype=torch.bool,
)
APPLY = Exercise(
    name="demo.apply",
    contract="apply(function, x (n, p), index (n,)) -> (n, p): function of x, its rows in the order of index.",
    inputs=("function", "x", "index"),
    output=("n", "p"),
    example=Case({"n": 2, "p": 2}, (torch.exp, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0]))),
    draw=lambda sizes, random: (torch.exp, random_tensor(random, sizes["n"], sizes["p"]),
                                torch.tensor(random.sample(range(sizes["n"]), sizes["n"]))),
    reference=lambda function, x, index: torch.stack([function(x[i].double()) for i in index.tolist()]),
    mistakes=(),
    fit=lambda sizes: sizes | {"p": 2 * sizes["p"]},
)
FILL = Exercise(
    name="demo.fill",
    contract="fill(basket, n) -> None: puts n ones into the basket, which may hold some things already.",
    inputs=("basket", "n"),
    output=(),
    example=Case({"n": 2}, ([5], 2)),
    draw=lambda sizes, random: ([random.randrange(9)], sizes["n"]),
    reference=lambda basket, n: torch.tensor(float(sum(basket) + n), dtype=torch.float64),
    mistakes=(Mistake("The basket was emptied.", lambda basket, n: basket.__setitem__(slice(None), [1] * n)),),
    outcome=lambda result, basket, n: sum(basket) if result is None else Unfit("Return nothing."),
)
QUESTION = Exercise(
    name="demo.question",
    contract="question() -> the two secret numbers.",
    inputs=(),
    output=("secrets",),
    example=Case({"secrets": 2}, ()),
    draw=lambda sizes, random: (),
    reference=lambda: torch.tensor([47.0, 11.0], dtype=torch.float64),
    mistakes=(),
    outcome=lambda result: torch.tensor(result),
)


@pytest.mark.parametrize(
    "answer",
    [lambda T, C: -(-T // C), lambda T, C: (T + C - 1) // C, lambda T, C: float(len(range(0, T, C))),
     lambda T, C: torch.tensor(T / C).ceil()],
)
def test_a_number_may_be_of_any_kind(answer):
    assert diagnose(COUNT, answer) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda T, C: T // C, "The shorter last chunk is missing."),
        (lambda T, C: "3", "returned a str; it must return a number"),
        (lambda T, C: T > C, "returned a bool; it must return a number"),
        (lambda T, C: torch.tensor([-(-T // C)]), "returned a tensor of shape (1,); it must return one number"),
        (lambda T, C: 2 * -(-T // C), "2 times the right one"),
        (lambda T, C: T // 0, "ZeroDivisionError"),
    ],
)
def test_a_wrong_number_is_diagnosed(answer, words):
    diagnosis = diagnose(COUNT, answer).diagnosis
    assert words in diagnosis and "float64" not in diagnosis


def test_a_mask_has_its_own_dtype_and_no_gradient():
    assert not EVEN.has_gradients and diagnose(EVEN, lambda n: torch.arange(n) % 2 < 1) is None
    assert "it must be torch.bool" in diagnose(EVEN, lambda n: 1 - torch.arange(n) % 2).diagnosis
    assert diagnose(EVEN, lambda n: torch.arange(n) % 2 > 0).diagnosis == "These are the odd ones."


def test_sizes_are_fitted_and_whole_numbers_stay_whole():
    cases = APPLY.cases()
    assert all(case.inputs[1].shape == (case.sizes["n"], case.sizes["p"]) for case in cases)
    assert all(case.sizes["p"] % 2 == 0 and case.inputs[2].dtype == torch.int64 for case in cases)
    assert any(case.is_double for case in cases)


def test_gradients_are_those_of_the_inputs_that_have_any():
    assert APPLY.has_gradients and diagnose(APPLY, lambda function, x, index: function(x)[index]) is None
    cut = diagnose(APPLY, lambda function, x, index: function(x.detach())[index]).diagnosis
    assert "no gradient reaches the inputs" in cut or "no gradient reaches x" in cut


def test_what_a_call_leaves_behind_is_compared():
    def fill(basket, n):
        assert torch.is_grad_enabled()
        basket += [1] * n

    with torch.no_grad():
        assert diagnose(FILL, fill) is None
        assert diagnose(FILL, fill) is None, "the first round changed the inputs of the second"
    assert diagnose(FILL, FILL.mistakes[0].answer).diagnosis == "The basket was emptied."
    assert diagnose(FILL, lambda basket, n: n).diagnosis == "Return nothing."


@pytest.mark.usefixtures("own_home")
def test_a_question_is_asked_once_and_a_failure_gives_nothing_away(capsys, monkeypatch):
    monkeypatch.setattr(checker, "find", lambda name: QUESTION)
    assert len(QUESTION.cases()) == 1
    right, wrong = lambda: [47.0, 11.0], lambda: [47.0, 13.0]
    assert checker.check("demo.question", right, print) is right
    assert "OK. Right on all 2 secrets." in capsys.readouterr().out
    assert checker.check("demo.question", wrong, print) is print
    text = capsys.readouterr().out
    assert "not right yet" in text and "11" not in text and "47" not in text
