"""Predict, then run: a question whose answer is kept, and set beside the result that was measured."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import ipywidgets
from IPython.display import display

from . import progress
from .validate import require_text


class Prediction(ipywidgets.VBox):
    """A question with its options. Choosing one keeps it; it can be changed until ``reveal`` showed the result.

    Attributes: ``question`` (str), ``options`` (tuple of str), ``choices`` (``ipywidgets.RadioButtons``).
    """

    def __init__(self, key: str, question: str, options: Sequence[str]) -> None:
        self.key, self.question, self.options = key, question, tuple(options)
        self.choices = ipywidgets.RadioButtons(
            options=self.options, value=None, layout=ipywidgets.Layout(width="auto")
        )
        self._status = ipywidgets.HTML()
        super().__init__([ipywidgets.HTML(f"<b>{html.escape(question)}</b>"), self.choices, self._status])
        self.add_class("rmat-prediction")
        self.show(self.answer_to_this(progress.predictions().get(key)))
        self.choices.observe(self._keep, "value")

    def answer_to_this(self, kept: progress.KeptAnswer | None) -> progress.KeptAnswer | None:
        """``kept`` if it answers this question, worded like this and with this option; else None."""
        return kept if kept and kept.question == self.question and kept.answer in self.options else None

    def show(self, kept: progress.KeptAnswer | None) -> None:
        """Show what is kept; close the question once its result was shown."""
        self.choices.value = kept.answer if kept else None
        self.choices.disabled = bool(kept and kept.revealed)
        self._status.value = f'<p class="rmat-kept" aria-live="polite">{html.escape(_status(kept))}</p>'

    def _keep(self, change: Any) -> None:
        if change.new is None:
            return
        try:
            kept = progress.keep_prediction(self.key, self.question, change.new)
        except OSError as error:
            reason = html.escape(str(error))
            self._status.value = f'<p role="alert" style="color: #b00020"><b>Not kept:</b> {reason}</p>'
            raise
        self.show(self.answer_to_this(kept))

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        # A viewer without a kernel, or one that does not trust the notebook, passes over the widget to the text.
        listed = "".join(f"<li>{html.escape(option)}</li>" for option in self.options)
        still = f"<p><b>{html.escape(self.question)}</b></p><ul>{listed}</ul><p>Run this cell to choose.</p>"
        plain = "\n".join([self.question, *(f"  ○ {option}" for option in self.options)])
        return super()._repr_mimebundle_(**kwargs) | {"text/html": still, "text/plain": plain}


_asked: dict[str, Prediction] = {}


def predict(key: str, question: str, options: Sequence[str]) -> Prediction:
    """Ask ``question``; the answer, one of ``options``, is kept under ``key`` in the progress file.

    Raises ``TypeError`` or ``ValueError`` for anything that is no text, for fewer than two options and for two that
    are equal, ``OSError`` when the progress file cannot be read.
    """
    require_text("key", key)
    require_text("question", question)
    if isinstance(options, str):
        raise TypeError(f"options must be a sequence of str, got the str {options!r}")
    for option in options:
        require_text("each of options", option)
    if len(options) < 2 or len(set(options)) < len(options):
        raise ValueError(f"options must be two or more, all different, got {list(options)}")
    _asked[key] = Prediction(key, question, options)
    return _asked[key]


def reveal(key: str, outcome: str | int, explanation: str = "") -> None:
    """Show the answer kept under ``key`` beside ``outcome``, the option that was measured or its index.

    ``explanation`` is a sentence that gives the measurement. From now on the answer is not changed. Raises
    ``ValueError`` when ``key`` was not asked since the kernel started or ``outcome`` is none of its options.
    """
    if key not in _asked:
        raise ValueError(f"key must be one asked above, got {key!r}: first run the cell with predict({key!r}, ...)")
    question = _asked[key]
    measured = _option(question.options, outcome)
    kept = question.answer_to_this(progress.predictions().get(key))
    if kept is None:
        lines = [f"No prediction kept. Measured: {measured}"]
    else:
        question.show(progress.reveal_prediction(key))
        verdict = "Your prediction held." if kept.answer == measured else "The measurement says otherwise."
        lines = [f"You predicted: {kept.answer}", f"Measured: {measured}", verdict]
    lines += [explanation] if explanation else []
    # With its question: it was asked cells ago, and one cell may reveal two.
    asked, told = html.escape(question.question), "<br>".join(map(html.escape, lines))
    display(
        {
            "text/html": f'<div class="rmat-reveal"><p><b>{asked}</b><br>{told}</p></div>',
            "text/plain": "\n".join([question.question, *lines]),
        },
        raw=True,
    )


def nearest(values: Sequence[float], measured: float, *, by_ratio: bool = False) -> int:
    """Index of the one of ``values`` that comes nearest to ``measured``: by difference, or by ratio where all are > 0.

    For ``reveal``, when the options are numbers and the outcome lies between them.
    """
    def distance(value: float) -> float:
        return abs(math.log(value / measured)) if by_ratio else abs(value - measured)

    return min(range(len(values)), key=lambda index: distance(values[index]))


def _option(options: Sequence[str], outcome: str | int) -> str:
    if isinstance(outcome, str) and outcome in options:
        return outcome
    if isinstance(outcome, int) and not isinstance(outcome, bool) and 0 <= outcome < len(options):
        return options[outcome]
    raise ValueError(f"outcome must be one of {list(options)} or its index from 0, got {outcome!r}")


def _status(kept: progress.KeptAnswer | None) -> str:
    if kept is None:
        return "Choose one. It is kept, and you can change it until the result is shown."
    if kept.revealed:
        return f"Kept before the result was shown: {kept.answer}"
    return f"Kept: {kept.answer}. You can change it until the result is shown."
