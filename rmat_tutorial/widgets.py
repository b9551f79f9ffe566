"""The widget of the course: controls, a picture that follows them, and a sentence that says what it shows."""

from __future__ import annotations

import html
from typing import Any, Protocol

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .plots import png
from .validate import require_text

_CAPTION = '<p class="rmat-caption" aria-live="polite" style="font-size: larger; margin: 0">{}</p>'


class Picture(Protocol):
    """What an ``Explorer`` shows: a figure that is built once, and a way to change what it shows."""

    figure: Figure

    def draw(self, **values: Any) -> str:
        """Update the artists of ``figure`` in place; return one sentence that says what can be seen now.

        Where the values allow no picture, clear the artists and let the sentence say why.
        """


class Explorer(ipywidgets.VBox):
    """A picture with its controls, redrawn each time that a control moves.

    ``controls`` are widgets with a value; ``picture.draw`` receives the values by the same names. When one of
    them is a ``Button``, the picture waits until it is pressed. The figure is laid out once, at its first drawing.

    Attributes: ``controls`` (dict of name to widget), ``caption`` (str), ``image`` (``ipywidgets.Image``),
    ``png`` (bytes).

    Raises ``TypeError`` for a control that is no widget with a value, and what ``picture.draw`` raises: here, and
    again in the cell that sets a control. A reader who moves a control sees the error in place of the picture.
    """

    def __init__(self, picture: Picture, *, title: str, **controls: ipywidgets.Widget) -> None:
        require_text("title", title)
        for name, control in controls.items():
            if not isinstance(control, (ipywidgets.Button, ipywidgets.ValueWidget)):
                raise TypeError(f"{name} must be a widget with a value or a Button, got {type(control).__name__}")
        self.picture = picture
        self.controls = controls
        self._button = next((c for c in controls.values() if isinstance(c, ipywidgets.Button)), None)
        self._valued = {name: c for name, c in controls.items() if not isinstance(c, ipywidgets.Button)}
        self._at_first = {name: control.value for name, control in self._valued.items()}
        self._is_being_set = False
        self.caption = ""
        width, height = picture.figure.canvas.get_width_height()
        self.image = ipywidgets.Image(
            format="png",
            width=width,
            height=height,
            # Without these an Image is stretched to the width of its box.
            layout=ipywidgets.Layout(align_self="flex-start", max_width="100%", height="auto"),
        )
        self._caption = ipywidgets.HTML()
        self._notice = ipywidgets.HTML()
        heading = ipywidgets.HTML(f'<b style="font-size: larger">{html.escape(title)}</b>')
        super().__init__([heading, *controls.values(), self._notice, self.image, self._caption])
        self.redraw()
        picture.figure.set_layout_engine("none")
        # From here on the figure belongs to this widget; pyplot would show it a second time.
        plt.close(picture.figure)
        self._line_up()
        self._connect()

    @property
    def png(self) -> bytes:
        """The picture as it is now."""
        return bytes(self.image.value)

    def set(self, **values: Any) -> str:
        """Set the controls named in ``values``, and every other to what it was at first; return the caption.

        The picture is drawn once; a button is not waited for. Raises ``ValueError`` for a name that is no control
        and for a value that the control cannot have.
        """
        for name in values:
            if name not in self._at_first:
                raise ValueError(f"{name!r} is no control; known: {', '.join(map(repr, self._at_first))}")
        self._is_being_set = True
        try:
            for name, value in (self._at_first | values).items():
                self.controls[name].value = value
                taken = self.controls[name].value
                if taken != value:
                    raise ValueError(f"{name} cannot be {value!r}: its control made {taken!r} of it")
        finally:
            self._is_being_set = False
        self.redraw()
        return self.caption

    def redraw(self) -> None:
        """Draw the picture for the values that the controls have now; raise what drawing raises."""
        values = {name: control.value for name, control in self._valued.items()}
        try:
            self.caption = self.picture.draw(**values)
            self.show(self.caption)
        except Exception as error:
            # Without this an error raised by a drag is lost, and the old picture stays as if it were the answer.
            self.caption = ""
            self._caption.value = ""
            self.image.layout.display = "none"
            self._notice.value = (
                '<p class="rmat-error" role="alert" style="color: #b00020"><b>This could not be drawn.</b> '
                f"{html.escape(f'{type(error).__name__}: {error}')}</p>"
            )
            raise

    def show(self, sentence: str) -> None:
        """Show the figure as it is now above ``sentence``; a ``draw`` that takes long can call this on its way."""
        self.image.value = png(self.picture.figure)
        self.image.layout.display = None
        self._notice.value = ""
        self._caption.value = _CAPTION.format(html.escape(sentence))

    def _line_up(self) -> None:
        described = [control for control in self._valued.values() if hasattr(control, "description")]
        longest = max((len(control.description) for control in described), default=0)
        for control in described:
            control.style.description_width = f"{longest + 1}ch"
            if not isinstance(control, (ipywidgets.Checkbox, ipywidgets.ToggleButtons)):
                control.layout.width = control.layout.width or "min(100%, 40em)"

    def _connect(self) -> None:
        # The classes tell a test in a browser which controls change the picture, and when.
        self.add_class("rmat-explorer")
        if self._button is not None:
            self._button.add_class("rmat-go")
            self._button.on_click(lambda _: self.redraw())
        for control in self._valued.values():
            if self._button is None:
                control.add_class("rmat-live")
                control.observe(lambda _: self._is_being_set or self.redraw(), "value")
            else:
                control.add_class("rmat-waiting")
                control.observe(lambda _: self._wait(), "value")

    def _wait(self) -> None:
        if self._is_being_set:
            return
        self._notice.value = f"<p>Changed. Press “{html.escape(self._button.description)}” to see it.</p>"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # A viewer without a kernel, or one that does not trust the notebook, passes over the widget to the picture.
        data = super()._repr_mimebundle_(**kwargs) | {"image/png": self.png, "text/plain": self.caption}
        return data, {"image/png": {"alt": self.caption, "width": int(self.image.width)}}
