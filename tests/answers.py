"""What the tests of the exercises share: how an answer is checked, and what has to come of it."""

from rmat_tutorial import progress
from rmat_tutorial.exercises import EXERCISES, check


def otherwise(*inputs: object) -> None:
    raise AssertionError("check must not call what the notebook goes on with")


def named(case: object) -> str | None:
    """The id of a parameter: the name of an answer."""
    return getattr(case, "__name__", None)


def assert_passes(exercise, answer, capsys) -> None:
    assert check(exercise, answer, otherwise) is answer
    assert capsys.readouterr().out.startswith(f"{exercise}: OK. Right on all ")
    assert progress.exercises() == {exercise: True}


def assert_diagnosed(exercise, answer, words, capsys) -> None:
    assert check(exercise, answer, otherwise) is otherwise
    text = capsys.readouterr().out
    assert text.startswith(f"{exercise}: not right yet. ")
    assert words in text
    assert EXERCISES[exercise].contract in text
    assert progress.exercises() == {exercise: False}
