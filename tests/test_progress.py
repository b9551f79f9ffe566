"""Answers are kept over restarts, damage and concurrent notebooks, and set beside what was measured."""

import json
import os
import subprocess
import sys

import pytest

from rmat_tutorial import folders, predictions, progress
from rmat_tutorial.predictions import nearest, predict, reveal

QUESTION = "Twice the tokens: how much more memory for the weights?"
OPTIONS = ("the same", "2 times", "4 times")


@pytest.fixture(autouse=True)
def learner(tmp_path, monkeypatch):
    monkeypatch.setenv("RMAT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(predictions, "_asked", {})


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(predictions, "display", lambda data, raw: outputs.append(data))
    return outputs


def in_another_process(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))


# --- folders


def test_home_is_made_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("RMAT_HOME", str(tmp_path / "deep" / "er"))
    assert folders.home() == tmp_path / "deep" / "er"
    assert folders.home().is_dir()


def test_home_is_in_the_users_folder_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("RMAT_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert folders.home() == tmp_path / ".rmat_tutorial"


def test_a_home_that_cannot_be_made_is_named_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RMAT_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"the folder for your answers, .*file, cannot be made .*set .* RMAT_HOME"):
        folders.home()


def test_a_home_that_cannot_be_written_is_named_with_the_remedy(monkeypatch):
    # Asked of the system and not tried: a test may run as root, who can write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(OSError, match=r"the folder for your answers, .*, cannot be written: set .* RMAT_HOME"):
        folders.home()


def test_data_is_the_folder_of_the_repository():
    assert (folders.data().parent / "pyproject.toml").is_file()


def test_data_says_how_to_install_when_the_repository_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "__file__", str(tmp_path / "site-packages" / "rmat_tutorial" / "folders.py"))
    with pytest.raises(FileNotFoundError, match=r"site-packages.data: .*pip install -e \."):
        folders.data()


# --- the progress file


def test_nothing_is_kept_at_first():
    assert progress.predictions() == {} and progress.exercises() == {}
    assert not progress.path().exists()


def test_an_answer_is_there_after_a_restart():
    progress.keep_prediction("cost", QUESTION, "4 times")
    code = "from rmat_tutorial import progress; print(progress.predictions()['cost'].answer)"
    assert in_another_process(code).communicate()[0].strip() == "4 times"


def test_the_file_is_json_that_a_teacher_can_collect():
    progress.keep_prediction("cost", QUESTION, "4 times")
    progress.record_exercise("causal_mask", True)
    assert json.loads(progress.path().read_text(encoding="utf-8")) == {
        "predictions": {"cost": {"question": QUESTION, "answer": "4 times", "revealed": False}},
        "exercises": {"causal_mask": True},
    }


def test_an_answer_can_be_changed_until_its_result_was_shown():
    progress.keep_prediction("cost", QUESTION, "the same")
    assert progress.keep_prediction("cost", QUESTION, "2 times").answer == "2 times"
    assert progress.reveal_prediction("cost").answer == "2 times"
    assert progress.keep_prediction("cost", QUESTION, "4 times").answer == "2 times"
    assert progress.predictions()["cost"] == progress.KeptAnswer(QUESTION, "2 times", revealed=True)


def test_a_question_in_new_words_is_asked_again():
    progress.keep_prediction("cost", "old words", "4 times")
    progress.reveal_prediction("cost")
    assert progress.keep_prediction("cost", QUESTION, "2 times").answer == "2 times"


def test_an_exercise_once_solved_stays_solved():
    progress.record_exercise("heads", False)
    assert progress.exercises() == {"heads": False}
    progress.record_exercise("heads", True)
    progress.record_exercise("heads", False)
    assert progress.exercises() == {"heads": True}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"predictions": {"cost": {"quest',
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'{"predictions": {}}',
        b'{"predictions": [], "exercises": {}}',
        b'{"predictions": {"cost": "4 times"}, "exercises": {}}',
        b'{"predictions": {"cost": {"question": 1, "answer": null}}, "exercises": {}}',
        b'{"predictions": {}, "exercises": {"heads": "yes"}}',
        b'{"predictions": {}, "exercises": []}x',
        b'{"predictions": {}, "exercises": 3}',
    ],
)
def test_a_damaged_file_is_set_aside_with_a_message(damage, capsys):
    progress.path().write_bytes(damage)
    assert progress.predictions() == {}
    message = capsys.readouterr().err
    assert str(progress.path()) in message and "renamed to progress-damaged-1.json" in message
    assert (folders.home() / "progress-damaged-1.json").read_bytes() == damage
    progress.record_exercise("heads", True)
    assert progress.exercises() == {"heads": True}
    assert capsys.readouterr().err == ""


def test_a_second_damaged_file_does_not_overwrite_the_first():
    for damage in ("one", "two"):
        progress.path().write_text(damage)
        progress.exercises()
    kept = [(folders.home() / f"progress-damaged-{number}.json").read_text() for number in (1, 2)]
    assert kept == ["one", "two"]


def test_a_write_that_is_cut_short_leaves_the_old_file_whole(monkeypatch):
    progress.record_exercise("heads", True)

    def cut_short(descriptor):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", cut_short)
        with pytest.raises(OSError, match="no space left"):
            progress.record_exercise("causal_mask", True)
    assert progress.exercises() == {"heads": True}
    progress.record_exercise("causal_mask", True)
    assert progress.exercises() == {"heads": True, "causal_mask": True}


def test_notebooks_open_at_once_lose_none_of_each_others_answers():
    code = (
        "from rmat_tutorial import progress\n"
        "for number in range(40):\n"
        "    progress.keep_prediction(f'{name}-{{number}}', 'How many?', str(number))\n"
        "    progress.record_exercise(f'{name}-{{number}}', True)\n"
    )
    running = [in_another_process(code.replace("{name}", name).replace("{{", "{").replace("}}", "}")) for name in "abc"]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    wanted = {f"{name}-{number}" for name in "abc" for number in range(40)}
    assert set(progress.predictions()) == set(progress.exercises()) == wanted


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: progress.keep_prediction("", QUESTION, "4 times"), ValueError, "key must say something"),
        (lambda: progress.keep_prediction("cost", QUESTION, 4), TypeError, "answer must be a str, got 4"),
        (lambda: progress.reveal_prediction("cost"), ValueError, "key must be that of an answer kept, got 'cost'"),
        (lambda: progress.record_exercise("heads", 1), TypeError, "passed must be a bool, got 1"),
        (lambda: progress.record_exercise(None, True), TypeError, "name must be a str, got None"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- predict and reveal


def status(question: predictions.Prediction) -> str:
    return question.children[-1].value


def test_choosing_keeps():
    question = predict("cost", QUESTION, OPTIONS)
    assert question.choices.value is None and "Choose one" in status(question)
    question.choices.value = "2 times"
    assert progress.predictions()["cost"] == progress.KeptAnswer(QUESTION, "2 times")
    assert "Kept: 2 times" in status(question)
    question.choices.value = "4 times"
    assert progress.predictions()["cost"].answer == "4 times" and "Kept: 4 times" in status(question)


def test_what_was_kept_is_shown_when_asked_again():
    predict("cost", QUESTION, OPTIONS).choices.value = "2 times"
    again = predict("cost", QUESTION, OPTIONS)
    assert again.choices.value == "2 times" and not again.choices.disabled
    assert "Kept: 2 times" in status(again)


def test_the_reveal_sets_the_answer_beside_the_measurement_and_closes_the_question(shown):
    question = predict("cost", QUESTION, OPTIONS)
    question.choices.value = "2 times"
    reveal("cost", "4 times", "From 64 to 128 tokens: 16 KiB to 64 KiB.")
    assert shown[0]["text/plain"].splitlines() == [
        QUESTION,
        "You predicted: 2 times",
        "Measured: 4 times",
        "The measurement says otherwise.",
        "From 64 to 128 tokens: 16 KiB to 64 KiB.",
    ]
    assert shown[0]["text/html"] == (
        f'<div class="rmat-reveal"><p><b>{QUESTION}</b><br>You predicted: 2 times<br>Measured: 4 times<br>'
        "The measurement says otherwise.<br>From 64 to 128 tokens: 16 KiB to 64 KiB.</p></div>"
    )
    assert question.choices.disabled
    assert predict("cost", QUESTION, OPTIONS).choices.disabled


def test_a_prediction_that_held_is_said_to_hold(shown):
    predict("cost", QUESTION, OPTIONS).choices.value = "4 times"
    reveal("cost", 2)
    assert shown[0]["text/plain"] == f"{QUESTION}\nYou predicted: 4 times\nMeasured: 4 times\nYour prediction held."


def test_an_untouched_question_is_revealed_and_stays_open(shown):
    question = predict("cost", QUESTION, OPTIONS)
    reveal("cost", 2, "Measured twice.")
    assert shown[0]["text/plain"] == f"{QUESTION}\nNo prediction kept. Measured: 4 times\nMeasured twice."
    assert not progress.path().exists()
    question.choices.value = "the same"
    assert progress.predictions()["cost"].answer == "the same"


def test_a_choice_made_after_the_reveal_in_another_notebook_is_taken_back():
    question = predict("cost", QUESTION, OPTIONS)
    question.choices.value = "2 times"
    progress.reveal_prediction("cost")
    question.choices.value = "4 times"
    assert question.choices.value == "2 times" and question.choices.disabled
    assert "Kept before the result was shown: 2 times" in status(question)


def test_an_answer_to_other_options_is_not_shown_as_chosen(shown):
    predict("cost", QUESTION, ["half", "double"]).choices.value = "half"
    question = predict("cost", QUESTION, OPTIONS)
    assert question.choices.value is None
    reveal("cost", 2)
    assert shown[0]["text/plain"].startswith(f"{QUESTION}\nNo prediction kept.")
    question.choices.value = "4 times"
    assert question.choices.value == "4 times" and progress.predictions()["cost"].answer == "4 times"


def test_text_is_shown_as_text(shown):
    question = predict("cost", "Is a < b & c?", ["<b>yes</b>", "no"])
    assert "a &lt; b &amp; c" in question.children[0].value
    question.choices.value = "<b>yes</b>"
    reveal("cost", "<b>yes</b>", "a < b")
    assert "&lt;b&gt;yes&lt;/b&gt;" in shown[0]["text/html"] and "a &lt; b" in shown[0]["text/html"]
    assert "<b>yes</b>" in shown[0]["text/plain"]
    assert "<b>yes" not in status(question)


def test_a_choice_that_cannot_be_kept_says_so(monkeypatch, tmp_path):
    question = predict("cost", QUESTION, OPTIONS)
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RMAT_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="cannot be made"):
        question.choices.value = "4 times"
    assert "Not kept:" in status(question) and "RMAT_HOME" in status(question)


def test_a_viewer_without_a_kernel_gets_the_question():
    question = predict("cost", QUESTION, OPTIONS)
    before = question._repr_mimebundle_()
    assert before["text/plain"].splitlines() == [QUESTION, "  ○ the same", "  ○ 2 times", "  ○ 4 times"]
    assert QUESTION in before["text/html"] and all(f"<li>{option}</li>" in before["text/html"] for option in OPTIONS)
    assert before["application/vnd.jupyter.widget-view+json"]["model_id"] == question.model_id
    question.choices.value = "4 times"
    assert question._repr_mimebundle_()["text/html"] == before["text/html"], "no answer is stored in a notebook"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["only"], ValueError, r"options must be two or more, all different, got \['only'\]"),
        (["a", "a"], ValueError, "all different"),
        ("ab", TypeError, "options must be a sequence of str, got the str 'ab'"),
        (["a", 2], TypeError, "each of options must be a str, got 2"),
        (["a", ""], ValueError, "each of options must say something"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        predict("cost", QUESTION, options)


@pytest.mark.parametrize("outcome", ["8 times", 3, -1, True, 2.0, None])
def test_an_outcome_that_is_no_option_is_named(outcome):
    predict("cost", QUESTION, OPTIONS)
    with pytest.raises(ValueError, match=r"outcome must be one of .* or its index from 0, got"):
        reveal("cost", outcome)


def test_a_question_that_was_not_asked_is_named():
    with pytest.raises(ValueError, match=r"got 'cost': first run the cell with predict\('cost', \.\.\.\)"):
        reveal("cost", 0)


@pytest.mark.parametrize(
    ("values", "measured", "difference", "ratio"),
    [([2, 4, 8], 5.8, 1, 2), ([1, 2, 4], 1.0, 0, 0), ([1 / 16, 1 / 4, 1], 1.5, 2, 2), ([10, 100], 40, 0, 1)],
)
def test_the_nearest_option_by_difference_and_by_ratio(values, measured, difference, ratio):
    assert nearest(values, measured) == difference
    assert nearest(values, measured, by_ratio=True) == ratio


def test_an_option_may_be_zero_where_differences_count():
    assert nearest([1, 0.5, 0.25, 0], 0.1) == 3
