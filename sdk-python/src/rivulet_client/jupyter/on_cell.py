"""A cell that runs for each event."""

import html
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.utils.capture import capture_output

from rivulet_client.jupyter.show import Area
from rivulet_client.pattern import Pattern

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

MOST_OUTPUTS = 50
"""How many outputs a cell shows; the oldest goes."""
MOST_CHARACTERS = 10_000
"""How long one output may be; the rest is cut off, and said to be."""


class OnCell:
    """The body of a `%%on` cell, with the place where its output goes."""

    def __init__(self, shell: "InteractiveShell", patterns: str, body: str) -> None:
        """Compiles the body, and shows a place for its output below the cell. Raises `SyntaxError`."""
        self._patterns = [Pattern(text) for text in patterns.split()]
        if not self._patterns:
            raise ValueError("%%on needs a pattern: %%on blob.*")
        name = f"<%%on {patterns}>"
        # Magics and `!` in it become Python.
        transform: Callable[[str], str] = shell.transform_cell
        self._code = compile(transform(body), name, "exec")
        self._lines = body.splitlines()
        self._name = name
        self._shell = shell
        self._outputs: deque[str] = deque(maxlen=MOST_OUTPUTS)
        self._state = f"on {patterns}"
        self.runs = 0
        """How often it ran."""
        self.errors = 0
        """How often it raised."""
        self._area = Area(self._html())

    def wants(self, event_type: str) -> bool:
        """Whether it runs for events of this type."""
        return any(pattern.matches(event_type) for pattern in self._patterns)

    def run(self, event: Any) -> None:
        """Runs the body with `event` in the notebook's namespace. What it raises is shown, no more."""
        self.runs += 1
        namespace = self._shell.user_ns
        namespace["event"] = event
        fault = ""
        with capture_output() as captured:
            try:
                exec(self._code, namespace)
            except BaseException as error:  # The kernel's loop must not end with it, whatever it is.
                self.errors += 1
                fault = self._said(error)
        printed = _escaped(captured.stdout + captured.stderr)
        shown = [_shown(output.data) for output in captured.outputs]
        parts = [f"<pre>{printed}</pre>" if printed else "", *shown]
        if fault:
            parts.append(f'<pre style="color:#b00020">{_escaped(fault)}</pre>')
        if output := "".join(parts):
            self._outputs.append(output)
            self._show()

    def end(self, why: str) -> None:
        """Says below the cell why it runs no more."""
        self._state = why
        self._show()

    def _said(self, error: BaseException) -> str:
        """The error with the lines of the cell, and without ours."""
        lines: list[str] = []
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == self._name and frame.lineno is not None and frame.lineno <= len(self._lines):
                lines.append(f"line {frame.lineno}: {self._lines[frame.lineno - 1].strip()}\n")
        return "".join(lines) + "".join(traceback.format_exception_only(error))

    def _show(self) -> None:
        self._area.show(self._html())

    def _html(self) -> str:
        state = f"<small>{html.escape(self._state)}: {self.runs} runs, {self.errors} errors</small>"
        return "".join(self._outputs) + state


def _escaped(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]}\n… {len(text) - MOST_CHARACTERS} more characters"
    return html.escape(text)


def _shown(data: dict[str, Any]) -> str:
    """What `display` was given, in its own HTML where it has that."""
    if "text/html" in data:
        return str(data["text/html"])
    return f"<pre>{_escaped(str(data.get('text/plain', '')))}</pre>"
