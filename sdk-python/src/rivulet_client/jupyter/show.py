"""Tables for people. Whatever came from elsewhere is escaped."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from IPython.display import HTML, display
from pydantic import BaseModel

from rivulet_client._wire import write_json

_html: Any = HTML
_show: Any = display

MOST_CHARACTERS = 300
"""How much of a cell is shown; the rest is cut off, with an ellipsis."""


class Area:
    """A place below a cell whose picture can be changed. IPython has no types for it."""

    def __init__(self, picture: str) -> None:
        """Shows it there, as HTML."""
        self._area: Any = _show(_html(picture), display_id=True)

    def show(self, picture: str) -> None:
        """Shows another in its place."""
        self._area.update(_html(picture))


class Table:
    """Rows that a notebook shows as HTML, and a terminal as text."""

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A row is as long as the head. A head of empty texts is not shown."""
        self.head = head
        self.rows = [[_cut(str(cell)) for cell in row] for row in rows]

    @classmethod
    def of_events(cls, events: Iterable[Any]) -> "Table":
        """A row an event."""
        return cls(
            ("seq", "time", "type", "data"),
            [
                (
                    "" if event.seq is None else event.seq,
                    "" if event.time is None else event.time.isoformat(" ", "milliseconds"),
                    event.type,
                    _as_json(event.data),
                )
                for event in events
            ],
        )

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            shown = (f'<{tag} style="text-align:left">{html.escape(cell)}</{tag}>' for cell in cells)
            return f"<tr>{''.join(shown)}</tr>"

        head = f"<thead>{row(self.head, 'th')}</thead>" if any(self.head) else ""
        return f"<table>{head}<tbody>{''.join(row(cells, 'td') for cells in self.rows)}</tbody></table>"

    def __repr__(self) -> str:
        rows = [list(self.head), *self.rows] if any(self.head) else self.rows
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def _as_json(data: BaseModel | Mapping[str, Any]) -> str:
    return write_json(data).decode()


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
