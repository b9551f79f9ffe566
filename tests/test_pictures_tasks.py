"""The picture of a task shows its stream: every token once, and each question in the colour of its fact."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import FancyBboxPatch
from task_strategies import generator, long_enough, tasks

from rmat_tutorial.pictures.tasks import LONGEST_GAP, boxes_of, example
from rmat_tutorial.tasks import IGNORED, TASKS, StoriesTask

pytestmark = pytest.mark.usefixtures("style")


@given(tasks(), st.integers(0, 200), st.integers(0, 100))
def test_the_boxes_are_the_stream(task, more, seed):
    length = long_enough(task) + more
    tokens, targets = task.batch(1, length, generator(seed))
    body, questions = boxes_of(task, length, seed)
    wanted = [task.decode(token) for token in tokens[0]]
    read = 0
    for box in (*body, *questions):
        gap = re.fullmatch(r"… (\d+) tokens …", box.text)
        if gap:
            read += int(gap[1])
        else:
            said = box.text.split(" ")
            assert said == wanted[read : read + len(said)]
            read += len(said)
    assert read == length
    assert [box.answer for box in questions] == [task.decode(target) for target in targets[0] if target != IGNORED]
    assert sum(not box.background for box in body) == task.episode(1, length, generator(0)).places.shape[1] / task.cell


@given(tasks(), st.integers(0, 30), st.integers(0, 100))
def test_a_question_and_its_fact_have_one_colour(task, more, seed):
    body, questions = boxes_of(task, long_enough(task) + more, seed)
    coloured = [box for box in body if box.colour]
    assert {box.colour for box in coloured} == {box.colour for box in questions}
    if len(coloured) <= 9:  # then they begin again
        for question in questions:
            (fact,) = [box for box in coloured if box.colour == question.colour]
            assert fact.text.replace("=", " ").removesuffix(" .").split()[-1] == question.answer
    assert not any(box.background for box in coloured)


def test_a_long_gap_is_a_number():
    task = TASKS["recall"](facts=1, fact_span=(0.5, 0.6))
    body, _ = boxes_of(task, 5001, 0)
    gaps = [box.text for box in body if "tokens" in box.text]
    assert len(gaps) == 2 and len(body) == 7
    assert sum(int(gap.split()[1].replace(",", "")) for gap in gaps) == 5001 - 1 - 5
    assert len(boxes_of(task, LONGEST_GAP, 0)[0]) == LONGEST_GAP - 1


@settings(max_examples=8)
@given(tasks(), st.integers(0, 200), st.integers(0, 100))
def test_everything_is_within_the_figure_and_its_frame(task, more, seed):
    figure = example(task, long_enough(task) + more, seed)
    figure.canvas.draw()
    (ax,) = figure.axes
    frames = [patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    texts = [text.get_window_extent() for text in ax.texts[1:]]
    legend = figure.legends[0].get_window_extent()
    assert all(frame.x0 >= 0 and frame.x1 <= figure.bbox.x1 and frame.y0 > legend.y0 for frame in frames)
    assert not any(one.overlaps(other) for place, one in enumerate(frames) for other in frames[:place])
    body, questions = boxes_of(task, long_enough(task) + more, seed)
    assert len(frames) == len(body) + len(questions)
    assert len(texts) == len(frames) + len(questions)
    assert all(text.y0 > legend.y1 for text in texts)
    for frame in frames:
        (inside,) = [text for text in texts if frame.overlaps(text) and frame.y0 < (text.y0 + text.y1) / 2 < frame.y1]
        assert frame.x0 < inside.x0 and inside.x1 < frame.x1


def test_the_legend_names_what_there_is():
    def names(task):
        return [text.get_text() for text in example(task, 100).legends[0].get_texts()]

    assert names(TASKS["recall"]())[-1] == "question and the last fact that it rests on"
    assert names(TASKS["rewrite"]())[-1] == names(StoriesTask())[-1] == "other fact"
